"""The page of the benchmark: what is not met is named with its reason, and what is met is not."""

from __future__ import annotations

import pytest

from benchmarks.page import page, targets
from benchmarks.plan import Finding, Report
from benchmarks.stats import Ratio, Verdict
from benchmarks.why import NOISY, NOT_DECIDED, UNKNOWN, reason


def _finding(
    workload: str, verdict: Verdict | None, *, subject: str = "wsbridge-picows", ratio: Ratio | None = None
) -> Finding:
    return Finding(workload, subject, "us", 2.0, "native-picows", 1.0, ratio, "at most 1.50", verdict)


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (_finding("something new", "not met"), UNKNOWN),
        (_finding("something new", "not decided"), NOT_DECIDED),
        (_finding("something new", None, ratio=Ratio(1.0, 0.9, 1.1, 5)), NOISY),
    ],
)
def test_a_target_without_a_known_reason(finding: Finding, expected: str) -> None:
    assert reason(finding) == expected


def test_only_what_is_not_met_is_explained() -> None:
    known = _finding("echo 64 KiB binary", "not met")
    met = _finding("memory of an idle channel", "met")
    untold = Finding("latency", "wsbridge-picows", "us", 1.0)
    text = targets(Report(findings=[known, met, untold]))
    table, _, reasons = text.partition("### Not reached, and why")
    assert "| memory of an idle channel |" in table
    assert "latency" not in text
    assert (
        reasons.strip() == f"- **wsbridge-picows** against native-picows, echo 64 KiB binary: not met. {reason(known)}"
    )
    assert targets(Report(findings=[met])).endswith("All of them are met.")


def test_the_page_has_its_parts() -> None:
    whole = {"command": "tox run -e bench", "machine": {"cpu": "one", "picows": "2"}, "settings": {"pings": "off"}}
    text = page(Report(findings=[_finding("echo 64 B text", "met")]), whole, {"echo.svg": "Echo"})
    for part in (
        "`tox run -e bench`",
        "![Echo](echo.svg)",
        "| cpu | one |",
        "| picows | 2 |",
        "| pings | off |",
        "README.md",
    ):
        assert part in text
