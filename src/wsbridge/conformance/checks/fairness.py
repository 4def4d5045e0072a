"""FLOW-3 and FLOW-4: the event loop belongs to everybody, whatever one peer sends and one callback ignores."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from wsbridge.conformance.checks.common import pair
from wsbridge.conformance.client import Opcode, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.connection import SendResult, start_ws_connection
from wsbridge.errors import ChannelClosedError
from wsbridge.http import Request
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream, stream_handler

FLOOD = 6_000  # frames
_AT_ONCE = 256  # messages of one channel that may be delivered within a turn of the event loop
_CPU = 0.010  # seconds of CPU time that a turn may take
_SENDS = 300


class Turns:
    """Counts the turns of the event loop, and looks at how much happens in each."""

    def __init__(self) -> None:
        self.count = 0
        self.delivered = 0
        self.most = 0
        self.seconds: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._seen = 0
        self._began = time.thread_time()
        self._handle = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.count += 1
        if self.delivered > self._seen:
            self.most = max(self.most, self.delivered - self._seen)
            self.seconds.append(now - self._began)
        self._seen, self._began = self.delivered, time.thread_time()
        self._handle = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._handle.cancel()


@asynccontextmanager
async def _turns() -> AsyncGenerator[Turns]:
    turns = Turns()
    try:
        yield turns
    finally:
        turns.stop()


def _flood(sock: socket.socket, data: bytes) -> None:
    """Send it all and read what comes back, in threads of their own, so that the event loop has no part in it."""

    def drain() -> None:
        with suppress(OSError):
            while sock.recv(1 << 16):
                pass

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    with suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    reader.join(30)


async def _is_flooded(bench: Bench, frame: bytes, *, end: bytes) -> Turns:
    """Flood a channel that echoes, while others turn the loop; the last message is ``end``."""
    done = asyncio.Event()

    async with _turns() as turns:

        async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
            turns.delivered += 1
            if text == "end":
                done.set()
            await channel.send_text(text)

        async with bench.serve(bench.options(on_text=on_text)) as served:
            sock = await asyncio.to_thread(_upgraded, served)
            with sock:
                flooding = asyncio.ensure_future(asyncio.to_thread(_flood, sock, frame * FLOOD + end))
                await bench.within(done.wait(), "the end of the flood", timeout=30 * bench.scale)
                await bench.within(flooding, "the flooding peer", timeout=30 * bench.scale)
    return turns


def _upgraded(served: Served) -> socket.socket:
    assert not isinstance(served.address, str)
    sock = socket.create_connection(served.address, 30)
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    true(b" 101 " in head, f"the handshake was answered with {head[:60]!r}")
    return sock


def _is_fair(turns: Turns) -> None:
    true(turns.most <= _AT_ONCE, f"{turns.most} messages of one channel were delivered within a turn of the event loop")
    long = sorted(turns.seconds)[int(len(turns.seconds) * 0.95)]
    true(long <= _CPU, f"in a flood one turn in twenty takes {long * 1000:.0f} ms of CPU and more")


@check("FLOW-3", wire=True, stochastic=True, limit=60)
async def a_flood_of_empty_messages(bench: Bench) -> None:
    """A flood of empty texts that are echoed leaves everything else on the event loop its turns."""
    end = build_frame(Opcode.TEXT, b"end")
    turns = await _is_flooded(bench, build_frame(Opcode.TEXT, b""), end=end)
    equal(turns.delivered, FLOOD + 1, "the messages delivered")
    _is_fair(turns)


@check("FLOW-3", wire=True, stochastic=True, limit=60)
async def a_flood_between_pings(bench: Bench) -> None:
    """A flood of pings and of one-byte messages between them leaves everything else its turns."""
    end = build_frame(Opcode.TEXT, b"end")
    frame = build_frame(Opcode.PING, b"") + build_frame(Opcode.TEXT, b"x")
    turns = await _is_flooded(bench, frame, end=end)
    equal(turns.delivered, FLOOD + 1, "the messages delivered")
    _is_fair(turns)


# ---- FLOW-4 ---------------------------------------------------------------------------------------------------------


async def _yields(act: Callable[[], Awaitable[object]], what: str) -> None:
    """Check that the event loop goes on while ``act`` is awaited again and again."""
    async with _turns() as turns:
        before = turns.count
        for _ in range(_SENDS):
            await act()
        went_on = turns.count - before
    true(went_on >= _SENDS * 0.9, f"{_SENDS} of {what} in a row left the event loop {went_on} turns for all else")


@check("FLOW-4")
async def sends_after_the_end(bench: Bench) -> None:
    """Sends that are answered with False, one after the other, leave all else its turns; many are worth one warning."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        await peer.send_close(1000)
        await bench.recorder.closed()

        async def send() -> None:
            equal(await channel.send_text("x"), False, "a send after the end")
            equal(await channel.send_binary(b"x"), False, "a send after the end")

        await _yields(send, "sends")
        for _ in range(_SENDS):
            await send()
        equal([r.levelname for r in bench.logs if channel.id in r.getMessage()], ["WARNING"], "what was logged of it")


@check("FLOW-4")
async def puts_after_the_end(bench: Bench) -> None:
    """Puts into the queue of a channel that has ended leave all else its turns."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        connection = start_ws_connection(channel)
        await peer.send_close(1000)
        await bench.recorder.closed()

        async def put() -> None:
            equal(await connection.put("x"), SendResult.CLOSED, "a put after the end")

        async def send() -> None:
            equal(await connection.send("x"), SendResult.CLOSED, "a send after the end")

        await _yields(put, "puts")
        await _yields(send, "sends of the queue")


@check("FLOW-4")
async def a_stream_after_the_end(bench: Bench) -> None:
    """Reads and sends of a stream that has ended leave all else its turns."""

    async def handler(stream: MessageStream, request: Request[Any]) -> None:
        await stream.wait_closed()

        async def iterate() -> None:
            equal([message async for message in stream], [], "what is read after the end")

        async def recv() -> None:
            with suppress(ChannelClosedError):
                await stream.recv()

        async def send() -> None:
            with suppress(ChannelClosedError):
                await stream.send("x")

        try:
            for act in (iterate, recv, send):
                await _yields(act, f"{act.__name__}s")
        except BaseException as exc:
            outcome.set_exception(exc)
        else:
            outcome.set_result(None)

    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with bench.serve(stream_handler(handler, **bench.target.neutral)) as served, served.peer() as peer:
        await peer.send_close(1000)
        await bench.within(outcome, "the handler's loops")


@check("FLOW-4")
async def sends_before_the_end(bench: Bench) -> None:
    """A loop of sends to a peer that reads leaves all else its turns: what ends it may have to happen there."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        async with _turns() as turns:
            before = turns.count
            for _ in range(1000):
                true(await channel.send_text("x"), "a send on an open channel returned False")
            went_on = turns.count - before
        true(went_on >= 3, f"1000 sends in a row left the event loop {went_on} turns for all else")
        for _ in range(1000):
            equal(await peer.receive_text(), "x", "what the peer gets")
