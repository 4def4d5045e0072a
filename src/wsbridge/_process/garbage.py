"""Keeps the garbage collector of a process that serves from the objects of its start."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator

__all__ = ["start_set_aside"]


@contextlib.contextmanager
def start_set_aside() -> Generator[None]:
    """Set aside, while the block runs, what the start has left, which a full collection would go through.

    Modules, classes and routes live as long as the process. To look through them holds the event loop for 14 to 24 ms
    where aiohttp is imported (`gc.freeze` was made for it). Whoever has frozen something already decides for the
    process: then nothing is done, since there is no way to thaw a part.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()  # what is garbage by now would otherwise stay
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
