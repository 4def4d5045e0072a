"""STREAM: messages read in a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.client import Close, Opcode, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.mounted import mounted
from wsbridge.errors import ChannelClosedError, MessageKindError
from wsbridge.http import Request
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.stream import MessageStream, stream_handler
from wsbridge.upgrade import websocket_interceptor

__all__ = ["Raw", "closed_error", "handled", "read_all"]

Raw = MessageStream[str | bytes]
Read = Callable[[], Awaitable[object]]
Handler = Callable[[MessageStream[Any], Request], Awaitable[object]]


def handled(bench: Bench, handler: Handler, **options: Any) -> WebSocketOptions[Any]:
    """Return options for ``handler`` whose begin and end are logged as ``handler`` and ``handler-end``."""

    async def logged(stream: MessageStream[Any], request: Request) -> None:
        bench.recorder.log("handler", stream.id, stream)
        try:
            await handler(stream, request)
        finally:
            bench.recorder.log("handler-end", stream.id)

    return stream_handler(logged, **{**bench.target.neutral, **options})


async def read_all(bench: Bench, stream: MessageStream[Any]) -> None:
    """Log each message as ``got``, until the end, which is logged as ``end`` with the reason."""
    async for message in stream:
        bench.recorder.log("got", stream.id, message)
    bench.recorder.log("end", stream.id, stream.reason)


async def closed_error(awaitable: Awaitable[object], what: str) -> ChannelClosedError:
    """Return the `ChannelClosedError` that awaiting must raise."""
    try:
        result = await awaitable
    except ChannelClosedError as exc:
        return exc
    fail(f"{what} returned {result!r} and raised no ChannelClosedError")
    raise AssertionError


async def echo(stream: MessageStream[Any], request: Request) -> None:
    """Send each message back."""
    async for message in stream:
        await stream.send(message)


async def send_numbers(peer: WirePeer, count: int, *, first: int = 0) -> list[str]:
    """Have the peer send texts that are numbered, in one piece; return them."""
    texts = [f"message {number}" for number in range(first, first + count)]
    await peer.send_raw(b"".join(build_frame(Opcode.TEXT, text.encode()) for text in texts))
    return texts


# ---- STREAM-1 -------------------------------------------------------------------------------------------------------


@check("STREAM-1")
async def handler_gets_stream_and_request(bench: Bench) -> None:
    """The handler runs once for each channel, with its stream and its request."""
    seen: list[tuple[Raw, Request]] = []

    async def handler(stream: Raw, request: Request) -> None:
        seen.append((stream, request))
        await read_all(bench, stream)

    app = Application([("/room/{name}", handled(bench, handler, subprotocols=["b", "a"]))])
    async with bench.serve(app) as served:
        for number, name in enumerate(("one", "two"), 1):
            async with served.peer(f"/room/{name}?x=1", subprotocols=["a", "b"]) as peer:
                await bench.recorder.wait("handler", number)
                equal(seen[-1][0].reason, None, "the reason while it is open")
                await peer.send_close(4001, "bye")
                await peer.receive_close()
            await bench.recorder.wait("end", number)
    equal(len(seen), 2, "how often the handler ran")
    for name, (stream, request) in zip(("one", "two"), seen, strict=True):
        true(isinstance(request, Request), f"the handler got {request!r} for its request")
        true(stream.request is request, "stream.request is another than the handler got")
        equal((request.path_params["name"], request.args["x"]), (name, "1"), "path parameter and argument")
        equal((stream.id, stream.subprotocol), (stream.channel.id, "b"), "id and subprotocol")
        true(stream.reason is stream.channel.reason, "the stream has another reason than its channel")
        equal(stream.reason and (stream.reason.code, stream.reason.text), (4001, "bye"), "the reason")
    true(seen[0][0] is not seen[1][0] and seen[0][0].id != seen[1][0].id, "two channels share a stream or an id")


@check("STREAM-1")
async def options_behind_interceptors(bench: Bench) -> None:
    """The options work at the end of a chain of interceptors."""

    def enter(context: Context) -> None:
        bench.recorder.log("enter", "", context["request"])

    chain = (Interceptor(name="user", enter=enter), websocket_interceptor("stream", handled(bench, echo)))
    async with bench.serve(Application([("/", chain)])) as served, served.peer() as peer:
        await peer.send_text("there")
        equal(await peer.receive_text(), "there", "the echo")
    equal(bench.recorder.kinds(), ["enter", "handler"], "what ran")
    true(bench.recorder.values("enter")[0] is bench.recorder.values("handler")[0].request, "another request")


@check("STREAM-1", needs=["mount"])
async def options_in_a_mount(bench: Bench) -> None:
    """The options can be mounted into an application of the server's framework."""
    async with mounted(bench, handled(bench, echo)) as (served, _), served.peer("/mounted") as peer:
        for text in ("a", "b"):
            await peer.send_text(text)
            equal(await peer.receive_text(), text, "the echo")


@check("STREAM-1")
async def handler_runs_in_a_task_of_its_own(bench: Bench) -> None:
    """Each handler runs in a task of its own, in which asyncio's timeouts work, and holds up no other channel."""
    tasks: set[asyncio.Task[Any] | None] = set()

    async def handler(stream: Raw, request: Request) -> None:
        tasks.add(asyncio.current_task())
        if request.path == "/stuck":
            await stream.wait_closed()
        try:
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()
        except TimeoutError:
            await stream.send("timed out")
        await echo(stream, request)

    options = handled(bench, handler)
    async with bench.serve(Application([("/stuck", options), ("/", options)])) as served, served.peer("/stuck"):
        await bench.recorder.wait("handler")
        async with served.peer() as peer:
            equal(await peer.receive_text(), "timed out", "what the handler says after its timeout")
            await peer.send_text("a")
            equal(await peer.receive_text(), "a", "the echo beside a handler that does nothing")
    true(len(tasks) == 2 and None not in tasks, f"the handlers of two channels ran in the tasks {tasks}")


# ---- STREAM-2 -------------------------------------------------------------------------------------------------------

MIXED: tuple[str | bytes, ...] = (
    "",
    b"",
    "text",
    b"\0\xff",
    "\N{SNOWMAN}" * 1000,
    bytes(range(256)) * 400,
    "x" * 70_000,
)


async def _send(peer: WirePeer, messages: tuple[str | bytes, ...]) -> None:
    for message in messages:
        await (peer.send_text(message) if isinstance(message, str) else peer.send_binary(message))


@check("STREAM-2")
async def messages_in_order_by_async_for(bench: Bench) -> None:
    """`async for` yields texts and binary messages in the order of their arrival, exact, as str and bytes."""

    async def handler(stream: Raw, request: Request) -> None:
        await read_all(bench, stream)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await _send(peer, MIXED * 20)
        await bench.recorder.wait("got", len(MIXED) * 20)
        got: list[object] = bench.recorder.values("got")
        true(got == list(MIXED * 20), "the messages are not those that were sent, in their order")
        equal({type(message) for message in got}, {str, bytes}, "their types")


@check("STREAM-2")
async def messages_by_recv(bench: Bench) -> None:
    """`recv`, `recv_text` and `recv_binary` share one order, whether a message waits for them or they for it."""

    async def handler(stream: Raw, request: Request) -> None:
        for _ in range(2):
            bench.recorder.log("got", stream.id, await stream.recv())
            bench.recorder.log("got", stream.id, await stream.recv_text())
            bench.recorder.log("got", stream.id, await stream.recv_binary())
            bench.recorder.log("got", stream.id, await stream.__anext__())
        await stream.wait_closed()

    messages: tuple[str | bytes, ...] = ("a", "b", b"c", b"d")
    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await _send(peer, messages)
        for count, message in enumerate(messages, len(messages) + 1):
            await _send(peer, (message,))
            await bench.recorder.wait("got", count)
        equal(bench.recorder.values("got"), list(messages * 2), "the messages")


@check("STREAM-2")
async def other_kind_is_not_lost(bench: Bench) -> None:
    """`recv_text` and `recv_binary` raise for a message of the other kind, which stays the next one."""

    async def handler(stream: Raw, request: Request) -> None:
        reads: tuple[Read, ...] = (stream.recv_text, stream.recv_text, stream.recv_binary, stream.recv_binary)
        for read in (*reads, stream.recv):
            await _attempt(read)
        await stream.wait_closed()

    async def _attempt(read: Read) -> None:
        try:
            bench.recorder.log("got", "", await read())
        except MessageKindError as exc:
            bench.recorder.log("got", "", type(exc).__name__)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await _send(peer, (b"binary", "text"))
        await bench.recorder.wait("got", 5)
        expected = ["MessageKindError", "MessageKindError", b"binary", "MessageKindError", "text"]
        equal(bench.recorder.values("got"), expected, "what the reads gave")


# ---- STREAM-3 -------------------------------------------------------------------------------------------------------


@check("STREAM-3")
async def timeout_loses_nothing(bench: Bench) -> None:
    """`recv(timeout)` raises TimeoutError when no message comes, and the message that comes later is read."""

    async def handler(stream: Raw, request: Request) -> None:
        for read in (stream.recv, stream.recv_text, stream.recv_binary):
            try:
                await read(timeout=0.02)
            except TimeoutError:
                bench.recorder.log("timeout")
        await bench.recorder.wait("sent")
        await read_all(bench, stream)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await bench.recorder.wait("timeout", 3)
        sent = await send_numbers(peer, 3)
        bench.recorder.log("sent")
        await bench.recorder.wait("got", 3)
        equal(bench.recorder.values("got"), sent, "the messages")


@check("STREAM-3")
async def timeout_of_zero_reads_what_is_there(bench: Bench) -> None:
    """`recv(timeout=0)` returns a message that is there, and raises at once when none is."""

    async def handler(stream: Raw, request: Request) -> None:
        bench.recorder.log("got", stream.id, await stream.recv())
        while True:
            try:
                bench.recorder.log("got", stream.id, await stream.recv(timeout=0))
            except TimeoutError:
                await asyncio.sleep(0.001)

    async with bench.serve(handled(bench, handler, cancel_on_close=True)) as served, served.peer() as peer:
        sent = await send_numbers(peer, 40)
        await bench.recorder.wait("got", 40)
        equal(bench.recorder.values("got"), sent, "the messages")


@check("STREAM-3", stochastic=True)
async def cancelled_reads_lose_nothing(bench: Bench) -> None:
    """Reads that are cancelled again and again, or time out, at any moment, lose no message and change no order."""

    async def handler(stream: Raw, request: Request) -> None:
        turn = 0
        while len(bench.recorder.all("got")) < 300:
            turn += 1
            try:
                if turn % 2:
                    message = await stream.recv(timeout=0.0005 * (turn % 5))
                else:
                    message = await asyncio.wait_for(stream.recv(), 0.0005 * (turn % 5))
            except TimeoutError:
                continue
            bench.recorder.log("got", stream.id, message)

    async with bench.serve(handled(bench, handler, cancel_on_close=True)) as served, served.peer() as peer:
        sent: list[str] = []
        for _ in range(60):
            sent += await send_numbers(peer, 5, first=len(sent))
            await asyncio.sleep(0.001)
        await bench.recorder.wait("got", 300)
        equal(bench.recorder.values("got"), sent, "the messages")


# ---- STREAM-4 -------------------------------------------------------------------------------------------------------


async def _slow_reader(bench: Bench, leave: Callable[[WirePeer], Awaitable[object]], count: int, code: int) -> None:
    """Have a peer send and leave; check that a reader that comes late reads all of it, and then the end."""

    async def handler(stream: Raw, request: Request) -> None:
        await bench.recorder.wait("left")
        await read_all(bench, stream)
        for _ in range(2):
            async for message in stream:
                fail(f"a message after the end: {message!r}")
            for read in (stream.recv, stream.recv_text, stream.recv_binary):
                error = await closed_error(read(), "a read after the end")
                equal(error.reason, stream.reason, "the reason of the error")
        bench.recorder.log("read on")

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        sent = await send_numbers(peer, count)
        await leave(peer)
        bench.recorder.log("left")
        await bench.recorder.wait("read on")
        equal(bench.recorder.values("got"), sent, "the messages before the end")
        reason = bench.recorder.values("end")[0]
        equal(reason.code, code, "the code of the reason at the end")


@check("STREAM-4")
async def messages_before_a_close_are_read(bench: Bench) -> None:
    """What came before the peer's close is read, however late; then `async for` ends and each `recv` raises."""
    for count in (0, 1, 100):
        bench.recorder.events.clear()
        await _slow_reader(bench, lambda peer: peer.send_close(4001), count, 4001)


@check("STREAM-4")
async def messages_before_a_loss_are_read(bench: Bench) -> None:
    """What came before the loss of the connection is read, however late, and then the end."""
    await _slow_reader(bench, lambda peer: peer.half_close(), 100, 1006)


@check("STREAM-4")
async def waiting_read_ends(bench: Bench) -> None:
    """A read that waits ends when the peer closes or is lost: `async for` with nothing, `recv` with the error."""

    async def handler(stream: Raw, request: Request) -> None:
        if request.path == "/recv":
            error = await closed_error(stream.recv(timeout=bench.timeout), "a read at the end")
            equal(error.reason, stream.reason, "the reason of the error")
            bench.recorder.log("end", stream.id, error.reason)
        else:
            await read_all(bench, stream)

    options = handled(bench, handler)
    async with bench.serve(Application([("/recv", options), ("/for", options)])) as served:
        for number, path in enumerate(("/recv", "/for")):
            async with served.peer(path) as peer:
                await bench.recorder.wait("handler", 2 * number + 1)
                await peer.send_close(1000, "done")
                equal((await bench.recorder.wait("end", 2 * number + 1)).value.text, "done", "the reason's text")
            async with served.peer(path) as peer:
                await bench.recorder.wait("handler", 2 * number + 2)
                peer.drop()
                equal((await bench.recorder.wait("end", 2 * number + 2)).value.code, 1006, "the reason's code")


@check("STREAM-4")
async def nothing_is_read_after_close(bench: Bench) -> None:
    """After `stream.close()` a read that waits ends at once, though the peer does not answer, and none gets more."""

    async def handler(stream: Raw, request: Request) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(read_all(bench, stream))
            await bench.recorder.wait("got", 1)
            await asyncio.sleep(0)
            stream.close(4002, "enough")
            stream.close(4003, "the first counts")
        error = await closed_error(stream.recv(), "a read after the close")
        equal((error.reason.code, error.reason.text), (4002, "enough"), "the reason of the error")
        bench.recorder.log("read on")

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await peer.send_text("one")
        await bench.recorder.wait("read on", timeout=bench.timeout / 2)
        equal(await peer.receive_close(), Close(4002, "enough"), "what the peer gets")
    equal(bench.recorder.values("got"), ["one"], "what was read")


@check("STREAM-4")
async def unread_messages_are_dropped_by_close(bench: Bench) -> None:
    """What is unread when the handler calls `stream.close()` is never read."""

    async def handler(stream: Raw, request: Request) -> None:
        equal(await stream.recv(), "message 0", "the first message")
        await asyncio.sleep(0.05)
        stream.close(1008, "no more")
        await read_all(bench, stream)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await send_numbers(peer, 50)
        equal(await peer.receive_close(), Close(1008, "no more"), "what the peer gets")
        await bench.recorder.wait("end")
        equal(bench.recorder.values("got"), [], "what was read after the close")


@check("STREAM-4")
async def waiting_read_ends_at_stop(bench: Bench) -> None:
    """A read that waits ends when the connector stops."""

    async def handler(stream: Raw, request: Request) -> None:
        await read_all(bench, stream)

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await bench.recorder.wait("handler")
        assert served.connector is not None
        stop = asyncio.ensure_future(served.connector.stop())
        equal((await peer.receive_close()).code, 1001, "the code that the peer gets")
        equal((await bench.recorder.wait("end")).value.text, "server shutdown", "the reason's text")
        await bench.within(stop, "stop()")


# ---- STREAM-5 -------------------------------------------------------------------------------------------------------


@check("STREAM-5")
async def second_reader_is_refused(bench: Bench) -> None:
    """A second read beside one that waits raises RuntimeError; the first goes on and gets the message."""

    async def handler(stream: Raw, request: Request) -> None:
        first = asyncio.ensure_future(stream.recv())
        await asyncio.sleep(0)
        for read in (stream.recv, stream.recv_text, stream.recv_binary, stream.__anext__):
            try:
                await read()
            except RuntimeError:
                bench.recorder.log("refused")
        bench.recorder.log("got", stream.id, await first)
        bench.recorder.log("got", stream.id, await stream.recv())

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        await bench.recorder.wait("refused", 4)
        sent = await send_numbers(peer, 2)
        await bench.recorder.wait("got", 2)
        equal(bench.recorder.values("got"), sent, "what the first reader got")


@check("STREAM-5")
async def one_reads_while_others_send(bench: Bench) -> None:
    """While one task reads, several send: every message gets through whole, and each sender's in order."""
    senders, count = 5, 40

    async def send(stream: Raw, name: int) -> None:
        for number in range(count):
            await stream.send(f"{name} {number}")
            if number % 8 == name:
                await asyncio.sleep(0)

    async def handler(stream: Raw, request: Request) -> None:
        async with asyncio.TaskGroup() as group:
            for name in range(senders):
                group.create_task(send(stream, name))
            for _ in range(count):
                bench.recorder.log("got", stream.id, await stream.recv())

    async with bench.serve(handled(bench, handler)) as served, served.peer() as peer:
        sent = await send_numbers(peer, count)
        got = [await peer.receive_text() for _ in range(senders * count)]
        await bench.recorder.wait("got", count)
    equal(bench.recorder.values("got"), sent, "what was read")
    for name in range(senders):
        own = [text for text in got if text.startswith(f"{name} ")]
        equal(own, [f"{name} {number}" for number in range(count)], f"what sender {name} sent")
