"""For authors of connectors: `BaseConnector`, `BaseSource` and `Mount`, beside `BaseChannel` of `wsbridge.channel`.

What holds on every connector about options, handshakes, starting and stopping stands here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as ssl_module
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, ClassVar, Self

from werkzeug.datastructures import Headers

from wsbridge.application import Application
from wsbridge.channel import BaseChannel, QueuedChannel, TransportChannel
from wsbridge.clock import Clock, Timer
from wsbridge.draining import Drain
from wsbridge.errors import ConnectorStateError, UnsupportedOptionError
from wsbridge.http import Request, Response, check_headers, forwarded, parse_networks, plain_response
from wsbridge.interceptor import Context, execute
from wsbridge.lifespan import Lifespan
from wsbridge.options import Compression, WebSocketOptions, check_seconds
from wsbridge.protocols import Address, Deviation, Feature, handler_of
from wsbridge.sockets import bind, socket_address, unlink_socket
from wsbridge.tasks import begin_later
from wsbridge.upgrade import negotiate_subprotocol, upgrade_request_to_websocket

__all__ = [
    "ALL_FEATURES",
    "BaseChannel",
    "BaseConnector",
    "BaseSource",
    "Mount",
    "QueuedChannel",
    "TransportChannel",
    "close_keywords",
]

logger = logging.getLogger("wsbridge")

ALL_FEATURES: frozenset[Feature] = frozenset(("size-limit", "ping", "compression", "unix-socket", "fragments", "mount"))
_MAX_HEADERS = 128  # of a request; the servers bound their size
_ABANDON_AFTER = 0.25  # seconds that a cancelled callback has left at the end of a stop
_RESERVED = frozenset(
    f"{prefix}{name}"
    for prefix, names in {
        "": ("connection", "upgrade", "content-length", "transfer-encoding"),
        "sec-websocket-": ("accept", "extensions", "protocol", "version", "key"),
    }.items()
    for name in names
)


def close_keywords(codes: Mapping[str, int]) -> Mapping[int, str]:
    """Return the close keywords for a server's own names of close codes: lower case, with hyphens (CLOSE-9)."""
    return MappingProxyType({int(code): name.lower().replace("_", "-") for name, code in codes.items()})


class BaseSource(ABC):
    """A `wsbridge.InitializeWebSocket`: one request, of which a channel may be made.

    A subclass holds what its server needs and fills `_make_channel`.
    """

    def __init__(self, connector: BaseConnector, request: Request) -> None:
        self.connector = connector
        self.request = request
        self.response_headers = Headers()
        self.channel: BaseChannel | None = None

    @abstractmethod
    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        """Return a channel for the request; its 101 is sent later."""

    def initialize_websocket(self, context: Context, options: WebSocketOptions[Any]) -> Context:
        """See `wsbridge.InitializeWebSocket.initialize_websocket`."""
        self.connector.check_options(options)
        if not self.connector.has_room:
            context["response"] = plain_response(503, {"Retry-After": "1"})
        else:
            channel = self._make_channel(options, negotiate_subprotocol(options, self.request))
            self.connector.admit(channel)
            self.channel = context["websocket_channel"] = channel
        return context


class BaseConnector(ABC):
    """A `wsbridge.Connector` but for its server.

    A subclass sets the class attributes and fills `_start`, `_stop_listening` and `_stop`; where a request comes in it
    makes a `Request` and a source, awaits `handle`, and sends the response, or the 101 and then awaits
    ``channel.run()``.

    Args:
        app: What to serve.
        host: A name or address to listen at; every address of a name is used.
        port: 0 for a free one.
        unix_path: Listen on this Unix socket instead.
        ssl: Serve TLS by this context.
        reuse_port: Set ``SO_REUSEPORT``, so that several processes can share the port.
        max_channels: More are answered with 503 (HS-12); None: no limit.
        handshake_timeout: Seconds within which a request must be complete (HS-10).
        shutdown_timeout: Seconds that `stop` may take (STOP-2).
        trusted_proxies: Addresses or networks of proxies whose ``X-Forwarded-For`` and ``-Proto`` are believed.
        native_options: The server's own settings, by its own names.

    Raises:
        TypeError: An unknown option, or one of a wrong type; the message names it.
        ValueError: A value out of range; the message names the option.
        UnsupportedOptionError: An option, or one of the application's channels, that this connector cannot honour.
    """

    name: ClassVar[str]
    close_keywords: ClassVar[Mapping[int, str]] = MappingProxyType({})
    features: ClassVar[frozenset[Feature]] = ALL_FEATURES - {"fragments", "mount"}
    deviations: ClassVar[Mapping[str, Deviation]] = MappingProxyType({})
    connector_api: ClassVar[int]
    """The `CONNECTOR_API` that it was written for, as a number of its own: inherited it would say nothing (REG-5)."""
    compression_settings: ClassVar[frozenset[str]] = frozenset()
    """The fields of `Compression` that its server lets be set."""
    native_option_names: ClassVar[frozenset[str]] = frozenset()
    """What ``native_options`` may hold."""
    has_wire: ClassVar[bool] = True
    """Whether it has sockets, and bytes go over them; one that has none is for tests in one process."""
    has_tls: ClassVar[bool] = True
    """Whether its server takes an `ssl.SSLContext`."""

    def __init__(
        self,
        app: Application,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        reuse_port: bool = False,
        max_channels: int | None = None,
        handshake_timeout: float = 10,
        shutdown_timeout: float = 10,
        trusted_proxies: tuple[str, ...] | list[str] = (),
        native_options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not isinstance(app, Application):
            raise TypeError(f"app must be an Application, not {type(app).__name__}")
        _check_type("host", host, str)
        _check_int("port", port, 0, 65535)
        _check_type("unix_path", unix_path, str, optional=True)
        _check_type("ssl", ssl, ssl_module.SSLContext, optional=True)
        _check_type("reuse_port", reuse_port, bool)
        _check_int("max_channels", max_channels, 1, None)
        check_seconds("handshake_timeout", handshake_timeout)
        check_seconds("shutdown_timeout", shutdown_timeout)
        _check_type("native_options", native_options, Mapping)
        self.app = app
        self.host = host
        self.port = port
        self.unix_path = unix_path
        self.ssl = ssl
        self.reuse_port = reuse_port
        self.max_channels = max_channels
        self.handshake_timeout = float(handshake_timeout)
        self.shutdown_timeout = float(shutdown_timeout)
        self.native_options = dict(native_options)
        self._trusted = parse_networks(trusted_proxies)
        self._channels: set[BaseChannel] = set()
        self._handshakes: set[asyncio.Task[Any]] = set()
        self._sockets: list[socket.socket] = []
        self._addresses: tuple[Address, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: Clock | None = None
        self._running = False
        self._stopping: asyncio.Task[None] | None = None
        self._hurry: asyncio.Event | None = None
        self._released: asyncio.Future[None] | None = None
        self._drains: dict[Drain, Timer] = {}
        self._closed = False
        self._lifespan = Lifespan(app)
        if unix_path is not None and "unix-socket" not in self.features:
            raise self.unsupported("unix_path", "its server cannot serve a Unix socket")
        if unix_path is not None and not hasattr(socket, "AF_UNIX"):
            raise self.unsupported("unix_path", "Python has no Unix sockets on this system; listen on a port")
        if reuse_port and self.has_wire and not hasattr(socket, "SO_REUSEPORT"):
            raise self.unsupported("reuse_port", "this system has no SO_REUSEPORT; give each process a port")
        if not self.has_wire:
            given = {"host": host not in ("", "127.0.0.1"), "port": port, "ssl": ssl, "reuse_port": reuse_port}
            for option in (name for name, value in given.items() if value):
                raise self.unsupported(option, "it has no socket")
        if ssl is not None and not self.has_tls:
            raise self.unsupported("ssl", "its server takes no SSLContext; let a proxy in front of it speak TLS")
        if unknown := sorted(set(native_options) - self.native_option_names):
            known = ", ".join(sorted(self.native_option_names)) or "none"
            raise self.unsupported(f"native_options[{unknown[0]!r}]", f"it takes: {known}")
        for options in app.options:
            self.check_options(options)

    # ---- what a connector fills -------------------------------------------------------------------------------------

    @abstractmethod
    async def _start(self, sockets: list[socket.socket]) -> None:
        """Serve on ``sockets``, which listen already; on an exception leave nothing running."""

    @abstractmethod
    async def _stop_listening(self) -> None:
        """Accept no more connections; leave those that are open."""

    @abstractmethod
    async def _stop(self) -> None:
        """End the server and all that is left of it; every channel has ended, or is given up."""

    @classmethod  # noqa: B027
    def prepare_process(cls) -> None:
        """Open what the server opens once in a process and keeps; the suite counts what is left from there on."""

    @classmethod
    def serve_mounted(
        cls, sock: socket.socket, path: str, handler: WebSocketOptions[Any] | Application, **options: Any
    ) -> AbstractAsyncContextManager[Mount]:
        """Serve an application of the server's own framework that has ``handler`` mounted, for the conformance suite.

        What makes a connector's ``mount`` known to the suite (MOUNT-1); needed with the feature ``"mount"``. The
        application shows how it is meant to be used: at the end of the context it is shut down as its users are told
        to, which ends the channels of the mount with 1001.

        Args:
            sock: Listens already; serve on it, and close it at the end.
            path: Where to mount, such as ``/mounted``; no part of it is a parameter.
            handler: For ``mount``.
            options: For ``mount``.

        Returns:
            An async context manager that yields the mount. While it is entered, ``GET /plain`` is answered with 200 and
            the body ``plain``, by the framework itself.

        Raises:
            UnsupportedOptionError: This connector has no mount.
        """
        raise UnsupportedOptionError(f"the {cls.name} connector has no mount")

    # ---- the protocol -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `wsbridge.Connector.start`."""
        if self._running or self._stopping is not None:
            raise ConnectorStateError(f"the {self.name} connector runs already; stop it before it is started again")
        self._running = True
        try:
            self._set_loop()
            if self.has_wire:
                self._sockets = await bind(self.host, self.port, unix_path=self.unix_path, reuse_port=self.reuse_port)
                self._addresses = tuple(map(socket_address, self._sockets))
            await self._lifespan.enter()
            try:
                await self._start(self._sockets)
            except BaseException:
                await self._lifespan.leave(self.shutdown_timeout)
                raise
        except BaseException:
            self._forget_sockets()
            self._running = False
            raise

    async def stop(self) -> None:
        """See `wsbridge.Connector.stop`."""
        if self._stopping is None:
            if not self._running:
                return
            self._check_loop()
            self._stopping = begin_later(self.loop, self._stop_all(self._current_channel()))
        await self._wait_for_stop(self._stopping)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """See `wsbridge.Connector.addresses`."""
        return self._addresses

    @property
    def url(self) -> str:
        """See `wsbridge.Connector.url`."""
        if not self._addresses:
            raise ConnectorStateError(f"the {self.name} connector does not listen; start it first")
        scheme = "ws" if self.ssl is None else "wss"
        address = self._addresses[0]
        if isinstance(address, str):
            return f"{scheme}+unix://{address}"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
        return f"{scheme}://[{host}]:{address[1]}" if ":" in host else f"{scheme}://{host}:{address[1]}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    # ---- for channels and sources -----------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that this connector belongs to (THR-2)."""
        if self._loop is None:
            self._set_loop()
        assert self._loop is not None
        return self._loop

    @property
    def clock(self) -> Clock:
        """The one clock of all its channels."""
        if self._clock is None:
            self._clock = self._make_clock()
        return self._clock

    @property
    def is_stopping(self) -> bool:
        """Whether no more channels may open."""
        return self._closed or self._stopping is not None

    @property
    def channels(self) -> tuple[BaseChannel, ...]:
        """The channels that it has now, those included that do not know yet whether they open."""
        return tuple(self._channels)

    @property
    def has_room(self) -> bool:
        """Whether one more channel may be admitted (HS-12)."""
        return self.max_channels is None or len(self._channels) < self.max_channels

    def admit(self, channel: BaseChannel) -> None:
        """Count ``channel`` from here to its `release`, and keep it alive (HS-12, THR-3)."""
        self._channels.add(channel)

    def release(self, channel: BaseChannel) -> None:
        """Forget ``channel``."""
        self._channels.discard(channel)
        if self._released is not None and not self._released.done():
            self._released.set_result(None)

    def linger(self, when: float, abort: Callable[[], object]) -> None:
        """Call ``abort`` at ``when``: a peer may leave the rest of an ended channel's bytes unread (CLOSE-5)."""
        self.clock.at(when, _Linger(abort))

    def drain(self, sock: socket.socket, unsent: Callable[[], int], until: float) -> None:
        """Read and drop what still comes on the socket of an ended channel, until the peer ends it, or ``until``."""
        try:
            drain = Drain(self.loop, sock, unsent, self._drained)
        except (OSError, NotImplementedError):
            return  # it is closed, or cannot be watched: then it ends when the server closes it
        self._drains[drain] = self.clock.at(until, drain)

    def _drained(self, drain: Drain) -> None:
        if (timer := self._drains.pop(drain, None)) is not None:
            self.clock.cancel(timer)

    def _end_drains(self) -> None:
        for drain in list(self._drains):
            drain.close()

    def unsupported(self, option: str, reason: str) -> UnsupportedOptionError:
        """Return the error for an option that this connector cannot honour."""
        return UnsupportedOptionError(f"the {self.name} connector cannot honour {option}: {reason}")

    def check_options(self, options: WebSocketOptions[Any]) -> None:
        """Refuse channel options that this connector cannot honour.

        Raises:
            UnsupportedOptionError: Names the option, the connector and the reason.
        """
        if options.compression is not False:
            if "compression" not in self.features:
                raise self.unsupported("compression", "its server does not deflate messages; set it to False")
            if isinstance(options.compression, Compression):
                for setting in ("window_bits", "memory_level", "context_takeover"):
                    if getattr(options.compression, setting) is not None and setting not in self.compression_settings:
                        raise self.unsupported(f"Compression({setting}=...)", "its server has no such setting")
        if "ping" not in self.features and options.ping_interval is not None:
            raise self.unsupported("ping_interval", "its server cannot ping; set it to None")
        if "size-limit" not in self.features and (
            options.max_text_size is not None or options.max_binary_size is not None
        ):
            raise self.unsupported("max_text_size and max_binary_size", "its server has no limit; set both to None")

    def handle(self, request: Request, source: BaseSource) -> Coroutine[Any, Any, BaseChannel | Response]:
        """Run a request through the application (HS-4 to HS-9, CTX-3).

        Returns:
            To be awaited, the response to send, or a channel: send its 101, with ``source.response_headers``, and await
            its `run`, or call its `abandon` if that fails.
        """
        return self.handle_by(request, source, self._application_chain)

    async def handle_by(
        self, request: Request, source: BaseSource, run: Callable[[Context], Awaitable[Context]]
    ) -> BaseChannel | Response:
        """As `handle`, with what runs the context given."""
        if self._trusted:
            request.scheme, request.remote_address = forwarded(
                request.headers, request.scheme, request.remote_address, trusted=self._trusted
            )
            request.remote_addr = None if request.remote_address is None else request.remote_address[0]
        context: Context = {
            "request": request,
            "response": None,
            "websocket_channel_source": source,
            "websocket_channel": None,
        }
        if self.is_stopping:
            return plain_response(503)
        if len(request.header_lines()) > _MAX_HEADERS:
            return plain_response(431)
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._handshakes.add(task)
        channel: BaseChannel | None = None
        try:
            context = await run(context)
            outcome = self._outcome(context, source)
            if not isinstance(outcome, Response):
                channel = outcome
            return outcome
        except asyncio.CancelledError:
            if not self.is_stopping:
                raise
            task.uncancel()  # by the stop of this connector, which refuses what is under way (STOP-5)
            return plain_response(503)
        except Exception as exc:
            logger.error("the request for %r failed", request.path, exc_info=exc)
            return plain_response(500)
        finally:
            self._handshakes.discard(task)
            if source.channel is not None and source.channel is not channel:
                source.channel.abandon()  # a later stage refused what was upgraded already

    def _application_chain(self, context: Context) -> Coroutine[Any, Any, Context]:
        return execute(context, self.app.interceptors, self.app.route)

    def _outcome(self, context: Context, source: BaseSource) -> BaseChannel | Response:
        response = context.get("response")
        if response is not None:
            if not isinstance(response, Response):
                raise TypeError(f"context['response'] must be a wsbridge.Response, not {response!r}")
            check_headers(response.headers)
            return response
        channel: BaseChannel | None = context.get("websocket_channel")
        if channel is None:
            return plain_response(404)
        if channel is not source.channel and not isinstance(channel, BaseChannel):
            raise TypeError(f"context['websocket_channel'] must be what the connector made, not {channel!r}")
        check_headers(source.response_headers)
        for name, _ in source.response_headers:
            if name.lower() in _RESERVED:
                raise ValueError(f"the header {name!r} of a 101 is the connector's; interceptors may not set it")
        if self.is_stopping:
            return plain_response(503)
        return channel

    # ---- starting and stopping --------------------------------------------------------------------------------------

    def _set_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._clock = None

    def _make_clock(self) -> Clock:
        """Return a clock for the loop that it runs in now."""
        return Clock(self.loop)

    def _check_loop(self) -> None:
        """In debug mode, refuse calls from another thread or loop (THR-1)."""
        if self.loop.get_debug() and asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                f"the {self.name} connector was called from another event loop; it is not thread-safe: "
                "use loop.call_soon_threadsafe(...) of the loop that started it"
            )

    def _current_channel(self) -> BaseChannel | None:
        """The channel whose callback or handler calls this, if any: no stop waits for its own caller (STOP-3)."""
        task = asyncio.current_task()
        handled, handler = handler_of.get() or (None, None)
        for channel in self._channels:
            if channel.is_run_by(task) or (channel is handled and task is handler):
                return channel
        return None

    async def _wait_for_stop(self, stopping: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            if self._hurry is not None:
                self._hurry.set()
            self._lifespan.hurry()
            await asyncio.wait((stopping,), timeout=4 * _ABANDON_AFTER)
            raise

    async def stop_mount(self) -> None:
        """End what `Mount` has begun, and take no more."""
        self._closed = True
        if self._stopping is None:
            if not self._channels and not self._handshakes:
                return
            self._check_loop()
            self._stopping = begin_later(self.loop, self._stop_mounted(self._current_channel()))
        await self._wait_for_stop(self._stopping)

    async def _stop_mounted(self, caller: BaseChannel | None) -> None:
        try:
            await self.stop_channels(caller)
        finally:
            self._end_drains()
            self._stopping = None

    async def _stop_all(self, caller: BaseChannel | None) -> None:
        deadline = self.loop.time() + self.shutdown_timeout
        try:
            await self._stop_listening()
            await self.stop_channels(caller)
            await self._stop()
        finally:
            self._end_drains()
            self._forget_sockets()
            try:
                await self._lifespan.leave(deadline - self.loop.time())
            finally:
                self._running = False
                self._stopping = None

    async def stop_channels(self, caller: BaseChannel | None = None) -> None:
        """Close every channel with 1001 and wait for its callbacks, within ``shutdown_timeout`` (STOP-2)."""
        self._hurry = asyncio.Event()
        deadline = self.loop.time() + self.shutdown_timeout
        for task in self._handshakes:
            task.cancel()
        for channel in list(self._channels):
            channel.shut_down()
        await self._until_empty(caller, self.shutdown_timeout / 2)
        for channel in list(self._channels):
            if channel is not caller:
                channel.cut_off()
                channel.cancel()
        await self._until_empty(caller, deadline - self.loop.time())
        left = [channel for channel in self._channels if channel is not caller]
        for channel in left:
            logger.error("channel %s still runs a callback after the shutdown timeout; it is given up", channel.id)
            channel.cancel()
        if left:
            self._hurry.clear()
            await self._until_empty(caller, _ABANDON_AFTER)
        for channel in list(self._channels):
            if channel is caller:
                channel.cut_off()
            self.release(channel)
        self._hurry = None

    async def _until_empty(self, caller: BaseChannel | None, timeout: float) -> None:
        """Wait until no channel is left but the caller's, or the time is over, or the stop is cancelled."""
        assert self._hurry is not None
        hurry = self.loop.create_task(self._hurry.wait())
        limit = self.loop.time() + timeout
        try:
            while any(channel is not caller for channel in self._channels) and not hurry.done():
                left = limit - self.loop.time()
                if left <= 0:
                    break
                self._released = self.loop.create_future()
                await asyncio.wait((self._released, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._released = None
            hurry.cancel()
            await asyncio.wait((hurry,))

    def _forget_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        if self._sockets and self.unix_path is not None:
            unlink_socket(self.unix_path)
        self._sockets = []
        self._addresses = ()


class Mount:
    """A connector's channels inside an application of its server's own framework (MOUNT-1).

    Made by the ``mount`` of each connector's module.
    """

    def __init__(self, connector: BaseConnector, handler: WebSocketOptions[Any] | Application) -> None:
        if isinstance(handler, Application) and handler.lifespan is not None:
            raise connector.unsupported("a mounted application's lifespan", "the framework has its own: put it there")
        self.connector = connector
        self._handler = handler

    async def handle(self, request: Request, source: BaseSource) -> BaseChannel | Response:
        """As `BaseConnector.handle`; options serve any path that the framework routes here."""
        options = self._handler
        if isinstance(options, Application):
            return await self.connector.handle(request, source)

        async def upgrade(context: Context) -> Context:
            return upgrade_request_to_websocket(context, options)

        return await self.connector.handle_by(request, source, upgrade)

    async def stop(self) -> None:
        """Close every channel with 1001 and take no more; return when their callbacks have ended (STOP-2)."""
        await self.connector.stop_mount()


class _Linger:
    """A clock entry that calls a function once."""

    __slots__ = ("_abort",)

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort

    def tick(self, now: float) -> float | None:
        self._abort()
        return None


def _check_type(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    if not (isinstance(value, kind) or (optional and value is None)):
        raise TypeError(f"{name} must be {kind.__name__}{' or None' if optional else ''}, not {value!r}")


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    if value is None and high is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, not {value!r}")
