"""Frames on their way to aiohttp's compiled reader: what it is too lenient for, and limits that are none for it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from wsbridge import WebSocketOptions
from wsbridge.connector import MAX_HEAD, FrameHead, FrameHeads, MessageSize, SizeLimits, frame_head
from wsbridge.connectors._codecs.pieces import END_OF_MESSAGE, Inflation
from wsbridge.connectors._versions import is_older

__all__ = ["HOLDS_BACK", "Heads", "MeasuredHeads", "follow_heads", "is_native", "native_limit"]

HOLDS_BACK = not is_older("aiohttp", (3, 14, 4))
"""Whether this aiohttp refuses a message by the length that a head declares, and stops in the middle of a read."""

_HIGHEST = 2**32 - 2  # bytes: the highest limit that the compiled reader can hold, and add one to (reader_c.pxd)
_REFUSED = 0x20  # RSV2, which no extension gives a meaning
_INFLATES_ANY = not HOLDS_BACK and not is_older("aiohttp", (3, 14))  # number of final blocks: see `MeasuredHeads`
_TOLD_AGAIN = 0x40 if is_older("aiohttp", (3, 14, 2)) else 0  # RSV1: the message is deflated
_DATA = (0x0, 0x1, 0x2)
_WINDOW_BITS = 15
_SLICE = 16 * 1024  # bytes whose heads are looked at together


class Heads:
    """Follows the heads of frames where aiohttp's compiled reader is too lenient, and makes it refuse them itself.

    What it marks fails in aiohttp in its turn, after the messages before it. It costs time for each frame, and so
    stands before a connection only where messages are deflated, or where the limits are none that aiohttp can have:
    aiohttp takes a control frame with RSV1 for a deflated one (RFC 7692, 6.1), and knows one limit for both kinds.

    Attributes:
        is_too_big: Whether what it marked, after which nothing is read, is a message that is too big.
    """

    __slots__ = ("_deflates", "_heads", "_is_after_control", "_message", "_pass_on", "is_too_big")

    def __init__(self, pass_on: Callable[[bytes], None], options: WebSocketOptions[Any], *, deflates: bool) -> None:
        self._pass_on = pass_on
        self._heads = FrameHeads()
        self._message = MessageSize(options.max_text_size, options.max_binary_size)
        self._deflates = deflates
        self._is_after_control = False  # the last frame was a control frame
        self.is_too_big = False

    def __call__(self, data: bytes) -> None:
        frames, heads = self._heads.read(data)
        for position, head in heads:
            if self._message.head_read(head):  # what is deflated is measured again when it is inflated (`BaseChannel`)
                self.is_too_big = True
                frames[position] |= _REFUSED
            else:
                frames[position] |= self._marks(head)
            self._message.count(head)
        self._pass_on(bytes(frames))

    def _marks(self, head: FrameHead) -> int:
        """Return the bits to set in a head of which `MessageSize.head_read` knows, and `MessageSize.count` not yet."""
        return _REFUSED if self._deflates and head.opcode & 0x8 and head.rsv & 0x4 else 0


class MeasuredHeads(Heads):
    """Inflates what is deflated before aiohttp does, to know how long it will be, and keeps nothing of it.

    Where the limits of both kinds differ aiohttp is told the larger, or none: a message of the other kind would be
    inflated up to that, and found to be too big when it is delivered (LIM-1). A frame that is deflated is passed on
    when it is all there, since its head is what is marked.
    """

    __slots__ = ("_frames", "_inflated", "_inflater", "_to_pass")

    def __init__(self, pass_on: Callable[[bytes], None], options: WebSocketOptions[Any], *, deflates: bool) -> None:
        super().__init__(pass_on, options, deflates=deflates)
        self._frames = bytearray()  # which are not passed on yet
        self._to_pass = 0  # bytes to come of a frame that is passed on as it comes
        self._inflater: Any = zlib.decompressobj(wbits=-_WINDOW_BITS)
        self._inflated = 0  # bytes of the message that is unfinished

    def __call__(self, data: bytes) -> None:
        frames, end = self._frames, 0
        frames += data
        while end < len(frames):
            if self._to_pass:
                step = min(self._to_pass, len(frames) - end)
                end, self._to_pass = end + step, self._to_pass - step
                continue
            head = frame_head(frames[end : end + MAX_HEAD])
            if head is None:
                break
            size = head.size + (4 if head.masked else 0) + head.length
            is_too_big, is_broken = self._message.head_read(head), False
            if not is_too_big and head.opcode in _DATA and self._message.is_deflated:
                if len(frames) - end < size:
                    break
                try:
                    is_too_big = self._is_too_much(head, bytes(frames[end + head.size : end + size]))
                except zlib.error:
                    is_broken = True
            self.is_too_big |= is_too_big
            frames[end] |= _REFUSED if is_too_big or is_broken else self._marks(head)
            self._message.count(head)
            self._to_pass = size
        if end:
            self._pass_on(bytes(frames[:end]))
            del frames[:end]

    def _is_too_much(self, head: FrameHead, payload: bytes) -> bool:
        """Tell whether the message is too long with this frame, whose payload has its mask before it.

        Raises:
            zlib.error: It cannot be inflated, or has too many final blocks, on which aiohttp 3.14.0 to 3.14.3 holds the
                event loop for seconds (compression_utils.py, ``decompress_sync``).
        """
        if head.opcode:
            self._inflated = 0
        if head.masked:
            payload = _unmasked(payload[4:], payload[:4])
        limits, kind = self._message.limits, head.opcode or self._message.kind
        limit = limits.largest if kind is None else limits.of(kind)
        inflation = Inflation(self._inflater, payload + END_OF_MESSAGE if head.fin else payload, _WINDOW_BITS)
        is_all = inflation.go_on(limit - self._inflated)
        self._inflated += inflation.size
        self._inflater = inflation.inflater
        return not is_all


class _OlderHeads(Heads):
    """Has more refused, where heads are looked at on each connection anyway, before 3.14.4.

    Some of these readers take continuations of nothing, up to 3.13.2, and new messages in unfinished ones, with none
    of them in the order; a frame without a mask they take like 3.14.4. Up to 3.14.1 a control frame between fragments
    makes them forget that the message is deflated: the continuation after it tells them again.
    """

    __slots__ = ()

    def __call__(self, data: bytes) -> None:
        for begin in range(0, len(data), _SLICE):  # the heads of 40,000 empty frames take 8 MiB
            super().__call__(data[begin : begin + _SLICE])

    def _marks(self, head: FrameHead) -> int:
        is_after_control, self._is_after_control = self._is_after_control, head.opcode not in _DATA
        if not head.masked:
            return _REFUSED
        if head.opcode not in _DATA:
            return super()._marks(head)
        is_continuation = head.opcode == 0
        if is_continuation is (self._message.kind is None) or (is_continuation and head.rsv):
            return _REFUSED
        return _TOLD_AGAIN if is_continuation and is_after_control and self._message.is_deflated else 0


class _OlderMeasuredHeads(_OlderHeads, MeasuredHeads):
    __slots__ = ()


_HEADS, _MEASURED = (Heads, MeasuredHeads) if HOLDS_BACK else (_OlderHeads, _OlderMeasuredHeads)


def follow_heads(pass_on: Callable[[bytes], None], options: WebSocketOptions[Any], *, deflates: bool) -> Heads | None:
    """Return what is to stand before aiohttp's reader, or None if nothing need be."""
    if deflates and (_INFLATES_ANY or not is_native(options)):
        return _MEASURED(pass_on, options, deflates=True)
    if deflates or not (HOLDS_BACK and is_native(options)):
        return _HEADS(pass_on, options, deflates=deflates)
    return None


def _unmasked(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


def is_native(options: WebSocketOptions[Any]) -> bool:
    """Tell whether aiohttp itself can hold a peer to the limits, as long as nothing is deflated."""
    return not SizeLimits(options.max_text_size, options.max_binary_size).needs_heads(highest=_HIGHEST)


def native_limit(options: WebSocketOptions[Any]) -> int:
    """Return ``max_msg_size``: exclusive, and 0 for none, where `Heads` refuses what is too big."""
    limits = SizeLimits(options.max_text_size, options.max_binary_size)
    limit = limits.for_reader(highest=_HIGHEST, deflates=options.compression is not False)
    return 0 if limit is None else limit + 1
