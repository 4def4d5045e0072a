"""An application of tornado's with a mount."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer

from wsbridge.application import Application
from wsbridge.connector import Mount
from wsbridge.connectors.tornado import Connector, mount
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
    app = web.Application([("/plain", _Plain)], log_function=_log_nothing)
    mounted = mount(app, path, handler, connector=connector, **options)
    server = HTTPServer(app)
    server.add_socket(sock)
    try:
        yield mounted
    finally:
        server.stop()
        await mounted.stop()
        await server.close_all_connections()


class _Plain(web.RequestHandler):
    def get(self) -> None:
        self.write("plain")  # pyright: ignore[reportUnknownMemberType]


def _log_nothing(handler: web.RequestHandler) -> None:
    """Write no access log."""
