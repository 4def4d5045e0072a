"""A WebSocket endpoint inside a Quart application, beside its own routes, on hypercorn.

python examples/mount_quart.py
curl http://127.0.0.1:8080/
wsbridge connect ws://127.0.0.1:8080/ws/ada
"""

import asyncio
import os
import signal
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from wsbridge import Application, Request, WebSocketChannel, WebSocketOptions
from wsbridge.connectors.asgi import asgi_app

PORT = int(os.environ.get("PORT", "8080"))


def on_open(channel: WebSocketChannel, request: Request) -> str:
    return request.path_params["name"]


async def on_text(channel: WebSocketChannel, name: str, text: str) -> None:
    await channel.send_text(f"{name}: {text}")


handler = WebSocketOptions(on_open=on_open, on_text=on_text)
websockets = asgi_app(Application([("/ws/{name}", handler)]), server_pings=True)  # hypercorn's setting
app = Quart(__name__)
quart = app.asgi_app  # where Quart has its middleware


@app.get("/")
async def index() -> tuple[str, dict[str, str]]:
    return "an ordinary route\n", {"Content-Type": "text/plain"}


async def route(scope: Any, receive: Any, send: Any) -> None:
    is_ours = scope["type"] != "lifespan" and scope["path"].startswith("/ws/")
    await (websockets if is_ours else quart)(scope, receive, send)


app.asgi_app = route  # type: ignore[method-assign]


async def main() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    async def until_stopped() -> None:  # hypercorn listens when it awaits this
        print(f"Running on http://127.0.0.1:{PORT}", flush=True)
        await stopped.wait()
        await websockets.stop()  # hypercorn closes no WebSocket, and waits for them

    config = Config()
    config.bind = [f"127.0.0.1:{PORT}"]
    config.loglevel = "WARNING"

    await serve(app, config, shutdown_trigger=until_stopped)


if __name__ == "__main__":
    asyncio.run(main())
