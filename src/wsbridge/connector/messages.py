"""Frames and messages (RFC 6455, 5.2 and 5.4): what a head says, what the size limits allow, how fragments are joined.

The one place where a limit of the options becomes a number for a server, whatever its reader takes: one limit for all
messages (`SizeLimits.for_reader`), one for the next frame (`MessageSize.frame_limit`), or none, so that the head of
each frame is looked at (`MessageSize.head_read`).
"""

from __future__ import annotations

import sys
from typing import NamedTuple

__all__ = [
    "MAX_CONTROL",
    "MAX_HEAD",
    "MAX_SIZE",
    "FrameError",
    "FrameHead",
    "FrameHeads",
    "MessageAssembler",
    "MessageSize",
    "SizeLimits",
    "declared",
    "deflated_limit",
    "frame_head",
    "size_limit",
]

_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2

MAX_CONTROL = 125  # bytes of a control frame's payload (RFC 6455, 5.5)
MAX_HEAD = 10  # bytes of a frame's head, up to its masking key
MAX_SIZE = sys.maxsize  # bytes: no message can be longer, nor does a server's C code take a higher number


def size_limit(limit: int | None) -> int:
    """Return a limit of the options as a number that any server takes: the highest for None, and for any above it."""
    return MAX_SIZE if limit is None else min(limit, MAX_SIZE)


def deflated_limit(limit: int) -> int:
    """Return how long what inflates to ``limit`` bytes may be: deflate adds to random bytes (LIM-1)."""
    return min(limit + (limit >> 8) + 64, MAX_SIZE)


class FrameError(Exception):
    """A frame that ends the channel.

    Attributes:
        code: What to close with: 1002, 1007 or 1009.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# ---- heads ----------------------------------------------------------------------------------------------------------


class FrameHead(NamedTuple):
    """What the head of a frame says.

    Attributes:
        opcode: The kind of frame.
        length: Bytes of the payload, as they stand on the wire.
        fin: Whether it is the last frame of its message.
        rsv: The three reserved bits; 4 is RSV1, which says that the message is deflated (RFC 7692, 6).
        masked: Whether a masking key of 4 bytes follows.
        size: Bytes of the head up to that.
    """

    opcode: int
    length: int
    fin: bool
    rsv: int
    masked: bool
    size: int


def frame_head(data: bytes | bytearray | memoryview) -> FrameHead | None:
    """Return what the head says that ``data`` begins with; None if that is too short to tell."""
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    length, size = second & 0x7F, 2
    if length > 125:
        size = 4 if length == 126 else MAX_HEAD
        if len(data) < size:
            return None
        length = int.from_bytes(data[2:size])
    return FrameHead(first & 0x0F, length, bool(first & 0x80), first >> 4 & 0x07, bool(second & 0x80), size)


def declared(head: bytes) -> tuple[int, int] | None:
    """Return opcode and payload length of the frame that begins with ``head``; None if that is too short to tell."""
    found = frame_head(head)
    return None if found is None else (found.opcode, found.length)


class FrameHeads:
    """Finds the heads of frames in what comes, wherever that is cut."""

    __slots__ = ("_pending", "_skip")

    def __init__(self) -> None:
        self._pending = b""  # the start of a head
        self._skip = 0  # bytes to come of a payload, its masking key included

    def read(self, data: bytes) -> tuple[bytearray, list[tuple[int, FrameHead]]]:
        """Take what came next; return what may be handed on, and each head that begins in it, by its position.

        What is handed on ends before a head that is not all there: that comes with the rest of it, so that whoever
        wants to can change its first byte.
        """
        frames = bytearray(self._pending + data)
        self._pending = b""
        heads: list[tuple[int, FrameHead]] = []
        position, end = self._skip, len(frames)
        while position < end:
            head = frame_head(frames[position : position + MAX_HEAD])
            if head is None:
                self._pending = bytes(frames[position:])
                del frames[position:]
                position = end = len(frames)
                break
            heads.append((position, head))
            position += head.size + head.length + (4 if head.masked else 0)
        self._skip = position - end
        return frames, heads


# ---- sizes ----------------------------------------------------------------------------------------------------------


class SizeLimits:
    """The size limits of a channel, as numbers of bytes; channels with the same options may share one.

    Args:
        max_text: Bytes that a text message may have; None: no limit.
        max_binary: As much for a binary message.

    Attributes:
        text: The first, `MAX_SIZE` where there is no limit.
        binary: The second.
    """

    __slots__ = ("binary", "text")

    def __init__(self, max_text: int | None, max_binary: int | None) -> None:
        self.text = size_limit(max_text)
        self.binary = size_limit(max_binary)

    @property
    def largest(self) -> int:
        """The larger of both."""
        return max(self.text, self.binary)

    @property
    def is_uneven(self) -> bool:
        """Whether they differ, so that neither holds for each kind of message."""
        return self.text != self.binary

    def of(self, opcode: int, *, deflated: bool = False) -> int:
        """Return how many bytes a message may have that begins with ``opcode``.

        Args:
            opcode: Of a frame that is no continuation; a control frame has the limit of RFC 6455, 5.5, alone.
            deflated: Count those on the wire, where they are deflated.
        """
        limit = self.text if opcode == _TEXT else self.binary if opcode == _BINARY else MAX_SIZE
        return deflated_limit(limit) if deflated else limit

    def for_reader(self, *, highest: int = MAX_SIZE, deflates: bool = False) -> int | None:
        """Return the limit for a reader that knows one for all messages: the larger, or None for none.

        Args:
            highest: The most that it can be told; beyond that it is told of none.
            deflates: It counts messages while they are deflated, and has to let more pass for that.
        """
        limit = deflated_limit(self.largest) if deflates else self.largest
        return None if limit == MAX_SIZE or limit > highest else limit

    def needs_heads(self, *, highest: int = MAX_SIZE) -> bool:
        """Tell whether `for_reader` lets too much pass of what is not deflated, so that heads must be looked at."""
        return self.is_uneven or (self.largest != MAX_SIZE and self.largest > highest)


class MessageSize:
    """How long the message is that comes in, and whether that is too much.

    Args:
        max_text: Bytes that a text message may have; None: no limit.
        max_binary: As much for a binary message.

    Attributes:
        limits: The same as numbers.
        kind: The opcode of the message that is unfinished, or None.
        size: Bytes of it so far.
        is_deflated: Whether it is deflated.
    """

    __slots__ = ("is_deflated", "kind", "limits", "size")

    def __init__(self, max_text: int | None, max_binary: int | None) -> None:
        self.limits = SizeLimits(max_text, max_binary)
        self.kind: int | None = None
        self.size = 0
        self.is_deflated = False

    @property
    def max_frame(self) -> int:
        """The most bytes that a frame may have, whatever it is."""
        return self.limits.largest

    @property
    def is_uneven(self) -> bool:
        """Whether the limit of frames is not that of each kind of message."""
        return self.limits.is_uneven

    def left(self, opcode: int) -> int:
        """Return how many bytes, inflated, the message of a frame with ``opcode`` may still have."""
        kind = self.kind if opcode == _CONTINUATION else opcode
        return self.limits.of(_CONTINUATION if kind is None else kind) - self.size

    def is_too_big(self, opcode: int, length: int, *, deflated: bool = False) -> bool:
        """Tell whether ``length`` bytes more make the message too big of a data frame whose head is known.

        Args:
            opcode: Of the frame.
            length: What is to come of its payload.
            deflated: Whether that is deflated.
        """
        kind = self.kind if opcode == _CONTINUATION else opcode
        if kind != _TEXT and kind != _BINARY:
            return False
        return self.size + length > self.limits.of(kind, deflated=deflated)

    def head_read(self, head: FrameHead) -> bool:
        """Take the head of the next frame; tell whether its payload would make the message too big (LIM-1)."""
        if head.opcode == _TEXT or head.opcode == _BINARY:
            self.is_deflated = head.rsv & 4 != 0
        return self.is_too_big(head.opcode, head.length, deflated=self.is_deflated)

    def count(self, head: FrameHead) -> None:
        """Count a frame that was taken by `head_read`, for who leaves the joining to a server; as it is on the wire."""
        if head.opcode not in (_CONTINUATION, _TEXT, _BINARY):
            return
        if head.fin:
            self.kind, self.size = None, 0
            return
        if head.opcode != _CONTINUATION:
            self.kind, self.size = head.opcode, 0
        self.size += head.length

    def frame_limit(self, *, deflates: bool = False) -> int | None:
        """Return the limit of the next frame, for a reader that counts control frames too; None: no limit.

        Args:
            deflates: It counts frames while they are deflated.
        """
        most = self._most()
        if most == MAX_SIZE:
            return None
        limit = max(most - self.size, MAX_CONTROL)
        return deflated_limit(limit) if deflates else limit

    def needs_heads(self, *, deflates: bool = False) -> bool:
        """Tell whether `frame_limit` lets too much pass, so that the head of the next frame must be looked at."""
        most = self._most()
        if self.kind is None and self.limits.is_uneven:
            return True
        return most - self.size < MAX_CONTROL or (deflates and most != MAX_SIZE)

    def _most(self) -> int:
        """Return the limit of the message that is unfinished, or that may begin."""
        return self.limits.largest if self.kind is None else self.limits.of(self.kind)


# ---- messages -------------------------------------------------------------------------------------------------------


class MessageAssembler(MessageSize):
    """Joins the fragments of one message at a time, in memory that grows with their bytes and not with their number.

    Args and attributes as those of `MessageSize`.
    """

    __slots__ = ("_data",)

    def __init__(self, max_text: int | None, max_binary: int | None) -> None:
        super().__init__(max_text, max_binary)
        self._data: bytearray | None = None

    def add(self, opcode: int, payload: bytes | bytearray | memoryview, *, fin: bool) -> str | bytes | None:
        """Take a data frame, unmasked, inflated and with no reserved bit set; return the message that it ends, if any.

        Raises:
            FrameError: A continuation of nothing, or a new message in an unfinished one (1002); text that is not
                UTF-8 (1007), with the `UnicodeDecodeError` as its cause; more than the limit (1009).
        """
        kind = self.kind
        if opcode == _CONTINUATION:
            if kind is None:
                raise FrameError(1002, "continuation of nothing")
        elif kind is not None:
            raise FrameError(1002, "new message in an unfinished one")
        else:
            kind = opcode
        size = self.size + len(payload)
        if size > self.limits.of(kind):
            raise FrameError(1009, "message too big")
        data = self._data
        if not fin:
            if data is None:
                self._data = bytearray(payload)
            else:
                data += payload
            self.kind, self.size = kind, size
            return None
        whole: bytes | bytearray | memoryview = payload
        if data is not None:
            data += payload
            whole = data
        self.kind = self._data = None
        self.size = 0
        try:
            return str(whole, "utf-8") if kind == _TEXT else bytes(whole)
        except UnicodeDecodeError as exc:
            raise FrameError(1007, "invalid UTF-8") from exc

    def add_decoded(self, kind: int, data: str | bytes | bytearray, *, fin: bool) -> str | bytes | None:
        """As `add`, for a server that decodes text, and tells the kind of the message with each part of it.

        Raises:
            FrameError: More than the limit (1009).
        """
        if fin and self.kind is None:
            size = len(data)
            if type(data) is str and not data.isascii():
                size = len(data.encode())
            if size > self.limits.of(kind):
                raise FrameError(1009, "message too big")
            return data if type(data) is str else bytes(data)  # type: ignore[arg-type]
        opcode = kind if self.kind is None else _CONTINUATION
        return self.add(opcode, data.encode() if isinstance(data, str) else data, fin=fin)
