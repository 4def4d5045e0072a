"""The handshake (RFC 6455, section 4): requests, legal or not, and the judgement of what answers them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from wsbridge.conformance.client.deflate import PerMessageDeflate, chosen
from wsbridge.conformance.client.errors import WireError, WireViolation
from wsbridge.conformance.client.http import Address, HttpResponse, listed

__all__ = ["Chars", "HandshakeRefused", "HandshakeRequest"]

Chars: TypeAlias = str | bytes
"""A ``str`` is sent as latin-1."""


class HandshakeRefused(WireError):
    """The server answered the handshake with another status than 101."""

    def __init__(self, response: HttpResponse) -> None:
        got = f"{response.status} {response.reason}: {response.body[:200]!r}"
        super().__init__(f"expected 101, but got {got}", expected="101 Switching Protocols", actual=got)
        self.response = response


def _encoded(value: Chars) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """A handshake request, legal or not; `encode` gives its bytes, `check` judges the answer."""

    method: Chars
    target: Chars
    version: Chars
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def build(
        cls,
        address: Address,
        *,
        target: Chars = "/echo",
        method: Chars = "GET",
        version: Chars = "HTTP/1.1",
        headers: Sequence[tuple[Chars, Chars]] = (),
        replace: Mapping[str, Chars | Sequence[Chars] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: bool | str = False,
    ) -> Self:
        """Return a request that is legal but for what the arguments change.

        Args:
            address: Where it goes, for the `Host` header.
            target: The request target.
            method: The method.
            version: The HTTP version.
            headers: More headers, in order, after the usual ones.
            replace: Usual headers by name: another value, several for as many lines, or None for none.
            subprotocols: What to offer, in one line.
            deflate: True to offer permessage-deflate, or the whole value of `Sec-WebSocket-Extensions`.

        Raises:
            ValueError: If `replace` names a header that would not be sent.
        """
        if isinstance(address, str):
            host = "localhost"
        else:
            host = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        usual: dict[str, Chars | Sequence[Chars] | None] = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)),
            "Sec-WebSocket-Version": "13",
        }
        if subprotocols:
            usual["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        if deflate:
            offer = "permessage-deflate; client_max_window_bits"
            usual["Sec-WebSocket-Extensions"] = offer if deflate is True else deflate
        names = {name.lower(): name for name in usual}
        for name, value in (replace or {}).items():
            if name.lower() not in names:
                raise ValueError(f"replace names {name!r}, but the usual headers are {', '.join(usual)}")
            usual[names[name.lower()]] = value
        lines: list[tuple[bytes, bytes]] = []
        for name, value in usual.items():
            values = [value] if isinstance(value, str | bytes) else value or []
            lines.extend((name.encode(), _encoded(one)) for one in values)
        lines.extend((_encoded(name), _encoded(value)) for name, value in headers)
        return cls(method, target, version, tuple(lines))

    def encode(self) -> bytes:
        """Return the bytes to send."""
        lines = [b" ".join((_encoded(self.method), _encoded(self.target), _encoded(self.version)))]
        lines.extend(b": ".join(pair) for pair in self.headers)
        return b"\r\n".join((*lines, b"", b""))

    def values(self, name: str) -> list[str]:
        """Return every value of a header, in the order sent."""
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name.lower().encode()]

    def check(self, response: HttpResponse) -> tuple[str | None, PerMessageDeflate | None]:
        """Check that the response is a right 101 to this request (section 4.1), and return what it chose.

        Returns:
            The subprotocol and the extension, each None if there is none.

        Raises:
            HandshakeRefused: If the status is not 101.
            WireViolation: If it is, but the response is wrong.
        """
        if response.status != 101:
            raise HandshakeRefused(response)
        keys = self.values("Sec-WebSocket-Key")
        if len(keys) != 1:
            raise WireViolation(f"101 to a request with {len(keys)} keys")
        digest = hashlib.sha1(f"{keys[0]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode("latin-1")).digest()
        accept = base64.b64encode(digest).decode()
        offered = listed(self.values("Sec-WebSocket-Protocol"))
        headers = response.headers_all
        subprotocols = headers("Sec-WebSocket-Protocol")
        facts: list[tuple[str, object, bool]] = [
            ("HTTP/1.1", response.version, response.version == "HTTP/1.1"),
            ("Upgrade: websocket", v := headers("Upgrade"), [one.lower() for one in v] == ["websocket"]),
            (
                "Connection: Upgrade",
                v := headers("Connection"),
                "upgrade" in listed(one.lower() for one in v),
            ),
            (f"accept key {accept}", v := headers("Sec-WebSocket-Accept"), v == [accept]),
            (
                f"at most one of {offered}",
                subprotocols,
                not subprotocols or subprotocols in [[o] for o in offered],
            ),
        ]
        for expected, got, good in facts:
            if not good:
                raise WireViolation(f"in the 101, expected {expected}, but got {got}")
        return next(iter(subprotocols), None), chosen(
            self.values("Sec-WebSocket-Extensions"), headers("Sec-WebSocket-Extensions")
        )
