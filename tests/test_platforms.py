"""What Windows and macOS lack is taken away: all the rest works, and what needs it says so in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wsbridge import Application, UnsupportedOptionError, WebSocketOptions
from wsbridge.cli import Exit, cli
from wsbridge.cli.client import _interrupts
from wsbridge.connector.sockets import bind, socket_address
from wsbridge.connectors import _connections
from wsbridge.registry import load_connector

pytest.importorskip("wsproto")  # for the suite and its client

from wsbridge.conformance import TargetError
from wsbridge.conformance.client.wire import Peer
from wsbridge.conformance.doors.suite import Session

WINDOWS = """
import asyncio, concurrent.futures.thread, os, signal, socket, sys
import wsbridge.cli, wsbridge.conformance.client.wire, wsbridge.testing
from wsbridge.registry import load_connector

load_connector(sys.argv[1])  # what others have written looks at the system when it is imported, and finds its own
for name in [name for name in sys.modules if name.partition(".")[0] == "wsbridge"]:
    del sys.modules[name]
pair, unix = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda: pair(unix)  # as Windows has it by other means
for module, names in {
    signal: ("SIGHUP", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "setitimer", "alarm", "pthread_sigmask"),
    socket: ("AF_UNIX", "SO_REUSEPORT", "AF_NETLINK", "sethostname", "CMSG_LEN", "send_fds", "recv_fds"),
    os: ("fork", "killpg", "getuid", "geteuid", "setsid", "pread", "register_at_fork"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "termios", "resource", "pwd", "grp", "uvloop"):
    sys.modules[name] = None
sys.platform = "win32"

def refuse(*arguments, **options):
    raise NotImplementedError

class Loop(asyncio.SelectorEventLoop):
    add_signal_handler = remove_signal_handler = refuse
"""
"""Takes away what Python has not got on Windows, but for the module ``winreg`` and its like."""


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ECHO = """
from wsbridge import Application, WebSocketOptions, serve
from wsbridge.conformance.client.wire import Peer

async def echo(channel, process, text):
    await channel.send_text(text)

async def main(name):
    async with serve(Application([("/", WebSocketOptions(on_text=echo))]), name) as server:
        peer = await Peer.connect(server.addresses[0], target="/", timeout=30)
        await peer.send_text("hello")
        print(await peer.receive_text())
        await peer.send_close(1000)
        await peer.aclose()

import importlib, pkgutil
import wsbridge.cli, wsbridge.testing
for module in pkgutil.iter_modules(wsbridge.cli.__path__, "wsbridge.cli."):
    importlib.import_module(module.name)
with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("name", ["aiohttp", "websockets", "uvicorn"])
def test_what_windows_lacks_is_not_missed(name: str) -> None:
    assert run_python(WINDOWS + ECHO, name) == "hello\n"


def options(**changed: Any) -> dict[str, Any]:
    return {"app": Application([("/", WebSocketOptions())]), **changed}


async def test_without_unix_sockets_a_port_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    async with load_connector("tornado")(**options()) as server:
        assert isinstance(server.addresses[0], tuple)
        peer = await Peer.connect(server.addresses[0], target="/", timeout=30)
        await peer.send_close(1000)
        await peer.receive_close()
        await peer.aclose()


def test_without_reuse_port_no_workers_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    outcome = CliRunner().invoke(cli, ["serve", "echo:app", "--workers", "2"])
    assert outcome.exit_code == Exit.USAGE
    assert "--workers share a port by SO_REUSEPORT, which this system does not have" in outcome.output


async def test_where_a_port_can_be_taken_over_that_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)  # one that can be read back
    sockets = await bind("127.0.0.1", 0)
    with sockets[0] as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert socket_address(sock) == ("127.0.0.1", sock.getsockname()[1])


@pytest.mark.parametrize("option", ["--workers=2", "--reload"])
def test_without_sockets_for_children_their_options_are_refused(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.delattr(signal, "SIGCHLD")
    outcome = CliRunner().invoke(cli, ["serve", "echo:app", option])
    assert outcome.exit_code == Exit.USAGE
    assert f"{option.partition('=')[0]} needs a Unix system, such as Linux or macOS" in outcome.output


def _refuse(*arguments: object) -> None:
    raise NotImplementedError


def test_without_a_list_of_descriptors_granian_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connector = load_connector("granian")
    monkeypatch.setattr(_connections, "_DESCRIPTORS", str(tmp_path / "none"))
    with pytest.raises(UnsupportedOptionError, match="granian connector cannot serve on this system"):
        connector(**options(server_pings=True))


def test_without_netlink_a_connection_is_not_told_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    ends = (("127.0.0.1", 1), ("127.0.0.1", 2))
    with pytest.raises(OSError, match="there is no sock_diag"):
        _connections.look(ends)
    assert _connections.has_ended(ends) is False
    assert _connections.Descriptors().duplicate(ends) is None


async def test_where_a_loop_takes_no_signal_handlers_connect_hears_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(loop, "add_signal_handler", _refuse)
    monkeypatch.setattr(loop, "remove_signal_handler", _refuse)
    with _interrupts() as interrupted:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await interrupted.wait()
    assert signal.getsignal(signal.SIGTERM) is former


def test_the_suite_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(TargetError, match="needs a Unix system, such as Linux or macOS, or WSL on Windows"):
        Session("memory")
