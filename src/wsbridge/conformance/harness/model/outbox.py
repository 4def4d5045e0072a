"""What one side sends on a channel: one thing after another, in a task of its own, since it may be held back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["Outbox"]


class Outbox:
    """Does what is put into it, in order.

    Attributes:
        errors: What was raised, in order; what came after it was done all the same.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._last: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether all is done that was put in."""
        return self._last is None or self._last.done()

    def put(self, work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
        """Do ``work`` when all else is done; return its task, which raises nothing."""
        before = self._last

        async def run() -> None:
            if before is not None and not before.done():
                await asyncio.wait((before,))
            try:
                await work()
            except Exception as exc:
                self.errors.append(exc)

        task = self._last = asyncio.get_running_loop().create_task(run())
        return task
