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
import logging
import socket
from asyncio import TimerHandle
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

from wsbridge import Application, Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import BaseConnector, BaseSource, Clock, Feature, QueuedChannel, begin_later, check_seconds
from wsbridge.connectors._memory_client import (
    Answer,
    Arrival,
    ClientRequest,
    Close,
    Connection,
    Control,
    End,
    Ping,
    Pong,
)

__all__ = [
    "Answer",
    "Arrival",
    "ClientRequest",
    "Close",
    "Connection",
    "Connector",
    "Control",
    "End",
    "MemoryChannel",
    "MemoryRequest",
    "Ping",
    "Pong",
]

MemoryRequest: TypeAlias = Request[ClientRequest]
"""A `Request` of this connector, for annotations."""

MemoryChannel: TypeAlias = WebSocketChannel[Connection]
"""A `WebSocketChannel` of this connector, for annotations."""

WINDOW = 1024 * 1024
"""Bytes that are on their way, to either side, unless ``native_options`` have another ``window``."""

_CURRENT: ContextVar[tuple[Connector, Connection] | None] = ContextVar("wsbridge_memory", default=None)
_PASSES = 10  # of the event loop, within which what a deadline has set off comes to its end


# ---- the channel ----------------------------------------------------------------------------------------------------


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

    def _disconnect(self, *, half: bool) -> None:
        self.native.disconnect(is_half=half)

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


# ---- the source -----------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, native: Connection) -> None:
        super().__init__(connector, request)
        self._native = native

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.native = self._native
        return channel


# ---- the connector --------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """Serves the clients that `connect` makes.

    ``native_options``: ``window``, and ``ignore_compression``, with which the options of channels that deflate are
    taken: no client of this connector offers to.
    """

    name = "memory"
    connector_api = 2
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
        self.check_loop()
        connection = Connection(self.loop, request, self.window, auto_pong=auto_pong, auto_close=auto_close)
        context = copy_context()
        context.run(_CURRENT.set, (self, connection))
        self._connections.add(connection)
        connection.task = begin_later(self.loop, self._serve(connection), context=context)
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


class _Errors(logging.Filter):
    """Notes what the application has raised, by what is logged where its callbacks run (ERR-1); lets all pass."""

    def __init__(self, connector: Connector) -> None:
        super().__init__()
        self._connector = connector

    def filter(self, record: logging.LogRecord) -> bool:
        current = _CURRENT.get()
        if current is not None and current[0] is self._connector:
            error = getattr(record, "error", None)  # by a message of the peer's (CODEC-2)
            if record.levelno >= logging.ERROR and record.exc_info:
                error = record.exc_info[1]
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


# ---- the receiving side ---------------------------------------------------------------------------------------------

# `Connection` of `wsbridge.connectors._memory_client`: the client's end, which a test has in its hands.
