"""STOP-2, STOP-3 and STOP-5: how a connector stops, whatever is under way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import clog, messages_until_close, none_lost, pair
from wsbridge.conformance.client import Close, Eof, HandshakeRequest, Text, WireError, WirePeer
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench, Served, open_descriptors, open_what_stays
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import Connector, WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

SHUTDOWN = Close(1001, "server shutdown")


def _connector(served: Served) -> Connector:
    assert served.connector is not None
    return served.connector


async def _stop(bench: Bench, served: Served, limit: float, *, at_least: float = 0) -> None:
    """Stop, and check how many seconds that takes."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    await bench.within(_connector(served).stop(), "stop()", timeout=limit + 0.7 * bench.scale)
    took = loop.time() - before
    true(took >= at_least, f"stop() returned after {took:.3f} s, and must not before {at_least:.3f} s")


async def _told(bench: Bench, count: int = 1) -> None:
    """Check that the first ``count`` channels have ended by the stop."""
    for number in range(1, count + 1):
        reason = await bench.recorder.closed(number)
        equal((reason.code, reason.text, reason.initiator), (1001, "server shutdown", "local"), "the reason")


@check("STOP-2")
async def every_channel_is_told(bench: Bench) -> None:
    """Every channel gets its close frame with 1001 at once, and when all have answered stop() returns."""
    async with bench.serve(shutdown_timeout=6 * bench.scale) as served, contextlib.AsyncExitStack() as stack:
        peers: list[WirePeer] = [await stack.enter_async_context(served.peer()) for _ in range(20)]
        await bench.recorder.opened(20)
        stopping = asyncio.ensure_future(_stop(bench, served, bench.scale))
        for peer in peers:
            equal(await peer.receive(bench.scale), SHUTDOWN, "what the peer gets")
        for peer in peers:
            await peer.wait_eof(bench.scale)
        await stopping
        equal(len(bench.recorder.all("close-end")), 20, "how many on_close have ended when stop() returns")
        await _told(bench, 20)


@check("STOP-2")
async def no_more_is_accepted(bench: Bench) -> None:
    """From the stop on no channel opens, although others still close."""
    async with bench.serve(shutdown_timeout=1.2 * bench.scale) as served, pair(bench, served) as (peer, _):
        peer.auto_close = False
        address = served.address
        stopping = asyncio.ensure_future(_stop(bench, served, 1.2 * bench.scale))
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        true(not stopping.done(), "stop() did not wait for a peer that has not answered")
        with contextlib.suppress(WireError, OSError):
            late = await WirePeer.connect(address, target="/", timeout=0.3 * bench.scale)
            late.close()
            fail("a channel opened after the stop had begun")
        await peer.send_close(1001)
        await stopping
    equal(len(bench.recorder.all("open")), 1, "how often on_open ran")


@check("STOP-2")
async def a_peer_that_does_not_answer(bench: Bench) -> None:
    """A peer that has not answered at half of shutdown_timeout is cut off, and its channel's reason is the stop."""
    limit = bench.scale
    loop = asyncio.get_running_loop()
    async with bench.serve(shutdown_timeout=limit) as served, pair(bench, served) as (peer, _):
        peer.auto_close = False
        before = loop.time()
        stopping = asyncio.ensure_future(_stop(bench, served, limit, at_least=0.4 * limit))
        equal(await peer.receive(0.3 * limit), SHUTDOWN, "what the peer gets")
        await peer.wait_eof(limit)
        took = loop.time() - before
        true(0.4 * limit < took < 0.95 * limit + bench.lost, f"the peer was cut off after {took:.3f} of {limit} s")
        await stopping
        await _told(bench)


@check("STOP-2")
async def a_peer_that_is_clogged(bench: Bench) -> None:
    """A peer that reads nothing is cut off at half of shutdown_timeout, and sends that waited return."""
    limit = 0.6 * bench.scale
    async with bench.serve(shutdown_timeout=limit) as served, pair(bench, served) as (_, channel):
        sends = await clog(bench, channel)
        sends.begin()
        await _stop(bench, served, limit, at_least=0.4 * limit)
        await sends.all_return(bench, "at a stop", timeout=bench.scale)
        await _told(bench)


@check("STOP-2")
async def a_peer_that_reads_gets_everything(bench: Bench) -> None:
    """A peer that reads and answers in time gets every message for which a send returned True, then 1001."""
    async with bench.serve(shutdown_timeout=6 * bench.scale) as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        sending = asyncio.ensure_future(sends.until_refused())
        stopping = asyncio.ensure_future(_stop(bench, served, 6 * bench.scale))
        await asyncio.sleep(0.1 * bench.scale)  # so that it begins to read when the stop is well under way
        received, end = await messages_until_close(peer)
        await stopping
        await bench.within(sending, "the sender")
        await sends.all_return(bench, "at a stop")
        equal(end, SHUTDOWN, "what follows the messages")
        none_lost(sends, received)


@check("STOP-2")
async def a_callback_that_ends_in_time(bench: Bench) -> None:
    """A callback that ends within the first half runs to its end uncancelled; stop() waits for it and for on_close."""
    sent: list[bool] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.sleep(0.2 * bench.scale)
        sent.append(await channel.send_text("late"))

    async def on_close(channel: WebSocketChannel, process: Any, reason: Any) -> None:
        await asyncio.sleep(0.1 * bench.scale)
        bench.recorder.log("the end")

    options = bench.options(on_text=on_text, on_close=on_close)
    async with bench.serve(options, shutdown_timeout=4 * bench.scale) as served, pair(bench, served) as (peer, channel):
        await peer.send_text("a")
        await peer.send_text("b")
        await bench.recorder.wait("text")
        stopping = asyncio.ensure_future(_stop(bench, served, 1.5 * bench.scale, at_least=0.2 * bench.scale))
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        true(channel.reason is not None, "the reason is not known while a callback runs")
        await stopping
    equal(sent, [False], "what the callback's send returned")
    equal(bench.recorder.kinds(), ["open", "text", "close", "the end"], "the callbacks")


@check("STOP-2")
async def a_callback_that_does_not_end(bench: Bench) -> None:
    """A callback that still runs at half of shutdown_timeout is cancelled; on_close follows, and stop() returns."""
    limit = 0.8 * bench.scale
    loop = asyncio.get_running_loop()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            bench.recorder.log("cancelled", value=loop.time())
            raise

    async with bench.serve(bench.options(on_text=on_text), shutdown_timeout=limit) as served, served.peer() as peer:
        await peer.send_text("a")
        await bench.recorder.wait("text")
        before = loop.time()
        stopping = asyncio.ensure_future(_stop(bench, served, 0.75 * limit, at_least=0.4 * limit))
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        await stopping
        await _told(bench)
    after = [event.value - before for event in bench.recorder.all("cancelled")]
    equal(len(after), 1, "how often the callback was cancelled")
    in_time = 0.4 * limit < after[0] < 0.95 * limit + bench.lost
    true(in_time, f"the callback was cancelled after {after[0]:.3f} of {limit} s")
    equal(bench.recorder.kinds(), ["open", "text", "cancelled", "close"], "the callbacks")


@check("STOP-2")
async def an_on_open_that_does_not_end(bench: Bench) -> None:
    """An on_open that still runs at half of shutdown_timeout is cancelled, and on_close does not run."""
    limit = 0.6 * bench.scale

    async def on_open(channel: WebSocketChannel, request: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            bench.recorder.log("cancelled")

    async with bench.serve(bench.options(on_open=on_open), shutdown_timeout=limit) as served, served.peer() as peer:
        await bench.recorder.wait("open")
        stopping = asyncio.ensure_future(_stop(bench, served, 0.75 * limit, at_least=0.4 * limit))
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        await stopping
    equal(bench.recorder.kinds(), ["open", "cancelled"], "the callbacks")


async def _stubborn(bench: Bench, kind: str, cancels: int) -> None:
    """Stop while a callback does not let itself be cancelled; it is cancelled so often, logged and given up."""
    limit = 0.3 * bench.scale
    release = asyncio.Event()

    async def stay(channel: WebSocketChannel, process: Any, value: Any) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                bench.recorder.log("cancelled")

    callbacks: dict[str, Any] = {f"on_{kind}": stay}
    options = bench.options(**callbacks)
    async with bench.serve(options, shutdown_timeout=limit) as served, pair(bench, served) as (peer, channel):
        try:
            await peer.send_text("a")
            await bench.recorder.wait("text")
            await _stop(bench, served, limit + 0.25, at_least=0.8 * limit)
            true(len(bench.recorder.all("cancelled")) >= cancels, f"it was not cancelled {cancels} times")
            said = [record.getMessage() for record in bench.logs]
            true(any(channel.id in text for text in said), f"that the callback is given up was not logged: {said!r}")
        finally:
            release.set()
        await bench.recorder.wait(f"{kind}-end")


@check("STOP-2")
async def a_callback_that_will_not_be_cancelled(bench: Bench) -> None:
    """A callback that suppresses its cancellation at half and at shutdown_timeout is logged and given up there."""
    await _stubborn(bench, "text", 2)


@check("STOP-2")
async def an_on_close_that_will_not_be_cancelled(bench: Bench) -> None:
    """The same for an on_close, which may have begun at half of shutdown_timeout only."""
    await _stubborn(bench, "close", 1)


@check("STOP-2")
async def every_on_close_is_started(bench: Bench) -> None:
    """Every on_close is started, after callbacks that hang and for peers that do not answer; one that hangs is cut."""
    limit = 0.5 * bench.scale
    hangs = 6

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.sleep(60)

    async def on_close(channel: WebSocketChannel, process: Any, reason: Any) -> None:
        if channel in bench.recorder.channels[:2]:
            await asyncio.sleep(60)

    options = bench.options(on_text=on_text, on_close=on_close)
    async with bench.serve(options, shutdown_timeout=limit) as served, contextlib.AsyncExitStack() as stack:
        for number in range(hangs):
            peer, _ = await stack.enter_async_context(pair(bench, served))
            if number % 2:
                await peer.send_text("hang")
        await bench.recorder.wait("text", hangs // 2)
        await _stop(bench, served, limit + 0.25)
        equal(len(bench.recorder.all("close")), hangs, "how many on_close have started when stop() returns")
        await bench.recorder.wait("close-end", hangs)


async def _busy(bench: Bench, served: Served, stack: contextlib.AsyncExitStack, round_: int) -> int:
    """Open connections of every kind, leave them as they are, and return how many."""
    for _ in range(3):
        await stack.enter_async_context(pair(bench, served))
    peer, channel = await stack.enter_async_context(pair(bench, served))
    peer.auto_close = False
    channel.close()
    _, channel = await stack.enter_async_context(pair(bench, served))
    sends = await clog(bench, channel)
    stack.push_async_callback(sends.all_return, bench, "at a stop")
    busy, _ = await stack.enter_async_context(pair(bench, served))
    await busy.send_text("hang")
    await bench.recorder.wait("text", round_)
    if not bench.target.has_wire:
        return 6
    await stack.enter_async_context(served.raw())
    half = await stack.enter_async_context(served.raw())
    await half.request(b"GET / HTTP/1.1\r\nHost: half\r\n")
    kept = await stack.enter_async_context(served.raw())
    await kept.request(f"GET /nowhere HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
    equal((await kept.read_response()).status, 404, "the status for a path with no route")
    return 9


@check("STOP-3")
async def nothing_is_left(bench: Bench) -> None:
    """After stop() no task, socket, thread or timer is left, whatever was under way; and once more."""
    await open_what_stays()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.sleep(60)

    connector: Connector = bench.connector(
        Application([("/", bench.options(on_text=on_text))]), shutdown_timeout=0.3 * bench.scale
    )
    for round_ in (1, 2):
        tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
        before = open_descriptors()
        await bench.within(connector.start(), "start()")
        served = bench.served(connector)
        async with contextlib.AsyncExitStack() as stack:
            allowed = before + await _busy(bench, served, stack, round_)
            await _stop(bench, served, 0.7 * bench.scale)
            left = [task.get_coro() for task in asyncio.all_tasks() - tasks if not task.done()]
            equal([coro for coro in left if "Sends._send" not in repr(coro)], [], "tasks when stop() returns")
            await _falls_to(bench, allowed)
            equal(list(set(threading.enumerate()) - threads), [], "threads when stop() returns")
        equal(len(bench.recorder.all("close")), len(bench.recorder.all("open")), "on_close, against on_open")


async def _falls_to(bench: Bench, descriptors: int) -> None:
    """Wait a moment until no more descriptors are open: a transport closes its socket one turn of the loop later."""
    await bench.settle(lambda: open_descriptors() <= descriptors, "the end of sockets", timeout=0.5 * bench.scale)


@check("STOP-3")
async def it_starts_again(bench: Bench) -> None:
    """A stopped connector starts again, on the same port if one is given, and serves as before."""
    app = Application([("/", bench.options())])
    connector: Connector = bench.connector(app, shutdown_timeout=2 * bench.scale)
    await bench.within(connector.start(), "start()")
    given = {"port": connector.addresses[0][1]} if bench.target.has_wire else {}
    addresses = list(connector.addresses)
    await bench.within(connector.stop(), "stop()")
    connector = bench.connector(app, shutdown_timeout=2 * bench.scale, **given)
    for number in range(1, 4):
        await bench.within(connector.start(), "start()")
        served = bench.served(connector)
        equal(list(connector.addresses), addresses, "the addresses")
        async with pair(bench, served) as (peer, channel):
            await channel.send_text("hello")
            equal(await peer.receive(), Text("hello"), "what the peer gets")
            stopping = asyncio.ensure_future(_stop(bench, served, bench.scale))
            equal(await peer.receive(), SHUTDOWN, "what the peer gets")
            await stopping
        await _told(bench, number)


@check("STOP-3")
async def stopped_twice_or_never_started(bench: Bench) -> None:
    """stop() before start(), and a second one, do nothing."""
    connector: Connector = bench.connector(Application([("/", bench.options())]))
    await bench.within(connector.stop(), "stop() before start()", timeout=bench.scale)
    await bench.within(connector.start(), "start()")
    await bench.within(connector.stop(), "stop()")
    await bench.within(connector.stop(), "a second stop()", timeout=bench.scale)
    equal(list(connector.addresses), [], "the addresses")


@check("STOP-3")
async def two_at_once(bench: Bench) -> None:
    """Two stops at once wait for the same stop: neither returns before all is done."""
    async with bench.serve(shutdown_timeout=4 * bench.scale) as served, pair(bench, served) as (peer, _):
        peer.auto_close = False
        stops = [asyncio.ensure_future(_connector(served).stop())]
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        stops.append(asyncio.ensure_future(_connector(served).stop()))
        await asyncio.wait(stops, timeout=0.1 * bench.scale)
        equal([stop.done() for stop in stops], [False, False], "stops that returned before the channel had ended")
        await peer.send_close(1001)
        await bench.within(asyncio.gather(*stops), "two stop() at once", timeout=bench.scale)
        equal(len(bench.recorder.all("close-end")), 1, "how many on_close have ended")


@check("STOP-3")
async def a_cancelled_stop(bench: Bench) -> None:
    """A stop() that is cancelled cuts off at once: peers, callbacks, and itself; then the connector starts again."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.sleep(60)

    app = Application([("/", bench.options(on_text=on_text))])
    connector: Connector = bench.connector(app, shutdown_timeout=30 * bench.scale)
    await open_what_stays()
    before = open_descriptors()
    await bench.within(connector.start(), "start()")
    served = bench.served(connector)
    async with pair(bench, served) as (peer, _), pair(bench, served) as (busy, _):
        peer.auto_close = False
        await busy.send_text("hang")
        await bench.recorder.wait("text")
        stopping = asyncio.ensure_future(connector.stop())
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        stopping.cancel()
        await bench.within(asyncio.wait((stopping,)), "a cancelled stop()", timeout=2 * bench.scale)
        true(stopping.cancelled(), "a cancelled stop() ended without CancelledError")
        await peer.wait_eof(bench.scale)
        await bench.within(connector.stop(), "stop() after a cancelled one", timeout=2 * bench.scale)
        await _told(bench, 2)
    await _falls_to(bench, before)
    await bench.within(connector.start(), "start() after a cancelled stop()")
    async with pair(bench, bench.served(connector)):
        pass
    await bench.within(connector.stop(), "stop()", timeout=2 * bench.scale)


async def _in_a_callback(bench: Bench, kind: str, stop: Callable[[Connector], Any]) -> None:
    connectors: list[Connector] = []

    async def stops(channel: WebSocketChannel, *arguments: Any) -> None:
        if channel is bench.recorder.channels[-1]:
            await stop(connectors[0])
            bench.recorder.log("stopped", value=list(connectors[0].addresses))

    limit = 1.2 * bench.scale
    options = bench.options(**{f"on_{kind}": stops} if kind != "open" else {"on_open": None})
    app = Application([("/", options), ("/stops", bench.options(on_open=stops))])
    async with bench.serve(app, shutdown_timeout=limit) as served, pair(bench, served) as (other, _):
        connectors.append(_connector(served))
        async with served.peer("/stops" if kind == "open" else "/") as peer:
            await bench.recorder.opened(2)
            if kind == "text":
                await peer.send_text("stop")
            elif kind == "close":
                await peer.send_close(4002)
            equal(await other.receive(), SHUTDOWN, "what the peer of another channel gets")
            stopped = await bench.recorder.wait("stopped", timeout=limit + bench.scale)
            equal(stopped.value, [], "the addresses when stop() has returned in a callback")
            if kind != "close":
                equal((await peer.receive_close()), SHUTDOWN, "what the peer gets")
            await bench.recorder.wait("close-end", 2)
        codes = sorted(reason.code for reason in bench.recorder.values("close"))
        equal(codes, [1001, 4002] if kind == "close" else [1001, 1001], "the codes")
        await bench.within(connectors[0].stop(), "a later stop()")


@check("STOP-3")
async def in_on_text(bench: Bench) -> None:
    """A stop that is awaited in on_text does not deadlock, and closes the channel it is called from too."""
    await _in_a_callback(bench, "text", lambda connector: connector.stop())


@check("STOP-3")
async def in_on_open(bench: Bench) -> None:
    """A stop that is awaited in on_open does not deadlock."""
    await _in_a_callback(bench, "open", lambda connector: connector.stop())


@check("STOP-3")
async def in_on_close(bench: Bench) -> None:
    """A stop that is awaited in on_close does not deadlock."""
    await _in_a_callback(bench, "close", lambda connector: connector.stop())


@check("STOP-3")
async def in_a_task_of_a_callback(bench: Bench) -> None:
    """A callback that awaits another task which stops the connector does not deadlock: both end in the stop's time."""
    limit = 0.6 * bench.scale
    stops: list[asyncio.Task[None]] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        stops.append(asyncio.ensure_future(_connector(served).stop()))
        await asyncio.shield(stops[0])

    async with bench.serve(bench.options(on_text=on_text), shutdown_timeout=limit) as served, served.peer() as peer:
        await peer.send_text("stop")
        equal(await peer.receive(), SHUTDOWN, "what the peer gets")
        await bench.recorder.wait("text-end", timeout=limit + bench.scale)
        await bench.within(stops[0], "the stop", timeout=limit + bench.scale)
        await _told(bench)
    equal(bench.recorder.kinds(), ["open", "text", "close"], "the callbacks")


@contextlib.asynccontextmanager
async def _slow_chain(
    bench: Bench, stage: str, release: asyncio.Event, *, stubborn: bool = False, **options: Any
) -> AsyncGenerator[Served, None]:
    """Serve an application with an interceptor that waits in its enter or leave stage."""

    async def wait(context: Context) -> None:
        bench.recorder.log("waits")
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                bench.recorder.log("cancelled")
                if not stubborn:
                    raise

    interceptor = Interceptor(name="slow", enter=wait) if stage == "enter" else Interceptor(name="slow", leave=wait)
    app = Application([("/", (interceptor, websocket_interceptor("slow", bench.options())))])
    async with bench.serve(app, **options) as served:
        yield served


async def _refused_or_closed(peer: WirePeer, timeout: float) -> None:
    """Check that a peer whose handshake was under way gets an answer of 503, or the end of the connection."""
    try:
        response = await peer.read_response(timeout)
    except WireError as exc:
        if isinstance(exc, TimeoutError):
            raise
        return
    equal(response.status, 503, "the status of the answer")


async def _under_way(bench: Bench, stage: str) -> None:
    """Stop while a chain waits, and check that its peer is refused within the time of the stop."""
    limit = bench.scale
    async with _slow_chain(bench, stage, asyncio.Event(), shutdown_timeout=limit) as served, served.raw() as peer:
        await peer.request(HandshakeRequest.build(served.address, target=served.target("/")).encode())
        await bench.recorder.wait("waits")
        stopping = asyncio.ensure_future(_stop(bench, served, limit))
        await _refused_or_closed(peer, limit)
        await stopping
    equal(bench.recorder.kinds(), ["waits", "cancelled"], "what ran")


@check("STOP-5")
async def an_enter_stage_that_waits(bench: Bench) -> None:
    """A handshake whose enter stage waits at the stop is refused, or closed; no callback runs."""
    await _under_way(bench, "enter")


@check("STOP-5")
async def a_leave_stage_that_waits(bench: Bench) -> None:
    """A handshake whose leave stage waits at the stop is refused, or closed; no callback runs."""
    await _under_way(bench, "leave")


@check("STOP-5")
async def an_interceptor_that_will_not_be_cancelled(bench: Bench) -> None:
    """An interceptor that suppresses its cancellation does not hold the stop; no channel opens when it is through."""
    limit = 0.5 * bench.scale
    release = asyncio.Event()
    async with (
        _slow_chain(bench, "enter", release, stubborn=True, shutdown_timeout=limit) as served,
        served.raw() as peer,
    ):
        try:
            await peer.request(HandshakeRequest.build(served.address, target=served.target("/")).encode())
            await bench.recorder.wait("waits")
            await _stop(bench, served, limit + 0.25)
        finally:
            release.set()
        await _refused_or_closed(peer, bench.scale)
    true("open" not in bench.recorder.kinds(), "on_open ran after the stop")


async def _unfinished(bench: Bench, request: bytes) -> None:
    """Stop while a peer has sent a part of its request; it is closed, and the stop need not wait for it."""
    limit = bench.scale
    async with bench.serve(shutdown_timeout=limit) as served, served.raw() as peer:
        async with pair(bench, served):
            pass  # so that the server has seen the other connection by now
        await bench.recorder.closed()
        if request:
            await peer.request(request)
        stopping = asyncio.ensure_future(_stop(bench, served, limit))
        await _refused_or_closed(peer, limit)
        true(isinstance(await peer.wait_eof(limit), Eof), "the connection is still open")
        await stopping
    equal(len(bench.recorder.all("open")), 1, "how often on_open ran")


@check("STOP-5", wire=True)
async def a_request_not_begun(bench: Bench) -> None:
    """A peer that has sent nothing is closed."""
    await _unfinished(bench, b"")


@check("STOP-5", wire=True)
async def a_request_half_sent(bench: Bench) -> None:
    """A peer that has sent half of its request is closed."""
    await _unfinished(bench, b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso")


@check("STOP-5")
async def a_request_during_the_stop(bench: Bench) -> None:
    """A handshake on a connection from before that is sent while the stop is under way is refused, or closed."""
    limit = 2 * bench.scale
    async with bench.serve(shutdown_timeout=limit) as served, served.raw() as late, pair(bench, served) as (peer, _):
        peer.auto_close = False
        stopping = asyncio.ensure_future(_stop(bench, served, limit))
        equal(await peer.receive(), SHUTDOWN, "what the peer of a channel gets")
        with contextlib.suppress(WireError):  # if it is closed already
            await late.request(HandshakeRequest.build(served.address, target=served.target("/")).encode())
        await _refused_or_closed(late, limit)
        await peer.send_close(1001)
        await stopping
    equal(len(bench.recorder.all("open")), 1, "how often on_open ran")


@check("STOP-5", stochastic=True)
async def handshakes_at_the_moment_of_the_stop(bench: Bench) -> None:
    """Handshakes at any moment around the stop open a channel that is told of it, or are refused, or closed."""
    for number in range(12):
        async with bench.serve(shutdown_timeout=bench.scale) as served, served.raw() as peer:
            await peer.request(HandshakeRequest.build(served.address, target=served.target("/")).encode())
            for _ in range(number):
                await asyncio.sleep(0)
            opened = len(bench.recorder.all("open"))
            stopping = asyncio.ensure_future(_stop(bench, served, bench.scale))
            peer_saw: object = None
            with contextlib.suppress(WireError):
                response = await peer.read_response(bench.scale)
                peer_saw = response.status
                if response.status == 101:
                    peer_saw = await peer.receive(bench.scale)
            await stopping
            true(peer_saw in (None, 503, SHUTDOWN, Eof(), Eof(reset=True)), f"the peer saw {peer_saw!r}")
            true(opened == 0 or peer_saw == SHUTDOWN, f"the channel had opened, and the peer saw {peer_saw!r}")
    equal(len(bench.recorder.all("close")), len(bench.recorder.all("open")), "on_close, against on_open")
