"""`WebSocketConnection`: a bounded queue in front of a channel."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any, cast

import pytest

from tests.fakes import FakeConnector
from wsbridge import (
    Application,
    CloseReason,
    SendResult,
    WebSocketChannel,
    WebSocketConnection,
    WebSocketOptions,
    start_ws_connection,
)

SUCCESS, CLOSED = SendResult.SUCCESS, SendResult.CLOSED


class Channel:
    """A channel whose sends wait while `held`, and which writes down what it was told."""

    def __init__(self) -> None:
        self.id = "0123"
        self.reason: CloseReason | None = None
        self.sent: list[Any] = []
        self.gone = False
        self.errors: dict[Any, Exception] = {}
        self.one_by_one = False
        self.closes = 0
        self.closed_with: tuple[int, str] | None = None
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def end(self) -> None:
        """End as a close by the peer does."""
        self.gone = True
        self.reason = CloseReason(1000, "", "peer", "normal", "normal")
        self.let_go()

    async def send_text(self, text: str) -> bool:
        return await self._send(text)

    async def send_binary(self, data: Any) -> bool:
        return await self._send(data)

    async def _send(self, message: Any) -> bool:
        await self._open.wait()
        if self.one_by_one:
            self.hold()
        if isinstance(message, str) and message in self.errors:
            raise self.errors[message]
        if self.gone:
            return False
        self.sent.append(message)
        return True

    def close(self, code: int = 1000, text: str = "") -> None:
        self.closed_with = (code, text)
        self.closes += 1
        self.reason = CloseReason(1000, "", "local", "normal", "normal")
        self.gone = True


def connect(channel: Channel, **options: Any) -> WebSocketConnection[Any]:
    return start_ws_connection(cast(WebSocketChannel, channel), **options)


def task_of(awaitable: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(awaitable)


async def passes() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.rule("CONN-1")
async def test_messages_are_sent_one_after_another_in_order() -> None:
    channel = Channel()
    connection = connect(channel)
    assert connection.channel is cast(WebSocketChannel, channel)
    for message in ("a", b"b", bytearray(b"c"), "d"):
        assert await connection.put(message) is None
    await passes()
    assert channel.sent == ["a", b"b", bytearray(b"c"), "d"]


@pytest.mark.rule("CONN-1")
@pytest.mark.parametrize(("options", "size"), [({}, 10), ({"send_buffer": 1}, 1), ({"send_buffer": 3}, 3)])
async def test_the_queue_holds_so_many_beside_the_one_on_its_way(options: dict[str, int], size: int) -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, **options)
    connection.put_nowait("on its way")
    await passes()
    for number in range(size):
        assert connection.put_nowait(str(number)) is None
    with pytest.raises(asyncio.QueueFull, match=f"holds {size}"):
        connection.put_nowait("one too many")
    channel.let_go()
    await passes()
    assert channel.sent == ["on its way", *map(str, range(size))]


@pytest.mark.rule("CONN-1")
@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
async def test_a_size_that_is_none_is_refused(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="send_buffer"):
        connect(Channel(), send_buffer=size)


@pytest.mark.rule("CONN-2")
async def test_put_waits_for_room_and_keeps_the_order_of_the_calls() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("0")
    await passes()
    puts = [task_of(connection.put(str(number))) for number in range(1, 5)]
    await passes()
    assert [put.done() for put in puts] == [True, False, False, False]
    channel.let_go()
    await asyncio.sleep(0)
    late = task_of(connection.put("late"))
    assert await asyncio.gather(*puts, late) == [None] * 5
    await passes()
    assert channel.sent == ["0", "1", "2", "3", "4", "late"]


@pytest.mark.rule("CONN-2")
async def test_send_waits_for_its_own_result() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel)
    sends = [task_of(connection.send("a")), task_of(connection.send(b"b"))]
    await passes()
    assert not any(send.done() for send in sends)
    channel.let_go()
    assert await asyncio.gather(*sends) == [SUCCESS, SUCCESS]
    assert channel.sent == ["a", b"b"]


@pytest.mark.rule("CONN-2")
async def test_send_raises_what_its_own_send_raised(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    error = channel.errors["b"] = TypeError("wrong")
    connection = connect(channel)
    results = await asyncio.gather(*(connection.send(text) for text in "abc"), return_exceptions=True)
    assert results == [SUCCESS, error, SUCCESS]
    assert caplog.records == []


@pytest.mark.rule("CONN-2", "CONN-3")
async def test_an_exception_that_nobody_waits_for_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    error = channel.errors["b"] = TypeError("wrong")
    connection = connect(channel)
    for text in "abc":
        await connection.put(text)
    await passes()
    assert channel.sent == ["a", "c"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("wsbridge", logging.ERROR)
    assert channel.id in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.rule("CONN-7")
@pytest.mark.parametrize("which", range(4))
async def test_a_send_that_is_cancelled_while_it_waits_is_never_sent_and_disturbs_nobody(which: int) -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=2)
    sends = [task_of(connection.send(text)) for text in "abcd"]  # one on its way, two in the queue, one for a place
    await passes()
    sends[which].cancel()
    await asyncio.wait((sends[which],))
    assert sends[which].cancelled()
    channel.let_go()
    others = [send for send in sends if send is not sends[which]]
    assert await asyncio.gather(*others) == [SUCCESS] * 3
    assert channel.sent == [text for text in "abcd" if text != "abcd"[which]]
    assert await connection.send("again") is SUCCESS


@pytest.mark.rule("CONN-7")
async def test_a_retry_does_not_double() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=2)
    for text in "ab":
        await connection.put(text)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await connection.send("late")
    last = task_of(connection.send("late"))
    await passes()
    channel.let_go()
    assert await last is SUCCESS
    assert channel.sent == ["a", "b", "late"]


@pytest.mark.rule("CONN-7")
async def test_a_cancelled_send_gives_its_place_to_who_waits_for_one() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("a")
    await passes()
    send = task_of(connection.send("b"))
    await passes()
    put = task_of(connection.put("c"))
    await passes()
    assert not put.done()
    send.cancel()
    await asyncio.wait((send, put))
    assert put.result() is None
    channel.let_go()
    await passes()
    assert channel.sent == ["a", "c"]


@pytest.mark.rule("CONN-7")
async def test_a_send_that_is_cancelled_as_its_message_goes_out_harms_nobody() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel)
    sends = [task_of(connection.send(text)) for text in "ab"]
    await passes()
    channel.let_go()
    sends[0].cancel()  # at once: whether it is still sent nobody can tell
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, SendResult]
    assert channel.sent in (["b"], ["a", "b"])
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.rule("CONN-3", "CONN-5")
async def test_a_sender_that_is_cancelled_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=2)
    before = asyncio.all_tasks()
    sends = [task_of(connection.send(text)) for text in "abcd"]
    await passes()
    (sender,) = asyncio.all_tasks() - before - set(sends)
    sender.cancel()  # as at the end of a loop
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(results[0]), *results[1:]] == [asyncio.CancelledError, CLOSED, CLOSED, CLOSED]
    assert (channel.sent, channel.closes) == ([], 0)
    await connection.close()
    assert channel.closes == 1


@pytest.mark.rule("CONN-3")
async def test_a_sender_that_is_cancelled_gives_up_what_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel)
    before = asyncio.all_tasks()
    for text in "abc":
        assert connection.put_nowait(text) is None
    await passes()
    (sender,) = asyncio.all_tasks() - before
    sender.cancel()  # as at the end of a loop
    await asyncio.wait((sender,))
    channel.let_go()
    await passes()
    assert (channel.sent, sender.cancelled()) == ([], True)
    assert connection.put_nowait("d") is CLOSED
    assert caplog.records == []


class Numbers:
    """Numbers in binary messages."""

    def encode(self, message: int, /) -> bytes:
        return b"%d" % message

    def decode(self, data: str | bytes, /) -> int:
        return int(data)


class CodedChannel(Channel):
    """A channel that was made with a codec."""

    options: WebSocketOptions[None] = WebSocketOptions(codec=Numbers())


@pytest.mark.rule("CONN-6")
async def test_messages_are_encoded_when_they_are_put() -> None:
    channel = CodedChannel()
    connection = connect(channel)
    assert await connection.put(1) is None
    assert connection.put_nowait(2) is None
    assert await connection.send(3) is SUCCESS
    assert channel.sent == [b"1", b"2", b"3"]


@pytest.mark.rule("CONN-6")
@pytest.mark.parametrize(
    ("channel", "message", "error"),
    [
        (CodedChannel, "text", TypeError),
        (Channel, 7, TypeError),
        (Channel, None, TypeError),
        (Channel, {"a": 1}, TypeError),
        (Channel, "a\ud83d", UnicodeEncodeError),
    ],
)
async def test_what_is_wrong_with_a_message_its_caller_gets(
    channel: type[Channel], message: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    made = channel()
    connection = connect(made)
    with pytest.raises(error):
        await connection.put(message)
    with pytest.raises(error):
        connection.put_nowait(message)
    with pytest.raises(error):
        await connection.send(message)
    await connection.close()
    assert (made.sent, caplog.records) == ([], [])


@pytest.mark.rule("CONN-6")
async def test_a_connectors_channel_tells_its_codec() -> None:
    options: WebSocketOptions[Any] = WebSocketOptions(codec=Numbers())
    channel = await FakeConnector(Application([("/", options)])).open()
    await passes()
    connection: WebSocketConnection[Any] = start_ws_connection(channel)
    assert await connection.send(7) is SUCCESS
    with pytest.raises(TypeError):
        await connection.send("text")
    assert channel.wire.written == [("binary", b"7")]
    channel.comes("lost")
    await passes()


@pytest.mark.rule("CONN-1")
async def test_what_is_no_channel_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^channel must be a WebSocketChannel, such as stream.channel, not object$"):
        start_ws_connection(cast(WebSocketChannel, object()))


@pytest.mark.rule("CONN-3")
async def test_a_loop_of_puts_after_the_end_lets_others_run() -> None:
    channel = Channel()
    channel.end()
    connection = connect(channel)
    others: list[str] = []
    for ask in (connection.put, connection.send):
        asyncio.get_running_loop().call_soon(others.append, "ran")
        assert await ask("a") is CLOSED
    assert others == ["ran", "ran"]


@pytest.mark.rule("CONN-4")
async def test_a_close_may_have_a_code_and_a_text() -> None:
    channel = Channel()
    connection = connect(channel)
    for code, text, error in ((1005, "", ValueError), (1000, "x" * 124, ValueError), ("1000", "", TypeError)):
        with pytest.raises(error):
            await connection.close(code, text)  # type: ignore[arg-type]
    assert connection.put_nowait("a") is None  # nothing has been done
    await connection.close(1001, "soon")
    assert (channel.sent, channel.closed_with) == (["a"], (1001, "soon"))


@pytest.mark.rule("CONN-2")
async def test_a_put_that_is_cancelled_while_it_waits_is_not_queued() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("0")
    await passes()
    puts = [task_of(connection.put(text)) for text in ("1", "same", "same", "2")]
    await passes()
    puts[2].cancel()
    channel.let_go()
    await asyncio.wait(puts)
    await passes()
    assert channel.sent == ["0", "1", "same", "2"]


@pytest.mark.rule("CONN-2")
@pytest.mark.parametrize("before", [True, False])
async def test_a_put_that_is_cancelled_as_it_gets_its_place_passes_it_on(before: bool) -> None:
    channel = Channel()
    channel.hold()
    channel.one_by_one = True
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("0")
    await passes()
    connection.put_nowait("1")
    puts = [task_of(connection.put(text)) for text in ("2", "3")]
    await passes()
    channel.let_go()
    if not before:
        await asyncio.sleep(0)
        assert channel.sent == ["0"]  # "1" is on its way now, and "2" has got its place without having been told
    puts[0].cancel()
    await asyncio.wait(puts)
    assert puts[0].cancelled()
    channel.one_by_one = False
    channel.let_go()
    await passes()
    assert channel.sent == ["0", "1", "3"]


@pytest.mark.rule("CONN-2")
async def test_cancelled_puts_leave_nothing_in_memory() -> None:
    class Message(bytearray):
        pass

    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("0")
    await passes()
    connection.put_nowait("1")
    message = Message()
    kept = weakref.ref(message)
    put = task_of(connection.put(message))
    await passes()
    put.cancel()
    await asyncio.wait((put,))
    del message, put
    gc.collect()
    assert kept() is None
    channel.let_go()
    await passes()


@pytest.mark.rule("CONN-3")
async def test_an_ended_channel_answers_closed_to_all_that_wait_and_follow() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=2)
    sends = [task_of(connection.send(text)) for text in "abc"]
    await passes()
    waiting = [task_of(connection.put("d")), task_of(connection.send("e")), task_of(connection.put("f"))]
    await passes()
    channel.end()
    assert await asyncio.gather(*sends, *waiting) == [CLOSED] * 6
    assert await connection.put("g") is CLOSED
    assert connection.put_nowait("h") is CLOSED
    assert await connection.send("i") is CLOSED
    assert (channel.sent, channel.closes) == ([], 0)


@pytest.mark.rule("CONN-3")
async def test_a_channel_that_ended_by_an_exception_frees_all_that_wait() -> None:
    channel = Channel()
    channel.errors["a"] = OSError("broken")
    channel.hold()
    connection = connect(channel, send_buffer=1)
    send = task_of(connection.send("a"))
    await passes()
    waiting = [task_of(connection.send(text)) for text in "bcd"]
    await passes()
    channel.end()
    results = await asyncio.gather(send, *waiting, return_exceptions=True)
    assert [type(results[0]), *results[1:]] == [OSError, CLOSED, CLOSED, CLOSED]


@pytest.mark.rule("CONN-3")
async def test_a_channel_that_takes_no_more_has_ended_before_its_reason_is_known() -> None:
    channel = Channel()
    channel.gone = True
    connection = connect(channel)
    assert await connection.send("a") is CLOSED
    assert await connection.put("b") is CLOSED
    assert channel.reason is None


@pytest.mark.rule("CONN-4")
async def test_close_sends_what_is_queued_and_then_closes() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("a")
    await passes()
    connection.put_nowait("b")
    waiting = task_of(connection.put("c"))
    await passes()
    closing = task_of(connection.close())
    await passes()
    assert (closing.done(), channel.closes, waiting.result()) == (False, 0, CLOSED)
    assert connection.put_nowait("d") is CLOSED
    channel.let_go()
    await closing
    assert (channel.sent, channel.closes, channel.closed_with) == (["a", "b"], 1, (1000, ""))
    await connection.close()
    assert channel.closes == 1


@pytest.mark.rule("CONN-4")
async def test_a_close_that_is_cancelled_loses_no_message() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel)
    connection.put_nowait("a")
    connection.put_nowait("b")
    closing = task_of(connection.close())
    await passes()
    closing.cancel()
    await asyncio.wait((closing,))
    channel.let_go()
    await connection.close()
    assert (channel.sent, channel.closes) == (["a", "b"], 1)


@pytest.mark.rule("CONN-4")
async def test_a_put_that_is_cancelled_just_before_a_close_stays_cancelled() -> None:
    channel = Channel()
    channel.hold()
    connection = connect(channel, send_buffer=1)
    connection.put_nowait("0")
    await passes()
    connection.put_nowait("1")
    put = task_of(connection.put("2"))
    await passes()
    put.cancel()
    closing = connection.close()
    channel.let_go()
    await closing
    await asyncio.wait((put,))
    assert put.cancelled()
    assert channel.sent == ["0", "1"]


@pytest.mark.rule("CONN-4")
async def test_close_on_an_ended_channel_closes_nothing() -> None:
    channel = Channel()
    connection = connect(channel)
    channel.end()
    await connection.close()
    assert channel.closes == 0


@pytest.mark.rule("CONN-4")
async def test_it_is_an_async_context_manager() -> None:
    channel = Channel()
    async with connect(channel) as connection:
        connection.put_nowait("a")
    assert (channel.sent, channel.closes) == (["a"], 1)
    failing = Channel()

    async def fail() -> None:
        async with connect(failing) as connection:
            connection.put_nowait("a")
            raise KeyError("own")

    with pytest.raises(KeyError):
        await fail()
    assert (failing.sent, failing.closes) == (["a"], 1)


@pytest.mark.rule("CONN-5")
async def test_a_forgotten_connection_leaves_no_task_and_no_object() -> None:
    channel = Channel()
    connection = connect(channel)
    before = asyncio.all_tasks()
    assert await connection.send("a") is SUCCESS
    connection.put_nowait("b")
    await passes()
    assert asyncio.all_tasks() == before
    forgotten = weakref.ref(connection)
    del connection
    gc.collect()
    assert forgotten() is None
    assert channel.sent == ["a", "b"]


@pytest.mark.rule("CONN-5")
async def test_a_connection_that_is_dropped_while_it_sends_goes_on_to_its_end() -> None:
    channel = Channel()
    channel.hold()
    connect(channel).put_nowait("a")
    await passes()
    gc.collect()
    channel.let_go()
    await passes()
    assert channel.sent == ["a"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
