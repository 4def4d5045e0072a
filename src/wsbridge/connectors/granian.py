"""The granian connector: granian's ASGI worker, in this event loop. Read and tried on granian 2.8.7 and 2.8.9.

HTTP and WebSocket are spoken by granian's Rust threads, of which Python reaches nothing: the channel stands on the
event stream (`wsbridge.connectors.asgi`). RSGI was tried too: it tells a loss apart and goes on reading after its own
close, but knows no close code in either direction, no subprotocol, and no headers or body of a refusal.

Works around:

- ``granian.server.embed`` binds a socket of its own and logs on its own: only ``ASGIWorker`` is used, on a duplicate of
  each socket that is bound here (``SocketHolder`` takes a descriptor, and closes it).
- A request may take 30 s: ``header_read_timeout`` is ``handshake_timeout``. An answer may take for ever: the kernel
  tells whether the peer takes it (`BaseConnector.answering`).
- A loss is told as an empty close is: the kernel tells whether the peer has ended the connection.
- granian's close resets the connection if the peer still sends, and the close frame is lost: a duplicate of the
  descriptor keeps it open until the peer has ended it, for a second at most.
- A connection cannot be cut: its descriptor is found by its two addresses, and shut down.
- A worker that is stopped tells nothing more of its connections: it is stopped when the channels have ended.
- A send to a peer that has left succeeds: the kernel is asked now and then, and before a late 101.
- Rust logs a line for each peer that leaves without a close: `_is_no_noise`.
- What is refused by an exception is logged as an error: no exception is handed on.
- An event source lives as long as a traceback that is kept, and its runtime with it: it is let go of early.
- A worker that is stopped leaves those who wait to be accepted: they are refused here (`refuse_waiting`).
- A thread that is in its last steps while the interpreter ends aborts the process: `_stop` waits for it.

What is left is in `wsbridge.connectors._granian_deviations`.

Tokio opens a pair of sockets for signals when a process starts its first worker, and keeps it: `prepare_process`.

Private names are listed in `_PRIVATE`.
"""

from __future__ import annotations

from wsbridge.connectors._versions import check_range

check_range("granian")

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

from granian.http import HTTP1Settings

from wsbridge import Application, Request, Response, UnsupportedOptionError, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    BACKLOG,
    ENDED,
    OVER,
    BaseChannel,
    BaseSource,
    Initiator,
    Taken,
    is_unix,
    lower,
    of_socket,
    refuse_waiting,
    server_names,
    settle,
    shown,
)
from wsbridge.connectors import asgi
from wsbridge.connectors._connections import (
    Descriptors,
    Ends,
    are_open,
    can_list_descriptors,
    cut,
    cut_again,
    cut_all,
    has_ended,
    look,
)
from wsbridge.connectors._granian_deviations import DEVIATIONS

__all__ = ["Connector", "GranianChannel", "GranianRequest"]

GranianRequest: TypeAlias = Request[asgi.Scope]
"""A `Request` of this connector, for annotations."""

GranianChannel: TypeAlias = WebSocketChannel[asgi.Scope]
"""A `WebSocketChannel` of this connector, for annotations."""

logger = logging.getLogger("wsbridge")

_PRIVATE = {
    "granian._futures": "_new_cbscheduler",
    "granian._granian": "ASGIWorker SocketHolder WorkerSignal",
    "granian._granian:ASGIWorker": "serve_async serve_async_uds",
    "granian._granian:WorkerSignal": "add_cb set",
}
_FOUND = server_names("granian", "2.8.7 to 2.8.9", _PRIVATE)

_NOISE = ("Attempted to write to a closed", "Failed to close websocket", "Websocket handshake failed")
_NO_TLS: tuple[Any, ...] = (False, None, None, None, "tls1.3", None, [], False)
_MAX_CONNECTIONS = 1_000_000  # the limit is max_channels
_LEAST_BUFFER = 8192  # bytes: hyper panics for less
_LOOK = 0.25  # seconds between looks at whether a peer that is sent to is still there
_WAITED = 0.01  # seconds after which it is looked at at once
_KEPT = 1.0  # seconds for which a connection is kept after granian's close
_GLANCE = 0.02  # seconds between looks whether those who are connected are answered and gone
_STEP = 0.001  # seconds between looks at whether a thread has ended
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_WAIT = 0.25  # seconds for what ends by itself


# ---- the channel -----------------------------------------------------------------------------------------------------


class _Channel(asgi.Channel):
    __slots__ = ("_ends", "_looked")

    _ends: Ends | None

    def opened(self, receive: asgi.Receive, send: asgi.Send) -> None:
        super().opened(receive, send)
        self._looked = self._connector.clock.time()

    async def _put(self, event: asgi.Event) -> None:
        clock = self._connector.clock
        begun = clock.time()
        try:
            await super()._put(event)
        except RuntimeError as exc:
            raise ConnectionResetError(str(exc)) from None
        now = clock.time()
        has_waited = now - begun > _WAITED
        if has_waited:
            await asyncio.sleep(_STEP)  # granian tells of the peer's close after the send that it has ended
        if self._reason is not None and self._reason.initiator == "local":
            return  # our close waits for what is under way
        if has_waited or now - self._looked > _LOOK:
            self._looked = now
            if self._phase >= OVER or (self._ends is not None and has_ended(self._ends)):
                raise ConnectionResetError("the peer has left")  # what it has sent before is still delivered

    async def _put_close(self, event: asgi.Event) -> None:
        """Keep the connection for a while after granian's close, or it would be reset, and the close frame lost."""
        connector = cast(Connector, self._connector)
        kept = None
        if not self._ended and self._ends is not None:
            kept = connector.descriptors.duplicate(self._ends)
        try:
            await super()._put_close(event)
        finally:
            if kept is not None:
                until = connector.clock.time() + min(self._options.close_timeout, _KEPT)
                connector.drain(kept, _nothing_unsent, until)
                kept.close()

    def _end_of(self, event: asgi.Event) -> tuple[int, str, Initiator]:
        code = int(event.get("code") or 1005)
        if code == 1005 and self._ends is not None and has_ended(self._ends):
            return 1006, "", "network"
        return code, "", "peer"

    def _let_go(self) -> None:
        super()._let_go()
        ends = self._ends
        with contextlib.suppress(OSError):
            if ends is not None and (found := look(ends)) is not None:  # granian writes what is left, for ever
                when = self._connector.clock.time() + self._options.close_timeout
                self._connector.linger(when, partial(cut_again, ends, found[0]))

    def _aborter(self) -> Callable[[], object]:
        ends = self._ends
        return asgi.nothing if ends is None else lambda: cut(ends)


# ---- the source ------------------------------------------------------------------------------------------------------

# That of `wsbridge.connectors.asgi`.


# ---- the connector ---------------------------------------------------------------------------------------------------


class Connector(asgi.Connector):
    """Serves by granian's ASGI worker."""

    name = "granian"
    connector_api = 2
    features = frozenset(("size-limit", "unix-socket"))
    deviations = DEVIATIONS
    keeps_answered = True
    has_tls = False  # files of certificates and keys alone

    is_prepared: ClassVar[bool] = False
    _signals: list[Any]
    _threads: list[asyncio.Future[int]]
    _tasks: set[asyncio.Task[Any]]
    _opening: set[asyncio.Task[Any]]
    descriptors: Descriptors
    _serves: bool
    _last: float  # until when a request is waited for

    def __init__(self, app: Application, **options: Any) -> None:
        super().__init__(app, **options)
        if not can_list_descriptors():
            raise UnsupportedOptionError(
                "the granian connector cannot serve on this system: granian keeps its sockets to itself, and there is "
                "neither /proc/self/fd nor /dev/fd to find and cut them by; serve on another connector"
            )

    @classmethod
    def prepare_process(cls) -> None:
        """See `BaseConnector.prepare_process`: tokio's pair of sockets."""
        if not Connector.is_prepared:
            Connector.is_prepared = True
            loop = asyncio.new_event_loop()
            loop.run_until_complete(cls._start_once())
            loop.close()

    @classmethod
    async def _start_once(cls) -> None:
        connector = cls(Application([]))
        await connector.start()
        await connector.stop()

    def make_channel(self, request: Request, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        channel = _Channel(self, request, options, subprotocol)
        channel.native = cast(asgi.Scope, request.native)
        channel._ends = _ends(channel.native)
        return channel

    async def _accept(self, source: BaseSource, channel: Any, receive: asgi.Receive, send: asgi.Send) -> None:
        scope = cast(asgi.Scope, source.request.native)
        ends = _ends(scope)
        if self.clock.time() - scope["state"]["began"] > _WAITED and ends is not None and has_ended(ends):
            raise ConnectionResetError("the peer has left while the interceptors ran")
        if ends is not None:
            self.upgraded(ends)
        try:
            await super()._accept(source, channel, receive, send)
        except RuntimeError as exc:
            raise ConnectionResetError(str(exc)) from None  # an "ASGI flow error": it is gone
        self._opening.discard(cast("asyncio.Task[Any]", asyncio.current_task()))

    async def _refuse(self, scope: asgi.Scope, send: asgi.Send, response: Response) -> None:
        try:
            await super()._refuse(scope, send, response)
        except RuntimeError as exc:
            logger.debug("the peer left before it was refused: %s", exc)

    async def _start(self, sockets: list[socket.socket]) -> None:
        self._signals = []
        self._threads = []
        self._tasks = set()
        self._opening = set()
        self.descriptors = Descriptors()
        self._listening = sockets
        self._serves = True
        for number, sock in enumerate(sockets, 1):
            self._start_worker(number, sock)

    def _start_worker(self, number: int, sock: socket.socket) -> None:
        unix = is_unix(sock)
        opts = HTTP1Settings(
            header_read_timeout=max(1, int(self.handshake_timeout * 1000)),
            max_buffer_size=max(self.max_head_size, _LEAST_BUFFER),
        )
        worker = _FOUND["ASGIWorker"](
            *(number, (None, _FOUND["SocketHolder"](os.dup(sock.fileno()), unix, BACKLOG)), None),
            *(1, 512, 1, 30, _MAX_CONNECTIONS),  # threads of three kinds, seconds until one of the third ends
            *("1", opts, None, True, None),  # HTTP/1.1 alone, WebSockets, no files
            *_NO_TLS,
            (None, None),
        )
        thread: asyncio.Future[int] = self.loop.create_future()
        loop = self.loop
        signal = _FOUND["WorkerSignal"]()
        signal.add_cb(lambda: loop.call_soon_threadsafe(_resolve, thread, threading.get_native_id()))
        serve = worker.serve_async_uds if unix else worker.serve_async
        serve(_FOUND["_new_cbscheduler"](loop, self._watched, impl_asyncio=True), loop, signal)
        self._signals.append(signal)
        self._threads.append(thread)

    async def _watched(self, watcher: Any) -> None:
        """Serve one request; the task is granian's."""
        if not self._serves:
            if (ends := _ends(watcher.scope)) is not None:
                cut(ends)  # or it would be refused with 403
            watcher.done()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._opening.add(task)
        try:
            scope: asgi.Scope = watcher.scope
            scope.update(root_path="", state={"began": self.clock.time()})
            if scope["type"] == "http":
                await self.serve_http(self.handle, scope, watcher.proto.send)
            else:
                await self.serve_websocket(self.handle, scope, watcher.proto.receive, watcher.proto.send)
        except Exception:
            logger.exception("the request for %s failed", shown(watcher.scope["path"]))
        finally:
            self._tasks.discard(task)
            self._opening.discard(task)
            watcher.done()
            del watcher  # see serve_http

    def _answer_begins(self, scope: asgi.Scope) -> None:
        if (ends := _ends(scope)) is not None:
            self.answering(ends)

    def _how_taken(self, connection: Ends) -> Taken:
        found = self.descriptors.duplicate(connection)
        if found is None:
            return ENDED
        with found:
            return of_socket(found)

    def _cut_answered(self, connection: Ends) -> None:
        cut(connection)

    async def _stop_listening(self) -> None:
        self._last = self.loop.time() + min(_WAIT, self.shutdown_timeout / 4)
        # see the mends; what comes now is refused with 503

    async def _stop(self) -> None:
        await settle(self._opening)  # with a refusal
        await asyncio.sleep(2 * _GLANCE)  # for granian's thread to accept those who wait
        while self.loop.time() < self._last and are_open(self.addresses):  # noqa: ASYNC110
            await asyncio.sleep(_GLANCE)
        for _ in range(round(_WAIT / _STEP)):
            if not self.is_draining:
                break
            await asyncio.sleep(_STEP)
        cut_all(self.addresses)
        await settle(self._tasks)
        self._serves = False
        for signal in self._signals:
            signal.set()
        await settle(self._threads)
        await _until_ended([thread.result() for thread in self._threads if thread.done()])
        refuse_waiting(self._listening, _REFUSAL)
        for task in self._opening:  # nothing of granian's wakes them any more
            task.cancel()
        await settle(self._opening)


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Let pass what granian logs but for what any peer can cause: that has the level debug here (LOG-1)."""
    return not str(record.msg).startswith(_NOISE) or lower(record, logging.getLogger(record.name))


for _name in ("_granian.asgi.io", "_granian.asgi.http"):
    logging.getLogger(_name).addFilter(_is_no_noise)


# ---- the receiving side ----------------------------------------------------------------------------------------------

# It is granian's: its threads, in Rust, read, and tell of it by ASGI's events. Here is what is asked besides.


def _nothing_unsent() -> int:
    return 0  # granian's send of a close returns when all is written


def _resolve(thread: asyncio.Future[int], number: int) -> None:
    if not thread.done():
        thread.set_result(number)


async def _until_ended(threads: list[int]) -> None:
    """Wait for the last steps of threads, after they have told of their end."""
    for _ in range(round(_WAIT / _STEP)):
        await asyncio.sleep(_STEP)
        if not any(map(_is_thread, threads)):
            return


def _is_thread(number: int) -> bool:
    return os.path.exists(f"/proc/self/task/{number}")


def _ends(scope: asgi.Scope) -> Ends | None:
    """Return both addresses of a connection, which granian gives as text; None on a Unix socket."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server or not client[1] or not server[1]:
        return None
    return (client[0], int(client[1])), (server[0], int(server[1]))
