"""Frames by wsproto, for the servers that stand on it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, cast

from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, FrameProtocol, Opcode, ParseFailed, RsvBits
from wsproto.utilities import LocalProtocolError

from wsbridge import Compression, Request
from wsbridge.connector import (
    LARGE,
    MAX_SIZE,
    FrameError,
    MessageAssembler,
    TransportChannel,
    agree,
    end_of,
    server_names,
)
from wsbridge.connectors._codecs.pieces import END_OF_MESSAGE, Inflation, PieceReader

__all__ = ["Channel", "Wire", "deflate_offer"]

_PRIVATE = {
    "wsproto.connection:Connection": "_proto",
    "wsproto.extensions:PerMessageDeflate": "_decompressor _inbound_compressed _inbound_is_compressible"
    " client_max_window_bits client_no_context_takeover frame_inbound_complete frame_inbound_header"
    " frame_inbound_payload_data",
    "wsproto.frame_protocol:FrameDecoder": "header payload_consumed",
    "wsproto.frame_protocol:FrameProtocol": "_frame_decoder _process_close extensions",
}
server_names("wsproto", "1.3", _PRIVATE)

_OPEN, _REMOTE_CLOSING, _CLOSED = ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED
_BAD_GATEWAY = (1014).to_bytes(2)
_TEXT, _BINARY, _CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


class Channel(TransportChannel):
    """A channel whose frames wsproto makes and parses."""

    __slots__ = ("_closing", "_codec", "_deflates", "_pending", "_wire")

    native: Any
    closed_errors = (LocalProtocolError,)

    def opened(self, wire: Wire) -> None:
        """Take the connection, when the 101 is written."""
        self._wire = wire
        self._codec = wire.codec
        self._deflates = wire.deflates
        self._transport = wire.transport
        self._closing = end_of(wire.transport)
        self._pending: list[bytes] = []

    def _send_text(self, text: str) -> Awaitable[object] | None:
        data = text.encode()  # wsproto would do so after the deflater, whose state cannot be put back
        event = TextMessage(text)
        if self._deflates and len(data) > LARGE:
            return self._send_large(self._deflated(partial(self._codec.send, event), self._write))
        framed = self._codec.send(event)
        self._pending.append(framed)
        self._written(len(framed))
        return None

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        event = BytesMessage(data)
        if self._deflates and len(data) > LARGE:
            return self._send_large(self._deflated(partial(self._codec.send, event), self._write))
        framed = self._codec.send(event)
        self._pending.append(framed)
        self._written(len(framed))
        return None

    def _write(self, framed: bytes) -> None:
        self._pending.append(framed)
        self._written(len(framed))

    def _is_full(self) -> bool:
        return self._wire.is_full

    def _flush(self) -> None:
        pending = self._pending
        if pending:
            self._pending = []
            if not self._closing.is_closing():  # asyncio warns of each write from the sixth on (LOG-3)
                self._transport.write(b"".join(pending) if pending[1:] else pending[0])

    def _close(self, code: int | None, text: str) -> None:
        if self._codec.state in (_OPEN, _REMOTE_CLOSING):
            event = CloseConnection(code, text or None)  # type: ignore[arg-type]  # an empty one
            self._pending.append(self._codec.send(event))
        self._flush()

    def _ping(self, payload: bytes) -> None:
        self._pending.append(self._codec.send(Ping(payload)))
        self._flush()

    def _pong(self, payload: bytes) -> None:
        self._pending.append(self._codec.send(Pong(payload)))
        self._written(len(payload))

    def _hold_reading(self) -> None:
        self._wire.hold()

    def _resume_reading(self) -> None:
        self._wire.resume()


def deflate_offer(request: Request, compression: bool | Compression) -> list[str]:
    """Return what wsproto shall find in ``Sec-WebSocket-Extensions``: what is agreed on, as one offer, or none.

    It makes one answer of several offers, knows no quoted value, and no window of 8 bits (extensions.py, ``accept``).
    """
    agreement = agree(request, compression)
    return [] if agreement is None else [str(agreement)]


class _Deflate(PerMessageDeflate):
    """The extension, with two mends (lines of wsproto 1.3.2, extensions.py).

    A control frame between fragments ends the deflated message for it (246), and what follows a block with BFINAL is
    lost (RFC 7692, 7.2.3.4).
    """

    _outer: bool | None = None
    _in_control = False
    room = MAX_SIZE
    """Bytes that are inflated at most, and one more: a usual piece of what comes is small, and so is what it is."""

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        if opcode.iscontrol() and not self._in_control:  # it is asked again while the head is not all there
            self._outer = self._inbound_compressed
        self._in_control = opcode.iscontrol()
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        if not self._inbound_compressed or not self._inbound_is_compressible:
            return data
        try:
            return self._inflated(data)
        except zlib.error:
            return CloseReason.PROTOCOL_ERROR

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        if self._in_control:
            self._in_control = False
            self._inbound_compressed = self._outer
            return None
        if not fin or not self._inbound_compressed:
            return super().frame_inbound_complete(proto, fin)
        try:
            data = self._inflated(END_OF_MESSAGE)
        except zlib.error:
            return CloseReason.PROTOCOL_ERROR
        if self.client_no_context_takeover:
            self._decompressor = None
        self._inbound_compressed = None
        return data

    def _inflated(self, data: bytes) -> bytes:
        inflater = self._decompressor
        assert inflater is not None
        inflation = Inflation(inflater, data, int(self.client_max_window_bits))
        inflation.go_on(self.room)
        self._decompressor = inflation.inflater
        return inflation.data


def _rest(events: Iterable[Event]) -> tuple[list[Event], bool]:
    """Return what there is of the rest of a message, and whether there may be more after it.

    What comes after it is left unread, above all a close, after which wsproto writes nothing.
    """
    taken: list[Event] = []
    for event in events:
        taken.append(event)
        if not isinstance(event, (TextMessage, BytesMessage)) or event.message_finished:
            return taken, True
    return taken, False


def _process_close(native: Callable[[Frame], Frame], frame: Frame) -> Frame:
    """Take 1014 too, which wsproto 1.3 does not know (frame_protocol.py:544)."""
    payload: Any = frame.payload
    if payload[:2] != _BAD_GATEWAY:
        return native(frame)
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError as exc:
        raise ParseFailed(str(exc), CloseReason.INVALID_FRAME_PAYLOAD_DATA) from exc
    return Frame(frame.opcode, cast(Any, (1014, reason)), frame.frame_finished, frame.message_finished)


class Wire(PieceReader, asyncio.Protocol):
    """Takes a connection over from the server's own protocol, when the 101 is written, and reads it for a channel."""

    def __init__(
        self, transport: asyncio.Transport, codec: Connection, channel: Channel, lost: Callable[[Any], object]
    ) -> None:
        """Take it over; ``lost`` is told of its end."""
        self.prepare()
        self.transport = transport
        self.codec = codec
        self._channel: Channel | None = channel
        self._lost = lost
        self._assembler = MessageAssembler(channel.options.max_text_size, channel.options.max_binary_size)
        self._extensions: list[Any] = codec._proto.extensions
        for extension in self._extensions:
            extension.__class__ = _Deflate
        self.deflates = bool(self._extensions)
        self.is_full = False  # the transport's buffer
        self._decoder = codec._proto._frame_decoder
        self._dropping = False
        self.ended = False  # the peer sends no more than what is unread
        codec._proto._process_close = partial(_process_close, codec._proto._process_close)  # type: ignore[method-assign]
        transport.pause_reading()
        transport.set_protocol(self)
        channel.opened(self)

    def let_go(self) -> None:
        """Forget the channel, which has ended."""
        self._channel = None
        self._dropping = True

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        if not self.ended:
            self.transport.resume_reading()
        elif not self.eof_received():
            self.transport.close()

    def _lacking(self) -> int:
        header = self._decoder.header
        if header is None:
            return 0
        lacking = header.payload_len - self._decoder.payload_consumed
        if not self.deflates:
            return lacking
        if self._assembler.size > LARGE and self._is_inflating():  # outside the event loop, and of this frame alone
            return min(lacking, LARGE)
        return 0  # what is deflated may inflate a thousandfold, and is looked at on the way

    def _parse(self, data: bytes, events: Iterable[Event] | None = None) -> None:
        if self._dropping:
            return
        if events is None:
            try:
                self.codec.receive_data(data)
            except LocalProtocolError:
                return  # it came after the peer's close frame
            events = self.codec.events()
            if self._assembler.size > LARGE and self._is_inflating():
                self._inflate_rest(events)
                return
        for event in events:
            self._take(event)
            if self._dropping:
                return
        header, channel = self._decoder.header, self._channel
        if header is not None and channel is not None:
            self._look(channel, header.opcode, header.payload_len - self._decoder.payload_consumed)

    def _is_inflating(self) -> bool:
        """Tell whether the message that has begun is deflated."""
        return any(extension._inbound_compressed for extension in self._extensions)

    def _inflate_rest(self, events: Iterable[Event]) -> None:
        """Have the rest of a large message inflated outside the event loop, by larger pieces (SEND-9)."""
        for extension in self._extensions:
            extension.room = self._assembler.left(_CONTINUATION)
        self._wait_for(asyncio.get_running_loop().run_in_executor(None, _rest, events))

    def _worked(self, work: asyncio.Future[tuple[list[Event], bool]]) -> None:
        events, is_finished = work.result()
        for extension in self._extensions:
            extension.room = MAX_SIZE
        self._parse(b"", events)
        if is_finished:
            self._parse(b"")  # what stands after it in the piece

    def _look(self, channel: Channel, opcode: Opcode, left: int) -> None:
        """Refuse a frame by what its head declares, as soon as that is there (LIM-1)."""
        if self._assembler.is_too_big(opcode, left, deflated=self._is_inflating()):
            self._fail(channel, 1009, "message too big")

    def _take(self, event: Event) -> None:
        channel = self._channel
        if channel is None:
            return
        if isinstance(event, (TextMessage, BytesMessage)):
            kind = _TEXT if type(event) is TextMessage else _BINARY
            try:
                message = self._assembler.add_decoded(kind, event.data, fin=event.message_finished)
            except FrameError as exc:
                self._fail(channel, exc.code, str(exc))
            else:
                if message is not None:
                    channel.feed(message)
        elif isinstance(event, Ping):
            channel.ping_received(bytes(event.payload))
        elif isinstance(event, Pong):
            channel.pong_received(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            if self.codec.state in (_REMOTE_CLOSING, _CLOSED):
                self._dropping = True
                channel.peer_closed(None if event.code == 1005 else int(event.code), event.reason or "")
            else:
                self._fail(channel, int(event.code), event.reason or "")

    def _fail(self, channel: Channel, code: int, text: str) -> None:
        self._dropping = True
        channel.failed(code, text)

    def eof_received(self) -> bool:
        if not self._comes_last(self.eof_received) and self._channel is not None:
            self._channel.half_closed()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._loss_comes_last(partial(self.connection_lost, exc)):
            return
        channel = self._channel
        self.let_go()
        if channel is not None:
            channel.connection_lost()
        self._lost(exc)

    def _gone(self) -> None:
        if self._channel is not None:
            self._channel.connection_gone()

    def pause_writing(self) -> None:
        self.is_full = True
        if self._channel is not None:
            self._channel.pause_writing()

    def resume_writing(self) -> None:
        self.is_full = False
        if self._channel is not None:
            self._channel.resume_writing()
