"""The pytest fixture ``wsbridge_connect``, in a project of its own."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsbridge import WebSocketChannel, WebSocketOptions
from wsbridge.testing import Connections, ConnectOptions, connect

PROJECT = """
import pytest
from wsbridge import WebSocketOptions
from wsbridge.testing import Connections

reasons = []


async def on_text(channel, process, text):
    if text == "raise":
        raise LookupError("of the application")
    await channel.send_text(text)


options = WebSocketOptions(on_text=on_text, on_close=lambda channel, process, reason: reasons.append(reason.code))


@pytest.fixture
async def grace(wsbridge_connect):
    return await wsbridge_connect(options)


@ASYNC
async def test_two_peers(wsbridge_connect: Connections, grace) -> None:
    peer = await wsbridge_connect(options, "/echo", headers={"X-A": "b"})
    for one in (peer, grace):
        await one.send("a")
        assert await one.receive() == "a"


@ASYNC
async def test_they_were_ended(wsbridge_connect: Connections) -> None:
    assert reasons == [1000, 1000]


class TestClass:
    @ASYNC
    async def test_a_method(self, wsbridge_connect: Connections) -> None:
        async with wsbridge_connect(options) as peer:
            await peer.send("a")


@ASYNC
async def test_that_fails(wsbridge_connect: Connections) -> None:
    await wsbridge_connect(options)
    assert reasons == "of the test"


@ASYNC
async def test_the_application_raises(wsbridge_connect: Connections) -> None:
    peer = await wsbridge_connect(options)
    await peer.send("raise")


def test_not_async(wsbridge_connect: Connections) -> None:
    assert wsbridge_connect.open == 0
"""


def pytests(folder: Path, mark: str, *arguments: str) -> str:
    (folder / "test_project.py").write_text(PROJECT.replace("@ASYNC", mark), encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["-W", "error", "-rfE", *arguments]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_what_it_opened_ends_with_the_test(tmp_path: Path) -> None:
    options = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    said = pytests(tmp_path, "# auto", *options)
    assert "2 failed, 4 passed" in said, said
    assert "FAILED test_project.py::test_that_fails - AssertionError" in said
    assert "FAILED test_project.py::test_the_application_raises - LookupError" in said


def test_it_needs_no_plugin_of_a_certain_name(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import asyncio, inspect, pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_pyfunc_call(pyfuncitem):\n"
        "    if inspect.iscoroutinefunction(pyfuncitem.obj):\n"
        "        names = pyfuncitem._fixtureinfo.argnames\n"
        "        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))\n"
        "        return True\n",
        encoding="utf-8",
    )
    said = pytests(tmp_path, "", "-p", "no:asyncio", "-k", "method or raises or not_async")
    assert "1 failed, 2 passed" in said, said
    assert "LookupError: of the application" in said


async def test_it_takes_what_connect_takes() -> None:
    names = set(inspect.signature(connect).parameters) - {"app", "path"}
    assert names == set(ConnectOptions.__annotations__)
    async with Connections() as opened:
        with pytest.raises(TypeError, match="unknown"):
            opened(WebSocketOptions(), unknown=1)  # type: ignore[call-arg]


async def test_all_are_ended_and_the_first_error_is_raised() -> None:
    def fails(channel: WebSocketChannel, process: object, text: str) -> None:
        raise LookupError(text)

    options = WebSocketOptions(on_text=fails)
    connections = Connections()
    with pytest.raises(LookupError, match="two"):  # noqa: PT012  (the block is what is tested)
        async with connections:
            one, two = await connections(options), await connections(options)
            await one.send("one")
            await two.send("two")
            assert connections.open == 2
    assert connections.open == 0
    assert [len(peer.errors) for peer in (one, two)] == [1, 1]
