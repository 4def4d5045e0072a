"""A server of websockets' with a mount."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as native_serve
from websockets.http11 import Request, Response

from wsbridge.application import Application
from wsbridge.connector import Mount
from wsbridge.connectors.websockets import Connector, mount
from wsbridge.options import WebSocketOptions

__all__ = ["serve"]


@contextlib.asynccontextmanager
async def serve(
    connector: type[Connector],
    sock: socket.socket,
    path: str,
    handler: WebSocketOptions[Any] | Application,
    **options: Any,
) -> AsyncGenerator[Mount, None]:
    """See `wsbridge.conformance.mounts.Harness`."""

    def plain(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(200, "plain") if request.path == "/plain" else None

    mounted = mount(handler, path=path, process_request=plain, connector=connector, **options)
    async with native_serve(**mounted.serve_kwargs, sock=sock):
        yield mounted
