"""Sending on a `BaseChannel`: what it takes, who waits for whom, and what a failure of the server means."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest

from tests.channels import Opened, end_all, facts
from tests.fakes import FakeClosedError, PulledChannel, PushedChannel, passes
from wsbridge import SendError

__all__ = ["end_all"]


async def open_channel(**options: Any) -> Opened:
    opened = Opened(PushedChannel, **options)
    await passes()
    return opened


def send_all(opened: Opened, *texts: str) -> list[asyncio.Task[bool]]:
    return [asyncio.ensure_future(opened.channel.send_text(text)) for text in texts]


def feed(opened: Opened, message: str | bytes) -> None:
    opened.comes("text" if isinstance(message, str) else "binary", message)


def texts_of(opened: Opened) -> list[str]:
    return [entry[1] for entry in opened.written if entry[0] == "text"]


# ---- what is sent -------------------------------------------------------------------------------------------------


@pytest.mark.rule("SEND-1")
@pytest.mark.parametrize("idle_timeout", [None, 5])  # without one a send has less to look at
async def test_a_message_that_the_server_took_is_true(idle_timeout: float | None) -> None:
    opened = await open_channel(idle_timeout=idle_timeout)
    assert await opened.channel.send_text("") is True
    assert await opened.channel.send_text("gr\u00fc\u00dfe") is True
    assert await opened.channel.send_binary(b"") is True
    assert opened.written == [("text", ""), ("text", "gr\u00fc\u00dfe"), ("binary", b"")]


class Text(str):
    __slots__ = ()


class Data(bytes):
    pass


@pytest.mark.rule("SEND-2")
@pytest.mark.parametrize(
    "data",
    [
        b"abcd",
        Data(b"abcd"),
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(b"a-b-c-d-")[::2],
        array("I", b"abcd"),
        io.BytesIO(b"abcd"),
        io.BufferedReader(io.BytesIO(b"abcd")),
    ],
    ids=lambda data: type(data).__name__,
)
async def test_binary_data_of_every_kind_is_sent_as_bytes(data: Any) -> None:
    opened = await open_channel()
    assert await opened.channel.send_binary(data) is True
    ((kind, sent),) = opened.written
    assert (kind, bytes(sent), isinstance(sent, bytes)) == ("binary", b"abcd", True)


@pytest.mark.rule("SEND-1")
async def test_a_str_of_a_subclass_is_text() -> None:
    opened = await open_channel()
    assert await opened.channel.send_text(Text("abc")) is True
    assert texts_of(opened) == ["abc"]


@pytest.mark.rule("SEND-2")
async def test_a_file_is_read_from_its_position_in_another_thread_and_left_open(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.append(threading.current_thread())
            return super().read(size)

    opened = await open_channel()
    file = File(b"skipped and sent")
    file.seek(12)
    assert await opened.channel.send_binary(file) is True
    assert opened.written == [("binary", b"sent")]
    assert not file.closed
    assert threads[0] is not threading.main_thread()


@pytest.mark.rule("SEND-2")
async def test_what_a_file_raises_comes_out_and_nothing_is_sent() -> None:
    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("bad sector")

    opened = await open_channel()
    with pytest.raises(OSError, match="bad sector"):
        await opened.channel.send_binary(File())
    assert opened.written == []
    assert await opened.channel.send_text("usable") is True


@pytest.mark.rule("SEND-2")
async def test_data_may_be_changed_when_the_send_has_returned() -> None:
    opened = await open_channel()
    data = bytearray(b"before")
    await opened.channel.send_binary(data)
    data[:] = b"behind"
    assert opened.written == [("binary", b"before")]


class ReturnsNone(io.BytesIO):
    def read(self, size: int | None = -1, /) -> Any:
        return None


@pytest.mark.rule("SEND-3")
@pytest.mark.parametrize("data", ["text", None, 7, [1], io.StringIO("text"), ReturnsNone(), object()])
async def test_binary_data_of_a_wrong_type_is_a_type_error(data: Any) -> None:
    opened = await open_channel()
    with pytest.raises(TypeError, match="send_binary needs"):
        await opened.channel.send_binary(data)
    assert opened.written == []
    assert await opened.channel.send_binary(b"usable") is True


@pytest.mark.rule("SEND-3")
@pytest.mark.parametrize("text", [b"bytes", None, 7, ["a"]])
async def test_text_of_a_wrong_type_is_a_type_error(text: Any) -> None:
    opened = await open_channel()
    with pytest.raises(TypeError, match="send_text needs a str"):
        await opened.channel.send_text(text)
    assert opened.written == []


@pytest.mark.rule("SEND-3")
async def test_text_that_cannot_be_encoded_raises_and_harms_nothing() -> None:
    opened = await open_channel()
    with pytest.raises(UnicodeEncodeError):
        await opened.channel.send_text("\ud800")
    assert await opened.channel.send_text("usable") is True
    assert texts_of(opened) == ["usable"]


@pytest.mark.rule("SEND-3")
async def test_a_wrong_type_is_refused_on_an_ended_channel_too() -> None:
    opened = await open_channel()
    opened.channel.close()
    wrong: Any = 7
    with pytest.raises(TypeError):
        await opened.channel.send_text(wrong)
    with pytest.raises(TypeError):
        await opened.channel.send_binary(wrong)


# ---- an ended channel ---------------------------------------------------------------------------------------------


@pytest.mark.rule("SEND-1")
@pytest.mark.parametrize("report", [("close", 1000, ""), ("lost",), ("failed", 1002), None])
async def test_an_ended_channel_answers_false(report: tuple[Any, ...] | None) -> None:
    opened = await open_channel()
    if report is None:
        opened.channel.close()
    else:
        opened.comes(*report)
    before = list(opened.written)
    data: list[Any] = [b"a", bytearray(b"a"), io.BytesIO(b"a")]
    assert [await opened.channel.send_binary(each) for each in data] == [False] * 3
    assert await opened.channel.send_text("a") is False
    assert [each for each in opened.written if each not in before] == []


@pytest.mark.rule("SEND-1")
@pytest.mark.parametrize(
    "error", [ConnectionResetError(), BrokenPipeError(), OSError(113, "no route"), FakeClosedError()]
)
@pytest.mark.parametrize("binary", [False, True])
async def test_a_peer_that_left_is_false_and_no_exception(error: Exception, binary: bool) -> None:
    opened = await open_channel()
    opened.wire.error = error
    assert await (opened.channel.send_binary(b"a") if binary else opened.channel.send_text("a")) is False
    opened.wire.error = None
    assert await opened.channel.send_text("a") is False
    assert await opened.channel.send_binary(b"a") is False
    assert opened.written == []
    assert opened.channel.reason is None  # the receiving side tells how it ended
    opened.comes("lost")
    assert facts(await opened.ended()) == (1006, "", "network")


@pytest.mark.rule("SEND-7")
@pytest.mark.parametrize("binary", [False, True])
async def test_any_other_failure_is_a_send_error_and_ends_with_1011(binary: bool) -> None:
    opened = await open_channel()
    opened.wire.error = error = RuntimeError("broken server")
    with pytest.raises(SendError, match="broken server") as raised:
        await (opened.channel.send_binary(b"a") if binary else opened.channel.send_text("a"))
    assert raised.value.__cause__ is error
    assert facts(opened.channel.reason) == (1011, "", "local")
    assert opened.written == [("close", 1011, "")]


@pytest.mark.rule("SEND-6")
@pytest.mark.parametrize("lost", [False, True])
async def test_whoever_waits_for_the_close_frame_waits_for_the_sends_before_it(lost: bool) -> None:
    opened = await open_channel()
    await opened.channel.close_written()  # none is to come
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.channel.close(4000)
    waiting = [asyncio.create_task(opened.channel.close_written()) for _ in range(3)]
    await passes()
    waiting[0].cancel()
    await passes()
    assert [task.done() for task in waiting] == [True, False, False]
    if lost:
        opened.comes("lost")
    else:
        opened.wire.blocked.set_result(None)
    await passes()
    assert all(task.done() for task in waiting)
    assert opened.written == ([] if lost else [("text", "a"), ("close", 4000, "")])
    opened.wire.blocked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await send


@pytest.mark.rule("SEND-7", "CLOSE-10")
async def test_a_failure_after_the_end_leaves_the_reason() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.channel.close(4000)
    opened.wire.error = RuntimeError("broken server")
    opened.wire.blocked.set_result(None)
    with pytest.raises(SendError):
        await send
    assert facts(opened.channel.reason) == (4000, "", "local")


# ---- several senders and a slow peer ------------------------------------------------------------------------------


@pytest.mark.rule("SEND-4", "FLOW-2")
async def test_while_writing_is_paused_sends_wait_in_line() -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    opened.channel.pause_writing()
    sends = send_all(opened, "a", "b", "c")
    file = asyncio.ensure_future(opened.channel.send_binary(io.BytesIO(b"d")))
    await passes()
    assert not any(send.done() for send in sends)
    assert opened.written == []
    opened.channel.resume_writing()
    opened.channel.resume_writing()
    assert await asyncio.gather(*sends) == [True] * 3
    assert await file is True
    assert opened.written == [("text", "a"), ("text", "b"), ("text", "c"), ("binary", b"d")]
    assert await opened.channel.send_text("e") is True


@pytest.mark.rule("RECV-7", "FLOW-2")
async def test_of_pings_that_come_while_writing_is_paused_the_last_is_answered() -> None:
    opened = await open_channel()
    opened.comes("ping", b"a")
    await passes()
    opened.channel.pause_writing()
    for payload in (b"b", b"c"):
        opened.comes("ping", payload)
    await passes()
    assert opened.written == [("pong", b"a")]
    opened.channel.resume_writing()
    assert opened.written == [("pong", b"a"), ("pong", b"c")]


@pytest.mark.rule("SEND-6")
async def test_no_pong_follows_a_close_frame() -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    opened.comes("ping", b"a")
    await passes()
    opened.channel.close(1000)
    opened.channel.resume_writing()
    opened.comes("ping", b"b")
    await passes()
    assert "pong" not in opened.wire.kinds


@pytest.mark.rule("SEND-4")
async def test_one_that_comes_later_does_not_overtake_those_who_wait() -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    sends = send_all(opened, "a", "b")
    await passes()
    opened.channel.resume_writing()
    sends += send_all(opened, "c")
    await asyncio.gather(*sends)
    assert texts_of(opened) == ["a", "b", "c"]


@pytest.mark.rule("SEND-4")
async def test_writing_that_is_paused_again_holds_the_next_in_line() -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    sends = send_all(opened, "a", "b", "c")
    await passes()
    opened.channel.resume_writing()
    opened.channel.pause_writing()  # before the first of them could write
    await passes()
    assert opened.written == []
    opened.channel.resume_writing()
    assert await asyncio.gather(*sends) == [True] * 3
    assert texts_of(opened) == ["a", "b", "c"]


@pytest.mark.rule("SEND-1", "SEND-6")
@pytest.mark.parametrize("report", [("close", 1000, ""), ("lost",), ("failed", 1009), None])
async def test_those_who_wait_get_false_at_once_when_the_channel_ends(report: tuple[Any, ...] | None) -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    sends = send_all(opened, "a", "b")
    data: list[Any] = [io.BytesIO(b"c"), bytearray(b"d")]
    sends += [asyncio.ensure_future(opened.channel.send_binary(each)) for each in data]
    await passes()
    if report is None:
        opened.channel.close()
    else:
        opened.comes(*report)
    await passes()
    assert [send.result() for send in sends] == [False] * 4
    assert "text" not in opened.wire.kinds
    opened.channel.resume_writing()


@pytest.mark.rule("SEND-6")
async def test_one_whose_turn_it_was_gets_false_if_the_channel_ends_before_it_could_write() -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    sends = send_all(opened, "a", "b")
    await passes()
    opened.channel.resume_writing()
    opened.channel.close(4000)
    assert await asyncio.gather(*sends) == [False, False]
    assert opened.written == [("close", 4000, "")]


@pytest.mark.rule("SEND-5")
async def test_a_cancelled_send_that_waits_is_not_sent_and_harms_no_other() -> None:
    opened = await open_channel()
    opened.channel.pause_writing()
    sends = send_all(opened, "a", "b", "c", "d")
    await passes()
    sends[0].cancel()
    sends[2].cancel()
    opened.channel.resume_writing()
    sends[3].cancel()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, bool] + [asyncio.CancelledError] * 2
    assert texts_of(opened) == ["b"]
    assert await opened.channel.send_text("usable") is True


@pytest.mark.rule("SEND-5", "SEND-6")
async def test_a_send_that_has_begun_is_finished_though_it_is_cancelled() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    sends = send_all(opened, "a", "b")
    await passes()
    sends[0].cancel()
    await passes()
    assert (sends[0].cancelled(), opened.written) == (True, [])
    opened.wire.blocked.set_result(None)
    assert await sends[1] is True
    assert texts_of(opened) == ["a", "b"]


@pytest.mark.rule("SEND-1")
async def test_binary_data_may_take_the_server_a_while_too() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    send = asyncio.ensure_future(opened.channel.send_binary(b"a"))
    await passes()
    assert not send.done()
    opened.wire.blocked.set_result(None)
    assert await send is True


async def test_a_send_that_is_cancelled_with_all_tasks_of_the_loop_is_cancelled() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    before = asyncio.all_tasks()
    (send,) = send_all(opened, "a")
    await passes()
    (tracked,) = asyncio.all_tasks() - before - {send}
    tracked.cancel()
    await asyncio.wait((send,))
    assert send.cancelled()
    opened.wire.blocked = None
    assert await opened.channel.send_text("usable") is True


async def test_the_failure_of_a_send_that_nobody_waits_for_is_nobodys() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    send.cancel()
    opened.wire.error = RuntimeError("broken server")
    opened.wire.blocked.set_result(None)
    await passes()
    assert opened.written == []
    assert opened.channel.reason is None


# ---- a close beside sends -----------------------------------------------------------------------------------------


@pytest.mark.rule("SEND-6", "CLOSE-1")
async def test_a_close_frame_follows_the_sends_that_have_begun() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    sends = send_all(opened, "a", "b")
    await passes()
    opened.channel.close(4000, "bye")
    assert facts(opened.channel.reason) == (4000, "bye", "local")
    late = send_all(opened, "late")
    await passes()
    assert (opened.written, late[0].result()) == ([], False)
    opened.wire.blocked.set_result(None)
    assert await asyncio.gather(*sends) == [True, True]
    await passes()
    assert opened.written == [("text", "a"), ("text", "b"), ("close", 4000, "bye")]


@pytest.mark.rule("SEND-6")
@pytest.mark.parametrize(("report", "code"), [(("close", 4001, ""), 4001), (("failed", 1002), 1002)])
async def test_the_answer_to_a_peer_follows_the_sends_that_have_begun(report: tuple[Any, ...], code: int) -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.comes(*report)
    await passes()
    assert opened.written == []
    opened.wire.blocked.set_result(None)
    assert await send is True
    await passes()
    assert opened.written == [("text", "a"), ("close", code, ""), ("disconnect",)]


@pytest.mark.rule("SEND-6")
async def test_a_peer_that_answers_before_the_sends_have_ended_is_disconnected_behind_them() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.channel.close(4000)
    opened.comes("close", 4001, "crossed")
    await passes()
    assert opened.written == []
    opened.wire.blocked.set_result(None)
    await passes()
    assert send.result() is True
    assert opened.written == [("text", "a"), ("close", 4000, ""), ("disconnect",)]
    assert facts(opened.channel.reason) == (4000, "", "local")


@pytest.mark.rule("SEND-6")
async def test_a_connection_that_is_lost_before_the_close_frame_gets_none() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.channel.close(4000)
    opened.comes("lost")
    opened.wire.error = ConnectionResetError()
    opened.wire.blocked.set_result(None)
    await passes()
    assert (send.result(), opened.written) == (False, [])
    assert facts(await opened.ended()) == (4000, "", "local")


@pytest.mark.rule("SEND-6")
async def test_a_server_that_fails_to_close_behind_a_send_is_cut_off_once() -> None:
    opened = await open_channel()
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.comes("close", 4000, "")
    opened.wire.control_error = RuntimeError("broken server")
    opened.wire.blocked.set_result(None)
    await passes()
    assert send.result() is True
    assert opened.written == [("text", "a"), ("abort",)]


@pytest.mark.rule("SEND-6", "CLOSE-5")
async def test_sends_that_do_not_end_hold_a_close_no_longer_than_its_timeout() -> None:
    opened = await open_channel(close_timeout=3)
    opened.wire.blocked = asyncio.get_running_loop().create_future()
    (send,) = send_all(opened, "a")
    await passes()
    opened.channel.close(4000)
    opened.time.advance(3)
    assert opened.written == [("abort",)]
    opened.wire.error = ConnectionResetError()
    opened.wire.blocked.set_result(None)
    await passes()
    assert (send.result(), opened.written) == (False, [("abort",)])
    assert facts(await opened.ended()) == (4000, "", "local")


# ---- holding the peer back ----------------------------------------------------------------------------------------


@pytest.mark.rule("FLOW-1")
@pytest.mark.parametrize("message", ["", b"", "a"])
async def test_a_server_that_pushes_is_held_when_too_many_messages_wait(message: str | bytes) -> None:
    gate = asyncio.Event()

    async def wait(*arguments: Any) -> None:
        await gate.wait()

    opened = await open_channel(on_text=wait, on_binary=wait)
    for _ in range(200):
        feed(opened, message)
        await asyncio.sleep(0)
        if opened.written:
            break
    assert opened.written == [("hold",)]
    assert len(opened.log) == 2
    gate.set()
    await passes(200)
    assert opened.written == [("hold",), ("read on",)]


@pytest.mark.rule("FLOW-1")
@pytest.mark.parametrize("message", ["x" * 70_000, bytes(70_000)])
async def test_a_server_that_pushes_is_held_by_one_large_message(message: str | bytes) -> None:
    gate = asyncio.Event()

    async def wait(*arguments: Any) -> None:
        await gate.wait()

    opened = await open_channel(on_text=wait, on_binary=wait)
    feed(opened, "first")
    await passes()
    feed(opened, message)
    assert opened.written == [("hold",)]
    feed(opened, "behind")
    assert opened.written == [("hold",)]
    gate.set()
    await passes()
    assert opened.written == [("hold",), ("read on",)]


@pytest.mark.rule("FLOW-1", "RECV-4")
async def test_a_local_close_reads_on_to_find_the_peers() -> None:
    gate = asyncio.Event()

    async def wait(*arguments: Any) -> None:
        await gate.wait()

    opened = await open_channel(on_text=wait)
    feed(opened, "first")
    await passes()
    feed(opened, "x" * 70_000)
    opened.channel.close(4000)
    assert opened.written == [("hold",), ("read on",), ("close", 4000, "")]
    gate.set()
    opened.comes("close", 4000, "")
    assert facts(await opened.ended()) == (4000, "", "local")
    assert opened.log[2:] == ["close 4000"]


@pytest.mark.rule("FLOW-1", "STOP-2")
async def test_a_server_that_is_held_reads_on_when_it_is_cut_off() -> None:
    gate = asyncio.Event()

    async def wait(*arguments: Any) -> None:
        await gate.wait()

    opened = await open_channel(on_text=wait)
    feed(opened, "first")
    await passes()
    feed(opened, "x" * 70_000)
    opened.channel.cut_off()
    assert opened.written == [("hold",), ("abort",), ("read on",)]
    gate.set()
    await opened.ended()
    assert opened.log == ["open", "text first", "close 1006"]


async def test_messages_that_come_while_nothing_waits_wake_the_channel_once() -> None:
    opened = Opened(PulledChannel)  # the other kind needs no waking
    opened.comes("text", "a")
    assert (await opened.leave()).code == 1000
    pushed = await open_channel()
    for text in "abc":
        feed(pushed, text)
    await passes()
    assert pushed.log == ["open", "text a", "text b", "text c"]
    feed(pushed, "d")
    pushed.comes("lost")
    assert facts(await pushed.ended()) == (1006, "", "network")
    assert pushed.log[-2:] == ["text d", "close 1006"]


# ---- answers that are written together ------------------------------------------------------------------------------


class CorkedChannel(PushedChannel):
    """A channel that frames a message at once and writes it when it is told to."""

    __slots__ = ("framed",)

    def _send_text(self, text: str) -> None:
        if not hasattr(self, "framed"):
            self.framed: list[str] = []
        self.framed.append(text)
        self._written(len(text))

    def _flush(self) -> None:
        if self.framed:
            self.wire.written.append(("text", *self.framed))
        self.framed = []


async def corked(**options: Any) -> Opened:
    opened = Opened(CorkedChannel, **options)
    await passes()
    return opened


async def echo(channel: Any, process: Any, text: str) -> None:
    assert await channel.send_text(text)


@pytest.mark.rule("SEND-1")
async def test_the_answers_to_what_came_together_are_written_together() -> None:
    opened = await corked(on_text=echo)
    for text in ("a", "b", "c"):
        feed(opened, text)
    await passes()
    assert opened.written == [("text", "a", "b", "c")]
    feed(opened, "d")
    await passes()
    assert opened.written[1:] == [("text", "d")]


@pytest.mark.rule("SEND-1")
async def test_a_large_answer_and_those_before_it_do_not_wait() -> None:
    opened = await corked(on_text=echo)
    large = "x" * 5000
    for text in ("a", large, "b"):
        feed(opened, text)
    await passes()
    assert opened.written == [("text", "a", large), ("text", "b")]


@pytest.mark.rule("SEND-1")
async def test_what_is_sent_from_outside_of_a_callback_is_written_within_a_turn() -> None:
    opened = await corked()
    assert await opened.channel.send_text("a")
    assert await opened.channel.send_text("b")
    assert opened.written == []
    await asyncio.sleep(0)
    assert opened.written == [("text", "a", "b")]


@pytest.mark.rule("SEND-1")
async def test_answers_wait_for_each_other_a_short_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    now = [start]

    async def slow(channel: Any, process: Any, text: str) -> None:
        monkeypatch.setattr(loop, "time", lambda: now[0])
        now[0] += 0.01
        assert await channel.send_text(text)

    opened = await corked(on_text=slow)
    for text in ("a", "b", "c", "d"):
        feed(opened, text)
    await passes()
    monkeypatch.undo()
    assert opened.written == [("text", "a", "b"), ("text", "c"), ("text", "d")]


async def test_a_channel_that_frames_must_say_how_it_writes() -> None:
    opened = await open_channel()
    with pytest.raises(NotImplementedError):
        opened.channel._written(5000)  # type: ignore[union-attr]
