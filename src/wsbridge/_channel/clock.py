"""One timer for all deadlines of a connector."""

from __future__ import annotations

import heapq
import logging
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "Timed", "Timer"]

logger = logging.getLogger("wsbridge")

RESOLUTION = 0.02
"""Seconds between two sweeps at least: deadlines that lie closer together are handled in one."""


class Timed(Protocol):
    """What has deadlines."""

    def tick(self, now: float, /) -> float | None:
        """Do what is due at ``now``; return when the next is, or None if there is none.

        It is not called twice in a sweep, even if that is due already.
        """


class TimeSource(Protocol):
    """The part of an event loop that a clock needs; a test gives it one whose time it sets by hand."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], object], /) -> TimerHandle: ...


class Timer:
    """One entry of a clock; drop it with `Clock.cancel`."""

    __slots__ = ("timed", "when")

    def __init__(self, when: float, timed: Timed) -> None:
        self.when = when
        self.timed: Timed | None = timed

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Clock:
    """Wakes what is due, at a cost that grows with that and not with what waits.

    A heap of deadlines and at most one timer of the event loop, so that idle channels cost none. It keeps nothing alive
    that was cancelled, and no timer when nothing waits (MOUNT-2). A timer whose deadline was cancelled comes too early
    and sets the next: that is cheaper than to set it anew for each channel that ends.
    """

    __slots__ = ("_cancelled", "_handle", "_heap", "_last", "_loop", "_wake")

    def __init__(self, loop: TimeSource) -> None:
        self._loop = loop
        self._heap: list[Timer] = []
        self._handle: TimerHandle | None = None
        self._cancelled = 0
        self._last = float("-inf")
        self._wake = 0.0  # what `_handle` is for

    def time(self) -> float:
        """Return the time now, in the seconds of the event loop."""
        return self._loop.time()

    def at(self, when: float, timed: Timed) -> Timer:
        """Have ``timed.tick`` called at ``when``, and after that as often as it asks for."""
        timer = Timer(when, timed)
        heapq.heappush(self._heap, timer)
        if self._handle is None or when < self._wake:
            self._set()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget ``timer`` and what it holds; twice does nothing."""
        if timer.timed is None:
            return
        timer.timed = None
        self._cancelled += 1
        if self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.timed is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
            if not self._heap:
                self._set()

    def _set(self) -> None:
        """Set the event loop's timer to the first deadline, or to none."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._wake = self._heap[0].when
            self._handle = self._loop.call_at(max(self._wake, self._last + RESOLUTION), self._sweep)

    def _sweep(self) -> None:
        self._handle = None
        now = self._last = self._loop.time()
        again: list[Timer] = []
        while self._heap and self._heap[0].when <= now:  # a tick may cancel, which makes a new heap
            timer = heapq.heappop(self._heap)
            timed = timer.timed
            if timed is None:
                self._cancelled -= 1
                continue
            try:
                following = timed.tick(now)
            except Exception:
                logger.exception("a deadline failed: %r", timed)  # those of others are not to suffer
                continue
            if following is not None and timer.timed is not None:
                timer.when = following
                again.append(timer)
        for timer in again:
            if timer.timed is not None:
                heapq.heappush(self._heap, timer)
        if self._handle is None or not self._heap or self._heap[0].when < self._wake:
            self._set()
