"""Tornado's codec of frames, which reports to a channel: see the connector, `wsbridge.connectors.tornado`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import zlib
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from wsbridge import Compression, WebSocketOptions
from wsbridge.connector import (
    LARGE,
    NAME,
    Agreement,
    QueuedChannel,
    SizeLimits,
    is_valid_close_code,
)
from wsbridge.connectors._codecs.pieces import END_OF_MESSAGE, Inflation

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Frames", "Terms", "read"]

TEXT, BINARY, CLOSE, PING, PONG = _KNOWN = 0x1, 0x2, 0x8, 0x9, 0xA
_TURN = 64  # frames that are read before other tasks get their turn
_CHUNK = 64 * 1024  # bytes


class Terms:
    """Options as tornado wants them, once for all channels that have the same."""

    __slots__ = ("deflate", "limits", "options")

    def __init__(self, options: WebSocketOptions[Any]) -> None:
        self.options = options
        wanted = options.compression
        level = wanted.memory_level if isinstance(wanted, Compression) else None
        self.deflate = None if wanted is False else {} if level is None else {"mem_level": level}
        self.limits = SizeLimits(options.max_text_size, options.max_binary_size)


class _Violation(Exception):
    """The peer broke the protocol; it has been dealt with."""


class FrameChannel(QueuedChannel):
    """What `Frames` report to.

    Attributes:
        gate: What reading waits for, if it is held.
        terms: The options as tornado wants them.
    """

    __slots__ = ("gate", "terms")

    gate: asyncio.Future[None] | None
    terms: Terms

    @abstractmethod
    def opened(self, frames: Frames) -> None:
        """Take the connection, when the 101 is written."""

    @abstractmethod
    def written(self, future: asyncio.Future[None]) -> None:
        """Take it that the write buffer is empty, or the connection gone."""

    @abstractmethod
    def send_large(self, deflate: Callable[[], bytes], write: Callable[[bytes], None]) -> Awaitable[object]:
        """Deflate a large message outside the event loop, and write it."""


class Frames(WebSocketProtocol13):
    """Tornado's codec, reporting to a channel."""

    # beside the dictionary of tornado's class: beyond 30 names CPython shares no keys, which costs 2.8 KiB
    __slots__ = ("_at_head", "_outer_compressed", "agreement", "broken", "channel")

    def __init__(self, handler: WebSocketHandler, channel: FrameChannel, params: Any) -> None:
        params.compression_options = channel.terms.deflate
        super().__init__(handler, False, params)
        self.channel = channel
        self.agreement: Agreement | None = None
        self.broken = False
        self._at_head = False
        self._outer_compressed: bool | None = None

    def _parse_extensions_header(self, headers: HTTPHeaders) -> list[tuple[str, dict[str, Any]]]:
        return [] if self.agreement is None else [(NAME, self.agreement.parameters)]

    def start_pinging(self) -> None:
        """The connector's clock pings."""

    async def _receive_frame_loop(self) -> None:
        self.channel.opened(self)  # which reads in a task of its own

    def send(self, opcode: int, data: bytes) -> Awaitable[object] | None:
        """Write a message; return what is to be awaited for that, or None."""
        compressor = self._compressor
        if compressor is None:
            written = self._write_frame(True, opcode, data)
        elif len(data) > LARGE:
            return self.channel.send_large(partial(compressor.compress, data), partial(self._write_deflated, opcode))
        else:
            written = self._write_frame(True, opcode, compressor.compress(data), self.RSV1)
        if not written.done():
            self._wait_for(written)
        elif self.stream.closed():
            raise StreamClosedError
        return None

    def _write_deflated(self, opcode: int, data: bytes) -> None:
        self._wait_for(self._write_frame(True, opcode, data, self.RSV1))

    def send_control(self, opcode: int, payload: bytes) -> None:
        """Write a control frame."""
        written = self._write_frame(True, opcode, payload)
        if not written.done():
            self._wait_for(written)

    def _wait_for(self, written: asyncio.Future[None]) -> None:
        self.channel.pause_writing()
        written.add_done_callback(self.channel.written)

    async def read(self) -> None:
        """Read until the peer's close frame is in, or the connection is gone."""
        channel, stream = self.channel, self.stream
        count = 0
        try:
            with contextlib.suppress(_Violation):
                while not self.client_terminated:
                    if channel.gate is not None:
                        await channel.gate
                    self._at_head = True
                    await self._receive_frame()
                    count += 1
                    if count % _TURN == 0:
                        await asyncio.sleep(0)
            if self.broken:
                await channel.close_written()
                stream.write(b"").add_done_callback(lambda _: _end_writing(stream))
            while self.broken:
                await stream.read_bytes(_CHUNK, partial=True)
                await asyncio.sleep(0)
        except StreamClosedError:
            pass
        finally:
            if self.broken or not self.client_terminated:
                channel.connection_lost()

    async def _read_bytes(self, n: int) -> bytes:
        data = await self.stream.read_bytes(n)
        if self._at_head:
            self._at_head = False
            opcode = data[0] & self.OPCODE_MASK
            kind = opcode or self._fragmented_message_opcode
            if kind not in _KNOWN or not data[1] & 0x80 or (opcode & 0x8 and data[0] & self.RSV1):
                self._abort()
                raise _Violation
            is_deflated = bool(data[0] & self.RSV1 or (not opcode and self._frame_compressed))
            self.params.max_message_size = self.channel.terms.limits.of(kind, deflated=is_deflated)
            self._outer_compressed = self._frame_compressed
        return data

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        if opcode & 0x8:
            self._frame_compressed = self._outer_compressed
            self._handle_control(opcode, data)
        elif self._frame_compressed:
            return self._inflate(opcode, data)
        else:
            try:
                self.channel.feed(data.decode() if opcode == TEXT else data)
            except UnicodeDecodeError:
                self._fail(1007)
        return None

    def _inflate(self, opcode: int, data: bytes) -> Coroutine[Any, Any, None] | None:
        """Inflate a message and hand it on; return what tornado is to await for that before it reads on, or None."""
        native: Any = self._decompressor
        inflater = native._decompressor or native._create_decompressor()
        inflation = Inflation(inflater, data + END_OF_MESSAGE, native._max_wbits)
        try:
            if not inflation.go_on(LARGE):
                return self._inflate_rest(opcode, inflation)
        except zlib.error:
            self._fail(1002)
        else:
            self._take_inflated(opcode, inflation)
        return None

    async def _inflate_rest(self, opcode: int, inflation: Inflation) -> None:
        """Do so outside the event loop (SEND-9)."""
        limit = self.channel.terms.limits.of(opcode)
        try:
            await asyncio.get_running_loop().run_in_executor(None, inflation.go_on, limit)
        except zlib.error:
            self._fail(1002)
        else:
            self._take_inflated(opcode, inflation)

    def _take_inflated(self, opcode: int, inflation: Inflation) -> None:
        native: Any = self._decompressor
        if native._decompressor is not None:  # it outlives the message
            native._decompressor = inflation.inflater
        if inflation.size > self.channel.terms.limits.of(opcode):
            self._fail(1009)
            return
        try:
            self.channel.feed(inflation.data.decode() if opcode == TEXT else inflation.data)
        except UnicodeDecodeError:
            self._fail(1007)

    def _handle_control(self, opcode: int, data: bytes) -> None:
        if opcode == PING:
            self.channel.ping_received(data)
        elif opcode == PONG:
            self.channel.pong_received(data)
        elif len(data) == 1 or (data and not is_valid_close_code(int.from_bytes(data[:2]))):
            self._abort()
        else:
            try:
                text = data[2:].decode()
            except UnicodeDecodeError:
                self._fail(1007)
            else:
                self.client_terminated = True
                self.channel.peer_closed(int.from_bytes(data[:2]) if data else None, text)

    def _fail(self, code: int) -> None:
        self.client_terminated = self.broken = True
        self.channel.failed(code)

    def _abort(self) -> None:
        self._fail(1002)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Take it that tornado closes: a message is too big."""
        self.channel.failed(code or 1000, reason or "")


async def read(frames: Frames) -> None:
    """Read all that a channel receives, then end the connection."""
    stream = frames.stream
    try:
        await frames.read()
        await frames.channel.close_written()
        del frames  # the channel may be forgotten while the rest is written
        await stream.write(b"")
    except StreamClosedError:
        pass
    finally:
        stream.close()


def _end_writing(stream: IOStream) -> None:
    """Half-close; with TLS there is no such thing."""
    if not stream.closed() and not isinstance(stream, SSLIOStream):
        with contextlib.suppress(OSError):
            stream.socket.shutdown(socket.SHUT_WR)  # pyright: ignore[reportOptionalMemberAccess]
