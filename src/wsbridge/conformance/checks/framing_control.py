"""FRAME-15 to FRAME-32: control frames, the close handshake, and UTF-8."""

from __future__ import annotations

import contextlib

from wsbridge.conformance.checks.framing import case, echoes, fragments, refusals
from wsbridge.conformance.checks.recv import (
    CLOSE_IN_MESSAGE,
    PEER_SEES_1002,
    PEER_SEES_1002_FOR_A_CLOSE_CODE,
    PEER_SEES_1007,
    how_it_ended,
    seen_by_peer,
)
from wsbridge.conformance.client import Close, Closed, Opcode, Pong, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench

__all__: list[str] = []

LEGAL_CODES = {
    "codes_of_the_rfc": (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011),
    "codes_registered_since": (1012, 1013, 1014),
    "codes_of_libraries": (3000, 3001, 3999),
    "codes_of_applications": (4000, 4001, 4999),
}
ILLEGAL_CODES = {
    "codes_below_1000": (0, 1, 125, 999),
    "codes_never_on_the_wire": (1004, 1005, 1006, 1015),
    "codes_without_a_meaning": (1016, 1100, 1999, 2000, 2999),
    "codes_above_4999": (5000, 10000, 65535),
}
WELL_FORMED = {
    "one_byte": ["\0", "a", "\x7f"],
    "two_bytes": ["\x80", "\xe9", "\u07ff"],
    "three_bytes": ["\u0800", "\u20ac", "\ud7ff", "\ue000", "\ufeff", "\ufffe", "\uffff", "\ufdd0"],
    "four_bytes": ["\U00010000", "\U0001f600", "\U000fffff", "\U0010fffe", "\U0010ffff"],
}
ILL_FORMED = {
    "lone_continuation_byte": (b"\x80", b"\xbf", b"\x80\xbf"),
    "lone_start_byte": (b"\xc2 ", b"\xe0 ", b"\xf0 ", b"\xdf", b"\xef"),
    "bytes_never_used": (b"\xc0\x80", b"\xc1\xbf", b"\xf5\x80\x80\x80", b"\xfe", b"\xff"),
    "overlong": (b"\xc0\xaf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf"),
    "surrogates": (b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80"),
    "above_the_last_character": (b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf"),
    "cut_short": (b"\xe2\x82", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xc3"),
}


# ---- 5.5: control frames --------------------------------------------------------------------------------------------

_CONTROL = (Opcode.PING, Opcode.PONG, Opcode.CLOSE)
_REASON = close_payload(1000, "x" * 124)

refusals(
    "FRAME-15",
    "control_frame_of_126_bytes",
    "A ping, a pong and a close of 126 bytes are refused, and so is a ping of 70,000.",
    [[build_frame(_opcode, _REASON)] for _opcode in _CONTROL] + [[build_frame(Opcode.PING, bytes(70_000))]],
    PEER_SEES_1002,
    1002,
)
refusals(
    "FRAME-15",
    "control_frame_of_126_bytes_inside_a_message",
    "A ping and a pong of 126 bytes are refused between fragments.",
    [
        [build_frame(Opcode.TEXT, b"a", fin=False), build_frame(_opcode, bytes(126)), build_frame(0, b"b")]
        for _opcode in (Opcode.PING, Opcode.PONG)
    ],
    PEER_SEES_1002,
    1002,
)
refusals(
    "FRAME-16",
    "control_frame_in_fragments",
    "A ping, a pong and a close without FIN are refused, with a continuation after them and without.",
    [
        [build_frame(_opcode, b"", fin=False), *([build_frame(Opcode.CONTINUATION, b"")] * _more)]
        for _opcode in _CONTROL
        for _more in (0, 1)
    ],
    PEER_SEES_1002,
    1002,
)


@check("FRAME-17", black_box=True)
async def ping_of_any_payload(bench: Bench) -> None:
    """Pings of 0 to 125 bytes, text or not, are answered each with its own payload."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for payload in (b"", b"a", b"\xff\xfe", bytes(124), bytes(range(125))):
            await peer.ping(payload)
            equal(await peer.receive(), Pong(payload), "the answer")


@check("FRAME-17", black_box=True)
async def many_pings(bench: Bench) -> None:
    """Of a hundred pings in one write the last is answered, and all answers are in order."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_raw(b"".join(build_frame(Opcode.PING, b"%03d" % number) for number in range(100)))
        answers: list[bytes] = []
        while b"099" not in answers:
            event = await peer.receive()
            true(isinstance(event, Pong), f"something else than a pong came: {event}")
            answers.append(event.payload if isinstance(event, Pong) else b"")
        equal(answers, sorted(set(answers)), "the answers")


@check("FRAME-18", black_box=True)
async def pong_that_nobody_asked_for(bench: Bench) -> None:
    """Pongs that answer nothing are neither answered nor refused."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for payload in (b"", b"unasked", bytes(125)):
            await peer.pong(payload)
        await peer.send_text("after")
        equal(await peer.receive_text(), "after", "the echo")
        equal(seen_by_peer(peer), ["after"], "the messages that came back")
        equal(len(peer.received), 1, "the number of events")


# ---- 5.5.1, 7: closing ----------------------------------------------------------------------------------------------


def _answered(name: str, codes: tuple[int, ...]) -> None:
    async def run(bench: Bench) -> None:
        async with bench.reference() as served:
            with variants() as variant:
                for code in codes:
                    with variant():
                        async with served.peer("/echo") as peer:
                            await peer.send_close(code, "because")
                            equal((await peer.receive_close()).code, code, "the code that the peer got back")

    case("FRAME-19", name, f"Each of the codes {', '.join(map(str, codes))} is answered with itself.", run)


for _name, _codes in LEGAL_CODES.items():
    _answered(_name, _codes)


@check("FRAME-20", black_box=True)
async def close_without_a_payload(bench: Bench) -> None:
    """An empty close is answered with an empty close."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_close()
        equal(await peer.receive(), Close(1005), "the answer")


refusals(
    "FRAME-21",
    "close_of_one_byte",
    "A close of one byte is refused, whatever the byte.",
    [[build_frame(Opcode.CLOSE, _payload)] for _payload in (b"\0", b"\x03", b"\xff")],
    PEER_SEES_1002,
    1002,
)
for _name, _codes in ILLEGAL_CODES.items():
    refusals(
        "FRAME-22",
        _name,
        f"Each of the codes {', '.join(map(str, _codes))} is refused.",
        [[build_frame(Opcode.CLOSE, close_payload(_code, _text))] for _code in _codes for _text in ("", "because")],
        PEER_SEES_1002_FOR_A_CLOSE_CODE,
        1002,
    )


@check("FRAME-23", black_box=True, wire=True)
async def close_reason_that_is_no_utf8(bench: Bench) -> None:
    """A close whose reason has an invalid byte, an overlong form or an unfinished character is refused."""
    async with bench.reference() as served:
        with variants() as variant:
            for reason in (b"\xff", b"good until \xc0\xaf", b"cut \xe2\x82", b"\xed\xa0\x80"):
                with variant(f"{reason!r}"):
                    async with served.peer("/echo") as peer:
                        await peer.send_frame(Opcode.CLOSE, close_payload(1000) + reason)
                        observed = await how_it_ended(peer)
                        if observed == "peer saw 1002":
                            bench.outcome(PEER_SEES_1002, observed, "peer saw 1002")
                        else:
                            bench.outcome(PEER_SEES_1007, observed, "peer saw 1007")


@check("FRAME-24", black_box=True)
async def close_reason_of_123_bytes(bench: Bench) -> None:
    """Reasons of 1 to 123 bytes are taken, in ASCII and in characters of several bytes."""
    async with bench.reference() as served:
        with variants() as variant:
            for reason in ("x", "x" * 122, "x" * 123, "\u20ac" * 41, "\U0001f600" * 30 + "\u20ac"):
                with variant(f"{reason!r}"):
                    async with served.peer("/echo") as peer:
                        await peer.send_close(4000, reason)
                        equal((await peer.receive_close()).code, 4000, "the code that the peer got back")


@check("FRAME-25", black_box=True, wire=True)
async def frames_behind_a_close(bench: Bench) -> None:
    """A message, a ping, another close and a violation after a close are not handled; it is answered as ever."""
    close = build_frame(Opcode.CLOSE, close_payload(4000))
    async with bench.reference() as served:
        with variants() as variant:
            for behind in (
                build_frame(Opcode.TEXT, b"late"),
                build_frame(Opcode.PING, b"late"),
                build_frame(Opcode.CLOSE, close_payload(4001)),
                build_frame(Opcode.CONTINUATION, b"late", rsv=7),
            ):
                with variant():
                    async with served.peer("/echo") as peer:
                        await peer.send_text("in time")
                        equal(await peer.receive_text(), "in time", "the echo of what came before")
                        await peer.send_raw(close + behind)
                        equal(await peer.receive(), Close(4000), "the answer")
                        await peer.wait_eof()
                        equal(len(peer.received), 3, "the number of events: echo, close and the end")


@check("FRAME-25", black_box=True, wire=True)
async def close_inside_a_message(bench: Bench) -> None:
    """A close inside a fragmented message is answered, and the message never completed."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_frame(Opcode.TEXT, b"a", fin=False)
        await peer.send_close(4000)
        bench.outcome(CLOSE_IN_MESSAGE, await how_it_ended(peer), "peer saw 4000")
        equal(seen_by_peer(peer), [], "the messages that came back")


@check("FRAME-26", black_box=True)
async def end_after_the_client_closed(bench: Bench) -> None:
    """Where the client closed, the server ends TCP after its answer, cleanly and in time, with nothing between."""
    async with bench.reference() as served:
        with variants() as variant:
            for code in (None, 1000, 4000):
                with variant(f"{code}"):
                    async with served.peer("/echo") as peer:
                        await peer.send_close(code)
                        await peer.receive_close()
                        end = await peer.wait_eof(2)
                        equal((end.reset, end.partial), (False, 0), "a reset, or a rest of a frame, at the end")


@check("FRAME-26", black_box=True)
async def end_after_the_server_closed(bench: Bench) -> None:
    """Where the server closed, it ends TCP after the client's answer."""
    async with bench.reference() as served, served.peer("/close/4001?text=bye") as peer:
        equal(await peer.receive_close(), Close(4001, "bye"), "the close")
        end = await peer.wait_eof(2)
        equal((end.reset, end.partial), (False, 0), "a reset, or a rest of a frame, at the end")


@check("FRAME-27", black_box=True, wire=True)
async def frames_behind_a_violation(bench: Bench) -> None:
    """A message and a ping after a violation are not handled, in the same packet or later, and the server ends TCP."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        peer.auto_close = False
        later = build_frame(Opcode.TEXT, b"late") + build_frame(Opcode.PING, b"late")
        await peer.send_raw(build_frame(Opcode.TEXT, b"bad", rsv=7) + later)
        bench.outcome(PEER_SEES_1002, await how_it_ended(peer), "peer saw 1002")
        with contextlib.suppress(Closed):  # the server may have ended TCP at once
            await peer.send_raw(later)
            await peer.send_close(1002)
        await peer.wait_eof()
        equal([event for event in peer.received if isinstance(event, Pong)], [], "the pings answered")
        equal(seen_by_peer(peer), [], "the messages that came back")


# ---- 5.6, 8.1: UTF-8 ------------------------------------------------------------------------------------------------

_MIXED = "a\u07ff\u0800\U00010000\U0010ffffz"

for _name, _texts in WELL_FORMED.items():
    echoes(
        "FRAME-28",
        f"characters_of_{_name}",
        f"Characters of {_name.replace('_', ' ')} come back, at the limits of the range too, alone and amid others.",
        [([build_frame(Opcode.TEXT, _text.encode())], _text) for _one in _texts for _text in (_one, f"a{_one * 3}z")],
    )
echoes(
    "FRAME-29",
    "split_in_two_at_every_byte",
    "A text with characters of every length comes back whole, cut in two at each of its bytes.",
    [
        (fragments(Opcode.TEXT, [_MIXED.encode()[:_cut], _MIXED.encode()[_cut:]]), _MIXED)
        for _cut in range(len(_MIXED.encode()) + 1)
    ],
)
echoes(
    "FRAME-29",
    "split_at_all_bytes",
    "A text of characters of every length comes back whole in fragments of one byte, and with empty ones between.",
    [
        (fragments(Opcode.TEXT, [bytes((_byte,)) for _byte in _MIXED.encode()]), _MIXED),
        (fragments(Opcode.TEXT, [_part for _byte in _MIXED.encode() for _part in (b"", bytes((_byte,)))]), _MIXED),
    ],
)


@check("FRAME-29", black_box=True, wire=True)
async def split_with_a_ping_between(bench: Bench) -> None:
    """A character that is split comes back whole with pings at every cut, and pauses too."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        frames = fragments(Opcode.TEXT, [bytes((byte,)) for byte in _MIXED.encode()])
        await peer.send_apart(frame + build_frame(Opcode.PING, b"\xff") for frame in frames)
        equal(await peer.receive_text(), _MIXED, "the echo")


for _name, _sequences in ILL_FORMED.items():
    refusals(
        "FRAME-30",
        _name,
        f"Texts with what is not UTF-8 ({_name.replace('_', ' ')}) are refused, whatever stands before it.",
        [
            [build_frame(Opcode.TEXT, _before + _bad)]
            for _bad in _sequences
            for _before in (b"", "good \u20ac ".encode())
        ],
        PEER_SEES_1007,
        1007,
    )
refusals(
    "FRAME-31",
    "invalid_across_fragments",
    "What is invalid only in one of the fragments, or only by what they are together, is refused.",
    [
        fragments(Opcode.TEXT, _parts)
        for _parts in (
            [b"good ", b"bad \xff"],
            [b"bad \xff", b" good"],
            [b"\xc3", b"("],
            [b"\xe2\x82", b"", b"\xe2\x82\xac"],
            [b"\xed", b"\xa0\x80"],
            [b"\xf0\x9f", b"\x98"],
            [b"good ", b"\xe2", b"\x82"],
        )
    ],
    PEER_SEES_1007,
    1007,
)
echoes(
    "FRAME-32",
    "binary_that_is_no_utf8",
    "What would be refused as a text comes back as a binary message, whole and in fragments.",
    [
        (_frames, _bad)
        for _sequences in ILL_FORMED.values()
        for _bad in _sequences
        for _frames in ([build_frame(Opcode.BINARY, _bad)], fragments(Opcode.BINARY, [_bad[:1], _bad[1:]]))
    ],
)
