"""Checks that run, in their process too, and `run`: whatever a connector does, there is a verdict and it goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from tests.checks import made
from tests.conformance import misbehaving
from wsbridge.conformance import Progress, Session, SuiteResult, TargetError, Verdict, lateness, run
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.client import LogEntry
from wsbridge.conformance.contract import Check, CheckFailed, fail
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.known import load_known_failing
from wsbridge.conformance.harness.preflight import BrokenTargetError
from wsbridge.conformance.harness.selection import MODEL_CHECK, current_rules, select
from wsbridge.conformance.harness.suite_result import compare, dump_results, load_results
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import CheckResult
from wsbridge.connectors.aiohttp import Connector
from wsbridge.protocols import Deviation

pytestmark = pytest.mark.suite

BAD = "tests.conformance.misbehaving"
ONE = "RECV-1/texts-arrive-exactly"
TWO = ["RECV-1/texts-arrive-exactly", "RECV-1/texts-are-str"]
SCALE = 0.05  # what never comes need not be waited for long
NOWHERE = SuiteTarget("nowhere", url="ws://127.0.0.1:9")


def judged(function: Callable[[Bench], Awaitable[None]], *, limit: float = 5, scale: float = 1) -> CheckResult:
    return run_check(made(function, limit=limit), NOWHERE, scale=scale, again=False)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no time as lost, however busy the machine is, so that each check runs exactly once."""
    monkeypatch.setattr(lateness.Meter, "lost", 0.0)


def only(result: SuiteResult) -> CheckResult:
    assert len(result.results) == 1
    return result.results[0]


def has_ended(pid: int) -> bool:
    """Wait for a process that is no child of this one; what is left of it may wait for its parent."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "XZ":
            return True
        time.sleep(0.05)
    return False


# ---- one check ------------------------------------------------------------------------------------------------------


def test_a_check_that_ends_passes() -> None:
    async def ends(bench: Bench) -> None: ...

    result = judged(ends)
    assert (result.verdict, result.message, result.cause) == (Verdict.PASS, "", "")


def test_a_broken_promise_fails_with_its_traceback_from_the_check_on() -> None:
    async def breaks(bench: Bench) -> None:
        fail("nothing came")

    result = judged(breaks)
    assert (result.verdict, result.message, result.cause) == (Verdict.FAIL, "nothing came", "promise")
    assert "in breaks" in result.details
    assert "harness/execution.py" not in result.details


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(3), asyncio.CancelledError("who?")])
def test_what_a_check_raises_fails_it(error: BaseException) -> None:
    async def raises(bench: Bench) -> None:
        raise error

    result = judged(raises)
    assert (result.verdict, result.cause) == (Verdict.FAIL, "error")
    assert type(error).__name__ in result.message


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_failure_tells_what_nobody_took_meanwhile(is_kept: bool) -> None:
    async def answer() -> None:
        raise AttributeError("no attribute 'wirte'")

    async def times_out(bench: Bench) -> None:
        kept = [asyncio.ensure_future(answer())]
        if not is_kept:
            kept.clear()
        await asyncio.sleep(0.01)
        fail("nothing came")

    result = judged(times_out)
    assert (result.verdict, result.cause) == (Verdict.FAIL, "promise")
    assert result.message == (
        "nothing came; meanwhile an exception with nobody to catch it: AttributeError: no attribute 'wirte'"
    )
    assert "Meanwhile an exception with nobody to catch it:\nTraceback" in result.details
    assert "in answer" in result.details


def test_a_failure_tells_what_the_server_logged_meanwhile() -> None:
    async def times_out(bench: Bench) -> None:
        try:
            raise ZeroDivisionError("in a handler")
        except ZeroDivisionError:
            logging.getLogger("server").exception("a request failed")
        fail("nothing came")

    assert judged(times_out).message.endswith("nobody to catch it: ZeroDivisionError: in a handler")


def test_a_failure_tells_nothing_of_what_was_taken() -> None:
    async def answer() -> None:
        raise AttributeError("no attribute 'wirte'")

    async def taken(bench: Bench) -> None:
        kept = asyncio.ensure_future(answer())
        await asyncio.wait((kept,))
        fail(f"nothing came: {kept.exception()!r}")

    result = judged(taken)
    assert result.message == "nothing came: AttributeError(\"no attribute 'wirte'\")"
    assert "Meanwhile" not in result.details


def test_an_interruption_by_the_user_ends_the_run() -> None:
    async def interrupted(bench: Bench) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(interrupted)


def declaring(outcome: str) -> SuiteTarget:
    class Declares(Connector):
        deviations = {"RECV-1/made": Deviation(outcome, "no hook")}  # noqa: RUF012

    return SuiteTarget("declares", Declares)


def test_a_whole_check_may_fail_as_declared_and_no_otherwise() -> None:
    async def breaks(bench: Bench) -> None:
        fail("pongs: expected 1, got 0")

    result = run_check(made(breaks), declaring("pongs: expected 1"))
    assert (result.verdict, result.message) == (Verdict.DEVIATION, "RECV-1/made: pongs: expected 1")
    assert (result.deviations, result.cause) == ({"RECV-1/made": "pongs: expected 1"}, "")
    either = "pings: | pongs: expected 1"
    assert run_check(made(breaks), declaring(either)).deviations == {"RECV-1/made": either}
    for other in ("expected 1", "pings", "", " ", "pings | ", "pings:|pongs: expected 1"):
        result = run_check(made(breaks), declaring(other))
        assert (result.verdict, result.deviations) == (Verdict.FAIL, {})
        assert result.message == f"RECV-1/made: declared is {other!r}, observed 'pongs: expected 1, got 0'"


def test_a_deviation_of_a_whole_check_that_holds_fails() -> None:
    async def ends(bench: Bench) -> None: ...

    result = run_check(made(ends), declaring("pongs"))
    assert (result.verdict, result.cause) == (Verdict.FAIL, "promise")
    assert result.message == "RECV-1/made: the deviation 'pongs' is declared, but the rule holds"


def test_no_error_hang_or_left_over_can_be_declared() -> None:
    async def raises(bench: Bench) -> None:
        raise ValueError("pongs")

    async def hangs(bench: Bench) -> None:
        await asyncio.Event().wait()

    async def warns(bench: Bench) -> None:
        warnings.warn("pongs", stacklevel=1)

    for function, words, cause in (
        (raises, "ValueError: pongs", "error"),
        (hangs, "the check did not end within", "hang"),
        (warns, "a warning: UserWarning: pongs", "left-over"),
    ):
        result = run_check(made(function, limit=0.1), declaring(words))
        assert (result.verdict, result.cause) == (Verdict.FAIL, cause)
        assert result.message.startswith(words)


def test_a_check_that_compares_by_itself_is_held_to_that() -> None:
    async def compares(bench: Bench) -> None:
        bench.outcome("RECV-1/made", "delivered", "refused")
        fail("delivered, and something else is wrong")

    result = run_check(made(compares), declaring("delivered"))
    assert (result.verdict, result.message) == (Verdict.FAIL, "delivered, and something else is wrong")


def test_failures_in_a_task_group_are_told() -> None:
    async def breaks() -> None:
        fail("in a group")

    async def groups(bench: Bench) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(breaks())

    result = judged(groups)
    assert (result.message, result.cause) == ("in a group", "promise")


def test_a_check_over_its_limit_fails() -> None:
    async def waits(bench: Bench) -> None:
        await asyncio.Event().wait()

    result = judged(waits, limit=0.05)
    assert (result.cause, result.message) == ("hang", "the check did not end within 0.05 s")
    assert "await asyncio.Event().wait()" in result.details  # it tells where


def test_a_check_over_its_limit_tells_where_every_task_and_thread_waits() -> None:
    async def answers() -> None:
        await asyncio.Event().wait()

    async def waits(bench: Bench) -> None:
        await asyncio.wait((asyncio.create_task(answers(), name="the answer"),))

    thread = threading.Thread(target=STOP.wait, name="beside")
    thread.start()
    try:
        details = judged(waits, limit=0.05).details
    finally:
        STOP.set()
        thread.join()
        STOP.clear()
    assert "task the answer waits:" in details
    assert "in answers" in details
    assert "thread beside:" in details


def test_a_blocked_loop_is_interrupted() -> None:
    async def blocks(bench: Bench) -> None:
        time.sleep(60)  # noqa: ASYNC251 (which is the point)

    result = judged(blocks, limit=1, scale=0.05)
    assert (result.cause, result.message) == (
        "hang",
        "the event loop hung: the check could not be ended after its 0.05 s",
    )


def test_an_interruption_waits_where_it_would_be_lost() -> None:
    class Slow:
        def __del__(self) -> None:
            try:
                time.sleep(1.5)
            except BaseException as exc:
                lost.append(exc)

    lost: list[BaseException] = []

    async def blocks(bench: Bench) -> None:
        slow = Slow()
        del slow
        time.sleep(60)  # noqa: ASYNC251 (which is the point)

    result = judged(blocks, limit=1, scale=0.05)
    assert (result.cause, lost) == ("hang", [])


def test_a_loop_that_cannot_be_ended_is_interrupted_again() -> None:
    async def clings() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            time.sleep(60)  # noqa: ASYNC251 (in the loop's own end)

    async def blocks(bench: Bench) -> None:
        task = asyncio.create_task(clings())
        await asyncio.sleep(0)
        assert not task.done()
        time.sleep(60)  # noqa: ASYNC251

    result = judged(blocks, limit=1, scale=0.05)
    assert (result.cause, result.message) == (
        "hang",
        "the event loop hung: the check could not be ended after its 0.05 s",
    )


async def _leave_a_descriptor(bench: Bench) -> None:
    LEFT.append(os.open(os.devnull, os.O_RDONLY))


async def _leave_a_thread(bench: Bench) -> None:
    threading.Thread(target=STOP.wait, name="stray").start()


async def _warn(bench: Bench) -> None:
    warnings.warn("mind the gap", stacklevel=1)


async def _log_an_error(bench: Bench) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("elsewhere").exception("it broke")


async def _report_to_the_loop(bench: Bench) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": ValueError("odd")})


async def _overlap(bench: Bench) -> None:
    bench.recorder.violations.append("RECV-5: text began while text of the same channel ran")


LEFT: list[int] = []
STOP = threading.Event()


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (_leave_a_descriptor, "1 file descriptors left open"),
        (_leave_a_thread, "thread stray left running"),
        (_warn, "a warning: UserWarning: mind the gap"),
        (_log_an_error, "an error logged by elsewhere: it broke (ValueError('odd'))"),
        (_report_to_the_loop, "the event loop reported: lost (ValueError('odd'))"),
        (_overlap, "RECV-5: text began while text of the same channel ran"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_left_behind_fails_a_check(check: Callable[[Bench], Awaitable[None]], told: str) -> None:
    try:
        result = judged(check)
    finally:
        STOP.set()
        for descriptor in LEFT:
            os.close(descriptor)
        LEFT.clear()
        for thread in threading.enumerate():
            if thread.name == "stray":
                thread.join()
        STOP.clear()
    assert (result.verdict, result.cause, result.message) == (Verdict.FAIL, "left-over", told)


def test_a_task_left_behind_fails_a_check() -> None:
    async def leaves(bench: Bench) -> None:
        kept.append(asyncio.create_task(asyncio.Event().wait()))

    kept: list[asyncio.Task[Any]] = []
    result = judged(leaves)
    assert result.cause == "left-over"
    assert result.message.startswith("task left running: <coroutine object Event.wait")


def test_a_failure_has_all_logs() -> None:
    async def breaks(bench: Bench) -> None:
        async with bench.serve(bench.options()) as served, served.peer() as peer:
            await peer.send_text("hello")
            await bench.recorder.wait("text-end")
            bench.wire_logs[0][1].add("received", 3, "a\x00\ud800b")
            logging.getLogger("wsbridge").warning("look")
            fail("no")

    result = run_check(made(breaks), SuiteTarget("aiohttp", Connector))
    (wire,) = result.wire.values()
    assert [entry.direction for entry in wire][:3] == ["note", "sent", "received"]
    assert any(entry.text == "TEXT masked length=5 b'hello'" for entry in wire)
    assert [line.split()[2] for line in result.callbacks][:3] == ["open", "open-end", "text('hello')"]
    assert result.logs[-1] == "WARNING look"
    assert CheckResult.from_json(json.loads(json.dumps(result.to_json()))) == result


# ---- features -------------------------------------------------------------------------------------------------------


class _Lacking(Connector):
    name = "lacking"
    features = frozenset()


@pytest.mark.parametrize("feature", ["compression", "ping", "size-limit", "unix-socket", "fragments"])
def test_the_refusal_of_what_is_lacking_is_checked(feature: str) -> None:
    async def never(bench: Bench) -> None:
        fail("this needs the feature")

    class Refusing(_Lacking):
        def __init__(self, app: Any, **options: Any) -> None:
            super().__init__(app, **options)
            if options.get("unix_path"):
                raise self.unsupported("unix_path", "no such sockets")

    check = made(never, needs=(feature,))
    result = run_check(check, SuiteTarget("lacking", Refusing))
    assert (result.verdict, result.message) == (Verdict.UNSUPPORTED, f"{feature}: refused")
    assert run_check(check, SuiteTarget("has it", Connector)).verdict is (
        Verdict.UNSUPPORTED if feature == "fragments" else Verdict.FAIL
    )


def test_a_feature_that_works_although_it_is_not_declared_is_a_failure() -> None:
    async def never(bench: Bench) -> None: ...

    result = run_check(made(never, needs=("ping",)), SuiteTarget("x", misbehaving.RefusesWhatItHas))
    assert result.verdict is Verdict.FAIL
    assert result.message == "ping_interval=1.0 was accepted, although the feature 'ping' is not declared"


def test_a_refusal_must_be_of_the_right_kind_and_tell_what_is_refused() -> None:
    class Wrong(_Lacking):
        def check_options(self, options: Any) -> None:
            if options.ping_interval is not None:
                raise RuntimeError("no pings")

    class Silent(_Lacking):
        def check_options(self, options: Any) -> None:
            if options.ping_interval is not None:
                raise self.unsupported("something", "no pings")

    async def never(bench: Bench) -> None: ...

    check = made(never, needs=("ping",))
    assert "must raise UnsupportedOptionError, not RuntimeError" in run_check(check, SuiteTarget("x", Wrong)).message
    assert "does not name option and connector" in run_check(check, SuiteTarget("x", Silent)).message


def test_what_is_served_suits_a_connector_that_lacks_features() -> None:
    check = next(check for check in all_checks() if check.id == ONE)
    assert run_check(check, SuiteTarget("lacking", _Lacking)).verdict is Verdict.PASS


# ---- isolation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause", "told", "dead"),
    [
        ("StartHangs", "promise", "start() did not end within 0.25 s", "cannot start"),
        ("StartBlocks", "hang", "the event loop hung: the check could not be ended after its 1 s", "no handshake"),
        ("StartBlocksForGood", "hang", "the check hung: its process was killed after 3.25 s", "no handshake"),
        ("StartExits", "death", "the check ended its process with exit status 3", "no handshake"),
        ("StartIsKilled", "death", "the check ended its process by SIGKILL", "no handshake"),
        ("StartCallsSystemExit", "error", "SystemExit: 4", "cannot start"),
        ("StartRaises", "error", "RuntimeError: no wheels", "cannot start"),
        ("LeavesAChild", "death", "the check ended its process with exit status 5", "no handshake"),
    ],
)
@pytest.mark.usefixtures("quiet")
def test_a_connector_that_cannot_start_ends_the_run_after_one_check(
    name: str, cause: str, told: str, dead: str
) -> None:
    result = run(f"{BAD}:{name}", rules=TWO, scale=SCALE)
    one = only(result)
    assert (one.check, one.verdict, one.cause) == (TWO[0], Verdict.FAIL, cause)
    assert one.message.startswith(told)
    assert result.dead
    (problem,) = result.problems
    what = {"no handshake": "does not get as far as a handshake"}.get(dead, dead)
    # the plain handshake by which that was found out has longer to start than the check, where it has a limit
    assert problem.startswith(f"1 of 2 checks were not run: the connector {what}: {told.partition(' after ')[0]}")


@pytest.mark.parametrize(
    ("name", "cause", "told"),
    [
        ("StopHangs", "promise", "stop() did not end within 0.2 s"),
        ("StopLeavesATask", "left-over", "task left running: "),
        ("StopLeavesAThread", "left-over", "thread stray left running"),
        ("Prints", "left-over", "8 bytes were written on stdout: b'garbage\\n'"),
    ],
)
@pytest.mark.usefixtures("quiet")
def test_whatever_a_connector_does_there_is_a_verdict_and_the_run_goes_on(name: str, cause: str, told: str) -> None:
    result = run(f"{BAD}:{name}", rules=TWO, scale=SCALE)
    assert [one.check for one in result.results] == TWO
    for one in result.results:
        assert (one.verdict, one.cause) == (Verdict.FAIL, cause)
        assert one.message.startswith(told)
    assert not result.conformant
    assert not result.dead


@pytest.mark.usefixtures("quiet")
def test_a_check_after_a_process_that_died_is_none_the_worse_for_it(tmp_path: Path) -> None:
    (tmp_path / "dies_once.py").write_text(
        "import os, pathlib\n"
        "from wsbridge.connectors.aiohttp import Connector as Base\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "class Connector(Base):\n"
        "    overrides_internals = True\n"
        "    async def start(self):\n"
        "        if not mark.exists():\n"
        "            mark.touch()\n"
        "            os._exit(7)\n"
        "        await super().start()\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        result = run("dies_once:Connector", rules=TWO)
    finally:
        sys.path.remove(str(tmp_path))
    assert [one.verdict for one in result.results] == [Verdict.FAIL, Verdict.PASS]


def test_what_the_process_wrote_is_kept_and_its_children_are_ended() -> None:
    last_words = only(run(f"{BAD}:StartExits", rules=[ONE], scale=SCALE))
    assert last_words.output == "a last word\n"
    hung = only(run(f"{BAD}:StartBlocksForGood", rules=[ONE], scale=SCALE))
    assert "misbehaving.py" in hung.output  # where it hung until it was killed
    child = int(only(run(f"{BAD}:LeavesAChild", rules=[ONE], scale=SCALE)).output.split()[1])
    assert has_ended(child)


@pytest.mark.usefixtures("quiet")
def test_every_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def spy(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", spy)
    run(f"{BAD}:StopLeavesATask", rules=TWO, scale=SCALE)
    assert len(started) == 2  # one that was soiled is replaced

    def interrupt(progress: Progress) -> None:
        if progress.result is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("aiohttp", rules=TWO, progress=interrupt)
    with pytest.raises(TargetError):
        run("ws://127.0.0.1:9")
    with pytest.raises(TargetError):
        run("tests.conformance.exits_on_import:Connector", rules=[ONE])
    assert len(started) == 5
    assert all(process.returncode is not None for process in started)
    assert [thread.name for thread in threading.enumerate() if "wsbridge-conformance" in thread.name] == []


def test_a_check_process_ends_with_the_process_that_started_it() -> None:
    script = (
        "from wsbridge.conformance import Session\n"
        "session = Session('aiohttp')\n"
        "print(session._process._process._process.pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert has_ended(int(done.stdout))


@pytest.mark.parametrize(
    ("spec", "told", "details"),
    [
        ("tests.conformance.raises_on_import:Connector", "cannot be imported: RuntimeError: not today", "not today"),
        ("tests.conformance.exits_on_import:Connector", "ended its process with exit status 6", ""),
        (f"{BAD}:IsBrokenInItself", "cannot be imported: AttributeError", "AttributeError"),
    ],
)
@pytest.mark.parametrize("isolate", [True, None])
def test_a_connector_that_cannot_be_imported_is_told_in_a_line(
    spec: str, told: str, details: str, isolate: bool | None
) -> None:
    with pytest.raises(BrokenTargetError) as caught:
        run(spec, rules=["RECV-1"], isolate=isolate)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert details in caught.value.details


def test_an_import_that_fails_names_its_place() -> None:
    with pytest.raises(TargetError, match=r"not today \(.*raises_on_import\.py, line \d+\)"):
        run("tests.conformance.raises_on_import:Connector", isolate=False)


# ---- targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("aioht", "there is no connector 'aioht'. Did you mean 'aiohttp'?"),
        ("nothing.of.the.kind:Connector", "there is no module 'nothing'"),
        ("tests.conformance.misbehaving:Nothing", "Nothing"),
        (f"{BAD}:IsNoConnector", "is no connector"),
        (":Connector", "write it as 'module:Class'"),
        ("ws://127.0.0.1:9", "nobody listens at ws://127.0.0.1:9: Connection refused"),
        ("wss://127.0.0.1:9", "must be written as ws://host:port"),
        ("http://127.0.0.1:9", "must be written as ws://host:port"),
        ("ws://", "must be written as ws://host:port"),
        ("ws://127.0.0.1:99999", "is no URL"),
        ("ws://127.0.0.1:80/?a=b", "with a path at most"),
    ],
)
@pytest.mark.parametrize("isolate", [True, False])
def test_what_is_no_target_is_told_in_a_line(target: str, told: str, isolate: bool) -> None:
    with pytest.raises(TargetError) as caught:
        run(target, isolate=isolate)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_is_a_target() -> None:
    class Local(Connector):
        pass

    result = run(Local, rules=[ONE])
    assert result.conformant
    assert result.target.name.endswith("Local")
    assert result.target.packages["wsbridge"]
    with pytest.raises(ValueError, match="cannot be imported by its name"):
        run(Local, isolate=True)
    with Session(misbehaving.StartExits, scale=SCALE) as session:  # which can: so it is isolated
        check = next(check for check in all_checks() if check.id == ONE)
        assert session.run(check).cause == "death"


def test_the_result_tells_the_environment() -> None:
    result = run("aiohttp", rules=[ONE])
    assert result.conformant
    assert (result.target.name, result.target.kind) == ("aiohttp", "connector")
    assert result.target.location == "wsbridge.connectors.aiohttp:Connector"
    assert list(result.target.packages) == ["wsbridge", "aiohttp"]
    assert result.target.python == ".".join(map(str, sys.version_info[:3]))
    assert set(result.target.deviations) == set(Connector.deviations)
    assert result.started.endswith("+00:00")
    assert result.seconds > 0
    assert {verdict for verdict, number in result.counts.items() if number} == {"pass"}
    assert result.counts["pass"] == 1


# ---- selection, repetition, progress --------------------------------------------------------------------------------


def test_checks_are_selected_by_check_rule_or_group() -> None:
    checks = Session.applicable(is_url=False)
    assert [check.id for check in select(checks, [ONE])] == [ONE]
    assert {check.rule for check in select(checks, ["RECV-1", "HS-5"])} == {"RECV-1", "HS-5"}
    assert {check.rule.partition("-")[0] for check in select(checks, ["RECV"])} == {"RECV"}
    assert select(checks, None) == checks
    order = [rule.id for rule in current_rules()]
    places = [order.index(check.rule) for check in checks]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("RECV-99", "there is no rule, check or group of rules 'RECV-99'; did you mean RECV-"),
        ("RECV-1/texts-arrive-exactl", "did you mean RECV-1/texts-arrive-exactly?"),
        ("REG-1", "REG-1 is a library rule: no check of the suite is about it"),
        ("MODEL", "MODEL is no check: the random model is played by --model, or by model=True"),
        (MODEL_CHECK, "RECV-4/random-sequences is no check: the random model is played by --model"),
        ("CONN", "CONN has rules of the library alone, which its own tests are about: no check of the suite is"),
        ("CODE", "there is no rule, check or group of rules 'CODE'; did you mean CODEC?"),
        ("OPEN-2", "OPEN-2 cannot be checked from outside, by a URL"),
    ],
)
def test_what_selects_nothing_is_an_error(wanted: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        select(Session.applicable(is_url=wanted == "OPEN-2"), [wanted])


@pytest.mark.usefixtures("quiet")
def test_a_connector_that_answers_nothing_ends_the_run() -> None:
    result = run(f"{BAD}:AnswersNothing", rules=["STOP-6", "HS-5", "RECV-1"], scale=SCALE)
    assert not result.conformant
    failed = [found.check for found in result.results if found.verdict is Verdict.FAIL]
    assert failed == ["HS-5/an-unknown-path"]
    assert "AttributeError: no attribute 'wirte'" in result.results[-1].message
    (problem,) = result.problems
    assert re.match(r"\d+ of \d+ checks were not run: the connector answers nothing at all to a handshake", problem)
    assert problem.endswith("AttributeError: no attribute 'wirte'")
    assert result.dead


@pytest.mark.usefixtures("quiet")
def test_checks_of_a_connector_that_answers_nothing_fail_at_once() -> None:
    checks = {check.id: check for check in all_checks()}
    with Session(f"{BAD}:AnswersNothing", scale=SCALE) as session:
        session.run(checks["HS-1/accept-key"])
        assert session.broken is not None
        for result in (session.run(checks[ONE]), session.run_model()):
            assert (result.verdict, result.seconds) == (Verdict.FAIL, 0.0)
            assert result.message == str(session.broken)
            assert "in _answer" in result.details


def test_one_check_without_an_answer_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def once(session: Session, check: Check, conditions: object = None) -> CheckResult:
        asked.append(check.id)
        if check.id == "HS-1/accept-key":
            return CheckResult(check.id, check.rule, Verdict.PASS)
        wire = {"1 client": [LogEntry(0.0, "sent", 9, "a request")]}
        return CheckResult(check.id, check.rule, Verdict.FAIL, message="WireTimeout: expected 101", wire=wire)

    monkeypatch.setattr(Session, "_once", once)
    result = run(f"{BAD}:AnswersNothing", rules=TWO)
    assert asked == [TWO[0], "HS-1/accept-key", TWO[1]]
    assert ([found.check for found in result.results], result.problems) == (TWO, ())
    assert not result.dead


@pytest.mark.usefixtures("quiet")
def test_stochastic_checks_are_repeated_up_to_their_first_failure() -> None:
    runs: list[int] = []

    async def third_time_unlucky(bench: Bench) -> None:
        runs.append(1)
        if len(runs) == 3:
            raise CheckFailed("unlucky")

    class Local(Connector):
        pass

    with Session(Local) as session:
        result = session.run(made(third_time_unlucky, stochastic=True), repeat=5)
        assert (result.verdict, result.runs, result.message) == (Verdict.FAIL, 3, "run 3 of 5: unlucky")
        result = session.run(made(third_time_unlucky, stochastic=True), repeat=4)
        assert (result.verdict, result.runs, len(runs)) == (Verdict.PASS, 4, 7)
        result = session.run(made(third_time_unlucky), repeat=4)
        assert (result.runs, len(runs)) == (1, 8)


def test_progress_is_told_before_and_after_each_check() -> None:
    told: list[tuple[str, int, int, bool]] = []
    run("aiohttp", rules=TWO, progress=lambda p: told.append((p.check, p.number, p.total, p.result is not None)))
    assert told == [(TWO[0], 1, 2, False), (TWO[0], 1, 2, True), (TWO[1], 2, 2, False), (TWO[1], 2, 2, True)]


@pytest.mark.parametrize(("options", "told"), [({"repeat": 0}, "repeat"), ({"scale": 0}, "scale")])
def test_numbers_are_checked(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run("aiohttp", **options)


# ---- what is known to fail ------------------------------------------------------------------------------------------


def test_a_known_failure_does_not_count_and_one_that_passes_does() -> None:
    known = {ONE: {"reason": "no wheels", "link": "https://example.org/1"}}
    result = run(f"{BAD}:StopLeavesATask", rules=[ONE], known_failing=known)
    assert result.conformant
    assert [one.check for one in result.known_failures] == [ONE]
    assert result.counts["fail"] == result.counts["known"] == 1
    result = run(f"{BAD}:StopLeavesATask", rules=TWO, known_failing=known)
    assert not result.conformant
    assert [one.check for one in result.failures] == [TWO[1]]
    result = run("aiohttp", rules=[ONE], known_failing=known)
    assert not result.conformant
    assert result.problems == (f"{ONE} is listed as known to fail, but passes: take it off the list",)


def test_a_rule_is_known_to_fail_as_long_as_one_of_its_checks_does() -> None:
    result = run(f"{BAD}:StopLeavesATask", rules=["RECV-1"], known_failing={"RECV-1": "no wheels"})
    assert result.conformant
    assert len(result.known_failures) == len(result.results) > 1


def test_the_known_failing_file(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text('["RECV-1"]\nreason = "r"\nlink = "l"\n["HS-5/x"]\nreason = "s"\n')
    found = load_known_failing(path)
    assert {id: (entry.reason, entry.link) for id, entry in found.items()} == {
        "RECV-1": ("r", "l"),
        "HS-5/x": ("s", ""),
    }
    assert load_known_failing(found) == found
    for text, told in (
        ("[", "is no TOML"),
        ('["RECV-1"]', "RECV-1 needs a reason"),
        ('["RECV-1"]\nreason = " "', "RECV-1 needs a reason"),
        ('["RECV-1"]\nreason = "r"\nwhy = "w"', "has 'why'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=told):
            load_known_failing(path)
    with pytest.raises(ValueError, match="lists RECV-99, which is no rule or check; did you mean"):
        run("aiohttp", known_failing={"RECV-99": "?"})


# ---- results --------------------------------------------------------------------------------------------------------


def test_results_survive_json(tmp_path: Path) -> None:
    result = run(f"{BAD}:StopLeavesATask", rules=TWO, scale=SCALE, known_failing={ONE: "r"})
    path = tmp_path / "report.json"
    path.write_text(dump_results([result]))
    assert load_results(path) == [result]
    path.write_text(dump_results([result, result]))
    assert load_results(path) == [result, result]
    for text, told in (
        ("{", "report.json: "),
        ("{}", "this is no report"),
        ("[1]", "this is no report"),
        ('{"schema": 2}', "has schema 2; this version of wsbridge reads 1"),
        ('{"schema": 1}', "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=told):
            load_results(path)


def test_a_stable_report_is_the_same_every_time() -> None:
    one, other = (run("aiohttp", rules=["RECV-10", ONE]).stable() for _ in range(2))
    assert dump_results([one]) == dump_results([other])
    assert {result.verdict for result in one.results} == {Verdict.PASS, Verdict.UNSUPPORTED}


def test_what_changed_since_a_former_report() -> None:
    def report(**verdicts: Verdict) -> SuiteResult:
        target = run_target()
        return SuiteResult(target, tuple(CheckResult(check, "R-1", verdict) for check, verdict in verdicts.items()))

    former = report(a=Verdict.PASS, b=Verdict.FAIL, c=Verdict.DEVIATION, d=Verdict.PASS, e=Verdict.PASS)
    now = report(a=Verdict.FAIL, b=Verdict.PASS, c=Verdict.PASS, e=Verdict.PASS, f=Verdict.PASS)
    changes = compare(former, now)
    assert changes.failing == ("a",)
    assert changes.passing == ("b",)
    assert changes.changed == (("c", "deviation", "pass"),)
    assert (changes.new, changes.gone) == (("f",), ("d",))
    assert changes
    assert not compare(now, now)


def run_target() -> Any:
    from wsbridge.conformance import TargetInfo

    return TargetInfo("made", "connector")


def test_a_deviation_that_nobody_has_seen_is_a_problem() -> None:
    result = run("tests.conformance.misbehaving:DeclaresWhatNobodyKnows", rules=[ONE])
    assert result.problems == ()  # only a part was run
    from wsbridge.conformance.harness.session import _problems

    problems = _problems(result.target, list(result.results), {}, is_whole=True)
    assert "the deviation RECV-9/unmasked-frame is declared, but no check has seen it" in problems


def test_what_was_not_applicable_neither_passes_nor_leaves_a_deviation_unseen() -> None:
    from wsbridge.conformance.harness.session import _problems

    left_out = CheckResult("RECV-9/unmasked-frame", "RECV-9", Verdict.NOT_APPLICABLE)
    declared = {left_out.check: {"outcome": "delivered", "tried": "all"}}
    target = replace(run_target(), deviations=declared)
    known = load_known_failing({left_out.check: "not yet"})
    assert _problems(target, [left_out], known, is_whole=True) == ()
    assert len(_problems(target, [replace(left_out, verdict=Verdict.PASS)], known, is_whole=True)) == 2
