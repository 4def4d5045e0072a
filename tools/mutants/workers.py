"""Copies of the source, and processes that run checks on them."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import py_compile
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Copy", "Ran", "SilentError"]

_START = 60.0  # seconds for the interpreter and the imports
_GRACE = 15.0  # seconds after the suite's own limit of a check
_SITE = Path(__file__).with_name("site")  # what a process imports at its start
_SHOWN = 2000  # characters of what a process wrote


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a check.

    Attributes:
        check: Its id.
        verdict: ``pass``, ``fail``, or what else the suite has.
        seconds: How long it took.
        message: What is wrong.
        lines: What it ran, where that was asked for: numbers of lines by file.
    """

    check: str
    verdict: str
    seconds: float
    message: str
    lines: dict[str, list[int]]


class SilentError(Exception):
    """A process hung or died.

    Attributes:
        check: The check that ran; "" before the first.
        seconds: The limit that it broke; 0.0 for one that died.
    """

    def __init__(self, message: str, check: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.check = check
        self.seconds = seconds


class Copy:
    """A copy of a folder of packages, for one process at a time. Use it as a context manager: its end removes it.

    Args:
        source: The folder, such as ``src``.
        package: The path of the package in it.
        suite: The module whose `Suite` has the checks.
        root: The folder that has the module.
    """

    def __init__(self, source: Path, package: str, *, suite: str = "tools.mutants.suite", root: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="wsbridge-mutants-")
        self.source = Path(self._folder.name).resolve() / "src"
        shutil.copytree(source, self.source, ignore=shutil.ignore_patterns("__pycache__"))
        # by their hashes, since a mutant may be as long as its original, and as old
        invalidation = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.source, quiet=2, invalidation_mode=invalidation)
        self.package = self.source / package
        self._suite = suite
        self._root = root

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._folder.cleanup()

    @contextlib.contextmanager
    def changed(self, file: str, text: str) -> Generator[None]:
        """Have another text in a file, meanwhile."""
        path = self.package / file
        original = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(original, encoding="utf-8")

    def checks(self, target: str) -> dict[str, tuple[str, bool, str]]:
        """Return the checks of a target, as its `Suite.checks` does.

        Raises:
            SilentError: The process hung or died.
        """
        entries = list(self._ask({"target": target, "checks": None, "record": False}))
        if not entries:
            raise SilentError("it told nothing", "")
        return {id: (str(code), bool(often), str(text)) for id, (code, often, text) in entries[0]["checks"].items()}

    def run(self, target: str, checks: Sequence[tuple[str, float]], *, record: bool = False) -> Iterator[Ran]:
        """Run checks, each given with its scale, up to the first that fails, or all of them where they are recorded.

        Raises:
            SilentError: The process hung or died.
        """
        for entry in self._ask({"target": target, "checks": list(checks), "record": record}):
            yield Ran(**entry)

    def _ask(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        job = {"suite": self._suite, "source": str(self.source), **job}
        path = (str(self.source), str(self._root), *([str(_SITE)] if job["record"] else []))
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with tempfile.TemporaryFile() as written:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tools.mutants.child", json.dumps(job)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=written,
                env=environ,
                start_new_session=True,
            )
            assert process.stdout is not None
            lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
            reader.start()
            try:
                yield from _entries(process, lines)
            except SilentError as exc:
                size = os.fstat(written.fileno()).st_size
                text = os.pread(written.fileno(), _SHOWN, max(0, size - _SHOWN)).decode(errors="replace").strip()
                exc.add_note(text)
                raise
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
                process.wait()
                reader.join()
                process.stdout.close()


def _read(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


def _entries(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> Iterator[dict[str, Any]]:
    running, limit = "", _START
    while True:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty:
            raise SilentError(f"hung for {limit:g} s", running, limit) from None
        if not line:
            if status := process.wait():
                raise SilentError(f"ended with {status}", running)
            return
        entry: dict[str, Any] = json.loads(line)
        if "begin" in entry:
            running, limit = entry["begin"], entry["limit"] + _GRACE
        else:
            running, limit = "", _START
            yield entry
