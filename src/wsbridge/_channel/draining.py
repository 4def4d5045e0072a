"""What a peer sends after its close frame is read and dropped, so that it gets all that was sent to it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Connection", "Drain", "plain_connection", "unacknowledged"]

Connection: TypeAlias = tuple[socket.socket, Callable[[], int]]
"""A socket, and a function that tells how many bytes its server has not written yet; it does not hold the channel."""

_CHUNK = 64 * 1024  # bytes
_INT = struct.Struct("i")

if sys.platform != "linux":

    def unacknowledged(sock: socket.socket) -> int:
        """Return how many bytes the peer's system has not taken; -1 where this system does not tell."""
        return -1

else:
    from fcntl import ioctl
    from termios import TIOCOUTQ

    def unacknowledged(sock: socket.socket) -> int:
        """Return how many bytes the peer's system has not taken; -1 where this system does not tell."""
        try:
            return int(_INT.unpack(ioctl(sock.fileno(), TIOCOUTQ, b"\0" * _INT.size))[0])
        except (OSError, ValueError):  # a kind of socket that does not know, or closed meanwhile
            return 0


def plain_connection(transport: asyncio.Transport) -> Connection | None:
    """Return the connection of an asyncio transport; None with TLS, where asyncio reads on by itself.

    It does until the peer's ``close_notify`` is in, and loses what it has not written yet if a message is in front of
    that (CPython 3.11 to 3.13, asyncio/sslproto.py: ``_do_shutdown`` takes OpenSSL's "application data after close
    notify" for fatal); what it has written arrives.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return None
    return sock, transport.get_write_buffer_size


def _duplicate(sock: socket.socket) -> int:
    """Return a second descriptor of a socket.

    Raises:
        OSError: None is left, or the socket is closed.
        NotImplementedError: The system has handles instead of descriptors, as Windows.
    """
    if os.name == "nt":
        raise NotImplementedError("a socket's handle is no descriptor")
    return os.dup(sock.fileno())


class Drain:
    """Reads and drops what still comes on a connection that its server closes, until the peer ends it too.

    A socket that is closed with bytes unread resets the connection, and what the peer's system has not taken by then
    is lost (RFC 1122, 4.2.2.13; RFC 6455, 7.1.1). This holds a second descriptor of the same socket, so that the server
    may close its own when it has written all; the sending side is ended then.
    """

    __slots__ = ("_ended", "_is_ended_by_peer", "_loop", "_sock", "_unsent")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        unsent: Callable[[], int],
        ended: Callable[[Drain], object],
    ) -> None:
        """Begin.

        Args:
            loop: Must be able to watch a descriptor.
            sock: The server's. It is blocking or not for both, as the server has it: not.
            unsent: Tells how many bytes the server holds that are not written to the socket.
            ended: Called when all is over.

        Raises:
            OSError: No descriptor is left, or the socket is closed.
            NotImplementedError: The event loop cannot watch one, as Windows' proactor.
        """
        self._loop = loop
        self._unsent = unsent
        self._ended = ended
        self._is_ended_by_peer = False
        self._sock = socket.socket(sock.family, sock.type, sock.proto, fileno=_duplicate(sock))
        try:
            loop.add_reader(self._sock, self._read)
            if unsent():
                loop.add_writer(self._sock, self._written)
            else:
                self._end_writing()
        except BaseException:
            self._sock.close()
            raise

    @property
    def is_over(self) -> bool:
        """Whether it has ended, maybe as soon as it began: the peer had reset the connection."""
        return self._sock.fileno() < 0

    def tick(self, now: float) -> None:
        """End it: the time is over."""
        self.close()

    def close(self) -> None:
        """End it now; twice does nothing."""
        if not self.is_over:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._ended(self)

    def _read(self) -> None:
        try:
            more = self._sock.recv(_CHUNK)
        except BlockingIOError:  # the server was faster
            return
        except OSError:  # reset by the peer
            self.close()
            return
        if not more:
            self._is_ended_by_peer = True
            self._loop.remove_reader(self._sock)  # it may read on
            if not self._unsent():
                self.close()

    def _written(self) -> None:
        """Called as long as the system takes more, which is what the server writes."""
        if not self._unsent():
            self._loop.remove_writer(self._sock)
            self._end_writing()

    def _end_writing(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # reset by the peer
            self._is_ended_by_peer = True
        if self._is_ended_by_peer:
            self.close()
