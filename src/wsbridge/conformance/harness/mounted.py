"""A mount for a check: an application of the server's own framework that has it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.framework import MOUNTED_AT, framework
from wsbridge.connector import Mount
from wsbridge.options import WebSocketOptions

__all__ = ["MOUNTED_AT", "mounted"]


@contextlib.asynccontextmanager
async def mounted(
    bench: Bench, handler: WebSocketOptions[Any] | Application | None = None, *, path: str = MOUNTED_AT, **options: Any
) -> AsyncGenerator[tuple[Served, Mount], None]:
    """Run an application of the server's framework with ``handler`` at ``path``; by default the recorder's options."""
    handler = bench.options() if handler is None else handler
    running = framework(bench.connector, handler, bench.within, bench.scale, path=path, **options)
    async with running as (address, mount):
        yield Served(bench, address, "", mount.connector), mount
