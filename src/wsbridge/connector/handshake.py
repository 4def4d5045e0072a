"""A connection until its request is answered: how long it may take, and what a request tells of the connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, TypedDict, cast

from wsbridge._channel.clock import Timer
from wsbridge.connector.base import BaseConnector

__all__ = ["HandshakeDeadline", "RequestParts", "peer_address", "request_parts"]


class HandshakeDeadline:
    """The time in which a connection's request must be complete, however the peer dribbles (HS-10).

    An entry of the connector's clock, so that it costs no timer of the event loop. Make one for each connection; what
    it has of the connection is what cuts it, and that only while it waits.
    """

    __slots__ = ("_connector", "_cut", "_timer")

    def __init__(self, connector: BaseConnector) -> None:
        self._connector = connector
        self._cut: Callable[[], object] | None = None
        self._timer: Timer | None = None

    def begin(self, cut: Callable[[], object], timeout: float | None = None) -> None:
        """Wait from now on; one that waits already begins anew.

        Args:
            cut: Called without arguments, once, at the end of the time: such as ``transport.abort``.
            timeout: Seconds, if they are not the connector's ``handshake_timeout``.
        """
        self.cancel()
        clock = self._connector.clock
        self._cut = cut
        when = clock.time() + (self._connector.handshake_timeout if timeout is None else timeout)
        self._timer = clock.at(when, self)

    def cancel(self) -> None:
        """Wait no longer: the request is complete, or the connection is gone. Twice does nothing."""
        self._cut = None
        if self._timer is not None:
            self._connector.clock.cancel(self._timer)
            self._timer = None

    def tick(self, now: float) -> None:
        """Cut the connection; the clock calls it."""
        cut, self._cut, self._timer = self._cut, None, None
        assert cut is not None  # it goes with the timer
        cut()


class RequestParts(TypedDict):
    """Arguments of `wsbridge.Request` that tell of the connection."""

    scheme: str
    remote_address: tuple[str, int] | None
    tls: ssl.SSLObject | None


def request_parts(transport: asyncio.BaseTransport | None) -> RequestParts:
    """Return what a request tells of its connection (HS-2): ``Request(..., **request_parts(transport))``.

    Args:
        transport: Of asyncio, or of what behaves as it does; None if the connection is gone.
    """
    if transport is None:
        return {"scheme": "ws", "remote_address": None, "tls": None}
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    try:
        name = transport.get_extra_info("peername")
    except AttributeError:  # uvloop 0.23, of a Unix socket whose peer has left
        name = None
    return {"scheme": "ws" if tls is None else "wss", "remote_address": peer_address(name), "tls": tls}


def peer_address(name: object) -> tuple[str, int] | None:
    """Return host and port of a peer, as `wsbridge.Request` has them.

    Args:
        name: The peer's name as a socket, asyncio or an ASGI scope tells it: a tuple or list that begins with host and
            port. A port of None counts as 0.

    Returns:
        None if it is anything else: the peer came by a Unix socket, whose name is a string, or is not known.
    """
    if not isinstance(name, tuple | list):
        return None
    host, port, *_ = (*cast("tuple[Any, ...]", name), None, None)
    return (str(host), int(port or 0)) if host else None
