"""How what a peer sends is put on the wire: whole, cut into segments, in fragments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wsbridge.conformance.client.frames import parse_head

__all__ = ["WHOLE", "Cut", "Shape", "frame_pieces", "request_pieces"]

Cut: TypeAlias = Literal["whole", "head", "byte", "joined"]

_FIRST, _LAST = 40, 4  # bytes at either end of what is sent that go alone
_FRAMES = 8  # frames of one write whose heads are cut


@dataclass(frozen=True, slots=True)
class Shape:
    """What becomes of that which a check has its peer send.

    Attributes:
        cut: ``whole``: it is sent as it is. ``head``: cut at each byte of a frame's head, and in the line ends of a
            request. ``byte``: each byte goes alone; of what is long, the first and the last ones. ``joined``: each
            frame goes behind an unsolicited pong, in one segment.
        fragments: Whether a message that would be one frame is three, of which the second is empty.
    """

    cut: Cut = "whole"
    fragments: bool = False

    def parts(self, parts: Sequence[bytes]) -> Sequence[bytes]:
        """Return the fragments in which a message is sent that was to be sent in ``parts``."""
        if not self.fragments or len(parts) > 1 or len(parts[0]) < 2:
            return parts
        (whole,) = parts
        return whole[: (len(whole) + 1) // 2], b"", whole[(len(whole) + 1) // 2 :]


WHOLE = Shape()


def _split(data: bytes, at: Iterable[int]) -> Iterator[bytes]:
    """Yield the pieces of ``data`` between the places ``at``, none of them empty."""
    start = 0
    for end in (*sorted({place for place in at if 0 < place < len(data)}), len(data)):
        if end > start:
            yield data[start:end]
        start = end


def _ends(data: bytes) -> Iterable[int]:
    """Return the places that leave the first and the last bytes of ``data`` alone."""
    return (*range(1, _FIRST + 1), *range(len(data) - _LAST, len(data)))


def frame_pieces(data: bytes, cut: Cut) -> list[bytes]:
    """Return the pieces in which ``data``, which begins with a frame, is sent."""
    if cut == "byte":
        return list(_split(data, _ends(data)))
    if cut != "head":
        return [data]
    places: list[int] = []
    start = 0
    for _ in range(_FRAMES):
        if (head := parse_head(data, start)) is None:
            places += range(start, len(data))
            break
        places += range(start, start + head.size + 1)
        start += head.size + head.length
    return list(_split(data, places))


def request_pieces(data: bytes, cut: Cut) -> list[bytes]:
    """Return the pieces in which ``data``, the head of a request or a part of it, is sent."""
    if cut == "byte":
        return list(_split(data, _ends(data)))
    if cut != "head":
        return [data]
    first, last = data.find(b"\r\n"), data.find(b"\r\n\r\n")
    return list(_split(data, (1, first + 1, first + 2, last + 1, last + 2, last + 3, last + 4)))
