"""STOP-10: a start that is stopped, or cancelled, before it is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import pair
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench, open_descriptors, open_what_stays
from wsbridge.errors import ConnectorStateError
from wsbridge.protocols import Connector

_TURNS = 16
"""Turns of the event loop from the call of `start` within which the stop is tried, each in its own start."""


class _Entering:
    """An application whose lifespan waits as it is entered, the first time, until it is cancelled."""

    def __init__(self, bench: Bench, *, at_cancel: Callable[[], Awaitable[object]] | None = None) -> None:
        self.bench = bench
        self.waits = True
        self.at_cancel = at_cancel
        self.app = Application([("/", bench.options())], lifespan=self.lifespan)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Application) -> AsyncGenerator[None]:
        self.bench.recorder.log("enter")
        try:
            if self.waits:
                self.waits = False
                await asyncio.Event().wait()
            yield
        except asyncio.CancelledError:
            self.bench.recorder.log("cancelled")
            if self.at_cancel is not None:
                await self.at_cancel()
            raise
        finally:
            self.bench.recorder.log("left")


async def _begun(bench: Bench, connector: Connector) -> asyncio.Task[None]:
    """Call `start`, and wait until the lifespan is being entered."""
    starting = asyncio.ensure_future(connector.start())
    await bench.recorder.wait("enter")
    return starting


async def _was_stopped(bench: Bench, starting: asyncio.Task[None]) -> None:
    try:
        await bench.within(starting, "start() after a stop()", timeout=bench.scale)
    except ConnectorStateError as exc:
        true("stop" in str(exc), f"start() does not say that it was stopped: {exc}")
    except Exception as exc:
        fail(f"start() must raise ConnectorStateError, not {exc!r}")
    else:
        fail("start() returned, although the connector was stopped meanwhile")


async def _serves(bench: Bench, connector: Connector) -> None:
    """Check that the connector starts, serves and stops."""
    await bench.within(connector.start(), "start() after one that was stopped")
    try:
        async with pair(bench, bench.served(connector)) as (peer, channel):
            await channel.send_text("here")
            equal(getattr(await peer.receive(), "data", None), "here", "what the peer gets")
    finally:
        await bench.within(connector.stop(), "stop()")


class _Left:
    """What there is before; afterwards nothing more may be."""

    @classmethod
    async def before(cls, bench: Bench) -> _Left:
        await open_what_stays()
        made = cls()
        made.bench, made.descriptors, made.tasks = bench, open_descriptors(), asyncio.all_tasks()
        return made

    bench: Bench
    descriptors: int
    tasks: set[asyncio.Task[Any]]

    async def nothing(self, connector: Connector) -> None:
        equal(list(connector.addresses), [], "the addresses of a connector that was stopped")
        left = [task for task in asyncio.all_tasks() - self.tasks if not task.done()]
        equal(left, [], "tasks that are left")
        await self.bench.settle(
            lambda: open_descriptors() <= self.descriptors, "the end of sockets", timeout=0.5 * self.bench.scale
        )


@check("STOP-10")
async def a_stop_while_the_lifespan_is_entered(bench: Bench) -> None:
    """A stop() while the lifespan is being entered cancels that; start() raises, nothing is left, and it starts again.

    A second stop() meanwhile waits for the same.
    """
    entering = _Entering(bench)
    connector: Connector = bench.connector(entering.app, shutdown_timeout=2 * bench.scale)
    left = await _Left.before(bench)
    starting = await _begun(bench, connector)
    await bench.within(asyncio.gather(connector.stop(), connector.stop()), "stop()", timeout=bench.scale)
    equal(bench.recorder.kinds(), ["enter", "cancelled", "left"], "what has happened when stop() returns")
    await _was_stopped(bench, starting)
    await left.nothing(connector)
    await _serves(bench, connector)


@check("STOP-10")
async def a_stop_at_any_moment_of_a_start(bench: Bench) -> None:
    """Whenever stop() is called, start() raises or has returned, nothing is left behind, and the connector starts."""
    app = Application([("/", bench.options())])
    connector: Connector = bench.connector(app, shutdown_timeout=2 * bench.scale)
    await _serves(bench, connector)  # what a server opens once
    left = await _Left.before(bench)
    begun: list[int] = []

    async def start(turns: int) -> None:
        begun.append(turns)
        await connector.start()

    for turns in range(_TURNS):
        starting = asyncio.ensure_future(start(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_over, has_begun = starting.done(), turns in begun  # at once, by a factory of eager tasks
        await bench.within(connector.stop(), f"stop() {turns} turns after start()", timeout=bench.scale)
        if has_begun and not was_over:
            with contextlib.suppress(ConnectorStateError):
                await bench.within(starting, "start() after a stop()", timeout=bench.scale)
        else:
            await bench.within(starting, "start()", timeout=bench.scale)
            await bench.within(connector.stop(), "stop()", timeout=bench.scale)
        await left.nothing(connector)
    await _serves(bench, connector)


@check("STOP-10")
async def a_cancelled_start(bench: Bench) -> None:
    """A start() that is cancelled leaves nothing, raises CancelledError, and the connector starts again."""
    entering = _Entering(bench)
    connector: Connector = bench.connector(entering.app, shutdown_timeout=2 * bench.scale)
    left = await _Left.before(bench)
    starting = await _begun(bench, connector)
    starting.cancel()
    await bench.within(asyncio.wait((starting,)), "a cancelled start()", timeout=bench.scale)
    true(starting.cancelled(), "a cancelled start() ended without CancelledError")
    equal(bench.recorder.kinds(), ["enter", "cancelled", "left"], "what has happened")
    await left.nothing(connector)
    await _serves(bench, connector)


@check("STOP-10")
async def a_lifespan_that_cleans_up(bench: Bench) -> None:
    """A lifespan that is cancelled as it is entered has until shutdown_timeout to clean up; stop() waits for it."""

    async def clean_up() -> None:
        await asyncio.sleep(0.4 * bench.scale)
        bench.recorder.log("clean")

    entering = _Entering(bench, at_cancel=clean_up)
    connector: Connector = bench.connector(entering.app, shutdown_timeout=4 * bench.scale)
    starting = await _begun(bench, connector)
    await bench.within(connector.stop(), "stop()", timeout=2 * bench.scale)
    equal(bench.recorder.kinds(), ["enter", "cancelled", "clean", "left"], "what has happened when stop() returns")
    await _was_stopped(bench, starting)
    await _serves(bench, connector)


@check("STOP-10")
async def a_lifespan_that_will_not_be_cancelled(bench: Bench) -> None:
    """A lifespan that suppresses its cancellation as it is entered is logged and given up at shutdown_timeout."""
    release = asyncio.Event()

    async def stay() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    limit = 0.3 * bench.scale
    entering = _Entering(bench, at_cancel=stay)
    connector: Connector = bench.connector(entering.app, shutdown_timeout=limit)
    try:
        starting = await _begun(bench, connector)
        await bench.within(connector.stop(), "stop()", timeout=limit + 0.25 + bench.scale)
        await _was_stopped(bench, starting)
        said = [record.getMessage() for record in bench.logs if record.levelno == logging.ERROR]
        true(any("lifespan" in text for text in said), f"that it is given up was not logged: {said!r}")
        equal(list(connector.addresses), [], "the addresses")
    finally:
        release.set()
    await bench.recorder.wait("left")
    await _serves(bench, connector)
