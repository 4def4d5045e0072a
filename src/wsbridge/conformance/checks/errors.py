"""ERR: failures of the application."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import Mishap, logged, pair
from wsbridge.conformance.client import Close, Opcode, Text, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.protocols import Connector, WebSocketChannel


def _logged_once(bench: Bench, error: BaseException) -> logging.LogRecord:
    """Check that ``error`` was logged once, as an error and with its traceback, and return the record."""
    records = logged(bench, error)
    equal(len(records), 1, f"records on the logger wsbridge with the traceback of {error!r}")
    true(records[0].levelno >= logging.ERROR, f"{error!r} was logged as {records[0].levelname}")
    return records[0]


async def _raises_in(bench: Bench, kind: str, error: Exception, *, plain: bool = False) -> None:
    """Let a callback raise; check log, close, on_error and on_close, and that another channel goes on."""

    def fail(channel: WebSocketChannel, process: Any, *message: Any) -> None:
        if kind != "open" or process.path == "/fails":
            raise error

    async def fail_later(channel: WebSocketChannel, process: Any, *message: Any) -> None:
        await asyncio.sleep(0)
        fail(channel, process, *message)

    async def echo(channel: WebSocketChannel, process: Any, data: bytes) -> None:
        await channel.send_binary(data)

    async def echo_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    def on_open(channel: WebSocketChannel, request: Any) -> object:
        return process

    process = object()
    callbacks: dict[str, Any] = {"on_open": on_open, "on_text": echo_text, "on_binary": echo}
    callbacks[f"on_{kind}"] = fail if plain else fail_later
    options = bench.options(**callbacks)
    app = Application([("/fails", options), ("/other", options)])
    async with (
        bench.serve(app) as served,
        pair(bench, served, "/other") as (other, _),
        pair(bench, served, "/fails") as (peer, channel),
    ):
        if kind != "open":
            frame = build_frame(Opcode.BINARY if kind == "binary" else Opcode.TEXT, b"a")
            await peer.send_raw(frame * 3)
        equal(await peer.receive_close(), Close(1011, ""), "what the peer gets")
        event = await bench.recorder.wait("error")
        true(event.value is error, f"on_error got {event.value!r}, not {error!r}")
        true(event.process is (None if kind == "open" else process), f"on_error got the process {event.process!r}")
        equal(event.channel, channel.id, "the channel that on_error got")
        await peer.wait_eof()
        if kind == "open":
            await bench.recorder.wait("error-end")
        else:
            reason = await bench.recorder.closed()
            equal((reason.code, reason.text, reason.initiator), (1011, "", "local"), "the reason")
        equal(channel.reason and channel.reason.code, 1011, "the code of channel.reason")
        text = _logged_once(bench, error).getMessage()
        true(channel.id in text, f"the record does not name the channel: {text!r}")
        true("/fails" in text, f"the record does not name the path: {text!r}")
        if kind == "binary":
            await other.send_text("still here")
            equal(await other.receive(), Text("still here"), "the echo of another channel")
        else:
            await other.send_binary(b"still here")
            equal(await other.receive_binary(), b"still here", "the echo of another channel")
        mine = [event.kind for event in bench.recorder.events if event.channel == channel.id]
    started = [one for one in mine if not one.endswith("-end")]
    equal(started, ["open", "error"] if kind == "open" else ["open", kind, "error", "close"], "the channel's callbacks")


@check("ERR-1")
async def in_on_text(bench: Bench) -> None:
    """What on_text raises is logged once; then comes the close with 1011, on_error and on_close."""
    await _raises_in(bench, "text", Mishap("on purpose"))


@check("ERR-1")
async def in_a_plain_on_text(bench: Bench) -> None:
    """The same for a plain function."""
    await _raises_in(bench, "text", Mishap("on purpose"), plain=True)


@check("ERR-1")
async def in_on_binary(bench: Bench) -> None:
    """What on_binary raises is logged once; then comes the close with 1011, on_error and on_close."""
    await _raises_in(bench, "binary", Mishap("on purpose"))


@check("ERR-1")
async def in_on_open(bench: Bench) -> None:
    """What on_open raises is logged once, closed with 1011 and given to on_error, with None as the process."""
    await _raises_in(bench, "open", Mishap("on purpose"))


@check("ERR-1")
async def in_a_plain_on_open(bench: Bench) -> None:
    """The same for a plain function."""
    await _raises_in(bench, "open", Mishap("on purpose"), plain=True)


@check("ERR-1")
async def what_looks_like_a_loss(bench: Bench) -> None:
    """A callback's own OSError, TimeoutError or EOFError is an exception like any, and no loss of the connection."""
    errors = iter(
        (ConnectionResetError("a database"), BrokenPipeError(), TimeoutError(), EOFError(), OSError(5, "disk"))
    )
    raised: list[Exception] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raised.append(next(errors))
        raise raised[-1]

    async with bench.serve(bench.options(on_text=on_text)) as served:
        for number in range(1, 6):
            async with served.peer() as peer:
                await peer.send_text("a")
                equal(await peer.receive(), Close(1011, ""), f"what the peer gets after {raised!r}")
                reason = await bench.recorder.closed(number)
                equal((reason.code, reason.initiator), (1011, "local"), f"code and initiator after {raised[-1]!r}")
    equal(bench.recorder.values("error"), raised, "what on_error got")
    for error in raised:
        _logged_once(bench, error)


@check("ERR-1")
async def without_on_error(bench: Bench) -> None:
    """Without on_error an exception is logged, closes with 1011, and on_close runs."""
    error = Mishap("on purpose")
    reasons: list[Any] = []

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise error

    def on_close(channel: WebSocketChannel, process: Any, reason: Any) -> None:
        reasons.append(reason)
        bench.recorder.log("closed")

    options = bench.bare_options(on_text=on_text, on_close=on_close)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("a")
        equal(await peer.receive(), Close(1011, ""), "what the peer gets")
        await bench.recorder.wait("closed")
    equal([(reason.code, reason.initiator) for reason in reasons], [(1011, "local")], "the reasons")
    _logged_once(bench, error)


@check("ERR-1")
async def behind_an_end(bench: Bench) -> None:
    """What a callback raises after its channel has ended is logged and given to on_error, and the reason stays."""
    error = Mishap("on purpose")

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4001, "before")
        await asyncio.sleep(0.02)
        raise error

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("a")
        equal(await peer.receive(), Close(4001, "before"), "what the peer gets")
        await peer.wait_eof()
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (4001, "before", "local"), "the reason")
    equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")
    true(bench.recorder.values("error")[0] is error, "on_error got another exception")
    _logged_once(bench, error)


@check("ERR-1")
async def behind_a_stop(bench: Bench) -> None:
    """What a callback raises when the connector has begun to stop is logged and given to on_error."""
    error = Mishap("on purpose")

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.wait_closed()
        raise error

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        assert served.connector is not None
        await peer.send_text("a")
        await bench.recorder.wait("text")
        stopping = asyncio.ensure_future(served.connector.stop())
        equal(await peer.receive(), Close(1001, "server shutdown"), "what the peer gets")
        await bench.within(stopping, "stop()")
    equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")
    equal(bench.recorder.values("close")[0].code, 1001, "the code")
    _logged_once(bench, error)


async def _last_callback_raises(bench: Bench, kind: str, *, plain: bool) -> None:
    error = Mishap(f"in on_{kind}")
    sent: list[Any] = []

    async def fails(channel: WebSocketChannel, process: Any, value: Any) -> None:
        sent.extend((await channel.send_text("late"), await channel.send_binary(b"late")))
        raise error

    def fails_plainly(channel: WebSocketChannel, process: Any, value: Any) -> None:
        sent.extend((False, False))
        raise error

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "raise":
            raise Mishap("in on_text")

    last: dict[str, Any] = {f"on_{kind}": fails_plainly if plain else fails}
    options = bench.options(on_text=on_text, **last)
    async with bench.serve(options, max_channels=1) as served:
        async with served.peer() as peer:
            await peer.send_text("raise")
            equal(await peer.receive(), Close(1011, ""), "what the peer gets")
            await peer.wait_eof()
            equal((await bench.recorder.closed()).code, 1011, "the code")
            await bench.recorder.wait("close-end")
        equal(sent, [False, False], f"what sends in on_{kind} returned")
        equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")
        _logged_once(bench, error)
        async with pair(bench, served) as (peer, channel):  # for which there is room only if the first is forgotten
            await channel.send_text("next")
            equal(await peer.receive(), Text("next"), "what the next peer gets")


@check("ERR-2")
async def on_error_raises(bench: Bench) -> None:
    """What on_error raises is logged; on_close follows with the same reason, and sends in on_error return False."""
    await _last_callback_raises(bench, "error", plain=False)


@check("ERR-2")
async def a_plain_on_error_raises(bench: Bench) -> None:
    """The same for a plain function."""
    await _last_callback_raises(bench, "error", plain=True)


@check("ERR-2")
async def on_close_raises(bench: Bench) -> None:
    """What on_close raises is logged; the connector serves on, and sends in on_close return False."""
    await _last_callback_raises(bench, "close", plain=False)


@check("ERR-2")
async def a_plain_on_close_raises(bench: Bench) -> None:
    """The same for a plain function."""
    await _last_callback_raises(bench, "close", plain=True)


@check("ERR-2")
async def on_close_raises_a_cancelled_error(bench: Bench) -> None:
    """A CancelledError that on_close or on_error raises by itself is logged like any other exception."""
    errors = [asyncio.CancelledError("in on_error"), asyncio.CancelledError("in on_close")]

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise Mishap("in on_text")

    async def on_error(channel: WebSocketChannel, process: Any, error: Exception) -> None:
        raise errors[0]

    async def on_close(channel: WebSocketChannel, process: Any, reason: Any) -> None:
        raise errors[1]

    options = bench.options(on_text=on_text, on_error=on_error, on_close=on_close)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("a")
        equal(await peer.receive(), Close(1011, ""), "what the peer gets")
        await bench.recorder.wait("close-end")
    equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")
    for error in errors:
        _logged_once(bench, error)


@check("ERR-3")
async def a_cancelled_error_without_a_cancel(bench: Bench) -> None:
    """A CancelledError out of a callback whose task nobody cancelled is an exception like any other."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        other = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(other.cancel)
        await other

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("a")
        equal(await peer.receive(), Close(1011, ""), "what the peer gets")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (1011, "", "local"), "the reason")
    equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")
    error = bench.recorder.values("error")[0]
    true(isinstance(error, asyncio.CancelledError), f"on_error got {error!r}")
    _logged_once(bench, error)


@check("ERR-3")
async def a_cancelled_error_of_a_plain_function(bench: Bench) -> None:
    """A plain function that raises CancelledError raises an exception like any other."""

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise asyncio.CancelledError

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("a")
        equal(await peer.receive(), Close(1011, ""), "what the peer gets")
        equal((await bench.recorder.closed()).code, 1011, "the code")
    equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")


@check("ERR-3")
async def a_timeout_inside_is_no_cancel(bench: Bench) -> None:
    """What asyncio.timeout cancels inside a callback is its own affair; a CancelledError later is still no cancel."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "raise":
            raise asyncio.CancelledError
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            await channel.send_text("timed out")

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("time out")
        equal(await peer.receive(), Text("timed out"), "what the peer gets")
        await peer.send_text("raise")
        equal(await peer.receive(), Close(1011, ""), "what the peer gets")
        await bench.recorder.closed()
    equal(bench.recorder.kinds(), ["open", "text", "text", "error", "close"], "the callbacks")


async def _cancelled(bench: Bench, *, close_first: bool) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if close_first:
            channel.close(4001, "before")
        bench.recorder.log("waits")
        await asyncio.sleep(60)

    expected = (4001, "before") if close_first else (1011, "")
    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_raw(build_frame(Opcode.TEXT, b"a") * 2)
        await bench.recorder.wait("waits")
        tasks[0].cancel()
        equal(await peer.receive(), Close(*expected), "what the peer gets")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (*expected, "local"), "the reason")
        await bench.settle(tasks[0].done, "the end of the task of the callbacks")
        true(tasks[0].cancelled(), "the cancellation was not raised again: the task ended otherwise")
    equal([kind for kind in bench.recorder.kinds() if kind != "waits"], ["open", "text", "close"], "the callbacks")


@check("ERR-3")
async def a_cancelled_callback(bench: Bench) -> None:
    """A cancelled callback closes with 1011 and runs on_close, not on_error, and the cancellation is raised again."""
    await _cancelled(bench, close_first=False)


@check("ERR-3")
async def a_callback_cancelled_behind_an_end(bench: Bench) -> None:
    """A callback that is cancelled after its channel has ended leaves the reason as it is."""
    await _cancelled(bench, close_first=True)


async def _goes_through(bench: Bench, error: BaseException) -> None:
    """Serve in a loop of another thread, which ``error`` out of a callback must end; then clean up there."""
    listening: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    tell = asyncio.get_running_loop().call_soon_threadsafe
    caught: list[BaseException] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise error

    def serve(loop: asyncio.AbstractEventLoop) -> None:
        app = Application([("/", bench.bare_options(on_text=on_text))])
        connector: Connector = bench.connector(app, shutdown_timeout=bench.scale)
        loop.set_exception_handler(lambda loop, context: None)  # the task that ended like that has nobody to tell
        loop.run_until_complete(connector.start())
        tell(listening.set_result, (bench.served(connector), loop))
        timer = loop.call_later(2 * bench.timeout, loop.stop)
        try:
            loop.run_forever()
        except BaseException as exc:
            caught.append(exc)
        timer.cancel()
        stopping = loop.create_task(connector.stop())
        loop.call_later(bench.timeout, stopping.cancel)
        for _ in range(5):  # tasks of the server that await the callback's one raise the same again
            try:
                loop.run_until_complete(stopping)
            except BaseException as exc:
                caught.append(exc)
            else:
                break

    def run() -> None:
        with asyncio.Runner(loop_factory=bench.target.conditions.new_event_loop) as runner:
            loop = runner.get_loop()
            try:
                serve(loop)
            except BaseException as exc:
                caught.append(exc)
                if not listening.done():
                    tell(listening.set_exception, RuntimeError(f"it did not start: {exc!r}"))

    thread = threading.Thread(target=run, name="serves")
    thread.start()
    try:
        served, loop = await bench.within(listening, "start() in another thread")
        asyncio.run_coroutine_threadsafe(_provoke(served), loop)
        await bench.settle(lambda: caught or not thread.is_alive(), f"the end of the event loop by {error!r}")
        true(caught[:1] == [error], f"what came out of the event loop is {caught!r}")
    finally:
        await bench.settle(lambda: not thread.is_alive(), "the end of the thread", timeout=4 * bench.timeout)
        thread.join()
    true(set(map(id, caught)) == {id(error)}, f"the connector could not be stopped afterwards: {caught!r}")


async def _provoke(served: Served) -> None:
    async with served.peer() as peer:
        await peer.send_text("raise")
        await asyncio.sleep(60)


@check("ERR-3")
async def system_exit_goes_through(bench: Bench) -> None:
    """SystemExit out of a callback is not caught: it ends the event loop."""
    await _goes_through(bench, SystemExit(7))


@check("ERR-3")
async def keyboard_interrupt_goes_through(bench: Bench) -> None:
    """KeyboardInterrupt out of a callback is not caught: it ends the event loop."""
    await _goes_through(bench, KeyboardInterrupt())
