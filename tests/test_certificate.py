"""Certificates that are renewed while they are in use (STOP-14)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import TIMEOUT, Process, children, each_connector, serving, write_application
from tests.test_activation import Notified
from tests.test_serving import APP, Stub
from wsbridge import Application, Connector, WebSocketChannel, WebSocketOptions, run, serve, tls
from wsbridge.cli import Exit
from wsbridge.tls import Certificate, TLSFileError

trustme = pytest.importorskip("trustme")

pytestmark = [pytest.mark.slow, pytest.mark.rule("STOP-14")]


class Files:
    """A certificate and its key, as an authority issues them again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.trust = ssl.create_default_context()
        self.authority.configure_trust(self.trust)

    def issue(self, number: int) -> None:
        """Put the files in their places, one after the other, as certbot does."""
        issued = self.authority.issue_cert("127.0.0.1", common_name=f"number {number}")
        self.put(self.cert, issued.cert_chain_pems[0].bytes())
        self.put(self.key, issued.private_key_pem.bytes())

    def put(self, path: Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(content)
        os.replace(new, path)

    @property
    def options(self) -> list[str]:
        return [f"--certfile={self.cert}", f"--keyfile={self.key}"]

    def certificate(self) -> Certificate:
        return Certificate(str(self.cert), str(self.key))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.issue(1)
    return made


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


def presented(context: ssl.SSLContext, trust: ssl.SSLContext) -> str:
    """Return the common name that a server with ``context`` presents, over no network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trust.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return common_name(client.getpeercert())


def common_name(certificate: Any) -> str:
    return str(next(value for part in certificate["subject"] for key, value in part if key == "commonName"))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_files_are_loaded_again_into_the_same_context(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    certificate = files.certificate()
    context = certificate.context
    assert presented(context, files.trust) == "number 1"

    files.issue(2)
    assert presented(context, files.trust) == "number 1"
    assert certificate.renew()

    assert certificate.context is context
    assert presented(context, files.trust) == "number 2"
    assert [record.getMessage() for record in caplog.records] == [
        f"the certificate in {str(files.cert)!r} was loaded again"
    ]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda files: files.cert.unlink(), "cannot read the certificate file .*: No such file or directory"),
        (lambda files: files.key.write_text("no key"), "'.*' holds no certificate, or '.*' no private key, in PEM .*"),
        (
            lambda files: files.put(files.key, files.authority.issue_cert("x.example").private_key_pem.bytes()),
            "the key in '.*' does not belong to the certificate in '.*'",
        ),
    ],
    ids=["gone", "broken", "of-another"],
)
def test_what_cannot_be_used_is_logged_and_the_old_one_is_kept(
    files: Files, spoil: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = files.certificate()
    spoil(files)

    assert not certificate.renew()
    certificate.look()
    certificate.look()

    assert presented(certificate.context, files.trust) == "number 1"
    [line] = errors(caplog)
    assert re.fullmatch(f"the certificate in use is kept: {reason}", line)
    files.issue(2)
    certificate.look()
    assert presented(certificate.context, files.trust) == "number 2"


def test_a_look_takes_what_has_changed_and_nothing_else(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = files.certificate()
    loads: list[object] = []
    original = certificate._load

    def load() -> None:
        loads.append(1)
        original()

    monkeypatch.setattr(certificate, "_load", load)

    certificate.look()
    assert loads == []
    files.issue(2)
    certificate.look()
    certificate.look()

    assert loads == [1]
    assert presented(certificate.context, files.trust) == "number 2"


def test_files_that_are_half_renewed_are_not_told_yet(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    certificate = files.certificate()
    issued = files.authority.issue_cert("127.0.0.1", common_name="number 2")

    files.put(files.cert, issued.cert_chain_pems[0].bytes())
    certificate.look()
    assert presented(certificate.context, files.trust) == "number 1"
    files.put(files.key, issued.private_key_pem.bytes())
    certificate.look()

    assert presented(certificate.context, files.trust) == "number 2"
    assert errors(caplog) == []


def test_broken_files_are_told_once_when_they_stay_so(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    certificate = files.certificate()
    files.cert.write_text("no certificate")
    for _ in range(4):
        certificate.look()
    assert len(errors(caplog)) == 1
    files.cert.write_text("none either, at another length")
    for _ in range(4):
        certificate.look()
    assert len(errors(caplog)) == 2
    assert presented(certificate.context, files.trust) == "number 1"


def test_files_that_change_between_two_loads_are_loaded_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = files.certificate()
    load_chain = tls._load_chain
    left = [2]

    def load(context: ssl.SSLContext, *paths: Any) -> None:
        if context is certificate.context and left[0]:
            left[0] -= 1
            raise TLSFileError("half of them")
        load_chain(context, *paths)

    monkeypatch.setattr(tls, "_load_chain", load)
    files.issue(2)
    assert certificate.renew()
    assert presented(certificate.context, files.trust) == "number 2"
    left[0] = 100
    assert not certificate.renew()
    assert left[0] == 100 - tls._TRIES


async def test_it_looks_while_the_block_runs(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK", 0.01)
    certificate = files.certificate()
    tasks = asyncio.all_tasks()
    async with certificate.renewing(), asyncio.timeout(TIMEOUT):
        files.issue(2)
        while presented(certificate.context, files.trust) != "number 2":  # noqa: ASYNC110  (a file has no event)
            await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == tasks


def test_run_takes_it_and_a_hangup_loads_it_again(files: Files) -> None:
    certificate = files.certificate()
    seen: list[object] = []

    async def script(connector: Any) -> None:
        seen.append(connector.ssl is certificate.context)
        files.issue(2)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(TIMEOUT):
            while presented(certificate.context, files.trust) != "number 2":  # noqa: ASYNC110  (a signal has none)
                await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    def listening(connector: Connector) -> None:
        seen.append(asyncio.ensure_future(script(connector)))

    run(APP, type("Fresh", (Stub,), {"log": []}), on_listening=listening, certificate=certificate)

    assert seen[1:] == [True]
    assert presented(certificate.context, files.trust) == "number 2"
    with pytest.raises(TypeError, match="ssl and certificate are two ways to say the same"):
        run(APP, Stub, certificate=certificate, ssl=certificate.context)


@pytest.mark.rule("STOP-14", "STOP-15")
def test_a_hangup_while_the_lifespan_is_entered_is_a_renewal_and_no_news_for_systemd(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = files.certificate()
    notified = Notified(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", notified.path)

    @contextlib.asynccontextmanager
    async def renews(app: Application) -> AsyncGenerator[None]:
        files.issue(2)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(TIMEOUT):
            while presented(certificate.context, files.trust) != "number 2":  # noqa: ASYNC110  (a signal has none)
                await asyncio.sleep(0.001)
        yield

    def listening(connector: Connector) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    app = Application([], lifespan=renews)
    with notified.sock:
        run(app, type("Fresh", (Stub,), {"log": []}), on_listening=listening, certificate=certificate)
        assert notified.all() == ["READY=1", "STOPPING=1"]


# ---- on every connector, and by the command line --------------------------------------------------------------------


async def open_channel(url: str, trust: ssl.SSLContext) -> tuple[Any, str]:
    wire: Any = pytest.importorskip("wsbridge.conformance.client.wire")
    host, _, port = url.partition("://")[2].partition(":")
    peer = await wire.Peer.connect((host, int(port)), target="/echo", ssl=trust, timeout=TIMEOUT)
    assert peer._tls is not None
    return peer, common_name(peer._tls.getpeercert())


async def until(url: str, trust: ssl.SSLContext, name: str) -> None:
    """Connect until ``name`` is presented."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            peer, found = await open_channel(url, trust)
            peer.close()
            if found == name:
                return


async def echoes(peer: Any) -> bool:
    await peer.send_text("there?")
    return bool(await peer.receive_text() == "there?")


@each_connector
async def test_open_channels_live_on(files: Files, connector: str) -> None:
    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        await channel.send_text(text)

    app = Application([("/echo", WebSocketOptions(on_text=on_text))])
    certificate = files.certificate()
    async with serve(app, connector, ssl=certificate.context) as server:
        old, name = await open_channel(server.url, files.trust)
        assert name == "number 1"
        files.issue(2)
        assert certificate.renew()
        new, name = await open_channel(server.url, files.trust)
        assert name == "number 2"
        for peer in (old, new):
            assert await echoes(peer)
            peer.close()


async def serves(process: Process, count: int) -> str:
    urls = {await process.url() for _ in range(count)}
    assert len(urls) == 1
    return urls.pop()


@pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])
@pytest.mark.parametrize("hangup", [False, True], ids=["look", "hangup"])
async def test_wsbridge_serve_takes_what_is_renewed(files: Files, app_dir: Path, workers: int, hangup: bool) -> None:
    pytest.importorskip("websockets")
    options = [*files.options, *([f"--workers={workers}"] if workers else [])]
    async with serving(app_dir, *options, connector="websockets") as process:
        url = await serves(process, workers or 1)
        pids = [child.pid for child in children(process)]
        old, _ = await open_channel(url, files.trust)
        files.issue(2)
        if hangup:
            process.process.send_signal(signal.SIGHUP)
        for _ in range(workers or 1):
            await process.line("the certificate in .* was loaded again$")
        await until(url, files.trust, "number 2")
        assert await echoes(old)
        files.cert.write_text("broken")
        process.process.send_signal(signal.SIGHUP)
        for _ in range(workers or 1):
            await process.line("ERROR .*the certificate in use is kept: ")
        await until(url, files.trust, "number 2")
        assert await echoes(old)
        assert [child.pid for child in children(process)] == pids
        old.close()
        assert await process.end(signal.SIGTERM) == Exit.OK
    assert not [line for line in process.lines if "Traceback" in line]


async def test_a_hangup_of_a_reloading_server_loads_it_again(files: Files, app_dir: Path) -> None:
    pytest.importorskip("watchfiles")
    async with serving(app_dir, *files.options, "--reload") as process:
        await process.url()
        process.process.send_signal(signal.SIGHUP)
        await process.line("the certificate in .* was loaded again$")
        assert await process.end(signal.SIGTERM) == Exit.OK
