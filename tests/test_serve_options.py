"""``wsbridge serve`` as it is run for real: health, a stop under load, TLS, and the options that are passed on."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.certificates import files
from tests.processes import (
    TIMEOUT,
    command,
    each_connector,
    failed,
    serving,
    write_application,
)
from wsbridge.cli import Exit, cli
from wsbridge.cli.serve_options import ServeCommand

wire = pytest.importorskip("wsbridge.conformance.client")

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.slow


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


def address(url: str) -> tuple[str, int]:
    host, port = url.rpartition("//")[2].rsplit(":", 1)
    return host, int(port)


async def ask(where: tuple[str, int] | str, target: str, method: str = "GET", **options: Any) -> Any:
    """Send a plain request; return the response."""
    async with await wire.WirePeer.open(where, timeout=TIMEOUT, **options) as peer:
        await peer.request(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await peer.read_response(head=method == "HEAD")


# ---- health and grace -----------------------------------------------------------------------------------------------


@each_connector
async def test_health_is_503_as_soon_as_a_stop_begins(app_dir: Path, connector: str) -> None:
    async with serving(app_dir, "--health=/healthz", "--grace=60", connector=connector) as process:
        where = address(await process.url())
        response = await ask(where, "/healthz")
        assert (response.status, response.body) == (200, b"ok\n")
        assert response.header("Cache-Control") == "no-store"
        assert (await ask(where, "/healthz?deep=1", "HEAD")).status == 200
        assert (await ask(where, "/healthz", "POST")).status == 405
        assert (await ask(where, "/healthz/")).status == 404
        process.process.send_signal(signal.SIGTERM)
        await process.line(f"{connector} stops in 60 s$")
        response = await ask(where, "/healthz")
        assert (response.status, response.body) == (503, b"Service Unavailable\n")
        async with await wire.WirePeer.connect(where) as peer:  # others are served as before
            await peer.send_text("hello")
            assert await peer.receive_text() == "hello"
            process.process.send_signal(signal.SIGINT)  # which ends the grace, and nothing more
            assert await peer.receive_close() == wire.Close(1001, "server shutdown")
        assert await process.end() == Exit.OK


async def test_health_with_a_grace_that_is_over(app_dir: Path) -> None:
    async with serving(app_dir, "--health=/healthz", "--grace=0.1") as process:
        await process.url()
        process.process.send_signal(signal.SIGTERM)
        await process.line(r"stub stops in 0\.1 s$")
        await process.line("stub stops$")
        assert await process.end() == Exit.OK


async def test_sigint_knows_no_grace(app_dir: Path) -> None:
    async with serving(app_dir, "--grace=60") as process:
        await process.url()
        process.process.send_signal(signal.SIGINT)
        await process.line("stub stops$")
        assert await process.end() == Exit.OK


# ---- a stop under load ----------------------------------------------------------------------------------------------

PEERS = 50
LOADED = """
import asyncio, json, os
from wsbridge import Application, WebSocketOptions

def on_open(channel, request):
    process = {"id": request.args["id"], "sent": [], "reason": None}
    asyncio.get_running_loop().create_task(push(channel, process))
    return process

async def push(channel, process):
    number = 0
    while True:
        await asyncio.sleep(0.005)
        text = f"pushed {number}"
        if not await channel.send_text(text):
            return
        process["sent"].append(text)
        number += 1

async def on_text(channel, process, text):
    if await channel.send_text(text):
        process["sent"].append(text)

def on_close(channel, process, reason):
    process["reason"] = [reason.code, reason.text, reason.initiator]
    # in a file of its own: the other worker writes to the same pipe, and a long line comes in pieces
    with open(os.path.join(os.path.dirname(__file__), f"told-{process['id']}.json"), "w") as file:
        json.dump(process, file)

app = Application([("/echo", WebSocketOptions(on_open=on_open, on_text=on_text, on_close=on_close))])
"""


def what_was_told(folder: Path) -> dict[int, dict[str, Any]]:
    """Return what `LOADED` has written of its channels."""
    found = (json.loads(path.read_text()) for path in folder.glob("told-*.json"))
    return {int(told["id"]): told for told in found}


class Talker:
    """A peer that talks without end, reads, and answers the close."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.received: list[str] = []
        self.close: Any = None

    async def talk(self) -> None:
        number = 0
        try:
            while True:
                await self.peer.send_text(f"said {number}")
                number += 1
                await asyncio.sleep(0.005)
        except wire.Closed:
            return

    async def listen(self) -> None:
        async with self.peer:
            while True:
                event = await self.peer.receive(TIMEOUT)
                if isinstance(event, wire.Text):
                    self.received.append(event.data)
                elif isinstance(event, wire.Close):
                    self.close = event
                elif isinstance(event, wire.Eof):
                    return


@pytest.mark.rule("STOP-2")
@pytest.mark.parametrize("options", [[], ["--workers=2"]], ids=["one-process", "workers"])
@each_connector
async def test_stop_2_under_load_everything_sent_is_received(
    app_dir: Path, connector: str, options: Sequence[str]
) -> None:
    (app_dir / "echo.py").write_text(LOADED)
    async with serving(app_dir, *options, connector=connector) as process:
        where = address(await process.url())
        if options:
            await process.url()
        talkers = [
            Talker(await wire.WirePeer.connect(where, target=f"/echo?id={number}", timeout=TIMEOUT))
            for number in range(PEERS)
        ]
        talking = [asyncio.ensure_future(talker.talk()) for talker in talkers]
        listening = [asyncio.ensure_future(talker.listen()) for talker in talkers]
        async with asyncio.timeout(TIMEOUT):
            while any(len(talker.received) < 10 for talker in talkers):  # noqa: ASYNC110  (load has no event)
                await asyncio.sleep(0.01)
        code = asyncio.ensure_future(process.end(signal.SIGTERM))
        await asyncio.gather(*listening)
        assert await code == Exit.OK, process.lines[-5:]
        for task in talking:
            task.cancel()
        await asyncio.wait(talking)
    told = what_was_told(app_dir)
    assert sorted(told) == list(range(PEERS))
    for number, talker in enumerate(talkers):
        assert talker.received == told[number]["sent"], number
        assert talker.close == wire.Close(1001, "server shutdown")
        assert told[number]["reason"] == [1001, "server shutdown", "local"]


# ---- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files(tmp_path_factory.mktemp("certificates"))


def trusting(certificates: Path, own: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if own is not None:
        context.load_cert_chain(certificates / own)
    return context


@pytest.mark.rule("STOP-4")
@pytest.mark.parametrize("workers", [[], ["--workers=1"]], ids=["one-process", "workers"])
@pytest.mark.parametrize("files", [["server.pem"], ["server.crt", "server.key"]], ids=["one-file", "two-files"])
@each_connector
async def test_stop_4_serve_tls(
    app_dir: Path, certificates: Path, connector: str, files: Sequence[str], workers: Sequence[str]
) -> None:
    options = [f"--{name}={certificates / file}" for name, file in zip(("certfile", "keyfile"), files, strict=False)]
    async with serving(app_dir, *options, *workers, "--health=/up", connector=connector) as process:
        url = await process.url()
        assert url.startswith("wss://127.0.0.1:")
        tls = trusting(certificates)
        async with await wire.WirePeer.connect(address(url), ssl=tls, server_hostname="localhost") as peer:
            await peer.send_text("hello")
            assert await peer.receive_text() == "hello"
        assert (await ask(address(url), "/up", ssl=tls)).status == 200
        assert await process.end(signal.SIGTERM) == Exit.OK


@pytest.mark.rule("STOP-4")
@each_connector
async def test_stop_4_serve_tls_to_known_clients(app_dir: Path, certificates: Path, connector: str) -> None:
    options = [f"--certfile={certificates / 'server.pem'}", f"--client-ca={certificates / 'ca.pem'}"]
    async with serving(app_dir, *options, connector=connector) as process:
        where = address(await process.url())
        async with await wire.WirePeer.connect(where, ssl=trusting(certificates, "client.pem")) as peer:
            await peer.send_text("hello")
            assert await peer.receive_text() == "hello"
        for own in (None, "stranger.pem"):
            with pytest.raises((ssl.SSLError, OSError, wire.WireError)):  # TLS 1.3 tells when the client reads
                await wire.WirePeer.connect(where, ssl=trusting(certificates, own))
        assert await process.end(signal.SIGTERM) == Exit.OK
    assert [line for line in process.lines if "Traceback" in line] == []


@pytest.mark.rule("STOP-4")
@pytest.mark.parametrize("workers", [[], ["--workers=2"]], ids=["one-process", "workers"])
@pytest.mark.parametrize(
    ("certfile", "keyfile", "client_ca", "line"),
    [
        ("none.pem", None, None, "cannot read the certificate file '{0}/none.pem': No such file or directory"),
        (".", None, None, "cannot read the certificate file '{0}': Is a directory"),
        ("server.crt", "none.key", None, "cannot read the key file '{0}/none.key': No such file or directory"),
        ("server.crt", "other.key", None, "the key in '{0}/other.key' does not belong to the certificate in "
         "'{0}/server.crt'"),
        ("text.pem", None, None, r"'{0}/text.pem' holds no certificate, or '{0}/text.pem' no private key, "
         r"in PEM \(.*\)"),
        ("server.crt", "empty.pem", None, r"'{0}/server.crt' holds no certificate, or '{0}/empty.pem' no private key, "
         r"in PEM \(.*\)"),
        ("server.crt", None, None, r"'{0}/server.crt' holds no certificate, or '{0}/server.crt' no private key, "
         r"in PEM \(.*\)"),
        ("server.crt", "encrypted.key", None, "the key in '{0}/encrypted.key' is encrypted; store it without a "
         "password"),
        ("server.pem", None, "none.pem", "cannot read the client CA file '{0}/none.pem': No such file or directory"),
        ("server.pem", None, "text.pem", r"the client CA file '{0}/text.pem' holds no certificate in PEM \(.*\)"),
    ],
)  # fmt: skip
def test_stop_4_a_bad_certificate_is_one_line(
    app_dir: Path,
    certificates: Path,
    certfile: str,
    keyfile: str | None,
    client_ca: str | None,
    line: str,
    workers: Sequence[str],
) -> None:
    files = {"certfile": certfile, "keyfile": keyfile, "client-ca": client_ca}
    options = [f"--{name}={certificates / file}" for name, file in files.items() if file is not None]
    result = command(
        "serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--port=0", *options, *workers
    )

    assert re.fullmatch(line.replace("{0}", re.escape(str(certificates))), failed(result, Exit.BAD_CERTIFICATE))


# ---- options --------------------------------------------------------------------------------------------------------


def test_the_options_are_passed_on(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("wsbridge.cli.serve.run", lambda application, connector, **options: calls.append(options))
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["--max-channels=7", "--handshake-timeout=3", "--trusted-proxy=10.0.0.0/8", "--trusted-proxy=::1"]
    arguments += ["--health=/up", "--grace=2", "--shutdown-timeout=4", "--host=localhost", "--port=5", "--reuse-port"]
    arguments += ["--loop=uvloop", "--max-head-size=2048"]

    result = CliRunner().invoke(
        cli, ["serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector", *arguments]
    )

    assert result.exit_code == Exit.OK, result.output
    del calls[0]["on_listening"]
    assert calls == [
        {
            "host": "localhost",
            "port": 5,
            "reuse_port": True,
            "certificate": None,
            "max_channels": 7,
            "max_head_size": 2048,
            "handshake_timeout": 3,
            "shutdown_timeout": 4,
            "trusted_proxies": ("10.0.0.0/8", "::1"),
            "health": "/up",
            "grace": 2,
            "loop": "uvloop",
        }
    ]
    for module in ("echo", "stub"):
        sys.modules.pop(module, None)


def test_a_child_is_asked_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ServeCommand] = []

    def reload(command: ServeCommand) -> int:
        asked.append(command)
        return 0

    monkeypatch.setattr("wsbridge.cli.reload.serve_reloading", reload)
    for arguments in (
        ["--max-channels=7", "--handshake-timeout=3", "--trusted-proxy=10.0.0.0/8", "--trusted-proxy=::1", "--debug",
         "--health=/up", "--grace=2", "--shutdown-timeout=4", "--host=localhost", "--port=5", "--reuse-port",
         "--certfile=a", "--keyfile=b", "--client-ca=c", "--connector=d", "--loop=uvloop"],
        ["--unix-path=x", "--unix-mode=660", "--unix-owner=0:0", "--trusted-proxy=unix"],
        ["--fd=3", "--fd=5"],
    ):  # fmt: skip
        asked.clear()
        for _ in range(2):
            result = CliRunner().invoke(cli, ["serve", *arguments, "--reload", "--", "-odd:app"])
            assert result.exit_code == Exit.OK, result.output
            program, *arguments = asked[-1].arguments()
            assert program == "serve"
            assert arguments[-2:] == ["--", "-odd:app"]
            del arguments[-2:]
        assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trusted-proxy=nobody"], "Invalid value for '--trusted-proxy': 'nobody' is no IP address or network"),
        (["--max-channels=0"], "0 is not in the range x>=1"),
        (["--handshake-timeout=0"], "it must be positive and finite, not 0.0"),
        (["--grace=-1"], "it must be positive and finite, not -1.0"),
        (["--health=up"], "--health 'up' must begin with '/'"),
        (["--keyfile=x"], "--keyfile needs --certfile"),
        (["--client-ca=x"], "--client-ca needs --certfile"),
    ],
)
def test_serve_wrong_options(options: Sequence[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["serve", "echo:app", "--connector=stub:Connector", *options])

    assert result.exit_code == Exit.USAGE
    assert message in " ".join(result.output.split())


@pytest.mark.rule("HS-12")
@each_connector
async def test_hs_12_max_channels(app_dir: Path, connector: str) -> None:
    async with serving(app_dir, "--max-channels=1", "--health=/up", connector=connector) as process:
        where = address(await process.url())
        async with await wire.WirePeer.connect(where) as peer:
            with pytest.raises(wire.HandshakeRefused) as refused:
                await wire.WirePeer.connect(where)
            assert refused.value.response.status == 503
            assert (await ask(where, "/up")).status == 200
            await peer.send_text("hello")
            assert await peer.receive_text() == "hello"
        assert await process.end(signal.SIGTERM) == Exit.OK
