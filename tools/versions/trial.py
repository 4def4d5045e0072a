"""Runs the suite on one version of a server, in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.versions.releases import CONNECTORS, requirements

__all__ = ["Outcome", "judged", "try_version"]

_LIMIT = 1200  # seconds for one run of the suite, which takes two to four minutes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suite says of one version of a server.

    Attributes:
        verdict: ``conformant``, ``fails``, or ``cannot be used``.
        python: The Python that it ran on, such as ``3.13``.
        passed: How many checks passed.
        failed: The checks that failed, each with what it said.
        deviations: How many checks deviate as declared, by the words that the connector has for it.
        why: What went wrong, where nothing could be run.
    """

    verdict: str
    python: str
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict[str, str])
    deviations: dict[str, int] = field(default_factory=dict[str, int])
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in ({}, "")}

    def same_as(self, former: Outcome) -> bool:
        """Tell whether both say the same of a version, whatever the failures say, and however many checks there are."""
        has_same_verdict = self.verdict == former.verdict and self.deviations == former.deviations
        return has_same_verdict and self.failed.keys() == former.failed.keys()


def _uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def try_version(root: Path, connector: str, version: str, folder: Path, *, rules: tuple[str, ...] = ()) -> Outcome:
    """Install a version of a connector's server in ``folder``, run the suite, and return what it says.

    Args:
        root: The project.
        connector: The connector's name.
        version: Of its server.
        folder: For the environment, which is made anew.
        rules: Only these.
    """
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.rmtree(folder, ignore_errors=True)
    made = _uv("venv", "--quiet", "--python", sys.executable, folder)
    if made.returncode == 0:
        others = requirements(root, connector)
        others.pop(CONNECTORS[connector])
        wanted = [f"{CONNECTORS[connector]}=={version}", *(f"{name}{which}" for name, which in others.items())]
        made = _uv("pip", "install", "--quiet", "--python", folder, f"{root}[conformance]", *wanted)
    if made.returncode != 0:
        return Outcome("cannot be used", python, why=f"it cannot be installed: {_last(made.stderr)}")
    report = folder / "report.json"
    command = [str(folder / "bin" / "wsbridge"), "conformance", connector, "--conditions", "plain"]
    command += ["--json", str(report), *(word for rule in rules for word in ("--rule", rule))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_LIMIT, cwd=folder, env=environment
        )
    except subprocess.TimeoutExpired:
        return Outcome("cannot be used", python, why=f"the suite was not done after {_LIMIT} s")
    if not report.exists():
        return Outcome("cannot be used", python, why=_last(done.stderr or done.stdout))
    return judged(json.loads(report.read_text(encoding="utf-8")), python)


def judged(report: dict[str, Any], python: str) -> Outcome:
    """Return what a report of ``wsbridge conformance --json`` says."""
    failed = {entry["check"]: _short(entry["message"]) for entry in report["results"] if entry["verdict"] == "fail"}
    failed |= {f"problem {number}": _short(text) for number, text in enumerate(report["problems"], 1)}
    declared = report["target"].get("deviations", {})
    deviations: dict[str, int] = {}
    for entry in report["results"]:
        if entry["verdict"] == "deviation":
            scenarios = entry.get("deviations") or (entry["check"],)
            for why in {declared[scenario]["tried"] for scenario in scenarios if scenario in declared}:
                deviations[why] = deviations.get(why, 0) + 1
    return Outcome(
        "conformant" if report["conformant"] else "fails",
        python,
        passed=report["counts"]["pass"],
        failed=failed,
        deviations=deviations,
    )


def _short(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= 200 else f"{first[:199]}…"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else "it said nothing"
