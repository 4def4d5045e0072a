"""For how long a peer waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from itertools import islice

from wsbridge.conformance import lateness
from wsbridge.conformance.client.errors import WireTimeout
from wsbridge.conformance.client.log import WireLog

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
            WireTimeout: They are over; it says what was expected, and what the log has last.
        """
        seconds = (self.timeout if timeout is None else timeout) * self.scale
        scope: asyncio.Timeout | None = None
        try:
            async with lateness.timeout(seconds) as scope:
                yield
        except TimeoutError as error:
            if scope is None or not scope.expired():
                raise
            last = "; ".join(entry.text for entry in islice(reversed(self.log.entries), 3))
            raise WireTimeout(f"expected {expected} within {seconds:g} s; before that, latest first: {last}") from error
