"""Frames on their way to aiohttp's compiled reader: what it is too lenient for, and limits that are none for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsbridge import WebSocketOptions
from wsbridge.connector import deflated_limit, size_limit

__all__ = ["Heads", "is_native", "native_limit"]

_HIGHEST = 2**32 - 2  # bytes: the highest limit that the compiled reader can hold, and add one to (reader_c.pxd)
_REFUSED = 0x20  # RSV2, which no extension gives a meaning


class Heads:
    """Follows the heads of frames where aiohttp's compiled reader is too lenient, and makes it refuse them itself.

    What it marks fails in aiohttp in its turn, after the messages before it. It costs time for each frame, and so
    stands before a connection only where messages are deflated, or where the limits are none that aiohttp can have:
    aiohttp takes a control frame with RSV1 for a deflated one (RFC 7692, 6.1), and knows one limit for both kinds.

    Attributes:
        is_too_big: Whether what it marked, after which nothing is read, is a message that is too big.
    """

    __slots__ = ("_deflates", "_left", "_limits", "_pass_on", "_pending", "_skip", "is_too_big")

    def __init__(self, pass_on: Callable[[bytes], None], options: WebSocketOptions[Any], *, deflates: bool) -> None:
        self._pass_on = pass_on
        self._limits = {1: options.max_text_size, 2: options.max_binary_size}
        self._deflates = deflates
        self.is_too_big = False
        self._pending = b""  # the start of a head
        self._skip = 0  # bytes to come of the payload, its mask included
        self._left: int | None = None  # what the message may still be long; None: any length

    def __call__(self, data: bytes) -> None:
        frames = bytearray(self._pending + data)
        self._pending, position = b"", 0
        while position < len(frames):
            if self._skip:
                step = min(self._skip, len(frames) - position)
                self._skip -= step
                position += step
                continue
            extended = {126: 2, 127: 8}.get(frames[position + 1] & 0x7F, 0) if position + 1 < len(frames) else 9
            if len(frames) < position + 2 + extended:
                self._pending = bytes(frames[position:])
                del frames[position:]
                break
            start = position + 2 + extended
            length = int.from_bytes(frames[position + 2 : start]) if extended else frames[position + 1] & 0x7F
            if self._is_too_long(frames[position], length):
                self.is_too_big = True
                frames[position] |= _REFUSED
            elif self._deflates and frames[position] & 0x48 == 0x48:
                frames[position] |= _REFUSED
            self._skip = length + (4 if frames[position + 1] & 0x80 else 0)
            position = start
        self._pass_on(bytes(frames))

    def _is_too_long(self, first: int, length: int) -> bool:
        """Count what a message is long; what is deflated is measured again when it is inflated (`BaseChannel`)."""
        opcode = first & 0x0F
        if opcode >= 8:
            return False
        if opcode:
            limit = self._limits.get(opcode)
            self._left = deflated_limit(limit) if limit is not None and first & 0x40 else limit
        if self._left is None:
            return False
        self._left -= length
        return self._left < 0


def is_native(options: WebSocketOptions[Any]) -> bool:
    """Tell whether aiohttp itself can hold a peer to the limits, as long as nothing is deflated."""
    text, binary = options.max_text_size, options.max_binary_size
    return text == binary and (text is None or text < _HIGHEST)


def native_limit(options: WebSocketOptions[Any]) -> int:
    """Return ``max_msg_size``: exclusive, 0 for none, and with room for what deflate adds to random bytes."""
    limit = max(size_limit(options.max_text_size), size_limit(options.max_binary_size))
    if options.compression is not False:
        limit = deflated_limit(limit)
    return limit + 1 if limit < _HIGHEST else 0  # without one, `Heads` refuses what is too big
