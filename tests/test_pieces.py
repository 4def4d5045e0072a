"""What stands behind an end of deflated data, and reading that is held."""

from __future__ import annotations

import asyncio
import sys
import zlib

import pytest

from wsbridge.connectors._codecs import pieces as _pieces
from wsbridge.connectors._codecs.pieces import MAX_EARLY, PIECE, Inflation, PieceReader


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


@pytest.mark.rule("HS-11")
async def test_what_comes_before_it_begins_is_bounded_and_parsed_in_the_next_turn() -> None:
    class Early(Reader):
        def _kept(self) -> None:
            PieceReader._kept(self)

    reader = Early()
    reader.data_received(b"a" * MAX_EARLY)
    assert reader.transport.reading
    reader.data_received(b"b")
    assert not reader.transport.reading
    reader.begin_reading(b"c")
    assert reader.pieces == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert (b"".join(reader.pieces), reader.transport.reading) == (b"a" * MAX_EARLY + b"bc", True)
    reader = Early()
    reader.begin_reading()  # nothing has come
    assert reader.transport.reading
    reader.data_received(b"d")
    for _ in range(3):
        await asyncio.sleep(0)
    assert (reader.pieces, reader.transport.reading) == ([b"d"], True)


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
        if not self._comes_last(self.lost):
            self.pieces.append(b"lost")


async def working() -> Working:
    reader = Working()
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


@pytest.mark.rule("SEND-9")
async def test_what_is_due_waits_for_the_work_too() -> None:
    reader = Working()
    reader.data_received(b"w")
    reader.data_received(b"w" * PIECE + b"after")
    reader.resume()
    reader.lost()  # what is due comes first
    await asyncio.sleep(0)
    assert (reader.pieces, reader.transport.reading) == ([b"w" * PIECE], False)
    reader.hold()
    reader.resume()  # by a channel that has had enough for a moment
    for _ in range(2):
        await asyncio.sleep(0)
    assert reader.pieces == [b"w" * PIECE]
    reader.work.set_result(b"worked")
    await asyncio.sleep(0)
    assert reader.pieces[1:] == [b"worked", b"wafter"]  # which is worked on in its turn
    await asyncio.sleep(0)
    assert reader.pieces[3:] == [b"worked", b"lost"]


@pytest.mark.rule("SEND-9")
async def test_a_turn_that_is_due_does_not_go_on_during_the_work() -> None:
    reader = Working()
    reader.data_received(b"a")
    reader.resume()  # its turn is due
    reader._wait_for(reader.work)
    await asyncio.sleep(0)
    assert reader.pieces == []
    reader.work.set_result(b"worked")
    await asyncio.sleep(0)
    assert (reader.pieces, reader.transport.reading) == ([b"worked", b"a"], True)


@pytest.mark.rule("FLOW-3")
async def test_what_is_left_after_the_work_has_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = await working()
    reader.data_received(b"a" * PIECE)
    reader.lost()
    times = iter(range(100))
    monkeypatch.setattr(_pieces, "perf_counter", lambda: next(times))
    reader.work.set_result(b"worked")
    await asyncio.sleep(0)
    rest = b"behind" + b"a" * PIECE
    assert (reader.pieces[2:], reader.transport.reading) == ([rest[:PIECE]], False)
    await asyncio.sleep(0)
    assert reader.pieces[3:] == [rest[PIECE:], b"lost"]


@pytest.mark.rule("SEND-9")
async def test_an_end_does_not_wait_for_a_channel_that_has_enough() -> None:
    reader = await working()
    reader.hold()
    reader.lost()
    reader.work.set_result(b"worked")
    await asyncio.sleep(0)
    assert reader.pieces == [b"w", b"worked", b"lost"]
