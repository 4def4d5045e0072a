"""What a flooded server leaves to others: one peer that floods empty frames, beside 49 channels that talk now and then.

    python -m benchmarks.fairness --write docs/performance/fairness.md

For each connector and its server's own idiom, in turns: the round trip of an honest message (median, 99th percentile
and the longest), and the CPU time of the longest turn of the server's event loop and of the 99th percentile (FLOW-3).
The server, the flood and the honest load are processes of their own. Linux, two cores.
"""

import argparse
import asyncio
import json
import os
import platform
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.natives import Setup
from benchmarks.processes import ROOT
from benchmarks.subjects import NATIVES, connectors, subject
from benchmarks.wire import connect, frame, receive
from wsbridge._process.garbage import start_set_aside

HONEST = 49
PAUSE = 0.002  # seconds between two honest messages, on one channel after the other
SECONDS = 5.0
WARM = 1.0
ROUNDS = 3
EMPTY = frame(1, b"", masked=True) * 40_000
MESSAGE, ECHO = frame(1, b"honest", masked=True), frame(1, b"honest", masked=False)

Figures = dict[str, float]


async def serve(name: str) -> None:
    """Serve a subject until stdin closes; print the port, and at the end the milliseconds of CPU of the turns."""
    turns: list[float] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stdin() -> None:
        if os.read(sys.stdin.fileno(), 1) == b"":
            stop.set()
        else:
            turns.clear()  # what comes from here on counts

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(subject(name)(Setup()))
        stack.enter_context(start_set_aside())  # as `run` does, for the native servers too
        loop.add_reader(sys.stdin.fileno(), on_stdin)
        print(port, flush=True)
        while not stop.is_set():
            began = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - began)
        loop.remove_reader(sys.stdin.fileno())
        turns.sort()
        print(json.dumps({"longest": turns[-1] * 1e3, "p99": turns[int(len(turns) * 0.99)] * 1e3}), flush=True)
        os._exit(0)  # a server's own stop may wait for the flood


def flood(port: int) -> None:
    """Send empty texts, and read what comes back, until this process is killed."""
    sock = connect(port)

    def drain() -> None:
        with suppress(OSError):
            while sock.recv(1 << 20):
                pass

    threading.Thread(target=drain, daemon=True).start()
    with suppress(OSError):
        while True:
            sock.sendall(EMPTY)


def talk(port: int) -> list[float]:
    """Have honest messages echoed for some seconds; return the round trips, in seconds."""
    trips: list[float] = []
    with ExitStack() as stack:
        socks: list[socket.socket] = [stack.enter_context(connect(port)) for _ in range(HONEST)]
        end, number = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            sock = socks[number % HONEST]
            number += 1
            began = time.perf_counter()
            sock.sendall(MESSAGE)
            assert receive(sock, len(ECHO)) == ECHO
            trips.append(time.perf_counter() - began)
            time.sleep(PAUSE)
    return trips


def measure(name: str) -> Figures:
    """Flood a subject, and talk to it meanwhile."""
    with ExitStack() as stack:
        server = _child(stack, "serve", name)
        assert server.stdin is not None
        assert server.stdout is not None
        ready, _, _ = select.select([server.stdout], [], [], 30)
        line = server.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{name} did not start")
        port = int(line)
        _child(stack, "flood", str(port))
        time.sleep(WARM)
        server.stdin.write(b"+")
        server.stdin.flush()
        trips = sorted(talk(port))
        server.stdin.close()
        turns: Figures = json.loads(server.stdout.readline())
    return {
        "median": statistics.median(trips) * 1e3,
        "p99 trip": trips[int(len(trips) * 0.99)] * 1e3,
        "longest trip": trips[-1] * 1e3,
        "longest turn": turns["longest"],
        "p99 turn": turns["p99"],
    }


def _child(stack: ExitStack, *arguments: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fairness", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    return process


COLUMNS = ("median", "p99 trip", "longest trip", "p99 turn", "longest turn")


def page(rows: dict[str, Figures]) -> str:
    """Return the page for the figures of each subject."""
    lines: list[str] = []
    for name, row in rows.items():
        cells = [f"{row[column]:.1f}" for column in COLUMNS] if row else ["no answer within 15 s", *[""] * 4]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(
        [
            "# A flooded server",
            "",
            "One peer floods empty texts, which are echoed, while 49 honest channels of the same server have a message",
            "echoed every 2 ms, one after the other. Milliseconds: the round trip of an honest message, and the CPU",
            f"time of a turn of the server's event loop. Each is the median of {ROUNDS} rounds of {SECONDS:g} s.",
            "What the start has left is set aside from the garbage collector, as `wsbridge.run` does, on all.",
            "The promise is FLOW-3 of [the contract](../spec.md): no turn over 10 ms of CPU.",
            "",
            f"Measured on {datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}, {os.cpu_count()} cores;",
            "made by `python -m benchmarks.fairness --write docs/performance/fairness.md`.",
            "",
            "| subject | round trip, median | p99 | longest | turn, p99 | longest |",
            "| --- | --- | --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.fairness"
    )
    parser.add_argument("--connector", nargs="+", default=[name for name in connectors() if name in NATIVES])
    parser.add_argument("--write", type=Path, help="write the page to this file")
    args = parser.parse_args(arguments)
    names = [name for connector in args.connector for name in (f"wsbridge-{connector}", NATIVES[connector][0])]
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            try:
                found[name].append(measure(name))
            except TimeoutError:
                print(f"{name}: an honest message was not answered", file=sys.stderr)
    rows = {
        name: {column: statistics.median(row[column] for row in rounds) for column in COLUMNS if rounds}
        for name, rounds in found.items()
    }
    text = page(rows)
    print(text)
    if args.write is not None:
        args.write.write_text(text)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["flood"]:
        flood(int(sys.argv[2]))
    else:
        sys.exit(main())
