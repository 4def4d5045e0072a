"""The suite is tested by what it must catch: each broken connector fails the checks of its rule, each check fails one."""

from __future__ import annotations

import os

import pytest

from tests.conformance import broken_channels, broken_connectors, broken_wires
from tests.conformance.breaking import BROKEN, Breakage
from wsbridge.conformance.bench import Target
from wsbridge.conformance.catalogue import rules
from wsbridge.conformance.check import all_checks
from wsbridge.conformance.runner import Verdict, run_check
from wsbridge.registry import load_connector

CHECKS = {check.id: check for check in all_checks()}
SCALE = 0.2  # what is broken never comes: there is no use in waiting long for it
assert broken_channels and broken_connectors and broken_wires  # importing them has registered them


@pytest.fixture(scope="session")
def connector() -> type:
    return load_connector(os.environ.get("WSBRIDGE_BROKEN_CONNECTOR", "aiohttp"))


@pytest.mark.parametrize("breakage", BROKEN, ids=lambda breakage: f"{breakage.rule}-{breakage.name}")
def test_a_broken_connector_is_caught(breakage: Breakage, connector: type) -> None:
    target = Target(breakage.name, breakage.applied_to(connector))
    survived = [
        check for check in breakage.checks if run_check(CHECKS[check], target, scale=SCALE).verdict is not Verdict.FAIL
    ]
    assert survived == []


def test_every_connector_rule_has_a_broken_connector() -> None:
    broken = {breakage.rule for breakage in BROKEN}
    assert [rule.id for rule in rules() if rule.kind == "connector" and rule.id not in broken] == []


def test_every_breakage_names_checks_of_its_rule() -> None:
    unknown = [check for breakage in BROKEN for check in breakage.checks if check not in CHECKS]
    idle = [b.name for b in BROKEN if not any(check.startswith(f"{b.rule}/") for check in b.checks)]
    assert (unknown, idle) == ([], [])


def test_every_check_catches_a_broken_connector() -> None:
    caught = {check for breakage in BROKEN for check in breakage.checks}
    assert sorted(set(CHECKS) - caught) == []
