"""What stands before aiohttp's protocol on a channel's connection, by ``transport.set_protocol``.

aiohttp passes over a half-close, and reads nothing more after a parser error; see `wsbridge.connectors.aiohttp`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Rest", "Watch", "Watched"]


class Watched(Protocol):
    """What a channel is told, as long as it lives."""

    def half_closed(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def keep_failure(self) -> None: ...
    def lost_after_messages(self) -> None: ...
    def connection_lost(self) -> None: ...


class Watch(asyncio.BaseProtocol):
    """Stands before aiohttp's protocol, which passes over a half-close (web_protocol.py), and tells the channel."""

    __slots__ = ("_channel", "_native", "_transport", "data_received")

    def __init__(self, transport: asyncio.Transport, channel: Watched) -> None:
        native: Any = transport.get_protocol()
        self._native = native
        self._channel = weakref.ref(channel)
        self._transport = transport
        self.pass_to(native.data_received)

    def pass_to(self, data_received: Callable[[bytes], None]) -> None:
        """Have the transport call ``data_received`` for what comes; uvloop looks for it here alone."""
        self.data_received = data_received
        self._transport.set_protocol(self)

    def eof_received(self) -> None:
        if (channel := self._channel()) is not None:
            asyncio.get_running_loop().call_soon(channel.half_closed)  # when it has taken what came before

    def pause_writing(self) -> None:
        self._native.pause_writing()
        if (channel := self._channel()) is not None:
            channel.pause_writing()

    def resume_writing(self) -> None:
        self._native.resume_writing()
        if (channel := self._channel()) is not None:
            channel.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if (channel := self._channel()) is not None:
            channel.keep_failure()
        self._native.connection_lost(exc)
        if (channel := self._channel()) is not None:
            channel.lost_after_messages()


class Rest(Watch):
    """Reads and drops what a peer still sends, and hands the end of the connection on to aiohttp's protocol."""

    __slots__ = ("ended",)

    def __init__(self, transport: asyncio.Transport, channel: Watched) -> None:
        super().__init__(transport, channel)
        self.ended = asyncio.Event()
        self.pass_to(_drop)
        transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if (channel := self._channel()) is not None:
            channel.connection_lost()
        self.ended.set()


def _drop(data: bytes) -> None:
    pass
