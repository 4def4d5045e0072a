"""Tasks: how one begins in a later turn of the event loop (THR-4), and how long those that are left are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["begin_later", "later_turn", "retrieve", "settle"]

T = TypeVar("T")

_SETTLED = 0.25  # seconds


def begin_later(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """Return a task that has not begun, as `loop.create_task` does without a task factory.

    By `asyncio.eager_task_factory` a task would begin inside the call that makes it: a channel would read before its
    ``on_open`` has begun, and what the task is kept in would not be set when it has ended already.
    """
    if loop.get_task_factory() is None:
        return loop.create_task(coroutine, name=name, context=context)
    task = loop.create_task(_one_turn_later(coroutine), name=name, context=context)
    task.add_done_callback(lambda _: coroutine.close())  # one that was cancelled before it began
    return task


async def _one_turn_later(coroutine: Coroutine[Any, Any, T]) -> T:
    await asyncio.sleep(0)
    return await coroutine


async def later_turn(loop: asyncio.AbstractEventLoop) -> None:
    """Return in a later turn than that which made the task, for what a server makes the task of."""
    if loop.get_task_factory() is not None:
        await asyncio.sleep(0)


def retrieve(task: asyncio.Task[Any]) -> None:
    """Take what a task raised, for one whose result nobody is left to ask for: asyncio would log it."""
    if not task.cancelled():
        task.exception()


async def settle(tasks: Iterable[asyncio.Future[Any]], *, timeout: float = _SETTLED) -> None:
    """Wait for what ends by itself once its connection is cut, but for no longer than ``timeout``, in seconds.

    Among the tasks of a server that is stopped may be one with a callback that was given up, or that asked for the stop
    (STOP-2, STOP-3).
    """
    left = list(tasks)
    if left:
        await asyncio.wait(left, timeout=timeout)
