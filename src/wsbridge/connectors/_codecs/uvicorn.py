"""What both connectors of uvicorn share, whichever implementation of WebSocket they stand on. Read on uvicorn 0.30
to 0.54.

The connector, which starts uvicorn's protocol classes, subclassed, and HTTP by h11 until a connection is upgraded: then
a WebSocket protocol of `wsbridge.connectors.uvicorn` or `wsbridge.connectors.uvicorn_wsproto` takes it over.

Works around, by ``Config(http=, ws=)``, which take classes:

- The first request may take for ever: `_Http` holds it to ``handshake_timeout``.
- What stands after the handshake request is dropped (h11_impl.py, ``handle_websocket_upgrade``): it is handed on.
- ``Upgrade`` and ``Connection`` are looked for in their last line only, and HTTP/1.0 is taken for HTTP/1.1:
  `_Http._should_upgrade`.
- Up to 0.52 the time-out of keep-alive comes after an upgrade that was sent ahead, too, and raises: it is called off.
- It logs two lines for each channel, with the query, and a warning for each request that is no HTTP: `PeersLogger`.
- A head that is too large gets 400 (h11_impl.py, ``handle_events``): `_Http.send_400_response`.
- Serving takes over the process's signals, ends it by ``sys.exit`` and takes 0.2 s to stop, and has no timeout for TLS
  (server.py, ``startup``): its protocol classes alone are used, without its server.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from abc import abstractmethod
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, cast

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from wsbridge import Application, Request
from wsbridge.connector import (
    ALL_FEATURES,
    HandshakeDeadline,
    PeersLogger,
    Taken,
    abort,
    of_transport,
    plain_connection,
    plain_response,
    server_names,
    settle,
    shown,
)
from wsbridge.connectors import asgi

__all__ = ["KEY", "SUPPORTED", "Upgraded", "UvicornConnector", "peers_logger"]

SUPPORTED = "0.30 to 0.54"

_PRIVATE = {
    "uvicorn:Config": "date_header encoded_headers load",
    "uvicorn.protocols.http.h11_impl:H11Protocol": "_get_upgrade _unset_keepalive_if_required app_state config conn"
    " connections cycle handle_websocket_upgrade headers logger on_response_complete scope send_400_response"
    " server_state transport",
    "uvicorn.server:ServerState": "default_headers tasks",
}
server_names("uvicorn", SUPPORTED, _PRIVATE)

logger = logging.getLogger("wsbridge")
peers_logger = PeersLogger("uvicorn.error")

KEY = "wsbridge.protocol"  # in the scope
_CONNECTORS = {"websockets-sansio": "uvicorn", "wsproto": "uvicorn-wsproto"}  # by uvicorn's name of the implementation


class UvicornConnector(asgi.Connector):
    """Serves by uvicorn's protocols; a subclass says which of them is spoken once a connection is upgraded."""

    connector_api = 2
    features = ALL_FEATURES - {"fragments", "mount"}
    native_option_names = frozenset(("ws", "access_log", "date_header", "headers", "server_header"))

    implementation: ClassVar[str]
    """uvicorn's name of it, and the only value that ``native_options["ws"]`` may have."""

    _state: ServerState

    @property
    @abstractmethod
    def protocol_class(self) -> Any:
        """Its class, which derives from `Upgraded`."""

    def __init__(self, app: Application, **options: Any) -> None:
        super().__init__(app, **options)
        if (ws := self.native_options.pop("ws", self.implementation)) != self.implementation:
            instead = f"name the connector {_CONNECTORS[ws]!r} instead" if ws in _CONNECTORS else "see asgi_app"
            raise self.unsupported(
                f"native_options['ws'] = {ws!r}", f"its channels stand on {self.implementation!r}; {instead}"
            )

    def make_request(self, scope: asgi.Scope) -> Request:
        return asgi.make_request(scope, tls=scope[KEY].transport.get_extra_info("ssl_object"))

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

    def _answer_begins(self, scope: asgi.Scope) -> None:
        self.answering(scope[KEY])

    def _how_taken(self, connection: _Http | Upgraded) -> Taken:
        return of_transport(connection.transport)

    def _cut_answered(self, connection: _Http | Upgraded) -> None:
        abort(connection.transport)

    async def _stop(self) -> None:
        await settle(self._state.tasks)


class _Http(H11Protocol):
    """A connection until it is upgraded."""

    connector: ClassVar[UvicornConnector]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.deadline = HandshakeDeadline(self.connector)
        if not self.connector.refuse_http2(transport):
            self.logger = peers_logger
            super().connection_made(transport)
            self.deadline.begin(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline.cancel()
        super().connection_lost(exc)

    def _get_upgrade(self) -> bytes | None:
        return b"websocket" if self._should_upgrade() else None  # up to 0.30 that is what is asked

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
        self._unset_keepalive_if_required()
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
            if not self.transport.is_closing():  # after a second close no abort works (asyncio/sslproto.py)
                self.transport.close()
