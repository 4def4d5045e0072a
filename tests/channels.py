"""What the tests of channels share: a channel of either kind, opened by hand, and a log of its callbacks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.fakes import FakeChannel, FakeConnector, FakeTime, FakeWire, PulledChannel, PushedChannel, handshake, passes
from wsbridge import CloseReason, WebSocketOptions

_made: list[Opened] = []


@pytest.fixture(autouse=True)
async def end_all() -> AsyncIterator[None]:
    """Cut off what a failed test leaves open: a cancelled channel waits for its peer, in a time that stands still."""
    yield
    for opened in _made:
        opened.channel.cut_off()
        if opened.task is not None and not opened.task.done():
            if isinstance(opened.channel, PulledChannel):
                opened.comes("lost")
            opened.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await opened.task
    _made.clear()


KINDS: tuple[type[FakeChannel], ...] = (PulledChannel, PushedChannel)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[FakeChannel]:
    """Have a test run for both kinds of channel."""
    chosen: type[FakeChannel] = request.param
    return chosen


class Opened:
    """A channel whose connector is fake, in a task of its own.

    Attributes:
        log: The callbacks, in order: ``open``, ``text a``, ``close 1000``, ...
        time: What the clock goes by.
    """

    def __init__(self, kind: type[FakeChannel], *, scheme: str = "ws", run: bool = True, **options: Any) -> None:
        self.log: list[str] = []
        self.processes: list[Any] = []
        self.reasons: list[CloseReason] = []
        self.connector = FakeConnector()
        self.time: FakeTime = self.connector.use_fake_time()
        self.options = self._logged(options)
        self.channel = kind(self.connector, handshake(scheme=scheme), self.options, None)
        self.connector.admit(self.channel)
        self.task: asyncio.Task[None] | None = self.connector.run_channel(self.channel) if run else None
        _made.append(self)

    @property
    def wire(self) -> FakeWire:
        return self.channel.wire

    @property
    def written(self) -> list[tuple[Any, ...]]:
        return self.channel.wire.written

    def comes(self, kind: str, *arguments: Any) -> None:
        self.channel.comes(kind, *arguments)

    async def ended(self) -> CloseReason:
        """Wait for the end of the channel's task, and return the reason."""
        await passes()
        assert self.task is not None
        assert self.task.done()
        assert self.channel.reason is not None
        return self.channel.reason

    async def leave(self) -> CloseReason:
        """Have the peer close and go, and wait for the end."""
        await passes()
        self.comes("close", 1000, "")
        self.comes("lost")
        return await self.ended()

    def forget(self) -> None:
        """Let go of it, for a test that looks who else keeps it."""
        _made.remove(self)

    def _logged(self, options: dict[str, Any]) -> WebSocketOptions[Any]:
        """Return options that log every callback and run those that are given."""
        on_open: Callable[..., Any] | None = options.pop("on_open", None)

        def opened(channel: Any, request: Any) -> Any:
            self.log.append("open")
            return None if on_open is None else on_open(channel, request)

        def callback(kind: str, given: Callable[..., Any] | None) -> Callable[..., Any]:
            def run(channel: Any, process: Any, value: Any) -> Any:
                shown = value.code if isinstance(value, CloseReason) else value
                self.log.append(f"{kind} {shown!r}" if isinstance(shown, Exception) else f"{kind} {shown}")
                self.processes.append(process)
                if isinstance(value, CloseReason):
                    self.reasons.append(value)
                return None if given is None else given(channel, process, value)

            return run

        names = ("text", "binary", "error", "close")
        options |= {f"on_{name}": callback(name, options.pop(f"on_{name}", None)) for name in names}
        return WebSocketOptions(on_open=opened, **options)


def facts(reason: CloseReason | None) -> tuple[int, str, str]:
    """Return what CLOSE-7 says about an end."""
    assert reason is not None
    return reason.code, reason.text, reason.initiator
