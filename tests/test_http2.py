"""WebSockets over HTTP/2 and HTTP/3: `asgi_app` on hypercorn, by clients on h2 and aioquic, and by a browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wsbridge import Application, CloseReason, Interceptor, Request, Response, WebSocketOptions
from wsbridge.connectors.asgi import AsgiApp, asgi_app

pytest.importorskip("hypercorn")
trustme: Any = pytest.importorskip("trustme")

from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage  # noqa: E402

from tests import http2  # noqa: E402
from tests.http2 import WebSocket  # noqa: E402
from tests.node import missing  # noqa: E402
from tests.processes import TIMEOUT, running  # noqa: E402

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs" / "asgi.md"
VERSIONS = ("h2", "h2c", "h3")
"""HTTP/2 with TLS, HTTP/2 without, and HTTP/3."""

each_version = pytest.mark.parametrize("version", VERSIONS)
over_http2 = pytest.mark.parametrize("version", ["h2", "h2c"])


@dataclass
class Certificates:
    """A server's certificate for this machine, in files, and the authority that clients trust."""

    folder: Path
    authority: Any = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        self.key, self.certificate = str(self.folder / "key.pem"), str(self.folder / "cert.pem")
        issued.private_key_pem.write_to_path(self.key)
        for part in issued.cert_chain_pems:
            part.write_to_path(self.certificate, append=True)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols(["h2"])
        return context


@dataclass
class Server:
    """hypercorn, which serves in this loop."""

    version: str
    port: int
    certificates: Certificates

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncGenerator[Any]:
        """Connect by the version of HTTP that it is about."""
        if self.version == "h3":
            from tests import http3

            async with http3.opened("127.0.0.1", self.port, self.certificates.authority.cert_pem.bytes()) as connection:
                yield connection
        else:
            tls = self.certificates.client() if self.version == "h2" else None
            async with await http2.Connection.open("127.0.0.1", self.port, tls=tls) as connection:
                yield connection


@contextlib.asynccontextmanager
async def served(app: AsgiApp, folder: Path, version: str) -> AsyncGenerator[Server]:
    """Serve on a free port until the end of the block, which ends the channels first (docs/asgi.md)."""
    if version == "h3":
        try:
            import aioquic  # noqa: F401
        except ModuleNotFoundError:
            missing("HTTP/3 needs aioquic, which is not installed: pip install 'hypercorn[h3]'")
    certificates = Certificates(folder)
    sock = socket.socket(type=socket.SOCK_DGRAM if version == "h3" else socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    config = Config()
    config.bind = []
    setattr(config, "quic_bind" if version == "h3" else "bind", [f"fd://{sock.fileno()}"])
    if version != "h2c":
        config.certfile, config.keyfile = certificates.certificate, certificates.key
    config.loglevel = "ERROR"
    config.graceful_timeout = 1
    started, stopped = asyncio.Event(), asyncio.Event()

    async def until_stopped() -> None:
        started.set()  # hypercorn listens when it awaits this
        await stopped.wait()

    datagrams = _recorded_endpoints()
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=until_stopped))  # type: ignore[arg-type]
    async with asyncio.timeout(TIMEOUT):
        await started.wait()
    try:
        yield Server(version, sock.getsockname()[1], certificates)
    finally:
        await app.stop()
        stopped.set()
        await asyncio.wait((serving,), timeout=TIMEOUT)
        sock.detach()
        for transport in datagrams:  # which hypercorn leaves open
            transport.abort()
        await asyncio.sleep(0)


def _recorded_endpoints() -> list[asyncio.DatagramTransport]:
    """Return a list into which the running loop puts the endpoints for datagrams that it makes from now on."""
    loop: Any = asyncio.get_running_loop()
    make, made = loop.create_datagram_endpoint, list[asyncio.DatagramTransport]()

    async def recorded(*arguments: Any, **options: Any) -> Any:
        transport, protocol = await make(*arguments, **options)
        made.append(transport)
        return transport, protocol

    loop.create_datagram_endpoint = recorded
    return made


class Room:
    """An application that tells what it sees."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.reasons: asyncio.Queue[tuple[str, CloseReason]] = asyncio.Queue()
        self.release = asyncio.Event()

    def options(self, **options: Any) -> WebSocketOptions[Any]:
        return WebSocketOptions(
            on_open=self.on_open, on_text=self.on_text, on_binary=self.on_binary, on_close=self.on_close, **options
        )

    def on_open(self, channel: Any, request: Request) -> str:
        self.requests.append(request)
        return request.path_params["name"]

    async def on_text(self, channel: Any, name: str, text: str) -> None:
        if text == "close":
            channel.close(4002, "enough")
        elif text == "raise":
            raise ValueError("the callback fails")
        elif text == "wait":
            await self.release.wait()
        elif text == "much":
            for _ in range(40):
                await channel.send_binary(bytes(16_384))
        else:
            await channel.send_text(f"{name}: {text}")

    async def on_binary(self, channel: Any, name: str, data: bytes) -> None:
        await channel.send_binary(data)

    async def on_close(self, channel: Any, name: str, reason: CloseReason) -> None:
        await self.reasons.put((name, reason))

    async def reason(self) -> tuple[str, int, str]:
        """Return the next end: whose, its code and who was first."""
        async with asyncio.timeout(TIMEOUT):
            name, reason = await self.reasons.get()
        return name, reason.code, reason.initiator

    def app(self, *, interceptors: Any = (), max_channels: int | None = None, **options: Any) -> AsgiApp:
        application = Application([("/{name}/room", self.options(**options))], interceptors=interceptors)
        return asgi_app(application, server_pings=True, max_channels=max_channels, shutdown_timeout=2)


async def opened(connection: Any, name: str) -> WebSocket:
    stream = connection.websocket(f"/{name}/room")
    assert await stream.answer() == 200
    websocket = WebSocket(stream)
    await says(websocket, name, "here")
    return websocket


async def says(websocket: WebSocket, name: str, text: str) -> None:
    """Check that a channel answers."""
    await websocket.send_text(text)
    assert await websocket.receive() == f"{name}: {text}"


# ---- the handshake ------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-2", "HS-3", "HS-8", "HS-19")
@each_version
async def test_the_request_and_the_answer(version: str, tmp_path: Path) -> None:
    room = Room()

    def add(context: Any) -> Any:
        headers = context["websocket_channel_source"].response_headers
        headers.add("X-Served-By", "a")
        headers.add("X-Served-By", "b")
        return context

    app = room.app(interceptors=[Interceptor(name="add", enter=add)], subprotocols=["b", "a"])
    headers = [
        *http2.VERSION_13,
        ("sec-websocket-protocol", "a, b"),
        ("origin", "https://example.org"),
        ("cookie", "token=secret"),
        ("x-word", "caf\u00e9"),
    ]
    async with served(app, tmp_path, version) as server, server.client() as connection:
        assert connection.has_websockets
        stream = connection.websocket("/ada%20l/room?x=1", headers)
        assert await stream.answer() == 200
        assert [value for name, value in stream.headers if name == "x-served-by"] == ["a", "b"]
        assert dict(stream.headers)["sec-websocket-protocol"] == "b"
        assert not {"upgrade", "connection", "sec-websocket-accept"} & set(dict(stream.headers))
        await says(WebSocket(stream), "ada l", "here")
        (request,) = room.requests
        assert (request.method, request.http_version) == ("CONNECT", "3" if version == "h3" else "2")
        assert (request.host, request.scheme) == ("example.org", "ws" if version == "h2c" else "wss")
        assert (request.raw_path, request.path_params, request.args["x"]) == ("/ada%20l/room", {"name": "ada l"}, "1")
        assert (request.cookies["token"], request.headers["X-Word"]) == ("secret", "caf\u00e9")
        assert request.subprotocols == ("a", "b")
        assert request.remote_address == connection.address


@pytest.mark.rule("HS-4", "HS-5", "HS-6", "HS-7", "HS-19")
@each_version
async def test_what_is_refused(version: str, tmp_path: Path) -> None:
    room = Room()

    def refuse(context: Any) -> Any:
        if context["request"].path == "/private":
            context["response"] = Response("who are you?", 401, {"X-A": "b", "Connection": "close"})
        return context

    app = room.app(interceptors=[Interceptor(name="refuse", enter=refuse)])
    cases: list[tuple[str, list[tuple[str, str]], int]] = [
        ("/unknown", [*http2.VERSION_13], 404),
        ("/private", [*http2.VERSION_13], 401),
        ("/a/room", [*http2.VERSION_13, ("origin", "https://evil.example")], 403),
    ]
    if version != "h3":  # hypercorn refuses these by itself, over HTTP/3 with a header that may not be there
        cases += [("/a/room", [("sec-websocket-version", "8")], 400), ("/a/room", [], 400)]
    async with served(app, tmp_path, version) as server, server.client() as connection:
        for target, headers, status in cases:
            stream = connection.websocket(target, headers)
            assert await stream.answer() == status, target
            if target == "/private":
                assert (dict(stream.headers)["x-a"], await stream.read()) == ("b", b"who are you?")
                assert "connection" not in dict(stream.headers)
        page = connection.get("/a/room")
        assert (await page.answer(), dict(page.headers)["allow"]) == (405, "CONNECT")
        await says(await opened(connection, "ada"), "ada", "still here")
    assert len(room.requests) == 1


@pytest.mark.rule("HS-12", "HS-19")
@each_version
async def test_one_channel_too_many(version: str, tmp_path: Path) -> None:
    room = Room()
    async with (
        served(room.app(max_channels=2, close_timeout=1), tmp_path, version) as server,
        server.client() as connection,
    ):
        first, second = await opened(connection, "ada"), await opened(connection, "grace")
        refused = connection.websocket("/joan/room")
        assert (await refused.answer(), "retry-after" in dict(refused.headers)) == (503, True)
        await second.send_text("close")
        end = await second.receive()
        assert isinstance(end, CloseConnection)
        await second.send(end.response())
        assert (await room.reason())[0] == "grace"
        await opened(connection, "joan")
        await says(first, "ada", "undisturbed")


# ---- messages -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("RECV-1", "RECV-2", "RECV-7", "HS-19")
@each_version
async def test_messages(version: str, tmp_path: Path) -> None:
    room = Room()
    async with served(room.app(), tmp_path, version) as server, server.client() as connection:
        websocket = await opened(connection, "ada")
        await says(websocket, "ada", "")
        await says(websocket, "ada", "\N{SNOWMAN}" * 1000)
        await websocket.send(Ping(payload=b"p"))
        for part in ("fragments ", "of ", "one"):
            await websocket.send(TextMessage(data=part, message_finished=part == "one"))
        assert await websocket.receive() == "ada: fragments of one"
        for size in (0, 70_000, 400_000):  # more than any window
            data = os.urandom(size)
            await websocket.send(BytesMessage(data=data))
            assert await websocket.receive() == data


@pytest.mark.rule("LIM-1", "HS-19")
@each_version
async def test_a_message_that_is_too_big(version: str, tmp_path: Path) -> None:
    room = Room()
    async with (
        served(room.app(max_text_size=1000), tmp_path, version) as server,
        server.client() as connection,
    ):
        websocket = await opened(connection, "ada")
        await says(websocket, "ada", "x" * 1000)
        await websocket.send_text("x" * 1001)
        end = await websocket.receive()
        assert isinstance(end, CloseConnection)
        assert end.code == 1009


# ---- the end ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLOSE-4", "ERR-1", "HS-19")
@each_version
@pytest.mark.parametrize(("text", "code", "reason"), [("close", 4002, "enough"), ("raise", 1011, "")])
async def test_this_side_closes(version: str, text: str, code: int, reason: str, tmp_path: Path) -> None:
    room = Room()
    async with served(room.app(close_timeout=1), tmp_path, version) as server, server.client() as connection:
        websocket, other = await opened(connection, "ada"), await opened(connection, "grace")
        await websocket.send_text(text)
        end = await websocket.receive()
        assert isinstance(end, CloseConnection)
        assert (end.code, end.reason or "") == (code, reason)
        assert await websocket.receive() is None  # the stream ends behind it
        await websocket.send(end.response())
        assert await room.reason() == ("ada", code, "local")
        await says(other, "grace", "goes on")


@pytest.mark.rule("CLOSE-4", "HS-19")
@over_http2
async def test_the_peer_closes(version: str, tmp_path: Path) -> None:
    """What its code was is told by hypercorn over no version of HTTP."""
    room = Room()
    async with served(room.app(), tmp_path, version) as server, server.client() as connection:
        websocket, other = await opened(connection, "ada"), await opened(connection, "grace")
        await websocket.send(CloseConnection(code=4001, reason="bye"))
        end = await websocket.receive()
        assert isinstance(end, CloseConnection)
        assert (end.code, end.reason) == (4001, "bye")
        assert await room.reason() == ("ada", 1006, "network")
        await says(other, "grace", "goes on")


@pytest.mark.rule("CLOSE-7", "HS-19")
@over_http2
async def test_the_peer_resets_its_stream(version: str, tmp_path: Path) -> None:
    room = Room()
    async with served(room.app(), tmp_path, version) as server, server.client() as connection:
        websocket, other = await opened(connection, "ada"), await opened(connection, "grace")
        websocket.stream.cancel()
        assert await room.reason() == ("ada", 1006, "network")
        await says(other, "grace", "goes on")


@pytest.mark.rule("CLOSE-7", "HS-19")
@over_http2
async def test_the_connection_is_lost(version: str, tmp_path: Path) -> None:
    room = Room()
    async with served(room.app(), tmp_path, version) as server:
        async with server.client() as connection:
            for name in ("ada", "grace"):
                await opened(connection, name)
        assert {await room.reason(), await room.reason()} == {("ada", 1006, "network"), ("grace", 1006, "network")}


@pytest.mark.rule("LIM-2", "HS-19")
async def test_the_peer_s_end_is_not_told_over_http3(tmp_path: Path) -> None:
    """hypercorn answers its close frame, and tells the application of no end: ``idle_timeout`` finds it."""
    room = Room()
    async with served(room.app(idle_timeout=0.5, close_timeout=0.5), tmp_path, "h3") as server:
        async with server.client() as connection:
            websocket = await opened(connection, "ada")
            await websocket.send(CloseConnection(code=4001, reason="bye"))
            end = await websocket.receive()
            assert isinstance(end, CloseConnection)
            assert (end.code, end.reason) == (4001, "bye")
            await opened(connection, "grace")
        assert {await room.reason(), await room.reason()} == {("ada", 1001, "local"), ("grace", 1001, "local")}


@pytest.mark.rule("STOP-2", "HS-19")
@each_version
async def test_a_stop_ends_every_channel(version: str, tmp_path: Path) -> None:
    room, ends = Room(), list[Any]()
    app = room.app()
    async with served(app, tmp_path, version) as server, server.client() as connection:
        websockets = [await opened(connection, name) for name in ("ada", "grace")]
        stopping = asyncio.create_task(app.stop())
        for websocket in websockets:
            ends.append(await websocket.receive())
            await websocket.send(ends[-1].response())
        await stopping
    assert [end.code for end in ends] == [1001, 1001]
    assert {await room.reason(), await room.reason()} == {("ada", 1001, "local"), ("grace", 1001, "local")}


# ---- several on one connection ------------------------------------------------------------------------------------


@pytest.mark.rule("RECV-5", "HS-19")
@each_version
async def test_many_on_one_connection(version: str, tmp_path: Path) -> None:
    room = Room()
    names = [f"n{number}" for number in range(20)]
    async with served(room.app(), tmp_path, version) as server, server.client() as connection:
        websockets = [await opened(connection, name) for name in names]
        for websocket in websockets:
            for text in ("a", "b"):
                await websocket.send_text(text)
        for name, websocket in zip(names, websockets, strict=True):
            assert [await websocket.receive(), await websocket.receive()] == [f"{name}: a", f"{name}: b"]


@pytest.mark.rule("FLOW-1", "RECV-5", "HS-19")
@over_http2
async def test_one_that_reads_nothing_holds_up_no_other(version: str, tmp_path: Path) -> None:
    room = Room()
    async with served(room.app(), tmp_path, version) as server, server.client() as connection:
        stuck, other = await opened(connection, "stuck"), await opened(connection, "other")
        await stuck.send_text("much")  # ten times what its window takes
        for number in range(50):
            await says(other, "other", str(number))
        for _ in range(40):
            assert await stuck.receive() == bytes(16_384)


@pytest.mark.rule("RECV-5", "HS-19")
@each_version
async def test_a_callback_that_waits_holds_up_no_other(version: str, tmp_path: Path) -> None:
    """As long as no more messages wait for it than hypercorn keeps, which are 10."""
    room = Room()
    async with served(room.app(), tmp_path, version) as server, server.client() as connection:
        stuck, other = await opened(connection, "stuck"), await opened(connection, "other")
        await stuck.send_text("wait")
        for number in range(9):
            await stuck.send_text(str(number))
        await says(other, "other", "goes on")
        room.release.set()
        assert [await stuck.receive() for _ in range(9)] == [f"stuck: {number}" for number in range(9)]


# ---- what docs/asgi.md says ---------------------------------------------------------------------------------------


def page_of_the_docs(folder: Path) -> None:
    """Write the files that the page has people write."""
    found = re.search(r"^```python\n(# page\.py\n.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    (folder / "page.py").write_text(found[1])


@contextlib.asynccontextmanager
async def the_command(folder: Path) -> AsyncGenerator[int]:
    """Run hypercorn's own command with TLS, as the page says; yield the port."""
    page_of_the_docs(folder)
    certificates = Certificates(folder)
    files = ("--certfile", certificates.certificate, "--keyfile", certificates.key)
    command = (sys.executable, "-m", "hypercorn", "page:app", "--bind", "127.0.0.1:0", "--workers", "0", *files)
    async with running(*command, cwd=folder) as process:
        yield int((await process.line(r"Running on https://127\.0\.0\.1:(\d+)"))[1])
        assert await process.end(signal.SIGTERM) == 0, process.lines


@pytest.mark.rule("HS-19")
async def test_the_page_of_the_docs_by_hypercorn_s_command(tmp_path: Path) -> None:
    async with the_command(tmp_path) as port:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        async with await http2.Connection.open("127.0.0.1", port, tls=context) as connection:
            page = connection.get("/")
            assert (await page.answer(), dict(page.headers)["content-type"]) == (200, "text/html; charset=utf-8")
            assert b"new WebSocket" in await page.read()
            stream = connection.websocket("/echo", [*http2.VERSION_13, ("origin", f"https://127.0.0.1:{port}")])
            assert await stream.answer() == 403  # another host than example.org
            stream = connection.websocket("/echo")
            assert await stream.answer() == 200
            await WebSocket(stream).send_text("hello")
            assert await WebSocket(stream).receive() == "hello via HTTP/2"
            stream.cancel()


@pytest.mark.rule("HS-19")
async def test_the_page_of_the_docs_in_a_browser(tmp_path: Path) -> None:
    from tests.test_browser import browser

    async with (
        the_command(tmp_path) as port,
        browser(tmp_path / "profile", "--ignore-certificate-errors") as page,
    ):
        await page.call("Page.enable")
        await page.call("Page.navigate", url=f"https://127.0.0.1:{port}/")
        await page.event("Page.loadEventFired")
        said = await page.evaluate(
            """
            new Promise((resolve, reject) => {
              const line = document.getElementById("line"), said = document.getElementById("said");
              new MutationObserver(() => resolve(said.textContent)).observe(said, { childList: true });
              const say = () => { line.value = "hello"; line.dispatchEvent(new Event("change")); };
              if (socket.readyState === WebSocket.OPEN) say(); else socket.addEventListener("open", say);
              setTimeout(() => reject(new Error("too slow")), 20000);
            })
            """
        )
        assert said == "hello via HTTP/2\n"
        protocol = await page.evaluate("(async () => performance.getEntriesByType('navigation')[0].nextHopProtocol)()")
        assert protocol == "h2"
