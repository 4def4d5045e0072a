"""What is cancelled and cleans up: STOP-2, STOP-10, CTX-6, STREAM-7. CLOSE-6: ends that come late."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import handshake
from wsbridge.conformance.client import Close
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.errors import ConnectorStateError
from wsbridge.http import Request
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream, stream_handler
from wsbridge.upgrade import websocket_interceptor

__all__: list[str] = []

_LATE = 0.8  # seconds until a peer leaves: some of the looks that a server takes for that are over


def _errors(bench: Bench) -> list[str]:
    return [record.getMessage() for record in bench.logs if record.levelno >= logging.ERROR]


@check("STOP-2")
async def a_callback_that_cleans_up(bench: Bench) -> None:
    """A callback that is cancelled at half of shutdown_timeout has time to clean up, and nothing is given up."""
    limit = 2 * bench.scale

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2 * bench.scale)
            bench.recorder.log("cleaned up")
            raise

    async with bench.serve(bench.options(on_text=on_text), shutdown_timeout=limit) as served, served.peer() as peer:
        await peer.send_text("a")
        await bench.recorder.wait("text")
        assert served.connector is not None
        await bench.within(served.connector.stop(), "stop()")
        equal(bench.recorder.kinds().count("cleaned up"), 1, "how often it had cleaned up when stop() returned")
        equal(len(bench.recorder.all("close-end")), 1, "how many on_close had ended")
    equal(_errors(bench), [], "the errors that were logged")


@check("STOP-10")
async def a_lifespan_that_fails_when_it_is_cancelled(bench: Bench) -> None:
    """What a lifespan raises as its entering is cancelled is logged, and start() says that it was stopped."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Application) -> AsyncGenerator[None]:
        bench.recorder.log("enter")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("it cannot be undone") from None
        yield

    connector = bench.connector(Application([("/", bench.options())], lifespan=lifespan))
    starting = asyncio.ensure_future(connector.start())
    await bench.recorder.wait("enter")
    await bench.within(connector.stop(), "stop()")
    await bench.within(asyncio.wait((starting,)), "start()")
    true(isinstance(starting.exception(), ConnectorStateError), f"start() raised {starting.exception()!r}")
    told = [record.exc_info[1] for record in bench.logs if record.exc_info]
    equal([str(error) for error in told], ["it cannot be undone"], "the exceptions that were logged")


@check("CTX-6")
async def an_error_stage_that_raises(bench: Bench) -> None:
    """What an error stage raises for a cancelled handshake is logged, and those of the others run all the same."""
    entered = asyncio.Event()

    async def waits(context: Context) -> None:
        entered.set()
        await asyncio.Event().wait()

    def notes(context: Context, error: Exception) -> None:
        bench.recorder.log("released", value=type(error))

    def fails(context: Context, error: Exception) -> None:
        raise OSError("it cannot be released")

    chain = (
        Interceptor(name="first", error=notes),
        Interceptor(name="second", error=fails),
        Interceptor(name="third"),
        Interceptor(name="fourth", enter=waits, error=notes),
        websocket_interceptor("last", bench.options()),
    )
    async with bench.serve(Application([("/", chain)])) as served, served.raw() as peer:
        await peer.request(handshake(served).encode())
        await bench.within(entered.wait(), "the enter stage")
        assert served.connector is not None
        stopping = asyncio.ensure_future(bench.within(served.connector.stop(), "stop()"))
        equal((await peer.read_response()).status, 503, "the status")
        await stopping
    equal([event.value for event in bench.recorder.all("released")], [asyncio.CancelledError] * 2, "what stages got")
    equal([str(r.exc_info[1]) for r in bench.logs if r.exc_info], ["it cannot be released"], "what was logged")


@check("CLOSE-6")
async def told_in_a_callback_late(bench: Bench) -> None:
    """A callback that waits for the end learns of it within 1 s, however long it has waited."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.wait_closed()
        bench.recorder.log("noticed")

    async with bench.serve(bench.options(on_text=on_text)) as served:
        for count, says_so in enumerate((True, False), 1):
            async with served.peer() as peer:
                await peer.send_text("go")
                await bench.recorder.wait("text", count)
                await asyncio.sleep(_LATE)
                if says_so:
                    await peer.send_close(4000)
                else:
                    peer.drop()
                await bench.recorder.wait("noticed", count, timeout=bench.scale)
                await bench.recorder.closed(count)


@check("STREAM-7")
async def a_handler_that_is_cancelled(bench: Bench) -> None:
    """A handler that the application itself cancels closes the channel with 1011, and that is no failure."""

    async def handler(stream: MessageStream, request: Request) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    async with bench.serve(stream_handler(handler, **bench.target.neutral)) as served, served.peer() as peer:
        equal((await peer.receive()), Close(1011), "what the peer gets")
        await peer.wait_eof()
    equal(_errors(bench), [], "the errors that were logged")
