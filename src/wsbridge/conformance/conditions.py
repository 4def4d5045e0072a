"""What the suite can be run under: another event loop, asyncio's debug mode, tasks that start at once (THR-4)."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from wsbridge.loops import LoopName, loop_factory

__all__ = ["PLAIN", "Conditions"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for the event loop of each check, and so for the server in it.

    Attributes:
        loop: The event loop: ``"asyncio"`` or ``"uvloop"``.
        debug: Whether asyncio's debug mode is on.
        eager_tasks: Whether a task starts at once, inside the call that makes it: `asyncio.eager_task_factory`.
    """

    loop: LoopName = "asyncio"
    debug: bool = False
    eager_tasks: bool = False

    def check(self) -> None:
        """Make sure that they can be had here.

        Raises:
            LoopNotInstalledError: uvloop is not installed.
            ValueError: No loop of that name, or eager tasks before Python 3.12.
        """
        loop_factory(self.loop)
        if self.eager_tasks and sys.version_info < (3, 12):
            raise ValueError("eager tasks need Python 3.12 or newer, which is the first to have them")

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new loop of that kind."""
        make = loop_factory(self.loop) or asyncio.new_event_loop
        loop = make()
        loop.set_debug(self.debug)
        if self.eager_tasks and sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    def __str__(self) -> str:
        """Return what is not as asyncio has it by itself, such as ``uvloop, eager tasks``; "" if all is."""
        words: list[str] = [self.loop] if self.loop != "asyncio" else []
        words += ["debug mode"] if self.debug else []
        words += ["eager tasks"] if self.eager_tasks else []
        return ", ".join(words)


PLAIN = Conditions()
"""asyncio as it is."""
