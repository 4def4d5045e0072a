"""The benchmarks: wsbridge on each connector against the same server by hand, and against ASGI frameworks.

Every subject runs in a process of its own, pinned to one core, the load on another; they are measured in turns. A
ratio is the median over rounds with its 95 % interval by bootstrap, and a target is met only if the whole interval
is on its right side.

Examples:
    python -m benchmarks                              the short form, under 10 minutes
    python -m benchmarks --full --json results.json   all, in about half an hour
    python -m benchmarks --only echo --connector tornado
    python -m benchmarks --only instructions          by callgrind, where valgrind is installed

Exit status: 0 when it was measured, whatever the verdicts; 1 when the run, or a workload, is void; 2 on wrong usage.
"""

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks import plan, report
from benchmarks.instructions import instructions
from benchmarks.natives import SETTINGS
from benchmarks.processes import VoidRunError, cores


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks"
    )
    every = [*plan.WORKLOADS, "instructions"]
    parser.add_argument("--full", action="store_true", help="15 rounds, 10,000 channels, all sizes")
    parser.add_argument("--only", nargs="+", choices=every, default=[], metavar="WORKLOAD", help=", ".join(every))
    parser.add_argument("--connector", nargs="+", default=[], help="default: all that are installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    args = parser.parse_args()
    facts = report.machine()
    only = [name for name in args.only if name != "instructions"]
    found = plan.Report()
    if only or not args.only:
        found = plan.run(full=args.full, only=only, names=args.connector)
    if not args.only or "instructions" in args.only:
        if shutil.which("valgrind"):
            try:
                instructions(found, names=args.connector, full=args.full)
            except VoidRunError as exc:
                found.void["instructions"] = str(exc)
        else:
            found.missing["instructions"] = "valgrind is not installed"
    if cores()[0] == cores()[1]:
        found.warnings.append("one core only, shared by servers and load: rates and latencies mean nothing")
    print(report.text(found), end="\n\n")
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print("made equal: " + ", ".join(f"{key} {value}" for key, value in SETTINGS.items()))
    if args.json:
        asked = ["--full"] * args.full + ["--only", *args.only] * bool(args.only)
        asked += ["--connector", *args.connector] * bool(args.connector)
        command = " ".join(["tox run -e bench", *["--"] * bool(asked), *asked])
        whole = {"command": command, "machine": facts, "settings": SETTINGS, **found.as_json()}
        args.json.write_text(report.figures(whole))
    return 1 if found.void else 0


if __name__ == "__main__":
    sys.exit(main())
