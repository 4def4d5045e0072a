"""The picows connector: frames are pushed, and all above them is done here. Read and tried on picows 2.2.0 and 2.3.1.

Native -> call: TEXT, BINARY, CONTINUATION in ``on_ws_frame``, put together by `MessageAssembler` -> ``feed``; PONG ->
``pong_received``; CLOSE -> ``peer_closed``; a close that picows writes itself -> ``failed``; ``eof_received`` ->
``half_closed``; ``on_ws_disconnected`` -> ``connection_lost``; ``pause_writing`` and ``resume_writing`` -> their
namesakes.

Mends; lines are those of picows.pyx in 2.3.1:

- The listener factory is a plain function (1553), ``Connection: keep-alive, Upgrade`` (385), a method other than GET
  (319) and HTTP/1.0 (325) get 400, an exception's text is the body of a 500 (1578), a Host may be missing or repeated:
  `_Handshake` reads the request, however long the interceptors take, and picows' protocol then gets one that it takes.
- ``send_close()`` without a code writes 0 (947): close frames are written with their payload, an empty one without.
- RSV bits, the state of fragmentation, UTF-8, the close handshake, pongs and all limits but that of a frame are the
  listener's: `_Listener` and `MessageAssembler`. Close codes 0, 1006 and those from 5000 on are let through (1783).
- At a violation picows writes its close before it hands on the frame before it (1496), writes nothing after it, and
  goes on parsing: it writes into `_Wire`, which tells the channel, and what still comes is dropped.
- A read takes whatever room is left in a buffer that only grows (1479), so that one may hold 100,000 messages, all of
  them handled at once, and a frame's head is not seen before its end, so that only one limit holds at once:
  `_Protocol.get_buffer`, `_Pieces` and ``_look``.
- What is written goes out message by message, by ``send(2)`` (1189): one framer for the connector makes the frames, and
  the answers to the messages of one read are written together.
- A half-closed connection is kept until the peer has read all (1406): `_Protocol.eof_received`.
- Logged errors for what any peer can send (1688): the logger's filter.

On a Unix socket picows ends the process by a segmentation fault (1335): the connector lacks that feature. It lacks
compression, since picows has none, and a mount, since a server of picows has no application to be mounted in.

Names that picows does not document: ``picows.picows.WSProtocol`` and its arguments, and that of ``WSTransport``; they
are tried at each start. It declares no deviation.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import aiofastnet
from multidict import CIMultiDict
from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from wsbridge import Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Connect,
    FrameError,
    HandshakeDeadline,
    MessageAssembler,
    TransportChannel,
    begin_later,
    close_keywords,
    end_writing,
    frame_head,
    is_valid_close_code,
    plain_response,
    request_parts,
    shown,
)
from wsbridge.connector import MAX_HEAD as MAX_FRAME_HEAD
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._codecs.http1 import BadRequestError, Head, parse_head
from wsbridge.connectors._codecs.pieces import PieceReader, bound_early

if TYPE_CHECKING:

    class WSProtocol(asyncio.BufferedProtocol):
        """What picows' stub leaves out."""

        transport: WSTransport

        def __init__(self, *arguments: Any, **options: Any) -> None: ...
        def get_buffer(self, sizehint: int) -> memoryview: ...
        def connection_lost(self, exc: Exception | None) -> None: ...

else:
    try:
        from picows.picows import WSProtocol
    except ImportError as exc:
        raise ImportError(f"this version of picows is not supported: {exc}") from exc

__all__ = ["Connector", "PicowsChannel", "PicowsRequest"]

PicowsRequest: TypeAlias = Request[WSUpgradeRequest]
"""A `Request` of this connector, for annotations."""

PicowsChannel: TypeAlias = WebSocketChannel[WSTransport]
"""A `WebSocketChannel` of this connector, for annotations."""

logger = logging.getLogger("wsbridge")

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_CLOSE, _PING, _PONG = WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG
_READ = 256 * 1024  # bytes that are read at once
_READ_BUFFER = 4 * 1024  # bytes, to begin with: picows doubles it whenever a read fills it
_STEPS = (4 * 1024, 8 * 1024, 32 * 1024)  # bytes that are parsed at once: of small frames, to begin with, of large ones
_SLOW = 0.0005  # seconds after which a step was one of small frames
_DROPPED = 64 * 1024
_END = b"\r\n\r\n"
_HEAD_OF_CLOSE = 0x88
_TAKEN = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)


class _Channel(TransportChannel):
    __slots__ = ("_frame", "_framed", "_pending", "_pieces")

    native: WSTransport
    small = 64 * 1024

    def assembler(self) -> MessageAssembler:
        """Return what puts its messages together."""
        return MessageAssembler(self._options.max_text_size, self._options.max_binary_size)

    def opened(self, transport: asyncio.Transport, framer: _Framer, pieces: _Pieces) -> None:
        """Take the connection, when the 101 is written."""
        self._transport = transport
        self._pieces = pieces
        self._frame = framer.send
        self._framed = framer.frames
        self._pending: list[bytes] = []

    def _send_text(self, text: str) -> None:
        self._frame(_TEXT, text)
        self._pending += self._framed
        self._framed.clear()
        self._written(len(text))

    def _send_binary(self, data: bytes) -> None:
        self._frame(_BINARY, data)
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
        self._control(_CLOSE, b"" if code is None else struct.pack("!H", code) + text.encode())

    def _ping(self, payload: bytes) -> None:
        self._control(_PING, payload)

    def _pong(self, payload: bytes) -> None:
        self._frame(_PONG, payload)
        self._pending += self._framed
        self._framed.clear()
        self._written(len(payload))

    def _hold_reading(self) -> None:
        self._pieces.hold()

    def _resume_reading(self) -> None:
        self._pieces.resume()


class _Framer:
    """picows' own framing, for all channels of a connector: each frame that is sent is found in ``frames``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: logging.LoggerAdapter[Any]) -> None:
        self.frames: list[bytes] = []
        self.write = self.frames.append
        self.get_write_buffer_size = [None].__len__  # not 0, or picows would write past this object
        self.send = cast(Any, WSTransport)(False, self, log, loop).send

    def writelines(self, parts: list[bytes | memoryview]) -> None:
        """Take a large message, whose head is in memory that picows uses again."""
        self.frames += map(bytes, parts)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def fileno(self) -> int:
        return -1


class _Wire:
    """The transport that picows' objects of one connection see: what a failure makes picows write is not sent."""

    __slots__ = ("_is_open", "_listener", "_transport")

    def __init__(self, transport: asyncio.Transport, listener: _Listener) -> None:
        self._transport = transport
        self._listener = listener
        self._is_open = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_write_buffer_size(self) -> int:
        return 1 + self._transport.get_write_buffer_size()  # not 0, or picows would write past this object

    def write(self, data: bytes | bytearray) -> None:
        if not self._is_open:
            self._is_open = True
            self._transport.write(data.decode().encode("latin-1"))  # the 101
        elif data[0] == _HEAD_OF_CLOSE:
            self._listener.picows_failed(int.from_bytes(data[2:4]), data[4:].decode())
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._listener.failure is None:
            self._transport.close()


class _Source(BaseSource):
    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        return _Channel(self.connector, self.request, options, subprotocol)


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
            listener = await self._answer(head)
        except BaseException:
            self._transport.abort()
            raise
        if listener is not None:
            channel = listener.begin(bytes(self._data))
            del self, head  # not to be kept for the life of the channel
            try:
                await channel.run()
            finally:
                listener.let_go()

    async def _answer(self, head: Head) -> _Listener | None:
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
            return _Listener(connector, outcome, transport, native, source)
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


class Connector(BaseConnector):
    """Serves by picows' protocol on aiofastnet, as picows does; on an event loop that is not asyncio's, by that.

    ``native_options``: ``read_buffer_init_size`` of `picows.ws_create_server`.
    """

    name = "picows"
    connector_api = 2
    features = ALL_FEATURES - {"compression", "fragments", "mount", "unix-socket"}
    close_keywords = close_keywords({code.name: code.value or 1005 for code in WSCloseCode})  # NO_INFO is 0
    native_option_names: ClassVar[frozenset[str]] = frozenset(("read_buffer_init_size",))

    log: logging.LoggerAdapter[Any]
    framer: _Framer

    async def _start(self, sockets: list[socket.socket]) -> None:
        self.log = _quiet_logger()
        try:
            self.framer = _Framer(self.loop, self.log)
            _Protocol(self, None, None, sys.maxsize)
        except TypeError as exc:
            raise ImportError(f"this version of picows is not supported: {exc}") from exc
        connect: Connect | None = None
        if isinstance(self.loop, asyncio.BaseEventLoop):  # on uvloop aiofastnet misses a reset after data
            loop: Any = self.loop if self.ssl is None else _Loop(self.loop)
            connect = partial(aiofastnet.connect_accepted_socket, loop)
        self.serve_protocols(sockets, partial(_Handshake, self), connect=connect)

    async def _stop(self) -> None:
        pass


class _Pieces(PieceReader):
    """What of a read is not parsed yet."""

    def __init__(self, transport: asyncio.Transport, protocol: _Protocol) -> None:
        self.transport = transport
        self._protocol = protocol
        self.step = _STEPS[1]
        self.prepare()
        self._held = False

    @property
    def unread(self) -> bytearray:
        """What is not parsed yet."""
        return self._unread

    def _lacking(self) -> int:
        return self.step

    def _parse(self, data: bytes) -> None:
        self._protocol.feed(data)

    def comes_last(self, what: Callable[[], object]) -> bool:
        """See `PieceReader._comes_last`."""
        return self._comes_last(what)

    def clear(self) -> None:
        """Forget it."""
        self._unread.clear()

    def let_go(self) -> None:
        """Forget the protocol too, whose connection is gone."""
        self.clear()
        self._protocol = cast(_Protocol, None)


class _Protocol(WSProtocol):
    """picows' own protocol, which parses; here is what bounds a read and looks at the head of what is not complete."""

    def __init__(self, connector: Connector, receiver: _Listener | None, answer: object, max_frame_size: int) -> None:

        def answer_it(request: WSUpgradeRequest) -> object:
            return answer

        super().__init__(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=answer_it,
            logger=connector.log,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,
            max_frame_size=max_frame_size,
            extra_headers=None,
            read_buffer_init_size=connector.native_options.get("read_buffer_init_size", _READ_BUFFER),
        )
        self.receiver = cast(_Listener, receiver)
        self.pieces: _Pieces | None = None
        self._unread = bytearray()  # of `pieces`: nothing may overtake it
        self.head: bytes | None = None  # what has come of the head that is looked for
        self._room = 0
        self._view = memoryview(b"")
        self._dropped: memoryview | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._dropped is not None:
            return self._dropped
        view = super().get_buffer(sizehint)
        self._room = len(view)
        if self._room > _READ:
            view = view[:_READ]
        self._view = view
        return view

    def buffer_updated(self, nbytes: int) -> None:
        if self._dropped is not None:
            return
        if nbytes > _STEPS[0] or self._unread:
            self._update_in_pieces(nbytes)
        elif self.head is None:
            super().buffer_updated(nbytes)
        else:
            self._update(nbytes)

    def _update_in_pieces(self, nbytes: int) -> None:
        pieces = self.pieces
        assert pieces is not None
        rest = bytes(self._view[:nbytes]) if self._unread else bytes(self._view[pieces.step : nbytes])
        if not self._unread:
            now = min(nbytes, pieces.step)
            began = perf_counter()
            self._update(now)
            pieces.step = _STEPS[0] if perf_counter() - began > _SLOW else _STEPS[2]
        if rest and self._dropped is None:
            pieces.data_received(rest)

    def _update(self, nbytes: int) -> None:
        if self.head is not None:
            self.look(self.head + bytes(self._view[: min(nbytes, MAX_FRAME_HEAD)]))
            if self._dropped is not None:
                return
        super().buffer_updated(nbytes)

    def read_by(self, pieces: _Pieces) -> None:
        """Have more than is parsed at once wait there."""
        self.pieces = pieces
        self._unread = pieces.unread

    def look_after(self, size: int) -> None:
        """Look at the ``size`` bytes after the frame that is handed on, the last that is complete."""
        nbytes = self._room - len(super().get_buffer(0))
        if nbytes > 0:  # else picows has moved its buffer to make room, and the old one is not to be read
            self.look(bytes(self._view[nbytes - size : nbytes][:MAX_FRAME_HEAD]))

    def look(self, head: bytes) -> None:
        """Refuse the frame that begins with ``head`` if it makes its message too big (LIM-1)."""
        found = frame_head(head)
        self.head = head if found is None else None
        if found is not None and self.receiver.assembler.head_read(found):
            self.receiver.fail(1009, "message too big")

    def feed(self, data: bytes) -> None:
        """Take what was read before."""
        rest = memoryview(data)
        while rest and self.receiver.failure is None:
            buffer = self.get_buffer(-1)
            size = min(len(rest), len(buffer))
            buffer[:size] = rest[:size]
            self._update(size)
            if self._dropped is not None:
                return
            rest = rest[size:]

    def drop(self) -> None:
        """Drop all that comes from now on."""
        if self.pieces is not None:
            self.pieces.clear()
        self._dropped = memoryview(bytearray(_DROPPED))

    def eof_received(self) -> bool:
        if self.pieces is None or not self.pieces.comes_last(self.eof_received):
            self.receiver.half_closed()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.pieces is not None and self.pieces.comes_last(partial(self.connection_lost, exc)):
            return
        super().connection_lost(exc)
        if self.pieces is not None:
            self.pieces.let_go()
            self.pieces = None


class _Listener(WSListener):
    """The receiving side of a channel."""

    def __init__(
        self,
        connector: Connector,
        channel: _Channel,
        transport: asyncio.Transport,
        native: WSUpgradeRequest,
        source: BaseSource,
    ) -> None:
        """Have picows accept the handshake, and send its 101."""
        self._connector = connector
        self._channel: _Channel | None = channel
        self._feed = channel.feed
        self._transport = transport
        self.assembler = channel.assembler()
        self._ended = False
        self._fast = not self.assembler.is_uneven  # a message in one frame needs no other look
        self.failure: tuple[int, str] | None = None  # what picows found

        headers: list[tuple[str, str]] = list(source.response_headers)
        if channel.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", channel.subprotocol))
        response = WSUpgradeResponse.create_101_response(headers)
        answer = WSUpgradeResponseWithListener(response, self)
        self._protocol = protocol = _Protocol(connector, self, answer, self.assembler.max_frame)
        protocol.connection_made(cast(asyncio.Transport, _Wire(transport, self)))
        protocol.feed(_TAKEN % native.headers["Sec-WebSocket-Key"].encode())
        channel.native = protocol.transport
        if protocol.transport.response is None:
            raise RuntimeError("picows refused the handshake")
        for name in ("method", "path", "version", "headers"):
            setattr(protocol.transport.request, name, getattr(native, name))
        if self.assembler.is_uneven:
            protocol.head = b""
        transport.set_protocol(protocol)

    def begin(self, early: bytes) -> _Channel:
        """Return the channel, to be run in the turn that made this; ``early`` came after the request."""
        assert self._channel is not None
        pieces = _Pieces(self._transport, self._protocol)
        self._protocol.read_by(pieces)
        self._channel.opened(self._transport, self._connector.framer, pieces)
        if early:
            pieces.begin_reading(early)
        return self._channel

    def let_go(self) -> None:
        self._ended, self._fast = True, False
        self._channel = None
        self._feed = _feed_nothing

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._fast and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            kind = frame.msg_type
            if kind is _TEXT:
                try:
                    text = frame.get_payload_as_utf8_text()
                except UnicodeDecodeError:
                    self.fail(1007, "invalid UTF-8")
                else:
                    self._feed(text)
                return
            if kind is _BINARY:
                self._feed(frame.get_payload_as_bytes())
                return
        if not self._ended:
            try:
                self._take(frame)
            except FrameError as exc:
                self.fail(exc.code, str(exc))

    def _take(self, frame: WSFrame) -> None:
        channel, assembler, kind = self._channel, self.assembler, frame.msg_type
        assert channel is not None
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise FrameError(1002, "reserved bit")
        if kind is _TEXT or kind is _BINARY or kind is _CONTINUATION:
            message = assembler.add(kind.value, frame.get_payload_as_memoryview(), fin=frame.fin)
            self._fast = assembler.kind is None and not assembler.is_uneven
            if message is not None:
                channel.feed(message)
        elif kind is _PING:
            channel.ping_received(frame.get_payload_as_bytes())
        elif kind is _PONG:
            channel.pong_received(frame.get_payload_as_bytes())
        else:
            self._take_close(channel, frame.get_payload_as_bytes())
        if frame.last_in_buffer and not self._fast and not self._ended:
            if frame.tail_size:
                self._protocol.look_after(frame.tail_size)
            else:
                self._protocol.head = b""

    def _take_close(self, channel: _Channel, payload: bytes) -> None:
        code = int.from_bytes(payload[:2]) if payload else None
        if code is not None and not is_valid_close_code(code):
            raise FrameError(1002, "invalid close code")
        self._ended, self._fast = True, False
        channel.peer_closed(code, payload[2:].decode())

    def fail(self, code: int, text: str) -> None:
        """End the channel for what the peer sent; what still comes is dropped."""
        if self._ended:
            return
        self._ended, self._fast = True, False
        self._protocol.drop()
        if self._channel is not None:
            self._channel.failed(code, text)

    def picows_failed(self, code: int, text: str) -> None:
        """Take what picows found and would have sent; there may be one frame before it (1496)."""
        if self.failure is None:
            self.failure = code, text
            self._transport.pause_reading()
            self._connector.loop.call_soon(self._picows_failed)

    def _picows_failed(self) -> None:
        assert self.failure is not None
        self.fail(*self.failure)
        self._transport.resume_reading()

    def half_closed(self) -> None:
        if self._channel is not None:
            self._channel.half_closed()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._ended, self._fast = True, False
        self._protocol = cast(_Protocol, None)  # which holds this
        if self._channel is not None:
            self._channel.connection_lost()

    def pause_writing(self) -> None:
        if self._channel is not None:
            self._channel.pause_writing()

    def resume_writing(self) -> None:
        if self._channel is not None:
            self._channel.resume_writing()


def _feed_nothing(message: str | bytes) -> None:
    """Take a message of a channel that has ended."""


def _quiet_logger() -> logging.LoggerAdapter[Any]:
    """Return a logger for what needs attention, which a peer that breaks the protocol does not.

    An adapter: of a plain logger picows makes another one for each connection (1326).
    """
    log = logging.Logger("picows.server", logging.WARNING)
    log.parent = logging.getLogger(log.name)
    log.addFilter(lambda record: not record.msg.startswith("WS parser error"))
    return logging.LoggerAdapter(log)
