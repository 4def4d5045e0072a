"""SEND-4 to SEND-6 and SEND-8: many sends at once, cancelled ones, those that meet a close, and deflated ones."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wsbridge._common.tasks import begin_later
from wsbridge.conformance.checks.common import Sends, clog, messages_until_close, none_lost, numbered, pair
from wsbridge.conformance.checks.sending import SlowFile
from wsbridge.conformance.client import Binary, Close, Eof, Opcode, Text, WirePeer
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.protocols import WebSocketChannel

T = TypeVar("T")

KIB = 1024
_IN_THE_SYSTEM = 1024 * KIB  # bytes: more than a peer's system takes at first, and less than both hold
_SIZES = (0, 1, 125, 126, 3000, 17 * KIB, 65535, 65536, 90000)  # every encoding of the length, and both ways to deflate


def _text(task: int, number: int) -> str:
    size = _SIZES[(task + number) % len(_SIZES)]
    return f"{task} {number} " + f"{number}\u20ac" * (size // 4)


async def _many_at_once(bench: Bench, tasks: int, count: int, **peer_options: Any) -> None:
    """Let tasks send texts, bytes and files to a peer that first does not read and then does."""

    async def send_all(channel: WebSocketChannel, task: int) -> None:
        for number in range(count):
            text = _text(task, number)
            data: list[Any] = [bytearray(text.encode()), io.BytesIO(text.encode())]
            kind = (task + number) % 3
            sending = channel.send_text(text) if kind == 0 else channel.send_binary(data[kind - 1])
            equal(await sending, True, f"send {number} of task {task}")

    options = bench.options(compression=bool(peer_options))
    async with bench.serve(options) as served, pair(bench, served, **peer_options) as (peer, channel):
        senders = asyncio.gather(*(send_all(channel, task) for task in range(tasks)))
        await asyncio.wait((senders,), timeout=0.1 * bench.scale)
        following = [0] * tasks
        for _ in range(tasks * count):
            message = await peer.receive_message()
            text = message.data if isinstance(message, Text) else message.data.decode()
            task, number = map(int, text.split(" ", 2)[:2])
            equal(number, following[task], f"the number of the next message of task {task}")
            following[task] += 1
            true(text == _text(task, number), f"message {number} of task {task} is not whole")
            equal(isinstance(message, Text), (task + number) % 3 == 0, f"message {number} of task {task} is a text")
        await bench.within(senders, "the senders")


@check("SEND-4", stochastic=True)
async def many_at_once(bench: Bench) -> None:
    """Texts, bytes and files that many tasks send at once arrive whole, and each task's in its own order."""
    await _many_at_once(bench, 20, 20)


@check("SEND-4", needs=("compression",), stochastic=True)
async def many_at_once_deflated(bench: Bench) -> None:
    """The same where messages are deflated."""
    await _many_at_once(bench, 12, 12, deflate=True)


async def _meanwhile(first: Coroutine[Any, Any, object], second: Coroutine[Any, Any, T]) -> T:
    """Run both at once and return what the second returns; a failure of either ends the other."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(first)
            result = group.create_task(second)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return result.result()


async def _finish(bench: Bench, sends: Sends) -> None:
    """Wait for all sends, then send one more and close."""
    await sends.all_return(bench, "for a peer that reads now")
    equal(await sends.begin(), True, "a send after those that were cancelled")
    sends.channel.close(4001)


def _all_but(cancelled: set[int], sends: Sends, received: tuple[list[int], Close | Eof]) -> None:
    """Check that every message but those cancelled was taken and came, and those came whole, once, or not at all."""
    numbers, end = received
    equal(end, Close(4001), "the end")
    equal(sends.refused, [], "the sends that returned False")
    equal(set(sends.taken) | cancelled, set(range(sends.count)), "the sends that returned True or were cancelled")
    none_lost(sends, [number for number in numbers if number not in cancelled - set(sends.taken)])
    equal(len(set(numbers)), len(numbers), "messages that came, against different ones")


@check("SEND-5")
async def cancelled_while_it_waits(bench: Bench) -> None:
    """A send that is cancelled while it waits for the peer to read harms none of those before and after it."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        for _ in range(5):
            sends.begin()
        await asyncio.sleep(0)
        numbers = sorted(sends.waiting)
        cancelled = {numbers[0], numbers[3]}
        tasks = [sends.waiting[number] for number in cancelled]
        for task in tasks:
            task.cancel()
        await bench.within(asyncio.wait(tasks), "cancelled sends", timeout=bench.scale)
        true(all(task.cancelled() for task in tasks), "a cancelled send ended without CancelledError")
        received = await _meanwhile(_finish(bench, sends), messages_until_close(peer))
        _all_but(cancelled, sends, received)


@check("SEND-5")
async def all_that_wait_are_cancelled(bench: Bench) -> None:
    """When every send that waits is cancelled the channel stays usable."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        sends.begin()
        await asyncio.sleep(0)
        tasks = dict(sends.waiting)
        for task in tasks.values():
            task.cancel()
        await bench.within(asyncio.wait(tasks.values()), "cancelled sends", timeout=bench.scale)
        received = await _meanwhile(_finish(bench, sends), messages_until_close(peer))
        _all_but(set(tasks), sends, received)


async def _storm(bench: Bench, count: int, **peer_options: Any) -> None:
    """Begin many sends, to a peer that reads from the middle on, and cancel half of them after a few turns."""
    chance = random.Random(count)
    cancelled: set[int] = set()

    async def begin(sends: Sends) -> None:
        task = sends.begin()
        number = sends.count - 1
        if chance.random() < 0.5:
            for _ in range(chance.choice((0, 0, 1, 1, 2, 3, 5, 10, 20))):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            if task.cancelled():
                cancelled.add(number)

    async def send_all(sends: Sends) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(begin(sends))
                await asyncio.sleep(0 if number % 20 else 0.002)
        await _finish(bench, sends)

    options = bench.options(compression=bool(peer_options))
    async with bench.serve(options) as served, pair(bench, served, **peer_options) as (peer, channel):
        sends = await clog(bench, channel)
        received = await _meanwhile(send_all(sends), messages_until_close(peer))
        true(cancelled, "no send was cancelled in time, so that nothing was checked")
        _all_but(cancelled, sends, received)


@check("SEND-5", stochastic=True)
async def a_storm_of_cancels(bench: Bench) -> None:
    """Of many sends at once, cancelled at any moment, each arrives whole or not at all, and the others all do."""
    await _storm(bench, 150)


@check("SEND-5", needs=("compression",), stochastic=True)
async def a_storm_of_cancels_deflated(bench: Bench) -> None:
    """The same where messages are deflated, in an executor too."""
    await _storm(bench, 60, deflate=True)


@check("SEND-5")
async def cancelled_while_its_file_is_read(bench: Bench) -> None:
    """A send that is cancelled while its file is read sends nothing, and the channel stays usable."""
    file = SlowFile(b"never sent")
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sending = asyncio.ensure_future(channel.send_binary(file))  # type: ignore[arg-type]
        await bench.settle(file.begun.is_set, "the read of the file")
        sending.cancel()
        await bench.within(asyncio.wait((sending,)), "the cancelled send", timeout=bench.scale)
        true(sending.cancelled(), "the cancelled send ended without CancelledError")
        file.may_end.set()
        equal(await channel.send_text("usable"), True, "a send after the cancelled one")
        equal(await peer.receive(), Text("usable"), "the first message that the peer gets")


@check("SEND-5")
async def a_timeout_around_a_send(bench: Bench) -> None:
    """In a callback asyncio.timeout around a send works: the callback goes on, and so does the channel."""
    taken: list[int] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        try:
            async with asyncio.timeout(0.2 * bench.scale):
                while await channel.send_binary(numbered(len(taken), 64 * KIB)):
                    taken.append(len(taken))
        except TimeoutError:
            bench.recorder.log("timeout")

    async def on_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
        equal(await channel.send_text("usable"), True, "a send after the timeout")

    async with bench.serve(bench.options(on_text=on_text, on_binary=on_binary)) as served, served.peer() as peer:
        await peer.send_text("go")
        await bench.recorder.wait("timeout")
        await peer.send_binary(b"again")
        messages = 0
        while isinstance(message := await peer.receive_message(), Binary):
            true(message.data == numbered(messages, 64 * KIB), f"message {messages} is not whole, or out of order")
            messages += 1
        equal(message, Text("usable"), "the message after it")
        true(messages - len(taken) in (0, 1), f"{messages} messages came, {len(taken)} sends returned True")


async def _close_among_senders(bench: Bench, close: Callable[[WebSocketChannel], object], **peer_options: Any) -> None:
    """Close while eight tasks send, to a peer that reads all the time: as soon as the first has been told True."""
    options = bench.options(compression=bool(peer_options))
    async with bench.serve(options) as served, pair(bench, served, **peer_options) as (peer, channel):
        sends = Sends(channel, 20 * KIB)
        senders = asyncio.gather(*(sends.until_refused() for _ in range(8)))

        async def close_among() -> None:
            await bench.settle(lambda: sends.taken, "the end of a first send")
            close(channel)

        received, end = await _meanwhile(close_among(), messages_until_close(peer))
        await bench.within(senders, "the senders")
        equal(end, Close(4001, "enough"), "what follows the messages")
        await peer.wait_eof()  # and a frame after the close frame would be a violation
        none_lost(sends, received)
        true(received, "no message came")
        await bench.recorder.closed()


@check("SEND-6", stochastic=True)
async def a_close_among_senders(bench: Bench) -> None:
    """Everything for which one of several senders was told True precedes the close frame, and nothing else does."""
    for _ in range(3):
        await _close_among_senders(bench, lambda channel: channel.close(4001, "enough"))


@check("SEND-6", needs=("compression",), stochastic=True)
async def a_close_among_deflated_sends(bench: Bench) -> None:
    """The same where messages are deflated in an executor: the close frame waits for them, and none comes after it."""
    for _ in range(3):
        await _close_among_senders(bench, lambda channel: channel.close(4001, "enough"), deflate=True)


@check("SEND-6")
async def a_send_begun_behind_the_close(bench: Bench) -> None:
    """A send whose task has not run when close is called returns False, and is not sent."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        task = begin_later(asyncio.get_running_loop(), channel.send_binary(b"too late"))
        channel.close(4001)
        equal(await task, False, "the send")
        equal(await peer.receive(), Close(4001), "what the peer gets")


@check("SEND-6")
async def a_close_behind_what_waits(bench: Bench) -> None:
    """To a peer that reads late, everything that was taken comes, then the close frame; what waited is told which."""
    options = bench.options(close_timeout=3 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        for _ in range(3):
            sends.begin()
        await asyncio.sleep(0)
        channel.close(4001)
        received, end = await messages_until_close(peer)
        await sends.all_return(bench, "at a close", timeout=3.5 * bench.scale)
        equal(end, Close(4001), "what follows the messages")
        await peer.wait_eof()
        none_lost(sends, received)


@check("SEND-6")
async def a_large_message_is_not_cut(bench: Bench) -> None:
    """A message of 8 MiB for which a send returned True arrives whole, then the close frame."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sends = Sends(channel, 8 * KIB * KIB)
        task = sends.begin()
        await asyncio.wait((task,), timeout=0.1 * bench.scale)
        channel.close(4001)
        received, end = await messages_until_close(peer)
        await sends.all_return(bench, "at a close")
        equal(end, Close(4001), "what follows the message")
        none_lost(sends, received)


@check("SEND-6")
async def a_close_while_nobody_reads(bench: Bench) -> None:
    """Sends under way at a close to a peer that never reads return within close_timeout."""
    options = bench.options(close_timeout=0.2 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (_, channel):
        sends = await clog(bench, channel)
        sends.begin()
        await asyncio.sleep(0)
        channel.close(4001)
        await sends.all_return(bench, "at a close", timeout=1.3 * bench.scale)
        reason = await bench.recorder.closed(timeout=bench.scale)
        equal((reason.code, reason.initiator), (4001, "local"), "code and initiator")


@check("SEND-6")
async def the_peer_closes_while_sends_wait(bench: Bench) -> None:
    """When the peer closes, waiting sends return at once; what was taken precedes the answer to its close."""
    options = bench.options(close_timeout=5 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        sends.begin()
        await peer.send_close(4002)
        await sends.all_return(bench, "when the peer closed", timeout=bench.scale)
        true(sends.refused, "no waiting send returned False")
        received, end = await messages_until_close(peer)
        equal(end, Close(4002), "what follows the messages")
        none_lost(sends, received)
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (4002, "peer"), "code and initiator")


async def _lost_while_sends_wait(bench: Bench, leave: Callable[[WirePeer], Any]) -> None:
    options = bench.options(close_timeout=5 * bench.scale)
    async with bench.serve(options) as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        sends.begin()
        await leave(peer)
        await sends.all_return(bench, "when the connection was lost", timeout=bench.scale)
        true(sends.refused, "no waiting send returned False")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (1006, "network"), "code and initiator")


@check("SEND-6")
async def a_reset_while_sends_wait(bench: Bench) -> None:
    """When the peer resets the connection, waiting sends return False at once."""

    async def leave(peer: WirePeer) -> None:
        peer.drop()

    await _lost_while_sends_wait(bench, leave)


@check("SEND-6")
async def a_half_close_while_sends_wait(bench: Bench) -> None:
    """When a peer that does not read ends its sending side, waiting sends return False at once."""
    await _lost_while_sends_wait(bench, lambda peer: peer.half_close())


@check("SEND-6")
async def an_exception_behind_sends(bench: Bench) -> None:
    """When a callback raises, what its sends returned True for comes before the close frame of 1011."""
    taken: list[Sends] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        taken.append(Sends(channel, 32 * KIB))
        for _ in range(20):
            await taken[0].begin()
        raise RuntimeError("on purpose")

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("go")
        await bench.recorder.wait("error")
        received, end = await messages_until_close(peer)
        equal((isinstance(end, Close), getattr(end, "code", None)), (True, 1011), "what follows the messages")
        none_lost(taken[0], received)
        equal(len(received), 20, "messages")


@check("SEND-6")
async def no_pong_behind_the_close_frame(bench: Bench) -> None:
    """Pings that come after the server's close frame are not answered; the end follows it."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        peer.auto_close = False
        channel.close(4001)
        equal(await peer.receive(), Close(4001), "what the peer gets")
        for payload in (b"late", b""):
            await peer.ping(payload)
            await peer.send_text("late")
        await peer.send_close(4001)
        event = await peer.receive()
        true(isinstance(event, Eof), f"after the close frame came {event}")


@check("SEND-6")
async def no_pong_behind_a_close_frame_that_waits(bench: Bench) -> None:
    """Pings of a peer that does not read are answered in front of the close frame that waits for it, or not at all."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sends = await clog(bench, channel)
        await peer.ping(b"early")
        await asyncio.sleep(0.05 * bench.scale)  # the server reads it
        channel.close(4001)
        await peer.ping(b"late")
        received, end = await messages_until_close(peer)
        equal(end, Close(4001), "what the peer gets")
        event = await peer.receive()
        true(isinstance(event, Eof), f"after the close frame came {event}")
        await sends.all_return(bench, "at a close")
        none_lost(sends, received)


async def closes_in_front_of_a_pong(bench: Bench, served: Served, *, much: bool, **peer_options: Any) -> None:
    """Have a peer close, then send a pong, and read only then; check that it loses nothing, and sees an orderly end."""
    count = len(bench.recorder.all("close")) + 1
    async with pair(bench, served, **peer_options) as (peer, channel):
        sends = Sends(channel, 64 * KIB)
        if much:
            sends = await clog(bench, channel)
        else:
            while len(sends.taken) < _IN_THE_SYSTEM // sends.size:
                await bench.within(sends.begin(), "a send of what the system buffers")
        await peer.send_close(4001, "bye")
        await bench.recorder.closed(count)
        await asyncio.sleep(0.05 * bench.scale)  # the server has done what it does after the end
        await peer.pong(b"late")
        received, end = await messages_until_close(peer)
        none_lost(sends, received)
        equal(getattr(end, "code", end), 4001, "the code of what follows the messages")
        event = await peer.receive()
        true(isinstance(event, Eof) and not event.reset, f"after the close frame came {event}")
        await sends.all_return(bench, "at a close")


@check("SEND-6", wire=True, fixed=["address"])
async def a_pong_behind_the_peers_close(bench: Bench) -> None:
    """A peer that closes, then sends a pong, and reads only then, gets all that sends returned True for, and the close.

    A server that closes its socket with such a pong unread resets the connection, and what the peer has not read is
    lost, whether it lies in a buffer of the implementation's own or only in the system's.
    """
    async with bench.serve() as served:
        await closes_in_front_of_a_pong(bench, served, much=False)
        await closes_in_front_of_a_pong(bench, served, much=True)


@check("SEND-8", needs=("compression",))
async def deflated_when_offered(bench: Bench) -> None:
    """With compression on and a peer that offers it, messages travel deflated, texts and binary ones."""
    async with bench.serve(bench.options(compression=True)) as served:
        async with pair(bench, served, deflate=True) as (peer, channel):
            true(peer.deflated, "permessage-deflate was offered, and not taken")
            await channel.send_text("x" * 10000)
            await channel.send_binary(b"x" * 50000)
            for opcode, size in ((Opcode.TEXT, 10000), (Opcode.BINARY, 50000)):
                frame = await peer.receive_frame()
                equal((frame.opcode, frame.rsv), (opcode, 4), "opcode and reserved bits of a compressible message")
                true(len(frame.payload) < size / 10, f"{size} equal bytes took {len(frame.payload)} on the wire")
        equal(peer.received, [Text("x" * 10000), Binary(b"x" * 50000)], "the messages")


@check("SEND-8", needs=("compression",))
async def plain_when_not_offered(bench: Bench) -> None:
    """A peer that does not offer compression gets plain messages."""
    async with bench.serve(bench.options(compression=True)) as served, pair(bench, served) as (peer, channel):
        true(not peer.deflated, "an extension was chosen that nobody offered")
        await channel.send_text("x" * 10000)
        frame = await peer.receive_frame()
        equal((frame.rsv, len(frame.payload)), (0, 10000), "reserved bits and length")


@check("SEND-8", needs=("compression",), fixed=["compress"])
async def plain_when_off(bench: Bench) -> None:
    """With compression off, its default, the offer is not taken."""
    async with bench.serve() as served, pair(bench, served, deflate=True) as (peer, channel):
        true(not peer.deflated, "permessage-deflate was chosen although compression is off")
        await channel.send_text("x" * 10000)
        frame = await peer.receive_frame()
        equal((frame.rsv, len(frame.payload)), (0, 10000), "reserved bits and length")


def _echo(bench: Bench, **options: Any) -> Any:
    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    async def on_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
        await channel.send_binary(data)

    return bench.options(on_text=on_text, on_binary=on_binary, **options)


async def _echoes(peer: WirePeer) -> None:
    """Check that messages of all sizes come back, again and again, so that the shared window is right too."""
    noise = random.Random(8).randbytes(40 * KIB)
    for _ in range(2):
        for text in ("", "a", "gr\xfc\xdf\u20ac" * 5, "x" * 70000):
            await peer.send_text(text)
            true(await peer.receive_text() == text, f"a text of {len(text)} characters came back changed")
        for data in (b"", b"\0" * 5, noise, noise[:9] * 20000):
            await peer.send_binary(data)
            true(await peer.receive_binary() == data, f"{len(data)} bytes came back changed")


@check("SEND-8", needs=("compression",))
async def deflated_both_ways(bench: Bench) -> None:
    """Deflated messages of any size, also fragmented or sent plain, come through, and so does the close."""
    async with bench.serve(_echo(bench, compression=True)) as served, served.peer(deflate=True) as peer:
        await _echoes(peer)
        await peer.send_fragments(Opcode.TEXT, [b"", b"fra", b"", b"gmented", b""])
        equal(await peer.receive(), Text("fragmented"), "the fragmented text")
        await peer.send_text("plain", compress=False)
        equal(await peer.receive(), Text("plain"), "the text that was sent plain")
        await peer.send_close(4000, "bye")
        equal((await peer.receive_close()).code, 4000, "the code that comes back")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.text, reason.initiator), (4000, "bye", "peer"), "the reason")


@check("SEND-8", needs=("compression",))
async def whatever_the_offer(bench: Bench) -> None:
    """An offer with parameters is taken as it asks, or not at all, or not in full; messages come through anyway."""
    async with bench.serve(_echo(bench, compression=True)) as served:
        for offer, needed in (
            ("permessage-deflate", ""),
            ("permessage-deflate; server_no_context_takeover", "server_no_context_takeover"),
            ("permessage-deflate; client_no_context_takeover", ""),
            ("permessage-deflate; client_max_window_bits", ""),
            ("permessage-deflate; client_max_window_bits=10", ""),
            ("permessage-deflate; server_max_window_bits=10", "server_max_window_bits="),
            ("permessage-deflate; unknown=1, permessage-deflate", ""),
            ("x-unknown, permessage-deflate; client_max_window_bits", ""),
            ("x-unknown", ""),
        ):
            async with served.peer(deflate=offer) as peer:
                response = peer.response
                chosen = None if response is None else response.header("Sec-WebSocket-Extensions")
                # RFC 7692, 7.1: whoever takes such an offer must say so
                true(not peer.deflated or needed in (chosen or ""), f"{offer!r} was answered with {chosen!r}")
                await _echoes(peer)
