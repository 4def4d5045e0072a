"""The own echoes of ASGI servers, by a bare application, and those of frameworks, each in its usual idiom."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.natives import HOST, MAX_SIZE, PING_SECONDS, Setup, UnsupportedError

FOREVER = 3600.0


def bare(setup: Setup) -> Any:
    """Return an ASGI application that echoes, or sends to all."""
    everybody: set[Any] = set()

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            text = event.get("text")
            reply = {"bytes": event["bytes"]} if text is None else {"text": text}
            await send({"type": "websocket.send", **reply})

    async def broadcast(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        everybody.add(send)
        while (event := await receive())["type"] == "websocket.receive":
            for other in everybody:
                await other({"type": "websocket.send", "text": event["text"]})
        everybody.discard(send)

    return {"echo": echo, "broadcast": broadcast}[setup.mode]


def starlette() -> Any:
    """Return Starlette's echo."""
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        async for text in ws.iter_text():
            await ws.send_text(text)

    return Starlette(routes=[WebSocketRoute("/", echo)])


def fastapi() -> Any:
    """Return FastAPI's echo."""
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    app = FastAPI()

    @app.websocket("/")
    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await ws.send_text(await ws.receive_text())

    return app


def litestar() -> Any:
    """Return Litestar's echo."""
    from litestar import Litestar, websocket_listener

    @websocket_listener("/")
    async def echo(data: str) -> str:
        return data

    return Litestar([echo])


def quart() -> Any:
    """Return Quart's echo."""
    from quart import Quart, websocket

    app = Quart(__name__)

    @app.websocket("/")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app


def socketio() -> Any:
    """Return python-socketio's echo; each message is an event, in the protocol of its own that goes over WebSocket."""
    import socketio as library

    server = library.AsyncServer(async_mode="asgi", ping_interval=FOREVER, logger=False, engineio_logger=False)

    @server.on("m")
    async def echo(sid: str, data: str) -> None:
        await server.emit("m", data, to=sid)

    return library.ASGIApp(server)


def channels() -> Any:
    """Return the echo of Django Channels."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="none", INSTALLED_APPS=["channels"])
    import django

    django.setup()
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data)

    return ProtocolTypeRouter({"websocket": URLRouter([path("", Echo.as_asgi())])})


FRAMEWORKS = {
    "starlette": starlette,
    "fastapi": fastapi,
    "litestar": litestar,
    "quart": quart,
    "socketio": socketio,
    "channels": channels,
}


@asynccontextmanager
async def on_uvicorn(setup: Setup, *, framework: str) -> AsyncIterator[int]:
    """Serve a framework's echo, or without one a bare application, on uvicorn; yield the port."""
    import uvicorn

    if framework and setup != Setup():
        raise UnsupportedError("the ASGI frameworks are measured by their echo alone")
    if setup.compression not in ("off", "default"):
        raise UnsupportedError("uvicorn has no settings of deflate")
    pings = PING_SECONDS if setup.pings else None
    # asyncio sets TCP_NODELAY only where the protocol is said
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, 0))
    config = uvicorn.Config(
        FRAMEWORKS[framework]() if framework else bare(setup),
        loop="asyncio",
        lifespan="off",
        log_level="critical",
        access_log=False,
        ws_max_size=MAX_SIZE,
        ws_ping_interval=pings,
        ws_ping_timeout=pings,
        ws_per_message_deflate=setup.compression != "off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        while not server.started:
            if task.done():
                await task
                raise RuntimeError("uvicorn ended at once")
            await asyncio.sleep(0.01)
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        sock.close()


@asynccontextmanager
async def on_hypercorn(setup: Setup) -> AsyncIterator[int]:
    """Serve a bare application on hypercorn; yield the port."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    if setup.compression != "off":
        raise UnsupportedError("not measured on hypercorn")
    stop = asyncio.Event()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind((HOST, 0))
    sock.listen(1024)
    port = sock.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]  # which hypercorn closes
    config.errorlog = None
    config.graceful_timeout = 0.1
    config.websocket_max_message_size = MAX_SIZE
    config.websocket_ping_interval = PING_SECONDS if setup.pings else None
    task = asyncio.ensure_future(serve(bare(setup), config, shutdown_trigger=stop.wait))
    try:
        yield port
    finally:
        stop.set()
        await task


@asynccontextmanager
async def on_granian(setup: Setup) -> AsyncIterator[int]:
    """Serve a bare application on granian, in this process; yield the port."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    if setup.compression != "off" or setup.pings:
        raise UnsupportedError("granian does not deflate messages, and does not ping")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]  # granian binds its own
    server = Server(bare(setup), HOST, port, interface=Interfaces.ASGINL, log_enabled=False)
    task = asyncio.ensure_future(server.serve())
    try:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                break
            await asyncio.sleep(0.01)
        yield port
    finally:
        server.stop()
        await task
