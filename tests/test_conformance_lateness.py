"""A busy machine is no fault: what it takes counts against no limit, and a check that failed meanwhile is run again.

The fake machine stalls for exactly so long as it is told to; the real one only has to count something at all.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from tests.checks import made
from wsbridge.application import Application
from wsbridge.conformance import Session, Verdict, lateness, run
from wsbridge.conformance.client import WirePeer
from wsbridge.conformance.contract import Check, CheckFailed, fail
from wsbridge.conformance.harness.bench import Bench, open_descriptors
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.recorder import Recorder
from wsbridge.conformance.harness.report import html, junit, markdown
from wsbridge.conformance.harness.suite_result import SuiteResult, dump_results, load_results
from wsbridge.conformance.harness.target import SuiteTarget, TargetInfo
from wsbridge.conformance.harness.verdicts import CheckResult
from wsbridge.connectors.aiohttp import Connector
from wsbridge.options import WebSocketOptions

pytestmark = pytest.mark.suite

NOWHERE = SuiteTarget("nowhere", url="ws://127.0.0.1:9")
LONG = 3600.0


class Machine:
    """Clocks that stand still, but for what a test lets happen."""

    def __init__(self) -> None:
        self.now = self.used = 0.0
        self.waited: dict[int, float] = {1: 0.0}
        self.meter = lateness.Meter(clock=lambda: self.now, waited=lambda: dict(self.waited), used=lambda: self.used)

    def passes(self, seconds: float, *, waited: float = 0.0, used: float = 0.0) -> float:
        """Let time pass, and return what the meter has counted of it; the other thread wakes at its end."""
        before = self.meter.lost
        self.now += seconds
        self.used += used
        self.waited[1] += waited
        self.meter.look()
        return round(self.meter.lost - before, 6)


# ---- what is counted ------------------------------------------------------------------------------------------------


def test_a_quiet_machine_loses_nothing() -> None:
    machine = Machine()
    assert [machine.passes(seconds) for seconds in (0.05, 0.0501, 0.0519, 0.01, 0.0)] == [0.0] * 5


def test_what_the_loops_thread_waits_for_a_processor_is_lost() -> None:
    machine = Machine()
    assert machine.passes(0.05, waited=0.03) == 0.03
    assert machine.passes(0.25, waited=0.24) == 0.24  # as another thread saw too: it counts once
    machine.waited[2] = 100.0  # what a thread waited before it was known does not count
    assert machine.passes(0.05) == 0.0


def test_a_machine_that_stands_still_is_lost_time() -> None:
    machine = Machine()
    assert machine.passes(1.05) == 1.0
    assert machine.meter.stretch == 4.0  # nearly all of it


def test_what_the_process_does_itself_is_not_lost() -> None:
    machine = Machine()
    assert machine.passes(1.05, used=1.0) == 0.0  # such as a long call that lets no other thread run
    assert machine.passes(1.05, used=0.4) == 0.6
    assert machine.meter.stretch == 2.0


def test_what_is_lost_at_the_moment_counts_before_the_other_thread_wakes() -> None:
    machine = Machine()
    machine.now += 0.55
    assert round(machine.meter.lost, 6) == 0.5
    assert machine.passes(0.0) == 0.0


def test_an_event_loop_that_is_blocked_keeps_nobody_from_looking() -> None:
    class Watched(lateness.Meter):
        def look(self) -> None:
            super().look()
            looks.append(1)
            if len(looks) == 3:
                over.set()

    async def blocks() -> None:
        assert over.wait(60)

    looks: list[int] = []
    over = threading.Event()
    with lateness.measured(Watched()):
        asyncio.run(blocks())


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count")
def test_what_the_kernel_tells_of_this_thread_and_of_another_process() -> None:
    meter = lateness.Meter()
    meter.processes.add(os.getpid())
    with meter:
        told = meter._told_by_the_kernel()
        assert set(told) >= {threading.get_native_id()}
        assert all(seconds >= 0 for seconds in told.values())
        meter.processes.add(999_999_999)  # has ended
        assert set(meter._told_by_the_kernel()) == set(told) | {thread.native_id for thread in threading.enumerate()}


def test_a_meter_leaves_neither_thread_nor_descriptor() -> None:
    threads, descriptors = threading.active_count(), open_descriptors()
    with lateness.measured():
        assert threading.active_count() == threads + 1
    assert (threading.active_count(), open_descriptors()) == (threads, descriptors)
    assert lateness.lost() == 0.0


# ---- what stretches -------------------------------------------------------------------------------------------------


@pytest.fixture
def machine() -> Generator[Machine, None, None]:
    """A measurement of a machine that stalls when it is told to."""
    machine = Machine()
    with lateness.measured(machine.meter):
        yield machine


async def test_a_limit_stretches_by_what_is_lost_and_not_by_more(machine: Machine) -> None:
    deadline = lateness.Deadline(0.0)
    assert deadline.left() <= 0
    machine.meter.count(LONG)
    assert LONG - 60 < deadline.left() <= LONG
    assert lateness.Deadline(0.0).left() <= 0  # what was lost before it began is no excuse


async def _outlasts(machine: Machine, wait: Callable[[], Awaitable[object]]) -> None:
    """Check that what waits for 0.01 s does not give up where more is lost meanwhile, and does where nothing is."""
    with pytest.raises((CheckFailed, TimeoutError)):
        await wait()
    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)  # it waits
    machine.meter.count(LONG)
    done, _ = await asyncio.wait((waiting,), timeout=0.1)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_every_limit_of_a_check_stretches(machine: Machine) -> None:
    bench = Bench(NOWHERE)
    recorder = Recorder(0.01)

    async def bounded() -> None:
        async with lateness.timeout(0.01):
            await asyncio.Event().wait()

    async def waits() -> None:
        _, pending = await lateness.wait([asyncio.ensure_future(asyncio.sleep(LONG))], 0.01)
        for task in pending:
            task.cancel()
        raise TimeoutError

    await _outlasts(machine, bounded)
    await _outlasts(machine, lambda: bench.within(asyncio.Event().wait(), "it", timeout=0.01))
    await _outlasts(machine, lambda: bench.settle(lambda: False, "it", timeout=0.01))
    await _outlasts(machine, lambda: recorder.wait("text"))


async def test_the_limits_of_the_client_stretch(machine: Machine) -> None:
    app = Application([("/", WebSocketOptions[None]())])
    async with Connector(app) as connector, await WirePeer.connect(connector.addresses[0], target="/") as peer:
        await _outlasts(machine, lambda: peer.receive(0.01))


async def test_what_ends_in_time_is_none_the_worse(machine: Machine) -> None:
    async with lateness.timeout(60) as bound:
        await asyncio.sleep(0)
    assert not bound.expired()
    done, pending = await lateness.wait([asyncio.ensure_future(asyncio.sleep(0))], 60)
    assert (len(done), pending) == (1, set())
    assert await Bench(NOWHERE).within(asyncio.sleep(0, "result"), "it") == "result"
    with pytest.raises(TimeoutError, match="mine"):  # which is not the limit's
        await Bench(NOWHERE).within(_raises(TimeoutError("mine")), "it")


async def _raises(error: Exception) -> None:
    raise error


# ---- what is run again ----------------------------------------------------------------------------------------------


class Fails:
    """A check that fails so often, each time while the machine stalls for so long."""

    def __init__(self, times: int, stall: float, how: Callable[[], object] = lambda: fail("nothing came")) -> None:
        self.times, self.stall, self.how = times, stall, how
        self.scales: list[float] = []

    async def __call__(self, bench: Bench) -> None:
        self.scales.append(bench.scale)
        self.meter.count(self.stall)
        if len(self.scales) <= self.times:
            self.how()

    @property
    def meter(self) -> lateness.Meter:
        return lateness._meters[-1]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every measurement of a check be of a fake machine, on which nothing is lost but what the check says."""
    real = lateness.Meter
    monkeypatch.setattr(lateness, "Meter", lambda: real(waited=dict, used=lambda: 0.0, clock=lambda: 0.0))


def lines(result: CheckResult) -> SuiteResult:
    return SuiteResult(TargetInfo("made", "connector"), (result,))


@pytest.mark.usefixtures("counted")
def test_a_check_that_fails_while_the_machine_stalls_is_run_once_more_and_says_so() -> None:
    runs = Fails(1, 1.23)
    result = run_check(made(runs), NOWHERE)
    assert (result.verdict, result.stalled) == (Verdict.PASS, 1.23)
    assert result.remark == "run again: the machine stalled for 1.2 s"
    assert runs.scales == [1.0, 4.0]  # with more time for all


@pytest.mark.usefixtures("counted")
def test_a_check_that_fails_again_fails() -> None:
    runs = Fails(9, 1.23)
    result = run_check(made(runs), NOWHERE)
    assert (result.verdict, result.message, result.stalled) == (Verdict.FAIL, "nothing came", 1.23)
    assert len(runs.scales) == 2
    assert result.remark in failure_text(result, "")


@pytest.mark.usefixtures("counted")
def test_a_failure_on_a_quiet_machine_stands() -> None:
    for stall in (0.0, lateness.STALL * 0.9):
        runs = Fails(1, stall)
        result = run_check(made(runs), NOWHERE)
        assert (result.verdict, result.stalled, result.remark, len(runs.scales)) == (Verdict.FAIL, 0.0, "", 1)


@pytest.mark.usefixtures("counted")
def test_a_check_that_passes_is_not_run_again_whatever_the_machine_does() -> None:
    runs = Fails(0, LONG)
    assert run_check(made(runs), NOWHERE).remark == ""
    assert len(runs.scales) == 1


@pytest.mark.usefixtures("counted")
def test_who_asks_for_one_run_gets_one() -> None:
    runs = Fails(1, LONG)
    assert run_check(made(runs), NOWHERE, again=False).verdict is Verdict.FAIL
    assert len(runs.scales) == 1


@pytest.mark.usefixtures("counted")
def test_a_connector_that_blocks_the_loop_is_not_run_again() -> None:
    def late() -> None:
        time.sleep(2 * lateness.STALL)
        fail("late")

    runs = Fails(9, 0.0, late)
    assert run_check(made(runs), NOWHERE).message == "late"
    assert len(runs.scales) == 1


@pytest.mark.usefixtures("counted")
def test_each_repetition_is_judged_by_itself() -> None:
    class Local(Connector):
        pass

    runs = Fails(1, 0.5)
    with Session(Local) as session:
        result = session.run(made(runs, stochastic=True), repeat=3)
    assert (result.verdict, result.runs, result.stalled, len(runs.scales)) == (Verdict.PASS, 3, 0.5, 4)


def test_a_process_that_fails_while_the_machine_stalls_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness.Meter, "lost", 0.5)
    scales: list[float] = []

    def limit(check: Check, scale: float) -> float:
        scales.append(scale)
        return 60

    monkeypatch.setattr("wsbridge.conformance.harness.check_process.watchdog_limit", limit)
    result = run("tests.conformance.misbehaving:StopLeavesATask", rules=["RECV-1/texts-arrive-exactly"]).results[0]
    assert result.verdict is Verdict.FAIL
    assert result.message.startswith("task left running: ")
    assert result.remark == "run again: the machine stalled for 0.5 s"
    assert scales == [1.0, 4.0]


def test_a_limit_within_a_process_stretches_by_what_its_process_lacks() -> None:
    """What a process of its own lacks is counted by whoever waits for it, while it waits."""
    meter = lateness.Meter()
    with lateness.measured(meter):
        with lateness.followed(os.getpid()):
            assert meter.processes == {os.getpid()}
        assert meter.processes == set()


# ---- who says so ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.FAIL])
def test_every_report_says_what_was_run_again(verdict: Verdict, tmp_path: Path) -> None:
    result = CheckResult("RECV-1/made", "RECV-1", verdict, 1.0, "nothing came", stalled=1.23)
    for report in (markdown, junit, html):
        assert "run again: the machine stalled for 1.2 s" in report([lines(result)])
        assert "run again" not in report([lines(replace(result, stalled=0.0))]).lower().replace("run again, and", "")
    path = tmp_path / "report.json"
    path.write_text(dump_results([lines(result)]))
    assert load_results(path)[0].results == (result,)
    assert lines(result).stable().results[0].remark == ""
