"""Checks in a process of their own: `CheckProcess`, and ``python -m`` this module, which it starts.

Jobs go to its stdin, one JSON object a line, and answers come from what was its stdout, one for each. What the
connector itself writes on stdout is noticed and fails the check, whose process is none the worse for it. One that
hangs or dies is replaced, so that no connector can end the run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import IO, Any, Self

from wsbridge.conformance import lateness
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.conditions import PLAIN, Conditions
from wsbridge.conformance.harness.execution import run_check, watchdog_limit
from wsbridge.conformance.harness.target import (
    BrokenTargetError,
    SuiteTarget,
    TargetError,
    TargetInfo,
    describe,
    resolve,
)
from wsbridge.conformance.harness.verdicts import Cause, CheckResult, Verdict

__all__ = ["MODEL_LIMIT", "CheckProcess"]

START_LIMIT = 30.0  # seconds for the interpreter and the import of a connector
MODEL_LIMIT = 300.0  # seconds for the random model, beside its sequences
_SEQUENCE = 3.0  # seconds for each of them
_GRACE = 5.0  # seconds, times the scale, after the process's own watchdog
_LAST_WORDS = 2.0  # seconds, times a scale below 1, before a process is killed
_POLL = 0.5  # seconds between looks at whether the process lives
_SHOWN = 4000  # characters of what the process wrote


class CheckProcess:
    """Runs checks against one target in a subprocess, which is started when it is needed.

    Use it as a context manager: its end is the end of the process.
    """

    def __init__(self, spec: str, *, scale: float = 1.0, conditions: Conditions = PLAIN) -> None:
        self._spec = spec
        self._scale = scale
        self._conditions = conditions
        self._process: _Subprocess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and those that it started."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def info(self) -> TargetInfo:
        """Start the process and return what the target says of itself.

        Raises:
            TargetError: It is not a target, or nobody is there.
            BrokenTargetError: It cannot be imported.
        """
        self.close()
        process = _Subprocess()
        self._process = process
        limit = START_LIMIT * max(1.0, self._scale)
        try:
            job = {"target": self._spec, "scale": self._scale, "conditions": self._conditions.chosen}
            answer = process.ask(job, limit)
        except _Silent as exc:
            self.close()
            raise BrokenTargetError(f"importing the connector {exc}", exc.output) from None
        except BaseException:
            self.close()
            raise
        if "info" in answer:
            return TargetInfo(**answer["info"])
        self.close()
        if "target" in answer:
            raise TargetError(answer["target"])
        raise BrokenTargetError(answer["broken"], answer["details"])

    def run(self, check: Check, scale: float | None = None, *, conditions: Conditions | None = None) -> CheckResult:
        """Run one check; a process that it hung, killed or soiled is replaced by a new one.

        Args:
            check: The check.
            scale: Stretches its time limits, if others than the process's are.
            conditions: What it is run under, if others than the process's are.
        """
        scale = self._scale if scale is None else scale
        limit = watchdog_limit(check, scale) + _GRACE * max(0.4, scale)
        chosen = (self._conditions if conditions is None else conditions).chosen
        job = {"check": check.id, "module": check.run.__module__, "scale": scale, "limit": limit, "conditions": chosen}
        return self._run(job, check.id, check.rule, limit)

    def run_model(self, check: str, scale: float | None = None, *, sequences: int, seed: int) -> CheckResult:
        """Play the random model, whose result stands under the id ``check``; see `Session.run_model`."""
        scale = self._scale if scale is None else scale
        limit = (MODEL_LIMIT + _SEQUENCE * sequences) * max(1.0, scale)
        job = {"model": {"sequences": sequences, "seed": seed}, "scale": scale, "limit": limit}
        return self._run(job, check, check.partition("/")[0], limit)

    def _run(self, job: dict[str, Any], check: str, rule: str, limit: float) -> CheckResult:
        if self._process is None:
            try:
                self.info()
            except TargetError as exc:
                return CheckResult(check, rule, Verdict.FAIL, 0.0, str(exc), cause="error")
        assert self._process is not None
        started = time.perf_counter()
        try:
            with lateness.followed(self._process.pid):
                result = CheckResult.from_json(self._process.ask(job, limit))
        except _Silent as exc:
            self.close()
            seconds = round(time.perf_counter() - started, 4)
            return CheckResult(
                check, rule, Verdict.FAIL, seconds, f"the check {exc}", cause=exc.cause, output=exc.output
            )
        except BaseException:
            self.close()
            raise
        if result.verdict is Verdict.FAIL:
            result = replace(result, output=self._process.output())
            if result.cause in ("hang", "left-over"):
                self.close()
        return result


class _Silent(Exception):
    """The process gave no answer: it hangs, or has died."""

    def __init__(self, message: str, cause: Cause, output: str) -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.output = output


class _Subprocess:
    """One subprocess, and what it says."""

    def __init__(self) -> None:
        self._written: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "wsbridge.conformance.harness.check_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._written,
            env=environ,
            start_new_session=True,  # so that its children can be ended with it, and ^C reaches this process alone
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="wsbridge-conformance-checks", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def ask(self, job: dict[str, Any], limit: float) -> dict[str, Any]:
        """Send a job and return the answer.

        Raises:
            _Silent: There is none within ``limit`` seconds.
        """
        assert self._process.stdin is not None
        deadline = lateness.Deadline(limit)
        # the write fails if the process has died since: then there is no answer either
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        while True:
            line = self._line(min(_POLL, deadline.left()))
            if not line and (status := self._process.poll()) is not None:
                line = self._line(0.1)  # what it said at the last
                if not line:
                    raise _Silent(f"ended its process {_by(status)}", "death", self.output())
            if line:
                break
            if deadline.left() <= 0:
                raise _Silent(f"hung: its process was killed after {limit:g} s", "hang", self.output())
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise _Silent(f"wrote garbage over its result: {line[:60]!r}", "death", self.output()) from None
        return answer

    def _line(self, timeout: float) -> bytes:
        try:
            return self._answers.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return b""

    def output(self) -> str:
        """Return the last that the process wrote on stderr."""
        size = self._written.seek(0, os.SEEK_END)
        self._written.seek(max(0, size - _SHOWN))
        return self._written.read().decode(errors="replace")

    def end(self) -> None:
        """Kill the process and whatever it has started, and wait for it."""
        # a process that has ended may have left others of its group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._written.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._reader.join(_POLL)
        if not self._reader.is_alive():  # else a process that got away holds the other end, and closing would wait too
            self._process.stdout.close()


def _by(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


# ---- in the subprocess ----------------------------------------------------------------------------------------------


def main() -> None:
    """Answer jobs until there are none."""
    faulthandler.enable()  # a process that dies tells where
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing, tempfile.TemporaryFile() as stdout, jobs, answers:
        os.dup2(nothing.fileno(), 0)
        os.dup2(stdout.fileno(), 1)
        target: SuiteTarget | None = None
        for line in jobs:
            job = json.loads(line)
            scale: float = job["scale"]
            if target is None:
                target, answer = _loaded(job["target"], scale, Conditions(**job["conditions"]))
            else:
                # one that is killed in the end tells where it hangs before
                faulthandler.dump_traceback_later(job["limit"] - _LAST_WORDS * min(1.0, scale))
                run = partial(_model if "model" in job else _check, job, target, scale)
                answer = _guarded(run, stdout)
                faulthandler.cancel_dump_traceback_later()
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _loaded(spec: str, scale: float, conditions: Conditions) -> tuple[SuiteTarget | None, dict[str, Any]]:
    try:
        target = replace(resolve(spec), conditions=conditions)
        answer = {"info": describe(target, spec, scale=scale).to_json()}
    except BrokenTargetError as exc:
        return None, {"broken": str(exc), "details": exc.details}
    except TargetError as exc:
        return None, {"target": str(exc)}
    all_checks()
    # each check collects garbage twice: what is there for good need not be looked at each time
    gc.collect()
    gc.freeze()
    return target, answer


def _check(job: dict[str, Any], target: SuiteTarget, scale: float) -> CheckResult:
    importlib.import_module(job["module"])  # which may be a project's own, with checks beside the suite's
    checks = {check.id: check for check in all_checks()}
    if (check := checks.get(job["check"])) is None:
        message = (
            f"this check is not to be found in a process of its own: importing {job['module']} does not register it"
        )
        return CheckResult(job["check"], job["check"].partition("/")[0], Verdict.FAIL, message=message, cause="error")
    target = replace(target, conditions=Conditions(**job["conditions"]))
    return run_check(check, target, scale=scale, again=False)  # which is for whoever sees all of it to decide


def _model(job: dict[str, Any], target: SuiteTarget, scale: float) -> CheckResult:
    from wsbridge.conformance.harness.model import run_model  # hypothesis takes its time to import

    with lateness.measured():
        return run_model(target, scale=scale, **job["model"])


def _guarded(run: Callable[[], CheckResult], stdout: IO[bytes]) -> dict[str, Any]:
    """Run a check; it fails if anything was written on stdout meanwhile."""
    _flush()
    before = os.fstat(stdout.fileno()).st_size
    result = run()
    _flush()
    size = os.fstat(stdout.fileno()).st_size - before
    if size and result.verdict is not Verdict.FAIL:
        start = os.pread(stdout.fileno(), 60, before)
        message = f"{size} bytes were written on stdout: {start!r}{'...' if size > len(start) else ''}"
        result = replace(result, verdict=Verdict.FAIL, message=message, cause="left-over")
    return result.to_json()


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):  # a connector may have closed it
        sys.stdout.flush()


if __name__ == "__main__":
    main()
