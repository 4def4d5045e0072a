"""The event loop that an application is served on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.processes import each_connector, serving
from wsbridge import Application, Connector, LoopNotInstalledError, run
from wsbridge._process.loops import loop_factory
from wsbridge.cli import Exit, cli
from wsbridge.connector import BaseConnector

APPLICATION = """
import asyncio
from wsbridge import Application, WebSocketOptions

async def on_text(channel, process, text):
    await channel.send_text(type(asyncio.get_running_loop()).__module__ + text)

app = Application([("/", WebSocketOptions(on_text=on_text))])
"""

MISSING = (
    "the event loop 'uvloop' needs uvloop, which is not installed. "
    'Run: pip install ".[uvloop]" (in a checkout of wsbridge) or pip install uvloop'
)


class Stub(BaseConnector):
    """Listens, and answers nobody."""

    name = "stub"
    connector_api = 2

    async def _start(self, sockets: list[socket.socket]) -> None:
        pass

    async def _stop_listening(self) -> None:
        pass

    async def _stop(self) -> None:
        pass


class OwnLoop(asyncio.SelectorEventLoop):
    """A loop that can be told from asyncio's."""


def test_run_takes_a_loop_of_the_callers() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def listening(connector: Connector) -> None:
        loops.append(asyncio.get_running_loop())
        os.kill(os.getpid(), signal.SIGTERM)

    run(Application([]), Stub, on_listening=listening, loop=OwnLoop)

    assert [type(loop) for loop in loops] == [OwnLoop]
    assert loops[0].is_closed()


def test_asyncio_decides_by_default() -> None:
    assert loop_factory("asyncio") is None


def test_uvloop_is_named() -> None:
    uvloop: Any = pytest.importorskip("uvloop")
    assert loop_factory("uvloop") is uvloop.new_event_loop


def test_a_loop_that_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(LoopNotInstalledError) as caught:
        run(Application([]), Stub, loop="uvloop")
    assert str(caught.value) == MISSING
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)

    (tmp_path / "loop_application.py").write_text(APPLICATION)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["serve", "loop_application:app", f"--app-dir={tmp_path}", "--loop=uvloop"]
    result = CliRunner().invoke(cli, [*arguments, "--connector=tests.test_loops:Stub"])
    sys.modules.pop("loop_application", None)
    assert result.exit_code == Exit.NO_EXTRA
    assert result.output == f"Error: {MISSING}\n"


def test_an_unknown_loop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^loop must be one of 'asyncio', 'uvloop' or a function, not 'trio'$"):
        run(Application([]), Stub, loop="trio")  # type: ignore[arg-type]

    result = CliRunner().invoke(cli, ["serve", "echo:app", "--loop=trio"])
    assert result.exit_code == Exit.USAGE
    assert "Invalid value for '--loop': 'trio' is not one of 'asyncio', 'uvloop'." in result.output


@each_connector
@pytest.mark.parametrize("workers", [(), ("--workers=2",)], ids=["alone", "workers"])
async def test_a_connector_serves_on_uvloop(tmp_path: Path, connector: str, workers: tuple[str, ...]) -> None:
    pytest.importorskip("uvloop")
    wire: Any = pytest.importorskip("wsbridge.conformance.client")
    (tmp_path / "echo.py").write_text(APPLICATION)
    async with serving(tmp_path, "--loop=uvloop", *workers, connector=connector) as process:
        host, port = (await process.url()).rpartition("//")[2].rsplit(":", 1)
        async with await wire.WirePeer.connect((host, int(port)), target="/") as peer:
            await peer.send_text("!")
            assert await peer.receive_text() == "uvloop!"
        assert await process.end(signal.SIGTERM) == Exit.OK
