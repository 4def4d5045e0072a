"""Frames as bytes (RFC 6455, section 5): built, legal or not, and read leniently."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from wsproto.frame_protocol import Opcode

__all__ = [
    "SHOWN",
    "Frame",
    "FrameHead",
    "Opcode",
    "build_frame",
    "close_payload",
    "described",
    "frames_in",
    "masked",
    "parse_head",
]

SHOWN = 48
"""Bytes of a payload that a description shows."""

_OPCODES = {int(opcode): opcode for opcode in Opcode}


class FrameHead(NamedTuple):
    """A frame's header: `length` is that of the payload, `size` that of the header itself, in bytes."""

    fin: bool
    rsv: int
    opcode: int
    masked: bool
    length: int
    size: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was on the wire.

    `opcode` is an `Opcode` unless reserved; `payload` is unmasked, not inflated; `rsv` is 0 to 7 (RSV1: 4).
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    def __str__(self) -> str:
        """Describe the frame in one short line."""
        return described(FrameHead(self.fin, self.rsv, self.opcode, self.masked, len(self.payload), 0), self.payload)


def parse_head(data: bytes | bytearray, start: int = 0) -> FrameHead | None:
    """Read a frame header leniently (section 5.2); None if it is not all there."""
    if len(data) < start + 2:
        return None
    first, second = data[start], data[start + 1]
    extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
    masked = bool(second & 0x80)
    size = 2 + extended + 4 * masked
    if len(data) < start + size:
        return None
    length = int.from_bytes(data[start + 2 : start + 2 + extended]) if extended else second & 0x7F
    return FrameHead(bool(first & 0x80), first >> 4 & 7, _OPCODES.get(first & 0x0F, first & 0x0F), masked, length, size)


def frames_in(data: bytes) -> Iterator[tuple[FrameHead, bytes]]:
    """Yield the header and the start of the unmasked payload of each frame that begins in `data`."""
    position = 0
    while (head := parse_head(data, position)) is not None:
        start = position + head.size
        shown = data[start : start + min(head.length, SHOWN + 1)]
        yield head, masked(shown, data[start - 4 : start]) if head.masked else shown
        position = start + head.length


def masked(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (section 5.3), by one XOR of two long integers, which is fast for any size."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


def described(head: FrameHead, payload: bytes) -> str:
    """Describe a frame by its header and the start of its payload."""
    shown = payload[:SHOWN]
    if head.opcode == Opcode.CLOSE and len(shown) >= 2:
        content = f"{int.from_bytes(shown[:2])} {shown[2:]!r}"
    else:
        content = repr(shown) if shown else ""
    name = _OPCODES[head.opcode].name if head.opcode in _OPCODES else f"opcode {head.opcode}"
    flags = f"{'' if head.fin else ' unfinished'}{f' rsv={head.rsv}' if head.rsv else ''}"
    more = "..." if head.length > SHOWN else ""
    return f"{name}{flags}{' masked' if head.masked else ''} length={head.length} {content}{more}".rstrip()


def build_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool | bytes = True,
    length: int | None = None,
    length_bits: Literal[7, 16, 64] | None = None,
) -> bytes:
    """Return one frame, legal or not.

    Args:
        opcode: 0 to 15.
        payload: What follows the header, whatever `length` says.
        fin: Whether the message ends here.
        rsv: The reserved bits, 0 to 7; RSV1 is 4.
        mask: True for a random key, False for none, or the four bytes of the key.
        length: The length to declare, if not the true one.
        length_bits: The encoding of the length, if not the shortest.
    """
    declared = len(payload) if length is None else length
    if length_bits is None:
        length_bits = 7 if declared < 126 else 16 if declared < 1 << 16 else 64
    key = os.urandom(4) if mask is True else mask or b""
    short = {7: declared, 16: 126, 64: 127}[length_bits]
    head = bytes((fin << 7 | rsv << 4 | opcode, (0x80 if key else 0) | short))
    extended = declared.to_bytes({7: 0, 16: 2, 64: 8}[length_bits]) if length_bits != 7 else b""
    return b"".join((head, extended, key, masked(payload, key) if key else payload))


def close_payload(code: int, text: str = "") -> bytes:
    """Return the payload of a close frame (section 5.5.1), legal or not."""
    return struct.pack("!H", code) + text.encode()
