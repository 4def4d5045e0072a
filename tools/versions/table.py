"""The committed table ``docs/versions.json``, what differs from it, and the page that is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tools.lines import as_lines
from tools.versions.releases import CONNECTORS, order, range_of
from tools.versions.trial import Outcome
from wsbridge.conformance.contract.definition import markdown_table

__all__ = ["Table", "differences", "load", "page", "save"]

DATA, PAGE = Path("docs", "versions.json"), Path("docs", "versions.md")

Table = dict[str, dict[str, Outcome]]
"""By the name of the connector and the version of its server."""


def load(root: Path) -> Table:
    """Return the committed table; an empty one without any."""
    try:
        data = json.loads((root / DATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: {text: Outcome(**entry) for text, entry in versions.items()} for name, versions in data.items()}


def save(root: Path, table: Table) -> None:
    """Write the table, its versions in order, and the page."""
    data = {
        name: {text: table[name][text].to_json() for text in sorted(table[name], key=order)}
        for name in CONNECTORS
        if name in table
    }
    (root / DATA).write_text(as_lines(data, 2), encoding="utf-8")
    (root / PAGE).write_text(page(root, load(root)), encoding="utf-8")


def differences(former: Table, found: Table) -> list[str]:
    """Return what is other than in the former table, a line each; what that lacks is no difference."""
    lines: list[str] = []
    for name, versions in found.items():
        for text, outcome in versions.items():
            was = former.get(name, {}).get(text)
            if was is None or was.same_as(outcome):
                continue
            lines.append(f"{name} {text}: was {_verdict(was)}, is {_verdict(outcome)}")
            lines += [f"  {check}: {said}" for check, said in outcome.failed.items() if check not in was.failed]
            lines += [f"  {check}: fails no longer" for check in was.failed if check not in outcome.failed]
    return lines


_ABOVE = """
# Versions of the servers

What the conformance suite says of each connector on the versions of its server that users have: the first and the last
patch of each minor release within the range that the extra takes, as `tox run -e versions` finds them. This page is
made of `versions.json` by `python -m tools.versions --write-docs`.

A *deviation* is something that a version cannot do, and that the connector declares for it (CLOSE-8 of
[the contract](spec.md)); [what each connector supports](support.md) tells of those of the newest versions. A version
that is not listed was not tried. One outside the range is refused with the versions that will do.
""".lstrip()


def page(root: Path, table: Table) -> str:
    """Return the page of a table."""
    parts = [_ABOVE]
    for name, versions in table.items():
        parts += [f"## {name}", "", f"Range: `{CONNECTORS[name]}{range_of(root, name)}`", ""]
        reasons = list(dict.fromkeys(why for outcome in versions.values() for why in outcome.deviations))
        rows = [
            [text, outcome.python, outcome.verdict, str(outcome.passed), _deviations(outcome, reasons)]
            for text, outcome in versions.items()
        ]
        parts += [markdown_table(["version", "on Python", "verdict", "checks that passed", "deviations"], rows), ""]
        parts += [f"{number}. {why}" for number, why in enumerate(reasons, 1)]
        parts += [""] if reasons else []
        for text, outcome in versions.items():
            said = [outcome.why] if outcome.why else [f"`{check}`: {why}" for check, why in outcome.failed.items()]
            parts += [f"- {text}: {line}" for line in said]
        parts += [""] if any(outcome.why or outcome.failed for outcome in versions.values()) else []
    return "\n".join(parts).rstrip() + "\n"


def _deviations(outcome: Outcome, reasons: list[str]) -> str:
    """Return how many checks deviate, and for which of the reasons."""
    if not outcome.deviations:
        return "none"
    numbers = ", ".join(f"({reasons.index(why) + 1})" for why in outcome.deviations)
    return f"{sum(outcome.deviations.values())}: {numbers}"


def _verdict(outcome: Outcome) -> str:
    counts: Mapping[str, int] = {"failed": len(outcome.failed), "declared": sum(outcome.deviations.values())}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{outcome.verdict} ({told})" if told else outcome.verdict
