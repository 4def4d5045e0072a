"""CTX-3: the way from a request to a channel, as interceptors see it through a connector."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.errors import UpgradeError
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import InitializeWebSocket, upgrade_request_to_websocket, websocket_interceptor


def _chain(bench: Bench, *interceptors: Interceptor, **options: Any) -> Application:
    last = websocket_interceptor("upgrade", bench.options(**options))
    return Application([("/", (*interceptors, last))])


async def _serves_on(bench: Bench, served: Any, target: str = "/?good=yes") -> None:
    """Open a channel, in the one place that there is; what a killed channel had left behind would be in its way."""
    async with served.peer(target) as peer:
        await peer.send_text("well")
        await bench.recorder.wait("text")
    equal(bench.recorder.kinds()[:2], ["open", "text"], "the callbacks: those of the good channel alone")
    equal(bench.recorder.kinds().count("open"), 1, "how often on_open ran")


@check("CTX-3")
async def a_plain_function_makes_the_channel(bench: Bench) -> None:
    """Called in an enter stage it returns the context, at once, with the channel in it and no response."""
    options = bench.options()
    seen: list[WebSocketChannel] = []

    def enter(context: Context) -> Context:
        source = context["websocket_channel_source"]
        true(isinstance(source, InitializeWebSocket), f"the source is no InitializeWebSocket but {source!r}")
        true(isinstance(context["request"], Request), f"the request is {context['request']!r}")
        equal((context["response"], context["websocket_channel"]), (None, None), "response and channel before")
        context["mine"] = "kept"
        upgraded = upgrade_request_to_websocket(context, options)
        true(not inspect.isawaitable(upgraded), "what was returned is to be awaited")
        equal(upgraded["mine"], "kept", "a key of the interceptor's own")
        equal(upgraded["response"], None, "the response after")
        channel = upgraded["websocket_channel"]
        true(isinstance(channel, WebSocketChannel), f"the channel is no WebSocketChannel but {channel!r}")
        seen.append(channel)
        return upgraded

    app = Application([("/", (Interceptor(name="upgrade", enter=enter),))])
    async with bench.serve(app) as served, served.peer() as peer:
        await peer.send_text("through")
        await bench.recorder.wait("text")
        true(bench.recorder.channels[0] is seen[0], "on_open got another channel than the enter stage")


@check("CTX-3")
async def the_source_makes_the_channel(bench: Bench) -> None:
    """`initialize_websocket` of the source is a plain method that puts the channel into the context."""
    options = bench.options()

    def enter(context: Context) -> Context:
        made = context["websocket_channel_source"].initialize_websocket(context, options)
        true(isinstance(made, dict), f"initialize_websocket returned {made!r} and no context")
        true(isinstance(made["websocket_channel"], WebSocketChannel), "there is no channel in the context")
        return context

    app = Application([("/", (Interceptor(name="by hand", enter=enter),))])
    async with bench.serve(app) as served, served.peer() as peer:
        await peer.send_text("through")
        await bench.recorder.wait("text")


@check("CTX-3")
async def a_second_call_raises(bench: Bench) -> None:
    """A second call for the same request raises UpgradeError, and the channel of the first one opens."""
    options = bench.options()
    raised: list[str] = []

    def enter(context: Context) -> None:
        upgrade_request_to_websocket(context, options)
        channel = context["websocket_channel"]
        try:
            upgrade_request_to_websocket(context, options)
        except UpgradeError as error:
            raised.append(str(error))
        true(context["websocket_channel"] is channel, "the channel in the context is another one")

    app = Application([("/", (Interceptor(name="twice", enter=enter),))])
    async with bench.serve(app) as served, served.peer() as peer:
        await peer.send_text("through")
        await bench.recorder.wait("text")
    equal(len(raised), 1, "how often UpgradeError was raised")


@check("CTX-3")
async def a_refusal_is_a_response(bench: Bench) -> None:
    """A request that is refused leaves the context with a response, which a leave stage may replace, and no channel."""
    seen: list[tuple[int, object]] = []

    def leave(context: Context) -> None:
        seen.append((context["response"].status_code, context["websocket_channel"]))
        if context["request"].args.get("replace"):
            context["response"] = Response("replaced", 404)

    app = _chain(bench, Interceptor(name="looks", leave=leave))
    bad = {"Sec-WebSocket-Key": "bad"}
    async with bench.serve(app) as served:
        equal((await ask(served, replace=bad)).status, 400, "the status")
        answer = await ask(served, target="/?replace=yes", replace=bad)
        equal((answer.status, answer.body), (404, b"replaced"), "the answer of the leave stage")
    equal(seen, [(400, None), (400, None)], "what the leave stage found")
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("CTX-3")
async def the_101_follows_the_leave_stages(bench: Bench) -> None:
    """The 101 is sent when the last leave stage has run, and on_open runs after it."""
    released = asyncio.Event()
    log = bench.recorder.log

    async def outer(context: Context) -> None:
        log("outer leave")
        await released.wait()
        log("outer left")

    inner = Interceptor(name="inner", leave=lambda context: log("inner left"))
    async with (
        bench.serve(_chain(bench, Interceptor(name="outer", leave=outer), inner)) as served,
        served.raw() as peer,
    ):
        built = handshake(served)
        await peer.request(built.encode())
        await bench.recorder.wait("outer leave")
        await peer.expect_silence(0.1)
        equal(bench.recorder.kinds(), ["inner left", "outer leave"], "what ran before the 101")
        released.set()
        peer.start_websocket(built, await peer.read_response())
        await bench.recorder.wait("open")
    equal(bench.recorder.kinds()[:4], ["inner left", "outer leave", "outer left", "open"], "what ran, in order")


@check("CTX-3")
async def on_open_follows_the_101(bench: Bench) -> None:
    """When on_open sends, the 101 is out: the peer reads it first, with all that the leave stages added."""

    def leave(context: Context) -> None:
        context["websocket_channel_source"].response_headers.add("X-Late", "added")

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        await channel.send_text("behind it")

    app = _chain(bench, Interceptor(name="adds", leave=leave), on_open=on_open)
    async with bench.serve(app) as served, served.raw() as peer:
        built = handshake(served)
        await peer.request(built.encode())
        response = await peer.read_response()
        equal((response.status, response.headers_all("X-Late")), (101, ["added"]), "status and header")
        peer.start_websocket(built, response)
        equal(await peer.receive_text(), "behind it", "the message of on_open")


def _unless_good(stage: Callable[[Context], Any]) -> Callable[[Context], Any]:
    def checked(context: Context) -> Any:
        return None if context["request"].args.get("good") else stage(context)

    return checked


def _refuse(context: Context) -> None:
    true(isinstance(context["websocket_channel"], WebSocketChannel), "there was no channel to kill")
    context["response"] = Response("killed", 418, [("X-Why", "a"), ("X-Why", "b")])


async def _refuse_later(context: Context) -> Context:
    await asyncio.sleep(0)
    return {**context, "response": Response("killed", 418, [("X-Why", "a"), ("X-Why", "b")])}


def _raise(context: Context) -> None:
    raise RuntimeError("a stage raises")


@check("CTX-3")
async def a_leave_stage_that_sets_a_response(bench: Bench) -> None:
    """A leave stage that sets a response kills the channel: the peer gets it, and no callback ever runs."""
    outer = Interceptor(name="outer", leave=lambda context: None)
    for count, stage in enumerate((_refuse, _refuse_later)):
        killer = Interceptor(name="kills", leave=_unless_good(stage))
        bench.recorder.events.clear()
        async with bench.serve(_chain(bench, outer, killer), max_channels=1) as served:
            for tail in (b"", b"\x81\x80\0\0\0\0"):  # the second has an empty text right after it
                built = handshake(served)
                async with served.raw() as peer:
                    await peer.request(built.encode() + tail)
                    answer = await peer.read_response()
                equal((answer.status, answer.body), (418, b"killed"), f"status and body, stage {count}")
                equal(answer.headers_all("X-Why"), ["a", "b"], "the headers")
                equal(answer.headers_all("Sec-WebSocket-Accept"), [], "the accept key")
            await _serves_on(bench, served)


@check("CTX-3")
async def a_leave_stage_that_raises(bench: Bench) -> None:
    """A leave stage that raises kills the channel: 500, logged, and no callback ever runs."""
    killer = Interceptor(name="kills", leave=_unless_good(_raise))
    async with bench.serve(_chain(bench, killer), max_channels=1) as served:
        for _ in range(2):
            answer = await ask(served)
            equal(answer.status, 500, "the status")
            true(b"raises" not in answer.body, "the body tells of the exception")
        logged = [str(record.exc_info[1]) for record in bench.logs if record.exc_info]
        equal(logged, ["a stage raises"] * 2, "what was logged")
        await _serves_on(bench, served)


@check("CTX-3")
async def an_enter_stage_that_raises_behind_it(bench: Bench) -> None:
    """What is raised once there is a channel kills it, in an enter stage too."""
    options = bench.options()

    def enter(context: Context) -> Context:
        upgraded = upgrade_request_to_websocket(context, options)
        if not context["request"].args.get("good"):
            raise RuntimeError("a stage raises")
        return upgraded

    app = Application([("/", (Interceptor(name="upgrade", enter=enter),))])
    async with bench.serve(app, max_channels=1) as served:
        for _ in range(2):
            equal((await ask(served)).status, 500, "the status")
        await _serves_on(bench, served)


@check("CTX-3")
async def an_error_stage_that_sets_a_response(bench: Bench) -> None:
    """An error stage that takes an exception and sets a response kills the channel; the peer gets the response."""

    def takes(context: Context, error: Exception) -> None:
        context["response"] = Response(f"taken: {error}", 422)

    taker = Interceptor(name="takes", error=takes)
    killer = Interceptor(name="raises", leave=_unless_good(_raise))
    async with bench.serve(_chain(bench, taker, killer), max_channels=1) as served:
        for _ in range(2):
            answer = await ask(served)
            equal((answer.status, answer.body), (422, b"taken: a stage raises"), "the answer")
        errors = [record for record in bench.logs if record.levelno >= logging.ERROR]
        equal([record.getMessage() for record in errors], [], "the errors logged")
        await _serves_on(bench, served)


@check("CTX-3")
async def an_error_stage_that_raises(bench: Bench) -> None:
    """An error stage that raises kills the channel: 500, and no callback ever runs."""

    async def hands_on(context: Context, error: Exception) -> None:
        await asyncio.sleep(0)
        raise LookupError("the error stage raises") from error

    taker = Interceptor(name="hands on", error=hands_on)
    killer = Interceptor(name="raises", leave=_unless_good(_raise))
    async with bench.serve(_chain(bench, taker, killer), max_channels=1) as served:
        equal((await ask(served)).status, 500, "the status")
        logged = [str(record.exc_info[1]) for record in bench.logs if record.exc_info]
        equal(logged, ["the error stage raises"], "what was logged")
        await _serves_on(bench, served)


@check("CTX-3")
async def an_error_stage_that_mends(bench: Bench) -> None:
    """An error stage that takes an exception and sets nothing lets the channel open."""
    taker = Interceptor(name="takes", error=lambda context, error: bench.recorder.log("taken", value=str(error)))
    async with (
        bench.serve(_chain(bench, taker, Interceptor(name="raises", leave=_raise))) as served,
        served.peer() as peer,
    ):
        await peer.send_text("open all the same")
        await bench.recorder.wait("text")
    equal(bench.recorder.kinds()[:3], ["taken", "open", "text"], "what ran, in order")


@check("CTX-3")
async def a_killed_channel_is_at_its_end(bench: Bench) -> None:
    """Whoever kept the channel that was killed can tell: it has a reason, and wait_closed returns it."""
    kept: list[WebSocketChannel] = []

    def leave(context: Context) -> None:
        kept.append(context["websocket_channel"])
        context["response"] = Response("killed", 418)

    async with bench.serve(_chain(bench, Interceptor(name="kills", leave=leave))) as served:
        equal((await ask(served)).status, 418, "the status")
        reason = await bench.within(kept[0].wait_closed(), "wait_closed() of a killed channel")
        equal(kept[0].reason, reason, "channel.reason")
    equal(bench.recorder.kinds(), [], "the callbacks")
