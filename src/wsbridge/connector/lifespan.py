"""What an application does before its first request and after its last channel: the ``lifespan`` of `Application`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from wsbridge._common.tasks import begin_later

if TYPE_CHECKING:
    from wsbridge.application import Application

__all__ = ["Lifespan"]

logger = logging.getLogger("wsbridge")

_ABANDON_AFTER = 0.25  # seconds that a cancelled lifespan has left


class Lifespan:
    """Runs an application's ``lifespan`` in a task of its own: what is entered there may have to be left there too.

    Cancel scopes and task groups want one task for both, and a connector's ``start`` and ``stop`` are called from any.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_hurried = False

    async def enter(self, patience: float) -> None:
        """Enter it; whatever it raises comes through, and nothing is left of it (STOP-6).

        A cancel cancels it, and waits for it for ``patience`` seconds; a second one does so no longer (STOP-10).
        """
        if self._app.lifespan is None:
            return
        self._over.clear()
        self._is_hurried = False
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = begin_later(asyncio.get_running_loop(), self._run(entered), name="wsbridge lifespan")
        try:
            await asyncio.wait((entered, task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await self._end_cancelled(task, patience)
            raise
        if task.done():
            task.result()
        self._task = task

    async def _end_cancelled(self, task: asyncio.Task[None], patience: float) -> None:
        """Wait for a lifespan that was cancelled as it was entered."""
        with contextlib.suppress(asyncio.CancelledError):  # the second cancel, after the one that is raised
            await asyncio.wait((task,), timeout=patience)
        if not task.done():
            logger.error(
                "the application's lifespan was cancelled as it was entered and still runs; it is cancelled again"
            )
            task.cancel()
            await asyncio.wait((task,), timeout=_ABANDON_AFTER)
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the application's lifespan failed when it was cancelled as it was entered", exc_info=error)

    async def leave(self, timeout: float) -> None:
        """Leave it, within ``timeout`` seconds; what it raises comes through (STOP-6)."""
        task = self._task
        if task is None:
            return
        self._over.set()
        await asyncio.wait((task,), timeout=_ABANDON_AFTER if self._is_hurried else max(timeout, _ABANDON_AFTER))
        self._task = None
        if not task.done():
            logger.error("the application's lifespan still runs after the shutdown timeout; it is cancelled")
            task.cancel()
            await asyncio.wait((task,), timeout=_ABANDON_AFTER)
        if task.done() and not task.cancelled():
            task.result()

    def hurry(self) -> None:
        """Give it no more time: whoever stops is cancelled (STOP-3)."""
        self._is_hurried = True
        if self._over.is_set() and self._task is not None:
            self._task.cancel()

    async def _run(self, entered: asyncio.Future[None]) -> None:
        assert self._app.lifespan is not None
        async with self._app.lifespan(self._app):
            with contextlib.suppress(asyncio.InvalidStateError):
                entered.set_result(None)
            await self._over.wait()
