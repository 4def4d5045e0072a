"""The conformance suite, as `tools.mutants.child` runs it. Nothing else of the tool imports wsbridge."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import wsbridge
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.execution import run_check, watchdog_limit
from wsbridge.conformance.harness.selection import applicable
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.registry import load_connector

__all__ = ["Suite"]


class Suite:
    """The checks of one connector.

    Args:
        target: Its name.
    """

    source = Path(wsbridge.__file__).parent
    """The package that has the mutant in it."""

    omitted = ("conformance", "cli", "demo")
    """Folders of it whose lines are not recorded."""

    def __init__(self, target: str) -> None:
        self._target = SuiteTarget(target, load_connector(target))
        self._checks: dict[str, Check] = {check.id: check for check in applicable(is_url=False)}

    def checks(self) -> dict[str, tuple[str, bool, str]]:
        """Return for each check what its code is recognised by, whether it is stochastic, and its text."""
        hashes: dict[str, str] = {}
        for check in self._checks.values():
            file = inspect.getsourcefile(check.run) or ""
            if file not in hashes:
                hashes[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]
        return {
            id: (
                hashes[inspect.getsourcefile(check.run) or ""],
                check.stochastic,
                f"{id} {check.title} {inspect.getsource(check.run)}",
            )
            for id, check in self._checks.items()
        }

    def limit(self, id: str, scale: float) -> float:
        """Return the seconds after which the suite itself ends a check, which may run twice."""
        return 2 * watchdog_limit(self._checks[id], scale)

    def run(self, id: str, scale: float) -> tuple[str, str]:
        """Run a check; return its verdict, ``fail`` for a failure, and its message."""
        result = run_check(self._checks[id], self._target, scale=scale)
        return result.verdict.value, result.message
