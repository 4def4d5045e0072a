"""Signals: how a process is told to stop, from its first line on (STOP-11), and what a SIGHUP means (STOP-12)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from types import FrameType
from typing import Any

__all__ = ["SIGHUP", "STOPPING", "StopSignals", "Stopped", "end_at_signals", "handling", "held_back", "stop_signals"]

SIGHUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""None where there is no such signal."""

_SIGBREAK: signal.Signals | None = getattr(signal, "SIGBREAK", None)  # Ctrl-Break, and what ends a process on Windows

STOPPING: frozenset[signal.Signals] = frozenset(
    signum for signum in (signal.SIGINT, signal.SIGTERM, _SIGBREAK) if signum is not None
)
"""The signals that always mean the end."""

_ALL = STOPPING if SIGHUP is None else STOPPING | {SIGHUP}


class Stopped(SystemExit):
    """A signal came before anything was served. Where nobody catches it, the process ends with exit code 0."""


@contextlib.contextmanager
def end_at_signals(*, hangup: bool) -> Generator[Callable[[], None]]:
    """Raise `Stopped` from wherever the main thread is when a signal comes, while the block runs.

    For what comes before an event loop: to process 1 of a container the kernel delivers no signal without a handler.

    Args:
        hangup: Whether SIGHUP ends it too, unless it was ignored; otherwise it does nothing.

    Yields:
        What raises `Stopped` if a signal has come and what was run meanwhile caught the exception.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _nothing  # no signal comes here
        return
    has_come = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True
        raise Stopped(0)

    def check() -> None:
        if has_come:
            raise Stopped(0)

    handlers: dict[signal.Signals, Any] = dict.fromkeys(STOPPING, stop)
    if SIGHUP is not None and signal.getsignal(SIGHUP) != signal.SIG_IGN:  # nohup
        handlers[SIGHUP] = stop if hangup else _ignore
    before = {signum: signal.getsignal(signum) for signum in handlers}
    try:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)  # see `held_back`
        yield check
    finally:
        _give_back(before)


@contextlib.contextmanager
def held_back() -> Generator[None]:
    """Let no signal end what is started in the block before it has handlers: until `end_at_signals` they wait."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def handling(handlers: Mapping[signal.Signals, Callable[[], object]]) -> Generator[None]:
    """Call functions in the running event loop when signals come; at the end give each back to its former handler."""
    loop = asyncio.get_running_loop()
    before = {signum: signal.getsignal(signum) for signum in handlers}
    with contextlib.ExitStack() as stack:
        stack.callback(_give_back, before)
        try:
            for signum, handler in handlers.items():
                loop.add_signal_handler(signum, handler)
                stack.callback(loop.remove_signal_handler, signum)  # which sets the default, whatever was there
        except NotImplementedError:  # the loops of Windows
            stack.enter_context(_waking(loop))
            for signum, handler in handlers.items():
                signal.signal(signum, _in_loop(loop, handler))
        yield


def _in_loop(loop: asyncio.AbstractEventLoop, handler: Callable[[], object]) -> Callable[[int, FrameType | None], None]:
    def handle(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(handler)

    return handle


@contextlib.contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Wake the loop when a signal comes: a handler in Python runs only then, and ``select`` of Windows sleeps on."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        try:
            loop.add_reader(reader, _drain, reader)
        except NotImplementedError:  # asyncio.ProactorEventLoop, which is woken by its own
            yield
            return
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reader)


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        sock.recv(4096)


def _give_back(before: Mapping[signal.Signals, Any]) -> None:
    for signum, handler in before.items():
        if handler is not None:  # None: it was not set from Python
            signal.signal(signum, handler)


def _nothing() -> None:
    pass


def _ignore(signum: int, frame: FrameType | None) -> None:
    pass  # not SIG_IGN, which processes that are started meanwhile would inherit


class StopSignals(asyncio.Event):
    """Set by SIGINT, SIGTERM, and SIGHUP where it means a stop; ``interrupted`` by SIGINT alone."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = asyncio.Event()


@contextlib.contextmanager
def stop_signals(on_hangup: Callable[[], object] | None = None) -> Generator[StopSignals]:
    """Yield an event that SIGINT and SIGTERM set, instead of what they do otherwise.

    A second SIGINT cancels the block, which then ends without an exception. One that follows or precedes a SIGTERM does
    not: a supervisor may pass a SIGTERM on to a process that has the terminal's SIGINT too.

    Args:
        on_hangup: Called at each SIGHUP; None: SIGHUP is as SIGTERM, unless it was ignored, as by ``nohup``.
    """
    stop = StopSignals()
    block = asyncio.current_task()
    assert block is not None
    is_cut_short = False

    def interrupt() -> None:
        nonlocal is_cut_short
        if stop.interrupted.is_set() and not is_cut_short:
            is_cut_short = True
            block.cancel()
        stop.interrupted.set()
        stop.set()

    handlers: dict[signal.Signals, Callable[[], object]] = {
        **dict.fromkeys(STOPPING, stop.set),
        signal.SIGINT: interrupt,
    }
    if SIGHUP is not None and (on_hangup is not None or signal.getsignal(SIGHUP) != signal.SIG_IGN):
        handlers[SIGHUP] = on_hangup or stop.set
    with handling(handlers):
        try:
            yield stop
        except asyncio.CancelledError:
            if not is_cut_short or block.uncancel() > 0:
                raise
