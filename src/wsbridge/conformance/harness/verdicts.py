"""What came of one check."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from wsbridge.conformance.client import LogEntry
from wsbridge.conformance.contract.hints import hint

__all__ = ["Cause", "CheckResult", "Verdict"]

Cause = Literal["", "promise", "error", "left-over", "hang", "death"]
"""Why a check failed: a promise was broken, something was raised or left behind, it hung, or its process died."""


_ERRORS_OF_THE_WIRE = ("Closed", "HandshakeRefused", "Unexpected", "WireTimeout", "WireViolation")


class Verdict(enum.StrEnum):
    """What came of a check. There is no skip."""

    PASS = "pass"
    FAIL = "fail"
    DEVIATION = "deviation"
    """The rule does not hold, the connector says so, and what it says was observed."""
    UNSUPPORTED = "unsupported"
    """The connector lacks the feature, and refused the option for it as it must."""
    NOT_APPLICABLE = "not-applicable"
    """It was not run: under the conditions of the run it would be about something else. Never counted as a pass."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's verdict and, for a failure, what is known of it.

    Attributes:
        check: The check's id.
        rule: Its rule.
        verdict: See `Verdict`.
        seconds: How long it took, all its runs together.
        message: What failed, what deviates, or which feature is refused.
        details: For a failure: the traceback.
        wire: For a failure: the log of each connection, by name.
        callbacks: For a failure: the log of callbacks.
        logs: For a failure: what was logged on ``wsbridge``.
        cause: For a failure: its kind; "" otherwise.
        deviations: What deviates, by scenario, with what was observed as declared.
        output: For a failure in a worker: the last that its process wrote.
        runs: How often it was run; the last run is the one that is told of.
        conditions: What it was run under, as ``--condition`` takes it; "": as it stands.
        open_to: The conditions that it can be put under beside those that it stands under: values, by their axes.
        stalled: The seconds that the machine took from a run before, which failed and does not count; 0: there is none.
        expected: For a failure of a comparison: what was expected, as it is shown.
        actual: What came instead.
        difference: Where the two differ, if they are too long to see it.
        connection: Which of `wire` the failure is about: the one that it was found on, or the last that was used.
    """

    check: str
    rule: str
    verdict: Verdict
    seconds: float = 0.0
    message: str = ""
    details: str = ""
    wire: dict[str, list[LogEntry]] = field(default_factory=dict[str, list[LogEntry]])
    callbacks: list[str] = field(default_factory=list[str])
    logs: list[str] = field(default_factory=list[str])
    cause: Cause = ""
    deviations: dict[str, str] = field(default_factory=dict[str, str])
    output: str = ""
    runs: int = 1
    expected: str = ""
    actual: str = ""
    difference: str = ""
    connection: str = ""
    conditions: str = ""
    open_to: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    stalled: float = 0.0

    @property
    def label(self) -> str:
        """The check's id, with the conditions, if any."""
        return f"{self.check} [{self.conditions}]" if self.conditions else self.check

    @property
    def hint(self) -> str:
        """What usually causes such a failure; "" where experience tells nothing, or nothing has failed.

        An exception that is none of the wire's, such as one of ``start()``, says by itself what it is.
        """
        is_told = self.cause == "error" and self.message.partition(":")[0] not in _ERRORS_OF_THE_WIRE
        return "" if self.verdict is not Verdict.FAIL or is_told else hint(self.check, self.cause, self.message)

    @property
    def arguments(self) -> str:
        """What runs just this: arguments of ``wsbridge conformance TARGET``."""
        return f"--rule {self.check}" + (f" --condition {self.conditions}" if self.conditions else "")

    @property
    def remark(self) -> str:
        """Why it was run again; "" if it was not."""
        return f"run again: the machine stalled for {self.stalled:.1f} s" if self.stalled else ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; what is empty is left out."""
        plain = {name: value for name, value in asdict(self).items() if value}
        for entry in (entry for log in plain.get("wire", {}).values() for entry in log):
            if not entry["data"]:
                del entry["data"]
        return plain if self.runs > 1 else {name: value for name, value in plain.items() if name != "runs"}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return what `to_json` was made from."""
        fields = dict(data)
        fields["verdict"] = Verdict(data["verdict"])
        fields["wire"] = {name: [LogEntry(**entry) for entry in log] for name, log in data.get("wire", {}).items()}
        return cls(**fields)
