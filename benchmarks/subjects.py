"""The servers under test: the echo of each server in its usual idiom, and wsbridge's on each connector.

What could tell them apart besides the code is set equal: no compression, no native pings, messages up to
1 MiB, no delay on the socket. Only `native-tornado-default` leaves Nagle's algorithm on, as tornado does.
wsbridge runs with its defaults, its own pings every 20 s included.

Example:
    python -m benchmarks.subjects native-aiohttp

prints `PORT n` when it listens on 127.0.0.1, or `MISSING reason` when a package or connector is not
installed, and serves until stdin (a pipe or a terminal) closes or SIGTERM comes.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

MAX_SIZE = 1024 * 1024
HOST = "127.0.0.1"


@asynccontextmanager
async def native_aiohttp() -> AsyncIterator[int]:
    """Serve an aiohttp handler that iterates over the messages; yield the port."""
    from aiohttp import web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        # aiohttp's limit is exclusive.
        ws = web.WebSocketResponse(compress=False, max_msg_size=MAX_SIZE + 1)
        await ws.prepare(request)
        async for msg in ws:
            await ws.send_str(msg.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, shutdown_timeout=1).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def native_websockets() -> AsyncIterator[int]:
    """Serve a websockets handler that iterates over the messages; yield the port."""
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(echo, HOST, 0, compression=None, ping_interval=None, max_size=MAX_SIZE, close_timeout=1) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def native_tornado(*, nodelay: bool) -> AsyncIterator[int]:
    """Serve a tornado handler that writes each message back; yield the port."""
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    class Echo(WebSocketHandler):
        def open(self, *args: str, **kwargs: str) -> None:
            if nodelay:
                self.set_nodelay(True)

        def on_message(self, message: str | bytes) -> None:
            self.write_message(message)

    sockets = bind_sockets(0, HOST)
    server = HTTPServer(Application([("/", Echo)], websocket_max_message_size=MAX_SIZE))
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()


@asynccontextmanager
async def native_uvicorn() -> AsyncIterator[int]:
    """Serve a bare ASGI application on uvicorn, with its default implementation of WebSocket; yield the port."""
    import socket
    from typing import Any

    import uvicorn

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})

    config = uvicorn.Config(
        echo,
        interface="asgi3",
        loop="none",
        lifespan="off",
        log_config=None,
        ws="websockets-sansio",
        ws_max_size=MAX_SIZE,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server((HOST, 0)) as sock:
        await server.startup([sock])
        try:
            yield sock.getsockname()[1]
        finally:
            for listener in server.servers:
                listener.close()


@asynccontextmanager
async def native_picows() -> AsyncIterator[int]:
    """Serve a picows listener that sends each frame back; yield the port."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    class Echo(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    server = await ws_create_server(lambda request: Echo(), HOST, 0, max_frame_size=MAX_SIZE)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def wsbridge_echo(connector_name: str) -> AsyncIterator[int]:
    """Serve a wsbridge application on a connector; yield the port."""
    import wsbridge

    try:
        wsbridge.load_connector(connector_name)
    except wsbridge.ConnectorNotFoundError as exc:
        raise ImportError(str(exc)) from exc

    async def on_text(channel: wsbridge.WebSocketChannel, process: None, text: str) -> None:
        await channel.send_text(text)

    app = wsbridge.Application([("/", wsbridge.WebSocketOptions(on_text=on_text))])
    async with wsbridge.serve(app, connector_name, port=0) as connector:
        port = urlsplit(connector.url).port
        assert port is not None
        yield port


@asynccontextmanager
async def stream_echo(connector_name: str) -> AsyncIterator[int]:
    """Serve the same in the other style, a handler that iterates over the messages; yield the port."""
    import wsbridge

    try:
        wsbridge.load_connector(connector_name)
    except wsbridge.ConnectorNotFoundError as exc:
        raise ImportError(str(exc)) from exc

    @wsbridge.stream_handler
    async def echo(stream: wsbridge.MessageStream, request: wsbridge.Request) -> None:
        async for message in stream:
            await stream.send(message)

    async with wsbridge.serve(wsbridge.Application([("/", echo)]), connector_name, port=0) as connector:
        port = urlsplit(connector.url).port
        assert port is not None
        yield port


SUBJECTS: dict[str, Callable[[], AbstractAsyncContextManager[int]]] = {
    "native-aiohttp": native_aiohttp,
    "native-websockets": native_websockets,
    "native-tornado": partial(native_tornado, nodelay=True),
    "native-tornado-default": partial(native_tornado, nodelay=False),
    "native-picows": native_picows,
    "native-uvicorn": native_uvicorn,
    "wsbridge-aiohttp": partial(wsbridge_echo, "aiohttp"),
    "wsbridge-websockets": partial(wsbridge_echo, "websockets"),
    "wsbridge-tornado": partial(wsbridge_echo, "tornado"),
    "wsbridge-picows": partial(wsbridge_echo, "picows"),
    "wsbridge-uvicorn": partial(wsbridge_echo, "uvicorn"),
    "stream-aiohttp": partial(stream_echo, "aiohttp"),
    "stream-websockets": partial(stream_echo, "websockets"),
    "stream-tornado": partial(stream_echo, "tornado"),
    "stream-picows": partial(stream_echo, "picows"),
}


async def run(name: str) -> None:
    """Serve a subject until stdin closes or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            stop.set()

    async with SUBJECTS[name]() as port:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_reader(sys.stdin.fileno(), on_stdin)
        print(f"PORT {port}", flush=True)
        await stop.wait()
        loop.remove_reader(sys.stdin.fileno())


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m benchmarks.subjects",
    )
    parser.add_argument("name", choices=SUBJECTS)
    name = parser.parse_args().name
    try:
        asyncio.run(run(name))
    except ImportError as exc:
        print(f"MISSING {exc}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
