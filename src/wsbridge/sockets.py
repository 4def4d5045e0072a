"""The sockets that a connector listens on, bound here for every server (STOP-1); and how a connection is cut."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from functools import partial

from wsbridge.protocols import Address

__all__ = ["aborter", "bind", "end_writing", "reserve", "socket_address", "unlink_socket"]

BACKLOG = 1024
_TRIES = 20  # a free port of one address may be taken on the next


async def bind(host: str, port: int, *, unix_path: str | None = None, reuse_port: bool = False) -> list[socket.socket]:
    """Return listening, non-blocking sockets: one for each address of ``host``, or one at ``unix_path``.

    Port 0 gives a free one, the same for every address.

    Raises:
        OSError: An address cannot be bound; none is left open.
    """
    if unix_path is not None:
        return [_bind_unix(unix_path)]
    return await _try_ports(host, port, lambda addresses: _bind_all(addresses, port, reuse_port=reuse_port))


async def reserve(host: str, port: int) -> list[socket.socket]:
    """Return sockets that hold a port for processes that are to share it, and do not listen.

    Others of this user could listen there too by ``SO_REUSEPORT``; so that nobody shares the port unawares, it is taken
    without that first.

    Raises:
        OSError: An address cannot be bound, or somebody listens there.
    """

    def take(addresses: Sequence[_Found]) -> list[socket.socket]:
        probes = _bind_all(addresses, port, reuse_port=False)
        free = probes[0].getsockname()[1]
        for probe in probes:
            probe.close()
        return _bind_all(addresses, free, reuse_port=True, listen=False)

    return await _try_ports(host, port, take)


_Found = tuple[int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _try_ports(
    host: str, port: int, bind_all: Callable[[Sequence[_Found]], list[socket.socket]]
) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    tries = _TRIES if port == 0 else 1
    while True:
        tries -= 1
        try:
            return bind_all(addresses)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or tries == 0:
                raise


def _bind_all(addresses: Sequence[_Found], port: int, *, reuse_port: bool, listen: bool = True) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            try:
                # asyncio turns Nagle's algorithm off only where the protocol is told
                sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            except OSError:
                continue  # a host name may have an address of a family that this machine lacks
            _claim(sock)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
                if listen:
                    sock.listen(BACKLOG)
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    sock.close()
                    continue  # such as ::1 of localhost where IPv6 is off
                raise OSError(exc.errno, f"cannot listen on {address[0]} port {port}: {exc.strerror}") from exc
            sock.setblocking(False)
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address to listen on: {[address for _, address in addresses]}")
        opened.pop_all()
        return sockets


def _claim(sock: socket.socket) -> None:
    """Let a port be taken again soon after its last connection, and by nobody else meanwhile.

    On Windows the first is so, and ``SO_REUSEADDR`` would let any process take the port over; there is an option
    against that. Elsewhere it is the other way round.
    """
    exclusive: int | None = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)


def _bind_unix(path: str) -> socket.socket:
    """Bind a Unix socket; a socket file that nobody listens on is removed first."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on Unix socket {path!r}: {exc.strerror or exc}") from exc
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):  # another process may have been faster
                os.unlink(path)
        except OSError:
            return


def unlink_socket(path: str) -> None:
    """Remove the file of a Unix socket that was bound here, if it is still there."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)


def socket_address(sock: socket.socket) -> Address:
    """Return where ``sock`` listens: host and port, or the path of a Unix socket."""
    name = sock.getsockname()
    is_unix = sock.family == getattr(socket, "AF_UNIX", None)
    return str(name) if is_unix else (str(name[0]), int(name[1]))


def aborter(transport: asyncio.WriteTransport) -> Callable[[], None]:
    """Return a function that aborts ``transport``, whether or not it has ended by then.

    asyncio's own ``abort`` raises AttributeError on one that was closed with bytes unsent and has sent them since
    (selector_events.py: ``_write_ready`` ends it without counting it as lost).
    """
    return partial(_abort, transport)


def end_writing(transport: asyncio.WriteTransport) -> None:
    """End the sending side of ``transport``, unless it is being closed, where uvloop's raises a RuntimeError."""
    if not transport.is_closing():
        transport.write_eof()


def _abort(transport: asyncio.WriteTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() >= 0:
        transport.abort()
