"""What all tests share: at the end of a run it is told what was run again because the machine stalled.

And where ``-m`` leaves out a module as a whole it is not imported: each process of pytest-xdist collects for itself.
"""

from __future__ import annotations

import re
from pathlib import Path
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


_OF_THE_MODULE = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.(\w+)", re.MULTILINE)
_NAMES = re.compile(r"\w+(?: or \w+)*")
_NOT_NAMES = re.compile(r"not \((\w+(?: or \w+)*)\)")


def is_left_out(text: str, expression: str) -> bool:
    """Tell whether no test of a module can be meant by ``-m``; False where that does not show from the text alone.

    Args:
        text: The module's source.
        expression: What stands after ``-m``: understood are ``a or b`` and ``not (a or b)``.
    """
    if _NAMES.fullmatch(expression):
        return not any(f"mark.{name}" in text for name in expression.split(" or "))
    if wanted := _NOT_NAMES.fullmatch(expression):
        return not set(_OF_THE_MODULE.findall(text)).isdisjoint(wanted[1].split(" or "))
    return False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a module that has none of the tests that are meant."""
    expression: str = config.getoption("markexpr")
    if not expression or not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    return True if is_left_out(collection_path.read_text(encoding="utf-8"), expression) else None
