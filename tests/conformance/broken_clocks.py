"""Connectors whose clock begins too early, or anew at what it must not, or not at what it must (LIM-2, LIM-3)."""

# mypy: disable-error-code="misc, unused-ignore, no-any-return"
from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.conformance.breaking import BrokenChannel, BrokenConnector, Tamper, breaks
from wsbridge.conformance.client import Frame, Opcode
from wsbridge.connector import BaseChannel


class _FromTheRequestOn(BrokenConnector):
    """Counts what a handshake takes."""

    option = ""

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        began = self.loop.time()
        outcome = await super().handle_by(request, source, run)
        if isinstance(outcome, BaseChannel) and (seconds := getattr(outcome._options, self.option)) is not None:
            left = max(0.001, seconds - (self.loop.time() - began))
            outcome._options = replace(outcome._options, **{self.option: left})
            outcome._idle_timeout = outcome._options.idle_timeout
        return outcome


@breaks("LIM-2")
class IsIdleFromTheRequestOn(_FromTheRequestOn):
    option = "idle_timeout"


@breaks("LIM-3")
class PingsFromTheRequestOn(_FromTheRequestOn):
    option = "ping_interval"


@breaks("LIM-2")
class IsAwakeAtAPing(BrokenChannel):
    __slots__ = ()

    def ping_received(self: Any, payload: bytes) -> None:
        self._activity = self._now()
        super().ping_received(payload)  # type: ignore[misc]


@breaks("LIM-2")
class IsAwakeAtAWrongSend(BrokenChannel):
    __slots__ = ()

    def send_text(self: Any, text: str) -> Any:
        self._activity = self._now()
        return super().send_text(text)  # type: ignore[misc]


@breaks("LIM-2")
class SleepsThroughBinaryMessages(BrokenChannel):
    __slots__ = ()

    def binary_received(self: Any, data: bytes) -> Any:
        activity = self._activity
        try:
            return super().binary_received(data)  # type: ignore[misc]
        finally:
            self._activity = activity


@breaks("LIM-2")
class CountsWhileACallbackRuns(BrokenChannel):
    __slots__ = ()

    async def _timed(self: Any, running: Any) -> None:
        await running


@breaks("LIM-2")
class TakesEachPartForAMessage(Tamper):
    def incoming(self, frame: Frame) -> list[Frame]:
        if frame.opcode == Opcode.CONTINUATION:
            frame = replace(frame, opcode=Opcode.TEXT)
        return [replace(frame, fin=True)]


@breaks("LIM-3")
class PingsTheSilentAlone(BrokenChannel):
    __slots__ = ()

    def text_received(self: Any, text: str) -> Any:
        if self._ping_at is not None:
            self._ping_at = self._now() + self._options.ping_interval
        return super().text_received(text)  # type: ignore[misc]
