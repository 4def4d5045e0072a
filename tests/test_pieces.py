"""What stands behind an end of deflated data, and reading that is held."""

from __future__ import annotations

import asyncio
import sys
import zlib

import pytest

from wsbridge.connectors._pieces import Inflation, PieceReader


def final(data: bytes) -> bytes:
    """Return data deflated in a block that says it is the last."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def inflation(deflated: bytes) -> Inflation:
    return Inflation(zlib.decompressobj(wbits=-15), deflated, 15)


@pytest.mark.rule("SEND-8")
def test_it_is_inflated_behind_each_final_block() -> None:
    deflater = zlib.compressobj(wbits=-15)
    last = deflater.compress(b"last") + deflater.flush(zlib.Z_SYNC_FLUSH)
    begun = inflation(final(b"a") + final(b"b" * 9) + last)
    assert begun.go_on(1000)
    assert (begun.data, begun.size, begun.inflater.eof) == (b"a" + b"b" * 9 + b"last", 14, False)
    again = deflater.compress(b"on") + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert begun.inflater.decompress(again) == b"on"  # with the window that it has now
    going = zlib.decompressobj(wbits=-15)
    only = Inflation(going, last, 15)
    assert (only.go_on(4), only.inflater, only.data) == (True, going, b"last")


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize("limit", [0, 1, 2, 8, 9, 10, 11, 999_999])
def test_no_more_than_a_byte_beyond_the_limit_is_inflated(limit: int) -> None:
    parts = [final(b"a"), final(b"bbbb"), final(b"ccccc"), final(b"d" * 1_000_000)]
    whole = b"abbbbccccc" + b"d" * 1_000_000
    begun = inflation(b"".join(parts))
    assert not begun.go_on(limit)
    assert (begun.data, begun.size) == (whole[: limit + 1], limit + 1)
    assert begun.go_on(len(whole))  # the rest, in a second step
    assert begun.data == whole


@pytest.mark.rule("LIM-6")
@pytest.mark.parametrize("limit", [sys.maxsize - 1, sys.maxsize, 2**64])
def test_a_limit_may_be_any_number(limit: int) -> None:
    begun = inflation(final(b"all"))
    assert (begun.go_on(limit), begun.data) == (True, b"all")


def test_what_cannot_be_inflated_is_an_error() -> None:
    with pytest.raises(zlib.error, match="invalid"):
        inflation(final(b"a") + b"\xff\xff\xff").go_on(10)
    few, many = (inflation(final(b"") * number) for number in (16, 17))
    assert (few.go_on(10), few.data) == (True, b"")
    with pytest.raises(zlib.error, match="too many"):
        many.go_on(10)


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


class Working(Reader):
    """Has a piece that begins with ``w`` worked on by somebody else, until `work` is done."""

    def __init__(self) -> None:
        super().__init__()
        self.work: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def _parse(self, data: bytes) -> None:
        super()._parse(data)
        if data.startswith(b"w"):
            self._wait_for(self.work)

    def _worked(self, work: asyncio.Future[bytes]) -> None:
        self.pieces.append(work.result())

    def lost(self) -> None:
        if not self._is_put_off(self.lost):
            self.pieces.append(b"lost")


async def working() -> Working:
    reader = Working()
    reader.read_deflated()
    reader.resume()
    reader.data_received(b"w")
    reader.data_received(b"behind")
    reader.resume()  # by a channel whose queue is empty
    await asyncio.sleep(0)
    assert (reader.pieces, reader.transport.reading) == ([b"w"], False)
    return reader


@pytest.mark.rule("SEND-9")
async def test_all_waits_behind_what_is_worked_on() -> None:
    reader = await working()
    reader.work.set_result(b"worked")
    for _ in range(2):
        await asyncio.sleep(0)
    assert (reader.pieces, reader.transport.reading) == ([b"w", b"worked", b"behind"], True)


@pytest.mark.rule("SEND-9")
async def test_a_channel_that_has_enough_is_not_fed_when_the_work_is_done() -> None:
    reader = await working()
    reader.hold()
    reader.work.set_result(b"worked")
    for _ in range(2):
        await asyncio.sleep(0)
    assert (reader.pieces, reader.transport.reading) == ([b"w", b"worked"], False)
    reader.resume()
    await asyncio.sleep(0)
    assert reader.pieces[2:] == [b"behind"]


@pytest.mark.rule("SEND-9")
async def test_an_end_is_told_behind_what_came_before_it() -> None:
    reader = await working()
    reader.lost()
    assert reader.pieces == [b"w"]
    reader.work.set_result(b"worked")
    await asyncio.sleep(0)
    assert reader.pieces == [b"w", b"worked", b"behind", b"lost"]
