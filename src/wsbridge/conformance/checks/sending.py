"""SEND-1 to SEND-3 and SEND-7: what a send returns, takes and raises."""

from __future__ import annotations

import array
import asyncio
import errno
import io
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from wsbridge.conformance.checks.common import failing, pair
from wsbridge.conformance.client import Binary, Close, Opcode, Text, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.errors import SendError
from wsbridge.protocols import WebSocketChannel

KIB = 1024


async def _sends_return(bench: Bench, channel: WebSocketChannel, expected: bool, when: str) -> None:
    """Check what sends of every kind return, and that they return at once."""
    for what, data in (("text", "text"), ("bytes", b"b"), ("bytearray", bytearray(b"b")), ("file", io.BytesIO(b"f"))):
        send: Any = channel.send_text(data) if isinstance(data, str) else channel.send_binary(data)
        returned = await bench.within(send, f"sending {what} {when}", timeout=bench.scale)
        true(returned is expected, f"sending {what} {when} must return {expected}, not {returned!r}")


@check("SEND-1")
async def true_once_taken(bench: Bench) -> None:
    """A send of any kind returns True, the bool, and the peer gets the message."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        await _sends_return(bench, channel, True, "to an open channel")
        equal(await peer.receive(), Text("text"), "the first message")
        for expected in (b"b", b"b", b"f"):
            equal(await peer.receive(), Binary(expected), "the next message")


@check("SEND-1")
async def true_before_the_peer_has_it(bench: Bench) -> None:
    """A send does not wait until the peer has read the message."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        await _sends_return(bench, channel, True, "to a peer that has read nothing")
        equal(peer.received, [], "what the peer has read")


@check("SEND-1")
async def false_from_the_local_close_on(bench: Bench) -> None:
    """From the local close on sends return False at once, although the peer has not answered the close."""
    async with (
        bench.serve(bench.options(close_timeout=5 * bench.scale)) as served,
        pair(bench, served) as (peer, channel),
    ):
        channel.close()
        await _sends_return(bench, channel, False, "after close()")
        equal(await peer.receive(), Close(1000), "what the peer gets")
        await peer.wait_eof()
        await bench.recorder.closed()
        await _sends_return(bench, channel, False, "after on_close")


@check("SEND-1")
async def false_once_the_peer_has_closed(bench: Bench) -> None:
    """Once the peer's close is read sends return False, and nothing but the answer to it is sent."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        await peer.send_close(1000)
        await bench.within(channel.wait_closed(), "wait_closed()")
        await _sends_return(bench, channel, False, "after the peer's close")
        equal(await peer.receive(), Close(1000), "what the peer gets")
        await peer.wait_eof()


async def _false_after(bench: Bench, leave: Callable[[WirePeer], Any]) -> None:
    """Check sends on a channel whose peer leaves while no callback runs, and on one whose callback sends meanwhile."""
    results: list[object] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        while not results or results[-1] is True:
            results.append(await channel.send_text("x" * KIB))
            results.append(await channel.send_binary(b"x" * KIB))
            await asyncio.sleep(0)

    async with bench.serve(bench.options(on_text=on_text)) as served:
        async with pair(bench, served) as (peer, channel):
            await leave(peer)
            await bench.within(channel.wait_closed(), "wait_closed()")
            await _sends_return(bench, channel, False, "to a peer that left")
            await bench.recorder.closed()
        async with pair(bench, served) as (peer, _):
            await peer.send_text("go")
            await peer.receive_message()
            await leave(peer)
            peer.close()  # a half-close alone may go unseen while the callback runs and its writes succeed
            await bench.recorder.closed(2)
        equal(set(results), {True, False}, "what the sends of a callback returned, before and after the peer left")
        equal(bench.recorder.all("error"), [], "exceptions out of sends")


@check("SEND-1")
async def false_after_a_reset(bench: Bench) -> None:
    """A peer that resets the connection is not an exception: sends return False, in callbacks too."""

    async def leave(peer: WirePeer) -> None:
        peer.drop()

    await _false_after(bench, leave)


@check("SEND-1")
async def false_after_an_end_of_stream(bench: Bench) -> None:
    """A peer that closes TCP without a word is not an exception: sends return False, in callbacks too."""

    async def leave(peer: WirePeer) -> None:
        peer.close()

    await _false_after(bench, leave)


@check("SEND-1")
async def false_after_a_half_close(bench: Bench) -> None:
    """A peer that ends its sending side is lost: sends return False."""
    await _false_after(bench, lambda peer: peer.half_close())


@check("SEND-1")
async def false_after_a_close_frame(bench: Bench) -> None:
    """A peer that sends a close frame and leaves is not an exception: sends return False, in callbacks too."""

    async def leave(peer: WirePeer) -> None:
        await peer.send_close(1001)
        peer.close()

    await _false_after(bench, leave)


@check("SEND-1")
async def messages_before_the_close_are_delivered(bench: Bench) -> None:
    """Sends may return False before the messages in front of the peer's close are delivered, which they still are."""
    results: list[bool] = []

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.sleep(0.01)
        results.append(await channel.send_text(text))

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        texts = [str(number) for number in range(5)]
        frames = b"".join(build_frame(Opcode.TEXT, text.encode()) for text in texts)
        await peer.send_raw(frames + build_frame(Opcode.CLOSE, close_payload(1000)))
        await bench.recorder.closed()
        equal(bench.recorder.values(), texts, "the messages delivered")
        answers = 0
        while isinstance(event := await peer.receive(), Text):
            equal(event.data, texts[answers], "the next answer")
            answers += 1
        equal(event, Close(1000), "what follows the answers")
        equal(results, [True] * answers + [False] * (len(texts) - answers), "what the sends returned")


@check("SEND-1")
async def any_oserror_is_a_loss(bench: Bench) -> None:
    """Any OSError of the transport makes a send return False, those that follow too, and is not raised."""
    for late, error in (
        (False, BrokenPipeError(errno.EPIPE, "broken pipe")),
        (True, ConnectionResetError(errno.ECONNRESET, "reset")),
        (False, TimeoutError(errno.ETIMEDOUT, "timed out")),
        (True, OSError(errno.EHOSTUNREACH, "no route")),
    ):
        app = failing(bench, lambda error=error: error, late=late)  # type: ignore[misc]
        async with bench.serve(app) as served, pair(bench, served) as (_, channel):
            await _sends_return(bench, channel, False, f"when the transport raises {error!r}")


@check("SEND-2")
async def any_bytes_like_object(bench: Bench) -> None:
    """bytes, bytearray, memoryview, array and their like are sent for the bytes they hold."""
    numbers = array.array("I", [1, 2**31, 3])
    values: list[tuple[Any, bytes]] = [
        (b"", b""),
        (b"\0\xff", b"\0\xff"),
        (type("Bytes", (bytes,), {})(b"sub"), b"sub"),
        (bytearray(b"array"), b"array"),
        (bytearray(), b""),
        (memoryview(b"0123456789")[3:7], b"3456"),
        (memoryview(bytearray(b"view")), b"view"),
        (memoryview(bytes(range(12))).cast("B", (3, 4)), bytes(range(12))),
        (numbers, numbers.tobytes()),
        (memoryview(numbers)[1:], numbers.tobytes()[numbers.itemsize :]),
    ]
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        for data, expected in values:
            equal(await channel.send_binary(data), True, f"sending {data!r}")
            equal(await peer.receive(), Binary(expected), f"what {data!r} became")


@check("SEND-2")
async def a_sent_object_may_change(bench: Bench) -> None:
    """A bytes-like object may be changed, and resized, as soon as its send has returned."""
    size, count = 256 * KIB, 64

    async def send_all(channel: WebSocketChannel) -> None:
        for number in range(count):
            data = bytearray([number]) * size
            equal(await channel.send_binary(memoryview(data) if number % 2 else data), True, f"sending {number}")
            data[:] = b"\xff" * size
            if number % 2 == 0:
                data.clear()  # a BufferError while somebody holds it

    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sending = asyncio.ensure_future(send_all(channel))
        # the peer begins to read only when the buffers are full, so that the last that were taken are still here
        await asyncio.wait((sending,), timeout=0.1 * bench.scale)
        for number in range(count):
            data = await peer.receive_binary()
            true(data == bytes([number]) * size, f"message {number} is not what it was when its send returned")
        await sending


@check("SEND-2")
async def a_file_from_its_position(bench: Bench) -> None:
    """A binary file is read from its position to its end, and not closed."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        with tempfile.TemporaryFile() as on_disk, io.BytesIO(b"0123456789" * 100 * KIB) as in_memory:
            on_disk.write(b"abcdef")
            for file, position, expected in (
                (on_disk, 2, b"cdef"),
                (on_disk, 6, b""),
                (in_memory, 0, in_memory.getvalue()),
                (in_memory, 5, in_memory.getvalue()[5:]),
            ):
                file.seek(position)
                equal(await channel.send_binary(file), True, f"sending a file from {position}")
                true(await peer.receive_binary() == expected, f"not what stands in the file from {position} on came")
                true(not file.closed, "the file was closed")
                equal(file.read(), b"", "what is left in the file")


class SlowFile(io.RawIOBase):
    """A file whose ``read`` waits, as one on a slow disk, and tells in which thread it ran."""

    def __init__(self, result: bytes | Exception) -> None:
        super().__init__()
        self.result = result
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.thread = 0

    def read(self, size: int = -1) -> bytes:
        self.thread = threading.get_ident()
        self.begun.set()
        self.may_end.wait(2)
        if isinstance(self.result, Exception):
            raise self.result
        result, self.result = self.result, b""
        return result


@check("SEND-2")
async def a_file_is_read_off_the_loop(bench: Bench) -> None:
    """A file is read in another thread, and the event loop, and the channel, go on meanwhile."""
    file = SlowFile(b"slow")
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sending = asyncio.ensure_future(channel.send_binary(file))  # type: ignore[arg-type]
        await bench.settle(file.begun.is_set, "the read of the file")
        true(not file.may_end.is_set() and not sending.done(), "the send did not wait for the file")
        true(file.thread != threading.get_ident(), "the file was read on the event loop")
        equal(await channel.send_text("meanwhile"), True, "sending text meanwhile")
        equal(await peer.receive(), Text("meanwhile"), "what comes meanwhile")
        file.may_end.set()
        equal(await bench.within(sending, "the send"), True, "sending the file")
        equal(await peer.receive(), Binary(b"slow"), "what the file became")


@check("SEND-2")
async def what_read_raises_comes_out(bench: Bench) -> None:
    """An error that a file's read raises reaches the caller as it is, an OSError too; nothing is sent."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        for error in (OSError(errno.EIO, "bad disk"), ConnectionResetError("no peer"), ValueError("no"), EOFError()):
            file = SlowFile(error)
            file.may_end.set()
            try:
                await channel.send_binary(file)  # type: ignore[arg-type]
            except Exception as caught:
                true(caught is error, f"{error!r} came out of the send as {caught!r}")
            else:
                fail(f"the send of a file whose read raises {error!r} raised nothing")
        await _is_usable(peer, channel)


async def _is_usable(peer: WirePeer, channel: WebSocketChannel) -> None:
    """Check that nothing was sent before, and that the channel works."""
    equal(channel.reason, None, "the reason")
    equal(await channel.send_text("usable"), True, "a send afterwards")
    equal(await peer.receive(), Text("usable"), "the first message that the peer gets")


async def _raises(sending: Any, kind: type[Exception], what: str) -> None:
    try:
        returned = await sending
    except kind:
        return
    except Exception as exc:
        fail(f"{what} must raise {kind.__name__}, not {exc!r}")
    else:
        fail(f"{what} must raise {kind.__name__}, but it returned {returned!r}")


@check("SEND-3")
async def wrong_types(bench: Bench) -> None:
    """A wrong type, a text file too, raises TypeError; nothing is sent and the channel stays usable."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        sent: Any
        for sent in (b"bytes", bytearray(b"b"), memoryview(b"m"), None, 1, 1.5, ["text"], object(), io.StringIO("f")):
            await _raises(channel.send_text(sent), TypeError, f"send_text({sent!r})")
        for sent in ("text", "", None, 1, 1.5, [1, 2], {1: 2}, object(), io.StringIO("text file")):
            await _raises(channel.send_binary(sent), TypeError, f"send_binary({sent!r})")
        with tempfile.TemporaryFile("w+") as file:
            file.write("a text file")
            file.seek(0)
            await _raises(channel.send_binary(file), TypeError, "send_binary of a text file")  # type: ignore[arg-type]
        await _is_usable(peer, channel)


async def _lone_surrogates(bench: Bench, **peer_options: Any) -> None:
    options = bench.options(compression=bool(peer_options))
    async with bench.serve(options) as served, pair(bench, served, **peer_options) as (peer, channel):
        for what, text in (("short", "\ud800"), ("long", "x" * 100 * KIB + "\udfff"), ("after a letter", "\xe9\udc80")):
            await _raises(channel.send_text(text), UnicodeEncodeError, f"a lone surrogate in a {what} text")
        await _is_usable(peer, channel)


@check("SEND-3")
async def lone_surrogates(bench: Bench) -> None:
    """Text that UTF-8 cannot encode raises UnicodeEncodeError; nothing is sent and the channel stays usable."""
    await _lone_surrogates(bench)


@check("SEND-3", needs=("compression",))
async def lone_surrogates_when_deflated(bench: Bench) -> None:
    """The same where messages are deflated: what cannot be encoded leaves no trace in the deflated stream."""
    await _lone_surrogates(bench, deflate=True)


async def _native_failure(bench: Bench, *, late: bool, binary: bool) -> None:
    error = RuntimeError("the server failed")
    async with bench.serve(failing(bench, lambda: error, late=late)) as served, pair(bench, served) as (peer, channel):
        try:
            await (channel.send_binary(b"data") if binary else channel.send_text("text"))
        except SendError as caught:
            true(caught.__cause__ is error, f"the cause of the SendError is {caught.__cause__!r}, not {error!r}")
        except Exception as caught:
            fail(f"a native failure must raise SendError, not {caught!r}")
        else:
            fail("a native failure must raise SendError")
        await _sends_return(bench, channel, False, "after a native failure")
        equal((await peer.receive_close()).code, 1011, "the code that the peer gets")
        reason = await bench.recorder.closed()
        equal((reason.code, reason.initiator), (1011, "local"), "code and initiator")


@check("SEND-7")
async def a_native_failure(bench: Bench) -> None:
    """An exception of the server that is not a loss raises SendError from it, and the channel ends with 1011."""
    await _native_failure(bench, late=False, binary=False)


@check("SEND-7")
async def a_native_failure_in_binary(bench: Bench) -> None:
    """The same for a binary message."""
    await _native_failure(bench, late=False, binary=True)


@check("SEND-7")
async def a_late_native_failure(bench: Bench) -> None:
    """The same where the server fails while the send is awaited."""
    await _native_failure(bench, late=True, binary=False)


@check("SEND-7")
async def a_native_failure_in_a_callback(bench: Bench) -> None:
    """A SendError that a callback lets through goes to on_error as any exception, and the channel ends with 1011."""

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    app = failing(bench, lambda: LookupError("the server failed"), options=bench.options(on_text=on_text))
    async with bench.serve(app) as served, served.peer() as peer:
        await peer.send_text("a")
        await peer.send_text("b")
        equal((await peer.receive_close()).code, 1011, "the code that the peer gets")
        equal((await bench.recorder.closed()).code, 1011, "the code")
        equal(bench.recorder.kinds(), ["open", "text", "error", "close"], "the callbacks")
        true(isinstance(bench.recorder.values("error")[0], SendError), "on_error did not get the SendError")


class _Hostile(str):
    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise RuntimeError("no encoder")


@check("SEND-7")
async def a_text_that_the_server_chokes_on(bench: Bench) -> None:
    """A str whose own encode raises is sent as the text it is, or SendError comes from that and ends with 1011."""
    async with bench.serve() as served, pair(bench, served) as (peer, channel):
        try:
            returned = await channel.send_text(_Hostile("text"))
        except SendError as exc:
            true(isinstance(exc.__cause__, RuntimeError), f"the cause of the SendError is {exc.__cause__!r}")
            equal((await peer.receive_close()).code, 1011, "the code that the peer gets")
            equal((await bench.recorder.closed()).code, 1011, "the code")
        else:
            equal(returned, True, "the send")
            equal(await peer.receive(), Text("text"), "the message")
