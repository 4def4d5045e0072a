"""The console script ``wsbridge``, outside of the package: signals are heard before that is imported (STOP-11).

To process 1 of a container the kernel delivers no signal without a handler, and an import may take seconds where there
is little CPU. `wsbridge._process.signals.end_at_signals` takes over in ``wsbridge serve``.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["serve"]:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _end)
    from wsbridge.cli import main as run

    run()


def _end(signum: int, frame: object) -> None:
    raise SystemExit(0)
