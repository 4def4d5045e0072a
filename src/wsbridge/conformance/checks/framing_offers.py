"""FRAME-53 and FRAME-54: offers of deflate as a whole header. SEND-8: the settings of `Compression`, on the wire."""

from __future__ import annotations

import random
import zlib
from typing import Any

from wsbridge.conformance.checks.framing_deflate import NAME, agreed, deflating, echoed
from wsbridge.conformance.checks.recv import deflated, echo, how_it_ended
from wsbridge.conformance.client import Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, fail, true, variants
from wsbridge.conformance.harness.bench import Bench
from wsbridge.errors import UnsupportedOptionError
from wsbridge.options import Compression

__all__: list[str] = []

TEXT = "offered \u20ac " * 100
BAD = (
    f"{NAME}; unknown",
    f"{NAME}; server_max_window_bits",
    f"{NAME}; client_max_window_bits=16",
    f"{NAME}; server_no_context_takeover; server_no_context_takeover",
    "x-webkit-deflate-frame",
    'x; y="a, b; c"',
)

# ---- RFC 7692, 5.1; RFC 6455, 9.1: offers ---------------------------------------------------------------------------


@check("FRAME-53", needs=("compression",))
async def a_good_offer_behind_a_bad_one(bench: Bench) -> None:
    """An offer that can be taken is taken after one that cannot, in the same header line and in the next."""
    async with deflating(bench) as served:
        with variants() as variant:
            for bad in BAD:
                with variant():
                    in_two_lines: dict[str, Any] = {"deflate": bad, "headers": [("Sec-WebSocket-Extensions", NAME)]}
                    for options in ({"deflate": f"{bad}, {NAME}"}, in_two_lines):
                        async with served.peer(**options) as peer:
                            true(
                                peer.deflated, f"the server did not agree to the good one of {options}: {peer.response}"
                            )
                            await echoed(peer, [TEXT, TEXT])


@check("FRAME-53", needs=("compression",))
async def the_first_that_can_be_taken(bench: Bench) -> None:
    """Of offers that can be taken the first is taken, since a client puts the one that it prefers there."""
    first, second = f"{NAME}; server_no_context_takeover", f"{NAME}; server_max_window_bits=9"
    async with deflating(bench) as served:
        with variants() as variant:
            for offer, said in (
                (f"{first}, {second}", "server_no"),
                (f"{second}, {first}", "server_max_window_bits=9"),
            ):
                with variant():
                    async with served.peer(deflate=offer) as peer:
                        true(peer.deflated, f"the server did not agree to {offer}: {peer.response}")
                        true(
                            any(part.startswith(said) for part in agreed(peer)),
                            f"{offer} was answered by {agreed(peer)}",
                        )
                        await echoed(peer, [TEXT, TEXT])


@check("FRAME-54", needs=("compression",))
async def an_offer_in_a_quoted_string(bench: Bench) -> None:
    """What looks like an offer inside a quoted string, one without an end too, is not an offer."""
    async with deflating(bench) as served:
        with variants() as variant:
            for offer in (
                f'x; y=",{NAME}; client_max_window_bits,"',
                f'x; y="a, {NAME}"',
                f'x; y="\\", {NAME}"',
                f'x; y=", {NAME}',
            ):
                with variant():
                    async with served.peer(deflate=offer) as peer:
                        true(not peer.deflated, f"the server agreed to {offer}: {peer.response}")
                        await echoed(peer, [TEXT])


@check("FRAME-54", needs=("compression",))
async def an_offer_behind_a_quoted_string(bench: Bench) -> None:
    """After the end of a quoted string with commas, semicolons and escaped quotes, an offer counts."""
    async with deflating(bench) as served:
        with variants() as variant:
            for quoted in ('", ; "', '"\\""', '"\\\\"', '"a\\"b, c; d"'):
                with variant():
                    async with served.peer(deflate=f"x; y={quoted}, {NAME}") as peer:
                        true(peer.deflated, f"the server did not agree to what stands after {quoted}: {peer.response}")
                        await echoed(peer, [TEXT])


# ---- SEND-8: the settings of Compression ----------------------------------------------------------------------------


def inflated(payload: bytes, bits: int) -> bytes:
    """Inflate a message with a window of just so many bits.

    A few bytes at a time: zlib looks back into all that it puts out at once, however small the window.

    Raises:
        zlib.error: It refers to what is not in the window.
    """
    inflater = zlib.decompressobj(-bits)
    data, left = b"", payload + b"\0\0\xff\xff"
    while piece := inflater.decompress(left, 64):
        data += piece
        left = inflater.unconsumed_tail
    return data


async def _refused_setting(bench: Bench, setting: str, value: Any) -> bool:
    """If the connector does not claim a setting, check that it is refused by name, and return True."""
    if setting in bench.connector.compression_settings:
        return False
    try:
        async with bench.serve(bench.options(compression=Compression(**{setting: value}))):
            pass
    except UnsupportedOptionError as error:
        true(setting in str(error), f"the error does not name {setting}: {error}")
    else:
        fail(f"Compression({setting}={value}) was taken, though the connector does not claim it")
    return True


async def _deflated_echo(peer: WirePeer, data: bytes) -> bytes:
    """Send a message as it is, and return the payload of its deflated echo."""
    await peer.send_frame(Opcode.BINARY, data)
    frame = await peer.receive_frame()
    equal((frame.opcode, frame.rsv, frame.fin), (Opcode.BINARY, 4, True), "opcode, reserved bits and FIN of the echo")
    return frame.payload


@check("SEND-8", needs=("compression",))
async def window_bits(bench: Bench) -> None:
    """Compression(window_bits=...) of 9 to 15 is told, used to its end, and not gone beyond."""
    if await _refused_setting(bench, "window_bits", 10):
        return
    noise = random.Random(9).randbytes(2 << 15)
    with variants() as variant:
        for bits in range(9, 16):
            with variant():
                window = 1 << bits
                within, beyond = noise[: window - 300] * 2, noise[: window + 100] * 2
                options = bench.options(on_binary=echo, compression=Compression(window_bits=bits))
                async with bench.serve(options) as served:
                    async with served.peer(deflate=NAME) as peer:
                        equal(agreed(peer), [f"server_max_window_bits={bits}"], "what the 101 says")
                        payload = await _deflated_echo(peer, within)
                        true(
                            len(payload) < len(within) * 2 // 3,
                            f"with {bits} bits a repetition within the window was not seen",
                        )
                        equal(inflated(payload, bits), within, f"the echo, inflated with a window of {bits} bits")
                        if bits > 9:  # zlib's smallest window is not used in full, and fits into one of 8 bits
                            _cannot_be_inflated(payload, bits - 1)
                    async with served.peer(deflate=NAME) as peer:
                        payload = await _deflated_echo(peer, beyond)
                        equal(
                            inflated(payload, bits),
                            beyond,
                            f"what repeats beyond the window, inflated with {bits} bits",
                        )
                    async with served.peer(deflate=f"{NAME}; server_max_window_bits=9; client_max_window_bits") as peer:
                        said = ["server_max_window_bits=9", f"client_max_window_bits={bits}"]
                        equal(
                            sorted(agreed(peer)),
                            sorted(said),
                            "what the 101 says to a peer that asks for a smaller window",
                        )
                        await peer.send_frame(Opcode.BINARY, deflated(within, bits=bits), rsv=4)
                        equal(
                            inflated((await peer.receive_frame()).payload, 9), within, "the echo in the smaller window"
                        )


def _cannot_be_inflated(payload: bytes, bits: int) -> None:
    try:
        inflated(payload, bits)
    except zlib.error:
        return
    fail(f"a window of {bits} bits, which is less than what was set, is enough for the echo")


@check("SEND-8", needs=("compression",))
async def memory_level(bench: Bench) -> None:
    """Compression(memory_level=...) of 1 to 9 is taken, and the most memory deflates better than the least."""
    if await _refused_setting(bench, "memory_level", 5):
        return
    words = [f"{number:x}" for number in range(500)]
    data = " ".join(random.Random(1).choices(words, k=8000)).encode()
    sizes: list[int] = []
    for level in range(1, 10):
        options = bench.options(on_binary=echo, compression=Compression(memory_level=level))
        async with bench.serve(options) as served, served.peer(deflate=NAME) as peer:
            true(peer.deflated, f"the server did not agree to deflate: {peer.response}")
            sizes.append(len(await _deflated_echo(peer, data)))
            await echoed(peer, [data, b"", data])
    true(sizes[0] > sizes[-1], f"the sizes with levels of 1 to 9: {sizes}")


@check("SEND-8", needs=("compression",))
async def without_context_takeover(bench: Bench) -> None:
    """With Compression(context_takeover=False) that is told for both sides, and each message stands alone."""
    if await _refused_setting(bench, "context_takeover", False):
        return
    data = random.Random(2).randbytes(4000)
    taking_over = zlib.compressobj(wbits=-15)
    first, second = ((taking_over.compress(data) + taking_over.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    options = bench.options(on_binary=echo, compression=Compression(context_takeover=False))
    async with bench.serve(options) as served, served.peer(deflate=NAME) as peer:
        said = {"server_no_context_takeover", "client_no_context_takeover"}
        true(said <= set(agreed(peer)), f"the 101 does not tell it: {peer.response}")
        for _ in range(3):
            equal(inflated(await _deflated_echo(peer, data), 15), data, "an echo by itself")
        for _ in range(2):
            await peer.send_frame(Opcode.BINARY, first, rsv=4)
            equal(inflated((await peer.receive_frame()).payload, 15), data, "the echo of a message that stands alone")
        await peer.send_raw(build_frame(Opcode.BINARY, second, rsv=4))  # refers to the one before
        true(await how_it_ended(peer) in ("peer saw 1002", "peer saw 1007"), "the peer's window was kept")


@check("SEND-8", needs=("compression",))
async def with_context_takeover(bench: Bench) -> None:
    """With Compression(context_takeover=True) a message is deflated by what the one before has left."""
    if await _refused_setting(bench, "context_takeover", True):
        return
    data = random.Random(3).randbytes(2000)
    options = bench.options(on_binary=echo, compression=Compression(context_takeover=True))
    async with bench.serve(options) as served:
        async with served.peer(deflate=NAME) as peer:
            equal([part for part in agreed(peer) if "takeover" in part], [], "what the 101 says of it")
            sizes = [len(await _deflated_echo(peer, data)) for _ in range(2)]
            true(sizes[1] < sizes[0] // 4, f"the sizes of the same message: {sizes}")
        async with served.peer(deflate=f"{NAME}; server_no_context_takeover") as peer:
            true("server_no_context_takeover" in agreed(peer), f"the 101 does not tell it: {peer.response}")
            for _ in range(2):
                equal(inflated(await _deflated_echo(peer, data), 15), data, "an echo to a peer that asks for none")
