"""LIM-6: limits of any size. SEND-9: large messages that are deflated, and the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeAlias

from wsbridge.conformance.checks.common import Sends, messages_until_close, none_lost, pair
from wsbridge.conformance.checks.recv import deflated, echo, how_it_ended
from wsbridge.conformance.client import Binary, Close, Opcode, Pong, Text, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.protocols import WebSocketChannel

__all__: list[str] = []

Limits: TypeAlias = dict[str, Any]  # by the names of their options: int or None

NAME = "permessage-deflate"
_HELD = 0.25  # seconds of processor time: far more than it takes to read a megabyte
SIZES: tuple[int | None, ...] = (
    *(2**31 - 1, 2**31, 2**32 - 66, 2**32 - 2, 2**32 - 1, 2**32, 2**40),
    *(sys.maxsize - 1, sys.maxsize, sys.maxsize + 1, 2**70, None),
)
"""Limits about the highest number of each width that a server may keep one in."""

# ---- LIM-6 ----------------------------------------------------------------------------------------------------------


def _pairs() -> list[Limits]:
    """Return limits that are the same for both kinds, and those that differ."""
    even = [(size, size) for size in SIZES]
    uneven = [pair for size in SIZES for pair in ((size, 1000), (1000, size))]
    return [{"max_text_size": text, "max_binary_size": binary} for text, binary in even + uneven]


async def _carries(bench: Bench, peer: WirePeer, limits: Limits, *, is_deflated: bool) -> None:
    """Check that messages of either kind, whole and in fragments, come back."""
    rsv = 4 * is_deflated
    for opcode, data in ((Opcode.TEXT, b"text " * 100), (Opcode.BINARY, b"binary" * 100), (Opcode.BINARY, b"")):
        payload = deflated(data) if is_deflated else data
        await peer.send_frame(opcode, payload, rsv=rsv)
        equal(_as_bytes(await peer.receive_message()), data, f"the echo, by {limits}")
        if bench.target.has_wire:
            await peer.send_frame(opcode, payload[:1], fin=False, rsv=rsv)
            await peer.ping(b"between")
            await peer.send_frame(Opcode.CONTINUATION, payload[1:])
            equal(_as_bytes(await peer.receive_message()), data, f"the echo of fragments, by {limits}")


def _as_bytes(message: Text | Binary) -> bytes:
    return message.data.encode() if isinstance(message, Text) else message.data


async def _is_held_to_1000(served: Served, limits: Limits, **options: Any) -> None:
    """Check that a kind whose limit is 1000 is held to it, however high the other's is."""
    for opcode, limit in zip((Opcode.TEXT, Opcode.BINARY), limits.values(), strict=True):
        if limit == 1000:
            async with served.peer(**options) as peer:
                await peer.send_frame(opcode, b"x" * 1001)
                equal(await how_it_ended(peer), "peer saw 1009", f"the end of a message of 1001 bytes, by {limits}")


@check("LIM-6", needs=("size-limit",), limit=40)
async def any_limit(bench: Bench) -> None:
    """Limits about 2**31, 2**32 and the highest of all, and None, even and uneven, let messages through."""
    for limits in _pairs():
        async with bench.serve(bench.options(on_text=echo, on_binary=echo, **limits)) as served:
            async with served.peer() as peer:
                await _carries(bench, peer, limits, is_deflated=False)
            await _is_held_to_1000(served, limits)


@check("LIM-6", needs=("size-limit", "compression"), limit=40)
async def any_limit_with_deflate(bench: Bench) -> None:
    """The same holds where deflate is agreed on, for messages that are deflated and for those that are not."""
    for limits in _pairs():
        async with bench.serve(bench.options(on_text=echo, on_binary=echo, compression=True, **limits)) as served:
            async with served.peer(deflate=NAME) as peer:
                true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
                await _carries(bench, peer, limits, is_deflated=True)
                await _carries(bench, peer, limits, is_deflated=False)
            await _is_held_to_1000(served, limits, deflate=NAME)


async def _at_one_byte_more(bench: Bench, limits: Limits) -> set[str]:
    observed: set[str] = set()
    async with bench.serve(bench.options(**limits)) as served:
        for opcode, limit in zip((Opcode.TEXT, Opcode.BINARY), limits.values(), strict=True):
            if limit is None or limit > 2**62 or "still open" in observed:  # no frame can be longer
                continue
            two = build_frame(opcode, b"x", fin=False) + build_frame(Opcode.CONTINUATION, length=limit)
            for raw in (build_frame(opcode, length=limit + 1), two):
                async with served.peer() as peer:
                    await peer.send_raw(raw)
                    observed.add(await how_it_ended(peer))
    return observed


@check("LIM-6", needs=("size-limit",), limit=40, wire=True)
async def held_to_any_limit(bench: Bench) -> None:
    """A message that declares one byte more than such a limit, in one frame or in two, is refused with 1009 at once."""
    observed: set[str] = set()
    for limits in _pairs():
        if "still open" not in observed:  # once is enough to wait for
            observed |= await _at_one_byte_more(bench, limits)
    bench.outcome("LIM-6/held-to-any-limit", " or ".join(sorted(observed)), "peer saw 1009")


@check("LIM-6", needs=("size-limit", "compression"))
async def a_small_limit_beside_a_large_one(bench: Bench) -> None:
    """What is deflated and too big when it is inflated is refused, whatever the limit of the other kind."""
    for size in (2**32, sys.maxsize, None):
        for limits, opcode in (((size, 1000), Opcode.BINARY), ((1000, size), Opcode.TEXT)):
            options = bench.options(max_text_size=limits[0], max_binary_size=limits[1], compression=True)
            async with bench.serve(options) as served:
                for raw in (
                    build_frame(opcode, deflated(b"x" * 1001), rsv=4),
                    build_frame(opcode, deflated(b"x" * 500_000), rsv=4),
                ):
                    async with served.peer(deflate=NAME) as peer:
                        await peer.send_raw(raw)
                        equal(await how_it_ended(peer), "peer saw 1009", f"the end, by {limits}")


# ---- SEND-9 ---------------------------------------------------------------------------------------------------------


@functools.cache
def _words() -> bytes:
    """Return 1 MiB that deflates to about a third of its size, which takes zlib some time."""
    words = [f"{number:x}" for number in range(3000)]
    return " ".join(random.Random(6).choices(words, k=300_000)).encode()[: 1 << 20]


def _cost(run: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call takes."""
    began = time.thread_time()
    run()
    return time.thread_time() - began


@contextlib.asynccontextmanager
async def _turns() -> AsyncGenerator[list[float]]:
    """Measure the turns of the event loop: seconds of processor time of its thread; a busy machine adds none."""
    turns: list[float] = []

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - before)
            before = now

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    try:
        yield turns
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


def _held(bench: Bench, scenario: str, turns: list[float], cost: float) -> None:
    held = max(turns) > cost / 2
    bench.outcome(scenario, "in the event loop" if held else "outside the event loop", "outside the event loop")


@check("SEND-9", needs=("compression",), stochastic=True, limit=40)
async def deflated_outside_the_event_loop(bench: Bench) -> None:
    """While a message of 4 MiB is deflated the event loop turns, and other channels with it."""
    data = _words() * 4
    cost = _cost(lambda: zlib.compress(data, 1))  # no server's level takes less
    options = bench.options(compression=True)
    async with bench.serve(options) as served, pair(bench, served, deflate=NAME) as (peer, channel):
        true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
        async with _turns() as turns:
            equal(await channel.send_binary(data), True, "the send")
        equal(await peer.receive_binary() == data, True, "the message came through unchanged")
    _held(bench, "SEND-9/deflated-outside-the-event-loop", turns, cost)


@check("SEND-9", needs=("compression",), stochastic=True, limit=40)
async def inflated_outside_the_event_loop(bench: Bench) -> None:
    """While a message of 16 MiB is inflated the event loop turns, and other channels with it."""
    data = _words() * 16
    payload = deflated(data, level=1)
    cost = _cost(lambda: zlib.decompressobj(-15).decompress(payload))
    raw = build_frame(Opcode.BINARY, payload, rsv=4, mask=bytes(4))
    options = bench.options(compression=True, max_text_size=None, max_binary_size=None)
    async with bench.serve(options) as served, served.peer(deflate=NAME) as peer:
        true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
        async with _turns() as turns:
            await peer.send_raw(raw)
            await bench.recorder.wait("binary", timeout=30 * bench.scale)
        equal(bench.recorder.values("binary") == [data], True, "the message came through unchanged")
    _held(bench, "SEND-9/inflated-outside-the-event-loop", turns, cost)


@check("SEND-9", needs=("compression",), stochastic=True)
async def sent_in_order(bench: Bench) -> None:
    """Large messages and small ones, of one task and of several, come in the order of their sends."""
    sizes = (200_000, 10, 70_000, 100, 300_000, 1)

    async def on_text(channel: Any, process: Any, text: str) -> None:
        messages = [bytes((number,)) * size for number, size in enumerate(sizes)]
        tasks = [asyncio.ensure_future(channel.send_binary(message)) for message in messages]
        equal(await asyncio.gather(*tasks), [True] * len(sizes), "the sends")

    options = bench.options(on_text=on_text, compression=True)
    async with bench.serve(options) as served, served.peer(deflate=NAME) as peer:
        for _ in range(3):
            await peer.send_text("go")
            for number, size in enumerate(sizes):
                equal(await peer.receive_binary() == bytes((number,)) * size, True, f"message {number} is the next")


@check("SEND-9", needs=("compression",), stochastic=True)
async def closed_behind_large_sends(bench: Bench) -> None:
    """A close by either side while large messages are deflated comes after those that were taken (SEND-6)."""
    for by_peer in (False, True):
        async with bench.serve(bench.options(compression=True)) as served:
            number = len(bench.recorder.channels) + 1
            async with pair(bench, served, deflate=NAME) as (peer, channel):
                sends = Sends(channel, 300_000)
                for _ in range(4):
                    sends.begin()
                await asyncio.sleep(0)
                if by_peer:
                    await peer.send_close(4000)
                else:
                    channel.close(4000)
                received, end = await messages_until_close(peer)
                true(isinstance(end, Close), f"the end was {end}")
                await sends.all_return(bench, "after the close")
                none_lost(sends, received)
                equal(received, sorted(received), "the order of the messages")
            equal((await bench.recorder.closed(number)).code, 4000, "the code")


@check("SEND-9", needs=("compression",), stochastic=True)
async def received_in_order(bench: Bench) -> None:
    """What comes after a large message, small ones, pings and the close, is handled after it."""
    large, small = _words()[:700_000], b"small"
    for fragmented in (False, True):
        number = len(bench.recorder.channels) + 1
        async with bench.serve(bench.options(compression=True)) as served:
            async with served.peer(deflate=NAME) as peer:
                true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
                payload = deflated(large)
                frames: list[bytes] = []
                for turn in range(3):
                    cut = len(payload) - turn if fragmented else len(payload)
                    frames.append(build_frame(Opcode.BINARY, payload[:cut], fin=not fragmented, rsv=4))
                    frames.append(build_frame(Opcode.PING, b"between"))
                    if fragmented:
                        frames.append(build_frame(Opcode.CONTINUATION, payload[cut:]))
                    frames.append(build_frame(Opcode.BINARY, deflated(small), rsv=4))
                    frames.append(build_frame(Opcode.BINARY, small))
                await peer.send_raw(b"".join(frames) + build_frame(Opcode.CLOSE, b"\x0f\xa0"))
                equal(await how_it_ended(peer), "peer saw 4000", "the end")
                equal(peer.received.count(Pong(b"between")), 3, "the pongs")
            equal((await bench.recorder.closed(number)).code, 4000, "the code")
        sizes = [len(value) for value in bench.recorder.values("binary")[-9:]]
        equal(sizes, [len(large), len(small), len(small)] * 3, "the sizes of the messages")


@check("SEND-9", needs=("compression",), stochastic=True)
async def pinged_while_it_deflates(bench: Bench) -> None:
    """A ping that comes while a large message is deflated is answered, before it or after it."""
    data = _words()
    options = bench.options(compression=True, ping_interval=None)
    async with bench.serve(options) as served, pair(bench, served, deflate=NAME) as (peer, channel):
        sending = asyncio.ensure_future(channel.send_binary(data))
        await asyncio.sleep(0)
        await peer.ping(b"meanwhile")
        events = [await peer.receive(), await peer.receive()]
        true(Pong(b"meanwhile") in events, "the ping was not answered")
        true(Binary(data) in events, "the message did not come")
        equal(await sending, True, "the send")


@check("SEND-9", needs=("compression",), stochastic=True, wire=True)
async def reset_behind_a_large_message(bench: Bench) -> None:
    """A large message that came whole before a reset is delivered, though a send finds out while it is inflated."""
    large = bytes(32 << 20)

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        await channel.send_text(text)
        sending.add(asyncio.ensure_future(_sends_on(channel)))

    sending = set[asyncio.Task[None]]()
    options = bench.options(on_text=on_text, compression=True, max_binary_size=None)
    raw = build_frame(Opcode.TEXT, b"read") + build_frame(Opcode.BINARY, deflated(large, level=9), rsv=4)
    async with bench.serve(options) as served:
        for number in range(1, 4):
            async with served.peer(deflate=NAME) as peer:
                true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
                await peer.send_raw(raw)  # at once, so that who has read the first has read the second
                equal(await peer.receive_text(), "read", "the echo")
                peer.drop()
                reason = await bench.recorder.closed(number)
            equal((reason.code, reason.initiator), (1006, "network"), "code and initiator")
            sizes = [len(value) for value in bench.recorder.values("binary")]
            equal(sizes, [len(large)] * number, "the sizes of the large messages, when on_close came")


async def _sends_on(channel: WebSocketChannel) -> None:
    """Send until a send is refused."""
    while await channel.send_binary(b"more"):  # noqa: ASYNC110  (nothing but a send finds out)
        await asyncio.sleep(0.001)


# ---- FLOW-3 ---------------------------------------------------------------------------------------------------------


@check("FLOW-3", needs=("compression",), stochastic=True)
async def many_final_blocks(bench: Bench) -> None:
    """A message of 200,000 blocks that each end an inflater holds the event loop up no more than any of its size."""
    payload = b"\x01\x00\x00\xff\xff" * 200_000  # each is empty
    options = bench.options(on_text=echo, compression=True)
    async with bench.serve(options) as served, served.peer() as other, served.peer(deflate=NAME) as peer:
        true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
        async with _turns() as turns:
            await peer.send_frame(Opcode.BINARY, payload, rsv=4, mask=bytes(4))
            await other.send_text("meanwhile")
            equal(await other.receive_text(), "meanwhile", "the echo on another channel")
            await peer.send_close(1000)
            await peer.drain(timeout=bench.timeout)
    longest = max(turns)
    true(longest < _HELD, f"the event loop was held for {longest:.2f} s of processor time")
