"""A client of HTTP/2 for tests, on the library h2, and what lets a client of HTTP/1.1 speak by it.

`Gateway` is what some proxies are: a WebSocket that comes to it by an upgrade goes on as a stream of HTTP/2 (RFC 8441).
With it `wsbridge.conformance.client.WirePeer`, which knows no HTTP/2, and so the suite, reach a server over it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Sequence
from http.client import responses
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes
from wsproto.connection import Connection as WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, Event, Message, TextMessage

__all__ = ["TIMEOUT", "VERSION_13", "Gateway", "Http2Connection", "Requests", "Stream", "WebSocket"]

TIMEOUT = 10.0
VERSION_13 = (("sec-websocket-version", "13"),)
_WINDOW = 1 << 20  # of a connection, so that a stream that is not read does not hold up the others
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OF_HTTP1 = {"host", "upgrade", "connection", "sec-websocket-key"}


class Stream:
    """One request, and, behind its answer, a WebSocket."""

    def __init__(self, connection: Any, number: int) -> None:
        self._connection = connection
        self.number = number
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.reset: int | None = None  # the code of its RST_STREAM, of either side
        self.ended = False  # the server sends no more
        self.gone = False  # nothing can be sent any more
        self._data = bytearray()
        self._unread = 0  # what the server has not been given the window back for
        self._news = asyncio.Event()

    async def answer(self, timeout: float | None = TIMEOUT) -> int:
        """Return the status."""
        async with asyncio.timeout(timeout):
            while self.status is None:
                if self.ended:
                    raise ConnectionResetError(f"the stream ended without an answer: {self.reset}")
                await self._next()
        return self.status

    async def read(self, timeout: float | None = TIMEOUT) -> bytes:
        """Return what has come, b"" at the end; the server's window grows by what was read, and by nothing else."""
        async with asyncio.timeout(timeout):
            while not self._data and not self.ended:
                await self._next()
        data = bytes(self._data)
        self._data.clear()
        self._connection.give_back(self, self._unread)
        self._unread = 0
        return data

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def send(self, data: bytes) -> None:
        """Send bytes, as the server's window allows."""
        await self._connection.send(self, data)

    def finish(self) -> None:
        """End this side of it, which is what a FIN is to TCP."""
        self._connection.finish(self)

    def cancel(self) -> None:
        """Reset it, which is what a RST is to TCP, and what browsers do."""
        self._connection.cancel(self)
        self.over()

    def over(self) -> None:
        self.ended = self.gone = True
        self._news.set()

    def answered(self, headers: Iterable[tuple[Any, Any]]) -> None:
        """Take the head of the answer."""
        self.headers = [(_text(name), _text(value)) for name, value in headers]
        self.status = int(dict(self.headers)[":status"])
        self._news.set()

    def received(self, data: bytes, size: int) -> None:
        """Take bytes, for which ``size`` bytes of the window are used."""
        self._data += data
        self._unread += size
        self._news.set()

    def finished(self) -> None:
        """Take it that the server sends no more."""
        self.ended = True
        self._news.set()

    def was_reset(self, code: int) -> None:
        """Take the RST_STREAM of the server."""
        self.reset = code
        self.over()


class WebSocket:
    """A client's side of a WebSocket on a stream, with messages of wsproto's."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._wsproto = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    async def send(self, event: Event) -> None:
        await self.stream.send(self._wsproto.send(event))

    async def send_text(self, text: str) -> None:
        await self.send(TextMessage(data=text))

    async def receive(self) -> str | bytes | CloseConnection | None:
        """Return the next message, or the close frame; None at the end."""
        whole: Any = None
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, Message):
                    whole = event.data if whole is None else whole + event.data
                    if event.message_finished:
                        return bytes(whole) if isinstance(whole, bytearray) else whole
                elif isinstance(event, CloseConnection):
                    return event
            data = await self.stream.read()
            if not data:
                return None
            self._wsproto.receive_data(data)
            self._events += self._wsproto.events()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def connect_headers(target: str, headers: Sequence[tuple[str, str]], authority: str) -> list[tuple[str, str]]:
    """Return the headers of a request for a WebSocket (RFC 8441, 4; RFC 9220, 3)."""
    pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", target)]
    return [*pseudo, (":authority", authority), *headers]


def request_headers(target: str, headers: Sequence[tuple[str, str]], authority: str) -> list[tuple[str, str]]:
    """Return those of a GET."""
    pseudo = [(":method", "GET"), (":scheme", "https"), (":path", target), (":authority", authority)]
    return [*pseudo, *headers]


class Requests(ABC):
    """How a connection of HTTP/2 or HTTP/3 is asked, each request on a stream of its own."""

    streams: dict[int, Stream]

    @abstractmethod
    def _send_headers(self, encoded: Sequence[tuple[bytes, bytes]], *, end: bool) -> int:
        """Send the headers of a request on a new stream, and return its number."""

    def request(self, headers: Sequence[tuple[str, str]], *, end: bool = False) -> Stream:
        """Send a request; ``end`` if it has no more than its headers."""
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        number = self._send_headers(encoded, end=end)
        stream = self.streams[number] = Stream(self, number)
        return stream

    def websocket(
        self, target: str, headers: Sequence[tuple[str, str]] = VERSION_13, *, authority: str = "example.org"
    ) -> Stream:
        """Ask for a WebSocket."""
        return self.request(connect_headers(target, headers, authority))

    def get(self, target: str, headers: Sequence[tuple[str, str]] = (), *, authority: str = "example.org") -> Stream:
        """Ask for a page."""
        return self.request(request_headers(target, headers, authority), end=True)


class Http2Connection(Requests):
    """A connection of HTTP/2, with its streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.streams: dict[int, Stream] = {}
        self.has_websockets = False
        self.terminated: int | None = None  # the code of a GOAWAY
        self.ended = False
        self._is_half_closed = False
        self._settled = asyncio.Event()
        self._window = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> Self:
        """Connect, and read the server's settings; without TLS by prior knowledge (RFC 9113, 3.3)."""
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        connection = cls(reader, writer)
        connection.h2.initiate_connection()
        connection.h2.increment_flow_control_window(_WINDOW)
        connection.flush()
        async with asyncio.timeout(TIMEOUT):
            await connection._settled.wait()
        return connection

    @property
    def address(self) -> tuple[str, int]:
        """This end's."""
        host, port, *_ = self._writer.get_extra_info("sockname")
        return host, port

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.transport.abort()
        await asyncio.wait((self._task,))
        await asyncio.sleep(0)

    def end(self) -> None:
        """End this side of it, which is a FIN without TLS."""
        if self._writer.can_write_eof():
            self._is_half_closed = True
            self._writer.write_eof()

    def _send_headers(self, encoded: Sequence[tuple[bytes, bytes]], *, end: bool) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, encoded, end_stream=end)
        self.flush()
        return number

    def finish(self, stream: Stream) -> None:
        with contextlib.suppress(ProtocolError):
            self.h2.end_stream(stream.number)
        self.flush()

    def cancel(self, stream: Stream) -> None:
        with contextlib.suppress(ProtocolError):
            self.h2.reset_stream(stream.number, ErrorCodes.CANCEL)
        self.flush()

    async def send(self, stream: Stream, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not stream.gone and not self.ended:
            size = min(self.h2.local_flow_control_window(stream.number), self.h2.max_outbound_frame_size, len(rest))
            if size == 0:
                self._window.clear()
                await self._window.wait()
                continue
            self.h2.send_data(stream.number, bytes(rest[:size]))
            rest = rest[size:]
            self.flush()
            await self._writer.drain()

    def give_back(self, stream: Stream, size: int) -> None:
        if size and not self.ended:
            with contextlib.suppress(StreamClosedError):
                self.h2.acknowledge_received_data(size, stream.number)
            self.flush()

    def flush(self) -> None:
        if (data := self.h2.data_to_send()) and not (self._writer.is_closing() or self._is_half_closed):
            self._writer.write(data)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._take(event)
                self.flush()
        except OSError:
            pass
        finally:
            self.ended = True
            self._settled.set()
            self._window.set()
            for stream in self.streams.values():
                stream.over()

    def _take(self, event: Any) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self.has_websockets = bool(self.h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL))
            self._settled.set()
            self._window.set()
        elif isinstance(event, WindowUpdated):
            self._window.set()
        elif isinstance(event, ConnectionTerminated):
            self.terminated = int(event.error_code or 0)
        elif (stream := self.streams.get(getattr(event, "stream_id", 0) or 0)) is not None:
            if isinstance(event, ResponseReceived):
                stream.answered(event.headers)
            elif isinstance(event, DataReceived):
                stream.received(event.data, event.flow_controlled_length)
            elif isinstance(event, StreamEnded):
                stream.finished()
            elif isinstance(event, StreamReset):
                stream.was_reset(int(event.error_code))
                self._window.set()


class Gateway:
    """Listens for WebSockets by HTTP/1.1, and passes each on as a stream of HTTP/2.

    Args:
        host: Of the server.
        port: Of the server.
        tls: For the connections to the server; they are plain without it.
        is_shared: Whether all go by one connection; otherwise each has its own, which ends with it.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, is_shared: bool = False) -> None:
        self._server_address = host, port
        self._tls = tls
        self._is_shared = is_shared
        self._shared: Http2Connection | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Server | None = None
        self.address = ("", 0)

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = self._listener.sockets[0].getsockname()
        if self._is_shared:
            self._shared = await Http2Connection.open(*self._server_address, tls=self._tls)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._shared is not None:
            await self._shared.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a task that start_server makes may not be cancelled: before Python 3.12 it reports that as an error
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with self._connection() as connection:
                    await self._pass_on(connection, reader, writer)
        finally:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Http2Connection]:
        if self._shared is not None:
            yield self._shared
            return
        async with await Http2Connection.open(*self._server_address, tls=self._tls) as connection:
            yield connection

    async def _pass_on(
        self, connection: Http2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        _, target, _ = line.split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        found = dict(headers)
        passed_on = [(name, value) for name, value in headers if name not in _OF_HTTP1]
        authority, key = found.get("host", ""), ""
        if found.get("upgrade", "").lower() == "websocket":
            key = found.get("sec-websocket-key", "")
            stream = connection.websocket(target, passed_on, authority=authority)
        else:
            stream = connection.get(target, passed_on, authority=authority)
        up = asyncio.create_task(self._up(reader, connection, stream))
        try:
            await self._answer(stream, key, writer)
            await self._down(stream, writer)
            if not stream.gone:
                writer.write_eof()  # the other side goes on
                await asyncio.wait((up,))
        finally:
            up.cancel()
            await asyncio.wait((up,))

    async def _answer(self, stream: Stream, key: str, writer: asyncio.StreamWriter) -> None:
        status = await stream.answer(None)
        lines = [f"{name}: {value}" for name, value in stream.headers if not name.startswith(":")]
        if status == 200 and key:
            accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
            lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
            first = "HTTP/1.1 101 Switching Protocols"
        else:
            first = f"HTTP/1.1 {status} {responses.get(status, '')}"
        writer.write("\r\n".join([first, *lines, "", ""]).encode("latin-1"))

    async def _up(self, reader: asyncio.StreamReader, connection: Http2Connection, stream: Stream) -> None:
        try:
            if await stream.answer(None) == 200:
                while data := await reader.read(65536):
                    await stream.send(data)
            if self._is_shared:
                stream.cancel()  # as browsers do
            else:
                connection.end()
        except OSError:
            stream.cancel()

    async def _down(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await stream.read(None):
                writer.write(data)
                await writer.drain()
        except OSError:
            stream.cancel()
