"""The suite as a library: `run` checks a target and returns the result, `Session` does it check by check."""

from __future__ import annotations

import asyncio
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
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.check_process import CheckProcess
from wsbridge.conformance.harness.conditions import OF_THE_LOOP, PLAIN, Conditions
from wsbridge.conformance.harness.execution import fairly, run_check
from wsbridge.conformance.harness.known import KnownFailing, load_known_failing, matching
from wsbridge.conformance.harness.pairwise import Combine, Place, Values, allowed, family, plan, singles
from wsbridge.conformance.harness.preflight import gone
from wsbridge.conformance.harness.selection import (
    MODEL_CHECK,
    SEQUENCES,
    applicable,
    check_known,
    current_rules,
    current_titles,
    select,
)
from wsbridge.conformance.harness.setting import values_for
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

_QUICK = 1.0
"""Seconds, times the scale, that a check may take which is played under several conditions."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told before and after each check.

    Attributes:
        check: The check's id.
        number: Its number, from 1.
        total: How many there are.
        result: None before it has run.
        under: The conditions, where they are others than the run's.
    """

    check: str
    number: int
    total: int
    result: CheckResult | None = None
    under: str = ""


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
        TargetError: There is nothing to check: no such connector, one that cannot be imported (`BrokenTargetError`,
            with the traceback), nobody at the URL, or no reference application; or conditions for a URL, whose
            server's event loop is its own.
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
        self._conditions = conditions
        self._spec = spec
        self.scale = scale
        self.name = target if isinstance(target, str) else target.__qualname__
        self.is_url = is_url(spec)
        if self.is_url and conditions.chosen.keys() & OF_THE_LOOP:
            raise TargetError(f"{spec} cannot be checked under {conditions}: a running server's event loop is its own")
        self._process: CheckProcess | None = None
        self._target = None
        self.broken: BrokenTargetError | None = None
        """Why no more checks can run, if none can: it cannot start, answers nothing to a handshake, or has died."""
        self._answers = self.is_url  # it has been seen to answer a handshake
        self._last = ""  # the last check in which the target was there
        self.info: TargetInfo
        if isolate and not spec:
            raise ValueError(f"{self.name} cannot be imported by its name, so it cannot be checked in isolation")
        if bool(spec) if isolate is None else isolate:
            self._process = CheckProcess(spec, scale=scale, conditions=conditions)
            self.info = replace(self._process.info(), name=self.name)
        else:
            self._target = replace(resolve(target), conditions=conditions)
            self.info = describe(self._target, self.name, scale=scale)

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

    def run(self, check: Check, *, repeat: int = 1, conditions: Conditions | None = None) -> CheckResult:
        """Run one check, up to its first failure ``repeat`` times if it is stochastic; never raises for a failure.

        A failure while the machine stalled does not count: the check is run once more, and says so. After the first
        whose peers got no answer at all the session looks whether the connector answers any handshake, and after each
        failure whether a running server still does; if not, `broken` says so from then on, and no more checks run.

        Args:
            check: The check.
            repeat: How often.
            conditions: What it is run under, instead of the session's.
        """
        result = self._run(check, repeat, conditions)
        if self.broken is None and result.verdict is Verdict.FAIL:
            if self.is_url:
                self._look_for_server(result)
            elif not self._answers and _is_unanswered(result):
                self._look_for_connector(result)
        if self.broken is None:
            self._last = check.id
        return result

    def _look_for_connector(self, result: CheckResult) -> None:
        first = result if result.check == _FIRST else self._once(_first_check())
        if _is_unanswered(first):
            if any(entry.direction == "sent" for log in first.wire.values() for entry in log):
                what = "answers nothing at all to a handshake, so no more is checked"
            else:
                what = "cannot start" if first.cause in ("error", "promise") else "does not get as far as a handshake"
            self.broken = BrokenTargetError(f"the connector {what}: {first.message}", first.details)
        self._answers = True

    def _look_for_server(self, result: CheckResult) -> None:
        if why := asyncio.run(gone(self.name, self.scale)):
            when = f"in {result.check}" if _was_answered(result) else f"after {self._last or 'the look at the start'}"
            self.broken = BrokenTargetError(f"the server has died {when}: {why}", result.details)

    def _run(self, check: Check, repeat: int, conditions: Conditions | None) -> CheckResult:
        runs = repeat if check.stochastic else 1
        result = self._once(check, conditions)
        number, seconds, stalled = 1, result.seconds, result.stalled
        while number < runs and result.verdict is not Verdict.FAIL:
            result = self._once(check, conditions)
            number, seconds, stalled = number + 1, seconds + result.seconds, max(stalled, result.stalled)
        if runs == 1:
            return result
        message = f"run {number} of {runs}: {result.message}" if result.verdict is Verdict.FAIL else result.message
        return replace(result, seconds=round(seconds, 4), runs=number, message=message, stalled=stalled)

    def _once(self, check: Check, conditions: Conditions | None = None) -> CheckResult:
        if self.broken is not None:
            return self._not_run(check.id)
        if self._process is not None:
            return fairly(partial(self._process.run, check, conditions=conditions), self.scale)
        assert self._target is not None
        target = self._target if conditions is None else replace(self._target, conditions=conditions)
        return run_check(check, target, scale=self.scale)

    def places(self, results: Iterable[CheckResult], combine: Combine, seed: int) -> list[Place]:
        """Return which checks are to be run under which conditions, beside the session's.

        Args:
            results: What came of the checks as they stand: those that hold are played on.
            combine: ``pairs``: each pair of conditions once in each family of rules, by quick checks. ``all``: each
                pair once for each rule, and each condition once for each check. ``plain``: none.
            seed: Decides which check meets which conditions.
        """
        if combine == "plain":
            return []
        holding = [r for r in results if r.verdict in (Verdict.PASS, Verdict.DEVIATION) and not r.conditions]
        if combine == "pairs":
            holding = [result for result in holding if result.seconds < _QUICK * self.scale]
        possible = values_for(self._target if self._target is not None else resolve(self._spec))
        chosen = self._conditions.chosen
        groups: dict[str, dict[str, Values]] = {}
        for result in holding:
            group = family(result.rule) if combine == "pairs" else result.rule
            open_to = {axis: values for axis, values in result.open_to.items() if axis not in chosen}
            groups.setdefault(group, {})[result.check] = allowed(open_to, possible)
        chance = random.Random(seed)
        places = [place for checks in groups.values() for place in plan(checks, chance)]
        if combine == "all":
            places += [place for checks in groups.values() for place in singles(checks)]
        return [(check, conditions.over(self._conditions)) for check, conditions in places]

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
    conditions: Conditions | str = PLAIN,
    combine: Combine = "plain",
    seed: int | None = None,
    exit_first: bool = False,
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
        conditions: What each check is run under, as ``compress=on,cut=head`` or as a `Conditions`.
        combine: Which combinations of conditions are played besides; see `Session.places`.
        seed: Decides which check meets which of them; None: one by chance, which the result tells.
        exit_first: Whether the first failure that is not known ends the run.

    Raises:
        LoopNotInstalledError: uvloop is not installed.
        TargetError: There is nothing to check: no such connector, one that cannot be imported, nobody at the URL, or no
            reference application.
        ValueError: An unknown rule, a known-failing file that is not one, an unknown loop, or eager tasks before 3.12.
    """
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, not {repeat!r}")
    if model_sequences < 1:
        raise ValueError(f"model_sequences must be at least 1, not {model_sequences!r}")
    known = {} if known_failing is None else load_known_failing(known_failing)
    check_known(known)
    given = Conditions.parse([conditions]) if isinstance(conditions, str) else conditions
    conditions = Conditions.of_the_loop(loop, debug=debug, eager_tasks=eager_tasks).over(given)
    if combine != "plain" and seed is None:
        seed = random.randrange(10_000)
    started, clock = datetime.now(UTC), time.perf_counter()
    with Session(target, scale=scale, isolate=isolate, conditions=conditions) as session:
        checks = select(session.checks(), rules)
        if model and session.is_url:
            raise ValueError("the random model needs a connector: it cannot be played against a URL")
        results: list[CheckResult] = []
        total = len(checks) + model

        def step(id: str, number: int, once: Callable[[], CheckResult], under: str = "") -> None:
            if progress is not None:
                progress(Progress(id, number, total, None, under))
            result = once()
            if session.is_url and session.broken is not None and not _was_answered(result):
                return  # the server was gone before: that is no verdict
            results.append(result)
            if progress is not None:
                progress(Progress(id, number, total, result, under))

        def reason_to_stop() -> str:
            left = total - len(results)
            if session.broken is not None:
                return f"{left} of {total} checks were not run: {session.broken}" if left else str(session.broken)
            if exit_first and left and _has_failed(results[-1], known):
                return f"{left} of {total} checks were not run: the first failure ends the run"
            return ""

        ended = ""
        for number, check in enumerate(checks, 1):
            step(check.id, number, partial(session.run, check, repeat=repeat))
            if ended := reason_to_stop():
                break
        if not ended:
            by_id = {check.id: check for check in checks}
            places = session.places(results, combine, 0 if seed is None else seed)
            total += len(places)
            for number, (id, under) in enumerate(places, len(checks) + 1):
                step(id, number, partial(session.run, by_id[id], conditions=under), str(under))
                if ended := reason_to_stop():
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
            seed=seed if combine != "plain" else None,
            dead=session.broken is not None,
        )


def _has_failed(result: CheckResult, known: KnownFailing) -> bool:
    return result.verdict is Verdict.FAIL and not any(matching(id, result.check) for id in known)


def _is_unanswered(result: CheckResult) -> bool:
    """Tell whether a check failed by itself, not by what was left over, and its peers got not one byte."""
    return result.verdict is Verdict.FAIL and result.cause != "left-over" and not _was_answered(result)


def _was_answered(result: CheckResult) -> bool:
    return any(entry.direction == "received" for log in result.wire.values() for entry in log)


def _first_check() -> Check:
    return next(check for check in applicable(is_url=False) if check.id == _FIRST)


def _problems(info: TargetInfo, results: list[CheckResult], known: KnownFailing, *, is_whole: bool) -> tuple[str, ...]:
    """Return what is wrong beside failing checks."""
    problems: list[str] = []
    applied = [result for result in results if result.verdict is not Verdict.NOT_APPLICABLE]
    for id in known:
        ran = [result for result in applied if matching(id, result.check)]
        # if only some checks of a rule were selected, it may fail in another
        if ran and ("/" in id or is_whole) and all(result.verdict is not Verdict.FAIL for result in ran):
            problems.append(f"{id} is listed as known to fail, but passes: take it off the list")
    if is_whole:
        unseen = (Verdict.FAIL, Verdict.NOT_APPLICABLE)
        failed = {result.rule for result in results if result.verdict in unseen}
        seen = {scenario for result in results for scenario in result.deviations}
        problems += [
            f"the deviation {scenario} is declared, but no check has seen it"
            for scenario in info.deviations
            if scenario not in seen and scenario.partition("/")[0] not in failed
        ]
    return tuple(problems)
