"""CLOSE-6 to CLOSE-10: what a channel says about its end."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable
from typing import Any

from wsbridge.close import CloseReason, close_reason
from wsbridge.conformance.checks.common import clog, pair
from wsbridge.conformance.client import Close, Opcode, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.contract.registration import registered
from wsbridge.conformance.harness.bench import Bench
from wsbridge.protocols import Deviation, WebSocketChannel

# The names of CLOSE-9, written down here once more, so that a slip in the library's own table is found.
NAMES = {
    1000: "normal",
    1001: "going-away",
    1002: "protocol-error",
    1003: "unsupported",
    1005: "no-status-received",
    1006: "abnormal",
    1007: "invalid-payload-data",
    1008: "policy-violation",
    1009: "message-too-big",
    1010: "mandatory-extension",
    1011: "internal-server-error",
    1012: "service-restart",
    1013: "try-again-later",
    1014: "bad-gateway",
    1015: "tls-handshake",
    3000: "registered",
    3999: "registered",
    4000: "private",
    4999: "private",
}


def _is(bench: Bench, reason: CloseReason, code: int, text: str | None, initiator: str) -> None:
    """Check a whole reason; ``text`` None: any."""
    name = NAMES.get(code) or ("registered" if code < 4000 else "private")
    keyword = dict(bench.connector.close_keywords).get(code, name)
    equal(
        (reason.code, reason.initiator, reason.name, reason.keyword, str(reason)),
        (code, initiator, name, keyword, keyword),
        "code, initiator, name, keyword and str()",
    )
    true(isinstance(reason.text, str), f"the text is {reason.text!r}")
    if text is not None:
        equal(reason.text, text, "the text")


@check("CLOSE-6")
async def a_frozen_record(bench: Bench) -> None:
    """The reason is a frozen CloseReason, equals no str, and is the same object wherever it is told."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        equal(channel.reason, None, "the reason of an open channel")
        await peer.send_close(4000, "text")
        reason = await bench.recorder.closed()
        true(channel.reason is reason, "channel.reason is another object than on_close got")
        true(await channel.wait_closed() is reason, "wait_closed() returned another object than on_close got")
        _is(bench, reason, 4000, "text", "peer")
        for name in ("code", "text", "initiator", "name", "keyword"):
            try:
                setattr(reason, name, getattr(reason, name))
            except AttributeError:
                continue
            fail(f"reason.{name} could be set")
        text: Any
        for text in (str(reason), reason.keyword, reason.name, reason.text, "4000"):
            true((reason == text) is False and (text == reason) is False, f"the reason equals the str {text!r}")
        equal(reason, dataclasses.replace(reason), "a reason, against one with the same fields")
        true(reason != dataclasses.replace(reason, text="other"), "two reasons with other texts are equal")


@check("CLOSE-6")
async def known_while_a_callback_runs(bench: Bench) -> None:
    """After a local close in a callback its reason is known at once, to whoever waits too, while the callback runs."""
    go_on = asyncio.Event()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        bench.recorder.log("before", value=channel.reason)
        channel.close(4001, "text")
        bench.recorder.log("after", value=channel.reason)
        bench.recorder.log("waited", value=await channel.wait_closed())
        await go_on.wait()

    async with bench.serve(bench.options(on_text=on_text)) as served, pair(bench, served) as (peer, channel):
        waiting = asyncio.ensure_future(channel.wait_closed())
        await peer.send_text("a")
        reason = await bench.within(waiting, "wait_closed() while a callback runs")
        _is(bench, reason, 4001, "text", "local")
        await bench.recorder.wait("waited")
        equal(bench.recorder.values("before", "after", "waited"), [None, reason, reason], "the reason in the callback")
        equal(bench.recorder.all("close"), [], "on_close while the callback runs")
        go_on.set()
        equal(await peer.receive(), Close(4001, "text"), "what the peer gets")
        equal(await bench.recorder.closed(), reason, "what on_close got")


@check("CLOSE-6", fixed=["callbacks=stream"])
async def known_before_the_peer_answers(bench: Bench) -> None:
    """After a local close the reason is known at once, although the peer has not answered and on_close has not run."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        peer.auto_close = False
        channel.close(4001)
        true(channel.reason is not None, "the reason is None after close()")
        _is(bench, await bench.within(channel.wait_closed(), "wait_closed()", timeout=bench.scale), 4001, "", "local")
        await peer.receive_close()
        equal(bench.recorder.all("close"), [], "on_close before the peer has answered")
        await peer.send_close(4001)
        await bench.recorder.closed()


async def _told_in_a_callback(
    bench: Bench, end: Callable[[WirePeer], Any], expected: tuple[int, str | None, str]
) -> None:
    """A callback waits for an end that comes after messages; these are delivered after it has returned."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "1":
            bench.recorder.log("waits")
            bench.recorder.log("told", value=await channel.wait_closed())

    async with bench.serve(bench.options(on_text=on_text)) as served, pair(bench, served) as (peer, channel):
        other = asyncio.ensure_future(channel.wait_closed())
        await peer.send_raw(b"".join(build_frame(Opcode.TEXT, text) for text in (b"1", b"2", b"3")))
        await bench.recorder.wait("waits")
        result = end(peer)
        if asyncio.iscoroutine(result):
            await result
        await bench.recorder.wait("told")
        told = await bench.within(other, "wait_closed() in another task", timeout=bench.scale)
        reason = await bench.recorder.closed()
        _is(bench, reason, *expected)
        true(told is reason, "what another task was told is not what on_close got")
    equal(bench.recorder.values("told"), [reason], "what the callback was told")
    equal(bench.recorder.kinds(), ["open", "text", "waits", "told", "text", "text", "close"], "what happened, in order")


@check("CLOSE-6")
async def told_in_a_callback_of_a_close(bench: Bench) -> None:
    """A callback that waits for the end is told of the peer's close, though messages came before it and still wait."""
    text = None if bench.target.loses_close_text else "peer"
    await _told_in_a_callback(bench, lambda peer: peer.send_close(4002, "peer"), (4002, text, "peer"))


@check("CLOSE-6")
async def told_in_a_callback_of_a_loss(bench: Bench) -> None:
    """A callback that waits for the end is told of a loss, though messages came before it and still wait."""
    await _told_in_a_callback(bench, lambda peer: peer.half_close(), (1006, "", "network"))


@check("CLOSE-6", wire=True)
async def told_in_a_callback_of_a_violation(bench: Bench) -> None:
    """A callback that waits for the end is told of a violation, though messages came before it and still wait."""

    async def violate(peer: WirePeer) -> None:
        peer.auto_close = False
        await peer.send_raw(build_frame(3))
        peer.close()

    await _told_in_a_callback(bench, violate, (1002, None, "local"))


@check("CLOSE-6")
async def everyone_who_waits_is_told(bench: Bench) -> None:
    """Any number of tasks may wait for the end; one that is cancelled harms no other, and later ones return at once."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        waiting = [asyncio.ensure_future(channel.wait_closed()) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[3].cancel()
        await asyncio.sleep(0)
        equal([task.done() for task in waiting], [True, False, False, True, False], "the waiting tasks that are done")
        await peer.send_close(4002)
        left = [waiting[1], waiting[2], waiting[4]]
        reasons = await bench.within(asyncio.gather(*left), "wait_closed() in three tasks")
        late = await bench.within(channel.wait_closed(), "a later wait_closed()", timeout=bench.scale)
        true(all(reason is channel.reason for reason in (*reasons, late)), "the reasons differ")
        _is(bench, late, 4002, "", "peer")


async def _row(
    bench: Bench,
    act: Callable[[WirePeer, WebSocketChannel], Any],
    expected: tuple[int, str | None, str],
    *,
    seen: Close | None = None,
    seen_code: int | None = None,
    peer_options: dict[str, Any] | None = None,
    timeout: float | None = None,
    **options: Any,
) -> None:
    """Check one row of the table: the reason, and what the peer gets.

    Args:
        bench: The check's bench.
        act: What happens.
        expected: Code, text (None: any) and initiator.
        seen: The close frame that the peer gets.
        seen_code: Its code, if the text is free.
        peer_options: For the peer.
        timeout: For what takes its time.
        options: For the channel.
    """
    async with (
        bench.serve(bench.options(**options)) as served,
        pair(bench, served, **(peer_options or {})) as (peer, channel),
    ):
        await act(peer, channel)
        if seen is not None:
            equal(await peer.receive_close(timeout), seen, "what the peer gets")
        if seen_code is not None:
            equal((await peer.receive_close(timeout)).code, seen_code, "the code that the peer gets")
        if seen is not None or seen_code is not None:
            await peer.wait_eof()
            peer.close()
        _is(bench, await bench.recorder.closed(timeout=timeout), *expected)


@check("CLOSE-7")
async def the_peer_closed_with_a_code(bench: Bench) -> None:
    """The peer closed with a code: that code, its text, peer; the peer gets its code back."""
    for code, text in (
        (1000, ""),
        (1001, "gr\xfc\xdfe \u20ac"),
        (1011, "no"),
        (1014, ""),
        (3000, "x" * 123),
        (4999, "\0"),
    ):
        count = len(bench.recorder.all("close")) + 1
        async with bench.serve() as served, pair(bench, served) as (peer, _):
            await peer.send_close(code, text)
            _is(bench, await bench.recorder.closed(count), code, text, "peer")
            equal((await peer.receive_close()).code, code, "the code that the peer gets")
            await peer.wait_eof()


@check("CLOSE-7")
async def the_peer_closed_with_an_empty_frame(bench: Bench) -> None:
    """The peer closed with an empty frame: 1005, no text, peer; the peer gets an empty one back."""
    await _row(bench, lambda peer, channel: peer.send_close(), (1005, "", "peer"), seen=Close(1005))


@check("CLOSE-7")
async def the_connection_was_reset(bench: Bench) -> None:
    """The connection was reset: 1006, no text, network."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.drop()

    await _row(bench, act, (1006, "", "network"))


@check("CLOSE-7")
async def the_connection_ended(bench: Bench) -> None:
    """The peer closed TCP with no close frame: 1006, no text, network."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.close()

    await _row(bench, act, (1006, "", "network"))


@check("CLOSE-7")
async def the_connection_was_half_closed(bench: Bench) -> None:
    """The peer ended its sending side with no close frame, and reads on: 1006, no text, network."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        await peer.half_close()

    await _row(bench, act, (1006, "", "network"))


@check("CLOSE-7", wire=True)
async def the_connection_ended_inside_a_frame(bench: Bench) -> None:
    """The connection ended inside a message, or inside a close frame: 1006, no text, network."""
    for cut in (
        build_frame(Opcode.TEXT, b"unfinished")[:9],
        build_frame(Opcode.TEXT, b"unfinished", fin=False),
        build_frame(Opcode.CLOSE, close_payload(4002))[:7],
        b"\x82",
    ):
        count = len(bench.recorder.all("close")) + 1
        async with bench.serve() as served, pair(bench, served) as (peer, _):
            await peer.send_raw(cut)
            peer.close()
            _is(bench, await bench.recorder.closed(count), 1006, "", "network")
    equal(bench.recorder.values(), [], "messages")


@check("CLOSE-7")
async def the_connection_was_half_closed_unread(bench: Bench) -> None:
    """A peer that has not read what was sent to it ended its sending side: 1006, no text, network, at once."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        sends = await clog(bench, channel)
        await peer.half_close()
        await bench.within(channel.wait_closed(), "wait_closed()", timeout=bench.scale)
        await sends.all_return(bench, "when the connection was lost")

    await _row(bench, act, (1006, "", "network"))


@check("CLOSE-7")
async def the_connection_was_half_closed_and_read_to_its_end(bench: Bench) -> None:
    """A peer that half-closed and read the rest later: 1006, no text, network; nothing is logged of it."""
    options = bench.options(close_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        await clog(bench, channel)
        await peer.half_close()
        _is(bench, await bench.recorder.closed(), 1006, "", "network")
        await peer.drain()
        await asyncio.sleep(0.3 * bench.scale)  # past close_timeout
    equal([record.getMessage() for record in bench.logs if record.levelname == "ERROR"], [], "what was logged")


@check("CLOSE-7")
async def a_local_close_that_is_answered(bench: Bench) -> None:
    """A local close: its code, its text, local; the answer's code and text do not matter."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.auto_close = False
        channel.close(4001, "gr\xfc\xdfe")
        equal(await peer.receive(), Close(4001, "gr\xfc\xdfe"), "what the peer gets")
        await peer.send_close(4002, "other")
        await peer.wait_eof()

    await _row(bench, act, (4001, "gr\xfc\xdfe", "local"))


@check("CLOSE-7")
async def a_local_close_that_is_not_answered(bench: Bench) -> None:
    """A local close that the peer does not answer until close_timeout: its code, its text, local."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.auto_close = False
        channel.close(4001, "text")

    await _row(bench, act, (4001, "text", "local"), seen=Close(4001, "text"), close_timeout=0.2 * bench.scale)


@check("CLOSE-7")
async def a_local_close_and_a_loss(bench: Bench) -> None:
    """A local close after which the connection is lost: its code, its text, local."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        channel.close(4001, "text")
        peer.drop()

    await _row(bench, act, (4001, "text", "local"))


@check("CLOSE-7")
async def a_callback_raised(bench: Bench) -> None:
    """A callback raised: 1011, no text, local; the peer gets 1011."""

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise ValueError("on purpose")

    await _row(
        bench, lambda peer, channel: peer.send_text("a"), (1011, "", "local"), seen=Close(1011, ""), on_text=on_text
    )


async def _after(bench: Bench, frame: bytes, expected: tuple[int, None, str]) -> None:
    """Check what becomes of a channel after a frame; what the peer gets is RECV-8's and RECV-9's to say."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        await peer.send_raw(frame)
        await bench.within(channel.wait_closed(), "wait_closed()")
        peer.close()

    await _row(bench, act, expected)


@check("CLOSE-7", wire=True)
async def invalid_utf_8(bench: Bench) -> None:
    """A text that is not UTF-8: 1007, any text, local."""
    await _after(bench, build_frame(Opcode.TEXT, b"\xc3\x28"), (1007, None, "local"))


@check("CLOSE-7", wire=True)
async def a_violation(bench: Bench) -> None:
    """A violation of the protocol: 1002, any text, local."""
    await _after(bench, build_frame(3, b"reserved"), (1002, None, "local"))


@check("CLOSE-7", needs=("size-limit",))
async def too_big(bench: Bench) -> None:
    """A message over the limit: 1009, any text, local; the peer gets 1009."""
    await _row(
        bench,
        lambda peer, channel: peer.send_text("x" * 101),
        (1009, None, "local"),
        seen_code=1009,
        max_text_size=100,
    )


@check("CLOSE-7")
async def an_idle_timeout(bench: Bench) -> None:
    """No message for idle_timeout: 1001, "idle timeout", local; the peer gets both."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        pass

    seen = Close(1001, "idle timeout")
    await _row(bench, act, (1001, "idle timeout", "local"), seen=seen, idle_timeout=0.2 * bench.scale)


@check("CLOSE-7", needs=("ping",), fixed=["cut"])
async def a_ping_timeout(bench: Bench) -> None:
    """A peer that answers no ping: 1011, "ping timeout", local; the peer gets both."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        peer.auto_pong = False

    timeouts: dict[str, Any] = {"ping_interval": 0.1 * bench.scale, "ping_timeout": 0.1 * bench.scale}
    await _row(bench, act, (1011, "ping timeout", "local"), seen=Close(1011, "ping timeout"), **timeouts)


@check("CLOSE-7")
async def a_send_timeout(bench: Bench) -> None:
    """A peer that takes no byte for send_timeout: 1008, "send timeout", local; the send that waits returns False."""

    async def act(peer: WirePeer, channel: WebSocketChannel) -> None:
        sends = await clog(bench, channel)
        await sends.all_return(bench, "for a peer that takes nothing")
        true(sends.refused, "no send returned False")

    await _row(bench, act, (1008, "send timeout", "local"), send_timeout=0.3 * bench.scale)


@check("CLOSE-7")
async def the_connector_stopped(bench: Bench) -> None:
    """The connector stopped: 1001, "server shutdown", local; the peer gets both."""
    async with bench.serve() as served, pair(bench, served) as (peer, _):
        assert served.connector is not None
        stopping = asyncio.ensure_future(served.connector.stop())
        equal(await peer.receive(), Close(1001, "server shutdown"), "what the peer gets")
        await bench.within(stopping, "stop()")
        _is(bench, await bench.recorder.closed(), 1001, "server shutdown", "local")


@check("CLOSE-8")
async def declared_deviations(bench: Bench) -> None:
    """Each declared deviation is that of a check of this suite, and says what happens and what was tried."""
    known = {one.id for one in registered()}  # all of them: they are imported together
    for scenario, declared in bench.target.deviations.items():
        true(scenario in known, f"a deviation is declared for {scenario!r}, and there is no such check")
        true(isinstance(declared, Deviation), f"{scenario}: {declared!r} is no Deviation")
        true(declared.outcome.strip(), f"{scenario}: the declaration does not say what happens instead")
        true(len(declared.tried.split()) >= 5, f"{scenario}: what was tried is told in {declared.tried!r}")


@check("CLOSE-9")
async def spelling(bench: Bench) -> None:
    """The connector's keywords are those of close codes, in lower case with hyphens, one for each code."""
    table = dict(bench.connector.close_keywords)
    for code, keyword in table.items():
        true(type(code) is int, f"the key {code!r} is no plain int")
        true(1000 <= code <= 4999, f"{code} is no close code")
        true(isinstance(keyword, str), f"the keyword of {code} is {keyword!r}")
        true(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", keyword), f"the keyword of {code} is spelled {keyword!r}")
    equal(len(set(table.values())), len(table), "different keywords, against codes")


@check("CLOSE-9")
async def names_on_the_wire(bench: Bench) -> None:
    """Every code that a peer can close with has its portable name, and the connector's keyword or else that name."""
    codes = [*(code for code in NAMES if code not in (1005, 1006, 1015)), 3500, 4500]
    async with bench.serve() as served:
        for number, code in enumerate(codes, 1):
            async with pair(bench, served) as (peer, _):
                await peer.send_close(code)
                _is(bench, await bench.recorder.closed(number), code, "", "peer")


@check("CLOSE-9")
async def names_of_the_rest(bench: Bench) -> None:
    """A code that no peer can send has its names too: `unknown` one that neither table has."""
    table = bench.connector.close_keywords
    for code in (1005, 1006, 1015):
        _is(bench, close_reason(code, "", "network", table), code, "", "network")
    for code in (1004, 1016, 1999, 2000, 2999):
        reason = close_reason(code, "", "network", table)
        keyword = dict(table).get(code, "unknown")
        equal((reason.name, reason.keyword, str(reason)), ("unknown", keyword, keyword), f"name and keyword of {code}")


@check("CLOSE-10", stochastic=True)
async def closes_that_cross(bench: Bench) -> None:
    """When closes cross, local wins if close was called first; the peer gets either frame, and the reason stays."""
    text = "" if bench.target.loses_close_text else "peer"
    async with bench.serve() as served:
        for number in range(20):
            async with pair(bench, served) as (peer, channel):
                peer.auto_close = False
                await peer.send_close(4002, "peer")
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                expected = (4001, "local", "local") if channel.reason is None else (4002, text, "peer")
                channel.close(4001, "local")
                _is(bench, await bench.within(channel.wait_closed(), "wait_closed()"), *expected)
                _is(bench, await bench.recorder.closed(number + 1), *expected)
                true((await peer.receive_close()).code in (4001, 4002), f"the peer got {peer.received}")
                await peer.wait_eof()
                _is(bench, await channel.wait_closed(), *expected)


@check("CLOSE-10")
async def a_local_close_before_the_peers(bench: Bench) -> None:
    """A close that was called while the peer's was on its way wins over it."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        channel.close(4001, "local")
        await peer.send_close(4002, "peer")
        _is(bench, await bench.recorder.closed(), 4001, "local", "local")
        equal(await peer.receive(), Close(4001, "local"), "what the peer gets")


async def _after_an_end(bench: Bench, end: bytes, expected: tuple[int, str | None, str], *, raises: bool) -> None:
    """Send messages and an end in one write; the callback of the first learns of it, and then closes or raises."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        bench.recorder.log("told", value=await channel.wait_closed())
        if raises:
            raise RuntimeError("on purpose")
        channel.close(4001, "local")

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_raw(b"".join(build_frame(Opcode.TEXT, text) for text in (b"1", b"2", b"3")) + end)
        if not end:
            await peer.half_close()
        _is(bench, await bench.recorder.closed(), *expected)
    equal(bench.recorder.values("told"), [await _reason(bench)], "what the callback was told")
    equal(bench.recorder.values("text"), ["1"], "the messages delivered")
    equal(len(bench.recorder.all("error")), int(raises), "calls of on_error")


async def _reason(bench: Bench) -> CloseReason:
    return await bench.recorder.closed()


@check("CLOSE-10")
async def a_close_after_the_peers(bench: Bench) -> None:
    """A close in the callback of a message that has learned of the peer's close changes no reason; no more comes."""
    end = build_frame(Opcode.CLOSE, close_payload(4002, "peer"))
    text = None if bench.target.loses_close_text else "peer"
    await _after_an_end(bench, end, (4002, text, "peer"), raises=False)


@check("CLOSE-10")
async def a_close_after_a_loss(bench: Bench) -> None:
    """A close in the callback of a message that has learned of the loss changes no reason; no more comes."""
    await _after_an_end(bench, b"", (1006, "", "network"), raises=False)


@check("CLOSE-10", wire=True)
async def a_violation_in_front_of_a_loss(bench: Bench) -> None:
    """A violation that was read before the connection ended is the reason, also if a callback ran meanwhile."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "0":
            await asyncio.sleep(0.1 * bench.scale)  # until what follows has come

    async def half_close(peer: WirePeer) -> None:
        await peer.half_close()

    async def leave(peer: WirePeer) -> None:
        peer.close()

    count = 0
    for end in (half_close, leave):
        for messages in (1, 400):
            count += 1
            async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
                texts = [b"0", *[b"x" * 1500] * (messages - 1)]
                await peer.send_raw(b"".join(build_frame(Opcode.TEXT, text) for text in texts) + build_frame(3))
                await end(peer)
                reason = await bench.recorder.closed(count)
            equal((reason.code, reason.initiator), (1002, "local"), f"code and initiator after {messages} messages")
    raised = [record.getMessage() for record in bench.logs if record.levelname == "ERROR"]
    equal(raised, [], "what was logged")


@check("CLOSE-10")
async def an_exception_after_the_peers_close(bench: Bench) -> None:
    """An exception in a callback that has learned of the peer's close reaches on_error, and changes no reason."""
    end = build_frame(Opcode.CLOSE, close_payload(4002, "peer"))
    text = None if bench.target.loses_close_text else "peer"
    await _after_an_end(bench, end, (4002, text, "peer"), raises=True)


@check("CLOSE-10")
async def an_exception_after_a_loss(bench: Bench) -> None:
    """An exception in a callback that has learned of the loss reaches on_error, and changes no reason."""
    await _after_an_end(bench, b"", (1006, "", "network"), raises=True)


@check("CLOSE-10")
async def an_exception_behind_a_close(bench: Bench) -> None:
    """An exception of the callback that has closed does not change the reason, nor what the peer gets."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4001, "local")
        raise RuntimeError("on purpose")

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("a")
        equal(await peer.receive(), Close(4001, "local"), "what the peer gets")
        _is(bench, await bench.recorder.closed(), 4001, "local", "local")
    equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")


@check("CLOSE-10", wire=True)
async def a_violation_behind_a_close(bench: Bench) -> None:
    """What the peer does wrong after a local close does not change the reason."""
    for number, raw in enumerate(
        (build_frame(3), build_frame(Opcode.TEXT, b"\xff"), build_frame(Opcode.CLOSE, b"\x03")), 1
    ):
        async with bench.serve() as served, pair(bench, served) as (peer, channel):
            channel.close(4001, "local")
            await peer.send_raw(raw)
            equal(await peer.receive(), Close(4001, "local"), "what the peer gets")
            peer.close()
            _is(bench, await bench.recorder.closed(number), 4001, "local", "local")


@check("CLOSE-10")
async def a_loss_behind_the_peers_close(bench: Bench) -> None:
    """A peer that closes and then goes has closed, whether a message callback or on_close runs when it goes."""
    go_on = asyncio.Event()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await go_on.wait()

    async def on_close(channel: WebSocketChannel, process: Any, reason: CloseReason) -> None:
        await asyncio.sleep(0.05 * bench.scale)
        bench.recorder.log("late", value=channel.reason)

    async with bench.serve(bench.options(on_text=on_text, on_close=on_close)) as served:
        async with pair(bench, served) as (peer, _):
            await peer.send_close(4002, "peer")
            await bench.recorder.closed()
            peer.drop()
        async with pair(bench, served) as (peer, _):
            await peer.send_text("a")
            await bench.recorder.wait("text")
            await peer.send_close(4002, "peer")
            peer.close()
            await asyncio.sleep(0.05 * bench.scale)  # until both are in
            go_on.set()
            await bench.recorder.wait("late", 2)
    for reason in bench.recorder.values("close", "late"):
        _is(bench, reason, 4002, "peer", "peer")


@check("CLOSE-10")
async def a_close_frame_and_the_end_in_one(bench: Bench) -> None:
    """A peer that closes and ends TCP without waiting for the answer has closed."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_text("last words")
        await peer.send_close(4002, "peer")
        peer.close()
        _is(bench, await bench.recorder.closed(), 4002, "peer", "peer")
    equal(bench.recorder.values(), ["last words"], "the messages delivered")
