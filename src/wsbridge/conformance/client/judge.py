"""Whether a frame of the server is legal where it stands, as wsproto sees it."""

from __future__ import annotations

from wsproto.frame_protocol import FrameProtocol, ParseFailed

from wsbridge.conformance.client.deflate import PerMessageDeflate
from wsbridge.conformance.client.errors import WireViolation
from wsbridge.conformance.client.events import Binary, Close, Event, Ping, Pong, Text
from wsbridge.conformance.client.frames import Frame, Opcode, close_payload

__all__ = ["FrameJudge"]


class FrameJudge:
    """Judges the frames of one connection, one after another, and joins those of a message.

    Args:
        deflate: The extension that was agreed on.
    """

    def __init__(self, deflate: PerMessageDeflate | None = None) -> None:
        self._data = FrameProtocol(client=True, extensions=[deflate] if deflate else [])
        # Control frames have a judge of their own: with one between the fragments of a deflated message,
        # wsproto 1.3 takes the rest for not deflated.
        self._control = FrameProtocol(client=True, extensions=[])
        self._parts: list[str | bytes] = []
        self._close_received = False

    def judge(self, frame: Frame, wire: bytes) -> Event | None:
        """Judge a frame, which is `wire` in bytes, and return the event that it completes.

        Raises:
            WireViolation: It is not legal; later ones are no longer judged.
        """
        if self._close_received:
            raise WireViolation("a frame behind the close frame (section 5.5.1)", frame)
        bad_gateway = frame.opcode == Opcode.CLOSE and frame.payload[:2] == close_payload(1014)
        if bad_gateway:  # registered with IANA, but wsproto 1.3 takes it for illegal
            wire = wire[: -len(frame.payload)] + close_payload(1013) + frame.payload[2:]
        protocol = self._control if frame.opcode >= Opcode.CLOSE else self._data
        protocol.receive_bytes(wire)
        try:
            judged = next(protocol.received_frames(), None)
        except ParseFailed as error:
            raise WireViolation(f"{error} (a {error.code} error)", frame) from error
        if judged is None:
            return None
        payload = judged.payload
        if isinstance(payload, tuple):
            self._close_received = True
            return Close(1014 if bad_gateway else int(payload[0]), payload[1])
        if frame.opcode >= Opcode.CLOSE:
            return Ping(frame.payload) if frame.opcode == Opcode.PING else Pong(frame.payload)
        self._parts.append(payload)
        if not judged.message_finished:
            return None
        parts, self._parts = self._parts, []
        if judged.opcode is Opcode.TEXT:
            return Text("".join(part for part in parts if isinstance(part, str)))
        return Binary(b"".join(part for part in parts if isinstance(part, bytes)))
