"""Subjects and load in processes of their own, each pinned to a core; none outlives the run."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.natives import Setup
from benchmarks.subjects import UVLOOP

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30
STOP_SECONDS = 30
LOAD_SECONDS = 400

Figures = dict[str, float]


class VoidRunError(Exception):
    """A server or the load failed: what was measured so far is not to be used."""


class MissingError(Exception):
    """A subject cannot be had: its package is not installed, or it has no such setting."""


def cores() -> tuple[int, int]:
    """Return the core of the servers and that of the load."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


@dataclass(frozen=True, slots=True)
class Server:
    """A subject that listens in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    port: int
    log: IO[bytes]

    @property
    def argument(self) -> str:
        """What tells the load of it."""
        dialect = self.name.removesuffix(UVLOOP)
        return f"--server={self.port}:{self.process.pid}" + (":socketio" if dialect == "socketio" else "")

    def end(self) -> str:
        """Return how the process ended, and what it logged last; nothing when it is alive and silent."""
        try:
            status = self.process.wait(1)
        except subprocess.TimeoutExpired:
            return tail(self.log)
        return f"\n{self.name} died with exit status {status}{tail(self.log)}"


def spawn(arguments: Sequence[str], *, core: int, log: IO[bytes], prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a module of the benchmarks on one core, with stdin and stdout as pipes and stderr in a log."""
    module, *rest = arguments
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", f"benchmarks.{module}", *rest],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def tail(log: IO[bytes]) -> str:
    """Return the last lines of a log, each indented on a line of its own."""
    text = os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
    return "".join(f"\n    {line}" for line in text.rstrip().splitlines()[-15:])


@contextmanager
def serving(
    name: str, setup: Setup | None = None, *, prefix: Sequence[str] = (), patience: float = 1, is_killed: bool = False
) -> Iterator[Server]:
    """Run a subject, and end it; one with thousands of connections is better killed.

    Raises:
        MissingError: It cannot be had.
        VoidRunError: It did not start, or did not end well when asked to.
    """
    setup = setup or Setup()
    arguments = ["subjects", name, f"--mode={setup.mode}", f"--compression={setup.compression}"]
    arguments += ["--pings"] if setup.pings else []
    with tempfile.TemporaryFile() as log, spawn(arguments, core=cores()[0], log=log, prefix=prefix) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], patience * START_SECONDS)
            word, _, rest = process.stdout.readline().strip().partition(" ") if ready else ("", "", "")
            if word in ("MISSING", "UNSUPPORTED"):
                raise MissingError(rest)
            if word != "PORT":
                raise VoidRunError(f"{name} did not start{tail(log)}")
            server = Server(name, process, int(rest), log)
            yield server
            if is_killed:
                if process.poll() is not None:
                    raise VoidRunError(f"the run ended too late{server.end()}")
                return
            process.stdin.close()
            try:
                status = process.wait(patience * STOP_SECONDS)
            except subprocess.TimeoutExpired as exc:
                raise VoidRunError(f"{name} did not end within {STOP_SECONDS} s{tail(log)}") from exc
            if status:
                raise VoidRunError(f"{name} died with exit status {status}{tail(log)}")
        finally:
            process.kill()


def drive(servers: Sequence[Server], workload: str, **options: object) -> list[Figures]:
    """Run a workload of the load against servers; return the figures of each.

    Raises:
        VoidRunError: The load failed.
    """
    arguments = ["load", workload, *(server.argument for server in servers)]
    for name, value in options.items():
        values = value if isinstance(value, (list, tuple)) else (value,)
        arguments += [f"--{name}", *map(str, values)]
    with tempfile.TemporaryFile() as log, spawn(arguments, core=cores()[1], log=log) as load:
        try:
            output, _ = load.communicate(timeout=LOAD_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise VoidRunError(f"the load did not end within {LOAD_SECONDS} s") from exc
        finally:
            load.kill()
        if load.returncode:
            ends = "".join(server.end() for server in servers)
            raise VoidRunError(f"the load failed{tail(log)}{ends}")
        result: list[Figures] = json.loads(output)
        return result


def measure(names: Sequence[str], workloads: Sequence[tuple[str, dict[str, object]]]) -> list[list[Figures]]:
    """Start subjects afresh, drive them in turns by one workload after the other, and end them."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(name)) for name in names]
        return [drive(servers, workload, **options) for workload, options in workloads]


def drive_idle(names: Sequence[str], *, connections: int, seconds: float) -> list[Figures]:
    """Have all subjects hold idle connections at the same time; return the figures of each."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(name, Setup(pings=True), is_killed=True)) for name in names]
        loads = []
        for server in servers:
            log = stack.enter_context(tempfile.TemporaryFile())
            arguments = ["load", "idle", server.argument, f"--connections={connections}", f"--seconds={seconds}"]
            load = stack.enter_context(spawn(arguments, core=cores()[1], log=log))
            stack.callback(load.kill)
            loads.append((load, log))
            while b"READY" not in os.pread(log.fileno(), 100, 0):
                try:
                    load.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
                raise VoidRunError(f"the load failed{tail(log)}{server.end()}")
        for load, _ in loads:
            assert load.stdin is not None
            load.stdin.write("\n")
            load.stdin.flush()
        results: list[Figures] = []
        for (load, log), server in zip(loads, servers, strict=True):
            output, _ = load.communicate(timeout=LOAD_SECONDS)
            if load.returncode:
                raise VoidRunError(f"the load failed{tail(log)}{server.end()}")
            results += json.loads(output)
        return results
