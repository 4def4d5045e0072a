"""What the application saw: a log of callbacks, held to the order that the contract promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from wsbridge.close import CloseReason
from wsbridge.conformance import lateness
from wsbridge.conformance.contract import CheckFailed
from wsbridge.conformance.hand_clock import now
from wsbridge.http import Request
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream, stream_handler

__all__ = ["Event", "Recorder"]

Callback = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One callback, or its end.

    Attributes:
        at: Seconds since the recorder was made.
        channel: The channel's id.
        kind: ``open``, ``text``, ``binary``, ``error``, ``close``, or one of them with ``-end``.
        value: The request, the message, the exception or the reason; None for an end.
        process: The process object that the callback got.
    """

    at: float
    channel: str
    kind: str
    value: Any
    process: Any


class Recorder:
    """Makes options whose callbacks are logged, and waits for what they see.

    It notes at once what no check may see: callbacks of one channel that overlap (RECV-5), a second ``on_open`` or
    ``on_close``, a message before one or after the other (OPEN-1, RECV-4, CLOSE-3). `Bench` asks for `violations` after
    each check.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.events: list[Event] = []
        self.channels: list[WebSocketChannel] = []
        self.violations: list[str] = []
        self.started_at = now()
        self._running: dict[str, str] = {}
        self._opened: set[str] = set()
        self._closed: set[str] = set()
        self._waiters: list[asyncio.Future[None]] = []

    def options(
        self,
        *,
        on_open: Callback | None = None,
        on_text: Callback | None = None,
        on_binary: Callback | None = None,
        on_close: Callback | None = None,
        on_error: Callback | None = None,
        kind: str = "coroutines",
        **options: Any,
    ) -> WebSocketOptions[Any]:
        """Return options that log every callback and run those given, which may be coroutine functions.

        Args:
            on_open: With the other callbacks: those of a check.
            kind: ``coroutines``; or ``functions``, for callbacks that are not coroutine functions; or ``stream``, for
                none: a stream handler, which logs the same.
            options: The others.
        """
        callbacks = {
            "on_open": on_open,
            "on_text": on_text,
            "on_binary": on_binary,
            "on_close": on_close,
            "on_error": on_error,
        }
        if kind == "stream":
            return stream_handler(self._handle, **options)
        if kind == "functions":
            plain: dict[str, Any] = {name: self._plain(name[3:], callbacks[name]) for name in callbacks}
            return WebSocketOptions(**plain, **options)

        async def opened(channel: WebSocketChannel, request: Request) -> Any:
            self.channels.append(channel)
            with self._callback("open", channel, request, None):
                return await _call(on_open, channel, request)

        def message(kind: str, callback: Callback | None) -> Callback:
            async def received(channel: WebSocketChannel, process: Any, value: Any) -> None:
                with self._callback(kind, channel, value, process):
                    await _call(callback, channel, process, value)

            return received

        return WebSocketOptions(
            on_open=opened,
            on_text=message("text", on_text),
            on_binary=message("binary", on_binary),
            on_close=message("close", on_close),
            on_error=message("error", on_error),
            **options,
        )

    def _plain(self, kind: str, callback: Callback | None) -> Callback:
        def called(channel: WebSocketChannel, *arguments: Any) -> Any:
            process, value = (None, arguments[0]) if kind == "open" else arguments
            if kind == "open":
                self.channels.append(channel)
            with self._callback(kind, channel, value, process):
                return None if callback is None else callback(channel, *arguments)

        return called

    async def _handle(self, stream: MessageStream[Any], request: Request) -> None:
        channel = stream.channel
        self.channels.append(channel)
        with self._callback("open", channel, request, None):
            pass
        async for message in stream:
            with self._callback("text" if isinstance(message, str) else "binary", channel, message, None):
                pass
        with self._callback("close", channel, await channel.wait_closed(), None):
            pass

    @contextmanager
    def _callback(self, kind: str, channel: WebSocketChannel, value: Any, process: Any) -> Generator[None, None, None]:
        name = channel.id
        if name in self._running:
            self.violations.append(f"RECV-5: {kind} began while {self._running[name]} of the same channel ran")
        if kind == "open" and name in self._opened:
            self.violations.append("OPEN-1: on_open ran twice")
        if kind != "open" and kind != "error" and name not in self._opened:
            self.violations.append(f"OPEN-1: {kind} before on_open had returned")
        if kind in ("text", "binary") and name in self._closed:
            self.violations.append(f"RECV-4: {kind} after on_close")
        if kind == "close" and name in self._closed:
            self.violations.append("CLOSE-3: on_close ran twice")
        if kind == "close":
            self._closed.add(name)
        self._running[name] = kind
        self.log(kind, name, value, process)
        try:
            yield
            if kind == "open":
                self._opened.add(name)
        finally:
            self._running.pop(name, None)
            self.log(f"{kind}-end", name, None, process)

    def log(self, kind: str, channel: str = "", value: Any = None, process: Any = None) -> None:
        """Add an event, and wake whoever waits for it."""
        self.events.append(Event(now() - self.started_at, channel, kind, value, process))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], object], what: str, *, timeout: float | None = None) -> None:
        """Wait until ``condition`` holds; it is looked at after each event.

        Raises:
            CheckFailed: It did not in time; the message says what was logged instead.
        """
        deadline = lateness.Deadline(self.timeout if timeout is None else timeout)
        while not condition():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                async with lateness.timeout(deadline.left()):
                    await waiter
            except TimeoutError:
                raise CheckFailed(f"{what} did not happen; the callbacks were: {self.summary()}") from None

    async def wait(self, kind: str, count: int = 1, *, timeout: float | None = None) -> Event:
        """Wait for the ``count``-th event of ``kind`` and return it."""
        await self.until(lambda: len(self.all(kind)) >= count, f"{kind} (number {count})", timeout=timeout)
        return self.all(kind)[count - 1]

    async def closed(self, count: int = 1, *, timeout: float | None = None) -> CloseReason:
        """Wait for the ``count``-th ``on_close`` and return its reason."""
        event = await self.wait("close", count, timeout=timeout)
        if not isinstance(event.value, CloseReason):
            raise CheckFailed(f"on_close got {event.value!r}, which is no CloseReason")
        return event.value

    async def opened(self, count: int = 1, *, timeout: float | None = None) -> WebSocketChannel:
        """Wait for the ``count``-th ``on_open`` to begin and return its channel."""
        await self.wait("open", count, timeout=timeout)
        return self.channels[count - 1]

    def all(self, kind: str) -> list[Event]:
        """Return the events of ``kind`` so far."""
        return [event for event in self.events if event.kind == kind]

    def values(self, *kinds: str) -> list[Any]:
        """Return the values of the events of ``kinds`` so far, in order: by default the messages."""
        wanted = kinds or ("text", "binary")
        return [event.value for event in self.events if event.kind in wanted]

    def kinds(self) -> list[str]:
        """Return the kinds of the callbacks so far, in order, their ends left out."""
        return [event.kind for event in self.events if not event.kind.endswith("-end")]

    def summary(self) -> str:
        """Return the log in one line, for messages."""
        shown = [_short_event(event) for event in self.events if not event.kind.endswith("-end")]
        return ", ".join(shown[:40]) + (f", and {len(shown) - 40} more" if len(shown) > 40 else "") or "none"

    def lines(self) -> list[str]:
        """Return the log for a report."""
        return [f"{event.at:8.4f}  {event.channel[:8]:8}  {_short_event(event)}" for event in self.events[:500]]


def _short_event(event: Event) -> str:
    if isinstance(event.value, Request) or event.value is None:
        return event.kind
    if isinstance(event.value, CloseReason):
        reason = event.value
        return f"{event.kind}({reason.code} {reason.text!r} by {reason.initiator}, {reason.keyword})"
    text = repr(event.value)
    return f"{event.kind}({text if len(text) <= 60 else text[:50] + '...'})"


async def _call(callback: Callback | None, *arguments: Any) -> Any:
    if callback is None:
        return None
    result = callback(*arguments)
    return await result if asyncio.iscoroutine(result) else result
