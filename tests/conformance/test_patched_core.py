"""The tests of the library rules are tested too: each fails when the core breaks its rule."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conformance.patches import PATCHES
from tests.test_catalogue import rules_named_by_tests
from wsbridge.conformance.contract.catalogue import rules

pytestmark = pytest.mark.suite

_ARGUMENTS = ["-p", "tests.conformance.patches", "-p", "no:cacheprovider", "-q", "-x"]
_HANGS = 600  # seconds: a run takes some, but a machine may have more to do


@pytest.mark.parametrize("rule", sorted(PATCHES))
def test_a_broken_core_is_caught(rule: str, pytestconfig: pytest.Config) -> None:
    files = sorted(rules_named_by_tests()[rule])  # to collect all of them would take most of the time
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *_ARGUMENTS, *(f"tests/{name}" for name in files)],
        cwd=pytestconfig.rootpath,
        env={**os.environ, "WSBRIDGE_PATCH": rule},
        capture_output=True,
        text=True,
        timeout=_HANGS,
    )
    # 1: tests ran, and some failed; anything else is a patch that broke more than its rule
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-1000:]


def test_every_library_rule_has_a_patch() -> None:
    assert sorted(PATCHES) == sorted(rule.id for rule in rules() if rule.kind == "library")
