"""What a peer sends after its request while interceptors take their time: it is held back, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.processes import TIMEOUT, each_connector
from wsbridge import Application, Interceptor, Response, WebSocketChannel, WebSocketOptions, serve
from wsbridge.interceptor import Context

HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MESSAGE = b"\x82\xfe\xff\xff" + bytes(4) + bytes(65535)  # masked by zeros
MESSAGES = 256
QUIET = 0.3  # seconds in which nothing more can be written


class Served:
    """A connector whose interceptor waits for `gate`, and refuses ``/refused``."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.received = 0
        self.all_received = asyncio.Event()
        self.address: tuple[Any, ...] = ()

    def take(self, channel: WebSocketChannel, process: None, data: bytes) -> None:
        self.received += 1
        if self.received == MESSAGES:
            self.all_received.set()

    async def wait(self, context: Context) -> None:
        await self.gate.wait()
        if context["request"].path == "/refused":
            context["response"] = Response("no", 403)


@contextlib.asynccontextmanager
async def serving(connector: str) -> AsyncGenerator[Served]:
    served = Served()
    app = Application([("/", WebSocketOptions(on_binary=served.take))], [Interceptor(name="w", enter=served.wait)])
    async with asyncio.timeout(TIMEOUT), serve(app, connector, shutdown_timeout=2) as server:
        served.address = server.addresses[0]  # type: ignore[assignment]
        yield served


async def write_early(writer: asyncio.StreamWriter, path: str) -> asyncio.Task[None]:
    """Send a handshake and many messages after it, until no more is taken; return the task that sends the rest."""

    async def write() -> None:
        for _ in range(MESSAGES):
            writer.write(MESSAGE)
            await writer.drain()

    writer.write(HANDSHAKE.format(path).encode())
    writing = asyncio.create_task(write())
    await asyncio.wait((writing,), timeout=QUIET)
    return writing


@pytest.mark.rule("HS-11", "FLOW-1")
@each_connector
async def test_what_comes_before_the_answer_is_held_back(connector: str) -> None:
    async with serving(connector) as served:
        reader, writer = await asyncio.open_connection(*served.address)
        writing = await write_early(writer, "/")
        assert not writing.done()
        served.gate.set()
        await writing
        await served.all_received.wait()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.transport.abort()


@pytest.mark.rule("HS-7", "HS-11")
@each_connector
async def test_a_refusal_is_not_lost_though_much_came_before_it(connector: str) -> None:
    async with serving(connector) as served:
        reader, writer = await asyncio.open_connection(*served.address)
        writing = await write_early(writer, "/refused")
        served.gate.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
        writer.transport.abort()
        await asyncio.wait((writing,))
        if not writing.cancelled():
            writing.exception()
