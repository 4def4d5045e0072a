"""HTTP/2 that a client selects by ALPN, which no connector speaks: it is told to use HTTP/1.1 instead (HS-18).

An `ssl.SSLContext` does not tell which protocols it offers: that h2 is among them shows when a client selects it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

__all__ = ["GRACE", "REFUSAL", "WARNING", "Refusal", "has_selected_http2"]

GRACE = 1.0
"""Seconds that a client has to end the connection by itself; one that is closed with bytes unread loses the answer."""

REFUSAL = bytes.fromhex(
    "000000 04 00 00000000"  # SETTINGS, which comes first, and is empty (RFC 9113, 3.4)
    "000008 07 00 00000000 00000000 0000000d"  # GOAWAY: no stream was taken, HTTP_1_1_REQUIRED (RFC 9113, 6.8 and 7)
)

WARNING = (
    "a client selected HTTP/2, which the SSLContext given to the %s connector offers and the connector does not speak; "
    "it is told to use HTTP/1.1, which not every client does. Leave 'h2' out: set_alpn_protocols(['http/1.1']); or "
    "serve asgi_app by hypercorn, which has WebSockets over HTTP/2 (docs/asgi.md)"
)


def has_selected_http2(tls: ssl.SSLObject | ssl.SSLSocket | None) -> bool:
    """Tell whether the client of a connection, None for one without TLS, will speak HTTP/2."""
    return tls is not None and tls.selected_alpn_protocol() == "h2"


class Refusal(asyncio.Protocol):
    """Takes a connection over from its server, to tell its client to use HTTP/1.1."""

    def __init__(self, transport: asyncio.Transport, ended: Callable[[Refusal], object]) -> None:
        """Begin.

        Args:
            transport: TLS is agreed on, and nothing is read yet.
            ended: Called when the connection is gone.
        """
        self._transport = transport
        self._ended = ended
        transport.set_protocol(self)
        transport.write(REFUSAL)

    def data_received(self, data: bytes) -> None:
        """Drop what the client sent before it knew."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(self)

    def tick(self, now: float) -> float | None:
        """Close it, and at the next tick cut it: the time is over."""
        if self._transport.is_closing():
            self.close()
            return None
        self._transport.close()
        return now + GRACE

    def close(self) -> None:
        """Cut it now."""
        self._transport.abort()
