"""An asyncio transport as a channel's connection: how it is cut and half closed, and the channels that have one."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from wsbridge._channel.draining import Connection, plain_connection
from wsbridge._channel.queued import QueuedChannel

__all__ = [
    "Anchor",
    "Closing",
    "OnTransport",
    "TransportChannel",
    "abort",
    "aborter",
    "anchor",
    "end_of",
    "end_writing",
]


class Anchor:
    """Stands for a transport that cannot have a weak reference; lives as long as the socket that it was made of."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


_anchors: weakref.WeakKeyDictionary[socket.socket, Anchor] = weakref.WeakKeyDictionary()
_anchors_by_id: weakref.WeakValueDictionary[int, Anchor] = weakref.WeakValueDictionary()


def anchor(transport: Any, accepted: socket.socket) -> Any:
    """Return what a weak reference can be had of: a transport, or an `Anchor` for uvloop's of TLS (0.23)."""
    try:
        weakref.ref(transport)
    except TypeError:
        made = _anchors[accepted] = _anchors_by_id[id(transport)] = Anchor(transport)
        return made
    return transport


def aborter(transport: asyncio.WriteTransport) -> Callable[[], None]:
    """Return a function that aborts ``transport``, whether or not it has ended by then, and does not keep it.

    Keeping an ended TLS connection takes 300 KiB.
    """
    try:
        return partial(_abort_if_there, weakref.ref(transport))
    except TypeError:
        found = _anchors_by_id.get(id(transport))
        return partial(abort, transport) if found is None else partial(_abort_if_there, weakref.ref(found))


def _abort_if_there(reference: Callable[[], Any]) -> None:
    if (found := reference()) is not None:
        abort(found.transport if isinstance(found, Anchor) else found)


def abort(transport: Any) -> None:
    """Abort a transport, unless it has ended.

    asyncio's own ``abort`` raises AttributeError on one that was closed with bytes unsent and has sent them since
    (selector_events.py: ``_write_ready`` ends it without counting it as lost); and one of TLS that is closed twice
    knows nothing more of its connection (sslproto.py: ``close``), which the first close ends.
    """
    try:
        sock = transport.get_extra_info("socket")
    except AttributeError:
        return
    if sock is None or sock.fileno() >= 0:
        transport.abort()


def end_writing(transport: asyncio.WriteTransport) -> None:
    """End the sending side of ``transport``, unless it is being closed, where uvloop's raises a RuntimeError."""
    if not transport.is_closing():
        transport.write_eof()


class Closing(Protocol):
    """Tells whether a connection is closing, from whichever side."""

    def is_closing(self) -> bool: ...


class _TlsEnd:
    """Tells it of TLS, where the transport's word is about this side alone (asyncio/sslproto.py, uvloop 0.23).

    A loss is known below it some turns before the protocol is told, and whoever writes meanwhile has each write logged
    (LOG-3).
    """

    __slots__ = ("_below", "_transport")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._below: Closing | None = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)

    def is_closing(self) -> bool:
        if self._transport.is_closing():
            return True
        if self._below is None:  # uvloop's, which forgets its socket when that is lost
            return self._transport.get_extra_info("socket") is None
        return self._below.is_closing()


def end_of(transport: asyncio.BaseTransport) -> Closing:
    """Return what tells whether the connection of ``transport`` is closing, from whichever side; made once for each."""
    return transport if transport.get_extra_info("ssl_object") is None else _TlsEnd(transport)


class OnTransport:
    """A mixin for channels whose connection is an asyncio transport, which the connector puts into `_transport`."""

    __slots__ = ()

    _transport: asyncio.Transport

    def _drainable(self) -> Connection | None:
        return plain_connection(self._transport)

    def _aborter(self) -> Callable[[], object]:
        return aborter(self._transport)

    def _unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()


class TransportChannel(OnTransport, QueuedChannel):
    """A `QueuedChannel` whose connection is an asyncio transport, which the connector puts into `_transport`."""

    __slots__ = ("_transport",)

    def _disconnect(self, *, half: bool) -> None:
        if not half:
            self._transport.close()
        elif self._transport.can_write_eof():
            end_writing(self._transport)

    def _hold_reading(self) -> None:
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._transport.resume_reading()
