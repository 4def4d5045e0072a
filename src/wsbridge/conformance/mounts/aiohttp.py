"""An application of aiohttp's with a mount."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from wsbridge.application import Application
from wsbridge.connector import Mount
from wsbridge.connectors.aiohttp import Connector, mount
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

    async def plain(native: web.Request) -> web.Response:
        return web.Response(text="plain")

    app = web.Application()
    app.router.add_get("/plain", plain)
    mounted = mount(app, path, handler, connector=connector, **options)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield mounted
    finally:
        await runner.cleanup()
