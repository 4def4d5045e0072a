"""Running servers that are none, are wrong, or die: one line says so, in place of dozens of failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from click.testing import CliRunner

from wsbridge.cli import cli
from wsbridge.conformance import Progress, TargetError, Verdict, load_results, run
from wsbridge.conformance.harness import preflight

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parents[1]
SERVER = """
import asyncio, os, sys
from wsbridge.conformance.harness.reference import reference_application
from wsbridge.connectors import aiohttp

if "dies" in sys.argv:
    aiohttp._Channel._pong = lambda channel, payload: os._exit(9)

async def main():
    connector = aiohttp.Connector(reference_application())
    await connector.start()
    print(connector.url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Generator[str]:
    """Have a thread take connections and answer each; yields the URL."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # it is closed
                return
            kept.append(connection)
            with contextlib.suppress(OSError):
                connection.recv(65536)
                answer(connection)

    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in kept:
                connection.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def reference(*arguments: str) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Serve the reference application in a process; yields its URL."""
    command = [sys.executable, "-c", SERVER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().replace("http://", "ws://"), process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda it: it.sendall(b"220 mail.example ESMTP\r\n"), r"does not speak HTTP: .* b'220 mail.example ESMTP"),
        (lambda it: it.sendall(b"220 a\r\n\r\n"), "does not speak HTTP: to a handshake it sent b'220 a"),
        (lambda it: it.sendall(b"\x15\x03\x03\x00\x02\x02\x46"), "speaks TLS: the suite needs a port without it"),
        (lambda it: None, "takes the connection, and answers nothing to a handshake within 0.5 s"),
        (lambda it: it.close(), "answers a handshake by ending the connection"),
        (
            lambda it: it.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            r"serves HTTP, but no reference application \(docs/reference-app.md\): /echo answered 404 Not Found",
        ),
        (
            lambda it: it.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            r"answers a handshake for /echo wrongly: in the 101, expected Upgrade: websocket, but got \[\]",
        ),
    ],
)
def test_what_is_no_websocket_is_told_in_a_line(answer: Callable[[socket.socket], None], told: str) -> None:
    with answering(answer) as url, pytest.raises(TargetError, match=f"^{url} {told}") as caught:
        run(url, scale=0.1)
    assert "\n" not in str(caught.value)


def test_another_path_of_the_reference_application_is_none() -> None:
    with reference() as (url, _), pytest.raises(TargetError, match="/reverse/echo answered 404 Not Found, not 101"):
        run(f"{url}/reverse")


def test_a_websocket_that_does_not_echo_is_told(tmp_path: Path) -> None:
    server = SERVER.replace("reference_application())", "Application([('/echo', WebSocketOptions())]))").replace(
        "import asyncio", "from wsbridge import Application, WebSocketOptions\nimport asyncio"
    )
    command = [sys.executable, "-c", server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().replace("http://", "ws://")
            with pytest.raises(TargetError) as caught:
                run(url, scale=0.1)
        finally:
            process.kill()
    assert str(caught.value) == (
        f"there is a WebSocket at {url}, but it serves no reference application (docs/reference-app.md): /echo "
        "sent nothing back within 0.5 s"
    )


def test_a_server_that_dies_in_a_check_ends_the_run_there(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    rules = ("--rule", "HS-1/accept-key", "--rule", "FRAME-17", "--rule", "FRAME-18")
    with reference("dies") as (url, _):
        done = CliRunner().invoke(cli, ["conformance", url, *rules, "--json", str(report)])
    assert done.exit_code == 2
    told = f"2 of 4 checks were not run: the server has died in FRAME-17/ping-of-any-payload: nobody listens at {url}"
    assert f"  fail         {told}: Connection refused" in [line.rstrip() for line in done.output.splitlines()]
    (result,) = load_results(report)
    assert result.dead
    assert [(one.check, one.verdict) for one in result.results] == [
        ("HS-1/accept-key", Verdict.PASS),
        ("FRAME-17/ping-of-any-payload", Verdict.FAIL),
    ]


def test_a_server_that_dies_between_two_checks_fails_neither() -> None:
    with reference() as (url, process):

        def kill(progress: Progress) -> None:
            if progress.result is not None:
                process.kill()
                process.wait()

        result = run(url, rules=["HS-1"], progress=kill)
    assert result.dead
    assert not result.conformant
    assert [(one.check, one.verdict) for one in result.results] == [("HS-1/accept-key", Verdict.PASS)]
    (problem,) = result.problems
    assert problem.startswith(
        "4 of 5 checks were not run: the server has died after HS-1/accept-key: nobody listens at "
    )


def test_a_server_that_is_back_in_a_moment_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    @contextlib.asynccontextmanager
    async def handshake(url: str, scale: float) -> AsyncGenerator[None]:
        looks.append(url)
        if len(looks) < 3:
            raise TargetError("nobody listens")
        yield

    monkeypatch.setattr(preflight, "_handshake", handshake)
    assert asyncio.run(preflight.gone("ws://a", 0.01)) == ""
    assert len(looks) == 3
    looks.clear()
    monkeypatch.setattr(preflight, "_LOOKS", 2)
    assert asyncio.run(preflight.gone("ws://a", 0.01)) == "nobody listens"
