"""What may stand in the log of what a peer wrote (LOG-1, LOG-2)."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["MOST", "PeersLogger", "log_failure", "lower", "said", "shown"]

logger = logging.getLogger("wsbridge")

MOST = 100  # characters of what a peer wrote


def shown(text: str | bytes) -> str:
    """Return what a peer wrote, such as a path, for a log: a Python literal in ASCII, cut to 100 characters (LOG-2)."""
    return ascii(text) if len(text) <= MOST else f"{text[:MOST]!a}... ({len(text)} in all)"


def said(error: BaseException) -> str:
    """Return what an exception says for a log, as `shown` but without quotes: it may quote a peer."""
    text = str(error)
    escaped = ascii(text[:MOST])[1:-1]
    return escaped if len(text) <= MOST else f"{escaped}... ({len(text)} characters in all)"


def log_failure(who: str, channel: str, path: str, error: BaseException, *, by_peer: bool = False) -> None:
    """Log what ended a channel from inside (ERR-1).

    Args:
        who: What raised, such as ``"a callback"``.
        channel: The channel's id.
        path: Its request's.
        error: What was raised.
        by_peer: Whether the peer has caused it, by a message that is not what it should be (CODEC-2): then it is one
            line, a warning, without the traceback, which would quote the message. The record has it as ``error``.
    """
    if by_peer:
        what = "a message of channel %s (%s) was refused: %s"
        logger.warning(what, channel, shown(path), said(error), extra={"error": error})
    else:
        name = type(error).__name__
        logger.error("%s of channel %s (%s) raised %s", who, channel, shown(path), name, exc_info=error)


class PeersLogger(logging.Logger):
    """Stands for a logger of a server where it speaks of its peers alone.

    What anybody can cause, which is all below an error, has the level debug then (LOG-1); whoever looks for it finds
    it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.parent = self._native = logging.getLogger(name)

    def isEnabledFor(self, level: int) -> bool:
        return self._native.isEnabledFor(_lowered(level))

    def makeRecord(self, name: str, level: int, *arguments: Any, **options: Any) -> logging.LogRecord:
        return super().makeRecord(name, _lowered(level), *arguments, **options)


def lower(record: logging.LogRecord, logger: logging.Logger) -> bool:
    """For a filter of ``logger``: give a record that speaks of a peer alone the level debug, as `PeersLogger` does."""
    record.levelno = _lowered(record.levelno)
    record.levelname = logging.getLevelName(record.levelno)
    return logger.isEnabledFor(record.levelno)


def _lowered(level: int) -> int:
    return level if level >= logging.ERROR else min(level, logging.DEBUG)
