"""Connectors that break a rule of framing: each reads or writes frames, or agrees on extensions, as it must not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tests.conformance.breaking import Tamper, breaks
from wsbridge.conformance.client import Frame, Opcode, close_payload

Change = Callable[[Tamper, Frame], list[Frame]]
Head = Callable[[Tamper, bytes], bytes]

_EXTENSIONS = re.compile(rb"(?i)\r\nsec-websocket-extensions:[^\r]*")


def tampers(
    rule: str,
    name: str,
    *,
    incoming: Change | None = None,
    outgoing: Change | None = None,
    request: Head | None = None,
    response: Head | None = None,
    base: str = "websockets",
) -> None:
    """Register a connector that violates ``rule`` by what its wire does."""
    parts = {"incoming": incoming, "outgoing": outgoing, "request": request, "response": response}
    breaks(rule, base=base)(type(name, (Tamper,), {key: part for key, part in parts.items() if part is not None}))


def is_control(frame: Frame) -> bool:
    return frame.opcode >= 8


def cut(tamper: Tamper, frame: Frame) -> list[Frame]:
    """Lose the last byte of each message."""
    return [frame if is_control(frame) else replace(frame, payload=frame.payload[:-1])]


def garble(tamper: Tamper, frame: Frame) -> list[Frame]:
    """Flip a bit of each byte of a message that leaves ASCII what it was."""
    if is_control(frame):
        return [frame]
    return [replace(frame, payload=bytes(byte ^ 1 for byte in frame.payload))]


def without_bits(tamper: Tamper, frame: Frame) -> list[Frame]:
    return [replace(frame, rsv=0)]


def mended(tamper: Tamper, frame: Frame) -> list[Frame]:
    """Make any text UTF-8."""
    if frame.opcode not in (Opcode.TEXT, Opcode.CONTINUATION):
        return [frame]
    return [replace(frame, payload=frame.payload.decode("utf-8", "replace").encode())]


def without_pings(tamper: Tamper, frame: Frame) -> list[Frame]:
    return [] if frame.opcode in (Opcode.PING, Opcode.PONG) else [frame]


def closes_fairly(tamper: Tamper, frame: Frame) -> list[Frame]:
    """Take any close for one with 1000."""
    return [replace(frame, payload=close_payload(1000)) if frame.opcode == Opcode.CLOSE else frame]


def junk(tamper: Tamper, frame: Frame) -> list[Frame]:
    """Take whatever is deflated for some text."""
    return [replace(frame, opcode=Opcode.TEXT, payload=b"junk", rsv=0) if frame.rsv & 4 else frame]


def garbles_deflated(tamper: Tamper, frame: Frame) -> list[Frame]:
    return [replace(frame, payload=bytes(byte ^ 0x10 for byte in frame.payload)) if frame.rsv & 4 else frame]


def no_extension(tamper: Tamper, head: bytes) -> bytes:
    return _EXTENSIONS.sub(b"", head)


def agrees(tamper: Tamper, head: bytes) -> bytes:
    """Agree on deflate, whatever was offered."""
    return no_extension(tamper, head)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"


def plainly_offered(tamper: Tamper, head: bytes) -> bytes:
    """Take any offer of deflate for one without parameters."""
    return _EXTENSIONS.sub(b"\r\nSec-WebSocket-Extensions: permessage-deflate", head)


def promises(parameter: bytes) -> Head:
    def response(tamper: Tamper, head: bytes) -> bytes:
        return re.sub(rb"(?i)(\r\nsec-websocket-extensions: *permessage-deflate)", rb"\1; " + parameter, head)

    return response


class Joins(Tamper):
    """Remembers whether a message is unfinished, for what takes a wrong frame for a right one."""

    inside = False

    def incoming(self, frame: Frame) -> list[Frame]:
        if is_control(frame):
            return [frame]
        if frame.opcode == Opcode.CONTINUATION and not self.inside:
            frame = replace(frame, opcode=Opcode.TEXT)
        elif frame.opcode != Opcode.CONTINUATION and self.inside:
            frame = replace(frame, opcode=Opcode.CONTINUATION)
        self.inside = not frame.fin
        return [frame]


@breaks("FRAME-13")
class TakesANewMessageForAContinuation(Joins):
    pass


@breaks("FRAME-14")
class TakesAContinuationForAMessage(Joins):
    pass


@breaks("FRAME-25")
class ReadsOnBehindAClose(Tamper):
    """Holds a close back until the next frame, as if that had come before."""

    held: Frame | None = None

    def incoming(self, frame: Frame) -> list[Frame]:
        if frame.opcode == Opcode.CLOSE:
            self.held = frame
            return []
        return [frame]


@breaks("FRAME-6")
class UnmasksByAnOldKey(Tamper):
    seen = 0

    def incoming(self, frame: Frame) -> list[Frame]:
        self.seen += 1
        return garble(self, frame) if self.seen > 1 or frame.payload else [frame]


@breaks("FRAME-9")
class LosesTheSecondFrameOfAPiece(Tamper):
    seen = 0

    def incoming(self, frame: Frame) -> list[Frame]:
        self.seen += 1
        return [] if self.seen % 2 == 0 else [frame]


@breaks("FRAME-40")
class ForgetsTheWindow(Tamper):
    seen = 0

    def incoming(self, frame: Frame) -> list[Frame]:
        self.seen += frame.rsv == 4
        return garbles_deflated(self, frame) if self.seen > 1 else [frame]


tampers("FRAME-1", "ReadsLengthsOneShort", incoming=cut)
tampers("FRAME-2", "ReadsLongLengthsOneShort", incoming=cut)
tampers("FRAME-3", "DropsTheFirstBitOfALength")
tampers("FRAME-4", "IgnoresReservedBits", incoming=without_bits)
tampers("FRAME-5", "DropsReservedOpcodes", incoming=lambda tamper, frame: [frame] * isinstance(frame.opcode, Opcode))
tampers("FRAME-7", "TakesUnmaskedFrames", incoming=lambda tamper, frame: [replace(frame, masked=True)])
tampers("FRAME-8", "MasksItsFrames", outgoing=lambda tamper, frame: [replace(frame, masked=True)])
tampers("FRAME-10", "JoinsFragmentsBadly", incoming=cut)
tampers(
    "FRAME-11",
    "DropsEmptyFragments",
    incoming=lambda tamper, frame: [frame] if frame.payload or is_control(frame) else [],
)
tampers("FRAME-12", "DropsPingsAndPongs", incoming=without_pings, outgoing=cut)
tampers(
    "FRAME-15",
    "CutsControlFrames",
    incoming=lambda tamper, frame: [replace(frame, payload=frame.payload[:125]) if is_control(frame) else frame],
)
tampers(
    "FRAME-16",
    "TakesFragmentedControlFrames",
    incoming=lambda tamper, frame: [replace(frame, fin=True) if is_control(frame) else frame],
)
tampers("FRAME-17", "AnswersNoPing", incoming=without_pings)
tampers(
    "FRAME-18",
    "TakesAPongForAPing",
    incoming=lambda tamper, frame: [replace(frame, opcode=Opcode.PING) if frame.opcode == Opcode.PONG else frame],
)
tampers("FRAME-19", "TakesAnyCodeFor1000", incoming=closes_fairly)
tampers("FRAME-20", "AnswersAnEmptyCloseWithACode", incoming=closes_fairly)
tampers("FRAME-21", "TakesACloseOfOneByte", incoming=closes_fairly)
tampers("FRAME-22", "TakesAnyCloseCode", incoming=closes_fairly)
tampers("FRAME-23", "TakesAnyCloseReason", incoming=closes_fairly)
tampers(
    "FRAME-24",
    "RefusesLongCloseReasons",
    incoming=lambda tamper, frame: [
        replace(frame, payload=frame.payload[:1]) if frame.opcode == Opcode.CLOSE and len(frame.payload) > 60 else frame
    ],
)
tampers("FRAME-27", "MendsViolations", incoming=lambda tamper, frame: mended(tamper, replace(frame, rsv=0)))
tampers("FRAME-28", "ReadsTextOneByteShort", incoming=cut)
tampers("FRAME-29", "DecodesEachFragment", incoming=mended)
tampers("FRAME-30", "MendsInvalidText", incoming=mended)
tampers("FRAME-31", "MendsInvalidFragments", incoming=mended)
tampers(
    "FRAME-32",
    "TakesBinaryForText",
    incoming=lambda tamper, frame: [replace(frame, opcode=Opcode.TEXT) if frame.opcode == Opcode.BINARY else frame],
)
tampers("FRAME-33", "AgreesOnWhatWasNotOffered", response=agrees)
tampers("FRAME-34", "TakesAnyOffer", request=plainly_offered)
tampers(
    "FRAME-35", "PromisesNoContextTakeover", response=promises(b"server_no_context_takeover"), request=plainly_offered
)
tampers("FRAME-36", "DeflatesUnasked", response=no_extension)
tampers("FRAME-37", "PromisesASmallWindow", response=promises(b"server_max_window_bits=9"), request=plainly_offered)
tampers("FRAME-38", "DeclinesAClientWindowYetDeflates", response=no_extension)
tampers("FRAME-39", "InflatesBadly", incoming=garbles_deflated)
tampers("FRAME-41", "KnowsNoDeflateBlocks", incoming=garbles_deflated)
tampers("FRAME-42", "KnowsNoBfinal", incoming=garbles_deflated)
tampers("FRAME-43", "CannotInflateNothing", incoming=garbles_deflated)
tampers(
    "FRAME-44",
    "InflatesWhatIsPlain",
    incoming=lambda tamper, frame: [replace(frame, rsv=4) if frame.opcode in (1, 2) else frame],
)
tampers("FRAME-45", "InflatesTheFirstFragmentAlone", incoming=garbles_deflated)
tampers(
    "FRAME-46",
    "IgnoresRsv1OnContinuations",
    incoming=lambda tamper, frame: [replace(frame, rsv=0) if frame.opcode == 0 else frame],
)
tampers(
    "FRAME-47",
    "IgnoresRsv1OnControlFrames",
    incoming=lambda tamper, frame: [replace(frame, rsv=0) if is_control(frame) else frame],
)
tampers("FRAME-48", "IgnoresRsv2AndRsv3", incoming=lambda tamper, frame: [replace(frame, rsv=frame.rsv & 4)])
tampers("FRAME-49", "DeliversWhatItCannotInflate", incoming=junk)
tampers("FRAME-50", "DeliversDeflatedTextThatIsNoUtf8", incoming=junk)
tampers("FRAME-51", "DropsPingsAmongDeflatedFragments", incoming=without_pings)
tampers("FRAME-52", "SetsRsv1Nowhere", outgoing=without_bits)
tampers("RECV-8", "DeliversInvalidText", incoming=mended)
tampers("RECV-9", "ReadsLeniently", incoming=lambda tamper, frame: [replace(frame, rsv=0, masked=True)])
tampers("RECV-3", "JoinsMessagesBadly", incoming=cut)
tampers("RECV-7", "NeverAnswersPings", incoming=without_pings)
tampers("CLOSE-4", "ClosesWithItsOwnCode", outgoing=closes_fairly)
tampers("SEND-8", "DeflatesWhatNobodyOffered", response=no_extension)
tampers("HS-1", "SendsAWrongAcceptKey", response=lambda tamper, head: re.sub(rb"(?i)(accept: ).", rb"\1!", head))
tampers(
    "HS-4",
    "LetsABadHandshakeThrough",
    request=lambda tamper, head: (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
)
tampers(
    "HS-8", "StripsAddedHeaders", response=lambda tamper, head: re.sub(rb"(?i)\r\n(x-|set-cookie)[^\r]*", b"", head)
)


@breaks("FRAME-26")
class HoldsBackItsCloses(Tamper):
    """Its close frames never leave."""

    def outgoing(self, frame: Frame) -> list[Frame]:
        return [] if frame.opcode == Opcode.CLOSE else [frame]
