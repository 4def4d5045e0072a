"""FRAME: what RFC 6455 and RFC 7692 ask of every server's frames.

Here are the cases of data frames. They need nothing but ``/echo`` of the reference application, so that they run
against any server; so do those of control frames and of UTF-8, in `framing_control`. Those of RFC 7692 are in
`framing_deflate`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from wsbridge.conformance.checks.recv import (
    MESSAGE_IN_EMPTY,
    PEER_SEES_1002,
    UNMASKED,
    how_it_ended,
    seen_by_peer,
    what_came,
)
from wsbridge.conformance.client import Opcode, Pong, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench

__all__ = ["case", "echoes", "fragments", "refusals", "refused"]

_NOT_OF_BYTES = ("FRAME-19", "FRAME-28")
"""Rules of whole and legal frames; only their message, or their code, is looked at."""

Case = Callable[[Bench], Awaitable[None]]


def case(rule: str, name: str, title: str, run: Case) -> None:
    """Register a made check that runs against any server."""

    async def made(bench: Bench) -> None:
        await run(bench)

    made.__name__, made.__doc__ = name, title
    check(rule, black_box=True, wire=rule not in _NOT_OF_BYTES)(made)


async def refused(bench: Bench, peer: WirePeer, frames: Iterable[bytes], scenario: str, *codes: int) -> None:
    """Send what is to be refused; check that it is, with one of ``codes``, and that nothing of it is a message."""
    await peer.send_text("good")
    equal(await peer.receive_text(), "good", "the echo before")
    before = seen_by_peer(peer)
    await peer.send_raw(b"".join(frames))
    observed = await how_it_ended(peer)
    expected = observed if observed in [f"peer saw {code}" for code in codes] else f"peer saw {codes[0]}"
    bench.outcome(scenario, observed, expected)
    equal(seen_by_peer(peer), before, "the messages that came back")


def refusals(rule: str, name: str, title: str, series: Sequence[Sequence[bytes]], scenario: str, *codes: int) -> None:
    """Register a check that each of ``series`` of frames, is refused."""

    async def run(bench: Bench) -> None:
        async with bench.reference() as served:
            with variants() as variant:
                for frames in series:
                    with variant(f"{b''.join(frames)[:40]!r}"):
                        async with served.peer("/echo") as peer:
                            await refused(bench, peer, frames, scenario, *codes)

    case(rule, name, title, run)


def echoes(rule: str, name: str, title: str, messages: Iterable[tuple[Sequence[bytes], str | bytes]]) -> None:
    """Register a check that each message comes back as it should: its frames, and what they say together."""
    pairs = list(messages)

    async def run(bench: Bench) -> None:
        async with bench.reference() as served, served.peer("/echo") as peer:
            for frames, expected in pairs:
                await peer.send_raw(b"".join(frames))
                equal((await peer.receive_message()).data, expected, "the echo")

    case(rule, name, title, run)


def fragments(opcode: int, parts: Sequence[bytes]) -> list[bytes]:
    """Return a message as one frame a part."""
    last = len(parts) - 1
    return [
        build_frame(Opcode.CONTINUATION if index else opcode, part, fin=index == last)
        for index, part in enumerate(parts)
    ]


# ---- 5.2, 5.3: the frame --------------------------------------------------------------------------------------------

for _bits, _sizes in ((7, (0, 1, 124, 125)), (16, (126, 127, 128, 65535)), (64, (65536, 65537, 200_000))):
    echoes(
        "FRAME-1",
        f"length_in_{_bits}_bits",
        f"Messages of {', '.join(map(str, _sizes))} bytes, whose length takes {_bits} bits, come back whole.",
        [([build_frame(Opcode.BINARY, _data)], _data) for _data in map(random.Random(_bits).randbytes, _sizes)],
    )


@check("FRAME-2", black_box=True, wire=True)
async def longer_length_than_needed(bench: Bench) -> None:
    """A short length in 16 or 64 bits is refused with 1002, or read as what it is."""
    async with bench.reference() as served:
        with variants() as variant:
            for bits, size in ((16, 0), (16, 5), (16, 125), (64, 5), (64, 126), (64, 65535)):
                with variant():
                    data = bytes(index % 251 for index in range(size))
                    async with served.peer("/echo") as peer:
                        await peer.send_raw(build_frame(Opcode.BINARY, data, length_bits=16 if bits == 16 else 64))
                        observed = await what_came(peer, data)
                        true(observed in ("delivered", "peer saw 1002"), f"{size} in {bits} bits: {observed}")


@check("FRAME-3", black_box=True, wire=True)
async def length_with_its_first_bit_set(bench: Bench) -> None:
    """A length of 2**63 or more is refused, as ill-formed or as too big, before any payload has come."""
    async with bench.reference() as served:
        with variants() as variant:
            for length in (1 << 63, (1 << 63) + 5, (1 << 64) - 1):
                with variant(f"{length}"):
                    async with served.peer("/echo") as peer:
                        await refused(
                            bench, peer, [build_frame(Opcode.TEXT, length=length)], PEER_SEES_1002, 1002, 1009
                        )


for _rsv in range(1, 8):
    refusals(
        "FRAME-4",
        f"reserved_bits_{_rsv:03b}",
        f"The reserved bits {_rsv:03b} are refused on every kind of frame.",
        [
            *([build_frame(_opcode, b"", rsv=_rsv)] for _opcode in (*Opcode,) if _opcode != Opcode.CONTINUATION),
            [build_frame(Opcode.TEXT, b"a", fin=False), build_frame(Opcode.CONTINUATION, b"b", rsv=_rsv)],
        ],
        PEER_SEES_1002,
        1002,
    )
for _first, _kind in ((3, "data"), (11, "control")):
    refusals(
        "FRAME-5",
        f"reserved_{_kind}_opcodes",
        f"The opcodes {_first} to {_first + 4} are refused, with a payload and without, first or in a message.",
        [
            *([build_frame(_opcode, _data)] for _opcode in range(_first, _first + 5) for _data in (b"", b"data")),
            [build_frame(Opcode.TEXT, b"a", fin=False), build_frame(_first, b"b")],
        ],
        PEER_SEES_1002,
        1002,
    )

for _name, _keys in {
    "key_of_zeros": [bytes(4)],
    "key_of_ones": [b"\xff" * 4],
    "another_key_for_each_frame": [bytes((index, 255 - index, index ^ 90, 7)) for index in range(0, 256, 5)],
}.items():
    echoes(
        "FRAME-6",
        _name,
        "Payloads of any length modulo 16 are unmasked by the key of their frame.",
        [
            ([build_frame(Opcode.BINARY, _data, mask=_key)], _data)
            for _index, _key in enumerate(_keys)
            for _data in (
                bytes(range(_index, _index + 1 + (_index % 17))),
                random.Random(_index).randbytes(1000 + _index),
            )
        ],
    )


@check("FRAME-7", black_box=True, wire=True)
async def frame_without_a_mask(bench: Bench) -> None:
    """A frame without a mask is refused with 1002."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_frame(Opcode.TEXT, b"bare", mask=False)
        bench.outcome(UNMASKED, await what_came(peer, "bare"), "peer saw 1002")


@check("FRAME-8", black_box=True, wire=True)
async def frames_of_the_server(bench: Bench) -> None:
    """Frames of every kind and size that the server sends are not masked, of shortest length, and without a bit set."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for size in (0, 1, 125, 126, 127, 65535, 65536, 100_000):
            await peer.send_frame(Opcode.BINARY if size % 2 else Opcode.TEXT, b"x" * size)
            joined, fin = b"", False
            while not fin:
                frame = await peer.receive_frame()  # which finds a length that is not the shortest
                joined, fin = joined + frame.payload, frame.fin
                equal((frame.masked, frame.rsv), (False, 0), "mask and reserved bits")
            equal(joined, b"x" * size, "the echo")
        await peer.ping(b"?")
        frame = await peer.receive_frame()
        equal((frame.opcode, frame.masked, frame.rsv, frame.fin), (Opcode.PONG, False, 0, True), "the pong")
        await peer.send_close(1000)
        frame = await peer.receive_frame()
        equal((frame.opcode, frame.masked, frame.rsv, frame.fin), (Opcode.CLOSE, False, 0, True), "the close")


@check("FRAME-9", black_box=True, wire=True)
async def byte_by_byte(bench: Bench) -> None:
    """A message, a ping and a close that come one byte at a time are what they are in one piece."""
    data = b"".join(
        (
            build_frame(Opcode.TEXT, "\xe9\u20ac".encode()),
            build_frame(Opcode.PING, b"p"),
            build_frame(Opcode.BINARY, bytes(130)),
        )
    )
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_apart(data)
        equal([await peer.receive_text(), await peer.receive_binary()], ["\xe9\u20ac", bytes(130)], "the echoes")
        # only now: an echo may be lost to a close that the server has read (SEND-1)
        await peer.send_apart(build_frame(Opcode.CLOSE, close_payload(4000, "\xe9")))
        equal((await peer.receive_close()).code, 4000, "the code that the peer got back")
        true(Pong(b"p") in peer.received, "the ping was not answered")


@check("FRAME-9", black_box=True)
async def many_in_one_piece(bench: Bench) -> None:
    """Five hundred messages of several sizes in one write, with pings between, come back in order."""
    messages = ["m" * (size * 7 % 300) for size in range(500)]
    data = b"".join(build_frame(Opcode.TEXT, text.encode()) + build_frame(Opcode.PING) for text in messages)
    async with bench.reference() as served, served.peer("/echo") as peer:
        sending = asyncio.ensure_future(peer.send_raw(data))
        for text in messages:
            equal(await peer.receive_text(), text, "the echo")
        await sending


@check("FRAME-9", black_box=True, wire=True)
async def head_cut_anywhere(bench: Bench) -> None:
    """A frame whose header comes in two pieces, with a pause at any of its bytes, is read."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for size in (3, 300, 70_000):
            frame = build_frame(Opcode.BINARY, bytes(size))
            for cut in range(1, len(frame) - size + 1):
                await peer.send_apart([frame[:cut], frame[cut:]])
                equal(await peer.receive_binary(), bytes(size), f"the echo of {size} bytes, cut at {cut}")


# ---- 5.4: fragments -------------------------------------------------------------------------------------------------

for _name, _title, _parts in (
    ("two_fragments", "A message in two fragments comes back whole.", [b"one ", b"two"]),
    ("a_fragment_for_each_byte", "A message of 2000 fragments of a byte comes back whole.", [b"x"] * 2000),
    ("fragments_of_any_size", "Fragments of 1 to 70,000 bytes are joined.", [b"a", b"b" * 126, b"c" * 70_000, b"d"]),
):
    _whole = b"".join(_parts)
    echoes(
        "FRAME-10",
        _name,
        _title,
        [(fragments(Opcode.TEXT, _parts), _whole.decode()), (fragments(Opcode.BINARY, _parts), _whole)],
    )
echoes(
    "FRAME-11",
    "empty_fragments",
    "The first, the last, some or all fragments of a message may be empty.",
    [
        (fragments(_opcode, _parts), b"".join(_parts).decode() if _opcode == Opcode.TEXT else b"".join(_parts))
        for _opcode in (Opcode.TEXT, Opcode.BINARY)
        for _parts in ([b"", b"end"], [b"start", b""], [b"a", b"", b"", b"b"], [b"", b""], [b""] * 50, [b"", b"x", b""])
    ],
)


@check("FRAME-12", black_box=True, wire=True)
async def ping_between_fragments(bench: Bench) -> None:
    """A ping between fragments is answered before the message is complete, and the message is whole."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for opcode in (Opcode.TEXT, Opcode.BINARY):
            await peer.send_frame(opcode, b"be", fin=False)
            for payload in (b"", b"1", bytes(125)):
                await peer.ping(payload)
                equal(await peer.receive(), Pong(payload), "the answer")
                await peer.send_frame(Opcode.CONTINUATION, b"-", fin=False)
            await peer.send_frame(Opcode.CONTINUATION, b"gin")
            expected = b"be---gin"
            equal((await peer.receive_message()).data, expected.decode() if opcode == 1 else expected, "the echo")


@check("FRAME-12", black_box=True, wire=True)
async def pong_between_fragments(bench: Bench) -> None:
    """A pong between fragments disturbs nothing."""
    frames = fragments(Opcode.TEXT, [b"a", b"b", b"c"])
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_raw(build_frame(Opcode.PONG, b"unasked").join(frames))
        equal(await peer.receive_text(), "abc", "the echo")


refusals(
    "FRAME-13",
    "new_message_inside_a_message",
    "A text or a binary message inside either, finished or not, is refused.",
    [
        [build_frame(_outer, b"a", fin=False), build_frame(_inner, b"b", fin=_fin)]
        for _outer in (Opcode.TEXT, Opcode.BINARY)
        for _inner in (Opcode.TEXT, Opcode.BINARY)
        for _fin in (True, False)
    ],
    PEER_SEES_1002,
    1002,
)


@check("FRAME-13", black_box=True, wire=True)
async def new_message_behind_an_empty_fragment(bench: Bench) -> None:
    """A new message is refused after a first fragment that is empty, too."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_frame(Opcode.TEXT, b"", fin=False)
        await peer.send_text("new")
        bench.outcome(MESSAGE_IN_EMPTY, await what_came(peer, "new"), "peer saw 1002")


refusals(
    "FRAME-14",
    "continuation_of_nothing",
    "A continuation is refused as the first frame, after a message, and after the end of a fragmented one.",
    [
        [build_frame(Opcode.CONTINUATION, b"x")],
        [build_frame(Opcode.CONTINUATION, b"", fin=False)],
        [build_frame(Opcode.PING), build_frame(Opcode.CONTINUATION, b"x")],
    ],
    PEER_SEES_1002,
    1002,
)


@check("FRAME-14", black_box=True, wire=True)
async def continuation_behind_a_finished_message(bench: Bench) -> None:
    """A continuation after the last fragment of a message is refused."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        await peer.send_fragments(Opcode.TEXT, [b"a", b"b"])
        equal(await peer.receive_text(), "ab", "the echo")
        await refused(bench, peer, [build_frame(Opcode.CONTINUATION, b"c")], PEER_SEES_1002, 1002)
