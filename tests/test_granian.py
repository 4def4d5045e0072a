"""What granian needs beside the suite: its options, the kernel's view of connections, the chat from a browser."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("granian")

import wsbridge
from tests.processes import TIMEOUT, WSBRIDGE, running
from tests.test_browser import CHAT, browser
from tests.test_examples import EXAMPLES
from wsbridge import Application, Interceptor, Response, UnsupportedOptionError, WebSocketOptions
from wsbridge.cli import Exit
from wsbridge.conformance.client import HandshakeRequest, WirePeer
from wsbridge.connectors import _connections
from wsbridge.connectors.granian import Connector

SERVE = ("serve", "chat:app", f"--app-dir={EXAMPLES}", "--connector=granian", "--port=0")


def app(options: WebSocketOptions[None] | None = None, *interceptors: Interceptor) -> Application:
    return Application([("/", options or WebSocketOptions(ping_interval=None))], interceptors)


# ---- options --------------------------------------------------------------------------------------------------------


def test_tls_is_refused() -> None:
    with pytest.raises(UnsupportedOptionError, match="the granian connector cannot honour ssl: its server takes no"):
        Connector(app(), ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_pings_are_refused_unless_they_are_left_to_the_server() -> None:
    with pytest.raises(UnsupportedOptionError, match="ping_interval"):
        Connector(app(WebSocketOptions()))
    Connector(app(WebSocketOptions()), server_pings=True)


# ---- connections ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of connections by sock_diag")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_tells_of_a_connection(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        peer = socket.create_connection(listener.getsockname()[:2])
        here, _ = listener.accept()
        ends = peer.getsockname()[:2], here.getsockname()[:2]
        with here:
            inode = Path(f"/proc/self/fd/{here.fileno()}").readlink().name
            assert _connections.look(ends) == (int(inode.removeprefix("socket:[").removesuffix("]")), False)
            assert not _connections.has_ended(ends)
            peer.close()
            assert _connections.has_ended(ends)
        assert _connections.look(((host, 1), (host, 1))) is None
        assert _connections.has_ended(((host, 1), (host, 1)))


def test_one_connection_is_cut_and_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peers = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        accepted = [listener.accept()[0] for _ in peers]
        _connections.cut((peers[0].getsockname(), listener.getsockname()))
        with peers[0], peers[1], accepted[0], accepted[1]:
            peers[0].settimeout(TIMEOUT)
            assert peers[0].recv(1) == b""
            accepted[1].sendall(b"x")
            assert peers[1].recv(1) == b"x"
            _connections.cut_all([listener.getsockname()])
            peers[1].settimeout(TIMEOUT)
            assert peers[1].recv(1) == b""
        late = socket.create_connection(listener.getsockname())  # it listens still
        late.close()


# ---- what would abort the process -----------------------------------------------------------------------------------


@pytest.mark.rule("HS-7")
async def test_a_refusal_with_repeated_headers_does_not_abort_the_process(caplog: pytest.LogCaptureFixture) -> None:
    headers = [("X-A", "1"), ("X-A", "2"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    refuse = Interceptor(name="refuse", enter=lambda context: context.update(response=Response("no", 403, headers)))
    async with wsbridge.serve(app(None, refuse), "granian", port=0) as connector:
        address = connector.addresses[0]
        assert isinstance(address, tuple)
        peer = await WirePeer.open(address, timeout=TIMEOUT)
        await peer.send_raw(HandshakeRequest.build(address).encode())
        answer = await peer.read_response()
        await peer.aclose()
    assert (answer.status, answer.headers_all("X-A"), answer.headers_all("Set-Cookie")) == (403, ["1, 2"], ["a=1"])
    assert "more than one cookie" in caplog.text


def test_a_process_that_ends_behind_a_stop_is_not_aborted() -> None:
    code = """
import asyncio, wsbridge
async def main():
    app = wsbridge.Application([("/", wsbridge.WebSocketOptions(ping_interval=None))])
    async with wsbridge.serve(app, "granian", port=0):
        pass
asyncio.run(main())
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# ---- the chat -------------------------------------------------------------------------------------------------------


async def test_the_command_line_needs_to_be_told_that_nobody_pings() -> None:
    async with running(*WSBRIDGE, *SERVE) as process:
        await process.line("ping_interval")


@pytest.mark.rule("HS-1", "CLOSE-4")
async def test_the_chat_from_a_browser(tmp_path: Path) -> None:
    async with running(*WSBRIDGE, *SERVE, "--server-pings") as process, browser(tmp_path) as page:
        url = await process.url()
        await page.call("Page.enable")
        await page.call("Page.navigate", url=url.replace("ws://", "http://") + "/")
        await page.event("Page.loadEventFired")
        result = await page.evaluate(f"({CHAT})({json.dumps(url + '/chat/lobby?token=ada-token')})")
    assert result["heard"] == ["* ada joined", "ada: hello", "ada: \N{SNOWMAN}\N{SNOWMAN}\N{SNOWMAN}"]
    assert (result["code"], result["clean"]) == (4001, True)


@pytest.mark.rule("HS-1")
async def test_the_chat_by_the_handshake_of_firefox() -> None:
    async with running(*WSBRIDGE, *SERVE, "--server-pings") as process:
        host, _, port = (await process.url()).removeprefix("ws://").partition(":")
        async with await WirePeer.connect(
            (host, int(port)),
            target="/chat/lobby?token=ada-token",
            headers=(("Origin", f"http://{host}:{port}"), ("Sec-WebSocket-Extensions", "permessage-deflate")),
            replace={"Connection": "keep-alive, Upgrade"},
            timeout=TIMEOUT,
        ) as peer:
            assert await peer.receive_text() == "* ada joined"


async def test_server_pings_is_refused_where_wsbridge_pings() -> None:
    process = await asyncio.create_subprocess_exec(
        *WSBRIDGE, "serve", "chat:app", f"--app-dir={EXAMPLES}", "--connector=aiohttp", "--server-pings",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, stderr = await asyncio.wait_for(process.communicate(), TIMEOUT)
    assert process.returncode not in (None, Exit.OK)
    assert b"the aiohttp connector cannot honour server_pings: it pings by itself" in stderr
    assert b"Traceback" not in stderr
