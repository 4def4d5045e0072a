"""HS-10 and HS-12: handshakes that are never finished, and channels that are too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import LEAVE
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.client import Closed, Eof, HttpResponse, Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.hand_clock import now
from wsbridge.conformance.harness.bench import Bench, Served, open_descriptors
from wsbridge.http import Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.upgrade import websocket_interceptor

_TIMEOUT = 0.5  # seconds, stretched: the handshake_timeout of these checks
_LATE = 1.0  # seconds, stretched: how much later the cut may come


@contextlib.asynccontextmanager
async def _nothing_left(bench: Bench, what: str, **options: Any) -> AsyncGenerator[Served, None]:
    """Serve, and then wait until tasks and descriptors are as many as before, while the server still runs."""
    async with bench.serve(**options) as served:
        await ask(served, target="/warm-up")  # what is made once, for the first request, does not count
        await asyncio.sleep(0)
        tasks, descriptors = _tasks(), open_descriptors()
        yield served
        await bench.settle(
            lambda: _tasks() <= tasks and open_descriptors() <= descriptors,
            f"the end of every task and socket of a peer that {what} (besides {len(tasks)} tasks and "
            f"{descriptors} descriptors that were there before)",
        )
        equal(bench.recorder.kinds(), [], f"the callbacks for a peer that {what}")
        async with served.peer() as peer:
            await peer.send_text("well")
            await bench.recorder.wait("text")


def _tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if not task.done()}


async def _cut_off(bench: Bench, peer: WirePeer, since: float, what: str) -> None:
    """Wait for the end of a connection, with or without an answer; it must come in time and not before."""
    try:
        answer: HttpResponse | None = await peer.read_response()
        await peer.wait_eof()
    except Closed:
        answer = None
    seconds = now() - since
    if answer is not None:
        true(400 <= answer.status <= 599, f"the answer to a peer that {what}: {answer.status}")
    limit = (_TIMEOUT + _LATE) * bench.scale + bench.lost
    true(seconds <= limit, f"a peer that {what} was cut off after {seconds:.2f} s only")
    true(seconds >= _TIMEOUT * bench.scale * 0.8, f"a peer that {what} was cut off after {seconds:.2f} s already")


def _request(served: Served, **request: Any) -> bytes:
    return handshake(served, **request).encode()


# ---- HS-10 ----------------------------------------------------------------------------------------------------------


@check("HS-10", wire=True)
async def a_peer_that_leaves(bench: Bench) -> None:
    """A peer that leaves before its request is whole, by an end or a reset, leaves no callback, task or socket."""
    async with _nothing_left(bench, "leaves early") as served:
        request = _request(served)
        for size in (0, 1, 16, len(request) - 2, len(request) - 1):
            for leave in LEAVE:
                async with served.raw() as peer:
                    if size:
                        await peer.request(request[:size])
                    leave(peer)


@check("HS-10", wire=True)
async def a_peer_that_ends_its_side(bench: Bench) -> None:
    """A peer that ends its side of the connection in the middle of its request is not waited for."""
    async with _nothing_left(bench, "ends its side") as served:
        request = _request(served)
        for size in (0, 1, 40, len(request) - 1):
            async with served.raw() as peer:
                if size:
                    await peer.request(request[:size])
                await peer.half_close()
                try:
                    true((await peer.read_response()).status >= 400, "half a request was not refused")
                    await peer.wait_eof()
                except Closed:
                    pass


@check("HS-10")
async def a_peer_that_leaves_while_the_chain_runs(bench: Bench) -> None:
    """A peer that leaves while interceptors still decide leaves no callback, task or socket."""
    released = asyncio.Event()

    async def wait(context: Context) -> None:
        if context["request"].args.get("wait"):
            bench.recorder.log("deciding")
            await released.wait()

    app = Application([("/", bench.options())], [Interceptor(name="wait", enter=wait)])
    async with bench.serve(app) as served:
        await ask(served, target="/warm-up")
        tasks, descriptors = _tasks(), open_descriptors()
        for number, leave in enumerate(LEAVE, 1):
            released.clear()
            async with served.raw() as peer:
                await peer.request(handshake(served, "/?wait=yes").encode())
                await bench.recorder.wait("deciding", number)
                leave(peer)
            await asyncio.sleep(0.05)  # for the server to see it; no event on this side tells when it has
            released.set()
            await bench.settle(
                lambda: _tasks() <= tasks and open_descriptors() <= descriptors, "the end of its tasks and sockets"
            )
        equal(bench.recorder.kinds(), ["deciding", "deciding"], "the callbacks for peers that have left")
        async with served.peer() as peer:
            await peer.send_text("well")
            await bench.recorder.wait("text")


@check("HS-10")
async def a_refused_peer_that_leaves(bench: Bench) -> None:
    """A peer that is refused, whatever it has sent after its request, leaves nothing behind once it has left."""
    async with _nothing_left(bench, "is refused and leaves") as served:
        for size in (0, 1000, 256 * 1024):
            tail = build_frame(Opcode.BINARY, bytes(size)) if size else b""
            for request in (handshake(served, "/nowhere"), handshake(served, replace={"Sec-WebSocket-Key": "bad"})):
                async with served.raw() as peer:
                    await peer.request(request.encode() + tail)
                    true(400 <= (await peer.read_response()).status <= 499, "a bad handshake was not refused")


@check("HS-10", wire=True)
async def a_peer_that_is_silent(bench: Bench) -> None:
    """A peer that sends nothing, or half a request and no more, is cut off after handshake_timeout."""

    async def stall(served: Served, size: int) -> None:
        async with served.raw() as peer:
            since = now()
            if size:
                await peer.request(_request(served)[:size])
            await _cut_off(bench, peer, since, f"sends {size} bytes and no more")

    async with _nothing_left(bench, "is silent", handshake_timeout=_TIMEOUT * bench.scale) as served:
        whole = len(_request(served))
        await asyncio.gather(*(stall(served, size) for size in (0, 1, 40, whole - 1)))


@check("HS-10", wire=True)
async def a_byte_now_and_then(bench: Bench) -> None:
    """A byte now and then does not prolong the time that a peer has, from its first byte or from its connection."""

    async def trickle(served: Served, step: float, begin: int) -> None:
        async with served.raw() as peer:
            since = now()
            if begin:
                await peer.request(_request(served, headers=[("X-Long", "x" * 1000)])[:begin])
            sending = asyncio.ensure_future(
                _send_slowly(peer, step, b"GET / HTTP/1.1\r\n" if not begin else b"x" * 999)
            )
            try:
                await _cut_off(bench, peer, since, f"sends a byte every {step:g} s")
            finally:
                sending.cancel()
                await asyncio.wait((sending,))

    async with _nothing_left(bench, "sends a byte now and then", handshake_timeout=_TIMEOUT * bench.scale) as served:
        await asyncio.gather(*(trickle(served, step, begin) for step in (0.02, 0.2) for begin in (0, 20, 200)))


async def _send_slowly(peer: WirePeer, step: float, data: bytes) -> None:
    with contextlib.suppress(Closed):
        for byte in data:
            await peer.send_raw(bytes((byte,)))
            await asyncio.sleep(step)


@check("HS-10")
async def a_second_request(bench: Bench) -> None:
    """On a connection that has had an answer the same holds for what comes next: silence, or a byte now and then."""

    async def stall(served: Served, slow: bool) -> None:
        async with served.raw() as peer:
            await peer.request(handshake(served, "/nowhere").encode())
            equal((await peer.read_response()).status, 404, "the status of the first request")
            since = now()
            sending = asyncio.ensure_future(_send_slowly(peer, 0.1, b"GET / HTTP/1.1\r\n" * 100 if slow else b""))
            try:
                with contextlib.suppress(Closed):
                    await peer.read_response()
                    await peer.wait_eof()
            finally:
                sending.cancel()
                await asyncio.wait((sending,))
            seconds = now() - since
            limit = (_TIMEOUT + _LATE) * bench.scale + bench.lost
            true(seconds <= limit, f"after an answer the connection stayed for {seconds:.2f} s")

    async with _nothing_left(bench, "asks twice", handshake_timeout=_TIMEOUT * bench.scale) as served:
        await asyncio.gather(stall(served, False), stall(served, True))


@check("HS-10", wire=True)
async def slow_but_in_time(bench: Bench) -> None:
    """A request that comes in pieces, but whole in time, opens a channel."""
    async with bench.serve(handshake_timeout=2 * bench.scale) as served, served.raw() as peer:
        built = handshake(served)
        request = built.encode()
        for start in range(0, len(request), 40):
            await peer.request(request[start : start + 40])
            await asyncio.sleep(0.01)
        peer.start_websocket(built, await peer.read_response())
        await peer.send_text("whole")
        await bench.recorder.wait("text")


@check("HS-10")
async def no_longer_once_it_is_open(bench: Bench) -> None:
    """The time is the request's alone: neither the chain of interceptors nor an open channel is cut off by it."""

    async def think(context: Context) -> None:
        await asyncio.sleep(1.4 * timeout)

    timeout = _TIMEOUT * bench.scale
    chain = (Interceptor(name="think", enter=think), websocket_interceptor("/", bench.options()))
    async with bench.serve(Application([("/", chain)]), handshake_timeout=timeout) as served, served.peer() as peer:
        await bench.recorder.wait("open")
        await peer.expect_silence(1.4 * timeout)
        await peer.send_text("still here")
        await bench.recorder.wait("text")


# ---- HS-12 ----------------------------------------------------------------------------------------------------------


async def _is_full(served: Served, what: str, **request: Any) -> None:
    answer = await ask(served, **request)
    equal(answer.status, 503, f"the status {what}")
    true((answer.header("Retry-After") or "").isdigit(), f"Retry-After {what}: {answer.header('Retry-After')!r}")


@check("HS-12")
async def one_too_many(bench: Bench) -> None:
    """Above max_channels the answer is 503 with Retry-After; the open channels go on; a place that is left is free."""
    async with bench.serve(max_channels=2) as served, served.peer() as first:
        async with served.peer() as second:
            await bench.recorder.wait("open", 2)
            for _ in range(3):
                await _is_full(served, "with two open channels of two")
            for count, peer in enumerate((first, second), 1):
                await peer.send_text("on")
                await bench.recorder.wait("text", count)
            equal(bench.recorder.kinds().count("open"), 2, "how often on_open ran")
            await second.send_close(1000)
            await bench.recorder.closed()
        async with served.peer() as third:
            await third.send_text("on")
            await bench.recorder.wait("text", 3)
            await _is_full(served, "with two open channels of two, again")


@check("HS-12")
async def each_way_to_end_frees_a_place(bench: Bench) -> None:
    """A place is free again once on_close has returned, however the channel ended."""

    async def ends(channel: Any, process: object, text: str) -> None:
        if text == "raise":
            raise RuntimeError("on_text raises")
        channel.close()

    ways: dict[str, Callable[[WirePeer], Any]] = {
        "the peer's close": lambda peer: peer.send_close(1000),
        "a loss": lambda peer: peer.half_close(),
        "a local close": lambda peer: peer.send_text("close"),
        "an exception": lambda peer: peer.send_text("raise"),
    }
    async with bench.serve(bench.options(on_text=ends), max_channels=1) as served:
        for count, (what, end) in enumerate(ways.items(), 1):
            async with served.peer() as peer:
                await _is_full(served, f"with one open channel of one, before {what}")
                await end(peer)
                await peer.wait_eof()
                await bench.recorder.wait("close-end", count)
        async with served.peer() as peer:
            await bench.recorder.wait("open", len(ways) + 1)


@check("HS-12")
async def until_on_close_has_returned(bench: Bench) -> None:
    """A channel counts until its on_close has returned."""
    released = asyncio.Event()
    options = bench.options(on_close=lambda channel, process, reason: released.wait())
    async with bench.serve(options, max_channels=1) as served:
        async with served.peer() as peer:
            await peer.send_close(1000)
            await bench.recorder.wait("close")
        await _is_full(served, "while on_close runs")
        released.set()
        await bench.recorder.wait("close-end")
        async with served.peer():
            await bench.recorder.wait("open", 2)


@check("HS-12", stochastic=True)
async def handshakes_side_by_side(bench: Bench) -> None:
    """Handshakes side by side cannot overshoot: a channel counts as soon as its request has passed the checks."""
    passed = asyncio.Event()

    async def hold(context: Context) -> None:
        await passed.wait()

    chain = (Interceptor(name="hold", leave=hold), websocket_interceptor("/", bench.options()))
    async with bench.serve(Application([("/", chain)]), max_channels=2) as served, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(served.raw()) for _ in range(8)]
        for peer in peers:
            await peer.request(_request(served))
        await asyncio.sleep(0.05)  # all eight are in the leave stage, or refused after it
        passed.set()
        answers = [await peer.read_response() for peer in peers]
        statuses = sorted(answer.status for answer in answers)
        equal(statuses, [101, 101, 503, 503, 503, 503, 503, 503], "the statuses of eight handshakes at once")
        await bench.recorder.wait("open", 2)
        equal(bench.recorder.kinds(), ["open", "open"], "the callbacks")


@check("HS-12")
async def what_does_not_count(bench: Bench) -> None:
    """A request that is refused, and one whose channel is given up before the 101, takes no place."""

    def leave(context: Context) -> None:
        if context["request"].args.get("by") == "response":
            context["response"] = Response("no", 418)
        elif context["request"].args.get("by") == "exception":
            raise RuntimeError("the leave stage raises")

    chain = (Interceptor(name="leave", leave=leave), websocket_interceptor("/", _limited(bench)))
    requests: list[tuple[int, dict[str, Any]]] = [
        (404, {"target": "/nowhere"}),
        (400, {"replace": {"Sec-WebSocket-Key": "bad"}}),
        (403, {"headers": [("Origin", "http://evil.example")]}),
        (418, {"target": "/?by=response"}),
        (500, {"target": "/?by=exception"}),
    ]
    async with bench.serve(Application([("/", chain)]), max_channels=1) as served:
        for status, request in requests:
            for _ in range(2):
                equal((await ask(served, **request)).status, status, f"the status for {request}")
        async with served.peer() as peer:
            await bench.recorder.wait("open")
            # a refusal says why, whether or not there is room
            for status, request in requests[:3]:
                equal((await ask(served, **request)).status, status, f"the status for {request} where all is full")
            await _is_full(served, "with one open channel of one")
            true(not any(isinstance(event, Eof) for event in peer.received), "the open channel ended")
    equal(bench.recorder.kinds(), ["open", "close"], "the callbacks")


def _limited(bench: Bench) -> WebSocketOptions[Any]:
    return bench.options(origins=["http://good.example"])
