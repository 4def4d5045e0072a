"""Processes that serve: a child that never outlives its parent, and the supervisor of several that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NoReturn

from wsbridge._process.activation import notify
from wsbridge._process.signals import handling, held_back

__all__ = ["Child", "Supervisor", "watch_supervisor"]

SUPERVISED_ENV = "WSBRIDGE_SUPERVISOR_FD"
MARGIN = 5.0  # seconds that a child has beyond what it was told, before it is killed
FIRST_DELAY = 0.5  # seconds before a worker that died is replaced; doubled each time it dies young
LAST_DELAY = 30.0
SETTLED_AFTER = 10.0  # seconds: a worker that lived that long died of something new
_STOPPED = frozenset((0, -signal.SIGINT, -signal.SIGTERM))

logger = logging.getLogger("wsbridge.cli.workers")


class Child:
    """A process of ``wsbridge``. It ends with this one, however that ends: by SIGTERM, or when its line is cut.

    Args:
        arguments: What follows ``wsbridge`` on its command line.
        patience: Seconds that it may take to end.
        apart: Whether the terminal's signals shall not reach it.
        descriptors: What it shall have open too, under the same numbers.
    """

    def __init__(
        self, arguments: Sequence[str], patience: float, *, apart: bool = False, descriptors: Sequence[int] = ()
    ) -> None:
        self._patience = patience + MARGIN
        self.line, other_end = socket.socketpair()
        self.line.setblocking(False)
        try:
            environment = {**os.environ, SUPERVISED_ENV: f"{other_end.fileno()} {self._patience}"}
            environment.pop("NOTIFY_SOCKET", None)  # this process tells it
            with held_back():
                # -P: a module in the current directory must not stand in for one that wsbridge imports
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "wsbridge.cli", *arguments],
                    pass_fds=(other_end.fileno(), *descriptors),
                    env=environment,
                    process_group=0 if apart else None,
                )
        except BaseException:
            self.line.close()
            raise
        finally:
            other_end.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the exit code, minus the signal's number if one ended it, or None while it runs."""
        return self._process.poll()

    def has_reported(self) -> bool:
        """Tell whether it has said that it serves, since this was asked last."""
        try:
            return bool(self.line.recv(1))
        except OSError:
            return False

    def signal(self, signum: int) -> None:
        """Send a signal, if it still runs."""
        self._process.send_signal(signum)

    def end(self) -> None:
        """Stop it, and return when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._patience)
            except subprocess.TimeoutExpired:
                self.kill()
        self.line.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


def watch_supervisor() -> Callable[[], object] | None:
    """In a `Child`: end when the other end of its line is closed, so that none is left over.

    Returns:
        What tells the parent that this process serves; None if this is not a child.
    """
    value = os.environ.pop(SUPERVISED_ENV, None)
    if value is None:
        return None
    descriptor, patience = value.split()
    line = socket.socket(fileno=int(descriptor))
    line.set_inheritable(False)

    def watch() -> NoReturn:
        with contextlib.suppress(OSError):
            line.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(float(patience))
        os._exit(1)  # a callback that blocks the event loop hears no signal

    def report() -> None:
        with contextlib.suppress(OSError):  # the parent has gone, which `watch` sees
            line.send(b"+")

    threading.Thread(target=watch, name="wsbridge-supervisor", daemon=True).start()
    return report


class _Worker:
    """A place for a child, and the child that has it now."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.born = 0.0
        self.due = 0.0
        self.delay = FIRST_DELAY


class Supervisor:
    """Keeps workers running until SIGINT, SIGTERM or SIGHUP, which it passes on; then it waits for them.

    The first goes ahead; the others start when it serves. If it ends before that with a code of ``hopeless``, they
    would fare no better, and that is the end. Any other that dies is replaced after a delay, which grows while its
    successors die young.

    Args:
        start: Starts a worker.
        count: How many there shall be.
        patience: Seconds that they have to end after a signal; one that has not ended then is killed.
        hopeless: Exit codes of a process that can never serve.
        reloads: Whether a SIGHUP, which is passed on, is not to end them.
        on_served: Called when the first of them serves.
    """

    def __init__(
        self,
        start: Callable[[], Child],
        count: int,
        *,
        patience: float,
        hopeless: Collection[int] = (),
        reloads: bool = False,
        on_served: Callable[[], object] | None = None,
    ) -> None:
        self._start = start
        self._workers = [_Worker() for _ in range(count)]
        self._patience = patience + MARGIN
        self._hopeless = hopeless
        self._reloads = reloads
        self._on_served = on_served
        self._exit_code = 0
        self._has_served = False
        self._deadline: float | None = None  # for all to have ended, once they are told to

    async def run(self) -> int:
        """Supervise until every worker has ended; return the exit code.

        That is the code of a hopeless worker, 1 if one had to be killed or failed while it stopped, or 0.
        """
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        with self._signals():
            try:
                while self._look_after_all():
                    dues = [worker.due for worker in self._expected if worker.child is None]
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(self._deadline or min(dues, default=None)):
                            await self._changed.wait()
                    self._changed.clear()
                    if self._deadline is not None and self._loop.time() >= self._deadline:
                        break
            finally:
                self._kill_all()
        return self._exit_code

    @property
    def _expected(self) -> list[_Worker]:
        """The workers that shall run by now."""
        return self._workers if self._has_served else self._workers[:1]

    def _signals(self) -> AbstractContextManager[None]:
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signum: partial(self._stop, signum) for signum in (signal.SIGINT, signal.SIGTERM)
        }
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            handlers[signal.SIGHUP] = partial(self._hang_up, signal.SIGHUP)
        handlers[signal.SIGCHLD] = self._changed.set
        return handling(handlers)

    def _hang_up(self, signum: int) -> None:
        if self._reloads:
            self._pass_on(signum)
        else:
            self._stop(signal.SIGTERM)  # which it means

    def _stop(self, signum: int) -> None:
        """Pass a signal on, and take it that all shall end."""
        if self._deadline is None:
            self._deadline = self._loop.time() + self._patience
            notify("STOPPING=1")
        self._pass_on(signum)
        self._changed.set()

    def _pass_on(self, signum: int) -> None:
        for worker in self._workers:
            if worker.child is not None:
                worker.child.signal(signum)

    def _look_after_all(self) -> bool:
        """Look after every worker; return whether there is more to do."""
        for worker in self._expected:
            self._look_after(worker)
        return self._deadline is None or any(worker.child is not None for worker in self._workers)

    def _look_after(self, worker: _Worker) -> None:
        child = worker.child
        if child is not None:
            if not self._has_served and child.has_reported():
                self._has_served = True
                self._changed.set()
                if self._on_served is not None:
                    self._on_served()
            code = child.exit_code()
            if code is None:
                return
            self._forget(worker, child)
            self._ended(worker, child.pid, code)
        if self._deadline is None and self._loop.time() >= worker.due:
            try:
                worker.child = child = self._start()
            except OSError as exc:
                self._postpone(worker, f"no worker can be started: {exc}")
                return
            worker.born = self._loop.time()
            if not self._has_served:
                self._loop.add_reader(child.line, self._report, child)

    def _report(self, child: Child) -> None:
        self._loop.remove_reader(child.line)
        self._changed.set()

    def _forget(self, worker: _Worker, child: Child) -> None:
        self._loop.remove_reader(child.line)
        child.line.close()
        worker.child = None

    def _ended(self, worker: _Worker, pid: int, code: int) -> None:
        if self._deadline is not None:
            if code not in _STOPPED:
                logger.error("worker %d ended with %s", pid, _described(code))
                self._exit_code = self._exit_code or 1
            return
        if not self._has_served and code in self._hopeless:
            self._exit_code = code
            self._stop(signal.SIGTERM)
            return
        if self._loop.time() - worker.born >= SETTLED_AFTER:
            worker.delay = FIRST_DELAY
        self._postpone(worker, f"worker {pid} ended with {_described(code)}")

    def _postpone(self, worker: _Worker, what: str) -> None:
        """Tell what happened, and have another started later."""
        logger.error("%s; another starts in %g s", what, worker.delay)
        worker.due = self._loop.time() + worker.delay
        worker.delay = min(2 * worker.delay, LAST_DELAY)

    def _kill_all(self) -> None:
        for worker in self._workers:
            if worker.child is not None:
                if worker.child.exit_code() is None:
                    logger.error("worker %d does not end; it is killed", worker.child.pid)
                    worker.child.kill()
                    self._exit_code = self._exit_code or 1
                self._forget(worker, worker.child)


def _described(code: int) -> str:
    """Return what ended a process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
