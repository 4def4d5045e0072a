"""What stands behind an end of deflated data, and reading that is held."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from wsbridge.connectors._pieces import PieceReader, inflate_rest


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
        self.prepare()

    def _parse(self, data: bytes) -> None:
        self.pieces.append(data)
        if data.startswith(b"h"):
            self.hold()

    def _kept(self) -> None:
        self.kept += 1


@pytest.mark.rule("FLOW-1")
async def test_what_comes_while_it_is_held_is_parsed_later_and_in_pieces() -> None:
    reader = Reader()
    reader.read_deflated()
    reader.data_received(b"early")
    assert (reader.kept, reader.pieces) == (1, [])
    reader.resume()
    assert reader.pieces == []  # not below the caller
    await asyncio.sleep(0)
    assert reader.pieces == [b"early"]
    reader.data_received(b"a" * 4096)
    reader.data_received(b"b" * 4096 + b"h" + b"c" * 4095 + b"d")
    assert reader.pieces[1:] == [b"a" * 4096, b"b" * 4096, b"h" + b"c" * 4095]
    assert not reader.transport.reading
    reader.data_received(b"e")
    reader.resume()
    reader.data_received(b"f")  # behind what waits
    assert (reader.pieces[4:], reader.transport.reading) == ([b"def"], True)
    await asyncio.sleep(0)
    reader.hold()
    reader.resume()
    assert (reader.pieces[5:], reader.transport.reading) == ([], True)
