"""Why a channel ended: codes, names and the record that ``on_close`` gets."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["BEGUN", "PORTABLE_NAMES", "CloseReason", "Initiator", "check_close", "close_reason", "is_valid_close_code"]

Initiator = Literal["peer", "local", "network"]

MAX_CLOSE_TEXT = 123  # a control frame holds 125 bytes, two of them are the code (RFC 6455, 5.5)

PORTABLE_NAMES: Mapping[int, str] = MappingProxyType(
    {
        1000: "normal",
        1001: "going-away",
        1002: "protocol-error",
        1003: "unsupported",
        1005: "no-status-received",
        1006: "abnormal",
        1007: "invalid-payload-data",
        1008: "policy-violation",
        1009: "message-too-big",
        1010: "mandatory-extension",
        1011: "internal-server-error",
        1012: "service-restart",
        1013: "try-again-later",
        1014: "bad-gateway",
        1015: "tls-handshake",
    }
)
"""Close codes and their portable keywords, as Pedestal spells them (CLOSE-9)."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """How a channel ended, the same on every connector (CLOSE-6, CLOSE-7).

    Attributes:
        code: The close code of RFC 6455, 7.4; 1005 for an empty close frame, 1006 for none.
        text: The text beside the code, or "".
        initiator: Who ended it: ``"peer"``, ``"local"`` (this side) or ``"network"`` (a loss).
        name: The portable keyword of the code, such as ``"going-away"``.
        keyword: The connector's own keyword, spelled as its server names the code.

    ``str(reason)`` is the keyword. Pedestal: the ``reason`` argument of ``:on-close``.
    """

    code: int
    text: str
    initiator: Initiator
    name: str
    keyword: str

    def __str__(self) -> str:
        return self.keyword


def close_reason(code: int, text: str, initiator: Initiator, keywords: Mapping[int, str]) -> CloseReason:
    """Make the reason for ``code``, named by the connector's table ``keywords`` (CLOSE-9).

    ``code`` may be of a server's own `enum.IntEnum`; the reason's is a plain int, which prints as its digits (CLOSE-6).
    """
    code = int(code)
    name = PORTABLE_NAMES.get(code)
    if name is None:
        name = "registered" if 3000 <= code <= 3999 else "private" if 4000 <= code <= 4999 else "unknown"
    return CloseReason(code, text, initiator, name, keywords.get(code, name))


def is_valid_close_code(code: int) -> bool:
    """Tell whether ``code`` may stand in a close frame (RFC 6455, 7.4; 1012 to 1014 are registered)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def check_close(code: int, text: str) -> int:
    """Check the arguments of ``close`` and return the code as a plain ``int`` (CLOSE-2).

    Raises:
        TypeError: ``code`` is not an int (a bool does not count), or ``text`` not a str.
        ValueError: The code may not be sent, or the text is over 123 UTF-8 bytes or not encodable.
    """
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"close code must be an int, not {type(code).__name__}")
    if not isinstance(text, str):
        raise TypeError(f"close text must be a str, not {type(text).__name__}")
    if not is_valid_close_code(code):
        raise ValueError(f"close code {int(code)} may not be sent; use 1000-1003, 1007-1014 or 3000-4999")
    if (size := len(text.encode())) > MAX_CLOSE_TEXT:
        raise ValueError(f"close text is {size} UTF-8 bytes long; a close frame holds {MAX_CLOSE_TEXT}")
    return int(code)


class _Begun:
    """What ``close`` returns: it may be awaited, any number of times, and need not be."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield  # one turn of the event loop, as a send may take; there is nothing to wait for

    def __repr__(self) -> str:
        return "<the close has begun; await it, or leave it>"


BEGUN: Final[Awaitable[None]] = _Begun()
"""The one of its kind, so that a close costs no object."""
