"""Serving an application: `serve` in a running event loop, `run` for a whole process."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import signal
import ssl as ssl_module
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from wsbridge.application import Application
from wsbridge.errors import UnsupportedOptionError
from wsbridge.http import Request, Response, plain_response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.loops import LoopName, loop_factory
from wsbridge.options import check_seconds
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
    unix_mode: int | None = None,
    unix_owner: str | None = None,
    ssl: ssl_module.SSLContext | None = None,
    reuse_port: bool = False,
    max_channels: int | None = None,
    handshake_timeout: float = 10,
    shutdown_timeout: float = 10,
    trusted_proxies: Sequence[str] = (),
    native_options: Mapping[str, Any] = MappingProxyType({}),
    server_pings: bool = False,
) -> AsyncGenerator[Connector, None]:
    """Serve ``app`` while the block runs; the connector is stopped at its end.

    Args:
        app: What to serve.
        connector: A name, ``name@distribution``, ``module:Class`` or a class, as `load_connector` takes it.
        host: See `wsbridge.base.BaseConnector` for this and all others but the last.
        server_pings: Serve on a connector that cannot ping, such as granian's, whatever ``ping_interval`` says.

    Yields:
        The started connector; its ``url`` and ``addresses`` tell where it listens.

    Raises:
        OSError: It cannot listen there.
        WSBridgeError: No such connector, or an option that it cannot honour.
    """
    made = load_connector(connector)
    if server_pings and "ping" in made.features:
        raise UnsupportedOptionError(f"the {made.name} connector cannot honour server_pings: it pings by itself")
    server: Connector = made(
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
        **{name: value for name, value in (("unix_mode", unix_mode), ("unix_owner", unix_owner)) if value is not None},
        **({"server_pings": True} if server_pings else {}),
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
    health: str | None = None,
    grace: float | None = None,
    loop: LoopName | Callable[[], asyncio.AbstractEventLoop] = "asyncio",
    **options: Any,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then stop; for the main thread of a process.

    The stop is that of STOP-2; a second SIGINT cuts off at once what has not ended.

    Args:
        app: What to serve.
        connector: As for `serve`.
        on_listening: Called with the connector once it listens.
        health: A path that answers plain HTTP, before any interceptor of ``app``: 200, and 503 from the signal on.
        grace: Seconds from SIGTERM to the stop, in which all is served as before while ``health`` says 503, so that a
            load balancer can look elsewhere first. A SIGINT ends them. None: stop at once.
        loop: The event loop to run on: ``"asyncio"``, ``"uvloop"``, or what makes one.
        options: Those of `serve`.

    Raises:
        LoopNotInstalledError: uvloop is not installed.
        OSError: It cannot listen there.
        ValueError: An option out of range; the message names it.
        WSBridgeError: No such connector, or an option that it cannot honour.
    """
    check_seconds("grace", grace, optional=True)
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(_run(app, connector, on_listening, health, grace, options))


async def _run(
    app: Application,
    connector: str | type[Connector],
    on_listening: Callable[[Connector], object] | None,
    health: str | None,
    grace: float | None,
    options: Mapping[str, Any],
) -> None:
    checked = None if health is None else Health(health)
    made = load_connector(connector)
    if not getattr(made, "has_wire", True):
        raise UnsupportedOptionError(f"the {made.name} connector has no socket and serves no network: it is for tests")
    with stop_signals() as stop:
        async with serve(app if checked is None else checked.in_front_of(app), connector, **options) as server:
            log_urls(server)
            if on_listening is not None:
                on_listening(server)
            await stop.wait()
            if checked is not None:
                checked.is_stopping = True
            if grace is not None and not stop.interrupted.is_set():
                logger.info("%s stops in %g s", server.name, grace)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.interrupted.wait(), grace)
            logger.info("%s stops", server.name)


class Health:
    """Answers one path in plain HTTP: 200 while all is well, 503 once a stop has begun.

    Args:
        path: The decoded path, to the letter.

    Raises:
        ValueError: ``path`` does not begin with ``/``.
    """

    def __init__(self, path: str) -> None:
        if not path.startswith("/"):
            raise ValueError(f"health must be a path that begins with '/', not {path!r}")
        self.path = path
        self.is_stopping = False

    def __call__(self, context: Context) -> None:
        request: Request = context["request"]
        if request.path != self.path:
            return
        headers = {"Cache-Control": "no-store"}
        if request.method not in ("GET", "HEAD"):
            context["response"] = plain_response(405, headers | {"Allow": "GET, HEAD"})
        elif self.is_stopping:
            context["response"] = plain_response(503, headers)
        else:
            context["response"] = Response("ok\n", 200, headers)

    def in_front_of(self, app: Application) -> Application:
        """Return the same application with this before its interceptors."""
        guarded = copy.copy(app)
        guarded.interceptors = (Interceptor(name="health", enter=self), *app.interceptors)
        return guarded


class StopSignals(asyncio.Event):
    """Set by SIGINT and SIGTERM; ``interrupted`` by SIGINT alone."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = asyncio.Event()


@contextlib.contextmanager
def stop_signals() -> Generator[StopSignals]:
    """Yield an event that SIGINT and SIGTERM set, instead of what they do otherwise.

    A second SIGINT cancels the block, which then ends without an exception. One that follows or precedes a SIGTERM does
    not: a supervisor may pass a SIGTERM on to a process that has the terminal's SIGINT too.
    """
    stop = StopSignals()
    loop = asyncio.get_running_loop()
    block = asyncio.current_task()
    assert block is not None
    is_cut_short = False

    def interrupt() -> None:
        nonlocal is_cut_short
        if stop.interrupted.is_set() and not is_cut_short:
            is_cut_short = True
            block.cancel()
        stop.interrupted.set()
        stop.set()

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        yield stop
    except asyncio.CancelledError:
        if not is_cut_short or block.uncancel() > 0:
            raise
    finally:
        for signum, handler in before.items():
            loop.remove_signal_handler(signum)  # which sets the default, whatever was there
            if handler is not None:  # None: it was not set from Python
                signal.signal(signum, handler)


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
