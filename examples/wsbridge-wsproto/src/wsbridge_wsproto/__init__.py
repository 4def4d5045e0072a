"""A wsbridge connector for wsproto, which parses and writes frames, and h11, which does so for HTTP/1.1.

Neither does any I/O: a bare asyncio protocol does, `Connection`. Read and tried on wsproto 1.3 with h11 0.16.

Native -> call: the head of a request -> ``handle``; TEXT, BINARY and CONTINUATION, put together -> ``feed``; PING,
PONG, CLOSE -> ``ping_received``, ``pong_received``, ``peer_closed``; `ParseFailed` -> ``failed``; ``eof_received`` ->
``half_closed``; ``connection_lost``, ``pause_writing``, ``resume_writing`` -> their namesakes.

Works around:

- h11 refuses a missing or repeated ``Host`` before any interceptor has seen the request: it is given a ``Host`` of its
  own, and the peer's by another name.
- wsproto's `Connection` has no limit for messages, takes an invalid message for a close by the peer, and refuses the
  code 1014: frames are taken one layer below, from `FrameDecoder`, whose ``header`` tells of a frame before it is in.

Names that nobody documents are listed in `_PRIVATE`. It declares no deviation. It lacks compression, to be short, and a
mount, since there is no framework; a connection ends after an answer in plain HTTP.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any, TypeAlias

import h11
from wsproto.frame_protocol import CloseReason, FrameProtocol

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    BaseConnector,
    BaseSource,
    Taken,
    TransportChannel,
    abort,
    close_keywords,
    end_of,
    of_transport,
    server_names,
)
from wsbridge_wsproto._connection import Connection
from wsbridge_wsproto._reading import FrameReader

__all__ = ["Connector", "WsprotoChannel", "WsprotoRequest"]

WsprotoRequest: TypeAlias = Request[h11.Request]
WsprotoChannel: TypeAlias = WebSocketChannel[asyncio.Transport]

_FRAMES = FrameProtocol(client=False, extensions=[])  # writes; it has no state, as messages are sent whole

_PRIVATE = {"wsproto.frame_protocol:FrameDecoder": "receive_bytes process_buffer header payload_consumed"}
server_names("wsproto", "1.3", _PRIVATE)


# ---- the channel ----------------------------------------------------------------------------------------------------


class _Channel(TransportChannel):
    __slots__ = ("reader", "wire_end")

    reader: FrameReader

    def write(self, data: bytes | bytearray) -> None:
        if self.wire_end.is_closing():
            raise ConnectionResetError("the connection is closed")  # asyncio would log the write (LOG-3)
        self._transport.write(data)

    def _send_text(self, text: str) -> None:
        self.write(_FRAMES.send_data(text))

    def _send_binary(self, data: bytes) -> None:
        self.write(_FRAMES.send_data(data))

    def _close(self, code: int | None, text: str) -> None:
        self.write(_FRAMES.close(code, text or None))

    def _ping(self, payload: bytes) -> None:
        self.write(_FRAMES.ping(payload))

    def _pong(self, payload: bytes) -> None:
        self.write(_FRAMES.pong(payload))

    def _hold_reading(self) -> None:
        self.reader.hold()

    def _resume_reading(self) -> None:
        self.reader.go_on()

    def _let_go(self) -> None:
        self.reader.stop()


# ---- the source -----------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def __init__(self, connection: Connection, request: Request) -> None:
        super().__init__(connection.connector, request)
        self.connection = connection

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.native = channel._transport = self.connection.transport
        channel.wire_end = end_of(self.connection.transport)
        channel.reader = FrameReader(channel, self.connection.transport, self.connector.loop)
        return channel


# ---- the connector --------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """Serves applications by h11 and wsproto."""

    name = "wsproto"
    connector_api = 2
    features = BaseConnector.features - {"compression"}
    close_keywords = close_keywords({code.name: code for code in CloseReason})

    async def _start(self, sockets: list[socket.socket]) -> None:
        self.serve_protocols(sockets, partial(Connection, self, _Source))

    async def _stop(self) -> None:
        """Nothing is left: the base has cut the connections, and ended what is in ``handle`` and ``run``."""

    def _how_taken(self, connection: Connection) -> Taken:
        return of_transport(connection.transport)

    def _cut_answered(self, connection: Connection) -> None:
        abort(connection.transport)


# ---- the receiving side ---------------------------------------------------------------------------------------------

# `_connection.Connection` is the protocol of each connection, `_reading.FrameReader` reports frames to a channel
