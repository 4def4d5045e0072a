"""Reading in pieces and inflating behind an end, for the parsers that are fed: websockets' core and wsproto."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

__all__ = ["PieceReader", "inflate_rest"]

_PIECE = 64 * 1024  # bytes that are parsed at once
_DEFLATED_PIECE = 4 * 1024
_MAX_RESTARTS = 16  # of an inflater in one frame


class PieceReader:
    """A mixin for the protocol class of a connection: what comes is parsed piece by piece, while it is not held.

    A read of 256 KiB can hold 40,000 messages, or some that inflate a thousandfold: a channel that has enough says so
    behind a piece. The class has ``transport`` and fills `_parse`.
    """

    __slots__ = ("_held", "_piece", "_unread")

    transport: asyncio.Transport

    def prepare(self) -> None:
        """Be ready to keep what comes, until `resume`."""
        self._unread = bytearray()  # what came and may not be parsed yet
        self._held = True
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
        self.transport.pause_reading()

    def resume(self) -> None:
        """Parse and read on."""
        self._held = False
        if self._unread:
            asyncio.get_running_loop().call_soon(self._read)  # not below the channel, which calls this
        else:
            self._read_on()

    def _read(self) -> None:
        unread = self._unread
        while unread and not self._held:
            piece = bytes(unread[: self._piece])
            del unread[: self._piece]
            self._parse(piece)
        if not self._held:
            self._read_on()


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
