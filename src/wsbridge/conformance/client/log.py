"""What went over the wire, for the report of a failure."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["KEPT", "Direction", "LogEntry", "WireLog", "head_text", "hex_lines", "shortened"]

KEPT = 64
"""Bytes that an entry keeps of what was on the wire."""

Direction: TypeAlias = Literal["sent", "received", "note"]


def shortened(text: str, limit: int = 300) -> str:
    """Return the beginning of a text, up to `limit` characters."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def head_text(raw: bytes) -> str:
    """Return the head of a request or a response on one line, its own lines apart by ``|``, and nothing hidden."""
    head, end, _ = raw.partition(b"\r\n\r\n")
    lines = [repr(line.decode("latin-1"))[1:-1] for line in head.split(b"\r\n")]
    return " | ".join(lines) + ("" if end else " (unfinished)")


def hex_lines(data: str, *, width: int = 16) -> list[str]:
    """Return bytes as an editor shows them: in hexadecimal, and what of them can be printed as ASCII.

    Args:
        data: The bytes in hexadecimal, as `LogEntry.data` has them.
        width: How many bytes a line has.
    """
    raw = bytes.fromhex(data)
    lines: list[str] = []
    for start in range(0, len(raw), width):
        piece = raw[start : start + width]
        printed = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{piece.hex(' '):<{3 * width - 1}}  {printed}")
    return lines


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a `WireLog`.

    Attributes:
        at: Seconds since the log's start.
        direction: ``sent`` and ``received`` as the client sees it; a note is about the connection itself.
        size: Bytes on the wire.
        text: What they were.
        data: The first `KEPT` of them in hexadecimal, masked as they were sent; "" where there are none.
    """

    at: float
    direction: Direction
    size: int
    text: str
    data: str = ""

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.at:9.4f} {self.direction:<8} {self.size:>8} B  {self.text}"


class WireLog:
    """What went over the wire, in bounded memory: texts and bytes are shortened, and of the entries `limit` are kept.

    Times count from when the log was made, which `WirePeer.open` does unless it is given one.
    """

    def __init__(self, *, limit: int = 1000) -> None:
        """Start the clock."""
        self.entries: deque[LogEntry] = deque(maxlen=limit)
        self.total = 0
        self._origin = time.perf_counter()

    def add(self, direction: Direction, size: int, text: str, data: bytes | bytearray = b"") -> None:
        """Add an entry, shortened: of ``data``, which was on the wire, the beginning is kept."""
        self.total += 1
        at = time.perf_counter() - self._origin
        self.entries.append(LogEntry(at, direction, size, shortened(text), data[:KEPT].hex()))

    def since_start(self, moment: float) -> float:
        """Return a moment of `time.perf_counter` as the entries count it: in seconds since the log's start."""
        return moment - self._origin

    def lines(self) -> list[str]:
        """Return the log for people, one line an entry."""
        gone = self.total - len(self.entries)
        lines = [f"({gone} earlier entries are gone)"] if gone else []
        return lines + [str(entry) for entry in self.entries]

    def to_json(self) -> list[dict[str, float | int | str]]:
        """Return the log for `json.dumps`, one object an entry."""
        return [
            {"at": round(e.at, 6), "direction": e.direction, "size": e.size, "text": e.text, "data": e.data}
            for e in self.entries
        ]
