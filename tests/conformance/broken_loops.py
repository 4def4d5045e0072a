"""Connectors that break the rule about event loops and task factories."""

# mypy: disable-error-code="misc"
from __future__ import annotations

from typing import Any

from tests.conformance.breaking import BrokenChannel, BrokenConnector, breaks
from wsbridge._channel.channel import _Ahead


@breaks("THR-4", base="aiohttp")
class ReadsAheadAtOnce(BrokenChannel):
    """Reads ahead in a task that a factory may start before ``on_open`` has begun."""

    __slots__ = ()
    is_pulled = False  # the channel itself shall not

    async def _open(self: Any) -> None:
        async with _Ahead(self._connector.loop.create_task(self._read_ahead())):
            await super()._open()


@breaks("THR-4")
class StopsForGood(BrokenConnector):
    """Keeps the task of a stop that ended before it was kept."""

    async def stop(self: Any) -> None:
        if self._stopping is None and self._running:
            await super().stop()
            if self.loop.get_task_factory() is not None:
                self._stopping = self.loop.create_task(_nothing())


async def _nothing() -> None:
    pass
