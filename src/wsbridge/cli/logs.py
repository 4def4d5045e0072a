"""What the commands that serve write to stderr."""

from __future__ import annotations

import logging
import sys

__all__ = ["Formatter", "log_to_stderr"]


class Formatter(logging.Formatter):
    """Escapes what cannot be printed, and indents every line of a record but the first.

    An exception's text may hold what a peer has sent, and it must neither reach a terminal nor look like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        text = super().format(record)
        shown = (char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
        return "".join(shown).replace("\n", "\n    ")


def log_to_stderr(*, debug: bool, with_pid: bool = False) -> None:
    """Log wsbridge's own lines, and warnings of others; an application that has set up logging is left alone."""
    handler = logging.StreamHandler(sys.stderr)
    process = "[%(process)d] " if with_pid else ""
    handler.setFormatter(Formatter(f"%(asctime)s %(levelname)s {process}%(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if debug else logging.WARNING)
    logger = logging.getLogger("wsbridge")
    if logger.level == logging.NOTSET and not debug:
        logger.setLevel(logging.INFO)
