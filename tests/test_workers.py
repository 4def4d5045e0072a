"""`wsbridge.cli.workers` with processes that are none, and ``wsbridge serve --workers`` with real ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from tests.processes import (
    INSTALLED,
    TIMEOUT,
    Process,
    children,
    client_for,
    command,
    each_connector,
    failed,
    processes,
    serving,
    write_application,
)
from wsbridge.cli import Exit, cli, workers
from wsbridge.cli.client import Target
from wsbridge.cli.workers import FIRST_DELAY, LAST_DELAY, MARGIN, SETTLED_AFTER, Child, Supervisor
from wsbridge.connector.sockets import reserve

pytestmark = pytest.mark.slow

# ---- the supervisor, with processes that are none -------------------------------------------------------------------


class Stub:
    """A child whose life the test tells."""

    all: ClassVar[list[Stub]] = []

    def __init__(self) -> None:
        self.all.append(self)
        self.pid = len(self.all)
        self.code: int | None = None
        self.signals: list[int] = []
        self.line, self.other_end = socket.socketpair()
        self.line.setblocking(False)
        self.obeys = True

    def serves(self) -> None:
        self.other_end.send(b"+")

    def exit_code(self) -> int | None:
        return self.code

    def has_reported(self) -> bool:
        return Child.has_reported(cast(Child, self))

    def signal(self, signum: int) -> None:
        self.signals.append(signum)
        if self.obeys:
            self.dies(0)

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.code = -signal.SIGKILL

    def dies(self, code: int) -> None:
        self.code = code
        os.kill(os.getpid(), signal.SIGCHLD)


class Supervised:
    """A supervisor at work."""

    def __init__(self, count: int, *, patience: float = 10, hopeless: tuple[int, ...] = (3,), **options: Any) -> None:
        self.children: list[Stub] = []
        self.failures: list[OSError] = []
        supervisor = Supervisor(self.start, count, patience=patience - MARGIN, hopeless=hopeless, **options)
        self.task = asyncio.ensure_future(supervisor.run())

    def start(self) -> Child:
        if self.failures:
            raise self.failures.pop()
        self.children.append(Stub())
        return cast(Child, self.children[-1])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():  # noqa: ASYNC110  (of a loop that shall not know the test)
                await asyncio.sleep(0.001)

    async def started(self, count: int) -> None:
        await self.until(lambda: len(self.children) == count)

    async def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        os.kill(os.getpid(), signum)
        return await self.task


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """No signal of these tests shall end the tests."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
    for child in Stub.all:
        child.other_end.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(workers, "LAST_DELAY", 0.04)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "wsbridge.cli.workers"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_the_others_start_when_the_first_serves_and_a_signal_is_passed_on(signum: signal.Signals) -> None:
    supervised = Supervised(3)
    await supervised.started(1)
    await asyncio.sleep(0.02)
    assert len(supervised.children) == 1
    supervised.children[0].serves()
    await supervised.started(3)
    assert await supervised.end(signum) == 0
    assert [child.signals for child in supervised.children] == [[signum]] * 3
    assert all(child.line.fileno() == -1 for child in supervised.children)


async def test_every_signal_is_passed_on() -> None:
    supervised = Supervised(1)
    await supervised.started(1)
    [child] = supervised.children
    child.obeys = False
    for count in (1, 2):
        os.kill(os.getpid(), signal.SIGINT)
        await supervised.until(lambda count=count: len(child.signals) == count)  # type: ignore[misc]
    child.dies(-signal.SIGINT)
    assert await supervised.task == 0


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_is_passed_on_as_the_end_that_it_means() -> None:
    supervised = Supervised(2)
    await supervised.started(1)
    supervised.children[0].serves()
    await supervised.started(2)
    assert await supervised.end(signal.SIGHUP) == 0
    assert [child.signals for child in supervised.children] == [[signal.SIGTERM]] * 2


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_that_reloads_is_passed_on_as_it_is() -> None:
    supervised = Supervised(2, reloads=True)
    await supervised.started(1)
    supervised.children[0].serves()
    await supervised.started(2)
    for child in supervised.children:
        child.obeys = False
    os.kill(os.getpid(), signal.SIGHUP)
    await supervised.until(lambda: all(child.signals for child in supervised.children))
    assert [child.signals for child in supervised.children] == [[signal.SIGHUP]] * 2
    for child in supervised.children:
        child.obeys = True
    assert await supervised.end() == 0


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_that_was_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervised = Supervised(1)
    await supervised.started(1)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert await supervised.end() == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


async def test_the_first_that_serves_is_told_once() -> None:
    told: list[int] = []
    supervised = Supervised(2, on_served=lambda: told.append(1))
    await supervised.started(1)
    assert told == []
    supervised.children[0].serves()
    await supervised.started(2)
    supervised.children[1].serves()
    assert await supervised.end() == 0
    assert told == [1]


async def test_a_first_process_that_can_never_serve_ends_all(caplog: pytest.LogCaptureFixture) -> None:
    supervised = Supervised(2)
    await supervised.started(1)
    supervised.children[0].dies(3)
    assert await supervised.task == 3
    assert len(supervised.children) == 1
    assert messages(caplog) == []


@pytest.mark.usefixtures("quick")
async def test_once_one_has_served_every_one_that_dies_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    supervised = Supervised(2)
    await supervised.started(1)
    supervised.children[0].serves()
    await supervised.started(2)
    for number, code in enumerate((3, 1, 0, -signal.SIGKILL, -64), 3):
        supervised.children[-1].dies(code)
        await supervised.started(number)
    assert await supervised.end() == 0
    delays = [0.01, 0.02, 0.04, 0.04, 0.04]
    ends = ["exit code 3", "exit code 1", "exit code 0", "SIGKILL", "SIGRTMAX"]
    assert messages(caplog) == [
        f"worker {child.pid} ended with {end}; another starts in {delay:g} s"
        for child, end, delay in zip(supervised.children[1:], ends, delays, strict=False)
    ]


@pytest.mark.usefixtures("quick")
async def test_a_first_process_that_crashes_is_replaced() -> None:
    supervised = Supervised(2)
    await supervised.started(1)
    supervised.children[0].dies(1)
    await supervised.started(2)
    supervised.children[1].serves()
    await supervised.started(3)
    assert await supervised.end() == 0


@pytest.mark.usefixtures("quick")
async def test_the_delay_begins_anew_behind_one_that_lived_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised = Supervised(1)
    for number in (1, 2):
        await supervised.started(number)
        supervised.children[-1].dies(1)
    await supervised.started(3)
    monkeypatch.setattr(workers, "SETTLED_AFTER", 0)
    supervised.children[-1].dies(1)
    await supervised.started(4)
    assert await supervised.end() == 0
    assert [text.rpartition(" in ")[2] for text in messages(caplog)] == ["0.01 s", "0.02 s", "0.01 s"]


@pytest.mark.usefixtures("quick")
async def test_a_worker_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    supervised = Supervised(1)
    supervised.failures = [BlockingIOError(11, "Try again"), BlockingIOError(11, "Try again")]
    await supervised.started(1)
    assert await supervised.end() == 0
    text = "no worker can be started: [Errno 11] Try again; another starts in "
    assert messages(caplog) == [text + "0.01 s", text + "0.02 s"]


async def test_a_signal_while_one_waits_to_be_replaced() -> None:
    supervised = Supervised(1)
    await supervised.started(1)
    supervised.children[0].dies(1)
    await supervised.until(lambda: supervised.children[0].line.fileno() == -1)
    assert await supervised.end() == 0
    assert len(supervised.children) == 1


async def test_one_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    supervised = Supervised(1, patience=0.02)
    await supervised.started(1)
    [child] = supervised.children
    child.obeys = False
    assert await supervised.end() == 1
    assert child.signals == [signal.SIGTERM, signal.SIGKILL]
    assert messages(caplog) == [f"worker {child.pid} does not end; it is killed"]


async def test_one_that_fails_while_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    supervised = Supervised(1)
    await supervised.started(1)
    [child] = supervised.children
    child.obeys = False
    os.kill(os.getpid(), signal.SIGTERM)
    await supervised.until(lambda: child.signals)
    child.dies(-signal.SIGSEGV)
    assert await supervised.task == 1
    assert messages(caplog) == [f"worker {child.pid} ended with SIGSEGV"]


async def test_a_cancelled_supervisor_leaves_nobody() -> None:
    supervised = Supervised(1)
    await supervised.started(1)
    supervised.task.cancel()
    await asyncio.wait([supervised.task])
    assert supervised.children[0].signals == [signal.SIGKILL]


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert workers._described(-200) == "signal 200"


def test_the_delays_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs" / "guide.md").read_text(encoding="utf-8")
    assert f"from {FIRST_DELAY:g} s to {LAST_DELAY:g} s" in " ".join(text.split())
    assert f"lived for {SETTLED_AFTER:g} s" in " ".join(text.split())


# ---- a child --------------------------------------------------------------------------------------------------------


def test_a_child_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    pair = socket.socketpair

    def socketpair() -> tuple[socket.socket, socket.socket]:
        made.extend(pair())
        return made[0], made[1]

    monkeypatch.setattr("wsbridge.cli.workers.socket.socketpair", socketpair)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        Child(["--version"], 1)
    assert [sock.fileno() for sock in made] == [-1, -1]


CONNECTOR = INSTALLED[0] if INSTALLED else ""
"""One with a server, for what is not about connectors."""

DEAF = """
import asyncio, signal, time
from wsbridge import Application, WebSocketOptions
app = Application([("/", WebSocketOptions())])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def test_a_child_that_hears_nothing_is_killed(app_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (app_dir / "deaf.py").write_text(DEAF)
    arguments = ["serve", "deaf:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--port=0"]
    child = Child(arguments, 0.1 - MARGIN)
    wait_for(lambda: "deaf" in capfd.readouterr().out)
    child.end()
    assert child.exit_code() == -signal.SIGKILL
    child = Child(["--version"], 1)
    wait_for(lambda: child.exit_code() is not None)
    child.end()
    assert child.exit_code() == 0


def test_a_child_that_hears_nothing_ends_without_its_parent(app_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (app_dir / "deaf.py").write_text(DEAF)
    arguments = ["serve", "deaf:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--port=0"]
    child = Child(arguments, 0.1 - MARGIN)
    wait_for(lambda: "deaf" in capfd.readouterr().out)
    child.line.close()
    wait_for(lambda: child.exit_code() is not None)
    assert child.exit_code() == 1


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- serve --workers ------------------------------------------------------------------------------------------------


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


async def listening(process: Process, count: int) -> str:
    """Wait until ``count`` workers serve; return the URL, which is one."""
    urls = {(await process.line(r"\[\d+\] [\w-]+ listens on (ws\S+)$"))[1] for _ in range(count)}
    assert len(urls) == 1
    return urls.pop()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@each_connector
async def test_stop_2_workers_serve_until_a_signal(app_dir: Path, connector: str, signum: signal.Signals) -> None:
    async with serving(app_dir, "--workers=2", connector=connector) as process:
        url = await listening(process, 2)
        pids = {child.pid for child in children(process)}
        assert len(pids) == 2
        async with client_for(connector).connect(Target(f"{url}/echo")) as client:
            assert await client.send_text("hello")
            assert await client.receive() == "hello"
            code = asyncio.ensure_future(process.end(signum))
            end = await client.receive()
        assert await code == Exit.OK
        assert not any(processes().pid_exists(pid) for pid in pids)
    assert (end.code, end.text) == (1001, "server shutdown")  # type: ignore[union-attr]
    assert sorted(line.split("] ")[1] for line in process.lines[2:]) == [f"{connector} stops"] * 2


async def test_workers_share_the_port(app_dir: Path) -> None:
    (app_dir / "echo.py").write_text(
        "import os\nfrom wsbridge import Application, Interceptor, Response\n"
        "def pid(context): context['response'] = Response(str(os.getpid()))\n"
        "app = Application([], [Interceptor(name='pid', enter=pid)])\n"
    )
    (app_dir / "stub.py").write_text(
        (app_dir / "stub.py").read_text().replace("self.answer", "str(os.getpid()).encode()")
    )
    (app_dir / "stub.py").write_text("import os\n" + (app_dir / "stub.py").read_text())
    async with serving(app_dir, "--workers=2") as process:
        port = int((await listening(process, 2)).rpartition(":")[2])
        expected = {str(child.pid) for child in children(process)}
        found: set[str] = set()
        for _ in range(200):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            found.add((await reader.read()).decode())
            writer.close()
            await writer.wait_closed()
            if found == expected:
                break
        assert found == expected
        assert await process.end(signal.SIGTERM) == Exit.OK


async def test_a_worker_that_dies_is_replaced(app_dir: Path) -> None:
    async with serving(app_dir, "--workers=2") as process:
        url = await listening(process, 2)
        first = children(process)[0]
        first.kill()
        await process.line(rf"ERROR worker {first.pid} ended with SIGKILL; another starts in 0\.5 s$")
        assert await listening(process, 1) == url
        assert len(children(process)) == 2
        assert await process.end(signal.SIGTERM) == Exit.OK


async def test_workers_outlive_no_supervisor(app_dir: Path) -> None:
    async with serving(app_dir, "--workers=2") as process:
        await listening(process, 2)
        found = children(process)
        process.process.kill()
        for _ in found:
            await process.line("stub stops")
        await process.end()
    async with asyncio.timeout(TIMEOUT):
        for child in found:
            # nobody here is told of the end of a process whose parent is gone
            with contextlib.suppress(processes().NoSuchProcess):
                while child.is_running() and child.status() != processes().STATUS_ZOMBIE:  # noqa: ASYNC110  (see above)
                    await asyncio.sleep(0.01)


async def test_a_second_sigint_cuts_the_workers_off(app_dir: Path) -> None:
    (app_dir / "echo.py").write_text((app_dir / "echo.py").read_text() + "import asyncio\n")
    stub = (app_dir / "stub.py").read_text().replace("        pass\n", "        await asyncio.sleep(60)\n")
    (app_dir / "stub.py").write_text(stub)
    async with serving(app_dir, "--workers=1") as process:
        await listening(process, 1)
        process.process.send_signal(signal.SIGINT)
        await process.line("stub stops")
        assert await process.end(signal.SIGINT) == Exit.OK


@pytest.mark.parametrize(
    ("target", "connector", "code", "line"),
    [
        ("ecko:app", "stub:Connector", Exit.NO_MODULE, "there is no module 'ecko' in .*"),
        ("echo:app", "aiohtp", Exit.NO_CONNECTOR, "there is no connector 'aiohtp'.*"),
        ("echo:app", "stub:Featureless", Exit.UNSUPPORTED, "the stub connector cannot honour ping_interval: .*"),
    ],
)
def test_what_no_worker_can_serve_is_one_line(
    app_dir: Path, target: str, connector: str, code: Exit, line: str
) -> None:
    result = command("serve", target, f"--app-dir={app_dir}", f"--connector={connector}", "--port=0", "--workers=3")

    assert re.fullmatch(line, failed(result, code))


@pytest.mark.rule("STOP-1")
@pytest.mark.parametrize("shared", [False, True])
def test_stop_1_workers_where_they_cannot_listen(app_dir: Path, shared: bool) -> None:
    serve = ("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--workers=2")
    with socket.create_server(("127.0.0.1", 0), reuse_port=shared) as taken:
        port = taken.getsockname()[1]
        result = command(*serve, f"--port={port}")
    assert failed(result, Exit.CANNOT_LISTEN) == f"cannot listen on 127.0.0.1 port {port}: Address already in use"

    line = failed(command(*serve, f"--host={'x' * 70}.invalid"), Exit.CANNOT_LISTEN)
    assert line.startswith(f"cannot listen on {'x' * 70}.invalid port 8000: ")


async def test_a_second_supervisor_does_not_share_the_port_unawares(app_dir: Path) -> None:
    async with serving(app_dir, "--workers=1") as process:
        port = (await listening(process, 1)).rpartition(":")[2]
        serve = ("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", f"--port={port}")
        for more in ([], ["--workers=1"]):
            line = failed(await asyncio.to_thread(command, *serve, *more), Exit.CANNOT_LISTEN)
            assert line == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        assert await process.end(signal.SIGTERM) == Exit.OK


@pytest.mark.rule("STOP-13")
async def test_stop_13_a_port_is_reserved_beside_who_shares_it() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        port = listener.getsockname()[1]
        [reserved] = await reserve("127.0.0.1", port, shared=True)
        with reserved:
            assert reserved.getsockname()[1] == port
            assert not reserved.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: "):
            await reserve("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", 0)) as alone, pytest.raises(OSError, match=r"Address already in use$"):
        await reserve("127.0.0.1", alone.getsockname()[1], shared=True)


@pytest.mark.rule("STOP-13")
@pytest.mark.skipif(not CONNECTOR, reason="no server is installed")
@pytest.mark.parametrize("second", [["--workers=2"], []], ids=["workers", "one-process"])
async def test_stop_13_the_next_generation_is_let_in(app_dir: Path, second: list[str]) -> None:
    async with serving(app_dir, "--workers=2", "--reuse-port", connector=CONNECTOR) as old:
        url = await listening(old, 2)
        where = ("127.0.0.1", int(url.rpartition(":")[2]))
        async with client_for(CONNECTOR).connect(Target(f"{url}/echo")) as client:
            options = [f"--port={where[1]}", "--reuse-port", *second]
            async with serving(app_dir, *options, connector=CONNECTOR) as new:
                for _ in range(2 if second else 1):
                    assert await new.url() == url
                assert await client.send_text("still there?")
                assert await client.receive() == "still there?"
                ending = asyncio.ensure_future(old.end(signal.SIGTERM))
                end = await client.receive()
                assert await ending == Exit.OK
                async with client_for(CONNECTOR).connect(Target(f"{url}/echo")) as next_client:
                    assert await next_client.send_text("hello")
                    assert await next_client.receive() == "hello"
                assert await new.end(signal.SIGTERM) == Exit.OK
    assert (end.code, end.text) == (1001, "server shutdown")  # type: ignore[union-attr]


@pytest.mark.rule("STOP-13")
@pytest.mark.parametrize("first", [["--workers=1", "--reuse-port"], ["--reuse-port"]], ids=["workers", "one-process"])
async def test_stop_13_who_comes_second_must_ask_for_it(app_dir: Path, first: list[str]) -> None:
    async with serving(app_dir, *first) as process:
        port = (await process.url()).rpartition(":")[2]
        serve = ("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", f"--port={port}")
        line = failed(await asyncio.to_thread(command, *serve, "--workers=1"), Exit.CANNOT_LISTEN)
        assert line == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        assert await process.end(signal.SIGTERM) == Exit.OK


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers=0"], "0 is not in the range x>=1"),
        (["--workers=2", "--unix-path=x"], "--workers share a port, which a Unix socket does not have"),
        (["--workers=2", "--reload"], "--reload serves by one process: leave out --workers"),
        (["--unix-path=x", "--reuse-port"], "--unix-path stands alone: leave out --reuse-port"),
    ],
)
def test_workers_wrong_arguments(options: list[str], message: str) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, ["serve", "echo:app", *options])

    assert result.exit_code == Exit.USAGE
    assert message in result.output
