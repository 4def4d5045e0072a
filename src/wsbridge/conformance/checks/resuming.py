"""FLOW-1: a peer that was held back goes on, however it was held back and in the middle of whatever it sends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from wsbridge.conformance.checks.recv import deflated
from wsbridge.conformance.client import Binary, Opcode, Pong, Text, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.http import Request
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream, stream_handler

__all__: list[str] = []

_ROUNDS = 3  # so that what was resumed once is held back again
_NOISE = random.Random(1).randbytes(70_000)
_LARGE = 1_000_000  # bytes

Flood = tuple[bytes, int, int]
"""Bytes, of how many messages, and how many bytes these have together."""


def _whole(deflate: bool) -> Flood:
    data = _NOISE  # enough by itself for a server to hold back what follows
    payload = deflated(data) if deflate else data
    return build_frame(Opcode.BINARY, payload, rsv=4 * deflate) * 40, 40, 40 * len(data)


def _small(deflate: bool) -> Flood:
    payload = deflated(b"small") if deflate else b"small"
    frame = build_frame(Opcode.BINARY, payload, rsv=4 * deflate) + build_frame(Opcode.PONG, b"unasked")
    return frame * 3000, 3000, 15_000


def _fragments(deflate: bool) -> Flood:
    data = _NOISE * 18
    payload = deflated(data) if deflate else data
    step = len(payload) // 30 + 1
    parts = [payload[at : at + step] for at in range(0, len(payload), step)]
    frames = [
        build_frame(0 if index else Opcode.BINARY, part, fin=index == len(parts) - 1, rsv=0 if index else 4 * deflate)
        for index, part in enumerate(parts)
    ]
    return build_frame(Opcode.PING, b"amid").join(frames), 1, len(data)


def _inflating(deflate: bool) -> Flood:
    return build_frame(Opcode.BINARY, deflated(bytes(_LARGE)), rsv=4) * 6, 6, 6 * _LARGE


class _Held:
    """A callback that holds back what follows a message, and counts what comes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.released = asyncio.Event()
        self.count = 0
        self.size = 0

    async def on_text(self, channel: WebSocketChannel, process: object, text: str) -> None:
        self.bench.recorder.log("held")
        if text == "send":
            await channel.send_binary(bytes(8 * _LARGE))  # to a peer that reads it later
        else:
            await self.released.wait()

    def on_binary(self, channel: WebSocketChannel, process: object, data: bytes) -> None:
        self.count += 1
        self.size += len(data)

    async def hold(self, number: int, begin: Awaitable[object], flood: bytes, peer: WirePeer) -> asyncio.Task[None]:
        """Have the callback hold, and let a flood pile up behind it; return what sends it."""
        self.released.clear()
        await begin
        await self.bench.recorder.wait("held", number)
        sending = asyncio.ensure_future(peer.send_raw(flood))
        await asyncio.wait((sending,), timeout=0.06)
        await asyncio.sleep(0.04)  # for the server to have enough; no event on this side tells when it has
        return sending

    async def goes_on(self, number: int, flood: Flood, peer: WirePeer, sending: asyncio.Task[None]) -> None:
        """Check that all of the flood comes, and that the channel then works."""
        await self.bench.within(sending, f"the flood of round {number}, once nothing holds it back")
        what = f"the last message of round {number}"
        await self.bench.settle(lambda: self.count >= number * flood[1], f"{what} ({self.count} came)")
        equal((self.count, self.size), (number * flood[1], number * flood[2]), "messages and bytes that came")
        payload = b"round %d" % number
        await peer.ping(payload)
        while (event := await peer.receive()) != Pong(payload):
            true(isinstance(event, Pong | Text | Binary), f"something else than a pong came: {event}")


def _limits(bench: Bench) -> dict[str, Any]:
    return {"max_binary_size": 4 * _LARGE} if "size-limit" in bench.target.features else {}


async def _in_a_callback(bench: Bench, make: Callable[[bool], Flood], *, deflate: bool = False) -> None:
    held, flood = _Held(bench), make(deflate)
    options = bench.bare_options(on_text=held.on_text, on_binary=held.on_binary, compression=deflate, **_limits(bench))
    async with bench.serve(options) as served, served.peer(deflate=deflate) as peer:
        for number in range(1, _ROUNDS + 1):
            sending = await held.hold(number, peer.send_text("hold", compress=False), flood[0], peer)
            held.released.set()
            await held.goes_on(number, flood, peer, sending)
        await peer.send_close(4000)
        equal((await peer.receive_close()).code, 4000, "the code of the answer")


@check("FLOW-1")
async def messages_go_on(bench: Bench) -> None:
    """Messages that were held back by a callback come after it, again and again, and so do pings and the close."""
    await _in_a_callback(bench, _whole)


@check("FLOW-1")
async def small_frames_go_on(bench: Bench) -> None:
    """So do thousands of small messages, with pongs between them."""
    await _in_a_callback(bench, _small)


@check("FLOW-1", wire=True)
async def fragments_go_on(bench: Bench) -> None:
    """So does a message that is held back between its fragments, with pings there."""
    await _in_a_callback(bench, _fragments)


@check("FLOW-1", wire=True, needs=("compression",))
async def deflated_messages_go_on(bench: Bench) -> None:
    """So do messages that are deflated."""
    await _in_a_callback(bench, _whole, deflate=True)


@check("FLOW-1", wire=True, needs=("compression",))
async def small_deflated_frames_go_on(bench: Bench) -> None:
    """So do thousands of small messages that are deflated."""
    await _in_a_callback(bench, _small, deflate=True)


@check("FLOW-1", wire=True, needs=("compression",))
async def deflated_fragments_go_on(bench: Bench) -> None:
    """So does a deflated message that is held back between its fragments."""
    await _in_a_callback(bench, _fragments, deflate=True)


@check("FLOW-1", wire=True, needs=("compression",))
async def large_messages_that_were_small_go_on(bench: Bench) -> None:
    """So do messages of a few bytes that are large when they are inflated."""
    await _in_a_callback(bench, _inflating, deflate=True)


@check("FLOW-1")
async def they_go_on_after_a_send(bench: Bench) -> None:
    """Messages that were held back by a callback whose send waited come when the peer has read what it was sent."""
    held, flood = _Held(bench), _whole(False)
    options = bench.bare_options(on_text=held.on_text, on_binary=held.on_binary)
    async with bench.serve(options) as served, served.peer() as peer:
        for number in range(1, _ROUNDS + 1):
            sending = await held.hold(number, peer.send_text("send"), flood[0], peer)
            equal(len(await peer.receive_binary()), 8 * _LARGE, "the size of what was sent")
            await held.goes_on(number, flood, peer, sending)


@check("FLOW-1", wire=True)
async def they_go_on_after_on_open(bench: Bench) -> None:
    """Messages that were held back by on_open come after it."""
    held = _Held(bench)

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        bench.recorder.log("held")
        await held.released.wait()

    async def nothing() -> None:
        pass

    options = bench.bare_options(on_open=on_open, on_text=held.on_text, on_binary=held.on_binary, **_limits(bench))
    async with bench.serve(options) as served:
        for number, make in enumerate((_whole, _small, _fragments), 1):
            held.count = held.size = 0
            flood = make(False)
            async with served.peer() as peer:
                sending = await held.hold(number, nothing(), flood[0], peer)
                held.released.set()
                await held.goes_on(1, flood, peer, sending)


@check("FLOW-1", wire=True)
async def they_go_on_for_a_stream(bench: Bench) -> None:
    """Messages that were held back by a handler that does not read come when it reads, with any buffer."""

    async def handler(stream: MessageStream[str | bytes], request: Request) -> None:
        async for message in stream:
            if isinstance(message, str):
                await held.on_text(stream.channel, None, message)
            else:
                held.on_binary(stream.channel, None, message)

    for buffer, makes in ((1, (_whole, _fragments)), (16, (_whole, _small))):
        for make in makes:
            held, flood = _Held(bench), make(False)
            before = len(bench.recorder.all("held"))
            limits = {**bench.target.neutral, **_limits(bench)}
            options = stream_handler(handler, receive_buffer=buffer, **limits)
            async with bench.serve(options) as served, served.peer() as peer:
                for number in (1, 2):
                    sending = await held.hold(before + number, peer.send_text("hold"), flood[0], peer)
                    held.released.set()
                    await held.goes_on(number, flood, peer, sending)
