"""The picows connector: frames are pushed, and all above them is done here. Tried on picows 2.0 to 2.3.

Native -> call: TEXT, BINARY, CONTINUATION in ``on_ws_frame``, put together by `MessageAssembler` -> ``feed``; PONG ->
``pong_received``; CLOSE -> ``peer_closed``; a close that picows writes itself -> ``failed``; ``eof_received`` ->
``half_closed``; ``on_ws_disconnected`` -> ``connection_lost``; ``pause_writing`` and ``resume_writing`` -> their
namesakes.

Works around; lines are those of picows.pyx in 2.3.1:

- The listener factory is a plain function (1553), ``Connection: keep-alive, Upgrade`` (385), a method other than GET
  (319) and HTTP/1.0 (325) get 400, an exception's text is the body of a 500 (1578), a Host may be missing or repeated:
  `_Handshake` reads the request, however long the interceptors take, and picows' protocol then gets one that it takes.
- ``send_close()`` without a code writes 0 (947): close frames are written with their payload, an empty one without.
- RSV bits, the state of fragmentation, UTF-8, the close handshake, pongs and all limits but that of a frame are the
  listener's: `Listener` and `MessageAssembler`. Close codes 0, 1006 and those from 5000 on are let through (1783).
- At a violation picows writes its close before it hands on the frame before it (1496), writes nothing after it, and
  goes on parsing: it writes into `_Wire`, which tells the channel, and what still comes is dropped.
- A read takes whatever room is left in a buffer that only grows (1479), so that one may hold 100,000 messages, all of
  them handled at once, and a frame's head is not seen before its end, so that only one limit holds at once:
  `Protocol.get_buffer`, `Pieces` and `Protocol.look`.
- What is written goes out message by message, by ``send(2)`` (1189): one framer for the connector makes the frames, and
  the answers to the messages of one read are written together.
- A half-closed connection is kept until the peer has read all (1406): `Protocol.eof_received`.
- Before 2.1.2 a length with its highest bit set is a negative one, and memory without end is unmasked (1687 of 2.0.0):
  `LookingProtocol` looks at each head first.
- Logged errors for what any peer can send (1688): the logger's filter.

On a Unix socket picows ends the process by a segmentation fault (1335): the connector lacks that feature. It lacks
compression, since picows has none, and a mount, since a server of picows has no application to be mounted in.

Frames are in `wsbridge.connectors._picows_frames`. Private names are listed in `_PRIVATE`; the arguments of both
classes, which picows does not document either, are tried at each start. It declares no deviation.
"""

from __future__ import annotations

from wsbridge.connectors._versions import check_range

check_range("picows")

import asyncio
import logging
import socket
import struct
import sys
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

import aiofastnet
from multidict import CIMultiDict
from picows import WSCloseCode, WSMsgType, WSTransport, WSUpgradeRequest

from wsbridge import Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Connect,
    HandshakeDeadline,
    TransportChannel,
    begin_later,
    close_keywords,
    end_writing,
    plain_response,
    request_parts,
    server_names,
    shown,
)
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._codecs.http1 import BadRequestError, Head, parse_head
from wsbridge.connectors._codecs.pieces import bound_early
from wsbridge.connectors._picows_frames import BINARY, CLOSE, PING, PONG, TEXT, Framer, Listener, Log, Pieces, Protocol

__all__ = ["Connector", "PicowsChannel", "PicowsRequest"]

PicowsRequest: TypeAlias = Request[WSUpgradeRequest]
"""A `Request` of this connector, for annotations."""

PicowsChannel: TypeAlias = WebSocketChannel[WSTransport]
"""A `WebSocketChannel` of this connector, for annotations."""

logger = logging.getLogger("wsbridge")

_PRIVATE = {
    "picows.picows:WSProtocol": "buffer_updated connection_lost connection_made eof_received get_buffer transport",
    "picows.picows:WSTransport": "request response send",
    "aiofastnet": "connect_accepted_socket",  # before 2.2 picows takes an aiofastnet that may lack it
}
server_names("picows", "2.0 to 2.3", _PRIVATE)

_END = b"\r\n\r\n"


# ---- the channel -----------------------------------------------------------------------------------------------------


class _Channel(TransportChannel):
    __slots__ = ("_frame", "_framed", "_pending", "_pieces")

    native: WSTransport
    small = 64 * 1024

    def opened(self, transport: asyncio.Transport, framer: Framer, pieces: Pieces) -> None:
        """Take the connection, when the 101 is written."""
        self._transport = transport
        self._pieces = pieces
        self._frame = framer.send
        self._framed = framer.frames
        self._pending: list[bytes] = []

    def _send_text(self, text: str) -> None:
        self._frame(TEXT, text)
        self._pending += self._framed
        self._framed.clear()
        self._written(len(text))

    def _send_binary(self, data: bytes) -> None:
        self._frame(BINARY, data)
        self._pending += self._framed
        self._framed.clear()
        self._written(len(data))

    def _flush(self) -> None:
        pending = self._pending
        if self._transport.is_closing():
            pending.clear()  # the peer is gone, which is reported soon; aiofastnet warns of the sixth write
        elif len(pending) == 1:
            self._transport.write(pending.pop())
        elif pending:
            self._pending = []
            self._transport.writelines(pending)

    def _control(self, kind: WSMsgType, payload: bytes) -> None:
        self._frame(kind, payload)
        self._pending += self._framed
        self._framed.clear()
        self._flush()

    def _close(self, code: int | None, text: str) -> None:
        self._control(CLOSE, b"" if code is None else struct.pack("!H", code) + text.encode())

    def _ping(self, payload: bytes) -> None:
        self._control(PING, payload)

    def _pong(self, payload: bytes) -> None:
        self._frame(PONG, payload)
        self._pending += self._framed
        self._framed.clear()
        self._written(len(payload))

    def _hold_reading(self) -> None:
        self._pieces.hold()

    def _resume_reading(self) -> None:
        self._pieces.resume()


# ---- the source ------------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        return _Channel(self.connector, self.request, options, subprotocol)


# ---- the connector ---------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """Serves by picows' protocol on aiofastnet, as picows does; on an event loop that is not asyncio's, by that.

    ``native_options``: ``read_buffer_init_size`` of `picows.ws_create_server`.
    """

    name = "picows"
    connector_api = 2
    features = ALL_FEATURES - {"compression", "fragments", "mount", "unix-socket"}
    close_keywords = close_keywords({code.name: code.value or 1005 for code in WSCloseCode})  # NO_INFO is 0
    native_option_names: ClassVar[frozenset[str]] = frozenset(("read_buffer_init_size",))

    log: Log
    framer: Framer

    async def _start(self, sockets: list[socket.socket]) -> None:
        self.log = _quiet_logger()
        try:
            self.framer = Framer(self.loop, self.log)
            Protocol(self, self.log, None, None, sys.maxsize)
        except TypeError as exc:
            raise ImportError(f"this version of picows is not supported: {exc}") from exc
        connect: Connect | None = None
        if isinstance(self.loop, asyncio.BaseEventLoop):  # on uvloop aiofastnet misses a reset after data
            loop: Any = self.loop if self.ssl is None else _Loop(self.loop)
            connect = partial(aiofastnet.connect_accepted_socket, loop)
        self.serve_protocols(sockets, partial(_Handshake, self), connect=connect)

    async def _stop(self) -> None:
        pass


class _Loop:
    """The event loop, but that it is no error if a peer leaves in the TLS handshake.

    asyncio says nothing then; aiofastnet 1.2.0 does not mean to (transport.pyx:547), but what it takes for an error is
    the class, no instance (ssl_transport.pyx:629).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if context.get("exception") is not ConnectionResetError:
            self._loop.call_exception_handler(context)


def _quiet_logger() -> Log:
    """Return a logger for what needs attention, which a peer that breaks the protocol does not.

    An adapter: of a plain logger picows makes another one for each connection (1326).
    """
    log = logging.Logger("picows.server", logging.WARNING)
    log.parent = logging.getLogger(log.name)
    log.addFilter(lambda record: not record.msg.startswith("WS parser error"))
    return logging.LoggerAdapter(log)


# ---- the receiving side ----------------------------------------------------------------------------------------------


class _Handshake(asyncio.Protocol):
    """A connection until its request is answered."""

    __slots__ = ("_answered", "_connector", "_data", "_deadline", "_lost", "_task", "_transport")

    _transport: asyncio.Transport

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._data = bytearray()  # what is not handled yet
        self._deadline = HandshakeDeadline(connector)
        self._task: asyncio.Task[None] | None = None
        self._answered = False
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._connector.refuse_http2(self._transport):
            return
        self._deadline.begin(self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        unread = self._data
        seen = len(unread)
        unread += data
        if self._task is not None:
            bound_early(unread, self._transport)
            return
        end = unread.find(_END, max(seen - len(_END), 0)) + len(_END)
        limit = self._connector.max_head_size
        if end < len(_END) and len(unread) <= limit:
            return
        if end < len(_END) or end > limit:
            self._respond(plain_response(431))
            return
        try:
            head = parse_head(bytes(unread[:end]))
        except BadRequestError:
            self._respond(plain_response(400))
            return
        del unread[:end]
        self._deadline.cancel()
        self._task = begin_later(self._connector.loop, self._live(head))

    async def _live(self, head: Head) -> None:
        """Answer the request, and live the life of its channel: in one coroutine, since each wakes for a message."""
        try:
            opened = await self._answer(head)
        except BaseException:
            self._transport.abort()
            raise
        if opened is not None:
            channel, listener = opened
            channel.opened(self._transport, self._connector.framer, listener.begin(bytes(self._data)))
            del self, head, opened  # not to be kept for the life of the channel
            try:
                await channel.run()
            finally:
                listener.let_go()

    async def _answer(self, head: Head) -> tuple[_Channel, Listener] | None:
        """Answer the request; return the channel that is opened by that, if one is."""
        transport, connector = self._transport, self._connector
        native = WSUpgradeRequest()
        native.method, native.path = head.method.encode(), head.target.encode("latin-1")
        native.version, native.headers = f"HTTP/{head.version}".encode(), CIMultiDict(head.headers)
        request: Request[WSUpgradeRequest] = Request(
            head.method,
            head.target,
            headers=head.headers,
            http_version=head.version,
            native=native,
            **request_parts(transport),
        )
        source = _Source(connector, request)
        outcome = await connector.handle(request, source)
        if self._lost or transport.is_closing():
            if isinstance(outcome, BaseChannel):
                outcome.abandon()
            return None
        if isinstance(outcome, Response):
            self._respond(outcome, head.method)
            return None
        assert isinstance(outcome, _Channel)
        try:
            if self._data:
                transport.pause_reading()  # what comes must not overtake what came
            return outcome, Listener(source, connector.log, outcome, transport, native)
        except Exception:
            outcome.abandon()
            logger.exception("the 101 for %s could not be sent", shown(request.path))
            self._respond(plain_response(500))
            return None

    def _respond(self, response: Response, method: str = "GET") -> None:
        """Answer by plain HTTP, and end the connection when the peer has left."""
        try:
            data = final_response(response, method)
        except UnicodeEncodeError:
            logger.exception("a response has a header that is not latin-1")
            data = final_response(plain_response(500), method)
        self._answered = True
        self._data.clear()
        self._deadline.begin(self._transport.abort)  # for a peer who has its answer and stays
        self._transport.write(data)
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            end_writing(self._transport)
            self._transport.resume_reading()
        except OSError:  # the peer has reset the connection
            self._transport.abort()
