"""SEND-8: each setting of `Compression` seen in the 101 and in the bytes, of small and large messages, and together."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.framing_deflate import NAME, agreed
from wsbridge.conformance.checks.framing_offers import inflated
from wsbridge.conformance.checks.recv import deflated, echo
from wsbridge.conformance.client import Opcode, WirePeer
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench
from wsbridge.options import Compression

__all__ = ["settings_of_each_route"]

_LETTERS = random.Random(8).randbytes(50_000).hex()  # no part of it repeats; each letter takes half a byte
_LARGE = 70_000  # bytes: more than are deflated at once, so that another thread does it (SEND-9)


def _claimed(bench: Bench, **settings: Any) -> dict[str, Any]:
    """Return those of the settings that the connector has."""
    return {name: value for name, value in settings.items() if name in bench.connector.compression_settings}


async def _payloads(peer: WirePeer, data: bytes, opcode: int = Opcode.BINARY) -> bytes:
    """Send a message as it is; return the payload of its deflated echo, all fragments together."""
    await peer.send_frame(opcode, data)
    frame = await peer.receive_frame()
    equal((frame.opcode, frame.rsv), (opcode, 4), "opcode and reserved bits of the echo")
    payload = frame.payload
    while not frame.fin:
        frame = await peer.receive_frame()
        equal((frame.opcode, frame.rsv), (Opcode.CONTINUATION, 0), "opcode and reserved bits of the rest of the echo")
        payload += frame.payload
    return payload


def _data(window: int, size: int) -> bytes:
    """Return a message that repeats from as far back as a window reaches, and from beyond it."""
    near, far = _LETTERS[: window - 300] * 2, _LETTERS[-window - 100 :] * 2
    return ((near + far) * (size // (2 * len(near)) + 1))[: max(size, len(near + far))].encode()


def _inflates(payload: bytes, data: bytes, bits: int, what: str) -> None:
    """Check that a payload inflates by itself, with a window of ``bits``."""
    try:
        equal(inflated(payload, bits), data, what)
    except zlib.error as error:
        true(False, f"{what} cannot be inflated by itself with a window of {bits} bits: {error}")


async def _keeps(peer: WirePeer, settings: dict[str, Any], sizes: Sequence[int], *, window: int = 15) -> None:
    """Check that what comes back keeps to the settings, texts and binary messages of each size."""
    bits = settings.get("window_bits", window)
    alone = settings.get("context_takeover") is False
    inflater = zlib.decompressobj(-bits)
    for size in sizes:
        for opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.TEXT):
            data = _data(1 << bits, size) if bits < 15 else _LETTERS[:size].encode()
            payload = await _payloads(peer, data, opcode)
            what = f"the echo of {len(data)} bytes by {settings}"
            if alone:
                _inflates(payload, data, bits, what)
                true(len(payload) > size // 4 or bits < 15, f"{what} refers to the message before: {len(payload)}")
            else:
                # as it goes on; a few bytes at a time, since zlib looks back into all that it puts out at once
                got, left = b"", payload + b"\0\0\xff\xff"
                try:
                    while piece := inflater.decompress(left, 64):
                        got, left = got + piece, inflater.unconsumed_tail
                except zlib.error as error:
                    true(False, f"{what} cannot be inflated with a window of {bits} bits: {error}")
                equal(got, data, what)


@check("SEND-8", needs=("compression",))
async def settings_of_each_route(bench: Bench) -> None:
    """Channels of several routes, open at once, each have the settings of their own route."""
    routes: dict[str, bool | dict[str, Any]] = {
        "/on": True,
        "/nine": _claimed(bench, window_bits=9),
        "/off": False,
        "/alone": _claimed(bench, context_takeover=False),
        "/twelve": _claimed(bench, window_bits=12, context_takeover=True),
        "/little": _claimed(bench, memory_level=1, context_takeover=False, window_bits=15),
    }

    def options(given: bool | dict[str, Any]) -> Any:
        compression = Compression(**given) if isinstance(given, dict) else given
        return bench.options(on_text=echo, on_binary=echo, compression=compression)

    app = Application([(path, options(given)) for path, given in routes.items()])
    async with bench.serve(app) as served:
        with variants() as variant:
            for _ in range(2):
                for path, given in routes.items():
                    with variant(path):
                        async with served.peer("/off", deflate=NAME), served.peer(path, deflate=NAME) as peer:
                            equal(peer.deflated, given is not False, "whether deflate is agreed on")
                            if not isinstance(given, dict):
                                continue
                            bits = given.get("window_bits")
                            told = [f"server_max_window_bits={bits}"] if bits is not None else []
                            said = [part for part in agreed(peer) if part.startswith("server_max_window_bits=")]
                            true(bits is None or said == told, f"the 101 says {agreed(peer)} of the window")
                            alone = given.get("context_takeover") is False
                            equal("server_no_context_takeover" in agreed(peer), alone, "what the 101 says of takeover")
                            await _keeps(peer, given, (2000,))


@check("SEND-8", needs=("compression",))
async def settings_together(bench: Bench) -> None:
    """All settings at once are told, kept to in both directions, and hold for small and for large messages."""
    settings = _claimed(bench, window_bits=10, memory_level=2, context_takeover=False)
    options = bench.options(on_text=echo, on_binary=echo, compression=Compression(**settings))
    offer = f"{NAME}; client_max_window_bits"
    expected = {"window_bits": ["server_max_window_bits=10", "client_max_window_bits=10"]}
    expected["context_takeover"] = ["server_no_context_takeover", "client_no_context_takeover"]
    async with bench.serve(options) as served, served.peer(deflate=offer) as peer:
        for name, said in expected.items():
            true(name not in settings or set(said) <= set(agreed(peer)), f"the 101 says {agreed(peer)}")
        await _keeps(peer, settings, (500, _LARGE, 500))
        bits = settings.get("window_bits", 15)
        for size in (500, _LARGE, 500):
            data = _data(1 << 10, size)
            await peer.send_frame(Opcode.BINARY, deflated(data, bits=bits), rsv=4)
            frame = await peer.receive_frame()
            equal(frame.opcode, Opcode.BINARY, "the kind of the echo")
            if "context_takeover" in settings:
                _inflates(frame.payload, data, bits, f"the echo of what came deflated, {len(data)} bytes")


@check("SEND-8", needs=("compression",))
async def settings_for_large_messages(bench: Bench) -> None:
    """A window, and messages that stand alone, hold for messages that another thread deflates, and for those after."""
    ways = [_claimed(bench, window_bits=9), _claimed(bench, window_bits=12), _claimed(bench, context_takeover=False)]
    with variants() as variant:
        for settings in ways:
            with variant(f"{settings}"):
                options = bench.options(on_text=echo, on_binary=echo, compression=Compression(**settings))
                async with bench.serve(options) as served, served.peer(deflate=NAME) as peer:
                    await _keeps(peer, settings, (_LARGE, 500, _LARGE))


@check("SEND-8", needs=("compression",))
async def a_smaller_window_of_the_peer(bench: Bench) -> None:
    """The smaller of the option's window and the peer's is told and kept to, for large messages too."""
    with variants() as variant:
        for wanted, asked in ((12, 9), (9, 12), (None, 9), (None, 11), (15, 10)):
            with variant(f"window_bits={wanted}, asked for {asked}"):
                settings = {} if wanted is None else _claimed(bench, window_bits=wanted)
                options = bench.options(on_text=echo, on_binary=echo, compression=Compression(**settings))
                offer = f"{NAME}; server_max_window_bits={asked}; client_max_window_bits={asked}"
                async with bench.serve(options) as served, served.peer(deflate=offer) as peer:
                    limit = min(asked, settings.get("window_bits", 15))
                    said: dict[str, str] = {
                        name: bits for name, _, bits in (part.partition("=") for part in agreed(peer))
                    }
                    for side, default in (("server", 15), ("client", limit)):  # the client's need not be told
                        bits = int(said.get(f"{side}_max_window_bits", default))
                        true(
                            bits <= asked and (not settings or bits == limit), f"of the {side}'s window it says {said}"
                        )
                    bits = int(said["server_max_window_bits"])
                    await _keeps(peer, {"window_bits": bits}, (500, _LARGE))


@check("SEND-8", needs=("compression",))
async def each_memory_level(bench: Bench) -> None:
    """Each memory level of 1 to 9 deflates to as many bytes as zlib does with it, by one and the same level."""
    if "memory_level" not in bench.connector.compression_settings:
        return  # that it is refused is checked by `memory_level`
    source = random.Random(4)
    words = [f"{number:x}" for number in range(3000)]
    mixed = source.choices(words, k=3000) + source.choices(words[:9], k=2000) + source.choices(words, k=3000)
    data = f"{' '.join(mixed)}{_LETTERS[:20_000]}{_LETTERS[30_000:40_000].upper()}".encode()
    sizes: list[int] = []
    bits = 15
    for memory in range(1, 10):
        options = bench.options(on_binary=echo, compression=Compression(memory_level=memory))
        async with bench.serve(options) as served, served.peer(deflate=NAME) as peer:
            bits = next((int(part.partition("=")[2]) for part in agreed(peer) if part.startswith("server_max")), 15)
            sizes.append(len(await _payloads(peer, data)))
    expected = {
        level: [len(_deflated_by(data, level, bits, memory)) for memory in range(1, 10)] for level in range(-1, 10)
    }
    true(sizes in expected.values(), f"the sizes with levels 1 to 9 are {sizes}, and by zlib's default {expected[-1]}")
    true(len(set(expected[-1])) == 9, f"the sizes of this check do not differ: {expected[-1]}")


def _deflated_by(data: bytes, level: int, bits: int, memory: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
