"""``examples/nginx.conf``, run by nginx in front of each connector."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import TIMEOUT, each_connector
from wsbridge import Application, Interceptor, Request, Response, WebSocketChannel, WebSocketOptions, serve

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
TEMPLATE = Path(__file__).parent.parent / "examples" / "nginx.conf"
PEER = "127.0.0.2"  # an address of this machine that is not the proxy's

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx"),
]
trustme: Any = pytest.importorskip("trustme")
wire: Any = pytest.importorskip("wsbridge.conformance.client.wire")


@dataclass
class Site:
    """What nginx listens on, and where it looks for the application."""

    port: int
    upstream: int
    tls: ssl.SSLContext


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run nginx with the example's configuration for the tests of this file."""
    folder = tmp_path_factory.mktemp("nginx")
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.private_key_pem.write_to_path(str(folder / "site.key"))
    made.cert_chain_pems[0].write_to_path(str(folder / "site.pem"))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    port, upstream = free_ports(2)
    text = TEMPLATE.read_text(encoding="utf-8")
    for old, new in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
        "server_name app.example;": "server_name localhost;",
        "/etc/ssl/app.example": str(folder / "site"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text)
    paths = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder / 'pid'};\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}include {folder / 'site.conf'};\n}}\n"
    )
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            asyncio.run(listens(port))
            yield Site(port, upstream, tls)
        finally:
            process.terminate()
            process.wait(TIMEOUT)


async def listens(port: int) -> None:
    """Wait until somebody listens at ``port``; nginx does not tell."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def told(request: Request) -> str:
    return json.dumps([request.scheme, request.remote_address, request.host])


async def on_open(channel: WebSocketChannel, request: Request) -> None:
    await channel.send_text(told(request))


async def on_binary(channel: WebSocketChannel, process: None, data: bytes) -> None:
    await channel.send_binary(data)


def plain(context: dict[str, Any]) -> None:
    if context["request"].path == "/plain":
        context["response"] = Response(told(context["request"]))


APP = Application(
    [("/echo", WebSocketOptions(on_open=on_open, on_binary=on_binary))], [Interceptor(name="plain", enter=plain)]
)


@contextlib.asynccontextmanager
async def request_of(site: Site, target: str, *headers: str) -> AsyncGenerator[asyncio.StreamReader]:
    """Send a request from `PEER`, and yield what answers it."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.port, ssl=site.tls, server_hostname="localhost", local_addr=(PEER, 0)
    )
    try:
        lines = [f"GET {target} HTTP/1.1", f"Host: localhost:{site.port}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(TIMEOUT):
            yield reader
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def facts(site: Site, target: str, *headers: str) -> Any:
    """Return scheme, address and host of a request as the application sees them."""
    async with request_of(site, target, *headers) as reader:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if target == "/plain":
            assert head.startswith("HTTP/1.1 200 ")
            length = int(head.lower().partition("content-length: ")[2].split()[0])
            return json.loads(await reader.readexactly(length))
        assert head.startswith("HTTP/1.1 101 "), head
        kind, length = await reader.readexactly(2)
        assert kind == 0x81
        assert length < 126
        return json.loads(await reader.readexactly(length))


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
)
CLAIMS = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: ws")


@pytest.mark.rule("HS-2")
@pytest.mark.parametrize("trusted", [("127.0.0.1",), ("127.0.0.0/31", "::1")])
@pytest.mark.parametrize("claims", [(), CLAIMS], ids=["honest", "claims"])
@each_connector
async def test_hs_2_a_trusted_proxy_tells_who_the_peer_is(
    site: Site, connector: str, claims: Sequence[str], trusted: Sequence[str]
) -> None:
    async with serve(APP, connector, port=site.upstream, trusted_proxies=trusted):
        for target, headers in (("/echo", UPGRADE), ("/plain", ())):
            assert await facts(site, target, *headers, *claims) == ["wss", [PEER, 0], f"localhost:{site.port}"]


@pytest.mark.rule("HS-2")
@pytest.mark.parametrize("trusted", [(), (PEER, "10.0.0.0/8")], ids=["none", "others"])
@each_connector
async def test_hs_2_a_proxy_that_is_not_listed_is_the_peer(site: Site, connector: str, trusted: Sequence[str]) -> None:
    async with serve(APP, connector, port=site.upstream, trusted_proxies=trusted):
        for target, headers in (("/echo", UPGRADE), ("/plain", ())):
            scheme, (host, port), _ = await facts(site, target, *headers, *CLAIMS)
            assert (scheme, host) == ("ws", "127.0.0.1")
            assert port > 0


@pytest.mark.rule("HS-6")
@each_connector
async def test_hs_6_the_origin_is_that_of_the_site(site: Site, connector: str) -> None:
    async with serve(APP, connector, port=site.upstream, trusted_proxies=["127.0.0.1"]):
        assert await facts(site, "/echo", *UPGRADE, f"Origin: https://localhost:{site.port}")
        for other in (f"https://127.0.0.1:{site.port}", "https://localhost", "https://evil.example", "null"):
            async with request_of(site, "/echo", *UPGRADE, f"Origin: {other}") as reader:
                assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")


@pytest.mark.rule("RECV-1", "CLOSE-4", "STOP-2")
@each_connector
async def test_messages_and_closes_pass_through(site: Site, connector: str) -> None:
    options: dict[str, Any] = {"ssl": site.tls, "server_hostname": "localhost", "timeout": TIMEOUT}
    async with serve(APP, connector, port=site.upstream) as server:
        async with await wire.Peer.connect(("127.0.0.1", site.port), **options) as peer:
            await peer.receive_text()
            for size in (0, 125, 70_000, 1024 * 1024):
                data = os.urandom(size)
                await peer.send_binary(data)
                assert await peer.receive_binary() == data
            await peer.send_close(4001, "bye")
            assert (await peer.receive_close()).code == 4001
            await peer.wait_eof()
        async with await wire.Peer.connect(("127.0.0.1", site.port), **options) as peer:
            await peer.receive_text()
            stopping = asyncio.ensure_future(server.stop())
            assert await peer.receive_close() == wire.Close(1001, "server shutdown")
            await stopping
