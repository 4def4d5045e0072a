"""Runs checks, each in an event loop of its own, bounded in time, and looks for what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.bench import Bench, Target, watched
from wsbridge.conformance.check import Check, CheckFailed
from wsbridge.errors import UnsupportedOptionError
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Feature

__all__ = ["CheckResult", "Verdict", "run_check"]


class Verdict(enum.StrEnum):
    """What came of a check. There is no skip."""

    PASS = "pass"
    FAIL = "fail"
    DEVIATION = "deviation"
    """The rule does not hold, the connector says so, and what it says was observed."""
    UNSUPPORTED = "unsupported"
    """The connector lacks the feature, and refused the option for it as it must."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's verdict and, for a failure, what is known of it.

    Attributes:
        check: The check's id.
        rule: Its rule.
        verdict: See `Verdict`.
        seconds: How long it took.
        message: What failed, what deviates, or which feature is refused.
        details: For a failure: the traceback.
        wire: For a failure: the log of each connection, by name.
        callbacks: For a failure: the log of callbacks.
        logs: For a failure: what was logged on ``wsbridge``.
    """

    check: str
    rule: str
    verdict: Verdict
    seconds: float
    message: str = ""
    details: str = ""
    wire: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    callbacks: list[str] = field(default_factory=list[str])
    logs: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


class _Hang(BaseException):
    """The event loop itself hangs; no check catches this by accident."""


def run_check(check: Check, target: Target, *, scale: float = 1.0) -> CheckResult:
    """Run ``check`` against ``target`` and return its result; never raises for what the connector does.

    In the main thread even a blocked event loop is interrupted.
    """
    bench = Bench(target, scale)
    started = time.perf_counter()
    if target.connector is not None and (missing := sorted(check.needs - target.features)):
        verdict, message, details = _refusal(target, missing[0])
    else:
        verdict, message, details = _verdict(check, bench)
    seconds = round(time.perf_counter() - started, 4)
    if verdict is not Verdict.FAIL:
        return CheckResult(check.id, check.rule, verdict, seconds, message)
    formatter = logging.Formatter("%(levelname)s %(message)s")
    return CheckResult(
        check.id,
        check.rule,
        verdict,
        seconds,
        message,
        details,
        {f"{number} {name}": log.lines() for number, (name, log) in enumerate(bench.wire_logs, 1)},
        bench.recorder.lines(),
        [formatter.format(record) for record in bench.logs],
    )


def _verdict(check: Check, bench: Bench) -> tuple[Verdict, str, str]:
    limit = check.limit * bench.scale
    left: list[str] = []
    try:
        with _watchdog(limit + 5 * bench.scale), watched(bench) as left:
            _run_in_loop(check, bench, limit, left)
    except CheckFailed as exc:
        return Verdict.FAIL, str(exc), traceback.format_exc()
    except _Hang:
        return Verdict.FAIL, f"the event loop hung for more than {limit:g} s", traceback.format_exc()
    except Exception as exc:
        return Verdict.FAIL, f"{type(exc).__name__}: {exc}", traceback.format_exc()
    if left:
        return Verdict.FAIL, "; ".join(left[:10]), ""
    if bench.deviated:
        return Verdict.DEVIATION, "; ".join(f"{key}: {outcome}" for key, outcome in bench.deviated.items()), ""
    return Verdict.PASS, "", ""


def _run_in_loop(check: Check, bench: Bench, limit: float, left: list[str]) -> None:
    """Run the check in a new event loop; tasks that it leaves are found and ended."""
    with asyncio.Runner(debug=False, loop_factory=bench.target.loop_factory) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: left.append(_loop_error(context)))
        runner.run(_limited(check, bench, limit, left))


async def _limited(check: Check, bench: Bench, limit: float, left: list[str]) -> None:
    try:
        async with asyncio.timeout(limit) as bound:
            await check.run(bench)
    except TimeoutError:
        if bound.expired():
            raise CheckFailed(f"the check did not end within {limit:g} s") from None
        raise
    # what ends by itself in the next moments, such as a cancelled task, is not left over
    for _ in range(20):
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not tasks:
            break
        await asyncio.sleep(0.005)
    else:
        left.extend(f"task left running: {task.get_coro()!r}" for task in tasks)


def _loop_error(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"the event loop reported: {context.get('message')} ({error!r})"


@contextlib.contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    """Interrupt the main thread after ``seconds``, whatever it does; elsewhere there is no such means."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise _Hang

    former = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


_REFUSED: dict[Feature, Sequence[tuple[dict[str, Any], dict[str, Any]]]] = {
    "compression": [({"compression": True}, {})],
    "ping": [({"ping_interval": 1.0}, {})],
    "size-limit": [({"max_text_size": 1024}, {}), ({"max_binary_size": 1024}, {})],
    "unix-socket": [({}, {"unix_path": "wsbridge-refused.sock"})],
}


def _refusal(target: Target, missing: str) -> tuple[Verdict, str, str]:
    """Check that a connector that lacks a feature refuses the options for it, when it is made."""
    assert target.connector is not None
    if missing == "fragments":
        return Verdict.UNSUPPORTED, "fragments: refused where a callback asks for them", ""
    neutral = {
        name: value
        for feature, names in _NEUTRAL.items()
        if feature not in target.features
        for name, value in names.items()
    }
    for options, connector_options in _REFUSED[missing]:  # type: ignore[index]
        app = Application([("/", WebSocketOptions(**{**neutral, **options}))])
        shown = ", ".join(f"{name}={value!r}" for name, value in {**options, **connector_options}.items())
        try:
            target.connector(app, **connector_options)
        except UnsupportedOptionError as exc:
            wanted = next(iter({**options, **connector_options}))
            if wanted not in str(exc) or target.connector.name not in str(exc):
                return Verdict.FAIL, f"the refusal of {shown} does not name option and connector: {exc}", ""
        except Exception as exc:
            return Verdict.FAIL, f"{shown} must raise UnsupportedOptionError, not {exc!r}", traceback.format_exc()
        else:
            return Verdict.FAIL, f"{shown} was accepted, although the feature {missing!r} is not declared", ""
    return Verdict.UNSUPPORTED, f"{missing}: refused", ""


_NEUTRAL: dict[Feature, dict[str, Any]] = {
    "ping": {"ping_interval": None},
    "size-limit": {"max_text_size": None, "max_binary_size": None},
}
"""What a connector that lacks a feature lets through instead of the default."""
