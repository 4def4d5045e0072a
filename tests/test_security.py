"""What a peer gets to know, what it can write into a log, and what it can make a connector hold: on each of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import logging
import re
import select
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from tests.processes import TIMEOUT, each_connector
from wsbridge import Application, Context, Interceptor, Response, WebSocketOptions, serve, websocket_interceptor
from wsbridge.cli.logs import Formatter

wire: Any = pytest.importorskip("wsbridge.conformance.client")

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.slow

SECRET = "secret-word"
ESCAPES = "\x1b[31m\x07\x9b32m\r\n2026-01-01 CRITICAL forged"
EVIL_PATH = "/%1b[31m%07%C2%9b32m%0d%0a2026-01-01%20CRITICAL%20forged"


def fails(context: Context) -> None:
    path = context["request"].path
    if path.startswith("/raise-in-enter"):
        raise RuntimeError(SECRET)
    if path == "/no-response":
        context["response"] = SECRET
    if path == "/bad-header":
        context["response"] = Response("", headers={"X-Word": f"{SECRET}\u20ac"})


def fails_late(context: Context) -> None:
    if context["request"].path == "/raise-in-leave":
        raise RuntimeError(SECRET)
    if context["request"].path == "/reserved-header":
        context["websocket_channel_source"].response_headers.add("Sec-WebSocket-Accept", SECRET)


async def on_text(channel: Any, process: Any, text: str) -> None:
    if text.startswith("raise"):
        raise RuntimeError(SECRET)
    await channel.send_text(text)


ECHO = WebSocketOptions(on_text=on_text, subprotocols=["chat"])
APP = Application(
    [
        ("/echo", ECHO),
        ("/raise-in-leave", ECHO),
        ("/reserved-header", ECHO),
        ("/part/{name}", ECHO),
        ("/route", [Interceptor(name="raises", enter=lambda context: 1 / 0), websocket_interceptor("echo", ECHO)]),  # type: ignore[arg-type, return-value]
    ],
    [Interceptor(name="fails", enter=fails, leave=fails_late)],
)


@contextlib.asynccontextmanager
async def served(connector: str, **options: Any) -> AsyncGenerator[tuple[str, int]]:
    async with serve(APP, connector, shutdown_timeout=2, **options) as server:
        yield server.addresses[0]  # type: ignore[misc]


HEAD = "Host: localhost\r\n"
UPGRADE = (
    f"{HEAD}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
)


def get(target: str = "/echo", head: str = UPGRADE, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    return f"{method} {target} {version}\r\n{head}\r\n".encode("latin-1")


# ---- what a peer gets to know ---------------------------------------------------------------------------------------

FAILURES = {
    path: get(path)
    for path in ("/raise-in-enter", "/raise-in-leave", "/no-response", "/bad-header", "/reserved-header", "/route")
}
REFUSALS = {
    "no route": get("/nowhere"),
    "plain": get("/echo", HEAD),
    "method": get(method="POST"),
    "no method": get(method="G\x1bT"),
    "version": get(version="HTTP/1.2"),
    "far version": get(version="HTTP/9.9"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no http": b"HELLO\r\n\r\n",
    "no host": get(head=UPGRADE.replace(HEAD, "")),
    "two hosts": get(head=UPGRADE + HEAD),
    "bad host": get(head=UPGRADE.replace("localhost", "\x1b[31m")),
    "bad key": get(head=re.sub("Key: .*", "Key: x", UPGRADE)),
    "other origin": get(head=f"{UPGRADE}Origin: https://evil.example\r\n"),
    "header name": get(head=f"{UPGRADE}bad name: 1\r\n"),
    "no colon": get(head=f"{UPGRADE}no colon\r\n"),
    "header value": get(head=f"{UPGRADE}X: a\x1b[31m\x00\r\n"),
    "folded header": get(head=f"{UPGRADE}X: a\r\n b\r\n"),
    "length": get(head=f"{HEAD}Content-Length: x\r\n", method="POST"),
    "coding": get(head=f"{HEAD}Transfer-Encoding: x\r\n", method="POST"),
    "length and coding": get(head=f"{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", method="POST"),
    "chunk": get(head=f"{HEAD}Transfer-Encoding: chunked\r\n", method="POST") + b"zz\r\n\r\n",
    "large body": get(head=f"{HEAD}Content-Length: 99999999\r\n", method="POST") + b"x",
    "target": get("http://[::1/echo", HEAD),
    "target with controls": get("/\x1b[31m\xff"),
    "long target": get("/" + "a" * 100_000),
    "long header": get(head=f"{UPGRADE}X: {'a' * 100_000}\r\n"),
    "many headers": get(head=UPGRADE + "X: a\r\n" * 1000),
}
WORDS = re.compile(
    r"python|cpython|aiohttp|websockets|tornado|werkzeug|traceback|exception|\.py\b|/src/|" + SECRET, re.I
)


async def answer(where: tuple[str, int], raw: bytes) -> Any:
    """Send a request; return the response, or None if the connection was closed without one."""
    async with await wire.WirePeer.open(where, timeout=TIMEOUT) as peer:
        try:
            await peer.request(raw)
            return await peer.read_response()
        except wire.Closed:
            return None


def check_answer(what: str, response: Any) -> None:
    """Check that a response says its status and no more."""
    status = HTTPStatus(response.status)
    # HTTPStatus has other words for a few from Python 3.13 on
    assert response.body.decode().strip().lower() in ("", response.reason.lower()), (what, response)
    assert response.reason.lower() == status.phrase.lower(), (what, response)
    assert not WORDS.search(repr(response.headers)), (what, response)
    names = {name.lower() for name, _ in response.headers}
    known = {"allow", "connection", "content-length", "content-type", "date", "sec-websocket-version", "upgrade"}
    assert names <= known | {"server"}, (what, names)
    assert response.header("Server") in (None, "wsbridge")


@pytest.mark.rule("HS-9")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@each_connector
async def test_hs_9_a_failure_is_told_as_500_and_no_more(connector: str, debug: bool) -> None:
    asyncio.get_running_loop().set_debug(debug)
    async with served(connector) as where:
        for what, raw in FAILURES.items():
            response = await answer(where, raw.replace(b"\r\n\r\n", b"\r\nAccept: text/html\r\n\r\n"))
            if what == "/bad-header" and response.status == 200:
                continue  # it can send what the others cannot
            assert response.status == 500, what
            check_answer(what, response)


@pytest.mark.rule("HS-4", "HS-5")
@each_connector
async def test_hs_4_a_refusal_tells_its_status_and_no_more(connector: str) -> None:
    async with served(connector, handshake_timeout=1) as where:
        for what, raw in REFUSALS.items():
            response = await answer(where, raw)
            if response is not None:
                if what == "folded header" and response.status == 101:
                    continue  # a server may take the fold for a space (RFC 9112, 5.2)
                assert 400 <= response.status <= 505, what
                check_answer(what, response)
        async with await wire.WirePeer.connect(where) as peer:  # none of them did any harm
            await peer.send_text("well")
            assert await peer.receive_text() == "well"
            names = {name.lower() for name, _ in peer.response.headers}
            assert not any(WORDS.search(value) for _, value in peer.response.headers)
            assert names <= {"upgrade", "connection", "sec-websocket-accept", "date", "server"}


@pytest.mark.rule("OPEN-6", "ERR-1")
@each_connector
async def test_err_1_the_peer_is_not_told_what_was_raised(connector: str) -> None:
    async with served(connector) as where, await wire.WirePeer.connect(where) as peer:
        await peer.send_text("raise")
        assert await peer.receive_close() == wire.Close(1011, "")


# ---- what a peer can write into a log -------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that anybody logs, at any level, by Python's own formatter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("RECORD %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


def check_log(text: str) -> None:
    """Check that no control character of a peer is in a log, and that no line is one of its."""
    assert [char for char in text if not char.isprintable() and char != "\n"] == []
    assert [line for line in text.splitlines() if line.startswith(("2026-01-01", "forged"))] == []


@pytest.mark.rule("ERR-1", "HS-9")
@each_connector
async def test_nothing_of_a_peer_reaches_a_log_unescaped(connector: str, log: io.StringIO) -> None:
    evil = "\x9b31m"  # legal in a header's value, and a terminal's command in latin-1
    async with served(connector, handshake_timeout=1, trusted_proxies=["127.0.0.1"]) as where:
        for path in (f"/nowhere{EVIL_PATH}", f"/raise-in-enter{EVIL_PATH}", f"/echo?{EVIL_PATH}"):
            await answer(where, get(path))
        for raw in (*REFUSALS.values(), *FAILURES.values()):
            await answer(where, raw)
        for name in ("Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Cookie", "X-Forwarded-For", "X"):
            for value in (f"a{evil}, b{evil}", "\x1b[31m", "a\nb", "a\rb", "a\x00b"):
                await answer(where, get(head=f"{UPGRADE}{name}: {value}\r\n"))
        path = f"/part{EVIL_PATH}"
        async with await wire.WirePeer.connect(where, target=path, subprotocols=["x", "chat"]) as peer:
            await peer.send_text(f"raise {ESCAPES}")
            await peer.receive_close()
        for payload in (wire.close_payload(4000, ESCAPES), wire.close_payload(1006, ESCAPES), b"\x03\xe8\xff\x1b[31m"):
            async with await wire.WirePeer.connect(where, target=path) as peer:
                await peer.send_frame(wire.Opcode.CLOSE, payload)
                await peer.wait_eof(TIMEOUT)
        async with await wire.WirePeer.connect(where, target=path) as peer:
            await peer.send_frame(wire.Opcode.TEXT, b"\xff\x1b[31m")
            await peer.receive_close()
        async with await wire.WirePeer.connect(where, target=path) as peer:
            await peer.send_frame(3, ESCAPES.encode("latin-1"))
            await peer.receive_close()
    text = log.getvalue()
    assert "raised RuntimeError" in text  # so that it is the log
    assert "forged" in text
    check_log(text)


def test_the_command_line_s_log_escapes_what_an_exception_says() -> None:
    """An application's exceptions may hold what a peer sent; a traceback has newlines of its own."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError(f"bad \udc80\N{RIGHT-TO-LEFT OVERRIDE}{ESCAPES}")
    except ValueError:
        logger.exception("one\ntwo\t%s", "\N{SNOWMAN}")

    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["ERROR one", "    two\t\N{SNOWMAN}", "    Traceback (most recent call last):"]
    assert lines[-2:] == [
        r"    ValueError: bad \udc80\u202e\x1b[31m\x07\x9b32m\r",
        "    2026-01-01 CRITICAL forged",
    ]


# ---- what a peer can make a connector hold --------------------------------------------------------------------------


@each_connector
async def test_headers_of_an_ordinary_size_are_taken(connector: str) -> None:
    head = UPGRADE + "".join(f"X-{number}: {'a' * 50}\r\n" for number in range(90)) + f"Cookie: {'a' * 4000}\r\n"
    async with served(connector) as where:
        assert (await answer(where, get(head=head))).status == 101


@pytest.mark.rule("HS-10")
@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (f"GET /echo HTTP/1.1\r\n{UPGRADE}", "X: a\r\n" * 1000),
        (f"GET /echo HTTP/1.1\r\n{UPGRADE}X: ", "a" * 8192),
        ("GET /echo HTTP/1.1\r\n", "a" * 8192),
        ("GET /", "a" * 8192),
        ("", "A" * 8192),
    ],
    ids=["headers", "value", "name", "target", "method"],
)
@each_connector
async def test_hs_10_a_head_without_end_is_refused(connector: str, begin: str, more: str) -> None:
    """Long before ``handshake_timeout``, and before much of it is held."""
    limit = 8 * 1024 * 1024  # what the sockets' own buffers take is in it
    async with served(connector, handshake_timeout=TIMEOUT) as where:
        began = time.monotonic()
        sent = await asyncio.to_thread(send_without_end, where, begin.encode(), more.encode(), limit)
    assert sent < limit
    assert time.monotonic() - began < TIMEOUT / 2


def send_without_end(where: tuple[str, int], begin: bytes, more: bytes, limit: int) -> int:
    """Send until the other side has answered or closed; return how many bytes it took."""
    sent = 0
    with socket.create_connection(where, timeout=TIMEOUT) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(begin)
        while sent < limit and not select.select([sock], [], [], 0.001)[0]:
            sock.sendall(more)
            sent += len(more)
    return sent


# ---- client certificates --------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-4")
@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED], ids=lambda mode: mode.name)
@each_connector
async def test_stop_4_the_client_s_certificate_is_on_the_request(connector: str, mode: ssl.VerifyMode) -> None:
    trustme: Any = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, stranger, known = (ssl.create_default_context(purpose) for purpose in (
        ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH, ssl.Purpose.SERVER_AUTH,
    ))  # fmt: skip
    authority.issue_cert("localhost").configure_cert(server)
    server.verify_mode = mode
    for context in (server, stranger, known):
        authority.configure_trust(context)
    authority.issue_cert("ada@example.org", common_name="ada").configure_cert(known)
    found: list[Any] = []

    def note(channel: Any, request: Any) -> None:
        found.append(request.client_certificate)
        channel.close()

    async with serve(Application([("/echo", WebSocketOptions(on_open=note))]), connector, ssl=server) as running:
        clients = [known] if mode is ssl.CERT_REQUIRED else [known, stranger]
        for context in clients:
            peer = await wire.WirePeer.connect(running.addresses[0], ssl=context, server_hostname="localhost")
            async with peer:
                await peer.receive_close()
    if mode is ssl.CERT_NONE:
        assert found == [None, None]
    else:
        assert found[1:] == [None] * (len(clients) - 1)
        assert ((("commonName", "ada"),)) in found[0]["subject"]
        assert ("email", "ada@example.org") in found[0]["subjectAltName"]
