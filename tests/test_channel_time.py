"""The timeouts of a `BaseChannel`, by a clock that is set by hand: none of this takes real time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.channels import Opened, end_all, facts, kind
from tests.fakes import FakeChannel, FakeConnector, PushedChannel, handshake, passes
from wsbridge import WebSocketOptions
from wsbridge._channel.clock import RESOLUTION
from wsbridge.connector import BaseChannel

__all__ = ["end_all", "kind"]

Kind = type[FakeChannel]
SLACK = 2 * RESOLUTION
OFF: dict[str, Any] = {"ping_interval": None, "send_timeout": None}


async def open_channel(kind: Kind = PushedChannel, **options: Any) -> Opened:
    opened = Opened(kind, **{**OFF, **options})
    await passes()
    return opened


class Callback:
    """A coroutine callback that runs until it is let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, *arguments: Any) -> None:
        await self.gate.wait()


# ---- idle ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-2", "CLOSE-7")
async def test_an_idle_channel_is_closed(kind: Kind) -> None:
    opened = await open_channel(kind, idle_timeout=5)
    opened.time.advance(4.9)
    assert opened.written == []
    opened.time.advance(0.1 + SLACK)
    assert opened.written == [("close", 1001, "idle timeout")]
    assert facts(await opened.leave()) == (1001, "idle timeout", "local")


@pytest.mark.rule("LIM-2")
async def test_without_the_option_no_channel_is_idle_and_no_timer_is_set(kind: Kind) -> None:
    opened = await open_channel(kind)
    assert opened.time.timers == []
    opened.time.advance(10**6)
    assert opened.channel.reason is None


@pytest.mark.rule("LIM-2")
@pytest.mark.parametrize("way", ["text in", "binary in", "text out", "binary out"])
async def test_a_message_in_or_out_starts_idle_time_anew(kind: Kind, way: str) -> None:
    opened = await open_channel(kind, idle_timeout=5)
    for _ in range(4):
        opened.time.advance(4)
        if way == "text in":
            opened.comes("text", "a")
        elif way == "binary in":
            opened.comes("binary", b"a")
        elif way == "text out":
            await opened.channel.send_text("a")
        else:
            await opened.channel.send_binary(b"a")
        await passes()
    opened.time.advance(4.9)
    assert opened.channel.reason is None
    opened.time.advance(0.1 + SLACK)
    assert facts(opened.channel.reason) == (1001, "idle timeout", "local")


@pytest.mark.rule("LIM-2")
async def test_pings_and_pongs_are_no_messages(kind: Kind) -> None:
    opened = await open_channel(kind, idle_timeout=5, ping_interval=1, ping_timeout=None)
    for _ in range(4):
        opened.time.advance(1 + SLACK)
        opened.comes("pong", opened.written[-1][1])
        await passes()
    opened.time.advance(1)
    assert opened.written[-1] == ("close", 1001, "idle timeout")


@pytest.mark.rule("LIM-2")
@pytest.mark.parametrize("where", ["on_open", "on_text", "on_binary"])
async def test_idle_time_stands_still_while_a_callback_runs(kind: Kind, where: str) -> None:
    callback = Callback()
    opened = await open_channel(kind, idle_timeout=5, **{where: callback})
    opened.comes("binary" if where == "on_binary" else "text", b"a" if where == "on_binary" else "a")
    await passes()
    opened.time.advance(60)
    assert opened.channel.reason is None
    callback.gate.set()
    await passes()
    opened.time.advance(4.5)
    assert opened.channel.reason is None
    opened.time.advance(0.5 + 0.25 + SLACK)
    assert facts(opened.channel.reason) == (1001, "idle timeout", "local")


# ---- pings --------------------------------------------------------------------------------------------------------


def pings(opened: Opened) -> list[bytes]:
    return [entry[1] for entry in opened.written if entry[0] == "ping"]


@pytest.mark.rule("LIM-3", "CLOSE-7")
async def test_a_peer_that_answers_no_ping_is_told_and_cut_off(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=20, ping_timeout=5)
    opened.time.advance(19.9)
    assert opened.written == []
    opened.time.advance(5)
    assert opened.wire.kinds == ["ping"]
    opened.time.advance(0.1 + 1)  # the contract's second
    assert opened.wire.kinds == ["ping", "close", "abort"]
    assert opened.written[1] == ("close", 1011, "ping timeout")
    opened.comes("lost")
    assert facts(await opened.ended()) == (1011, "ping timeout", "local")
    assert opened.log == ["open", "close 1011"]


@pytest.mark.rule("LIM-3")
async def test_a_peer_that_answers_is_pinged_on_and_on(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=20, ping_timeout=5)
    for count in range(1, 6):
        opened.time.advance(20 + SLACK)
        assert len(pings(opened)) == count
        opened.comes("pong", pings(opened)[-1])
        await passes()
    assert len(set(pings(opened))) == 5
    assert opened.channel.reason is None


@pytest.mark.rule("LIM-3")
async def test_a_pong_that_answers_nothing_saves_nobody(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=20, ping_timeout=5)
    opened.comes("pong", b"\0\0\0\1")
    await passes()
    opened.time.advance(20 + SLACK)
    for payload in (b"", b"\0\0\0\0", b"\0\0\0\2", b"\0\0\0\1\0", b"\xff\xff\xff\xff"):
        opened.comes("pong", payload)
    await passes()
    opened.time.advance(6)
    assert facts(opened.channel.reason) == (1011, "ping timeout", "local")


@pytest.mark.rule("LIM-3")
async def test_a_pong_for_an_older_ping_gives_time_for_the_newer(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=2, ping_timeout=5)
    opened.time.advance(4 + SLACK)  # two pings
    opened.time.advance(2)
    first, *others = pings(opened)
    assert len(others) == 2
    opened.comes("pong", first)
    await passes()
    opened.time.advance(4.5)
    assert opened.channel.reason is None
    opened.time.advance(1.5)
    assert facts(opened.channel.reason) == (1011, "ping timeout", "local")


@pytest.mark.rule("LIM-3")
async def test_the_clock_of_pings_stands_still_while_a_callback_runs(kind: Kind) -> None:
    callback = Callback()
    opened = await open_channel(kind, ping_interval=2, ping_timeout=1, on_text=callback)
    opened.comes("text", "a")
    await passes()
    opened.time.advance(60)
    assert opened.channel.reason is None
    callback.gate.set()
    await passes()
    opened.comes("pong", pings(opened)[-1])  # it lay unread behind the callback
    await passes()
    opened.time.advance(1)
    assert opened.channel.reason is None
    opened.time.advance(3)
    assert facts(opened.channel.reason) == (1011, "ping timeout", "local")


@pytest.mark.rule("LIM-3")
async def test_without_a_timeout_a_silent_peer_is_pinged_on(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=1, ping_timeout=None)
    opened.time.advance(10 + 10 * SLACK)
    opened.comes("pong", pings(opened)[-1])
    await passes()
    assert len(pings(opened)) == 10
    assert opened.channel.reason is None


@pytest.mark.rule("LIM-3")
async def test_without_an_interval_there_are_no_pings(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=None, ping_timeout=1)
    opened.time.advance(100)
    assert (opened.written, opened.time.timers) == ([], [])


@pytest.mark.rule("LIM-3")
async def test_a_connector_that_cannot_ping_does_not() -> None:
    class Silent(FakeConnector):
        features = FakeConnector.features - {"ping"}

    connector = Silent()
    time = connector.use_fake_time()
    channel = PushedChannel(connector, handshake(), WebSocketOptions(), None)
    task = connector.run_channel(channel)
    await passes()
    time.advance(100)
    assert channel.wire.written == []
    channel.comes("lost")
    await task
    with pytest.raises(NotImplementedError):
        BaseChannel._ping(channel, b"")


@pytest.mark.rule("LIM-3")
async def test_no_heap_of_pings_is_made_behind_a_stuck_peer(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=1, ping_timeout=100)
    opened.channel.pause_writing()
    opened.time.advance(50)
    assert len(pings(opened)) == 1


@pytest.mark.rule("LIM-3")
async def test_no_ping_follows_a_close(kind: Kind) -> None:
    opened = await open_channel(kind, ping_interval=1, ping_timeout=1, close_timeout=50)
    opened.channel.close()
    opened.time.advance(40)
    assert opened.wire.kinds == ["close"]


@pytest.mark.rule("SEND-1")
@pytest.mark.parametrize("error", [BrokenPipeError(), RuntimeError("broken server")])
async def test_a_ping_that_cannot_be_written_disturbs_nobody_else(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    opened = await open_channel(ping_interval=1)
    opened.wire.control_error = error
    opened.time.advance(1 + SLACK)
    assert await opened.channel.send_text("a") is False
    lost = isinstance(error, OSError)
    assert [record.levelno for record in caplog.records] == ([] if lost else [logging.ERROR])
    assert opened.written == ([] if lost else [("abort",)])
    opened.comes("lost")
    assert facts(await opened.ended()) == (1006, "", "network")


# ---- a peer that does not read ------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-4", "CLOSE-7")
async def test_a_peer_that_takes_no_byte_is_cut_off(kind: Kind) -> None:
    opened = await open_channel(kind, send_timeout=8)
    opened.wire.unsent = 1000
    opened.channel.pause_writing()
    send = asyncio.ensure_future(opened.channel.send_text("a"))
    await passes()
    opened.time.advance(7.9)
    await passes()
    assert (send.done(), opened.written) == (False, [])
    opened.time.advance(0.1 + SLACK)
    await passes()
    assert (send.result(), opened.written) == (False, [("abort",)])
    opened.comes("lost")
    assert facts(await opened.ended()) == (1008, "send timeout", "local")
    assert opened.log == ["open", "close 1008"]


@pytest.mark.rule("LIM-4")
async def test_a_byte_now_and_then_is_enough(kind: Kind) -> None:
    opened = await open_channel(kind, send_timeout=8)
    opened.wire.unsent = 1000
    opened.channel.pause_writing()
    for _ in range(20):
        opened.time.advance(4)
        opened.wire.unsent -= 1
    assert opened.channel.reason is None
    opened.time.advance(8 + 2 + SLACK)
    assert facts(opened.channel.reason) == (1008, "send timeout", "local")


@pytest.mark.rule("LIM-4")
async def test_a_buffer_that_drains_ends_the_watch(kind: Kind) -> None:
    opened = await open_channel(kind, send_timeout=8)
    opened.wire.unsent = 1000
    opened.channel.pause_writing()
    opened.time.advance(7)
    opened.channel.resume_writing()
    opened.time.advance(100)
    assert (opened.channel.reason, opened.time.timers) == (None, [])
    opened.channel.pause_writing()
    opened.time.advance(7)
    assert opened.channel.reason is None
    opened.time.advance(1 + 2 + SLACK)
    assert facts(opened.channel.reason) == (1008, "send timeout", "local")


@pytest.mark.rule("LIM-4")
async def test_an_empty_buffer_is_not_stuck(kind: Kind) -> None:
    opened = await open_channel(kind, send_timeout=8)
    opened.channel.pause_writing()
    opened.time.advance(100)
    assert opened.channel.reason is None


@pytest.mark.rule("LIM-4")
async def test_without_the_option_a_send_waits_for_ever(kind: Kind) -> None:
    opened = await open_channel(kind, send_timeout=None)
    opened.channel.pause_writing()
    opened.time.advance(10**6)
    assert opened.channel.reason is None


@pytest.mark.rule("LIM-4", "CLOSE-5")
async def test_a_close_behind_a_stuck_peer_is_cut_off_by_whichever_comes_first(kind: Kind) -> None:
    for send_timeout, close_timeout, expected in ((8, 3, 3), (3, 8, 3)):
        opened = await open_channel(kind, send_timeout=send_timeout, close_timeout=close_timeout)
        opened.wire.unsent = 1000
        opened.channel.pause_writing()
        opened.channel.close(4000)
        opened.time.advance(expected - 0.1)
        assert opened.wire.kinds == ["close"]
        opened.time.advance(0.1 + SLACK)
        assert opened.wire.kinds == ["close", "abort"]
        assert facts(opened.channel.reason) == (4000, "", "local")


@pytest.mark.rule("LIM-4")
async def test_messages_that_are_not_delivered_yet_are_dropped_by_it() -> None:
    callback = Callback()
    opened = await open_channel(send_timeout=8, on_text=callback)
    opened.comes("text", "a")
    await passes()
    opened.comes("text", "b")
    opened.wire.unsent = 1000
    opened.channel.pause_writing()
    opened.time.advance(8 + SLACK)
    callback.gate.set()
    opened.comes("lost")
    await opened.ended()
    assert opened.log == ["open", "text a", "close 1008"]


async def test_a_lost_connection_is_not_watched(kind: Kind) -> None:
    callback = Callback()
    opened = await open_channel(kind, send_timeout=8, on_text=callback)
    opened.comes("text", "a")
    await passes()
    opened.channel.pause_writing()
    opened.channel.connection_lost()
    opened.channel.pause_writing()
    opened.time.advance(100)
    assert (opened.written, opened.time.timers) == ([], [])
    callback.gate.set()
    opened.comes("lost")
    assert facts(await opened.ended()) == (1006, "", "network")


# ---- a peer that does not finish the close ------------------------------------------------------------------------


@pytest.mark.rule("CLOSE-3", "CLOSE-5")
async def test_a_peer_that_never_answers_is_cut_off(kind: Kind) -> None:
    opened = await open_channel(kind, close_timeout=3)
    opened.channel.close(4000, "bye")
    opened.time.advance(2.9)
    await passes()
    assert (opened.written, opened.log) == ([("close", 4000, "bye")], ["open"])
    opened.time.advance(0.1 + SLACK)
    opened.comes("lost")
    assert facts(await opened.ended()) == (4000, "bye", "local")
    assert opened.written == [("close", 4000, "bye"), ("abort",)]
    assert opened.log == ["open", "close 4000"]


@pytest.mark.rule("CLOSE-3")
async def test_on_close_does_not_wait_for_the_peer_to_hang_up(kind: Kind) -> None:
    opened = await open_channel(kind, close_timeout=3)
    opened.channel.close()
    opened.comes("close", 1000, "")
    await opened.ended()
    assert opened.log == ["open", "close 1000"]
    assert opened.time.now == 1000.0


@pytest.mark.rule("CLOSE-5")
async def test_the_time_of_a_close_runs_from_the_first(kind: Kind) -> None:
    opened = await open_channel(kind, close_timeout=3, idle_timeout=1)
    opened.channel.close()
    opened.time.advance(2)
    opened.channel.close()
    opened.comes("text", "late")
    await passes()
    opened.time.advance(1 + SLACK)
    assert opened.wire.kinds == ["close", "abort"]


@pytest.mark.rule("CLOSE-5")
async def test_a_close_is_looked_at_before_a_later_deadline(kind: Kind) -> None:
    opened = await open_channel(kind, close_timeout=3, ping_interval=100)
    assert opened.time.timers == [1100]
    opened.channel.close()
    assert opened.time.timers == [1003]
