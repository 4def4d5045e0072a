"""The suite as a library: `run` checks a target and returns the result, `Session` does it check by check."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from wsbridge._process.loops import LoopName
from wsbridge.conformance.client import WireTimeout
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.check_process import CheckProcess
from wsbridge.conformance.harness.conditions import PLAIN, Conditions
from wsbridge.conformance.harness.execution import fairly, run_check
from wsbridge.conformance.harness.known import KnownFailing, load_known_failing, matching
from wsbridge.conformance.harness.selection import (
    MODEL_CHECK,
    SEQUENCES,
    applicable,
    check_known,
    current_rules,
    current_titles,
    select,
)
from wsbridge.conformance.harness.suite_result import SuiteResult
from wsbridge.conformance.harness.target import (
    BrokenTargetError,
    TargetError,
    TargetInfo,
    describe,
    is_url,
    resolve,
    spec_of,
)
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict
from wsbridge.protocols import Connector

__all__ = ["Progress", "Session", "run"]

_FIRST = "HS-1/accept-key"
"""The check that asks least of a connector beyond its start: a plain handshake."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told before and after each check.

    Attributes:
        check: The check's id.
        number: Its number, from 1.
        total: How many there are.
        result: None before it has run.
    """

    check: str
    number: int
    total: int
    result: CheckResult | None = None


class Session:
    """A target under check. Use it as a context manager: its end is the end of the process that checks.

    Args:
        target: A connector's name, ``module:Class`` or class, or the ``ws://`` URL of a running server.
        scale: Stretches every time limit.
        isolate: Run the checks in a process of their own, which is replaced when a check hangs or kills it. By default
            all but a class that cannot be imported by its name; a class under test may be one.
        conditions: What holds for the event loop of each check.

    Raises:
        LoopNotInstalledError: uvloop is not installed.
        TargetError: There is nothing to check: no such connector, nobody at the URL, or no reference application; or
            conditions for a URL, whose server's event loop is its own.
        ValueError: A scale out of range, or conditions that this Python does not have.
    """

    def __init__(
        self,
        target: str | type[Connector],
        *,
        scale: float = 1.0,
        isolate: bool | None = None,
        conditions: Conditions = PLAIN,
    ) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be greater than 0, not {scale!r}")
        spec = target if isinstance(target, str) else spec_of(target)
        if not hasattr(os, "killpg"):
            raise TargetError("the conformance suite needs a Unix system, such as Linux or macOS, or WSL on Windows")
        conditions.check()
        self.scale = scale
        self.name = target if isinstance(target, str) else target.__qualname__
        self.is_url = is_url(spec)
        if self.is_url and conditions != PLAIN:
            raise TargetError(f"{spec} cannot be checked under {conditions}: a running server's event loop is its own")
        self._process: CheckProcess | None = None
        self._target = None
        self.broken: BrokenTargetError | None = None
        """Why no check can run, if none can: the connector cannot be imported, or answers nothing to a handshake."""
        self._answers = self.is_url  # it has been seen to answer a handshake
        self.info: TargetInfo
        if isolate and not spec:
            raise ValueError(f"{self.name} cannot be imported by its name, so it cannot be checked in isolation")
        try:
            if bool(spec) if isolate is None else isolate:
                self._process = CheckProcess(spec, scale=scale, conditions=conditions)
                self.info = replace(self._process.info(), name=self.name)
            else:
                self._target = replace(resolve(target), conditions=conditions)
                self.info = describe(self._target, self.name, scale=scale)
        except BrokenTargetError as exc:
            self.broken = exc
            self.info = TargetInfo(self.name, "connector")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process that checks."""
        if self._process is not None:
            self._process.close()

    def checks(self) -> tuple[Check, ...]:
        """Return the checks for this target: for a URL, those that need nothing but the reference application."""
        return self.applicable(is_url=self.is_url)

    @staticmethod
    def applicable(*, is_url: bool) -> tuple[Check, ...]:
        """Return the checks for a kind of target, in the order of the catalogue."""
        return applicable(is_url=is_url)

    def run(self, check: Check, *, repeat: int = 1) -> CheckResult:
        """Run one check, up to its first failure ``repeat`` times if it is stochastic; never raises for a failure.

        A failure while the machine stalled does not count: the check is run once more, and says so. One whose peers
        got no answer at all has the session look whether the connector answers any handshake; if it does not,
        `broken` says so from then on, and no more checks run.
        """
        result = self._run(check, repeat)
        if self.broken is None and not self._answers and _is_unanswered(result):
            first = result if check.id == _FIRST else self._once(_first_check())
            if _is_unanswered(first):
                message = f"the connector answers nothing at all to a handshake, so no more is checked: {first.message}"
                self.broken = BrokenTargetError(message, first.details)
            self._answers = True
        return result

    def _run(self, check: Check, repeat: int) -> CheckResult:
        runs = repeat if check.stochastic else 1
        result = self._once(check)
        number, seconds, stalled = 1, result.seconds, result.stalled
        while number < runs and result.verdict is not Verdict.FAIL:
            result = self._once(check)
            number, seconds, stalled = number + 1, seconds + result.seconds, max(stalled, result.stalled)
        if runs == 1:
            return result
        message = f"run {number} of {runs}: {result.message}" if result.verdict is Verdict.FAIL else result.message
        return replace(result, seconds=round(seconds, 4), runs=number, message=message, stalled=stalled)

    def _once(self, check: Check) -> CheckResult:
        if self.broken is not None:
            return self._not_run(check.id)
        if self._process is not None:
            return fairly(partial(self._process.run, check), self.scale)
        assert self._target is not None
        return run_check(check, self._target, scale=self.scale)

    def _not_run(self, check: str) -> CheckResult:
        assert self.broken is not None
        rule = check.partition("/")[0]
        return CheckResult(check, rule, Verdict.FAIL, 0.0, str(self.broken), self.broken.details, cause="error")

    def run_model(self, *, sequences: int = SEQUENCES, seed: int | None = None) -> CheckResult:
        """Play the random model.

        Args:
            sequences: How many random sequences are played, if none fails.
            seed: What a failure has told, to have the same sequences again; None: others each time.
        """
        # one for both tries: what has failed while the machine stalled is to be played again, and nothing else
        seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        if self.broken is not None:
            return self._not_run(MODEL_CHECK)
        if self._process is not None:
            played = partial(self._process.run_model, MODEL_CHECK, sequences=sequences, seed=seed)
            return fairly(played, self.scale)
        assert self._target is not None
        from wsbridge.conformance.harness.model import run_model

        target = self._target
        return fairly(lambda scale: run_model(target, scale=scale, sequences=sequences, seed=seed), self.scale)


def run(
    target: str | type[Connector],
    *,
    rules: Iterable[str] | None = None,
    repeat: int = 1,
    scale: float = 1.0,
    isolate: bool | None = None,
    progress: Callable[[Progress], object] | None = None,
    known_failing: KnownFailing | Mapping[str, Any] | str | Path | None = None,
    model: bool = False,
    model_sequences: int = SEQUENCES,
    model_seed: int | None = None,
    loop: LoopName = "asyncio",
    debug: bool = False,
    eager_tasks: bool = False,
) -> SuiteResult:
    """Check ``target`` against the contract and return the result.

    Args:
        target: A connector's name, ``module:Class`` or class, or the ``ws://`` URL of a running server that serves the
            reference application.
        rules: Ids of rules (``RECV-9``), checks (``RECV-9/unmasked-frame``) or groups (``RECV``); by default all.
        repeat: How often the stochastic checks run.
        scale: Stretches every time limit: above 1 for a slow machine.
        isolate: See `Session`.
        progress: Called before and after each check.
        known_failing: What is known to fail: a file, as `load_known_failing` takes it, or its entries.
        model: Whether the random model is played too; it needs a connector.
        model_sequences: How many random sequences it plays.
        model_seed: What a failure of it has told, to have the same sequences again; None: others each time.
        loop: The event loop of each check, and so of the connector: ``"asyncio"`` or ``"uvloop"`` (THR-4).
        debug: Whether asyncio's debug mode is on in it.
        eager_tasks: Whether its tasks start at once, as `asyncio.eager_task_factory` has it; from Python 3.12 on.

    Raises:
        LoopNotInstalledError: uvloop is not installed.
        TargetError: There is nothing to check: no such connector, nobody at the URL, or no reference application.
        ValueError: An unknown rule, a known-failing file that is not one, an unknown loop, or eager tasks before 3.12.
    """
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, not {repeat!r}")
    if model_sequences < 1:
        raise ValueError(f"model_sequences must be at least 1, not {model_sequences!r}")
    known = {} if known_failing is None else load_known_failing(known_failing)
    check_known(known)
    conditions = Conditions(loop, debug, eager_tasks)
    started, clock = datetime.now(UTC), time.perf_counter()
    with Session(target, scale=scale, isolate=isolate, conditions=conditions) as session:
        checks = select(session.checks(), rules)
        if model and session.is_url:
            raise ValueError("the random model needs a connector: it cannot be played against a URL")
        results: list[CheckResult] = []
        total = len(checks) + model

        def step(id: str, number: int, once: Callable[[], CheckResult]) -> None:
            if progress is not None:
                progress(Progress(id, number, total))
            results.append(once())
            if progress is not None:
                progress(Progress(id, number, total, results[-1]))

        was_broken, ended = session.broken is not None, ""
        for number, check in enumerate(checks, 1):
            step(check.id, number, partial(session.run, check, repeat=repeat))
            if session.broken is not None and not was_broken and number < total:
                ended = f"{total - number} of {total} checks were not run: {session.broken}"
                break
        if model and not ended:
            step(MODEL_CHECK, total, partial(session.run_model, sequences=model_sequences, seed=model_seed))
        return SuiteResult(
            target=session.info,
            results=tuple(results),
            rules=current_rules(is_url=session.is_url),
            titles={id: title for id, title in current_titles().items() if any(r.check == id for r in results)},
            known=known,
            problems=(ended,) if ended else _problems(session.info, results, known, is_whole=rules is None),
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 2),
            scale=scale,
            repeat=repeat,
            conditions=conditions,
        )


def _is_unanswered(result: CheckResult) -> bool:
    """Tell whether a check failed since its peers sent something, and got not one byte."""
    directions = {entry.direction for log in result.wire.values() for entry in log}
    return WireTimeout.__name__ in result.message and "sent" in directions and "received" not in directions


def _first_check() -> Check:
    return next(check for check in applicable(is_url=False) if check.id == _FIRST)


def _problems(info: TargetInfo, results: list[CheckResult], known: KnownFailing, *, is_whole: bool) -> tuple[str, ...]:
    """Return what is wrong beside failing checks."""
    problems: list[str] = []
    for id in known:
        ran = [result for result in results if matching(id, result.check)]
        # if only some checks of a rule were selected, it may fail in another
        if ran and ("/" in id or is_whole) and all(result.verdict is not Verdict.FAIL for result in ran):
            problems.append(f"{id} is listed as known to fail, but passes: take it off the list")
    if is_whole:
        failed = {result.rule for result in results if result.verdict is Verdict.FAIL}
        seen = {scenario for result in results for scenario in result.deviations}
        problems += [
            f"the deviation {scenario} is declared, but no check has seen it"
            for scenario in info.deviations
            if scenario not in seen and scenario.partition("/")[0] not in failed
        ]
    return tuple(problems)
