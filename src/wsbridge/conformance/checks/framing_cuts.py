"""FRAME-9, LIM-1: heads of frames that TCP cuts, wherever, under each setting by which a server looks at heads itself.

A server that has its own parser read the frames looks at their heads beside it where limits differ, messages are
deflated or a read is large, so that each of these is another way to read a head.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from wsbridge.conformance.checks.recv import deflated, how_it_ended
from wsbridge.conformance.client import Opcode, Pong, WirePeer, build_frame
from wsbridge.conformance.contract import check, true, variants
from wsbridge.conformance.harness.bench import Bench
from wsbridge.protocols import Feature

__all__ = ["mixed"]

_SIZES = (3, 300, 70_000)  # bytes: for each length of a head
_LETTERS = random.Random(9).randbytes(40_000).hex()  # nothing to speak of repeats in it

_SETTINGS: dict[str, tuple[tuple[Feature, ...], dict[str, Any], bool]] = {
    "as_they_are": ((), {}, False),
    "with_uneven_limits": (("size-limit",), {"max_text_size": 100_000, "max_binary_size": 200_000}, False),
    "with_no_limit_for_one": (("size-limit",), {"max_text_size": None, "max_binary_size": 200_000}, False),
    "with_deflate": (("compression",), {"compression": True}, True),
    "with_deflate_and_uneven_limits": (
        ("compression", "size-limit"),
        {"compression": True, "max_text_size": 200_000, "max_binary_size": 100_000},
        True,
    ),
}
"""By the end of a check's name: what it needs, its options, and whether its messages are deflated."""

Message = str | bytes


def _payload(message: Message, *, deflate: bool) -> bytes:
    """Return a message as it goes into a frame; its size stays about the same, and so does the length of the head."""
    data = message.encode() if isinstance(message, str) else message
    return deflated(data, level=0) if deflate else data


def _heads(size: int, *, deflate: bool) -> Iterator[tuple[bytes, bytes, Message]]:
    """Yield messages in frames, the last of which has ``size`` bytes: what comes before it, itself, and the message."""
    for opcode in (Opcode.TEXT, Opcode.BINARY):
        message: Message = _LETTERS[:size] if opcode == Opcode.TEXT else _LETTERS[:size].encode()
        payload, rsv = _payload(message, deflate=deflate), 4 * deflate
        yield b"", build_frame(opcode, payload, rsv=rsv), message
        first = build_frame(opcode, payload[:1], fin=False, rsv=rsv)
        yield first, build_frame(Opcode.CONTINUATION, payload[1:]), message
        yield first + build_frame(Opcode.PING, b"amid"), build_frame(Opcode.CONTINUATION, payload[1:]), message


def mixed(count: int, *, deflate: bool) -> tuple[bytes, list[Message]]:
    """Return many frames in one piece, and the messages that they make."""
    frames: list[bytes] = []
    messages: list[Message] = []
    for number in range(count):
        text = f"{number} {_LETTERS[: number * 37 % 500]}"
        message: Message = text if number % 3 else text.encode()
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        deflates = deflate and number % 4 != 1
        payload = _payload(message, deflate=deflates)
        cut = number % len(payload)
        if number % 5 == 0:
            frames.append(build_frame(opcode, payload[:cut], fin=False, rsv=4 * deflates))
            frames += [build_frame(Opcode.PING, b"p")] * (number % 2)
            frames.append(build_frame(Opcode.CONTINUATION, payload[cut:]))
        else:
            frames.append(build_frame(opcode, payload, rsv=4 * deflates))
        messages.append(message)
    return b"".join(frames), messages


async def _delivered(bench: Bench, messages: Sequence[Message], what: str) -> None:
    """Check that the last messages that were delivered are these."""
    await bench.recorder.until(lambda: len(bench.recorder.values()) >= len(messages), f"the message that is {what}")
    got = bench.recorder.values()
    if got != list(messages):
        wrong = next((at for at, pair in enumerate(zip(got, messages, strict=False)) if pair[0] != pair[1]), -1)
        true(False, f"message {wrong} of those up to the one that is {what} came through changed")
    bench.recorder.events.clear()


def _check_setting(
    rule: str, name: str, title: str, setting: str, run: Callable[[Bench, WirePeer, bool], Awaitable[None]]
) -> None:
    needs, options, deflate = _SETTINGS[setting]

    async def made(bench: Bench) -> None:
        async with bench.serve(bench.options(**options)) as served, served.peer(deflate=deflate) as peer:
            true(peer.deflated == deflate, f"the 101 does not agree: {peer.response}")
            await bench.recorder.wait("open-end")
            bench.recorder.events.clear()
            await run(bench, peer, deflate)

    made.__name__, made.__doc__ = f"{name}_{setting}", f"{title} ({setting.replace('_', ' ')})."
    check(rule, needs=needs, wire=True)(made)


async def _cut_in_two(bench: Bench, peer: WirePeer, deflate: bool) -> None:
    for size in _SIZES:
        for before, frame, message in _heads(size, deflate=deflate):
            for cut in range(1, 15 if size > 65535 else 9 if size > 125 else 7):
                await peer.send_apart([before + frame[:cut], frame[cut:]])
                await _delivered(bench, [message], f"cut at {cut} of a frame of {size} bytes, after {len(before)}")


async def _in_single_bytes(bench: Bench, peer: WirePeer, deflate: bool) -> None:
    for size in _SIZES:
        for before, frame, message in _heads(size, deflate=deflate):
            head = min(len(frame), 16)  # and a byte or two of the payload
            pieces = [frame[at : at + 1] for at in range(head)]
            await peer.send_apart(piece for piece in (before, *pieces, frame[head:]) if piece)
            await _delivered(bench, [message], f"byte by byte a frame of {size} bytes, after {len(before)}")


async def _behind_others(bench: Bench, peer: WirePeer, deflate: bool) -> None:
    for count in (1, 80):
        many, messages = mixed(count, deflate=deflate)
        for size in _SIZES:
            for before, frame, message in list(_heads(size, deflate=deflate))[1:4:2]:
                for cut in range(1, 15 if size > 65535 else 9 if size > 125 else 7, 1 + count // 20):
                    await peer.send_apart([many + before + frame[:cut], frame[cut:] + many])
                    what = f"cut at {cut} of a frame of {size} bytes, after {count} others, or after it"
                    await _delivered(bench, [*messages, message, *messages], what)
    await peer.ping(b"last")
    while await peer.receive() != Pong(b"last"):
        pass


async def _of_any_size(bench: Bench, peer: WirePeer, deflate: bool) -> None:
    for power in (11, 12, 13, 15, 16):  # where servers cut what they read
        for size in range((1 << power) - 1, (1 << power) + 3):
            many, messages = mixed(size // 220 + 20, deflate=deflate)
            true(len(many) > size, f"this check has no {size} bytes to send")
            await peer.send_apart([many[:size], many[size:]])
            await _delivered(bench, messages, f"the last, of which {size} bytes came at once")


for _setting in _SETTINGS:
    _check_setting(
        "FRAME-9", "heads_cut_in_two", "A head that comes in two pieces is read, cut at any byte", _setting, _cut_in_two
    )
    _check_setting(
        "FRAME-9",
        "heads_in_single_bytes",
        "A head each of whose bytes comes by itself is read, of a continuation too",
        _setting,
        _in_single_bytes,
    )
    _check_setting(
        "FRAME-9",
        "heads_at_the_end_of_a_read",
        "A read of many frames that ends within a head loses none of them, and none that follows",
        _setting,
        _behind_others,
    )
    _check_setting(
        "FRAME-9",
        "reads_of_any_size",
        "A read of just so many bytes, or one more, loses nothing",
        _setting,
        _of_any_size,
    )


async def _too_big(bench: Bench, scenario: str, settings: Sequence[dict[str, Any]], *, deflate: bool) -> None:
    """Check that a frame that is too big is refused by its head, cut anywhere, first or a continuation."""
    observed: set[str] = set()
    for options in settings:
        observed |= await _ends_of_too_big(bench, scenario, options, deflate=deflate)
    bench.outcome(scenario, " or ".join(sorted(observed)), "peer saw 1009")


async def _ends_of_too_big(bench: Bench, scenario: str, options: dict[str, Any], *, deflate: bool) -> set[str]:
    limits = (("max_text_size", Opcode.TEXT), ("max_binary_size", Opcode.BINARY))
    is_declared = scenario in bench.target.deviations  # then one cut is as good as all
    observed: set[str] = set()
    async with bench.serve(bench.options(**options)) as served:
        with variants() as variant:
            for name, opcode in limits:
                limit: int = options[name]
                whole = build_frame(opcode, length=limit + 1, mask=b"mask")
                first = build_frame(opcode, b"x" * 10, fin=False)
                more = build_frame(Opcode.CONTINUATION, length=limit - 9, mask=b"mask")
                for before, head in ((b"", whole), (first, more)):
                    for cut in range(1, 2 if is_declared else len(head) - 3):
                        with variant(f"{name} of {limit}, cut at {cut}, after {len(before)} bytes"):
                            async with served.peer(deflate=deflate) as peer:
                                await peer.send_apart([before + head[:cut], head[cut:]])
                                ended = await how_it_ended(peer, 0.5 * bench.scale)
                                observed.add(ended)
                                true(ended == "peer saw 1009" or is_declared, ended)
    return observed


@check("LIM-1", needs=("size-limit",), wire=True)
async def a_head_that_is_cut(bench: Bench) -> None:
    """A message that is too big is refused by its head, wherever that is cut, whichever of the limits is the larger."""
    settings = (
        {"max_text_size": 100, "max_binary_size": 70_000},
        {"max_text_size": 1000, "max_binary_size": 100},
        {"max_text_size": 300, "max_binary_size": 300},
    )
    await _too_big(bench, "LIM-1/a-head-that-is-cut", settings, deflate=False)


@check("LIM-1", needs=("size-limit", "compression"), wire=True)
async def a_head_that_is_cut_beside_deflate(bench: Bench) -> None:
    """The same holds for messages that are not deflated, where deflate is agreed on."""
    options = {"compression": True, "max_text_size": 1000, "max_binary_size": 70_000}
    await _too_big(bench, "LIM-1/a-head-that-is-cut-beside-deflate", [options], deflate=True)
