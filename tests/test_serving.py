"""`serve` and `run`, with a connector that needs no server and writes down what is done with it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsbridge import Application, Connector, WebSocketOptions, run, serve
from wsbridge._process.signals import stop_signals
from wsbridge.connector import BaseConnector
from wsbridge.serving import listening_urls

APP = Application([("/", WebSocketOptions())])


class Stub(BaseConnector):
    """Listens, and answers nobody."""

    name = "stub"
    connector_api = 2
    log: list[str]
    slow_stop = False

    async def _start(self, sockets: list[socket.socket]) -> None:
        self.log.append("start")

    async def _stop_listening(self) -> None:
        self.log.append("stop listening")

    async def _stop(self) -> None:
        if self.slow_stop:
            await asyncio.Event().wait()
        self.log.append("stop")


@pytest.fixture
def stub() -> type[Stub]:
    class Fresh(Stub):
        log: list[str] = []  # noqa: RUF012  (one for each test)

    return Fresh


STOPPED = ["start", "stop listening", "stop"]


@pytest.mark.rule("STOP-1", "STOP-3")
async def test_stop_3_serve_starts_and_stops(stub: type[Any]) -> None:
    async with serve(APP, stub, port=0) as connector:
        assert isinstance(connector, Connector)
        assert connector.url == f"ws://127.0.0.1:{connector.addresses[0][1]}"
        assert stub.log == ["start"]

    assert stub.log == STOPPED


@pytest.mark.rule("STOP-3")
async def test_stop_3_serve_stops_when_its_block_raises(stub: type[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serve(APP, stub):
            raise ZeroDivisionError

    assert stub.log == STOPPED


@pytest.mark.rule("LIM-5")
async def test_lim_5_serve_hands_the_options_on(stub: type[Any]) -> None:
    options: dict[str, Any] = {
        "host": "localhost",
        "reuse_port": True,
        "max_channels": 3,
        "handshake_timeout": 4,
        "shutdown_timeout": 5,
        "max_head_size": 4096,
        "trusted_proxies": ["10.0.0.0/8"],
    }
    async with serve(APP, stub, **options) as connector:
        assert isinstance(connector, stub)
        found = {name: getattr(connector, name, None) for name in options}
        assert found | {"trusted_proxies": options["trusted_proxies"]} == options

    with pytest.raises(TypeError, match="unknown"):
        serve(APP, stub, unknown=1)  # type: ignore[call-arg]


@pytest.mark.rule("STOP-4")
async def test_stop_4_serve_on_a_unix_socket(stub: type[Any], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async with serve(APP, stub, unix_path=path) as connector:
        assert listening_urls(connector) == [f"ws+unix://{path}"]

    assert not list(tmp_path.iterdir())  # noqa: ASYNC240  (nothing else runs here)


@pytest.mark.rule("STOP-1")
def test_stop_1_a_url_for_each_address() -> None:
    class Addresses:
        addresses = (("127.0.0.1", 80), ("::1", 80))
        url = "wss://127.0.0.1:80"

    assert listening_urls(Addresses()) == ["wss://127.0.0.1:80", "wss://[::1]:80"]  # type: ignore[arg-type]


@pytest.mark.rule("STOP-2")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stop_2_run_stops_at_a_signal(
    stub: type[Any], signum: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    before = signal.getsignal(signum)
    urls: list[str] = []

    def listening(connector: Connector) -> None:
        urls.append(connector.url)
        os.kill(os.getpid(), signum)

    run(APP, stub, on_listening=listening, shutdown_timeout=1)

    assert stub.log == STOPPED
    assert [record.getMessage() for record in caplog.records] == [f"stub listens on {urls[0]}", "stub stops"]
    assert signal.getsignal(signum) is before


@pytest.mark.rule("STOP-2")
def test_stop_2_run_without_a_callback(stub: type[Any]) -> None:
    class Stops(stub):  # type: ignore[misc]
        async def _start(self, sockets: list[socket.socket]) -> None:
            await stub._start(self, sockets)
            os.kill(os.getpid(), signal.SIGTERM)

    run(APP, Stops)

    assert stub.log == STOPPED


@pytest.mark.rule("STOP-3")
def test_stop_3_a_second_sigint_cuts_the_stop_short(stub: type[Any]) -> None:
    stub.slow_stop = True

    def listening(connector: Connector) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        loop = asyncio.get_running_loop()
        wait_for(loop, lambda: "stop listening" in stub.log, lambda: os.kill(os.getpid(), signal.SIGINT))

    run(APP, stub, on_listening=listening)

    assert stub.log == ["start", "stop listening"]


def wait_for(loop: asyncio.AbstractEventLoop, condition: Callable[[], bool], action: Callable[[], None]) -> None:
    """Run ``action`` in the turn of the loop in which ``condition`` has come true."""
    if condition():
        action()
    else:
        loop.call_soon(wait_for, loop, condition, action)


@pytest.mark.rule("STOP-2")
async def test_stop_2_signals_further_ones_change_nothing() -> None:
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.mark.rule("STOP-3")
async def test_stop_3_signals_a_third_sigint_changes_nothing() -> None:
    is_swallowed = False
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_swallowed = True
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10):
                await asyncio.sleep(0)
            raise
    task = asyncio.current_task()
    assert is_swallowed
    assert task is not None
    assert task.cancelling() == 0


async def test_signals_a_cancellation_by_others_goes_on() -> None:
    async def block() -> None:
        with stop_signals():
            await asyncio.Event().wait()

    task = asyncio.ensure_future(block())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


@pytest.mark.rule("STOP-1")
def test_stop_1_run_raises_what_the_start_raises(stub: type[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: "):
            run(APP, stub, port=port)

    assert stub.log == []
