"""The websockets connector: frames are pushed as they are parsed. Read and tried on websockets 15.0, 16.0 and 17.4.

Native -> call: TEXT, BINARY, CONT in ``recv_frame`` -> ``feed``; PONG -> ``pong_received``; CLOSE -> ``peer_closed``;
``parser_exc`` -> ``failed``; ``eof_received``, ``connection_lost`` -> ``connection_lost``; ``pause_writing`` and
``resume_writing`` -> their namesakes.

Mends; lines are those of 17.4:

- The handshake is answered in ``process_request``, by a 101 too: `ServerProtocol.accept` (server.py:121) would refuse
  what HS-4 accepts, and with other codes. 15 and 16 close on another method than GET and on HTTP/1.0, all close on a
  path with other bytes than ASCII (http11.py:178): `_Connection._request_line` lets these pass.
- Frames behind the request would be parsed before the 101 is out (server.py:633): `_Connection._hold_back`.
- ``open_timeout`` would cut slow interceptors too: the connector's clock bounds the request alone.
- ``process_event`` comes when the whole read is parsed and answered: invalid text would be found behind the answer to a
  close that follows it. ``recv_frame`` is called frame by frame, so that what it raises is answered in order.
- A close inside a fragmented message is answered with 1002 (protocol.py:711), and 4096 fragments are the most
  (asyncio/messages.py:180): messages are put together here.
- Pings are answered behind the close frame too (protocol.py:692), and without bound for a peer that does not read:
  `_Connection._answer`.
- The end of a connection is half closed, TLS closed, at once (protocol.py:470), so that a peer in mid-upload might not
  get to read why, and ``close()`` waits for TCP: both are left to the channel.
- The size limit counts deflated bytes first: see `_native_limit`.

Names that websockets does not document: ``recv_frame``, ``max_message_size`` (15: ``max_size``), ``parser_exc``,
``close_sent``, ``close_rcvd``, ``available_extensions``, ``handlers_waiter``; `_check_names` looks for them.
It declares nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import re
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidState, PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as NativeRequest
from websockets.http11 import Response as NativeResponse
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from wsbridge.application import Application
from wsbridge.base import BaseChannel, BaseConnector, BaseSource, Mount, QueuedChannel, close_keywords
from wsbridge.clock import Timer
from wsbridge.http import Request, Response
from wsbridge.options import Compression, WebSocketOptions

__all__ = ["Connector", "mount"]

_Handle = Callable[[Request, BaseSource], Awaitable[BaseChannel | Response]]
_TEXT, _BINARY, _CONT, _CLOSE, _PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE, Opcode.PONG
_CONNECTING, _OPEN = State.CONNECTING, State.OPEN
_DATA = frozenset((_TEXT, _BINARY, _CONT))
_PONG_BYTE = b"\x8a"  # how a pong begins on the wire
_SMALL = 4 * 1024
_MAX_CORKED = 32*1024
_MAX_EARLY = 64 * 1024  # bytes: more is not read before the request is answered
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\xff]+) HTTP/(1\.[01])\r\n")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_KNOWS_METHODS = "method" in NativeRequest.__dataclass_fields__  # since 17

if TYPE_CHECKING:
    _Logger = logging.LoggerAdapter[logging.Logger]
else:
    _Logger = logging.LoggerAdapter


def _check_names() -> str:
    """Return the name of the size limit.

    Raises:
        ImportError: This version of websockets lacks what is used here.
    """
    names = {*vars(ServerProtocol()), *dir(ServerProtocol)}
    limit = "max_message_size" if "max_message_size" in names else "max_size"
    needed = {limit, "recv_frame", "parser_exc", "close_sent", "close_rcvd", "available_extensions"}
    if missing := sorted(needed - names):
        raise ImportError(f"this version of websockets is not supported: ServerProtocol has no {', '.join(missing)}")
    return limit


_LIMIT = _check_names()


class _Channel(QueuedChannel):
    __slots__ = ("_corked", "_protocol", "_transport")

    native: _Connection
    closed_errors = (InvalidState,)

    def opened(self) -> None:
        self._corked = 0
        self._protocol = self.native.protocol
        self._transport = self.native.transport

    def _send_text(self, text: str) -> None:
        data = text.encode()
        self._protocol.send_text(data)
        if self._queue and len(data) < _SMALL:
            self._write_soon(len(data))
        else:
            self.native.send_data()

    def _send_binary(self, data: bytes) -> None:
        self._protocol.send_binary(data)
        if self._queue and len(data) < _SMALL:
            self._write_soon(len(data))
        else:
            self.native.send_data()

    def _write_soon(self, size: int) -> None:
        """Write what answers the messages of one read at once, when the last of them is handled or a callback waits."""
        if self._corked == 0:
            self._connector.loop.call_soon(self._uncork)
        self._corked += size + 1
        if self._corked > _MAX_CORKED:
            self.native.send_data()

    def _uncork(self) -> None:
        self._corked = 0
        self.native.send_data()

    def _close(self, code: int | None, text: str) -> None:
        if self._protocol.state is _OPEN:
            self._protocol.send_close(code, text)
        self.native.send_data()

    def _ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)
        self.native.send_data()

    def _disconnect(self) -> None:
        if not self._failed:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _aborter(self) -> Callable[[], object]:
        return self._transport.abort

    def _unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def _hold_reading(self) -> None:
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._transport.resume_reading()

    def half_closed(self) -> None:
        """Take the end of what the peer sends; it may not read the rest that asyncio writes before it closes."""
        self.connection_lost()
        if self._unsent_bytes():
            self._connector.linger(self._connector.clock.time() + self._options.close_timeout, self._aborter())


class _Connection(ServerConnection):
    """A connection whose request is answered by wsbridge, and whose frames go to a channel."""

    def __init__(
        self, connector: Connector, timeout: float | None, protocol: ServerProtocol, server: Server, **options: Any
    ) -> None:
        super().__init__(protocol, server, **options)
        self.connector = connector
        self.channel: _Channel | None = None
        self.limits: dict[Opcode, int] = {}
        self._timeout = timeout
        self._timer: Timer | None = None
        self._line: tuple[str, str, str] | None = None  # method, target and version as sent
        self._early: bytearray | None = bytearray()  # what may not be parsed yet; None: all is parsed at once
        self._started = False
        self._kind: Opcode | None = None  # of the fragmented message that has begun
        self._parts: bytes | bytearray = b""
        self._pong = b""

    # ---- the handshake ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._timeout is not None:
            clock = self.connector.clock
            self._timer = clock.at(clock.time() + self._timeout, self)
            self.connector.connections.add(self)

    def tick(self, now: float) -> None:
        """Cut a peer whose request is not complete in time (HS-10)."""
        self._timer = None
        self.transport.abort()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self.connector.clock.cancel(self._timer)
            self._timer = None

    def _hold_back(self, early: bytearray) -> None:
        """Let the request be parsed, line by line, and nothing behind it (HS-11)."""
        while self.request is None and (end := early.find(b"\n") + 1):
            line = bytes(early[:end])
            del early[:end]
            super().data_received(line if self._line else self._request_line(line))
        if len(early) > _MAX_EARLY or self.protocol.eof_sent:
            if self.request is None or self.protocol.eof_sent:
                super().data_received(bytes(early))  # to be refused, or dropped
                early.clear()
            else:
                self.transport.pause_reading()

    def _request_line(self, line: bytes) -> bytes:
        """Keep the request line, and return one that websockets takes."""
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            return line
        method, target, version = match.groups()
        self._line = method.decode(), target.decode("latin-1"), version.decode()
        if not _KNOWS_METHODS:
            method, version = b"GET", b"1.1"
        target = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
        return b"%b %b HTTP/%b\r\n" % (method, target, version)

    def make_request(self, root_path: str = "") -> Request:
        """Return the request, which is complete."""
        native = self.request
        assert native is not None
        assert self._line is not None
        method, target, version = self._line
        remote = self.transport.get_extra_info("peername")
        headers = ((name, value.encode("latin-1", "surrogateescape")) for name, value in native.headers.raw_items())
        return Request(
            method,
            target,
            headers=[(name, value.decode("latin-1")) for name, value in headers],
            scheme="wss" if self.transport.get_extra_info("ssl_object") else "ws",
            http_version=version,
            remote_address=(str(remote[0]), int(remote[1])) if isinstance(remote, tuple) else None,
            native=native,
            root_path=root_path,
        )

    async def answer(self, handle: _Handle, request: Request) -> NativeResponse:
        """Return the response that wsbridge has for the request."""
        self._forget_timer()
        self.ping_interval = None
        source = _Source(self.connector, request, self)
        outcome = await handle(request, source)
        gone = self.protocol.state is not _CONNECTING
        try:
            response = _refusal(outcome, request.method) if isinstance(outcome, Response) else source.accept(outcome)
            response.serialize()  # what cannot be sent is found before anything is
        except Exception:
            if source.channel is not None:
                source.channel.abandon()
            raise
        if gone:
            if source.channel is not None:
                source.channel.abandon()
            raise asyncio.CancelledError  # the peer has left, and any answer would be logged as an error
        if isinstance(outcome, _Channel):
            self.channel = outcome
        return response

    async def live(self) -> None:
        """Live the channel's life; the 101 is written."""
        channel = self.channel
        assert channel is not None
        channel.opened()
        self._started = True
        self._feed = channel.feed
        setattr(self.protocol, "recv_frame", self._frame_received)  # noqa: B010
        self.loop.call_soon(self.read_early)  # when on_open has begun
        try:
            await channel.run()
        finally:
            self.channel = None

    def read_early(self) -> None:
        """Take what came behind the request, and from now on all at once."""
        early, self._early = self._early, None
        self.transport.resume_reading()
        if early and self.protocol.state is _OPEN:
            self.data_received(bytes(early))

    # ---- receiving --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        channel = self.channel
        if self._early is not None:
            self._early += data
            self._hold_back(self._early)
        elif channel is None:
            super().data_received(data)
        else:
            protocol = self.protocol
            is_open = protocol.state is _OPEN
            protocol.receive_data(data)
            if is_open and not self.paused:
                self.send_data()
            else:
                self._answer(is_open)
            for event in protocol.events_received():
                assert isinstance(event, Frame)
                if event.opcode is _PONG:
                    channel.pong_received(bytes(event.data))
                elif event.opcode is _CLOSE and (close := protocol.close_rcvd) is not None:
                    channel.peer_closed(close.code if event.data else None, close.reason)
            if protocol.parser_exc is not None and (sent := protocol.close_sent) is not None:
                channel.failed(int(sent.code), sent.reason)

    def _answer(self, is_open: bool) -> None:
        """Write what websockets answers to frames: nothing behind a close frame, and one pong for a peer that is slow.

        RFC 6455, 5.5.3: of pings that came meanwhile only the last needs a pong.
        """
        for data in self.protocol.data_to_send():
            if data[:1] == _PONG_BYTE:
                self._pong = data if is_open else b""
            elif data and is_open:
                self.transport.write(data)

    def _frame_received(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode not in _DATA:
            ServerProtocol.recv_frame(self.protocol, frame)
            return
        data = cast(bytes, frame.data)
        kind = self._kind
        if kind is None:
            if opcode is _CONT:
                raise ProtocolError("unexpected continuation frame")
            if frame.fin:
                self._feed(data.decode() if opcode is _TEXT else data)
                return
            kind = self._kind = opcode
            self._parts = bytearray(data)
        elif opcode is not _CONT:
            raise ProtocolError("expected a continuation frame")
        else:
            self._parts += data
        if len(self._parts) > self.limits[kind]:
            raise PayloadTooBig(len(self._parts), self.limits[kind])
        if frame.fin:
            whole, self._parts, self._kind = self._parts, b"", None
            self._feed(whole.decode() if kind is _TEXT else bytes(whole))

    def send_data(self) -> None:
        if not self._started:
            super().send_data()
            return
        if data := b"".join(self.protocol.data_to_send()):  # without the mark of the end, which is the channel's
            self.transport.write(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.channel is not None and self._started:
            self.channel.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong and self.protocol.state is _OPEN:
            self.transport.write(pong)
        if self.channel is not None and not self.paused:
            self.channel.resume_writing()

    def eof_received(self) -> None:
        super().eof_received()
        if self.channel is not None and self._started:
            self.channel.half_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_timer()
        self.connector.connections.discard(self)
        vars(self.protocol).pop("recv_frame", None)  # a cycle
        if self.channel is not None:
            if self._started:
                self.channel.connection_lost()
            else:
                self.channel.abandon()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Wait for the end of a connection whose channel has ended; websockets' server closes by this too."""
        if not self._started:
            await super().close(code, reason)
            return
        if self.channel is not None:
            self.channel.shut_down()
        await self.wait_closed()


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, native: _Connection) -> None:
        super().__init__(connector, request)
        self._native = native

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        native = channel.native = self._native
        native.protocol.available_extensions = _deflate(options.compression)
        text, binary = options.max_text_size, options.max_binary_size
        native.limits = {
            _TEXT: sys.maxsize if text is None else text,
            _BINARY: sys.maxsize if binary is None else binary,
        }
        return channel

    def accept(self, channel: BaseChannel) -> NativeResponse:
        """Return the 101."""
        protocol = self._native.protocol
        assert self._native.request is not None
        headers = Headers()
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Accept"] = accept_key(self.request.headers["Sec-WebSocket-Key"])
        try:
            extensions, protocol.extensions = protocol.process_extensions(self._native.request.headers)
        except (InvalidHandshake, ValueError):  # one that cannot be understood is not accepted
            extensions = None
        if extensions is not None:
            headers["Sec-WebSocket-Extensions"] = extensions
        if channel.subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = channel.subprotocol
            protocol.subprotocol = cast(Any, channel.subprotocol)
        setattr(protocol, _LIMIT, _native_limit(self._native.limits.values(), deflates=bool(protocol.extensions)))
        for name, value in self.response_headers:
            headers[name] = value
        return NativeResponse(101, "Switching Protocols", headers)


class Connector(BaseConnector):
    """Serves by `websockets.asyncio.server.serve`. ``native_options``: its ``write_limit`` and ``logger``."""

    name = "websockets"
    features = BaseConnector.features | {"mount"}
    close_keywords = close_keywords({code.name: code for code in CloseCode})
    compression_settings = frozenset(("window_bits", "memory_level", "context_takeover"))
    native_option_names: ClassVar[frozenset[str]] = frozenset(("logger", "write_limit"))

    _servers: list[Server]

    def __init__(self, app: Application, **options: Any) -> None:
        super().__init__(app, **options)
        self.connections: set[_Connection] = set()

    async def _start(self, sockets: list[socket.socket]) -> None:
        options: dict[str, Any] = {"logger": _Quiet(logging.getLogger("websockets.server"), {}), **self.native_options}
        if self.ssl is not None:
            options |= {"ssl": self.ssl, "ssl_handshake_timeout": self.handshake_timeout}
        self._servers = []
        for sock in sockets:
            server = serve(
                _live,
                sock=sock,
                backlog=1024,
                create_connection=cast(Any, partial(_Connection, self, self.handshake_timeout)),
                process_request=self._answer,
                server_header=None,
                compression=None,
                open_timeout=None,
                ping_interval=None,
                close_timeout=self.handshake_timeout,  # of refused requests; the channels have their own
                **options,
            )
            self._servers.append(await server)

    async def _answer(self, connection: ServerConnection, request: NativeRequest) -> NativeResponse:
        assert isinstance(connection, _Connection)
        return await connection.answer(self.handle, connection.make_request())

    async def _stop_listening(self) -> None:
        for server in self._servers:
            server.close(close_connections=False)
        await asyncio.sleep(0)

    async def _stop(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()
        if sys.version_info >= (3, 13):
            for server in self._servers:
                server.server.abort_clients()  # those in the TLS handshake too
        tasks = [server.close_task for server in self._servers if server.close_task is not None]
        _, pending = await asyncio.wait(tasks, timeout=0.25)
        for task in pending:  # they wait for a callback that is given up
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    @classmethod
    @contextlib.asynccontextmanager
    async def serve_mounted(
        cls, sock: socket.socket, path: str, handler: WebSocketOptions[Any] | Application, **options: Any
    ) -> AsyncGenerator[Mount, None]:
        def plain(connection: ServerConnection, request: NativeRequest) -> NativeResponse | None:
            return connection.respond(200, "plain") if request.path == "/plain" else None

        mounted = mount(handler, path=path, process_request=plain, **options)
        async with serve(**mounted.serve_kwargs, sock=sock):
            yield mounted


async def _live(connection: ServerConnection) -> None:
    assert isinstance(connection, _Connection)
    await connection.live()


class _Quiet(_Logger):
    """Passes on what needs attention: no ordinary ends, nor, as an error in 15 and 16, peers that left too early."""

    def isEnabledFor(self, level: int) -> bool:
        return level >= logging.WARNING and super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if msg != "opening handshake failed":
            super().log(level, msg, *args, **kwargs)


class _ProcessRequest(Protocol):
    def __call__(
        self, connection: ServerConnection, request: NativeRequest, /
    ) -> Awaitable[NativeResponse | None] | NativeResponse | None: ...


class _Mount(Mount):
    """A `Mount` whose ``serve_kwargs`` are for `websockets.asyncio.server.serve`."""

    serve_kwargs: dict[str, Any]


def mount(
    handler: WebSocketOptions[Any] | Application,
    *,
    path: str | None = None,
    process_request: _ProcessRequest | None = None,
    websocket_handler: Callable[[ServerConnection], Awaitable[None]] | None = None,
    **options: Any,
) -> _Mount:
    """Return what `websockets.asyncio.server.serve` needs to serve ``handler``: ``serve(**mount(...).serve_kwargs)``.

    Args:
        handler: Options, or a whole application.
        path: Where, beside what else is served: for options as in `wsbridge.Application`, for an application a fixed
            prefix. None: everywhere.
        process_request: As for ``serve``, for other paths.
        websocket_handler: As the handler of ``serve``, for other paths; without it they are 404 (MOUNT-1).
        options: ``max_channels``, ``shutdown_timeout`` and ``trusted_proxies`` of the connector.

    Returns:
        The mount. The server's ``close`` ends its channels; ``await mount.stop()`` does it without ending the server.
    """
    whole = handler if isinstance(handler, Application) else Application([(path or "/", handler)])
    connector = Connector(whole, **options)
    mounted = _Mount(connector, handler)
    root_path = (path or "").rstrip("/") if isinstance(handler, Application) else ""

    def is_ours(request: Request) -> bool:
        if path is None:
            return True
        if isinstance(handler, Application):
            return request.path == root_path or request.path.startswith(root_path + "/")
        return bool(whole.route({"request": request, "response": None}))

    async def answer(connection: ServerConnection, native: NativeRequest) -> NativeResponse | None:
        assert isinstance(connection, _Connection)
        request = connection.make_request()
        if is_ours(request):
            return await connection.answer(mounted.handle, connection.make_request(root_path) if root_path else request)
        if request.method != "GET" and not _KNOWS_METHODS:
            return connection.respond(405, "Method Not Allowed\n")
        response: NativeResponse | None = None
        if process_request is not None:
            result = process_request(connection, native)
            response = await result if isinstance(result, Awaitable) else result
        if response is None and websocket_handler is None:
            response = connection.respond(404, "Not Found\n")
        return response

    async def live(connection: ServerConnection) -> None:
        assert isinstance(connection, _Connection)
        if connection.channel is not None:
            await connection.live()
        elif websocket_handler is not None:
            connection.read_early()
            await websocket_handler(connection)

    mounted.serve_kwargs = {
        "handler": live,
        "process_request": answer,
        "create_connection": partial(_Connection, connector, None),
        "server_header": None,
    }
    return mounted


def _refusal(outcome: Response, method: str) -> NativeResponse:
    """Return a response in plain HTTP, behind which the connection is closed."""
    headers = Headers()
    for name, value in outcome.headers:
        if name.lower() not in ("content-length", "transfer-encoding"):
            headers[name] = value
    headers.setdefault("Connection", "close")
    headers.setdefault("Date", email.utils.formatdate(usegmt=True))
    has_body = outcome.status_code not in (204, 304)
    if has_body:
        headers["Content-Length"] = str(len(outcome.body))
    body = outcome.body if has_body and method != "HEAD" else b""
    return NativeResponse(outcome.status_code, outcome.status.partition(" ")[2], headers, body)


def _deflate(compression: bool | Compression) -> list[ServerPerMessageDeflateFactory]:
    """Return the extension, with websockets' own defaults for what is not set."""
    if compression is False:
        return []
    settings = compression if isinstance(compression, Compression) else Compression()
    return [
        ServerPerMessageDeflateFactory(
            server_no_context_takeover=settings.context_takeover is False,
            client_no_context_takeover=settings.context_takeover is False,
            server_max_window_bits=settings.window_bits or 12,
            client_max_window_bits=settings.window_bits or 12,
            compress_settings={"memLevel": settings.memory_level or 5},
        )
    ]


def _native_limit(limits: Iterable[int], *, deflates: bool) -> int | None:
    """Return ``max_size``, with room for control frames, and for what deflate adds to random bytes."""
    limit = max(*limits, 125)
    if limit == sys.maxsize:
        return None
    return limit + (limit >> 8) + 64 if deflates else limit
