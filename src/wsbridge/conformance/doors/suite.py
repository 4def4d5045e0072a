"""The suite as a library: `run` checks a target and returns the result, `Session` does it check by check."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from wsbridge._process.loops import LoopName
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check
from wsbridge.conformance.contract.catalogue import rules as catalogue_rules
from wsbridge.conformance.harness.conditions import PLAIN, Conditions
from wsbridge.conformance.harness.known import KnownFailing, closest, load_known_failing, matching
from wsbridge.conformance.harness.result import RuleInfo, SuiteResult
from wsbridge.conformance.harness.runner import CheckResult, Verdict, fairly, run_check
from wsbridge.conformance.harness.target import (
    BrokenTargetError,
    TargetError,
    TargetInfo,
    describe,
    is_url,
    resolve,
    spec_of,
)
from wsbridge.conformance.harness.worker import Worker
from wsbridge.protocols import Connector

__all__ = ["Progress", "Session", "run", "select"]

MODEL_CHECK = "RECV-4/random-sequences"
"""The id of the random model's result; that of `wsbridge.conformance.harness.model`, which is slow to import."""
MODEL_TITLE = "Random sequences of messages, pings, closes and drops keep the order and the reasons that are promised."


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
    """A target under check. Use it as a context manager: its end is the end of the worker process.

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
        self._worker: Worker | None = None
        self._target = None
        self.broken: BrokenTargetError | None = None
        """Why no check can run, if none can: the connector cannot be imported."""
        self.info: TargetInfo
        if isolate and not spec:
            raise ValueError(f"{self.name} cannot be imported by its name, so it cannot be checked in isolation")
        try:
            if bool(spec) if isolate is None else isolate:
                self._worker = Worker(spec, scale=scale, conditions=conditions)
                self.info = replace(self._worker.info(), name=self.name)
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
        """End the worker process."""
        if self._worker is not None:
            self._worker.close()

    def checks(self) -> tuple[Check, ...]:
        """Return the checks for this target: for a URL, those that need nothing but the reference application."""
        return self.applicable(is_url=self.is_url)

    @staticmethod
    def applicable(*, is_url: bool) -> tuple[Check, ...]:
        """Return the checks for a kind of target, in the order of the catalogue."""
        order = {rule.id: number for number, rule in enumerate(catalogue_rules())}
        checks = sorted(all_checks(), key=lambda check: order.get(check.rule, len(order)))
        return tuple(check for check in checks if check.black_box or not is_url)

    def run(self, check: Check, *, repeat: int = 1) -> CheckResult:
        """Run one check, up to its first failure ``repeat`` times if it is stochastic; never raises for a failure.

        A failure while the machine stalled does not count: the check is run once more, and says so.
        """
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
        if self._worker is not None:
            return fairly(partial(self._worker.run, check), self.scale)
        assert self._target is not None
        return run_check(check, self._target, scale=self.scale)

    def _not_run(self, check: str) -> CheckResult:
        assert self.broken is not None
        rule = check.partition("/")[0]
        return CheckResult(check, rule, Verdict.FAIL, 0.0, str(self.broken), self.broken.details, cause="error")

    def run_model(self) -> CheckResult:
        """Play the random model."""
        if self.broken is not None:
            return self._not_run(MODEL_CHECK)
        if self._worker is not None:
            return fairly(partial(self._worker.run_model, MODEL_CHECK), self.scale)
        assert self._target is not None
        from wsbridge.conformance.harness.model import run_model

        target = self._target
        return fairly(lambda scale: run_model(target, scale=scale), self.scale)


def select(checks: Iterable[Check], rules: Iterable[str] | None) -> tuple[Check, ...]:
    """Return the checks that ``rules``, ids of checks, rules or groups of rules, take in; all for None.

    Raises:
        ValueError: An id takes in no check.
    """
    checks = tuple(checks)
    if rules is None:
        return checks
    wanted = [rules] if isinstance(rules, str) else list(rules)
    for id in wanted:
        if not any(matching(id, check.id) for check in checks):
            elsewhere = [check.id for check in all_checks()]
            if any(matching(id, other) for other in elsewhere):
                raise ValueError(f"{id} cannot be checked from outside, by a URL")
            if (rule := next((rule for rule in catalogue_rules() if rule.id == id), None)) is not None:
                raise ValueError(f"{id} is a {rule.kind} rule: no check of the suite is about it")
            raise ValueError(f"there is no rule, check or group of rules {id!r}{closest(id, elsewhere)}")
    return tuple(check for check in checks if any(matching(id, check.id) for id in wanted))


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
        loop: The event loop of each check, and so of the connector: ``"asyncio"`` or ``"uvloop"`` (THR-4).
        debug: Whether asyncio's debug mode is on in it.
        eager_tasks: Whether its tasks start at once, as `asyncio.eager_task_factory` has it; from Python 3.12 on.

    Raises:
        LoopNotInstalledError: uvloop is not installed.
        TargetError: There is nothing to check: no such connector, nobody at the URL, or no reference application.
        ValueError: An unknown rule, a known-failing file that is none, an unknown loop, or eager tasks before 3.12.
    """
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, not {repeat!r}")
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

        for number, check in enumerate(checks, 1):
            step(check.id, number, partial(session.run, check, repeat=repeat))
        if model:
            step(MODEL_CHECK, total, session.run_model)
        return SuiteResult(
            target=session.info,
            results=tuple(results),
            rules=current_rules(is_url=session.is_url),
            titles={id: title for id, title in current_titles().items() if any(r.check == id for r in results)},
            known=known,
            problems=_problems(session.info, results, known, is_whole=rules is None),
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 2),
            scale=scale,
            repeat=repeat,
            conditions=conditions,
        )


def check_known(known: KnownFailing) -> None:
    """Make sure that each entry names a check or a rule that there is.

    Raises:
        ValueError: One does not.
    """
    ids = [check.id for check in all_checks()]
    for id in known:
        if id != MODEL_CHECK and not any(id in (check, check.partition("/")[0]) for check in ids):
            raise ValueError(f"the known-failing file lists {id}, which is no rule or check{closest(id, ids)}")


def _problems(info: TargetInfo, results: list[CheckResult], known: KnownFailing, *, is_whole: bool) -> tuple[str, ...]:
    """Return what is wrong beside failing checks."""
    problems: list[str] = []
    for id in known:
        ran = [result for result in results if matching(id, result.check)]
        # a rule of which only some checks were selected may fail in another
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


def current_rules(*, is_url: bool = False) -> tuple[RuleInfo, ...]:
    """Return what a report says of each rule of this version of the contract."""
    checked = {check.rule for check in Session.applicable(is_url=is_url)}
    return tuple(
        RuleInfo(rule.id, rule.kind, rule.level, rule.section, rule.sentence, rule.id in checked, rule.stochastic)
        for rule in catalogue_rules()
    )


def current_titles() -> dict[str, str]:
    """Return what each check of this version promises, by its id."""
    return {check.id: check.title for check in all_checks()} | {MODEL_CHECK: MODEL_TITLE}
