"""Connectors that write on when all has been said: after a close frame, or after the answer to a handshake."""

from __future__ import annotations

from tests.conformance.breaking import Tamper, breaks
from wsbridge.conformance.client import Frame, Opcode

_MORE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@breaks("SEND-6")
class PongsAfterItsClose(Tamper):
    def outgoing(self, frame: Frame) -> list[Frame]:
        if frame.opcode == Opcode.CLOSE:
            return [frame, Frame(Opcode.PONG, b"late", True, 0, False)]
        return [frame]


@breaks("SEND-6")
class SaysGoodbyeTwice(Tamper):
    def outgoing(self, frame: Frame) -> list[Frame]:
        return [frame] * (2 if frame.opcode == Opcode.CLOSE else 1)


@breaks("SEND-6")
class SaysBadRequestAfterThe101(Tamper):
    def response(self, head: bytes) -> bytes:
        return head + _MORE if b" 101 " in head else head


@breaks("HS-7")
class AnswersTwice(Tamper):
    def response(self, head: bytes) -> bytes:
        return head if b" 101 " in head else _MORE + head
