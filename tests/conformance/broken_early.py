"""Connectors that lose, double or move what a peer sends before its channel reads (HS-11)."""

from __future__ import annotations

from tests.conformance.breaking import Tamper, breaks


class _First(Tamper):
    """Changes what the first read brings after the request."""

    reads_pieces = True
    count = 0

    def piece(self, data: bytes) -> bytes:
        self.count += 1
        return self.first(data) if self.count == 1 else self.later(data)

    def first(self, data: bytes) -> bytes:
        return data

    def later(self, data: bytes) -> bytes:
        return data


@breaks("HS-11")
class LosesAByteBehindTheRequest(_First):
    def first(self, data: bytes) -> bytes:
        return data[:-1]


@breaks("HS-11")
class DoublesWhatComesBehindTheRequest(_First):
    def first(self, data: bytes) -> bytes:
        return data + data


@breaks("HS-11")
class MovesWhatComesBehindTheRequest(_First):
    held = b""

    def first(self, data: bytes) -> bytes:
        self.held = data
        return b""

    def later(self, data: bytes) -> bytes:
        held, self.held = self.held, b""
        return data + held
