"""How late the machine is: the seconds that it kept from a check, which no limit of that check may count.

A machine that is busy lets a process wait for its turn, and one that is virtual may stand still. The limits of checks
stretch by what was lost to that, and a check that failed while much was lost is run again; on a quiet machine nothing
is lost, and nothing changes.

A connector that blocks the event loop makes every timer late as well, and shall be found. So the timers of the loop
are not asked. What is asked cannot be the work of whoever runs in the loop:

- how long the loop's thread, or one of a process that has a part in the check, was ready to run and waited for a
  processor, as the kernel counts it (Linux: the second number of ``/proc/PID/task/TID/schedstat``);
- by how much another thread, which does nothing but sleep, wakes late, less what the process has used of a processor
  meanwhile. That is to be had on every system, and tells of a machine that stands still.

In each moment the greatest of these counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from wsbridge.conformance import hand_clock

__all__ = ["STALL", "Deadline", "Meter", "followed", "lost", "measured", "timeout", "wait"]

T = TypeVar("T")

STALL = 0.1
"""Seconds lost during a check from which on its failure may be the machine's."""

_PERIOD = 0.05  # seconds that the other thread sleeps
_JITTER = 0.002  # seconds that a timer may be late on a quiet machine
_LEAST = 0.001  # seconds: a limit is not stretched by less


class _Sample(NamedTuple):
    """The counters when they were looked at: all in seconds."""

    lost: float
    at: float
    waited: Mapping[int, float]
    used: float


class Meter:
    """Counts what the machine keeps from the thread that makes this, while it is entered.

    Args:
        clock: Returns the seconds of a clock that goes on while the machine stands still.
        waited: Returns the seconds that each thread was ready to run and did not; None: as the kernel counts them.
        used: Returns the seconds that the process has used of processors.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        waited: Callable[[], Mapping[int, float]] | None = None,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._used = used
        self._waited = self._told_by_the_kernel if waited is None else waited
        self._own = threading.get_native_id()
        self._account: int | None = None
        # Linux alone has it; it stays open, so that descriptors that are counted meanwhile are as many as before
        with contextlib.suppress(OSError):
            self._account = os.open(f"/proc/self/task/{self._own}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self.processes: set[int] = set()
        self._others = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wsbridge-lateness", daemon=True)
        self._last = _Sample(0.0, clock(), self._waited(), used())
        self._began = self._last.at

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.look()
        account, self._account = self._account, None
        if account is not None:
            os.close(account)

    @property
    def lost(self) -> float:
        """The seconds lost so far."""
        last = self._last
        return self._others + (last.lost if self._over.is_set() else self._now(last).lost)

    @property
    def stretch(self) -> float:
        """By how much longer everything takes, for a second try: 2, 3 or 4."""
        spent, lost = self._last.at - self._began, self.lost
        return float(min(max(math.ceil(spent / (spent - lost)), 2), 4)) if lost < spent else 4.0

    def count(self, seconds: float) -> None:
        """Add what was lost otherwise, and is not seen from here."""
        self._others += seconds

    def look(self) -> None:
        """Read the counters: once in each period, since in each period only one of them counts."""
        self._last = self._now(self._last)

    def _now(self, last: _Sample) -> _Sample:
        at, waited, used = self._clock(), self._waited(), self._used()
        late = at - last.at - _PERIOD
        late = late - (used - last.used) if late > _JITTER else 0.0
        kept = (seconds - last.waited.get(thread, seconds) for thread, seconds in waited.items())
        return _Sample(last.lost + max(0.0, late, *kept), at, waited, used)

    def _told_by_the_kernel(self) -> dict[int, float]:
        told: dict[int, float] = {}
        if self._account is not None:
            with contextlib.suppress(OSError, IndexError):  # a kernel that does not count
                told[self._own] = _seconds(os.pread(self._account, 100, 0))
        for process in tuple(self.processes):
            tasks = Path(f"/proc/{process}/task")
            with contextlib.suppress(OSError, IndexError):  # one that has ended meanwhile
                for thread in os.listdir(tasks):
                    told[int(thread)] = _seconds((tasks / thread / "schedstat").read_bytes())
        return told

    def _watch(self) -> None:
        while not self._over.wait(_PERIOD):
            self.look()


def _seconds(schedstat: bytes) -> float:
    """Return for how long a thread has waited for a processor: proc(5), nanoseconds."""
    return int(schedstat.split()[1]) / 1e9


_meters: list[Meter] = []


@contextlib.contextmanager
def measured(meter: Meter | None = None) -> Generator[Meter, None, None]:
    """Measure, in this thread, from here to the end of the block; the limits of this module stretch accordingly.

    Args:
        meter: For tests; by default a new one.
    """
    with meter or Meter() as running:
        _meters.append(running)
        try:
            yield running
        finally:
            _meters.remove(running)


@contextlib.contextmanager
def followed(process: int) -> Generator[None, None, None]:
    """Count what the machine keeps from the threads of another process too, in the measurement that runs."""
    with contextlib.ExitStack() as stack:
        for meter in _meters[-1:]:
            meter.processes.add(process)
            stack.callback(meter.processes.discard, process)
        stack.enter_context(hand_clock.held())
        yield


def lost() -> float:
    """Return the seconds lost since the measurement began that runs, 0 if none does."""
    return _meters[-1].lost if _meters else 0.0


class Deadline:
    """A limit of so many seconds from now on, not counting those that are lost."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._lost = lost()

    def left(self) -> float:
        """Return the seconds that are left; 0 or less: it has passed."""
        spent = time.monotonic() - self._began
        left = self._seconds - spent
        return left if left > 0 else left + max(0.0, lost() - self._lost)


@contextlib.asynccontextmanager
async def timeout(seconds: float, *, at_last: Callable[[], object] | None = None) -> AsyncGenerator[asyncio.Timeout]:
    """`asyncio.timeout`, but for the seconds that are lost meanwhile.

    Args:
        seconds: The limit.
        at_last: Called when it has passed, before anything is cancelled.
    """
    loop = asyncio.get_running_loop()
    deadline = Deadline(seconds)
    timer = hand_clock.limit(loop, seconds, lambda: due())

    def due() -> None:
        nonlocal timer
        left = deadline.left()
        if left > _LEAST:
            timer = hand_clock.limit(loop, left, due)
        else:
            if at_last is not None:
                at_last()
            scope.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as scope:
            yield scope
    finally:
        timer.cancel()


async def wait(tasks: Iterable[asyncio.Future[T]], seconds: float) -> tuple[set[Any], set[Any]]:
    """`asyncio.wait` with a timeout, but for the seconds that are lost meanwhile."""
    pending: set[asyncio.Future[T]] = set(tasks)
    if pending:
        with contextlib.suppress(TimeoutError):
            async with timeout(seconds):
                await asyncio.wait(pending)
    done = {task for task in pending if task.done()}
    return done, pending - done
