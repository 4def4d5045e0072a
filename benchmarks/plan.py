"""What is measured: the workloads, their rounds in the short and the full form, and the targets."""

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.natives import Setup
from benchmarks.processes import Figures, MissingError, VoidRunError, drive, drive_idle, measure, serving
from benchmarks.startup import startup
from benchmarks.stats import Ratio, Verdict, compare
from benchmarks.subjects import NATIVES, UVLOOP, connectors

TO_NATIVE = {"aiohttp": 1.05, "websockets": 0.75, "tornado": 0.90, "picows": 1.15, "uvicorn": 1.05}
TO_STARLETTE = {"aiohttp": 0.50, "websockets": 1.00, "picows": 0.25}
LARGE_TO_NATIVE = 1.02
VISITS_TO_NATIVE = 0.90
KIB_ABOVE_NATIVE = 1.5
GROWTH = 1.20
IDLE_TO_NATIVE = 1.0
ORIENTATION = ["starlette", "fastapi", "litestar", "quart", "socketio", "channels"]
BUSY_ENOUGH = 0.90

SIZES: dict[str, dict[str, object]] = {
    "16 B text": {"size": 16, "messages": 15_000},
    "16 B binary": {"size": 16, "kind": "binary", "messages": 15_000},
    "64 B binary": {"size": 64, "kind": "binary", "messages": 15_000},
    "1 KiB text": {"size": 1024, "messages": 12_000},
    "1 KiB binary": {"size": 1024, "kind": "binary", "messages": 12_000},
    "64 KiB text": {"size": 65536, "messages": 1_500, "connections": 10, "window": 2},
    "1 MiB text": {"size": 1 << 20, "messages": 60, "connections": 4, "window": 1},
    "1 MiB binary": {"size": 1 << 20, "kind": "binary", "messages": 60, "connections": 4, "window": 1},
}
LARGE: dict[str, object] = {"size": 65536, "kind": "binary", "messages": 3_000, "connections": 10, "window": 2}
SMALL: dict[str, object] = {"messages": 30_000}


@dataclass(frozen=True)
class Finding:
    """One line of the result: a figure of a subject, beside that of a baseline where there is one."""

    workload: str
    subject: str
    unit: str
    value: float
    baseline: str = ""
    baseline_value: float | None = None
    ratio: Ratio | None = None
    target: str = ""
    verdict: Verdict | None = None

    @property
    def noisy(self) -> bool:
        """Whether the ratio is too noisy to be a result."""
        return self.ratio is not None and self.ratio.noisy


@dataclass
class Report:
    """All that a run has found."""

    findings: list[Finding] = field(default_factory=list)
    samples: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    void: dict[str, str] = field(default_factory=dict)
    """Workloads in which a server or the load failed: nothing of them is kept."""

    def as_json(self) -> dict[str, Any]:
        """Return what a file keeps."""
        findings = [asdict(finding) | {"noisy": finding.noisy} for finding in self.findings]
        return {
            "findings": findings,
            "missing": self.missing,
            "warnings": self.warnings,
            "void": self.void,
            "samples": self.samples,
        }


class Run:
    """One run of the benchmarks."""

    def __init__(self, *, full: bool, names: Sequence[str], say: Callable[[str], None]) -> None:
        self.full = full
        self.report = Report()
        self._say = say
        self._start = time.monotonic()
        self._present: dict[tuple[str, Setup], bool] = {}
        self.connectors = [name for name in connectors() if not names or name in names]
        if not full and not names:
            for name in set(self.connectors) - set(TO_NATIVE):
                self.report.missing[name] = "it has no target, and is left to the full form"
            self.connectors = [name for name in self.connectors if name in TO_NATIVE]

    def present(self, names: Iterable[str], setup: Setup | None = None) -> list[str]:
        """Return the subjects that can be had; the others are named in the report."""
        setup = setup or Setup()
        for name in names:
            if (name, setup) not in self._present:
                try:
                    with serving(name, setup):
                        self._present[name, setup] = True
                except MissingError as exc:
                    self._present[name, setup] = False
                    with_what = "" if setup.compression == "off" else " with compression"
                    self.report.missing[name + with_what] = str(exc)
        return [name for name in names if self._present[name, setup]]

    def group(self, connector: str) -> tuple[str, list[str]]:
        """Return the subject of a connector, or nothing, and its native baselines."""
        candidate = f"wsbridge-{connector}"
        return (candidate if self.present([candidate]) else ""), self.present(NATIVES.get(connector, ()))

    def rounds(self, title: str, count: int, names: Sequence[str], work: Callable[[], list[list[Figures]]]) -> Any:
        """Measure `count` times; return for each workload of `work` the figures of each subject."""
        gathered: list[dict[str, list[Figures]]] = []
        for number in range(count):
            self._say(f"[{time.monotonic() - self._start:5.0f} s] {title}: round {number + 1} of {count}")
            for index, figures in enumerate(work()):
                if number == 0:
                    gathered.append({name: [] for name in names})
                for name, figure in zip(names, figures, strict=True):
                    gathered[index][name].append(figure)
        return gathered

    def keep(self, workload: str, samples: dict[str, list[Figures]]) -> None:
        """Keep what was measured, and warn of servers that waited."""
        self.report.samples.setdefault(workload, {}).update(samples)
        for name, turns in samples.items():
            busy = statistics.median(turn["busy"] for turn in turns) if "busy" in turns[0] else 1
            if busy < BUSY_ENOUGH and workload.startswith("echo"):
                load = statistics.median(turn["load_busy"] for turn in turns)
                self.report.warnings.append(
                    f"{workload}: {name} was busy for {busy:.0%} of the time only (the load for {load:.0%}): "
                    "its messages per second are not its limit"
                )

    def found(
        self,
        workload: str,
        samples: dict[str, list[Figures]],
        key: str,
        unit: str,
        *,
        subject: str,
        baseline: str = "",
        target: float | None = None,
        at_least: bool = False,
    ) -> None:
        """Add a line: a figure of a subject against that of a baseline."""
        values = [figure[key] for figure in samples[subject]]
        if not baseline:
            self.report.findings.append(Finding(workload, subject, unit, statistics.median(values)))
            return
        others = [figure[key] for figure in samples[baseline]]
        ratio = Ratio.of(values, others)
        self.report.findings.append(
            Finding(
                workload,
                subject,
                unit,
                statistics.median(values),
                baseline,
                statistics.median(others),
                ratio,
                "" if target is None else f"{'at least' if at_least else 'at most'} {target:.2f}",
                None if target is None or ratio.noisy else ratio.verdict(target, at_least=at_least),
            )
        )

    # ---- the workloads ----------------------------------------------------------------------------------------------

    def echo(self) -> None:
        """Echo 64 bytes of text on 50 channels with 8 in flight: the figure that decides, and 64 KiB of binary."""
        for connector in self.connectors:
            candidate, natives = self.group(connector)
            names = [*natives, *([candidate] if candidate else [])]
            names += self.present(["starlette"]) if connector in TO_STARLETTE else []
            if not candidate:
                continue
            small, large = "echo 64 B text", "echo 64 KiB binary"
            count = 15 if self.full else 5
            options = SMALL if self.full else {"messages": 20_000}
            (samples,) = self.rounds(
                f"{small}, {connector}",
                count,
                names,
                lambda names=names, options=options: measure(names, [("echo", options)]),
            )
            self.keep(
                small, {f"{name} ({connector})" if name == "starlette" else name: s for name, s in samples.items()}
            )
            for native in natives:
                target = TO_NATIVE.get(connector) if native == natives[0] else None
                self.found(small, samples, "us", "us/msg", subject=candidate, baseline=native, target=target)
            if "starlette" in names:
                target = TO_STARLETTE.get(connector)
                self.found(small, samples, "us", "us/msg", subject=candidate, baseline="starlette", target=target)
            if not natives:
                continue
            names = [natives[0], candidate]
            (samples,) = self.rounds(
                f"{large}, {connector}", count, names, lambda names=names: measure(names, [("echo", LARGE)])
            )
            self.keep(large, samples)
            self.found(large, samples, "us", "us/msg", subject=candidate, baseline=natives[0], target=LARGE_TO_NATIVE)

    def sizes(self) -> None:
        """Echo messages of other sizes."""
        for connector in self.connectors if self.full else ():
            candidate, natives = self.group(connector)
            if not candidate or not natives:
                continue
            names = [natives[0], candidate]
            work = [("echo", options) for options in SIZES.values()]
            gathered = self.rounds(
                f"other sizes, {connector}", 3, names, lambda names=names, work=work: measure(names, work)
            )
            for size, samples in zip(SIZES, gathered, strict=True):
                self.keep(f"echo {size}", samples)
                self.found(f"echo {size}", samples, "us", "us/msg", subject=candidate, baseline=natives[0])

    def frameworks(self) -> None:
        """Echo 64 bytes of text on ASGI frameworks and wsbridge, for orientation."""
        names = self.present([*ORIENTATION, *(f"wsbridge-{connector}" for connector in self.connectors)])
        if "starlette" not in names:
            return
        count, options = (5, SMALL | {"messages": 10_000}) if self.full else (3, SMALL | {"messages": 5_000})
        (samples,) = self.rounds("frameworks", count, names, lambda: measure(names, [("echo", options)]))
        self.keep("frameworks, 64 B text", samples)
        for name in names:
            if name != "starlette":
                self.found("frameworks, 64 B text", samples, "us", "us/msg", subject=name, baseline="starlette")

    def uvloop(self) -> None:
        """Echo 64 bytes of text on uvloop, against the same on asyncio's loop."""
        for connector in self.connectors:
            candidate, _ = self.group(connector)
            names = self.present([f"{candidate}{UVLOOP}"]) if candidate else []
            if not names:
                continue
            names.append(candidate)
            title = "uvloop, 64 B text"
            (samples,) = self.rounds(
                f"{title}, {connector}",
                5 if self.full else 3,
                names,
                lambda names=names: measure(names, [("echo", {"messages": 20_000})]),
            )
            self.keep(title, samples)
            self.found(title, samples, "us", "us/msg", subject=names[0], baseline=candidate)

    def latency(self) -> None:
        """Send one message after the other on one channel: reported, not judged."""
        names = [name for connector in self.connectors for name in self._pair(connector)]
        names += self.present(["starlette"])
        options: dict[str, object] = {"messages": 5_000 if self.full else 1_000}
        (samples,) = self.rounds(
            "latency", 3 if self.full else 1, names, lambda: measure(names, [("latency", options)])
        )
        self.keep("latency", samples)
        for name in names:
            for key in ("p50", "p99", "p99.9"):
                self.found("latency", samples, key, f"us, {key}", subject=name)

    def visits(self) -> None:
        """Open, echo once, close."""
        for connector in self.connectors:
            names = self._pair(connector)
            if len(names) < 2:
                continue
            title = "connect, echo, close"
            options: dict[str, object] = {"messages": 1_000}
            (samples,) = self.rounds(
                f"{title}, {connector}",
                15 if self.full else 5,
                names,
                lambda names=names, options=options: measure(names, [("visits", options)]),
            )
            self.keep(title, samples)
            native, candidate = names
            self.found(
                title,
                samples,
                "rate",
                "per second",
                subject=candidate,
                baseline=native,
                target=VISITS_TO_NATIVE,
                at_least=True,
            )
            self.found(title, samples, "us", "us each", subject=candidate, baseline=native)

    def growth(self) -> None:
        """Open up to 10,000 channels: memory of each, and whether a message costs more with many of them."""
        steps = [10, 100, 1000, 10_000] if self.full else [10, 100, 1000, 3000]
        for connector in self.connectors:
            samples: dict[str, list[Figures]] = {}
            for name in self._pair(connector):
                options = {"messages": 20_000 if self.full else 8_000, "channels": steps}

                def work(name: str = name, options: dict[str, Any] = options) -> list[list[Figures]]:
                    with serving(name, is_killed=True) as server:
                        return [drive([server], "growth", **options)]

                (found,) = self.rounds(f"growth, {name}", 1, [name], work)
                samples |= found
            self.keep("growth", samples)
            self._judge_growth(connector, samples, steps)

    def _judge_growth(self, connector: str, samples: dict[str, list[Figures]], steps: list[int]) -> None:
        memory = {name: statistics.median(turn["bytes"] for turn in turns) / 1024 for name, turns in samples.items()}
        for name, turns in samples.items():
            is_ours = name.startswith("wsbridge-")
            for who in ("some", "all"):
                costs = [statistics.median(turn[f"us, {who} of {step}"] for turn in turns) for step in steps]
                grown = max(costs) / costs[0]
                self.report.findings.append(
                    Finding(
                        f"growth of the cost of a message, {'all channels' if who == 'all' else '10 channels'} talk",
                        name,
                        f"times the {costs[0]:.3g} us at {steps[0]}, with up to {steps[-1]:,} channels",
                        grown,
                        target=f"at most {GROWTH:.2f}" if is_ours else "",
                        verdict=compare(grown, GROWTH) if is_ours else None,
                    )
                )
        names = self._pair(connector)
        if len(names) == 2:
            native, candidate = names
            above = memory[candidate] - memory[native]
            self.report.findings.append(
                Finding(
                    "memory of an idle channel",
                    candidate,
                    "KiB",
                    memory[candidate],
                    native,
                    memory[native],
                    target=f"at most {KIB_ABOVE_NATIVE} KiB above native",
                    verdict=compare(above, KIB_ABOVE_NATIVE),
                )
            )

    def memory(self) -> None:
        """Hold 10,000 idle channels that deflate, by each server's own defaults."""
        connections = 10_000 if self.full else 1_000
        setup = Setup(compression="default")
        for connector in self.connectors:
            samples: dict[str, list[Figures]] = {}
            for name in self._pair(connector, setup):

                def work(name: str = name) -> list[list[Figures]]:
                    with serving(name, setup, is_killed=True) as server:
                        return [drive([server], "memory", connections=connections)]

                (found,) = self.rounds(f"memory with compression, {name}", 1, [name], work)
                samples |= found
            title = "memory of an idle channel with compression"
            self.keep(title, samples)
            kib = {name: turns[0]["bytes"] / 1024 for name, turns in samples.items()}
            candidate, native = f"wsbridge-{connector}", NATIVES.get(connector, ("",))[0]
            if candidate in kib:
                self.report.findings.append(
                    Finding(title, candidate, "KiB", kib[candidate], native, kib.get(native))
                    if native in kib
                    else Finding(title, candidate, "KiB", kib[candidate])
                )

    def startup(self) -> None:
        """Start a process, shake hands for the first time, and end it; and import what it imports."""
        for connector in self.connectors:
            names = self._pair(connector)
            if len(names) < 2:
                continue
            title = "start-up"
            (samples,) = self.rounds(
                f"{title}, {connector}",
                7 if self.full else 3,
                names,
                lambda names=names: [[startup(name) for name in names]],
            )
            self.keep(title, samples)
            native, candidate = names
            for key, unit in (
                ("ms", "ms until the first handshake"),
                ("CPU ms", "ms of CPU time until then"),
                ("import ms", "ms to import"),
                ("modules", "modules imported"),
            ):
                self.found(title, samples, key, unit, subject=candidate, baseline=native)

    def broadcast(self) -> None:
        """Send a message of one channel to 5,000."""
        connections = 5_000 if self.full else 1_000
        for connector in self.connectors:
            names = self._pair(connector, Setup("broadcast"))

            def work(names: list[str] = names) -> list[list[Figures]]:
                with ExitStack() as stack:
                    setup = Setup("broadcast")
                    servers = [stack.enter_context(serving(name, setup, is_killed=True)) for name in names]
                    return [drive(servers, "broadcast", messages=10, connections=connections)]

            if len(names) == 2:
                (samples,) = self.rounds(f"broadcast, {connector}", 3 if self.full else 1, names, work)
                title = f"one message to {connections:,}"
                self.keep(title, samples)
                self.found(title, samples, "us", "us for each", subject=names[1], baseline=names[0])
                self.found(title, samples, "ms", "ms until the last has it", subject=names[1], baseline=names[0])

    def idle(self) -> None:
        """Hold 10,000 channels that do nothing, with pings every 20 s, and wsbridge's idle timeout."""
        connections = 10_000 if self.full else 1_000
        names = [name for connector in self.connectors for name in self._pair(connector, Setup(pings=True))]
        title = f"{connections:,} idle channels with pings every 20 s"
        (samples,) = self.rounds(
            title, 1, names, lambda: [drive_idle(names, connections=connections, seconds=20 if self.full else 21)]
        )
        self.keep("idle", samples)
        for connector in self.connectors:
            pair = self._pair(connector, Setup(pings=True))
            if len(pair) == 2:
                values = {name: 100 * samples[name][0]["busy"] for name in pair}
                native, candidate = pair
                self.report.findings.append(
                    Finding(
                        title,
                        candidate,
                        "% of a core",
                        values[candidate],
                        native,
                        values[native],
                        target="at most the native one's",
                        verdict=compare(values[candidate], IDLE_TO_NATIVE * values[native]),
                    )
                )

    def _pair(self, connector: str, setup: Setup | None = None) -> list[str]:
        """Return the usual native idiom and wsbridge, as far as they can be had."""
        candidate, natives = self.group(connector)
        return self.present([*natives[:1], *([candidate] if candidate else [])], setup)


def run(*, full: bool, only: Sequence[str], names: Sequence[str]) -> Report:
    """Measure all, or some workloads. One in which a server or the load fails is void, and the others go on."""
    current = Run(full=full, names=names, say=lambda line: print(line, file=sys.stderr, flush=True))
    report = current.report
    for workload in only or WORKLOADS:
        found, samples = len(report.findings), dict(report.samples)
        try:
            getattr(current, workload)()
        except VoidRunError as exc:
            report.void[workload] = str(exc)
            del report.findings[found:]
            report.samples = samples
    return report


WORKLOADS = (
    *("echo", "visits", "growth", "memory", "idle", "frameworks", "broadcast"),
    *("latency", "startup", "sizes", "uvloop"),
)
