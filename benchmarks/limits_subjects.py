"""The servers whose memory `limits` measures: wsbridge on a connector, or the server by hand, with the same routes.

``/`` echoes; ``/busy`` works on the first message until the end of time; ``/push`` offers 256 MiB in messages of 64 KiB
by one task, ``/push128`` by 128. By hand means the usual idiom of each server's documentation, at the limits that
wsbridge has by default: 1 MiB a message, no pings.

Example:
    python -m benchmarks.limits_subjects native-aiohttp off

prints ``PORT n`` when it listens, ``UNSUPPORTED reason`` where the server has no such setting, or ``MISSING reason``,
and serves until stdin closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

__all__ = ["OFFERED", "PIECE", "SETTINGS", "SUBJECTS"]

HOST = "127.0.0.1"
MAX_SIZE = 1024 * 1024
OFFERED = 256 * 1024 * 1024
PIECE = 64 * 1024

SETTINGS: dict[str, Any] = {
    "off": None,
    "on": {},
    "no context takeover": {"context_takeover": False},
    "window 9, memory 1": {"window_bits": 9, "memory_level": 1},
}
"""How messages are deflated: None, or the arguments of `wsbridge.Compression`."""


class UnsupportedError(Exception):
    """The server has no such setting."""


Send = Callable[[bytes], Awaitable[object] | None]


async def _push(send: Send, tasks: int) -> None:
    """Offer 256 MiB in all, by some tasks that each await what their sends return."""
    data = os.urandom(PIECE - 8)

    async def one() -> None:
        for number in range(OFFERED // PIECE // tasks):
            pending = send(number.to_bytes(8) + data)  # each in memory of its own, as real messages are
            if pending is not None:
                await pending

    await asyncio.gather(*(one() for _ in range(tasks)), return_exceptions=True)


_kept: set[asyncio.Task[None]] = set()


def _keep(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    _kept.add(task)
    task.add_done_callback(_kept.discard)


def _tasks(path: str) -> int:
    return {"/push": 1, "/push128": 128}.get(path, 0)


@asynccontextmanager
async def wsbridge_on(connector: str, setting: Any) -> AsyncIterator[int]:
    """Serve by wsbridge."""
    import wsbridge

    async def echo(channel: wsbridge.WebSocketChannel, process: Any, message: Any) -> None:
        await channel.send(message)

    async def busy(channel: wsbridge.WebSocketChannel, process: Any, message: Any) -> None:
        await asyncio.Event().wait()

    async def push(channel: wsbridge.WebSocketChannel, request: wsbridge.Request) -> None:
        await _push(channel.send_binary, _tasks(request.path))

    compression = False if setting is None else wsbridge.Compression(**setting) if setting else True
    common: dict[str, Any] = {"compression": compression, "send_timeout": None, "ping_interval": None}
    routes = {
        "/": wsbridge.WebSocketOptions(on_text=echo, on_binary=echo, **common),
        "/busy": wsbridge.WebSocketOptions(on_binary=busy, **common),
        "/push": wsbridge.WebSocketOptions(on_open=push, **common),
        "/push128": wsbridge.WebSocketOptions(on_open=push, **common),
    }
    app = wsbridge.Application(list(routes.items()))
    try:
        serving = wsbridge.serve(app, connector, port=0)
    except wsbridge.ConnectorNotFoundError as exc:
        raise ImportError(str(exc)) from exc
    except wsbridge.UnsupportedOptionError as exc:
        raise UnsupportedError(str(exc)) from exc
    try:
        async with serving as started:
            yield urlsplit(started.url).port or 0
    except wsbridge.UnsupportedOptionError as exc:
        raise UnsupportedError(str(exc)) from exc


@asynccontextmanager
async def native_aiohttp(setting: Any) -> AsyncIterator[int]:
    """Serve by aiohttp, a handler that iterates over the messages."""
    from aiohttp import web

    if setting:
        raise UnsupportedError("aiohttp takes its settings from the peer's offer")

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=setting is not None, max_msg_size=MAX_SIZE + 1)
        await ws.prepare(request)
        if tasks := _tasks(request.path):
            await _push(ws.send_bytes, tasks)
        async for message in ws:
            if request.path == "/busy":
                await asyncio.Event().wait()
            await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    for path in ("/", "/busy", "/push", "/push128"):
        app.router.add_get(path, handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, shutdown_timeout=0.1).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def native_websockets(setting: Any) -> AsyncIterator[int]:
    """Serve by websockets, a handler that iterates over the messages."""
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    async def handle(ws: ServerConnection) -> None:
        path = "" if ws.request is None else ws.request.path
        if tasks := _tasks(path):
            await _push(ws.send, tasks)
        async for message in ws:
            if path == "/busy":
                await asyncio.Event().wait()
            await ws.send(message)

    options: dict[str, Any] = {"compression": None if setting is None else "deflate"}
    if setting:
        bits, level = setting.get("window_bits", 12), setting.get("memory_level", 5)
        whole = setting.get("context_takeover", True)
        options = {
            "compression": None,
            "extensions": [
                ServerPerMessageDeflateFactory(
                    server_no_context_takeover=not whole,
                    client_no_context_takeover=not whole,
                    server_max_window_bits=bits,
                    client_max_window_bits=bits,
                    compress_settings={"memLevel": level},
                )
            ],
        }
    async with serve(
        handle, HOST, 0, ping_interval=None, max_size=MAX_SIZE, close_timeout=0.1, open_timeout=60, **options
    ) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def native_tornado(setting: Any) -> AsyncIterator[int]:
    """Serve by tornado, whose `write_message` is not awaited, as in its documentation."""
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    if setting and set(setting) != {"memory_level"}:
        raise UnsupportedError("tornado lets only the level and the memory level be set")

    class Handler(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any] | None:
            return None if setting is None else {}

        def open(self, *args: str, **kwargs: str) -> None:
            if tasks := _tasks(self.request.path):
                _keep(_push(self._send, tasks))

        def _send(self, data: bytes) -> None:
            self.write_message(data, binary=True)

        async def on_message(self, message: str | bytes) -> None:
            if self.request.path == "/busy":
                await asyncio.Event().wait()
            self.write_message(message, binary=isinstance(message, bytes))

    sockets = bind_sockets(0, HOST)
    server = HTTPServer(Application([("/.*", Handler)], websocket_max_message_size=MAX_SIZE))
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()


@asynccontextmanager
async def native_picows(setting: Any) -> AsyncIterator[int]:
    """Serve by picows, a listener whose `send` cannot be awaited."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    if setting is not None:
        raise UnsupportedError("picows does not deflate")

    class Listener(WSListener):
        def __init__(self, path: str) -> None:
            self.path = path

        def on_ws_connected(self, transport: WSTransport) -> None:
            if tasks := _tasks(self.path):
                _keep(_push(partial(self._send, transport), tasks))

        def _send(self, transport: WSTransport, data: bytes) -> None:
            transport.send(WSMsgType.BINARY, data)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if self.path == "/busy":
                _keep(self._work(frame.get_payload_as_bytes()))
            elif frame.msg_type != WSMsgType.CLOSE:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

        async def _work(self, message: bytes) -> None:
            await asyncio.Event().wait()

    def make(request: WSUpgradeRequest) -> Listener:
        return Listener(request.path.decode())

    server = await ws_create_server(make, HOST, 0, max_frame_size=MAX_SIZE)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


SUBJECTS: dict[str, Callable[[Any], AbstractAsyncContextManager[int]]] = {
    "native-aiohttp": native_aiohttp,
    "wsbridge-aiohttp": partial(wsbridge_on, "aiohttp"),
    "native-websockets": native_websockets,
    "wsbridge-websockets": partial(wsbridge_on, "websockets"),
    "native-tornado": native_tornado,
    "wsbridge-tornado": partial(wsbridge_on, "tornado"),
    "native-picows": native_picows,
    "wsbridge-picows": partial(wsbridge_on, "picows"),
}


async def _serve(name: str, setting: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    async with SUBJECTS[name](SETTINGS[setting]) as port:
        loop.add_reader(sys.stdin.fileno(), stop.set)
        print(f"PORT {port}", flush=True)
        await stop.wait()
        loop.remove_reader(sys.stdin.fileno())
        os._exit(0)  # what is stuck on purpose does not end by itself


if __name__ == "__main__":
    try:
        asyncio.run(_serve(*sys.argv[1:]))
    except UnsupportedError as exc:
        print(f"UNSUPPORTED {exc}", flush=True)
    except ImportError as exc:
        print(f"MISSING {exc}", flush=True)
