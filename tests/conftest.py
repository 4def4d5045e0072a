"""What all tests share: at the end of a run it is told what was run again because the machine stalled."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the tests that recorded the property "run again"."""
    reports: list[pytest.TestReport] = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    told = [
        f"{report.nodeid}  {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "run again"
    ]
    if told:
        terminalreporter.section("run again")
        for line in told:
            terminalreporter.write_line(line)
