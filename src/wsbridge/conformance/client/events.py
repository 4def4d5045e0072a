"""What a peer receives: messages, control frames, and the end of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Binary", "Close", "Drained", "Eof", "Event", "Message", "Ping", "Pong", "Text"]


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message."""

    data: str


@dataclass(frozen=True, slots=True)
class Binary:
    """A whole binary message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    """The server's close frame; an empty one has code 1005."""

    code: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Eof:
    """The end of the stream, by an error if `reset`, after `partial` bytes of an unfinished frame."""

    reset: bool = False
    partial: int = 0


Message: TypeAlias = Text | Binary
Event: TypeAlias = Text | Binary | Ping | Pong | Close | Eof


@dataclass(frozen=True, slots=True)
class Drained:
    """What `WirePeer.drain` counted; `end` is why it stopped early, None if silence or a count stopped it."""

    messages: int
    payload_bytes: int
    end: Close | Eof | None
