"""The conformance suite: what every connector must do, checked over the wire.

`run` checks a connector, or a running server in any language, and returns the result; ``wsbridge conformance`` does so
on the command line; ``pytest --pyargs wsbridge.conformance --connector NAME`` and `ConnectorSuite` make pytest tests of
it. It needs what the extra ``conformance`` installs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsbridge.conformance.doors.plugin import ConnectorSuite
    from wsbridge.conformance.harness.known import Known, load_known_failing
    from wsbridge.conformance.harness.session import Progress, Session, run
    from wsbridge.conformance.harness.suite_result import Changes, RuleInfo, SuiteResult, compare, load_results
    from wsbridge.conformance.harness.target import TargetError, TargetInfo
    from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = [
    "Changes",
    "CheckResult",
    "ConnectorSuite",
    "Known",
    "Progress",
    "RuleInfo",
    "Session",
    "SuiteResult",
    "TargetError",
    "TargetInfo",
    "Verdict",
    "compare",
    "load_known_failing",
    "load_results",
    "run",
]

_HOMES = {
    "doors.plugin": ("ConnectorSuite",),
    "harness.known": ("Known", "load_known_failing"),
    "harness.session": ("Progress", "Session", "run"),
    "harness.suite_result": ("Changes", "RuleInfo", "SuiteResult", "compare", "load_results"),
    "harness.target": ("TargetError", "TargetInfo"),
    "harness.verdicts": ("CheckResult", "Verdict"),
}


def __getattr__(name: str) -> Any:
    # late: the catalogue and the reference application are here too, and need none of the extra's packages
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"wsbridge.conformance.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
