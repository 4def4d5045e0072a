"""STREAM-8: how a handler learns of the end after messages that it has not read, and how it stops its mount."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from wsbridge.conformance.checks.stream import Raw, handled, read_all, send_numbers
from wsbridge.conformance.client import Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.mounted import mounted
from wsbridge.connector import Mount
from wsbridge.http import Request

_BUFFER = 4  # messages
_SOME = 30  # more than the buffer takes, and less than makes a server stop reading
_MANY = 20_000


async def _close_and_leave(peer: WirePeer) -> None:
    await peer.send_close(4001)
    peer.close()


async def _half_close(peer: WirePeer) -> None:
    await peer.half_close()


@check("STREAM-8")
async def the_end_behind_unread_messages(bench: Bench) -> None:
    """`wait_closed()` tells of the end within 1 s, although nobody has read what came before; that is read then."""

    async def handler(stream: Raw, request: Request) -> None:
        await bench.recorder.wait("left", len(bench.recorder.all("handler")))
        reason = await bench.within(stream.wait_closed(), "wait_closed() with messages unread", timeout=bench.scale)
        bench.recorder.log("closed", stream.id, reason.code)
        await read_all(bench, stream)

    ways: tuple[tuple[Callable[[WirePeer], Any], int], ...] = ((_close_and_leave, 4001), (_half_close, 1006))
    async with bench.serve(handled(bench, handler, receive_buffer=_BUFFER)) as served:
        for number, (leave, code) in enumerate(ways, 1):
            async with served.peer() as peer:
                await bench.recorder.wait("handler", number)
                sent = await send_numbers(peer, _SOME)
                await leave(peer)
                bench.recorder.log("left")
                equal((await bench.recorder.wait("closed", number)).value, code, "the code of the reason")
                await bench.recorder.wait("end", number)
                equal(bench.recorder.values("got"), sent * number, "what was read after the end")


async def _is_cancelled(bench: Bench, end: Callable[[WirePeer, Raw], Any], **options: Any) -> None:
    async def handler(stream: Raw, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bench.recorder.log("cancelled", stream.id)
            raise

    options = {"receive_buffer": _BUFFER, "cancel_on_close": True, **options}
    async with bench.serve(handled(bench, handler, **options)) as served, served.peer() as peer:
        stream = (await bench.recorder.wait("handler")).value
        await end(peer, stream)
        await bench.recorder.wait("cancelled", timeout=bench.scale)


@check("STREAM-8")
async def cancel_behind_unread_messages(bench: Bench) -> None:
    """With `cancel_on_close` a handler that has read nothing is cancelled within 1 s when its peer has gone."""

    async def end(peer: WirePeer, stream: Raw) -> None:
        await send_numbers(peer, _SOME)
        await peer.half_close()

    await _is_cancelled(bench, end)


@check("STREAM-8")
async def cancel_at_a_local_close(bench: Bench) -> None:
    """With `cancel_on_close` a handler that has read nothing is cancelled within 1 s when this side closes."""

    async def end(peer: WirePeer, stream: Raw) -> None:
        await send_numbers(peer, _SOME)
        await asyncio.sleep(0.02)  # until the buffer is full
        stream.channel.close(4001)
        equal((await peer.receive_close()).code, 4001, "the code that the peer gets")

    await _is_cancelled(bench, end)


@check("STREAM-8", needs=("ping",))
async def a_peer_that_was_held_back_has_gone(bench: Bench) -> None:
    """A peer that leaves while it is held back is missed by the pings: the handler is told after three of them."""

    async def end(peer: WirePeer, stream: Raw) -> None:
        await peer.flood(build_frame(Opcode.TEXT, b"unread"), _MANY * 12, timeout=0.1 * bench.scale)
        peer.close()

    await _is_cancelled(bench, end, ping_interval=0.15 * bench.scale, ping_timeout=None)


@check("STREAM-8", needs=("mount",))
async def mount_stop_awaited_by_the_handler(bench: Bench) -> None:
    """A handler that awaits the stop of its own mount is not cancelled by it, and goes on when all else has ended."""
    mounts: list[Mount] = []

    async def handler(stream: Raw, request: Request) -> None:
        if (await stream.recv()) == "stop":
            await mounts[0].stop()
        bench.recorder.log("returns", stream.id, stream.reason)

    async with mounted(bench, handled(bench, handler), shutdown_timeout=0.5 * bench.scale) as (served, mount):
        mounts.append(mount)
        async with served.peer("/mounted") as other, served.peer("/mounted") as peer:
            await bench.recorder.wait("handler", 2)
            await peer.send_text("stop")
            for each in (other, peer):
                equal((await each.receive_close()).code, 1001, "the code that a peer gets")
            await bench.recorder.wait("returns")
