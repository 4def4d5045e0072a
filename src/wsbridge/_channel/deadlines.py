"""The times of a channel: the current time goes in; what is due, and when to look again, comes out.

Nothing here reads a clock or waits: ``tests/channel/test_deadlines.py`` plays it with times of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, NamedTuple, cast

from wsbridge._channel.ending import LOST, OPEN, STOPPED, Ending
from wsbridge.options import WebSocketOptions

__all__ = ["Deadlines", "Due"]

_GRACE = 0.2  # seconds: a pong that lies unread after a callback that has just ended is not missing
_GLANCE = 0.25  # seconds
_BUSY_STEP = 0.25  # seconds between two looks at a channel whose deadline passed while its callback runs

What = Literal["nothing", "cut", "send timeout", "idle timeout", "ping timeout", "ping"]


class Due(NamedTuple):
    """What is to be done now; if nothing, when to look again. None: not until `Deadlines` asks for it."""

    what: What
    look: float | None = None


class Deadlines(Ending):
    """The part of a channel that knows when something is late: LIM-2 to LIM-4, CLOSE-5."""

    __slots__ = (
        "_activity",
        "_idle_timeout",
        "_options",
        "_ping_at",
        "_ping_count",
        "_pong_by",
        "_stalled",
        "_unsent",
        "_write_paused",
    )

    def __init__(self, options: WebSocketOptions[Any]) -> None:
        super().__init__()
        self._options = options
        self._idle_timeout = options.idle_timeout
        self._activity = 0.0
        self._ping_at: float | None = None
        self._ping_count = 0
        self._pong_by: float | None = None
        self._write_paused = False
        self._stalled = 0.0
        self._unsent: int = 0

    # ---- what the rest of the channel fills --------------------------------------------------------------------------

    @abstractmethod
    def _now(self) -> float:
        """Return the time of the clock, in seconds."""

    @abstractmethod
    def _is_busy(self) -> bool:
        """Tell whether a callback runs: idle time stands still, and a pong may lie unread."""

    @abstractmethod
    def _unsent_bytes(self) -> int:
        """Return how much is written and has not left this process yet."""

    def _held_since(self) -> float | None:
        """Return since when the server waits in a send; only for a server that does not tell what is unsent (LIM-4)."""
        return None

    # ---- what sets a time --------------------------------------------------------------------------------------------

    def _begin_times(self, *, pings: bool) -> None:
        """The channel opens now."""
        now = self._activity = self._now()
        if pings and self._options.ping_interval is not None:
            self._ping_at = now + self._options.ping_interval
            self._arm(self._ping_at)
        if self._idle_timeout is not None:
            self._arm(now + self._idle_timeout)

    def _begin_timeout(self) -> float:
        self._ping_at = self._pong_by = None
        return self._now() + self._options.close_timeout

    def _begin_stall(self) -> None:
        """What is sent is held back from now on, since the peer does not read."""
        if self._options.send_timeout is not None:
            self._unsent = self._unsent_bytes()
            self._stalled = self._now()
            self._arm(self._stalled + self._options.send_timeout / 4)

    def _glance(self) -> float:
        """Return the seconds between two looks at a channel for which `_held_since` is asked."""
        send_timeout = self._options.send_timeout
        return _GLANCE if send_timeout is None else min(_GLANCE, send_timeout / 4)

    def _pong_in(self, missing: int) -> None:
        """A pong is in that leaves the last ``missing`` pings without an answer."""
        if self._pong_by is not None and self._options.ping_timeout is not None:
            if missing == 0:
                self._pong_by = None
            elif 0 < missing < self._ping_count:
                self._pong_by = self._now() + self._options.ping_timeout

    # ---- what is due -------------------------------------------------------------------------------------------------

    def _due(self, now: float) -> Due:
        """Return what is due at ``now``: the first of what ends the channel, or a ping."""
        if self._phase is LOST:
            return Due("nothing")
        looks: list[float] = []
        what: What = "nothing"
        send_timeout = self._options.send_timeout
        if (held_since := self._held_since()) is not None:
            if send_timeout is not None and now - held_since >= send_timeout:
                return Due("send timeout")
            looks.append(now + self._glance())
        if self._write_paused and send_timeout is not None:
            if self._is_stalled(now, send_timeout):
                return Due("send timeout")
            looks.append(min(now + send_timeout / 4, self._stalled + send_timeout))
        if self._cut_at is not None:
            if self._phase is STOPPED and self._is_busy():
                self._cut_at = max(self._cut_at, now + _BUSY_STEP)  # the report of the end may lie unread
            if now >= self._cut_at:
                return Due("cut")
            looks.append(self._cut_at)
        elif self._phase is OPEN:
            if self._idle_timeout is not None:
                when = self._idle_until(now, self._idle_timeout)
                if now >= when:
                    return Due("idle timeout")
                looks.append(when)
            if self._ping_at is not None:
                if self._is_pong_late(now):
                    missing_at = cast(float, self._pong_by) + _GRACE
                    if now >= missing_at:
                        return Due("ping timeout")
                    looks.append(missing_at)
                else:
                    if now >= self._ping_at and self._next_ping(now):
                        what = "ping"
                    looks.append(self._ping_at if self._pong_by is None else min(self._ping_at, self._pong_by))
        return Due(what, max(min(looks), now) if looks else None)

    def _is_stalled(self, now: float, send_timeout: float) -> bool:
        """Tell whether nothing has left for so long (LIM-4)."""
        unsent = self._unsent_bytes()
        if unsent != self._unsent or not unsent:  # none: a large message is being deflated
            self._unsent, self._stalled = unsent, now
        return now - self._stalled >= send_timeout

    def _idle_until(self, now: float, idle_timeout: float) -> float:
        """Return until when nothing need happen (LIM-2), or when to look at a channel whose callback runs."""
        if self._is_busy():
            self._activity = now
            return now + min(_BUSY_STEP, idle_timeout)
        return self._activity + idle_timeout

    def _is_pong_late(self, now: float) -> bool:
        """Tell whether a ping has had no answer for so long, though somebody reads (LIM-3)."""
        if self._pong_by is None or now < self._pong_by:
            return False
        if self._is_busy():
            self._pong_by = now + _BUSY_STEP
            return False
        return True

    def _next_ping(self, now: float) -> bool:
        """Take it that a ping is due; return whether it is to be sent."""
        interval, timeout = self._options.ping_interval, self._options.ping_timeout
        assert interval is not None
        self._ping_at = now + interval
        if self._write_paused and (self._pong_by is not None or timeout is None):
            return False  # no heap of pings after a stuck peer, which would hide LIM-4
        self._ping_count += 1
        if self._pong_by is None and timeout is not None:
            self._pong_by = now + timeout
        return True
