"""`Clock`: one timer for many deadlines, in no real time."""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Callable

import pytest

from tests.fakes import FakeTime
from wsbridge._channel.clock import RESOLUTION, Clock


class Alarm:
    """Goes off as often as it has deadlines, and notes when."""

    def __init__(self, *following: float | None, then: Callable[[], object] | None = None) -> None:
        self.rang: list[float] = []
        self._following = list(following)
        self._then = then

    def tick(self, now: float, /) -> float | None:
        self.rang.append(now)
        if self._then is not None:
            self._then()
        return self._following.pop(0) if self._following else None


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def clock(time: FakeTime) -> Clock:
    return Clock(time)


def test_it_has_the_time_of_its_loop(time: FakeTime, clock: Clock) -> None:
    assert clock.time() == 1000.0
    time.advance(1.5)
    assert clock.time() == 1001.5


def test_a_deadline_goes_off_once_at_its_time(time: FakeTime, clock: Clock) -> None:
    alarm = Alarm()
    clock.at(1005, alarm)
    time.advance(4.9)
    assert alarm.rang == []
    time.advance(10)
    assert alarm.rang == [1005]
    assert time.timers == []


def test_one_that_asks_for_more_goes_off_again(time: FakeTime, clock: Clock) -> None:
    alarm = Alarm(1007, 1008)
    clock.at(1005, alarm)
    time.advance(10)
    assert alarm.rang == [1005, 1007, 1008]


def test_it_sets_one_timer_for_the_first_of_all_deadlines(time: FakeTime, clock: Clock) -> None:
    assert time.timers == []
    clock.at(1005, Alarm())
    clock.at(1009, Alarm())
    assert time.timers == [1005]
    clock.at(1003, Alarm())
    assert time.timers == [1003]
    time.advance(4)
    assert time.timers == [1005]


def test_deadlines_close_together_are_handled_in_one_sweep(time: FakeTime, clock: Clock) -> None:
    alarms = [Alarm() for _ in range(5)]
    for number, alarm in enumerate(alarms):
        clock.at(1005 + number * RESOLUTION / 5, alarm)
    time.advance(10)
    assert alarms[0].rang == [1005]
    assert {ring for alarm in alarms[1:] for ring in alarm.rang} == {1005 + RESOLUTION}


def test_one_that_is_due_again_at_once_waits_for_the_next_sweep(time: FakeTime, clock: Clock) -> None:
    alarm = Alarm(1005, 0)
    clock.at(1005, alarm)
    time.advance(10)
    assert alarm.rang == [1005, 1005 + RESOLUTION, 1005 + 2 * RESOLUTION]


def test_a_deadline_in_the_past_goes_off_at_once(time: FakeTime, clock: Clock) -> None:
    alarm = Alarm()
    clock.at(3, alarm)
    time.advance(0)
    assert alarm.rang == [1000]


def test_a_cancelled_one_does_not_go_off_and_is_not_kept(time: FakeTime, clock: Clock) -> None:
    alarms = [Alarm() for _ in range(3)]
    timers = [clock.at(1005 + number, alarm) for number, alarm in enumerate(alarms)]
    clock.cancel(timers[0])
    clock.cancel(timers[0])
    kept = weakref.ref(alarms[0])
    del alarms[0]
    assert kept() is None
    time.advance(10)
    assert [alarm.rang for alarm in alarms] == [[1006], [1007]]


@pytest.mark.rule("MOUNT-2")
def test_no_timer_is_set_when_nothing_waits(time: FakeTime, clock: Clock) -> None:
    timer = clock.at(1005, Alarm())
    clock.cancel(timer)
    assert time.timers == []


def test_a_timer_whose_deadline_was_cancelled_sets_the_next(time: FakeTime, clock: Clock) -> None:
    later = Alarm()
    clock.at(1008, later)
    clock.cancel(clock.at(1005, Alarm()))
    assert time.timers == [1005]
    time.advance(6)
    assert (later.rang, time.timers) == ([], [1008])
    time.advance(4)
    assert later.rang == [1008]


def test_cancelled_ones_do_not_pile_up(time: FakeTime, clock: Clock) -> None:
    clock.at(2000, Alarm())
    for _ in range(1000):
        clock.cancel(clock.at(3000, Alarm()))
    assert len(clock._heap) <= 3


def test_a_tick_may_cancel_itself_and_others_and_add_some(time: FakeTime, clock: Clock) -> None:
    added, other = Alarm(), Alarm()

    def change() -> None:
        clock.cancel(own)
        clock.cancel(others)
        clock.at(1006, added)

    changing = Alarm(1010, 1011, then=change)
    own = clock.at(1005, changing)
    others = clock.at(1005.001, other)
    time.advance(20)
    assert (changing.rang, other.rang, added.rang) == ([1005], [], [1006])
    assert time.timers == []


def test_one_that_was_to_go_off_again_may_be_cancelled_by_another_of_the_same_sweep(
    time: FakeTime, clock: Clock
) -> None:
    first = Alarm(1006)
    timer = clock.at(1004, first)
    second = Alarm(then=lambda: clock.cancel(timer))
    clock.at(1005, second)
    time.now = 1005.5  # both are due when the loop gets to it
    time.advance(20)
    assert (first.rang, second.rang) == ([1005.5], [1005.5])


def test_one_that_fails_is_logged_and_disturbs_no_other(
    time: FakeTime, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    failing, other = Alarm(1006, then=fail), Alarm(1007)
    clock.at(1005, failing)
    clock.at(1005.5, other)
    time.advance(20)
    assert (failing.rang, other.rang) == ([1005], [1005.5, 1007])
    assert [(record.name, record.levelno) for record in caplog.records] == [("wsbridge", logging.ERROR)]


def test_many_deadlines_go_off_in_time_whatever_is_cancelled(time: FakeTime, clock: Clock) -> None:
    chance = random.Random(7)
    alarms: list[tuple[float, Alarm, bool]] = []
    for _ in range(500):
        when, cancelled = 1000 + chance.random() * 100, chance.random() < 0.5
        alarm = Alarm()
        timer = clock.at(when, alarm)
        if cancelled:
            clock.cancel(timer)
        alarms.append((when, alarm, cancelled))
        time.advance(0.01)
    time.advance(200)
    for when, alarm, cancelled in alarms:
        if cancelled:
            assert alarm.rang == []
        else:
            (rang,) = alarm.rang
            assert -1e-9 <= rang - when <= 500 * 0.01 + RESOLUTION
    assert time.timers == []
