"""Exceptions that nobody took while a check ran: mostly they are why a peer got no answer."""

from __future__ import annotations

import asyncio
import gc
import traceback

__all__ = ["Unhandled"]

_TOLD = 3  # exceptions in one line


class Unhandled:
    """Those of one check.

    Attributes:
        errors: In the order in which they were found.
    """

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def note(self, error: object) -> None:
        """Take an exception that the event loop, or a logger of the server's, tells of; anything else is nothing."""
        if isinstance(error, BaseException) and error not in self.errors:
            self.errors.append(error)

    def look(self) -> None:
        """Take the exceptions of the tasks that have ended with one for which nobody has asked.

        asyncio tells of such a task when it is collected, which one that a connector keeps is not, nor any that the
        traceback of a failing check keeps alive.
        """
        gc.collect()
        for task in [found for found in gc.get_objects() if issubclass(type(found), asyncio.Task)]:
            # asyncio's own mark of a task whose exception it will tell of, and which asking for it takes away
            if task.done() and getattr(task, "_log_traceback", False):
                self.note(task.exception())

    def told(self, message: str) -> str:
        """Return ``message``, with the first of those that it does not tell of itself."""
        lines = dict.fromkeys(f"{type(error).__name__}: {error}" for error in self.errors if str(error) not in message)
        return message + "".join(
            f"; meanwhile an exception with nobody to catch it: {line}" for line in list(lines)[:_TOLD]
        )

    def tracebacks(self) -> str:
        """Return all of them for a report."""
        traces = ("".join(traceback.format_exception(error)) for error in self.errors)
        return "".join(f"\nMeanwhile an exception with nobody to catch it:\n{trace}" for trace in traces)
