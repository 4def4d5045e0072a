"""What the suite can be run under: another event loop, asyncio's debug mode, tasks that start at once (THR-4)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from wsbridge._process.loops import LoopName, loop_factory
from wsbridge.conformance.hand_clock import HandClockLoop

__all__ = ["PLAIN", "Conditions", "HandClock", "eager_task"]


def eager_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any
) -> asyncio.Task[Any]:
    """Return a task that has started at once, as by `asyncio.eager_task_factory`; before Python 3.12 a plain one.

    uvloop 0.23 hands each factory an ``eager_start``, which asyncio's own takes from Python 3.14 on.
    """
    options.pop("eager_start", None)
    assert asyncio.iscoroutine(coroutine)  # which a generator is not, whatever a factory may be given
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, coroutine, **options)
    return asyncio.Task(coroutine, loop=loop, **options)


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
        if self.eager_tasks:
            loop.set_task_factory(eager_task)
        return loop

    def __str__(self) -> str:
        """Return what is not as asyncio has it by itself, such as ``uvloop, eager tasks``; "" if all is."""
        words: list[str] = [self.loop] if self.loop != "asyncio" else []
        words += ["debug mode"] if self.debug else []
        words += ["eager tasks"] if self.eager_tasks else []
        return ", ".join(words)


PLAIN = Conditions()
"""asyncio as it is."""


class HandClock(Conditions):
    """The same with a clock that is put forward where everything waits; for a server that lives in the loop alone.

    It says nothing about the server, but takes less time: in reports it is as if it were not there, and it is not there
    in a process that a check starts for a server, whose clients are not in its loop.
    """

    __slots__ = ()

    def check(self) -> None:
        """As `Conditions.check`; uvloop's clock cannot be put forward."""
        super().check()
        if self.loop != "asyncio":
            raise ValueError(f"a clock that is put forward is asyncio's alone, and not {self.loop}'s")

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new `HandClockLoop`."""
        loop = HandClockLoop()
        loop.set_debug(self.debug)
        if self.eager_tasks:
            loop.set_task_factory(eager_task)
        return loop
