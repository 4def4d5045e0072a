"""HS-12: each way by which a handshake or a channel can end gives back its place among `max_channels`, and once.

The ways are tables, so that one that is missing is seen, and each is tried on a connector with a place or two.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance import lateness
from wsbridge.conformance.checks.common import LEAVE, clog
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.client import Closed, Opcode, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream, stream_handler
from wsbridge.upgrade import websocket_interceptor

__all__ = ["however_a_channel_ends", "however_a_handshake_ends"]

_LONG = 60.0  # seconds: nothing in these checks waits so long, unless it is cancelled

End = Callable[[WirePeer], Awaitable[object]]


async def _one_place(bench: Bench, served: Served, what: str, *, places: int = 1) -> None:
    """Check that all ``places`` are free again after ``what``, within a moment, and no more; leave them free."""
    deadline = lateness.Deadline(bench.scale)
    before = len(bench.recorder.all("free"))
    async with contextlib.AsyncExitStack() as stack:
        for place in range(places):
            while (peer := await _opened(stack, served, what)) is None:
                true(deadline.left() > 0, f"only {place} of {places} places were given back after {what}")
                await asyncio.sleep(0.01)
            stack.push_async_callback(peer.send_close, 1000)
        more = await ask(served, target="/free")
        equal(more.status, 503, f"the status beside as many channels as may be open, after {what}")
    await bench.recorder.wait("free", before + places)
    await _settled(served)


async def _opened(stack: contextlib.AsyncExitStack, served: Served, what: str) -> WirePeer | None:
    """Open a channel, or return None if there is no place."""
    peer: WirePeer = await stack.enter_async_context(served.raw())
    built = handshake(served, "/free")
    await peer.request(built.encode())
    answer = await peer.read_response()
    if answer.status == 101:
        peer.start_websocket(built, answer)
        return peer
    equal(answer.status, 503, f"the status after {what}")
    return None


async def _settled(served: Served) -> None:
    """Wait a moment for the end of what has ended, which the next way must not find there."""
    deadline = lateness.Deadline(1.0)
    for _ in range(1000):
        if not getattr(served.connector, "channels", ()) or deadline.left() <= 0:
            break
        await asyncio.sleep(0.001)


def _free(bench: Bench) -> WebSocketOptions[Any]:
    return bench.bare_options(on_close=lambda channel, process, reason: bench.recorder.log("free"))


# ---- handshakes -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Stages:
    """What interceptors do around the upgrade of a request, and in it."""

    before: Mapping[str, Any] = field(default_factory=dict[str, Any])
    after: Mapping[str, Any] = field(default_factory=dict[str, Any])
    again: bool = False


async def _answers(context: Context, *error: object) -> None:
    context["response"] = Response("no", 418)


def _raises(context: Context, *error: object) -> None:
    raise RuntimeError("a stage raises")


async def _raises_late(context: Context, *error: object) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("a stage raises")


def _raises_a_cancel(context: Context) -> None:
    raise asyncio.CancelledError


def _sets(key: str, value: object) -> Callable[[Context], None]:
    def stage(context: Context) -> None:
        context[key] = value

    return stage


def _makes_another(context: Context) -> Context:
    return {"request": context["request"]}


def _returns_no_context(context: Context) -> Any:
    return "a context"


def _adds(name: str, value: str) -> Callable[[Context], None]:
    def stage(context: Context) -> None:
        context["websocket_channel_source"].response_headers.add(name, value)

    return stage


_REFUSED: Mapping[str, _Stages] = {
    "an enter stage that answers": _Stages({"enter": _answers}),
    "an enter stage that raises": _Stages({"enter": _raises}),
    "a leave stage that answers": _Stages({"leave": _answers}),
    "a leave stage that raises": _Stages({"leave": _raises}),
    "a leave stage that raises late": _Stages({"leave": _raises_late}),
    "a leave stage that raises a CancelledError": _Stages({"leave": _raises_a_cancel}),
    "a later enter stage that answers": _Stages(after={"enter": _answers}),
    "a later enter stage that raises": _Stages(after={"enter": _raises}),
    "a later leave stage that raises": _Stages(after={"leave": _raises_late}),
    "an error stage that answers": _Stages({"error": _answers}, {"enter": _raises}),
    "an error stage that raises": _Stages({"error": _raises_late}, {"enter": _raises}),
    "a channel that is taken from the context": _Stages({"leave": _sets("websocket_channel", None)}),
    "a channel that is not one": _Stages({"leave": _sets("websocket_channel", "a channel")}),
    "a response that is not one": _Stages({"leave": _sets("response", "a response")}),
    "another context": _Stages({"leave": _makes_another}),
    "a stage that returns no context": _Stages({"leave": _returns_no_context}),
    "a header that cannot be sent": _Stages({"leave": _adds("X-Price", "\u20ac")}),
    "a header that is the connector's": _Stages({"leave": _adds("Upgrade", "websocket")}),
    "a second upgrade": _Stages(again=True),
}
"""Handshakes that do not open a channel, though for most of them there is one in between."""


def _refusing(bench: Bench, number: int, stages: _Stages) -> tuple[str, Sequence[Interceptor]]:
    upgrade = websocket_interceptor("upgrade", bench.options())
    before, after = Interceptor(name="before", **stages.before), Interceptor(name="after", **stages.after)
    return f"/{number}", (before, upgrade, *((upgrade,) if stages.again else ()), after)


@check("HS-12")
async def however_a_handshake_ends(bench: Bench) -> None:
    """A handshake that is answered, fails or is refused, before its channel is made or after it, leaves no place."""
    routes: list[Any] = [_refusing(bench, number, stages) for number, stages in enumerate(_REFUSED.values())]
    app = Application([*routes, ("/free", _free(bench))])
    async with bench.serve(app, max_channels=2) as served:  # so that a chain could take more than one
        with variants() as variant:
            for number, what in enumerate(_REFUSED):
                with variant():
                    for _ in range(2):
                        answer = await ask(served, target=f"/{number}")
                        true(400 <= answer.status <= 599, f"the status of {what}: {answer.status}")
                    await _one_place(bench, served, what, places=2)
    equal(bench.recorder.values("open"), [], "the channels that opened")


async def _close_and_leave(peer: WirePeer) -> None:
    await peer.send_raw(build_frame(Opcode.CLOSE, close_payload(1000)))
    await peer.half_close()


async def _talk_and_leave(peer: WirePeer) -> None:
    await peer.send_raw(build_frame(Opcode.TEXT, b"early"))
    peer.drop()


async def _end(peer: WirePeer) -> None:
    LEAVE[0](peer)


async def _reset(peer: WirePeer) -> None:
    LEAVE[1](peer)


_LEAVING: Mapping[str, End] = {
    "the end of the connection": _end,
    "a reset": _reset,
    "a half-close": lambda peer: peer.half_close(),
    "a close frame and a half-close": _close_and_leave,
    "a message and a reset": _talk_and_leave,
}


@check("HS-12")
async def wherever_a_peer_leaves(bench: Bench) -> None:
    """A peer that leaves while its handshake is under way, or with its request, leaves no place."""
    released = asyncio.Event()

    async def wait(context: Context) -> None:
        bench.recorder.log("waits")
        await released.wait()

    upgrade = websocket_interceptor("upgrade", bench.options())
    app = Application(
        [
            ("/enter", (Interceptor(name="enter", enter=wait), upgrade)),
            ("/leave", (Interceptor(name="leave", leave=wait), upgrade)),
            ("/at-once", (upgrade,)),
            ("/free", _free(bench)),
        ]
    )
    async with bench.serve(app, max_channels=1) as served:
        with variants() as variant:
            for stage in ("enter", "leave", "at-once"):
                for how, leave in _LEAVING.items():
                    what = f"{how} at the stage {stage!r}"
                    with variant():
                        released.clear()
                        before = len(bench.recorder.all("waits"))
                        async with served.raw() as peer:
                            await peer.request(handshake(served, f"/{stage}").encode())
                            if stage != "at-once":
                                await bench.recorder.wait("waits", before + 1)
                            await leave(peer)
                            await asyncio.sleep(0.005)  # for the server to see it; no event on this side tells of it
                            released.set()
                        await _one_place(bench, served, what)


@check("HS-12")
async def whatever_a_stop_meets(bench: Bench) -> None:
    """A stop in the middle of a handshake, of on_open, of a callback or of on_close leaves no place taken."""

    async def hang(*arguments: Any) -> None:
        bench.recorder.log("hangs")
        await asyncio.sleep(_LONG)

    async def refuse_to_end(*arguments: Any) -> None:
        bench.recorder.log("hangs")
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    released = asyncio.Event()
    upgrade = websocket_interceptor("upgrade", bench.options())
    talk, leave = build_frame(Opcode.TEXT, b"go"), build_frame(Opcode.CLOSE, close_payload(1000))
    ways: dict[str, tuple[str, Any]] = {
        "an enter stage": ("/enter", (Interceptor(name="enter", enter=hang), upgrade)),
        "a leave stage": ("/leave", (Interceptor(name="leave", leave=hang), upgrade)),
        "on_open": ("/open", bench.options(on_open=hang)),
        "on_text": ("/text", bench.options(on_text=hang)),
        "on_close": ("/close", bench.options(on_close=hang)),
        "a callback that is given up": ("/given-up", bench.bare_options(on_text=refuse_to_end)),
    }
    app = Application([*ways.values(), ("/free", _free(bench))])
    connector = bench.connector(app, max_channels=1, shutdown_timeout=0.1 * bench.scale)
    with variants() as variant:
        for number, (what, (target, _)) in enumerate(ways.items(), 1):
            with variant():
                await bench.within(connector.start(), "start()")
                try:
                    served = bench.served(connector)
                    async with served.raw() as peer:
                        await peer.request(handshake(served, target).encode() + (leave if what == "on_close" else talk))
                        await bench.recorder.wait("hangs", number)
                        await bench.within(connector.stop(), "stop()")
                    await bench.within(connector.start(), "start() after a stop()")
                    await _one_place(bench, bench.served(connector), f"a stop in the middle of {what}")
                finally:
                    await bench.within(connector.stop(), "the last stop()")
        released.set()


# ---- channels -------------------------------------------------------------------------------------------------------


async def _on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    """Do what the peer asks for, in a word."""
    if text == "raise":
        raise RuntimeError("on_text raises")
    if text == "raise a CancelledError":
        raise asyncio.CancelledError
    if text == "cancel":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(_LONG)
    if text == "sleep":
        await asyncio.sleep(0.02)
    channel.close(4000)


def _closing_raises(*arguments: object) -> None:
    raise RuntimeError("a last callback raises")


async def _closing_is_cancelled(*arguments: object) -> None:
    raise asyncio.CancelledError


async def _opening_raises(channel: WebSocketChannel, request: Request) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("on_open raises")


def _opening_closes_and_raises(channel: WebSocketChannel, request: Request) -> None:
    channel.close(4000)
    raise RuntimeError("on_open raises")


async def _opening_closes(channel: WebSocketChannel, request: Request) -> None:
    await channel.send_text("bye")
    channel.close(4000)


async def _opening_is_cancelled(channel: WebSocketChannel, request: Request) -> None:
    raise asyncio.CancelledError


async def _reads_one(stream: MessageStream[str | bytes], request: Request) -> None:
    if await stream.recv() == "raise":
        raise RuntimeError("the handler raises")


def _served_ways(bench: Bench) -> dict[str, WebSocketOptions[Any]]:
    """Return the routes of the channels whose end is tried."""
    neutral = bench.target.neutral
    return {
        "/plain": bench.options(on_text=_on_text, close_timeout=0.1 * bench.scale),
        "/bare": bench.bare_options(),
        "/open/raises": bench.options(on_open=_opening_raises),
        "/open/closes-and-raises": bench.options(on_open=_opening_closes_and_raises),
        "/open/closes": bench.options(on_open=_opening_closes),
        "/open/is-cancelled": bench.options(on_open=_opening_is_cancelled),
        "/close/raises": bench.options(on_text=_on_text, on_close=_closing_raises),
        "/close/is-cancelled": bench.options(on_text=_on_text, on_close=_closing_is_cancelled),
        "/error/raises": bench.options(on_text=_on_text, on_error=_closing_raises),
        "/stream": stream_handler(_reads_one, **neutral),
    }


def _says(text: str) -> End:
    return lambda peer: peer.send_text(text)


async def _does_not_answer(peer: WirePeer) -> None:
    peer.auto_close = False
    await peer.send_text("close")
    await peer.receive_close()


async def _closed_and_reset(peer: WirePeer) -> None:
    peer.auto_close = False
    await peer.send_text("close")
    peer.drop()


async def _leaves_in_a_callback(peer: WirePeer) -> None:
    await peer.send_text("sleep")
    peer.drop()


async def _nothing(peer: WirePeer) -> None:
    """Leave all to the application."""


_LEAVING_AT_ONCE = (_end, _reset, _closed_and_reset, _leaves_in_a_callback)


_ENDINGS: Sequence[tuple[str, str, End]] = (
    ("the peer's close", "/plain", lambda peer: peer.send_close(1000)),
    ("the peer's empty close", "/bare", lambda peer: peer.send_close()),
    ("a close and a half-close", "/plain", _close_and_leave),
    ("a half-close", "/plain", lambda peer: peer.half_close()),
    ("the end of the connection", "/bare", _end),
    ("a reset", "/plain", _reset),
    ("a reset while a callback runs", "/plain", _leaves_in_a_callback),
    ("a local close", "/plain", _says("close")),
    ("a local close and a reset", "/plain", _closed_and_reset),
    ("a local close that is never answered", "/plain", _does_not_answer),
    ("an exception", "/plain", _says("raise")),
    ("an exception where on_error raises", "/error/raises", _says("raise")),
    ("a callback's CancelledError", "/plain", _says("raise a CancelledError")),
    ("a callback that is cancelled", "/plain", _says("cancel")),
    ("a local close where on_close raises", "/close/raises", _says("close")),
    ("a local close where on_close raises a CancelledError", "/close/is-cancelled", _says("close")),
    ("a loss where on_close raises", "/close/raises", _reset),
    ("an on_open that raises", "/open/raises", _nothing),
    ("an on_open that raises where the peer has left", "/open/raises", _reset),
    ("an on_open that closes and raises", "/open/closes-and-raises", _nothing),
    ("an on_open that closes", "/open/closes", _nothing),
    ("an on_open that raises a CancelledError", "/open/is-cancelled", _nothing),
    ("a handler that returns", "/stream", _says("one")),
    ("a handler that raises", "/stream", _says("raise")),
)


async def _ways_to_end(bench: Bench, routes: Mapping[str, Any], endings: Sequence[tuple[str, str, End]]) -> None:
    app = Application([*routes.items(), ("/free", _free(bench))])
    async with bench.serve(app, max_channels=1) as served:
        with variants() as variant:
            for what, target, end in endings:
                with variant(what):
                    async with served.peer(target) as peer:
                        with contextlib.suppress(Closed):  # where the server was faster
                            await end(peer)
                        if end not in _LEAVING_AT_ONCE:
                            await peer.wait_eof()
                    await _one_place(bench, served, what)


@check("HS-12")
async def however_a_channel_ends(bench: Bench) -> None:
    """A channel gives its place back whoever ends it, and whichever of its callbacks raises, closes or is cancelled."""
    await _ways_to_end(bench, _served_ways(bench), _ENDINGS)


@check("HS-12", wire=True, fixed=["cut"])
async def however_a_peer_errs(bench: Bench) -> None:
    """A channel gives its place back after a violation, text that is not UTF-8, a message too big, and a timeout."""
    soon = 0.05 * bench.scale
    options: dict[str, Any] = {"idle_timeout": soon, "close_timeout": soon}
    routes: dict[str, Any] = {"/idle": bench.options(**options), "/plain": bench.options()}
    endings: list[tuple[str, str, End]] = [
        ("a reserved opcode", "/plain", lambda peer: peer.send_frame(3, b"?")),
        ("text that is not UTF-8", "/plain", lambda peer: peer.send_frame(Opcode.TEXT, b"\xff")),
        ("the idle timeout", "/idle", _nothing),
    ]
    if "size-limit" in bench.target.features:
        routes["/small"] = bench.options(max_text_size=10)
        endings.append(("a message that is too big", "/small", _says("x" * 11)))
    if "ping" in bench.target.features:
        routes["/pings"] = bench.options(ping_interval=soon, ping_timeout=soon)
        endings.append(("the ping timeout", "/pings", _does_not_pong))
    await _ways_to_end(bench, routes, endings)


async def _does_not_pong(peer: WirePeer) -> None:
    peer.auto_pong = False


@check("HS-12")
async def however_a_peer_is_cut_off(bench: Bench) -> None:
    """A channel gives its place back when its peer takes nothing for send_timeout, and is cut off."""
    options = bench.options(send_timeout=0.2 * bench.scale, close_timeout=0.1 * bench.scale)
    app = Application([("/clogged", options), ("/free", _free(bench))])
    async with bench.serve(app, max_channels=1) as served:
        async with served.peer("/clogged"):
            sends = await clog(bench, await bench.recorder.opened())
            await bench.within(sends.until_refused(), "the sends to a peer that takes nothing")
            await sends.all_return(bench, "for send_timeout")
        await _one_place(bench, served, "the send timeout")
