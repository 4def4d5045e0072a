"""A WebSocket endpoint inside an aiohttp application that exists already, beside its own routes.

python examples/mount_aiohttp.py
curl http://127.0.0.1:8080/
wsbridge connect ws://127.0.0.1:8080/ws/ada
"""

import os

from aiohttp import web

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connectors.aiohttp import mount

PORT = int(os.environ.get("PORT", "8080"))


def on_open(channel: WebSocketChannel, request: Request) -> str:
    return request.path_params["name"]


async def on_text(channel: WebSocketChannel, name: str, text: str) -> None:
    await channel.send_text(f"{name}: {text}")


async def index(request: web.Request) -> web.Response:
    return web.Response(text="an ordinary route\n")


def main() -> None:
    app = web.Application()
    app.router.add_get("/", index)
    mount(app, "/ws/{name}", WebSocketOptions(on_open=on_open, on_text=on_text))  # the application's shutdown stops it
    web.run_app(app, host="127.0.0.1", port=PORT)


if __name__ == "__main__":
    main()
