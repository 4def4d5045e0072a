"""picows' own framing and parsing, held to one channel: what it may write by itself, and how much it parses at once.

What is worked around is listed in the connector's docstring, `wsbridge.connectors.picows`, whose lines are those of
picows.pyx in 2.3.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from wsbridge.connector import (
    MAX_HEAD,
    BaseConnector,
    BaseSource,
    FrameError,
    FrameHead,
    FrameHeads,
    MessageAssembler,
    TransportChannel,
    frame_head,
    is_valid_close_code,
)
from wsbridge.connectors._codecs.pieces import PieceReader
from wsbridge.connectors._versions import is_older

if TYPE_CHECKING:

    class WSProtocol(asyncio.BufferedProtocol):
        """What picows' stub leaves out."""

        transport: WSTransport

        def __init__(self, *arguments: Any, **options: Any) -> None: ...
        def get_buffer(self, sizehint: int) -> memoryview: ...
        def connection_lost(self, exc: Exception | None) -> None: ...

else:
    from picows.picows import WSProtocol

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Framer", "Listener", "Log", "Pieces", "Protocol"]

Log: TypeAlias = logging.LoggerAdapter[logging.Logger]

TEXT, BINARY, CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
CLOSE, PING, PONG = WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG
_READ = 256 * 1024  # bytes that are read at once
_READ_BUFFER = 4 * 1024  # bytes, to begin with: picows doubles it whenever a read fills it
_STEPS = (4 * 1024, 8 * 1024, 32 * 1024)  # bytes that are parsed at once: of small frames, to begin with, of large ones
_SLOW = 0.0005  # seconds after which a step was one of small frames
_DROPPED = 64 * 1024
_HEAD_OF_CLOSE = 0x88
_TAKEN = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)


class Framer:
    """picows' own framing, for all channels of a connector: each frame that is sent is found in ``frames``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: Log) -> None:
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

    def __init__(self, transport: asyncio.Transport, listener: Listener) -> None:
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


class Pieces(PieceReader):
    """What of a read is not parsed yet."""

    def __init__(self, transport: asyncio.Transport, protocol: Protocol) -> None:
        self.transport = transport
        self._protocol = protocol
        self.step = _STEPS[1]
        self.prepare()
        self._held = False
        self._started = True

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

    def loss_comes_last(self, what: Callable[[], object]) -> bool:
        """See `PieceReader._loss_comes_last`."""
        return self._loss_comes_last(what)

    def _gone(self) -> None:
        self._protocol.receiver.gone()

    def clear(self) -> None:
        """Forget it."""
        self._unread.clear()

    def let_go(self) -> None:
        """Forget the protocol too, whose connection is gone."""
        self.clear()
        self._protocol = cast(Protocol, None)


class LookingProtocol(WSProtocol):
    """picows' protocol before 2.1.2, which is handed on no frame whose length is written in a way that is not allowed.

    It would take one with the highest bit for negative, and the memory that it unmasks has no end (1687 of 2.0.0).
    """

    receiver: Listener
    drop: Callable[[], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._heads: FrameHeads | None = None
        self._carried = 0  # bytes of a head that is not all there
        self._buffer = memoryview(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = super().get_buffer(sizehint)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._heads is None:
            self._heads = FrameHeads()  # of what comes after the handshake
            super().buffer_updated(nbytes)
            return
        frames, heads = self._heads.read(bytes(self._buffer[:nbytes]))
        carried = self._carried
        self._carried = carried + nbytes - len(frames)
        for position, head in heads:
            if not _has_right_length(head):
                if position > carried:
                    super().buffer_updated(position - carried)
                if self.receiver.failure is None:
                    self.drop()
                    self.receiver.fail(1002, "invalid length")
                return
        super().buffer_updated(nbytes)


def _has_right_length(head: FrameHead) -> bool:
    """Tell whether a length is written in as few bytes as can be, and its highest bit is 0 (RFC 6455, 5.2)."""
    if head.size == MAX_HEAD:
        return 1 << 16 <= head.length < 1 << 63
    return head.size == 2 or head.length > 125


if TYPE_CHECKING:
    _Base = WSProtocol
else:
    _Base = LookingProtocol if is_older("picows", (2, 1, 2)) else WSProtocol


class Protocol(_Base):
    """picows' own protocol, which parses; here is what bounds a read and looks at the head of what is not complete."""

    def __init__(
        self, connector: BaseConnector, log: Log, receiver: Listener | None, answer: object, max_frame_size: int
    ) -> None:

        def answer_it(request: WSUpgradeRequest) -> object:
            return answer

        super().__init__(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=answer_it,
            logger=log,
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
        self.receiver = cast(Listener, receiver)
        self.pieces: Pieces | None = None
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
            self.look(self.head + bytes(self._view[: min(nbytes, MAX_HEAD)]))
            if self._dropped is not None:
                return
        super().buffer_updated(nbytes)

    def read_by(self, pieces: Pieces) -> None:
        """Have more than is parsed at once wait there."""
        self.pieces = pieces
        self._unread = pieces.unread

    def look_after(self, size: int) -> None:
        """Look at the ``size`` bytes after the frame that is handed on, the last that is complete."""
        nbytes = self._room - len(super().get_buffer(0))
        if nbytes > 0:  # else picows has moved its buffer to make room, and the old one is not to be read
            self.look(bytes(self._view[nbytes - size : nbytes][:MAX_HEAD]))

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
        if self.pieces is not None and self.pieces.loss_comes_last(partial(self.connection_lost, exc)):
            return
        super().connection_lost(exc)
        if self.pieces is not None:
            self.pieces.let_go()
            self.pieces = None


class Listener(WSListener):
    """The receiving side of a channel."""

    def __init__(
        self,
        source: BaseSource,
        log: Log,
        channel: TransportChannel,
        transport: asyncio.Transport,
        native: WSUpgradeRequest,
    ) -> None:
        """Have picows accept the handshake, and send its 101."""
        self._loop = source.connector.loop
        self._channel: TransportChannel | None = channel
        self._feed = channel.feed
        self._transport = transport
        self.assembler = MessageAssembler(channel.options.max_text_size, channel.options.max_binary_size)
        self._ended = False
        self._fast = not self.assembler.is_uneven  # a message in one frame needs no other look
        self.failure: tuple[int, str] | None = None  # what picows found

        headers: list[tuple[str, str]] = list(source.response_headers)
        if channel.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", channel.subprotocol))
        response = WSUpgradeResponse.create_101_response(headers)
        answer = WSUpgradeResponseWithListener(response, self)
        self._protocol = protocol = Protocol(source.connector, log, self, answer, self.assembler.max_frame)
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

    def begin(self, early: bytes) -> Pieces:
        """Read from now on, in the turn that made this; return what holds reading. ``early`` came after the request."""
        pieces = Pieces(self._transport, self._protocol)
        self._protocol.read_by(pieces)
        if early:
            pieces.begin_reading(early)
        return pieces

    def let_go(self) -> None:
        self._ended, self._fast = True, False
        self._channel = None
        self._feed = _feed_nothing

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._fast and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            kind = frame.msg_type
            if kind is TEXT:
                try:
                    text = frame.get_payload_as_utf8_text()
                except UnicodeDecodeError:
                    self.fail(1007, "invalid UTF-8")
                else:
                    self._feed(text)
                return
            if kind is BINARY:
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
        if kind is TEXT or kind is BINARY or kind is CONTINUATION:
            message = assembler.add(kind.value, frame.get_payload_as_memoryview(), fin=frame.fin)
            self._fast = assembler.kind is None and not assembler.is_uneven
            if message is not None:
                channel.feed(message)
        elif kind is PING:
            channel.ping_received(frame.get_payload_as_bytes())
        elif kind is PONG:
            channel.pong_received(frame.get_payload_as_bytes())
        else:
            self._take_close(channel, frame.get_payload_as_bytes())
        if frame.last_in_buffer and not self._fast and not self._ended:
            if frame.tail_size:
                self._protocol.look_after(frame.tail_size)
            else:
                self._protocol.head = b""

    def _take_close(self, channel: TransportChannel, payload: bytes) -> None:
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
            self._loop.call_soon(self._picows_failed)

    def _picows_failed(self) -> None:
        assert self.failure is not None
        self.fail(*self.failure)
        self._transport.resume_reading()

    def half_closed(self) -> None:
        if self._channel is not None:
            self._channel.half_closed()

    def gone(self) -> None:
        if self._channel is not None:
            self._channel.connection_gone()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._ended, self._fast = True, False
        self._protocol = cast(Protocol, None)  # which holds this
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
