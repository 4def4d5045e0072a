"""A deadline for answers in plain HTTP: a peer that does not read holds its connection no longer (HS-13)."""

from __future__ import annotations

import socket
import struct
import sys
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any, Generic, TypeAlias, TypeVar

from wsbridge._channel.clock import Clock
from wsbridge._channel.draining import unacknowledged

__all__ = ["ENDED", "Answers", "Taken", "of_socket", "of_transport"]

T = TypeVar("T")

Taken: TypeAlias = tuple[bool, int]
"""Whether there is something that a peer has not taken, and a number that changes when it takes something."""

ENDED: Taken = (False, 0)

_BYTES_ACKED = struct.Struct("=120xQ")  # tcpi_bytes_acked: linux/tcp.h

if sys.platform != "linux":

    def _progress(sock: Any) -> int:
        return 0  # this system does not tell

else:

    def _progress(sock: Any) -> int:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
            return int(_BYTES_ACKED.unpack(info)[0])
        except (OSError, struct.error):  # a Unix socket
            return -unacknowledged(sock)


class Answers(Generic[T]):
    """The deadlines of the answers on the connections of a connector, one for each that was answered lately."""

    def __init__(
        self,
        timeout: float,
        taken: Callable[[T], Taken],
        cut: Callable[[T], object],
        *,
        keeps: bool = False,
    ) -> None:
        """Prepare.

        Args:
            timeout: Seconds within which an answer must be taken.
            taken: Tells how a connection stands.
            cut: Ends a connection.
            keeps: Whether connections are kept until their deadline: needed where they are only known by name.
        """
        self._timeout = timeout
        self._taken = taken
        self._cut = cut
        self._keeps = keeps
        self._deadlines: MutableMapping[T, _Deadline[T]] = {} if keeps else weakref.WeakKeyDictionary()

    def begin(self, clock: Clock, connection: T) -> None:
        """Take it that an answer is written next."""
        now = clock.time()
        deadline = self._deadlines.get(connection)
        if deadline is None:
            reference = (lambda: connection) if self._keeps else weakref.ref(connection)
            deadline = self._deadlines[connection] = _Deadline(self, reference)
            deadline.progress = self._taken(connection)[1]
            clock.at(now + self._timeout, deadline)
        deadline.begun = now

    def forget(self, connection: T) -> None:
        """Take it that the connection is upgraded: what is written from now on is the channel's."""
        if (deadline := self._deadlines.pop(connection, None)) is not None:
            deadline.is_over = True

    def tick(self, deadline: _Deadline[T], connection: T, now: float) -> float | None:
        """Look at a connection that was answered; return when to look again.

        One whose last answer is too old is cut, and so is one that goes on asking and has taken nothing since the look
        before: what the system holds for it can be a lot.
        """
        is_untaken, progress = self._taken(connection)
        if is_untaken and now < deadline.begun + self._timeout and progress != deadline.progress:
            deadline.progress = progress
            return min(now + self._timeout / 2, deadline.begun + self._timeout)
        self._deadlines.pop(connection, None)
        if is_untaken:
            self._cut(connection)
        return None


class _Deadline(Generic[T]):
    """A clock entry for one connection."""

    __slots__ = ("_answers", "_reference", "begun", "is_over", "progress")

    def __init__(self, answers: Answers[T], reference: Callable[[], T | None]) -> None:
        self._answers = answers
        self._reference = reference
        self.begun = 0.0
        self.progress = 0
        self.is_over = False

    def tick(self, now: float) -> float | None:
        connection = self._reference()
        if connection is None or self.is_over:
            return None
        return self._answers.tick(self, connection, now)


def of_socket(sock: Any, *, is_held: bool = False) -> Taken:
    """Return how a connection stands by its socket.

    Args:
        sock: The socket, or what asyncio has for it.
        is_held: Whether the server itself holds a part of an answer, or waits for the connection's end.
    """
    return is_held or unacknowledged(sock) > 0, _progress(sock)


def of_transport(transport: Any) -> Taken:
    """Return how the connection of a transport stands."""
    try:
        sock = transport.get_extra_info("socket")
    except AttributeError:  # asyncio's of TLS that was closed twice
        return ENDED
    if sock is None or sock.fileno() < 0:
        return ENDED
    return of_socket(sock, is_held=bool(transport.is_closing() or transport.get_write_buffer_size()))
