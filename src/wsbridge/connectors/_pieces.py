"""Reading in pieces and inflating after an end, for the parsers that are fed: websockets' core and wsproto."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from time import perf_counter
from typing import Any

__all__ = ["PIECE", "PieceReader", "inflate_rest"]

PIECE = 2 * 1024  # bytes that are parsed at once, beside the rest of a frame that has begun
_TURN = 0.002  # seconds after which everything else on the loop gets its turn (FLOW-3)
_MAX_RESTARTS = 16  # of an inflater in one frame


class PieceReader:
    """A mixin for the protocol class of a connection: what comes is parsed piece by piece, while it is not held.

    A read of 256 KiB can hold 40,000 messages, or some that inflate a thousandfold: a channel that has enough says so
    after a piece, and when the time of a turn is over the rest waits for the next. The class has ``transport`` and
    fills `_parse`.
    """

    __slots__ = ("_due", "_held", "_last", "_unread")

    transport: asyncio.Transport

    def prepare(self) -> None:
        """Be ready to keep what comes, until `resume`."""
        self._unread = bytearray()  # what came and may not be parsed yet
        self._held = True
        self._due = False  # `_read` will be called
        self._last: Callable[[], object] | None = None  # what comes after all that is unread

    def _parse(self, data: bytes) -> None:
        """Have a piece parsed; may `hold`."""
        raise NotImplementedError

    def _lacking(self) -> int:
        """Return how many bytes of the frame that has begun are to come, to be parsed at once; 0 if that is unknown."""
        return 0

    def _kept(self) -> None:
        """See to what came while it is held."""

    def _read_on(self) -> None:
        """Read on, when all is parsed."""
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._held or self._unread or len(data) > PIECE:
            self._unread += data
            if self._held:
                self._kept()
            elif not self._due:
                self._read()
        else:
            self._parse(data)

    def hold(self) -> None:
        """Parse and read no more."""
        self._held = True
        self.transport.pause_reading()

    def resume(self) -> None:
        """Parse and read on."""
        self._held = False
        if self._unread:
            self._read_soon()  # not below the channel, which calls this
        else:
            self._read_on()

    def _read_soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        self._due = False
        unread, began = self._unread, perf_counter()
        while unread and not self._held:
            size = max(PIECE, self._lacking())
            piece = bytes(unread[:size])
            del unread[:size]
            self._parse(piece)
            if unread and not self._held and perf_counter() - began > _TURN:
                self.transport.pause_reading()
                self._read_soon()
                return
        if self._last is not None:
            last, self._last = self._last, None
            last()
        elif not self._held:
            self._read_on()

    def _comes_last(self, what: Callable[[], object]) -> bool:
        """Have ``what`` called when all that came before is parsed; False if that is so, or the channel has enough."""
        if self._due and not self._held:
            self._last = what
            return True
        return False


def inflate_rest(inflater: Any, window_bits: int, room: int | None = None) -> tuple[Any, bytes]:
    """Inflate what stands behind a block with BFINAL (RFC 7692, 7.2.3.4), where an inflater ends.

    Args:
        inflater: Has taken a frame's payload.
        window_bits: For those that go on in its place.
        room: Bytes that are wanted; one more shows that there would be more. None: all.

    Returns:
        The inflater for what comes next, and what it found.

    Raises:
        zlib.error: It is not deflated, or there are too many such blocks.
    """
    inflated, restarts = b"", 0
    while inflater.eof and (room is None or len(inflated) <= room):
        if restarts == _MAX_RESTARTS:
            raise zlib.error("too many final blocks")
        restarts += 1
        rest = inflater.unused_data
        inflater = zlib.decompressobj(wbits=-window_bits)
        inflated += inflater.decompress(rest, 0 if room is None else room - len(inflated) + 1)
    return inflater, inflated
