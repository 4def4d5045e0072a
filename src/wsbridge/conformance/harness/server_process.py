"""A server in a process of its own, so that its memory is its own: ``python -m`` this module.

`measured` is for the checks that promise bounded memory. It starts the connector under test in a fresh interpreter, on
loopback, and tells by how much the peak of what that process has in memory grew. What is left of memory that was used
and freed before would hide growth, so it is given back to the system where that can be done. The process ends with its
stdin, when its time is up, or before it eats the machine.

A connector that no import path leads to, such as a class made in a test, can tell how it is made: by a tuple in its
``conformance_factory``, of ``module:function`` and that function's arguments. Without that it is served and measured in
this process, and what the suite's client may hold is taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wsbridge.application import Application
from wsbridge.conformance import lateness
from wsbridge.conformance.contract import CheckFailed
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.conditions import Conditions
from wsbridge.conformance.harness.target import spec_of

__all__ = ["MIB", "Measured", "measured"]

MIB = 1024 * 1024
_START_LIMIT = 15.0  # seconds for an interpreter, the import of a server and its start
_LIFETIME = 240  # seconds, times the scale, that no such process outlives: far more than any check takes
_MOST = 1536 * MIB  # bytes: a connector that wants more gets a `MemoryError`
_CLIENT = 8 * MIB  # bytes: what a client in the same process may hold
_PROC = Path("/proc/self")


@dataclass(slots=True)
class Measured:
    """A server whose memory is watched.

    Attributes:
        served: Where it is.
    """

    served: Served
    _ask: Callable[[str], Any]

    async def baseline(self) -> None:
        """Measure from here: call it when everything that is needed once has been used once."""
        await self._ask("baseline")

    async def growth(self) -> int:
        """Return by how many bytes the peak of its memory has grown since `baseline`."""
        return int(await self._ask("growth"))


@contextlib.asynccontextmanager
async def measured(bench: Bench, application: Callable[..., Application], **options: Any) -> AsyncGenerator[Measured]:
    """Serve ``application(**options)``, a function of a module, by the connector under test.

    Args:
        bench: Of the check.
        application: Returns what is to be served.
        options: Of its channels; those that the connector needs for what it lacks are added.
    """
    options = {**bench.target.neutral, **options}
    path = spec_of(bench.connector)
    factory: tuple[str, ...] = vars(bench.connector).get("conformance_factory", (path,) if path else ())
    if not factory or not bench.target.has_wire:
        memory = _Memory(_CLIENT)

        async def ask(command: str) -> int:
            return memory.answer(command)

        async with bench.serve(application(**options)) as served:
            yield Measured(served, ask)
        return
    job = {
        "connector": factory,
        "application": f"{application.__module__}:{application.__qualname__}",
        "options": options,
        "conditions": bench.target.conditions.chosen,
        "lifetime": int(_LIFETIME * bench.scale) or 1,
    }
    async with _started(bench) as process:
        address = await process.ask(json.dumps(job), "start()", timeout=_START_LIMIT * bench.scale)
        served = Served(bench, (address[0], address[1]), "")
        yield Measured(served, lambda command: process.ask(command, f"the answer to {command}"))


@contextlib.asynccontextmanager
async def _started(bench: Bench) -> AsyncGenerator[_ServerProcess]:
    loop = asyncio.get_running_loop()
    answers = asyncio.StreamReader()
    with tempfile.TemporaryFile() as written, _process(written) as process, lateness.followed(process.pid):
        assert process.stdin is not None
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(answers), process.stdout)
        try:
            yield _ServerProcess(bench, process, process.stdin, answers, written)
        finally:
            process.kill()
            transport.close()
            await bench.settle(lambda: process.poll() is not None, "the end of the server's process")


def _process(written: IO[bytes]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-m", "wsbridge.conformance.harness.server_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=written,
        env={**os.environ, "PYTHONPATH": path},
    )


@dataclass(slots=True)
class _ServerProcess:
    """The process, as its parent sees it."""

    bench: Bench
    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    answers: asyncio.StreamReader
    written: IO[bytes]

    async def ask(self, line: str, what: str, *, timeout: float | None = None) -> Any:
        """Send one line and return what the answer holds.

        Raises:
            CheckFailed: There is none in time, or the process has died.
        """
        with contextlib.suppress(BrokenPipeError):  # the reason is told by what it wrote
            self.stdin.write(line.encode() + b"\n")
            self.stdin.flush()
        answer = await self.bench.within(self.answers.readline(), f"{what} in a process of its own", timeout=timeout)
        if not answer:
            await self.bench.settle(lambda: self.process.poll() is not None, "the end of a process that says no more")
            self.written.seek(0)
            written = self.written.read().decode(errors="replace").strip()
            raise CheckFailed(f"{what} in a process of its own: it died: {written[-1500:]}")
        return json.loads(answer)


class _Memory:
    """Measures the process that it is in, by the system's own count of the pages that it uses."""

    def __init__(self, others: int = 0) -> None:
        self._base = 0
        self._others = others

    def answer(self, command: str) -> int:
        """Do what ``command`` asks for."""
        if command == "baseline":
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)  # glibc: free memory that is kept would hide what is used next
            with contextlib.suppress(OSError):
                (_PROC / "clear_refs").write_text("5")  # Linux: the peak starts anew from what is used now
            self._base = _peak()
        return max(0, _peak() - self._base - self._others)


def _peak() -> int:
    """Return the peak of this process's memory in bytes."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _bound(lifetime: int) -> None:
    """Keep this process from outliving its check, and from taking all memory."""
    if hasattr(signal, "alarm"):
        signal.alarm(lifetime)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int((_PROC / "statm").read_text().split()[0])
        most = pages * resource.getpagesize() + _MOST
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


async def _serve(job: dict[str, Any], commands: IO[bytes], answers: IO[bytes]) -> None:
    """Serve what ``job`` says, and answer commands until their end."""

    def answer(value: object) -> None:
        answers.write(json.dumps(value).encode() + b"\n")
        answers.flush()

    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), commands)
    application = _import(job["application"])(**job["options"])
    path, *arguments = job["connector"]
    made = _import(path)
    connector = (made(*arguments) if arguments else made)(application, shutdown_timeout=1)
    await connector.start()
    memory = _Memory()
    answer(connector.addresses[0])
    while line := await lines.readline():
        answer(memory.answer(line.decode().strip()))
    transport.close()
    await connector.stop()


def main() -> None:
    """Run the process: commands come from stdin, answers go to what was stdout; what the connector prints does not."""
    commands = os.fdopen(0, "rb", buffering=0)  # so that nothing after the first line is read before the loop runs
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        job = json.loads(commands.readline())
        _bound(job["lifetime"])
        with asyncio.Runner(loop_factory=Conditions(**job["conditions"]).new_event_loop) as runner:
            runner.run(_serve(job, commands, answers))


if __name__ == "__main__":
    main()
