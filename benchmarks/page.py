"""Make the committed page of the JSON of a run: tables, and charts as SVG.

Example:
    python -m benchmarks --full --json docs/performance/results.json
    python -m benchmarks.page docs/performance/results.json
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import chart
from benchmarks.plan import Finding, Report
from benchmarks.report import HEAD, cells, table, text
from benchmarks.stats import Ratio
from benchmarks.why import reason


def read(path: Path) -> tuple[Report, dict[str, Any]]:
    """Return the report in a file, and all of the file."""
    whole: dict[str, Any] = json.loads(path.read_text())
    report = Report(samples=whole["samples"], missing=whole["missing"], warnings=whole["warnings"], void=whole["void"])
    for fields in whole["findings"]:
        fields = {name: value for name, value in fields.items() if name != "noisy"}
        fields["ratio"] = None if fields["ratio"] is None else Ratio(**fields["ratio"])
        report.findings.append(Finding(**fields))
    return report, whole


def _median(report: Report, workload: str, name: str, key: str = "us") -> float | None:
    turns = report.samples.get(workload, {}).get(name)
    return None if not turns else statistics.median(turn[key] for turn in turns)


def charts(report: Report, folder: Path) -> dict[str, str]:
    """Draw what there are figures for; return the titles by the names of the files."""
    drawn: dict[str, str] = {}
    cost = "server CPU, microseconds for each message"
    for name, workload, title, key, label in (
        ("echo", "echo 64 B text", "Echo of 64 B text, 50 channels with 8 in flight", "us", cost),
        ("large", "echo 64 KiB binary", "Echo of 64 KiB binary", "us", cost),
        ("visits", "connect, echo, close", "Connect, echo, close", "us", "server CPU, microseconds for each"),
        ("frameworks", "frameworks, 64 B text", "The same echo on ASGI frameworks and on wsbridge", "us", cost),
        ("latency", "latency", "One message after the other on one channel, p99", "p99", "microseconds"),
        ("startup", "start-up", "From the start of the process to the first handshake", "ms", "milliseconds"),
    ):
        found = [(name, _median(report, workload, name, key)) for name in report.samples.get(workload, {})]
        rows = [(name, value) for name, value in found if value is not None]
        rows = [row for row in rows if name != "echo" or not row[0].startswith("starlette")]
        if name == "frameworks":
            rows.sort(key=lambda row: row[1])
        if rows:
            (folder / f"{name}.svg").write_text(chart.bars(title, label, rows))
            drawn[f"{name}.svg"] = title
    growth = report.samples.get("growth", {})
    if growth:
        series = {}
        for subject, turns in growth.items():
            steps = [key for key in turns[0] if key.startswith("us, all of ")]
            series[subject] = [
                (float(key.split()[-1]), statistics.median(turn[key] for turn in turns)) for key in steps
            ]
        title = "A message when more and more channels talk, 10 messages under way"
        (folder / "growth.svg").write_text(chart.lines(title, ("open channels", cost), series))
        drawn["growth.svg"] = title
        rows = [
            (subject, statistics.median(turn["bytes"] for turn in turns) / 1024) for subject, turns in growth.items()
        ]
        drawn["memory.svg"] = "Memory of an idle channel"
        (folder / "memory.svg").write_text(chart.bars(drawn["memory.svg"], "KiB", rows))
    return drawn


def targets(report: Report) -> str:
    """Return the table of what had a target, and why those that are not met are not."""
    judged = [finding for finding in report.findings if finding.target]
    if not judged:
        return "None of these workloads has a target."
    parts = [table([[finding.workload, *cells(finding)] for finding in judged], ["workload", *HEAD])]
    missed = [finding for finding in judged if finding.verdict != "met"]
    parts.append("### Not reached, and why" if missed else "All of them are met.")
    for finding in missed:
        said = finding.verdict or "noisy"
        against = f" against {finding.baseline}" if finding.baseline else ""
        parts.append(f"- **{finding.subject}**{against}, {finding.workload}: {said}. {reason(finding)}")
    return "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:]) if missed else "\n\n".join(parts)


def page(report: Report, whole: dict[str, Any], drawn: dict[str, str]) -> str:
    """Return the page of results."""
    facts = "\n".join(f"| {key} | {value} |" for key, value in whole["machine"].items())
    settings = "\n".join(f"| {key} | {value} |" for key, value in whole["settings"].items())
    pictures = "\n\n".join(f"![{title}]({name})" for name, title in drawn.items())
    return f"""# Results

Made by `{whole["command"]}` and `python -m benchmarks.page`; do not edit. How to read them, where the time goes and
what wsbridge does about it: [README.md](README.md).

## Targets

A ratio is wsbridge's figure over the other's in one run, the median of its rounds. A target is met if the whole 95 %
interval is on its right side, "not met" if it is on the wrong one, "not decided" if the target is inside; an interval
wider than 10 % is noisy, and no result.

{targets(report)}

## Charts

{pictures}

## All figures

{text(report)}

## Where it was measured

| | |
|---|---|
{facts}

## What was made equal

| | |
|---|---|
{settings}
"""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.page"
    )
    parser.add_argument("json", type=Path, help="what `python -m benchmarks --json` wrote; the page goes beside it")
    path = parser.parse_args().json
    report, whole = read(path)
    drawn = charts(report, path.parent)
    for name in drawn:
        print(path.parent / name)
    (path.parent / "results.md").write_text(page(report, whole, drawn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
