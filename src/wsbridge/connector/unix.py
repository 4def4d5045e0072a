"""The file of a Unix socket: bound, given a mode and an owner, and removed if it is still ours (STOP-7)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import AsyncGenerator

from wsbridge.connector.sockets import BACKLOG

__all__ = ["Owner", "UnixSocket", "parse_owner"]

Owner = tuple[int, int]
"""A user's and a group's number, -1 for what is to stay."""

_CLOSED = 0o600  # the mode until the one that is wanted is set
_LOCK_TRIES = 200
_LOCK_STEP = 0.01  # seconds


def parse_owner(text: str) -> Owner:
    """Return the numbers of ``USER``, ``USER:GROUP`` or ``:GROUP``, by name or number.

    Raises:
        ValueError: There is no such user or group, or no name at all.
    """
    user, _, group = text.partition(":")
    if not user and not group:
        raise ValueError(f"unix_owner: it must be USER, USER:GROUP or :GROUP, not {text!r}")
    return _number("user", user), _number("group", group)


def _number(kind: str, name: str) -> int:
    if not name:
        return -1
    if name.isdecimal():
        return int(name)
    if sys.platform == "win32":
        raise ValueError("unix_owner: this system has no users by number")
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"unix_owner: this system has no {kind} {name!r}") from None


class UnixSocket:
    """A socket that is bound to a path, and the file there."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        """Take a socket that is bound to ``path``."""
        self.path = path
        self.sock = sock
        self._file: tuple[int, int] | None = _identity(path)

    @classmethod
    async def bind(cls, path: str, *, mode: int | None = None, owner: Owner | None = None) -> UnixSocket:
        """Bind a socket, which does not listen yet; a file that nobody listens on is replaced.

        Args:
            path: Where.
            mode: Of the file; whoever may write to it may connect. None: as the process's umask has it. There is no
                moment at which it is more open.
            owner: To whom the file is given.

        Raises:
            OSError: It cannot be bound, or given away; nothing is left.
        """
        async with _only_one(path):
            _remove_stale(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if mode is None:
                    sock.bind(path)
                else:
                    _bind_closed(sock, path)
            except OSError as exc:
                sock.close()
                raise OSError(exc.errno, f"cannot listen on Unix socket {path!r}: {exc.strerror or exc}") from exc
            made = cls(path, sock)
            try:
                if owner is not None:
                    os.chown(path, *owner)
                if mode is not None:
                    os.chmod(path, mode)
            except OSError as exc:
                made.close()
                reason = f"cannot set mode or owner of Unix socket {path!r}: {exc.strerror or exc}"
                raise OSError(exc.errno, reason) from exc
            return made

    async def listen(self) -> None:
        """Listen.

        Raises:
            OSError: The file is not the one that was bound: another process has taken the path meanwhile.
        """
        async with _only_one(self.path):
            if _identity(self.path) != self._file:
                reason = f"cannot listen on Unix socket {self.path!r}: another process has removed or replaced it"
                raise OSError(errno.EADDRINUSE, reason)
            self.sock.listen(BACKLOG)

    def unlink(self) -> None:
        """Remove the file, if it is the one that was bound here; twice does nothing.

        While the socket is open no other file can have its number.
        """
        file, self._file = self._file, None
        if file is not None and _identity(self.path) == file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def close(self) -> None:
        """Remove the file and close the socket."""
        self.unlink()
        self.sock.close()


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from any other that exists with it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _bind_closed(sock: socket.socket, path: str) -> None:
    """Bind so that nobody else can connect until the mode is set."""
    if sys.platform == "linux":
        os.fchmod(sock.fileno(), _CLOSED)  # the file gets the mode of the socket
        sock.bind(path)
        return
    before = os.umask(0o777 & ~_CLOSED)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; never waits."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # where somebody listens and is behind with accepting, it would wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):  # another process may have been faster
                os.unlink(path)
        except OSError:
            return


@contextlib.asynccontextmanager
async def _only_one(path: str) -> AsyncGenerator[None, None]:
    """Let one process at a time look at the path and bind there: a lock on the directory, which leaves no file.

    Raises:
        OSError: Another process holds it too long.
    """
    try:
        descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        yield  # it cannot be read, or is not there, which the bind will tell
        return
    try:
        await _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


async def _lock(descriptor: int, path: str) -> None:
    import fcntl

    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_LOCK_STEP)
        else:
            return
    raise OSError(errno.EADDRINUSE, f"cannot listen on Unix socket {path!r}: its directory is locked by a process")
