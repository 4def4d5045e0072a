"""Large messages that are deflated outside the event loop (SEND-9), by a server whose executor waits for the test."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any

import pytest

from tests.channels import Opened, end_all, facts
from tests.fakes import PushedChannel, passes
from wsbridge import SendError

__all__ = ["end_all"]

pytestmark = pytest.mark.rule("SEND-9")

LARGE = bytes(100_000)


class Deflating(PushedChannel):
    """Deflates each binary message in a thread, which waits until `gate` is set.

    Attributes:
        is_full: Whether the server's write buffer is.
        fails: What deflating raises.
    """

    __slots__ = ("fails", "gate", "is_full")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gate = threading.Event()
        self.is_full = False
        self.fails: Exception | None = None

    def _send_binary(self, data: bytes) -> Awaitable[object]:
        return self._send_large(self._deflated(partial(self._deflate, data), partial(self.wire.control, "binary")))

    def _deflate(self, data: bytes) -> bytes:
        assert self.gate.wait(10)
        if self.fails is not None:
            raise self.fails
        return data

    def _is_full(self) -> bool:
        return self.is_full


class Sending:
    """A channel on which a large message is being deflated."""

    def __init__(self) -> None:
        self.opened = Opened(Deflating)
        assert isinstance(self.opened.channel, Deflating)
        self.channel: Deflating = self.opened.channel
        self.sending: asyncio.Task[bool]

    async def begin(self) -> None:
        await passes()
        self.sending = asyncio.create_task(self.channel.send_binary(LARGE))
        await passes()

    async def text(self, text: str) -> asyncio.Task[bool]:
        waiting = asyncio.create_task(self.channel.send_text(text))
        await passes()
        return waiting


@pytest.fixture
async def large() -> AsyncIterator[Sending]:
    made = Sending()
    await made.begin()
    assert made.opened.written == []
    yield made
    made.channel.gate.set()
    made.opened.comes("lost")
    await asyncio.wait((made.sending,))


@pytest.mark.rule("SEND-4", "FLOW-2")
async def test_what_is_sent_after_it_waits_and_control_frames_do_not(large: Sending) -> None:
    waiting = await large.text("after")
    large.opened.comes("ping", b"!")
    await passes()
    assert large.opened.written == [("pong", b"!")]
    large.channel.gate.set()
    assert (await large.sending, await waiting) == (True, True)
    assert large.opened.written == [("pong", b"!"), ("binary", LARGE), ("text", "after")]


@pytest.mark.rule("FLOW-2")
async def test_where_it_fills_the_buffer_all_waits_for_the_peer(large: Sending) -> None:
    large.channel.is_full = True
    waiting = await large.text("after")
    for payload in (b"1", b"2"):
        large.opened.comes("ping", payload)
    large.channel.gate.set()
    assert await large.sending
    await passes()
    assert large.opened.written == [("binary", LARGE)]
    assert not waiting.done()
    large.channel.is_full = False
    large.channel.resume_writing()
    assert await waiting
    assert large.opened.written[1:] == [("pong", b"2"), ("text", "after")]


async def test_the_server_cannot_let_others_in_before_it_is_written(large: Sending) -> None:
    """As it does when what was in its buffer before has left."""
    waiting = await large.text("after")
    large.channel.resume_writing()
    await passes()
    assert not waiting.done()
    large.channel.gate.set()
    assert await waiting
    assert large.opened.wire.kinds == ["binary", "text"]


@pytest.mark.rule("SEND-5")
async def test_one_that_is_cancelled_is_whole(large: Sending) -> None:
    waiting = await large.text("after")
    large.sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large.sending
    assert not waiting.done()
    large.channel.gate.set()
    assert await waiting
    assert large.opened.wire.kinds == ["binary", "text"]


@pytest.mark.rule("SEND-6", "CLOSE-3")
async def test_a_close_comes_after_it(large: Sending) -> None:
    waiting = await large.text("after")
    large.channel.close(4000, "enough")
    assert await waiting is False
    assert large.opened.written == []
    large.channel.gate.set()
    assert await large.sending
    await passes()
    assert large.opened.written == [("binary", LARGE), ("close", 4000, "enough")]


@pytest.mark.rule("SEND-1")
async def test_a_peer_that_is_lost_meanwhile_is_no_error(large: Sending, caplog: pytest.LogCaptureFixture) -> None:
    large.opened.comes("lost")
    large.channel.gate.set()
    assert await large.sending is False
    assert facts(await large.opened.ended()) == (1006, "", "network")
    assert (large.opened.written, caplog.records) == ([], [])


@pytest.mark.rule("SEND-7")
async def test_a_server_that_cannot_deflate_is_an_error(large: Sending, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "wsbridge")
    large.channel.fails = ZeroDivisionError("no")
    waiting = await large.text("after")
    large.channel.gate.set()
    with pytest.raises(SendError, match=f"could not send on channel {large.channel.id}: ZeroDivisionError"):
        await large.sending
    assert await waiting is (("text", "after") in large.opened.written)
    assert facts(large.channel.reason) == (1011, "", "local")
    assert large.opened.wire.kinds[-1] == "close"
