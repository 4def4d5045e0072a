"""Serving an application: `serve` in a running event loop, `run` for a whole process."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import socket
import ssl as ssl_module
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from wsbridge._process.activation import notify
from wsbridge._process.garbage import start_set_aside
from wsbridge._process.loops import LoopName, loop_factory
from wsbridge._process.signals import StopSignals, stop_signals
from wsbridge.application import Application
from wsbridge.errors import ConnectorStateError, UnsupportedOptionError
from wsbridge.http import Request, Response, plain_response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import check_seconds
from wsbridge.protocols import Connector
from wsbridge.registry import load_connector
from wsbridge.tls import Certificate

__all__ = ["run", "serve"]

logger = logging.getLogger("wsbridge")

T = TypeVar("T")


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
    sockets: Sequence[socket.socket] = (),
    ssl: ssl_module.SSLContext | None = None,
    reuse_port: bool = False,
    max_channels: int | None = None,
    handshake_timeout: float = 10,
    shutdown_timeout: float = 10,
    max_head_size: int = 64 * 1024,
    trusted_proxies: Sequence[str] = (),
    native_options: Mapping[str, Any] = MappingProxyType({}),
    server_pings: bool = False,
) -> AsyncGenerator[Connector, None]:
    """Serve ``app`` while the block runs; the connector is stopped at its end.

    Args:
        app: What to serve.
        connector: A name, ``name@distribution``, ``module:Class`` or a class, as `load_connector` takes it.
        host: See `wsbridge.connector.base.BaseConnector` for this and all others but the last.
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
        max_head_size=max_head_size,
        trusted_proxies=trusted_proxies,
        native_options=native_options,
        **({"sockets": sockets} if sockets else {}),
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
    certificate: Certificate | None = None,
    **options: Any,
) -> None:
    """Serve ``app`` until SIGINT, SIGTERM or SIGHUP, then stop; for the main thread of a process.

    The stop is that of STOP-2; a second SIGINT cuts off at once what has not ended. A signal that comes before it
    serves ends it too, whatever the application's lifespan waits for (STOP-11). A SIGHUP that was ignored, as by
    ``nohup``, still is (STOP-12). Where the environment has ``NOTIFY_SOCKET``, systemd is told when it serves and when
    it stops (STOP-15). While it serves, the garbage collector passes over what its start has left (`gc.freeze`).

    Args:
        app: What to serve.
        connector: As for `serve`.
        on_listening: Called with the connector once it listens.
        health: A path that answers plain HTTP, before any interceptor of ``app``: 200, and 503 from the signal on.
        grace: Seconds from SIGTERM to the stop, in which all is served as before while ``health`` says 503, so that a
            load balancer can look elsewhere first. A SIGINT ends them. None: stop at once.
        loop: The event loop to run on: ``"asyncio"``, ``"uvloop"``, or what makes one.
        certificate: Serve TLS by its context, and take what is renewed in its files, at a SIGHUP, which then does not
            stop it, and when they change (STOP-14).
        options: Those of `serve`.

    Raises:
        ConnectorStateError: This is not the main thread, or an event loop runs in it.
        LoopNotInstalledError: uvloop is not installed.
        OSError: It cannot listen there.
        TypeError: Both ``ssl`` and ``certificate`` are given.
        ValueError: An option out of range; the message names it.
        WSBridgeError: No such connector, or an option that it cannot honour.
    """
    _check_main_thread()
    check_seconds("grace", grace, optional=True)
    if certificate is not None:
        if options.get("ssl") is not None:
            raise TypeError("ssl and certificate are two ways to say the same: leave out one of them")
        options["ssl"] = certificate.context
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(_run(app, connector, on_listening, health, grace, certificate, options))


def _check_main_thread() -> None:
    """Refuse what asyncio would refuse in words of its own."""
    way_out = "use 'async with wsbridge.serve(app, connector)' there, in an event loop of that thread"
    if threading.current_thread() is not threading.main_thread():
        raise ConnectorStateError(
            f"run is for the main thread of a process, since it waits for signals; in another thread {way_out}"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConnectorStateError(f"run starts an event loop, and one runs here already; {way_out}")


async def _run(
    app: Application,
    connector: str | type[Connector],
    on_listening: Callable[[Connector], object] | None,
    health: str | None,
    grace: float | None,
    certificate: Certificate | None,
    options: Mapping[str, Any],
) -> None:
    checked = None if health is None else Health(health)
    made = load_connector(connector)
    if not getattr(made, "has_wire", True):
        raise UnsupportedOptionError(f"the {made.name} connector has no socket and serves no network: it is for tests")
    is_ready = False

    def reload() -> None:
        assert certificate is not None
        if is_ready:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")  # for Type=notify-reload
        certificate.renew()
        if is_ready:
            notify("READY=1")

    with stop_signals(None if certificate is None else reload) as stop:
        async with contextlib.AsyncExitStack() as stack:
            serving = serve(app if checked is None else checked.in_front_of(app), connector, **options)
            server = await _unless_stopped(stop, stack.enter_async_context(serving))
            if server is None:
                logger.info("%s is stopped before it listens", made.name)
                return
            if certificate is not None:
                await stack.enter_async_context(certificate.renewing())
            stack.enter_context(start_set_aside())
            log_urls(server)
            is_ready = True
            notify("READY=1")
            if on_listening is not None:
                on_listening(server)
            await stop.wait()
            if checked is not None:
                checked.is_stopping = True
            is_ready = False
            notify("STOPPING=1")
            if grace is not None and not stop.interrupted.is_set():
                logger.info("%s stops in %g s", server.name, grace)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.interrupted.wait(), grace)
            logger.info("%s stops", server.name)


async def _unless_stopped(stop: StopSignals, awaitable: Awaitable[T]) -> T | None:
    """Return what ``awaitable`` returns, or None if a signal has come before: then it is cancelled, and has ended."""
    task = asyncio.ensure_future(awaitable)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,))
        raise
    finally:
        stopped.cancel()
    return None if task.cancelled() else task.result()


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
