"""RECV: receiving."""

from __future__ import annotations

import asyncio
import io
import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from wsbridge.close import CloseReason
from wsbridge.conformance import lateness
from wsbridge.conformance.checks.common import clog, pair
from wsbridge.conformance.client import Binary, Close, Closed, Opcode, Pong, Text, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.hand_clock import now
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel

__all__ = [
    "CLOSE_IN_MESSAGE",
    "MESSAGE_IN_EMPTY",
    "PEER_SEES_1002",
    "PEER_SEES_1002_FOR_A_CLOSE_CODE",
    "PEER_SEES_1007",
    "PING_IN_DEFLATED",
    "UNMASKED",
    "deflated",
    "deflated_fragments",
    "echo",
    "how_it_ended",
    "seen_by_peer",
    "silently_through",
    "what_came",
]

# What a connector may declare of what its peer sees (CLOSE-8). Each is a check below; others hold it to the same.
UNMASKED = "RECV-9/unmasked-frame"
MESSAGE_IN_EMPTY = "RECV-9/message-in-empty-fragment"
CLOSE_IN_MESSAGE = "RECV-9/close-in-fragmented-message"
PEER_SEES_1002 = "RECV-9/peer-sees-1002"
PEER_SEES_1007 = "RECV-8/peer-sees-1007"
PEER_SEES_1002_FOR_A_CLOSE_CODE = "RECV-9/peer-sees-1002-for-an-illegal-close-code"
PING_IN_DEFLATED = "RECV-3/ping-in-deflated-fragmented-message"


async def how_it_ended(peer: WirePeer, timeout: float | None = None) -> str:
    """Return how the server ended the connection, in the words of `Bench.outcome`."""
    try:
        return f"peer saw {(await peer.receive_close(timeout)).code}"
    except Closed:
        return "peer saw no close frame"
    except TimeoutError:
        return "still open"


def seen_by_peer(peer: WirePeer) -> list[str | bytes]:
    """Return the messages that the peer got so far."""
    return [event.data for event in peer.received if isinstance(event, Text | Binary)]


async def what_came(peer: WirePeer, message: str | bytes) -> str:
    """Return ``delivered`` if ``message`` comes back, or else how the server ended the connection."""
    try:
        got = await peer.receive_message()
    except Closed as closed:
        return f"peer saw {closed.end.code}" if isinstance(closed.end, Close) else "peer saw no close frame"
    except TimeoutError:
        return "still open"
    equal(got.data, message, "the echo")
    return "delivered"


async def echo(channel: WebSocketChannel, process: Any, message: Any) -> None:
    """Send a message back."""
    if isinstance(message, str):
        await channel.send_text(message)
    else:
        await channel.send_binary(message)


async def pause(*arguments: Any) -> None:
    """Take a while, as a callback."""
    await asyncio.sleep(0.001)


async def silently_through(bench: Bench) -> None:
    """Fail if a further message is delivered within the time that it would take."""
    before = len(bench.recorder.values())
    await asyncio.sleep(0.1 * bench.scale)
    true(len(bench.recorder.values()) == before, f"a message was delivered: {bench.recorder.summary()}")


def types(values: Sequence[object]) -> set[type[object]]:
    """Return the types of ``values``."""
    return {type(value) for value in values}


def scalar_values() -> Iterator[str]:
    """Yield every Unicode scalar value, in texts of less than 256 KiB."""
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    for start in range(0, len(everything), 60_000):
        yield everything[start : start + 60_000]


# ---- RECV-1, RECV-2 -------------------------------------------------------------------------------------------------


@check("RECV-1", black_box=True)
async def texts_arrive_exactly(bench: Bench) -> None:
    """Text messages come through as they were: empty, ASCII, every width of UTF-8, NUL, and 64 KiB."""
    texts = ["", "a", "\0", "\x7f\x80", "\u07ff\u0800", "\uffff\U00010000\U0010ffff", "\ud7ff\ue000", "x" * 65536]
    async with bench.reference() as served, served.peer("/echo") as peer:
        for text in texts:
            await peer.send_text(text)
            equal(await peer.receive_text(), text, "the echoed text")


@check("RECV-1", black_box=True)
async def every_scalar_value(bench: Bench) -> None:
    """Every Unicode scalar value comes through, unpaired or beside its neighbours."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for text in scalar_values():
            await peer.send_text(text)
            equal(await peer.receive_text(), text, f"the text from U+{ord(text[0]):04X}")


@check("RECV-1")
async def texts_are_str(bench: Bench) -> None:
    """What on_text gets is a str and nothing derived from it, and the characters are counted, not the bytes."""
    texts = ["", "plain", "\ufeffwith a mark", "a\r\n\tb", "e\u0301 is not \xe9", "\U0001f600" * 1000]
    async with bench.serve() as served, served.peer() as peer:
        for text in texts:
            await peer.send_text(text)
        await bench.recorder.wait("text", len(texts))
        equal(bench.recorder.values(), texts, "the texts delivered")
        equal(types(bench.recorder.values()), {str}, "their types")


@check("RECV-2")
async def binaries_are_bytes(bench: Bench) -> None:
    """What on_binary gets is bytes, exact: empty, every byte value, what is not UTF-8, and any size."""
    messages = [b"", bytes(range(256)), b"\xff\xfe", b"plain", *(random.Random(size).randbytes(size) for size in SIZES)]
    async with bench.serve() as served, served.peer() as peer:
        for message in messages:
            await peer.send_binary(message)
        await bench.recorder.wait("binary", len(messages))
        equal(bench.recorder.values(), messages, "the messages delivered")
        equal(types(bench.recorder.values()), {bytes}, "their types")


SIZES = (1, 125, 126, 65535, 65536, 300_000)


async def _kept(bench: Bench, form: str, messages: Sequence[bytes]) -> list[Any]:
    """Deliver ``messages`` to a callback that asked for ``form``; return what it got, after the channel's end."""

    def on_binary(channel: WebSocketChannel, process: Any, data: object) -> None:
        bench.recorder.log("got", channel.id, data)

    def on_open(channel: Any, request: Any) -> None:
        channel.on_binary(on_binary, format=form)

    async with bench.serve(bench.bare_options(on_open=on_open)) as served:
        async with served.peer() as peer:
            for message in messages:
                await peer.send_binary(message)
            await peer.send_in_parts(Opcode.BINARY, [b"in ", b"", b"parts"])
            await bench.recorder.wait("got", len(messages) + 1)
        return bench.recorder.values("got")


MESSAGES = (b"", b"\0\xff", bytes(range(256)) * 300)


@check("RECV-2")
async def asked_for_as_bytes(bench: Bench) -> None:
    """format="bytes" gives bytes."""
    got = await _kept(bench, "bytes", MESSAGES)
    equal(got, [*MESSAGES, b"in parts"], "the messages")
    equal(types(got), {bytes}, "their types")


@check("RECV-2")
async def asked_for_as_memoryview(bench: Bench) -> None:
    """format="memoryview" gives read-only views of bytes, which stay valid after the callback and after the end."""
    got = await _kept(bench, "memoryview", MESSAGES)
    equal(types(got), {memoryview}, "their types")
    true(all(view.readonly for view in got), "a view can be written to")
    equal({(view.format, view.itemsize, view.ndim) for view in got}, {("B", 1, 1)}, "format, item size and dimensions")
    equal([view.tobytes() for view in got], [*MESSAGES, b"in parts"], "what the views show, after the end")


@check("RECV-2")
async def asked_for_as_stream(bench: Bench) -> None:
    """format="stream" gives binary files at position 0, which stay valid after the callback and after the end."""
    got = await _kept(bench, "stream", MESSAGES)
    true(all(hasattr(stream, "read") and not isinstance(stream, io.TextIOBase) for stream in got), "no binary file")
    equal([stream.tell() for stream in got], [0] * len(got), "the positions")
    equal([stream.read() for stream in got], [*MESSAGES, b"in parts"], "what the files hold, after the end")
    equal([stream.read() for stream in got], [b""] * len(got), "what is left at their ends")


# ---- RECV-3 ---------------------------------------------------------------------------------------------------------


@check("RECV-3", wire=True)
async def fragments_are_joined(bench: Bench) -> None:
    """A message in fragments, some of them empty, is delivered once and whole."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_fragments(Opcode.TEXT, [b"one ", b"", b"two ", b"three"])
        await peer.send_fragments(Opcode.BINARY, [b"\1", b"\2", b""])
        await peer.send_fragments(Opcode.TEXT, [b"x"] * 300)
        await peer.send_text("last")
        await bench.recorder.wait("text", 3)
        equal(bench.recorder.values(), ["one two three", b"\1\2", "x" * 300, "last"], "the messages delivered")


@check("RECV-3", wire=True)
async def control_frames_between_fragments(bench: Bench) -> None:
    """Pings and pongs between the fragments are handled there, and the message is whole."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_frame(Opcode.TEXT, b"be", fin=False)
        await peer.ping(b"early")
        equal(await peer.receive(), Pong(b"early"), "the answer before the message is complete")
        await peer.pong(b"unasked")
        await peer.send_frame(Opcode.CONTINUATION, b"gi", fin=False)
        await peer.ping()
        await peer.send_frame(Opcode.CONTINUATION, b"n")
        await bench.recorder.wait("text")
        equal(bench.recorder.values(), ["begin"], "the message delivered")
        equal(await peer.receive(), Pong(b""), "the answer to the second ping")


@check("RECV-3", wire=True)
async def utf8_split_across_fragments(bench: Bench) -> None:
    """A character whose bytes are in different fragments is whole, also with a ping between them."""
    text = "\xe9\u20ac\U0001f600"
    data = text.encode()
    async with bench.serve() as served, served.peer() as peer:
        for cut in range(len(data) + 1):
            await peer.send_frame(Opcode.TEXT, data[:cut], fin=False)
            await peer.ping(bytes((cut,)))
            await peer.send_frame(Opcode.CONTINUATION, data[cut:])
        await peer.send_fragments(Opcode.TEXT, [data[index : index + 1] for index in range(len(data))])
        await bench.recorder.wait("text", len(data) + 2)
        equal(bench.recorder.values(), [text] * (len(data) + 2), "the texts delivered")


@check("RECV-3", wire=True)
async def an_unfinished_message_is_not_delivered(bench: Bench) -> None:
    """Fragments without the last one are not a message: none is delivered, not at the loss either."""
    async with bench.serve() as served, served.peer() as peer:
        await peer.send_text("whole")
        await peer.send_frame(Opcode.TEXT, b"not whole", fin=False)
        await peer.half_close()
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (1006, "network"), "code and initiator")
        equal(bench.recorder.values(), ["whole"], "the messages delivered")


@check("RECV-3", needs=("compression",))
async def ping_in_deflated_fragmented_message(bench: Bench) -> None:
    """A ping between the fragments of a deflated message is answered there, and the message is whole."""
    text = "deflated " * 20
    options = bench.options(on_text=echo, compression=True)
    async with bench.serve(options) as served, served.peer(deflate=True) as peer:
        true(peer.deflated, "the server did not agree to deflate")
        await peer.send_raw(build_frame(Opcode.PING, b"amid").join(deflated_fragments(text, 3)))
        observed = await what_came(peer, text)
        bench.outcome(PING_IN_DEFLATED, observed, "delivered")
        true(observed != "delivered" or peer.received == [*[Pong(b"amid")] * 2, Text(text)], "no pongs there")


def deflated(data: bytes, *, bits: int = 15, level: int = -1, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Return the payload of a message that is deflated by itself (RFC 7692, 7.2.1)."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def deflated_fragments(text: str, count: int) -> list[bytes]:
    """Return the frames of a text message that is deflated by itself, in ``count`` fragments of about one size."""
    data = deflated(text.encode())
    cuts = [len(data) * index // count for index in range(count + 1)]
    return [
        build_frame(
            Opcode.CONTINUATION if index else Opcode.TEXT,
            data[cuts[index] : cuts[index + 1]],
            fin=index == count - 1,
            rsv=0 if index else 4,
        )
        for index in range(count)
    ]


# ---- RECV-4, RECV-5 -------------------------------------------------------------------------------------------------


@check("RECV-4")
async def order_of_text_and_binary(bench: Bench) -> None:
    """Text and binary messages, whole or in fragments, small or large, are delivered in one order, each once."""
    source = random.Random(4)
    messages = [
        source.randbytes(size) if source.random() < 0.5 else "%" * size
        for size in (source.choice((0, 1, 30, 200, 70_000)) for _ in range(200))
    ]
    async with bench.serve() as served, served.peer() as peer:
        for message in messages:
            data = message if isinstance(message, bytes) else message.encode()
            opcode = Opcode.BINARY if isinstance(message, bytes) else Opcode.TEXT
            middle = source.randrange(len(data) + 1)
            await peer.send_in_parts(opcode, [data] if source.random() < 0.5 else [data[:middle], data[middle:]])
        await bench.recorder.until(lambda: len(bench.recorder.values()) >= len(messages), f"{len(messages)} messages")
        await silently_through(bench)
        true(bench.recorder.values() == messages, "the messages delivered are not those sent, in their order")


@check("RECV-4")
async def messages_before_a_loss_are_delivered(bench: Bench) -> None:
    """Every complete message before a loss is delivered, in order, before on_close."""
    async with bench.serve(bench.options(on_text=pause)) as served:
        async with served.peer() as peer:
            for number in range(50):
                await peer.send_text(str(number))
            if bench.target.has_wire:
                await peer.send_raw(build_frame(Opcode.TEXT, b"cut short")[:-3])
            await peer.half_close()
            reason = await bench.recorder.closed()
        equal(bench.recorder.values("text"), [str(number) for number in range(50)], "the messages delivered")
        equal((reason.code, reason.initiator), (1006, "network"), "code and initiator")
        equal(bench.recorder.kinds()[-1], "close", "the last callback")


_TRIES = 4  # for a reset to find all of it read: how the kernel cuts what a peer sends at once is its own matter


@check("RECV-4", wire=True, fixed=["tls"])
async def what_is_read_and_held_back_survives_a_loss(bench: Bench) -> None:
    """A send that finds the connection reset ends nothing that was read and waits behind a large message, or many."""
    go_on = asyncio.Event()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "first":
            await go_on.wait()
            for _ in range(100):  # what is sent to a peer that has left may be taken for once
                if not await channel.send_text("is anybody there?"):
                    return
                await asyncio.sleep(0.02 * bench.scale)

    many = [b"%020d" % number for number in range(2000)]  # in one segment, and more than some servers parse at once
    large = [b"x" * 70_000, *many[:40]]
    close = build_frame(Opcode.CLOSE, close_payload(4002))
    async with bench.serve(bench.options(on_text=on_text, ping_interval=None)) as served:
        with variants() as each:
            for name, messages, end, expected in (
                ("a large one", large, b"", (1006, "network")),
                ("many", many, b"", (1006, "network")),
                ("a large one, and the peer's close", large, close, (4002, "peer")),
                ("many, and the peer's close", many, close, (4002, "peer")),
            ):
                with each(name):
                    raw = b"".join(build_frame(Opcode.TEXT, message) for message in messages) + end
                    delivered, reason = await _lost_behind(bench, served, raw, go_on)
                    for _ in range(_TRIES - 1):
                        if (len(delivered), reason.code) == (len(messages), expected[0]):
                            break
                        delivered, reason = await _lost_behind(bench, served, raw, go_on)
                    equal(len(delivered), len(messages), "messages delivered")
                    true(delivered == [message.decode() for message in messages], "they are not those that were sent")
                    equal((reason.code, reason.initiator), expected, "code and initiator")


async def _lost_behind(bench: Bench, served: Served, raw: bytes, go_on: asyncio.Event) -> tuple[list[Any], CloseReason]:
    """Send ``raw`` behind a message whose callback waits for ``go_on``, then reset the connection."""
    recorder = bench.recorder
    count = len(recorder.all("open")) + 1
    go_on.clear()
    async with served.peer() as peer:
        name = (await recorder.wait("open", count)).channel
        await peer.send_text("x" * 200_000)  # after which each server reads as much at once as it ever does
        await peer.send_text("first")
        await recorder.until(lambda: _texts(bench, name)[1:], "the first two messages")
        await peer.send_raw(raw)
        await silently_through(bench)
        peer.drop()
        await asyncio.sleep(0.05 * bench.scale)  # until the reset is in
        go_on.set()
        reason = await recorder.closed(count)
    equal(recorder.kinds()[-1], "close", "the last callback")
    return _texts(bench, name)[2:], reason


def _texts(bench: Bench, channel: str) -> list[Any]:
    return [event.value for event in bench.recorder.all("text") if event.channel == channel]


@check("RECV-4")
async def messages_before_a_close_are_delivered(bench: Bench) -> None:
    """Every message that came before the peer's close, in one packet with it, is delivered before on_close."""
    frames = [build_frame(Opcode.TEXT, str(number).encode()) for number in range(50)]
    async with bench.serve(bench.options(on_text=pause)) as served:
        async with served.peer() as peer:
            await peer.send_raw(b"".join((*frames, build_frame(Opcode.CLOSE, close_payload(4001, "enough")))))
            reason = await bench.recorder.closed()
        equal(bench.recorder.values("text"), [str(number) for number in range(50)], "the messages delivered")
        equal((reason.code, reason.text, reason.initiator), (4001, "enough", "peer"), "the reason")
        equal(bench.recorder.kinds()[-1], "close", "the last callback")


@check("RECV-4")
async def messages_in_a_slow_callback_survive_the_close(bench: Bench) -> None:
    """A close that comes while a callback runs does not overtake the messages before it."""
    go = asyncio.Event()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await go.wait()

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        for number in range(10):
            await peer.send_text(str(number))
        await bench.recorder.wait("text")
        await peer.send_close(1001)
        await silently_through(bench)
        equal(bench.recorder.kinds(), ["open", "text"], "the callbacks while the first message is worked on")
        go.set()
        reason = await bench.recorder.closed()
        equal(bench.recorder.values("text"), [str(number) for number in range(10)], "the messages delivered")
        equal((reason.code, reason.initiator), (1001, "peer"), "code and initiator")


@check("RECV-4")
async def nothing_behind_a_close(bench: Bench) -> None:
    """A message after the peer's close is not delivered."""
    text = build_frame(Opcode.TEXT, b"late")
    async with bench.serve() as served:
        async with served.peer() as peer:
            await peer.send_text("in time")
            await peer.send_raw(build_frame(Opcode.CLOSE, close_payload(1000)) + text)
            await bench.recorder.closed()
            await silently_through(bench)
        equal(bench.recorder.values(), ["in time"], "the messages delivered")


async def _dropped(bench: Bench, end: Any, expected: tuple[int, str]) -> None:
    """Let ``end`` end the channel at the first message; none of those after it may be delivered."""
    async with bench.serve(bench.options(on_text=end, close_timeout=20 * bench.scale)) as served:
        async with served.peer() as peer:
            peer.auto_close = False
            await peer.send_raw(b"".join(build_frame(Opcode.TEXT, word) for word in (b"last", b"queued", b"queued")))
            equal((await peer.receive_close()).code, expected[0], "the code that the peer got")
            for _ in range(64):  # more than all buffers on the way hold, so that it must be read
                await peer.send_binary(bytes(256 * 1024))
            equal([event.kind for event in bench.recorder.all("close")], [], "on_close before the peer's close")
            await peer.send_close(3999)
            reason = await bench.recorder.closed()
            equal((reason.code, reason.initiator), expected, "code and initiator")
        equal(bench.recorder.values(), ["last"], "the messages delivered")


@check("RECV-4")
async def dropped_after_a_local_close(bench: Bench) -> None:
    """After close() nothing is delivered; what still comes, 16 MiB of it, is read until the peer's close."""

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4000)

    await _dropped(bench, on_text, (4000, "local"))


@check("RECV-4")
async def dropped_after_an_exception(bench: Bench) -> None:
    """After a callback raised nothing is delivered; what still comes, 16 MiB of it, is read until the peer's close."""

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise RuntimeError("on purpose")

    await _dropped(bench, on_text, (1011, "local"))


@check("RECV-5", stochastic=True)
async def callbacks_never_overlap(bench: Bench) -> None:
    """No callback of a channel begins while another one of it runs: slow ones of every kind, floods and the close."""

    async def slow(*arguments: Any) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)

    options = bench.options(on_open=slow, on_text=slow, on_binary=slow, on_close=slow)
    async with bench.serve(options) as served:
        async with served.peer(tail=build_frame(Opcode.TEXT, b"early")) as peer:
            for number in range(40):
                await peer.send_text(str(number))
                await peer.send_binary(b"%d" % number)
                await peer.ping()
            await peer.send_close(1000)
            await bench.recorder.closed()
            await bench.recorder.wait("close-end")
        equal(bench.recorder.violations, [], "what overlapped")
        equal(len(bench.recorder.values()), 81, "the number of messages delivered")
        started = [event.kind for event in bench.recorder.events]
        equal(started[1::2], [f"{kind}-end" for kind in started[::2]], "the ends of the callbacks")


@check("RECV-5")
async def channels_run_concurrently(bench: Bench) -> None:
    """A callback of one channel can wait for one of another channel; so can an on_open and an on_close."""
    turns = {name: asyncio.Event() for name in ("open", "text", "close")}

    def together(name: str) -> Any:
        waiting: list[None] = []

        async def callback(*arguments: Any) -> None:
            waiting.append(None)
            if len(waiting) == 2:
                turns[name].set()
            await bench.within(turns[name].wait(), f"the {name} callback of the other channel")

        return callback

    options = bench.options(**{f"on_{name}": together(name) for name in turns})
    async with bench.serve(options) as served, served.peer() as one, served.peer() as other:
        for peer in (one, other):
            await peer.send_text("")
        await bench.recorder.wait("text-end", 2)
        for peer in (one, other):
            await peer.send_close()
        await bench.recorder.wait("close-end", 2)
        equal(len(bench.recorder.all("error")), 0, "the number of callbacks that waited in vain")


# ---- RECV-6, RECV-7, RECV-10 ----------------------------------------------------------------------------------------


@check("RECV-6")
async def a_kind_without_a_callback_is_dropped(bench: Bench) -> None:
    """Binary messages without on_binary, and texts without on_text, are dropped; the channel serves the other kind."""
    cases: tuple[tuple[WebSocketOptions[None], list[str | bytes]], ...] = (
        (bench.bare_options(on_text=echo), ["0", "0", "1", "1", "2", "2"]),
        (bench.bare_options(on_binary=echo), [b"0", b"1", b"2"]),
    )
    for handler, expected in cases:
        async with bench.serve(handler) as served, served.peer() as peer:
            for number in range(3):
                await peer.send_text(str(number))
                await peer.send_in_parts(Opcode.BINARY, [b"%d" % number, b""])
                await peer.send_in_parts(Opcode.TEXT, [b"", b"%d" % number])
            for message in expected:
                equal((await peer.receive_message()).data, message, "what came back by the one callback")
            await peer.send_close(4000)
            equal((await peer.receive_close()).code, 4000, "the code that the peer got back")
            equal(seen_by_peer(peer), expected, "what came back by the one callback")


@check("RECV-6")
async def no_callback_at_all(bench: Bench) -> None:
    """Without any callback every message is dropped, pings are answered, and the channel closes as any other."""
    async with bench.serve(bench.bare_options()) as served, served.peer() as peer:
        await peer.send_text("")
        await peer.send_binary(bytes(100_000))
        await peer.ping(b"still there")
        equal(await peer.receive(), Pong(b"still there"), "the answer")
        await peer.send_close(4000)
        equal((await peer.receive_close()).code, 4000, "the code that the peer got back")


@check("RECV-7", black_box=True)
async def pings_are_answered(bench: Bench) -> None:
    """A ping of any payload is answered with it within 1 s, before any message and between messages."""
    async with bench.reference() as served, served.peer("/echo") as peer:
        for payload in (b"", b"\0", b"ping", bytes(range(125)), b"\xff" * 125):
            started = now()
            await peer.ping(payload)
            equal(await peer.receive(), Pong(payload), "the answer")
            true(now() - started < bench.scale + bench.lost, "the answer took more than 1 s")
            await peer.send_text("between")
            equal(await peer.receive_text(), "between", "the echo")


@check("RECV-7")
async def a_ping_behind_a_callback(bench: Bench) -> None:
    """A ping that comes while a callback runs is answered within 1 s after its end, with no message to help it."""

    async def on_text(*arguments: Any) -> None:
        await asyncio.sleep(0.2 * bench.scale)

    options = bench.options(on_text=on_text)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text("")
        await bench.recorder.wait("text")
        await peer.ping(b"behind")
        await bench.recorder.wait("text-end")
        equal(await peer.receive(bench.scale), Pong(b"behind"), "the answer")


@check("RECV-7")
async def pings_of_a_peer_that_does_not_read(bench: Bench) -> None:
    """Of pings that came while the peer did not read, the last is answered within 1 s when it reads again."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        for number in range(5):
            await peer.ping(b"%d" % number)
        await asyncio.sleep(0.05 * bench.scale)  # the server reads them
        async with lateness.timeout(bench.timeout):
            while (event := await peer.receive(bench.scale)) != Pong(b"4"):
                true(isinstance(event, Binary | Pong), f"something else came: {event}")
        await sends.all_return(bench, "when the peer read again")


@check("RECV-10", needs=("fragments",))
async def parts_as_they_arrive(bench: Bench) -> None:
    """A callback that asked for parts gets each as it arrives, before the message is complete."""

    def on_part(channel: WebSocketChannel, process: Any, part: object) -> None:
        bench.recorder.log("part", channel.id, part)

    def on_open(channel: Any, request: Any) -> None:
        channel.on_binary(on_part, format="fragments")

    async with bench.serve(bench.bare_options(on_open=on_open)) as served, served.peer() as peer:
        await peer.send_frame(Opcode.BINARY, b"first", fin=False)
        await bench.recorder.wait("part")
        await peer.send_frame(Opcode.CONTINUATION, b"second")
        await bench.recorder.wait("part", 2)
        equal(b"".join(bench.recorder.values("part")), b"firstsecond", "the parts")
