"""The hypercorn connector: hypercorn's TCP server and HTTP/1.1 protocol, subclassed. Tried on hypercorn 0.17 and 0.18.

The handshake goes through hypercorn as with any ASGI application; then the frames of wsproto, on which hypercorn
stands, go to the channel past the event stream (`wsbridge.connectors._codecs.wsproto`), which would lose every close
code (ws_stream.py:244), leave a message that is too big without an end, and hang at a shutdown.

Works around:

- What stands after the handshake request is refused with 400 (ws_stream.py, ``handle``): `_Early` keeps it.
- A key of any form is taken, ``Upgrade`` and ``Connection`` are looked for in their last line only, and another version
  gets 400: `_Http._create_stream` hands on a handshake that is surely taken, and `upgrade_request_to_websocket` checks
  the real one.
- A handshake with a body is taken for a WebSocket, and its refusal keeps the connection: `_Http._create_stream`.
- A peer that has ended its side is waited for until ``keep_alive_timeout`` if its answer comes later (tcp_server.py,
  ``protocol_send``): `_Tcp.protocol_send`.
- HTTP/2, by ``h2c`` and ALPN, is not spoken: WebSockets over it are another matter (RFC 8441; HS-18, docs/asgi.md).
- Messages are deflated for every peer that offers it, whatever the application wants: `Connector._accept`.
- Serving hangs while a WebSocket is open (run.py, ``wait_closed``): only `TCPServer` is used.
- A peer that does not read its answers may stay (tcp_server.py, ``protocol_send``): `BaseConnector.answering`.

Private names, and public ones that hypercorn does not document, are listed in `_PRIVATE`. It declares no deviation.
"""

from __future__ import annotations

from wsbridge.connectors._versions import check_range

check_range("hypercorn")

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from http.client import responses
from typing import Any, ClassVar, TypeAlias, cast

import h11
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Request as RequestEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr  # pyright: ignore[reportUnknownVariableType]
from wsproto.frame_protocol import CloseReason

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    BaseChannel,
    BaseSource,
    Taken,
    abort,
    close_keywords,
    of_transport,
    plain_connection,
    request_parts,
    server_names,
    settle,
)
from wsbridge.connectors import asgi
from wsbridge.connectors._codecs.pieces import bound_early
from wsbridge.connectors._codecs.wsproto import Channel, Wire, deflate_offer

__all__ = ["Connector", "HypercornChannel", "HypercornRequest"]

HypercornRequest: TypeAlias = Request[asgi.Scope]
"""A `Request` of this connector, for annotations."""

HypercornChannel: TypeAlias = WebSocketChannel[WSStream]
"""A `WebSocketChannel` of this connector, for annotations."""

_PRIVATE = {
    "hypercorn.asyncio.tcp_server:TCPServer": "_close _idle_timeout _read_data app config context idle_task loop"
    " protocol_send state writer",
    "hypercorn.protocol.h11:H11Protocol": "_check_protocol _create_stream _send_error_response _send_h11_event app"
    " client config connection connection_state context handle server ssl stream stream_send task_group",
    "hypercorn.protocol.h11:H11WSConnection": "buffer next_event receive_data",
    "hypercorn.protocol.ws_stream:WSStream": "closed handle send",
}
server_names("hypercorn", "0.17 to 0.18", _PRIVATE)

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_KEY = "wsbridge.http"  # in the scope
_FIT = [  # a handshake that hypercorn takes
    (b"host", b"localhost"),
    (b"upgrade", b"websocket"),
    (b"connection", b"upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
]


# ---- the channel -----------------------------------------------------------------------------------------------------

# `Channel` of `wsbridge.connectors._codecs.wsproto`, which uvicorn-wsproto shares.


# ---- the source ------------------------------------------------------------------------------------------------------

# That of `wsbridge.connectors.asgi`.


# ---- the connector ---------------------------------------------------------------------------------------------------


class Connector(asgi.Connector):
    """Serves by hypercorn. ``native_options``: attributes of `hypercorn.Config`."""

    name = "hypercorn"
    connector_api = 2
    features = ALL_FEATURES - {"fragments", "mount"}
    close_keywords = close_keywords({code.name: code for code in CloseReason})
    native_option_names: ClassVar[frozenset[str]] = frozenset(
        ("accesslog", "errorlog", "h11_max_incomplete_size", "include_date_header", "include_server_header")
    )

    _context: Any
    _tasks: set[asyncio.Task[Any]]

    async def _start(self, sockets: list[socket.socket]) -> None:
        config = Config()
        config.errorlog = logging.getLogger("hypercorn.error")
        config.include_server_header = False
        config.h11_max_incomplete_size = self.max_head_size
        config.keep_alive_timeout = self.handshake_timeout  # from the connection on, whatever comes meanwhile
        for name, value in self.native_options.items():
            setattr(config, name, value)
        self._context = WorkerContext(None)
        self._tasks = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            tcp = _Tcp(cast(Any, self._serve), self.loop, config, self._context, {}, reader, writer)
            tcp.connector = self
            await tcp

        self.serve_protocols(sockets, partial(_Streams, self, serve))

    async def _serve(
        self, scope: Any, receive: asgi.Receive, send: asgi.Send, sync_spawn: object, call_soon: object
    ) -> None:
        stream: Any = cast(Any, send).__self__
        scope[_KEY] = stream.send.__self__
        if scope["type"] == "http":
            await self.serve_http(self.handle, scope, send)
        elif scope["type"] == "websocket":
            await self.serve_websocket(self.handle, scope, receive, send)

    def make_request(self, scope: asgi.Scope) -> Request:
        http: _Http = scope[_KEY]
        request = http.request
        return Request(
            request.method.decode("latin-1"),
            request.target.decode("latin-1"),
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw_items()],
            http_version=request.http_version.decode("latin-1"),
            native=scope,
            **request_parts(http.tcp.writer.transport),
        )

    def make_channel(self, request: Request, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        channel = Channel(self, request, options, subprotocol)
        scope = cast(asgi.Scope, request.native)
        channel.native = scope[_KEY].stream
        return channel

    async def _accept(self, source: BaseSource, channel: Any, receive: asgi.Receive, send: asgi.Send) -> None:
        stream: WSStream | None = channel.native
        if stream is None or stream.closed:  # which would write no 101, and make no connection
            raise ConnectionResetError("the peer has left")
        http: _Http = cast(asgi.Scope, source.request.native)[_KEY]
        handshake = stream.handshake
        handshake.key = source.request.headers["Sec-WebSocket-Key"].strip().encode()
        handshake.subprotocols = [] if channel.subprotocol is None else [channel.subprotocol]
        handshake.extensions = deflate_offer(source.request, channel.options.compression)
        self.upgraded(http.tcp)
        await send(asgi.accept_event(source, channel))
        writer = http.tcp.writer
        transport = cast(asyncio.Transport, writer.transport)
        if transport.is_closing() or stream.closed:
            raise ConnectionResetError("the peer left before the 101")
        native = transport.get_protocol()
        assert isinstance(native, asyncio.Protocol)
        early = cast(_Early, http.connection)
        wire = Wire(transport, stream.connection, channel, native.connection_lost)
        wire.ended = http.ended
        wire.begin_reading(bytes(early.buffer))
        early.wire = wire  # what is read already, and not handed on yet
        stream.closed = True  # hypercorn has nothing more to say

    def _answer_begins(self, scope: asgi.Scope) -> None:
        self.answering(scope[_KEY].tcp)

    def _how_taken(self, connection: _Tcp) -> Taken:
        return of_transport(connection.writer.transport)

    def _cut_answered(self, connection: _Tcp) -> None:
        abort(connection.writer.transport)

    async def _stop(self) -> None:
        await self._context.terminated.set()
        await settle(self._tasks)


# ---- the receiving side ----------------------------------------------------------------------------------------------


class _Early(H11WSConnection):
    """Keeps what comes after the handshake request, until a channel takes it."""

    wire: Wire | None = None
    transport: asyncio.Transport

    def receive_data(self, data: bytes) -> None:
        if self.wire is not None:
            self.wire.data_received(data)
        else:
            super().receive_data(data)
            bound_early(self.buffer, self.transport)

    def next_event(self) -> Any:
        return h11.NEED_DATA

    @property
    def is_waited_for(self) -> bool:
        """Whether there is something that a channel shall get yet."""
        return self.wire is None and bool(self.buffer)


class _Http(H11Protocol):
    """A connection until it is upgraded."""

    request: h11.Request
    tcp: _Tcp
    ended = False  # the peer has sent all, a handshake and something after it

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed) and isinstance(self.connection, _Early) and self.connection.is_waited_for:
            self.ended = True
        else:
            await super().handle(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Speak HTTP/1.1 alone."""

    async def _send_h11_event(self, event: Any) -> None:
        """Send the words of a status too, which hypercorn leaves out."""
        if isinstance(event, h11.Response) and not event.reason:
            reason = responses.get(event.status_code, "").encode()
            event = h11.Response(headers=event.headers, status_code=event.status_code, reason=reason)
        await super()._send_h11_event(event)

    async def _create_stream(self, request: h11.Request) -> None:
        self.request = request
        if asgi.has_controls(request.headers) or request.http_version not in (b"1.0", b"1.1"):
            await self._send_error_response(400)
            await self.send(Closed())
            return
        if not asgi.may_upgrade(request.method.decode("latin-1"), request.http_version.decode(), request.headers):
            headers = [(name, value) for name, value in request.headers if name != b"upgrade"]  # or hypercorn would
            await super()._create_stream(
                h11.Request(
                    method=request.method, target=request.target, headers=headers, http_version=request.http_version
                )
            )
            return
        self.stream = stream = WSStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.connection = early = _Early(cast(h11.Connection, self.connection))
        early.transport = cast(asyncio.Transport, self.tcp.writer.transport)
        await stream.handle(
            RequestEvent(
                stream_id=STREAM_ID,
                headers=_FIT,
                http_version="1.1",
                method="GET",
                raw_path=b"/",
                state=self.connection_state,
            )
        )


class _Tcp(TCPServer):
    """As hypercorn's, with `_Http` for its protocol."""

    connector: Connector
    _is_read = False  # the peer sends no more

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData) and self.writer.transport.is_closing():
            await self.protocol.handle(Closed())  # it is cut: requests that were read before are still answered
        elif self._is_read and isinstance(event, Updated) and event.idle:
            await self._close()  # or an answer would begin a wait for the next request
        else:
            await super().protocol_send(event)

    async def run(self) -> None:
        sock = self.writer.get_extra_info("socket")
        try:
            secure = self.writer.get_extra_info("ssl_object") is not None
            async with TaskGroup(self.loop) as group:
                self._task_group = group
                http = _Http(
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState(self.state),
                    secure,
                    parse_socket_addr(sock.family, sock.getpeername()),
                    parse_socket_addr(sock.family, sock.getsockname()),
                    self.protocol_send,
                )
                http.tcp = self
                self.protocol = cast(Any, http)
                await cast(Any, self.idle_task).restart(group, self._idle_timeout)
                await self._read_data()
                self._is_read = True
                await self.idle_task.stop()  # nobody is there any more to wait for
        except* OSError:
            pass
        finally:
            await self._close()

    async def _close(self) -> None:
        is_upgraded = isinstance(getattr(getattr(self, "protocol", None), "connection", None), _Early)
        if not (self._is_read or is_upgraded):  # a body is left, or what is no HTTP
            self.connector.drain_answered(plain_connection(cast(asyncio.Transport, self.writer.transport)))
        # hypercorn takes some errors for the end that they are, but neither that of data after asyncio's close_notify
        # nor that of a connection that is reset, which uvloop tells by its number (tcp_server.py, 120)
        with contextlib.suppress(OSError):  # which ssl.SSLError is
            await super()._close()


class _Streams(asyncio.StreamReaderProtocol):
    """A connection as `asyncio.start_server` has it, unless its client has selected HTTP/2."""

    def __init__(self, connector: Connector, serve: _Serve) -> None:
        super().__init__(asyncio.StreamReader(loop=connector.loop), serve, connector.loop)
        self._connector = connector

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._connector.refuse_http2(cast(asyncio.Transport, transport)):
            super().connection_made(transport)
