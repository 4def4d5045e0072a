"""``python -m tests.faults``: the long form, its table and its figures as JSON."""

from __future__ import annotations

import argparse
import json
import random
import sys

from tests.faults.harness import CHANNELS, run
from tests.faults.judge import Figures
from tests.processes import INSTALLED
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.registry import load_connector


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--connector", action="append", help="by default every one that is installed and can ping")
    parser.add_argument("--seed", type=int, help="of the first run; the others follow; by default a random one")
    parser.add_argument("--runs", type=int, default=25, help="per connector")
    parser.add_argument("--channels", type=int, default=CHANNELS, help="per run")
    parser.add_argument("--only", type=int, action="append", default=[], help="the number of a channel to play alone")
    parser.add_argument("--verbose", action="store_true", help="show what went over the wire where something is wrong")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    first = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {first}")
    totals: dict[str, Figures] = {}
    failed = 0
    for name in arguments.connector or INSTALLED:
        target = SuiteTarget(name, load_connector(name))
        total = totals[name] = Figures()
        for seed in range(first, first + arguments.runs):
            result = run(target, seed, channels=arguments.channels, only=arguments.only, verbose=arguments.verbose)
            total.add(result.figures)
            print(
                f"{name}: seed {seed}, {result.seconds:g} s, {result.stall:.2f} s kept by the machine, "
                f"times x {result.scale:g}, {len(result.found)} found",
                flush=True,
            )
            if result.found:
                failed += 1
                print(result, flush=True)
    print(table(totals))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(
                {"seed": first, "runs": arguments.runs, "figures": {n: plain(f) for n, f in totals.items()}}, file
            )
    return 1 if failed else 0


def plain(figures: Figures) -> dict[str, object]:
    """Return figures for `json.dumps`."""
    return {name: dict(v) if isinstance(v := getattr(figures, name), dict) else v for name in figures.__slots__}


def table(totals: dict[str, Figures]) -> str:
    """Return the figures as a table, a column for each connector."""
    rows: dict[str, list[object]] = {}
    for name in Figures.__slots__:
        values = [getattr(total, name) for total in totals.values()]
        if isinstance(values[0], dict):
            for key in sorted({key for value in values for key in value}):
                rows[f"{name}: {key}"] = [value[key] for value in values]
        else:
            rows[name] = values
    lines = ["| | " + " | ".join(totals) + " |", "|---|" + "---|" * len(totals)]
    lines += [f"| {name} | " + " | ".join(f"{value:,}" for value in values) + " |" for name, values in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
