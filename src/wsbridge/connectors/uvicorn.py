"""The uvicorn connector: uvicorn's HTTP and WebSocket protocol classes, subclassed. Read and tried on uvicorn 0.35
to 0.54.

The handshake goes through uvicorn as with any ASGI application; then the frames of websockets' sans-I/O core, on which
its default implementation stands, go to the channel past the event stream, as in the websockets connector
(`wsbridge.connectors._codecs.websockets`): what is worked around there is so here, too, and no event, queue or pause of
reading is needed for each message. Its other implementation, by wsproto, is the connector uvicorn-wsproto, which takes
uvicorn from 0.30 on: before 0.35 there is no implementation on that core.

Works around, beside what is told of HTTP in `wsbridge.connectors._codecs.uvicorn`:

- A bad key or another version is refused before the application is asked: `_Protocol.take`.
- Up to 0.52 the values of a 101 are made small, or its ``Date`` is sent twice, a refusal's headers are sent beside
  uvicorn's own and its body has to be UTF-8, and nothing is held back for a peer that does not read: `_OldProtocol`.
- Deflate and the size limit are the server's, not the channel's: agreed when the route is known.

It declares no deviation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from email.utils import formatdate
from functools import partial
from http.client import responses
from typing import Any, TypeAlias, cast

import h11
from uvicorn.protocols.websockets import websockets_sansio_impl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request as NativeRequest
from websockets.http11 import Response as NativeResponse
from websockets.utils import accept_key
from websockets.version import version as websockets_version

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connector import BaseChannel, BaseSource, close_keywords, server_names
from wsbridge.connectors import asgi
from wsbridge.connectors._codecs.uvicorn import KEY, Upgraded, UvicornConnector, peers_logger
from wsbridge.connectors._codecs.websockets import Channel, FrameReader, agree_on_deflate

__all__ = ["Connector", "UvicornChannel", "UvicornRequest"]

UvicornRequest: TypeAlias = Request[asgi.Scope]
"""A `Request` of this connector, for annotations."""

UvicornChannel: TypeAlias = WebSocketChannel[WebSocketsSansIOProtocol]
"""A `WebSocketChannel` of this connector, for annotations."""

_PRIVATE = {
    "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol": "app conn handle_connect logger"
    " receive run_asgi send send_500_response transport writable",
}
server_names("uvicorn", "0.35 to 0.54", _PRIVATE)

_SURROGATES = ("ascii", "surrogateescape")
_LATIN1 = ("latin-1",) if websockets_version >= "17" else _SURROGATES  # as uvicorn encodes it again
_OLD = ("ascii", "ignore")  # up to 0.51 that is by surrogates, which websockets 17 refuses: `_OldProtocol.take`
_DECODING = _LATIN1 if hasattr(websockets_sansio_impl, "websockets_version") else _OLD
_ANSWERS_WELL = hasattr(websockets_sansio_impl, "STATUS_PHRASES")  # since 0.53


# ---- the channel -----------------------------------------------------------------------------------------------------

# `Channel` of `wsbridge.connectors._codecs.websockets`, which the websockets connector shares.


# ---- the source ------------------------------------------------------------------------------------------------------

# That of `wsbridge.connectors.asgi`.


# ---- the connector ---------------------------------------------------------------------------------------------------


class Connector(UvicornConnector):
    """Serves by `uvicorn.Server`. ``native_options``: keyword arguments of `uvicorn.Config`, and ``ws``.

    Of uvicorn's implementations of WebSocket that is ``"websockets-sansio"``. ``"wsproto"`` is the connector
    uvicorn-wsproto; the others are refused.
    """

    name = "uvicorn"
    connector_api = 2
    close_keywords = close_keywords({code.name: code for code in CloseCode})
    compression_settings = frozenset(("window_bits", "memory_level", "context_takeover"))
    implementation = "websockets-sansio"

    @property
    def protocol_class(self) -> Any:
        return _Protocol if _ANSWERS_WELL else _OldProtocol

    def make_channel(self, request: Request, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        channel = Channel(self, request, options, subprotocol)
        channel.native = cast(Any, request.native)[KEY]
        return channel

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


# ---- the receiving side ----------------------------------------------------------------------------------------------


class _Protocol(FrameReader, Upgraded, WebSocketsSansIOProtocol):
    """A connection from its upgrade on, whose frames go to a channel from its 101 on."""

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
        if self._loss_comes_last(partial(self.connection_lost, exc)):
            return
        super().connection_lost(exc)
        self.lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writing_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.writing_resumed()


class _OldProtocol(_Protocol):
    """Answers by itself, and holds back what is sent, where uvicorn does neither as it should."""

    def take(self, event: h11.Request) -> None:
        self.sent_headers = list(event.headers)
        super().take(event)

    async def run_asgi(self) -> None:
        self.scope["headers"] = self.sent_headers
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        kind = message["type"]
        if self.handshake_complete:
            raise ConnectionResetError("the peer left before its answer")
        if kind == "websocket.http.response.start":
            self.initial_response = message["status"], _headers(message["headers"]), b""
        elif kind == "websocket.http.response.body":
            self._refuse(message["body"])
        else:
            headers = self.response.headers
            del headers["Date"]
            headers.update(_headers([*cast(Any, self).default_headers, *message["headers"]]))
            self.default_headers = []
            await super().send({**message, "headers": []})

    def _refuse(self, body: bytes) -> None:
        assert self.initial_response is not None
        status, headers, _ = self.initial_response
        native = Headers(headers)
        native.setdefault("Date", formatdate(usegmt=True))
        native.setdefault("Connection", "close")
        self.conn.send_response(NativeResponse(status, responses.get(status, ""), native, body))
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def pause_writing(self) -> None:
        self.writable.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.writable.set()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        super().connection_lost(exc)


def _headers(encoded: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in encoded]


def _accept(request: NativeRequest) -> NativeResponse:
    headers = Headers()
    headers["Date"] = ""  # which uvicorn replaces
    headers["Upgrade"] = "websocket"
    headers["Connection"] = "Upgrade"
    for key in request.headers.get_all("Sec-WebSocket-Key")[:1]:
        headers["Sec-WebSocket-Accept"] = accept_key(key)
    return NativeResponse(101, "Switching Protocols", headers)
