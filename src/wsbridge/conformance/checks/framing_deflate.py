"""FRAME-33 to FRAME-52: permessage-deflate, RFC 7692."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import AsyncGenerator, Iterable, Sequence

from wsbridge.conformance.checks.framing import refused
from wsbridge.conformance.checks.recv import (
    PEER_SEES_1002,
    PEER_SEES_1007,
    PING_IN_DEFLATED,
    deflated,
    deflated_fragments,
    echo,
    what_came,
)
from wsbridge.conformance.client import HandshakeRequest, Opcode, Pong, Text, WirePeer, WireViolation, build_frame
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served

__all__: list[str] = []

RSV1 = 4
NAME = "permessage-deflate"
TEXT = "deflate \u20ac " * 100
NOISE = random.Random(7692).randbytes(24_000)  # no part of it repeats, so that only the window makes it shorter


@contextlib.asynccontextmanager
async def deflating(bench: Bench) -> AsyncGenerator[Served, None]:
    """Serve an echo that deflates where the peer offers it."""
    async with bench.serve(bench.options(on_text=echo, on_binary=echo, compression=True)) as served:
        yield served


@contextlib.asynccontextmanager
async def deflating_peer(bench: Bench, offer: bool | str = NAME) -> AsyncGenerator[WirePeer, None]:
    """Open a channel to such an echo, deflate agreed on; as it stands, the offer lets the client use any window."""
    async with deflating(bench) as served, served.peer(deflate=offer) as peer:
        true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
        yield peer


async def echoed(peer: WirePeer, messages: Iterable[str | bytes]) -> None:
    """Send messages, deflated as was agreed, and check that they come back."""
    for message in messages:
        if isinstance(message, str):
            await peer.send_text(message)
        else:
            await peer.send_binary(message)
        equal((await peer.receive_message()).data, message, "the echo")


def agreed(peer: WirePeer) -> list[str]:
    """Return the parameters of the extension that the 101 agrees to."""
    header = None if peer.response is None else peer.response.header("Sec-WebSocket-Extensions")
    return [] if header is None else [part.strip() for part in header.split(";")[1:]]


# ---- 5.1, 7.1: what is agreed on ------------------------------------------------------------------------------------


@check("FRAME-33", needs=("compression",))
async def nothing_offered(bench: Bench) -> None:
    """Without an offer there is no extension, nothing comes deflated, and RSV1 is refused."""
    async with deflating(bench) as served, served.peer() as peer:
        true(not peer.deflated, "the server agreed to what was not offered")
        await echoed(peer, [TEXT])  # in frames that are judged as plain ones
        frame = build_frame(Opcode.TEXT, deflated(TEXT.encode()), rsv=RSV1)
        await refused(bench, peer, [frame], PEER_SEES_1002, 1002)


@check("FRAME-33", needs=("compression",))
async def another_extension_offered(bench: Bench) -> None:
    """An extension that the server does not know is not agreed on, and one that it knows is, beside it."""
    async with deflating(bench) as served:
        async with served.peer(deflate="x-webkit-deflate-frame, foo; bar=1") as peer:
            equal(peer.deflated, False, "an agreement to an unknown extension")
            await echoed(peer, [TEXT])
        async with served.peer(deflate=f"foo; bar=1, {NAME}") as peer:
            equal(peer.deflated, True, "an agreement to the one that it knows")
            await echoed(peer, [TEXT])


@check("FRAME-33", needs=("compression",))
async def compression_off(bench: Bench) -> None:
    """A server whose compression is off agrees to no offer."""
    async with bench.serve(bench.options(on_text=echo)) as served, served.peer(deflate=True) as peer:
        equal(peer.deflated, False, "an agreement to deflate")
        await echoed(peer, [TEXT])


def _declined(name: str, title: str, parameters: Sequence[str]) -> None:
    async def made(bench: Bench) -> None:
        async with deflating(bench) as served:
            with variants() as variant:
                for parameter in parameters:
                    with variant():
                        async with served.peer(deflate=f"{NAME}; {parameter}") as peer:
                            true(not peer.deflated, f"the server agreed to {parameter}: {peer.response}")
                            await echoed(peer, [TEXT])
                        async with served.peer(deflate=f"{NAME}; {parameter}, {NAME}") as peer:
                            await echoed(peer, [TEXT])  # it may take the second offer

    made.__name__, made.__doc__ = name, title
    check("FRAME-34", needs=("compression",))(made)


_declined("unknown_parameter", "An offer with a parameter that is unknown is declined.", ["foo", "foo=1"])
_declined(
    "parameter_twice",
    "An offer with a parameter that is repeated is declined.",
    [f"{one}; {one}" for one in ("server_no_context_takeover", "client_max_window_bits", "server_max_window_bits=10")],
)
_declined(
    "value_out_of_place",
    "An offer with a value where none belongs, or without one where it belongs, is declined.",
    ["server_no_context_takeover=1", "client_no_context_takeover=1", "server_max_window_bits"],
)
_declined(
    "window_out_of_range",
    "An offer of a window size that does not exist is declined.",
    [f"{side}_max_window_bits={bits}" for side in ("server", "client") for bits in ("7", "16", "0", "-9", "ten")],
)


@check("FRAME-35", needs=("compression",))
async def server_without_context_takeover(bench: Bench) -> None:
    """Where server_no_context_takeover was agreed on, each message can be inflated by itself."""
    async with deflating(bench) as served, served.peer(deflate=f"{NAME}; server_no_context_takeover") as peer:
        told = "server_no_context_takeover" in agreed(peer)
        true(told or not peer.deflated, f"the 101 does not tell it: {peer.response}")
        await echoed(peer, [TEXT, TEXT, NOISE, NOISE, "", TEXT])  # this client forgets its window then


@check("FRAME-36", needs=("compression",))
async def client_without_context_takeover(bench: Bench) -> None:
    """With client_no_context_takeover offered, messages that stand alone are inflated, one like the other."""
    async with deflating(bench) as served, served.peer(deflate=f"{NAME}; client_no_context_takeover") as peer:
        for _ in range(3):
            for data in (NOISE, b"", bytes(1000)):
                await peer.send_frame(Opcode.BINARY, deflated(data) if peer.deflated else data, rsv=4 * peer.deflated)
                equal(await peer.receive_binary(), data, "the echo")


@check("FRAME-37", needs=("compression",))
async def server_window(bench: Bench) -> None:
    """Each server_max_window_bits of 9 to 15 is declined, or agreed to by telling that size or less, and kept to."""
    async with deflating(bench) as served:
        with variants() as variant:
            # RFC 7692, 5.2: or quoted
            for bits, value in [*((bits, f"{bits}") for bits in range(9, 16)), (10, '"10"')]:
                with variant():
                    async with served.peer(deflate=f"{NAME}; server_max_window_bits={value}") as peer:
                        told = [part for part in agreed(peer) if part.startswith("server_max_window_bits=")]
                        sizes = [int(part.partition("=")[2]) for part in told]
                        is_kept = not peer.deflated or (sizes and sizes[0] <= bits)
                        true(is_kept, f"{value} was answered by {peer.response}")
                        half = NOISE[: (1 << bits) * 3 // 4]  # repeats from beyond the window, for all but the largest
                        await echoed(peer, [half + half, half, half])


@check("FRAME-37", needs=("compression",))
async def server_window_of_8_bits(bench: Bench) -> None:
    """A server_max_window_bits of 8, which zlib cannot keep to, is declined, or told and kept to."""
    async with deflating(bench) as served, served.raw() as peer:
        request = HandshakeRequest.build(served.address, target="/", deflate=f"{NAME}; server_max_window_bits=8")
        await peer.request(request.encode())
        response = await peer.read_response()
        equal(response.status, 101, "the status")
        header = response.header("Sec-WebSocket-Extensions") or ""
        true(not header or "server_max_window_bits=8" in header.replace(" ", ""), f"8 was answered by {header!r}")
        data = NOISE[:300] * 2
        await peer.send_frame(Opcode.BINARY, data)
        try:
            payload = (await peer.receive_frame()).payload
        except WireViolation as violation:  # to this client nothing is agreed on, so RSV1 is not allowed
            true(header and violation.frame is not None, str(violation))
            payload = b"" if violation.frame is None else violation.frame.payload
            payload = zlib.decompressobj(-8).decompress(payload + b"\0\0\xff\xff")
        equal(payload, data, "the echo, inflated with a window of 256 bytes")


@check("FRAME-38", needs=("compression",))
async def client_window(bench: Bench) -> None:
    """client_max_window_bits, offered without a value or with one of 8 to 15, is agreed to by that size or less."""
    async with deflating(bench) as served:
        with variants() as variant:
            for value in ("", *(f"={bits}" for bits in range(9, 16)), '="10"'):
                with variant():
                    async with served.peer(deflate=f"{NAME}; client_max_window_bits{value}") as peer:
                        told = [part for part in agreed(peer) if part.startswith("client_max_window_bits=")]
                        limit = int(value[1:].strip('"') or "15")
                        is_kept = all(int(part.partition("=")[2]) <= limit for part in told)
                        true(is_kept, f"{value} was answered by {told}")
                        await echoed(peer, [TEXT, NOISE, NOISE, TEXT])


# ---- 7.2: messages --------------------------------------------------------------------------------------------------


@check("FRAME-39", needs=("compression",))
async def messages_of_any_size(bench: Bench) -> None:
    """Texts and binary messages of any size and content come back through deflate both ways."""
    sizes = (1, 2, 125, 126, 1000, 20_000, 65_535, 300_000)
    async with deflating_peer(bench) as peer:
        await echoed(peer, ["", "a", "\u20ac" * 1000, TEXT, "\0" * 200_000])
        await echoed(peer, [random.Random(size).randbytes(size) for size in sizes])
        await echoed(peer, [bytes(size) for size in sizes])


@check("FRAME-39", needs=("compression",))
async def however_deflated(bench: Bench) -> None:
    """What was deflated at any level, by any strategy and with any window is inflated."""
    ways = [{"level": level} for level in range(10)] + [
        {"strategy": strategy} for strategy in (zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
    ]
    async with deflating_peer(bench) as peer:
        for way in [*ways, *({"bits": bits} for bits in range(9, 16))]:
            await peer.send_frame(Opcode.TEXT, deflated(TEXT.encode(), **way), rsv=RSV1)
            equal(await peer.receive_text(), TEXT, f"the echo of what was deflated with {way}")


@check("FRAME-40", needs=("compression",))
async def window_over_messages(bench: Bench) -> None:
    """A message that refers to earlier ones, over control frames and plain messages between, is inflated."""
    compressor = zlib.compressobj(wbits=-15)
    async with deflating_peer(bench) as peer:
        sizes: list[int] = []
        for _ in range(4):
            payload = (compressor.compress(NOISE) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            sizes.append(len(payload))
            await peer.send_frame(Opcode.BINARY, payload, rsv=RSV1)
            equal(await peer.receive_binary(), NOISE, "the echo")
            await peer.ping(b"between")
            await peer.send_text("plain", compress=False)
            equal(await peer.receive_text(), "plain", "the echo of a plain message")
        true(max(sizes[1:]) < sizes[0] // 10, f"the check's own messages do not refer to each other: {sizes}")


def _blocks() -> dict[str, bytes]:
    """Return payloads that inflate to ``TEXT``, by the kinds of their blocks."""
    data = TEXT.encode()
    cut = len(data) // 3
    parts = (data[:cut], data[cut : 2 * cut], data[2 * cut :])
    several = zlib.compressobj(wbits=-15)
    flushed = b"".join(several.compress(part) + several.flush(zlib.Z_FULL_FLUSH) for part in parts)
    return {
        "a stored block": deflated(data, level=0),
        "stored blocks of one byte": b"".join(b"\0\1\0\xfe\xff" + data[at : at + 1] for at in range(len(data))) + b"\0",
        "a block of fixed codes": deflated(data, strategy=zlib.Z_FIXED),
        "a block of dynamic codes": deflated(data, level=9),
        "several blocks": flushed[:-4],
        "empty blocks between": b"\0\0\0\xff\xff" * 3 + flushed + b"\0\0\0\xff\xff" * 3 + b"\0",
        "no flush left off": flushed + b"\0",
    }


@check("FRAME-41", needs=("compression",))
async def kinds_of_blocks(bench: Bench) -> None:
    """Stored blocks, fixed and dynamic codes, several blocks and empty ones between make a message."""
    async with deflating_peer(bench) as peer:
        for kind, payload in _blocks().items():
            await peer.send_frame(Opcode.TEXT, payload, rsv=RSV1)
            equal(await peer.receive_text(), TEXT, f"the echo of {kind}")


def _final(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush(zlib.Z_FINISH) + b"\0"


@check("FRAME-42", needs=("compression",))
async def last_block_with_bfinal(bench: Bench) -> None:
    """A message that ends in a block with BFINAL set is inflated."""
    async with deflating(bench) as served:
        with variants() as variant:
            for text in ("", "Hello", TEXT):
                with variant():
                    async with served.peer(deflate=NAME) as peer:
                        await peer.send_frame(Opcode.TEXT, _final(text.encode()), rsv=RSV1)
                        equal(await peer.receive_text(), text, "the echo")


@check("FRAME-42", needs=("compression",))
async def messages_behind_bfinal(bench: Bench) -> None:
    """After a message that ended with BFINAL others are inflated, with it and without."""
    data = TEXT.encode()
    async with deflating_peer(bench) as peer:
        for payload in (_final(data), _final(data), deflated(data), deflated(data), _final(data)):
            await peer.send_frame(Opcode.TEXT, payload, rsv=RSV1)
            equal(await peer.receive_text(), TEXT, "the echo")


@check("FRAME-43", needs=("compression",))
async def empty_message(bench: Bench) -> None:
    """An empty message is one in each of its forms: the byte 0, an empty stored block before it, a fixed one."""
    async with deflating_peer(bench) as peer:
        for payload in (b"\0", b"\0\0\0\xff\xff\0", b"\2\0"):
            await peer.send_frame(Opcode.TEXT, payload, rsv=RSV1)
            equal(await peer.receive_text(), "", f"the echo of {payload!r}")
            await peer.send_frame(Opcode.BINARY, payload, rsv=RSV1)
            equal(await peer.receive_binary(), b"", f"the echo of {payload!r}")
            await echoed(peer, ["between"])


@check("FRAME-44", needs=("compression",))
async def plain_messages_between(bench: Bench) -> None:
    """Messages that are not deflated, whole and in fragments, come through among others that are."""
    async with deflating_peer(bench) as peer:
        for compress in (False, True, False, False, True):
            await peer.send_text(TEXT, compress=compress)
            equal(await peer.receive_text(), TEXT, "the echo")
            await peer.send_fragments(Opcode.BINARY, [NOISE, b"", NOISE], compress=compress)
            equal(await peer.receive_binary(), NOISE * 2, "the echo")


@check("FRAME-44", needs=("compression",))
async def pings_byte_by_byte_between(bench: Bench) -> None:
    """Messages, deflated or not, come through after pings that come one byte at a time."""
    async with deflating_peer(bench) as peer:
        for compress in (True, False, True, True):
            await peer.send_apart(build_frame(Opcode.PING, b"p"))
            await peer.send_text(TEXT, compress=compress)
            equal(await peer.receive_text(), TEXT, "the echo")


@check("FRAME-45", needs=("compression",))
async def fragments_cut_anywhere(bench: Bench) -> None:
    """A deflated message is inflated from two fragments, cut at any byte, from one for each byte, and empty ones."""
    text = "cut \u20ac anywhere"
    size = len(deflated(text.encode()))
    frames = deflated_fragments(text, size)
    empty = build_frame(Opcode.CONTINUATION, b"", fin=False)
    async with deflating_peer(bench) as peer:
        for cut in range(size + 1):
            payload = deflated(text.encode())
            await peer.send_frame(Opcode.TEXT, payload[:cut], fin=False, rsv=RSV1)
            await peer.send_frame(Opcode.CONTINUATION, payload[cut:])
            equal(await peer.receive_text(), text, f"the echo of what was cut at {cut}")
        for raw in (b"".join(frames), empty.join(frames)):
            await peer.send_raw(raw)
            equal(await peer.receive_text(), text, "the echo")
        await peer.send_fragments(Opcode.BINARY, [NOISE[:9000], b"", NOISE[9000:], NOISE])
        equal(await peer.receive_binary(), NOISE * 2, "the echo of large fragments")


# ---- 6: what is refused ---------------------------------------------------------------------------------------------


def _refusals(rule: str, name: str, title: str, series: Sequence[bytes], scenario: str, *codes: int) -> None:
    async def made(bench: Bench) -> None:
        async with deflating(bench) as served:
            with variants() as variant:
                for raw in series:
                    with variant(f"{raw[:40]!r}"):
                        async with served.peer(deflate=NAME) as peer:
                            true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
                            await refused(bench, peer, [raw], scenario, *codes)

    made.__name__, made.__doc__ = name, title
    check(rule, needs=("compression",))(made)


_PAYLOAD = deflated(TEXT.encode())
_FIRST = build_frame(Opcode.TEXT, _PAYLOAD[:9], fin=False, rsv=RSV1)
_PLAIN_FIRST = build_frame(Opcode.TEXT, b"plain", fin=False)

_refusals(
    "FRAME-46",
    "rsv1_on_a_continuation",
    "RSV1 on a continuation is refused, in a deflated message and in a plain one, and where nothing is to continue.",
    [
        _FIRST + build_frame(Opcode.CONTINUATION, _PAYLOAD[9:], rsv=RSV1),
        _PLAIN_FIRST + build_frame(Opcode.CONTINUATION, _PAYLOAD, rsv=RSV1),
        build_frame(Opcode.CONTINUATION, _PAYLOAD, rsv=RSV1),
    ],
    PEER_SEES_1002,
    1002,
)


def _control_with_rsv1(name: str, title: str, frames: Sequence[bytes]) -> None:
    places = (
        (b"", build_frame(Opcode.TEXT, b"behind"), "behind"),
        (_FIRST, build_frame(Opcode.CONTINUATION, _PAYLOAD[9:]), TEXT),
        (_PLAIN_FIRST, build_frame(Opcode.CONTINUATION, b" end"), "plain end"),
    )

    async def made(bench: Bench) -> None:
        observed: set[str] = set()
        async with deflating(bench) as served:
            for before, behind, text in places:
                for frame in frames:
                    async with served.peer(deflate=NAME) as peer:
                        true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
                        await peer.send_raw(before + frame + behind)
                        observed.add(await what_came(peer, text))
        bench.outcome(f"FRAME-47/{name.replace('_', '-')}", " or ".join(sorted(observed)), "peer saw 1002")

    made.__name__, made.__doc__ = name, title
    check("FRAME-47", needs=("compression",))(made)


_control_with_rsv1(
    "rsv1_on_a_ping_or_pong",
    "RSV1 on a ping or a pong is refused, alone and between fragments, deflated or not.",
    [build_frame(Opcode.PING, b"", rsv=RSV1), build_frame(Opcode.PONG, b"pong", rsv=RSV1)],
)
_control_with_rsv1(
    "rsv1_on_a_close",
    "RSV1 on a close is refused, and does not close, alone and between fragments, deflated or not.",
    [build_frame(Opcode.CLOSE, b"\x03\xe8", rsv=RSV1)],
)
_refusals(
    "FRAME-48",
    "rsv2_and_rsv3",
    "RSV2 and RSV3 are refused on deflated and plain messages, continuations and pings.",
    [
        raw
        for rsv in (1, 2, 3)
        for raw in (
            build_frame(Opcode.TEXT, _PAYLOAD, rsv=RSV1 | rsv),
            build_frame(Opcode.BINARY, b"plain", rsv=rsv),
            build_frame(Opcode.PING, b"", rsv=rsv),
            _FIRST + build_frame(Opcode.CONTINUATION, _PAYLOAD[9:], rsv=rsv),
        )
    ],
    PEER_SEES_1002,
    1002,
)


@check("FRAME-49", needs=("compression",))
async def what_cannot_be_inflated(bench: Bench) -> None:
    """A reserved kind of block, a stored block whose length is wrong and a reference to nothing are refused."""
    beyond = zlib.compressobj(wbits=-15, zdict=NOISE[:1000])
    payloads = (
        b"\xff" * 20,
        b"\x00\x05\x00\xff\xffhello",
        (beyond.compress(NOISE[:1000]) + beyond.flush(zlib.Z_SYNC_FLUSH))[:-4],
    )
    async with deflating(bench) as served:
        for payload in payloads:
            for first, more in ((payload, None), (payload[:2], payload[2:])):
                async with served.peer(deflate=NAME) as peer:
                    true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
                    frames = [build_frame(Opcode.BINARY, first, fin=more is None, rsv=RSV1)]
                    if more is not None:
                        frames.append(build_frame(Opcode.CONTINUATION, more))
                    await refused(bench, peer, frames, PEER_SEES_1002, 1002, 1007)


_refusals(
    "FRAME-50",
    "deflated_text_that_is_no_utf8",
    "A deflated text with invalid UTF-8, or an unfinished character at its end, is refused.",
    [
        build_frame(Opcode.TEXT, deflated(data), rsv=RSV1)
        for data in (b"\xff", TEXT.encode() + b"\xed\xa0\x80", TEXT.encode() + b"\xe2\x82")
    ],
    PEER_SEES_1007,
    1007,
)


@check("FRAME-51", needs=("compression",))
async def control_frames_between_deflated_fragments(bench: Bench) -> None:
    """Pings and pongs between the fragments of deflated messages are answered or ignored, and the messages whole."""
    async with deflating_peer(bench) as peer:
        observed = "delivered"
        for control in (build_frame(Opcode.PONG, b"unasked"), build_frame(Opcode.PING, TEXT.encode()[:100])):
            for count in (2, 5):
                if observed == "delivered":
                    await peer.send_raw(control.join(deflated_fragments(TEXT, count)))
                    observed = await what_came(peer, TEXT)
        bench.outcome(PING_IN_DEFLATED, observed, "delivered")
        pongs = [event for event in peer.received if isinstance(event, Pong)]
        true(observed != "delivered" or pongs == [Pong(TEXT.encode()[:100])] * 5, f"the pongs are {pongs}")


@check("FRAME-52", needs=("compression",))
async def frames_of_a_deflating_server(bench: Bench) -> None:
    """RSV1 stands on the first frame of the server's deflated messages alone, and what repeats is deflated."""
    async with deflating_peer(bench) as peer:
        for text in (TEXT, "\u20ac" * 10_000):
            await peer.send_text(text)
            frame = await peer.receive_frame()
            equal((frame.opcode, frame.rsv, frame.masked), (Opcode.TEXT, RSV1, False), "opcode, reserved bits and mask")
            size = len(frame.payload)
            while not frame.fin:
                frame = await peer.receive_frame()
                equal((frame.opcode, frame.rsv), (Opcode.CONTINUATION, 0), "opcode and reserved bits")
                size += len(frame.payload)
            equal(peer.received[-1], Text(text), "the echo")
            true(size < len(text.encode()) // 2, f"{len(text.encode())} bytes of repeats came in {size}")
        await peer.ping(b"?" * 100)
        frame = await peer.receive_frame()
        equal((frame.opcode, frame.rsv, frame.payload), (Opcode.PONG, 0, b"?" * 100), "the pong")
        await peer.send_close(1000)
        frame = await peer.receive_frame()
        equal((frame.opcode, frame.rsv), (Opcode.CLOSE, 0), "the close")
