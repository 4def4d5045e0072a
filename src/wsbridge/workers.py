"""Processes that serve: a child that never outlives its parent, and the supervisor of several that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import NoReturn

__all__ = ["Child", "Supervisor", "watch_supervisor"]

SUPERVISED_ENV = "WSBRIDGE_SUPERVISOR_FD"
GRACE = 5.0  # seconds that a child has beyond what it was told, before it is killed
FIRST_DELAY = 0.5  # seconds before a worker that died is replaced; doubled each time it dies young
LAST_DELAY = 30.0
SETTLED_AFTER = 10.0  # seconds: a worker that lived so long died of something new
_STOPPED = frozenset((0, -signal.SIGINT, -signal.SIGTERM))

logger = logging.getLogger("wsbridge.workers")


class Child:
    """A process of ``wsbridge``. It ends with this one, however that ends: by SIGTERM, or when its pipe closes.

    Args:
        arguments: What follows ``wsbridge`` on its command line.
        patience: Seconds that it may take to end.
        apart: Whether the terminal's signals shall not reach it.
    """

    def __init__(self, arguments: Sequence[str], patience: float, *, apart: bool = False) -> None:
        self._patience = patience + GRACE
        read_end, self._pipe = os.pipe()
        try:
            # -P: a module in the current directory must not stand in for one that wsbridge imports
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "wsbridge.cli", *arguments],
                pass_fds=(read_end,),
                env={**os.environ, SUPERVISED_ENV: f"{read_end} {self._patience}"},
                process_group=0 if apart else None,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(read_end)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the exit code, minus the signal's number if one ended it, or None while it runs."""
        return self._process.poll()

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
        self.forget()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Let go of one that has ended."""
        os.close(self._pipe)


def watch_supervisor() -> bool:
    """In a `Child`: end when the other end of its pipe closes, so that none is left over.

    Returns:
        Whether this process is one.
    """
    value = os.environ.pop(SUPERVISED_ENV, None)
    if value is None:
        return False
    pipe, patience = value.split()

    def wait(pipe: int, patience: float) -> NoReturn:
        with contextlib.suppress(OSError):
            os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        os._exit(1)  # a callback that blocks the event loop hears no signal

    os.set_inheritable(int(pipe), False)
    arguments = (int(pipe), float(patience))
    threading.Thread(target=wait, args=arguments, name="wsbridge-supervisor", daemon=True).start()
    return True


class _Worker:
    """A place for a child, and the child that has it now."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.is_first = True
        self.born = 0.0
        self.due = 0.0
        self.delay = FIRST_DELAY


class Supervisor:
    """Keeps workers running until SIGINT or SIGTERM, which it passes on; then it waits for them.

    A worker that dies is replaced after a delay, which grows while its successors die young. One whose first process
    ends with a code of ``hopeless`` ends them all: the next would fare no better.

    Args:
        start: Starts a worker.
        count: How many there shall be.
        patience: Seconds that they have to end after a signal; who has not ended then is killed.
        hopeless: Exit codes of a worker that cannot be started.
    """

    def __init__(
        self, start: Callable[[], Child], count: int, *, patience: float, hopeless: Collection[int] = ()
    ) -> None:
        self._start = start
        self._workers = [_Worker() for _ in range(count)]
        self._patience = patience + GRACE
        self._hopeless = hopeless
        self._exit_code = 0
        self._deadline: float | None = None  # for all to have ended, once they are told to

    async def run(self) -> int:
        """Supervise until every worker has ended; return the exit code.

        That is the code of a hopeless worker, 1 if one had to be killed or failed while it stopped, or 0.
        """
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        with self._signals():
            try:
                while self._deadline is None or any(worker.child is not None for worker in self._workers):
                    self._changed.clear()
                    for worker in self._workers:
                        self._look_after(worker)
                    now = self._loop.time()
                    dues = [worker.due for worker in self._workers if worker.child is None]
                    wake = self._deadline if self._deadline is not None else min(dues, default=None)
                    if self._deadline is not None and now >= self._deadline:
                        self._kill_all()
                        continue
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(wake):
                            await self._changed.wait()
            finally:
                self._kill_all()
        return self._exit_code

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        passed_on = (signal.SIGINT, signal.SIGTERM)
        for signum in passed_on:
            self._loop.add_signal_handler(signum, self._stop, signum)
        self._loop.add_signal_handler(signal.SIGCHLD, self._changed.set)
        try:
            yield
        finally:
            for signum in (*passed_on, signal.SIGCHLD):
                self._loop.remove_signal_handler(signum)

    def _stop(self, signum: int) -> None:
        """Pass a signal on, and take it that all shall end."""
        if self._deadline is None:
            self._deadline = self._loop.time() + self._patience
        for worker in self._workers:
            if worker.child is not None:
                worker.child.signal(signum)
        self._changed.set()

    def _look_after(self, worker: _Worker) -> None:
        if worker.child is not None:
            code = worker.child.exit_code()
            if code is None:
                return
            worker.child.forget()
            pid, worker.child = worker.child.pid, None
            self._ended(worker, pid, code)
        if self._deadline is None and self._loop.time() >= worker.due:
            worker.child = self._start()
            worker.born = self._loop.time()

    def _ended(self, worker: _Worker, pid: int, code: int) -> None:
        if self._deadline is not None:
            if code not in _STOPPED and not self._exit_code:
                logger.error("worker %d ended with %s", pid, _described(code))
                self._exit_code = 1
            return
        if worker.is_first and code in self._hopeless:
            self._exit_code = code
            self._stop(signal.SIGTERM)
            return
        worker.is_first = False
        now = self._loop.time()
        if now - worker.born >= SETTLED_AFTER:
            worker.delay = FIRST_DELAY
        worker.due = now + worker.delay
        logger.error("worker %d ended with %s; another starts in %g s", pid, _described(code), worker.delay)
        worker.delay = min(2 * worker.delay, LAST_DELAY)

    def _kill_all(self) -> None:
        for worker in self._workers:
            if worker.child is not None:
                if worker.child.exit_code() is None:
                    logger.error("worker %d does not end; it is killed", worker.child.pid)
                    worker.child.kill()
                    self._exit_code = self._exit_code or 1
                worker.child.forget()
                worker.child = None


def _described(code: int) -> str:
    """Return what ended a process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
