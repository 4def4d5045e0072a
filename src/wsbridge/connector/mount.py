"""`Mount`: channels inside an application of a server's own framework."""

from __future__ import annotations

from typing import Any

from wsbridge._channel.channel import BaseChannel
from wsbridge.application import Application
from wsbridge.connector.base import BaseConnector, BaseSource
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context
from wsbridge.options import WebSocketOptions
from wsbridge.upgrade import upgrade_request_to_websocket

__all__ = ["Mount"]


class Mount:
    """A connector's channels inside an application of its server's own framework (MOUNT-1).

    Made by the ``mount`` of each connector's module.
    """

    def __init__(self, connector: BaseConnector, handler: WebSocketOptions[Any] | Application) -> None:
        if isinstance(handler, Application) and handler.lifespan is not None:
            raise connector.unsupported("a mounted application's lifespan", "the framework has its own: put it there")
        self.connector = connector
        self._handler = handler

    async def handle(self, request: Request, source: BaseSource) -> BaseChannel | Response:
        """As `BaseConnector.handle`; options serve any path that the framework routes here."""
        options = self._handler
        if isinstance(options, Application):
            return await self.connector.handle(request, source)

        async def upgrade(context: Context) -> Context:
            return upgrade_request_to_websocket(context, options)

        return await self.connector.handle_by(request, source, upgrade)

    async def stop(self) -> None:
        """Close every channel with 1001 and take no more; return when their callbacks have ended (STOP-2)."""
        await self.connector.stop_mount()
