"""A WebSocket endpoint inside a tornado application that exists already, beside its own routes.

python examples/mount_tornado.py
curl http://127.0.0.1:8080/
wsbridge connect ws://127.0.0.1:8080/ws/ada
"""

import asyncio
import os
import signal

from tornado.web import Application, RequestHandler

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connectors.tornado import mount

PORT = int(os.environ.get("PORT", "8080"))


def on_open(channel: WebSocketChannel, request: Request) -> str:
    return request.path_params["name"]


async def on_text(channel: WebSocketChannel, name: str, text: str) -> None:
    await channel.send_text(f"{name}: {text}")


class Index(RequestHandler):
    def get(self) -> None:
        self.write("an ordinary route\n")


async def main() -> None:
    app = Application([("/", Index)])
    mounted = mount(app, "/ws/(?P<name>[^/]+)", WebSocketOptions(on_open=on_open, on_text=on_text))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    server = app.listen(PORT, "127.0.0.1")
    print(f"Running on http://127.0.0.1:{PORT}", flush=True)
    await stop.wait()
    server.stop()
    await mounted.stop()  # tornado has no shutdown hook that would do it


if __name__ == "__main__":
    asyncio.run(main())
