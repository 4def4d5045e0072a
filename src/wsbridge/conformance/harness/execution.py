"""Runs one check, in an event loop of its own and bounded in time, and looks for what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, TypeVar, cast

from wsbridge.application import Application
from wsbridge.conformance import lateness
from wsbridge.conformance.client import Closed, WireTimeout
from wsbridge.conformance.contract import Check, CheckFailed, equal, true
from wsbridge.conformance.harness.bench import Bench, watched
from wsbridge.conformance.harness.records import record
from wsbridge.conformance.harness.setting import NotApplicable
from wsbridge.conformance.harness.stacks import where
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import Cause, CheckResult, Verdict
from wsbridge.errors import UnsupportedOptionError
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel

__all__ = ["fairly", "run_check", "watchdog_limit"]

E = TypeVar("E", bound=BaseException)

GRACE = 5.0  # seconds, times the scale, that a check may overrun its limit before it is interrupted
_AGAIN = 1.0  # seconds between interruptions of a loop that goes on hanging
_SOON = 0.01  # seconds until it is tried again, where an exception would be lost
_LOSING = ("_remove", "remove", "__del__")  # callbacks of weak references, in the standard library, and finalizers


@dataclass(frozen=True, slots=True)
class _Outcome:
    verdict: Verdict
    message: str = ""
    cause: Cause = ""
    details: str = ""
    error: BaseException | None = None


class _Hang(BaseException):
    """The event loop itself hangs; no check catches this by accident."""


def watchdog_limit(check: Check, scale: float) -> float:
    """Return the seconds after which ``check`` is interrupted, whatever it does."""
    return (check.limit + GRACE) * scale


def run_check(check: Check, target: SuiteTarget, *, scale: float = 1.0, again: bool = True) -> CheckResult:
    """Run ``check`` against ``target`` and return its result; never raises for what the connector does.

    In the main thread even a blocked event loop is interrupted.

    Args:
        check: The check.
        target: What is checked.
        scale: Stretches every time limit.
        again: Whether it runs once more where it failed and the machine stalled meanwhile.
    """
    if again:
        return fairly(partial(_run_once, check, target), scale)
    with lateness.measured():
        return _run_once(check, target, scale)


def fairly(run: Callable[[float], CheckResult], scale: float) -> CheckResult:
    """Run a check, and once more where it failed while the machine stalled; a failure on a quiet machine stands.

    Args:
        run: Runs it, with all times stretched by its argument.
        scale: That argument. The second time it is greater, since what the machine takes from the suite may be
            what the suite was to do within a time that it gave the connector.
    """
    with lateness.measured() as meter:
        result = run(scale)
    if result.verdict is not Verdict.FAIL or meter.lost < lateness.STALL:
        return result
    with lateness.measured():
        second = run(scale * meter.stretch)
    return replace(second, seconds=round(result.seconds + second.seconds, 4), stalled=round(meter.lost, 3))


def _run_once(check: Check, target: SuiteTarget, scale: float) -> CheckResult:
    bench = Bench(target, scale)
    started = time.perf_counter()
    if fixed := _fixed(check, target):
        outcome = _Outcome(Verdict.NOT_APPLICABLE, f"{', '.join(fixed)}: the check says nothing under this")
    elif target.connector is not None and (missing := _missing(check, target)):
        outcome = _refusal(check, bench, missing)
    else:
        outcome = _as_declared(check, bench, _with_unhandled(bench, _outcome(check, bench)))
    seconds = round(time.perf_counter() - started, 4)
    conditions = str(target.conditions)
    if outcome.verdict is not Verdict.FAIL:
        return CheckResult(
            check.id,
            check.rule,
            outcome.verdict,
            seconds,
            outcome.message,
            deviations=dict(bench.deviated),
            conditions=conditions,
            open_to=bench.setting.open_to(check.fixed),
        )
    formatter = logging.Formatter("%(levelname)s %(message)s")
    error = outcome.error
    expected, actual, difference = (str(getattr(error, name, "")) for name in ("expected", "actual", "difference"))
    connection, wire = record(bench, error)
    return CheckResult(
        check.id,
        check.rule,
        outcome.verdict,
        seconds,
        outcome.message,
        outcome.details,
        wire,
        bench.recorder.lines(),
        [formatter.format(record) for record in bench.logs],
        outcome.cause,
        expected=expected,
        actual=actual,
        difference=difference,
        connection=connection,
        conditions=conditions,
    )


def _outcome(check: Check, bench: Bench) -> _Outcome:
    limit = check.limit * bench.scale
    left: list[str] = []
    try:
        with bench.setting, _watchdog(watchdog_limit(check, bench.scale)), watched(bench) as left:
            _run_in_loop(check, bench, limit, left)
    except NotApplicable as exc:
        return _Outcome(Verdict.NOT_APPLICABLE, str(exc))
    except CheckFailed as exc:
        return _failure(str(exc), "hang" if isinstance(exc, _Overdue) else "promise", exc)
    except _Hang as exc:
        return _failure(f"the event loop hung: the check could not be ended after its {limit:g} s", "hang", exc)
    # SystemExit and a stray CancelledError would end the whole run; an interruption by the user shall
    except (Exception, SystemExit, asyncio.CancelledError) as exc:
        if isinstance(exc, Closed):  # the peer was promised more of the connection
            return _failure(f"Closed: {exc}", "promise", exc)
        if not_applicable := _members(exc, NotApplicable):
            return _Outcome(Verdict.NOT_APPLICABLE, str(not_applicable[0]))
        if failed := _members(exc, CheckFailed):
            message = "; ".join(map(str, failed))
            return replace(_failure(message, "promise", exc), error=failed[0])
        return _failure(f"{type(exc).__name__}: {exc}", "error", exc)
    if left:
        return _Outcome(Verdict.FAIL, "; ".join(left[:10]), "left-over")
    if missing := bench.setting.missing():
        return _Outcome(Verdict.NOT_APPLICABLE, missing)
    if bench.deviated:
        text = "; ".join(f"{scenario}: {observed}" for scenario, observed in bench.deviated.items())
        return _Outcome(Verdict.DEVIATION, text)
    return _Outcome(Verdict.PASS)


def _with_unhandled(bench: Bench, outcome: _Outcome) -> _Outcome:
    """Tell in a failure what nobody took meanwhile: of a connector that raises its peer sees a timeout alone."""
    if outcome.verdict is not Verdict.FAIL:
        return outcome
    unhandled = bench.unhandled
    return replace(outcome, message=unhandled.told(outcome.message), details=outcome.details + unhandled.tracebacks())


def _as_declared(check: Check, bench: Bench, outcome: _Outcome) -> _Outcome:
    """Hold a whole check to the deviation that the connector declares for it (CLOSE-8).

    Only a broken promise can be declared, by the words that its failure begins with: no hang, no error and nothing left
    over. A check that compares its scenario by `Bench.outcome` is held to that instead.
    """
    declared = bench.target.deviations.get(check.id)
    if declared is None or check.id in bench.held:
        return outcome
    if outcome.verdict is not Verdict.FAIL:
        if outcome.verdict is Verdict.NOT_APPLICABLE or bench.target.conditions.chosen:
            return outcome
        message = f"{check.id}: the deviation {declared.outcome!r} is declared, but the rule holds"
        return _Outcome(Verdict.FAIL, message, "promise")
    if outcome.cause != "promise":
        return outcome
    ways = declared.outcome.split(" | ")
    if not all(way.strip() for way in ways) or not outcome.message.startswith(tuple(ways)):
        message = f"{check.id}: declared is {declared.outcome!r}, observed {outcome.message!r}"
        return replace(outcome, message=message)
    bench.deviated[check.id] = declared.outcome
    return _Outcome(Verdict.DEVIATION, f"{check.id}: {declared.outcome}")


def _members(exc: BaseException, kind: type[E]) -> list[E]:
    """Return what is of one kind in a group, such as an `asyncio.TaskGroup` raises."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc] if isinstance(exc, kind) else []
    members = cast("Sequence[BaseException]", exc.exceptions)
    return [found for member in members for found in _members(member, kind)]


def _failure(message: str, cause: Cause, exc: BaseException) -> _Outcome:
    """Return a failure, with the traceback from the check on."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        trace = trace.tb_next
    # what a peer's own limit was made of tells nothing of the connector
    chain = not isinstance(exc, WireTimeout)
    lines = traceback.format_exception(type(exc), exc, trace or exc.__traceback__, chain=chain)
    return _Outcome(Verdict.FAIL, message, cause, "".join(lines), exc)


_MACHINERY = (__file__, str(Path(asyncio.__file__).parent))
"""What stands above a check in a traceback, and tells nothing."""


class _Overdue(CheckFailed):
    """The check did not end in its time."""


def _run_in_loop(check: Check, bench: Bench, limit: float, left: list[str]) -> None:
    """Run the check in a new event loop; tasks that it leaves are found and ended."""
    with asyncio.Runner(loop_factory=bench.target.conditions.new_event_loop) as runner:
        loop = runner.get_loop()

        def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if not _is_of_debug_mode(loop, context):
                left.append(_loop_error(context))
                bench.unhandled.note(context.get("exception"))

        loop.set_exception_handler(tell)
        runner.run(_limited(check, bench, limit, left))


async def _limited(check: Check, bench: Bench, limit: float, left: list[str]) -> None:
    bound: asyncio.Timeout | None = None
    hung: list[str] = []
    try:
        async with lateness.timeout(limit, at_last=lambda: hung.append(where())) as bound:
            try:
                await check.run(bench)
            except (Exception, asyncio.CancelledError):
                bench.unhandled.look()
                raise
    except TimeoutError as exc:
        if bound is not None and bound.expired():
            overdue = _Overdue(f"the check did not end within {limit:g} s")
            overdue.add_note("\n".join(hung))
            raise overdue from exc
        raise
    # what ends by itself in the next moments, such as a cancelled task, is not left over
    deadline = lateness.Deadline(0.1)
    while deadline.left() > 0:
        if not _other_tasks():
            return
        await asyncio.sleep(0.005)
    left.extend(f"task left running: {task.get_coro()!r}" for task in _other_tasks())


def _other_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def _is_of_debug_mode(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> bool:
    """Tell whether asyncio reports, in debug mode alone, that a peer agreed on no TLS (selector_events.py)."""
    return loop.get_debug() and context.get("message") == "Error on transport creation for incoming connection"


def _loop_error(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"the event loop reported: {context.get('message')} ({error!r})"


@contextlib.contextmanager
def _watchdog(seconds: float) -> Generator[None]:
    """Interrupt the main thread after ``seconds``, whatever it does; elsewhere there is no such means."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if (left := deadline.left()) > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, _SOON), _AGAIN)
        elif frame is not None and frame.f_code.co_name in _LOSING:
            signal.setitimer(signal.ITIMER_REAL, _SOON, _AGAIN)
        else:
            raise _Hang

    deadline = lateness.Deadline(seconds)
    former = signal.signal(signal.SIGALRM, interrupt)
    # again and again: the loop's own end may hang on the same thing
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _fixed(check: Check, target: SuiteTarget) -> list[str]:
    """Return the conditions that are asked for and that the check is not for."""
    chosen = target.conditions.chosen
    return [f"{axis}={value}" for axis, value in chosen.items() if {axis, f"{axis}={value}"} & check.fixed]


def _missing(check: Check, target: SuiteTarget) -> set[str]:
    """Return what the check needs and the connector lacks."""
    missing: set[str] = set(check.needs - target.features)
    if check.tls and not target.has_tls:
        missing |= {"tls"}
    return missing | {"wire"} if check.wire and not target.has_wire else missing


def _refusal(check: Check, bench: Bench, missing: Iterable[str]) -> _Outcome:
    """Check that a connector that lacks features refuses what needs them: options when it is made."""
    refused: list[str] = []
    for feature in sorted(missing):
        if feature in _REFUSALS:
            outcome = _outcome(replace(check, run=_REFUSALS[feature], limit=20), bench)
        else:
            outcome = _options_are_refused(bench.target, feature)
        if outcome.verdict is Verdict.FAIL:
            return outcome
        refused.append(feature)
    return _Outcome(Verdict.UNSUPPORTED, f"{', '.join(refused)}: refused")


async def _parts_are_refused(bench: Bench) -> None:
    """A callback that asks for the parts of messages is refused."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_open(channel: WebSocketChannel, request: object) -> None:
        try:
            channel.on_binary(lambda *_: None, format="fragments")  # type: ignore[call-overload]
        except ValueError:  # which UnsupportedOptionError is
            answer.set_result("refused")
        else:
            answer.set_result("accepted, although 'fragments' is not declared")

    async with bench.serve(WebSocketOptions(on_open=on_open, **bench.target.neutral)) as served, served.peer():
        equal(await bench.within(answer, "on_open"), "refused", "a callback for the parts of messages")


async def _a_mount_is_refused(bench: Bench) -> None:
    """A connector without a mount has none for the suite either."""
    harness = getattr(bench.connector, "mount_harness", None)
    true(harness is None, f"there is a mount, {harness!r}, although the feature 'mount' is not declared")


_REFUSALS: Mapping[str, Callable[[Bench], Awaitable[None]]] = MappingProxyType(
    {"fragments": _parts_are_refused, "mount": _a_mount_is_refused}
)


def _options_are_refused(target: SuiteTarget, missing: str) -> _Outcome:
    assert target.connector is not None
    for options, connector_options in _REFUSED.get(missing, ()):
        given = {**options, **connector_options}
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
        try:
            app = Application([("/", WebSocketOptions(**{**target.neutral, **options}))])
            target.connector(app, **connector_options)
        except UnsupportedOptionError as exc:
            if next(iter(given)) not in str(exc) or target.connector.name not in str(exc):
                return _failure(f"the refusal of {shown} does not name option and connector: {exc}", "promise", exc)
        except Exception as exc:
            return _failure(f"{shown} must raise UnsupportedOptionError, not {exc!r}", "promise", exc)
        else:
            message = f"{shown} was accepted, although the feature {missing!r} is not declared"
            return _Outcome(Verdict.FAIL, message, "promise")
    return _Outcome(Verdict.UNSUPPORTED)


_REFUSED: Mapping[str, Sequence[tuple[dict[str, Any], dict[str, Any]]]] = MappingProxyType(
    {
        "compression": [({"compression": True}, {})],
        "ping": [({"ping_interval": 1.0}, {})],
        "size-limit": [({"max_text_size": 1024}, {}), ({"max_binary_size": 1024}, {})],
        "unix-socket": [({}, {"unix_path": "wsbridge-refused.sock"})],
        "tls": [({}, {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)})],
        "wire": [
            ({}, {"host": "0.0.0.0"}),
            ({}, {"port": 8000}),
            ({}, {"reuse_port": True}),
            ({}, {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}),
        ],
    }
)
