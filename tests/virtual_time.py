"""An event loop whose time goes by only while nothing can be done: a test in it sees exact times, however slow it is.

It is for tests that talk over no socket, and start no thread: the loop could not know that something is on its way.
What would run in a thread of the executor, such as a look-up of a host's name, runs at once.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

__all__ = ["in_virtual_time"]

P = ParamSpec("P")


class _Selector(selectors.SelectSelector):
    """Lets time go by instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for something that cannot come"
        ready = super().select(0)
        if not ready:
            self.now += max(timeout, 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as exc:
            done.set_exception(exc)
        return done


def in_virtual_time(function: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test, which is a coroutine function, in a loop of its own with such a time."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def test() -> None:
            await function(*args, **kwargs)

        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(test())

    return run
