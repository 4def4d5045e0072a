"""Channels inside an application of a server's own framework: what serves them, and where they stand (MOUNT-1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsbridge._channel.channel import BaseChannel
from wsbridge.application import Application
from wsbridge.connector.base import BaseConnector, BaseSource
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context
from wsbridge.options import WebSocketOptions
from wsbridge.upgrade import upgrade_request_to_websocket

__all__ = ["Mount", "MountPoint"]


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


class MountPoint:
    """The place of a handler in an application of the server's own framework.

    Args:
        handler: Options, which serve whatever the framework routes to them, or a whole application, which has routes of
            its own below its place.
        path: The place of an application, without parameters. That of options is the framework's affair.
        route: Where ``app`` has options, if that is looked up; a path as in `wsbridge.Application`.

    Attributes:
        app: What a connector for the mount is made of: ``connector(point.app, **options)``.
        has_routes: Whether it is a whole application.
        root_path: Of its requests: ``path`` without a slash at its end; "" for options.

    Raises:
        TypeError: ``handler`` is neither of the two.
        ValueError: ``route`` is ill-formed.
    """

    __slots__ = ("app", "has_routes", "root_path")

    def __init__(self, handler: WebSocketOptions[Any] | Application, path: str = "/", *, route: str = "/") -> None:
        self.has_routes = isinstance(handler, Application)
        self.app = handler if isinstance(handler, Application) else Application([(route, handler)])
        self.root_path = path.rstrip("/") if self.has_routes else ""

    def path_params(self, matched: Mapping[Any, Any]) -> dict[str, str]:
        """Return the ``path_params`` of a request: what the framework has matched for options, without what it has not.

        None for an application, whose own routes add theirs.
        """
        if self.has_routes:
            return {}
        return {str(name): str(value) for name, value in matched.items() if value is not None}
