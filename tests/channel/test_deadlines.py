"""What is due when: time goes in, and what is late comes out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from wsbridge import WebSocketOptions
from wsbridge._channel.deadlines import Deadlines, Due
from wsbridge._channel.ending import CLOSING, CUT, HERE, LOST, NOTED, OPEN

BEGIN = 1000.0
STEP = 0.25  # seconds between two looks at a channel whose callback runs
GRACE = 0.2  # seconds for a pong that lies unread


class Timed(Deadlines):
    """`Deadlines` whose clock, callback and connection are set by the test.

    Attributes:
        now: The time, in seconds.
        busy: Whether a callback runs.
        unsent: Bytes that have not left.
        held: Since when the server waits in a send.
        looks: When the clock was asked to look at it.
    """

    def __init__(self, **options: Any) -> None:
        options = {"ping_interval": None, "ping_timeout": None, "send_timeout": None} | options
        super().__init__(WebSocketOptions(**options))
        self.now = BEGIN
        self.busy = False
        self.unsent = 0
        self.held: float | None = None
        self.looks: list[float] = []

    def _now(self) -> float:
        return self.now

    def _is_busy(self) -> bool:
        return self.busy

    def _unsent_bytes(self) -> int:
        return self.unsent

    def _held_since(self) -> float | None:
        return self.held

    def _arm(self, when: float) -> None:
        self.looks.append(when)

    @property
    def _close_keywords(self) -> Mapping[int, str]:
        return {}

    def _has_sends_under_way(self) -> bool:
        return False

    def _watch_sends(self) -> None: ...

    def _close_is_settled(self) -> None: ...

    def _write_close(self, code: int | None, text: str) -> None: ...

    def _end_connection(self, *, half: bool, behind: bool) -> None: ...

    def _cut_connection(self) -> None: ...

    def _is_peer_behind(self) -> bool:
        return False

    def _is_unfinished(self) -> bool:
        return False

    def _wake_senders(self) -> None: ...

    def _reason_is_known(self) -> None: ...

    def at(self, seconds: float, **changes: Any) -> Due:
        """Return what is due so many seconds after the beginning."""
        for name, value in changes.items():
            assert hasattr(self, name)
            setattr(self, name, value)
        self.now = BEGIN + seconds
        return self._due(self.now)


def look(due: Due) -> float | None:
    """Return when to look again, in seconds after the beginning."""
    assert due.what == "nothing"
    return None if due.look is None else due.look - BEGIN


def begun(*, pings: bool = True, **options: Any) -> Timed:
    timed = Timed(**options)
    timed._begin_times(pings=pings)
    return timed


def test_without_options_nothing_is_ever_due() -> None:
    timed = begun()
    assert (timed.at(0), timed.at(10**9), timed.looks) == (Due("nothing"), Due("nothing"), [])


# ---- idle -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-2")
def test_a_channel_is_idle_when_nothing_has_happened_for_so_long() -> None:
    timed = begun(idle_timeout=5)
    assert timed.looks == [BEGIN + 5]
    assert look(timed.at(4.9)) == 5
    assert timed.at(5).what == "idle timeout"


@pytest.mark.rule("LIM-2")
def test_what_happens_puts_it_off() -> None:
    timed = begun(idle_timeout=5)
    timed._activity = BEGIN + 3
    assert look(timed.at(5)) == 8
    assert timed.at(8).what == "idle timeout"


@pytest.mark.rule("LIM-2")
def test_idle_time_stands_still_while_a_callback_runs() -> None:
    timed = begun(idle_timeout=5)
    assert look(timed.at(50, busy=True)) == 50 + STEP
    assert look(timed.at(51, busy=False)) == 55
    assert timed.at(55).what == "idle timeout"


@pytest.mark.rule("LIM-2")
def test_a_short_idle_time_is_looked_at_as_often() -> None:
    assert look(begun(idle_timeout=0.1).at(1, busy=True)) == pytest.approx(1.1)


# ---- pings ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-3")
def test_pings_are_due_at_their_interval() -> None:
    timed = begun(ping_interval=10)
    assert timed.looks == [BEGIN + 10]
    assert look(timed.at(9)) == 10
    assert [timed.at(second).what for second in (10, 11, 20, 21)] == ["ping", "nothing", "ping", "nothing"]
    assert timed._ping_count == 2


@pytest.mark.rule("LIM-3")
def test_a_server_that_cannot_ping_is_asked_for_none() -> None:
    timed = begun(pings=False, ping_interval=10, ping_timeout=5)
    assert timed.at(100) == Due("nothing")


@pytest.mark.rule("LIM-3")
def test_a_ping_without_an_answer_ends_the_channel() -> None:
    timed = begun(ping_interval=10, ping_timeout=5)
    assert timed.at(10).what == "ping"
    assert look(timed.at(10)) == 15
    assert look(timed.at(15)) == pytest.approx(15 + GRACE)
    assert timed.at(15.21).what == "ping timeout"


@pytest.mark.rule("LIM-3")
def test_a_pong_counts_for_the_pings_before_it() -> None:
    timed = begun(ping_interval=10, ping_timeout=25)
    assert [timed.at(second).what for second in (10, 20, 30)] == ["ping"] * 3
    timed._pong_in(1)  # to the second of them
    assert timed._pong_by == BEGIN + 30 + 25
    timed._pong_in(0)
    assert timed._pong_by is None


@pytest.mark.rule("LIM-3")
@pytest.mark.parametrize("missing", [-1, 1, 2])
def test_a_pong_to_no_ping_counts_for_nothing(missing: int) -> None:
    timed = begun(ping_interval=10, ping_timeout=25)
    timed.at(10)
    timed.now += 5
    timed._pong_in(missing)
    assert timed._pong_by == BEGIN + 10 + 25


@pytest.mark.rule("LIM-3")
def test_a_pong_without_a_timeout_counts_for_nothing() -> None:
    timed = begun(ping_interval=10)
    timed.at(10)
    timed._pong_in(0)
    assert timed._pong_by is None


@pytest.mark.rule("LIM-3")
def test_a_pong_may_lie_unread_while_a_callback_runs() -> None:
    timed = begun(ping_interval=10, ping_timeout=5)
    timed.at(10)
    assert look(timed.at(15, busy=True)) == 15 + STEP
    assert look(timed.at(15.25, busy=False)) == pytest.approx(15 + STEP + GRACE)
    assert timed.at(15.5).what == "ping timeout"


@pytest.mark.rule("LIM-3", "LIM-4")
def test_no_heap_of_pings_waits_for_a_peer_that_reads_nothing() -> None:
    timed = begun(ping_interval=10, ping_timeout=None)
    assert [timed.at(second, _write_paused=True).what for second in (10, 20, 30)] == ["nothing"] * 3
    timed = begun(ping_interval=10, ping_timeout=25)
    assert [timed.at(second, _write_paused=True).what for second in (10, 20, 30)] == ["ping", "nothing", "nothing"]


# ---- sends ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-4")
def test_a_peer_of_which_nothing_leaves_is_stuck() -> None:
    timed = begun(send_timeout=8)
    timed.unsent = 100
    timed._write_paused = True
    timed._begin_stall()
    assert timed.looks == [BEGIN + 2]
    assert look(timed.at(7)) == 8
    assert timed.at(8).what == "send timeout"


@pytest.mark.rule("LIM-4")
def test_slow_is_not_stuck() -> None:
    timed = begun(send_timeout=8)
    timed._write_paused = True
    for second in range(0, 800, 8):
        assert look(timed.at(second, unsent=1000 - second)) == second + 2


@pytest.mark.rule("LIM-4", "SEND-9")
def test_what_is_being_deflated_is_not_stuck() -> None:
    timed = begun(send_timeout=8)
    timed._write_paused = True
    assert look(timed.at(100, unsent=0)) == 102
    assert look(timed.at(200, unsent=0)) == 202


@pytest.mark.rule("LIM-4")
def test_without_a_send_timeout_a_peer_may_take_its_time() -> None:
    timed = begun()
    timed._write_paused = True
    timed._begin_stall()
    assert (timed.at(10**6, unsent=1), timed.looks) == (Due("nothing"), [])


@pytest.mark.rule("LIM-4")
def test_a_send_that_the_server_holds_back_is_late_too() -> None:
    timed = begun(send_timeout=8)
    assert look(timed.at(0, held=BEGIN)) == STEP
    assert timed.at(8).what == "send timeout"
    assert timed.at(8, held=BEGIN + 4) == Due("nothing", BEGIN + 8 + STEP)
    assert look(begun(send_timeout=0.4).at(0, held=BEGIN)) == pytest.approx(0.1)


@pytest.mark.rule("LIM-4")
def test_a_send_that_is_held_back_for_ever_is_looked_at() -> None:
    assert look(begun().at(1000, held=BEGIN)) == 1000 + STEP


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLOSE-5")
def test_whoever_does_not_answer_a_close_is_cut_off() -> None:
    timed = begun(idle_timeout=1, ping_interval=1, ping_timeout=1, close_timeout=3)
    timed.now = BEGIN + 0.5
    timed._end(HERE, 1000, "")
    assert timed.looks[-1] == BEGIN + 3.5
    assert look(timed.at(3)) == 3.5  # neither idle nor without a pong
    assert timed.at(3.5).what == "cut"


@pytest.mark.rule("CLOSE-5", "LIM-4")
def test_a_peer_that_is_stuck_at_its_end_is_cut_off_at_the_earlier_time() -> None:
    timed = begun(close_timeout=100, send_timeout=8)
    timed.unsent = 100
    timed._write_paused = True
    timed._begin_stall()
    timed._end(HERE, 1000, "")
    assert look(timed.at(7)) == 8
    assert timed.at(8).what == "send timeout"


@pytest.mark.rule("CLOSE-5", "SEND-1")
def test_a_peer_that_a_send_found_gone_is_cut_off_if_the_server_does_not_tell() -> None:
    timed = begun(close_timeout=3)
    timed._peer_is_gone()
    assert timed.looks == [BEGIN + 3]
    assert look(timed.at(3, busy=True)) == 3 + STEP  # the report may lie unread while a callback runs
    assert timed.at(4, busy=False).what == "cut"


@pytest.mark.rule("CLOSE-6", "SEND-1")
def test_what_came_before_an_end_that_is_known_may_take_its_time() -> None:
    timed = begun(close_timeout=3)
    timed._peer_is_gone()
    timed._end(NOTED, 1006, "")
    assert timed.at(10**6) == Due("nothing")


@pytest.mark.rule("CLOSE-5")
def test_after_the_end_nothing_is_due() -> None:
    timed = begun(idle_timeout=1, ping_interval=1, send_timeout=1)
    timed._write_paused = True
    timed._end(CUT, 1006, "")
    assert timed._phase is LOST
    assert timed.at(100, unsent=1) == Due("nothing")


# ---- all of it ------------------------------------------------------------------------------------------------------


def _nothing(timed: Timed) -> None: ...


def _pong(timed: Timed) -> None:
    timed._pong_in(0)


def _close(timed: Timed) -> None:
    timed._end(HERE, 1000, "")


def _gone(timed: Timed) -> None:
    timed._peer_is_gone()


def _pause(timed: Timed) -> None:
    timed._write_paused, timed.unsent = True, 7
    timed._begin_stall()


def _callback(timed: Timed) -> None:
    timed.busy = not timed.busy


@pytest.mark.rule("CLOSE-5", "LIM-2", "LIM-3", "LIM-4")
def test_a_clock_that_is_asked_when_to_look_misses_nothing() -> None:
    """A channel that is looked at when it asked for it ends, whatever has happened before.

    Once nothing holds it up any more it does so within the sum of its timeouts.
    """
    for events in itertools.product((_nothing, _pong, _close, _gone, _pause, _callback), repeat=5):
        timed = begun(idle_timeout=4, ping_interval=3, ping_timeout=2, send_timeout=5, close_timeout=6)
        for event in events:
            event(timed)
            timed.now += 1.0
        timed.busy = False
        assert _run(timed) == 1, events
        assert timed._phase is LOST, events
        assert timed.now <= BEGIN + 5 + 4 + 3 + 2 + 5 + 6, events


def _run(timed: Timed) -> int:
    """Look at a channel whenever it asks for it; return how often it was cut."""
    cuts = 0
    for _ in range(200):
        due = timed._due(timed.now)
        if due.what == "nothing":
            if due.look is None:
                break
            assert due.look >= timed.now
            timed.now = max(due.look, timed.now + 0.01)
        elif due.what == "ping":
            assert timed._phase is OPEN
        elif due.what == "idle timeout":
            timed._end(HERE, 1001, "")
        else:
            cuts += 1
            timed._end(CUT, 1006, "")
    return cuts


def test_pings_end_with_the_close() -> None:
    timed = begun(ping_interval=1, ping_timeout=1)
    timed.at(1)
    timed._end(HERE, 1000, "")
    assert (timed._phase, timed._ping_at, timed._pong_by) == (CLOSING, None, None)
