"""Accepting connections: one loop for all servers that run in this event loop (STOP-8, STOP-9).

asyncio's own logs an error for each place of the backlog when no descriptor is left, and again after the server is
closed (CPython 3.11 to 3.14, asyncio/selector_events.py: ``_accept_connection``), aiofastnet 1.2.0 and tornado 6.6
spin (api_utils.py: ``remove_reader`` of a socket; netutil.py: ``accept_handler``), and each forgets connections that
were accepted in the turn of its close.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl as ssl_module
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from wsbridge._channel.transport import Anchor, abort, anchor
from wsbridge._common.tasks import begin_later
from wsbridge.connector.sockets import BACKLOG

__all__ = ["Acceptor", "Connect", "TransportAcceptor", "refuse_waiting"]

logger = logging.getLogger("wsbridge")

Connect = Callable[..., Awaitable[tuple[Any, Any]]]
"""What makes a transport of an accepted socket, as `asyncio.loop.connect_accepted_socket` does."""

_TURN = 64  # connections that are accepted before others get their turn
_PAUSE = 0.25  # seconds without accepting, when the system has nothing left
_QUIET = 1.0  # seconds between two log records about that
_GLANCE = 0.01  # seconds between two looks whether all are answered
_LAST = 4 * BACKLOG  # connections that are accepted at the stop: more than can wait, as some may come meanwhile
_REQUEST = 64 * 1024  # bytes
_WAIT = 0.25  # seconds for what ends by itself

_started: Callable[..., Any] = asyncio.Task
if sys.version_info >= (3, 12):
    _started = partial(asyncio.Task, eager_start=True)  # at once: a turn less for each connection
_ENDED = frozenset(  # errors of a connection that waited, not of the socket that listens: accept(2) of Linux
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPROTO", "EPERM", "EINTR", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ECONNRESET", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)


class Acceptor(ABC):
    """Accepts the connections of sockets that listen, and hands them to a server.

    A subclass fills `_take`, `is_asked` and `abort`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sockets: Sequence[socket.socket]) -> None:
        """Prepare; ``sockets`` listen, do not block, and are closed by `stop`."""
        self._loop = loop
        self._sockets = list(sockets)
        self._tasks: list[asyncio.Task[None]] = []  # of a loop that cannot watch a socket
        self._resume: asyncio.TimerHandle | None = None
        self._logged = float("-inf")
        self._is_stopped = False

    # ---- what a server fills ----------------------------------------------------------------------------------------

    @abstractmethod
    def _take(self, connection: socket.socket, address: Any) -> None:
        """Serve an accepted connection; it is closed here if that raises."""

    @property
    @abstractmethod
    def is_asked(self) -> bool:
        """Whether a connection is open, on which a request may still come, or an answer go out."""

    @abstractmethod
    async def abort(self) -> None:
        """Cut every connection that is open."""

    # ---- accepting --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept from now on."""
        try:
            self._watch()
        except NotImplementedError:  # Windows' proactor
            self._tasks = [begin_later(self._loop, self._accept_in_turn(sock)) for sock in self._sockets]

    def stop(self, *, takes_waiting: bool = True) -> None:
        """Accept all who wait, if ``takes_waiting``, then listen no more (STOP-9)."""
        self._is_stopped = True
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        elif not self._tasks:
            self._unwatch()
        for task in self._tasks:
            task.cancel()
        for sock in self._sockets:
            for _ in range(_LAST if takes_waiting else 0):
                if not self._accept(sock):
                    break
            sock.close()
        self._sockets = []

    async def answer_last(self, until: float) -> None:
        """Wait until those who are connected are answered and gone, or for the loop's time ``until``."""
        while self.is_asked and self._loop.time() < until:  # noqa: ASYNC110  (no server tells of all its ends)
            await asyncio.sleep(_GLANCE)

    def _watch(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock, self._ready, sock)

    def _unwatch(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _ready(self, sock: socket.socket) -> None:
        for _ in range(_TURN):
            if not self._accept(sock):
                return

    def _accept(self, sock: socket.socket) -> bool:
        """Accept one connection; False if there is none, or none can be accepted now."""
        try:
            connection, address = sock.accept()
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno in _ENDED:
                return True
            self._complain(exc)
            if not self._is_stopped:
                self._pause()
            return False
        self._hand_over(connection, address)
        return True

    async def _accept_in_turn(self, sock: socket.socket) -> None:
        while True:
            try:
                connection, address = await self._loop.sock_accept(sock)
            except OSError as exc:
                if exc.errno not in _ENDED:
                    self._complain(exc)
                    await asyncio.sleep(_PAUSE)
            else:
                self._hand_over(connection, address)

    def _hand_over(self, connection: socket.socket, address: Any) -> None:
        try:
            connection.setblocking(False)
            self._take(connection, address)
        except Exception:
            connection.close()
            logger.exception("a connection that was accepted cannot be served")

    def _pause(self) -> None:
        """Accept nothing for a while: a socket that cannot be accepted from is ready all the time."""
        self._unwatch()
        self._resume = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._watch()

    def _complain(self, error: OSError) -> None:
        """Log, once a second at most, that connections have to wait."""
        now = self._loop.time()
        if now - self._logged >= _QUIET:
            self._logged = now
            logger.error("no connection can be accepted for now: %s", error.strerror or error)


class TransportAcceptor(Acceptor):
    """Serves by asyncio protocols, as ``loop.create_server`` does."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        ssl: ssl_module.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        connect: Connect | None = None,
    ) -> None:
        """Prepare.

        Args:
            loop: The event loop that runs.
            sockets: As for `Acceptor`.
            factory: Makes a protocol for each connection.
            ssl: Serve TLS by this context.
            ssl_handshake_timeout: Seconds until TLS must be agreed on (HS-10).
            connect: As ``loop.connect_accepted_socket``, if that is not to be used.
        """
        super().__init__(loop, sockets)
        self._factory = factory
        self._connect = connect or loop.connect_accepted_socket
        self._options: dict[str, Any] = {}
        if ssl is not None:
            self._options = {"ssl": ssl, "ssl_handshake_timeout": ssl_handshake_timeout}
        self._connecting: set[asyncio.Task[None]] = set()  # TLS is not agreed on yet
        self._anchors: weakref.WeakSet[Any] = weakref.WeakSet()

    def _take(self, connection: socket.socket, address: Any) -> None:
        task = _started(self._serve(self._factory(), connection), loop=self._loop)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _serve(self, protocol: asyncio.BaseProtocol, connection: socket.socket) -> None:
        try:
            transport, _ = await self._connect(lambda: protocol, connection, **self._options)
            self._anchors.add(anchor(transport, connection))
        except OSError as exc:  # SSLError too: the peer does not speak TLS, or has left
            logger.debug("a connection has ended before it was served: %s", exc)
        except Exception:
            connection.close()
            logger.exception("a connection that was accepted cannot be served")

    @property
    def transports(self) -> list[Any]:
        """The transports of the connections that are open, and maybe of some that have just ended."""
        return [found.transport if isinstance(found, Anchor) else found for found in list(self._anchors)]

    @property
    def is_asked(self) -> bool:
        return bool(self._connecting) or any(not transport.is_closing() for transport in self.transports)

    async def abort(self) -> None:
        connecting = list(self._connecting)
        for task in connecting:
            task.cancel()
        for transport in self.transports:
            abort(transport)
        if connecting:
            await asyncio.wait(connecting, timeout=_WAIT)
        for _ in range(2):  # the protocols are told in the next turn
            await asyncio.sleep(0)


def refuse_waiting(sockets: Sequence[socket.socket], answer: bytes) -> None:
    """Accept all who wait, answer them and end their connections: for a server that has ended and accepts by itself."""
    for sock in sockets:
        for _ in range(_LAST):
            try:
                connection, _ = sock.accept()
            except OSError:
                break
            with connection, contextlib.suppress(OSError):
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    connection.recv(_REQUEST)  # what is unread at the end would reset the connection
                connection.send(answer)
                connection.shutdown(socket.SHUT_WR)
