"""How the suite gets at a connector's mount: by an application of the server's own framework that has one (MOUNT-1).

A connector with the feature ``"mount"`` names a `Harness` by its import path, ``mount_harness``, so that nobody else
imports what is for the suite alone. The modules here are those of the connectors that come with wsbridge; a connector
of another distribution has its own there.
"""

from __future__ import annotations

import socket
from contextlib import AbstractAsyncContextManager
from pkgutil import resolve_name
from typing import Any, Protocol, cast

from wsbridge.application import Application
from wsbridge.connector import Mount
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import CONNECTOR_PAGE

__all__ = ["Harness", "HarnessError", "load_harness"]


class HarnessError(Exception):
    """The harness that a connector names is not to be had; the message names connector and path."""


class Harness(Protocol):
    """Serves an application of the server's own framework that has ``handler`` mounted."""

    def __call__(
        self,
        connector: type[Any],
        sock: socket.socket,
        path: str,
        handler: WebSocketOptions[Any] | Application,
        /,
        **options: Any,
    ) -> AbstractAsyncContextManager[Mount]:
        """Serve until the end of the context, in the event loop that runs.

        The application shows how the mount is meant to be used: at the end of the context it is shut down as its users
        are told to, which ends the channels of the mount with 1001.

        Args:
            connector: The class for the mount's connector: that which names this harness, or one derived from it.
            sock: Listens already; serve on it, and close it at the end.
            path: Where to mount, such as ``/mounted``; no part of it is a parameter.
            handler: For ``mount``.
            options: For ``mount``.

        Returns:
            An async context manager that yields the mount. While it is entered, ``GET /plain`` is answered with 200 and
            the body ``plain``, by the framework itself.
        """
        ...


def load_harness(connector: type[Any]) -> Harness:
    """Import the harness of a connector.

    Raises:
        HarnessError: It names none, or what it names cannot be imported or called.
    """
    name = getattr(connector, "name", connector.__qualname__)
    path: object = getattr(connector, "mount_harness", None)
    if path is None:
        raise HarnessError(
            f"the {name} connector declares the feature 'mount' and names no mount_harness, by which the suite gets at "
            f"it: a function's import path, 'module:function'; see section 10 of {CONNECTOR_PAGE}"
        )
    if not isinstance(path, str) or ":" not in path:
        raise HarnessError(f"mount_harness of the {name} connector must be 'module:function', not {path!r}")
    try:
        harness: object = resolve_name(path)
    except Exception as exc:
        raise HarnessError(f"mount_harness of the {name} connector, {path!r}, cannot be imported: {exc}") from exc
    if not callable(harness):
        raise HarnessError(f"mount_harness of the {name} connector, {path!r}, is not callable: {harness!r}")
    return cast(Harness, harness)
