"""Frames and messages: what a head says, what the limits let each kind of reader pass, how fragments are joined."""

from __future__ import annotations

import sys
from itertools import product

import pytest

from wsbridge.connector import (
    MAX_CONTROL,
    MAX_SIZE,
    FrameError,
    FrameHead,
    FrameHeads,
    MessageAssembler,
    MessageSize,
    SizeLimits,
    declared,
    deflated_limit,
    frame_head,
    size_limit,
)

CONTINUATION, TEXT, BINARY, RESERVED, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xA
MIB = 1 << 20
HIGHEST = 2**32 - 2  # of a reader that keeps its limit in 32 bits


def head(opcode: int, length: int, *, fin: bool = True, rsv: int = 0) -> FrameHead:
    return FrameHead(opcode, length, fin, rsv, masked=True, size=2 if length < 126 else 4 if length < 2**16 else 10)


def encoded(head: FrameHead) -> bytes:
    """Return a head as it stands on the wire, up to its masking key."""
    first = bytes([head.fin << 7 | head.rsv << 4 | head.opcode])
    if head.size == 2:
        return first + bytes([head.masked << 7 | head.length])
    code, width = (126, 2) if head.size == 4 else (127, 8)
    return first + bytes([head.masked << 7 | code]) + head.length.to_bytes(width)


# ---- limits as numbers ----------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-6")
@pytest.mark.parametrize(
    ("limit", "number", "deflated"),
    [
        (1, 1, 65),
        (255, 255, 319),
        (256, 256, 321),
        (MIB, MIB, MIB + (1 << 12) + 64),
        (2**31, 2**31, 2**31 + 2**23 + 64),
        (2**32, 2**32, 2**32 + 2**24 + 64),
        (sys.maxsize - 1, sys.maxsize - 1, sys.maxsize),
        (sys.maxsize, sys.maxsize, sys.maxsize),
        (2**70, sys.maxsize, sys.maxsize),
        (None, sys.maxsize, sys.maxsize),
    ],
)
def test_a_limit_is_a_number_that_every_server_takes(limit: int | None, number: int, deflated: int) -> None:
    assert size_limit(limit) == number
    assert deflated_limit(number) == deflated
    for limits, opcode in ((SizeLimits(limit, 7), TEXT), (SizeLimits(7, limit), BINARY)):
        assert limits.of(opcode) == number
        assert limits.of(opcode, deflated=True) == deflated
        assert limits.largest == MessageSize(limit, 7).max_frame == max(number, 7)
        assert limits.is_uneven == MessageSize(limit, 7).is_uneven == (number != 7)
        assert limits.of(PING) == MAX_SIZE


@pytest.mark.rule("LIM-1", "LIM-6")
@pytest.mark.parametrize(
    ("text", "binary", "plain", "deflated", "needs_heads"),
    [
        (1, 1, 1, 65, False),
        (MIB, MIB, MIB, MIB + 4160, False),
        (1, MIB, MIB, MIB + 4160, True),
        (MIB, 1, MIB, MIB + 4160, True),
        (None, MIB, None, None, True),
        (MIB, None, None, None, True),
        (None, None, None, None, False),
        (2**31, 2**31, 2**31, 2**31 + 2**23 + 64, False),
        (2**32, 2**32, 2**32, 2**32 + 2**24 + 64, False),
        (2**32, 2**31, 2**32, 2**32 + 2**24 + 64, True),
        (sys.maxsize, sys.maxsize, None, None, False),
        (sys.maxsize, None, None, None, False),
        (2**70, 2**71, None, None, False),
        (sys.maxsize - 1, sys.maxsize - 1, sys.maxsize - 1, None, False),
    ],
)
def test_a_reader_that_knows_one_limit(
    text: int | None, binary: int | None, plain: int | None, deflated: int | None, needs_heads: bool
) -> None:
    limits = SizeLimits(text, binary)
    assert limits.for_reader() == plain
    assert limits.for_reader(deflates=True) == deflated
    assert limits.needs_heads() == needs_heads


@pytest.mark.rule("LIM-6")
@pytest.mark.parametrize(
    ("limit", "plain", "deflated", "needs_heads"),
    [
        (MIB, MIB, MIB + 4160, False),
        (2**31, 2**31, 2**31 + 2**23 + 64, False),
        (HIGHEST - 2**24, HIGHEST - 2**24, HIGHEST - 2**16 + 63, False),
        (HIGHEST - 1, HIGHEST - 1, None, False),
        (HIGHEST, HIGHEST, None, False),
        (HIGHEST + 1, None, None, True),
        (2**32, None, None, True),
        (sys.maxsize - 1, None, None, True),
        (sys.maxsize, None, None, False),
        (None, None, None, False),
    ],
)
def test_a_reader_whose_limit_has_a_limit(
    limit: int | None, plain: int | None, deflated: int | None, needs_heads: bool
) -> None:
    limits = SizeLimits(limit, limit)
    assert limits.for_reader(highest=HIGHEST) == plain
    assert limits.for_reader(highest=HIGHEST, deflates=True) == deflated
    assert limits.needs_heads(highest=HIGHEST) == needs_heads


@pytest.mark.rule("LIM-1", "LIM-6")
@pytest.mark.parametrize(
    ("limits", "begun", "plain", "deflated", "needs_heads"),
    [
        ((MIB, MIB), None, MIB, MIB + 4160, False),
        ((MIB, MIB), (TEXT, MIB - 125), 125, 189, False),
        ((MIB, MIB), (BINARY, MIB - 124), 125, 189, True),  # a control frame may come
        ((MIB, MIB), (BINARY, MIB), 125, 189, True),
        ((1, 1), None, 125, 189, True),
        ((1000, MIB), None, MIB, MIB + 4160, True),
        ((1000, MIB), (TEXT, 0), 1000, 1067, False),
        ((1000, MIB), (BINARY, 0), MIB, MIB + 4160, False),
        ((None, 1000), None, None, None, True),
        ((None, 1000), (TEXT, 5000), None, None, False),
        ((None, 1000), (BINARY, 500), 500, 565, False),
        ((None, None), None, None, None, False),
        ((sys.maxsize, None), (TEXT, 1000), None, None, False),
        ((2**32, 2**31), (BINARY, 2**30), 2**30, 2**30 + 2**22 + 64, False),
    ],
)
def test_a_reader_that_is_told_the_limit_of_each_frame(
    limits: tuple[int | None, int | None],
    begun: tuple[int, int] | None,
    plain: int | None,
    deflated: int | None,
    needs_heads: bool,
) -> None:
    message = MessageSize(*limits)
    if begun is not None:
        message.kind, message.size = begun
    assert message.frame_limit() == plain
    assert message.frame_limit(deflates=True) == deflated
    assert message.needs_heads() == needs_heads
    assert message.needs_heads(deflates=True) == (needs_heads or deflated is not None)


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize("limits", list(product((1, 124, 125, 126, 1000, None), repeat=2)))
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("before", [0, 1, 100])
def test_what_a_reader_and_the_heads_let_pass_is_the_limit(
    limits: tuple[int | None, int | None], opcode: int, before: int
) -> None:
    """To the byte, if heads are looked at where that is told to be needed; and a control frame always passes."""
    message = MessageAssembler(*limits)
    limit = limits[opcode - 1]
    if before:
        if limit is not None and before > limit:
            return
        message.add(opcode, b"x" * before, fin=False)
        opcode = CONTINUATION

    def passes(opcode: int, length: int) -> bool:
        native = message.frame_limit()
        if native is not None and length > native:
            return False
        return not (message.needs_heads() and message.head_read(head(opcode, length)))

    assert passes(PING, MAX_CONTROL)
    if limit is None:
        assert passes(opcode, 1 << 40)
    else:
        assert passes(opcode, limit - before)
        assert not passes(opcode, limit - before + 1)
        assert message.left(opcode) == limit - before


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize(
    ("opcode", "length", "rsv", "is_too_big"),
    [
        (TEXT, 1000, 0, False),
        (TEXT, 1001, 0, True),
        (TEXT, 1067, 4, False),
        (TEXT, 1068, 4, True),
        (TEXT, 1001, 3, True),
        (BINARY, 2000, 0, False),
        (BINARY, 2001, 0, True),
        (BINARY, 2071, 4, False),
        (BINARY, 2072, 4, True),
        *((opcode, 1 << 40, 0, False) for opcode in (CONTINUATION, RESERVED, CLOSE, PING)),  # others refuse them
        *((opcode, 2**64 - 1, 4, False) for opcode in (CONTINUATION, RESERVED, CLOSE, PING)),
    ],
)
def test_what_a_head_declares_counts_before_its_payload_is_there(
    opcode: int, length: int, rsv: int, is_too_big: bool
) -> None:
    message = MessageSize(1000, 2000)
    assert message.head_read(head(opcode, length, rsv=rsv)) == is_too_big
    assert message.is_too_big(opcode, length, deflated=rsv & 4 != 0) == is_too_big


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize(
    ("frames", "fits", "exceeds"),
    [
        ([(TEXT, 400, False, 0)], 600, 601),
        ([(TEXT, 400, False, 0), (PING, 125, True, 0), (CONTINUATION, 500, False, 0)], 100, 101),
        ([(TEXT, 400, False, 4), (PING, 125, True, 0)], 667, 668),  # that it is deflated is said once
        ([(TEXT, 900, True, 4), (TEXT, 0, False, 0)], 1000, 1001),  # and holds for one message
        ([(BINARY, 2000, True, 0), (TEXT, 400, False, 0), (CONTINUATION, 1, False, 0)], 599, 600),
        ([(TEXT, 900, False, 0), (CONTINUATION, 100, True, 0), (BINARY, 1, False, 0)], 1999, 2000),
    ],
)
def test_frames_are_counted_by_their_heads(frames: list[tuple[int, int, bool, int]], fits: int, exceeds: int) -> None:
    message = MessageSize(1000, 2000)
    for opcode, length, fin, rsv in frames:
        taken = head(opcode, length, fin=fin, rsv=rsv)
        assert not message.head_read(taken)
        message.count(taken)
    assert not message.head_read(head(CONTINUATION, fits))
    assert message.head_read(head(CONTINUATION, exceeds))


# ---- heads ----------------------------------------------------------------------------------------------------------

HEADS = [
    (b"\x81\x80", FrameHead(TEXT, 0, fin=True, rsv=0, masked=True, size=2)),
    (b"\x02\xfd", FrameHead(BINARY, 125, fin=False, rsv=0, masked=True, size=2)),
    (b"\xf0\xfe\x01\x00", FrameHead(CONTINUATION, 256, fin=True, rsv=7, masked=True, size=4)),
    (b"\xc1\x7e\xff\xff", FrameHead(TEXT, 2**16 - 1, fin=True, rsv=4, masked=False, size=4)),
    (b"\x88\xff" + (1 << 40).to_bytes(8), FrameHead(CLOSE, 1 << 40, fin=True, rsv=0, masked=True, size=10)),
    (b"\x13\x7f" + b"\xff" * 8, FrameHead(RESERVED, 2**64 - 1, fin=False, rsv=1, masked=False, size=10)),
]


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize(("data", "found"), HEADS)
def test_the_head_of_a_frame(data: bytes, found: FrameHead) -> None:
    assert encoded(found) == data
    for size in range(len(data)):
        assert frame_head(data[:size]) is None
        assert declared(data[:size]) is None
    for kind in (bytes, bytearray, memoryview):
        assert frame_head(kind(data)) == frame_head(kind(data + b"key and payload")) == found
    assert declared(data) == (found.opcode, found.length)


def stream() -> tuple[bytes, list[tuple[int, FrameHead]]]:
    """Return frames, one after the other, and where their heads are."""
    frames, heads = b"", []
    for opcode, length, masked in ((TEXT, 0, True), (BINARY, 3, False), (PING, 5, True), (CONTINUATION, 130, True)):
        one = FrameHead(opcode, length, fin=True, rsv=0, masked=masked, size=2 if length < 126 else 4)
        heads.append((len(frames), one))
        frames += encoded(one) + b"k" * (4 * masked) + b"\x81" * length
    return frames, heads


@pytest.mark.rule("LIM-1")
def test_heads_are_found_wherever_a_stream_is_cut() -> None:
    data, heads = stream()
    cuts = [[first, second] for first in range(len(data)) for second in range(first, len(data))]
    for where in [[], list(range(1, len(data))), *cuts]:
        reader, passed, found = FrameHeads(), b"", []
        for start, end in zip([0, *where], [*where, len(data)], strict=True):
            frames, here = reader.read(data[start:end])
            found += [(len(passed) + position, one) for position, one in here]
            passed += frames
        assert (passed, found) == (data, heads)


def test_what_is_handed_on_ends_before_a_head_that_is_not_all_there() -> None:
    reader = FrameHeads()
    for data, handed_on, heads in (
        (b"\x81\x01x\x82", b"\x81\x01x", [(0, frame_head(b"\x81\x01"))]),
        (b"\x7e\x00", b"", []),
        (b"\x80yy", b"\x82\x7e\x00\x80yy", [(0, frame_head(b"\x82\x7e\x00\x80"))]),
        (b"y" * 126 + b"\x89", b"y" * 126, []),
        (b"", b"", []),
        (b"\x00", b"\x89\x00", [(0, frame_head(b"\x89\x00"))]),
    ):
        frames, found = reader.read(data)
        assert (bytes(frames), found) == (handed_on, heads)


# ---- messages -------------------------------------------------------------------------------------------------------

SNOWMAN = "\N{SNOWMAN}"


@pytest.mark.rule("RECV-1", "RECV-2", "RECV-3", "RECV-8", "RECV-9", "LIM-1")
@pytest.mark.parametrize(
    ("frames", "last"),
    [
        ([(TEXT, b"", True)], ""),
        ([(TEXT, SNOWMAN.encode(), True)], SNOWMAN),
        ([(BINARY, b"\xff", True)], b"\xff"),
        ([(TEXT, b"x" * 10, True)], "x" * 10),
        ([(BINARY, b"x" * 20, True)], b"x" * 20),
        ([(TEXT, b"\xe2", False), (CONTINUATION, b"\x98", False), (CONTINUATION, b"", False)], None),
        ([(TEXT, b"\xe2", False), (CONTINUATION, b"\x98", False), (CONTINUATION, b"\x83", True)], SNOWMAN),
        ([(BINARY, b"", False), (CONTINUATION, b"", False), (CONTINUATION, b"ab", True)], b"ab"),
        ([(TEXT, b"", False), (CONTINUATION, b"", True)], ""),
        ([(TEXT, b"a", False), (CONTINUATION, b"b", True), (BINARY, b"c", True)], b"c"),
        ([(TEXT, b"x" * 9, False), (CONTINUATION, b"x", True)], "x" * 10),
        ([(TEXT, b"x" * 9, False), (CONTINUATION, b"x", True), (TEXT, b"x" * 10, True)], "x" * 10),
        ([(CONTINUATION, b"x", True)], 1002),
        ([(CONTINUATION, b"x", False)], 1002),
        ([(BINARY, b"", False), (TEXT, b"x", True)], 1002),
        ([(TEXT, b"", False), (TEXT, b"x", False)], 1002),
        ([(TEXT, b"\xff", True)], 1007),
        ([(TEXT, b"a", False), (CONTINUATION, b"\xe2\x98", True)], 1007),
        ([(TEXT, b"x" * 11, True)], 1009),
        ([(TEXT, b"x" * 11, False)], 1009),
        ([(BINARY, b"x" * 21, True)], 1009),
        ([(TEXT, b"x" * 10, False), (CONTINUATION, b"", False), (CONTINUATION, b"x", False)], 1009),
        ([(BINARY, b"x" * 20, False), (CONTINUATION, b"", False), (CONTINUATION, b"x", True)], 1009),
        ([(TEXT, b"\xe2", False), (CONTINUATION, b"x" * 10, True)], 1009),
    ],
)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_frames_become_messages(
    frames: list[tuple[int, bytes, bool]], last: str | bytes | int | None, kind: type[bytes | bytearray | memoryview]
) -> None:
    made = MessageAssembler(10, 20)
    *before, (opcode, payload, fin) = frames
    for each in before:
        assert (made.add(each[0], kind(each[1]), fin=each[2]) is None) is not each[2]
    if isinstance(last, int):
        with pytest.raises(FrameError) as caught:
            made.add(opcode, kind(payload), fin=fin)
        assert caught.value.code == last
        assert isinstance(caught.value.__cause__, UnicodeDecodeError) == (last == 1007)
    else:
        message = made.add(opcode, kind(payload), fin=fin)
        assert (message, type(message)) == (last, type(last))
        assert (made.kind is None) == fin
        assert made.size == (0 if fin else sum(len(frame[1]) for frame in frames))


@pytest.mark.rule("RECV-1", "RECV-2", "RECV-3", "LIM-1")
@pytest.mark.parametrize(
    ("kind", "parts", "last"),
    [
        (TEXT, [""], ""),
        (TEXT, ["x" * 10], "x" * 10),
        (TEXT, ["x" * 11], 1009),
        (TEXT, [SNOWMAN * 3], SNOWMAN * 3),
        (TEXT, [SNOWMAN * 3 + "x"], SNOWMAN * 3 + "x"),
        (TEXT, [SNOWMAN * 3 + "xx"], 1009),
        (TEXT, ["", "", ""], ""),
        (TEXT, [SNOWMAN, "a", SNOWMAN], SNOWMAN + "a" + SNOWMAN),
        (TEXT, [SNOWMAN, "a", SNOWMAN, "x" * 4], 1009),
        (BINARY, [b"x" * 20], b"x" * 20),
        (BINARY, [bytearray(b"x" * 20)], b"x" * 20),
        (BINARY, [b"x" * 21], 1009),
        (BINARY, [b"", b"a", bytearray(b"b")], b"ab"),
        (BINARY, [b"x" * 20, b"y"], 1009),
    ],
)
def test_parts_that_a_server_has_decoded(
    kind: int, parts: list[str | bytes | bytearray], last: str | bytes | int
) -> None:
    made = MessageAssembler(10, 20)
    for part in parts[:-1]:
        assert made.add_decoded(kind, part, fin=False) is None
    if isinstance(last, int):
        with pytest.raises(FrameError) as caught:
            made.add_decoded(kind, parts[-1], fin=True)
        assert caught.value.code == last
    else:
        message = made.add_decoded(kind, parts[-1], fin=True)
        assert (message, type(message)) == (last, type(last))
        assert (made.kind, made.size) == (None, 0)


def test_without_limits_anything_is_joined() -> None:
    made = MessageAssembler(None, None)
    for _ in range(100):
        made.add(BINARY if made.kind is None else CONTINUATION, b"x" * 1000, fin=False)
    assert made.add(CONTINUATION, b"", fin=True) == b"x" * 100_000
