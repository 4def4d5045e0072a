"""``python -m tests.conformance.refresh``: finds out which broken connector fails which check, into ``caught.json``.

For each breakage the checks of its rule are run; for a check that none of them fails, the others are tried. The table
holds for each check one breakage that it catches, of its own rule where there is one, and for each breakage at least
one check of its rule, so that `test_broken` runs no more than it must.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.conformance.breaking import BROKEN, Breakage
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.harness.conditions import PLAIN, Conditions
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.registry import load_connector

TABLE = Path(__file__).with_name("caught.json")
SCALE = 0.2  # what is broken never comes: there is no use in waiting long for it
GENERAL = ("AnswersNothing", "ReadsLengthsOneShort", "ForgetsOnClose", "OpensTwice", "ReadsLeniently", "MountsBadly")
"""What is tried for a check that no breakage of its rule fails."""

REGISTERED = [
    importlib.import_module(f"tests.conformance.{path.stem}")
    for path in sorted(Path(__file__).parent.glob("broken_*.py"))
]
"""Importing them has filled `BROKEN`."""

CHECKS = {check.id: check for check in all_checks()}
BY_NAME = {breakage.name: breakage for breakage in BROKEN}


def is_caught(breakage: Breakage, check: str, conditions: Conditions = PLAIN) -> bool:
    """Tell whether ``check`` fails for the connector with ``breakage``.

    One that passes with short times gets those of the suite: a flood, say, ends where nothing is taken for a while,
    which on a busy machine may be before anything has grown.
    """
    target = SuiteTarget(breakage.name, breakage.applied_to(load_connector(breakage.base)), conditions=conditions)
    return any(
        run_check(CHECKS[check], target, scale=scale, again=False).verdict is Verdict.FAIL for scale in (SCALE, 1.0)
    )


def _caught(name: str, checks: list[str]) -> tuple[str, list[str]]:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the life of this process)
    return name, [check for check in checks if is_caught(BY_NAME[name], check)]


def matrix(pairs: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Run the pairs of breakage and checks, and return for each breakage the checks that it fails."""
    found: dict[str, list[str]] = {}
    with ProcessPoolExecutor(max_tasks_per_child=1) as pool:
        for name, caught in pool.map(_caught, [pair[0] for pair in pairs], [pair[1] for pair in pairs]):
            print(f"{BY_NAME[name].rule:9} {name}: {len(caught)} caught", flush=True)
            found[name] = caught
    return found


def refresh(names: list[str]) -> int:
    """Write the table; return how many checks and breakages are left without the other.

    Args:
        names: Breakages or rules to look at; the rest of the table stays. None: all.
    """
    old: dict[str, list[str]] = json.loads(TABLE.read_text()) if names and TABLE.exists() else {}
    chosen = [b for b in BROKEN if not names or b.name in names or b.rule in names]
    found = matrix([(b.name, [check for check in CHECKS if CHECKS[check].rule == b.rule]) for b in chosen])
    table = {name: caught for name, caught in old.items() if name in BY_NAME and name not in found}
    taken = {check for caught in table.values() for check in caught}
    for name, caught in found.items():
        new = [check for check in caught if check not in taken]
        table[name] = new or caught[:1]
        taken.update(new)
    for name in GENERAL:
        left = sorted(set(CHECKS) - taken)
        caught = matrix([(name, left)])[name] if left else []
        table[name] = table.get(name, []) + caught
        taken.update(caught)
    kept = {name: sorted({check for check in table[name] if check in CHECKS}) for name in sorted(table)}
    TABLE.write_text(json.dumps(kept, indent=1) + "\n")
    idle = [b.name for b in BROKEN if not any(check.startswith(f"{b.rule}/") for check in kept.get(b.name, ()))]
    left = sorted(set(CHECKS) - taken)
    print(f"checks that catch nothing: {left}\nbreakages that no check of their rule catches: {idle}")
    return len(left) + len(idle)


if __name__ == "__main__":
    raise SystemExit(min(refresh(sys.argv[1:]), 1))
