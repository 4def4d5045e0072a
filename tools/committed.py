"""The form of the reports in ``docs/reports``: a line for each result that is more than a pass.

``checks.json`` has the ids of all checks, a line for each rule, such as ``["HS-1", "accept-key", ...]``. ``NAME.json``
is the report of one target: its results that are not a plain pass, the checks that were not run on it, and how many
others passed. A check that is put into the list without being run is noticed by that number.

A report has nothing that differs from run to run. ``wsbridge conformance --json`` writes another form, with everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tools.lines import as_lines
from wsbridge.conformance.harness.selection import MODEL_CHECK
from wsbridge.conformance.harness.session import Session
from wsbridge.conformance.harness.suite_result import SuiteResult
from wsbridge.conformance.harness.target import TargetInfo
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = ["CHECKS", "load", "save"]

CHECKS = "checks.json"

_DEFAULTS = SuiteResult(TargetInfo("", ""), ()).to_json()
"""What a report has if it does not say otherwise."""


def load(folder: Path) -> dict[str, SuiteResult]:
    """Return the reports in a folder by the names of their files, without ``.json``; an empty dict without any.

    Raises:
        ValueError: One is damaged, or does not belong to the list of checks.
        OSError: A file cannot be read.
    """
    paths = sorted(path for path in folder.glob("*.json") if path.name != CHECKS)
    if not paths:
        return {}
    path = folder / CHECKS
    try:
        checks = _ids(json.loads(path.read_text(encoding="utf-8")))
        reports: dict[str, SuiteResult] = {}
        for path in paths:
            reports[path.stem] = _result(json.loads(path.read_text(encoding="utf-8")), checks)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"{path} is damaged: {exc!r}") from exc
    return reports


def save(folder: Path, reports: Mapping[str, SuiteResult]) -> None:
    """Write all reports of a folder, by the names of their files, and the list of their checks.

    Raises:
        ValueError: A report has two results of one check.
    """
    checks = _in_order(result.check for report in reports.values() for result in report.results)
    texts = {f"{name}.json": as_lines(_data(report.stable(), checks), 2) for name, report in reports.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {CHECKS: as_lines(_rows(checks)), **texts}.items():
        (folder / name).write_text(text, encoding="utf-8")


def _in_order(ids: Iterable[str]) -> list[str]:
    """Return ids, each once, in the order in which the suite runs them; those that it does not know are last."""
    order = {check.id: number for number, check in enumerate(Session.applicable(is_url=False))}
    order[MODEL_CHECK] = len(order)
    return sorted(dict.fromkeys(ids), key=lambda id: order.get(id, len(order)))


def _rule(id: str) -> str:
    return id.partition("/")[0]


def _rows(ids: Iterable[str]) -> list[list[str]]:
    """Return ids as rows: a rule and the scenarios of its checks."""
    return [[rule, *(id.partition("/")[2] for id in group)] for rule, group in groupby(ids, _rule)]


def _ids(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"{rule}/{scenario}" for rule, *scenarios in rows for scenario in scenarios]


def _data(report: SuiteResult, checks: Sequence[str]) -> dict[str, Any]:
    """Return what is written of a report."""
    results = {result.check: result for result in report.results}
    if len(results) < len(report.results):
        raise ValueError(f"{report.target.name}: there are two results of one check")
    data = {name: value for name, value in report.to_json().items() if value != _DEFAULTS[name]}
    target = {name: value for name, value in data["target"].items() if value}
    told = [_entry(result) for result in results.values() if result != _passed(result.check)]
    parts: dict[str, Any] = {
        "target": target,
        "deviations": target.pop("deviations", {}),
        **{name: data[name] for name in ("scale", "repeat", "conditions", "problems", "known") if name in data},
        "passed": len(results) - len(told),
        "not run": _rows(id for id in checks if id not in results),
        "results": told,
    }
    return {name: value for name, value in parts.items() if value not in ({}, [])}


def _result(data: Mapping[str, Any], checks: Sequence[str]) -> SuiteResult:
    """Return the report that was written.

    Raises:
        ValueError: It does not belong to these checks.
    """
    parts = {**data}
    left_out = set(_ids(parts.pop("not run", ())))
    told = {entry["check"]: entry for entry in parts.pop("results", ())}
    run = [id for id in checks if id not in left_out]
    passed = parts.pop("passed")
    if not told.keys() <= set(run) or len(run) - len(told) != passed:
        raise ValueError(f"{passed} passed, but {CHECKS} has others; remove the report and check its target anew")
    target = {**_DEFAULTS["target"], **parts.pop("target"), "deviations": parts.pop("deviations", {})}
    results = [{"check": id, "rule": _rule(id), "verdict": "pass", **told.get(id, {})} for id in run]
    return SuiteResult.from_json({**_DEFAULTS, **parts, "target": target, "results": results})


def _passed(id: str) -> CheckResult:
    """Return a plain pass."""
    return CheckResult(id, _rule(id), Verdict.PASS)


def _entry(result: CheckResult) -> dict[str, Any]:
    data = result.to_json()
    return {name: value for name, value in data.items() if name != "rule" or value != _rule(result.check)}
