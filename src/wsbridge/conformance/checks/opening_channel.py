"""OPEN-7 to OPEN-11: what a channel offers from its opening on, and an on_open that runs for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.client import WirePeer
from wsbridge.conformance.contract import CheckFailed, check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.errors import CallbackAlreadySetError, ChannelNotOpenError
from wsbridge.http import Request
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor


def _raises(error: type[Exception], call: Callable[[], object], what: str) -> Exception:
    """Hold a plain call to raise ``error``, and return what it raised."""
    try:
        call()
    except error as exc:
        return exc
    raise CheckFailed(f"{what} did not raise {error.__name__}")


# ---- OPEN-7 ---------------------------------------------------------------------------------------------------------


@check("OPEN-7")
async def ids_are_random_text(bench: Bench) -> None:
    """Each channel's id is text, enough for 128 random bits, the same all its life, and no two are alike."""
    ids: list[str] = []
    for _ in range(2):  # two servers, as two workers are
        async with bench.serve() as served, contextlib.AsyncExitStack() as stack:
            for _ in range(12):
                peer = await stack.enter_async_context(served.peer())
                channel = await bench.recorder.opened(len(ids) + 1)
                ids.append(channel.id)
                await peer.send_close(1000)
                await peer.receive_close()
    await bench.recorder.closed(24)
    equal([channel.id for channel in bench.recorder.channels], ids, "the ids after the end")
    true(all(type(name) is str for name in ids), f"an id is no str: {ids[0]!r}")
    equal(len(set(ids)), len(ids), "how many ids are different")
    length = min(map(len, ids))
    true(length >= 22, f"{ids[0]!r} is too short for 128 bits")
    # of 24 random characters at one place several are different; a clock or a counter leaves most places alike
    varied = sum(len({name[place] for name in ids}) >= 6 for place in range(length))
    true(varied >= 20, f"only {varied} of the {length} places of the ids vary: {ids[:3]}")


# ---- OPEN-8 ---------------------------------------------------------------------------------------------------------

_Registers = Callable[[WebSocketChannel, Callable[..., object]], None]
_KINDS: dict[str, _Registers] = {
    "text": lambda channel, callback: channel.on_text(callback),
    "binary": lambda channel, callback: channel.on_binary(callback),
}


async def _send(peer: WirePeer, kind: str, text: str) -> None:
    await (peer.send_text(text) if kind == "text" else peer.send_binary(text.encode()))


@check("OPEN-8")
async def registered_in_on_open(bench: Bench) -> None:
    """A callback that on_open registers gets every message, those that came before it was registered too."""

    def on_open(channel: WebSocketChannel, request: Request) -> str:
        channel.on_text(note)
        channel.on_binary(note)
        return "process"

    async def note(channel: WebSocketChannel, process: object, message: str | bytes) -> None:
        await asyncio.sleep(0)
        bench.recorder.log("noted", value=(process, message))

    options = bench.bare_options(on_open=on_open)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("one")
        await peer.send_binary(b"two")
        await bench.recorder.wait("noted", 2)
    equal(bench.recorder.values("noted"), [("process", "one"), ("process", b"two")], "what the callbacks got")


def _keep(channels: list[WebSocketChannel], channel: WebSocketChannel, request: Request) -> None:
    channels.append(channel)


@check("OPEN-8")
async def registered_later(bench: Bench) -> None:
    """A callback that is registered later gets the messages delivered from then on; those before it are dropped."""
    for kind, register in _KINDS.items():
        other = "binary" if kind == "text" else "text"
        channels: list[WebSocketChannel] = []
        seen: list[object] = []

        def on_other(channel: WebSocketChannel, process: object, message: object, seen: list[object] = seen) -> None:
            seen.append(message)
            bench.recorder.log("other")

        def on_message(channel: WebSocketChannel, process: object, message: object, seen: list[object] = seen) -> None:
            seen.append(message)
            bench.recorder.log("message")

        options = bench.bare_options(
            on_open=partial(_keep, channels),
            **{f"on_{other}": on_other},
        )
        bench.recorder.events.clear()
        async with bench.serve(options) as served, served.peer() as peer:
            await _send(peer, kind, "dropped")
            await _send(peer, other, "mark")
            await bench.recorder.wait("other")
            register(channels[0], on_message)
            await _send(peer, kind, "delivered")
            await bench.recorder.wait("message")
        expected: list[object] = ["mark", "delivered"]
        equal([as_text(message) for message in seen], expected, f"the messages for a late on_{kind}")


def as_text(message: object) -> object:
    """Return a message as text, whichever kind it is of."""
    return message.decode() if isinstance(message, bytes) else message


@check("OPEN-8")
async def a_second_one_raises(bench: Bench) -> None:
    """A second callback, after one from the options or from a call, raises CallbackAlreadySetError; the first stays."""
    for kind, register in _KINDS.items():
        for by_option in (True, False):
            bench.recorder.events.clear()
            channels: list[WebSocketChannel] = []

            def first(channel: WebSocketChannel, process: object, message: object) -> None:
                bench.recorder.log("first", value=as_text(message))

            def second(channel: WebSocketChannel, process: object, message: object) -> None:
                fail("the second callback ran")

            given: dict[str, Any] = {f"on_{kind}": first} if by_option else {}
            options = bench.bare_options(on_open=partial(_keep, channels), **given)
            async with bench.serve(options) as served, served.peer() as peer:
                await bench.settle(partial(len, channels), "on_open")
                if not by_option:
                    register(channels[0], first)
                for again in (second, first, second):
                    _raises(CallbackAlreadySetError, partial(register, channels[0], again), f"on_{kind}")
                await _send(peer, kind, "one")
                await bench.recorder.wait("first")
                _raises(CallbackAlreadySetError, partial(register, channels[0], second), f"on_{kind}")
                await _send(peer, kind, "two")
                await bench.recorder.wait("first", 2)
            equal(bench.recorder.values("first"), ["one", "two"], f"what the first on_{kind} got")


@check("OPEN-8")
async def from_a_callback(bench: Bench) -> None:
    """A message callback may register the other kind's, and one channel's callbacks are its own alone."""

    def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        channel.on_binary(lambda channel, process, data: channel.close(4000, data.decode()))

    async with (
        bench.serve(bench.options(on_open=lambda channel, request: None)) as served,
        served.peer() as peer,
    ):
        await peer.send_text("the recorder has callbacks of its own")
        await bench.recorder.wait("text")
    options = bench.bare_options(on_text=on_text)
    async with bench.serve(options) as served, served.peer() as first, served.peer() as second:
        await first.send_text("register")
        await second.send_binary(b"dropped")
        await first.send_binary(b"closed by the first")
        close = await first.receive_close()
        equal((close.code, close.text), (4000, "closed by the first"), "code and text of the close")
        await second.ping(b"still open?")
        await second.send_text("register")
        await second.send_binary(b"closed by the second")
        close = await second.receive_close()
        equal((close.code, close.text), (4000, "closed by the second"), "code and text of the close")


# ---- OPEN-9 ---------------------------------------------------------------------------------------------------------

_ENDS: dict[str, tuple[Callable[[WirePeer], Any], int, str]] = {
    "the peer's close": (lambda peer: peer.send_close(4001, "bye"), 4001, "peer"),
    "an empty close": (lambda peer: peer.send_close(), 1005, "peer"),
    "an end of the stream": (lambda peer: peer.half_close(), 1006, "network"),
    "a reset": (lambda peer: peer.drop(), 1006, "network"),
}


@check("OPEN-9")
async def the_end_is_noticed(bench: Bench) -> None:
    """While on_open only waits, a close or a loss is noticed within 1 s: wait_closed resolves, sends are False."""

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        reason = await channel.wait_closed()
        bench.recorder.log("noticed", value=(reason.code, reason.initiator))
        equal(await channel.send_text("late"), False, "a send after the end")
        equal(await channel.send_binary(b"late"), False, "a send after the end")
        equal(channel.reason, reason, "channel.reason")

    async with bench.serve(bench.options(on_open=on_open)) as served:
        for count, (what, (end, code, initiator)) in enumerate(_ENDS.items(), 1):
            async with served.peer() as peer:
                await bench.recorder.wait("open", count)
                await _now(end(peer))
                event = await bench.recorder.wait("noticed", count, timeout=bench.scale)
                equal(event.value, (code, initiator), f"code and initiator in on_open, after {what}")
                reason = await bench.recorder.closed(count)
                equal((reason.code, reason.initiator), (code, initiator), f"code and initiator in on_close, {what}")
    equal(bench.recorder.all("error"), [], "the calls of on_error")
    equal([record.getMessage() for record in bench.logs if record.exc_info], [], "the exceptions logged")


async def _now(result: object) -> None:
    """Await what a lambda has begun, if anything."""
    if asyncio.iscoroutine(result):
        await result


@check("OPEN-9")
async def a_loop_that_only_sends(bench: Bench) -> None:
    """An on_open that sends for ever ends within 1 s of the peer's close or loss, as a send returns False."""

    async def on_open(channel: WebSocketChannel, request: Request) -> int:
        count = 0
        while await channel.send_text(f"tick {count}"):
            count += 1
            await asyncio.sleep(0.01)
        bench.recorder.log("refused", value=count)
        return count

    async with bench.serve(bench.options(on_open=on_open)) as served:
        for count, (what, (end, code, initiator)) in enumerate(_ENDS.items(), 1):
            async with served.peer() as peer:
                equal(await peer.receive_text(), "tick 0", "the first message")
                equal(await peer.receive_text(), "tick 1", "the second message")
                await _now(end(peer))
                await bench.recorder.wait("refused", count, timeout=bench.scale)
                reason = await bench.recorder.closed(count)
                equal((reason.code, reason.initiator), (code, initiator), f"code and initiator after {what}")
    equal(bench.recorder.all("error"), [], "the calls of on_error")


@check("OPEN-9")
async def the_end_does_not_cancel_it(bench: Bench) -> None:
    """on_open goes on to its own end after a close, a loss, a violation or an abandoned ping: nothing cancels it."""
    released = asyncio.Event()

    async def on_open(channel: WebSocketChannel, request: Request) -> str:
        await channel.wait_closed()
        bench.recorder.log("ended")
        await released.wait()
        await asyncio.sleep(0)
        return "to the end"

    async with bench.serve(bench.options(on_open=on_open, close_timeout=0.2 * bench.scale)) as served:
        for count, (what, (end, _, _)) in enumerate(_ENDS.items(), 1):
            released.clear()
            async with served.peer() as peer:
                await bench.recorder.wait("open", count)
                await _now(end(peer))
                await bench.recorder.wait("ended", count)
            await asyncio.sleep(0.05)  # the connection is gone as well
            equal(len(bench.recorder.all("close")), count - 1, f"how often on_close ran, after {what}")
            released.set()
            await bench.recorder.closed(count)
            equal(bench.recorder.all("close")[-1].process, "to the end", f"the process object, after {what}")


@check("OPEN-9")
async def stop_cancels_it(bench: Bench) -> None:
    """stop() cancels an on_open that does not end by itself; on_close has nothing to run for then."""

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bench.recorder.log("cancelled")
            raise

    limit = 0.4 * bench.scale
    async with bench.serve(bench.options(on_open=on_open), shutdown_timeout=limit) as served, served.peer() as peer:
        channel = await bench.recorder.opened()
        if served.connector is None:
            return fail("there is no connector")
        stopping = asyncio.ensure_future(served.connector.stop())
        try:
            close = await peer.receive_close()
            equal((close.code, close.text), (1001, "server shutdown"), "code and text of the close")
            await bench.recorder.wait("cancelled")
        finally:
            await bench.within(stopping, "stop()")
        equal(getattr(channel.reason, "code", None), 1001, "the code of the reason")
    equal(bench.recorder.kinds(), ["open", "cancelled"], "the callbacks")


# ---- OPEN-10 --------------------------------------------------------------------------------------------------------


@check("OPEN-10")
async def each_coroutine_runs_in_a_task(bench: Bench) -> None:
    """In every coroutine callback current_task, asyncio.timeout and TaskGroup work, and the channel goes on."""

    async def use(kind: str) -> None:
        task = asyncio.current_task()
        true(isinstance(task, asyncio.Task), f"current_task() in on_{kind} is {task!r}")
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            bench.recorder.log(f"timeout {kind}")
        results: list[int] = []

        async def child(number: int) -> None:
            await asyncio.sleep(0)
            results.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(child(number))
        equal(sorted(results), [0, 1, 2], f"what the TaskGroup in on_{kind} ran")
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_fails())
                await asyncio.Event().wait()  # which the group cancels, and that must not reach the channel
        true(task is not None and task.cancelling() == 0, f"the task of on_{kind} is still being cancelled")
        bench.recorder.log(f"done {kind}")

    async def message(channel: WebSocketChannel, process: object, value: object) -> None:
        await use("text" if isinstance(value, str) else "binary")
        if isinstance(value, bytes):
            raise RuntimeError("on_binary raises")

    options = bench.options(
        on_open=lambda channel, request: use("open"),
        on_text=message,
        on_binary=message,
        on_error=lambda channel, process, error: use("error"),
        on_close=lambda channel, process, reason: use("close"),
    )
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("one")
        await peer.send_text("two")
        await peer.send_binary(b"raise")
        await peer.receive_close()
        await bench.recorder.wait("done close")
    done = [kind.removeprefix("done ") for kind in bench.recorder.kinds() if kind.startswith("done ")]
    equal(done, ["open", "text", "text", "binary", "error", "close"], "the callbacks that came to their end")
    timeouts = [kind for kind in bench.recorder.kinds() if kind.startswith("timeout ")]
    equal(len(timeouts), len(done), "how many timeouts were raised")


async def _fails() -> None:
    raise ValueError("a child of the group fails")


@check("OPEN-10")
async def a_timeout_that_is_not_caught(bench: Bench) -> None:
    """A TimeoutError out of a callback's own asyncio.timeout is its exception, not a cancellation of the channel."""

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("one")
        equal((await peer.receive_close()).code, 1011, "the code of the close")
        await bench.recorder.closed()
        equal([repr(error) for error in bench.recorder.values("error")], ["TimeoutError()"], "what on_error got")


# ---- OPEN-11 --------------------------------------------------------------------------------------------------------


@check("OPEN-11")
async def not_before_on_open(bench: Bench) -> None:
    """Until on_open starts, sends and close raise ChannelNotOpenError, and harm nothing."""
    calls: dict[str, Callable[[WebSocketChannel], Any]] = {
        "send_text": lambda channel: channel.send_text("early"),
        "send_binary": lambda channel: channel.send_binary(b"early"),
        "send_binary of a bytearray": lambda channel: channel.send_binary(bytearray(b"early")),
        "close": lambda channel: channel.close(),
        "close with a code": lambda channel: channel.close(4000, "early"),
    }
    raised: list[str] = []

    async def leave(context: Context) -> None:
        channel = context["websocket_channel"]
        true(isinstance(channel, WebSocketChannel), f"the leave stage found {channel!r} and no channel")
        for what, call in calls.items():
            try:
                await _now(call(channel))
            except ChannelNotOpenError:
                raised.append(what)
        equal(channel.reason, None, "the reason before on_open")

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        equal(await channel.send_text("open"), True, "a send in on_open")

    chain = (Interceptor(name="early", leave=leave), websocket_interceptor("/", bench.options(on_open=on_open)))
    async with bench.serve(Application([("/", chain)])) as served, served.peer() as peer:
        equal(await peer.receive_text(), "open", "the first message")
        equal(raised, list(calls), "the calls that raised")
        await peer.send_close(1000)
        equal((await bench.recorder.closed()).code, 1000, "the code")
        equal(len(peer.received), 1, "how much the peer received before its close was answered")


@check("OPEN-11")
async def registering_works_before_on_open(bench: Bench) -> None:
    """Before on_open starts callbacks can be registered, once each, and they get the messages."""

    def leave(context: Context) -> None:
        channel: WebSocketChannel = context["websocket_channel"]
        channel.on_text(note)
        channel.on_binary(note, format="memoryview")
        _raises(CallbackAlreadySetError, lambda: channel.on_text(note), "a second on_text")

    def note(channel: WebSocketChannel, process: object, message: object) -> None:
        bench.recorder.log("noted", value=(type(message), process))

    async def on_open(channel: WebSocketChannel, request: Request) -> str:
        await asyncio.sleep(0.01)
        return "process"

    options = bench.bare_options(on_open=on_open)
    chain = (Interceptor(name="early", leave=leave), websocket_interceptor("/", options))
    async with bench.serve(Application([("/", chain)])) as served, served.peer() as peer:
        await peer.send_text("one")
        await peer.send_binary(b"two")
        await bench.recorder.wait("noted", 2)
    equal(bench.recorder.values("noted"), [(str, "process"), (memoryview, "process")], "what the callbacks got")
