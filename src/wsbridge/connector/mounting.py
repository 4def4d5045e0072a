"""What every connector's ``mount`` begins with: what is served, and what requests are told of the place (MOUNT-1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsbridge.application import Application
from wsbridge.options import WebSocketOptions

__all__ = ["MountPoint"]


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
