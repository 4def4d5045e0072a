"""Messages from frames (RFC 6455, 5.4), for servers that deliver frames and leave the rest to their caller."""

from __future__ import annotations

import sys

__all__ = ["MAX_HEAD", "MAX_SIZE", "FrameError", "MessageAssembler", "declared", "size_limit"]

_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2

MAX_HEAD = 10  # bytes of a frame's head, up to its masking key
MAX_SIZE = sys.maxsize  # bytes: no message can be longer, nor does a server's C code take a higher number


def size_limit(limit: int | None) -> int:
    """Return a limit of the options as a number that any server takes: the highest for None, and for any above it."""
    return MAX_SIZE if limit is None else min(limit, MAX_SIZE)


class FrameError(Exception):
    """A frame that ends the channel.

    Attributes:
        code: What to close with: 1002, 1007 or 1009.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class MessageAssembler:
    """Joins the fragments of one message at a time, in memory that grows with their bytes and not with their number.

    Args:
        max_text: Bytes that a text may have; None: no limit.
        max_binary: As much for a binary message.

    Attributes:
        kind: The opcode of the message that is unfinished, or None.
    """

    __slots__ = ("_data", "_max_binary", "_max_text", "kind")

    def __init__(self, max_text: int | None, max_binary: int | None) -> None:
        self.kind: int | None = None
        self._data: bytearray | None = None
        self._max_text = size_limit(max_text)
        self._max_binary = size_limit(max_binary)

    @property
    def max_frame(self) -> int:
        """The most bytes that a frame may have, whatever it is."""
        return max(self._max_text, self._max_binary)

    @property
    def is_uneven(self) -> bool:
        """Whether the limit of frames is not that of each kind of message."""
        return self._max_text != self._max_binary

    def add(self, opcode: int, payload: bytes | memoryview, *, fin: bool) -> str | bytes | None:
        """Take a data frame, unmasked and with no reserved bit set; return the message that it ends, if it does.

        Raises:
            FrameError: A continuation of nothing, or a new message in an unfinished one (1002); text that is not
                UTF-8 (1007); more than the limit (1009).
        """
        kind = self.kind
        if opcode == _CONTINUATION:
            if kind is None:
                raise FrameError(1002, "continuation of nothing")
        elif kind is not None:
            raise FrameError(1002, "new message in an unfinished one")
        else:
            kind = opcode
        data = self._data
        size = len(payload) + (0 if data is None else len(data))
        if size > (self._max_text if kind == _TEXT else self._max_binary):
            raise FrameError(1009, "message too big")
        if not fin:
            if data is None:
                self.kind, self._data = kind, bytearray(payload)
            else:
                data += payload
            return None
        whole: bytes | bytearray | memoryview = payload
        if data is not None:
            data += payload
            whole = data
        self.kind = self._data = None
        try:
            return str(whole, "utf-8") if kind == _TEXT else bytes(whole)
        except UnicodeDecodeError:
            raise FrameError(1007, "invalid UTF-8") from None

    def is_too_big(self, opcode: int, length: int) -> bool:
        """Tell whether a data frame of ``length`` bytes, whose head is known, makes its message too big."""
        kind = self.kind if opcode == _CONTINUATION else opcode
        if kind not in (_TEXT, _BINARY):
            return False
        held = 0 if self._data is None else len(self._data)
        return held + length > (self._max_text if kind == _TEXT else self._max_binary)


def declared(head: bytes) -> tuple[int, int] | None:
    """Return opcode and payload length of the frame that begins with ``head``; None if that is too short to tell."""
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    wide = {126: 2, 127: 8}.get(length, 0)
    if wide:
        if len(head) < 2 + wide:
            return None
        length = int.from_bytes(head[2 : 2 + wide])
    return head[0] & 0x0F, length
