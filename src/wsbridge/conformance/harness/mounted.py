"""A mount for a check: an application of the server's own framework that has it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.mounts import load_harness
from wsbridge.connector import Mount
from wsbridge.connector.sockets import bind, listen, socket_address
from wsbridge.options import WebSocketOptions

__all__ = ["MOUNTED_AT", "mounted"]

MOUNTED_AT = "/mounted"
"""The path of every mount."""


@contextlib.asynccontextmanager
async def mounted(
    bench: Bench, handler: WebSocketOptions[Any] | Application | None = None, *, path: str = MOUNTED_AT, **options: Any
) -> AsyncGenerator[tuple[Served, Mount], None]:
    """Run an application of the server's framework with ``handler`` at ``path``; by default the recorder's options."""
    options.setdefault("shutdown_timeout", 2 * bench.scale)
    (sock,) = await bind("127.0.0.1", 0)
    listen([sock])  # which not every server does by itself
    entered = False
    try:
        serve = load_harness(bench.connector)
        harness = serve(bench.connector, sock, path, bench.options() if handler is None else handler, **options)
        mount = await bench.within(harness.__aenter__(), "the start of the framework's application")
        entered = True
        try:
            yield Served(bench, socket_address(sock), "", mount.connector), mount
        finally:
            limit = options["shutdown_timeout"] + 2 * bench.scale
            await bench.within(harness.__aexit__(None, None, None), "the framework's shutdown", timeout=limit)
    finally:
        if not entered:
            sock.close()
