"""A WebSocket endpoint in a server of the websockets package that exists already, beside its own paths.

    python examples/mount_websockets.py
    curl http://127.0.0.1:8080/
    wsbridge connect ws://127.0.0.1:8080/ws/ada
    wsbridge connect ws://127.0.0.1:8080/native

`serve` takes both from `mount`: the handler that it calls for every connection, and `process_request`, which comes
before the handshake, where origins and subprotocols are decided. What is not below the path goes to your own two.
"""

import asyncio
import os
import signal
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as NativeRequest
from websockets.http11 import Response as NativeResponse

from wsbridge import Request, WebSocketChannel, WebSocketOptions
from wsbridge.connectors.websockets import mount

PORT = int(os.environ.get("PORT", "8080"))


def on_open(channel: WebSocketChannel, request: Request) -> str:
    return request.path_params["name"]


async def on_text(channel: WebSocketChannel, name: str, text: str) -> None:
    await channel.send_text(f"{name}: {text}")


def index(connection: ServerConnection, request: NativeRequest) -> NativeResponse | None:
    return connection.respond(HTTPStatus.OK, "an ordinary route\n") if request.path == "/" else None


async def shout(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message.upper())


async def main() -> None:
    mounted = mount(
        WebSocketOptions(on_open=on_open, on_text=on_text),
        path="/ws/{name}",
        process_request=index,
        websocket_handler=shout,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with serve(**mounted.serve_kwargs, host="127.0.0.1", port=PORT):
        print(f"Running on http://127.0.0.1:{PORT}", flush=True)
        await stop.wait()
        await mounted.stop()


if __name__ == "__main__":
    asyncio.run(main())
