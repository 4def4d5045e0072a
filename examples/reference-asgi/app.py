"""The reference application of wsbridge's conformance suite (docs/reference-app.md), on bare ASGI 3.

uvicorn app:app --port 8000 --ws-max-size 1048576
wsbridge conformance ws://127.0.0.1:8000 --known-failing known-failing.toml
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

FLOOD_SIZE = 64 * 1024  # bytes: each message of /flood
SUBPROTOCOLS = ("wsbridge.v2", "wsbridge.v1")  # the preferred first


class Gone(Exception):
    """The peer has closed, or the connection is lost."""


class Socket:
    """One WebSocket: the messages of ASGI as calls."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send

    async def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": list(headers)})

    async def receive(self) -> str | bytes:
        event = await self._receive()
        if event["type"] != "websocket.receive":
            raise Gone
        message: str | bytes | None = event.get("text")
        return event["bytes"] if message is None else message

    async def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        try:
            await self._send({"type": "websocket.send", kind: message})
        except OSError as exc:  # what ASGI says that a send to a peer that has left may raise
            raise Gone from exc

    async def close(self, code: int, reason: str = "") -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
        while (await self._receive())["type"] != "websocket.disconnect":
            pass


async def echo(socket: Socket, rest: str) -> None:
    await socket.accept()
    while True:
        await socket.send(await socket.receive())


async def reverse(socket: Socket, rest: str) -> None:
    await socket.accept()
    while True:
        await socket.send((await socket.receive())[::-1])


async def countdown(socket: Socket, rest: str) -> None:
    await socket.accept()
    for number in range(int(rest), 0, -1):
        await socket.send(str(number))
    await socket.close(1000, "done")


async def close(socket: Socket, rest: str) -> None:
    text = parse_qs(socket.scope["query_string"].decode()).get("text", [""])[0]
    await socket.accept()
    await socket.close(int(rest), text)


async def subprotocols(socket: Socket, rest: str) -> None:
    agreed = next((known for known in SUBPROTOCOLS if known in socket.scope["subprotocols"]), None)
    await socket.accept(agreed)
    await socket.send(agreed or "")
    while True:
        await socket.send(await socket.receive())


async def headers(socket: Socket, rest: str) -> None:
    seen: dict[str, list[str]] = {"x-probe": [], "x-other": []}
    for name, value in socket.scope["headers"]:
        seen.get(name.decode("latin-1"), []).append(value.decode("latin-1"))
    await socket.accept(headers=[(b"x-answer", b"one"), (b"x-answer", b"two")])
    await socket.send(json.dumps(seen))
    await socket.receive()


async def flood(socket: Socket, rest: str) -> None:
    await socket.accept()
    for _ in range(int(rest)):
        await socket.send(bytes(FLOOD_SIZE))
    await socket.close(1000, "done")


async def slow(socket: Socket, rest: str) -> None:
    await socket.accept()
    while True:
        message = await socket.receive()
        await asyncio.sleep(0.5)
        await socket.send(message)


ROUTES: dict[str, Callable[[Socket, str], Awaitable[None]]] = {
    function.__name__: function for function in (echo, reverse, countdown, close, subprotocols, headers, flood, slow)
}
WITH_REST = frozenset(("countdown", "close", "flood", "reject"))  # whose path goes on after their name


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the reference application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    name, slash, rest = scope["path"].removeprefix("/").partition("/")
    is_there = name in ROUTES or name == "reject"
    if not is_there or "/" in rest or bool(slash) is not (name in WITH_REST):
        await _refuse(scope, receive, send, 404)
    elif name == "reject":
        await _refuse(scope, receive, send, int(rest), b"refused\n", [(b"x-refused", b"a"), (b"x-refused", b"b")])
    elif scope["type"] == "http":
        await _refuse(scope, receive, send, 426, b"", [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")])
    elif scope["http_version"] != "1.1":
        await _refuse(scope, receive, send, 426, b"", [(b"upgrade", b"websocket")])
    elif _is_foreign(scope):
        await _refuse(scope, receive, send, 403)
    else:
        with contextlib.suppress(Gone):
            await ROUTES[name](Socket(scope, receive, send), rest)


def _is_foreign(scope: Scope) -> bool:
    """Tell whether a page of another host asks: its origin is not the request's own host and port."""
    found = {name: value.lower() for name, value in scope["headers"] if name in (b"host", b"origin")}
    return b"origin" in found and found[b"origin"].partition(b"://")[2] != found.get(b"host", b"")


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, body: bytes = b"", headers: Headers = ()
) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        prefix = "websocket.http.response"
    else:
        prefix = "http.response"
    await send({"type": f"{prefix}.start", "status": status, "headers": list(headers)})
    await send({"type": f"{prefix}.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
