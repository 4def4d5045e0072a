"""The event loops that `wsbridge.run` and ``wsbridge serve`` run on."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Literal, cast, get_args

from wsbridge.errors import LoopNotInstalledError

__all__ = ["LOOPS", "LoopName", "loop_factory"]

LoopName = Literal["asyncio", "uvloop"]

LOOPS: tuple[LoopName, ...] = get_args(LoopName)

Factory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(loop: LoopName | Factory) -> Factory | None:
    """Return what makes the event loop; None leaves it to asyncio.

    Raises:
        LoopNotInstalledError: Its package is not installed; the message says what installs it.
        ValueError: No loop of that name.
    """
    if callable(loop):
        return loop
    if loop not in LOOPS:
        raise ValueError(f"loop must be one of {', '.join(map(repr, LOOPS))} or a function, not {loop!r}")
    if loop == "asyncio":
        return None
    try:
        return cast(Factory, importlib.import_module("uvloop").new_event_loop)
    except ModuleNotFoundError as exc:
        raise LoopNotInstalledError(
            "the event loop 'uvloop' needs uvloop, which is not installed. "
            'Run: pip install ".[uvloop]" (in a checkout of wsbridge) or pip install uvloop'
        ) from exc
