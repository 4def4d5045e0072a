"""What went over the wire, for the report of a failure."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Direction", "LogEntry", "WireLog", "shortened"]

Direction: TypeAlias = Literal["sent", "received", "note"]


def shortened(text: str, limit: int = 300) -> str:
    """Return the beginning of a text, up to `limit` characters."""
    return text if len(text) <= limit else f"{text[:limit]}..."


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a `WireLog`: seconds since its start, direction, bytes on the wire, and what they were."""

    at: float
    direction: Direction
    size: int
    text: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.at:9.4f} {self.direction:<8} {self.size:>8} B  {self.text}"


class WireLog:
    """What went over the wire, in bounded memory: texts are shortened, and of the entries `limit` are kept.

    Times count from when the log was made, which `WirePeer.open` does unless it is given one.
    """

    def __init__(self, *, limit: int = 1000) -> None:
        """Start the clock."""
        self.entries: deque[LogEntry] = deque(maxlen=limit)
        self.total = 0
        self._origin = time.perf_counter()

    def add(self, direction: Direction, size: int, text: str) -> None:
        """Add an entry, shortened."""
        self.total += 1
        self.entries.append(LogEntry(time.perf_counter() - self._origin, direction, size, shortened(text)))

    def lines(self) -> list[str]:
        """Return the log for people, one line an entry."""
        gone = self.total - len(self.entries)
        lines = [f"({gone} earlier entries are gone)"] if gone else []
        return lines + [str(entry) for entry in self.entries]

    def to_json(self) -> list[dict[str, float | int | str]]:
        """Return the log for `json.dumps`, one object an entry."""
        return [{"at": round(e.at, 6), "direction": e.direction, "size": e.size, "text": e.text} for e in self.entries]
