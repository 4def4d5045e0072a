"""``python -m tests.fuzz``: the long form, with its figures."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from tests.fuzz.run import fuzz
from wsbridge.registry import connector_names


def main() -> int:
    """Fuzz connectors, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("connector", nargs="*", default=connector_names(installed=True, serving=True))
    parser.add_argument("--inputs", type=int, default=100_000, help="for each connector (100,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    reports = []
    for name in args.connector:
        report = fuzz(name, args.inputs, at=args.seed)
        reports.append({**asdict(replace(report, answers=Counter())), "answers": dict(report.answers)})
        answers = ", ".join(f"{kind}: {count}" for kind, count in report.answers.most_common())
        before, after = report.before, report.after
        print(
            f"{name}: {report.inputs} inputs of seed {report.seed} in {report.seconds:.0f} s; "
            f"{after['opened']} channels opened and closed; memory {before['rss'] / 2**20:.1f} -> "
            f"{after['rss'] / 2**20:.1f} MiB, descriptors {before['descriptors']} -> {after['descriptors']}, "
            f"errors logged {len(after['errors'])}, records {after['logged']}\n  answers: {answers}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
