"""What stands behind an end of deflated data, and reading that is held."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from wsbridge.connectors import _pieces
from wsbridge.connectors._pieces import PIECE, PieceReader, inflate_rest


def final(data: bytes) -> bytes:
    """Return data deflated in a block that says it is the last."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def begun(deflated: bytes) -> Any:
    inflater = zlib.decompressobj(wbits=-15)
    inflater.decompress(deflated)
    return inflater


@pytest.mark.rule("SEND-8")
def test_it_is_inflated_behind_each_final_block() -> None:
    deflater = zlib.compressobj(wbits=-15)
    last = deflater.compress(b"last") + deflater.flush(zlib.Z_SYNC_FLUSH)
    inflater, inflated = inflate_rest(begun(final(b"a") + final(b"b" * 9) + last), 15)
    assert (inflated, inflater.eof) == (b"b" * 9 + b"last", False)
    again = deflater.compress(b"on") + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert inflater.decompress(again) == b"on"  # with the window that it has now
    going = begun(last)
    assert inflate_rest(going, 15) == (going, b"")


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize("room", [0, 1, 8, 9, 10])
def test_no_more_than_a_byte_beyond_the_room_is_inflated(room: int) -> None:
    _, inflated = inflate_rest(
        begun(final(b"a") + final(b"bbbb") + final(b"ccccc") + final(b"d" * 1_000_000)), 15, room
    )
    assert inflated == (b"bbbbccccc" + b"d" * 1_000_000)[: room + 1]


def test_what_cannot_be_inflated_is_an_error() -> None:
    with pytest.raises(zlib.error, match="invalid"):
        inflate_rest(begun(final(b"a") + b"\xff\xff\xff"), 15)
    few, many = (begun(final(b"") * number) for number in (16, 17))
    assert inflate_rest(few, 15)[1] == b""
    with pytest.raises(zlib.error, match="too many"):
        inflate_rest(many, 15)


class Transport(asyncio.Transport):
    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Reader(PieceReader):
    """Wants nothing more behind a piece that begins with ``h``."""

    transport: Transport

    def __init__(self) -> None:
        self.transport = Transport()
        self.pieces: list[bytes] = []
        self.kept = 0
        self.lacks = 0
        self.prepare()

    def _lacking(self) -> int:
        lacks, self.lacks = self.lacks, 0
        return lacks

    def _parse(self, data: bytes) -> None:
        self.pieces.append(data)
        if data.startswith(b"h"):
            self.hold()

    def _kept(self) -> None:
        self.kept += 1


@pytest.mark.rule("FLOW-1")
async def test_what_comes_while_it_is_held_is_parsed_later_and_in_pieces() -> None:
    reader = Reader()
    reader.data_received(b"early")
    assert (reader.kept, reader.pieces) == (1, [])
    reader.resume()
    assert reader.pieces == []  # not below the caller
    await asyncio.sleep(0)
    assert reader.pieces == [b"early"]
    reader.data_received(b"a" * PIECE)
    reader.data_received(b"b" * PIECE + b"h" + b"c" * (PIECE - 1) + b"d")
    assert reader.pieces[1:] == [b"a" * PIECE, b"b" * PIECE, b"h" + b"c" * (PIECE - 1)]
    assert not reader.transport.reading
    reader.data_received(b"e")
    reader.resume()
    reader.data_received(b"f")  # after what waits
    assert reader.pieces[4:] == []
    await asyncio.sleep(0)
    assert (reader.pieces[4:], reader.transport.reading) == ([b"def"], True)
    reader.hold()
    reader.resume()
    assert (reader.pieces[5:], reader.transport.reading) == ([], True)


@pytest.mark.rule("FLOW-3")
async def test_what_takes_longer_than_a_turn_goes_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr(_pieces, "perf_counter", lambda: next(times))  # each look at it a second later
    reader = Reader()
    reader.resume()
    reader.data_received(b"a" * PIECE + b"b" * PIECE + b"c")
    assert (reader.pieces, reader.transport.reading) == ([b"a" * PIECE], False)
    ends: list[str] = []
    assert reader._comes_last(lambda: ends.append("lost"))
    reader.data_received(b"d")  # as TLS may deliver more
    await asyncio.sleep(0)
    assert (reader.pieces[1:], ends) == ([b"b" * PIECE], [])
    await asyncio.sleep(0)
    assert (reader.pieces[2:], ends) == ([b"cd"], ["lost"])
    assert not reader._comes_last(lambda: ends.append("again"))


@pytest.mark.rule("FLOW-3")
def test_the_rest_of_a_frame_is_one_piece() -> None:
    reader = Reader()
    reader.resume()
    reader.lacks = 5 * PIECE
    reader.data_received(b"a" * (6 * PIECE))
    assert [len(piece) for piece in reader.pieces] == [5 * PIECE, PIECE]
