"""The servers' own echoes, as their documentation writes them, and as fast as their documented functions allow.

Each takes a `Setup` and yields the port. What could tell them apart besides the code is set equal: see `SETTINGS`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

MAX_SIZE = 1024 * 1024
HOST = "127.0.0.1"
PING_SECONDS = 20

SETTINGS = {
    "compression": "off",
    "pings and keep-alive": "off",
    "largest message": "1 MiB",
    "TCP_NODELAY": "on",
    "access log": "off",
    "event loop": "asyncio",
}

Mode = Literal["echo", "broadcast"]
Deflate = Literal["off", "default", "no-takeover", "small"]


@dataclass(frozen=True)
class Setup:
    """What a subject does, and how."""

    mode: Mode = "echo"
    compression: Deflate = "off"
    pings: bool = False


class UnsupportedError(Exception):
    """A server has no such setting."""


@asynccontextmanager
async def native_aiohttp(setup: Setup, *, best: bool = False) -> AsyncIterator[int]:
    """Serve aiohttp. The usual idiom iterates, the best one calls ``receive`` and ``send_frame``."""
    from aiohttp import WSMsgType, web

    if setup.compression not in ("off", "default"):
        raise UnsupportedError("aiohttp's server has no settings of deflate")
    everybody: set[web.WebSocketResponse] = set()

    async def usual(ws: web.WebSocketResponse) -> None:
        async for msg in ws:
            if msg.type is WSMsgType.TEXT:
                await ws.send_str(msg.data)
            elif msg.type is WSMsgType.BINARY:
                await ws.send_bytes(msg.data)

    async def fast(ws: web.WebSocketResponse) -> None:
        receive, send, text = ws.receive, ws.send_frame, WSMsgType.TEXT
        while True:
            msg = await receive()
            if msg.type is text:
                await send(msg.data.encode(), text)
            elif msg.type is WSMsgType.BINARY:
                await send(msg.data, WSMsgType.BINARY)
            else:
                return

    async def broadcast(ws: web.WebSocketResponse) -> None:
        everybody.add(ws)
        try:
            async for msg in ws:
                for other in everybody:
                    await other.send_str(msg.data)
        finally:
            everybody.discard(ws)

    modes = {"echo": fast if best else usual, "broadcast": broadcast}
    talk = modes[setup.mode]

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(
            compress=setup.compression != "off",
            max_msg_size=MAX_SIZE + 1,  # aiohttp's limit is exclusive
            heartbeat=PING_SECONDS if setup.pings else None,
        )
        await ws.prepare(request)
        await talk(ws)
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, shutdown_timeout=1).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def native_websockets(setup: Setup, *, best: bool = False) -> AsyncIterator[int]:
    """Serve websockets. The usual idiom iterates, the best one neither decodes nor encodes."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    everybody: set[ServerConnection] = set()

    async def usual(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async def fast(ws: ServerConnection) -> None:
        recv, send = ws.recv, ws.send
        while True:
            await send(await recv(decode=False), text=True)

    async def to_all(ws: ServerConnection) -> None:
        everybody.add(ws)
        try:
            async for message in ws:
                broadcast(everybody, message)
        finally:
            everybody.discard(ws)

    modes = {"echo": fast if best else usual, "broadcast": to_all}
    factories = {
        "no-takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True},
        "small": {"server_max_window_bits": 9, "client_max_window_bits": 9, "compress_settings": {"memLevel": 1}},
    }
    deflate: dict[str, Any] = {"compression": "deflate" if setup.compression == "default" else None}
    if setup.compression in factories:
        deflate["extensions"] = [ServerPerMessageDeflateFactory(**factories[setup.compression])]
    pings = PING_SECONDS if setup.pings else None
    async with serve(
        modes[setup.mode],
        HOST,
        0,
        ping_interval=pings,
        ping_timeout=pings,
        max_size=MAX_SIZE,
        close_timeout=1,
        **deflate,
    ) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def native_tornado(setup: Setup, *, nodelay: bool = True) -> AsyncIterator[int]:
    """Serve tornado, whose usual idiom, a plain ``on_message``, is its fastest; without `nodelay` it is as it comes."""
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    if setup.compression == "no-takeover":
        raise UnsupportedError("tornado's server has no setting for it")
    everybody: set[WebSocketHandler] = set()

    class Handler(WebSocketHandler):
        def open(self, *args: str, **kwargs: str) -> None:
            everybody.add(self)
            if nodelay:
                self.set_nodelay(True)

        def on_close(self) -> None:
            everybody.discard(self)

        def get_compression_options(self) -> dict[str, Any] | None:
            return {"off": None, "default": {}, "small": {"mem_level": 1}}[setup.compression]

    class Echo(Handler):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, binary=isinstance(message, bytes))

    class Broadcast(Handler):
        def on_message(self, message: str | bytes) -> None:
            for other in everybody:
                other.write_message(message)

    modes = {"echo": Echo, "broadcast": Broadcast}
    pings = {"websocket_ping_interval": PING_SECONDS, "websocket_ping_timeout": PING_SECONDS} if setup.pings else {}
    sockets = bind_sockets(0, HOST)
    app = Application(
        [("/", modes[setup.mode])],
        websocket_max_message_size=MAX_SIZE,
        log_function=lambda handler: None,
        **pings,
    )
    server = HTTPServer(app)
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()


@asynccontextmanager
async def native_picows(setup: Setup, *, best: bool = False) -> AsyncIterator[int]:
    """Serve picows. The usual idiom copies each payload, the best one sends it back from where it lies."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    if setup.compression != "off":
        raise UnsupportedError("picows has no compression")
    everybody: set[WSTransport] = set()

    class Broadcast(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            everybody.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            everybody.discard(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                payload = frame.get_payload_as_bytes()
                for other in everybody:
                    other.send(frame.msg_type, payload)

    class Usual(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    class Fast(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    modes: dict[str, Callable[[], WSListener]] = {
        "echo": Fast if best else Usual,
        "broadcast": Broadcast,
    }
    pings: dict[str, Any] = {"enable_auto_ping": setup.pings}
    if setup.pings:
        pings |= {"auto_ping_idle_timeout": PING_SECONDS, "auto_ping_reply_timeout": PING_SECONDS}
    listener = modes[setup.mode]
    server = await ws_create_server(lambda request: listener(), HOST, 0, max_frame_size=MAX_SIZE, **pings)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
