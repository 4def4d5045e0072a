"""An application of the server's own framework that has something mounted, for as long as a check takes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Protocol

from wsbridge.application import Application
from wsbridge.conformance.mounts import load_harness
from wsbridge.connector import Mount
from wsbridge.connector.sockets import bind, listen, socket_address
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Address

__all__ = ["MOUNTED_AT", "framework"]

MOUNTED_AT = "/mounted"
"""The path of every mount."""


class _Within(Protocol):
    """`Bench.within`."""

    def __call__(self, awaitable: Any, what: str, *, timeout: float | None = None) -> Awaitable[Any]: ...


@contextlib.asynccontextmanager
async def framework(
    connector: type[Any],
    handler: WebSocketOptions[Any] | Application,
    within: _Within,
    scale: float,
    *,
    path: str = MOUNTED_AT,
    **options: Any,
) -> AsyncGenerator[tuple[Address, Mount], None]:
    """Run an application of the framework with ``handler`` at ``path``; yield its address and the mount.

    Args:
        connector: The class of the mount's connector.
        handler: What is mounted.
        within: Awaits the start and the end, within their times.
        scale: Stretches the times that are not given.
        path: Where it is mounted.
        options: Of the mount.
    """
    options.setdefault("shutdown_timeout", 2 * scale)
    (sock,) = await bind("127.0.0.1", 0)
    listen([sock])  # which not every server does by itself
    entered = False
    try:
        harness = load_harness(connector)(connector, sock, path, handler, **options)
        mount = await within(harness.__aenter__(), "the start of the framework's application")
        entered = True
        try:
            yield socket_address(sock), mount
        finally:
            limit = options["shutdown_timeout"] + 2 * scale
            await within(harness.__aexit__(None, None, None), "the framework's shutdown", timeout=limit)
    finally:
        if not entered:
            sock.close()
