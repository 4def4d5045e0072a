"""A report as a table for the terminal or a page, and what it depends on."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.plan import Finding, Report
from tools.lines import as_lines

PACKAGES = [
    *("wsbridge", "aiohttp", "websockets", "tornado", "picows", "uvloop", "uvicorn", "starlette", "fastapi"),
    *("litestar", "quart", "python-socketio", "channels"),
]


def machine() -> dict[str, str]:
    """Describe what the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line for line in cpuinfo if line.startswith("model name")]
    facts = {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "load average": f"{os.getloadavg()[0]:.2f}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def figures(whole: dict[str, Any]) -> str:
    """Return all figures of a run as JSON, a line for each finding and for the rounds of each subject."""
    return as_lines(whole, 2, {"samples": 1})


def number(value: float | None) -> str:
    """Write a figure with three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(finding: Finding) -> list[str]:
    """Return a line of the table."""
    ratio = finding.ratio
    said = finding.verdict or ("noisy" if finding.noisy else "")
    return [
        finding.subject,
        finding.baseline,
        f"{number(finding.value)} {finding.unit}",
        number(finding.baseline_value),
        "" if ratio is None else f"{ratio.median:.3f}",
        "" if ratio is None else f"{ratio.low:.3f} to {ratio.high:.3f}{' (noisy)' if ratio.noisy else ''}",
        finding.target,
        said,
    ]


HEAD = ["subject", "against", "subject's figure", "the other's", "ratio", "95 % interval", "target", "verdict"]


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> str:
    """Lay rows out as a Markdown table whose columns stand below each other."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    top = "| " + " | ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)) + " |"
    return "\n".join([top, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])


def by_workload(report: Report) -> dict[str, list[Finding]]:
    """Return the findings of each workload."""
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault(finding.workload, []).append(finding)
    return groups


def text(report: Report) -> str:
    """Return the whole report as Markdown."""
    parts = []
    for workload, findings in by_workload(report).items():
        rows = [cells(finding) for finding in findings]
        kept = [index for index in range(len(HEAD)) if any(row[index] for row in rows)]
        head = [HEAD[index] for index in kept]
        parts.append(f"### {workload[0].upper()}{workload[1:]}\n\n" + table([[r[i] for i in kept] for r in rows], head))
    parts += [f"VOID: {workload}: {reason}" for workload, reason in report.void.items()]
    parts += [f"WARNING: {warning}" for warning in report.warnings]
    parts += [f"left out: {name} ({reason})" for name, reason in report.missing.items()]
    return "\n\n".join(parts)
