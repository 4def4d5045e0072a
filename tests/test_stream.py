"""Streams: the handler's life, reads, sends and back-pressure, on channels whose server is the test."""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import logging
import pickle
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

import pytest

from tests.channels import KINDS, facts
from tests.fakes import FakeChannel, FakeConnector, passes
from wsbridge import (
    Application,
    ChannelClosedError,
    CloseReason,
    MessageKindError,
    MessageStream,
    Request,
    WebSocketOptions,
    stream_handler,
)
from wsbridge.options import OPTION_NAMES
from wsbridge.stream import ChannelOptions

TIMEOUT = 30.0  # seconds after which what does not come has failed

Handler = Callable[[Any, Request], Awaitable[object]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[FakeChannel]:
    """Have a test run for both kinds of channel."""
    chosen: type[FakeChannel] = request.param
    return chosen


class HandledChannel:
    """A channel that is served by a handler, and a log that the handler may write to."""

    def __init__(self, handler: Handler | None = None, **options: Any) -> None:
        self.log: list[Any] = []
        self.streams: list[MessageStream[Any]] = []
        self.channel: FakeChannel
        self.task: asyncio.Task[None]

        async def run(stream: MessageStream[Any], request: Request) -> None:
            self.streams.append(stream)
            if handler is None:
                await stream.wait_closed()
            else:
                await handler(stream, request)

        self.connector = FakeConnector(Application([("/{name}", stream_handler(run, **options))]))

    async def open(self, kind: type[FakeChannel] = KINDS[1]) -> MessageStream[Any]:
        self.channel = await self.connector.open("/chat", kind=kind)
        (self.task,) = self.connector.tasks
        await passes()
        return self.streams[0]

    def comes(self, *messages: str | bytes) -> None:
        for message in messages:
            self.channel.comes("text" if isinstance(message, str) else "binary", message)

    def leaves(self, code: int = 1000, text: str = "") -> None:
        self.channel.comes("close", code, text)
        self.channel.comes("lost")

    async def ended(self) -> CloseReason:
        await passes(40)
        assert self.task.done()
        await self.task
        assert self.channel.reason is not None
        return self.channel.reason


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def reads(served: HandledChannel) -> Handler:
    async def handler(stream: MessageStream[Any], request: Request) -> None:
        async for message in stream:
            served.log.append(message)
        served.log.append("end")

    return handler


# ---- definition -----------------------------------------------------------------------------------------------------


async def nothing(stream: MessageStream[Any], request: Request) -> None: ...


def plain(stream: MessageStream[Any], request: Request) -> None: ...


class Callable_:
    async def __call__(self, stream: MessageStream[Any], request: Request) -> None: ...

    async def method(self, stream: MessageStream[Any], request: Request) -> None: ...


@pytest.mark.rule("STREAM-10")
@pytest.mark.parametrize("handler", [plain, None, 7, print, functools.partial(plain), Callable_])
def test_what_is_no_coroutine_function_is_refused(handler: Any) -> None:
    with pytest.raises(TypeError, match="handler must be a coroutine function, not"):
        stream_handler(handler)


@pytest.mark.parametrize("handler", [nothing, functools.partial(nothing), Callable_(), Callable_().method])
def test_what_is_a_coroutine_function_in_any_form_is_taken(handler: Any) -> None:
    assert isinstance(stream_handler(handler), WebSocketOptions)


@pytest.mark.rule("STREAM-10")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"on_ping": print}, TypeError),
        *(({name: print}, TypeError) for name in ("on_open", "on_text", "on_binary", "on_message", "on_close")),
        ({"on_error": 7}, TypeError),
        ({"codec": object()}, TypeError),
        ({"cancel_on_close": 1}, TypeError),
        ({"receive_buffer": True}, TypeError),
        ({"receive_buffer": "16"}, TypeError),
        ({"receive_buffer": 0}, ValueError),
        ({"idle_timeout": "1"}, TypeError),
        ({"max_text_size": 0}, ValueError),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        stream_handler(nothing, **options)


def test_the_options_of_a_channel_are_those_of_a_stream_but_for_the_callbacks() -> None:
    callbacks = {"on_open", "on_text", "on_binary", "on_close", "on_error", "on_message"}
    assert set(get_type_hints(ChannelOptions)) == OPTION_NAMES - callbacks - {"codec"}
    assert stream_handler(nothing, idle_timeout=7, subprotocols=["a"]).idle_timeout == 7


# ---- the stream -----------------------------------------------------------------------------------------------------


async def test_a_stream_tells_what_its_channel_does(kind: type[FakeChannel]) -> None:
    served = HandledChannel()
    stream = await served.open(kind)
    assert (stream.id, stream.channel, stream.subprotocol) == (served.channel.id, served.channel, None)
    assert (stream.request.path_params["name"], stream.reason) == ("chat", None)
    served.leaves(4001, "bye")
    assert await served.ended() is stream.reason
    assert facts(stream.reason) == (4001, "bye", "peer")


async def test_messages_are_read_in_order(kind: type[FakeChannel]) -> None:
    served = HandledChannel(lambda stream, request: reads(served)(stream, request))
    await served.open(kind)
    served.comes("a", b"b")
    await passes()
    served.comes(*"cdefghijklmnopqrstuvwxyz")
    served.leaves()
    assert facts(await served.ended()) == (1000, "", "peer")
    assert served.log == ["a", b"b", *"cdefghijklmnopqrstuvwxyz", "end"]


async def test_reads_by_kind() -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        with pytest.raises(MessageKindError, match=f"recv_text: the next message of channel {stream.id} is binary"):
            await stream.recv_text()
        served.log += [await stream.recv_binary(), await stream.recv(timeout=None), await stream.recv_text(timeout=1)]
        with pytest.raises(MessageKindError, match="is a text"):
            await stream.recv_binary()

    served = HandledChannel(handler)
    await served.open()
    served.comes(b"a", "b", "c", "d")
    await passes()
    served.leaves()
    await served.ended()
    assert served.log == [b"a", "b", "c"]


async def test_a_read_may_time_out_or_be_cancelled() -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await stream.recv(timeout=0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await anext(stream)
        served.log.append("ready")
        reader = asyncio.ensure_future(stream.recv())
        await asyncio.sleep(0)
        served.comes("a")
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        served.log.append(await stream.recv(timeout=0))

    served = HandledChannel(handler)
    await served.open()
    await until(lambda: served.log == ["ready", "a"])
    served.leaves()
    await served.ended()


async def test_a_second_reader_is_refused() -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        first = asyncio.ensure_future(stream.recv())
        await asyncio.sleep(0)
        for read in (stream.recv, stream.recv_text, stream.recv_binary, stream.__anext__):
            with pytest.raises(RuntimeError, match=f"another task is reading from channel {stream.id}"):
                await read()
        served.comes("a", "b")
        served.log += [await first, await stream.recv()]

    served = HandledChannel(handler)
    await served.open()
    await passes()
    assert served.log == ["a", "b"]
    served.leaves()
    await served.ended()


async def test_reads_after_the_end_raise_every_time(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        assert [message async for message in stream] == ["a"]
        for _ in range(2):
            with pytest.raises(ChannelClosedError, match=r"the channel has ended: 4001 \(private\) 'bye' by peer") as e:
                await stream.recv()
            assert e.value.reason is stream.reason
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        served.log.append("done")

    served = HandledChannel(handler)
    await served.open(kind)
    served.comes("a")
    served.leaves(4001, "bye")
    await served.ended()
    assert served.log == ["done"]


def test_the_error_can_be_pickled() -> None:
    error = ChannelClosedError(CloseReason(1000, "", "local", "normal", "ok"))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.reason == error.reason
    assert str(copy) == "the channel has ended: 1000 (normal) by local"


async def test_close_ends_a_read_that_waits_and_drops_what_is_unread(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        reader = asyncio.ensure_future(stream.recv())
        await asyncio.sleep(0)
        stream.close(4000, "over")
        with pytest.raises(ChannelClosedError):
            await reader
        with pytest.raises(ValueError, match="close code"):
            stream.close(999)
        stream.close(4001)
        served.log.append(stream.reason)

    served = HandledChannel(handler)
    await served.open(kind)
    await passes()
    assert facts(served.log[0]) == (4000, "over", "local")
    assert served.channel.wire.written == [("close", 4000, "over")]
    served.leaves()
    await served.ended()


async def test_a_reader_that_was_woken_for_a_message_may_find_none() -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        async def read() -> None:
            served.log.append([message async for message in stream])

        reader = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        served.comes("a")
        await until(lambda: stream._waiter is None or stream._waiter.done())
        stream.close()
        await reader

    served = HandledChannel(handler)
    await served.open()
    await passes()
    assert served.log == [[]]
    served.leaves()
    await served.ended()


# ---- sends ----------------------------------------------------------------------------------------------------------


async def test_sends_of_every_kind() -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        for message in ("a", b"b", bytearray(b"c"), memoryview(b"d"), io.BytesIO(b"e")):
            await stream.send(message)
        wrong: Any = 7
        with pytest.raises(TypeError, match="int"):
            await stream.send(wrong)
        await stream.send("f")

    served = HandledChannel(handler)
    await served.open()
    await until(lambda: len(served.channel.wire.written) == 7)
    written = served.channel.wire.written
    assert [data for _, data, *_ in written] == ["a", b"b", b"c", b"d", b"e", "f", 1000]
    served.leaves()
    await served.ended()


async def test_a_send_after_the_end_raises_its_reason(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        await stream.wait_closed()
        for message in ("a", b"b"):
            with pytest.raises(ChannelClosedError) as e:
                await stream.send(message)
            served.log.append(e.value.reason)

    served = HandledChannel(handler)
    stream = await served.open(kind)
    served.leaves(1001)
    await served.ended()
    assert served.log == [stream.reason] * 2


async def test_the_end_behind_unread_messages_is_known_at_once() -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        served.log.append((await stream.wait_closed()).code)
        served.log += [message async for message in stream]

    served = HandledChannel(handler, receive_buffer=2)
    await served.open()
    served.comes(*"abcdefgh", "i" * 100_000, "j")
    served.leaves(4001)
    async with asyncio.timeout(TIMEOUT):
        await asyncio.shield(served.task)
    assert served.log == [4001, *"abcdefgh", "i" * 100_000, "j"]


async def test_a_send_learns_of_an_end_behind_unread_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsbridge.stream.TellsEarly", type(None))  # a channel that is no more than a WebSocketChannel

    gone = asyncio.Event()

    async def handler(stream: MessageStream, request: Request) -> None:
        await gone.wait()
        assert stream.reason is not None
        with pytest.raises(ChannelClosedError) as e:
            await stream.send("late")
        served.log.append(e.value.reason.code)
        served.log += [message async for message in stream]

    served = HandledChannel(handler, receive_buffer=2)
    await served.open()
    served.comes(*"abcdefgh", "i" * 100_000, "j")
    served.leaves(4001)
    gone.set()
    async with asyncio.timeout(TIMEOUT):
        await asyncio.shield(served.task)
    assert served.log == [4001, *"abcdefgh", "i" * 100_000, "j"]


# ---- the handler's end ----------------------------------------------------------------------------------------------


async def test_a_handler_that_returns_closes_with_1000(kind: type[FakeChannel]) -> None:
    served = HandledChannel(nothing)
    stream = await served.open(kind)
    assert served.channel.wire.written == [("close", 1000, "")]
    served.comes("dropped")
    served.leaves()
    assert facts(await served.ended()) == (1000, "", "local")
    with pytest.raises(ChannelClosedError):
        await stream.recv()


class HandlerMishap(Exception):
    pass


def raising(*errors: BaseException, after_end: bool = False) -> Handler:
    async def handler(stream: MessageStream, request: Request) -> None:
        if after_end:
            await stream.wait_closed()
        raise errors[0]

    return handler


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_that_raises_fails(
    kind: type[FakeChannel], caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    error, told = HandlerMishap("a"), []

    def on_error(*arguments: Any) -> None:
        told.append(arguments)

    async def on_error_later(*arguments: Any) -> None:
        await asyncio.sleep(0)
        told.append(arguments)

    served = HandledChannel(raising(error), on_error=on_error_later if is_async else on_error)
    stream = await served.open(kind)
    await passes()
    assert told == [(served.channel, stream, error)]
    served.leaves()
    assert facts(await served.ended()) == (1011, "", "local")
    (record,) = caplog.records
    assert record.getMessage() == f"the handler of channel {stream.id} ('/chat') raised HandlerMishap"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_a_handler_that_raises_after_the_end_changes_no_reason(caplog: pytest.LogCaptureFixture) -> None:
    served = HandledChannel(raising(HandlerMishap("a"), after_end=True))
    await served.open()
    served.leaves(4001)
    assert (await served.ended()).code == 4001
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("error", [HandlerMishap("b"), asyncio.CancelledError("b")])
async def test_what_on_error_raises_is_logged(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    async def on_error(*arguments: Any) -> None:
        raise error

    served = HandledChannel(raising(HandlerMishap("a")), on_error=on_error)
    stream = await served.open()
    served.leaves()
    assert (await served.ended()).code == 1011
    assert caplog.records[1].getMessage() == f"on_error of channel {stream.id} raised"


async def test_an_on_error_may_be_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def on_error(*arguments: Any) -> None:
        await asyncio.Event().wait()

    served = HandledChannel(raising(HandlerMishap("a")), on_error=on_error, cancel_on_close=True)
    stream = await served.open()
    served.leaves()
    assert (await served.ended()).code == 1011
    assert caplog.messages[1] == f"on_error of channel {stream.id} was cancelled"


@pytest.mark.parametrize("in_group", [False, True])
async def test_the_error_of_the_end_is_no_failure(caplog: pytest.LogCaptureFixture, in_group: bool) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        if not in_group:
            await stream.recv()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(send(stream))

    async def send(stream: MessageStream) -> None:
        await stream.wait_closed()
        await stream.send("late")

    served = HandledChannel(handler)
    await served.open()
    served.leaves()
    await served.ended()
    assert caplog.records == []


async def test_another_error_beside_that_of_the_end_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    end = ChannelClosedError(CloseReason(1000, "", "local", "normal", "ok"))
    served = HandledChannel(raising(ExceptionGroup("both", [end, HandlerMishap("a")]), after_end=True))
    await served.open()
    served.leaves()
    await served.ended()
    assert len(caplog.records) == 1


async def test_the_error_of_the_end_while_the_channel_is_open_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    served = HandledChannel(raising(ChannelClosedError(CloseReason(1000, "", "local", "normal", "ok"))))
    await served.open()
    served.leaves()
    assert (await served.ended()).code == 1011
    assert len(caplog.records) == 1


async def test_a_cancelled_error_that_nobody_caused_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    served = HandledChannel(raising(asyncio.CancelledError("a")))
    await served.open()
    served.leaves()
    assert (await served.ended()).code == 1011
    assert len(caplog.records) == 1


async def test_a_cancelled_handler_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        served.log.append(asyncio.current_task())
        await asyncio.Event().wait()

    served = HandledChannel(handler)
    await served.open()
    served.log[0].cancel()
    await passes()
    assert served.channel.wire.written == [("close", 1011, "")]
    served.leaves()
    assert (await served.ended()).code == 1011
    assert caplog.records == []


# ---- the channel's end ----------------------------------------------------------------------------------------------


async def test_a_busy_handler_is_waited_for(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        served.log.append(await stream.wait_closed())
        await gate.wait()

    gate = asyncio.Event()
    served = HandledChannel(handler)
    stream = await served.open(kind)
    served.leaves()
    await passes()
    assert served.log == [stream.reason]
    assert not served.task.done()
    gate.set()
    await served.ended()


async def test_a_busy_handler_is_cancelled_where_that_is_asked_for(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            served.log.append("cancelled")

    served = HandledChannel(handler, cancel_on_close=True)
    await served.open(kind)
    served.leaves(4001)
    assert (await served.ended()).code == 4001
    assert served.log == ["cancelled"]


async def test_a_handler_may_be_cancelled_before_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    served = HandledChannel(cancel_on_close=True)
    served.channel = await served.connector.open("/chat")
    (served.task,) = served.connector.tasks
    served.leaves()
    await served.ended()
    assert (served.streams, caplog.records) == ([], [])


async def test_a_cancelled_channel_cancels_its_handler(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            served.log.append("cancelled")

    served = HandledChannel(handler)
    stream = await served.open()
    served.leaves()
    await passes()
    served.channel.cancel()
    await served.ended()
    assert served.log == ["cancelled"]
    assert caplog.messages == [f"on_close of channel {stream.id} was cancelled"]


async def test_nothing_is_kept_after_the_end(kind: type[FakeChannel]) -> None:
    served = HandledChannel(lambda stream, request: reads(served)(stream, request))
    stream = await served.open(kind)
    served.comes("a")
    served.leaves()
    await served.ended()
    kept = weakref.ref(stream)
    gc.disable()
    try:
        served.streams.clear()
        del stream, served.channel
        assert kept() is None  # without the collector: there are no cycles
    finally:
        gc.enable()


# ---- back-pressure --------------------------------------------------------------------------------------------------


def slow_reader(served: HandledChannel, gate: asyncio.Semaphore) -> Handler:
    async def handler(stream: MessageStream, request: Request) -> None:
        while True:
            await gate.acquire()
            served.log.append(len(await stream.recv()))

    return handler


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5, 6, 7], [70_000, 1, 80_000, 90_000, 2, 3, 4]])
async def test_the_channel_waits_while_the_buffer_is_full(kind: type[FakeChannel], sizes: list[int]) -> None:
    gate = asyncio.Semaphore(0)
    served = HandledChannel(lambda stream, request: slow_reader(served, gate)(stream, request), receive_buffer=3)
    stream = await served.open(kind)
    served.comes(*("x" * size for size in sizes))
    for read in range(len(sizes)):
        await passes()
        assert served.log == sizes[:read]
        assert len(stream._buffer) <= 3
        assert sum(map(len, stream._buffer)) < 2 * 90_000
        gate.release()
    await passes()
    assert served.log == sizes
    gate.release()
    served.leaves()
    await served.ended()


async def test_a_channel_that_waits_for_room_goes_on_when_the_handler_ends(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        await gate.wait()

    gate = asyncio.Event()
    served = HandledChannel(handler, receive_buffer=1)
    await served.open(kind)
    served.comes("a", "b", "c")
    await passes()
    gate.set()
    await passes()
    served.leaves()
    assert facts(await served.ended()) == (1000, "", "local")


async def test_a_stop_is_not_held_up_by_a_full_buffer(kind: type[FakeChannel]) -> None:
    async def handler(stream: MessageStream, request: Request) -> None:
        await asyncio.Event().wait()

    served = HandledChannel(handler, receive_buffer=1)
    await served.open(kind)
    served.comes("a", "b")
    await passes()
    served.channel.shut_down()
    served.leaves()
    served.channel.cut_off()
    for _ in range(2):
        served.channel.cancel()
        await passes()
    assert served.task.done()
    assert facts(served.channel.reason) == (1001, "server shutdown", "local")
