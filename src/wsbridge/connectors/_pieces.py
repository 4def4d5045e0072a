"""Reading in pieces, and inflating: for the parsers that are fed, websockets' core and wsproto, and for tornado."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

from wsbridge.frames import MAX_SIZE

__all__ = ["Inflation", "PieceReader"]

_PIECE = 64 * 1024  # bytes that are parsed at once
_DEFLATED_PIECE = 4 * 1024
_MAX_RESTARTS = 16  # of an inflater in one frame


class PieceReader:
    """A mixin for the protocol class of a connection: what comes is parsed piece by piece, while it is not held.

    A read of 256 KiB can hold 40,000 messages, or some that inflate a thousandfold: a channel that has enough says so
    behind a piece. So does a parser that has begun what is done outside the event loop (`_wait_for`), behind which all
    else waits, the end of the connection too (RECV-4). The class has ``transport`` and fills `_parse`.
    """

    __slots__ = ("_behind", "_held", "_is_busy", "_piece", "_unread", "_wants_more")

    transport: asyncio.Transport

    def prepare(self) -> None:
        """Be ready to keep what comes, until `resume`."""
        self._unread = bytearray()  # what came and may not be parsed yet
        self._held = True
        self._wants_more = False  # the channel does
        self._is_busy = False
        self._behind: Callable[[], object] | None = None  # what is done when it is not busy any more
        self._piece = _PIECE

    def read_deflated(self) -> None:
        """Take smaller pieces, as they may be inflated."""
        self._piece = _DEFLATED_PIECE

    def _parse(self, data: bytes) -> None:
        """Have a piece parsed; may `hold`."""
        raise NotImplementedError

    def _kept(self) -> None:
        """See to what came while it is held."""

    def _read_on(self) -> None:
        """Read on, when all is parsed."""
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._held or self._unread or len(data) > self._piece:
            self._unread += data
            if self._held:
                self._kept()
            else:
                self._read()
        else:
            self._parse(data)

    def hold(self) -> None:
        """Parse and read no more."""
        self._held = True
        self._wants_more = False
        self.transport.pause_reading()

    def resume(self) -> None:
        """Parse and read on."""
        self._wants_more = True
        if self._is_busy:
            return
        self._held = False
        if self._unread:
            asyncio.get_running_loop().call_soon(self._read)  # not below the channel, which calls this
        else:
            self._read_on()

    def _wait_for(self, work: asyncio.Future[Any]) -> None:
        """Parse and read no more until ``work`` is done, and `_worked` has taken it."""
        self._is_busy = self._held = True
        self.transport.pause_reading()
        work.add_done_callback(self._end_of_work)

    def _end_of_work(self, work: asyncio.Future[Any]) -> None:
        self._is_busy = False
        behind, self._behind = self._behind, None
        self._worked(work)
        is_wanted = self._wants_more and not self._is_busy
        if behind is None and is_wanted:
            self.resume()
        elif behind is not None:
            if is_wanted:
                self._held = False
                self._read()  # what came before the end
            behind()

    def _worked(self, work: asyncio.Future[Any]) -> None:
        """Take what was waited for. Needed where `_wait_for` is called."""
        raise NotImplementedError

    def _is_put_off(self, end: Callable[[], object]) -> bool:
        """Tell whether ``end`` must wait for what is under way; it is called then."""
        if self._is_busy:
            self._behind = end
        return self._is_busy

    def _read(self) -> None:
        unread = self._unread
        while unread and not self._held:
            piece = bytes(unread[: self._piece])
            del unread[: self._piece]
            self._parse(piece)
        if not self._held:
            self._read_on()


class Inflation:
    """A payload that is inflated in steps, behind each block with BFINAL too, where an inflater ends.

    Args:
        inflater: What a message before has left, or a new one.
        payload: What is deflated.
        window_bits: For the inflaters that go on behind a final block (RFC 7692, 7.2.3.4).

    Attributes:
        inflater: The one for what comes next.
        size: How many bytes are inflated.
    """

    __slots__ = ("_left", "_parts", "_restarts", "_window_bits", "inflater", "size")

    def __init__(self, inflater: Any, payload: bytes, window_bits: int) -> None:
        self.inflater = inflater
        self.size = 0
        self._left = payload
        self._parts: list[bytes] = []
        self._restarts = 0
        self._window_bits = window_bits

    def go_on(self, limit: int) -> bool:
        """Inflate until all is, or there is a byte more than ``limit``; tell whether it is all.

        Raises:
            zlib.error: It is not deflated, or there are too many final blocks.
        """
        limit = min(limit, MAX_SIZE - 1)
        while self.size <= limit:
            data = self.inflater.decompress(self._left, limit - self.size + 1)
            self.size += len(data)
            self._parts.append(data)
            self._left = self.inflater.unconsumed_tail
            if self.inflater.eof:
                self._start_anew()
            elif self.size <= limit:
                self._parts = [b"".join(self._parts)]
                return True
        return False

    def _start_anew(self) -> None:
        if self._restarts == _MAX_RESTARTS:
            raise zlib.error("too many final blocks")
        self._restarts += 1
        self._left = self.inflater.unused_data
        self.inflater = zlib.decompressobj(wbits=-self._window_bits)

    @property
    def data(self) -> bytes:
        """What is inflated."""
        return b"".join(self._parts)  # which copies nothing when all is inflated
