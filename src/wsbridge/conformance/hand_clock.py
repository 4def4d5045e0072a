"""An event loop whose clock is put forward where everything waits: a check of a time-out takes no time.

Server and client of a check share one event loop, and the loop's time is theirs. Where nothing has come for `QUIET`,
nothing is under way any more, and only a timer can go on: then the clock is put forward to the next one, by the loop
itself. What asks ``loop.time()`` and sets timers of the loop cannot tell the difference, and finds each time exact. So

- it serves a server that lives in the loop alone: one with threads or processes of its own waits for real seconds,
  as does one that asks another clock, such as `time.monotonic`;
- while a thread works, of the executor or any other, or a process that has a part in the check, the clock goes as
  clocks do;
- a limit within which something must come about (`lateness.timeout`) is one of real seconds, and stops the clock when
  as many have gone by it: what is on its way may still come, and no timer beyond.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from typing import Any

__all__ = ["QUIET", "HandClockLoop", "Limit", "held", "limit", "now"]

QUIET = 0.01
"""Real seconds without an event after which nothing is under way: on loopback the kernel hands over at once."""

_HAND_OVER = 0.1  # seconds for a thread to hand over what its job has returned

_EXECUTOR = "asyncio_"
"""What the names of the threads of a loop's own executor begin with; their jobs are counted."""


def now() -> float:
    """Return the time of the event loop that runs, in seconds; outside of one that of the system, as loops have it."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Limit:
    """A timer in real seconds, which stops the clock; made by `limit`."""

    def __init__(self, loop: HandClockLoop, seconds: float, callback: Callable[[], object]) -> None:
        self.due = loop.time() + seconds
        """By the loop's clock, which stops there."""
        self.deadline = time.monotonic() + seconds
        self._loop = loop
        self._callback = callback
        loop.limits.add(self)

    def cancel(self) -> None:
        """Forget it; twice does nothing."""
        self._loop.time()  # the clock goes on from where this has stopped it
        self._loop.limits.discard(self)

    def fire(self) -> None:
        """Have the callback called."""
        self.cancel()
        self._loop.call_soon(self._callback)


def limit(
    loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]
) -> Limit | asyncio.TimerHandle:
    """Call ``callback`` in so many real seconds, unless what is returned is cancelled before."""
    return Limit(loop, seconds, callback) if isinstance(loop, HandClockLoop) else loop.call_later(seconds, callback)


@contextlib.contextmanager
def held() -> Generator[None]:
    """Let the clock of the loop that runs, if it is one of these, go as clocks do."""
    loop: asyncio.AbstractEventLoop | None = None
    with contextlib.suppress(RuntimeError):  # no loop runs
        loop = asyncio.get_running_loop()
    if not isinstance(loop, HandClockLoop):
        yield
        return
    loop.holds.append(None)
    try:
        yield
    finally:
        loop.holds.pop()


class _Selector(selectors.DefaultSelector):
    """Puts the clock forward instead of waiting."""

    loop: HandClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self.loop.select(super().select, timeout)


class HandClockLoop(asyncio.SelectorEventLoop):
    """asyncio's own event loop with such a clock.

    Attributes:
        ahead: Seconds by which the clock has been put forward.
        limits: Those that are pending.
        holds: As many entries as there are reasons to let the clock go by itself; threads take theirs off.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.limits: set[Limit] = set()
        self.holds: list[None] = []
        self._handing_over = 0.0  # until when what a job has returned may be under way to this loop
        self._bystanders = set(threading.enumerate())
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        time_now = time.monotonic() + self.ahead
        if self.limits and (over := time_now - self._first_due()) > 0:
            self.ahead -= over
            time_now -= over
        return time_now

    def _first_due(self) -> float:
        return min((limit.due for limit in self.limits), default=math.inf)

    def select(
        self, wait: Callable[[float | None], list[tuple[selectors.SelectorKey, int]]], timeout: float | None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, or put the clock forward by ``timeout`` seconds, where it is free to be."""
        due = math.inf if timeout is None else self.time() + timeout
        quiet = time.monotonic() + QUIET
        while True:
            left = [limit.deadline - time.monotonic() for limit in self.limits]
            is_free = due < self._first_due()
            if is_free:
                left += [due - self.time(), QUIET]
            events = wait(max(0.0, min(left)) if left else None)
            over = [limit for limit in self.limits if limit.deadline <= time.monotonic()]
            for limit in over:
                limit.fire()
            if events or over or due <= self.time():
                return events
            if is_free and quiet <= time.monotonic() and not self._is_held():
                self.ahead += max(0.0, due - self.time())
                return events

    def _is_held(self) -> bool:
        """Tell whether somebody works who may have an event for this loop."""
        others = set(threading.enumerate()) - self._bystanders
        is_held = bool(self.holds) or time.monotonic() < self._handing_over
        return is_held or any(not thread.name.startswith(_EXECUTOR) for thread in others)

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override]
        self.holds.append(None)
        if executor is not None:
            future = super().run_in_executor(executor, func, *args)
            future.add_done_callback(lambda _: self.holds.pop())
            return future

        def job() -> Any:
            try:
                return func(*args)
            finally:
                self._handing_over = time.monotonic() + _HAND_OVER
                self.holds.pop()  # though the future was cancelled meanwhile

        return super().run_in_executor(None, job)

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        with held():
            await super().shutdown_default_executor(*args, **kwargs)
