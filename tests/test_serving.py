"""`serve` and `run`, with a connector that needs no server and writes down what is done with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeConnector, handshake, passes
from wsbridge import (
    Application,
    Connector,
    Interceptor,
    Response,
    UnsupportedOptionError,
    WebSocketOptions,
    run,
    serve,
)
from wsbridge._process.signals import stop_signals
from wsbridge.connector import BaseConnector
from wsbridge.serving import Health, listening_urls

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


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_garbage_collector_passes_over_what_the_start_has_left(stub: type[Any], is_frozen: bool) -> None:
    counts: list[int] = []

    def listening(connector: Connector) -> None:
        counts.append(gc.get_freeze_count())
        os.kill(os.getpid(), signal.SIGTERM)

    gc.unfreeze()  # what another test has frozen
    if is_frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    try:
        run(APP, stub, on_listening=listening)
        after = gc.get_freeze_count()
    finally:
        gc.unfreeze()

    assert counts[0] > 1000
    assert after == before
    assert (before > 0) is is_frozen


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


@pytest.mark.rule("LIM-5")
async def test_lim_5_what_pings_refuses_to_be_served_by_the_servers_own_pings(stub: type[Any]) -> None:
    with pytest.raises(UnsupportedOptionError, match="stub connector cannot honour server_pings: it pings by itself"):
        async with serve(APP, stub, server_pings=True):
            pass
    assert stub.log == []

    class Pingless(stub):  # type: ignore[misc]
        features = stub.features - {"ping"}

        def __init__(self, app: Application, *, server_pings: bool, **options: Any) -> None:
            super().__init__(Application([]), **options)
            self.log.append(f"server_pings {server_pings}")

    async with serve(APP, Pingless, server_pings=True):
        assert stub.log == ["server_pings True", "start"]


@pytest.mark.rule("LIM-5")
def test_lim_5_run_serves_no_connector_without_a_socket() -> None:
    with pytest.raises(UnsupportedOptionError, match="memory connector has no socket and serves no network"):
        run(APP, "memory")


@pytest.mark.rule("LIM-5")
def test_lim_5_run_checks_health_and_grace(stub: type[Any]) -> None:
    with pytest.raises(ValueError, match="health must be a path that begins with '/', not 'up'"):
        run(APP, stub, health="up")
    with pytest.raises(ValueError, match="grace must be positive and finite, not -1"):
        run(APP, stub, grace=-1)
    assert stub.log == []


# ---- health and grace -----------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-2")
async def test_health_answers_its_path_before_all_else() -> None:
    refuse = Interceptor(name="refuse", enter=lambda context: context.update(response=Response("", 401)))
    app = Application([], [refuse])
    health = Health("/up")
    guarded = health.in_front_of(app)
    assert [interceptor.name for interceptor in guarded.interceptors] == ["health", "refuse"]
    assert [interceptor.name for interceptor in app.interceptors] == ["refuse"]
    connector = FakeConnector(guarded)

    async def asked(target: str, method: str = "GET") -> tuple[int, bytes, Any]:
        response = await connector.request(handshake(target, method=method))
        assert isinstance(response, Response)
        return response.status_code, response.body, response.headers.get("Cache-Control")

    for target in ("/other", "/up/", "/UP"):
        assert (await asked(target))[0] == 401
    for method in ("GET", "HEAD"):
        assert await asked("/up", method) == (200, b"ok\n", "no-store")
    assert await asked("/up", "POST") == (405, b"Method Not Allowed\n", "no-store")
    health.is_stopping = True
    assert await asked("/up") == (503, b"Service Unavailable\n", "no-store")
    assert (await asked("/up", "POST"))[0] == 405
    assert (await asked("/other"))[0] == 401


class Scripted:
    """Runs an application on a fake connector, and a coroutine that does something with it once it listens."""

    def __init__(self, script: Callable[[FakeConnector], Coroutine[Any, Any, None]], **options: Any) -> None:
        self.connector: FakeConnector
        self._script = script
        self._task: asyncio.Task[None] | None = None
        served: Any = FakeConnector
        run(APP, served, on_listening=self._listening, **options)
        assert self._task is not None
        self._task.result()

    def _listening(self, connector: Connector) -> None:
        assert isinstance(connector, FakeConnector)
        self.connector = connector
        self._task = asyncio.ensure_future(self._script(connector))


async def status(connector: FakeConnector, target: str) -> int:
    response = await connector.request(handshake(target))
    assert isinstance(response, Response)
    return response.status_code


@pytest.mark.rule("STOP-2")
def test_stop_2_in_the_grace_all_is_served_but_health_says_503(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")

    async def script(connector: FakeConnector) -> None:
        assert await status(connector, "/up") == 200
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            while await status(connector, "/up") == 200:  # noqa: ASYNC110  (a signal has no event)
                await asyncio.sleep(0)
        assert await status(connector, "/up") == 503
        assert await status(connector, "/elsewhere") == 404
        channel = await connector.open()
        await passes()
        assert channel.reason is None
        channel.comes("lost")
        await passes()
        os.kill(os.getpid(), signal.SIGINT)

    made = Scripted(script, health="/up", grace=60)
    assert made.connector.calls == ["start 1", "stop listening", "stop"]
    assert [record.getMessage() for record in caplog.records][1:] == [
        "fake stops in 60 s",
        "refused with 404 the handshake for '/elsewhere': no route matches that path",
        "fake stops",
    ]


@pytest.mark.rule("STOP-2")
@pytest.mark.parametrize(
    ("signum", "grace", "said"),
    [
        (signal.SIGTERM, 0.01, ["fake stops in 0.01 s", "fake stops"]),
        (signal.SIGINT, 60, ["fake stops"]),
    ],
)
def test_stop_2_a_grace_has_an_end_and_sigint_knows_none(
    signum: signal.Signals, grace: float, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsbridge")

    async def script(connector: FakeConnector) -> None:
        os.kill(os.getpid(), signum)

    made = Scripted(script, grace=grace)
    assert made.connector.calls == ["start 1", "stop listening", "stop"]
    assert [record.getMessage() for record in caplog.records][1:] == said
