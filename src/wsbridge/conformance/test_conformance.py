"""What ``pytest --pyargs wsbridge.conformance --connector NAME`` runs: each check as a test."""

from __future__ import annotations

import pytest

from wsbridge.conformance.doors.plugin import Case, option, parametrize


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each check for each ``--connector``."""
    if not (targets := option(metafunc.config, "connector", list[str]())):
        raise pytest.Collector.CollectError("say what to check: --connector NAME, module:Class or ws://host:port")
    parametrize(metafunc, targets, start=True)


def test_rule(conformance_case: Case, request: pytest.FixtureRequest) -> None:
    """One check."""
    conformance_case.verify(request)
