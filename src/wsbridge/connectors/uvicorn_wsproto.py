"""The uvicorn-wsproto connector: uvicorn's HTTP and its WebSocket by wsproto. Tried on uvicorn 0.30
to 0.54 and wsproto 1.3.

As in `wsbridge.connectors.uvicorn` the handshake goes through uvicorn; then `wsbridge.connectors._codecs.wsproto` takes
the connection over, as on hypercorn: uvicorn's own reading stops for each message (wsproto_impl.py,
``handle_message``), a lost connection is an empty close for it, and a close is sent as 1000 where it should be empty.

Works around, beside what is told of HTTP in `wsbridge.connectors._codecs.uvicorn`:

- The handshake is wsproto's own affair, which takes a key of any form and refuses another version by itself: it is told
  of a request that is surely taken, when wsbridge has checked the real one (`_Protocol.take`, `_Handshake`).
- A refusal is sent without the words of its status (wsproto, handshake.py, ``_reject``) and without the headers that
  uvicorn sends with all else: `_Handshake.send`.
- Messages are deflated for every peer that offers it, or for none: what is offered is told to wsproto or not.

What can be set of `Compression` is nothing: wsproto takes any window that a peer asks for, and has no other setting.
It declares no deviation.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http.client import responses
from typing import Any, TypeAlias

import h11
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto import ConnectionType, WSConnection
from wsproto.events import Event, RejectConnection
from wsproto.events import Request as RequestEvent
from wsproto.frame_protocol import CloseReason
from wsproto.typing import Headers

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connector import BaseChannel, BaseSource, close_keywords, server_names
from wsbridge.connectors import asgi
from wsbridge.connectors._codecs.pieces import bound_early
from wsbridge.connectors._codecs.uvicorn import KEY, SUPPORTED, Upgraded, UvicornConnector, peers_logger
from wsbridge.connectors._codecs.wsproto import Channel, Wire, deflate_offer

__all__ = ["Connector", "UvicornWsprotoChannel", "UvicornWsprotoRequest"]

UvicornWsprotoRequest: TypeAlias = Request[asgi.Scope]
"""A `Request` of this connector, for annotations."""

UvicornWsprotoChannel: TypeAlias = WebSocketChannel[WSProtocol]
"""A `WebSocketChannel` of this connector, for annotations."""

_PRIVATE = {
    "uvicorn.protocols.websockets.wsproto_impl:WSProtocol": "app conn default_headers handle_connect logger receive"
    " run_asgi send send_500_response transport",
}
server_names("uvicorn", SUPPORTED, _PRIVATE)

_FIT = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"


# ---- the channel -----------------------------------------------------------------------------------------------------

# `Channel` of `wsbridge.connectors._codecs.wsproto`, which hypercorn shares.


# ---- the source ------------------------------------------------------------------------------------------------------

# That of `wsbridge.connectors.asgi`.


# ---- the connector ---------------------------------------------------------------------------------------------------


class Connector(UvicornConnector):
    """Serves by uvicorn's protocols, of WebSocket by that which stands on wsproto.

    ``native_options``: as those of `wsbridge.connectors.uvicorn.Connector`, with ``"wsproto"`` for ``ws``.
    """

    name = "uvicorn-wsproto"
    connector_api = 2
    close_keywords = close_keywords({code.name: code for code in CloseReason})
    implementation = "wsproto"

    @property
    def protocol_class(self) -> Any:
        return _Protocol

    def make_channel(self, request: Request, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        channel = Channel(self, request, options, subprotocol)
        scope: Any = request.native
        channel.native = scope[KEY]
        return channel

    async def _accept(self, source: BaseSource, channel: Any, receive: asgi.Receive, send: asgi.Send) -> None:
        protocol: _Protocol = channel.native
        request = source.request
        headers = [("Sec-WebSocket-Key", request.headers["Sec-WebSocket-Key"])]
        if channel.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", channel.subprotocol))
        offers = deflate_offer(request, channel.options.compression)
        headers += [("Sec-WebSocket-Extensions", offer) for offer in offers]
        protocol.conn.tell(*(f"{name}: {value}".encode("latin-1") for name, value in headers))
        await send(asgi.accept_event(source, channel))
        if protocol.transport.is_closing() or protocol.conn.connection is None:
            raise ConnectionResetError("the peer left before the 101")
        wire = Wire(protocol.transport, protocol.conn.connection, channel, protocol.connection_lost)
        wire.begin_reading(bytes(protocol.early))
        protocol.early.clear()


# ---- the receiving side ----------------------------------------------------------------------------------------------


class _Handshake(WSConnection):
    """Is told of a request when it is answered."""

    default_headers: Headers  # uvicorn's own

    def tell(self, *headers: bytes) -> None:
        """Tell of a request that may be accepted, with these headers besides."""
        self.receive_data(b"\r\n".join((_FIT, *headers, b"Connection: upgrade", b"", b"")))

    def send(self, event: Event) -> bytes:
        if not isinstance(event, RejectConnection):
            return super().send(event)
        self.tell(b"Connection: close", b"Sec-WebSocket-Key: ")
        phrase = responses.get(event.status_code, "").encode()
        data = super().send(replace(event, headers=[*self.default_headers, *event.headers]))
        return data.replace(b" \r\n", b" " + phrase + b"\r\n", 1)


class _Protocol(Upgraded, WSProtocol):
    """A connection from its upgrade to its 101."""

    offers_deflate = True

    conn: _Handshake

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.logger = peers_logger
        super().connection_made(transport)
        self.conn = _Handshake(ConnectionType.SERVER)
        self.conn.default_headers = self.default_headers
        self.early = bytearray()

    def take(self, event: h11.Request) -> None:
        self.handle_connect(RequestEvent(host="", target=event.target.decode("ascii")))
        scope: Any = self.scope
        scope["headers"] = list(event.headers)
        scope[KEY] = self

    def data_received(self, data: bytes) -> None:
        self.early += data
        bound_early(self.early, self.transport)
