"""What a check works with: a connector to start, clients that are not its server, and an eye on what is left over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wsbridge.application import Application
from wsbridge.close import CloseReason
from wsbridge.conformance import lateness
from wsbridge.conformance.client import WireLog, WirePeer
from wsbridge.conformance.contract import CheckFailed
from wsbridge.conformance.harness.framework import framework
from wsbridge.conformance.harness.in_memory import MemoryDoor, MemoryLink
from wsbridge.conformance.harness.recorder import Recorder
from wsbridge.conformance.harness.setting import Setting
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.unhandled import Unhandled
from wsbridge.http import Request
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Connector, WebSocketChannel

__all__ = ["Bench", "Served"]

T = TypeVar("T")
OnOpen = Callable[[WebSocketChannel, Request], Any]
OnText = Callable[[WebSocketChannel, Any, str], Any]
OnBinary = Callable[[WebSocketChannel, Any, Any], Any]
OnClose = Callable[[WebSocketChannel, Any, CloseReason], Any]
OnError = Callable[[WebSocketChannel, Any, Exception], Any]


@dataclass(slots=True)
class Served:
    """A server that runs.

    Attributes:
        bench: Of the check.
        address: Where it listens.
        path: Below it is what a check asks for.
        own: Its connector; None if it is only known by its URL.
        is_fixed: Whether what is served is served at that path alone, which stands for ``/`` then.
    """

    bench: Bench
    address: tuple[str, int] | str
    path: str
    own: Connector | None = None
    is_fixed: bool = False

    @property
    def connector(self) -> Connector | None:
        """Its connector, for checks that are about it: one in a mount is another matter."""
        self.bench.setting.close("served", "the check is about the connector itself")
        return self.own

    @property
    def scheme(self) -> str:
        """The scheme of a request."""
        return "wss" if "tls" in self.bench.setting.applied else "ws"

    def target(self, target: str) -> str:
        """Return the target of a request for what a check calls ``target``."""
        self.bench.setting.asks(target, is_fixed=self.is_fixed)
        return self.path + (target[1:] if self.is_fixed else target)

    def peer(self, target: str = "/", **options: Any) -> Any:
        """Open a channel as a client; an async context manager that yields a `WirePeer`, closed at its end."""
        return self.bench.peer(self, target, **options)

    @contextlib.asynccontextmanager
    async def raw(self, **options: Any) -> AsyncGenerator[WirePeer, None]:
        """Open the connection alone, for a check that sends its own handshake; a context manager."""
        options |= self.bench.setting.connection_options(options)
        peer = await WirePeer.open(
            self.address, timeout=self.bench.timeout, log=self.bench.wire_log(f"raw {self.address}"), **options
        )
        self.bench.peers.append(peer)
        try:
            yield peer
        finally:
            await peer.aclose()

    @property
    def host(self) -> str:
        """What stands in ``Host``."""
        if isinstance(self.address, str):
            return "localhost"
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True)
class Bench:
    """Handed to each check; made anew for it.

    Attributes:
        target: What is checked.
        scale: Stretches every time limit, and every time that a check gives the connector.
        recorder: The log of the callbacks of `serve` by its options.
        logs: What was logged on ``wsbridge``, by `logging`.
        deviated: Declared deviations that were seen.
        held: The scenarios that the check has held to an `outcome` by itself.
        unhandled: The exceptions that nobody took meanwhile.
        setting: Puts the check under its conditions.
    """

    target: SuiteTarget
    scale: float = 1.0
    recorder: Recorder = field(init=False)
    logs: list[logging.LogRecord] = field(default_factory=list[logging.LogRecord])
    peers: list[WirePeer] = field(default_factory=list[WirePeer])
    wire_logs: list[tuple[str, WireLog]] = field(default_factory=list[tuple[str, WireLog]])
    deviated: dict[str, str] = field(default_factory=dict[str, str])
    held: set[str] = field(default_factory=set[str])
    unhandled: Unhandled = field(default_factory=Unhandled)
    setting: Setting = field(init=False)
    _log_handler: logging.Handler | None = None

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.timeout)
        self.setting = Setting(self.target)

    @property
    def timeout(self) -> float:
        """Seconds within which what is promised without a time must happen."""
        return 5.0 * self.scale

    @property
    def lost(self) -> float:
        """Seconds that the machine has kept from this check so far: by so much a time may be above its bound."""
        return lateness.lost()

    @property
    def connector(self) -> type[Any]:
        """The connector's class."""
        if self.target.connector is None:
            raise CheckFailed("this check needs a connector, not a URL")
        return self.target.connector

    def open_ends(self) -> int:
        """Return how many ends of connections are open, and other descriptors; 0 where that cannot be told."""
        if self.target.has_wire:
            return open_descriptors()
        return 1 + sum(isinstance(peer.link, MemoryLink) and peer.link.is_connected for peer in self.peers)

    def wire_log(self, name: str) -> WireLog:
        """Return a log for one connection, which goes into the report of a failure."""
        log = WireLog()
        self.wire_logs.append((name, log))
        return log

    def options(
        self,
        *,
        on_open: OnOpen | None = None,
        on_text: OnText | None = None,
        on_binary: OnBinary | None = None,
        on_close: OnClose | None = None,
        on_error: OnError | None = None,
        **options: Any,
    ) -> WebSocketOptions[Any]:
        """Return the recorder's options: every callback is logged, those given run too."""
        return self.recorder.options(
            on_open=on_open,
            on_text=on_text,
            on_binary=on_binary,
            on_close=on_close,
            on_error=on_error,
            kind=self.setting.callbacks((on_open, on_text, on_binary, on_close, on_error)),
            **self._with_conditions(options),
        )

    def _with_conditions(self, options: dict[str, Any], *, limits: bool = True) -> dict[str, Any]:
        return {**self.target.neutral, **self.setting.channel_options(options, limits=limits), **options}

    def bare_options(
        self,
        *,
        on_open: OnOpen | None = None,
        on_text: OnText | None = None,
        on_binary: OnBinary | None = None,
        on_close: OnClose | None = None,
        on_error: OnError | None = None,
        **options: Any,
    ) -> WebSocketOptions[Any]:
        """Return options with the callbacks given and no others: those of `options` are five coroutine functions."""
        return WebSocketOptions(
            on_open=on_open,
            on_text=on_text,
            on_binary=on_binary,
            on_close=on_close,
            on_error=on_error,
            **self._with_conditions(options),
        )

    def served(self, connector: Any) -> Served:
        """Return a connector that runs as what is served."""
        address = connector.addresses[0] if self.target.has_wire else MemoryDoor.of(connector)
        return Served(self, address, "", connector)

    @contextlib.asynccontextmanager
    async def serve(
        self, handler: WebSocketOptions[Any] | Application | None = None, **options: Any
    ) -> AsyncGenerator[Served, None]:
        """Start the connector on a free port and stop it at the end.

        Args:
            handler: Options are served at ``/``; by default the recorder's.
            options: The connector's.
        """
        if handler is None:
            handler = self.options()
        options.setdefault("shutdown_timeout", 2 * self.scale)
        if self.setting.is_mounted(options):
            async with self._mounted(handler, options) as served:
                yield served
            return
        placed, path = self.setting.place(handler)
        app = placed if isinstance(placed, Application) else Application([("/", placed)])
        with self.setting.refusals():
            connector = self.connector(app, **{**self.setting.connector_options(options), **options})
        await self.within(connector.start(), "start()")
        try:
            served = self.served(connector)
            served.path, served.is_fixed = path, bool(path)
            yield served
        except (Exception, asyncio.CancelledError):
            self.unhandled.look()  # before the connector lets go of its tasks
            raise
        finally:
            # a stop takes at most its own timeout; a connector that hangs in it has failed
            await self.within(connector.stop(), "stop()", timeout=options["shutdown_timeout"] + 2 * self.scale)

    @contextlib.asynccontextmanager
    async def _mounted(
        self, handler: WebSocketOptions[Any] | Application, options: dict[str, Any]
    ) -> AsyncGenerator[Served, None]:
        handler, path, is_fixed = self.setting.place_mounted(handler)
        async with contextlib.AsyncExitStack() as stack:
            with self.setting.refusals():
                running = framework(self.connector, handler, self.within, self.scale, **options)
                address, mount = await stack.enter_async_context(running)
            try:
                yield Served(self, address, path, mount.connector, is_fixed)
            except (Exception, asyncio.CancelledError):
                self.unhandled.look()
                raise

    @contextlib.asynccontextmanager
    async def reference(self) -> AsyncGenerator[Served, None]:
        """Serve the reference application, or use the server at the target's URL that does."""
        if self.target.connector is not None:
            from wsbridge.conformance.harness.reference import reference_application

            async with self.serve(reference_application(**self._with_conditions({}, limits=False))) as served:
                yield served
            return
        parts = urlsplit(self.target.url)
        yield Served(self, (parts.hostname or "127.0.0.1", parts.port or 80), parts.path.rstrip("/"))

    @contextlib.asynccontextmanager
    async def peer(self, served: Served, target: str = "/", **options: Any) -> AsyncGenerator[WirePeer, None]:
        """See `Served.peer`."""
        options |= self.setting.peer_options(options)
        peer = await WirePeer.connect(
            served.address,
            target=served.target(target),
            timeout=self.timeout,
            log=self.wire_log(f"client of {target}"),
            **options,
        )
        self.peers.append(peer)
        try:
            yield peer
        finally:
            await peer.aclose()

    async def within(self, awaitable: Any, what: str, *, timeout: float | None = None) -> Any:
        """Await something that must end in time, not counting what the machine takes; what it raises comes through.

        Raises:
            CheckFailed: It did not end in time.
        """
        limit = self.timeout if timeout is None else timeout
        bound: asyncio.Timeout | None = None
        try:
            async with lateness.timeout(limit) as bound:
                return await awaitable
        except TimeoutError:
            if bound is not None and bound.expired():
                raise CheckFailed(f"{what} did not end within {limit:g} s") from None
            raise

    async def settle(self, condition: Callable[[], object], what: str, *, timeout: float | None = None) -> None:
        """Wait for a condition that no event tells of, such as a count of open descriptors."""
        deadline = lateness.Deadline(self.timeout if timeout is None else timeout)
        while not condition():
            if deadline.left() <= 0:
                raise CheckFailed(f"{what} did not come about")
            await asyncio.sleep(0.01)

    def outcome(self, scenario: str, observed: str, expected: str) -> None:
        """Hold what was observed to what is promised, or to what the connector declares for this scenario (CLOSE-8).

        What it declares is of the scenario as it stands: under conditions the rule may hold too.

        Args:
            scenario: ``RULE/scenario``, the key of the connector's ``deviations``.
            observed: In a few words.
            expected: The same words for what is promised.
        """
        self.held.add(scenario)
        declared = self.target.deviations.get(scenario)
        if declared is None:
            if observed != expected:
                message = f"{scenario}: expected {expected!r}, observed {observed!r}"
                raise CheckFailed(message, expected=expected, actual=observed)
        elif observed == expected and self.target.conditions.chosen:
            return
        elif observed == expected:
            raise CheckFailed(f"{scenario}: the deviation {declared.outcome!r} is declared, but the rule holds")
        elif observed != declared.outcome:
            raise CheckFailed(f"{scenario}: declared is {declared.outcome!r}, observed {observed!r}")
        else:
            self.deviated[scenario] = declared.outcome


class _Handler(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextlib.contextmanager
def watched(bench: Bench) -> Generator[list[str], None, None]:
    """Look for what a check leaves behind or raises elsewhere; yields a list that is filled at the end."""
    found: list[str] = []
    native: list[logging.LogRecord] = []
    root, own = logging.getLogger(), logging.getLogger("wsbridge")
    own_handler, native_handler = _Handler(bench.logs), _Handler(native)
    native_handler.setLevel(logging.ERROR)
    former = own.propagate, own.level
    own.addHandler(own_handler)
    own.propagate = False
    own.setLevel(logging.DEBUG)
    root.addHandler(native_handler)
    if bench.target.conditions.loop != "asyncio":
        # libuv keeps a pipe for signals from the first loop of a process on
        bench.target.conditions.new_event_loop().close()
    prepare: Any = getattr(bench.target.connector, "prepare_process", None)
    if prepare is not None:
        prepare()
    gc.collect()
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    unraisable: list[str] = []
    former_hook = sys.unraisablehook
    sys.unraisablehook = lambda args: unraisable.append(f"{args.err_msg or 'unraisable'}: {args.exc_value!r}")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
            gc.collect()
        found += [f"a warning: {warning.category.__name__}: {warning.message}" for warning in caught]
        found += [f"an exception with nobody to catch it: {entry}" for entry in unraisable]
        found += [f"an error logged by {record.name}: {_logged(record)}" for record in native]
        # what a check finds out inside a callback is an exception of that callback to the connector
        raised = [record.exc_info[1] for record in bench.logs if record.exc_info]
        found += [f"found in a callback: {error}" for error in raised if isinstance(error, CheckFailed)]
        # descriptors and threads may need a moment: an executor ends with its loop
        if (left := open_descriptors() - descriptors) > 0:
            found.append(f"{left} file descriptors left open")
        found += [f"thread {thread.name} left running" for thread in set(threading.enumerate()) - threads]
        found += bench.recorder.violations
    finally:
        for record in native:
            bench.unhandled.note(record.exc_info[1] if record.exc_info else None)
        sys.unraisablehook = former_hook
        root.removeHandler(native_handler)
        own.removeHandler(own_handler)
        own.propagate, own.level = former


def _logged(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f" ({record.exc_info[1]!r})"
    return text[:500]


async def open_what_stays() -> None:
    """Have the loop open what it keeps until its own end: a thread, and in libuv a spare descriptor for servers."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: None)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)  # uvloop closes a socket one turn later


def open_descriptors() -> int:
    """Return how many file descriptors this process has open; 0 where that cannot be told."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
