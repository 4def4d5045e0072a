"""What a peer sends after its request: wsproto makes frames of it, and each becomes a report to the channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from wsproto.frame_protocol import Frame, FrameDecoder, Opcode, ParseFailed

from wsbridge.connector import TURN, FrameError, MessageAssembler, TransportChannel, is_valid_close_code


class FrameReader:
    """Reports to a channel what its peer sends."""

    def __init__(
        self, channel: TransportChannel, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.channel: Any = channel  # None as soon as it has ended
        self.transport, self.loop = transport, loop
        self.decoder: FrameDecoder | None = FrameDecoder(client=False)  # None as soon as no more frames are wanted
        self.messages = MessageAssembler(channel.options.max_text_size, channel.options.max_binary_size)
        self.next_turn: asyncio.Handle | None = None  # as long as what was read is not all reported
        self.report_end: Callable[[], None] | None = None
        self.is_held = False

    def begin(self, early: bytes) -> None:
        """Take what came after the request, and report it when `run` has begun (HS-11)."""
        self.next_turn = self.loop.call_soon(self.read)
        self.receive(early)

    def receive(self, data: bytes) -> None:
        if self.decoder is not None:  # else it is dropped
            self.decoder.receive_bytes(data)
            self.read_on()

    def end(self, report: Callable[[], None]) -> None:
        """Have the end reported after all that came before it."""
        self.report_end = report
        self.read_on()

    def stop(self) -> None:
        self.channel = self.decoder = self.report_end = None
        self.set_reading()

    # ---- how fast ---------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        self.is_held = True
        self.set_reading()

    def go_on(self) -> None:
        self.is_held = False
        self.set_reading()

    def set_reading(self) -> None:
        """Read from the socket, unless the channel holds it, or what was read is not all reported."""
        if self.transport.is_closing():
            return
        if self.decoder is not None and (self.is_held or self.next_turn is not None):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # ---- the frames -------------------------------------------------------------------------------------------------

    def read_on(self) -> None:
        if self.next_turn is None:
            self.read()

    def read(self) -> None:
        """Report `TURN` frames before all else has its turn (FLOW-3), and after the last of them the end."""
        self.next_turn, left = None, TURN
        try:
            while left and self.read_frame():
                left -= 1
        except (ParseFailed, FrameError, UnicodeDecodeError) as error:
            self.decoder = None
            self.channel.failed(int(getattr(error, "code", 1007)), str(error))
        if not left:
            self.next_turn = self.loop.call_soon(self.read)
        elif self.report_end is not None:
            self.report_end()
        self.set_reading()

    def read_frame(self) -> bool:
        """Report the next frame, or as much of it as has come; return whether there may be more."""
        decoder = self.decoder
        if decoder is None:
            return False
        frame, head = decoder.process_buffer(), decoder.header
        if frame is not None:
            self.take(frame)
        if head is not None and self.messages.is_too_big(head.opcode, head.payload_len - decoder.payload_consumed):
            raise FrameError(1009, "message too big")  # by its head, before the rest of it is read (LIM-1)
        return frame is not None

    def take(self, frame: Frame) -> None:
        payload: Any = frame.payload  # bytes, as long as no `MessageDecoder` of wsproto's has seen it
        if frame.opcode is Opcode.PING:
            self.channel.ping_received(payload)
        elif frame.opcode is Opcode.PONG:
            self.channel.pong_received(payload)
        elif frame.opcode is not Opcode.CLOSE:
            message = self.messages.add(frame.opcode, payload, fin=frame.frame_finished and frame.message_finished)
            if message is not None:
                self.channel.feed(message)
        else:
            code, text = int.from_bytes(payload[:2]), payload[2:].decode()
            if payload and (len(payload) == 1 or not is_valid_close_code(code)):
                raise FrameError(1002, "the close frame has no valid code")
            self.decoder = None
            self.channel.peer_closed(code if payload else None, text)
