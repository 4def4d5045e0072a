"""FLOW: back-pressure."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import clog
from wsbridge.conformance.checks.recv import deflated, echo
from wsbridge.conformance.client import Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.hand_clock import now
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.server_process import MIB, Measured, measured
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel

__all__ = ["warm"]

OFFERED = 256 * MIB
BOUND = 16 * MIB
_KERNEL = 64 * MIB  # bytes: more than any system buffers for one connection, so that the rest need not be tried


@asynccontextmanager
async def warm(memory: Measured, target: str = "/echo", **options: Any) -> AsyncGenerator[WirePeer, None]:
    """Use once what is needed once, take the baseline, and yield a peer at ``target``."""
    for _ in range(3):
        async with memory.served.peer("/echo", **options) as peer:
            for size in (0, 1000, 300_000):
                await peer.send_binary(bytes(size))
                await peer.receive_binary()
                await peer.send_in_parts(Opcode.TEXT, [b"x" * size, b""])
                await peer.receive_text()
            await peer.send_close(1000)
            await peer.wait_eof()
    async with memory.served.peer(target, **options) as peer:
        await memory.baseline()
        yield peer


# ---- FLOW-1 ---------------------------------------------------------------------------------------------------------


def busy_application(**options: Any) -> Application:
    """Return an application whose ``/busy`` works on the first message, or in ``on_open``, until the end of time."""

    async def busy(*arguments: Any) -> None:
        await asyncio.Event().wait()

    return Application(
        [
            ("/echo", WebSocketOptions(on_text=echo, on_binary=echo, **options)),
            ("/busy", WebSocketOptions(on_text=busy, on_binary=busy, **options)),
            ("/opening", WebSocketOptions(on_open=busy, **options)),
        ]
    )


async def _flooded(bench: Bench, target: str, *sizes: int) -> None:
    async with measured(bench, busy_application) as memory:
        for size in sizes:
            # a read of tiny frames is parsed in turns (FLOW-3), in which nothing more is taken
            timeout = 0.2 * bench.scale if size > 100 else max(1.0, bench.scale)
            async with warm(memory, target) as peer:
                taken = await peer.flood(build_frame(Opcode.BINARY, bytes(size)), _KERNEL, timeout=timeout)
                grown = await memory.growth()
                true(taken < _KERNEL, f"of a flood of messages of {size} bytes, {taken / MIB:.1f} MiB were taken")
                true(grown < BOUND, f"memory grew by {grown / MIB:.1f} MiB in a flood of messages of {size} bytes")


@check("FLOW-1", stochastic=True, limit=40)
async def flood_of_empty_messages(bench: Bench) -> None:
    """While a callback runs, a flood of messages of 0 bytes, or of one, is held back and takes less than 16 MiB."""
    await _flooded(bench, "/busy", 0, 1)


@check("FLOW-1", stochastic=True, limit=40)
async def flood_of_messages(bench: Bench) -> None:
    """While a callback runs, floods of 256 MiB in messages of 200 bytes to 1 MiB are held back in less than 16 MiB."""
    await _flooded(bench, "/busy", 200, 4096, 64 * 1024, MIB)


@check("FLOW-1", stochastic=True, limit=40)
async def flood_while_opening(bench: Bench) -> None:
    """While on_open runs, floods of empty and of large messages are held back in less than 16 MiB."""
    await _flooded(bench, "/opening", 0, MIB)


@check("FLOW-1", needs=("compression",), stochastic=True, limit=40)
async def flood_of_deflated_messages(bench: Bench) -> None:
    """While a callback runs, a flood of messages of 1 MiB that came in 1 KiB each takes less than 16 MiB."""
    async with measured(bench, busy_application, compression=True) as m, warm(m, "/busy", deflate=True) as peer:
        true(peer.deflated, "the server did not agree to deflate")
        frame = build_frame(Opcode.BINARY, deflated(bytes(MIB), bits=9), rsv=4)
        taken = await peer.flood(frame, _KERNEL, timeout=0.2 * bench.scale)
        grown = await m.growth()
        true(taken < _KERNEL, f"{taken / MIB:.1f} MiB were taken")
        true(grown < BOUND, f"memory grew by {grown / MIB:.1f} MiB")


@check("FLOW-1", fixed=["compress"])
async def a_flood_goes_on_after_the_callback(bench: Bench) -> None:
    """What was held back while a callback ran is delivered after it, whole and in order."""
    go = asyncio.Event()

    async def on_binary(*arguments: Any) -> None:
        await go.wait()

    async with bench.serve(bench.options(on_binary=on_binary)) as served, served.peer() as peer:
        sending = asyncio.ensure_future(_send_numbered(peer, 300, 64 * 1024))
        await bench.recorder.wait("binary")
        await asyncio.sleep(0.1 * bench.scale)
        equal(len(bench.recorder.values()), 1, "the messages delivered while the callback runs")
        true(not sending.done(), "19 MiB were taken while the callback ran")
        go.set()
        await bench.within(sending, "the flood")
        await bench.recorder.wait("binary", 300)
        numbers = [int.from_bytes(data[:4]) for data in bench.recorder.values()]
        equal(numbers, list(range(300)), "the messages delivered")


async def _send_numbered(peer: WirePeer, count: int, size: int) -> None:
    for number in range(count):
        await peer.send_binary(number.to_bytes(4) + bytes(size - 4))


# ---- FLOW-2 ---------------------------------------------------------------------------------------------------------


def sending_application(**options: Any) -> Application:
    """Return an application whose ``/send`` sends as it is told, and whose ``/taken`` tells how much was taken."""
    taken = 0

    async def send(channel: WebSocketChannel, text: str, count: int) -> None:
        nonlocal taken
        for _ in range(count):
            if not await channel.send_text(text):  # each send makes bytes of its own of the one text
                return
            taken += len(text)

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        order = json.loads(text)
        noise = random.Random(7692).randbytes(order["size"] * 3 // 4)
        message = base64.b64encode(noise).decode()  # which deflates to no less than three quarters
        await asyncio.gather(*(send(channel, message, order["count"]) for _ in range(order["tasks"])))

    async def tell(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(str(taken))

    return Application(
        [
            ("/echo", WebSocketOptions(on_text=echo, on_binary=echo, **options)),
            ("/send", WebSocketOptions(on_text=on_text, **options)),
            ("/taken", WebSocketOptions(on_text=tell, **options)),
        ]
    )


async def _clogged(bench: Bench, tasks: int, size: int, *, reads: int = 8, **options: Any) -> None:
    count = OFFERED // size // tasks
    async with measured(bench, sending_application, **options) as memory:
        deflate = bool(options.get("compression"))
        async with warm(memory, "/send", deflate=deflate) as peer, memory.served.peer("/taken") as other:
            await peer.send_text(json.dumps({"tasks": tasks, "size": size, "count": count}))
            taken = await _at_rest(bench, other)
            grown = await memory.growth()
            true(
                0 < taken < _KERNEL,
                f"of {OFFERED / MIB:g} MiB, {taken / MIB:.1f} were sent to a peer that reads nothing",
            )
            true(grown < BOUND, f"memory grew by {grown / MIB:.1f} MiB, with {taken / MIB:.1f} MiB sent")
            await peer.drain(payload_bytes=reads * taken)
            true(await _taken(other) > (reads - 1) * taken, "the sends did not go on when the peer read")
            true(await memory.growth() < BOUND, "memory grew while the peer read")


async def _taken(peer: WirePeer) -> int:
    await peer.send_text("")
    return int(await peer.receive_text())


async def _at_rest(bench: Bench, peer: WirePeer) -> int:
    """Return how much was taken, when no more is."""
    loop = asyncio.get_running_loop()
    taken, since = await _taken(peer), loop.time()
    while loop.time() - since < 0.2 * bench.scale or not taken:
        await asyncio.sleep(0.02)
        if (now := await _taken(peer)) != taken:
            taken, since = now, loop.time()
    return taken


@check("FLOW-2", stochastic=True, limit=40)
async def one_task_sends(bench: Bench) -> None:
    """One task that offers 256 MiB in messages of 1 MiB to a peer that does not read waits, in less than 16 MiB."""
    await _clogged(bench, 1, MIB)


@check("FLOW-2", stochastic=True, limit=40)
async def many_tasks_send(bench: Bench) -> None:
    """128 tasks that offer 256 MiB in messages of 1 MiB to a peer that does not read wait, in less than 16 MiB."""
    await _clogged(bench, 128, MIB)


@check("FLOW-2", stochastic=True, limit=40)
async def many_tasks_send_small_messages(bench: Bench) -> None:
    """128 tasks that offer 256 MiB in messages of 4 KiB to a peer that does not read wait, in less than 16 MiB."""
    await _clogged(bench, 128, 4096, reads=3)


@check("FLOW-2", needs=("compression",), stochastic=True, limit=40)
async def many_tasks_send_deflated(bench: Bench) -> None:
    """128 tasks that offer 256 MiB, which are deflated, to a peer that does not read wait, in less than 16 MiB."""
    await _clogged(bench, 128, MIB, reads=4, compression=True)


@check("FLOW-2", stochastic=True, limit=40)
async def a_flood_of_pings(bench: Bench) -> None:
    """24 MiB of pings of a peer that does not read what answers them take less than 16 MiB."""
    async with measured(bench, sending_application) as memory, warm(memory, "/send") as peer:
        await peer.flood(build_frame(Opcode.PING, bytes(125)), 24 * MIB, timeout=bench.scale)
        async with memory.served.peer("/taken") as other:  # it answers when what came before is dealt with
            await _taken(other)
        grown = await memory.growth()
        true(grown < BOUND, f"memory grew by {grown / MIB:.1f} MiB")


# ---- FLOW-3 ---------------------------------------------------------------------------------------------------------


async def _undisturbed(bench: Bench, served: Served) -> None:
    """Check that another channel opens, is served and closes as if there were no stuck one."""
    started = now()
    async with served.peer("/echo") as peer:
        for number in range(50):
            await peer.send_text(str(number))
            equal(await peer.receive_text(), str(number), "the echo")
        await peer.ping(b"?")
        await peer.receive()
        await peer.send_close(1000)
        await peer.receive_close()
    took = now() - started
    true(took < bench.scale + bench.lost, f"another channel needed {took:.2f} s for what is done in a fraction of that")


def _stuck_application(bench: Bench, **stuck: Any) -> Application:
    return Application([("/stuck", bench.options(**stuck)), ("/echo", bench.bare_options(on_text=echo))])


@check("FLOW-3")
async def stuck_in_a_callback(bench: Bench) -> None:
    """Channels whose callback never ends, and whose peers flood, delay no other."""
    go = asyncio.Event()

    async def on_binary(*arguments: Any) -> None:
        await go.wait()

    async with bench.serve(_stuck_application(bench, on_binary=on_binary)) as served, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(served.peer("/stuck")) for _ in range(5)]
        frame = build_frame(Opcode.BINARY, bytes(60_000))
        await asyncio.gather(*(peer.flood(frame, 64 * MIB, timeout=0.2 * bench.scale) for peer in peers))
        await bench.recorder.wait("binary", 5)
        await _undisturbed(bench, served)
        for peer in peers:
            peer.drop()
        go.set()


@check("FLOW-3")
async def stuck_in_a_send(bench: Bench) -> None:
    """Channels that wait for peers that do not read delay no other."""
    async with bench.serve(_stuck_application(bench)) as served, AsyncExitStack() as stack:
        sending: list[asyncio.Task[None]] = []
        for number in range(5):
            await stack.enter_async_context(served.peer("/stuck"))
            sends = await clog(bench, await bench.recorder.opened(number + 1))
            sending.append(asyncio.ensure_future(sends.until_refused()))
        await _undisturbed(bench, served)
        true(not any(task.done() for task in sending), "a send to a peer that does not read has returned False")
        await stack.aclose()
        await bench.within(asyncio.gather(*sending), "the sends to peers that are gone")


@check("FLOW-3")
async def stuck_while_opening(bench: Bench) -> None:
    """Channels whose on_open never ends delay no other."""
    go = asyncio.Event()

    async def on_open(*arguments: Any) -> None:
        await go.wait()

    async with bench.serve(_stuck_application(bench, on_open=on_open)) as served, AsyncExitStack() as stack:
        for number in range(20):
            peer = await stack.enter_async_context(served.peer("/stuck"))
            await peer.send_text("early")
            await bench.recorder.opened(number + 1)
        await _undisturbed(bench, served)
        go.set()


@check("FLOW-3")
async def stuck_in_closing(bench: Bench) -> None:
    """Channels whose on_close never ends, or whose peer answers no close, delay no other."""
    go = asyncio.Event()

    async def on_close(*arguments: Any) -> None:
        await go.wait()

    async with bench.serve(_stuck_application(bench, on_close=on_close)) as served, AsyncExitStack() as stack:
        for number in range(10):
            peer = await stack.enter_async_context(served.peer("/stuck"))
            channel = await bench.recorder.opened(number + 1)
            if number % 2:
                channel.close(4000)
            else:
                await peer.send_close(4000)
        await bench.recorder.wait("close", 5)
        await _undisturbed(bench, served)
        go.set()
