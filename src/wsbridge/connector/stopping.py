"""How a connector's channels and handshakes are ended at a stop, whoever asked for it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from wsbridge._channel.channel import BaseChannel
from wsbridge._common.tasks import begin_later
from wsbridge.connector.handling import Handling
from wsbridge.connector.lifespan import Lifespan
from wsbridge.protocols import handler_of

__all__ = ["Stopping"]

logger = logging.getLogger("wsbridge")

_ABANDON_AFTER = 0.25  # seconds that a cancelled callback has left at the end of a stop


class Stopping(Handling):
    """The part of a connector that stops."""

    def _set_up(self) -> None:
        super()._set_up()
        self._starting: asyncio.Task[None] | None = None
        self._stopped_by: asyncio.Task[Any] | None = None
        self._hurry: asyncio.Event | None = None
        self._lifespan = Lifespan(self.app)

    def reopen(self) -> None:
        """Take new channels again, after a `stop_mount`: a framework may start the application that holds it anew."""
        self._closed = False

    async def stop_mount(self) -> None:
        """End what `Mount` has begun, and take no more."""
        self._closed = True
        if self._stopping is None:
            if not self._channels and not self._handshakes:
                return
            self.check_loop()
            self._stopped_by = asyncio.current_task()
            self._stopping = begin_later(self.loop, self._stop_mounted(self._current_channel()))
        await self._wait_for_stop(self._stopping)

    async def _stop_mounted(self, caller: BaseChannel | None) -> None:
        try:
            await self.stop_channels(caller)
        finally:
            self._end_drains()
            self._stopping = self._stopped_by = None

    async def stop_channels(self, caller: BaseChannel | None = None) -> None:
        """Close every channel with 1001 and wait for its callbacks, within ``shutdown_timeout`` (STOP-2)."""
        self._hurry = asyncio.Event()
        deadline = self.loop.time() + self.shutdown_timeout
        for task in self._handshakes:
            task.cancel()
        for channel in list(self._channels):
            channel.shut_down()
        await self._until_empty(caller, self.shutdown_timeout / 2)
        for channel in list(self._channels):
            if channel is not caller:
                channel.cut_off()
                channel.cancel()
        await self._until_empty(caller, deadline - self.loop.time())
        left = [channel for channel in self._channels if channel is not caller]
        for channel in left:
            logger.error("channel %s still runs a callback after the shutdown timeout; it is given up", channel.id)
            channel.cancel()
        if left:
            self._hurry.clear()
            await self._until_empty(caller, _ABANDON_AFTER)
        for channel in list(self._channels):
            if channel is caller:
                channel.cut_off()
            self.release(channel)
        self._hurry = None

    async def _until_empty(self, caller: BaseChannel | None, timeout: float) -> None:
        """Wait until no channel or handshake is left but the caller's, the time is over, or the stop is cancelled."""
        assert self._hurry is not None
        hurry = self.loop.create_task(self._hurry.wait())
        limit = self.loop.time() + timeout
        try:
            while self._is_busy(caller) and not hurry.done():
                left = limit - self.loop.time()
                if left <= 0:
                    break
                self._released = self.loop.create_future()
                await asyncio.wait((self._released, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._released = None
            hurry.cancel()
            await asyncio.wait((hurry,))

    def _is_busy(self, caller: BaseChannel | None) -> bool:
        if any(channel is not caller for channel in self._channels):
            return True
        return any(task is not self._stopped_by for task in self._handshakes)  # which run their error stages (CTX-6)

    def _current_channel(self) -> BaseChannel | None:
        """The channel whose callback or handler calls this, if any: no stop waits for its own caller (STOP-3)."""
        task = asyncio.current_task()
        handled, handler = handler_of.get() or (None, None)
        for channel in self._channels:
            if channel.is_run_by(task) or (channel is handled and task is handler):
                return channel
        return None

    async def _wait_for_stop(self, stopping: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            if self._hurry is not None:
                self._hurry.set()
            self._lifespan.hurry()
            if self._starting is not None:
                self._starting.cancel()
            await asyncio.wait((stopping,), timeout=4 * _ABANDON_AFTER)
            raise
