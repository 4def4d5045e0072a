"""Runs the fuzzer against one connector."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.client import ask
from tests.fuzz.strategies import Input, inputs, request

__all__ = ["BATCH", "Report", "fuzz"]

BATCH = 25  # inputs on as many connections at once
CHUNK = 5000  # inputs of one seed; the next ones are of the next seed
_GROWTH = 24 * 1024 * 1024  # bytes that the server's memory may grow by
_SETTLE = 10.0  # seconds in which nothing of the connections may be left


@dataclass(slots=True)
class Report:
    """What came of it."""

    connector: str
    seed: int
    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0
    before: dict[str, Any] = field(default_factory=dict[str, Any])
    after: dict[str, Any] = field(default_factory=dict[str, Any])


class Server:
    """The process that is fuzzed."""

    def __init__(self, connector: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.server", connector],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server has ended with the exit code {self.process.wait()}"
        return line

    def held(self) -> dict[str, Any]:
        """Return what it holds now."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        result: dict[str, Any] = json.loads(self._line())
        return result

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(15)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def fuzz(connector: str, count: int, *, at: int = 0) -> Report:
    """Throw ``count`` inputs, those of the seed ``at``, and check that the server takes no harm.

    Raises:
        AssertionError: It did; Hypothesis tells the least input that shows it.
    """
    report = Report(connector, at)
    server = Server(connector)
    began = time.monotonic()
    try:
        with asyncio.Runner() as runner:

            def throw(batch: list[Input]) -> None:
                if not report.before:
                    runner.run(_throw(server, batch, Counter()))  # what is needed once
                    report.before = _settled(runner, server)
                runner.run(_throw(server, batch, report.answers))
                report.inputs += len(batch)

            logged = server.held()["logged"]
            for number in range(-(-count // CHUNK)):  # Hypothesis keeps what it has made in one run
                _generated(throw, seed=at + number, batches=min(CHUNK, count - number * CHUNK) // BATCH)
            report.after = _settled(runner, server)
            report.after["logged"] -= logged
            _check(report)
    finally:
        server.close()
        report.seconds = time.monotonic() - began
    return report


def _generated(throw: Callable[[list[Input]], None], *, seed: int, batches: int) -> None:
    """Have Hypothesis call ``throw`` with batches of inputs, always the same for a seed."""
    wanted = settings(
        max_examples=batches,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    hypothesis.seed(seed)(wanted(given(st.lists(inputs, min_size=BATCH, max_size=BATCH))(throw)))()


async def _throw(server: Server, batch: list[Input], answers: Counter[str]) -> None:
    found = await asyncio.gather(*(ask(server.port, sent) for sent in batch))
    for sent, answer in zip(batch, found, strict=True):
        assert not answer.problem, f"{answer.problem}, for {sent}"
        kind = "nothing" if answer.status is None else str(answer.status)
        answers[f"{kind} {answer.codes[0]}" if answer.codes else kind] += 1
    well = Input(request(deflate=False), b"\x81\x84\0\0\0\0well\x88\x82\0\0\0\0\x03\xe8", ())
    later = await ask(server.port, well)
    assert later.codes == [1000], f"a client behind them got {later}"


def _settled(runner: asyncio.Runner, server: Server) -> dict[str, Any]:
    """Return what the server holds when all its channels have ended."""
    deadline = time.monotonic() + _SETTLE
    while True:
        held = server.held()
        if held["opened"] == held["closed"] and held["tasks"] <= 1:
            return held
        assert time.monotonic() < deadline, f"channels or tasks are left: {held}"
        runner.run(asyncio.sleep(0.05))


def _check(report: Report) -> None:
    before, after = report.before, report.after
    assert after["errors"] == [], "\n".join(after["errors"])
    connections = report.inputs + report.inputs // BATCH + BATCH + 1  # with those that ask whether all is well
    assert after["logged"] <= connections, f"{after['logged']} records were logged of {connections} connections"
    for what in ("tasks", "descriptors"):
        assert after[what] <= before[what], f"{what}: {before[what]} before, {after[what]} after"
    grown = after["rss"] - before["rss"]
    assert grown < _GROWTH, f"the server grew by {grown / 2**20:.1f} MiB"
