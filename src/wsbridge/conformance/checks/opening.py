"""OPEN-1 to OPEN-6: on_open, what it returns, and what happens while it runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from wsbridge.conformance.client import Closed, Opcode, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.http import Request
from wsbridge.protocols import WebSocketChannel

_MIB = 1024 * 1024


def _text(text: str) -> bytes:
    return build_frame(Opcode.TEXT, text.encode())


# ---- OPEN-1 ---------------------------------------------------------------------------------------------------------


@check("OPEN-1")
async def first_and_once(bench: Bench) -> None:
    """on_open runs once, before every other callback, with a channel and a request."""
    tail = _text("one") + _text("two") + build_frame(Opcode.BINARY, b"three")
    async with bench.serve() as served, served.peer(tail=tail) as peer:
        await peer.send_close(1000)
        await bench.recorder.closed()
    equal(bench.recorder.kinds(), ["open", "text", "text", "binary", "close"], "the callbacks")
    true(isinstance(bench.recorder.channels[0], WebSocketChannel), "on_open got no channel")
    true(isinstance(bench.recorder.values("open")[0], Request), "on_open got no request")
    equal(len({event.channel for event in bench.recorder.events}), 1, "the channels that the callbacks got")


@check("OPEN-1")
async def its_result_goes_to_all(bench: Bench) -> None:
    """What on_open returns is passed, the same object, to on_text, on_binary, on_error and on_close."""

    class EqualToAll:
        """Equal to anything, so that only identity tells."""

        def __eq__(self, other: object) -> bool:
            return True

        def __bool__(self) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    process = EqualToAll()

    def raises(channel: WebSocketChannel, process: object, data: bytes) -> None:
        raise RuntimeError("on_binary raises")

    options = bench.options(on_open=lambda channel, request: process, on_binary=raises)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("one")
        await peer.send_text("two")
        await peer.send_binary(b"raise")
        await peer.receive_close()
        await bench.recorder.wait("close-end")
    got = [(event.kind, event.process is process) for event in bench.recorder.events if "end" not in event.kind]
    kinds = ["text", "text", "binary", "error", "close"]
    equal(got[1:], [(kind, True) for kind in kinds], "the callbacks, and whether each got what on_open returned")


@check("OPEN-1")
async def different_for_each_channel(bench: Bench) -> None:
    """Each channel has the process object of its own on_open."""
    options = bench.options(on_open=lambda channel, request: request.args["name"])
    async with bench.serve(options) as served, served.peer("/?name=a") as first, served.peer("/?name=b") as second:
        for count, (peer, name) in enumerate(((second, "b"), (first, "a"), (second, "b")), 1):
            await peer.send_text("whose?")
            event = await bench.recorder.wait("text", count)
            equal(event.process, name, "the process object")


@check("OPEN-1")
async def none_without_it(bench: Bench) -> None:
    """Without on_open the process object is None, and every other callback runs as ever."""
    got: list[tuple[str, object]] = []

    def note(kind: str) -> Any:
        def callback(channel: WebSocketChannel, process: object, value: object) -> None:
            got.append((kind, process))
            bench.recorder.log(kind, value=value)
            if kind == "binary":
                raise RuntimeError("on_binary raises")

        return callback

    options = bench.bare_options(
        on_text=note("text"), on_binary=note("binary"), on_error=note("error"), on_close=note("close")
    )
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("text")
        await peer.send_binary(b"binary")
        await peer.receive_close()
        await bench.recorder.wait("close")
    equal(got, [(kind, None) for kind in ("text", "binary", "error", "close")], "the callbacks and what they got")


# ---- OPEN-2 ---------------------------------------------------------------------------------------------------------


@check("OPEN-2")
async def plain_functions_run_on_the_loop(bench: Bench) -> None:
    """A plain function runs in the thread of the event loop, where it may use the loop, for every callback."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    seen: list[str] = []

    def note(kind: str) -> Any:
        def callback(*arguments: object) -> str:
            true(asyncio.get_running_loop() is loop, f"{kind} runs on another event loop")
            equal(threading.get_ident(), thread, f"the thread in which {kind} runs")
            seen.append(kind if len(arguments) == 2 else f"{kind} {arguments[1]}")
            bench.recorder.log(kind)
            if kind == "binary":
                raise RuntimeError("on_binary raises")
            return f"from {kind}"

        return callback

    kinds = ("open", "text", "binary", "error", "close")
    options = bench.bare_options(**{f"on_{kind}": note(kind) for kind in kinds})
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("text")
        await peer.send_binary(b"binary")
        await peer.receive_close()
        await bench.recorder.wait("close")
    equal(seen, ["open", *(f"{kind} from open" for kind in kinds[1:])], "the callbacks and their process objects")
    raised = [record.exc_info[1] for record in bench.logs if record.exc_info]
    equal([str(error) for error in raised], ["on_binary raises"], "the exceptions logged")


@check("OPEN-2")
async def a_coroutine_of_a_plain_function_is_awaited(bench: Bench) -> None:
    """A coroutine that a plain function returns is awaited, to its end, before the next callback."""
    log = bench.recorder.log

    async def run(kind: str, value: object) -> str:
        log(f"{kind} begins", value=value)
        await asyncio.sleep(0.01)
        log(f"{kind} ends")
        return f"from {kind}"

    options = bench.bare_options(
        on_open=lambda channel, request: run("open", None),
        on_text=lambda channel, process, text: run("text", process),
        on_binary=lambda channel, process, data: run("binary", process),
        on_close=lambda channel, process, reason: run("close", process),
    )
    tail = _text("one") + build_frame(Opcode.BINARY, b"two")
    async with bench.serve(options) as served, served.peer(tail=tail) as peer:
        await peer.send_close(1000)
        await bench.recorder.wait("close ends")
    kinds = ("open", "text", "binary", "close")
    equal(bench.recorder.kinds(), [f"{k} {w}" for k in kinds for w in ("begins", "ends")], "what ran, in order")
    processes = [event.value for event in bench.recorder.events if event.kind.endswith("begins")]
    equal(processes, [None, *["from open"] * 3], "the process objects")


@check("OPEN-2")
async def a_future_is_an_ordinary_value(bench: Bench) -> None:
    """A Future that a plain callback returns is not awaited, and as the result of on_open it is the process object."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    got: list[object] = []

    def on_text(channel: WebSocketChannel, process: object, text: str) -> object:
        got.append(process)
        bench.recorder.log("text", value=text)
        return future  # which nobody ever sets

    options = bench.bare_options(on_open=lambda channel, request: future, on_text=on_text)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("one")
        await peer.send_text("two")
        await bench.recorder.wait("text", 2)
    true(all(process is future for process in got), f"the process objects are {got}, not the Future itself")
    true(not future.done(), "the Future was cancelled or set")


@check("OPEN-2")
async def a_task_is_an_ordinary_value(bench: Bench) -> None:
    """A Task that on_open returns, from a plain function or a coroutine, is the process object, and not awaited."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    got: list[object] = []

    def on_text(channel: WebSocketChannel, process: object, text: str) -> object:
        got.append(process)
        bench.recorder.log("text", value=text)
        return task

    def opens_at_once(channel: WebSocketChannel, request: Request) -> object:
        return task

    async def opens(channel: WebSocketChannel, request: Request) -> object:
        return task

    try:
        for count, on_open in enumerate((opens_at_once, opens), 1):
            options = bench.bare_options(on_open=on_open, on_text=on_text)
            async with bench.serve(options) as served, served.peer() as peer:
                await peer.send_text("one")
                await peer.send_text("two")
                await bench.recorder.wait("text", 2 * count)
        true(all(process is task for process in got), f"the process objects are {got}, not the Task itself")
        true(not task.done(), "the Task was cancelled")
    finally:
        task.cancel()
        await asyncio.wait((task,))


@check("OPEN-2")
async def any_callable(bench: Bench) -> None:
    """A bound method, or an object with a coroutine function as its ``__call__``, is a callback like any other."""

    class Counter:
        def __init__(self) -> None:
            self.count = 0

        async def __call__(self, channel: WebSocketChannel, process: object, text: str) -> None:
            await asyncio.sleep(0)
            self.count += 1
            await channel.send_text(f"{text} {self.count}")

        def method(self, channel: WebSocketChannel, request: Request) -> int:
            self.count = 10
            return self.count

    counter = Counter()
    options = bench.bare_options(on_open=counter.method, on_text=counter)
    async with bench.serve(options) as served, served.peer() as peer:
        for expected in ("n 11", "n 12"):
            await peer.send_text("n")
            equal(await peer.receive_text(), expected, "the answer")


# ---- OPEN-3 ---------------------------------------------------------------------------------------------------------


@check("OPEN-3")
async def messages_wait_for_on_open(bench: Bench) -> None:
    """Messages that arrive while on_open runs are delivered after it has returned, all of them and in order."""
    released = asyncio.Event()
    options = bench.options(on_open=lambda channel, request: released.wait())
    expected: list[str | bytes] = []
    async with bench.serve(options) as served, served.peer() as peer:
        await bench.recorder.wait("open")
        for number in range(300):
            expected.append(str(number) if number % 3 else bytes((number % 256,)) * number)
            await (peer.send_text(str(number)) if number % 3 else peer.send_binary(bytes((number % 256,)) * number))
        await asyncio.sleep(0.05)
        equal(bench.recorder.kinds(), ["open"], "the callbacks while on_open runs")
        released.set()
        await bench.recorder.until(lambda: len(bench.recorder.values()) >= len(expected), "the last message")
    equal(bench.recorder.values() == expected, True, "whether the messages are those sent, in order")


@check("OPEN-3", stochastic=True)
async def in_bounded_memory(bench: Bench) -> None:
    """While on_open runs a flood is held back by TCP, and what has come in is delivered afterwards."""
    released = asyncio.Event()
    frame = build_frame(Opcode.BINARY, bytes(64 * 1024))
    options = bench.options(on_open=lambda channel, request: released.wait())
    async with bench.serve(options) as served, served.peer() as peer:
        await bench.recorder.wait("open")
        taken = await peer.flood(frame, 128 * _MIB, timeout=0.2 * bench.scale)
        # a kernel may hold tens of megabytes of a connection; all of the rest must be the server's
        true(taken < 64 * _MIB, f"{taken // _MIB} MiB were taken in while on_open ran")
        equal(bench.recorder.kinds(), ["open"], "the callbacks while on_open runs")
        whole = taken // len(frame)
        released.set()
        await bench.recorder.wait("binary", whole)
        true(all(len(event.value) == 64 * 1024 for event in bench.recorder.all("binary")), "a message was cut")


# ---- OPEN-4 ---------------------------------------------------------------------------------------------------------


@check("OPEN-4", black_box=True)
async def sends_of_on_open_seen_from_outside(bench: Bench) -> None:
    """What on_open sends arrives, in order, and then its close."""
    async with bench.reference() as served, served.peer("/countdown/20") as peer:
        for number in range(20, 0, -1):
            equal(await peer.receive_text(), str(number), "the message")
        close = await peer.receive_close()
        equal((close.code, close.text), (1000, "done"), "code and text of the close")


@check("OPEN-4")
async def before_any_answer(bench: Bench) -> None:
    """What on_open sends comes before any answer to the peer's messages, those right after the handshake too."""
    large = bytes(range(256)) * 512

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        true(await channel.send_text("first") is True, "the send in on_open did not return True")
        await asyncio.sleep(0.02)
        await channel.send_binary(large)
        await channel.send_text("last")

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        await channel.send_text(f"answer to {text}")

    options = bench.options(on_open=on_open, on_text=on_text)
    async with bench.serve(options) as served, served.peer(tail=_text("a") + _text("b")) as peer:
        equal(await peer.receive_text(), "first", "the first message")
        equal(await peer.receive_binary() == large, True, "whether the second is what was sent")
        equal(await peer.receive_text(), "last", "the third message")
        equal([await peer.receive_text(), await peer.receive_text()], ["answer to a", "answer to b"], "the answers")


@check("OPEN-4")
async def while_it_runs(bench: Bench) -> None:
    """A send in on_open reaches the peer while on_open still runs."""
    reached = asyncio.Event()

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        await channel.send_text("are you there?")
        await bench.within(reached.wait(), "the message's way to the peer while on_open runs")

    async with bench.serve(bench.options(on_open=on_open)) as served, served.peer() as peer:
        equal(await peer.receive_text(), "are you there?", "the message")
        equal(bench.recorder.all("open-end"), [], "the end of on_open")
        reached.set()
        await bench.recorder.wait("open-end")


# ---- OPEN-5 ---------------------------------------------------------------------------------------------------------


@check("OPEN-5", black_box=True)
async def a_close_seen_from_outside(bench: Bench) -> None:
    """A close in on_open reaches the peer with its code and text, and nothing else does."""
    async with bench.reference() as served:
        for code, text in ((1000, ""), (4001, "no"), (3000, "gone")):
            target = f"/close/{code}" + (f"?text={text}" if text else "")
            async with served.peer(target, tail=_text("early")) as peer:
                close = await peer.receive_close()
                equal((close.code, close.text), (code, text), "code and text of the close")
                await peer.wait_eof()
                equal(peer.received[0], close, "the first that was received")


@check("OPEN-5")
async def a_close_in_on_open(bench: Bench) -> None:
    """on_open closes: no message is delivered, the process object is kept, on_close waits for on_open to return."""
    released = asyncio.Event()

    async def on_open(channel: WebSocketChannel, request: Request) -> str:
        await channel.send_text("hello")
        channel.close(4001, "full")
        await released.wait()
        equal(await channel.send_text("too late"), False, "a send after the close")
        return "process"

    async with bench.serve(bench.options(on_open=on_open)) as served, served.peer(tail=_text("early")) as peer:
        equal(await peer.receive_text(), "hello", "what was sent before the close")
        close = await peer.receive_close()
        equal((close.code, close.text), (4001, "full"), "code and text of the close")
        await asyncio.sleep(0.05)
        equal(bench.recorder.kinds(), ["open"], "the callbacks while on_open runs")
        released.set()
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (4001, "full", "local"), "the reason")
        equal(bench.recorder.all("close")[0].process, "process", "the process object")
    equal(bench.recorder.kinds(), ["open", "close"], "the callbacks")


@check("OPEN-5")
async def a_close_in_a_plain_on_open(bench: Bench) -> None:
    """A plain on_open may close as well."""
    options = bench.options(on_open=lambda channel, request: channel.close(3000))
    async with bench.serve(options) as served, served.peer(tail=_text("early")) as peer:
        await peer.send_text("late")
        equal((await peer.receive_close()).code, 3000, "the code of the close")
        equal((await bench.recorder.closed()).initiator, "local", "the initiator")
    equal(bench.recorder.kinds(), ["open", "close"], "the callbacks")


# ---- OPEN-6 ---------------------------------------------------------------------------------------------------------


def _raise(channel: WebSocketChannel, request: Request) -> None:
    raise RuntimeError("on_open raises")


async def _raise_later(channel: WebSocketChannel, request: Request) -> None:
    await channel.send_text("hello")
    raise RuntimeError("on_open raises")


@check("OPEN-6")
async def it_raises(bench: Bench) -> None:
    """on_open raises: logged with its traceback, closed with 1011; on_error runs, on_close and messages do not."""
    for count, on_open in enumerate((_raise, _raise_later), 1):
        before = len(bench.logs)
        async with (
            bench.serve(bench.options(on_open=on_open)) as served,
            served.peer("/", tail=_text("early")) as peer,
        ):
            close = await peer.receive_close()
            equal((close.code, close.text), (1011, ""), "code and text of the close")
            await peer.wait_eof()
            event = await bench.recorder.wait("error-end", count)
            channel = bench.recorder.channels[-1]
            reason = await bench.within(channel.wait_closed(), "wait_closed()")
            equal((reason.code, reason.initiator), (1011, "local"), "code and initiator of the reason")
            equal(await channel.send_text("late"), False, "a send after it")
        error = bench.recorder.all("error")[-1]
        equal((str(error.value), error.process), ("on_open raises", None), "what on_error got")
        logged = [record for record in bench.logs[before:] if record.exc_info and record.levelno >= logging.ERROR]
        equal([str(record.exc_info[1]) for record in logged if record.exc_info], ["on_open raises"], "what was logged")
        true(event.channel in logged[0].getMessage(), "the log does not name the channel")
    equal(bench.recorder.kinds(), ["open", "error"] * 2, "the callbacks")


@check("OPEN-6")
async def it_raises_after_the_end(bench: Bench) -> None:
    """on_open raises after a local close or the peer's: the reason stays, on_close does not run."""

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        if request.args["end"] == "local":
            channel.close(4000, "mine")
        await channel.wait_closed()
        raise RuntimeError("on_open raises")

    async with bench.serve(bench.options(on_open=on_open)) as served:
        for count, (end, code) in enumerate({"local": 4000, "peer": 4001}.items(), 1):
            async with served.peer(f"/?end={end}") as peer:
                channel = await bench.recorder.opened(count)
                if end == "peer":
                    await peer.send_close(code)
                equal((await peer.receive_close()).code, code, "the code of the close")
                await bench.recorder.wait("error", count)
                reason = channel.reason
                if reason is None:
                    return fail("the channel has no reason")
                equal((reason.code, reason.initiator), (code, end), "code and initiator of the reason")
    equal(bench.recorder.kinds(), ["open", "error"] * 2, "the callbacks")


@check("OPEN-6")
async def on_close_without_on_open(bench: Bench) -> None:
    """on_close runs where there is no on_open, and once it has returned, however the channel ends."""
    closes: list[object] = []

    def on_close(channel: WebSocketChannel, process: object, reason: object) -> None:
        closes.append(reason)
        bench.recorder.log("close", value=reason)

    def nothing(channel: WebSocketChannel, request: Request) -> None:
        pass

    for on_open in (None, nothing):
        options = bench.bare_options(on_open=on_open, on_close=on_close)
        async with bench.serve(options) as served:
            for tail in (build_frame(Opcode.CLOSE, close_payload(1000)), b""):
                count = len(closes) + 1
                async with served.peer(tail=tail) as peer:
                    if not tail:
                        await peer.half_close()
                    try:
                        await peer.receive_close()
                    except Closed:
                        equal(tail, b"", "what was sent before an end without a close frame")
                    await bench.recorder.wait("close", count)
    equal(len(closes), 4, "how often on_close ran")
