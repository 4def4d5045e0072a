"""Answers that are the same on every connector: to requests with a body, and to large ones; and who guards a mount."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.processes import TIMEOUT, each_connector
from wsbridge import Application, Interceptor, Response, WebSocketOptions, serve
from wsbridge.http import Request, closing, has_body, is_last, says_close
from wsbridge.interceptor import Context

UPGRADE = (
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
BODY = 4_000_000  # bytes: more than any buffer on the way


def request_of(version: str = "1.1", **headers: str) -> Request:
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request("POST", "/", headers=lines, http_version=version, scheme="ws", remote_address=None, native=None)


@pytest.mark.rule("HS-16")
def test_what_is_a_body() -> None:
    assert not has_body(request_of())
    assert not has_body(request_of(content_length="0"))
    assert has_body(request_of(content_length="1"))
    assert has_body(request_of(transfer_encoding="chunked"))


@pytest.mark.rule("HS-4", "HS-16")
def test_which_request_is_the_last() -> None:
    assert not is_last(request_of())
    assert is_last(request_of(connection="Upgrade, Close"))
    assert is_last(request_of("1.0"))
    assert not is_last(request_of("1.0", connection="keep-alive"))
    assert is_last(request_of(content_length="1"))
    assert not is_last(request_of("2", content_length="1", connection="close"))


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "close"),
        (["Upgrade"], "Upgrade, close"),
        (["keep-alive"], "close"),
        (["Upgrade", "X"], "Upgrade, X, close"),
        (["Upgrade, Close"], "Upgrade, Close"),
    ],
)
def test_an_answer_that_says_that_the_connection_ends(given: list[str], said: str) -> None:
    response = Response("body", 426, [("Connection", value) for value in given], content_type="a/b")
    last = closing(response)
    assert last.headers.getlist("Connection") == [said]
    assert says_close(last)
    assert (last.body, last.status_code, last.headers["Content-Type"]) == (b"body", 426, "a/b")
    assert response.headers.getlist("Connection") == given


@contextlib.asynccontextmanager
async def answering(connector: str, **options: Any) -> AsyncGenerator[tuple[Any, ...]]:
    def answer(context: Context) -> None:
        if context["request"].path == "/polling":
            context["response"] = Response("x" * 100_000)

    app = Application([("/", WebSocketOptions())], [Interceptor(name="answer", enter=answer)])
    async with asyncio.timeout(TIMEOUT), serve(app, connector, shutdown_timeout=2, **options) as server:
        yield server.addresses[0]  # type: ignore[misc]


async def exchange(address: tuple[Any, ...], head: str, rest: bytes = b"") -> bytes:
    """Send a request and all of its body before anything is read; return all that comes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(head.encode())
        for start in range(0, len(rest), 65536):
            writer.write(rest[start : start + 65536])
            await writer.drain()
        return await reader.read(-1)
    finally:
        writer.transport.abort()


@pytest.mark.rule("HS-16")
@each_connector
async def test_the_answer_is_not_lost_though_the_body_is_large(connector: str) -> None:
    async with answering(connector) as address:
        for path, status, size in (("/polling", 200, 100_000), ("/", 405, 0), ("/nowhere", 404, 0)):
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY}\r\n\r\n"
            answer = await exchange(address, head, b"x" * BODY)
            start, _, body = answer.partition(b"\r\n\r\n")
            assert start.startswith(f"HTTP/1.1 {status} ".encode())
            assert b"connection: close" in start.lower()
            assert len(body) >= size
            assert answer.count(b"HTTP/1.") == 1


@pytest.mark.rule("HS-17")
@each_connector
async def test_the_431_is_not_lost_though_the_head_is_large(connector: str) -> None:
    async with answering(connector, max_head_size=16 * 1024) as address:
        for line in ("X: " + "y" * 1_000_000, "\r\n".join(f"X-{number}: {'y' * 1000}" for number in range(1000))):
            answer = await exchange(address, f"GET / HTTP/1.1\r\n{UPGRADE}{line}\r\n\r\n")
            assert answer.split(b" ")[1] == b"431"
            assert answer.count(b"HTTP/1.") == 1


@pytest.mark.rule("LIM-1", "HS-11")
@each_connector
async def test_a_request_in_pieces_takes_nothing_off_the_limits(connector: str) -> None:
    async def echo(channel: Any, process: Any, text: str) -> None:
        await channel.send_text(text)

    text = b"x" * 100
    mask = b"\0\0\0\0"
    fragments = b"\x01" + bytes((0x80 | 60,)) + mask + text[:60] + b"\x80" + bytes((0x80 | 40,)) + mask + text[60:]
    app = Application([("/", WebSocketOptions(on_text=echo, max_text_size=100, max_binary_size=100))])
    async with asyncio.timeout(TIMEOUT), serve(app, connector, shutdown_timeout=2) as server:
        address: Any = server.addresses[0]
        reader, writer = await asyncio.open_connection(*address)
        for piece in ("GET / HTTP/1.1\r\n", *UPGRADE.splitlines(keepends=True), "X-Much: ", "x" * 200, "\r\n\r\n"):
            writer.write(piece.encode())
            await asyncio.sleep(0.01)  # so that each is read by itself
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        for frames in (b"\x81" + bytes((0x80 | 100,)) + mask + text, fragments):
            writer.write(frames)
            assert await reader.readexactly(102) == b"\x81\x64" + text
        writer.transport.abort()


@pytest.mark.rule("HS-17", "LIM-5")
@pytest.mark.parametrize(
    ("value", "error"), [(1023, ValueError), (0, ValueError), ("64k", TypeError), (None, TypeError), (True, TypeError)]
)
def test_a_head_size_that_cannot_be(value: Any, error: type[Exception]) -> None:
    from wsbridge.connectors.memory import Connector

    with pytest.raises(error, match="max_head_size"):
        Connector(Application([]), max_head_size=value)


# ---- mounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MOUNT-3")
@pytest.mark.parametrize("whole", [False, True])
async def test_the_users_own_process_request_guards_the_mount(whole: bool) -> None:
    pytest.importorskip("websockets")
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import basic_auth
    from websockets.asyncio.server import serve as native_serve
    from websockets.exceptions import InvalidStatus

    from wsbridge.connectors.websockets import mount

    seen: list[str] = []

    async def on_open(channel: Any, request: Request) -> None:
        seen.append(channel.native.username)
        await channel.send_text("hello")

    options = WebSocketOptions(on_open=on_open)
    guard = basic_auth(realm="r", credentials=("ada", "secret"))
    mounted = mount(
        Application([("/in", options)]) if whole else options,
        path="/ws" if whole else "/ws/{name}",
        process_request=guard,
    )
    async with asyncio.timeout(TIMEOUT), native_serve(**mounted.serve_kwargs, host="127.0.0.1", port=0) as server:
        where = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/in"
        for user in ("", "ada:wrong@"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{user}{where}", proxy=None)
            assert refused.value.response.status_code == 401
        assert seen == []
        async with connect(f"ws://ada:secret@{where}", proxy=None) as peer:
            assert await peer.recv() == "hello"
        assert seen == ["ada"]
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://ada:secret@{where.replace('/ws/in', '/elsewhere')}", proxy=None)
        assert refused.value.response.status_code == 404
