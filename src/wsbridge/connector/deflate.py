"""permessage-deflate (RFC 7692), as far as it is the same on every server: what is offered, and what is agreed on.

A connector asks `agree` what its 101 says, and tells its server that; no server reads an offer by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from wsbridge.http import Request
from wsbridge.options import Compression

__all__ = ["LARGE", "NAME", "Agreement", "agree"]

NAME = "permessage-deflate"
LARGE = 64 * 1024  # bytes: what is larger is deflated and inflated outside the event loop, where it can be (SEND-9)

Parameters: TypeAlias = Mapping[str, str | None]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, 5.6.2
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LEXEME = re.compile(rf'{_QUOTED}|"|[,;]|[^",;]+', re.DOTALL)
_PARAMETER = re.compile(rf"\s*({_TOKEN})\s*(?:=\s*({_TOKEN}|{_QUOTED})\s*)?")  # RFC 6455, 9.1
_ESCAPED = re.compile(r"\\(.)")
_VALUES: Mapping[str, frozenset[str | None]] = {  # RFC 7692, 7.1; zlib cannot deflate with a window of 8 bits
    "server_no_context_takeover": frozenset((None,)),
    "client_no_context_takeover": frozenset((None,)),
    "server_max_window_bits": frozenset(map(str, range(9, 16))),
    "client_max_window_bits": frozenset((None, *map(str, range(8, 16)))),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What both sides keep to, and what the 101 says of it (RFC 7692, 7.1).

    Attributes:
        server_no_context_takeover: Whether each message of this side stands alone.
        client_no_context_takeover: Whether each message of the peer does.
        server_max_window_bits: The window of this side, as a power of two: 9 to 15; None: nothing is said, and it is
            15.
        client_max_window_bits: As much for the peer's.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    @property
    def parameters(self) -> dict[str, str | None]:
        """The parameters of the 101's extension, by their names; None: one without a value."""
        said: dict[str, str | None] = {}
        for side in ("server", "client"):
            if getattr(self, f"{side}_no_context_takeover"):
                said[f"{side}_no_context_takeover"] = None
        for side in ("server", "client"):
            bits: int | None = getattr(self, f"{side}_max_window_bits")
            if bits is not None:
                said[f"{side}_max_window_bits"] = str(bits)
        return said

    def __str__(self) -> str:
        """Return the value of ``Sec-WebSocket-Extensions``."""
        said = [name if value is None else f"{name}={value}" for name, value in self.parameters.items()]
        return "; ".join((NAME, *said))


def agree(request: Request, compression: bool | Compression, *, window_bits: int | None = None) -> Agreement | None:
    """Return what is agreed on with a peer, by the first of its offers that can be taken (RFC 7692, 5.1).

    An offer with a parameter that is unknown, repeated or ill-formed is passed over, and so is a window that zlib
    cannot keep to; those after it count (FRAME-34, FRAME-53).

    Args:
        request: Its ``Sec-WebSocket-Extensions``, of all lines together, are the offers.
        compression: The option of the channel.
        window_bits: What the server's window is by default, and the peer's where that can be told; None: 15.

    Returns:
        None if no offer can be taken, or compression is off.
    """
    if compression is False:
        return None
    offer = next(_offers(", ".join(request.headers.getlist("Sec-WebSocket-Extensions"))), None)
    if offer is None:
        return None
    wanted = compression if isinstance(compression, Compression) else Compression()
    bits = window_bits if wanted.window_bits is None else wanted.window_bits
    stands_alone = wanted.context_takeover is False
    return Agreement(
        server_no_context_takeover=stands_alone or "server_no_context_takeover" in offer,
        client_no_context_takeover=stands_alone or "client_no_context_takeover" in offer,
        server_max_window_bits=_smaller(bits, offer.get("server_max_window_bits")),
        client_max_window_bits=_client_bits(bits, offer),
    )


def _client_bits(bits: int | None, offer: Parameters) -> int | None:
    """Return the window that the peer is told to keep to, which it must have offered (RFC 7692, 7.1.2.2)."""
    if "client_max_window_bits" not in offer:
        return None
    bits = _smaller(bits, offer["client_max_window_bits"])
    return None if bits == 8 else bits  # which not every server can be told, and which needs no telling


def _smaller(bits: int | None, offered: str | None) -> int | None:
    if offered is None:
        return bits
    return int(offered) if bits is None else min(bits, int(offered))


def _offers(header: str) -> Iterator[Parameters]:
    """Yield the parameters of each offer of deflate that can be taken."""
    for name, *parts in _elements(header):
        if name.strip() != NAME:
            continue
        matches = [match for match in map(_PARAMETER.fullmatch, parts) if match is not None]
        offer = {match[1]: _value(match[2]) for match in matches}
        if len(offer) == len(parts) and all(map(_is_known, offer.items())):
            yield offer


def _is_known(parameter: tuple[str, str | None]) -> bool:
    name, value = parameter
    return value in _VALUES.get(name, ())


def _value(text: str | None) -> str | None:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text and text[0] == '"' else text


def _elements(header: str) -> Iterator[list[str]]:
    """Yield each element of a list, cut at its semicolons; within a quoted string nothing is cut (RFC 9110, 5.6.4)."""
    parts = [""]
    for lexeme in _LEXEME.findall(header):
        if lexeme == ",":
            yield parts
            parts = [""]
        elif lexeme == ";":
            parts.append("")
        elif lexeme == '"':
            return  # a quoted string without an end: all the rest is in it
        else:
            parts[-1] += lexeme
    yield parts
