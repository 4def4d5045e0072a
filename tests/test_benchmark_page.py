"""The page of the benchmark: what is not met is named with its reason, and what is met is not."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart
from benchmarks.page import charts, page, read, targets
from benchmarks.plan import Finding, Report
from benchmarks.report import figures
from benchmarks.stats import Ratio, Verdict
from benchmarks.why import NOISY, NOT_DECIDED, UNKNOWN, reason

COMMITTED = Path(__file__).parents[1] / "docs" / "performance"


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


def test_a_bar_has_its_name_and_its_figure() -> None:
    rows = [("native-x", 25.0), ("wsbridge-x", 12.34), ("other", 0.5)]
    svg = ElementTree.fromstring(chart.bars("a < b", "KiB", rows))
    texts = [element.text for element in svg.findall("{*}text")]
    names_and_figures = ["native-x", "25", "wsbridge-x", "12.3", "other", "0.5"]
    assert texts == ["a < b", *names_and_figures, "0", "5", "10", "15", "20", "25", "KiB"]
    widths = [float(element.get("width", "")) for element in svg.findall("{*}rect") if element.get("x")]
    assert widths == pytest.approx([widths[0], widths[0] * 12.34 / 25, widths[0] * 0.5 / 25], abs=0.1)


def test_a_line_has_its_name_and_its_points() -> None:
    series = {"native-x": [(10.0, 30.0), (1000.0, 60.0)], "wsbridge-x": [(10.0, 15.0), (1000.0, 30.0)]}
    svg = ElementTree.fromstring(chart.lines("title", ("across", "up"), series))
    texts = [element.text for element in svg.findall("{*}text")]
    axes = ["10", "100", "1,000", "0", "10", "20", "30", "40", "50", "60", "across", "up"]
    assert texts == ["title", "native-x", "wsbridge-x", *axes]
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in svg.findall("{*}circle")]
    assert dots[0][0] == dots[2][0] < dots[1][0] == dots[3][0]
    assert dots[0][1] == dots[3][1]
    zero = next(float(text.get("y", "")) for text in svg.findall("{*}text") if text.text == "0") - 4
    assert zero - dots[1][1] == pytest.approx(2 * (zero - dots[0][1]), abs=0.2)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0.7, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (25, [0, 5, 10, 15, 20, 25]),
        (69.9, [0, 10, 20, 30, 40, 50, 60]),
        (70, [0, 20, 40, 60]),
        (121, [0, 20, 40, 60, 80, 100, 120]),
    ],
)
def test_an_axis_names_round_numbers(most: float, expected: list[float]) -> None:
    assert chart.ticks(most) == pytest.approx(expected)


def test_the_committed_page_and_charts_are_made_of_the_committed_figures(tmp_path: Path) -> None:
    hint = "run: python -m benchmarks.page docs/performance/results.json"
    report, whole = read(COMMITTED / "results.json")
    assert figures(whole) == (COMMITTED / "results.json").read_text()
    drawn = charts(report, tmp_path)
    assert page(report, whole, drawn) == (COMMITTED / "results.md").read_text(), hint
    assert {path.name for path in COMMITTED.glob("*.svg")} == {*drawn}
    for name in drawn:
        assert (tmp_path / name).read_text() == (COMMITTED / name).read_text(), hint
