"""Processes of the command line: how tests start them, read what they say and see them end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wsbridge import registry
from wsbridge.cli import Exit
from wsbridge.cli.client import CLIENTS, Client

if TYPE_CHECKING:
    import psutil

TIMEOUT = 30.0
WSBRIDGE = (sys.executable, "-W", "error", "-P", "-m", "wsbridge.cli")
WITHOUT_PINGS = {"granian"}
"""Connectors that refuse the default of ``ping_interval``, and never notice a peer that is silently gone: they are left
out where that is asked for; tests/test_granian.py has what they are served otherwise."""
INSTALLED = tuple(name for name in registry.connector_names(installed=True, serving=True) if name not in WITHOUT_PINGS)

each_connector = pytest.mark.parametrize(
    "connector", INSTALLED or [pytest.param("", marks=pytest.mark.skip("no server is installed"))]
)

STUB = """
import asyncio
from wsbridge.connector import BaseConnector


class Connector(BaseConnector):
    name = "stub"
    connector_api = 2
    answer = b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n"

    async def _start(self, sockets):
        self._servers = [await asyncio.start_server(self._serve, sock=sock) for sock in sockets]

    async def _serve(self, reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(self.answer)
        writer.close()
        await writer.wait_closed()

    async def _stop_listening(self):
        for server in self._servers:
            server.close()

    async def _stop(self):
        pass


class Refusing(Connector):
    answer = b"HTTP/1.1 500 Oh dear\\r\\n\\r\\n"


class Featureless(Connector):
    features = frozenset()
"""

ECHO = """
from wsbridge import Application, WebSocketOptions

async def on_text(channel, process, text):
    if text.startswith("close "):
        _, code, reason = text.split()
        channel.close(int(code), reason)
    await channel.send_text(text)

async def on_open(channel, request):
    if request.args.get("show"):
        await channel.send_text(f"{request.headers.get('X-Word')} {request.headers.get('Origin')}")
        await channel.send_binary(bytes(range(40)))

app = Application([("/echo", WebSocketOptions(
    on_open=on_open, on_text=on_text, subprotocols=["chat.v2"], origins=["https://friend.example"],
))])
number = 5
"""


def write_application(folder: Path) -> None:
    """Write an application, and a connector that needs no server."""
    (folder / "echo.py").write_text(ECHO)
    (folder / "stub.py").write_text(STUB)


class Process:
    """A process that runs, whose lines on stderr and stdout are read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, pattern: str, *, stdout: bool = False) -> re.Match[str]:
        """Read up to the next line that has ``pattern`` in it."""
        stream = self.process.stdout if stdout else self.process.stderr
        assert stream is not None
        async with asyncio.timeout(TIMEOUT):
            while line := (await stream.readline()).decode():
                self.lines.append(line.rstrip("\n"))
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"no line has {pattern!r}: {self.lines}")

    async def url(self) -> str:
        """Return where it listens."""
        return (await self.line(r"listens on (ws\S+)"))[1]

    async def end(self, signum: signal.Signals | None = None) -> int:
        """Send a signal, if one is given, and return the exit code."""
        if signum is not None:
            self.process.send_signal(signum)
        async with asyncio.timeout(TIMEOUT):
            stdout, stderr = await self.process.communicate()
        self.lines += [*stdout.decode().splitlines(), *stderr.decode().splitlines()]
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def running(
    *command: str, cwd: Path | None = None, pass_fds: Sequence[int] = (), **environment: str
) -> AsyncGenerator[Process]:
    """Run a process for the length of a block, and no longer."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        pass_fds=pass_fds,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def serving(app_dir: Path, *options: str, connector: str = "stub:Connector") -> Any:
    return running(
        *WSBRIDGE, "serve", "echo:app", f"--app-dir={app_dir}", f"--connector={connector}", "--port=0", *options
    )


def client_for(connector: str) -> type[Client]:
    """Return a client that is not of the server's own package."""
    package = "aiohttp" if connector == "websockets" else "websockets"
    pytest.importorskip(package)
    return CLIENTS[package]


def command(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of wsbridge to its end."""
    return subprocess.run(
        [*WSBRIDGE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **environment},
    )


def failed(result: subprocess.CompletedProcess[str], code: Exit) -> str:
    """Check that a command failed with ``code`` and one line; return the line."""
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").rstrip()


def children(process: Process) -> list[psutil.Process]:
    found: list[psutil.Process] = processes().Process(process.process.pid).children()
    return found


def processes() -> Any:
    return pytest.importorskip("psutil")
