"""A WebSocket endpoint beside Django, as a project's ``asgi.py`` has it, on uvicorn.

python examples/mount_django.py
curl http://127.0.0.1:8080/
wsbridge connect ws://127.0.0.1:8080/ws/ada
"""

import contextlib
import os
import socket
from typing import Any

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from wsbridge import Application, Request, WebSocketChannel, WebSocketOptions
from wsbridge.connectors.asgi import asgi_app

PORT = int(os.environ.get("PORT", "8080"))


def on_open(channel: WebSocketChannel, request: Request) -> str:
    return request.path_params["name"]


async def on_text(channel: WebSocketChannel, name: str, text: str) -> None:
    await channel.send_text(f"{name}: {text}")


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("an ordinary route\n")


urlpatterns = [path("", index)]
settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], MIDDLEWARE=["django.middleware.common.CommonMiddleware"]
)  # a project has a module for that
django = get_asgi_application()


handler = WebSocketOptions(on_open=on_open, on_text=on_text)
websockets = asgi_app(Application([("/ws/{name}", handler)]), server_pings=True)  # by uvicorn's ws_ping_interval


async def app(scope: Any, receive: Any, send: Any) -> None:
    is_ours = scope["type"] != "http" or scope["path"].startswith("/ws/")  # the lifespan too, which Django has none of
    await (websockets if is_ours else django)(scope, receive, send)


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
