"""Signals (STOP-11, STOP-12): before anything is served, while the application starts, and where loops know none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ECHO, TIMEOUT, WSBRIDGE, children, each_connector, running, serving, write_application
from tests.test_serving import APP, Stub
from wsbridge import Application, Connector, ConnectorStateError, WebSocketOptions, run
from wsbridge._process.signals import Stopped, end_at_signals, handling, held_back, stop_signals
from wsbridge.cli import Exit

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """See to it that a test leaves signals as it found them: none ignored, as `nohup` or a shell's ``&`` has them."""
    inherited = {signum: signal.getsignal(signum) for signum in ENDING}
    for signum, handler in inherited.items():
        if handler is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum is signal.SIGINT else signal.SIG_DFL)
    yield from _unchanged_signals()
    for signum, handler in inherited.items():
        signal.signal(signum, handler)


def _unchanged_signals() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in ENDING}
    yield
    assert {signum: signal.getsignal(signum) for signum in ENDING} == before


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


def kill(signum: signal.Signals) -> None:
    os.kill(os.getpid(), signum)


def linger() -> None:
    """Give Python the moment that it needs to call a signal's handler."""
    for _ in range(100):
        time.sleep(0.001)


@contextlib.contextmanager
def disposition(signum: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


# ---- before an event loop runs --------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("signum", ENDING)
def test_stop_11_a_signal_ends_what_is_under_way(signum: signal.Signals) -> None:
    def wait() -> None:
        with end_at_signals(hangup=True):
            kill(signum)
            linger()

    with pytest.raises(Stopped) as raised:
        wait()
    assert raised.value.code == 0


@pytest.mark.rule("STOP-11")
def test_stop_11_a_signal_that_was_caught_ends_it_behind() -> None:
    with end_at_signals(hangup=True) as check:
        check()
        try:
            kill(signal.SIGTERM)
            linger()
        except SystemExit:
            pass
        with pytest.raises(Stopped):
            check()


@pytest.mark.rule("STOP-12")
def test_stop_12_a_hangup_does_nothing_where_it_is_a_reload() -> None:
    with end_at_signals(hangup=False) as check:
        kill(signal.SIGHUP)
        check()
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # which a child would inherit


@pytest.mark.rule("STOP-12")
@pytest.mark.parametrize("hangup", [False, True])
def test_stop_12_a_hangup_that_is_ignored_stays_so(hangup: bool) -> None:
    with disposition(signal.SIGHUP, signal.SIG_IGN), end_at_signals(hangup=hangup):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.rule("STOP-11")
def test_stop_11_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was set in C, before Python began: it cannot be had, nor set again."""
    getsignal = signal.getsignal
    with disposition(signal.SIGTERM, signal.SIG_DFL):
        monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else getsignal(number))
        with end_at_signals(hangup=True):
            pass
        monkeypatch.undo()
        assert callable(signal.getsignal(signal.SIGTERM))  # nobody can give it back
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("has_masks", [False, True])
def test_stop_11_a_signal_is_held_back_where_that_can_be(monkeypatch: pytest.MonkeyPatch, has_masks: bool) -> None:
    heard: list[str] = []
    if not has_masks:  # as on Windows
        monkeypatch.delattr(signal, "pthread_sigmask")
    with disposition(signal.SIGTERM, lambda number, frame: heard.append("signal")):
        with held_back():
            signal.raise_signal(signal.SIGTERM)  # to this thread: another would take one for the process
            linger()
            heard.append("end of block")
        linger()
    assert heard == (["end of block", "signal"] if has_masks else ["signal", "end of block"])


@pytest.mark.rule("STOP-11")
def test_stop_11_a_signal_ends_what_is_under_way_where_there_are_no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait() -> None:
        with end_at_signals(hangup=True):
            kill(signal.SIGTERM)
            linger()

    monkeypatch.delattr(signal, "pthread_sigmask")
    with pytest.raises(Stopped):
        wait()


@pytest.mark.rule("STOP-11")
def test_stop_11_in_another_thread_no_signal_comes() -> None:
    def go() -> None:
        with end_at_signals(hangup=True) as check:
            check()
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=go)
    thread.start()
    thread.join(TIMEOUT)
    assert done == [True]


WAITING = """
import signal, sys, time
sys.stdout.write("begun\\n"); sys.stdout.flush()
sys.stdin.readline()
from wsbridge._process.signals import end_at_signals
with end_at_signals(hangup={hangup}):
    print("handlers", flush=True)
    time.sleep(60) if {waits} else None
"""


@pytest.mark.rule("STOP-11", "STOP-12")
@pytest.mark.parametrize(
    ("signum", "hangup", "said"), [(signal.SIGTERM, True, ""), (signal.SIGHUP, False, "handlers\n")]
)
def test_stop_12_a_child_gets_what_came_before_its_handlers(signum: signal.Signals, hangup: bool, said: str) -> None:
    code = WAITING.format(hangup=hangup, waits=signum == signal.SIGTERM)
    with held_back():
        child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signum)
        rest, _ = child.communicate("go\n", TIMEOUT)
    assert (child.returncode, rest) == (0, said)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(ENDING)


# ---- in an event loop -----------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_is_as_sigterm() -> None:
    with stop_signals() as stop:
        kill(signal.SIGHUP)
        async with asyncio.timeout(TIMEOUT):
            await stop.wait()
        assert not stop.interrupted.is_set()


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_that_reloads_does_not_stop() -> None:
    reloaded = asyncio.Event()
    with stop_signals(reloaded.set) as stop:
        kill(signal.SIGHUP)
        async with asyncio.timeout(TIMEOUT):
            await reloaded.wait()
        assert not stop.is_set()


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_that_was_ignored_is_taken_only_for_a_reload() -> None:
    with disposition(signal.SIGHUP, signal.SIG_IGN):
        with stop_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with stop_signals(lambda: None):
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


class WithoutSignals(asyncio.SelectorEventLoop):
    """As the loops of Windows."""

    def add_signal_handler(self, *arguments: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    def remove_signal_handler(self, sig: int) -> bool:
        raise NotImplementedError


class WithoutReaders(WithoutSignals):
    """As the one of Windows that asyncio chooses there, which is woken by its own means."""

    def add_reader(self, *arguments: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("loop", [WithoutSignals, WithoutReaders])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stop_11_a_loop_without_signal_handlers(loop: type[asyncio.AbstractEventLoop], signum: signal.Signals) -> None:
    class Fresh(Stub):
        log: list[str] = []  # noqa: RUF012

    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)

    def listening(connector: Connector) -> None:
        asyncio.get_running_loop().call_later(0.01, kill, signum)

    run(APP, Fresh, on_listening=listening, loop=loop)

    assert Fresh.log == ["start", "stop listening", "stop"]
    assert signal.set_wakeup_fd(wakeup) == wakeup


@pytest.mark.rule("STOP-11")
def test_stop_11_a_loop_without_signal_handlers_is_woken() -> None:
    """A signal for a handler in Python does not end the wait of a loop by itself: a byte does."""

    async def wait() -> None:
        came = asyncio.Event()
        with handling({signal.SIGTERM: came.set}):
            threading.Timer(0.05, kill, (signal.SIGTERM,)).start()
            async with asyncio.timeout(TIMEOUT):
                await came.wait()

    with asyncio.Runner(loop_factory=WithoutSignals) as runner:
        runner.run(wait())


# ---- run ------------------------------------------------------------------------------------------------------------


class Hanging:
    """An application whose lifespan waits as it is entered, and says what comes of it."""

    def __init__(self, clean_up: Callable[[], Any] | None = None) -> None:
        self.said: list[str] = []
        self.clean_up = clean_up
        self.app = Application([("/", WebSocketOptions())], lifespan=self.lifespan)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Application) -> AsyncGenerator[None]:
        self.said.append("enter")
        asyncio.get_running_loop().call_soon(self.on_enter)
        try:
            await asyncio.Event().wait()
            yield
        except asyncio.CancelledError:
            self.said.append("cancelled")
            if self.clean_up is not None:
                await self.clean_up()
            raise

    def on_enter(self) -> None:
        raise NotImplementedError


@pytest.mark.rule("STOP-11", "STOP-12")
@pytest.mark.parametrize("signum", ENDING)
def test_stop_11_a_signal_while_the_lifespan_is_entered(
    signum: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    hanging = Hanging()
    hanging.on_enter = lambda: kill(signum)  # type: ignore[method-assign]

    run(hanging.app, Stub, on_listening=lambda _: pytest.fail("it listens"))

    assert hanging.said == ["enter", "cancelled"]
    assert [record.getMessage() for record in caplog.records] == ["stub is stopped before it listens"]


@pytest.mark.rule("STOP-11")
def test_stop_11_a_second_sigint_cuts_the_clean_up_short(caplog: pytest.LogCaptureFixture) -> None:
    async def clean_up() -> None:
        kill(signal.SIGINT)
        await asyncio.sleep(60)

    hanging = Hanging(clean_up)
    hanging.on_enter = lambda: kill(signal.SIGINT)  # type: ignore[method-assign]

    run(hanging.app, Stub, shutdown_timeout=60)

    assert hanging.said == ["enter", "cancelled"]


@pytest.mark.rule("STOP-11")
def test_stop_11_what_a_start_raises_comes_through_a_signal() -> None:
    class Failing(Stub):
        async def _start(self, sockets: list[socket.socket]) -> None:
            kill(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(APP, Failing)


@pytest.mark.rule("STOP-11")
def test_stop_11_run_in_another_thread_names_serve() -> None:
    def go() -> None:
        try:
            run(APP, Stub)
        except ConnectorStateError as exc:
            raised.append(str(exc))

    raised: list[str] = []
    thread = threading.Thread(target=go)
    thread.start()
    thread.join(TIMEOUT)
    assert [text.partition(";")[0] for text in raised] == [
        "run is for the main thread of a process, since it waits for signals"
    ]
    assert "wsbridge.serve" in raised[0]


@pytest.mark.rule("STOP-11")
async def test_stop_11_run_where_a_loop_runs_names_serve() -> None:
    with pytest.raises(ConnectorStateError, match=r"^run starts an event loop, and one runs here already; .*\.serve"):
        run(APP, Stub)


# ---- wsbridge serve -------------------------------------------------------------------------------------------------

# in short sleeps: from Python 3.15 on, a signal just before a call that blocks is heard only when that returns
SLOW = "import time\nprint('importing', flush=True)\nfor _ in range(600): time.sleep(0.1)\n"
CATCHING = (
    "import time\nprint('importing', flush=True)\n"
    "try:\n    for _ in range(600): time.sleep(0.1)\nexcept BaseException: pass\n" + ECHO
)
LOOPING = (
    "import asyncio\n"
    "async def prepare():\n    print('importing', flush=True)\n    await asyncio.sleep(60)\n"
    "asyncio.run(prepare())\n"
)


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("signum", ENDING)
@pytest.mark.parametrize("source", [SLOW, CATCHING, LOOPING], ids=["blocks", "catches", "runs-a-loop"])
async def test_stop_11_a_signal_while_the_application_is_imported(
    app_dir: Path, source: str, signum: signal.Signals
) -> None:
    (app_dir / "echo.py").write_text(source)
    async with serving(app_dir) as process:
        await process.line("importing", stdout=True)
        assert await process.end(signum) == Exit.OK
    assert process.lines == ["importing"]


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_stop_11_a_signal_while_workers_import(app_dir: Path, signum: signal.Signals) -> None:
    (app_dir / "echo.py").write_text(SLOW)
    async with serving(app_dir, "--workers=2") as process:
        await process.line("importing", stdout=True)
        assert await process.end(signum) == Exit.OK
    assert process.lines == ["importing"]


EARLY = """
import sys
import time  # an exception of a handler that runs in a weak reference's callback, as imports have them, is swallowed

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "wsbridge":
            print("importing", flush=True)
            for _ in range(600):
                time.sleep(0.1)

sys.meta_path.insert(0, Hook())
sys.argv[1:] = ["serve", "echo:app"]
import _wsbridge_main
_wsbridge_main.main()
"""


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_stop_11_a_signal_while_wsbridge_itself_is_imported(signum: signal.Signals) -> None:
    async with running(sys.executable, "-c", EARLY) as process:
        await process.line("importing", stdout=True)
        assert await process.end(signum) == Exit.OK
    assert process.lines == ["importing"]


NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
NAMESPACE += ["--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture(scope="module")
def _can_be_process_1() -> None:
    try:
        tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare (util-linux) here, so that nothing can be process 1")
    if tried.returncode != 0:
        pytest.skip(f"nothing can be process 1 here: {tried.stderr.strip()}")


@pytest.mark.rule("STOP-11")
@pytest.mark.usefixtures("_can_be_process_1")
@pytest.mark.parametrize("workers", [[], ["--workers=1"]], ids=["one-process", "workers"])
async def test_stop_11_as_process_1_a_signal_while_the_application_is_imported(
    app_dir: Path, workers: list[str]
) -> None:
    pid = "getppid" if workers else "getpid"
    (app_dir / "echo.py").write_text(f"import os\nassert os.{pid}() == 1\n{SLOW}")
    arguments = ("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--port=0", *workers)
    async with running(*NAMESPACE, *WSBRIDGE, *arguments) as process:
        await process.line("importing", stdout=True)
        [first] = children(process)
        first.send_signal(signal.SIGTERM)
        assert await process.end() == Exit.OK


HANGS = """
import asyncio, contextlib
from wsbridge import Application

@contextlib.asynccontextmanager
async def lifespan(app):
    print("entering", flush=True)
    try:
        await asyncio.sleep(60)
        yield
    finally:
        print("left", flush=True)

app = Application([], lifespan=lifespan)
"""


@pytest.mark.rule("STOP-11")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [[], ["--workers=2"]], ids=["one-process", "workers"])
async def test_stop_11_a_signal_while_the_lifespan_hangs(
    app_dir: Path, signum: signal.Signals, workers: list[str]
) -> None:
    (app_dir / "echo.py").write_text(HANGS)
    async with serving(app_dir, *workers) as process:
        await process.line("entering", stdout=True)
        assert await process.end(signum) == Exit.OK
    assert [line for line in process.lines if "INFO" not in line] == ["entering", "left"]
    assert sum(line.endswith("stub is stopped before it listens") for line in process.lines) == 1


TELLS = ECHO.replace("on_open=on_open,", "on_open=on_open, on_close=on_close,").replace(
    "app =", "async def on_close(channel, process, reason):\n    print('on_close', reason.code, flush=True)\n\napp ="
)


@pytest.mark.rule("STOP-12")
@pytest.mark.parametrize("options", [[], ["--workers=2"], ["--grace=0.1"]], ids=["one-process", "workers", "grace"])
@each_connector
async def test_stop_12_a_hangup_cuts_nothing_off(app_dir: Path, connector: str, options: list[str]) -> None:
    wire: Any = pytest.importorskip("wsbridge.conformance.client")
    (app_dir / "echo.py").write_text(TELLS)
    async with serving(app_dir, *options, connector=connector) as process:
        url = await process.url()
        host, port = url.removeprefix("ws://").split(":")
        async with await wire.WirePeer.connect((host, int(port)), target="/echo", timeout=TIMEOUT) as peer:
            await peer.send_text("there?")
            assert await peer.receive_text() == "there?"
            code = asyncio.ensure_future(process.end(signal.SIGHUP))
            assert await peer.receive() == wire.Close(1001, "server shutdown")
            assert await code == Exit.OK
    assert process.lines.count("on_close 1001") == 1


@pytest.mark.rule("STOP-12")
@pytest.mark.parametrize("workers", [[], ["--workers=1"]], ids=["one-process", "workers"])
async def test_stop_12_under_nohup_a_hangup_does_nothing(app_dir: Path, workers: list[str]) -> None:
    arguments = ("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--port=0", *workers)
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    async with running(sys.executable, "-c", ignoring, *WSBRIDGE, *arguments) as process:
        await process.url()
        process.process.send_signal(signal.SIGHUP)
        assert await process.end(signal.SIGTERM) == Exit.OK
    assert process.lines[-1].endswith("stub stops")


@pytest.mark.rule("STOP-12")
async def test_stop_12_a_hangup_ends_a_reloading_server_with_its_child(app_dir: Path) -> None:
    pytest.importorskip("watchfiles")
    async with serving(app_dir, "--reload") as process:
        await process.url()
        assert await process.end(signal.SIGHUP) == Exit.OK
    assert process.lines[-1].endswith("stub stops")
