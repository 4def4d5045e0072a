"""What the tests of the core share: a loop whose time is set by hand, and a connector that has no server."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, cast

from wsbridge import Application, Request, Response, WebSocketOptions
from wsbridge._channel.clock import Clock
from wsbridge.close import Initiator
from wsbridge.connector import OVER, BaseChannel, BaseConnector, BaseSource, QueuedChannel


class FakeTime:
    """A time source for `Clock`: nothing happens until `advance` is called."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._handles: list[FakeHandle] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        handle = FakeHandle(when, next(self._order), callback)
        heapq.heappush(self._handles, handle)
        return cast(asyncio.TimerHandle, handle)

    @property
    def timers(self) -> list[float]:
        """When the timers that are set go off."""
        return sorted(handle.when for handle in self._handles if not handle.is_cancelled)

    def advance(self, seconds: float) -> None:
        """Let time go by, and every timer go off at its time."""
        end = self.now + seconds
        while self._handles and self._handles[0].when <= end:
            handle = heapq.heappop(self._handles)
            if not handle.is_cancelled:
                self.now = max(self.now, handle.when)
                handle.callback()
        self.now = end


class FakeHandle:
    def __init__(self, when: float, order: int, callback: Callable[[], object]) -> None:
        self.when = when
        self.order = order
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def __lt__(self, other: FakeHandle) -> bool:
        return (self.when, self.order) < (other.when, other.order)


class FakeClosedError(Exception):
    """What the fake server raises when the peer is gone."""


class FakeWire:
    """The part of a fake channel that stands for its server: what was written, and how writing goes.

    Attributes:
        written: Frames and what was done to the connection, in order.
        error: Raised by each message that is written.
        control_error: Raised by each close and ping.
        blocked: While it is set, a message is written only when it is done, and cannot be torn by a cancel.
        unsent: Bytes that have not left.
    """

    def __init__(self) -> None:
        self.written: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.control_error: Exception | None = None
        self.blocked: asyncio.Future[None] | None = None
        self.unsent = 0

    def control(self, *frame: Any) -> None:
        if self.control_error is not None:
            raise self.control_error
        self.written.append(frame)

    @property
    def kinds(self) -> list[str]:
        return [entry[0] for entry in self.written]


class _FakeWriting(BaseChannel):
    """The sending half of both fakes."""

    __slots__ = ()

    closed_errors = (FakeClosedError,)
    wire: FakeWire

    def _send_text(self, text: str) -> Awaitable[object] | None:
        text.encode()
        return self._message("text", text)

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        return self._message("binary", data)

    def _message(self, kind: str, data: object) -> Awaitable[object] | None:
        if self.wire.error is not None:
            raise self.wire.error
        if self.wire.blocked is not None:
            return self._track(self._write_later(self.wire.blocked, kind, data))
        self.wire.written.append((kind, data))
        return None

    async def _write_later(self, blocked: asyncio.Future[None], kind: str, data: object) -> None:
        await asyncio.shield(blocked)
        if self.wire.error is not None:
            raise self.wire.error
        self.wire.written.append((kind, data))

    def _close(self, code: int | None, text: str) -> None:
        self.wire.control("close", code, text)

    def _ping(self, payload: bytes) -> None:
        self.wire.control("ping", payload)

    def _pong(self, payload: bytes) -> None:
        self.wire.control("pong", payload)

    def _disconnect(self, *, half: bool) -> None:
        self.wire.written.append(("disconnect",))

    def _aborter(self) -> Callable[[], object]:
        written = self.wire.written
        return lambda: written.append(("abort",))

    def _unsent_bytes(self) -> int:
        return self.wire.unsent


_ENDS: dict[str, Callable[..., tuple[int, str, Initiator]]] = {
    "close": lambda code, text: (1005 if code is None else code, text, "peer"),
    "lost": lambda: (1006, "", "network"),
    "failed": lambda code: (code, "", "local"),
}


class PulledChannel(_FakeWriting):
    """A channel of a server that is asked for messages, which are given to it by the test."""

    __slots__ = ("_held", "_incoming", "wire")

    is_pulled = True

    def __init__(
        self, connector: BaseConnector, request: Request, options: WebSocketOptions[Any], subprotocol: str | None
    ) -> None:
        super().__init__(connector, request, options, subprotocol)
        self.wire = FakeWire()
        self._incoming: asyncio.Queue[tuple[str, tuple[Any, ...]]] = asyncio.Queue()
        self._held: tuple[str, tuple[Any, ...]] | None = None

    def comes(self, kind: str, *arguments: Any) -> None:
        """Have something come from the server.

        Args:
            kind: ``text``, ``binary``, ``ping``, ``pong``, ``close``, ``lost``, ``failed``, ``error``
                or ``end`` (of reading).
            arguments: Those of the report to the channel.
        """
        self._incoming.put_nowait((kind, arguments))

    async def _receive(self) -> None:
        while self._phase < OVER:
            kind, arguments = self._held or await self._incoming.get()
            self._held = None
            if kind == "end":
                return
            result = self._report(kind, arguments)
            if result is not None:
                await result
                self.running = None

    async def _read_ahead(self) -> None:
        while self._held is None and self._phase < OVER:
            kind, arguments = await self._incoming.get()
            if kind in ("text", "binary", "end"):
                self._held = kind, arguments
            else:
                self._report(kind, arguments)

    def look_for_end(self) -> None:
        waiting: deque[tuple[str, tuple[Any, ...]]] = self._incoming._queue  # type: ignore[attr-defined]
        for kind, arguments in waiting:
            if kind in _ENDS:
                self.end_read(*_ENDS[kind](*arguments))
                return

    def _report(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        return _report(self, kind, arguments)


class PushedChannel(_FakeWriting, QueuedChannel):
    """A channel of a server that pushes its messages."""

    __slots__ = ("wire",)

    def __init__(
        self, connector: BaseConnector, request: Request, options: WebSocketOptions[Any], subprotocol: str | None
    ) -> None:
        super().__init__(connector, request, options, subprotocol)
        self.wire = FakeWire()

    def comes(self, kind: str, *arguments: Any) -> None:
        """As `PulledChannel.comes`; there is no ``end``."""
        if kind in ("text", "binary"):
            self.feed(*arguments)
        else:
            _report(self, kind, arguments)

    def _hold_reading(self) -> None:
        self.wire.written.append(("hold",))

    def _resume_reading(self) -> None:
        self.wire.written.append(("read on",))


FakeChannel = PulledChannel | PushedChannel


def _report(channel: BaseChannel, kind: str, arguments: tuple[Any, ...]) -> Any:
    if kind == "error":
        raise arguments[0]
    reports: dict[str, Callable[..., Any]] = {
        "text": channel.text_received,
        "binary": channel.binary_received,
        "ping": channel.ping_received,
        "pong": channel.pong_received,
        "close": channel.peer_closed,
        "lost": channel.connection_lost,
        "failed": channel.failed,
    }
    return reports[kind](*arguments)


HANDSHAKE = {
    "Host": "example.org",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def handshake(target: str = "/", *, method: str = "GET", scheme: str = "ws", **headers: str) -> Request:
    """Return a valid handshake, but for what is given."""
    lines = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Request(
        method, target, headers=list(lines.items()), scheme=scheme, remote_address=("192.0.2.1", 50000), native="native"
    )


class FakeSource(BaseSource):
    kind: type[FakeChannel] = PushedChannel

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        return self.kind(self.connector, self.request, options, subprotocol)


class FakeConnector(BaseConnector):
    """A connector whose server is the test itself.

    Attributes:
        calls: What was called of the server.
        failing: What `_start` raises.
        gate: What `_stop` waits for.
        tasks: Those that run channels.
    """

    name = "fake"
    connector_api = 2
    close_keywords = MappingProxyType({1000: "all-fine"})
    native_option_names = frozenset(("backlog",))

    def __init__(self, app: Application | None = None, **options: Any) -> None:
        super().__init__(Application([]) if app is None else app, **options)
        self.calls: list[str] = []
        self.failing: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.fake_time: FakeTime | None = None

    def use_fake_time(self) -> FakeTime:
        """From here on the clock's time is set by hand."""
        self.fake_time = FakeTime()
        assert self.loop is not None
        self._clock = Clock(self.fake_time)
        return self.fake_time

    async def request(self, request: Request, *, kind: type[FakeChannel] = PushedChannel) -> Response | FakeChannel:
        """Handle a request as a connector does; a channel is run in a task."""
        source = FakeSource(self, request)
        source.kind = kind
        outcome = await self.handle(request, source)
        if isinstance(outcome, BaseChannel):
            self.run_channel(outcome)
        return cast(Response | FakeChannel, outcome)

    async def open(self, target: str = "/", **options: Any) -> FakeChannel:
        """Open a channel."""
        channel = await self.request(handshake(target), **options)
        assert isinstance(channel, BaseChannel)
        return channel

    def run_channel(self, channel: BaseChannel) -> asyncio.Task[None]:
        task = asyncio.ensure_future(channel.run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _start(self, sockets: list[socket.socket]) -> None:
        self.calls.append(f"start {len(sockets)}")
        if self.failing is not None:
            raise self.failing

    async def _stop_listening(self) -> None:
        self.calls.append("stop listening")

    async def _stop(self) -> None:
        self.calls.append("stop")
        if self.gate is not None:
            await self.gate.wait()


async def passes(count: int = 20) -> None:
    """Let every task go as far as it can without time going by."""
    for _ in range(count):
        await asyncio.sleep(0)
