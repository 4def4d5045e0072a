"""Runs checks in a process of its own, up to the first that fails: ``python -m tools.mutants.child JOB``.

JOB is JSON: ``suite``, the module whose `Suite` has the checks; ``target``, which its constructor gets; ``checks``,
pairs of an id and a scale; ``record``, whether the lines that each check runs are told, and the checks go on after a
failure; ``source``, the folder that the package must come from. With ``checks`` null all are listed, and none runs.

What is told, one JSON object a line: ``checks``, the list; ``begin`` and ``limit``, before a check; ``check``,
``verdict``, ``seconds``, ``message`` and ``lines`` after it. Whatever the checks write goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from types import CodeType
from typing import Any

_MEMORY = 6 * 2**30  # bytes of addresses: a mutant that collects without end shall fail, not the machine


def main(job: dict[str, Any]) -> None:
    """Do the job."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    suite: Any = importlib.import_module(job["suite"]).Suite(job["target"])
    source: Path = suite.source
    if not source.is_relative_to(Path(job["source"])):
        raise SystemExit(f"{source} is not in {job['source']}")

    def tell(**entry: Any) -> None:
        told.write(json.dumps(entry) + "\n")

    if job["checks"] is None:
        tell(checks=suite.checks())
        return
    recorder = _Recorder(source, suite.omitted) if job["record"] else None
    for id, scale in job["checks"]:
        tell(begin=id, limit=suite.limit(id, scale))
        started = time.perf_counter()
        with contextlib.nullcontext() if recorder is None else recorder.recording():
            verdict, message = suite.run(id, scale)
        seconds = round(time.perf_counter() - started, 4)
        lines = {} if recorder is None else recorder.lines()
        tell(check=id, verdict=verdict, seconds=seconds, message=message[:300], lines=lines)
        if verdict == "fail" and recorder is None:
            break
    told.flush()
    if recorder is not None:
        recorder.close()
    os._exit(0)  # whatever a mutant has left running


class _Recorder:
    """Records the lines of a package that run, by what the interpreter tells of each line once (PEP 669).

    In processes that a check starts `tools.mutants.site.sitecustomize` does it.
    """

    def __init__(self, source: Path, omitted: tuple[str, ...]) -> None:
        self._monitoring: Any = getattr(sys, "monitoring", None)
        if self._monitoring is None:
            raise SystemExit("the lines that a check runs can be recorded from Python 3.12 on")
        self._prefix = f"{source}{os.sep}"
        self._omitted = tuple(f"{self._prefix}{name}{os.sep}" for name in omitted)
        self._found: set[tuple[str, int]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="wsbridge-mutants-lines-")
        os.environ |= {"WSBRIDGE_MUTANTS_LINES": self._folder.name, "WSBRIDGE_MUTANTS_PACKAGE": self._prefix}
        self._monitoring.use_tool_id(self._monitoring.COVERAGE_ID, "wsbridge-mutants")
        self._monitoring.register_callback(self._monitoring.COVERAGE_ID, self._monitoring.events.LINE, self._line)

    def _line(self, code: CodeType, line: int) -> Any:
        file = code.co_filename
        if file.startswith(self._prefix) and not file.startswith(self._omitted):
            self._found.add((file, line))
        return self._monitoring.DISABLE

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    @contextlib.contextmanager
    def recording(self) -> Generator[None]:
        self._found.clear()
        self._monitoring.set_events(self._monitoring.COVERAGE_ID, self._monitoring.events.LINE)
        self._monitoring.restart_events()
        try:
            yield
        finally:
            self._monitoring.set_events(self._monitoring.COVERAGE_ID, 0)

    def lines(self) -> dict[str, list[int]]:
        """Return the numbers of the lines by the path in the package; those of processes that were started, too."""
        for path in Path(self._folder.name).iterdir():
            for entry in path.read_text(encoding="utf-8").splitlines():
                file, _, number = entry.partition("\t")
                if not file.startswith(self._omitted):
                    self._found.add((file, int(number)))
            path.unlink()
        found: dict[str, list[int]] = {}
        for file, line in sorted(self._found):
            found.setdefault(file.removeprefix(self._prefix).replace(os.sep, "/"), []).append(line)
        return found


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
