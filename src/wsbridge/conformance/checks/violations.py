"""RECV-8 and RECV-9: what a peer may not send, as both sides see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wsbridge.close import CloseReason
from wsbridge.conformance.checks.recv import (
    CLOSE_IN_MESSAGE,
    MESSAGE_IN_EMPTY,
    PEER_SEES_1002,
    PEER_SEES_1002_FOR_A_CLOSE_CODE,
    PEER_SEES_1007,
    UNMASKED,
    echo,
    how_it_ended,
    what_came,
)
from wsbridge.conformance.client import Opcode, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served

ILLEGAL_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)

INVALID_TEXTS: dict[str, tuple[str, list[bytes]]] = {
    "invalid_byte": ("A byte that UTF-8 never has", [build_frame(Opcode.TEXT, b"bad \xff")]),
    "truncated_character": ("A text that ends within a character", [build_frame(Opcode.TEXT, b"bad \xe2\x82")]),
    "surrogate": ("An encoded surrogate", [build_frame(Opcode.TEXT, b"bad \xed\xa0\x80")]),
    "invalid_in_fragments": (
        "An invalid byte in the second fragment",
        [build_frame(Opcode.TEXT, b"bad", fin=False), build_frame(Opcode.CONTINUATION, b"\xc0\xaf")],
    ),
}


def _invalid_text(name: str, subject: str, frames: Sequence[bytes]) -> None:
    async def run(bench: Bench) -> None:
        await _refused(bench, frames, 1007, PEER_SEES_1007)

    run.__name__ = name
    run.__doc__ = f"{subject} reaches no callback: the code is 1007, for the peer too."
    check("RECV-8", wire=True)(run)


for _name, (_subject, _frames) in INVALID_TEXTS.items():
    _invalid_text(_name, _subject, _frames)


@check("RECV-8", wire=True)
async def peer_sees_1007(bench: Bench) -> None:
    """The peer that sent invalid UTF-8 gets a close frame with 1007."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_frame(Opcode.TEXT, b"\xff")
        bench.outcome(PEER_SEES_1007, await how_it_ended(peer), "peer saw 1007")


@check("RECV-8", wire=True)
async def invalid_text_without_on_text(bench: Bench) -> None:
    """Invalid UTF-8 ends the channel also where texts have no callback and would be dropped."""
    ended: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
    options = bench.bare_options(on_close=lambda channel, process, reason: ended.set_result(reason))
    async with bench.serve(options) as served:
        async with served.peer() as peer:
            await peer.send_frame(Opcode.TEXT, b"\xff")
            bench.outcome(PEER_SEES_1007, await how_it_ended(peer), "peer saw 1007")
        reason = await bench.within(ended, "on_close")
        equal((reason.code, reason.initiator), (1007, "local"), "code and initiator")


VIOLATIONS: dict[str, tuple[str, list[list[bytes]]]] = {
    "reserved_bit": (
        "A reserved bit",
        [
            [build_frame(opcode, b"bad", rsv=rsv)]
            for rsv in (1, 2, 4, 7)
            for opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.PING)
        ],
    ),
    "reserved_opcode": ("A reserved opcode", [[build_frame(opcode, b"bad")] for opcode in (3, 7, 11, 15)]),
    "stray_continuation": (
        "A continuation of nothing",
        [[build_frame(Opcode.CONTINUATION, b"bad", fin=fin)] for fin in (True, False)],
    ),
    "message_in_fragmented_message": (
        "A new message inside an unfinished one",
        [
            [build_frame(Opcode.TEXT, b"bad", fin=False), build_frame(opcode, b"bad")]
            for opcode in (Opcode.TEXT, Opcode.BINARY)
        ],
    ),
    "oversized_control_frame": (
        "A control frame of more than 125 bytes",
        [
            [build_frame(Opcode.PING, bytes(126))],
            [build_frame(Opcode.PONG, bytes(126))],
            [build_frame(Opcode.CLOSE, close_payload(1000, "x" * 124))],
        ],
    ),
    "fragmented_control_frame": (
        "A fragmented control frame",
        [[build_frame(opcode, fin=False)] for opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE)],
    ),
    "close_payload_of_one_byte": (
        "A close whose payload is too short for a code",
        [[build_frame(Opcode.CLOSE, b"\x03")]],
    ),
}


async def _refused(bench: Bench, frames: Sequence[bytes], code: int, scenario: str) -> None:
    """Send ``frames``, none of which may reach a callback; hold the reason and what the peer sees to ``code``."""
    async with bench.serve() as served:
        await _refused_by(bench, served, frames, code, scenario)


async def _refused_by(bench: Bench, served: Served, frames: Sequence[bytes], code: int, scenario: str) -> None:
    number = len(bench.recorder.channels) + 1
    async with served.peer() as peer:
        await peer.send_text("good")
        await bench.recorder.wait("text", number)
        await peer.send_raw(b"".join(frames))
        ended = await how_it_ended(peer)
        channel = bench.recorder.channels[number - 1]
        reason = await bench.within(channel.wait_closed(), "the end of the channel")
        equal((reason.code, reason.initiator), (code, "local"), "code and initiator")
        bench.outcome(scenario, ended, f"peer saw {code}")
    equal(await bench.recorder.closed(number), reason, "the reason of on_close")
    equal(bench.recorder.values(), ["good"] * number, "the messages delivered")


def _violation(name: str, subject: str, variants: Sequence[Sequence[bytes]], fixed: Sequence[str]) -> None:
    async def run(bench: Bench) -> None:
        async with bench.serve() as served:
            for frames in variants:
                await _refused_by(bench, served, frames, 1002, PEER_SEES_1002)

    run.__name__ = name
    run.__doc__ = f"{subject} reaches no callback: the code is 1002, for the peer too."
    check("RECV-9", wire=True, fixed=fixed)(run)


for _name, (_subject, _variants) in VIOLATIONS.items():  # one reserved bit is that of permessage-deflate
    _violation(_name, _subject, _variants, ["compress"] if _name == "reserved_bit" else [])


@check("RECV-9", wire=True)
async def peer_sees_1002(bench: Bench) -> None:
    """The peer that violated the protocol gets a close frame with 1002."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_frame(Opcode.CONTINUATION, b"bad")
        bench.outcome(PEER_SEES_1002, await how_it_ended(peer), "peer saw 1002")


@check("RECV-9", wire=True)
async def illegal_close_code(bench: Bench) -> None:
    """A close with a code that may not be sent is a violation: the reason's code is 1002."""
    async with bench.serve() as served:
        for code in ILLEGAL_CODES:
            frame = build_frame(Opcode.CLOSE, close_payload(code, "bad"))
            await _refused_by(bench, served, [frame], 1002, PEER_SEES_1002_FOR_A_CLOSE_CODE)


@check("RECV-9", wire=True)
async def peer_sees_1002_for_an_illegal_close_code(bench: Bench) -> None:
    """The peer that sent an illegal close code gets a close frame with 1002."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_close(999)
        bench.outcome(PEER_SEES_1002_FOR_A_CLOSE_CODE, await how_it_ended(peer), "peer saw 1002")


@check("RECV-9", wire=True)
async def close_text_that_is_no_utf8(bench: Bench) -> None:
    """A close whose text is not UTF-8 is refused with 1002 or 1007, and is not an end by the peer."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_frame(Opcode.CLOSE, close_payload(1000) + b"\xff")
        ended = await how_it_ended(peer)
        reason = await bench.within(bench.recorder.channels[0].wait_closed(), "the end of the channel")
        true(reason.code in (1002, 1007) and reason.initiator == "local", f"the reason is {reason!r}")
        bench.outcome(PEER_SEES_1002 if reason.code == 1002 else PEER_SEES_1007, ended, f"peer saw {reason.code}")


@check("RECV-9", wire=True)
async def unmasked_frame(bench: Bench) -> None:
    """An unmasked frame is a violation: no callback, 1002 on both sides."""
    async with bench.serve(bench.options(on_text=echo)) as served, served.peer() as peer:
        await peer.send_frame(Opcode.TEXT, b"bare", mask=False)
        bench.outcome(UNMASKED, await what_came(peer, "bare"), "peer saw 1002")


@check("RECV-9", wire=True)
async def message_in_empty_fragment(bench: Bench) -> None:
    """A new message after an empty first fragment is a violation as any other: no callback, 1002 on both sides."""
    async with bench.serve(bench.options(on_text=echo)) as served, served.peer() as peer:
        await peer.send_frame(Opcode.TEXT, b"", fin=False)
        await peer.send_text("new")
        bench.outcome(MESSAGE_IN_EMPTY, await what_came(peer, "new"), "peer saw 1002")


@check("RECV-9", wire=True)
async def close_in_fragmented_message(bench: Bench) -> None:
    """A close inside an unfinished fragmented message is the peer's close, no violation."""
    async with bench.serve() as served:
        async with served.peer() as peer:
            await peer.send_frame(Opcode.TEXT, b"unfinished", fin=False)
            await peer.send_close(4001, "enough")
            bench.outcome(CLOSE_IN_MESSAGE, await how_it_ended(peer), "peer saw 4001")
            reason = await bench.within(bench.recorder.channels[0].wait_closed(), "the end of the channel")
        equal(bench.recorder.values(), [], "the messages delivered")
        if not bench.deviated:
            text = "" if bench.target.loses_close_text else "enough"
            equal((reason.code, reason.text, reason.initiator), (4001, text, "peer"), "the reason")
