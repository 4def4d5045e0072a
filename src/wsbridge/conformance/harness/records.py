"""The record of the wire in a failed check's result: of each connection, with the place where it failed."""

from __future__ import annotations

from collections.abc import Sequence

from wsbridge.conformance.client import LogEntry, WireLog
from wsbridge.conformance.harness.bench import Bench

__all__ = ["FAILED_HERE", "record"]

FAILED_HERE = "the check failed here"
"""The note that stands in the record of the connection that a failure is about."""

_DEEP = 8  # exceptions behind one another that are looked at for the connection that they are about


def record(bench: Bench, error: BaseException | None) -> tuple[str, dict[str, list[LogEntry]]]:
    """Return the connection that a failure is about, "" if there is none, and the record of each connection.

    It is the one whose peer raised the error, or else the last on which anything had happened by then.

    Args:
        bench: That of the check.
        error: What the check failed by, None if it was found out afterwards.
    """
    logs = {f"{number} {name}": log for number, (name, log) in enumerate(bench.wire_logs, 1)}
    moment: float | None = getattr(error, "moment", None)
    own = _log_of(error)
    about = next((name for name, log in logs.items() if log is own), "") or _last_used(logs, moment)
    return about, {name: _entries(log, moment if name == about else None) for name, log in logs.items()}


def _log_of(error: BaseException | None) -> WireLog | None:
    """Return the log of the peer that raised an error, or what the error was raised for; of a group, of its first."""
    for _ in range(_DEEP):
        if error is None:
            break
        log: WireLog | None = getattr(error, "log", None)
        if isinstance(log, WireLog):
            return log
        members: Sequence[BaseException] = getattr(error, "exceptions", ())
        error = members[0] if members else error.__cause__ or error.__context__
    return None


def _last_used(logs: dict[str, WireLog], moment: float | None) -> str:
    """Return the connection on which anything went over the wire last, up to a moment."""
    used: dict[str, float] = {}
    for name, log in logs.items():
        until = None if moment is None else log.since_start(moment)
        times = [e.at for e in log.entries if e.direction != "note" and (until is None or e.at <= until)]
        if times:
            used[name] = times[-1] - log.since_start(0.0)
    return max(used, key=lambda name: used[name], default=next(iter(logs), ""))


def _entries(log: WireLog, moment: float | None) -> list[LogEntry]:
    """Return the entries, with a note of how many are gone, and one where the check failed, if it is told when."""
    gone = log.total - len(log.entries)
    entries = [*([LogEntry(0.0, "note", 0, f"{gone} earlier entries are gone")] if gone else []), *log.entries]
    if moment is not None:
        at = log.since_start(moment)
        behind = next((index for index, entry in enumerate(entries) if entry.at > at), len(entries))
        entries.insert(behind, LogEntry(at, "note", 0, FAILED_HERE))
    return entries
