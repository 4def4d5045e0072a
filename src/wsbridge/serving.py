"""Serving an application: `serve` in a running event loop, `run` for a whole process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl as ssl_module
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
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
) -> AsyncGenerator[Connector, None]:
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

    The stop is that of STOP-2; a second SIGINT cuts off at once what has not ended.

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
    with stop_signals() as stop:
        async with serve(app, connector, **options) as server:
            log_urls(server)
            if on_listening is not None:
                on_listening(server)
            await stop.wait()
            logger.info("%s stops", server.name)


@contextlib.contextmanager
def stop_signals() -> Generator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set, instead of what they do otherwise.

    A second SIGINT cancels the block, which then ends without an exception. A second SIGTERM does not: a supervisor may
    pass one on to a process that has had the terminal's SIGINT.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    block = asyncio.current_task()
    assert block is not None
    is_cut_short = False

    def interrupt() -> None:
        nonlocal is_cut_short
        if stop.is_set() and not is_cut_short:
            is_cut_short = True
            block.cancel()
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        yield stop
    except asyncio.CancelledError:
        if not is_cut_short or block.uncancel() > 0:
            raise
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)


def log_urls(connector: Connector) -> None:
    """Log each URL that ``connector`` listens on."""
    for url in listening_urls(connector):
        logger.info("%s listens on %s", connector.name, url)


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
