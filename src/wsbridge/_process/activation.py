"""Sockets by descriptor, and what systemd hands over and wants to be told (STOP-15): sd_listen_fds(3), sd_notify(3)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket

__all__ = ["inherited_descriptors", "notify", "socket_of"]

FIRST = 3  # SD_LISTEN_FDS_START

logger = logging.getLogger("wsbridge")


def inherited_descriptors() -> tuple[int, ...]:
    """Return the descriptors that were handed to this process by ``LISTEN_FDS``, and take that out of the environment.

    Raises:
        ValueError: ``LISTEN_FDS`` is not a number.
    """
    pid, count = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()):
        return ()  # meant for another process, such as a shell around this one
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not count.isascii() or not count.isdecimal():
        raise ValueError(f"LISTEN_FDS must be a number of descriptors, not {count!r}")
    return tuple(range(FIRST, FIRST + int(count)))


def socket_of(descriptor: int) -> socket.socket:
    """Return the socket that ``descriptor`` is; closing it closes the descriptor.

    Raises:
        OSError: It is not open, or not a socket.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise OSError(exc.errno, f"cannot listen on descriptor {descriptor}: {exc.strerror}") from exc
    sock.set_inheritable(False)
    return sock


def notify(state: str) -> None:
    """Tell ``NOTIFY_SOCKET``, if the environment has one, such as ``READY=1``."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path or not hasattr(socket, "AF_UNIX"):
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send(state.encode())
        except OSError as exc:
            logger.warning("NOTIFY_SOCKET %r cannot be told %r: %s", path, state, exc.strerror or exc)
