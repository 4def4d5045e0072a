"""The file of a Unix socket: who replaces, opens and removes it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from tests.fakes import FakeConnector
from wsbridge import Application
from wsbridge.connector import unix as module
from wsbridge.connector.unix import UnixSocket, parse_owner

pytestmark = pytest.mark.rule("STOP-7")


def connects_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_it_is_bound_listens_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bound = await UnixSocket.bind(str(path))
    assert not bound.sock.getblocking()
    assert not connects_to(path)
    await bound.listen()
    assert connects_to(path)
    bound.unlink()
    assert not path.exists()
    bound.unlink()
    bound.close()


async def test_a_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    bound = await UnixSocket.bind(str(path))
    await bound.listen()
    assert connects_to(path)
    bound.close()


async def test_a_stale_file_that_another_process_removes_first_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    real = os.unlink

    def unlink(name: str) -> None:
        real(name)
        raise FileNotFoundError(name)

    monkeypatch.setattr("wsbridge.connector.unix.os.unlink", unlink)
    bound = await UnixSocket.bind(str(path))
    monkeypatch.undo()
    bound.close()


async def test_a_path_that_is_in_use_or_no_socket_is_an_os_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bound = await UnixSocket.bind(str(path))
    await bound.listen()
    with pytest.raises(OSError, match="cannot listen on Unix socket") as raised:
        await UnixSocket.bind(str(path))
    assert raised.value.errno == errno.EADDRINUSE
    assert connects_to(path)
    bound.close()
    path.write_text("mine")
    with pytest.raises(OSError, match="cannot listen on Unix socket"):
        await UnixSocket.bind(str(path))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("path", ["/nowhere/at/all/s", "/tmp/" + "x" * 200])
async def test_a_path_that_cannot_be_is_an_os_error(path: str) -> None:
    with pytest.raises(OSError, match="Unix socket"):
        await UnixSocket.bind(path)


async def test_a_socket_that_refuses_otherwise_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(path))
        with pytest.raises(OSError, match="Unix socket"):
            await UnixSocket.bind(str(path))
        assert path.exists()


async def test_of_two_that_are_bound_the_first_is_told_that_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await UnixSocket.bind(str(path))
    second = await UnixSocket.bind(str(path))  # nobody listens yet
    with pytest.raises(OSError, match="removed or replaced") as raised:
        await first.listen()
    assert raised.value.errno == errno.EADDRINUSE
    first.close()
    await second.listen()
    assert connects_to(path)
    second.close()


async def test_a_file_that_is_gone_before_it_listens_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bound = await UnixSocket.bind(str(path))
    path.unlink()
    with pytest.raises(OSError, match="removed or replaced") as raised:
        await bound.listen()
    assert raised.value.errno == errno.EADDRINUSE
    assert bound.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
    bound.close()


async def test_a_directory_that_cannot_be_read_may_be_bound_in_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of mode 0o300, in which who is not root can make a file and look at none."""

    def refuse(path: str, flags: int) -> int:
        assert path == str(tmp_path)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("wsbridge.connector.unix.os.open", refuse)
    bound = await UnixSocket.bind(str(tmp_path / "s"))
    await bound.listen()
    assert connects_to(tmp_path / "s")
    bound.close()


async def test_the_file_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bound = await UnixSocket.bind(str(path))
    await bound.listen()
    path.unlink()
    successor = await UnixSocket.bind(str(path))
    await successor.listen()
    bound.close()
    assert connects_to(path)
    successor.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777, 0o000])
async def test_the_mode_is_set_and_the_file_is_never_more_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = tmp_path / "s"
    before: list[int] = []
    real = os.chmod

    def chmod(name: str, wanted: int) -> None:
        before.append(mode_of(path))
        real(name, wanted)

    monkeypatch.setattr("wsbridge.connector.unix.os.chmod", chmod)
    bound = await UnixSocket.bind(str(path), mode=mode)
    assert mode_of(path) == mode
    assert before == [0o600]
    bound.close()


async def test_the_mode_is_by_the_umask_where_a_socket_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where ``fchmod`` of a socket fails."""
    monkeypatch.setattr(sys, "platform", "darwin")
    umask = os.umask(0o022)
    try:
        bound = await UnixSocket.bind(str(tmp_path / "s"), mode=0o660)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
    assert mode_of(tmp_path / "s") == 0o660
    bound.close()


async def test_the_owner_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr("wsbridge.connector.unix.os.chown", lambda *arguments: given.append(arguments))
    path = str(tmp_path / "s")
    bound = await UnixSocket.bind(path, owner=(7, -1))
    assert given == [(path, 7, -1)]
    bound.close()


async def test_a_file_that_cannot_be_given_away_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(path: str, user: int, group: int) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr("wsbridge.connector.unix.os.chown", chown)
    with pytest.raises(PermissionError, match=r"mode or owner of Unix socket .*: not permitted"):
        await UnixSocket.bind(str(tmp_path / "s"), owner=(7, 7))
    assert os.listdir(tmp_path) == []


def test_owners_are_users_and_groups() -> None:
    import grp
    import pwd

    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    assert parse_owner(user.pw_name) == (user.pw_uid, -1)
    assert parse_owner(f"{user.pw_name}:{group.gr_name}") == (user.pw_uid, group.gr_gid)
    assert parse_owner(f":{group.gr_name}") == (-1, group.gr_gid)
    assert parse_owner("1:2") == (1, 2)
    for wrong, said in ((":", "USER"), ("", "USER"), ("no such user", "no user"), (":no such group", "no group")):
        with pytest.raises(ValueError, match=f"unix_owner: .*{said}"):
            parse_owner(wrong)


def test_a_system_without_users_by_number_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert parse_owner("1:2") == (1, 2)
    with pytest.raises(ValueError, match=r"^unix_owner: this system has no users by number$"):
        parse_owner("root")


async def test_who_looks_at_a_path_waits_for_who_does(tmp_path: Path) -> None:
    """So that nobody takes a socket for stale that is bound and about to listen."""
    path = str(tmp_path / "s")
    order: list[str] = []

    async def hold() -> None:
        async with module._only_one(path):
            order.append("first")
            await asyncio.sleep(0.05)
            order.append("first ends")

    async def follow() -> None:
        await asyncio.sleep(0)
        async with module._only_one(path):
            order.append("second")

    await asyncio.gather(hold(), follow())
    assert order == ["first", "first ends", "second"]


async def test_a_directory_that_stays_locked_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_TRIES", 2)
    path = str(tmp_path / "s")
    async with module._only_one(path):
        with pytest.raises(OSError, match="its directory is locked"):
            await UnixSocket.bind(path)


@pytest.mark.rule("LIM-5")
def test_options_without_a_path_are_refused() -> None:
    app = Application([])
    for options in ({"unix_mode": 0o600}, {"unix_owner": "0"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}.*unix_path"):
            FakeConnector(app, **options)
    with pytest.raises(ValueError, match="unix_mode"):
        FakeConnector(app, unix_path="/s", unix_mode=0o1777)
    with pytest.raises(TypeError, match="unix_mode"):
        FakeConnector(app, unix_path="/s", unix_mode="660")
    with pytest.raises(ValueError, match="unix_owner"):
        FakeConnector(app, unix_path="/s", unix_owner="no such user")
