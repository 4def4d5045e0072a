"""What a run of the suite found, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from wsbridge.conformance.harness.conditions import PLAIN, Conditions
from wsbridge.conformance.harness.known import Known, KnownFailing
from wsbridge.conformance.harness.target import TargetInfo
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = ["SCHEMA", "Changes", "RuleInfo", "SuiteResult", "compare", "load_results"]

SCHEMA = 1
"""The version of the JSON form; it rises when a reader of an older one could be misled."""


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """What a report says of a rule.

    Attributes:
        id: ``GROUP-N``.
        kind: ``connector`` or ``library``; those of the library are tested in wsbridge itself.
        level: ``core``, ``feature`` or ``rfc``.
        section: Of an RFC, or ``contract``.
        sentence: The rule in one sentence.
        checked: Whether the suite has a check of it for this kind of target.
        stochastic: Whether one pass proves less than several.
    """

    id: str
    kind: str
    level: str
    section: str
    sentence: str
    checked: bool
    stochastic: bool = False


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What came of checking one target.

    Attributes:
        target: What was checked, and in what environment.
        results: One for each check, in the order of the catalogue.
        rules: Every rule of the contract; none in a committed report.
        titles: What each check promises, by its id; none in a committed report.
        known: What is known to fail.
        problems: What is wrong beside failing checks: a known failure that passes, a deviation that nothing has seen.
        started: When, in ISO 8601; "" in a committed report.
        seconds: How long it took; 0 in a committed report.
        scale: What every time limit was stretched by.
        repeat: How often the stochastic checks ran.
        conditions: What each check was run under, but for those that say what they were.
        seed: What decided which checks met which conditions; None: each ran under the same.
        conditions: What held for the event loop of each check.
        dead: Whether the target was found dead, so that the run ended; `problems` says why and after which check.
    """

    target: TargetInfo
    results: tuple[CheckResult, ...]
    rules: tuple[RuleInfo, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict[str, str])
    known: KnownFailing = field(default_factory=dict[str, Known])
    problems: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0
    scale: float = 1.0
    repeat: int = 1
    conditions: Conditions = PLAIN
    seed: int | None = None
    dead: bool = False

    @property
    def conformant(self) -> bool:
        """Whether every check passed, deviated as declared, was refused as it must, or is known to fail.

        Those that are not applicable prove nothing: with them alone, nothing has been shown to conform.
        """
        was_checked = any(result.verdict is not Verdict.NOT_APPLICABLE for result in self.results)
        return was_checked and not self.failures and not self.problems

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed and are not known to."""
        return tuple(r for r in self.results if r.verdict is Verdict.FAIL and self.known_as(r.check) is None)

    @property
    def known_failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed and are known to."""
        return tuple(r for r in self.results if r.verdict is Verdict.FAIL and self.known_as(r.check) is not None)

    @property
    def counts(self) -> dict[str, int]:
        """How many checks there are of each verdict; ``known`` are those of ``fail`` that are known."""
        counts = {verdict.value: 0 for verdict in Verdict}
        for result in self.results:
            counts[result.verdict.value] += 1
        return counts | {"known": len(self.known_failures)}

    @property
    def not_checked(self) -> tuple[RuleInfo, ...]:
        """The rules for connectors that no check was about, such as what cannot be seen from outside."""
        return tuple(rule for rule in self.rules if rule.kind == "connector" and not rule.checked)

    @property
    def library_rules(self) -> tuple[RuleInfo, ...]:
        """The rules about wsbridge itself, which its own tests hold it to."""
        return tuple(rule for rule in self.rules if rule.kind == "library")

    def known_as(self, check: str) -> Known | None:
        """Return the entry of the known-failing file that a failure of ``check`` is known by."""
        return self.known.get(check) or self.known.get(check.partition("/")[0])

    def of_rule(self, rule: str) -> tuple[CheckResult, ...]:
        """Return the results of the checks of ``rule``."""
        return tuple(result for result in self.results if result.rule == rule)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, in the form that ``report.schema.json`` describes."""
        return {
            "schema": SCHEMA,
            "conformant": self.conformant,
            "counts": self.counts,
            "target": self.target.to_json(),
            "started": self.started,
            "seconds": self.seconds,
            "scale": self.scale,
            "repeat": self.repeat,
            "conditions": self.conditions.chosen,
            **({} if self.seed is None else {"seed": self.seed}),
            "dead": self.dead,
            "problems": list(self.problems),
            "known": {id: {"reason": known.reason, "link": known.link} for id, known in self.known.items()},
            "results": [self._result_json(result) for result in self.results],
            "rules": [asdict(rule) for rule in self.rules],
        }

    def _result_json(self, result: CheckResult) -> dict[str, Any]:
        data = result.to_json()
        data.pop("open_to", None)  # which is for the plan of a run alone
        if title := self.titles.get(result.check):
            data["title"] = title
            if result.hint:  # for readers alone, as the title is, and so left out of a committed report
                data["hint"] = result.hint
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_json` was made from.

        Raises:
            ValueError: It is not a report, or one of another version.
        """
        if not isinstance(data, Mapping) or "schema" not in data:
            raise ValueError("this is no report of the conformance suite")
        if data["schema"] != SCHEMA:
            raise ValueError(f"this report has schema {data['schema']!r}; this version of wsbridge reads {SCHEMA}")
        try:
            return cls(
                target=TargetInfo(**data["target"]),
                results=tuple(
                    CheckResult.from_json({k: value for k, value in result.items() if k not in ("title", "hint")})
                    for result in data["results"]
                ),
                rules=tuple(RuleInfo(**rule) for rule in data["rules"]),
                titles={result["check"]: result["title"] for result in data["results"] if result.get("title")},
                known={id: Known(id, **entry) for id, entry in data["known"].items()},
                problems=tuple(data["problems"]),
                started=data["started"],
                seconds=data["seconds"],
                scale=data["scale"],
                repeat=data["repeat"],
                conditions=_conditions(data.get("conditions", {})),
                seed=data.get("seed"),
                dead=data.get("dead", False),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise ValueError(f"this report is damaged: {exc!r}") from exc

    def stable(self) -> Self:
        """Return it without what differs from run to run, such as times and logs, and what the catalogue tells."""
        python = ".".join(self.target.python.split(".")[:2])
        results = tuple(
            replace(
                result,
                seconds=0.0,
                details="",
                wire={},
                callbacks=[],
                logs=[],
                output="",
                stalled=0.0,
                expected="",
                actual="",
                difference="",
                connection="",
                open_to={},
            )
            for result in self.results
            if self.seed is None or not result.conditions
        )
        return replace(
            self,
            target=replace(self.target, python=python, platform=""),
            results=results,
            rules=(),
            titles={},
            started="",
            seconds=0.0,
        )


def load_results(path: str | Path) -> list[SuiteResult]:
    """Read a JSON report, of one target or of several.

    Raises:
        ValueError: It is not a report, or one of another version.
        OSError: The file cannot be read.
    """
    try:
        data: list[Any] | dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return [SuiteResult.from_json(entry) for entry in (data if isinstance(data, list) else [data])]
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from exc


def dump_results(results: Sequence[SuiteResult]) -> str:
    """Return reports as JSON: an object for one, a list for several."""
    data: Any = [result.to_json() for result in results]
    return json.dumps(data[0] if len(data) == 1 else data, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from a former report, by ids of checks.

    Attributes:
        failing: Fail now, and did not.
        passing: Failed, and do not now.
        changed: With another verdict, but neither newly failing nor newly passing: ``(check, former, now)``.
        new: Were not there.
        gone: Are not there now.
    """

    failing: tuple[str, ...]
    passing: tuple[str, ...]
    changed: tuple[tuple[str, str, str], ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return any((self.failing, self.passing, self.changed, self.new, self.gone))


def compare(former: SuiteResult, now: SuiteResult) -> Changes:
    """Return what differs between two reports of a target; what a seed has chosen is left out."""
    before = {result.check: result.verdict for result in former.results if former.seed is None or not result.conditions}
    after = {result.check: result.verdict for result in now.results if now.seed is None or not result.conditions}
    both = [check for check in after if check in before and after[check] is not before[check]]
    passing = [check for check in both if before[check] is Verdict.FAIL and after[check] is not Verdict.NOT_APPLICABLE]
    return Changes(
        failing=tuple(check for check in both if after[check] is Verdict.FAIL),
        passing=tuple(passing),
        changed=tuple(
            (check, before[check].value, after[check].value)
            for check in both
            if after[check] is not Verdict.FAIL and check not in passing
        ),
        new=tuple(check for check in after if check not in before),
        gone=tuple(check for check in before if check not in after),
    )


def _conditions(data: Mapping[str, Any]) -> Conditions:
    """Return the conditions of a report; those of 0.1 were of the event loop, two of them true or false."""
    if "eager_tasks" in data:
        return Conditions.of_the_loop(data["loop"], debug=data["debug"], eager_tasks=data["eager_tasks"])
    return Conditions(**data)
