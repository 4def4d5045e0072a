"""The sockets that a connector listens on, bound here for every server (STOP-1)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Iterable, Sequence

from wsbridge.protocols import Address

__all__ = [
    "BACKLOG",
    "adopt",
    "bind",
    "check_sockets",
    "is_unix",
    "listen",
    "reserve",
    "socket_address",
]

BACKLOG = 1024
"""Connections that wait to be accepted, on each connector (STOP-1); the system may have a lower limit."""
_TRIES = 20  # a free port of one address may be taken on the next


async def bind(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Return non-blocking sockets, one for each address of ``host``, which do not listen yet: see `listen`.

    Port 0 gives a free one, the same for every address. The port is held: nobody else can bind it meanwhile, except
    with ``SO_REUSEPORT`` as well.

    Raises:
        OSError: An address cannot be bound, as one where somebody listens; none is left open.
    """
    return await _try_ports(host, port, lambda addresses: _bind_all(addresses, port, reuse_port=reuse_port))


def check_sockets(sockets: Sequence[socket.socket]) -> None:
    """Check that sockets that are handed in can be listened on (STOP-15).

    Raises:
        TypeError: They are not a sequence of sockets.
        ValueError: One is closed, not bound, connected, or not a stream socket of TCP or Unix.
    """
    if isinstance(sockets, str) or not isinstance(sockets, Sequence):
        raise TypeError(f"sockets must be a sequence of sockets, not {sockets!r}")
    for sock in sockets:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"sockets must be a sequence of sockets, not one with {sock!r}")
        if sock.fileno() < 0:
            raise ValueError(f"sockets must be open: {sock!r}")
        if sock.type != socket.SOCK_STREAM or not (is_unix(sock) or sock.family in (socket.AF_INET, socket.AF_INET6)):
            raise ValueError(f"sockets must be stream sockets of TCP or Unix: {sock!r}")
        name = sock.getsockname()
        if not name or (not is_unix(sock) and name[1] == 0):
            raise ValueError(f"sockets must be bound: {sock!r}")
        if _is_connected(sock):
            raise ValueError(f"sockets must be for listening, and not connected: {sock!r}")


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def is_unix(sock: socket.socket) -> bool:
    """Tell whether it is a Unix socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)


def adopt(sockets: Sequence[socket.socket]) -> list[socket.socket]:
    """Return duplicates of sockets that are bound, which do not block; the originals stay open (STOP-15)."""
    with contextlib.ExitStack() as opened:
        adopted: list[socket.socket] = []
        for given in sockets:
            kind = 0 if is_unix(given) else socket.IPPROTO_TCP  # see _bind_all
            copy = given.dup()
            sock = opened.enter_context(socket.socket(given.family, socket.SOCK_STREAM, kind, fileno=copy.detach()))
            sock.setblocking(False)
            adopted.append(sock)
        opened.pop_all()
        return adopted


def listen(sockets: Iterable[socket.socket]) -> None:
    """Have sockets of `bind` or `adopt` listen.

    Raises:
        OSError: One cannot.
    """
    for sock in sockets:
        if sys.platform == "linux" and not is_unix(sock):  # which was turned off as it was bound
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.listen(BACKLOG)
        except OSError as exc:
            address = socket_address(sock)
            where = f"Unix socket {address!r}" if isinstance(address, str) else f"{address[0]} port {address[1]}"
            raise OSError(exc.errno, f"cannot listen on {where}: {exc.strerror}") from exc


async def reserve(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Return sockets that hold a port for processes that are to share it, and do not listen.

    Others of this user could listen there too by ``SO_REUSEPORT``; so that nobody shares the port unawares, it is taken
    without that first, unless ``shared`` says that it may be another's already (STOP-13).

    Raises:
        OSError: An address cannot be bound, or somebody listens there.
    """

    def take(addresses: Sequence[_Found]) -> list[socket.socket]:
        if shared:
            return _bind_all(addresses, port, reuse_port=True)
        probes = _bind_all(addresses, port, reuse_port=False)
        free = probes[0].getsockname()[1]
        for probe in probes:
            probe.close()
        return _bind_all(addresses, free, reuse_port=True)

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


def _bind_all(addresses: Sequence[_Found], port: int, *, reuse_port: bool) -> list[socket.socket]:
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
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    sock.close()
                    continue  # such as ::1 of localhost where IPv6 is off
                raise OSError(exc.errno, f"cannot listen on {address[0]} port {port}: {exc.strerror}") from exc
            if sys.platform == "linux":  # or others could bind it too, and only one of them listen
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            sock.setblocking(False)
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address to listen on: {[address for _, address in addresses]}")
        opened.pop_all()
        return sockets


def _claim(sock: socket.socket) -> None:
    """Let a port be taken again soon after its last connection, and by nobody else meanwhile.

    On Windows the first holds anyway, and ``SO_REUSEADDR`` would let any process take the port over; there is an option
    against that. Elsewhere it is the other way round.
    """
    exclusive: int | None = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)


def socket_address(sock: socket.socket) -> Address:
    """Return where ``sock`` listens: host and port, or the path of a Unix socket."""
    name = sock.getsockname()
    return str(name) if is_unix(sock) else (str(name[0]), int(name[1]))
