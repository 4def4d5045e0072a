"""The lifespan of an application, beside what the conformance suite checks of it on every connector."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

import pytest

from tests.fakes import FakeConnector
from wsbridge import Application, UnsupportedOptionError
from wsbridge.base import Mount
from wsbridge.lifespan import Lifespan


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
