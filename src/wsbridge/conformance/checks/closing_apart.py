"""CLOSE-10: the end of one channel is nobody else's: not of the next one, nor of those beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.client import Closed, Opcode, WirePeer
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.protocols import WebSocketChannel

__all__: list[str] = []

Facts = tuple[int, str, str]
Way = tuple[str, Facts, Callable[[WirePeer], Awaitable[object]]]


async def _on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    """Do what the peer asks for."""
    if text == "raise":
        raise RuntimeError("on_text raises")
    if text.startswith("close "):
        channel.close(4003, text.removeprefix("close "))
    else:
        await channel.send_text(text)


def _says(text: str) -> Callable[[WirePeer], Awaitable[object]]:
    async def end(peer: WirePeer) -> None:
        await peer.send_text(text)
        await peer.receive_close()  # which is answered

    return end


def _errs(opcode: int) -> Callable[[WirePeer], Awaitable[object]]:
    async def end(peer: WirePeer) -> None:
        await peer.send_frame(opcode, b"\xff")
        with contextlib.suppress(Closed):
            await peer.receive_close()
        peer.close()  # which some servers wait for

    return end


async def _drops(peer: WirePeer) -> None:
    peer.drop()


def _ways(bench: Bench) -> list[Way]:
    """Return ends that differ in code, text or initiator, those with a text in front of those without."""
    told = "" if bench.target.loses_close_text else "of the peer"
    bad: Facts = (1005, "", "peer") if bench.target.hides_violations else (1002, "*", "local")
    text: Facts = (1005, "", "peer") if bench.target.hides_violations else (1007, "*", "local")
    ways: list[Way] = [
        ("a close with a text", (4001, told, "peer"), lambda peer: peer.send_close(4001, "of the peer")),
        ("a reset", (1006, "", "network"), _drops),
        ("a local close with a text", (4003, "of this side", "local"), _says("close of this side")),
        ("an exception", (1011, "", "local"), _says("raise")),
        ("an empty close", (1005, "", "peer"), lambda peer: peer.send_close()),
        ("a half-close", (1006, "", "network"), lambda peer: peer.half_close()),
        ("a close without a text", (4002, "", "peer"), lambda peer: peer.send_close(4002)),
        ("another local close", (4003, "another", "local"), _says("close another")),
    ]
    if bench.target.has_wire:
        ways += [
            ("a violation", bad, _errs(3)),
            ("text that is not UTF-8", text, _errs(Opcode.TEXT)),
        ]
    return ways


def _is_told(bench: Bench, channel: WebSocketChannel, expected: Facts) -> None:
    """Check the reason of a channel, which a text of * leaves open."""
    reason = channel.reason
    true(reason is not None, "the channel has no reason")
    if reason is not None:
        text = "*" if expected[1] == "*" else reason.text
        equal((reason.code, text, reason.initiator), expected, "code, text and initiator")
        given = [event.value for event in bench.recorder.all("close") if event.channel == channel.id]
        true(given == [reason], f"on_close got {given}, and the channel has {reason}")


async def _is_open(channel: WebSocketChannel, peer: WirePeer) -> None:
    """Check that nothing is told of an end to a channel, and that it works."""
    equal(channel.reason, None, "the reason of an open channel")
    await peer.send_text("on")
    equal(await peer.receive_text(), "on", "the echo of an open channel")


def _on_open(channel: WebSocketChannel, request: object) -> None:
    equal(channel.reason, None, "the reason when on_open begins")


async def _one_after_the_other(bench: Bench, served: Served, ways: list[Way]) -> list[WebSocketChannel]:
    channels: list[WebSocketChannel] = []
    for what, expected, end in ways:
        count = len(bench.recorder.all("open")) + 1
        async with served.peer() as peer:
            channel = await bench.recorder.opened(count)
            waiting = asyncio.ensure_future(channel.wait_closed())
            await _is_open(channel, peer)
            true(not waiting.done(), f"wait_closed() returned at once, before {what}")
            await end(peer)
            told = await bench.within(waiting, f"wait_closed() after {what}")
            await bench.recorder.wait("close-end", count)
            true(told is channel.reason, f"wait_closed() told {told}, and the channel {channel.reason}")
            _is_told(bench, channel, expected)
        channels.append(channel)
    return channels


@check("CLOSE-10")
async def one_channel_after_another(bench: Bench) -> None:
    """A channel begins without a reason, and gets that of its own end, whatever the one before it had; that stays."""
    ways = _ways(bench)
    async with bench.serve(bench.options(on_open=_on_open, on_text=_on_text)) as served:
        order = [*ways, *reversed(ways)]
        channels = await _one_after_the_other(bench, served, order)
        for channel, (_, expected, _) in zip(channels, order, strict=True):
            _is_told(bench, channel, expected)


@check("CLOSE-10")
async def channels_side_by_side(bench: Bench) -> None:
    """Of channels that are open at once each has its own end: the others have none, and go on."""
    ways = _ways(bench)
    async with bench.serve(bench.options(on_open=_on_open, on_text=_on_text)) as served, AsyncExitStack() as stack:
        open_ones: list[tuple[WebSocketChannel, WirePeer]] = []
        for number in range(len(ways)):
            peer = await stack.enter_async_context(served.peer())
            open_ones.append((await bench.recorder.opened(number + 1), peer))
        ended: list[tuple[WebSocketChannel, Facts]] = []
        with variants() as variant:
            for what, expected, end in ways:
                with variant(what):
                    channel, peer = open_ones.pop(len(open_ones) // 2)
                    ended.append((channel, expected))
                    await end(peer)
                    await bench.recorder.wait("close-end", len(ended))
                    for other, facts in ended:
                        _is_told(bench, other, facts)
                    for other, its_peer in open_ones:
                        await _is_open(other, its_peer)


@check("CLOSE-10")
async def channels_of_two_runs(bench: Bench) -> None:
    """After a stop and a new start a channel begins without a reason, and does not end as those of the former run."""
    app = Application([("/", bench.options(on_open=_on_open, on_text=_on_text))])
    connector = bench.connector(app, shutdown_timeout=bench.scale)
    for run in range(2):
        await bench.within(connector.start(), "start()")
        try:
            served = bench.served(connector)
            async with served.peer() as peer, served.peer() as other:
                channel = await bench.recorder.opened(3 * run + 1)
                await bench.recorder.opened(3 * run + 2)
                await _is_open(channel, peer)
                await other.send_close(4001, "done")
                await bench.recorder.wait("close", 3 * run + 1)
                await _is_open(channel, peer)
                stopping = asyncio.ensure_future(connector.stop())
                equal((await peer.receive_close()).code, 1001, "the code of the close at the stop")
                await bench.within(stopping, "stop()")
                _is_told(bench, channel, (1001, "server shutdown", "local"))
            await bench.within(connector.start(), "start() after a stop()")
            async with bench.served(connector).peer() as peer:
                channel = await bench.recorder.opened(3 * run + 3)
                await _is_open(channel, peer)
                peer.drop()
                await bench.recorder.wait("close", 3 * run + 3)
                _is_told(bench, channel, (1006, "", "network"))
        except Closed as closed:
            true(False, f"a channel ended: {closed}")
        finally:
            await bench.within(connector.stop(), "the last stop()")
