"""Frames on their way to aiohttp's compiled reader: what it is too lenient for, and limits that are none for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsbridge import WebSocketOptions
from wsbridge.connector import FrameHeads, MessageSize, SizeLimits

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

    __slots__ = ("_deflates", "_heads", "_message", "_pass_on", "is_too_big")

    def __init__(self, pass_on: Callable[[bytes], None], options: WebSocketOptions[Any], *, deflates: bool) -> None:
        self._pass_on = pass_on
        self._heads = FrameHeads()
        self._message = MessageSize(options.max_text_size, options.max_binary_size)
        self._deflates = deflates
        self.is_too_big = False

    def __call__(self, data: bytes) -> None:
        frames, heads = self._heads.read(data)
        for position, head in heads:
            if self._message.head_read(head):  # what is deflated is measured again when it is inflated (`BaseChannel`)
                self.is_too_big = True
                frames[position] |= _REFUSED
            elif self._deflates and head.opcode & 0x8 and head.rsv & 0x4:
                frames[position] |= _REFUSED
            self._message.count(head)
        self._pass_on(bytes(frames))


def is_native(options: WebSocketOptions[Any]) -> bool:
    """Tell whether aiohttp itself can hold a peer to the limits, as long as nothing is deflated."""
    return not SizeLimits(options.max_text_size, options.max_binary_size).needs_heads(highest=_HIGHEST)


def native_limit(options: WebSocketOptions[Any]) -> int:
    """Return ``max_msg_size``: exclusive, and 0 for none, where `Heads` refuses what is too big."""
    limits = SizeLimits(options.max_text_size, options.max_binary_size)
    limit = limits.for_reader(highest=_HIGHEST, deflates=options.compression is not False)
    return 0 if limit is None else limit + 1
