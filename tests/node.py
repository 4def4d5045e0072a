"""Programs in Node: where they are, and how their packages are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def missing(reason: str) -> None:
    """Fail where everything must be there, skip elsewhere, and say why."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def installed(project: Path, folder: Path) -> tuple[str, Path]:
    """Copy a project in Node into ``folder`` and install what its lock file names; return ``node`` and the copy."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        missing(f"{project.name} needs node and npm, which are not there")
    assert npm is not None
    assert node is not None
    copy = folder / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("node_modules"))
    try:
        command = [npm, "ci", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        missing("npm ci did not end within 120 s: is the npm registry within reach?")
        raise
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[:3]
        missing(f"npm ci failed, is the npm registry within reach? {' '.join(last)}")
    return node, copy
