"""A WebSocket endpoint inside a Starlette application, beside its own routes, on uvicorn.

python examples/mount_starlette.py
curl http://127.0.0.1:8080/
wsbridge connect ws://127.0.0.1:8080/ws/ada
"""

import contextlib
import os
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from wsbridge import Application, Request, WebSocketChannel, WebSocketOptions
from wsbridge.connectors.asgi import asgi_app

PORT = int(os.environ.get("PORT", "8080"))


def on_open(channel: WebSocketChannel, request: Request) -> str:
    return request.path_params["name"]


async def on_text(channel: WebSocketChannel, name: str, text: str) -> None:
    await channel.send_text(f"{name}: {text}")


def index(request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("an ordinary route\n")


handler = WebSocketOptions(on_open=on_open, on_text=on_text)
websockets = asgi_app(Application([("/{name}", handler)]), server_pings=True)  # by uvicorn's ws_ping_interval
app = Starlette(routes=[Route("/", index), Mount("/ws", websockets)])


class Server(uvicorn.Server):
    """Closes the channels before uvicorn does, which says 1012 and waits for nobody."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"Running on http://127.0.0.1:{PORT}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await websockets.stop()
        await super().shutdown(sockets)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, port=PORT, log_level="warning")).run()
