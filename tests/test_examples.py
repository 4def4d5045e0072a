"""The examples, run: each on every connector that is installed, or in the framework that it is about."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.processes import TIMEOUT, WSBRIDGE, Process, client_for, each_connector, running
from tests.test_cli import http_get
from wsbridge.cli import Exit
from wsbridge.cli.client import Client, ClosedReason, ConnectError, Target

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"
LIBRARIES = Path(__file__).with_name("test_libraries.py")


@contextlib.asynccontextmanager
async def serving(example: str, connector: str) -> AsyncGenerator[str]:
    """Run an example as its docstring says; yield the URL."""
    command = ("serve", f"{example}:app", f"--app-dir={EXAMPLES}", f"--connector={connector}", "--port=0")
    async with running(*WSBRIDGE, *command) as process:
        yield await process.url()
        assert await process.end(signal.SIGINT) == Exit.OK


async def received(client: Client) -> str | bytes | ClosedReason:
    async with asyncio.timeout(TIMEOUT):
        return await client.receive()


def test_every_example_is_told_about_and_run() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    readme = (EXAMPLES / "README.md").read_text()

    assert set(re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", readme, re.MULTILINE)) == names
    for name in names:
        source = (EXAMPLES / name).read_text()
        docstring = source.split('"""')[1]
        is_mount = name.startswith("mount_")
        told = f'"{name[:-3].removeprefix("mount_")}"'
        assert (f"python examples/{name}" if is_mount else f"wsbridge serve {name[:-3]}:app") in docstring
        assert told in Path(__file__).read_text() + LIBRARIES.read_text()


@pytest.mark.rule("SEND-1", "RECV-1", "RECV-2")
@each_connector
async def test_echo(connector: str) -> None:
    async with serving("echo", connector) as url, client_for(connector).connect(Target(f"{url}/echo")) as client:
        for text in ("", "hello", "\N{SNOWMAN}" * 1000):
            await client.send_text(text)
            assert await received(client) == text


@pytest.mark.rule("HS-2", "HS-7")
@each_connector
async def test_chat(connector: str) -> None:
    def target(room: str, token: str) -> Target:
        return Target(f"{url}/chat/{room}", headers=(("Authorization", f"Bearer {token}"),))

    connect = client_for(connector).connect
    async with serving("chat", connector) as url:
        for wrong in (Target(f"{url}/chat/lobby"), target("lobby", "wrong")):
            with pytest.raises(ConnectError, match="401"):
                async with connect(wrong):
                    pass
        async with connect(target("lobby", "ada-token")) as ada:
            assert await received(ada) == "* ada joined"
            async with connect(target("lobby", "grace-token")) as grace, connect(target("attic", "ada-token")) as other:
                assert await received(other) == "* ada joined"
                assert await received(grace) == "* grace joined"
                assert await received(ada) == "* grace joined"
                await grace.send_text("hello")
                assert await received(ada) == "grace: hello"
                assert await received(grace) == "grace: hello"
                await other.send_text("alone here")
                assert await received(other) == "ada: alone here"
                await grace.close()
                assert await received(ada) == "* grace left (normal)"


@pytest.mark.rule("CONN-1", "CONN-4")
@each_connector
async def test_countdown(connector: str) -> None:
    connect = client_for(connector).connect
    async with serving("countdown", connector) as url:
        async with connect(Target(f"{url}/countdown/3")) as client:
            assert [await received(client) for _ in range(5)] == ["3", "2", "1", "lift-off", ClosedReason(1000, "")]
        async with connect(Target(f"{url}/countdown/soon")) as client:
            assert await received(client) == ClosedReason(1008, "the path must end with a number")
        async with connect(Target(f"{url}/countdown/1000")) as client:
            assert await received(client) == "1000"
        # what still counts down for a peer that left does not hold up the stop


@contextlib.asynccontextmanager
async def mounting(example: str, *packages: str, server: str = "") -> AsyncGenerator[tuple[Process, str]]:
    """Run an example on its own server, or on another one; yield the process and the host and port of its URL."""
    for package in packages:
        pytest.importorskip(package)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "tests.asgi_servers", server, example] if server else [str(EXAMPLES / f"{example}.py")]
    async with running(sys.executable, "-W", "error", *command, cwd=EXAMPLES.parent, PORT=str(port)) as process:
        yield process, (await process.line(r"Running on http://(127\.0\.0\.1:\d+)", stdout=True))[1]


SHUTDOWN = ClosedReason(1001, "server shutdown")


async def is_mounted(process: Process, host: str, framework: str, *, end: ClosedReason = SHUTDOWN) -> None:
    """Make sure that the framework and the mount are served, and that the mount's channels end as they should."""
    status, _, body = await http_get(f"http://{host}/")
    assert (status.split()[1], body) == ("200", "an ordinary route\n")
    assert (await http_get(f"http://{host}/ws/ada"))[0].startswith("HTTP/1.1 426 ")
    assert (await http_get(f"http://{host}/nowhere"))[0].split()[1] in ("404", "426")
    async with client_for(framework).connect(Target(f"ws://{host}/ws/ada")) as client:
        await client.send_text("hello")
        assert await received(client) == "ada: hello"
        code = asyncio.ensure_future(process.end(signal.SIGINT))
        assert await received(client) == end
    assert await code == 0


ASGI = ("starlette", "fastapi", "litestar", "django", "quart")


@pytest.mark.rule("MOUNT-1")
@pytest.mark.servers_too
@pytest.mark.parametrize("framework", ["aiohttp", "tornado", "websockets", *ASGI])
async def test_mount_1(framework: str) -> None:
    example = f"mount_{framework}"
    async with mounting(example, framework) as (process, host):
        await is_mounted(process, host, framework)


@pytest.mark.rule("MOUNT-1")
@pytest.mark.servers_too
@pytest.mark.parametrize("framework", ASGI)
@pytest.mark.parametrize("server", ["hypercorn", "granian", "daphne"])
async def test_mount_1_on_other_servers(framework: str, server: str) -> None:
    async with mounting(f"mount_{framework}", framework, server, "uvicorn", server=server) as (process, host):
        end = ClosedReason(1000, "") if server == "daphne" else SHUTDOWN  # which it will not send
        await is_mounted(process, host, framework, end=end)


@pytest.mark.rule("MOUNT-1")
@pytest.mark.servers_too
async def test_mount_1_the_websockets_server_keeps_its_own_handler() -> None:
    async with mounting("mount_websockets", "websockets") as (process, host):
        async with client_for("websockets").connect(Target(f"ws://{host}/native")) as client:
            await client.send_text("hello")
            assert await received(client) == "HELLO"
        assert await process.end(signal.SIGINT) == 0
