"""What stands before aiohttp's protocol on a channel's connection, by ``transport.set_protocol``.

aiohttp passes over a half-close, and reads nothing more after a parser error; see `wsbridge.connectors.aiohttp`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from wsbridge.connector import FrameHeads
from wsbridge.connectors._codecs.aiohttp import HOLDS_BACK
from wsbridge.connectors._codecs.pieces import PIECE
from wsbridge.connectors._versions import is_older

__all__ = ["Rest", "Watch", "Watched", "feeding"]

_MOST = 4096  # messages in aiohttp's queue, as many as fit into it from 3.14.4 on; a piece brings some hundreds more
_ENOUGH = _MOST // 2  # with which it is fed again
_READS_AHEAD = is_older("aiohttp", (3, 11, 18))  # all frames of a read, before it takes the first

_Feed: TypeAlias = Callable[[bytes], tuple[bool, bytes]]


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


class _Pieces:
    """Feeds aiohttp's reader piece by piece, before 3.14.4, and no more while its queue has enough.

    There a queue counts bytes alone, so that it takes any number of empty messages, and a read that was begun is parsed
    to its end, whatever that inflates to (_websocket/reader_py.py). To the queue this is the protocol that it pauses
    and, at each message that is taken while that is paused, resumes.
    """

    __slots__ = ("_feed", "_messages", "_reading_paused", "_transport", "_unread")

    def __init__(self, connection: Any, queue: Any) -> None:
        feed: _Feed = connection._payload_parser.feed_data
        self._feed = _frame_by_frame(feed) if _READS_AHEAD else feed
        self._messages = queue._buffer
        self._reading_paused = False
        self._transport: asyncio.Transport = connection.transport
        self._unread = bytearray()
        queue._protocol = self
        if not self._transport.is_closing():
            self._transport.resume_reading()  # what came before the 101 may have been too much

    def __call__(self, data: bytes) -> None:
        if self._reading_paused or len(data) > PIECE:
            self._unread += data
            self._go_on()
        else:
            self._feed(data)
            self._look()

    def pause_reading(self) -> None:
        self._reading_paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if len(self._messages) > _ENOUGH:
            return
        self._reading_paused = False
        self._go_on()
        if not self._reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _go_on(self) -> None:
        unread = self._unread
        while unread and not self._reading_paused:
            piece = bytes(unread[:PIECE])
            del unread[:PIECE]
            has_failed, _ = self._feed(piece)
            if has_failed:
                unread.clear()
            self._look()

    def _look(self) -> None:
        if len(self._messages) > _MOST and not self._reading_paused:
            self.pause_reading()


def _frame_by_frame(feed: _Feed) -> _Feed:
    """Return what feeds no frame along with one before it, which the reader would forget if that were refused."""
    heads = FrameHeads()

    def feed_each(data: bytes) -> tuple[bool, bytes]:
        frames, found = heads.read(data)
        begin = 0
        for position, _ in found:
            if position > begin:
                feed(bytes(frames[begin:position]))
                begin = position
        return feed(bytes(frames[begin:]))

    return feed_each


def feeding(connection: Any, queue: Any) -> Callable[[bytes], None]:
    """Return what feeds the reader of a connection, whose queue is given."""
    feed: Callable[[bytes], None] = connection.data_received if HOLDS_BACK else _Pieces(connection, queue)
    return feed
