"""LIM-1: limits of size. LIM-2 to LIM-4 are in `wsbridge.conformance.checks.timeouts`."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.flow import warm
from wsbridge.conformance.checks.recv import deflated, echo, how_it_ended
from wsbridge.conformance.client import Opcode, Pong, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.server_process import MIB, Measured, measured
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Feature

__all__: list[str] = []

SIZE_LIMIT: tuple[Feature, ...] = ("size-limit",)
BOUND = 16 * MIB


def fragments(opcode: int, data: bytes, size: int) -> list[bytes]:
    """Return a message as frames of ``size`` bytes and a last one of what is left, which may be empty."""
    cuts = range(0, len(data) + 1, size)
    return [
        build_frame(
            Opcode.CONTINUATION if cut else opcode,
            data[cut : cut + size],
            fin=cut == cuts[-1] or cut + size > len(data),
        )
        for cut in cuts
    ]


async def _delivered(bench: Bench, peer: WirePeer, raw: bytes, message: str | bytes) -> None:
    """Send a message, which must be delivered."""
    before = len(bench.recorder.values())
    await peer.send_raw(raw)
    await bench.recorder.until(lambda: len(bench.recorder.values()) > before, f"a message of {len(message)}")
    equal(bench.recorder.values()[before:], [message], "what was delivered")


async def _too_big(bench: Bench, served: Served, raws: Iterable[bytes], **options: Any) -> None:
    """Send what is too big, and nothing after it; it must be refused, for both sides, and not delivered."""
    number, delivered = len(bench.recorder.channels) + 1, len(bench.recorder.values())
    async with served.peer(**options) as peer:
        for raw in raws:
            await peer.send_raw(raw)
        equal(await how_it_ended(peer), "peer saw 1009", "the end")
        reason = await bench.within(bench.recorder.channels[number - 1].wait_closed(), "the end of the channel")
        equal((reason.code, reason.initiator), (1009, "local"), "code and initiator")
    equal(await bench.recorder.closed(number), reason, "the reason of on_close")
    equal(len(bench.recorder.values()), delivered, "the number of messages delivered")


# ---- to the byte ----------------------------------------------------------------------------------------------------


@check("LIM-1", needs=SIZE_LIMIT)
async def text_to_the_byte(bench: Bench) -> None:
    """A text of exactly max_text_size bytes is delivered; one byte more gets 1009."""
    async with bench.serve(bench.options(max_text_size=1000)) as served:
        async with served.peer() as peer:
            for size in (0, 1, 999, 1000, 1000):
                await _delivered(bench, peer, build_frame(Opcode.TEXT, b"x" * size), "x" * size)
        await _too_big(bench, served, [build_frame(Opcode.TEXT, b"x" * 1001)])


@check("LIM-1", needs=SIZE_LIMIT)
async def text_counts_in_utf8(bench: Bench) -> None:
    """What counts of a text is its bytes in UTF-8, not its characters, at every width."""
    async with bench.serve(bench.options(max_text_size=240)) as served:
        for character in ("x", "\xe9", "\u20ac", "\U0001f600"):
            width = len(character.encode())
            async with served.peer() as peer:
                text = character * (240 // width)
                await _delivered(bench, peer, build_frame(Opcode.TEXT, text.encode()), text)
            await _too_big(bench, served, [build_frame(Opcode.TEXT, (text + "x").encode())])


@check("LIM-1", needs=SIZE_LIMIT)
async def binary_to_the_byte(bench: Bench) -> None:
    """A binary message of exactly max_binary_size bytes is delivered; one byte more gets 1009."""
    async with bench.serve(bench.options(max_binary_size=70_000)) as served:
        async with served.peer() as peer:
            for size in (0, 69_999, 70_000, 70_000):
                await _delivered(bench, peer, build_frame(Opcode.BINARY, bytes(size)), bytes(size))
        await _too_big(bench, served, [build_frame(Opcode.BINARY, bytes(70_001))])


@check("LIM-1", needs=SIZE_LIMIT)
async def smallest_limit(bench: Bench) -> None:
    """A limit of 1 lets one byte through, and control frames of 125."""
    async with bench.serve(bench.options(max_text_size=1, max_binary_size=1)) as served:
        async with served.peer() as peer:
            await _delivered(bench, peer, build_frame(Opcode.TEXT, b"x"), "x")
            await _delivered(bench, peer, build_frame(Opcode.BINARY, b"x"), b"x")
            await peer.ping(bytes(125))
            equal(await peer.receive(), Pong(bytes(125)), "the pong")
            await peer.send_close(4000, "x" * 123)
            equal(await how_it_ended(peer), "peer saw 4000", "the end")
        equal((await bench.recorder.closed()).text, "x" * 123, "the text of the reason")
        await _too_big(bench, served, [build_frame(Opcode.TEXT, b"xx")])
        await _too_big(bench, served, [build_frame(Opcode.BINARY, b"xx")])


@check("LIM-1", needs=SIZE_LIMIT)
async def each_kind_has_its_limit(bench: Bench) -> None:
    """Texts and binary messages have limits of their own, whichever is the larger one."""
    for texts, binaries in ((100, 5000), (5000, 100)):
        options = bench.options(max_text_size=texts, max_binary_size=binaries)
        async with bench.serve(options) as served:
            async with served.peer() as peer:
                await _delivered(bench, peer, build_frame(Opcode.TEXT, b"x" * texts), "x" * texts)
                await _delivered(bench, peer, build_frame(Opcode.BINARY, bytes(binaries)), bytes(binaries))
            for opcode, size in ((Opcode.TEXT, texts + 1), (Opcode.BINARY, binaries + 1)):
                await _too_big(bench, served, [build_frame(opcode, b"x" * size)])
                if bench.target.has_wire:
                    await _too_big(bench, served, fragments(opcode, b"x" * size, 60))


@check("LIM-1", needs=SIZE_LIMIT, fixed=["limits"])
async def default_limit(bench: Bench) -> None:
    """Without a word the limit is 1 MiB, for either kind."""
    async with bench.serve() as served:
        async with served.peer() as peer:
            await _delivered(bench, peer, build_frame(Opcode.TEXT, b"x" * MIB), "x" * MIB)
            await _delivered(bench, peer, build_frame(Opcode.BINARY, bytes(MIB)), bytes(MIB))
        for opcode in (Opcode.TEXT, Opcode.BINARY):  # its head is enough, where there is one
            payload = b"" if bench.target.has_wire else bytes(MIB + 1)
            await _too_big(bench, served, [build_frame(opcode, payload, length=MIB + 1)])


@check("LIM-1", needs=SIZE_LIMIT)
async def no_limit(bench: Bench) -> None:
    """With None there is no limit, for one kind or for both: 20 MiB come through."""
    size = 20 * MIB
    data = build_frame(Opcode.BINARY, bytes(size), mask=bytes(4))
    text = build_frame(Opcode.TEXT, b"x" * size, mask=b"\0\0\0\0")
    async with bench.serve(bench.options(max_text_size=None, max_binary_size=None)) as served, served.peer() as peer:
        await _delivered(bench, peer, data, bytes(size))
        await _delivered(bench, peer, text, "x" * size)
    async with bench.serve(bench.options(max_text_size=100, max_binary_size=None)) as served:
        async with served.peer() as peer:
            await _delivered(bench, peer, data, bytes(size))
        await _too_big(bench, served, [build_frame(Opcode.TEXT, b"x" * 101)])


# ---- fragments ------------------------------------------------------------------------------------------------------


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def fragments_to_the_byte(bench: Bench) -> None:
    """Fragments count together: of exactly the limit they are delivered, with one byte more they get 1009."""
    limit = 1000
    kinds: tuple[tuple[int, Any], ...] = ((Opcode.TEXT, "x" * limit), (Opcode.BINARY, b"x" * limit))
    async with bench.serve(bench.options(max_text_size=limit, max_binary_size=limit)) as served:
        for opcode, message in kinds:
            for size in (1, 7, 500, 999, 1000):
                async with served.peer() as peer:
                    await _delivered(bench, peer, b"".join(fragments(opcode, b"x" * limit, size)), message)
                await _too_big(bench, served, [b"".join(fragments(opcode, b"x" * (limit + 1), size))])


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def limit_starts_anew(bench: Bench) -> None:
    """Each message counts by itself, whole or in fragments, and control frames between them do not count."""
    ping = build_frame(Opcode.PING, bytes(125))
    async with bench.serve(bench.options(max_binary_size=1000)) as served, served.peer() as peer:
        for size in (300, 1000, 400):
            await _delivered(bench, peer, ping.join(fragments(Opcode.BINARY, bytes(1000), size)), bytes(1000))
            await _delivered(bench, peer, build_frame(Opcode.BINARY, bytes(1000)), bytes(1000))


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def thousands_of_fragments(bench: Bench) -> None:
    """A message within the limit is delivered from 4096 fragments, 4097, and 20,000, many of them empty."""
    async with bench.serve(bench.options(max_binary_size=20_000)) as served, served.peer() as peer:
        for count in (4096, 4097, 20_000):
            await _delivered(bench, peer, b"".join(fragments(Opcode.BINARY, bytes(count), 1)), bytes(count))
        empty = build_frame(Opcode.CONTINUATION, b"", fin=False) * 10_000
        first, last = build_frame(Opcode.TEXT, b"a", fin=False), build_frame(Opcode.CONTINUATION, b"z")
        await _delivered(bench, peer, first + empty + last, "az")


# ---- as soon as it is known -----------------------------------------------------------------------------------------


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def refused_by_the_declared_size(bench: Bench) -> None:
    """A frame whose head declares too much is refused at once, before any of its payload comes."""
    async with bench.serve(bench.options(max_text_size=1000, max_binary_size=1000)) as served:
        for opcode in (Opcode.TEXT, Opcode.BINARY):
            for length in (1001, 70_000, 1 << 40, (1 << 63) - 1):
                await _too_big(bench, served, [build_frame(opcode, length=length)])
            first = build_frame(opcode, b"x" * 600, fin=False)
            await _too_big(bench, served, [first, build_frame(Opcode.CONTINUATION, length=401, fin=False)])
            await _too_big(bench, served, [first, build_frame(Opcode.CONTINUATION, length=1 << 33)])


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def refused_by_the_running_total(bench: Bench) -> None:
    """Fragments without an end are refused as soon as their sum is too large."""
    async with bench.serve(bench.options(max_text_size=1000, max_binary_size=1000)) as served:
        for opcode in (Opcode.TEXT, Opcode.BINARY):
            parts = [build_frame(Opcode.CONTINUATION, b"x" * 100, fin=False)] * 9
            raws = [build_frame(opcode, b"x" * 100, fin=False), *parts, build_frame(0, b"x", fin=False)]
            await _too_big(bench, served, raws)


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def smaller_limit_at_once(bench: Bench) -> None:
    """Where the limits differ, what is over the smaller one is refused by its declared size or running total too."""
    observed: set[str] = set()
    for texts, binaries, opcode in ((100, 5000, Opcode.TEXT), (5000, 100, Opcode.BINARY)):
        async with bench.serve(bench.options(max_text_size=texts, max_binary_size=binaries)) as served:
            for raws in (
                [build_frame(opcode, length=101)],
                [build_frame(opcode, b"x" * 100, fin=False), build_frame(Opcode.CONTINUATION, length=1, fin=False)],
                [build_frame(opcode, b"x" * 100, fin=False), build_frame(Opcode.CONTINUATION, b"x", fin=False)],
            ):
                async with served.peer() as peer:
                    await peer.send_raw(b"".join(raws))
                    observed.add(await how_it_ended(peer, 0.2 * bench.scale))
    bench.outcome("LIM-1/smaller-limit-at-once", " or ".join(sorted(observed)), "peer saw 1009")


@check("LIM-1", needs=SIZE_LIMIT, wire=True)
async def refused_in_mid_upload(bench: Bench) -> None:
    """A peer that goes on sending what is too big gets to read its 1009, and is cut off by close_timeout at last."""
    options = bench.options(max_binary_size=1000, close_timeout=0.5 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        peer.auto_close = False
        await peer.send_raw(build_frame(Opcode.BINARY, length=1 << 34))
        sending = asyncio.ensure_future(peer.flood(bytes(65536), 1 << 34, timeout=bench.timeout))
        equal(await how_it_ended(peer), "peer saw 1009", "the end")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (1009, "local"), "code and initiator")
        await bench.within(sending, "the upload, which must be cut off")
        equal(bench.recorder.values(), [], "the messages delivered")


@check("LIM-1", needs=SIZE_LIMIT)
async def the_next_message_is_not_delivered(bench: Bench) -> None:
    """Nothing after a message that is too big is delivered."""
    async with bench.serve(bench.options(max_text_size=10)) as served:
        raw = build_frame(Opcode.TEXT, b"x" * 11) + build_frame(Opcode.TEXT, b"next")
        await _too_big(bench, served, [raw])


# ---- after inflation ------------------------------------------------------------------------------------------------


@check("LIM-1", needs=("size-limit", "compression"))
async def deflated_to_the_byte(bench: Bench) -> None:
    """What counts of a deflated message is its size when inflated, whether that is more or less than what came."""
    limit = 20_000
    noise = random.Random(1).randbytes(limit + 1)
    rough = "".join(map(chr, random.Random(2).choices(range(32, 127), k=limit)))
    options = bench.options(max_text_size=limit, max_binary_size=limit, compression=True)
    async with bench.serve(options) as served:
        for opcode, data in (
            (Opcode.BINARY, bytes(limit)),
            (Opcode.BINARY, noise[:limit]),
            (Opcode.TEXT, b"x" * limit),
            (Opcode.TEXT, rough.encode()),
            (Opcode.TEXT, ("\u20ac" * limit).encode()[: limit - limit % 3]),
        ):
            exact: Any = data if opcode == Opcode.BINARY else data.decode()
            more = data + b"x" * (limit + 1 - len(data))
            for level in (0, 1, 9):
                async with served.peer(deflate="permessage-deflate") as peer:
                    true(peer.deflated, "the server did not agree to deflate")
                    await _delivered(bench, peer, build_frame(opcode, deflated(data, level=level), rsv=4), exact)
                raw = build_frame(opcode, deflated(more, level=level), rsv=4)
                await _too_big(bench, served, [raw], deflate="permessage-deflate")


@check("LIM-1", needs=("size-limit", "compression"))
async def deflated_fragments_to_the_byte(bench: Bench) -> None:
    """The fragments of a deflated message count together, by their size when inflated."""
    limit = 20_000
    options = bench.options(max_text_size=limit, max_binary_size=limit, compression=True)
    async with bench.serve(options) as served:
        for size in (1, 9):
            async with served.peer(deflate="permessage-deflate") as peer:
                raw = _deflated_frames(deflated(bytes(limit)), size)
                await _delivered(bench, peer, b"".join(raw), bytes(limit))
            raws = _deflated_frames(deflated(bytes(limit + 1)), size)
            await _too_big(bench, served, raws, deflate="permessage-deflate")


@check("LIM-1", needs=("size-limit", "compression"))
async def plain_beside_deflated(bench: Bench) -> None:
    """Where deflate is agreed on, a message that is not deflated has the same limit, from its head on."""
    async with bench.serve(bench.options(max_binary_size=1000, compression=True)) as served:
        async with served.peer(deflate=True) as peer:
            await _delivered(bench, peer, build_frame(Opcode.BINARY, bytes(1000)), bytes(1000))
        for frame in (build_frame(Opcode.BINARY, bytes(1001)), build_frame(Opcode.BINARY, b"", length=1001)):
            await _too_big(bench, served, [frame], deflate=True)


@check("LIM-1", needs=("size-limit", "compression"), wire=True)
async def deflated_while_a_callback_runs(bench: Bench) -> None:
    """One of the kind with the smaller limit gets 1009 while a callback runs: it does not wait for its delivery."""
    for kind, opcode in (("text", Opcode.TEXT), ("binary", Opcode.BINARY)):
        for other in (300_000, None):
            limits: dict[str, Any] = {"max_text_size": other, "max_binary_size": other, f"max_{kind}_size": 200}
            await _refused_in_time(bench, opcode, 201, **limits)


async def _refused_in_time(bench: Bench, opcode: Opcode, size: int, **limits: Any) -> None:
    released = asyncio.Event()

    async def wait(*arguments: object) -> None:
        await released.wait()

    name = "text" if opcode == Opcode.TEXT else "binary"
    options = bench.options(on_text=wait, on_binary=wait, compression=True, **limits)
    payload = deflated(b"x" * size)
    for frames in ([payload], [payload[:2], payload[2:]]):
        number = len(bench.recorder.channels) + 1
        async with bench.serve(options) as served, served.peer(deflate="permessage-deflate") as peer:
            channel = await bench.recorder.opened(number)
            await peer.send_frame(opcode, b"")
            await bench.recorder.wait(name, len(bench.recorder.values(name)) + 1)
            for index, frame in enumerate(frames):
                kind = Opcode.CONTINUATION if index else opcode
                await peer.send_frame(kind, frame, fin=frame is frames[-1], rsv=0 if index else 4)
            reason = await bench.within(channel.wait_closed(), "the end of the channel, while its callback runs,")
            equal((reason.code, reason.initiator), (1009, "local"), "code and initiator")
            released.set()
            equal(await how_it_ended(peer), "peer saw 1009", "the end")
        released.clear()


def _deflated_frames(payload: bytes, size: int) -> list[bytes]:
    frames = fragments(Opcode.BINARY, payload, size)
    return [build_frame(Opcode.BINARY, payload[:size], fin=size >= len(payload), rsv=4), *frames[1:]]


# ---- in bounded memory ----------------------------------------------------------------------------------------------


def limited_application(**options: Any) -> Application:
    """Return an application that drops what it gets, and an echo."""

    def on_message(*arguments: Any) -> None:
        pass

    return Application(
        [
            ("/echo", WebSocketOptions(on_text=echo, on_binary=echo, **options)),
            ("/", WebSocketOptions(on_text=on_message, on_binary=on_message, **options)),
        ]
    )


def _bomb(size: int) -> bytes:
    """Return a payload that inflates to ``size`` zeros, made of one block over and over."""
    compressor = zlib.compressobj(9, wbits=-15)
    chunk = 4 * MIB
    first = compressor.compress(bytes(chunk)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    more = compressor.compress(bytes(chunk)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return (first + more * (size // chunk - 1))[:-4]


async def _bombed(bench: Bench, raws: Sequence[bytes], **options: Any) -> None:
    offer = "permessage-deflate"
    serving = measured(bench, limited_application, compression=True, **options)
    async with serving as m, warm(m, "/", deflate=offer) as peer:
        true(peer.deflated, "the server did not agree to deflate")
        for raw in raws:
            await peer.send_raw(raw)
        equal(await how_it_ended(peer), "peer saw 1009", "the end")
        grown = await m.growth()
        true(grown < BOUND, f"memory grew by {grown / MIB:.1f} MiB")


@check("LIM-1", needs=("size-limit", "compression"), stochastic=True, limit=40)
async def deflate_bomb(bench: Bench) -> None:
    """1 MiB that inflates to 1 GiB of zeros is refused with 1009 in less than 16 MiB of memory."""
    await _bombed(bench, [build_frame(Opcode.BINARY, _bomb(1024 * MIB), rsv=4)])


@check("LIM-1", needs=("size-limit", "compression"), stochastic=True, limit=40)
async def deflate_bomb_of_the_limited_kind(bench: Bench) -> None:
    """The same where texts have no limit: a binary message is held to its own."""
    await _bombed(bench, [build_frame(Opcode.BINARY, _bomb(1024 * MIB), rsv=4)], max_text_size=None)


@check("LIM-1", needs=("size-limit", "compression"), stochastic=True, limit=40)
async def deflate_bomb_in_fragments(bench: Bench) -> None:
    """The same in ten fragments, each of which inflates to too much by itself, is refused by its end at the latest."""
    payload = _bomb(1024 * MIB)
    await _bombed(bench, [b"".join(_deflated_frames(payload, len(payload) // 9))])


@check("LIM-1", needs=SIZE_LIMIT, stochastic=True, limit=40, wire=True)
async def held_at_most_twice(bench: Bench) -> None:
    """Of an unfinished message no more is held than twice the limit and what one read takes."""
    limit = 16 * MIB  # large beside what an allocator keeps for itself
    async with measured(bench, limited_application, max_text_size=limit, max_binary_size=limit) as memory:
        for opcode in (Opcode.BINARY, Opcode.TEXT):
            for size in (4096, 64 * 1024, MIB):
                await _least(limit, f"in fragments of {size} bytes", partial(_fragments, memory, limit, opcode, size))
            await _least(limit, "in a frame that lacks its last byte", partial(_frame, bench, memory, limit, opcode))


async def _least(limit: int, how: str, measure: Callable[[], Awaitable[int]]) -> None:
    """Hold the least of three measurements to the limit: an allocator adds to some, what is really held is in each."""
    slack = 6 * MIB  # one read, and what the allocator has not given back from before
    grown: list[int] = []
    while len(grown) < 3:
        grown.append(await measure())
        if grown[-1] < 2 * limit + slack:
            return
    fail(f"{min(grown) / MIB:.1f} MiB are held of {limit / MIB:g} MiB {how}")


async def _fragments(memory: Measured, limit: int, opcode: Opcode, size: int) -> int:
    async with warm(memory, "/") as peer:
        for index in range(limit // size):
            kind = Opcode.CONTINUATION if index else opcode
            await peer.send_raw(build_frame(kind, bytes(size), fin=False, mask=bytes(4)))
        await peer.ping(b"read")
        await peer.receive_frame()  # so that all of it has been read
        grown = await memory.growth()
        await peer.send_frame(Opcode.CONTINUATION, b"x", fin=False)
        equal(await how_it_ended(peer), "peer saw 1009", "the end")
    return grown


async def _frame(bench: Bench, memory: Measured, limit: int, opcode: Opcode) -> int:
    async with warm(memory, "/") as peer:
        await peer.send_raw(build_frame(opcode, length=limit, mask=bytes(4)))
        await peer.flood(bytes(64 * 1024), limit - 64 * 1024)
        await peer.send_raw(bytes(64 * 1024 - 1))
        await asyncio.sleep(0.1 * bench.scale)  # for what is on its way; no answer tells
        return await memory.growth()


@check("LIM-1", needs=SIZE_LIMIT, stochastic=True, limit=40, wire=True)
async def fragments_without_end(bench: Bench) -> None:
    """100,000 fragments of one message, empty ones or tiny ones, are held in less than 4 MiB."""
    async with measured(bench, limited_application) as memory:
        for parts in ((b"",), (b"x", b"")):
            async with warm(memory, "/") as peer:
                await peer.send_frame(Opcode.BINARY, b"first", fin=False)
                frames = [build_frame(Opcode.CONTINUATION, part, fin=False) for part in parts]
                block = b"".join(frames) * (1000 // len(frames))
                for _ in range(100):
                    await peer.send_raw(block)
                await peer.ping(b"read")
                await peer.receive_frame()  # so that all of it has been read
                grown = await memory.growth()
                true(grown < 4 * MIB, f"memory grew by {grown / MIB:.1f} MiB in 100,000 fragments of {parts}")
