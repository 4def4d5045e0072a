"""The connections of a server that keeps its sockets to itself: how they stand, asked of the kernel, and their cut."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from wsbridge.connector import Address

__all__ = [
    "Descriptors",
    "Ends",
    "are_open",
    "can_list_descriptors",
    "cut",
    "cut_again",
    "cut_all",
    "has_ended",
    "look",
]

Ends = tuple[tuple[str, int], tuple[str, int]]
"""The peer's address and this side's."""

_DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is unsent is dropped
_ESTABLISHED = 1  # include/net/tcp_states.h
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_SOCK_DIAG = (4, 20)  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY: linux/sock_diag.h
_STATE = 16 + 1  # idiag_state: behind nlmsghdr and idiag_family
_INODE = 16 + 68  # idiag_inode: behind inet_diag_sockid and four numbers


def can_list_descriptors() -> bool:
    """Tell whether this system shows the descriptors of a process, as Linux and macOS do, and Windows has none."""
    return os.path.isdir(_DESCRIPTORS)


def look(ends: Ends) -> tuple[int, bool] | None:
    """Ask for a TCP connection: its inode, and whether the peer has ended its side or reset it; None if it is gone.

    Raises:
        OSError: That cannot be told, as on systems that are no Linux.
    """
    if sys.platform != "linux":
        raise OSError("there is no sock_diag")
    family = socket.AF_INET6 if ":" in ends[0][0] else socket.AF_INET
    (peer, peer_port), (here, port) = ends
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG[0]) as netlink:
        # inet_diag_req_v2: of one connection, found by its addresses; any interface, any cookie
        addresses = [socket.inet_pton(family, address).ljust(16, b"\0") for address in (here, peer)]
        body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
        body += struct.pack("!HH16s16sI8s", port, peer_port, *addresses, 0, b"\xff" * 8)
        netlink.settimeout(0.1)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG[1], 1, 1, 0) + body)
        reply = netlink.recv(4096)
    if _HEADER.unpack_from(reply)[1] != _SOCK_DIAG[1]:
        return None
    (inode,) = struct.unpack_from("=I", reply, _INODE)
    return inode, reply[_STATE] != _ESTABLISHED


def has_ended(ends: Ends) -> bool:
    """Tell whether the peer has ended its side of a connection or reset it; False where that cannot be told."""
    try:
        found = look(ends)
    except OSError:
        return False
    return found is None or found[1]


class Descriptors:
    """Finds the descriptors of connections."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}  # by inode

    def duplicate(self, ends: Ends) -> socket.socket | None:
        """Return a duplicate of a connection's socket; None if it is gone, or that cannot be told."""
        try:
            found = look(ends)
        except OSError:
            return None
        if found is None:
            return None
        inode = found[0]
        if (sock := self._duplicate(inode)) is None:
            self._known = dict(_inodes())
            sock = self._duplicate(inode)
        return sock

    def _duplicate(self, inode: int) -> socket.socket | None:
        number = self._known.get(inode)
        if number is None:
            return None
        try:
            copy = os.dup(number)
        except OSError:
            return None
        if _inode(copy) == inode:
            return socket.socket(fileno=copy)
        os.close(copy)
        return None


def _inodes() -> Iterator[tuple[int, int]]:
    for name in os.listdir(_DESCRIPTORS):
        if (inode := _inode(int(name))) is not None:
            yield inode, int(name)


def _inode(number: int) -> int | None:
    """Return the inode of a descriptor if it is of a socket."""
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else None


def cut(ends: Ends) -> None:
    """Shut down a TCP connection of this process, found by its addresses."""
    for sock in _open_sockets():
        with contextlib.suppress(OSError):
            if (sock.getpeername()[:2], sock.getsockname()[:2]) == ends:
                _shut_down(sock)


def cut_again(ends: Ends, inode: int) -> None:
    """As `cut`, if it is the connection still that had ``inode``."""
    with contextlib.suppress(OSError):
        found = look(ends)
        if found is not None and found[0] == inode:
            cut(ends)


def cut_all(addresses: Iterable[Address]) -> None:
    """Shut down the connections that were accepted at addresses."""
    known = list(addresses)
    for sock in _open_sockets():
        with contextlib.suppress(OSError):
            sock.getpeername()  # fails for those that listen
            if _is_at(sock.getsockname(), known):
                _shut_down(sock)


def are_open(addresses: Iterable[Address]) -> bool:
    """Tell whether a connection that was accepted at addresses is open."""
    known = list(addresses)
    for sock in _open_sockets():
        with contextlib.suppress(OSError):
            sock.getpeername()
            if _is_at(sock.getsockname(), known):
                return True
    return False


def _open_sockets() -> Iterator[socket.socket]:
    """Yield a duplicate of each socket that is open in this process; it is closed afterwards."""
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    yield sock


def _is_at(address: Any, known: list[Address]) -> bool:
    if isinstance(address, str):
        return address in known
    host, port = address[:2]
    return any(
        port == other[1] and other[0] in (host, "0.0.0.0", "::") for other in known if not isinstance(other, str)
    )


def _shut_down(sock: socket.socket) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.shutdown(socket.SHUT_RDWR)
