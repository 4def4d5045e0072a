"""STREAM: sends, the handler's end and the channel's, and back-pressure."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import Mishap, logged
from wsbridge.conformance.checks.flow import warm
from wsbridge.conformance.checks.recv import echo
from wsbridge.conformance.checks.stream import Raw, closed_error, handled, read_all, send_numbers
from wsbridge.conformance.client import Close, Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.server_process import MIB, measured
from wsbridge.errors import ChannelClosedError
from wsbridge.http import Request
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Connector
from wsbridge.stream import MessageStream, stream_handler

_KERNEL = 64 * MIB  # bytes: more than any system buffers for one connection
_BOUND = 16 * MIB


def _errors(bench: Bench) -> list[str]:
    return [record.getMessage() for record in bench.logs if record.levelno >= logging.ERROR]


# ---- STREAM-6 -------------------------------------------------------------------------------------------------------


@check("STREAM-6")
async def sends_every_kind(bench: Bench) -> None:
    """`send` takes a str, any bytes-like object and a binary file."""

    async def handler(stream: Raw, request: Request) -> None:
        file = io.BytesIO(b"not this, but that")
        file.seek(10)
        for message in ("text", b"bytes", bytearray(b"array"), memoryview(b"a view")[2:], file, "", b""):
            await stream.send(message)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        got = [(await peer.receive_message()).data for _ in range(7)]
        equal(got, ["text", b"bytes", b"array", b"view", b"but that", "", b""], "what the peer got")


@check("STREAM-6")
async def wrong_types_are_refused(bench: Bench) -> None:
    """A send of another type raises TypeError and one of a lone surrogate UnicodeEncodeError; the stream goes on."""
    wrong: Any

    async def handler(stream: Raw, request: Request) -> None:
        nonlocal wrong
        for wrong, error in (
            (7, TypeError),
            (None, TypeError),
            (io.StringIO("a"), TypeError),
            ("\ud800", UnicodeError),
        ):
            try:
                await stream.send(wrong)
            except error:
                continue
            fail(f"send({wrong!r}) raised nothing")
        await stream.send("still there")

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        equal(await peer.receive_text(), "still there", "the first message that the peer gets")


async def _sends_after(bench: Bench, leave: Callable[[WirePeer, Raw], Awaitable[object] | None], code: int) -> None:
    async def handler(stream: Raw, request: Request) -> None:
        await stream.wait_closed()
        for message in ("late", b"late"):
            error = await closed_error(stream.send(message), "a send after the end")
            true(error.reason is stream.reason, f"the error has the reason {error.reason}, the stream {stream.reason}")
        bench.recorder.log("sent", stream.id, error.reason)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        stream = (await bench.recorder.wait("handler")).value
        left = leave(peer, stream)
        if left is not None:
            await left
        equal((await bench.recorder.wait("sent")).value.code, code, "the code of the reason")


@check("STREAM-6")
async def send_after_the_peers_close(bench: Bench) -> None:
    """A send after the peer's close raises ChannelClosedError with its code."""
    await _sends_after(bench, lambda peer, stream: peer.send_close(4004), 4004)


@check("STREAM-6")
async def send_after_a_loss(bench: Bench) -> None:
    """A send after the loss of the connection raises ChannelClosedError with 1006, and no native error."""
    await _sends_after(bench, lambda peer, stream: peer.drop(), 1006)


@check("STREAM-6")
async def send_after_the_own_close(bench: Bench) -> None:
    """A send after `stream.close()` raises ChannelClosedError with the code given."""
    await _sends_after(bench, lambda peer, stream: stream.close(4005), 4005)


@check("STREAM-6")
async def send_with_messages_unread(bench: Bench) -> None:
    """A handler that only sends gets the error with the reason of the end, although it has read nothing before it."""

    async def handler(stream: Raw, request: Request) -> None:
        await bench.recorder.wait("left")
        try:
            while True:
                await stream.send("tick")
                await asyncio.sleep(0.001)
        except ChannelClosedError as exc:
            true(exc.reason is stream.reason and exc.reason is not None, f"the error has the reason {exc.reason}")
            bench.recorder.log("sent", stream.id, exc.reason)
        await read_all(bench, stream)

    async with bench.serve(handled(bench, handler, receive_buffer=4)) as served, served.peer() as peer:
        sent = await send_numbers(peer, 30)
        await peer.send_close(4006)
        peer.close()
        bench.recorder.log("left")
        reason = (await bench.recorder.wait("sent")).value
        true(reason.initiator in ("peer", "network"), f"the reason is {reason!r}")
        await bench.recorder.wait("end")
        if reason.initiator == "peer":
            equal(bench.recorder.values("got"), sent, "what was read after the end")


# ---- STREAM-7 -------------------------------------------------------------------------------------------------------


@check("STREAM-7")
async def return_closes_with_1000(bench: Bench) -> None:
    """When the handler returns, the peer gets 1000 after what was sent, and nothing is logged."""

    async def handler(stream: Raw, request: Request) -> None:
        await stream.send("all there is")

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        equal(await peer.receive_text(), "all there is", "what was sent before")
        equal(await peer.receive_close(), Close(1000, ""), "what the peer gets then")
        await peer.wait_eof()
        stream = bench.recorder.values("handler")[0]
        reason = await bench.within(stream.wait_closed(), "wait_closed()")
        equal((reason.code, reason.text, reason.initiator), (1000, "", "local"), "the reason")
    equal(_errors(bench), [], "what was logged")


@check("STREAM-7")
async def exception_is_a_failure(bench: Bench) -> None:
    """When the handler raises, that is logged once, the peer gets 1011, and `on_error` the exception."""
    error = Mishap("on purpose")
    told: list[tuple[Any, Any, Exception]] = []

    async def handler(stream: Raw, request: Request) -> None:
        if request.path == "/fails":
            await stream.recv()
            raise error
        await read_all(bench, stream)

    async def on_error(channel: Any, stream: Any, exception: Exception) -> None:
        try:
            await stream.send("late")
        except ChannelClosedError:
            told.append((channel, stream, exception))
        bench.recorder.log("told")

    options = handled(bench, handler, on_error=on_error)
    app = Application([("/fails", options), ("/other", options)])
    async with bench.serve(app) as served, served.peer("/other") as other:
        await bench.recorder.wait("handler")
        async with served.peer("/fails") as peer:
            stream = (await bench.recorder.wait("handler", 2)).value
            await peer.send_text("a")
            equal(await peer.receive_close(), Close(1011, ""), "what the peer gets")
            await bench.recorder.wait("told")
            await peer.wait_eof()
        equal(stream.reason and (stream.reason.code, stream.reason.initiator), (1011, "local"), "the reason")
        await other.send_text("b")
        await bench.recorder.wait("got")
    true(told == [(stream.channel, stream, error)], f"on_error was told {told}")
    records = logged(bench, error)
    equal([record.levelno for record in records], [logging.ERROR], "the levels of the records with the traceback")
    message = records[0].getMessage()
    true(stream.id in message and "/fails" in message, f"neither id nor path are in {message!r}")
    equal(len(_errors(bench)), 1, "how many errors were logged")


@check("STREAM-7")
async def exception_after_the_end(bench: Bench) -> None:
    """What a handler raises after the end is logged and given to `on_error`; the reason stays. `on_error` may fail."""
    error, second = Mishap("too late"), Mishap("on_error too")

    async def handler(stream: Raw, request: Request) -> None:
        await stream.wait_closed()
        raise error

    def on_error(channel: Any, stream: Any, exception: Exception) -> None:
        bench.recorder.log("told", channel.id, exception)
        raise second

    async with bench.serve(handled(bench, handler, on_error=on_error)) as served, served.peer() as peer:
        stream = (await bench.recorder.wait("handler")).value
        await peer.send_close(4001)
        equal((await peer.receive_close()).code, 4001, "the code that comes back")
        true((await bench.recorder.wait("told")).value is error, "on_error got another exception")
        equal(stream.reason.code, 4001, "the code of the reason")
    equal((len(logged(bench, error)), len(logged(bench, second))), (1, 1), "how often each was logged")


@check("STREAM-7")
async def closed_error_is_no_failure(bench: Bench) -> None:
    """A ChannelClosedError that leaves the handler after the end, by itself or out of a task group, is not logged."""

    async def handler(stream: Raw, request: Request) -> None:
        if request.path == "/recv":
            while True:
                await stream.recv()
        if request.path == "/send":
            while True:
                await stream.send("tick")
                await asyncio.sleep(0.001)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(_until_refused(stream))

    async def _until_refused(stream: Raw) -> None:
        await stream.wait_closed()
        await stream.send("late")

    def on_error(channel: Any, stream: Any, exception: Exception) -> None:
        bench.recorder.log("told", channel.id, exception)

    options = handled(bench, handler, on_error=on_error)
    async with bench.serve(Application([(f"/{name}", options) for name in ("recv", "send", "group")])) as served:
        for number, name in enumerate(("recv", "send", "group"), 1):
            async with served.peer(f"/{name}") as peer:
                await bench.recorder.wait("handler", number)
                await peer.send_close(1000)
                await peer.drain()
                await bench.recorder.wait("handler-end", number)
    equal(_errors(bench), [], "what was logged")
    equal(bench.recorder.values("told"), [], "what on_error was told")


@check("STREAM-7")
async def closed_error_of_another_channel(bench: Bench) -> None:
    """A ChannelClosedError while this channel is open is a failure like any other."""
    first: list[Raw] = []

    async def handler(stream: Raw, request: Request) -> None:
        first.append(stream)
        if len(first) == 1:
            await stream.wait_closed()
        else:
            await first[0].send("to one that has gone")

    async with bench.serve(handled(bench, handler)) as served:
        async with served.peer() as gone:
            await bench.recorder.wait("handler")
            await gone.send_close(1000)
            await bench.recorder.wait("handler-end")
        async with served.peer() as peer:
            equal((await peer.receive_close()).code, 1011, "the code that the peer gets")
    equal(len(_errors(bench)), 1, "how many errors were logged")


@check("STREAM-7")
async def cancelled_error_without_a_cancel(bench: Bench) -> None:
    """A CancelledError that the handler raises, without being cancelled, is a failure (ERR-3)."""
    error = asyncio.CancelledError("on purpose")

    async def handler(stream: Raw, request: Request) -> None:
        raise error

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        equal(await peer.receive_close(), Close(1011, ""), "what the peer gets")
        await peer.wait_eof()
    equal(len(logged(bench, error)), 1, "how often it was logged")


@check("STREAM-7")
async def channel_lives_until_the_handler_ends(bench: Bench) -> None:
    """A channel whose handler still runs after the peer's close counts as open, and a stop waits for it."""

    async def handler(stream: Raw, request: Request) -> None:
        await read_all(bench, stream)
        await bench.recorder.wait("go on")
        await asyncio.sleep(0.02)
        bench.recorder.log("cleaned up")

    async with bench.serve(handled(bench, handler), max_channels=1) as served:
        async with served.peer() as peer:
            await bench.recorder.wait("handler")
            await peer.send_close(1000)
            await bench.recorder.wait("end")
            async with served.raw() as other:
                await other.request(f"GET / HTTP/1.1\r\nHost: {served.host}\r\n{_UPGRADE}\r\n".encode())
                equal((await other.read_response()).status, 503, "the status while the handler runs")
        bench.recorder.log("go on")
        assert served.connector is not None
        await bench.within(served.connector.stop(), "stop()")
        equal(bench.recorder.kinds()[-1], "cleaned up", "the last that happened before the stop was over")


_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


# ---- STREAM-8 -------------------------------------------------------------------------------------------------------


async def _waits_elsewhere(bench: Bench, *, cancel: bool) -> None:
    async def handler(stream: Raw, request: Request) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_tell(stream))
                await bench.recorder.wait(f"go on {request.path}", timeout=2 * bench.timeout)
        except asyncio.CancelledError:
            bench.recorder.log("cancelled")
            raise

    async def _tell(stream: Raw) -> None:
        bench.recorder.log("closed", stream.id, await stream.wait_closed())

    options = handled(bench, handler, cancel_on_close=cancel)
    leave: dict[str, Callable[[WirePeer], Awaitable[object]]] = {
        "/close": lambda peer: peer.send_close(4001),
        "/loss": lambda peer: peer.half_close(),
    }
    async with bench.serve(Application([(path, options) for path in leave])) as served:
        for number, path in enumerate(leave, 1):
            async with served.peer(path) as peer:
                await bench.recorder.wait("handler", number)
                await send_numbers(peer, 3)
                await leave[path](peer)
                if not cancel:
                    reason = (await bench.recorder.wait("closed", number)).value
                    equal(reason.code, 4001 if path == "/close" else 1006, "the code of the reason")
                    await asyncio.sleep(0.05 * bench.scale)
                    equal(len(bench.recorder.all("handler-end")), number - 1, "how many handlers have ended")
                    bench.recorder.log(f"go on {path}")
                await bench.recorder.wait("handler-end", number)
    equal(len(bench.recorder.all("cancelled")), 2 if cancel else 0, "how many handlers were cancelled")
    equal(_errors(bench), [], "what was logged")


@check("STREAM-8")
async def wait_closed_tells_a_busy_handler(bench: Bench) -> None:
    """A handler that waits for something else learns of a close and a loss by `wait_closed()`, and is not cancelled."""
    await _waits_elsewhere(bench, cancel=False)


@check("STREAM-8")
async def cancel_on_close(bench: Bench) -> None:
    """With `cancel_on_close` a handler that waits for something else is cancelled at a close and at a loss."""
    await _waits_elsewhere(bench, cancel=True)


@check("STREAM-8")
async def cancel_before_the_handler_begins(bench: Bench) -> None:
    """With `cancel_on_close`, channels that end at once leave nothing behind and log nothing."""
    async with bench.serve(handled(bench, read_stream, cancel_on_close=True)) as served:
        for _ in range(5):
            async with served.raw() as peer:
                head = f"GET / HTTP/1.1\r\nHost: {served.host}\r\n{_UPGRADE}\r\n".encode()
                await peer.request(head + build_frame(Opcode.CLOSE, b"\x03\xe8"))
                equal((await peer.read_response()).status, 101, "the status")
    equal(_errors(bench), [], "what was logged")


async def read_stream(stream: Raw, request: Request) -> None:
    """Read to the end."""
    async for _ in stream:
        pass


@check("STREAM-8")
async def stop_awaited_by_the_handler(bench: Bench) -> None:
    """A handler that awaits `stop()` itself is not cancelled by it, and goes on when all else has ended."""
    connectors: list[Connector] = []

    async def handler(stream: Raw, request: Request) -> None:
        if request.path == "/stops":
            await stream.recv()
            await connectors[0].stop()
            bench.recorder.log("stopped", stream.id, connectors[0].addresses)
        else:
            await stream.wait_closed()
        bench.recorder.log("returns", stream.id)

    app = Application([(path, handled(bench, handler)) for path in ("/stops", "/other")])
    async with bench.serve(app) as served, served.peer("/other") as other, served.peer("/stops") as peer:
        assert served.connector is not None
        connectors.append(served.connector)
        await bench.recorder.wait("handler", 2)
        await peer.send_text("stop")
        for each in (other, peer):
            equal(await each.receive_close(), Close(1001, "server shutdown"), "what a peer gets")
        equal((await bench.recorder.wait("stopped")).value, (), "the addresses when stop() has returned")
        await bench.recorder.wait("returns", 2)
    equal(_errors(bench), [], "what was logged")


@check("STREAM-8")
async def stop_cancels_the_handler(bench: Bench) -> None:
    """A handler that runs on is cancelled by `stop()`, within its time, whether its peer answers the close or not."""

    async def handler(stream: Raw, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bench.recorder.log("cancelled")
            raise

    loop = asyncio.get_running_loop()
    limit = 0.4 * bench.scale
    async with (
        bench.serve(handled(bench, handler), shutdown_timeout=limit) as served,
        served.peer() as answers,
        served.peer(),
    ):
        await bench.recorder.wait("handler", 2)
        assert served.connector is not None
        begun = loop.time()
        stop = asyncio.ensure_future(served.connector.stop())
        equal((await answers.receive_close()).code, 1001, "the code that the peer gets")
        await bench.within(stop, "stop()")
        took = loop.time() - begun
        true(took < limit + 0.25 + bench.scale + bench.lost, f"stop() took {took:.1f} s")
        equal(len(bench.recorder.all("handler-end")), 2, "how many handlers have ended with it")
        equal(len(bench.recorder.all("cancelled")), 2, "how many were cancelled")


# ---- STREAM-9 -------------------------------------------------------------------------------------------------------


def idle_application(**options: Any) -> Application:
    """Return an application whose ``/idle`` reads nothing."""

    async def idle(stream: MessageStream, request: Request) -> None:
        await asyncio.Event().wait()

    return Application(
        [
            ("/echo", WebSocketOptions(on_text=echo, on_binary=echo, **options)),
            ("/idle", stream_handler(idle, cancel_on_close=True, **options)),
        ]
    )


async def _flooded(bench: Bench, *sizes: int) -> None:
    async with measured(bench, idle_application) as memory:
        for size in sizes:
            async with warm(memory, "/idle") as peer:
                taken = await peer.flood(build_frame(Opcode.BINARY, bytes(size)), _KERNEL, timeout=0.2 * bench.scale)
                grown = await memory.growth()
                true(taken < _KERNEL, f"of a flood of messages of {size} bytes, {taken / MIB:.1f} MiB were taken")
                true(grown < _BOUND, f"memory grew by {grown / MIB:.1f} MiB in a flood of messages of {size} bytes")


@check("STREAM-9", stochastic=True, limit=40)
async def flood_of_small_messages(bench: Bench) -> None:
    """While the handler does not read, a flood of messages of 0 bytes, or of 1000, takes less than 16 MiB."""
    await _flooded(bench, 0, 1000)


@check("STREAM-9", stochastic=True, limit=40)
async def flood_of_large_messages(bench: Bench) -> None:
    """While the handler does not read, a flood of messages of 60,000 bytes, or of 1 MiB, takes less than 16 MiB."""
    await _flooded(bench, 60_000, MIB)


@check("STREAM-9")
async def slow_reader_loses_nothing(bench: Bench) -> None:
    """What was held back is read in order when the handler goes on, small messages and large ones."""
    sizes = (0, 10, 70_000, 1000, 200_000, 1)

    async def handler(stream: Raw, request: Request) -> None:
        while True:
            for _ in range(17):
                bench.recorder.log("got", stream.id, len(await stream.recv()))
            await asyncio.sleep(0.005)

    async def flood(peer: WirePeer) -> None:
        for _ in range(60):
            for size in sizes:
                await peer.send_binary(bytes(size))

    async with bench.serve(handled(bench, handler, receive_buffer=2, cancel_on_close=True)) as served:
        async with served.peer() as peer:
            flooding = asyncio.ensure_future(flood(peer))
            await bench.recorder.wait("got", 60 * len(sizes), timeout=2 * bench.timeout)
            await flooding
        equal(bench.recorder.values("got"), list(sizes) * 60, "the sizes of the messages")
