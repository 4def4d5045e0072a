"""The lifespan of an application, beside what the conformance suite checks of it on every connector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.fakes import FakeConnector
from wsbridge import Application, ConnectorStateError, UnsupportedOptionError
from wsbridge.connector import Mount
from wsbridge.connector.lifespan import Lifespan


class Script:
    """An application's lifespan that says what happens to it and does what it is told."""

    def __init__(self, *, entering: asyncio.Event | None = None, leaving: asyncio.Event | None = None) -> None:
        self.said: list[str] = []
        self.entering, self.leaving = entering, leaving
        self.app = Application([], lifespan=self.run)

    @contextlib.asynccontextmanager
    async def run(self, app: Application) -> AsyncGenerator[None]:
        try:
            self.said.append("enter")
            if self.entering is not None:
                await self.entering.wait()
            yield
            if self.leaving is not None:
                await self.leaving.wait()
            self.said.append("leave")
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise


@pytest.mark.rule("STOP-6")
async def test_no_lifespan_is_nothing_to_do() -> None:
    lifespan = Lifespan(Application([]))
    await lifespan.enter(1)
    await lifespan.leave(1)


@pytest.mark.rule("STOP-6")
async def test_a_cancelled_start_cancels_it() -> None:
    script = Script(entering=asyncio.Event())
    entering = asyncio.create_task(Lifespan(script.app).enter(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert script.said == ["enter", "cancelled"]


@pytest.mark.rule("STOP-10")
async def test_what_it_raises_as_it_is_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.asynccontextmanager
    async def failing(app: Application) -> AsyncGenerator[None]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            raise ZeroDivisionError

    entering = asyncio.create_task(Lifespan(Application([], lifespan=failing)).enter(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait((entering,))
    assert entering.cancelled()
    [record] = caplog.records
    assert record.getMessage() == "the application's lifespan failed when it was cancelled as it was entered"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.rule("STOP-10")
async def test_a_second_cancel_waits_no_longer_for_its_clean_up() -> None:
    cleaning = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow(app: Application) -> AsyncGenerator[None]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            cleaning.set()
            await asyncio.sleep(3600)

    entering = asyncio.create_task(Lifespan(Application([], lifespan=slow)).enter(3600))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    entering.cancel()
    await cleaning.wait()
    entering.cancel()
    await asyncio.wait((entering,))
    assert entering.cancelled()


@pytest.mark.rule("STOP-10")
@pytest.mark.parametrize("times", [1, 2])
async def test_a_stop_that_is_cancelled_cuts_a_start_short(times: int) -> None:
    script = Script(entering=asyncio.Event())
    connector = FakeConnector(script.app, shutdown_timeout=3600)
    starting = asyncio.create_task(connector.start())
    while not script.said:  # noqa: ASYNC110  (turns of the loop are what it takes)
        await asyncio.sleep(0)
    stopping = [asyncio.create_task(connector.stop()) for _ in range(times)]
    await asyncio.sleep(0)
    for task in stopping:
        task.cancel()
    await asyncio.wait((starting, *stopping))
    assert isinstance(starting.exception(), ConnectorStateError)
    assert script.said == ["enter", "cancelled"]
    await connector.stop()


@pytest.mark.rule("STOP-10")
@pytest.mark.parametrize("times", [1, 2])
async def test_a_start_that_is_cancelled_leaves_nothing_behind_and_nothing_in_the_log(times: int) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    script = Script(entering=asyncio.Event())
    connector = FakeConnector(script.app, shutdown_timeout=3600)
    starting = asyncio.create_task(connector.start())
    while not script.said:  # noqa: ASYNC110  (turns of the loop are what it takes)
        await asyncio.sleep(0)
    for _ in range(times):
        starting.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((starting,))
    assert starting.cancelled()
    assert script.said == ["enter", "cancelled"]
    del starting
    gc.collect()
    assert unhandled == []
    script.entering = None
    await connector.start()
    await connector.stop()
    assert script.said[2:] == ["enter", "leave"]


@pytest.mark.rule("STOP-10")
@pytest.mark.parametrize("first", ["start", "_start_all"])
@pytest.mark.parametrize("hangs", ["lifespan", "server"])
async def test_the_end_of_a_loop_cancels_a_start_in_any_order(
    monkeypatch: pytest.MonkeyPatch, hangs: str, first: str
) -> None:
    """As `asyncio.run` does, which takes all tasks in the order of a set."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    is_hanging = asyncio.Event()

    async def hang(*arguments: object) -> None:
        is_hanging.set()
        await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def hanging(app: Application) -> AsyncGenerator[None]:
        await hang()
        yield

    monkeypatch.setattr(FakeConnector, "_start", hang)
    connector = FakeConnector(Application([], lifespan=hanging if hangs == "lifespan" else None))
    before = asyncio.all_tasks()
    starting = asyncio.create_task(connector.start())
    await is_hanging.wait()
    tasks = {task.get_coro().__name__: task for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
    assert {"start", "_start_all"} <= set(tasks)
    for name in sorted(tasks, key=lambda name: name != first):
        tasks[name].cancel()
    await asyncio.wait((starting,))
    assert starting.cancelled()
    del starting, tasks
    gc.collect()
    assert (unhandled, connector.addresses) == ([], ())
    await connector.stop()
    assert connector.calls == []  # which there is nothing for


@pytest.mark.rule("STOP-6", "STOP-10")
async def test_a_cancellation_that_the_lifespan_itself_raises_ends_the_start() -> None:
    async def other() -> None:
        await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def waits(app: Application) -> AsyncGenerator[None]:
        task = asyncio.create_task(other())
        task.cancel()
        await task
        yield

    connector = FakeConnector(Application([], lifespan=waits))
    for _ in range(2):  # nothing is left of the first
        with pytest.raises(asyncio.CancelledError):
            await connector.start()
        assert (connector.calls, connector.addresses) == ([], ())


@pytest.mark.rule("STOP-10")
async def test_a_server_that_does_not_come_up_is_cancelled_at_the_shutdown_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs = asyncio.Event()

    async def hang(self: FakeConnector, sockets: object) -> None:
        hangs.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeConnector, "_start", hang)
    script = Script()
    connector = FakeConnector(script.app, shutdown_timeout=0.05)
    starting = asyncio.create_task(connector.start())
    await hangs.wait()
    await connector.stop()
    with pytest.raises(ConnectorStateError, match=r"^the fake connector was stopped while it started$"):
        await starting
    assert script.said == ["enter", "leave"]
    assert connector.addresses == ()


@pytest.mark.rule("STOP-10")
async def test_a_lifespan_that_stops_what_it_belongs_to_ends_the_start() -> None:
    connectors: list[FakeConnector] = []

    @contextlib.asynccontextmanager
    async def stops(app: Application) -> AsyncGenerator[None]:
        await connectors[0].stop()
        yield

    connectors.append(FakeConnector(Application([], lifespan=stops)))
    with pytest.raises(ConnectorStateError):
        await connectors[0].start()
    await connectors[0].stop()


@pytest.mark.rule("STOP-6", "STOP-3")
async def test_one_in_a_hurry_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(leaving=asyncio.Event())
    lifespan = Lifespan(script.app)
    await lifespan.enter(1)
    leaving = asyncio.create_task(lifespan.leave(3600))
    await asyncio.sleep(0)
    lifespan.hurry()
    await leaving
    assert script.said == ["enter", "cancelled"]
    await lifespan.enter(1)
    lifespan.hurry()  # before it is left: it has a moment
    script.leaving = None
    await lifespan.leave(3600)
    assert script.said == ["enter", "cancelled", "enter", "leave"]
    assert not caplog.records


@pytest.mark.rule("STOP-6")
async def test_one_that_suppresses_its_cancellation_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def stubborn(app: Application) -> AsyncGenerator[None]:
        yield
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    lifespan = Lifespan(Application([], lifespan=stubborn))
    await lifespan.enter(1)
    await lifespan.leave(0)
    over.set()
    assert [(record.levelno, "lifespan" in record.message) for record in caplog.records] == [(logging.ERROR, True)]


@pytest.mark.rule("STOP-6")
async def test_what_it_raises_comes_through(caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.asynccontextmanager
    async def enters(app: Application) -> AsyncGenerator[None]:
        raise LookupError("as it is entered")
        yield

    @contextlib.asynccontextmanager
    async def leaves(app: Application) -> AsyncGenerator[None]:
        yield
        raise LookupError("as it is left")

    lifespan = Lifespan(Application([], lifespan=enters))
    with pytest.raises(LookupError, match="as it is entered"):
        await lifespan.enter(1)
    await lifespan.leave(1)  # there is nothing to leave
    lifespan = Lifespan(Application([], lifespan=leaves))
    await lifespan.enter(1)
    with pytest.raises(LookupError, match="as it is left"):
        await lifespan.leave(1)
    await lifespan.leave(1)  # nor here
    assert caplog.records == []


@pytest.mark.rule("STOP-6")
async def test_a_server_that_does_not_start_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: FakeConnector, sockets: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(FakeConnector, "_start", fail)
    script = Script()
    with pytest.raises(OSError, match="no"):
        await FakeConnector(script.app).start()
    assert script.said == ["enter", "leave"]


@pytest.mark.rule("STOP-6", "MOUNT-1")
async def test_a_mount_refuses_it() -> None:
    app = Script().app
    with pytest.raises(UnsupportedOptionError, match="a mounted application's lifespan: the framework has its own"):
        Mount(FakeConnector(app), app)


def test_lim_5_it_must_be_callable() -> None:
    with pytest.raises(TypeError, match=r"^lifespan must be callable and return an async context manager, not 5$"):
        Application([], lifespan=5)  # type: ignore[arg-type]
