"""The memory connector: both ends of a channel in one event loop, with no socket and no frames; for tests.

`Connection` is the client's end: ``send`` -> ``feed``; ``ping`` -> ``ping_received``; ``pong`` -> ``pong_received``;
``close`` -> ``peer_closed``; ``drop``, ``half_close`` -> ``connection_lost``. What the channel writes lies in the
inbox, in order, until the client takes it: up to ``window`` bytes it has left the server, as if in the buffers of a
network, and what is beyond is unsent, so that sends wait (FLOW-2) and `send_timeout` counts. While the server reads no
more (FLOW-1), what the client does waits in the same way, and in order. A client that works answers pings and closes
when they have left; one that is told to does not.

Time is that of the event loop, and `Connector.advance` moves it forward for all timeouts of the channels.

It has no wire: it refuses what is about sockets, and deflates nothing. It needs no package, and declares no deviation.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import socket
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

from werkzeug.datastructures import Headers

from wsbridge.application import Application
from wsbridge.base import BaseConnector, BaseSource, QueuedChannel
from wsbridge.clock import Clock
from wsbridge.close import CloseReason, Initiator, close_reason
from wsbridge.http import Request, Response
from wsbridge.options import WebSocketOptions, check_seconds
from wsbridge.protocols import Feature, WebSocketChannel

__all__ = [
    "Answer",
    "Arrival",
    "ClientRequest",
    "Close",
    "Connection",
    "Connector",
    "End",
    "MemoryChannel",
    "MemoryRequest",
    "Ping",
    "Pong",
]

WINDOW = 1024 * 1024
"""Bytes that are on their way, to either side, unless ``native_options`` have another ``window``."""

_OVERHEAD = 16  # bytes that a message counts beside its own, so that empty ones count too
_REMEMBERED = 10  # arrivals
_PASSES = 10  # of the event loop, within which what a deadline has set off comes to its end
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request as a client makes it: the native request of this connector.

    Attributes:
        method: Such as ``GET``.
        target: Path and query, or the absolute form, encoded as on a wire.
        headers: Names and values in latin-1, in order, repeated ones too.
        scheme: ``ws`` or ``wss``.
        http_version: Such as ``1.1``.
        remote_address: The client's host and port.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    scheme: str = "ws"
    http_version: str = "1.1"
    remote_address: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered; a status of 101 for a channel."""

    status: int
    headers: Headers
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping of the server's."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping of the client's."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The server's close frame; ``code`` is None for an empty one."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The end of the connection, which the server has cut if ``is_cut``."""

    is_cut: bool = False


Control = Ping | Pong | Close | End
Posted = str | bytes | Callable[["_Channel"], object]
Arrival = str | bytes | Control
"""What a client gets: a text, a binary message, a control frame, or the end."""


class _Channel(QueuedChannel):
    __slots__ = ("_put",)

    native: Connection

    def _send_text(self, text: str) -> None:
        if type(text) is not str:
            text = str.__str__(text)
        if not text.isascii():
            text.encode()  # what could not be sent on a wire is not sent here
        self._put(text)

    def _send_binary(self, data: bytes) -> None:
        self._put(data)

    def _close(self, code: int | None, text: str) -> None:
        self.native.put_close(code, text)

    def _ping(self, payload: bytes) -> None:
        self.native.put_control(Ping(payload))

    def _pong(self, payload: bytes) -> None:
        self.native.put_control(Pong(payload))

    def _disconnect(self) -> None:
        self.native.disconnect(is_half=self._failed)

    def _aborter(self) -> Callable[[], object]:
        return self.native.abort

    def _unsent_bytes(self) -> int:
        return self.native.unsent

    def _hold_reading(self) -> None:
        self.native.is_held = True

    def _resume_reading(self) -> None:
        self.native.resume()

    def opened(self, connection: Connection) -> None:
        """Take the connection, when the 101 is out."""
        self._put = connection.put


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, native: Connection) -> None:
        super().__init__(connector, request)
        self._native = native

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.native = self._native
        return channel


class Connector(BaseConnector):
    """Serves the clients that `connect` makes.

    ``native_options``: ``window``, and ``ignore_compression``, with which the options of channels that deflate are
    taken: no client of this connector offers to.
    """

    name = "memory"
    connector_api = 1
    has_wire = False
    features: ClassVar[frozenset[Feature]] = frozenset(("size-limit", "ping"))
    native_option_names: ClassVar[frozenset[str]] = frozenset(("window", "ignore_compression"))

    def __init__(self, app: Application, **options: Any) -> None:
        super().__init__(app, **options)
        self.window: int = self.native_options.get("window", WINDOW)
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 1:
            raise ValueError(f"native_options['window'] must be an int from 1, not {self.window!r}")
        self._connections: set[Connection] = set()
        self._listens = False
        self._errors = _Errors(self)

    def check_options(self, options: WebSocketOptions[Any]) -> None:
        """See `BaseConnector.check_options`."""
        super().check_options(replace(options, compression=False) if self._ignores_compression else options)

    @property
    def _ignores_compression(self) -> bool:
        return bool(self.native_options.get("ignore_compression"))

    async def _start(self, sockets: list[socket.socket]) -> None:
        self._listens = True
        logging.getLogger("wsbridge").addFilter(self._errors)

    async def _stop_listening(self) -> None:
        self._listens = False

    async def _stop(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        if handshakes := [connection.task for connection in self._connections if connection.answer is None]:
            await asyncio.wait(handshakes, timeout=0.25)
        logging.getLogger("wsbridge").removeFilter(self._errors)

    def _make_clock(self) -> Clock:
        self._time = _Time(self.loop)
        return Clock(self._time)

    async def advance(self, seconds: float) -> None:
        """Move the time of all channels forward, and let happen what is due by then, each at its time.

        It is that of the timeouts of channels; what the application awaits of asyncio itself, such as a sleep, goes by
        the event loop's time.

        Raises:
            TypeError, ValueError: ``seconds`` is no positive number.
        """
        check_seconds("seconds", seconds)
        assert self.clock is not None  # it is made with its time
        await self._time.advance(seconds)

    async def connect(self, request: ClientRequest, *, auto_pong: bool = True, auto_close: bool = True) -> Connection:
        """Make a request and wait for its answer, `Connection.answer`; else as `open`.

        Raises:
            ConnectionResetError: There was none.
        """
        connection = self.open(request, auto_pong=auto_pong, auto_close=auto_close)
        try:
            await connection.wait_answered()
        except asyncio.CancelledError:
            connection.drop()
            raise
        return connection

    def open(self, request: ClientRequest, *, auto_pong: bool = True, auto_close: bool = True) -> Connection:
        """Make a request.

        Args:
            request: A handshake, or any other.
            auto_pong: Whether the client answers pings.
            auto_close: Whether it answers a close, and ends its side when the server has.

        Raises:
            ConnectionRefusedError: The connector does not run.
        """
        if not self._listens:
            raise ConnectionRefusedError("the memory connector does not run: start it first")
        self._check_loop()
        connection = Connection(self.loop, request, self.window, auto_pong=auto_pong, auto_close=auto_close)
        context = copy_context()
        context.run(_CURRENT.set, (self, connection))
        self._connections.add(connection)
        connection.task = self.loop.create_task(self._serve(connection), context=context)
        connection.task.add_done_callback(partial(self._forget, connection))
        return connection

    async def _serve(self, connection: Connection) -> None:
        """Answer a request and live the channel's life."""
        native = connection.request
        request = Request(
            native.method,
            native.target,
            headers=native.headers,
            scheme=native.scheme,
            http_version=native.http_version,
            remote_address=native.remote_address,
            native=native,
        )
        source = _Source(self, request, connection)
        outcome = await self.handle(request, source)
        if isinstance(outcome, Response):
            connection.refuse(outcome)
        elif connection.is_over:
            outcome.abandon()
        else:
            assert isinstance(outcome, _Channel)
            outcome.opened(connection)
            connection.accept(outcome, source.response_headers)
            await outcome.run()

    def _forget(self, connection: Connection, task: asyncio.Task[None]) -> None:
        connection.let_go()
        self._connections.discard(connection)


class Connection:
    """The client's end of a connection; nothing here waits but what is said to.

    Attributes:
        request: What it began with.
        channel: The application's end, while it has callbacks to run.
        answer: What came of the request, None before.
        task: Runs the application's callbacks; done when they are.
        inbox: What has come and was not taken.
        arrived: The last that came, taken or not.
        errors: What the application has raised.
        reason: How the channel ended, as the client sees it; None while it is open.
        is_held: Whether the server reads no more for now (FLOW-1).
        must_drain: Whether more than the window is sent and not read, so that `drain` waits.
        is_over: Whether the connection is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: ClientRequest,
        window: int,
        *,
        auto_pong: bool,
        auto_close: bool,
    ) -> None:
        self.request = request
        self.auto_pong = auto_pong
        self.auto_close = auto_close
        self.answer: Answer | None = None
        self.task: asyncio.Task[None]
        self.inbox: deque[Arrival] = deque()
        self.arrived: deque[Arrival] = deque(maxlen=_REMEMBERED)
        self.errors: list[BaseException] = []
        self.reason: CloseReason | None = None
        self.is_held = True  # until there is a channel that reads
        self.must_drain = False
        self.is_over = False
        self._loop = loop
        self._window = window
        self.channel: _Channel | None = None
        self._answered: asyncio.Future[None] = loop.create_future()
        self._is_closed = False  # from this end
        self._close_came = False
        self._end_came = False
        self._waiter: asyncio.Future[bool] | None = None  # of the one that reads, while nothing is there
        self._drainers: list[asyncio.Future[None]] = []
        self._untaken = 0  # bytes
        self._outbox: deque[Posted] = deque()
        self._unread = 0  # bytes
        self._is_full = False
        self._unanswered: list[Control] = []  # they have not left the server
        self._pings: list[asyncio.Future[bool]] = []

    # ---- what a client does -----------------------------------------------------------------------------------------

    def send(self, message: str | bytes) -> bool:
        """Send a message; False if nothing can be sent any more."""
        if self._is_closed:
            return False
        if self.is_held or self._outbox or self.channel is None:
            self._post(message)
        else:
            self.channel.feed(message)
        return True

    def _post(self, entry: Posted) -> None:
        """Do it, or have what the server does not read now wait in order, as in the buffers of a network."""
        if self.is_held or self._outbox:
            self._outbox.append(entry)
            self._unread += _posted_size(entry)
            self.must_drain = self._unread > self._window
        else:
            self._deliver(entry)

    def _deliver(self, entry: Posted) -> None:
        if self.channel is None:
            return
        if isinstance(entry, str | bytes):
            self.channel.feed(entry)
        else:
            entry(self.channel)

    def _flush(self) -> None:
        """Let the server read on."""
        while self._outbox and not self.is_held:
            entry = self._outbox.popleft()
            self._unread -= _posted_size(entry)
            self._deliver(entry)
        self.must_drain = self._unread > self._window
        if not self.must_drain:
            self._wake_drainers()

    async def drain(self) -> None:
        """Wait until what was sent and is not read is no more than the window."""
        while self.must_drain and not self.is_over:
            drainer: asyncio.Future[None] = self._loop.create_future()
            self._drainers.append(drainer)
            await drainer

    def ping(self, payload: bytes = b"") -> asyncio.Future[bool]:
        """Send a ping; return a future of whether it, or a later one, was answered before the end."""
        answered: asyncio.Future[bool] = self._loop.create_future()
        if self._is_closed:
            answered.set_result(False)
        else:
            self._pings.append(answered)
            self._post(lambda channel: channel.ping_received(payload))
        return answered

    def pong(self, payload: bytes = b"") -> None:
        """Send a pong."""
        if not self._is_closed:
            self._post(lambda channel: channel.pong_received(payload))

    def close(self, code: int | None = 1000, text: str = "") -> None:
        """Send a close frame, an empty one for None."""
        if not self._is_closed:
            self._is_closed = True
            self._note_end(1005 if code is None else code, text, "peer")
            self._post(lambda channel: channel.peer_closed(code, text))

    def half_close(self) -> None:
        """End the sending side with no word before it."""
        if not self.is_over:
            self._is_closed = True
            self._note_end(1006, "", "network")
            self._post(self._lose)

    def _lose(self, channel: _Channel) -> None:
        channel.connection_lost()
        if not self.is_over:
            self._end()

    def drop(self) -> None:
        """Be gone, and read no more of what has come."""
        if not self._answered.done():
            self.task.cancel()
        if not self.is_over:
            self._note_end(1006, "", "network")
            self.inbox.clear()
            self._outbox.clear()
            self._untaken = self._unread = 0
            if self.channel is not None:
                self.channel.connection_lost()
            self._end()

    def take(self) -> Arrival:
        """Return what is next in the inbox, which is not empty."""
        arrival = self.inbox.popleft()
        self._untaken -= _size(arrival)
        if self._is_full and self._untaken <= self._window:
            self._has_left()
        return arrival

    async def wait(self, seconds: float) -> bool:
        """Wait until something is in the inbox; False if nothing is in time.

        Raises:
            RuntimeError: Another task waits.
        """
        if self._waiter is not None:
            raise RuntimeError("another task is receiving from this peer already")
        if self.inbox:
            return True
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, _expire, waiter)
        try:
            return bool(await waiter)
        finally:
            timer.cancel()
            self._waiter = None

    async def wait_answered(self) -> None:
        """Wait for the answer to the request."""
        await asyncio.shield(self._answered)

    # ---- what the server does ---------------------------------------------------------------------------------------

    def refuse(self, response: Response) -> None:
        """Take an answer in plain HTTP."""
        has_body = self.request.method != "HEAD" and response.status_code not in (204, 304)
        self.answer = Answer(response.status_code, Headers(response.headers), response.body if has_body else b"")
        self._is_closed = True
        self._tell_answer()

    def accept(self, channel: _Channel, headers: Headers) -> None:
        """Take the 101."""
        key = next(value for name, value in self.request.headers if name.lower() == "sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode("latin-1")).digest()).decode()
        own = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
        if channel.subprotocol is not None:
            own.append(("Sec-WebSocket-Protocol", channel.subprotocol))
        self.channel = channel
        self.answer = Answer(101, Headers([*own, *headers]))
        self._tell_answer()
        self.resume()  # when the channel runs

    def _tell_answer(self) -> None:
        if not self._answered.done():
            self._answered.set_result(None)

    def _tell_reset(self) -> None:
        if not self._answered.done():
            self._answered.set_exception(ConnectionResetError("the connection ended before the request was answered"))
            self._answered.exception()  # whoever waits gets it, and nobody has to

    def put(self, message: str | bytes) -> None:
        """Take a message."""
        self.inbox.append(message)
        self.arrived.append(message)
        self._untaken += len(message) + _OVERHEAD
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)
        if self._untaken > self._window:
            self._fill()

    def put_control(self, control: Control) -> None:
        """Take a control frame; it is answered when it has left."""
        self.inbox.append(control)
        self.arrived.append(control)
        self._untaken += _size(control)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)
        if self._untaken > self._window:
            self._fill()
            self._unanswered.append(control)
        else:
            self._loop.call_soon(self._answer, control)

    def put_close(self, code: int | None, text: str) -> None:
        """Take the close frame, the first."""
        if not self._close_came:
            self._close_came = True
            self._note_end(1005 if code is None else code, text, "local")
            self.put_control(Close(code, text))

    def disconnect(self, *, is_half: bool) -> None:
        """Take the end of what the server sends; it may wait for this end's."""
        if is_half:
            self._end_came = True
            self.put_control(End())
        else:
            self._end()
            if self.channel is not None:
                self.channel.connection_lost()

    def abort(self) -> None:
        """Take it that the server has cut the connection: what has not left is lost."""
        if not self.is_over:
            self._tell_reset()
            while self._untaken > self._window:
                self._untaken -= _size(self.inbox.pop())
            self._unanswered.clear()
            self._note_end(1006, "", "network")
            self._end(is_cut=True)

    def resume(self) -> None:
        """Take it that the server reads on."""
        self.is_held = False
        self._loop.call_soon(self._flush)  # not below the channel, which calls this

    def let_go(self) -> None:
        """Keep nothing of the channel, whose callbacks have ended (THR-3)."""
        self._tell_reset()
        self.channel = None
        self._outbox.clear()
        if not self.is_over:
            self._note_end(1006, "", "network")
            self._end()

    @property
    def unsent(self) -> int:
        """Bytes that have not left the server."""
        return max(0, self._untaken - self._window)

    # ---- both -------------------------------------------------------------------------------------------------------

    def _note_end(self, code: int, text: str, initiator: Initiator) -> None:
        if self.reason is None:
            self.reason = close_reason(code, text, initiator, {})

    def _end(self, *, is_cut: bool = False) -> None:
        self.is_over = self._is_closed = True
        self._wake_drainers()
        self._answer_pings(False)
        if not self._end_came:
            self._end_came = True
            self.put_control(End(is_cut))

    def _answer_pings(self, is_answered: bool) -> None:
        pings, self._pings = self._pings, []
        for ping in pings:
            if not ping.done():
                ping.set_result(is_answered)

    def _wake_drainers(self) -> None:
        drainers, self._drainers = self._drainers, []
        for drainer in drainers:
            if not drainer.done():
                drainer.set_result(None)

    def _fill(self) -> None:
        self._is_full = True
        if self.channel is not None:
            self.channel.pause_writing()

    def _has_left(self) -> None:
        self._is_full = False
        unanswered, self._unanswered = self._unanswered, []
        for control in unanswered:
            self._loop.call_soon(self._answer, control)
        if self.channel is not None:
            self.channel.resume_writing()

    def _answer(self, control: Control) -> None:
        """Do what a client does by itself."""
        if isinstance(control, Ping):
            if self.auto_pong:
                self.pong(control.payload)
        elif isinstance(control, Pong):
            self._answer_pings(True)
        elif isinstance(control, Close):
            if self.auto_close:
                self.close(control.code)
        elif isinstance(control, End) and self.auto_close and not self.is_over and self.channel is not None:
            self.is_over = self._is_closed = True
            self.channel.connection_lost()


MemoryRequest: TypeAlias = Request[ClientRequest]
"""A `Request` of this connector, for annotations."""

MemoryChannel: TypeAlias = WebSocketChannel[Connection]
"""A `WebSocketChannel` of this connector, for annotations."""

_CURRENT: ContextVar[tuple[Connector, Connection] | None] = ContextVar("wsbridge_memory", default=None)


class _Errors(logging.Filter):
    """Notes what the application has raised, by what is logged where its callbacks run (ERR-1); lets all pass."""

    def __init__(self, connector: Connector) -> None:
        super().__init__()
        self._connector = connector

    def filter(self, record: logging.LogRecord) -> bool:
        current = _CURRENT.get()
        if current is not None and current[0] is self._connector and record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                current[1].errors.append(error)
        return True


class _Timer:
    """Stands for a `TimerHandle`."""

    __slots__ = ("callback", "handle", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback
        self.handle: TimerHandle | None = None

    def cancel(self) -> None:
        self.callback = None
        if self.handle is not None:
            self.handle.cancel()

    def fire(self) -> None:
        callback = self.callback
        self.cancel()
        if callback is not None:
            callback()


class _Time:
    """The event loop's time, moved forward by hand; for a `Clock`, which has one timer at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        self._timer: _Timer | None = None

    def time(self) -> float:
        return self._loop.time() + self._ahead

    def call_at(self, when: float, callback: Callable[[], object], /) -> TimerHandle:
        self._timer = _Timer(when, callback)
        self._arm(self._timer)
        return cast(TimerHandle, self._timer)

    def _arm(self, timer: _Timer) -> None:
        if timer.handle is not None:
            timer.handle.cancel()
        timer.handle = self._loop.call_at(timer.when - self._ahead, timer.fire)

    async def advance(self, seconds: float) -> None:
        end = self.time() + seconds
        while (timer := self._timer) is not None and timer.callback is not None and timer.when <= end:
            self._ahead = max(self._ahead, timer.when - self._loop.time())
            timer.fire()
            await _settle()
        self._ahead = max(self._ahead, end - self._loop.time())
        if self._timer is not None and self._timer.callback is not None:
            self._arm(self._timer)
        await _settle()


async def _settle() -> None:
    for _ in range(_PASSES):
        await asyncio.sleep(0)


def _size(arrival: Arrival) -> int:
    return _OVERHEAD + len(arrival) if isinstance(arrival, str | bytes) else _OVERHEAD


def _posted_size(entry: Posted) -> int:
    return _OVERHEAD + len(entry) if isinstance(entry, str | bytes) else _OVERHEAD


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
