"""Connectors that break a rule of how a start ends, or of the sockets that they are given."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.conformance.breaking import BrokenConnector, breaks


@breaks("STOP-10")
class ForgetsThatItStarts(BrokenConnector):
    """Takes a stop during a start for one before it: it does nothing."""

    async def stop(self) -> None:
        if self._starting is None:
            await super().stop()


@breaks("STOP-10")
class StartsOnWhenCancelled(BrokenConnector):
    async def start(self) -> None:
        await asyncio.shield(super().start())


@breaks("STOP-10")
class CutsAServerThatStarts(BrokenConnector):
    """Begins to serve, and ends where it is when it is cancelled, as does whatever it has begun."""

    left: list[socket.socket] = []  # noqa: RUF012

    async def _start(self, sockets: list[socket.socket]) -> None:
        self._is_waiting = True
        begun = socket.socket()
        self.left.append(begun)
        await asyncio.sleep(0)
        begun.close()
        await super()._start(sockets)
        self._is_waiting = False


@breaks("STOP-10")
class GivesNoTimeToCleanUp(BrokenConnector):
    shutdown_timeout: float

    async def _start_all(self) -> None:
        limit, self.shutdown_timeout = self.shutdown_timeout, 0.0
        try:
            await super()._start_all()
        finally:
            self.shutdown_timeout = limit


@breaks("STOP-10")
class WaitsForALifespanForEver(BrokenConnector):
    shutdown_timeout: float

    async def _start_all(self) -> None:
        limit, self.shutdown_timeout = self.shutdown_timeout, 3600.0
        try:
            await super()._start_all()
        finally:
            self.shutdown_timeout = limit


@breaks("STOP-15")
class ListensWhereItIsNotTold(BrokenConnector):
    def __init__(self, app: Any, **options: Any) -> None:
        options.pop("sockets", None)
        super().__init__(app, **options)


@breaks("STOP-15")
class ClosesWhatItIsGiven(BrokenConnector):
    async def stop(self) -> None:
        await super().stop()
        for sock in self.sockets:
            sock.close()


@breaks("STOP-6")
class KeepsTheLifespanOfAFailedStart(BrokenConnector):
    """A lifespan is left by `stop` alone."""

    async def start(self) -> None:
        lifespan: Any = self._lifespan
        leave, lifespan.leave = lifespan.leave, _nothing
        try:
            await super().start()
        finally:
            lifespan.leave = leave


async def _nothing(patience: float) -> None:
    """Leave nothing."""
