"""The uvicorn connector: uvicorn's HTTP and WebSocket protocol classes, subclassed. Read and tried on uvicorn 0.54.

The handshake goes through uvicorn as with any ASGI application; then the frames of websockets' sans-I/O core, on which
its default implementation stands, go to the channel past the event stream, as in the websockets connector
(`wsbridge.connectors._codecs.websockets`): what is mended there is mended here, and no event, queue or pause of reading
is needed for each message. Its other implementation, by wsproto, is in `wsbridge.connectors.uvicorn_wsproto`.

Mends, by ``Config(http=, ws=)``, which take classes:

- The first request may take for ever: `_Http` holds it to ``handshake_timeout``.
- What stands behind the handshake request is dropped (h11_impl.py, ``handle_websocket_upgrade``): it is handed on.
- ``Upgrade`` and ``Connection`` are looked for in their last line only, HTTP/1.0 is taken for HTTP/1.1, and a bad key
  or another version is refused before the application is asked: `_Http._should_upgrade`, ``take`` of the protocol.
- Deflate and the size limit are the server's, not the channel's: agreed when the route is known.
- It logs two lines for each channel, with the query, and a warning for each request that is no HTTP: `PeersLogger`.
- A head that is too large gets 400 (h11_impl.py, ``handle_events``): `_Http.send_400_response`.
- Serving takes over the process's signals, ends it by ``sys.exit`` and takes 0.2 s to stop, and has no timeout for TLS
  (server.py, ``startup``): its protocol classes alone are used, without its server.

It declares no deviation.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Mapping
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, Self, TypeAlias, cast

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request as NativeRequest
from websockets.http11 import Response as NativeResponse
from websockets.utils import accept_key
from websockets.version import version as websockets_version

from wsbridge import Application, ConnectorNotInstalledError, Request, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    BaseChannel,
    BaseSource,
    HandshakeDeadline,
    PeersLogger,
    Taken,
    abort,
    close_keywords,
    of_transport,
    plain_connection,
    plain_response,
    settle,
    shown,
)
from wsbridge.connectors import asgi
from wsbridge.connectors._codecs.websockets import Channel, FrameReader, agree_on_deflate

__all__ = ["Connector", "UvicornChannel", "UvicornRequest"]

UvicornRequest: TypeAlias = Request[asgi.Scope]
"""A `Request` of this connector, for annotations."""

UvicornChannel: TypeAlias = WebSocketChannel[WebSocketsSansIOProtocol]
"""A `WebSocketChannel` of this connector, for annotations."""

logger = logging.getLogger("wsbridge")
peers_logger = PeersLogger("uvicorn.error")

KEY = "wsbridge.protocol"  # in the scope
_DECODING = ("latin-1",) if websockets_version >= "17" else ("ascii", "surrogateescape")  # as uvicorn encodes it again


class _Http(H11Protocol):
    """A connection until it is upgraded."""

    connector: ClassVar[Connector]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.deadline = HandshakeDeadline(self.connector)
        if not self.connector.refuse_http2(transport):
            self.logger = peers_logger
            super().connection_made(transport)
            self.deadline.begin(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline.cancel()
        super().connection_lost(exc)

    def _should_upgrade(self) -> bool:
        self.deadline.cancel()
        cast(Any, self.scope)[KEY] = self
        date = [(b"date", formatdate(usegmt=True).encode())] if self.config.date_header else []
        self.server_state.default_headers = date + self.config.encoded_headers
        return asgi.may_upgrade(self.scope["method"], self.scope["http_version"], self.headers)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or whose head is too large, without a word of why."""
        if self.cycle:
            self.cycle.disconnected = True  # what the application answers is too late
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            is_large = getattr(sys.exception(), "error_status_hint", 400) == 431
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if is_large else HTTPStatus.BAD_REQUEST
            body = f"{status.phrase}\n".encode()
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.connector.drain_answered(plain_connection(self.transport))
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self.deadline.begin(self.transport.abort)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if asgi.has_controls(event.headers):
            self.send_400_response("")
            return
        self.connections.discard(self)
        self.connector.upgraded(self)
        protocol = self.connector.protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.take(event)
        early, _ = self.conn.trailing_data
        if early:
            protocol.data_received(early)


class Upgraded:
    """A mixin for uvicorn's WebSocket protocols: a connection from its upgrade on."""

    logger: Any
    app: Any
    scope: Any
    receive: Any
    send: Any
    transport: asyncio.Transport
    send_500_response: Any
    offers_deflate: ClassVar[bool] = False
    """Whether uvicorn offers it, where the request does."""

    def take(self, event: h11.Request) -> None:
        """Take the request, which wsbridge checks by itself (HS-4), as one that is fit to be accepted."""
        raise NotImplementedError

    async def run_asgi(self) -> None:
        """As uvicorn's, which takes an exception of any kind for its own, and a refusal for an error."""
        self.scope[KEY] = self
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception:
            logger.exception("the handshake for %s failed", shown(self.scope["path"]))
            self.send_500_response()
        finally:
            if not self.transport.is_closing():  # behind a second close no abort works (asyncio/sslproto.py)
                self.transport.close()


class _Protocol(FrameReader, Upgraded, WebSocketsSansIOProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.logger = peers_logger
        super().connection_made(transport)
        self.protocol = self.conn
        self.conn.logger = peers_logger
        self.conn.debug = False  # it writes what a peer sends as it is
        self.prepare()

    @property
    def paused(self) -> bool:  # type: ignore[override]
        return not self.writable.is_set()

    def take(self, event: h11.Request) -> None:
        headers = Headers([(name.decode("ascii"), value.decode(*_DECODING)) for name, value in event.headers])
        self.request = native = NativeRequest(event.target.decode("latin-1"), headers)
        self.conn.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        self.conn.events_received()
        setattr(self.conn, "accept", _accept)  # noqa: B010
        self.handle_connect(native)

    def parse_unopened(self, data: bytes) -> None:
        pass  # the channel has ended

    def eof_received(self) -> None:
        if self._comes_last(self.eof_received):
            return
        super().eof_received()
        self.half_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._comes_last(partial(self.connection_lost, exc)):
            return
        super().connection_lost(exc)
        self.lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writing_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.writing_resumed()


def _accept(request: NativeRequest) -> NativeResponse:
    headers = Headers()
    headers["Date"] = ""  # which uvicorn replaces
    headers["Upgrade"] = "websocket"
    headers["Connection"] = "Upgrade"
    for key in request.headers.get_all("Sec-WebSocket-Key")[:1]:
        headers["Sec-WebSocket-Accept"] = accept_key(key)
    return NativeResponse(101, "Switching Protocols", headers)


def _on_wsproto() -> type[Connector]:
    try:
        from wsbridge.connectors import uvicorn_wsproto
    except ModuleNotFoundError as exc:
        if exc.name != "wsproto":
            raise
        raise ConnectorNotInstalledError(
            "the uvicorn connector needs wsproto for native_options['ws'] = 'wsproto', which is not installed. Run: "
            'pip install ".[uvicorn-wsproto]" (in a checkout of wsbridge) or pip install wsproto'
        ) from exc
    return uvicorn_wsproto.Connector


class Connector(asgi.Connector):
    """Serves by `uvicorn.Server`. ``native_options``: keyword arguments of `uvicorn.Config`, and ``ws``.

    Of uvicorn's implementations of WebSocket that is ``"websockets-sansio"``, or ``"wsproto"``, which makes it a
    `wsbridge.connectors.uvicorn_wsproto.Connector`; the others are refused.
    """

    name = "uvicorn"
    connector_api = 2
    features = ALL_FEATURES - {"fragments", "mount"}
    close_keywords = close_keywords({code.name: code for code in CloseCode})
    compression_settings = frozenset(("window_bits", "memory_level", "context_takeover"))
    native_option_names = frozenset(("ws", "access_log", "date_header", "headers", "server_header"))

    implementation: ClassVar[str] = "websockets-sansio"
    protocol_class: ClassVar[Any] = _Protocol

    _state: ServerState

    def __new__(cls, app: Application, **options: Any) -> Self:
        """Return one of the class for ``native_options["ws"]``: what can be set differs between them."""
        native: Any = options.get("native_options")
        if cls is Connector and isinstance(native, Mapping) and cast(Any, native).get("ws") == "wsproto":
            cls = cast("type[Self]", _on_wsproto())
        return super().__new__(cls)

    def __init__(self, app: Application, **options: Any) -> None:
        super().__init__(app, **options)
        if (ws := self.native_options.pop("ws", self.implementation)) != self.implementation:
            raise self.unsupported(
                f"native_options['ws'] = {ws!r}", f"its channels stand on {self.implementation!r}; see asgi_app"
            )

    def make_request(self, scope: asgi.Scope) -> Request:
        return asgi.make_request(scope, tls=scope[KEY].transport.get_extra_info("ssl_object"))

    def make_channel(self, request: Request, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        channel = Channel(self, request, options, subprotocol)
        channel.native = cast(Any, request.native)[KEY]
        return channel

    async def _start(self, sockets: list[socket.socket]) -> None:
        native: dict[str, Any] = {"server_header": False, "access_log": False, **self.native_options}
        config = Config(
            cast(Any, self._serve),
            http=cast(Any, type("_Http", (_Http,), {"connector": self})),
            ws=self.protocol_class,
            interface="asgi3",
            loop="none",
            lifespan="off",
            log_config=None,
            h11_max_incomplete_event_size=self.max_head_size,
            ws_ping_interval=None,
            ws_per_message_deflate=self.protocol_class.offers_deflate,
            proxy_headers=False,
            **native,
        )
        config.load()
        config.ssl = self.ssl
        self._state = ServerState()
        options: dict[str, Any] = {"config": config, "server_state": self._state, "app_state": {}}
        self.serve_protocols(sockets, partial(cast(Any, config.http_protocol_class), **options))

    async def _serve(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] == "http" and scope["http_version"] not in ("1.0", "1.1"):
            await asgi.respond(send, "http.response", plain_response(400))
        elif scope["type"] == "http":
            await self.serve_http(self.handle, scope, send)
            http: _Http = scope[KEY]
            if http.transport.is_closing():  # there may be a body to come
                self.drain_answered(plain_connection(http.transport))
        else:
            await self.serve_websocket(self.handle, scope, receive, send)

    async def _accept(self, source: BaseSource, channel: Any, receive: asgi.Receive, send: asgi.Send) -> None:
        protocol: _Protocol = channel.native
        extensions = agree_on_deflate(protocol.conn, source.request, channel.options.compression)
        if extensions is not None:
            protocol.response.headers["Sec-WebSocket-Extensions"] = extensions
        protocol.agreed(channel.options)
        await send(asgi.accept_event(source, channel))
        if protocol.transport.is_closing():
            raise ConnectionResetError("the peer left before the 101")
        protocol.begin(channel)

    def _answer_begins(self, scope: asgi.Scope) -> None:
        self.answering(scope[KEY])

    def _how_taken(self, connection: _Http | Upgraded) -> Taken:
        return of_transport(connection.transport)

    def _cut_answered(self, connection: _Http | Upgraded) -> None:
        abort(connection.transport)

    async def _stop(self) -> None:
        await settle(self._state.tasks)
