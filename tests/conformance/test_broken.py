"""The suite is tested by what it must catch: each broken connector fails a check, each check fails for one of them."""

from __future__ import annotations

import json
import sys

import pytest

from tests.conformance.breaking import BROKEN
from tests.conformance.refresh import BY_NAME, CHECKS, TABLE, is_caught
from wsbridge.conformance.contract.catalogue import rules
from wsbridge.conformance.harness.conditions import HandClock

# what a broken connector leaves behind, on purpose or not, may come up in the test that follows
pytestmark = [
    pytest.mark.suite,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

CAUGHT: dict[str, list[str]] = json.loads(TABLE.read_text())


NEEDS_EAGER_TASKS = {"ReadsAheadAtOnce"}
"""Broken only where a task starts at once, which no loop's tasks do before Python 3.12."""


@pytest.mark.parametrize("name", sorted(CAUGHT))
def test_a_broken_connector_is_caught(name: str) -> None:
    if name in NEEDS_EAGER_TASKS and sys.version_info < (3, 12):
        pytest.skip("broken only where a task starts at once, which Python 3.12 is the first to have")
    assert [check for check in CAUGHT[name] if not is_caught(BY_NAME[name], check)] == []


TIMED = {"LIM-2", "LIM-3", "LIM-4", "CLOSE-5", "HS-10", "STOP-2"}
"""Rules about times."""


@pytest.mark.parametrize("name", [name for name in sorted(CAUGHT) if BY_NAME[name].rule in TIMED])
def test_it_is_caught_by_a_clock_that_is_put_forward_too(name: str) -> None:
    checks = [check for check in CAUGHT[name] if check.partition("/")[0] in TIMED]
    assert [check for check in checks if not is_caught(BY_NAME[name], check, HandClock())] == []


def test_no_two_breakages_share_a_name() -> None:
    assert len(BY_NAME) == len(BROKEN)


def test_every_connector_rule_has_a_broken_connector() -> None:
    broken = {breakage.rule for breakage in BROKEN}
    assert [rule.id for rule in rules() if rule.kind == "connector" and rule.id not in broken] == []


def test_every_breakage_is_caught_by_a_check_of_its_rule() -> None:
    missed = [b.name for b in BROKEN if not any(c.startswith(f"{b.rule}/") for c in CAUGHT.get(b.name, ()))]
    assert missed == []


def test_every_check_catches_a_broken_connector() -> None:
    caught = {check for checks in CAUGHT.values() for check in checks}
    assert (sorted(set(CHECKS) - caught), sorted(caught - set(CHECKS))) == ([], [])
