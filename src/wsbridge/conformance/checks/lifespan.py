"""STOP-6: what an application does before its first request and after its last channel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from wsbridge.application import Application
from wsbridge.close import CloseReason
from wsbridge.conformance.client import Close
from wsbridge.conformance.contract import CheckFailed, check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.mounted import mounted
from wsbridge.errors import UnsupportedOptionError
from wsbridge.protocols import WebSocketChannel

Lifespan = Callable[[Application], AbstractAsyncContextManager[object]]


def _logged(bench: Bench, *, entering: Exception | None = None, leaving: Exception | None = None) -> Lifespan:
    """Return a lifespan that logs what happens, and raises what is given."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Application) -> AsyncGenerator[None]:
        task = asyncio.current_task()
        bench.recorder.log("enter", "", app)
        if entering is not None:
            raise entering
        async with asyncio.TaskGroup():  # which must be left in the task that entered it
            yield
        true(asyncio.current_task() is task, "it is left in another task than it was entered in")
        bench.recorder.log("leave", "", app)
        if leaving is not None:
            raise leaving

    return lifespan


async def _raised(bench: Bench, awaitable: Any, what: str, error: Exception) -> None:
    """Check that ``error`` comes out of a start or a stop."""
    try:
        await bench.within(awaitable, what)
    except Exception as exc:
        true(exc is error, f"{what} raised {exc!r}")
    else:
        raise CheckFailed(f"{what} did not raise {error!r}")


@check("STOP-6")
async def lifespan_around_the_channels(bench: Bench) -> None:
    """It is entered before the first request, and left when the last on_close has ended; the same at each start."""

    async def on_close(channel: WebSocketChannel, process: Any, reason: CloseReason) -> None:
        await asyncio.sleep(0)
        bench.recorder.log("closed", channel.id, reason)

    app = Application([("/", bench.options(on_close=on_close))], lifespan=_logged(bench))
    async with bench.serve(app) as served, served.peer() as peer:
        await bench.recorder.wait("open")
        assert served.connector is not None
        stopping = asyncio.ensure_future(served.connector.stop())
        equal(await peer.receive(), Close(1001, "server shutdown"), "what the peer gets")
        await bench.within(stopping, "stop()")
        await bench.within(served.connector.start(), "the second start()")
    kinds = [kind for kind in bench.recorder.kinds() if kind in ("enter", "open", "closed", "leave")]
    equal(kinds, ["enter", "open", "closed", "leave", "enter", "leave"], "what ran, in order")
    true(all(entry.value is app for entry in bench.recorder.all("enter")), "it was given something else than the app")


@check("STOP-6")
async def lifespan_that_cannot_be_entered(bench: Bench) -> None:
    """What it raises as it is entered comes out of start(), and nothing is left."""
    error = RuntimeError("no pool")
    connector = bench.connector(Application([("/", bench.options())], lifespan=_logged(bench, entering=error)))
    for _ in range(2):
        await _raised(bench, connector.start(), "start()", error)
        equal(connector.addresses, (), "the addresses")
    equal(bench.recorder.kinds(), ["enter", "enter"], "what ran")


@check("STOP-6")
async def lifespan_that_cannot_be_left(bench: Bench) -> None:
    """What it raises as it is left comes out of stop(), when all else has been stopped."""
    error = RuntimeError("the pool will not end")
    connector = bench.connector(Application([("/", bench.options())], lifespan=_logged(bench, leaving=error)))
    for number in (1, 2):
        await bench.within(connector.start(), "start()")
        await _raised(bench, connector.stop(), "stop()", error)
        equal(connector.addresses, (), "the addresses")
        equal(bench.recorder.kinds(), ["enter", "leave"] * number, "what ran")


@check("STOP-6")
async def lifespan_that_does_not_end(bench: Bench) -> None:
    """One that is not left at the shutdown timeout is cancelled, and logged."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Application) -> AsyncGenerator[None]:
        yield
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bench.recorder.log("cancelled", "", None)
            raise

    limit = 0.3 * bench.scale
    connector = bench.connector(Application([("/", bench.options())], lifespan=lifespan), shutdown_timeout=limit)
    await bench.within(connector.start(), "start()")
    await bench.within(connector.stop(), "stop()", timeout=limit + 2 * bench.scale)
    equal(bench.recorder.kinds(), ["cancelled"], "what ran")
    true(any("lifespan" in record.getMessage() for record in bench.logs if record.levelno == logging.ERROR), "no log")


@check("STOP-6", needs=("mount",))
async def lifespan_of_what_is_mounted(bench: Bench) -> None:
    """An application with a lifespan is not mounted."""
    app = Application([("/", bench.options())], lifespan=_logged(bench))
    with contextlib.suppress(UnsupportedOptionError):
        async with mounted(bench, app):
            pass
        raise CheckFailed("it was mounted")


@check("STOP-6")
async def a_server_that_cannot_start(bench: Bench) -> None:
    """What the server raises as it starts, start() raises, when the lifespan is left; and another start may follow."""
    failures = [OSError("no server"), None]

    async def starts(connector: Any, sockets: Any) -> None:
        if (failure := failures.pop(0)) is not None:
            raise failure
        await kind._start(connector, sockets)

    kind = bench.connector
    failing: Any = type("Failing", (kind,), {"_start": starts})
    app = Application([("/", bench.options())], lifespan=_logged(bench))
    connector = failing(app, shutdown_timeout=2 * bench.scale)
    await _raised(bench, connector.start(), "start()", cast("Exception", failures[0]))
    equal(bench.recorder.kinds(), ["enter", "leave"], "what had happened when start() raised")
    equal(list(connector.addresses), [], "the addresses after it")
    async with connector:
        async with bench.served(connector).peer():
            await bench.recorder.opened()
        equal(bench.recorder.kinds()[2:4], ["enter", "open"], "what happens at the next start")
    equal(bench.recorder.kinds()[-1], "leave", "what happens last")
    equal([r.getMessage() for r in bench.logs if r.levelno >= logging.ERROR], [], "the errors that are logged")
