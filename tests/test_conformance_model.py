"""The random model finds faults of the kinds that were found by reading, tells them in words, and plays them again."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("hypothesis")  # the extra conformance

from tests.conformance.planted import PLANTED, Planted
from wsbridge.conformance import lateness
from wsbridge.conformance.harness.model import run_model
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict
from wsbridge.registry import load_connector

# what a broken connector leaves behind, on purpose or not, may come up in the test that follows
pytestmark = [
    pytest.mark.suite,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


def played(target: SuiteTarget, sequences: int, seed: int, shrinking: float = 0.0) -> CheckResult:
    with lateness.measured():
        return run_model(target, sequences=sequences, seed=seed, shrinking=shrinking)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.breakage.name)
def test_a_planted_fault_is_found(planted: Planted) -> None:
    breakage = planted.breakage
    target = SuiteTarget(breakage.name, breakage.applied_to(load_connector(breakage.base)))
    result = played(target, planted.sequences, planted.seed)
    assert result.verdict is Verdict.FAIL
    assert re.search(planted.told, result.message), result.details


@pytest.mark.parametrize("name", ["websockets", "tornado", "aiohttp", "memory"])
def test_nothing_is_found_where_nothing_is_broken(name: str) -> None:
    result = played(SuiteTarget(name, load_connector(name)), 60, 1)
    assert (result.verdict, result.details) == (Verdict.PASS, "")
