"""Where a check hangs: the stack of each thread, and of each task down to what it waits for."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from types import FrameType
from typing import Any

__all__ = ["where"]


def where() -> str:
    """Return for people where each task of the running loop waits, and where each other thread is."""
    parts = [f"task {task.get_name()} waits:\n{''.join(_of_task(task))}" for task in asyncio.all_tasks()]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts += [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    ]
    return "\n".join(parts)


def _of_task(task: asyncio.Task[Any]) -> list[str]:
    """Return a task's stack, the outermost coroutine first; `asyncio.Task.get_stack` has no other than that."""
    lines: list[str] = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame: FrameType | None = getattr(waits, "cr_frame", None) or getattr(waits, "ag_frame", None)
        frame = frame or getattr(waits, "gi_frame", None)
        if frame is not None:
            lines += traceback.format_list(traceback.extract_stack(frame, limit=1))
        inner = getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None)
        waits = inner or getattr(waits, "gi_yieldfrom", None)
    return lines
