"""Connectors that read a head wrong which TCP has cut (FRAME-9)."""

from __future__ import annotations

from tests.conformance.breaking import Tamper, breaks


def _head_size(data: bytes) -> int:
    """Return how long the head is that ``data`` begins with, its key included; 2 if that is not known yet."""
    if len(data) < 2:
        return 2
    length = data[1] & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if data[1] & 0x80 else 0)


def _frame_size(data: bytes) -> int:
    """Return how long the frame is whose whole head ``data`` begins with."""
    length = data[1] & 0x7F
    if length == 126:
        length = int.from_bytes(data[2:4])
    elif length == 127:
        length = int.from_bytes(data[2:10])
    return _head_size(data) + length


class _Follows(Tamper):
    """Knows where in a head a read has ended, if it has."""

    reads_pieces = True
    rest = b""
    skip = 0

    def follow(self, data: bytes) -> int:
        """Take what was read; return how many bytes of a head it ends with that is not whole."""
        self.rest += data[self.skip :]
        self.skip = max(0, self.skip - len(data))
        while len(self.rest) >= _head_size(self.rest):
            size = _frame_size(self.rest)
            self.skip += max(0, size - len(self.rest))
            self.rest = self.rest[size:]
        return len(self.rest)


@breaks("FRAME-9")
class LosesTheRestOfAHead(_Follows):
    """Where a read has ended within a head, a byte of what follows is lost."""

    is_cut = False

    def piece(self, data: bytes) -> bytes:
        was_cut, self.is_cut = self.is_cut, self.follow(data) > 0
        return data[1:] if was_cut else data


@breaks("FRAME-9")
class LosesALongHead(_Follows):
    """The same, but only within a head that has a length of 64 bits."""

    is_cut = False

    def piece(self, data: bytes) -> bytes:
        was_cut, self.is_cut = self.is_cut, self.follow(data) > 2 and self.rest[1] & 0x7F == 127
        return data[1:] if was_cut else data


@breaks("FRAME-9")
class LosesAHeadBehindOthers(_Follows):
    """The same, but only where other frames stand before it in the read."""

    is_cut = False

    def piece(self, data: bytes) -> bytes:
        was_cut, cut = self.is_cut, self.follow(data)
        self.is_cut = 0 < cut < len(data) > 1000
        return data[1:] if was_cut else data
