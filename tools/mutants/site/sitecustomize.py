"""Records the lines that run in a process which a check has started: Python imports this at its start.

It stands on ``PYTHONPATH`` while lines are recorded (`tools.mutants.child`). What runs is written at once, since such
a process may be killed: a line with file and number into a file of the process's own in ``WSBRIDGE_MUTANTS_LINES``.
"""

from __future__ import annotations

import os
import sys
from types import CodeType
from typing import Any

_folder = os.environ.get("WSBRIDGE_MUTANTS_LINES")
_package = os.environ.get("WSBRIDGE_MUTANTS_PACKAGE", "")
_monitoring: Any = getattr(sys, "monitoring", None)


def _note(code: CodeType, line: int) -> Any:
    if code.co_filename.startswith(_package):
        with open(f"{_folder}/{os.getpid()}", "a", encoding="utf-8") as file:
            file.write(f"{code.co_filename}\t{line}\n")
    return _monitoring.DISABLE


if _folder and _monitoring is not None:
    _monitoring.use_tool_id(_monitoring.COVERAGE_ID, "wsbridge-mutants")
    _monitoring.register_callback(_monitoring.COVERAGE_ID, _monitoring.events.LINE, _note)
    _monitoring.set_events(_monitoring.COVERAGE_ID, _monitoring.events.LINE)
