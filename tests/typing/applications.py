"""What a type checker says of applications, interceptors, connections and connectors. Read, never run.

Each ``type: ignore`` is an error that must be found: one that is not needed is an error itself.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from __future__ import annotations

from typing import Any, assert_type

import wsbridge
from wsbridge import (
    Application,
    Connector,
    Context,
    Interceptor,
    Response,
    SendResult,
    WebSocketChannel,
    WebSocketConnection,
    WebSocketOptions,
    load_connector,
    start_ws_connection,
    websocket_interceptor,
)
from wsbridge.connector import BaseConnector

OPTIONS = WebSocketOptions(on_text=lambda channel, process, text: channel.send_text(text))


def enter(context: Context) -> None:
    context["response"] = Response("hello")


async def enter_later(context: Context) -> Context:
    return context


def error(context: Context, exception: Exception) -> None: ...


first = Interceptor(name="first", enter=enter, leave=enter_later, error=error)
Application([("/a", OPTIONS), ("/b", [first, websocket_interceptor("b", OPTIONS)]), ("/c", (first,))])
Application([], interceptors=[first])
Application([("/a", print)])  # type: ignore[list-item]
Application([("/a",)])  # type: ignore[list-item]
Interceptor("first")  # type: ignore[call-arg]
Interceptor(name="first", enter=error)  # type: ignore[arg-type]
Response(7)  # type: ignore[arg-type]


async def queue(channel: WebSocketChannel) -> None:
    connection = start_ws_connection(channel, send_buffer=3)
    assert_type(connection, WebSocketConnection)
    assert_type(await connection.send("a"), SendResult)
    assert_type(await connection.put(b"a"), SendResult | None)
    assert_type(connection.put_nowait("a"), SendResult | None)
    async with connection as entered:
        assert_type(entered, WebSocketConnection)
    await connection.send(7)  # type: ignore[arg-type]
    await connection.close(1001, "soon")
    coded: WebSocketConnection[int] = start_ws_connection(channel)
    await coded.send(7)
    await coded.put("a")  # type: ignore[arg-type]
    start_ws_connection(channel, 3)  # type: ignore[call-arg]


async def serve(app: Application, connector: type[BaseConnector]) -> None:
    async with wsbridge.serve(app, "aiohttp", port=0) as running:
        assert_type(running.url, str)
    async with wsbridge.serve(app, connector, max_channels=7):
        pass
    wsbridge.serve(app, "aiohttp", ports=7)  # type: ignore[call-arg]
    wsbridge.serve("module:app", "aiohttp")  # type: ignore[arg-type]
    assert_type(load_connector("aiohttp"), type[Any])
    made: Connector = connector(app, host="localhost")
    await made.start()
