"""See `tools.versions`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import versions
from tools.versions import releases, table
from tools.versions.releases import CONNECTORS
from tools.versions.trial import Outcome, try_version

ROOT = Path(__file__).parents[2]
FOLDER = Path(".versions")


def planned(asked: Sequence[str], *, only_ends: bool) -> list[tuple[str, str]]:
    """Return what is to be tried: connectors, each with a version of its server.

    Raises:
        SystemExit: A name or a version is none.
    """
    found: list[tuple[str, str]] = []
    for text in asked or CONNECTORS:
        name, _, version = text.partition("==")
        if name not in CONNECTORS:
            raise SystemExit(f"there is no connector {name!r} with a server: there are {', '.join(CONNECTORS)}")
        known = releases.released(CONNECTORS[name])
        if version and version not in known:
            raise SystemExit(f"there is no {CONNECTORS[name]} {version}; the newest are {', '.join(known[-5:])}")
        those = [version] if version else releases.chosen(known, releases.range_of(ROOT, name))
        found += [(name, one) for one in (releases.ends(those) if only_ends else those)]
    return found


def newer(known: table.Table) -> list[str]:
    """Return a line for each server that has a newer release than the committed table."""
    lines: list[str] = []
    for name, distribution in CONNECTORS.items():
        newest = releases.released(distribution)[-1]
        tried = sorted(known.get(name, {}), key=releases.order)
        if not tried or releases.order(tried[-1]) < releases.order(newest):
            lines.append(f"{name}: {distribution} {newest} is out, and {tried[-1] if tried else 'none'} was tried last")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.versions", description=versions.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("asked", nargs="*", metavar="CONNECTOR[==VERSION]")
    parser.add_argument("--missing", action="store_true", help="try only what the committed table lacks")
    parser.add_argument("--ends", action="store_true", help="try only the oldest and the newest of each")
    parser.add_argument("--rule", action="append", default=[], help="only this rule, check or group")
    parser.add_argument("--write", action="store_true", help="put what is found into the table")
    parser.add_argument("--newer", action="store_true", help="tell which servers have newer releases than the table")
    parser.add_argument("--write-docs", action="store_true", help="write the page from the committed table")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="runs at the same time")
    options = parser.parse_args(arguments)
    former, known = table.load(ROOT), table.load(ROOT)
    if options.write and options.rule:
        parser.error("--write needs whole runs, without --rule")
    if options.write_docs:
        table.save(ROOT, known)
        return 0
    if options.newer:
        lines = newer(known)
        print("\n".join(lines) or "the newest release of each server was tried")
        return 1 if lines else 0
    plan = planned(options.asked, only_ends=options.ends)
    if options.missing:
        plan = [(name, version) for name, version in plan if version not in known.get(name, {})]
    found: table.Table = {}

    def one(job: tuple[str, str]) -> Outcome:
        name, version = job
        began = time.monotonic()
        outcome = try_version(ROOT, name, version, FOLDER.absolute() / f"{name}-{version}", rules=tuple(options.rule))
        counts = f"{outcome.passed} passed, {len(outcome.failed)} failed, {sum(outcome.deviations.values())} declared"
        said = outcome.why or counts
        print(f"{name} {version}: {outcome.verdict}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
        for check, message in outcome.failed.items():
            print(f"  {check}: {message}", flush=True)
        return outcome

    with ThreadPoolExecutor(options.at_once) as pool:
        for (name, version), outcome in zip(plan, pool.map(one, plan), strict=True):
            found.setdefault(name, {})[version] = outcome
            if options.write:
                known.setdefault(name, {})[version] = outcome
                table.save(ROOT, known)
    different = table.differences(former, found)
    print("\n".join(different))
    failed = any(outcome.verdict != "conformant" for those in found.values() for outcome in those.values())
    return 1 if failed or different else 0


if __name__ == "__main__":
    sys.exit(main())
