"""`BaseChannel` and `QueuedChannel`: opening, receiving, ending and failing, on a server of the test's own.

Sending is in `test_channel_sending`, time in `test_channel_time`; the three of them cover `wsbridge._channel.channel`.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import io
import itertools
import logging
import string
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from tests.channels import Opened, end_all, facts, kind
from tests.fakes import (
    FakeChannel,
    FakeClosedError,
    FakeConnector,
    PulledChannel,
    PushedChannel,
    handshake,
    passes,
)
from wsbridge import CallbackAlreadySetError, ChannelNotOpenError, WebSocketChannel, WebSocketOptions

__all__ = ["end_all", "kind"]

Kind = type[FakeChannel]


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---- opening ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OPEN-7")
async def test_an_id_is_128_bits_of_its_own(kind: Kind) -> None:
    opened = [Opened(kind, run=False) for _ in range(100)]
    ids = {each.channel.id for each in opened}
    assert len(ids) == 100
    assert all(len(id) == 32 and set(id) <= set(string.hexdigits) for id in ids)


async def test_a_channel_is_what_the_protocol_says(kind: Kind) -> None:
    connector = FakeConnector()
    channel = kind(connector, handshake(), WebSocketOptions(), "chat")
    assert isinstance(channel, WebSocketChannel)
    assert (channel.subprotocol, channel.native, channel.reason) == ("chat", None, None)
    assert not hasattr(channel, "__dict__")


@pytest.mark.rule("OPEN-1", "OPEN-2")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_every_callback_gets_what_on_open_returned(kind: Kind, asynchronous: bool) -> None:
    process = object()

    async def later(channel: Any, request: Any) -> object:
        return process

    opened = Opened(kind, on_open=later if asynchronous else lambda channel, request: process)
    opened.comes("text", "a")
    opened.comes("binary", b"b")
    await opened.leave()
    assert opened.log == ["open", "text a", "binary b'b'", "close 1000"]
    assert all(each is process for each in opened.processes)


@pytest.mark.rule("OPEN-1")
async def test_without_callbacks_a_channel_lives_and_the_process_is_none(kind: Kind) -> None:
    connector = FakeConnector()
    connector.use_fake_time()
    seen: list[object] = []
    channel = kind(connector, handshake(), WebSocketOptions(on_text=lambda *arguments: seen.append(arguments[1])), None)
    task = connector.run_channel(channel)
    for arguments in (("text", "a"), ("binary", b"b"), ("close", None, ""), ("lost",)):
        channel.comes(*arguments)
    await task
    assert (seen, facts(channel.reason)) == ([None], (1005, "", "peer"))


@pytest.mark.rule("OPEN-2")
@pytest.mark.parametrize("idle_timeout", [None, 5])
async def test_a_task_or_future_that_a_callback_returns_is_a_value(kind: Kind, idle_timeout: float | None) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    opened = Opened(
        kind,
        on_open=lambda channel, request: future,
        on_text=lambda channel, process, text: future,
        on_close=lambda channel, process, reason: future,
        idle_timeout=idle_timeout,
    )
    opened.comes("text", "a")
    opened.comes("text", "b")
    await opened.leave()
    assert opened.log == ["open", "text a", "text b", "close 1000"]
    assert opened.processes == [future] * 3


class Compiled(Coroutine[Any, Any, None]):
    """A coroutine of another type than Python's own, as compiled code has them."""

    def __init__(self) -> None:
        self.steps = 0

    def send(self, value: Any, /) -> Any:
        self.steps += 1
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise AssertionError(error)

    def close(self) -> None: ...

    def __await__(self) -> Generator[Any, Any, None]:
        self.steps += 1
        yield from ()


@pytest.mark.rule("OPEN-2")
async def test_a_coroutine_of_any_type_is_awaited(kind: Kind) -> None:
    compiled = Compiled()
    opened = Opened(kind, on_text=lambda channel, process, text: compiled)
    opened.comes("text", "a")
    await opened.leave()
    assert compiled.steps == 1


@pytest.mark.rule("OPEN-3", "OPEN-9")
async def test_messages_wait_while_on_open_runs(kind: Kind) -> None:
    gate = asyncio.Event()

    async def on_open(channel: Any, request: Any) -> None:
        await gate.wait()

    opened = Opened(kind, on_open=on_open)
    for text in "abc":
        opened.comes("text", text)
    opened.comes("binary", b"d")
    await passes()
    assert opened.log == ["open"]
    gate.set()
    await opened.leave()
    assert opened.log == ["open", "text a", "text b", "text c", "binary b'd'", "close 1000"]


@pytest.mark.rule("OPEN-9")
@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (("close", 4000, "bye"), (4000, "bye", "peer")),
        (("lost",), (1006, "", "network")),
        (("failed", 1002), (1002, "", "local")),
    ],
)
async def test_a_long_on_open_does_not_hide_the_end(
    kind: Kind, report: tuple[Any, ...], expected: tuple[int, str, str]
) -> None:
    sent: list[bool] = []

    async def on_open(channel: WebSocketChannel, request: Any) -> None:
        while await channel.send_text("tick"):
            await passes(1)
        sent.append(False)
        assert facts(await channel.wait_closed()) == expected

    opened = Opened(kind, on_open=on_open)
    await passes()
    opened.comes("pong", b"")
    opened.comes(*report)
    await passes()
    assert sent == [False]
    opened.comes("lost")
    assert facts(await opened.ended()) == expected
    assert opened.log == ["open", f"close {expected[0]}"]


@pytest.mark.rule("OPEN-5")
async def test_on_open_may_close(kind: Kind) -> None:
    gate = asyncio.Event()

    async def on_open(channel: WebSocketChannel, request: Any) -> None:
        channel.close(4001, "no")
        await gate.wait()

    opened = Opened(kind, on_open=on_open)
    opened.comes("text", "a")
    await passes()
    opened.comes("close", 4001, "")
    opened.comes("lost")
    await passes()
    assert opened.log == ["open"]
    gate.set()
    assert facts(await opened.ended()) == (4001, "no", "local")
    assert opened.log == ["open", "close 4001"]


@pytest.mark.rule("OPEN-6", "ERR-1")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_on_open_that_raises_ends_the_channel_without_on_close(
    kind: Kind, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(channel: Any, request: Any) -> None:
        raise ValueError("no")

    async def fail_later(channel: Any, request: Any) -> None:
        fail(channel, request)

    opened = Opened(kind, on_open=fail_later if asynchronous else fail)
    opened.comes("text", "a")
    await opened.leave()
    assert opened.log == ["open", "error ValueError('no')"]
    assert opened.processes == [None]
    assert facts(opened.channel.reason) == (1011, "", "local")
    assert ("close", 1011, "") in opened.written
    assert len(errors(caplog)) == 1


@pytest.mark.rule("OPEN-8")
async def test_callbacks_can_be_set_once_and_serve_what_comes_after(kind: Kind) -> None:
    seen: list[object] = []
    connector = FakeConnector()
    channel = kind(connector, handshake(), WebSocketOptions(), None)
    channel.on_text(lambda *arguments: seen.append(arguments[2]))
    task = connector.run_channel(channel)
    channel.comes("binary", b"dropped")
    channel.comes("text", "a")
    await passes()
    channel.on_binary(lambda *arguments: seen.append(arguments[2]))
    for setter in (channel.on_text, channel.on_binary):
        with pytest.raises(CallbackAlreadySetError, match=channel.id):
            setter(print)
    channel.comes("binary", b"b")
    await passes()
    channel.comes("close", 1000, "")
    channel.comes("lost")
    await task
    assert seen == ["a", b"b"]


@pytest.mark.rule("OPEN-8")
async def test_a_callback_of_the_options_cannot_be_replaced(kind: Kind) -> None:
    opened = Opened(kind, run=False)
    for setter in (opened.channel.on_text, opened.channel.on_binary):
        with pytest.raises(CallbackAlreadySetError):
            setter(print)


async def test_a_wrong_callback_or_format_is_refused(kind: Kind) -> None:
    channel = kind(FakeConnector(), handshake(), WebSocketOptions(), None)
    wrong: Any = "callback"
    with pytest.raises(TypeError, match="on_text"):
        channel.on_text(wrong)
    with pytest.raises(TypeError, match="on_binary"):
        channel.on_binary(wrong)
    wrong = "text"
    with pytest.raises(ValueError, match="'bytes', 'memoryview', 'stream'"):
        channel.on_binary(print, format=wrong)


@pytest.mark.rule("OPEN-10")
async def test_callbacks_run_in_a_task(kind: Kind) -> None:
    async def on_text(channel: Any, process: Any, text: str) -> None:
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            group.create_task(channel.send_text(text))
        assert channel.is_run_by(asyncio.current_task())

    opened = Opened(kind, on_text=on_text)
    opened.comes("text", "a")
    await opened.leave()
    assert opened.written[0] == ("text", "a")
    assert opened.log == ["open", "text a", "close 1000"]
    assert not opened.channel.is_run_by(asyncio.current_task())
    assert not opened.channel.is_run_by(None)


@pytest.mark.rule("OPEN-11")
async def test_before_on_open_sends_and_close_raise(kind: Kind) -> None:
    opened = Opened(kind, run=False)
    channel = opened.channel
    sends: list[Callable[[], Any]] = [
        lambda: channel.send_text("a"),
        lambda: channel.send_binary(b"a"),
        lambda: channel.send_binary(bytearray(b"a")),
        lambda: channel.send_binary(io.BytesIO(b"a")),
    ]
    for send in sends:
        with pytest.raises(ChannelNotOpenError, match=channel.id):
            await send()
    with pytest.raises(ChannelNotOpenError):
        channel.close()
    assert opened.written == []
    assert channel.reason is None


# ---- receiving ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("RECV-2")
@pytest.mark.parametrize("format", ["bytes", "memoryview", "stream"])
async def test_a_binary_message_comes_as_it_was_asked_for(kind: Kind, format: Any) -> None:
    seen: list[Any] = []
    connector = FakeConnector()
    channel = kind(connector, handshake(), WebSocketOptions(), None)
    channel.on_binary(lambda *arguments: seen.append(arguments[2]), format=format)
    task = connector.run_channel(channel)
    for arguments in (("binary", b"abc"), ("lost",)):
        channel.comes(*arguments)
    await task
    (data,) = seen
    if format == "bytes":
        assert type(data) is bytes
        assert data == b"abc"
    elif format == "memoryview":
        assert data.readonly
        assert bytes(data) == b"abc"
    else:
        assert (data.tell(), data.read()) == (0, b"abc")


@pytest.mark.rule("RECV-4", "RECV-5")
@pytest.mark.parametrize("idle_timeout", [None, 5])
async def test_callbacks_of_one_channel_do_not_overlap(kind: Kind, idle_timeout: float | None) -> None:
    trace: list[str] = []

    async def on_message(channel: Any, process: Any, message: Any) -> None:
        trace.append(f"{message!r} begins")
        await passes(3)
        trace.append(f"{message!r} ends")

    opened = Opened(kind, on_text=on_message, on_binary=on_message, idle_timeout=idle_timeout)
    opened.comes("text", "a")
    opened.comes("binary", b"b")
    opened.comes("close", 1000, "")
    opened.comes("lost")
    await passes(40)
    assert trace == ["'a' begins", "'a' ends", "b'b' begins", "b'b' ends"]
    assert opened.log[-1] == "close 1000"


@pytest.mark.rule("RECV-6")
async def test_a_message_without_a_callback_is_dropped(kind: Kind) -> None:
    connector = FakeConnector()
    channel = kind(connector, handshake(), WebSocketOptions(), None)
    task = connector.run_channel(channel)
    channel.comes("text", "a")
    channel.comes("binary", b"a")
    await passes()
    assert channel.reason is None
    channel.comes("lost")
    await task


@pytest.mark.rule("RECV-4", "CLOSE-6", "CLOSE-10")
@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (("close", 1000, ""), (1000, "", "peer")),
        (("lost",), (1006, "", "network")),
        (("failed", 1007), (1007, "", "local")),
    ],
)
async def test_an_end_is_known_at_once_and_messages_before_it_are_delivered(
    kind: Kind, report: tuple[Any, ...], expected: tuple[int, str, str]
) -> None:
    gate = asyncio.Event()

    async def on_text(channel: Any, process: Any, text: str) -> None:
        await gate.wait()

    opened = Opened(kind, on_text=on_text)
    for text in "abc":
        opened.comes("text", text)
    await passes()
    opened.comes(*report)
    opened.comes("lost")
    waiting = asyncio.create_task(opened.channel.wait_closed())
    await passes()
    opened.time.advance(1)
    await passes()
    assert opened.log == ["open", "text a"]
    assert facts(opened.channel.reason) == expected
    assert waiting.result() is opened.channel.reason
    gate.set()
    assert await opened.ended() is waiting.result()
    assert opened.log == ["open", "text a", "text b", "text c", f"close {expected[0]}"]


@pytest.mark.rule("RECV-4", "CLOSE-10")
async def test_a_local_close_drops_what_is_not_delivered_yet(kind: Kind) -> None:
    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4000)

    opened = Opened(kind, on_text=on_text)
    opened.comes("text", "a")
    opened.comes("text", "b")
    opened.comes("close", 1000, "theirs")
    opened.comes("lost")
    expected = (4000, "", "local") if kind is PulledChannel else (1000, "theirs", "peer")  # which was read first
    assert facts(await opened.ended()) == expected
    assert opened.log == ["open", "text a", f"close {expected[0]}"]


@pytest.mark.rule("ERR-1", "CLOSE-10")
async def test_a_message_before_the_end_that_fails_leaves_the_reason_as_it_is() -> None:
    error = ValueError("no")

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise error

    opened = Opened(PushedChannel, on_text=on_text)
    opened.comes("text", "a")
    opened.comes("text", "b")
    opened.comes("close", 4001, "")
    opened.comes("lost")
    assert facts(await opened.ended()) == (4001, "", "peer")
    assert opened.log == ["open", "text a", f"error {error!r}", "close 4001"]


@pytest.mark.rule("CLOSE-6")
@pytest.mark.parametrize("report", [("close", 4001, ""), ("lost",), ("failed", 1002)])
async def test_a_callback_that_waits_for_the_end_gets_it_with_messages_after_it(
    kind: Kind, report: tuple[Any, ...]
) -> None:
    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        if text == "a":
            opened.log.append(f"told {(await channel.wait_closed()).code}")

    opened = Opened(kind, on_text=on_text, ping_interval=None)
    opened.comes("text", "a")
    opened.comes("text", "b")
    await passes()
    opened.comes(*report)
    opened.comes("lost")
    await passes()
    opened.time.advance(1)
    code = (await opened.ended()).code
    assert opened.log == ["open", "text a", f"told {code}", "text b", f"close {code}"]


@pytest.mark.rule("FLOW-4")
async def test_a_loop_that_ignores_the_end_leaves_the_event_loop_to_others(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Opened(kind)
    await passes()
    opened.comes("lost")
    await opened.ended()

    async def send_on() -> None:
        while True:
            await opened.channel.send_text("a")
            await opened.channel.send_binary(b"a")

    task = asyncio.create_task(send_on())
    await passes(3000)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert opened.channel.id in caplog.text


@pytest.mark.rule("OPEN-2")
async def test_an_awaitable_that_is_no_coroutine_is_awaited(kind: Kind) -> None:
    class Compiled:
        def __await__(self) -> Generator[Any, None, None]:
            yield from asyncio.sleep(0).__await__()
            opened.log.append("awaited")

    never = asyncio.get_running_loop().create_future()
    results: dict[str, Any] = {"a": Compiled(), "b": never, "c": 3}
    opened = Opened(kind, on_text=lambda channel, process, text: results[text])
    for text in results:
        opened.comes("text", text)
    await opened.leave()
    assert opened.log == ["open", "text a", "awaited", "text b", "text c", "close 1000"]


@pytest.mark.rule("FLOW-4")
@pytest.mark.parametrize("in_callback", [False, True])
async def test_a_loop_that_sends_leaves_the_event_loop_to_others(kind: Kind, in_callback: bool) -> None:
    async def send_on(channel: WebSocketChannel) -> None:
        while await channel.send_text("a"):
            assert len(opened.written) < 100_000

    opened = Opened(kind, on_text=lambda channel, process, text: send_on(channel))
    await passes()
    if in_callback:
        opened.comes("text", "go")
    else:
        task = asyncio.create_task(send_on(opened.channel))
    await passes()
    opened.comes("lost")
    if kind is PulledChannel and in_callback:
        opened.channel.connection_lost()  # the callback runs, and nobody asks the server
    await opened.ended()
    if not in_callback:
        await asyncio.wait((task,))


@pytest.mark.rule("FLOW-3")
async def test_messages_without_end_leave_the_event_loop_to_others() -> None:
    opened = Opened(PushedChannel)
    await passes()
    seen: list[int] = []

    async def look() -> None:
        while len(opened.log) < 1000:
            await asyncio.sleep(0)
            seen.append(len(opened.log))

    for number in range(1000):
        opened.comes("text", str(number))
    async with asyncio.timeout(10):
        await look()
    assert max(after - before for before, after in itertools.pairwise((1, *seen))) <= 64


@pytest.mark.rule("SEND-6")
async def test_a_send_that_hangs_holds_no_slot_when_the_connection_is_lost(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.wire.blocked = asyncio.get_running_loop().create_future()  # nobody ever says that it is written
    sending = asyncio.create_task(opened.channel.send_text("a"))
    await passes()
    opened.channel.close(4000)
    await passes()
    opened.comes("lost")
    assert facts(await opened.ended()) == (4000, "", "local")
    sending.cancel()


@pytest.mark.rule("RECV-4")
async def test_what_comes_after_an_end_is_dropped(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.channel.close()
    opened.comes("text", "late")
    opened.comes("binary", b"late")
    await opened.leave()
    assert opened.log == ["open", "close 1000"]


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize(
    ("limit", "text", "fits"),
    [
        (4, "abcd", True),
        (4, "abcde", False),
        (4, "\u00e9\u00e9", True),
        (4, "\u00e9\u00e9a", False),
        (4, "\U0001f600", True),
        (4, "\U0001f600a", False),
        (3, "\u20ac", True),
        (1, "", True),
        (None, "x" * 2**20, True),
    ],
)
async def test_a_text_fits_by_its_bytes_in_utf_8(kind: Kind, limit: int | None, text: str, fits: bool) -> None:
    opened = Opened(kind, max_text_size=limit)
    opened.comes("text", text)
    await passes()
    if fits:
        assert opened.log == ["open", f"text {text}"]
        await opened.leave()
    else:
        assert (opened.log, opened.written) == (["open"], [("close", 1009, "")])
        await opened.leave()
        assert facts(opened.channel.reason) == (1009, "", "local")


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize(("limit", "size", "fits"), [(4, 4, True), (4, 5, False), (None, 2**20, True)])
async def test_a_binary_message_fits_by_its_size(kind: Kind, limit: int | None, size: int, fits: bool) -> None:
    opened = Opened(kind, max_binary_size=limit)
    opened.comes("binary", bytes(size))
    await passes()
    assert len(opened.log) == (2 if fits else 1)
    assert (("close", 1009, "") in opened.written) != fits
    await opened.leave()


# ---- ending -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLOSE-1", "CLOSE-3", "CLOSE-4")
async def test_a_local_close_is_answered_and_then_on_close_runs(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.channel.close(4000, "bye")
    assert facts(opened.channel.reason) == (4000, "bye", "local")
    assert opened.written == [("close", 4000, "bye")]
    opened.channel.close(4001, "again")
    assert await opened.channel.send_text("late") is False
    await passes()
    assert opened.log == ["open"]
    opened.comes("close", 4000, "")
    await passes()
    assert opened.log == ["open", "close 4000"]
    assert opened.written == [("close", 4000, "bye"), ("disconnect",)]
    assert facts(opened.reasons[0]) == (4000, "bye", "local")


@pytest.mark.rule("CLOSE-4")
@pytest.mark.parametrize(("code", "answer"), [(4000, 4000), (None, None), (1000, 1000)])
async def test_a_close_of_the_peer_is_answered_with_its_code(kind: Kind, code: int | None, answer: int | None) -> None:
    opened = Opened(kind)
    opened.comes("close", code, "text" if code else "")  # right behind the handshake (HS-11)
    await passes()
    assert opened.log == ["open", f"close {code or 1005}"]
    assert opened.written == [("close", answer, "text" if code else ""), ("disconnect",)]
    assert facts(opened.reasons[0]) == ((code, "text", "peer") if code else (1005, "", "peer"))
    assert opened.task is not None
    assert opened.task.done()
    opened.comes("close", 4444, "again")  # what comes now is nobody's
    opened.comes("lost")
    assert len(opened.written) == 2


@pytest.mark.rule("CLOSE-9")
async def test_a_reason_has_the_connectors_keyword(kind: Kind) -> None:
    opened = Opened(kind)
    reason = await opened.leave()
    assert (reason.name, reason.keyword, str(reason)) == ("normal", "all-fine", "all-fine")


@pytest.mark.rule("CLOSE-7")
async def test_a_loss_after_a_local_close_leaves_the_reason(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.channel.close()
    opened.comes("lost")
    assert facts(await opened.ended()) == (1000, "", "local")
    assert opened.written == [("close", 1000, "")]


@pytest.mark.rule("RECV-8", "RECV-9")
async def test_a_violation_is_told_to_the_peer_which_may_then_finish(kind: Kind) -> None:
    opened = Opened(kind)
    opened.comes("failed", 1002, "reserved bit")
    await passes()
    assert opened.written == [("close", 1002, "reserved bit"), ("disconnect",)]
    assert facts(opened.channel.reason) == (1002, "reserved bit", "local")
    assert opened.log == ["open"]
    opened.comes("failed", 1007)
    opened.comes("lost")
    assert facts(await opened.ended()) == (1002, "reserved bit", "local")
    assert opened.log == ["open", "close 1002"]
    opened.channel.failed(1009)
    assert len(opened.written) == 2


@pytest.mark.rule("CLOSE-7")
async def test_a_violation_after_a_local_close_leaves_the_reason(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.channel.close(4000)
    opened.comes("failed", 1002)
    opened.comes("lost")
    assert facts(await opened.ended()) == (4000, "", "local")
    assert opened.written == [("close", 4000, ""), ("disconnect",)]


@pytest.mark.rule("CLOSE-2")
@pytest.mark.parametrize(
    ("arguments", "error"), [((1005,), ValueError), ((1000, "x" * 124), ValueError), (("1",), TypeError)]
)
async def test_a_wrong_close_raises_and_changes_nothing(kind: Kind, arguments: Any, error: type[Exception]) -> None:
    opened = Opened(kind)
    await passes()
    with pytest.raises(error):
        opened.channel.close(*arguments)
    assert await opened.channel.send_text("open still")
    await opened.leave()
    with pytest.raises(error):
        opened.channel.close(*arguments)


@pytest.mark.rule("CLOSE-6")
async def test_wait_closed_tells_all_who_wait_as_soon_as_it_is_known(kind: Kind) -> None:
    gate = asyncio.Event()

    async def on_text(channel: Any, process: Any, text: str) -> None:
        await gate.wait()

    opened = Opened(kind, on_text=on_text)
    opened.comes("text", "a")
    waiters = [asyncio.ensure_future(opened.channel.wait_closed()) for _ in range(3)]
    await passes()
    waiters[1].cancel()
    await passes()
    assert [waiter.done() for waiter in waiters] == [False, True, False]
    opened.channel.close(4000)
    await passes()
    assert waiters[0].result() is waiters[2].result() is opened.channel.reason
    assert await opened.channel.wait_closed() is opened.channel.reason
    gate.set()
    await opened.leave()


@pytest.mark.rule("CLOSE-10")
async def test_when_closes_cross_the_local_one_wins_if_it_came_first(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.comes("close", 4001, "theirs")
    opened.channel.close(4000, "ours")
    await passes()
    expected = (4000, "ours", "local") if kind is PulledChannel else (4001, "theirs", "peer")
    assert facts(opened.channel.reason) == expected
    opened.comes("lost")
    await opened.ended()


async def test_a_close_frame_that_cannot_be_written_is_left_to_the_receiving_side(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (BrokenPipeError(), FakeClosedError()):
        opened = Opened(kind)
        await passes()
        opened.wire.control_error = error
        opened.channel.close()
        assert opened.written == []
        opened.comes("lost")
        assert facts(await opened.ended()) == (1000, "", "local")
    assert errors(caplog) == []


async def test_a_server_that_fails_to_close_is_cut_off(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    opened = Opened(kind)
    await passes()
    opened.wire.control_error = RuntimeError("broken server")
    opened.channel.close()
    assert opened.written == [("abort",)]
    if kind is PulledChannel:
        opened.comes("lost")
    assert facts(await opened.ended()) == (1000, "", "local")
    assert [record.levelno for record in errors(caplog)] == [logging.ERROR]
    opened.channel.cut_off()
    assert opened.written == [("abort",)]


async def test_a_server_that_stops_reading_without_a_word_has_lost_the_connection() -> None:
    opened = Opened(PulledChannel)
    opened.comes("end")
    assert facts(await opened.ended()) == (1006, "", "network")


async def test_a_server_that_fails_again_behind_the_end_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    opened = Opened(PulledChannel)
    opened.comes("error", RuntimeError("broken server"))
    opened.comes("error", RuntimeError("broken again"))
    assert facts(await opened.ended()) == (1011, "", "local")
    assert [kind for kind in opened.wire.kinds if kind in ("close", "abort")] == ["close", "abort"]
    assert opened.log == ["open", "error RuntimeError('broken server')", "close 1011"]
    assert ["could not read" in record.getMessage() for record in errors(caplog)] == [False, True]


async def test_a_server_that_fails_while_it_is_read_ahead_ends_the_channel(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def on_open(channel: Any, request: Any) -> None:
        await gate.wait()

    opened = Opened(PulledChannel, on_open=on_open)
    opened.comes("error", RuntimeError("broken server"))
    await passes()
    gate.set()
    await passes()
    assert opened.log == ["open", "error RuntimeError('broken server')"]
    opened.comes("lost")
    assert facts(await opened.ended()) == (1011, "", "local")
    assert len(errors(caplog)) == 1


@pytest.mark.rule("HS-10")
async def test_an_abandoned_channel_runs_no_callback(kind: Kind) -> None:
    opened = Opened(kind, run=False)
    opened.channel.abandon()
    assert facts(opened.channel.reason) == (1006, "", "network")
    assert opened.connector.has_room
    assert (opened.log, opened.written, opened.time.timers) == ([], [], [])


@pytest.mark.rule("STOP-2", "STOP-5")
async def test_a_channel_is_shut_down_once_it_is_open(kind: Kind) -> None:
    opened = Opened(kind, run=False)
    opened.channel.shut_down()
    assert opened.channel.reason is None
    opened.task = opened.connector.run_channel(opened.channel)
    await passes()
    opened.channel.shut_down()
    opened.channel.shut_down()
    assert opened.written == [("close", 1001, "server shutdown")]
    assert facts(await opened.leave()) == (1001, "server shutdown", "local")
    assert opened.log == ["open", "close 1001"]


@pytest.mark.rule("STOP-5")
async def test_a_channel_whose_connector_stops_before_on_open_is_closed_untold(kind: Kind) -> None:
    opened = Opened(kind, run=False)
    opened.connector._closed = True
    opened.task = opened.connector.run_channel(opened.channel)
    await passes()
    assert (opened.log, opened.written) == ([], [("close", 1001, "server shutdown")])
    opened.comes("close", 1001, "")
    opened.comes("lost")
    await opened.ended()
    assert opened.log == []


@pytest.mark.rule("SEND-1", "STREAM-8")
async def test_whoever_asks_is_told_early(kind: Kind) -> None:
    opened, told = Opened(kind), list[bool]()
    await passes()
    opened.channel.tell_early(told.append)
    assert told == []
    opened.channel.close(4000)
    assert set(told) == {True}
    late: list[bool] = []
    opened.channel.tell_early(late.append)
    assert late == [True]


@pytest.mark.rule("STREAM-8")
async def test_whoever_asks_is_told_whether_more_is_delivered() -> None:
    gate, told = asyncio.Event(), list[bool]()

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await gate.wait()

    opened = Opened(PushedChannel, on_text=on_text)
    await passes()
    opened.channel.tell_early(told.append)
    opened.comes("text", "a")
    opened.comes("text", "b")
    await passes()
    opened.comes("close", 1000, "")
    assert set(told) == {False}
    gate.set()
    await passes()
    assert told[-1]


@pytest.mark.rule("RECV-4", "CLOSE-6")
@pytest.mark.parametrize("end", [("close", 4001, "bye"), ("lost",), ("failed", 1002)], ids=lambda end: end[0])
async def test_what_comes_after_an_end_is_told_early_is_delivered(kind: Kind, end: tuple[Any, ...]) -> None:
    opened, told = Opened(kind), list[bool]()
    await passes()
    opened.channel.tell_early(told.append)
    opened.comes("text", "first")
    opened.channel.end_read(4001, "bye", "peer")
    assert facts(opened.channel.reason) == (4001, "bye", "peer")
    await passes()
    for number in range(128):
        opened.comes("text", str(number))
        await asyncio.sleep(0)
    await passes()
    assert set(told) == {False}
    opened.comes(*end)
    await passes()
    assert told[-1]
    opened.comes("lost")
    assert facts(await opened.ended()) == (4001, "bye", "peer")
    assert opened.log == ["open", "text first", *(f"text {number}" for number in range(128)), "close 4001"]


@pytest.mark.rule("RECV-4", "CLOSE-10", "SEND-1")
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (("lost",), (1006, "", "network")),
        (("close", 4001, "bye"), (4001, "bye", "peer")),
        (("failed", 1002), (1002, "", "local")),
    ],
    ids=["lost", "close", "failed"],
)
async def test_what_was_read_before_a_loss_is_delivered_and_tells_the_end(
    end: tuple[Any, ...], reason: tuple[int, str, str]
) -> None:
    opened = Opened(PushedChannel, idle_timeout=1, ping_interval=1, ping_timeout=1)
    await passes()
    opened.channel.connection_gone()
    assert not await opened.channel.send_text("to nobody")
    opened.time.advance(1000)  # nothing is late that the peer cannot do any more
    assert opened.channel.reason is None
    opened.comes("text", "was read before")
    await passes()
    opened.comes(*end)
    opened.comes("lost")
    assert facts(await opened.ended()) == reason
    assert opened.log == ["open", "text was read before", f"close {reason[0]}"]
    assert opened.written == []  # no ping, no close frame: there is no connection


@pytest.mark.rule("RECV-4", "CLOSE-5")
async def test_a_local_end_behind_a_loss_drops_what_was_read_and_is_not_held_up() -> None:
    for ending in ("close", "cut off"):
        opened = Opened(PushedChannel, close_timeout=3)
        await passes()
        opened.channel.connection_gone()
        if ending == "close":
            opened.channel.close(4000, "enough")
        else:
            opened.channel.cut_off()
        opened.comes("text", "dropped")
        opened.comes("lost")
        reason = await opened.ended()
        assert facts(reason) == ((4000, "enough", "local") if ending == "close" else (1006, "", "network"))
        assert opened.log == ["open", f"close {reason.code}"]
        assert opened.written == []


@pytest.mark.rule("SEND-6")
async def test_a_close_frame_that_waits_for_a_send_is_not_written_when_the_connection_is_gone() -> None:
    opened = Opened(PushedChannel)
    await passes()
    opened.wire.blocked = blocked = asyncio.get_running_loop().create_future()
    sending = asyncio.create_task(opened.channel.send_text("under way"))
    await passes()
    opened.channel.close(4000)
    opened.channel.connection_gone()
    blocked.set_result(None)
    await sending
    opened.comes("lost")
    assert facts(await opened.ended()) == (4000, "", "local")
    assert "close" not in opened.wire.kinds


@pytest.mark.rule("RECV-4")
@pytest.mark.parametrize("end", [("close", 4001, "bye"), ("failed", 1002)], ids=lambda end: end[0])
async def test_what_is_fed_after_the_end_itself_is_dropped(end: tuple[Any, ...]) -> None:
    opened = Opened(PushedChannel)
    await passes()
    opened.channel.end_read(4001, "bye", "peer")
    opened.comes("text", "before")
    opened.comes(*end)
    opened.comes("text", "after")
    opened.comes("lost")
    await opened.ended()
    assert opened.log == ["open", "text before", "close 4001"]


@pytest.mark.rule("RECV-4")
async def test_a_local_close_after_an_end_that_is_told_early_drops_the_rest(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.channel.end_read(4001, "bye", "peer")
    opened.channel.close(4000)
    opened.comes("text", "dropped")
    opened.comes("lost")
    assert facts(await opened.ended()) == (4001, "bye", "peer")
    assert opened.log == ["open", "close 4001"]


@pytest.mark.rule("CLOSE-6")
@pytest.mark.parametrize("report", ["peer_closed", "failed", "end_read"])
async def test_a_reason_has_a_plain_int_whatever_a_server_reports(kind: Kind, report: str) -> None:
    class Code(enum.IntEnum):
        ABNORMAL = 1006

    opened = Opened(kind)
    await passes()
    arguments = {"peer_closed": (Code.ABNORMAL, ""), "failed": (Code.ABNORMAL,)}.get(
        report, (Code.ABNORMAL, "", "peer")
    )
    getattr(opened.channel, report)(*arguments)
    reason = opened.channel.reason
    assert reason is not None
    assert (type(reason.code), f"{reason.code!r}") == (int, "1006")
    opened.comes("lost")
    await opened.ended()


@pytest.mark.rule("STOP-2")
async def test_a_channel_can_be_cut_off(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    opened.channel.cut_off()
    opened.comes("lost")
    assert facts(await opened.ended()) == (1006, "", "network")
    assert opened.written == [("abort",)]
    opened.channel.cut_off()
    assert opened.written == [("abort",)]


async def test_what_is_left_of_an_ended_channel_is_cut_off_in_the_end(kind: Kind) -> None:
    for scheme, unsent, lingers in (("ws", 0, False), ("ws", 7, True), ("wss", 0, True)):
        opened = Opened(kind, scheme=scheme, close_timeout=3)
        await passes()
        opened.wire.unsent = unsent
        opened.comes("close", 1000, "")
        await passes()
        assert opened.task is not None
        assert opened.task.done()
        opened.time.advance(2.9)
        assert "abort" not in opened.wire.kinds
        opened.time.advance(0.2)
        assert ("abort" in opened.wire.kinds) == lingers


@pytest.mark.rule("THR-3")
async def test_nothing_keeps_an_ended_channel(kind: Kind) -> None:
    opened = Opened(kind, idle_timeout=50)
    await passes()
    gone = weakref.ref(opened.channel)
    connector, time = opened.connector, opened.time
    gc.collect()
    assert gone() is not None
    await opened.leave()
    opened.forget()
    del opened
    gc.collect()
    assert gone() is None
    assert time.timers == []
    assert connector.tasks == set()


# ---- failures of the application ----------------------------------------------------------------------------------


@pytest.mark.rule("ERR-1")
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("message", [("text", "a"), ("binary", b"a")])
async def test_a_callback_that_raises_closes_with_1011_and_tells_on_error(
    kind: Kind, asynchronous: bool, message: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(channel: Any, process: Any, value: Any) -> None:
        raise ValueError("no")

    async def fail_later(channel: Any, process: Any, value: Any) -> None:
        fail(channel, process, value)

    given = fail_later if asynchronous else fail
    opened = Opened(kind, on_open=lambda channel, request: "process", on_text=given, on_binary=given)
    opened.comes(*message)
    opened.comes("text", "dropped")
    await passes()
    assert opened.written == [("close", 1011, "")]
    await opened.leave()
    assert opened.log == ["open", f"{message[0]} {message[1]}", "error ValueError('no')", "close 1011"]
    assert opened.processes == ["process"] * 3
    (record,) = errors(caplog)
    assert (record.name, record.levelno) == ("wsbridge", logging.ERROR)
    assert opened.channel.id in record.getMessage()
    assert "'/'" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


@pytest.mark.rule("ERR-1")
async def test_what_a_callback_raises_after_the_end_leaves_the_reason(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4000)
        raise ValueError("late")

    opened = Opened(kind, on_text=on_text)
    opened.comes("text", "a")
    await opened.leave()
    assert opened.log == ["open", "text a", "error ValueError('late')", "close 4000"]
    assert len(errors(caplog)) == 1


@pytest.mark.rule("ERR-2")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_on_error_and_on_close_raise_is_logged(
    kind: Kind, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(channel: Any, process: Any, value: Any) -> None:
        raise ValueError("no")

    async def fail_later(channel: Any, process: Any, value: Any) -> None:
        assert await channel.send_text("late") is False
        channel.close(4444)
        raise asyncio.CancelledError

    last = fail_later if asynchronous else fail
    opened = Opened(kind, on_text=fail, on_error=last, on_close=last)
    opened.comes("text", "a")
    assert facts(await opened.leave()) == (1011, "", "local")
    assert opened.log == ["open", "text a", "error ValueError('no')", "close 1011"]
    assert [record.getMessage().split(" ")[0] for record in errors(caplog)] == ["a", "on_error", "on_close"]


@pytest.mark.rule("ERR-1")
async def test_without_on_error_a_failure_is_logged_and_on_close_runs(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[int] = []
    connector = FakeConnector()
    options: WebSocketOptions[Any] = WebSocketOptions(
        on_text=lambda channel, process, text: 1 / 0,
        on_close=lambda channel, process, reason: closed.append(reason.code),
    )
    channel = kind(connector, handshake(), options, None)
    task = connector.run_channel(channel)
    channel.comes("text", "a")
    await passes()
    channel.comes("lost")
    await task
    assert (closed, len(errors(caplog))) == ([1011], 1)


@pytest.mark.rule("ERR-3")
async def test_a_cancelled_error_of_its_own_is_an_exception_like_any_other(kind: Kind) -> None:
    async def on_text(channel: Any, process: Any, text: str) -> None:
        raise asyncio.CancelledError

    opened = Opened(kind, on_text=on_text)
    opened.comes("text", "a")
    assert facts(await opened.leave()) == (1011, "", "local")
    assert opened.log == ["open", "text a", "error ", "close 1011"]
    assert opened.task is not None
    assert not opened.task.cancelled()


@pytest.mark.rule("ERR-3")
@pytest.mark.parametrize("ended", [False, True])
async def test_a_cancelled_task_closes_runs_on_close_and_is_cancelled(kind: Kind, ended: bool) -> None:
    async def on_text(channel: Any, process: Any, text: str) -> None:
        await asyncio.Event().wait()

    opened = Opened(kind, on_text=on_text)
    opened.comes("text", "a")
    await passes()
    if ended:
        opened.channel.close(4000)
    assert opened.task is not None
    opened.task.cancel()
    await passes()
    assert opened.written == [("close", 4000 if ended else 1011, "")]
    opened.comes("lost")
    await passes()
    assert opened.task.cancelled()
    assert opened.log == ["open", "text a", f"close {4000 if ended else 1011}"]


@pytest.mark.rule("ERR-3")
async def test_a_message_or_a_loss_may_come_in_the_moment_of_a_cancel(kind: Kind) -> None:
    for report in (("text", "late"), ("lost",)):
        opened = Opened(kind)
        await passes()
        assert opened.task is not None
        opened.task.cancel()
        opened.comes(*report)
        await passes()
        opened.comes("lost")
        await passes()
        assert opened.task.cancelled()
        assert opened.log[0] == "open"
        assert opened.log[-1] in ("close 1011", "close 1006")


@pytest.mark.rule("ERR-3")
async def test_whoever_cancels_twice_does_not_wait_for_the_peer(kind: Kind) -> None:
    opened = Opened(kind)
    await passes()
    assert opened.task is not None
    opened.task.cancel()
    await passes()
    assert opened.written == [("close", 1011, "")]
    opened.task.cancel()
    await passes()
    assert opened.written == [("close", 1011, ""), ("abort",)]
    assert opened.task.cancelled()
    assert opened.log == ["open", "close 1011"]


@pytest.mark.rule("ERR-3", "STOP-2")
async def test_a_cancelled_on_close_ends(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    async def on_close(channel: Any, process: Any, reason: Any) -> None:
        await asyncio.Event().wait()

    opened = Opened(kind, on_close=on_close)
    opened.comes("lost")
    await passes()
    assert opened.log == ["open", "close 1006"]
    opened.channel.cancel()
    await opened.ended()
    assert [record.levelno for record in errors(caplog)] == [logging.WARNING]
    opened.channel.cancel()


async def test_only_a_callback_that_runs_is_cancelled(kind: Kind) -> None:
    opened = Opened(kind, run=False)
    opened.channel.cancel()
    opened.task = opened.connector.run_channel(opened.channel)
    await passes()
    opened.channel.cancel()
    await passes()
    assert opened.channel.reason is None
    await opened.leave()


@pytest.mark.rule("ERR-3")
async def test_an_interrupt_is_never_caught(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    def interrupted(channel: Any, request: Any) -> None:
        raise KeyboardInterrupt

    opened = Opened(kind, on_open=interrupted, run=False)
    with pytest.raises(KeyboardInterrupt):
        opened.channel.run().send(None)
    assert errors(caplog) == []
    assert opened.log == ["open"]


# ---- threads ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("THR-1")
async def test_debug_mode_refuses_calls_from_another_thread_or_loop(kind: Kind) -> None:
    asyncio.get_running_loop().set_debug(True)
    opened = Opened(kind)
    await passes()
    channel = opened.channel
    calls: list[Callable[[], object]] = [
        channel.close,
        lambda: channel.on_text(print),
        lambda: channel.on_binary(print),
        lambda: channel.wait_closed().send(None),
        lambda: channel.send_text("a").send(None),
        lambda: channel.send_binary(b"a").send(None),
        lambda: channel.send_binary(io.BytesIO(b"a")).send(None),
        lambda: asyncio.run(channel.send_text("a")),
    ]
    raised: list[BaseException] = []

    def elsewhere() -> None:
        for call in calls:
            try:
                call()
            except RuntimeError as exc:
                raised.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == len(calls)
    assert all("loop.call_soon_threadsafe" in str(error) for error in raised)
    assert opened.written == []
    assert await channel.send_text("here")
    await opened.leave()


@pytest.mark.rule("CLOSE-7", "CLOSE-5")
async def test_a_peer_that_half_closes_and_reads_nothing_is_cut_off() -> None:
    for unsent, cut in ((0, []), (7, [("abort",)])):
        opened = Opened(PushedChannel, close_timeout=3)
        await passes()
        opened.wire.unsent = unsent
        opened.channel.half_closed()
        assert facts(await opened.ended()) == (1006, "", "network")
        assert opened.written == []
        opened.time.advance(3.1)
        assert opened.written == cut


async def test_an_idle_channel_keeps_neither_its_request_nor_its_last_message_nor_its_queue() -> None:
    class Text(str):
        """One that can be referred to weakly."""

    seen: list[weakref.ref[Any]] = []
    opened = Opened(PushedChannel, on_open=lambda channel, request: seen.append(weakref.ref(request)))
    message = Text("hello")
    seen.append(weakref.ref(message))
    opened.comes("text", message)
    assert isinstance(opened.channel, PushedChannel)
    seen.append(weakref.ref(opened.channel._queue))
    del message
    await passes()
    gc.collect()
    assert [reference() for reference in seen] == [None, None, None]
    await opened.leave()


class ResetChannel(PushedChannel):
    """A channel whose peer has reset the connection, so that its sending side cannot be ended."""

    __slots__ = ()

    def _disconnect(self, *, half: bool) -> None:
        raise OSError(107, "Transport endpoint is not connected")


@pytest.mark.rule("SEND-1", "RECV-9")
async def test_a_connection_that_cannot_be_ended_is_cut() -> None:
    opened = Opened(ResetChannel)
    await passes()
    opened.comes("failed", 1002)
    opened.comes("lost")
    assert facts(await opened.ended()) == (1002, "", "local")
    assert opened.written == [("close", 1002, ""), ("abort",)]
