"""Instructions per message by callgrind: a figure without a clock, which repeats.

A subject is started below valgrind with counting off, which is some ten times slower than without; when it is warm,
counting is switched on, and what is counted between two dumps is divided by the messages between them.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plan import Finding, Report
from benchmarks.processes import MissingError, VoidRunError, drive, serving
from benchmarks.stats import Ratio
from benchmarks.subjects import NATIVES, connectors

CONNECTIONS = 10
PATIENCE = 6


def per_message(name: str, *, messages: int) -> float:
    """Return the instructions of an echo of 64 bytes.

    Raises:
        MissingError: The subject cannot be had.
        VoidRunError: It or callgrind failed.
    """
    with tempfile.TemporaryDirectory() as place:
        prefix = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={place}/out", "-q"]
        with serving(name, prefix=prefix, patience=PATIENCE) as server:

            def control(*arguments: str) -> None:
                command = ["callgrind_control", *arguments, str(server.process.pid)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                if done.returncode or "Error" in done.stdout + done.stderr:
                    raise VoidRunError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")

            def echo(count: int) -> None:
                drive([server], "echo", messages=count, connections=CONNECTIONS, window=8, slices=1)

            echo(500)
            control("-i", "on")
            totals = []
            for count in (messages, 3 * messages):  # what a load costs besides messages falls out
                control("-z")
                echo(count)
                time.sleep(0.1)
                control(f"--dump={count}")
                totals.append((count, _total(Path(place))))
            control("-i", "off")
        (few, some), (many, more) = totals
        return (more - some) / (many - few) / 1.2  # the load's two warm-ups send a tenth each


def _total(place: Path) -> int:
    newest = max(place.glob("out*"), key=lambda path: path.stat().st_mtime)
    found = re.search(r"^(?:totals|summary): (\d+)", newest.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise VoidRunError("callgrind wrote no total")
    newest.unlink()
    return int(found[1])


def instructions(report: Report, *, names: Sequence[str], full: bool) -> None:
    """Add the instructions of wsbridge's echo on each connector, against the usual native one."""
    for connector in connectors():
        if names and connector not in names:
            continue
        pair = [*NATIVES.get(connector, ())[:1], f"wsbridge-{connector}"]
        counts = {}
        for name in pair:
            print(f"instructions of {name}", file=sys.stderr, flush=True)
            try:
                counts[name] = per_message(name, messages=2_000 if full else 800)
            except MissingError as exc:
                report.missing[name] = str(exc)
        if len(pair) == 2 and len(counts) == 2:
            native, subject = pair
            ratio = counts[subject] / counts[native]
            report.findings.append(
                Finding(
                    "instructions for an echo of 64 B text",
                    subject,
                    "instructions",
                    counts[subject],
                    native,
                    counts[native],
                    Ratio(ratio, ratio, ratio, 1),
                )
            )
