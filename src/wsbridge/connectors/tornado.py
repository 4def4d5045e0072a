"""The tornado connector: pushed, one task that reads and one that runs callbacks per channel. Tried on 6.5 to 6.6.

Native -> call: ``_handle_message`` -> ``feed``, ``pong_received``, ``peer_closed``; ``_abort`` and ``close`` of the
protocol -> ``failed``; `StreamClosedError` -> ``connection_lost``.

Mends, in a subclass of `WebSocketProtocol13` but where told (lines of tornado 6.6.1, websocket.py):

- A violation or invalid UTF-8 cuts TCP without a word (690), and so does a message too big (1208), before the peer can
  read its close frame: a close frame is written, and what the peer still sends is read and dropped.
- Unmasked frames and RSV1 on control frames are accepted (1189, 1183), reserved opcodes not refused before their
  message is whole, and the size limit holds for control frames too (1208): `_read_bytes` looks at the frame's head.
- A ping between deflated fragments undoes ``_frame_compressed`` (1183): it is put back.
- Any close code is accepted and echoed (1288), and a close lasts 5 s (1361): `_handle_message` is replaced.
- In an offer of deflate, parameters without a value are lost, and bad ones cut TCP (httputil.py:1290, 923):
  `_parse_extensions_header` returns what the core has agreed on.
- What follows a deflated block with BFINAL is lost (826), there is one limit for both kinds, and it cannot be
  ``sys.maxsize`` and more (830): `_inflate`.
- A message sent costs a task (1144), and nothing bounds the write buffer: `_write_frame`, and the channel waits.
- ``get`` checks less than HS-4 (238), and stays for the life of the channel: `_Handler.prepare` answers any method, and
  its task ends there.
- The keep-alive timer covers one wait, and not the body (http1connection.py:229): `_Server` has a deadline per request,
  and answers a bad Host, which in 6.5 logs a traceback.
- A head that is too large is cut off without an answer (iostream.py:986): `_Answering`. A body is read before the
  handler runs (web.py:2636), and ``Connection: close`` replaces what else the header says (http1connection.py:481):
  `_BodyHandler`, `_Handler._respond_and_close`.
- It logs each malformed request, with the peer's words, and each failed TLS handshake (http1connection.py:344,
  iostream.py:1452): `_is_no_noise`.
- A peer that does not read its answers may stay (http1connection.py:583): `BaseConnector.answering`.
- ``close_all_connections`` forgets WebSockets (httpserver.py:211): the connector keeps their reading tasks.

It declares no deviation. Private names are listed in `_PRIVATE` and looked for at import.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import struct
import sys
import weakref
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import ContextVar, copy_context
from functools import cached_property, partial
from types import TracebackType
from typing import Any, TypeAlias, cast
from urllib.parse import quote

from tornado import web
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPInputError, HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError
from tornado.log import gen_log
from tornado.netutil import ssl_wrap_socket
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from wsbridge import Application, Compression, Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ENDED,
    GRACE,
    LARGE,
    MAX_SIZE,
    NAME,
    REFUSAL,
    Acceptor,
    Agreement,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Connection,
    Feature,
    HandshakeDeadline,
    Mount,
    MountPoint,
    QueuedChannel,
    Taken,
    agree,
    begin_later,
    deflated_limit,
    is_valid_close_code,
    lower,
    of_socket,
    peer_address,
    plain_response,
    says_close,
    server_names,
    shown,
    size_limit,
)
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._codecs.pieces import Inflation

__all__ = ["Connector", "TornadoChannel", "TornadoRequest", "mount"]

TornadoRequest: TypeAlias = Request[HTTPServerRequest]
"""A `Request` of this connector, for annotations."""

TornadoChannel: TypeAlias = WebSocketChannel[WebSocketHandler]
"""A `WebSocketChannel` of this connector, for annotations."""

logger = logging.getLogger("wsbridge")

_PRIVATE = {
    "tornado.websocket:WebSocketProtocol13": "_abort _compressor _decompressor _frame_compressed _handle_message "
    "_fragmented_message_opcode _parse_extensions_header _read_bytes _receive_frame _receive_frame_loop _write_frame",
    "tornado.iostream:BaseIOStream": "_write_buffer",
    "tornado.websocket:_PerMessageDeflateDecompressor": "_create_decompressor _decompressor _max_wbits",
}
server_names("tornado", "6.5 to 6.6", _PRIVATE)

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_END_OF_MESSAGE = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.2
_BAD_REQUEST = final_response(plain_response(400), "")
_TOO_LARGE = final_response(plain_response(431), "")
_TURN = 64  # frames that are read before other tasks get their turn
_CHUNK = 64 * 1024  # bytes

_NOISE = ("Malformed HTTP message", "Unsatisfiable read", "SSL Error", "Timeout reading body")
_IS_OURS: ContextVar[bool] = ContextVar("wsbridge_tornado", default=False)  # in all that a server of this module runs


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Let pass what tornado logs but for what any peer can cause: that has the level debug here (LOG-1)."""
    if not _IS_OURS.get() or not str(record.msg).startswith(_NOISE):
        return True
    return lower(record, gen_log)


gen_log.addFilter(_is_no_noise)


class _Violation(Exception):
    """The peer broke the protocol; it has been dealt with."""


class _Frames(WebSocketProtocol13):
    """Tornado's codec, reporting to a channel."""

    # beside the dictionary of tornado's class: beyond 30 names CPython shares no keys, which costs 2.8 KiB
    __slots__ = ("_at_head", "_outer_compressed", "agreement", "broken", "channel")

    def __init__(self, handler: _Handler, channel: _Channel, params: Any) -> None:
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
                await channel.answered()
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
            limit = self.channel.terms.limits.get(opcode or self._fragmented_message_opcode or 0)
            if limit is None or not data[1] & 0x80 or (opcode & 0x8 and data[0] & self.RSV1):
                self._abort()
                raise _Violation
            if data[0] & self.RSV1 or (not opcode and self._frame_compressed):
                limit = deflated_limit(limit)
            self.params.max_message_size = limit
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
                self.channel.feed(data.decode() if opcode == _TEXT else data)
            except UnicodeDecodeError:
                self._fail(1007)
        return None

    def _inflate(self, opcode: int, data: bytes) -> Coroutine[Any, Any, None] | None:
        """Inflate a message and hand it on; return what tornado is to await for that before it reads on, or None."""
        native: Any = self._decompressor
        inflater = native._decompressor or native._create_decompressor()
        inflation = Inflation(inflater, data + _END_OF_MESSAGE, native._max_wbits)
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
        limit = self.channel.terms.limits[opcode]
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
        if inflation.size > self.channel.terms.limits[opcode]:
            self._fail(1009)
            return
        try:
            self.channel.feed(inflation.data.decode() if opcode == _TEXT else inflation.data)
        except UnicodeDecodeError:
            self._fail(1007)

    def _handle_control(self, opcode: int, data: bytes) -> None:
        if opcode == _PING:
            self.channel.ping_received(data)
        elif opcode == _PONG:
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


async def _read(frames: _Frames) -> None:
    """Read all that a channel receives, then end the connection."""
    stream = frames.stream
    try:
        await frames.read()
        await frames.channel.answered()
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


def _close_if_there(reference: Callable[[], IOStream | None]) -> None:
    """Close a stream that has not ended; one that has is not kept, nor what it knows of TLS."""
    if (stream := reference()) is not None:
        stream.close()


def _unsent(stream: IOStream) -> int:
    return len(stream._write_buffer or b"")  # pyright: ignore[reportPrivateUsage]


class _Terms:
    """Options as tornado wants them, once for all channels that have the same."""

    __slots__ = ("deflate", "limits", "options")

    def __init__(self, options: WebSocketOptions[Any]) -> None:
        self.options = options
        wanted = options.compression
        level = wanted.memory_level if isinstance(wanted, Compression) else None
        self.deflate = None if wanted is False else {} if level is None else {"mem_level": level}
        self.limits: dict[int, int] = dict.fromkeys((_CLOSE, _PING, _PONG), MAX_SIZE)
        self.limits |= {_TEXT: size_limit(options.max_text_size), _BINARY: size_limit(options.max_binary_size)}


class _Channel(QueuedChannel):
    __slots__ = ("_frames", "_stream", "gate", "terms")

    native: _Handler

    def prepare(self, handler: _Handler) -> None:
        """Take the options as tornado wants them."""
        self.native = handler
        self.terms = cast(Connector, self._connector).terms_of(self._options)
        self.gate: asyncio.Future[None] | None = None  # what reading waits for

    def opened(self, frames: _Frames) -> None:
        """Take the connection, when the 101 is written."""
        self._frames = frames
        self._stream = stream = frames.stream
        if stream.closed():
            self.abandon()
            return
        stream.set_nodelay(True)
        stream.max_buffer_size = sys.maxsize  # the limit is the message's
        loop = self._connector.loop
        begin_later(loop, self.run())
        cast(Connector, self._connector).keep(begin_later(loop, _read(frames)))

    def _send_text(self, text: str) -> Awaitable[object] | None:
        return self._frames.send(_TEXT, text.encode())

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        return self._frames.send(_BINARY, data)

    def send_large(self, deflate: Callable[[], bytes], write: Callable[[bytes], None]) -> Awaitable[object]:
        """Deflate a large message outside the event loop, and write it."""
        return self._send_large(self._deflated(deflate, write))

    def _is_full(self) -> bool:
        return self._stream.writing()

    def _close(self, code: int | None, text: str) -> None:
        self._frames.send_control(_CLOSE, b"" if code is None else struct.pack("!H", code) + text.encode())
        self._frames.server_terminated = True

    def _ping(self, payload: bytes) -> None:
        self._frames.send_control(_PING, payload)

    def _pong(self, payload: bytes) -> None:
        self._frames.send_control(_PONG, payload)

    def written(self, future: asyncio.Future[None]) -> None:
        """Take it that the write buffer is empty, or the connection gone."""
        if not self._stream.writing():  # behind a message and a control frame there are two to wait for
            self.resume_writing()

    async def answered(self) -> None:
        """Wait until the close frame is written, which may have to wait for sends (SEND-6)."""
        await self.close_written()

    def _disconnect(self, *, half: bool) -> None:
        """`_read` does."""

    def _drainable(self) -> Connection | None:
        stream = self._stream
        return None if stream.socket is None else (stream.socket, partial(_unsent, stream))

    def _aborter(self) -> Callable[[], object]:
        return partial(_close_if_there, weakref.ref(self._stream))

    def _unsent_bytes(self) -> int:
        return _unsent(self._stream)

    def _hold_reading(self) -> None:
        self.gate = self._connector.loop.create_future()

    def _resume_reading(self) -> None:
        if self.gate is not None and not self.gate.done():
            self.gate.set_result(None)
        self.gate = None


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, handler: _Handler) -> None:
        super().__init__(connector, request)
        self._handler = handler

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = self._handler.channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.prepare(self._handler)
        return channel


class _AnyMethod(tuple[str, ...]):
    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        return True


_Handle = Callable[[Request, BaseSource], Coroutine[Any, Any, BaseChannel | Response]]


class _Handler(WebSocketHandler):
    """One request."""

    # beside the dictionary of tornado's class, as in `_Frames`
    __slots__ = ("_connector", "_handle", "_point", "channel")

    SUPPORTED_METHODS = _AnyMethod()  # HS-4 decides
    channel: _Channel

    def initialize(self, connector: Connector, handle: _Handle, point: MountPoint | None = None) -> None:
        self._connector = connector
        self._handle = handle
        self._point = point

    async def prepare(self) -> None:
        """Answer the request."""
        native = self.request
        connection: Any = native.connection
        context = connection.context
        task: Any = asyncio.current_task()
        self._connector.keep(task)
        self._connector.request_complete(context)
        stream: IOStream = connection.stream
        point = self._point
        groups: dict[Any, Any] = {**dict(enumerate(self.path_args, 1)), **self.path_kwargs}
        request = Request(
            native.method or "",
            native.uri or "",
            headers=native.headers.get_all(),
            scheme="wss" if native.protocol == "https" else "ws",
            http_version=native.version.removeprefix("HTTP/"),
            remote_address=peer_address(context.address),
            tls=stream.socket if isinstance(stream, SSLIOStream) else None,
            native=native,
            root_path="" if point is None else point.root_path,
            path_params=None if point is None else point.path_params(groups),
        )
        source = _Source(self._connector, request, self)
        outcome = await self._handle(request, source)
        if isinstance(outcome, Response):
            self._respond(outcome)
            return
        try:
            self._add_headers(source.response_headers)
            self._connector.upgraded(stream)
            self.open_args, self.open_kwargs = (), {}
            self.ws_connection = frames = self.get_websocket_protocol()
            frames.agreement = agree(request, self.channel.options.compression)
            await self.ws_connection.accept_connection(self)
        except BaseException:
            outcome.abandon()
            raise

    def _respond(self, response: Response) -> None:
        connection: Any = self.request.connection
        stream: IOStream = connection.stream
        self.set_status(response.status_code)
        self._add_headers(response.headers)
        self._connector.answering(stream)
        if says_close(response):
            self._respond_and_close(response)
            return
        finish = cast("Callable[[bytes | None], object]", self.finish)  # pyright: ignore[reportUnknownMemberType]
        finish(None if response.status_code in (204, 304) else response.body)

    def _respond_and_close(self, response: Response) -> None:
        """Answer where the connection ends behind it: tornado would say so in another way, or read a body first."""
        data = final_response(response, self.request.method or "")
        stream = self.detach()
        self._connector.keep(begin_later(self._connector.loop, _end_behind(stream, data, self._connector)))
        self.application.log_request(self)

    def _add_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        for name, value in headers:
            value.encode("latin-1")  # which tornado does when it is too late
            self.add_header(name, value)

    def get_websocket_protocol(self) -> _Frames:
        return _Frames(self, self.channel, cast(WebSocketProtocol13, super().get_websocket_protocol()).params)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return self.channel.subprotocol

    def decode_argument(self, value: bytes | None, name: str | None = None) -> Any:
        return None if value is None else value.decode("utf-8", "replace")

    def check_xsrf_cookie(self) -> None:
        """HS-6 is the protection."""

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.clear_header("Content-Type")

    def compute_etag(self) -> None:
        return None

    def check_etag_header(self) -> bool:
        return False

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self._respond(plain_response(status_code))

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not isinstance(value, web.HTTPError):
            logger.error("the request for %s failed", shown(self.request.uri or ""), exc_info=value)


@web.stream_request_body
class _BodyHandler(_Handler):
    """One request that has a body, which is not read (HS-16)."""

    __slots__ = ()


class _Application(web.Application):
    """Hands every request to a handler of ours."""

    def __init__(self, connector: Connector) -> None:
        super().__init__(log_function=_log_nothing)
        self._arguments = {"connector": connector, "handle": connector.handle}

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        has_body = "Transfer-Encoding" in request.headers or request.headers.get("Content-Length", "0") != "0"
        return self.get_handler_delegate(request, _BodyHandler if has_body else _Handler, self._arguments)


async def _end_behind(stream: IOStream, data: bytes, connector: Connector) -> None:
    """Write a last answer and close; what the peer still sends is dropped meanwhile."""
    try:
        async with asyncio.timeout(connector.handshake_timeout):
            await stream.write(data)
        if not isinstance(stream, SSLIOStream):
            connector.drain_answered(None if stream.socket is None else (stream.socket, partial(_unsent, stream)))
    except (StreamClosedError, TimeoutError):
        pass
    finally:
        stream.close()


class _Answering:
    """A mixin for the streams of one connector: a head that is too large is answered (HS-17), not only cut off."""

    connector: Connector
    error: BaseException | None
    socket: Any

    def close_fd(self) -> None:
        if isinstance(self.error, UnsatisfiableReadError):
            with contextlib.suppress(OSError):
                self.socket.send(_TOO_LARGE)
            if not isinstance(self, SSLIOStream):
                self.connector.drain_answered((self.socket, _nothing_unsent))
        cast(Any, super()).close_fd()


def _nothing_unsent() -> int:
    return 0


class _Server(HTTPServer):
    """Ends a connection whose request is not complete in time."""

    connector: Connector
    streams: dict[type[IOStream], type[IOStream]]

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        stream.__class__ = self.streams[type(stream)]
        if isinstance(stream, SSLIOStream):
            task = begin_later(self.connector.loop, self._handle_tls(stream, address))
            task.add_done_callback(lambda task: stream.close() if task.cancelled() else None)  # before its first step
            self.connector.keep(task)
        else:
            self._serve(stream, address)

    def _serve(self, stream: IOStream, address: Any) -> None:
        super().handle_stream(stream, address)  # pyright: ignore[reportUnknownMemberType]

    async def _handle_tls(self, stream: SSLIOStream, address: Any) -> None:
        """Wait for TLS, which tells what the client will speak (HS-18)."""
        with contextlib.suppress(OSError):  # the stream is closed, or TLS was not agreed on
            with self.connector.until_deadline(stream, self.connector.handshake_timeout):
                await stream.wait_for_handshake()
            if not self.connector.is_http2(stream.socket):
                self._serve(stream, address)
                return
            with self.connector.until_deadline(stream, GRACE):
                stream.write(REFUSAL)
                while True:  # what comes is dropped
                    await stream.read_bytes(_CHUNK, partial=True)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        self.connector.request_begins(cast(HTTP1ServerConnection, server_conn))
        delegate = super().start_request(server_conn, request_conn)
        native = delegate.headers_received

        def headers_received(start_line: Any, headers: HTTPHeaders) -> Any:
            try:
                return native(start_line, headers)
            except HTTPInputError:  # a bad Host, for which 6.5 logs a traceback and closes
                stream = cast(HTTP1Connection, request_conn).detach()
                with contextlib.suppress(StreamClosedError):  # the peer has left already
                    stream.write(_BAD_REQUEST).add_done_callback(lambda _: stream.close())

        delegate.headers_received = headers_received  # type: ignore[method-assign]
        return delegate

    def on_close(self, server_conn: object) -> None:
        self.connector.request_complete(cast(HTTP1ServerConnection, server_conn).context)
        super().on_close(server_conn)


class _Acceptor(Acceptor):
    """Makes streams of what is accepted, as `tornado.tcpserver.TCPServer` does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sockets: list[socket.socket], server: _Server) -> None:
        super().__init__(loop, sockets)
        self._server = server
        self._streams: weakref.WeakSet[IOStream] = weakref.WeakSet()

    def _take(self, connection: socket.socket, address: Any) -> None:
        server = self._server
        sizes = {"max_buffer_size": server.max_buffer_size, "read_chunk_size": server.read_chunk_size}
        if server.ssl_options is None:
            stream = IOStream(connection, **sizes)
        else:
            try:
                secure = ssl_wrap_socket(
                    connection, server.ssl_options, server_side=True, do_handshake_on_connect=False
                )
            except OSError:  # the peer has left already
                connection.close()
                return
            stream = SSLIOStream(secure, **sizes)
        self._streams.add(stream)
        cast(Any, server).handle_stream(stream, address)

    @property
    def is_asked(self) -> bool:
        return any(not stream.closed() for stream in self._streams)

    async def abort(self) -> None:
        for stream in list(self._streams):
            stream.close()


class Connector(BaseConnector):
    """Serves by `tornado.httpserver.HTTPServer`. ``native_options``: keyword arguments of that class."""

    name = "tornado"
    connector_api = 2
    features = BaseConnector.features | frozenset[Feature](("mount",))
    mount_harness = "wsbridge.conformance.harness.tornado:serve"
    compression_settings = frozenset(("window_bits", "memory_level", "context_takeover"))
    native_option_names = frozenset(("chunk_size", "max_body_size", "max_header_size"))

    _server: _Server

    @cached_property
    def _tasks(self) -> set[asyncio.Task[Any]]:
        return set()

    _terms: _Terms | None = None

    def terms_of(self, options: WebSocketOptions[Any]) -> _Terms:
        """Return options as tornado wants them; those of the last channel are kept, mostly all have the same."""
        if self._terms is None or self._terms.options is not options:
            self._terms = _Terms(options)
        return self._terms

    @cached_property
    def _deadlines(self) -> dict[object, HandshakeDeadline]:
        return {}

    async def _start(self, sockets: list[socket.socket]) -> None:
        native: dict[str, Any] = {"max_header_size": self.max_head_size, **self.native_options}
        self._server = _Server(_Application(self), ssl_options=self.ssl, **native)
        self._server.connector = self
        self._server.streams = {
            kind: cast("type[IOStream]", type(kind.__name__, (_Answering, kind), {"connector": self}))
            for kind in (IOStream, SSLIOStream)
        }
        context = copy_context()
        context.run(_IS_OURS.set, True)
        context.run(self.accept, _Acceptor(self.loop, sockets, self._server))

    def _how_taken(self, connection: IOStream) -> Taken:
        sock = connection.socket
        return ENDED if sock is None else of_socket(sock, is_held=bool(_unsent(connection)))

    def _cut_answered(self, connection: IOStream) -> None:
        connection.close()

    async def _stop(self) -> None:
        await self._server.close_all_connections()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.1)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it is done, or `stop` ends it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def until_deadline(self, stream: IOStream, timeout: float) -> Generator[None]:
        """Close a stream at the end of a time, or when the block fails."""
        deadline = HandshakeDeadline(self)
        deadline.begin(stream.close, timeout)
        try:
            yield
        except BaseException:
            stream.close()
            raise
        finally:
            deadline.cancel()

    def request_begins(self, connection: HTTP1ServerConnection) -> None:
        """Begin to wait for a request (HS-10)."""
        self.request_complete(connection.context)
        deadline = self._deadlines[connection.context] = HandshakeDeadline(self)
        deadline.begin(connection.stream.close)

    def request_complete(self, context: object) -> None:
        """Wait no longer."""
        if (deadline := self._deadlines.pop(context, None)) is not None:
            deadline.cancel()


def mount(
    app: web.Application,
    path: str,
    handler: WebSocketOptions[Any] | Application,
    *,
    connector: type[Connector] = Connector,
    **options: Any,
) -> Mount:
    """Serve ``handler`` at ``path`` of a tornado application, beside its own routes and before them (MOUNT-1).

    Args:
        app: An application.
        path: For options a regular expression, as for the application's own routes; its named groups are the request's
            ``path_params``, unnamed ones by their number from ``"1"``. For an `Application` a fixed prefix, below which
            its routes are.
        handler: Options, or a whole application.
        connector: A subclass of `Connector` to use instead.
        options: ``max_channels``, ``max_head_size``, which the server may undercut, ``shutdown_timeout`` and
            ``trusted_proxies`` of the connector.

    Returns:
        The mount. Tornado has no shutdown hook: await its ``stop()``.
    """
    point = MountPoint(handler, path)
    mounted = Mount(connector(point.app, **options), handler)
    if point.has_routes:
        path = re.escape(quote(point.root_path, "/:@!$&'()*+,;=")) + "(?:/.*)?"
    arguments = {"connector": mounted.connector, "handle": mounted.handle, "point": point}
    app.add_handlers(".*$", [(path, _Handler, arguments)])
    return mounted


def _log_nothing(handler: web.RequestHandler) -> None:
    """Write no access log."""
