"""Messages from frames, and what the head of a frame declares."""

from __future__ import annotations

import pytest

from wsbridge.connector.messages import FrameError, MessageAssembler, declared

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0x0, 0x1, 0x2, 0x8, 0x9


def assembler(max_text: int | None = 10, max_binary: int | None = 20) -> MessageAssembler:
    return MessageAssembler(max_text, max_binary)


@pytest.mark.rule("RECV-1", "RECV-2")
def test_a_message_in_one_frame() -> None:
    made = assembler()
    assert made.add(TEXT, b"", fin=True) == ""
    assert made.add(TEXT, memoryview("\N{SNOWMAN}".encode()), fin=True) == "\N{SNOWMAN}"
    assert made.add(BINARY, memoryview(b"\xff"), fin=True) == b"\xff"
    assert made.kind is None


@pytest.mark.rule("RECV-3")
def test_fragments_are_joined() -> None:
    made = assembler()
    for opcode, first, rest, whole in (
        (TEXT, b"\xe2", [b"\x98", b"", b"\x83"], "\N{SNOWMAN}"),
        (BINARY, b"", [b"", b"ab"], b"ab"),
    ):
        assert made.add(opcode, first, fin=False) is None
        for part in rest[:-1]:
            assert made.add(CONTINUATION, part, fin=False) is None
            assert made.kind == opcode
        message = made.add(CONTINUATION, rest[-1], fin=True)
        assert (message, type(message)) == (whole, type(whole))
        assert made.kind is None


@pytest.mark.rule("RECV-9")
def test_what_breaks_the_state_of_fragmentation() -> None:
    for begun, opcode, fin in ((False, CONTINUATION, True), (False, CONTINUATION, False), (True, TEXT, True)):
        made = assembler()
        if begun:
            made.add(BINARY, b"", fin=False)
        with pytest.raises(FrameError) as caught:
            made.add(opcode, b"x", fin=fin)
        assert caught.value.code == 1002


@pytest.mark.rule("RECV-8")
def test_invalid_text() -> None:
    made = assembler()
    for frames in ([(TEXT, b"\xff", True)], [(TEXT, b"a", False), (CONTINUATION, b"\xe2\x98", True)]):
        *before, (opcode, payload, fin) = frames
        for each in before:
            assert made.add(each[0], each[1], fin=each[2]) is None
        with pytest.raises(FrameError) as caught:
            made.add(opcode, payload, fin=fin)
        assert caught.value.code == 1007


@pytest.mark.rule("LIM-1")
def test_the_limit_is_that_of_the_kind_and_of_all_fragments() -> None:
    for opcode, limit in ((TEXT, 10), (BINARY, 20)):
        made = assembler()
        assert made.add(opcode, b"x" * limit, fin=True) is not None
        with pytest.raises(FrameError) as caught:
            made.add(opcode, b"x" * (limit + 1), fin=True)
        assert caught.value.code == 1009
        made = assembler()
        made.add(opcode, b"x" * (limit - 1), fin=False)
        assert made.add(CONTINUATION, b"x", fin=False) is None
        with pytest.raises(FrameError) as caught:
            made.add(CONTINUATION, b"x", fin=False)
        assert caught.value.code == 1009
    assert assembler(None, None).add(TEXT, b"x" * 100, fin=True) == "x" * 100


@pytest.mark.rule("LIM-1")
def test_what_a_head_declares_counts_before_its_payload_is_there() -> None:
    made = assembler()
    assert made.is_uneven
    assert made.max_frame == 20
    assert not assembler(None, None).is_uneven
    assert made.is_too_big(TEXT, 11)
    assert not made.is_too_big(TEXT, 10)
    assert not made.is_too_big(BINARY, 20)
    assert made.is_too_big(BINARY, 21)
    for opcode in (CONTINUATION, PING, 0x3):  # of no message: others refuse them
        assert not made.is_too_big(opcode, 1 << 40)
    made.add(TEXT, b"x" * 6, fin=False)
    assert not made.is_too_big(CONTINUATION, 4)
    assert made.is_too_big(CONTINUATION, 5)
    assert not made.is_too_big(PING, 125)


@pytest.mark.rule("LIM-1")
def test_the_head_of_a_frame() -> None:
    for head, opcode, length in (
        (b"\x81\x80", TEXT, 0),
        (b"\x02\xfd", BINARY, 125),
        (b"\xf0\xfe\x01\x00", CONTINUATION, 256),
        (b"\x88\xff" + (1 << 40).to_bytes(8), CLOSE, 1 << 40),
    ):
        for size in range(len(head)):
            assert declared(head[:size]) is None
        assert declared(head) == (opcode, length)
        assert declared(head + b"key and payload") == (opcode, length)
