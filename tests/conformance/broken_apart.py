"""Connectors that mix up the ends of their channels (CLOSE-10)."""

# mypy: disable-error-code="misc"
from __future__ import annotations

from typing import Any

from tests.conformance.breaking import BrokenConnector, breaks


@breaks("CLOSE-10")
class KeepsTheReasonForTheNext(BrokenConnector):
    """A channel begins with the reason that the last one had."""

    last: Any = None

    def admit(self, channel: Any) -> None:
        super().admit(channel)
        channel._reason = self.last

    def release(self, channel: Any) -> None:
        self.last = channel.reason
        super().release(channel)


@breaks("CLOSE-10")
class TellsAReasonToAll(BrokenConnector):
    def release(self, channel: Any) -> None:
        super().release(channel)
        if channel.reason is not None and channel.reason.code != 1001:
            for other in self.channels:
                other._reason = other._reason or channel.reason


@breaks("CLOSE-10")
class KeepsTheReasonOverAStop(BrokenConnector):
    """What channels have that the stop has closed, those of the next run have too."""

    closed: Any = None

    def admit(self, channel: Any) -> None:
        super().admit(channel)
        channel._reason = self.closed

    def release(self, channel: Any) -> None:
        if self._stopping is not None:
            self.closed = channel.reason
        super().release(channel)
