"""The committed reports of the suite in ``docs/reports``, and the pages that are made of them.

python -m tools.reports --refresh                  check all connectors that come with wsbridge
python -m tools.reports --refresh picows           check one
python -m tools.reports --refresh asgi             check `asgi_app` on each server of `tools.stock`
python -m tools.reports --refresh --missing        check all connectors, by the checks alone that a report lacks
python -m tools.reports --write-docs               write the pages alone

Each ``--refresh`` writes the reports of what it has checked, and the pages: ``docs/support.md``, the matrix in
``README.md`` and the table of ASGI servers in ``docs/asgi.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tools import committed, costs, stock
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.report import markdown, summary, verdict_line
from wsbridge.conformance.harness.selection import MODEL_CHECK
from wsbridge.conformance.harness.session import Progress, Session, run
from wsbridge.conformance.harness.suite_result import SuiteResult
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.registry import SERVERS

__all__ = ["NAMES", "asgi_reports", "connector_reports", "documents", "main", "refresh"]

NAMES = (*SERVERS, "memory")
"""What has a committed report, in the order of the pages."""

REPORTS = Path("docs", "reports")
SUPPORT = Path("docs", "support.md")
README = Path("README.md")
ASGI = Path("docs", "asgi.md")
MARKERS = ("<!-- support matrix: begin -->", "<!-- support matrix: end -->")
ASGI_MARKERS = ("<!-- asgi servers: begin -->", "<!-- asgi servers: end -->")

_SUPPORT = """
# What each connector supports

This page is made of the committed reports in [`reports/`](reports), by `python -m tools.reports --write-docs`.
`python -m tools.reports --refresh` makes those anew; a test fails when page or reports are stale. What the rules say in
full is in [the contract](spec.md), and how to run the suite in [conformance](conformance.md).
"""


def connector_reports(root: Path) -> list[SuiteResult]:
    """Return the committed reports of connectors of the project in ``root``: those that come with wsbridge first."""
    found = [report for name, report in committed.load(root / REPORTS).items() if name not in stock.STOCK]
    return sorted(
        found, key=lambda r: (NAMES.index(r.target.name) if r.target.name in NAMES else len(NAMES), r.target.name)
    )


def asgi_reports(root: Path) -> list[SuiteResult]:
    """Return the committed reports of `asgi_app`, in the order of the servers; a failure that a cost tells is known."""
    found = committed.load(root / REPORTS)
    return [costs.explained(found[name]) for name in stock.STOCK if name in found]


def _filled(root: Path, path: Path, markers: tuple[str, str], text: str) -> str:
    """Return a page with ``text`` between its markers.

    Raises:
        ValueError: It lacks them.
    """
    before, begin, rest = (root / path).read_text(encoding="utf-8").partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"{path} lacks {markers[0]} and {markers[1]}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def documents(root: Path) -> dict[Path, str]:
    """Return what is made of the committed reports, by its path in ``root``.

    Raises:
        ValueError: There is no report, one is damaged, or a page lacks its markers.
    """
    targets = connector_reports(root)
    if not targets:
        raise ValueError(f"there are no reports in {root / REPORTS}")
    table = f"{summary(targets)}\n\nRule by rule: [what each connector supports]({SUPPORT.as_posix()})."
    pages = {
        SUPPORT: f"{_SUPPORT.strip()}\n\n{markdown(targets, spec='spec.md')}",
        README: _filled(root, README, MARKERS, table),
    }
    if servers := asgi_reports(root):
        pages[ASGI] = _filled(root, ASGI, ASGI_MARKERS, f"{costs.introduction(servers)}\n\n{costs.table(servers)}")
    return pages


def _checked(
    name: str, former: SuiteResult | None, *, scale: float, progress: Callable[[Progress], object]
) -> SuiteResult:
    """Return the report of a connector; what a ``former`` one has is taken from there."""
    if former is None:
        return run(name, model=True, scale=scale, progress=progress)
    kept = {result.check: result for result in former.results}
    order = [check.id for check in Session.applicable(is_url=False)]
    if not (lacking := [check for check in order if check not in kept]):
        return former
    made = run(name, rules=lacking, scale=scale, progress=progress)
    kept |= {result.check: result for result in made.results}
    results = tuple(kept[check] for check in [*order, MODEL_CHECK] if check in kept)
    return replace(former, results=results, problems=(*former.problems, *made.problems))


def refresh(
    root: Path, names: Iterable[str], *, scale: float, tell: Callable[[str], object], missing: bool = False
) -> bool:
    """Check connectors and write their reports; return whether all are conformant."""
    reports = committed.load(root / REPORTS)
    conformant = True
    for name in [one for each in names for one in (stock.STOCK if each == "asgi" else (each,))]:

        def progress(progress: Progress, name: str = name) -> None:
            if progress.result is not None and progress.result.verdict is Verdict.FAIL:
                tell(f"{name}: {failure_text(progress.result, '')}")

        if name in stock.STOCK:
            result = costs.explained(stock.run(name, scale=scale, former=reports.get(name) if missing else None))
            reports[name] = replace(result, known={})  # which `asgi_reports` tells by the costs that there are then
            for failed in result.failures:
                tell(f"{name}: {failure_text(failed, '')}")
        else:
            former = reports.get(name) if missing else None
            reports[name] = result = _checked(name, former, scale=scale, progress=progress)
        tell(f"{name}: {verdict_line(result)}")
        for problem in result.problems:
            tell(f"{name}: {problem}")
        conformant &= result.conformant
        committed.save(root / REPORTS, reports)
    return conformant


def main(arguments: Sequence[str] | None = None) -> int:
    """Refresh the committed reports, and write the pages that are made of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.reports", description=main.__doc__)
    parser.add_argument(
        "--refresh",
        nargs="*",
        metavar="NAME",
        help="check these connectors, by default all that come with wsbridge, and write their reports and the pages",
    )
    parser.add_argument("--missing", action="store_true", help="run only the checks that a report lacks")
    parser.add_argument("--write-docs", action="store_true", help="write the pages alone")
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder; the current one")
    parser.add_argument("--timeout-scale", type=float, default=1.0, metavar="X", help="stretch every time limit")
    options = parser.parse_args(arguments)
    if options.refresh is None and not options.write_docs:
        parser.error("say --refresh or --write-docs")
    conformant = True
    if options.refresh is not None:
        conformant = refresh(
            options.root, options.refresh or NAMES, scale=options.timeout_scale, tell=print, missing=options.missing
        )
    for path, text in documents(options.root).items():
        (options.root / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0 if conformant else 1


if __name__ == "__main__":
    sys.exit(main())
