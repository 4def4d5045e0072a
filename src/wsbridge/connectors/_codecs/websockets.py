"""Frames of websockets' sans-I/O core, for the servers that stand on it: the websockets connector and uvicorn's.

What is mended here is listed in the connectors' docstrings, whose lines are those of websockets 17.4.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, cast

from websockets.exceptions import InvalidState, PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from wsbridge import Compression, Request, WebSocketOptions
from wsbridge.connector import (
    LARGE,
    FrameError,
    MessageAssembler,
    TransportChannel,
    agree,
    end_of,
    frame_head,
    server_names,
)
from wsbridge.connectors._codecs.pieces import END_OF_MESSAGE, PIECE, Inflation, PieceReader

__all__ = ["Channel", "FrameReader", "agree_on_deflate"]

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_CLOSE, _PING, _PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG
_CONTROL = (_CLOSE, _PING, _PONG)
_OPEN = State.OPEN
_WINDOW_BITS, _MEMORY_LEVEL = 12, 5  # websockets' own defaults


_PRIVATE = {
    "websockets.extensions.permessage_deflate:PerMessageDeflate": "decode_cont_data decoder",
    "websockets.server:ServerProtocol": "close_rcvd close_sent extensions parser_exc reader recv_frame "
    "max_message_size|max_size",
    "websockets.streams:StreamReader": "at_eof buffer read_exact",
}
server_names("websockets", "13.0 to 17.4", _PRIVATE)

_LIMIT_NAME = "max_message_size" if hasattr(ServerProtocol(), "max_message_size") else "max_size"
_SAYS_SIZES = "__str__" in vars(PayloadTooBig)  # since 14; before it takes the text


class Channel(TransportChannel):
    """A channel whose frames websockets' core makes and parses."""

    __slots__ = ("_closing", "_connection", "_protocol")

    native: Any
    closed_errors = (InvalidState,)

    def opened(self, connection: FrameReader) -> None:
        """Take the connection, when the 101 is written."""
        self._connection = connection
        self._protocol = connection.protocol
        self._transport = connection.transport
        self._closing = end_of(connection.transport)

    def _send_text(self, text: str) -> Awaitable[object] | None:
        data = text.encode()
        size = len(data)
        if size > LARGE and self._protocol.extensions:
            return self._send_large(self._deflated(partial(self._framed, Frame(_TEXT, data)), self._write))
        self._protocol.send_text(data)
        self._written(size)
        return None

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        size = len(data)
        if size > LARGE and self._protocol.extensions:
            return self._send_large(self._deflated(partial(self._framed, Frame(_BINARY, data)), self._write))
        self._protocol.send_binary(data)
        self._written(size)
        return None

    def _framed(self, frame: Frame) -> bytes:
        return frame.serialize(mask=False, extensions=self._protocol.extensions)

    def _write(self, framed: bytes) -> None:
        if self._protocol.state is not _OPEN:  # the core has answered the peer's close (SEND-6)
            raise InvalidState("the connection is closing")
        self._connection.send_data()
        if not self._closing.is_closing():
            self._transport.write(framed)

    def _is_full(self) -> bool:
        return self._connection.paused

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._closing.is_closing():
            self._transport.write(data)

    def _close(self, code: int | None, text: str) -> None:
        if self._protocol.state is _OPEN:
            self._protocol.send_close(code, text)
        self._flush()

    def _ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)
        self._flush()

    def _pong(self, payload: bytes) -> None:
        self._protocol.send_pong(payload)
        self._written(len(payload))

    def _hold_reading(self) -> None:
        self._connection.hold()

    def _resume_reading(self) -> None:
        self._connection.resume()


class FrameReader(PieceReader):
    """A mixin for the protocol class of a connection: reads it frame by frame, once `begin` was called, for a channel.

    Before, everything that comes is kept unread. The class has `asyncio.Protocol`'s methods, and these attributes.
    """

    # beside the dictionary of the server's own class: beyond 30 names CPython shares no keys, which costs 1.3 KiB
    __slots__ = ("_feed", "_head", "_is_large", "_large", "_wanted", "assembler", "channel")

    protocol: Any  # ServerProtocol
    loop: asyncio.AbstractEventLoop
    paused: bool
    """Whether the transport's buffer is full."""

    channel: Channel | None
    assembler: MessageAssembler
    _feed: Callable[[str | bytes], None]

    def prepare(self) -> None:
        super().prepare()
        self.channel = None
        self._head: bytes | None = b""  # of the next frame, as far as it has come; None: it has been looked at
        self._large: _LargeFrame | None = None
        self._wanted = 0  # bytes that the parser has asked for and not got, while `_read_exact` is in force
        self._is_large = False  # more is unread than is parsed at once

    def parse_unopened(self, data: bytes) -> None:
        """Have what comes before `begin`, or after the channel's end, parsed by the server itself."""
        raise NotImplementedError

    def send_data(self) -> None:
        """Write what the core has framed; the end, which is b"", is the channel's."""
        data = b"".join(self.protocol.data_to_send())
        if data and not end_of(self.transport).is_closing():  # asyncio warns of each write from the sixth on (LOG-3)
            self.transport.write(data)

    def begin(self, channel: Channel) -> None:
        """Read for ``channel`` from now on; the 101 is written."""
        channel.opened(self)
        self.channel = channel
        self._feed = channel.feed
        setattr(self.protocol, "recv_frame", self._frame_received)  # noqa: B010
        self.begin_reading()

    def agreed(self, options: WebSocketOptions[Any]) -> None:
        """Take the limits and extensions that the channel will have."""
        self.assembler = MessageAssembler(options.max_text_size, options.max_binary_size)
        for extension in self.protocol.extensions:
            extension.left = self.assembler.left
        self._limit()

    def let_go(self) -> None:
        """Forget the channel, which has ended."""
        self.channel = None
        if hasattr(self, "_feed"):
            del self._feed
        cast("dict[str, Any]", vars(self.protocol)).pop("recv_frame", None)
        cast("dict[str, Any]", vars(self.protocol.reader)).pop("read_exact", None)

    # ---- receiving --------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        protocol, channel, state = self.protocol, self.channel, self.protocol.state
        if state is State.CLOSED:
            return  # it came before the end, but was held back
        if channel is None:
            self.parse_unopened(data)
            return
        protocol.receive_data(data)
        if state is _OPEN:
            self.send_data()
        else:
            protocol.data_to_send()  # nothing goes out after the close frame
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is _PONG:
                channel.pong_received(bytes(event.data))
            elif event.opcode is _CLOSE and (close := protocol.close_rcvd) is not None:
                channel.peer_closed(close.code if event.data else None, close.reason)
        if protocol.parser_exc is not None and (sent := protocol.close_sent) is not None:
            channel.failed(int(sent.code), sent.reason)

    def _lacking(self) -> int:
        return max(0, self._wanted - len(self.protocol.reader.buffer))

    def _read(self) -> None:
        is_large = self._started and self.channel is not None and len(self._unread) > PIECE
        if is_large:
            self._is_large = True
            self._limit()
        super()._read()
        if self._is_large and not self._unread:
            self._is_large = False
            if self.channel is not None:
                self._limit()

    def _read_exact(self, size: int) -> Generator[None, None, Any]:
        """Read for the parser, and note what it lacks.

        Refuses a message by its first frame's head, where the parser's own limit is too high.
        """
        self._wanted = size
        data = yield from StreamReader.read_exact(self.protocol.reader, size)
        self._wanted = 0
        if self._head is not None:
            self._head += data
            head = frame_head(self._head)
            if head is not None:
                self._head = None  # the rest is read as it comes
                if self.assembler.head_read(head):
                    raise _too_big(head.length, self.assembler.left(head.opcode))
        return data

    def _frame_received(self, frame: Frame) -> None:
        opcode = frame.opcode
        self._head = b""
        if self.assembler.kind is None and frame.fin and (opcode is _TEXT or opcode is _BINARY):
            data: bytes = frame.data  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
            self._feed(data.decode() if opcode is _TEXT else data)
        elif opcode is _TEXT or opcode is _BINARY or opcode is _CONT:
            self._fragment_received(frame)
        elif opcode is _PING and self.channel is not None:
            self.channel.ping_received(bytes(frame.data))
        else:
            ServerProtocol.recv_frame(self.protocol, frame)

    def _inflate_rest(self, frame: _LargeFrame) -> None:
        """Inflate a large frame's payload outside the event loop, with the parser stopped after it (SEND-9)."""
        self._large = frame
        setattr(self.protocol.reader, "at_eof", self._until_inflated)  # noqa: B010
        frame.limit = self.assembler.left(frame.opcode)
        self._wait_for(self.loop.run_in_executor(None, frame.inflation.go_on, frame.limit))

    def _worked(self, work: asyncio.Future[Any]) -> None:
        assert self._large is not None
        self._large.error = work.exception()
        self._parse(b"")  # which lets the parser go on

    def _until_inflated(self) -> Generator[None, None, bool]:
        """Begin the parser's next step with the frame that has been inflated; what is raised here fails the parser."""
        reader = self.protocol.reader
        while self._is_busy:
            yield
        frame, self._large = self._large, None
        if frame is not None:
            cast("dict[str, Any]", vars(reader)).pop("at_eof", None)
            if self.channel is not None:
                self._frame_received(frame.inflated())
        return (yield from StreamReader.at_eof(reader))

    def _fragment_received(self, frame: Frame) -> None:
        if isinstance(frame, _LargeFrame):
            self._inflate_rest(frame)
            return
        limit = self.assembler.left(frame.opcode)
        try:
            message = self.assembler.add(frame.opcode, cast(bytes, frame.data), fin=frame.fin)
        except FrameError as exc:
            raise _native_error(exc, limit) from None
        if message is not None:
            self._feed(message)
        self._limit()

    def _limit(self) -> None:
        """Set the limit of the next frame, which may be a control frame; see to it by `_read_exact` if need be."""
        deflates = bool(self.protocol.extensions)
        setattr(self.protocol, _LIMIT_NAME, self.assembler.frame_limit(deflates=deflates))
        if self._is_large or self.assembler.needs_heads(deflates=deflates):
            setattr(self.protocol.reader, "read_exact", self._read_exact)  # noqa: B010
        else:
            cast("dict[str, Any]", vars(self.protocol.reader)).pop("read_exact", None)

    def half_closed(self) -> None:
        """Tell the channel that the peer sends no more."""
        if self.channel is not None and self._started:
            self.channel.half_closed()

    def _gone(self) -> None:
        if self.channel is not None:
            self.channel.connection_gone()

    def lost(self) -> None:
        """Tell the channel that the connection is gone, and nothing of what came before is left."""
        channel = self.channel
        self.let_go()
        if channel is not None:
            if self._started:
                channel.connection_lost()
            else:
                channel.abandon()

    def writing_paused(self) -> None:
        """Hold back sends."""
        if self.channel is not None and self._started:
            self.channel.pause_writing()

    def writing_resumed(self) -> None:
        """Let sends go on."""
        if self.channel is not None and not self.paused:
            self.channel.resume_writing()


def agree_on_deflate(protocol: ServerProtocol, request: Request, compression: bool | Compression) -> str | None:
    """Give the core the extension that is agreed on; return what ``Sec-WebSocket-Extensions`` of the 101 says."""
    agreement = agree(request, compression, window_bits=_WINDOW_BITS)
    if agreement is None:
        return None
    settings = compression if isinstance(compression, Compression) else Compression()
    protocol.extensions = [
        _Deflate(
            remote_no_context_takeover=agreement.client_no_context_takeover,
            local_no_context_takeover=agreement.server_no_context_takeover,
            remote_max_window_bits=agreement.client_max_window_bits or 15,
            local_max_window_bits=agreement.server_max_window_bits or 15,
            compress_settings={"memLevel": settings.memory_level or _MEMORY_LEVEL},
        )
    ]
    return str(agreement)


def _too_big(size: int | None, limit: int) -> PayloadTooBig:
    """Return what the core answers with 1009, and with what it says as the text."""
    return PayloadTooBig(size, limit) if _SAYS_SIZES else PayloadTooBig(f"frame exceeds limit of {limit} bytes")


def _native_error(error: FrameError, limit: int) -> Exception:
    """Return what the core's parser answers as ``error`` says."""
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return UnicodeDecodeError(*cause.args)  # not the same, which the error that is handled holds
    return _too_big(None, limit) if error.code == 1009 else ProtocolError(str(error))


class _LargeFrame(Frame):
    """A frame whose payload is not inflated yet, or only a part of it.

    It is unfinished, to whoever looks, so that the way of small messages has nothing more to look at.
    """

    def __init__(self, frame: Frame, extension: _Deflate, inflation: Inflation) -> None:
        super().__init__(frame.opcode, b"", False, False, frame.rsv2, frame.rsv3)
        self.is_last = frame.fin
        self.extension = extension
        self.inflation = inflation
        self.limit = 0
        self.error: BaseException | None = None

    def inflated(self) -> Frame:
        """Return the frame, whose payload is inflated now.

        Raises:
            ProtocolError: It is not deflated.
            PayloadTooBig: It is more than the limit.
        """
        if self.error is not None:
            if not isinstance(self.error, zlib.error):
                raise self.error
            raise ProtocolError("decompression failed") from self.error
        if self.inflation.size > self.limit:
            raise _too_big(None, self.limit)
        self.extension.go_on_with(self.inflation.inflater, is_last=self.is_last)
        return Frame(self.opcode, self.inflation.data, self.is_last, False, self.rsv2, self.rsv3)


class _Deflate(PerMessageDeflate):
    """The extension, with what it inflates counted, what is large left for later, and blocks with BFINAL known.

    Attributes:
        left: Returns how many bytes the message of a frame may still have, inflated.
    """

    left: Callable[[int], int]

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode is _CONT:
            if frame.rsv1:
                raise ProtocolError("RSV1 bit set in continuation frame")
            if not self.decode_cont_data:
                return frame
        elif not frame.rsv1 or frame.opcode in _CONTROL:
            return frame
        elif self.remote_no_context_takeover:
            self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        self.decode_cont_data = not frame.fin
        payload = bytes(frame.data) + END_OF_MESSAGE if frame.fin else bytes(frame.data)
        inflation = Inflation(self.decoder, payload, self.remote_max_window_bits)
        try:
            is_all = inflation.go_on(LARGE)
        except zlib.error as exc:
            raise ProtocolError("decompression failed") from exc
        if not is_all:
            return _LargeFrame(frame, self, inflation)
        limit = self.left(frame.opcode)  # of its kind, which ``max_size`` may be above
        if inflation.size > limit:
            raise _too_big(inflation.size, limit)
        self.go_on_with(inflation.inflater, is_last=frame.fin)
        return Frame(frame.opcode, inflation.data, frame.fin, False, frame.rsv2, frame.rsv3)

    def go_on_with(self, inflater: Any, *, is_last: bool) -> None:
        """Take the inflater that a frame has left."""
        if is_last and self.remote_no_context_takeover:
            del self.decoder
        else:
            self.decoder = inflater
