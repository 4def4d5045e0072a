"""Sockets that are handed in (STOP-15), by descriptor and by systemd, and what systemd is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.processes import INSTALLED, TIMEOUT, WSBRIDGE, Process, children, client_for, running, write_application
from tests.test_serving import APP, Stub
from wsbridge import UnsupportedOptionError, serve
from wsbridge._process.activation import inherited_descriptors, notify, socket_of
from wsbridge.cli import Exit, cli
from wsbridge.cli.client import Target
from wsbridge.connector.sockets import adopt, check_sockets, listen
from wsbridge.connectors.memory import Connector as Memory

pytestmark = [pytest.mark.slow, pytest.mark.rule("STOP-15")]

CONNECTOR = INSTALLED[0] if INSTALLED else "stub:Connector"


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


class Notified:
    """A ``NOTIFY_SOCKET``, and what it is told."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + path[1:] if path.startswith("@") else path)
        self.sock.setblocking(False)
        self.path = path

    async def told(self) -> str:
        async with asyncio.timeout(TIMEOUT):
            return (await asyncio.get_running_loop().sock_recv(self.sock, 1000)).decode()

    def all(self) -> list[str]:
        found: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.sock.recv(1000).decode())
        return found


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[Notified]:
    made = Notified(str(tmp_path / "notify"))
    with made.sock:
        yield made


# ---- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "found", "left"),
    [
        ({}, (), set()),
        ({"LISTEN_PID": "{pid}", "LISTEN_FDS": "1"}, (3,), set()),
        ({"LISTEN_PID": "{pid}", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}, (3, 4, 5), set()),
        ({"LISTEN_PID": "{pid}", "LISTEN_FDS": "0"}, (), set()),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, (), {"LISTEN_PID", "LISTEN_FDS"}),
        ({"LISTEN_FDS": "1"}, (), {"LISTEN_FDS"}),
    ],
)
def test_what_systemd_hands_over(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: tuple[int, ...], left: set[str]
) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(pid=os.getpid()))

    assert inherited_descriptors() == found
    assert {name for name in os.environ if name.startswith("LISTEN_")} == left


def test_what_systemd_hands_over_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "-1")

    with pytest.raises(ValueError, match=r"^LISTEN_FDS must be a number of descriptors, not '-1'$"):
        inherited_descriptors()


def test_a_descriptor_becomes_a_socket(listener: socket.socket) -> None:
    descriptor = os.dup(listener.fileno())
    os.set_inheritable(descriptor, True)
    with socket_of(descriptor) as sock:
        assert sock.getsockname() == listener.getsockname()
        assert not sock.get_inheritable()
    with pytest.raises(OSError, match=rf"cannot listen on descriptor {descriptor}: Bad file descriptor"):
        socket_of(descriptor)


def test_what_is_adopted_listens_and_sends_small_messages_at_once(listener: socket.socket) -> None:
    """asyncio turns Nagle's algorithm off for sockets that tell their protocol; most are made without one."""
    assert listener.proto == 0
    [sock] = adopt([listener])
    with sock:
        listen([sock])
        assert sock.proto == socket.IPPROTO_TCP
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not sock.getblocking()
    assert listener.fileno() >= 0


def test_what_cannot_listen_is_told() -> None:
    near, far = socket.socketpair()
    with near, far:
        [sock] = adopt([near])
        with sock, pytest.raises(OSError, match="cannot listen on Unix socket ''"):
            listen([sock])


def test_a_text_is_no_sequence_of_sockets() -> None:
    with pytest.raises(TypeError, match=r"^sockets must be a sequence of sockets, not '127\.0\.0\.1'$"):
        check_sockets("127.0.0.1")  # type: ignore[arg-type]


async def test_serve_hands_them_on(listener: socket.socket) -> None:
    async with serve(APP, type("Fresh", (Stub,), {"log": []}), sockets=[listener]) as connector:
        assert connector.addresses == (listener.getsockname(),)


def test_a_connector_that_cannot_refuses_them(listener: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="the memory connector cannot honour sockets: it has no socket"):
        Memory(APP, sockets=[listener])
    without = type("Without", (Stub,), {"features": Stub.features - {"unix-socket"}})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        with pytest.raises(UnsupportedOptionError, match=r"^the stub connector cannot honour sockets: .* Unix socket"):
            without(APP, sockets=[sock])


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if abstract and not sys.platform.startswith("linux"):
        pytest.skip("only Linux has abstract sockets")
    notified = Notified(f"@wsbridge-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", notified.path)
    with notified.sock:
        notify("READY=1")
        assert await notified.told() == "READY=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


def test_a_systemd_that_does_not_listen_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    path = str(tmp_path / "nobody")
    assert [record.getMessage() for record in caplog.records] == [
        f"NOTIFY_SOCKET {path!r} cannot be told 'READY=1': No such file or directory"
    ]


# ---- wsbridge serve -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def handed(app_dir: Path, listener: socket.socket, *options: str, by: str, **environment: str) -> Any:
    """Serve on descriptor 3, told by ``--fd`` or as systemd tells it."""
    tells = "export LISTEN_PID=$$ LISTEN_FDS=1; " if by == "systemd" else ""
    options = (*options, *(["--fd=3"] if by == "fd" else ["--port=0"]))
    command = [*WSBRIDGE, "serve", "echo:app", f"--app-dir={app_dir}", f"--connector={CONNECTOR}", *options]
    script = f'exec 3<&{listener.fileno()}; {tells}exec "$@"'
    arguments: dict[str, Any] = {"pass_fds": (listener.fileno(),), **environment}
    async with running("bash", "-c", script, "bash", *command, **arguments) as process:
        yield process


async def talks(process: Process, listener: socket.socket) -> None:
    url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    assert await process.url() == url
    async with client_for(CONNECTOR).connect(Target(f"{url}/echo")) as client:
        assert await client.send_text("hello")
        assert await client.receive() == "hello"


@pytest.mark.parametrize("options", [[], ["--workers=2"], ["--reload"]], ids=["one-process", "workers", "reload"])
@pytest.mark.parametrize("by", ["fd", "systemd"])
async def test_serve_on_a_socket_that_is_handed_over(
    app_dir: Path, listener: socket.socket, notified: Notified, options: list[str], by: str
) -> None:
    if options == ["--reload"]:
        pytest.importorskip("watchfiles")
    async with handed(app_dir, listener, *options, by=by, NOTIFY_SOCKET=notified.path) as process:
        await talks(process, listener)
        assert await notified.told() == "READY=1"
        ending = asyncio.ensure_future(process.end(signal.SIGTERM))
        assert await notified.told() == "STOPPING=1"
        assert await ending == Exit.OK
    assert notified.all() == []
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


async def test_a_worker_that_is_replaced_gets_it_too(app_dir: Path, listener: socket.socket) -> None:
    async with handed(app_dir, listener, "--workers=1", by="fd") as process:
        await talks(process, listener)
        [first] = children(process)
        first.kill()
        await talks(process, listener)
        assert await process.end(signal.SIGTERM) == Exit.OK


async def test_a_reload_of_the_certificate_is_told(
    app_dir: Path, listener: socket.socket, notified: Notified, tmp_path: Path
) -> None:
    trustme = pytest.importorskip("trustme")
    file = tmp_path / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))
    async with handed(app_dir, listener, f"--certfile={file}", by="fd", NOTIFY_SOCKET=notified.path) as process:
        await process.url()
        assert await notified.told() == "READY=1"
        process.process.send_signal(signal.SIGHUP)
        first, second = (await notified.told()).split("\n")
        assert first == "RELOADING=1"
        assert second.startswith("MONOTONIC_USEC=")
        assert await notified.told() == "READY=1"
        assert await process.end(signal.SIGTERM) == Exit.OK
    assert notified.all() == ["STOPPING=1"]


@pytest.mark.parametrize("workers", [[], ["--workers=2"]], ids=["one-process", "workers"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: socket.socket(type=socket.SOCK_DGRAM), "sockets must be stream sockets of TCP or Unix: .*"),
        (socket.socket, "sockets must be bound: .*"),
        (tempfile.TemporaryFile, "cannot listen on descriptor 3: Socket operation on non-socket"),
    ],
    ids=["datagrams", "unbound", "file"],
)
async def test_a_descriptor_that_cannot_be_listened_on_is_one_line(
    app_dir: Path, make: Any, reason: str, workers: list[str]
) -> None:
    with make() as file:
        async with handed(app_dir, file, *workers, by="fd") as process:
            assert await process.end() == Exit.CANNOT_LISTEN
    [line] = process.lines
    assert re.fullmatch(f"Error: {reason}", line)


async def test_a_descriptor_that_is_not_open_is_one_line(app_dir: Path) -> None:
    command = [*WSBRIDGE, "serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--fd=99"]
    async with running(*command) as process:
        assert await process.end() == Exit.CANNOT_LISTEN
    assert process.lines == ["Error: cannot listen on descriptor 99: Bad file descriptor"]


@pytest.mark.parametrize("option", ["--host=localhost", "--port=1", "--unix-path=x", "--reuse-port"])
def test_a_descriptor_stands_alone(option: str) -> None:
    result = CliRunner().invoke(cli, ["serve", "echo:app", "--fd=3", option])

    assert result.exit_code == Exit.USAGE
    assert f"--fd stands alone: leave out {option.partition('=')[0]}" in result.output
