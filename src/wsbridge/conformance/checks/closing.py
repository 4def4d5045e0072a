"""CLOSE-1 to CLOSE-5: how a channel is closed from here, how the peer closes it, and how long that may take."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from wsbridge.conformance import lateness
from wsbridge.conformance.checks.common import LEAVE, clog, pair
from wsbridge.conformance.client import Binary, Close, Closed, Eof, Opcode, Text, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.protocols import WebSocketChannel

SENDABLE = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
UNSENDABLE = (-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535, 65536, 10**9)


async def _ends(bench: Bench, code: int, text: str, initiator: str, *, timeout: float | None = None) -> None:
    """Wait for ``on_close`` and check its reason."""
    reason = await bench.recorder.closed(timeout=timeout)
    equal((reason.code, reason.text, reason.initiator), (code, text, initiator), "code, text and initiator")


@check("CLOSE-1")
async def returns_none_at_once(bench: Bench) -> None:
    """close() is a plain function, whose result may be awaited and is None then; its defaults are 1000 and no text."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        await _awaited(channel.close())
        equal(await peer.receive(), Close(1000, ""), "what the peer gets")
        await _awaited(channel.close())
        await _ends(bench, 1000, "", "local")


async def _awaited(result: Awaitable[None]) -> None:
    """Check what close() returned: it may be awaited, and nothing complains if it is not."""
    is_one = isinstance(result, Awaitable) and not asyncio.iscoroutine(result)
    true(is_one, f"close() returned {result!r}, which cannot be awaited or has to be")
    for _ in range(2):
        equal(await result, None, "what close() gives when it is awaited")  # type: ignore[func-returns-value]


async def _close_in(bench: Bench, kind: str) -> None:
    async def close(channel: WebSocketChannel, *arguments: Any) -> None:
        await _awaited(channel.close(4001, kind))

    async with bench.serve(bench.options(**{f"on_{kind}": close})) as served, served.peer() as peer:
        await peer.send_frame(Opcode.BINARY if kind == "binary" else Opcode.TEXT, b"close")
        equal(await peer.receive(), Close(4001, kind), "what the peer gets")
        await _ends(bench, 4001, kind, "local")
        equal(bench.recorder.all("error"), [], "errors")


@check("CLOSE-1")
async def in_on_open(bench: Bench) -> None:
    """on_open may close."""
    await _close_in(bench, "open")


@check("CLOSE-1")
async def in_on_text(bench: Bench) -> None:
    """on_text may close."""
    await _close_in(bench, "text")


@check("CLOSE-1")
async def in_on_binary(bench: Bench) -> None:
    """on_binary may close."""
    await _close_in(bench, "binary")


@check("CLOSE-1")
async def outside_of_any_task(bench: Bench) -> None:
    """A callback of the event loop, which runs in no task, may close."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        asyncio.get_running_loop().call_soon(channel.close, 4001, "call_soon")
        equal(await peer.receive(), Close(4001, "call_soon"), "what the peer gets")
        await _ends(bench, 4001, "call_soon", "local")


@check("CLOSE-1")
async def the_first_close_wins(bench: Bench) -> None:
    """Later calls of close do nothing, before the peer has answered and after."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        channel.close(4001, "first")
        channel.close(4002, "second")
        await asyncio.sleep(0)
        channel.close(4003, "third")
        equal(await peer.receive(), Close(4001, "first"), "what the peer gets")
        await _ends(bench, 4001, "first", "local")
        channel.close(4004, "fourth")
        await peer.wait_eof()
        equal(channel.reason, bench.recorder.values("close")[0], "the reason")


@check("CLOSE-1")
async def behind_the_peers_close_it_does_nothing(bench: Bench) -> None:
    """Once the peer has closed, or is lost, close does nothing."""
    async with bench.serve() as served:
        async with pair(bench, served) as (peer, channel):
            await peer.send_close(4002, "peer")
            reason = await bench.within(channel.wait_closed(), "wait_closed()")
            channel.close(4001, "late")
            equal((await peer.receive_close()).code, 4002, "the code that the peer gets")
            await peer.wait_eof()
            equal((reason, channel.reason), (channel.reason, reason), "the reason")
            equal(reason.initiator, "peer", "the initiator")
        async with pair(bench, served) as (peer, channel):
            peer.drop()
            reason = await bench.within(channel.wait_closed(), "wait_closed()")
            channel.close(4001, "late")
            equal((channel.reason, reason.code), (reason, 1006), "the reason")


@check("CLOSE-1")
async def no_message_callback_starts(bench: Bench) -> None:
    """From close on no message callback starts: what has come before and is not delivered is dropped."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "1":
            await asyncio.sleep(0.02)  # the rest comes in
            channel.close(4001)
            await asyncio.sleep(0.02)

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_raw(b"".join(build_frame(Opcode.TEXT, b"%d" % number) for number in range(30)))
        await peer.send_raw(build_frame(Opcode.BINARY, b"late"))
        equal(await peer.receive_close(), Close(4001), "what the peer gets")
        await _ends(bench, 4001, "", "local")
        await peer.wait_eof()
    equal(bench.recorder.kinds(), ["open", "text", "text", "close"], "the callbacks")


@check("CLOSE-1")
async def messages_behind_the_close_are_dropped(bench: Bench) -> None:
    """What the peer sends after the local close, and before it answers, is read and dropped."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        channel.close(4001)
        for number in range(200):
            await peer.send_binary(bytes(16 * 1024))
            await peer.send_text(str(number))
        equal(await peer.receive(), Close(4001), "what the peer gets")
        await _ends(bench, 4001, "", "local")
    equal(bench.recorder.kinds(), ["open", "close"], "the callbacks")


@check("CLOSE-1")
async def while_a_callback_runs(bench: Bench) -> None:
    """A close by another task lets the callback that runs go on to its end; its sends return False, no other starts."""
    go_on = asyncio.Event()
    sent: list[bool] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await go_on.wait()
        sent.append(await channel.send_text("late"))

    async with bench.serve(bench.options(on_text=on_text)) as served, pair(bench, served) as (peer, channel):
        await peer.send_text("a")
        await peer.send_text("b")
        await bench.recorder.wait("text")
        channel.close(4001)
        equal(await peer.receive(), Close(4001), "what the peer gets while the callback runs")
        equal(bench.recorder.kinds(), ["open", "text"], "the callbacks meanwhile")
        go_on.set()
        await _ends(bench, 4001, "", "local")
        equal(sent, [False], "what the callback's send returned")
    equal(bench.recorder.kinds(), ["open", "text", "close"], "the callbacks")


@check("CLOSE-1")
async def in_on_error_and_on_close_it_does_nothing(bench: Bench) -> None:
    """In on_error and on_close a close does nothing."""

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise RuntimeError("on purpose")

    def late(channel: WebSocketChannel, process: Any, value: Any) -> None:
        channel.close(4005, "late")
        bench.recorder.log("still", value=(channel.reason.code if channel.reason else None))

    options = bench.options(on_text=on_text, on_error=late, on_close=late)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("a")
        equal((await peer.receive_close()).code, 1011, "the code that the peer gets")
        await _ends(bench, 1011, "", "local")
        await bench.recorder.wait("close-end")
    equal(bench.recorder.values("still"), [1011, 1011], "the reason's code after the calls")


def _rejects(channel: WebSocketChannel, kind: type[Exception], *arguments: Any) -> None:
    try:
        channel.close(*arguments)
    except kind:
        return
    except Exception as exc:
        fail(f"close{arguments} must raise {kind.__name__}, not {exc!r}")
    fail(f"close{arguments} must raise {kind.__name__}")


def _rejects_all(channel: WebSocketChannel) -> None:
    for code in UNSENDABLE:
        _rejects(channel, ValueError, code)
    for text in ("x" * 124, "\xe9" * 62, "\u20ac" * 42, "\U0001f600" * 31):
        _rejects(channel, ValueError, 1000, text)
    wrong: Any
    for wrong in (None, "1000", 1000.0, b"1000", True, (1000,)):
        _rejects(channel, TypeError, wrong)
    for wrong in (None, b"text", 1, ["text"]):
        _rejects(channel, TypeError, 1000, wrong)


@check("CLOSE-2")
async def wrong_arguments(bench: Bench) -> None:
    """A code that may not be sent or a text over 123 bytes is a ValueError, a wrong type a TypeError."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        _rejects_all(channel)
        equal(channel.reason, None, "the reason after the errors")
        equal(await channel.send_text("open"), True, "a send after the errors")
        equal(await peer.receive(), Text("open"), "the first that the peer gets")
        channel.close(4001, "now")
        equal(await peer.receive(), Close(4001, "now"), "what the peer gets")


@check("CLOSE-2")
async def every_call_is_checked(bench: Bench) -> None:
    """Arguments are checked on every call: after a close, after the peer's, and in on_close."""

    def on_close(channel: WebSocketChannel, process: Any, reason: Any) -> None:
        _rejects_all(channel)
        bench.recorder.log("checked")

    async with bench.serve(bench.options(on_close=on_close)) as served:
        async with pair(bench, served) as (peer, channel):
            channel.close(4001)
            _rejects_all(channel)
            equal(await peer.receive(), Close(4001), "what the peer gets")
            await bench.recorder.wait("close-end")
        async with pair(bench, served) as (peer, channel):
            await peer.send_close(4002)
            await bench.recorder.wait("close-end", 2)
            _rejects_all(channel)
    equal(len(bench.recorder.all("checked")), 2, "how often on_close found the arguments checked")


@check("CLOSE-2")
async def what_may_be_sent(bench: Bench) -> None:
    """Every code that may be sent is accepted, and so are 123 bytes of text; int subclasses count as what they are."""
    code: int
    async with bench.serve() as served:
        for number, (code, text) in enumerate(
            [
                *((code, "") for code in SENDABLE),
                *((1000, text) for text in ("x" * 123, "\xe9" * 61 + "x", "\u20ac" * 41, "\U0001f600" * 30 + "abc")),
                (type("Code", (int,), {})(4321), "int"),
            ],
            1,
        ):
            async with pair(bench, served) as (peer, channel):
                channel.close(code, text)
                equal(await peer.receive(), Close(code, text), "what the peer gets")
                reason = await bench.recorder.closed(number)
                equal((reason.code, reason.text), (code, text), "code and text of the reason")


@check("CLOSE-3")
async def once_and_last(bench: Bench) -> None:
    """on_close runs exactly once, last, with the channel and the process object, however the channel ends."""
    process = object()

    def on_open(channel: WebSocketChannel, request: Any) -> object:
        return process

    def close(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4001)
        channel.close(4002)

    async def closes(peer: WirePeer) -> None:
        await peer.send_close(1000)
        await peer.receive_close()

    async def is_closed(peer: WirePeer) -> None:
        await peer.send_text("close")
        await peer.receive_close()
        await peer.wait_eof()

    async def drops(peer: WirePeer) -> None:
        peer.drop()

    async def breaks_off(peer: WirePeer) -> None:
        await peer.send_raw(build_frame(Opcode.TEXT, b"all of it")[:5])
        peer.close()

    async def half_closes(peer: WirePeer) -> None:
        await peer.half_close()

    ways: list[Callable[[WirePeer], Any]] = [closes, is_closed, drops, half_closes]
    if bench.target.has_wire:
        ways.append(breaks_off)
    async with bench.serve(bench.options(on_open=on_open, on_text=close)) as served:
        for number, way in enumerate(ways, 1):
            async with pair(bench, served) as (peer, channel):
                await way(peer)
                event = await bench.recorder.wait("close", number)
                equal(event.channel, channel.id, "the channel whose on_close ran")
                true(event.process is process, f"the process object is {event.process!r}")
                true(event.value is channel.reason, "on_close got another reason than channel.reason")
    equal(len(bench.recorder.all("close")), len(ways), "how often on_close ran")
    for channel in bench.recorder.channels:
        last = [event.kind for event in bench.recorder.events if event.channel == channel.id][-2:]
        equal(last, ["close", "close-end"], "the last callback")


async def _behind_a_callback(bench: Bench, end: Callable[[WirePeer, WebSocketChannel], Any]) -> None:
    go_on = asyncio.Event()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await go_on.wait()

    async with bench.serve(bench.options(on_text=on_text)) as served, pair(bench, served) as (peer, channel):
        await peer.send_text("a")
        await bench.recorder.wait("text")
        await end(peer, channel)
        await asyncio.sleep(0.1 * bench.scale)  # that it does not run meanwhile is the rule
        equal(bench.recorder.kinds(), ["open", "text"], "the callbacks while one runs")
        go_on.set()
        await bench.recorder.closed()
    kinds = [event.kind for event in bench.recorder.events]
    equal(kinds[2:], ["text", "text-end", "close", "close-end"], "the callbacks")


@check("CLOSE-3")
async def behind_a_callback_at_a_peers_close(bench: Bench) -> None:
    """When the peer closes while a callback runs, on_close waits for its end."""
    await _behind_a_callback(bench, lambda peer, channel: peer.send_close(1000))


@check("CLOSE-3")
async def behind_a_callback_at_a_loss(bench: Bench) -> None:
    """When the connection is lost while a callback runs, on_close waits for its end."""

    async def end(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.drop()

    await _behind_a_callback(bench, end)


@check("CLOSE-3")
async def behind_a_callback_at_a_local_close(bench: Bench) -> None:
    """When another task closes while a callback runs, and the peer answers, on_close waits for the callback's end."""

    async def end(peer: WirePeer, channel: WebSocketChannel) -> None:
        channel.close()
        await peer.receive_close()

    await _behind_a_callback(bench, end)


@check("CLOSE-3", fixed=["callbacks=stream"])
async def as_soon_as_the_answer_is_in(bench: Bench) -> None:
    """After a local close on_close runs as soon as the peer's close frame is in, although TCP stays open."""
    options = bench.options(close_timeout=10 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        peer.auto_close = False
        channel.close(4001)
        await peer.receive_close()
        equal(bench.recorder.all("close"), [], "on_close before the answer")
        await peer.send_close(4001)
        await _ends(bench, 4001, "", "local", timeout=bench.scale)


@check("CLOSE-3")
async def as_soon_as_the_connection_is_lost(bench: Bench) -> None:
    """After a local close that the peer does not answer, on_close runs as soon as the connection is lost."""
    options = bench.options(close_timeout=10 * bench.scale)
    for number, lose in enumerate(LEAVE, 1):
        async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
            peer.auto_close = False
            channel.close(4001)
            await peer.receive_close()
            lose(peer)
            reason = await bench.recorder.closed(number, timeout=bench.scale)
            equal((reason.code, reason.initiator), (4001, "local"), "code and initiator")


async def _not_before(bench: Bench, peer: WirePeer, channel: WebSocketChannel, close_timeout: float) -> None:
    """Close, and check that on_close comes at ``close_timeout``, and that the peer is cut off then."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    channel.close(4001)
    await _ends(bench, 4001, "", "local", timeout=close_timeout + bench.scale)
    took = loop.time() - before
    true(took > close_timeout * 0.8, f"on_close came after {took:.3f} s, although close_timeout is {close_timeout}")


@check("CLOSE-3")
async def at_the_timeout(bench: Bench) -> None:
    """When the peer never answers, on_close runs when close_timeout has passed, and not before."""
    close_timeout = 0.2 * bench.scale
    options = bench.options(close_timeout=close_timeout)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        await _not_before(bench, peer, channel, close_timeout)


@check("CLOSE-4", black_box=True)
async def the_peer_gets_code_and_text(bench: Bench) -> None:
    """The peer gets the code and the text that close was given, of any width in UTF-8, up to 123 bytes."""
    async with bench.reference() as served:
        for code in SENDABLE:
            async with served.peer(f"/close/{code}") as peer:
                equal(await peer.receive(), Close(code, ""), "what the peer gets")
        for text, quoted in (("bye", "bye"), ("a b", "a%20b"), ("gr\xfc\u20ac", "gr%C3%BC%E2%82%AC"), ("x" * 123,) * 2):
            async with served.peer(f"/close/4321?text={quoted}") as peer:
                equal(await peer.receive(), Close(4321, text), "what the peer gets")


@check("CLOSE-4", black_box=True)
async def a_peer_gets_its_code_back(bench: Bench) -> None:
    """A peer that closes gets its own code back, then the end of the connection."""
    async with bench.reference() as served:
        for code in SENDABLE:
            async with served.peer("/echo") as peer:
                await peer.send_close(code, "so long" if code % 2 else "")
                equal((await peer.receive_close()).code, code, "the code that comes back")
                await peer.wait_eof()


@check("CLOSE-4", black_box=True)
async def an_empty_close_for_an_empty_one(bench: Bench) -> None:
    """A peer that closes with an empty frame gets an empty one back."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_close()
        equal(await peer.receive(), Close(1005), "what the peer gets")
        await peer.wait_eof()


@check("CLOSE-4", needs=("compression",))
async def a_close_while_a_message_is_deflated(bench: Bench) -> None:
    """A peer that closes while a message is deflated for it gets the message, if it was sent, and its code back."""
    sends: list[asyncio.Task[bool]] = []
    data = random.Random(4).randbytes(4 << 20)  # takes a while, in an executor where the server has one for that

    def on_open(channel: WebSocketChannel, request: Any) -> None:
        sends.append(asyncio.create_task(channel.send_binary(data)))

    options = bench.options(on_open=on_open, compression=True)
    async with bench.serve(options) as served, served.peer(deflate=True) as peer:
        await bench.recorder.wait("open-end")
        await peer.send_close(4001)
        events = [await peer.receive()]
        while not isinstance(events[-1], Close | Eof):
            events.append(await peer.receive())
        equal(events[-1], Close(4001), "what the peer gets")
        sent = await bench.within(sends[0], "the send")
        equal(events[:-1], [Binary(data)] if sent else [], "the messages before it")
        await peer.wait_eof()
    await _ends(bench, 4001, "", "peer")


async def _let_go(bench: Bench, before: int) -> None:
    """Wait until the server has closed its socket, by the count of this process's descriptors where that is known."""
    await bench.settle(lambda: bench.open_ends() < before or not before, "the end of the server's socket")


@check("CLOSE-5", fixed=["callbacks=stream"])
async def a_peer_that_never_answers(bench: Bench) -> None:
    """A peer that reads the close, and neither answers nor goes, is cut off after close_timeout."""
    close_timeout = 0.2 * bench.scale
    options = bench.options(close_timeout=close_timeout)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        peer.auto_close = False
        await _not_before(bench, peer, channel, close_timeout)
        equal(await peer.receive(), Close(4001), "what the peer gets")
        await peer.wait_eof(bench.scale)


@check("CLOSE-5", fixed=["callbacks=stream"])
async def a_peer_that_talks_on(bench: Bench) -> None:
    """A peer that sends messages and pings instead of an answer does not prolong the close."""
    close_timeout = 0.2 * bench.scale
    options = bench.options(close_timeout=close_timeout)

    async def talk(peer: WirePeer) -> None:
        while True:
            await peer.send_text("and another thing")
            await peer.ping(b"still there?")
            await asyncio.sleep(0.02)

    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        talking = asyncio.ensure_future(talk(peer))
        await _not_before(bench, peer, channel, close_timeout)
        await lateness.wait((talking,), bench.scale)
        true(talking.done(), "a peer that talks on can do so for ever")
        true(isinstance(talking.exception(), Closed), f"the peer found {talking.exception()!r}")
    equal(bench.recorder.kinds(), ["open", "close"], "the callbacks")


@check("CLOSE-5")
async def a_peer_that_is_clogged(bench: Bench) -> None:
    """A peer that reads nothing, so that not even the close frame can leave, is cut off after close_timeout."""
    close_timeout = 0.2 * bench.scale
    options = bench.options(close_timeout=close_timeout)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        before = bench.open_ends()
        sends = await clog(bench, channel)
        await _not_before(bench, peer, channel, close_timeout)
        await sends.all_return(bench, "at a close")
        await _let_go(bench, before)


async def _keeps_tcp_open(bench: Bench, close: Callable[[WirePeer, WebSocketChannel], Any]) -> None:
    close_timeout = 0.3 * bench.scale
    options = bench.options(close_timeout=close_timeout)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        before = bench.open_ends()
        await close(peer, channel)
        await bench.recorder.closed(timeout=close_timeout + bench.scale)
        await peer.wait_eof(close_timeout + bench.scale)
        await _let_go(bench, before)


@check("CLOSE-5")
async def a_peer_that_answers_and_stays(bench: Bench) -> None:
    """A peer that answers the close and keeps TCP open is cut off within close_timeout."""

    async def close(peer: WirePeer, channel: WebSocketChannel) -> None:
        channel.close(4001)
        equal(await peer.receive(), Close(4001), "what the peer gets")

    await _keeps_tcp_open(bench, close)


@check("CLOSE-5")
async def a_peer_that_closes_and_stays(bench: Bench) -> None:
    """A peer that closes, gets its answer and keeps TCP open is cut off within close_timeout."""

    async def close(peer: WirePeer, channel: WebSocketChannel) -> None:
        await peer.send_close(4002)
        equal(await peer.receive(), Close(4002), "what the peer gets")

    await _keeps_tcp_open(bench, close)


@check("CLOSE-5", wire=True)
async def a_peer_that_errs_and_stays(bench: Bench) -> None:
    """A peer that broke the protocol and keeps TCP open is cut off within close_timeout."""

    async def close(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.auto_close = False
        await peer.send_frame(3, b"reserved opcode")

    await _keeps_tcp_open(bench, close)


@check("CLOSE-5")
async def a_clogged_peer_that_half_closes(bench: Bench) -> None:
    """A peer that ends its sending side and reads nothing is cut off within close_timeout, whatever is unsent."""
    options = bench.options(close_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        before = bench.open_ends()
        sends = await clog(bench, channel)
        await peer.half_close()
        await _ends(bench, 1006, "", "network", timeout=bench.scale)
        await sends.all_return(bench, "when the connection was lost")
        await _let_go(bench, before)


@check("CLOSE-5")
async def a_clogged_peer_that_closes(bench: Bench) -> None:
    """A peer that closes and reads nothing, so that the answer cannot leave, is cut off within close_timeout."""
    options = bench.options(close_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        before = bench.open_ends()
        sends = await clog(bench, channel)
        await peer.send_close(4002)
        await _ends(bench, 4002, "", "peer", timeout=bench.scale)
        await sends.all_return(bench, "when the peer closed")
        await _let_go(bench, before)
