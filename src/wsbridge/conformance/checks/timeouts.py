"""LIM-2 to LIM-4: what happens when nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wsbridge.close import CloseReason
from wsbridge.conformance.checks.common import clog
from wsbridge.conformance.checks.recv import echo
from wsbridge.conformance.client import Close, Closed, Eof, Opcode, Ping, Pong, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.server_process import MIB
from wsbridge.protocols import Feature, WebSocketChannel

__all__: list[str] = []

PING: Sequence[Feature] = ("ping",)
IDLE = (1001, "idle timeout", "local")
NO_PONG = (1011, "ping timeout", "local")
STUCK = (1008, "send timeout", "local")


def facts(reason: CloseReason) -> tuple[int, str, str]:
    """Return what tells one end from another."""
    return reason.code, reason.text, reason.initiator


def between(bench: Bench, first: str, last: str) -> float:
    """Return the seconds from the last event of one kind to the first of another."""
    return bench.recorder.all(last)[0].at - bench.recorder.all(first)[-1].at


async def ended(bench: Bench, peer: WirePeer, close: Close, seconds: float, since: str, timeout: float) -> None:
    """Check that an idle peer gets ``close``, after ``seconds`` from the last event ``since`` and not long after."""
    equal(await peer.receive_close(), close, "what the peer got")
    await bench.recorder.closed()
    took = between(bench, since, "close")
    in_time = 0.9 * seconds <= took <= timeout + bench.lost
    true(in_time, f"the end came {took:.2f} s after {since}, and was due after {seconds:g} s")


# ---- LIM-2 ----------------------------------------------------------------------------------------------------------


@check("LIM-2")
async def idle_from_the_start(bench: Bench) -> None:
    """A channel on which no message ever comes or goes is closed with 1001 after idle_timeout, and not before."""
    idle = 0.2 * bench.scale
    async with bench.serve(bench.options(idle_timeout=idle)) as served, served.peer() as peer:
        await ended(bench, peer, Close(1001, "idle timeout"), idle, "open", idle + bench.scale)
        equal(facts(await bench.recorder.closed()), IDLE, "the reason")


@check("LIM-2")
async def idle_after_messages(bench: Bench) -> None:
    """The time counts from the last message in, text or binary, and each one makes it begin anew."""
    idle = 0.2 * bench.scale
    async with bench.serve(bench.options(idle_timeout=idle)) as served, served.peer() as peer:
        for number in range(6):
            await (peer.send_text("in") if number % 2 else peer.send_binary(b"in"))
            await asyncio.sleep(idle / 3)
        equal(bench.recorder.values("close"), [], "ends while messages came")
        await peer.send_text("last")
        await bench.recorder.wait("text", 4)
        await ended(bench, peer, Close(1001, "idle timeout"), idle, "text", idle + bench.scale)
        equal(facts(await bench.recorder.closed()), IDLE, "the reason")


@check("LIM-2")
async def messages_that_take_no_time(bench: Bench) -> None:
    """Messages count where no callback takes them, or a plain function does, just as well."""
    idle = 0.3 * bench.scale

    def takes(*arguments: Any) -> None:
        """Take a message at once."""

    for callbacks in ({}, {"on_text": takes, "on_binary": takes}):
        options = bench.bare_options(idle_timeout=idle, **callbacks)
        async with bench.serve(options) as served, served.peer() as peer:
            for number in range(10):  # those of one kind take longer than the time, those of the other too
                await (peer.send_text("in") if number < 5 else peer.send_binary(b"in"))
                await asyncio.sleep(idle / 3)
            await peer.ping(b"open")
            equal(await peer.receive(), Pong(b"open"), "what the peer gets while messages come")
            equal(await peer.receive(), Close(1001, "idle timeout"), "what it gets then")


@check("LIM-2")
async def messages_out_count(bench: Bench) -> None:
    """A channel that only sends is not idle, and is when it stops."""
    idle = 0.2 * bench.scale
    async with bench.serve(bench.options(idle_timeout=idle)) as served, served.peer() as peer:
        channel = await bench.recorder.opened()
        for number in range(6):
            sent = await (channel.send_text("out") if number % 2 else channel.send_binary(b"out"))
            true(sent, "a send was refused while messages went out")
            await peer.receive_message()
            await asyncio.sleep(idle / 3)
        equal(bench.recorder.values("close"), [], "ends while messages went out")
        bench.recorder.log("sent")
        await channel.send_text("last")
        await ended(bench, peer, Close(1001, "idle timeout"), idle, "sent", idle + bench.scale)


@check("LIM-2")
async def pings_of_the_peer_do_not_count(bench: Bench) -> None:
    """A peer that only pings and pongs is idle."""
    idle = 0.3 * bench.scale
    async with bench.serve(bench.options(idle_timeout=idle)) as served, served.peer() as peer:
        raw = build_frame(Opcode.PING, b"alive") + build_frame(Opcode.PONG, b"alive")
        talking = asyncio.ensure_future(_talk(peer, idle / 10, raw))
        await ended(bench, peer, Close(1001, "idle timeout"), idle, "open", 3 * idle)
        equal(facts(await bench.recorder.closed()), IDLE, "the reason")
        await bench.within(talking, "the peer's sends, which must fail")


@check("LIM-2", needs=PING)
async def own_pings_do_not_count(bench: Bench) -> None:
    """A channel on which only the connector's own pings go out and are answered is idle."""
    idle = 0.2 * bench.scale
    options = bench.options(idle_timeout=idle, ping_interval=0.05 * bench.scale, ping_timeout=5 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        await ended(bench, peer, Close(1001, "idle timeout"), idle, "open", idle + bench.scale)
        true(any(isinstance(event, Ping) for event in peer.received), "no ping came")


@check("LIM-2")
async def not_idle_while_a_callback_runs(bench: Bench) -> None:
    """While on_open or a message callback runs the clock stands still; after it the whole time counts."""
    idle = 0.15 * bench.scale

    async def long(*arguments: Any) -> None:
        await asyncio.sleep(2 * idle)

    options = bench.options(on_open=long, on_binary=long, idle_timeout=idle)
    async with bench.serve(options) as served, served.peer() as peer:
        await bench.recorder.wait("open-end")
        await peer.send_binary(b"")
        await bench.recorder.wait("binary-end")
        equal(bench.recorder.kinds(), ["open", "binary"], "the callbacks by then")
        await ended(bench, peer, Close(1001, "idle timeout"), idle, "binary-end", idle + bench.scale)


@check("LIM-2")
async def never_idle_by_default(bench: Bench) -> None:
    """Without idle_timeout nothing happens on a silent channel."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.expect_silence(0.2 * bench.scale)
        equal(bench.recorder.values("close"), [], "ends")


# ---- LIM-3 ----------------------------------------------------------------------------------------------------------


async def _cut_off(bench: Bench, peer: WirePeer, limit: float) -> None:
    """Check that the peer, which is open and silent, is sent 1011 and cut off at once, within ``limit``."""
    equal(await peer.receive_close(limit + bench.scale), Close(1011, "ping timeout"), "what the peer got")
    await peer.wait_eof(0.5 * bench.scale)
    equal(facts(await bench.recorder.closed(timeout=0.5 * bench.scale)), NO_PONG, "the reason")
    took = between(bench, "open", "close")
    true(took <= limit + bench.lost, f"the end came after {took:.2f} s, and is due within {limit:g} s")


@check("LIM-3", needs=PING)
async def pings_are_sent_and_answered(bench: Bench) -> None:
    """A ping goes out in each ping_interval, and a peer that answers stays for many times both times."""
    interval = 0.08 * bench.scale
    options = bench.options(ping_interval=interval, ping_timeout=2 * interval)
    async with bench.serve(options) as served, served.peer() as peer:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(6):
            event = await peer.receive(interval + bench.scale)
            true(isinstance(event, Ping), f"something else than a ping came: {event}")
        true(loop.time() - started >= 5 * interval, f"6 pings came in {loop.time() - started:.2f} s")
        payloads = [event.payload for event in peer.received if isinstance(event, Ping)]
        equal(len(set(payloads)), 6, "the number of different payloads")
        equal(bench.recorder.values("close"), [], "ends")


@check("LIM-3", needs=PING)
async def no_pong(bench: Bench) -> None:
    """A peer that answers no ping is sent 1011 within interval, timeout and 1 s, and cut off; on_close follows."""
    options = bench.options(ping_interval=0.15 * bench.scale, ping_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        peer.auto_pong = peer.auto_close = False
        await bench.recorder.opened()
        await _cut_off(bench, peer, 1.35 * bench.scale)
        true(between(bench, "open", "close") >= 0.3 * bench.scale, "the end came before it was due")


@check("LIM-3", needs=PING)
async def messages_are_no_pongs(bench: Bench) -> None:
    """A peer that sends messages and pings, and answers no ping, is cut off too."""
    options = bench.options(ping_interval=0.1 * bench.scale, ping_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        peer.auto_pong = peer.auto_close = False
        await bench.recorder.opened()
        talking = asyncio.ensure_future(_talk(peer, 0.05 * bench.scale, build_frame(Opcode.TEXT, b"alive")))
        await _cut_off(bench, peer, 1.3 * bench.scale)
        await bench.within(talking, "the peer's sends, which must fail")


@check("LIM-3", needs=PING)
async def wrong_pongs(bench: Bench) -> None:
    """Pongs with payloads that no ping had are not answers."""
    options = bench.options(ping_interval=0.1 * bench.scale, ping_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        peer.auto_pong = peer.auto_close = False
        await bench.recorder.opened()
        pongs = build_frame(Opcode.PONG) + build_frame(Opcode.PONG, b"made up")
        talking = asyncio.ensure_future(_talk(peer, 0.05 * bench.scale, pongs))
        await _cut_off(bench, peer, 1.3 * bench.scale)
        await bench.within(talking, "the peer's sends, which must fail")


async def _talk(peer: WirePeer, pause: float, raw: bytes) -> None:
    """Send ``raw`` again and again until the server is gone."""
    try:
        while True:
            await peer.send_raw(raw)
            await asyncio.sleep(pause)
    except Closed:
        pass


@check("LIM-3", needs=PING)
async def pongs_behind_a_callback(bench: Bench) -> None:
    """A peer that answers is not cut off for a callback that runs longer than both times together."""
    options = bench.options(on_text=_long(bench), ping_interval=0.1 * bench.scale, ping_timeout=0.15 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("long")
        reading = asyncio.ensure_future(peer.receive_close(3 * bench.scale))
        await bench.recorder.wait("text-end")
        await asyncio.sleep(0.3 * bench.scale)
        equal(bench.recorder.values("close"), [], "ends")
        await peer.send_text("short")
        await bench.recorder.wait("text", 2)
        await peer.send_close(4000)
        equal((await reading).code, 4000, "the code that the peer got back")


@check("LIM-3", needs=PING)
async def no_pong_while_a_callback_runs(bench: Bench) -> None:
    """While a callback runs a peer that answers no ping is not cut off, and after it is."""
    options = bench.options(on_text=_long(bench), ping_interval=0.1 * bench.scale, ping_timeout=0.15 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        peer.auto_pong = peer.auto_close = False
        await peer.send_text("long")
        await bench.recorder.wait("text-end")
        equal(bench.recorder.kinds(), ["open", "text"], "the callbacks while one ran")
        equal(await peer.receive_close(), Close(1011, "ping timeout"), "what the peer got")
        equal(facts(await bench.recorder.closed()), NO_PONG, "the reason")
        true(between(bench, "text-end", "close") <= 1.25 * bench.scale + bench.lost, "the end came late")


def _long(bench: Bench) -> Callable[..., Awaitable[None]]:
    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.sleep((0.5 if text == "long" else 0) * bench.scale)

    return on_text


@check("LIM-3", needs=PING)
async def no_pings_when_off(bench: Bench) -> None:
    """With ping_interval None no ping is sent, whatever ping_timeout is."""
    options = bench.options(ping_interval=None, ping_timeout=0.1 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.expect_silence(0.2 * bench.scale)
        equal(bench.recorder.values("close"), [], "ends")


@check("LIM-3", needs=PING)
async def no_cut_without_ping_timeout(bench: Bench) -> None:
    """With ping_timeout None pings are sent, and a peer that answers none stays."""
    options = bench.options(ping_interval=0.05 * bench.scale, ping_timeout=None)
    async with bench.serve(options) as served, served.peer() as peer:
        peer.auto_pong = False
        for _ in range(6):
            true(isinstance(await peer.receive(), Ping), "something else than a ping came")
        equal(bench.recorder.values("close"), [], "ends")


@check("LIM-3", needs=PING, fixed=["tls"])
async def a_peer_that_does_not_read_is_no_exception(bench: Bench) -> None:
    """A peer that reads nothing, so that it gets no ping, is cut off as one that answers none."""
    options = bench.options(
        ping_interval=0.1 * bench.scale, ping_timeout=0.2 * bench.scale, send_timeout=20 * bench.scale
    )
    async with bench.serve(options) as served, served.peer() as peer:
        sends = await clog(bench, await bench.recorder.opened())
        sending = asyncio.ensure_future(sends.until_refused())
        reason = await bench.recorder.closed(timeout=1.5 * bench.scale)
        equal(facts(reason), NO_PONG, "the reason")
        await bench.within(sending, "the send that waits", timeout=0.5 * bench.scale)
        await sends.all_return(bench, "for a peer that was cut off", timeout=0.5 * bench.scale)
        await peer.wait_eof()


# ---- LIM-4 ----------------------------------------------------------------------------------------------------------


@check("LIM-4")
async def stuck_sends(bench: Bench) -> None:
    """When no byte leaves for send_timeout, every send that waits returns False, and on_close follows, with 1008."""
    timeout = 0.4 * bench.scale
    async with bench.serve(bench.options(send_timeout=timeout)) as served, served.peer() as peer:
        channel = await bench.recorder.opened()
        sends = await clog(bench, channel)
        bench.recorder.log("clogged")
        sending = [sends.until_refused() for _ in range(5)]
        await bench.within(asyncio.gather(*sending), "the sends that wait", timeout=timeout + bench.scale)
        await sends.all_return(bench, "for send_timeout", timeout=0.2 * bench.scale)
        equal(facts(await bench.recorder.closed(timeout=0.5 * bench.scale)), STUCK, "the reason")
        true(between(bench, "clogged", "close") >= 0.5 * timeout, "the end came before it was due")
        true(await channel.send_text("late") is False, "a send after the end did not return False")
        end = (await peer.drain()).end
        true(isinstance(end, Eof), f"the connection was not cut off: {end}")


@check("LIM-4", fixed=["compress"])
async def stuck_send_in_a_callback(bench: Bench) -> None:
    """A callback that waits in a send is not stuck for ever: the send returns False, and on_close follows it."""
    results: list[bool] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        while not results or results[-1]:
            results.append(await channel.send_binary(bytes(256 * 1024)))

    options = bench.options(on_text=on_text, send_timeout=0.3 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("go")
        reason = await bench.recorder.closed()
        equal(facts(reason), STUCK, "the reason")
        equal(bench.recorder.kinds(), ["open", "text", "close"], "the callbacks")
        equal(results[-1], False, "the last send")


@check("LIM-4", wire=True)
async def slow_is_not_stuck(bench: Bench) -> None:
    """A peer that reads now and then is not cut off, for twice send_timeout, in the middle of a message too."""
    timeout = 0.5 * bench.scale
    async with bench.serve(bench.options(send_timeout=timeout)) as served, served.peer() as peer:
        sends = await clog(bench, await bench.recorder.opened(), size=24 * MIB)
        for _ in range(12):
            await peer.read_ahead(2 * MIB)  # so much that the system lets the server write on
            await asyncio.sleep(timeout / 6)
        equal(bench.recorder.values("close"), [], "ends")
        equal(sends.refused, [], "the sends that returned False")
        peer.drop()
        await sends.all_return(bench, "for a peer that is gone")


@check("LIM-4")
async def no_send_timeout(bench: Bench) -> None:
    """With send_timeout None a send waits, and goes on when the peer reads."""
    async with bench.serve(bench.options(send_timeout=None, on_text=echo)) as served, served.peer() as peer:
        channel = await bench.recorder.opened()
        sends = await clog(bench, channel)
        sending = asyncio.ensure_future(sends.until_refused())
        await asyncio.sleep(0.2 * bench.scale)
        equal(sends.refused, [], "the sends that returned False")
        await peer.drain(messages=sends.count + 50)
        equal(sends.refused, [], "the sends that returned False")
        channel.close()
        await bench.within(sending, "the sends after the close")


@check("LIM-4")
async def a_silent_channel_is_not_stuck(bench: Bench) -> None:
    """send_timeout counts only while bytes wait: a channel on which nothing is sent stays."""
    timeout = 0.06 * bench.scale
    async with bench.serve(bench.options(on_text=echo, send_timeout=timeout)) as served, served.peer() as peer:
        for _ in range(2):
            await peer.send_text("x" * 300_000)
            await peer.receive_text()
            await asyncio.sleep(2 * timeout)
        equal(bench.recorder.values("close"), [], "ends")
