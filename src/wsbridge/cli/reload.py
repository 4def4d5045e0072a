"""``wsbridge serve --reload``: a fresh process after each change of a Python file."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Collection
from pathlib import Path

from wsbridge._process.activation import notify
from wsbridge._process.signals import SIGHUP
from wsbridge.cli.exit_codes import Exit
from wsbridge.cli.failure import Failure
from wsbridge.cli.logs import log_to_stderr
from wsbridge.cli.serve_options import ServeCommand
from wsbridge.cli.workers import Child

__all__ = ["serve_reloading"]

POLL_MS = 200  # how often the watcher looks after its child
_FIXABLE = frozenset((Exit.MODULE_FAILED, Exit.NO_ATTRIBUTE, Exit.NO_APPLICATION))
"""Exit codes of a child that an edit of the application may put right."""

logger = logging.getLogger("wsbridge.reload")


def serve_reloading(command: ServeCommand) -> int:
    """Serve in a fresh process, and in another after each change, until a signal; return the exit code.

    Raises:
        Failure: watchfiles is not installed.
    """
    try:
        import watchfiles
    except ModuleNotFoundError as exc:
        line = '--reload needs watchfiles, which is not installed. Run: pip install ".[reload]"'
        raise Failure(Exit.NO_EXTRA, line, debug=command.debug) from exc
    log_to_stderr(debug=command.debug)
    reloader = _Reloader(command)
    reloader.hear_signals()
    try:
        # the watch begins before the first child, so that no change between the two is missed
        for changes in watchfiles.watch(
            Path(command.app_dir).resolve(),
            watch_filter=watchfiles.PythonFilter(),
            stop_event=reloader.stop,
            rust_timeout=POLL_MS,
            yield_on_timeout=True,
        ):
            code = reloader.look_after_child({path for _, path in changes})
            if code is not None:
                return code
    finally:
        reloader.end()
    return Exit.OK


class _Reloader:
    """The child that serves now."""

    def __init__(self, command: ServeCommand) -> None:
        self.stop = threading.Event()
        self._command = command
        self._child: Child | None = None
        self._fixable = _FIXABLE
        self._is_waiting = False

    def hear_signals(self) -> None:
        """End at SIGINT, SIGTERM and SIGHUP; with a certificate the child is told of a SIGHUP instead."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._interrupt)
        if SIGHUP is not None and signal.getsignal(SIGHUP) != signal.SIG_IGN:
            signal.signal(SIGHUP, self._interrupt if self._command.certfile is None else self._pass_on)

    def _interrupt(self, signum: int, frame: object) -> None:
        self.stop.set()

    def _pass_on(self, signum: int, frame: object) -> None:
        if self._child is not None:
            self._child.signal(signum)

    def look_after_child(self, changed: Collection[str]) -> int | None:
        """Start the child, again if files have changed; return the exit code if that is the end."""
        if self._child is not None and changed:
            logger.info("%s changed; starting again", ", ".join(sorted(Path(path).name for path in changed)))
            self._child.end()
            self._child = None
            self._fixable = _FIXABLE | {Exit.NO_MODULE}  # an editor may be about to put the file back
        if self._child is None:
            command = self._command
            self._child = Child(command.arguments(), command.patience, descriptors=command.descriptors)
            self._is_waiting = False
        if self._child.has_reported():
            notify("READY=1")
        code = self._child.exit_code()
        if code is not None and code not in self._fixable:
            return code if code >= 0 else 128 - code
        if code is not None and not self._is_waiting:
            self._is_waiting = True
            logger.info("waiting for a change")
        return None

    def end(self) -> None:
        """Tell systemd, and end the child."""
        notify("STOPPING=1")
        if self._child is not None:
            self._child.end()
