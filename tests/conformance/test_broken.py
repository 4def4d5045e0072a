"""The suite is tested by what it must catch: each broken connector fails a check, each check fails for one of them."""

from __future__ import annotations

import json
import sys

import pytest

from tests.conformance.breaking import BROKEN
from tests.conformance.refresh import BY_NAME, CHECKS, TABLE, is_caught
from wsbridge.conformance.contract.catalogue import rules

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
