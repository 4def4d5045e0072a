"""For how long a peer waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from itertools import islice

from wsbridge.conformance import lateness
from wsbridge.conformance.client.errors import WireError, WireTimeout
from wsbridge.conformance.client.log import WireLog, shortened

__all__ = ["DEFAULT_TIMEOUT", "TimeLimits"]

DEFAULT_TIMEOUT = 5.0
"""Seconds."""


class TimeLimits:
    """The time limits of one peer; what the machine takes meanwhile does not count.

    Attributes:
        timeout: Seconds, where a call is given none.
        scale: What each limit is multiplied by.
        log: What a timeout tells of.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT, scale: float = 1.0, log: WireLog | None = None) -> None:
        self.timeout = timeout
        self.scale = scale
        self.log = WireLog() if log is None else log

    @contextlib.asynccontextmanager
    async def within(self, timeout: float | None, expected: str) -> AsyncGenerator[None]:
        """Limit the block to `timeout` seconds, None for the attribute's.

        Raises:
            WireTimeout: They are over; it says what was expected, and what the log has last. Any other `WireError` of
                the block comes through, and is told whose log has more of it.
        """
        seconds = (self.timeout if timeout is None else timeout) * self.scale
        scope: asyncio.Timeout | None = None
        try:
            async with lateness.timeout(seconds) as scope:
                yield
        except WireError as error:
            error.log = error.log or self.log
            raise
        except TimeoutError as error:
            if scope is None or not scope.expired():
                raise
            last = "; ".join(shortened(entry.text, 60) for entry in islice(reversed(self.log.entries), 3))
            self.log.add("note", 0, f"waited {seconds:g} s for {expected}")
            waited_for = f"{expected} within {seconds:g} s"
            timeout_error = WireTimeout(
                f"expected {waited_for}; before that, latest first: {last}",
                expected=waited_for,
                actual="nothing of the kind",
            )
            timeout_error.log = self.log
            raise timeout_error from error
