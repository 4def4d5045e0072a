"""The client's end of a connection of the memory connector, and what goes over it; see `wsbridge.connectors.memory`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from werkzeug.datastructures import Headers

from wsbridge import CloseReason, Response
from wsbridge.connector import Initiator, QueuedChannel, close_reason, content_of

__all__ = ["Answer", "Arrival", "ClientRequest", "Close", "Connection", "Control", "End", "Ping", "Pong"]

_OVERHEAD = 16  # bytes that a message counts beside its own, so that empty ones count too
_REMEMBERED = 10  # arrivals
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
Posted = str | bytes | Callable[[QueuedChannel], object]
Arrival = str | bytes | Control
"""What a client gets: a text, a binary message, a control frame, or the end."""


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
        self.channel: QueuedChannel | None = None
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
        self._pings: WeakSet[asyncio.Future[bool]] = WeakSet()  # of those whom somebody awaits, or may

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
            self._pings.add(answered)
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
        """End the sending side without a close frame."""
        if not self.is_over:
            self._is_closed = True
            self._note_end(1006, "", "network")
            self._post(self._lose)

    def _lose(self, channel: QueuedChannel) -> None:
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
        _, content = content_of(response, self.request.method)
        self.answer = Answer(response.status_code, Headers(response.headers), content)
        self._is_closed = True
        self._tell_answer()

    def accept(self, channel: QueuedChannel, headers: Headers) -> None:
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
        pings = list(self._pings)
        self._pings.clear()
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


def _size(arrival: Arrival) -> int:
    return _OVERHEAD + len(arrival) if isinstance(arrival, str | bytes) else _OVERHEAD


def _posted_size(entry: Posted) -> int:
    return _OVERHEAD + len(entry) if isinstance(entry, str | bytes) else _OVERHEAD


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
