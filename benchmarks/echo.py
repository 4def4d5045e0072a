"""Server CPU time per echoed message: wsbridge on each connector against the same server's own echo.

Each pair starts both servers in fresh processes on one core and the load generator on another, warms up, and
measures 64 bytes of text on 50 connections with 8 messages in flight on each, the two in turns of a tenth of
the messages, so that what else the machine does falls on both. The figure to look at is the ratio.

Examples:
    python -m benchmarks.echo
    python -m benchmarks.echo --connector aiohttp --pairs 15 --json echo.json
    python -m benchmarks.echo --stream
    python -m benchmarks.echo --self-check

Exit status: 0 with at least one ratio, 1 when the run is void or has none, 2 on wrong usage.
"""

import argparse
import json
import os
import platform
import random
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from benchmarks.load import Result

ROOT = Path(__file__).resolve().parent.parent
BASELINES = {
    "aiohttp": ("native-aiohttp",),
    "websockets": ("native-websockets",),
    "tornado": ("native-tornado", "native-tornado-default"),
    "picows": ("native-picows",),
    "uvicorn": ("native-uvicorn",),
}
AGAIN = " again"
CONNECTIONS = 50
WINDOW = 8
SLICES = 10
START_SECONDS = 15
STOP_SECONDS = 15
LOAD_SECONDS = 60
BUSY_ENOUGH = 0.90
NOISY_WIDTH = 0.10
RESAMPLES = 10_000


class VoidRunError(Exception):
    """A server or the load failed: what was measured so far is not to be used."""


class MissingError(Exception):
    """The package or connector of a subject is not installed."""


@dataclass(frozen=True, slots=True)
class Server:
    """A subject that listens in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    port: int
    log: IO[bytes]

    def end(self) -> str:
        """Return how the process ended, and what it logged last; nothing when it is alive and silent."""
        try:
            status = self.process.wait(1)
        except subprocess.TimeoutExpired:
            return _tail(self.log)
        return f"\n{self.name} died with exit status {status}{_tail(self.log)}"


@dataclass(frozen=True, slots=True)
class Turn:
    """One subject in one pair: CPU microseconds per message, and the busy shares of server and load."""

    us_per_message: float
    messages_per_second: float
    busy: float
    load_busy: float

    @classmethod
    def of(cls, result: Result) -> "Turn":
        """Derive the figures from what the load counted."""
        return cls(
            us_per_message=result.server_cpu / result.messages * 1e6,
            messages_per_second=result.messages / result.seconds,
            busy=result.server_cpu / result.seconds,
            load_busy=result.load_cpu / result.seconds,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A subject against its baseline: the median of the ratios of the pairs, and its 95% interval."""

    baseline: str
    subject: str
    ratio: float
    low: float
    high: float

    @property
    def noisy(self) -> bool:
        """Whether the interval is too wide for the ratio to say much."""
        return (self.high - self.low) / self.ratio > NOISY_WIDTH


def _spawn(module: str, arguments: Sequence[str], *, core: int, log: IO[bytes]) -> subprocess.Popen[str]:
    """Start a module of the benchmarks on one core, with stdin and stdout as pipes and stderr in a log."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    os.sched_setaffinity(process.pid, {core})
    return process


def _tail(log: IO[bytes]) -> str:
    """Return the last lines of a log, each indented on a line of its own."""
    text = os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
    return "".join(f"\n    {line}" for line in text.rstrip().splitlines()[-15:])


@contextmanager
def serving(name: str, *, core: int) -> Iterator[Server]:
    """Run a subject, and end it.

    Raises:
        MissingError: it is not installed.
        VoidRunError: it did not start, or did not end well when asked to.
    """
    with tempfile.TemporaryFile() as log, _spawn("subjects", [name], core=core, log=log) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            word, _, rest = process.stdout.readline().strip().partition(" ") if ready else ("", "", "")
            if word == "MISSING":
                raise MissingError(rest)
            if word != "PORT":
                raise VoidRunError(f"{name} did not start{_tail(log)}")
            yield Server(name, process, int(rest), log)
            process.stdin.close()
            try:
                status = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired as exc:
                raise VoidRunError(f"{name} did not end within {STOP_SECONDS} s{_tail(log)}") from exc
            if status:
                raise VoidRunError(f"{name} died with exit status {status}{_tail(log)}")
        finally:
            process.kill()


def measure(names: Sequence[str], *, messages: int, cores: tuple[int, int]) -> list[Turn]:
    """Start the subjects on the first core, drive them in turns from the second, end them."""
    server_core, load_core = cores
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(name, core=server_core)) for name in names]
        arguments = [f"--server={server.port}:{server.process.pid}" for server in servers]
        arguments += [f"--connections={CONNECTIONS}", f"--window={WINDOW}"]
        arguments += [f"--messages={messages}", f"--slices={SLICES}"]
        log = stack.enter_context(tempfile.TemporaryFile())
        load = stack.enter_context(_spawn("load", arguments, core=load_core, log=log))
        stack.callback(load.kill)
        try:
            output, _ = load.communicate(timeout=LOAD_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise VoidRunError(f"the load did not end within {LOAD_SECONDS} s") from exc
        if load.returncode:
            ends = "".join(server.end() for server in servers)
            raise VoidRunError(f"the load failed{_tail(log)}{ends}")
        return [Turn.of(Result(**fields)) for fields in json.loads(output)]


def compare(baseline: str, subject: str, *, turns: tuple[Sequence[Turn], Sequence[Turn]]) -> Comparison:
    """Compare a baseline with a subject, pair by pair, and bootstrap the interval of the median ratio."""
    ratios = [b.us_per_message / a.us_per_message for a, b in zip(*turns, strict=True)]
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]
    return Comparison(baseline, subject, statistics.median(ratios), low, high)


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
    for package in ("wsbridge", "aiohttp", "websockets", "tornado", "picows", "uvicorn"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "no metadata"
    return facts


def table(comparisons: Sequence[Comparison], turns: dict[str, list[Turn]]) -> str:
    """Lay the comparisons out as a Markdown table; each figure of a subject is the median of its turns."""
    lines = [
        "| subject | against | us/msg native | us/msg subject | ratio | 95% interval "
        "| msg/s native | msg/s subject | busy native | busy subject |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|--:|",
    ]
    for comparison in comparisons:
        pair = (turns[comparison.baseline], turns[comparison.subject])
        cells = [comparison.subject, comparison.baseline]
        cells += [f"{statistics.median(turn.us_per_message for turn in side):.2f}" for side in pair]
        cells += [f"{comparison.ratio:.3f}", f"{comparison.low:.3f} to {comparison.high:.3f}"]
        cells[-1] += " (noisy)" if comparison.noisy else ""
        cells += [f"{statistics.median(turn.messages_per_second for turn in side):,.0f}" for side in pair]
        cells += [f"{statistics.median(turn.busy for turn in side):.0%}" for side in pair]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Measure the chosen connectors and print the table.

    Raises:
        VoidRunError: a server or the load failed.
    """
    available = sorted(os.sched_getaffinity(0))
    cores = (available[0], available[-1])
    turns: dict[str, list[Turn]] = {}
    comparisons: list[Comparison] = []
    missing: dict[str, str] = {}
    facts = machine()
    for connector in args.connector:
        baselines = (f"wsbridge-{connector}",) if args.stream else BASELINES[connector]
        candidate = f"stream-{connector}" if args.stream else f"wsbridge-{connector}"
        if args.self_check:
            candidate = f"{baselines[0]}{AGAIN}"
        present: list[str] = []
        for name in (*baselines, candidate):
            try:
                with serving(name.removesuffix(AGAIN), core=cores[0]):
                    present.append(name)
            except MissingError as exc:
                missing[name] = str(exc)
        if not present:
            continue
        turns |= {name: [] for name in present}
        subjects = [name.removesuffix(AGAIN) for name in present]
        for pair in range(args.pairs):
            print(f"{connector}: pair {pair + 1} of {args.pairs}", file=sys.stderr)
            for name, turn in zip(present, measure(subjects, messages=args.messages, cores=cores), strict=True):
                turns[name].append(turn)
        if candidate in present:
            comparisons += [
                compare(name, candidate, turns=(turns[name], turns[candidate])) for name in present if name != candidate
            ]

    if comparisons:
        print(table(comparisons, turns), end="\n\n")
    compared = {name for comparison in comparisons for name in (comparison.baseline, comparison.subject)}
    for name, measured in turns.items():
        turn = min(measured, key=lambda turn: turn.busy)
        if name not in compared:
            cost = statistics.median(turn.us_per_message for turn in measured)
            print(f"{name}: {cost:.2f} us/msg, compared with nothing")
        if turn.busy < BUSY_ENOUGH:
            print(
                f"WARNING: {name} was busy only {turn.busy:.0%} in one pair (the load {turn.load_busy:.0%}): "
                "its msg/s are not its limit"
            )
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})")
    if cores[0] == cores[1]:
        print("WARNING: one core only, shared by server and load: messages/s and busy mean nothing")
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    settings = {"pairs": args.pairs, "messages": args.messages, "connections": CONNECTIONS, "window": WINDOW}
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    if args.json:
        report = {
            "machine": facts,
            "settings": settings,
            "comparisons": [asdict(comparison) | {"noisy": comparison.noisy} for comparison in comparisons],
            "turns": {name: [asdict(turn) for turn in measured] for name, measured in turns.items()},
            "missing": missing,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if comparisons else 1


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m benchmarks.echo",
    )
    parser.add_argument("--pairs", type=int, default=5, help="pairs of processes (default 5)")
    parser.add_argument(
        "--connector",
        nargs="+",
        choices=list(BASELINES),
        default=list(BASELINES),
        help="default: all of them",
    )
    parser.add_argument("--messages", type=int, default=50_000, help="to each subject in a pair (default 50000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every turn to a file")
    parser.add_argument(
        "--stream", action="store_true", help="measure wsbridge's echo in a loop against its echo by callbacks"
    )
    parser.add_argument(
        "--self-check",
        action="store_true",
        help="measure the native echo against itself: how far from 1 the ratio is tells what noise does here",
    )
    args = parser.parse_args()
    if args.pairs < 1 or args.messages < SLICES:
        parser.error(f"--pairs must be positive, and --messages at least {SLICES}")
    try:
        return run(args)
    except VoidRunError as exc:
        print(f"VOID: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
