"""Serving an application: `serve` in a running event loop, `run` for a whole process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from wsbridge.application import Application
from wsbridge.protocols import Connector
from wsbridge.registry import load_connector

__all__ = ["run", "serve"]

logger = logging.getLogger("wsbridge")


@contextlib.asynccontextmanager
async def serve(
    app: Application,
    connector: str | type[Connector],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix_path: str | None = None,
    ssl: ssl_module.SSLContext | None = None,
    reuse_port: bool = False,
    max_channels: int | None = None,
    handshake_timeout: float = 10,
    shutdown_timeout: float = 10,
    trusted_proxies: Sequence[str] = (),
    native_options: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[Connector]:
    """Serve ``app`` while the block runs; the connector is stopped at its end.

    Args:
        app: What to serve.
        connector: A name, ``name@distribution``, ``module:Class`` or a class, as `load_connector` takes it.
        host: See `wsbridge.base.BaseConnector` for this and all others.

    Yields:
        The started connector; its ``url`` and ``addresses`` tell where it listens.

    Raises:
        OSError: It cannot listen there.
        WSBridgeError: No such connector, or an option that it cannot honour.
    """
    server: Connector = load_connector(connector)(
        app,
        host=host,
        port=port,
        unix_path=unix_path,
        ssl=ssl,
        reuse_port=reuse_port,
        max_channels=max_channels,
        handshake_timeout=handshake_timeout,
        shutdown_timeout=shutdown_timeout,
        trusted_proxies=trusted_proxies,
        native_options=native_options,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def run(
    app: Application,
    connector: str | type[Connector],
    *,
    on_listening: Callable[[Connector], object] | None = None,
    **options: Any,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then stop; for the main thread of a process.

    Args:
        app: What to serve.
        connector: As for `serve`.
        on_listening: Called with the connector once it listens.
        options: Those of `serve`.

    Raises:
        OSError: It cannot listen there.
        WSBridgeError: No such connector, or an option that it cannot honour.
    """
    asyncio.run(_run(app, connector, on_listening, options))


async def _run(
    app: Application,
    connector: str | type[Connector],
    on_listening: Callable[[Connector], object] | None,
    options: Mapping[str, Any],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    try:
        async with serve(app, connector, **options) as server:
            logger.info("%s listens on %s", server.name, ", ".join(listening_urls(server)))
            if on_listening is not None:
                on_listening(server)
            await stop.wait()
            logger.info("%s stops", server.name)
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)


def listening_urls(connector: Connector) -> list[str]:
    """Return a URL for each address that ``connector`` listens on."""
    scheme = connector.url.partition(":")[0].partition("+")[0]
    urls: list[str] = []
    for address in connector.addresses:
        if isinstance(address, str):
            urls.append(f"{scheme}+unix://{address}")
        else:
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            urls.append(f"{scheme}://{host}:{address[1]}")
    return urls
