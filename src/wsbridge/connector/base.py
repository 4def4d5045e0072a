"""`BaseConnector`, `BaseSource` and `Mount`.

What holds on every connector about options, handshakes, starting and stopping stands here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as ssl_module
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

from werkzeug.datastructures import Headers

from wsbridge._channel.channel import BaseChannel
from wsbridge._channel.clock import Clock, Timer
from wsbridge._channel.draining import Connection, Drain
from wsbridge._channel.published import CONNECTOR, check_names
from wsbridge._common.logs import shown
from wsbridge._common.proxies import forwarded, forwarded_hosts, parse_networks
from wsbridge._common.tasks import begin_later
from wsbridge.application import Application
from wsbridge.connector import alpn
from wsbridge.connector.accepting import Acceptor, Connect, TransportAcceptor
from wsbridge.connector.answering import Answers, Taken
from wsbridge.connector.lifespan import Lifespan
from wsbridge.connector.sockets import adopt, bind, check_sockets, is_unix, listen, socket_address
from wsbridge.connector.unix import UnixSocket, parse_owner
from wsbridge.errors import ConnectorStateError, UnsupportedOptionError
from wsbridge.http import Request, Response, check_headers, closing, is_last, plain_response
from wsbridge.interceptor import Context, execute
from wsbridge.options import Compression, WebSocketOptions, check_seconds
from wsbridge.protocols import Address, Deviation, Feature, handler_of
from wsbridge.refusal import Refusal, RefusalLog
from wsbridge.upgrade import negotiate_subprotocol, upgrade_request_to_websocket

__all__ = ["ALL_FEATURES", "BaseConnector", "BaseSource", "Mount", "close_keywords"]

logger = logging.getLogger("wsbridge")

ALL_FEATURES: frozenset[Feature] = frozenset(("size-limit", "ping", "compression", "unix-socket", "fragments", "mount"))
_MAX_HEADERS = 128  # of a request
_LEAST_HEAD = 1024  # bytes: no handshake of a browser is larger without cookies
_ABANDON_AFTER = 0.25  # seconds that a cancelled callback has left at the end of a stop
_LOOK_OUT = 0.25  # seconds between two looks for an end behind messages that wait (CLOSE-6)
_LAST_REQUESTS = 0.25  # seconds that who is connected has left to complete a request, when a stop begins
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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_names(cls, CONNECTOR)

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
            why = f"max_channels, {self.connector.max_channels}, are open"
            context["response"] = Refusal(503, why, {"Retry-After": "1"})
        else:
            channel = self._make_channel(options, negotiate_subprotocol(options, self.request))
            self.connector.admit(channel)
            self.channel = context["websocket_channel"] = channel
        return context


class BaseConnector(ABC):
    """A `wsbridge.Connector` but for its server.

    A subclass sets the class attributes and fills `_start`, `_stop` and, if its server accepts by itself,
    `_stop_listening`; where a request comes in it makes a `Request` and a source, awaits `handle`, and sends the
    response, or the 101 and then awaits ``channel.run()``.

    Args:
        app: What to serve.
        host: A name or address to listen at; every address of a name is used.
        port: 0 for a free one.
        unix_path: Listen on this Unix socket instead.
        unix_mode: Permissions of its file, such as ``0o660``: who may write to it may connect. None: as the process's
            umask has it.
        unix_owner: ``USER``, ``USER:GROUP`` or ``:GROUP`` to give its file to, by name or number, which takes root or
            a group of one's own.
        sockets: Listen on these instead: stream sockets that are bound. They stay the caller's: `stop` leaves them
            open, so that who connects later waits for the next to listen, and `start` works again (STOP-15).
        ssl: Serve TLS by this context.
        reuse_port: Set ``SO_REUSEPORT``, so that several processes can share the port.
        max_channels: More are answered with 503 (HS-12); None: no limit.
        handshake_timeout: Seconds within which a request must be complete (HS-10).
        shutdown_timeout: Seconds that `stop` may take (STOP-2).
        max_head_size: Bytes of a request line and its headers; more are answered with 431 (HS-17).
        trusted_proxies: Addresses or networks of proxies whose ``X-Forwarded-For``, ``-Proto`` and ``-Host``, or
            ``Forwarded``, are believed; ``"unix"``: those that connect by a Unix socket (HS-2).
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
    keeps_answered: ClassVar[bool] = False
    """Whether `answering` gets names of connections, which nobody else keeps."""
    mount_harness: ClassVar[str | None] = None
    """What shows its mount to the suite, an import path, ``module:function``: a `wsbridge.conformance.harness.Harness`.

    Needed with the feature ``"mount"``; nothing but the suite imports it.
    """
    has_tls: ClassVar[bool] = True
    """Whether its server takes an `ssl.SSLContext`."""
    overrides_internals: ClassVar[bool] = False
    """Whether a class may redefine what is not published: for tests of wsbridge itself."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_names(cls, CONNECTOR)

    def __init__(
        self,
        app: Application,
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
        trusted_proxies: tuple[str, ...] | list[str] = (),
        native_options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not isinstance(app, Application):
            raise TypeError(f"app must be an Application, not {type(app).__name__}")
        _check_type("host", host, str)
        _check_int("port", port, 0, 65535)
        _check_type("unix_path", unix_path, str, optional=True)
        if unix_mode is not None:
            _check_int("unix_mode", unix_mode, 0, 0o777)
        _check_type("unix_owner", unix_owner, str, optional=True)
        _check_type("ssl", ssl, ssl_module.SSLContext, optional=True)
        _check_type("reuse_port", reuse_port, bool)
        _check_int("max_channels", max_channels, 1, None)
        check_seconds("handshake_timeout", handshake_timeout)
        check_seconds("shutdown_timeout", shutdown_timeout)
        _check_int("max_head_size", max_head_size, _LEAST_HEAD, sys.maxsize)
        _check_type("native_options", native_options, Mapping)
        self.app = app
        self.host = host
        self.port = port
        self.unix_path = unix_path
        check_sockets(sockets)
        self.sockets = tuple(sockets)
        self.unix_mode = unix_mode
        self.unix_owner = unix_owner
        self._owner = None if unix_owner is None else parse_owner(unix_owner)
        self.ssl = ssl
        self.reuse_port = reuse_port
        self.max_channels = max_channels
        self.handshake_timeout = float(handshake_timeout)
        self.shutdown_timeout = float(shutdown_timeout)
        self.max_head_size = max_head_size
        self.native_options = dict(native_options)
        self._trusted = parse_networks(trusted_proxies)
        self._channels: set[BaseChannel] = set()
        self._handshakes: set[asyncio.Task[Any]] = set()
        self._sockets: list[socket.socket] = []
        self._unix_socket: UnixSocket | None = None
        self._answers: Answers[Any] = Answers(
            self.handshake_timeout, self._how_taken, self._cut_answered, keeps=self.keeps_answered
        )
        self._acceptor: Acceptor | None = None
        self._addresses: tuple[Address, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: Clock | None = None
        self._running = False
        self._starting: asyncio.Task[None] | None = None
        self._is_waiting = False
        self._has_server = False
        self._stopping: asyncio.Task[None] | None = None
        self._stopped_by: asyncio.Task[Any] | None = None
        self._hurry: asyncio.Event | None = None
        self._released: asyncio.Future[None] | None = None
        self._drains: dict[Drain | alpn.Refusal, Timer] = {}
        self._warned_of_http2 = False
        self._lookout = _Lookout(self)
        self._closed = False
        self._lifespan = Lifespan(app)
        self._refusals = RefusalLog()
        if unix_path is not None and "unix-socket" not in self.features:
            raise self.unsupported("unix_path", "its server cannot serve a Unix socket")
        if "unix-socket" not in self.features and any(map(is_unix, self.sockets)):
            raise self.unsupported("sockets", "its server cannot serve a Unix socket, and one of them is one")
        if self.sockets and (unix_path is not None or port or reuse_port or host != "127.0.0.1"):
            raise ValueError("sockets are bound already: leave out host, port, unix_path and reuse_port")
        if unix_path is None:
            for option in (name for name in ("unix_mode", "unix_owner") if getattr(self, name) is not None):
                raise ValueError(f"{option} is for the file of a Unix socket: give a unix_path too")
        if unix_path is not None and not hasattr(socket, "AF_UNIX"):
            raise self.unsupported("unix_path", "Python has no Unix sockets on this system; listen on a port")
        if reuse_port and self.has_wire and not hasattr(socket, "SO_REUSEPORT"):
            raise self.unsupported("reuse_port", "this system has no SO_REUSEPORT; give each process a port")
        if not self.has_wire:
            given: dict[str, object] = {"host": host not in ("", "127.0.0.1"), "port": port, "sockets": self.sockets}
            given |= {"ssl": ssl, "reuse_port": reuse_port}
            for option in (name for name, value in given.items() if value):
                raise self.unsupported(option, "it has no socket")
        if unix_path is not None and self._trusted and not self._trusted.has_unix:
            logger.warning("trusted_proxies has no effect on peers of the Unix socket %r: add 'unix' to it", unix_path)
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
        """Serve on ``sockets``, which listen already; on an exception leave nothing running.

        A stop meanwhile waits for its end, and cancels it at ``shutdown_timeout`` alone (STOP-10).
        """

    async def _stop_listening(self) -> None:
        """Accept those who wait, then no more; leave the connections that are open (STOP-9).

        As it is, it is for servers that `accept` or `serve_protocols` accepts for. Who waits on sockets that were
        handed in is left to the next to listen on them (STOP-15).
        """
        if self._acceptor is not None:
            self._acceptor.stop(takes_waiting=not self.sockets)

    @abstractmethod
    async def _stop(self) -> None:
        """End the server and all that is left of it; every channel has ended, or is given up."""

    def _how_taken(self, connection: Any) -> Taken:
        """Tell how an answered connection stands. Needed where `answering` is called."""
        raise NotImplementedError

    def _cut_answered(self, connection: Any) -> None:
        """Cut a connection whose peer does not take its answer. Needed where `answering` is called."""
        raise NotImplementedError

    @classmethod  # noqa: B027
    def prepare_process(cls) -> None:
        """Open what the server opens once in a process and keeps; the suite counts what is left from there on."""

    # ---- the protocol -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `wsbridge.Connector.start`."""
        if self._running or self._stopping is not None:
            raise ConnectorStateError(f"the {self.name} connector runs already; stop it before it is started again")
        self._set_loop()
        self._running = True
        starting = self._starting = begin_later(self.loop, self._start_all())
        try:
            await asyncio.wait((starting,))
        except asyncio.CancelledError:
            await self.stop()
            if starting.done() and not starting.cancelled():
                starting.exception()  # or that it was stopped would be logged
            raise
        if self._stopping is not None:
            await asyncio.wait((self._stopping,))  # so that nothing is left when this raises (STOP-10)
        starting.result()

    async def stop(self) -> None:
        """See `wsbridge.Connector.stop`."""
        if self._stopping is None:
            if not self._running:
                return
            self.check_loop()
            self._stopped_by = asyncio.current_task()
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
    def keywords(self) -> Mapping[int, str]:
        """The server's own names of close codes (CLOSE-9)."""
        return self.close_keywords

    def can(self, feature: Feature) -> bool:
        """Tell whether the server has a feature."""
        return feature in self.features

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
        self._lookout.discard(channel)
        self._wake_stop()

    def _wake_stop(self) -> None:
        if self._released is not None and not self._released.done():
            self._released.set_result(None)

    def look_out(self, channel: BaseChannel) -> None:
        """Have ``channel`` look for its end while a callback of it runs, since somebody waits for that (CLOSE-6)."""
        self._lookout.add(channel)

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

    def drain_answered(self, connection: Connection | None) -> None:
        """As `drain`, for a request whose body is not read: without it the answer might be lost (HS-16)."""
        if connection is not None:
            self.drain(*connection, self.clock.time() + self.handshake_timeout)

    def refuse_http2(self, transport: asyncio.Transport) -> bool:
        """Tell the client of a new connection to use HTTP/1.1, if it has selected HTTP/2; return whether (HS-18).

        The connection is the server's no more then: nothing else may be done with it.
        """
        if not self.is_http2(transport.get_extra_info("ssl_object")):
            return False
        refusal = alpn.Refusal(transport, self._drained)
        self._drains[refusal] = self.clock.at(self.clock.time() + alpn.GRACE, refusal)
        return True

    def is_http2(self, tls: ssl_module.SSLObject | ssl_module.SSLSocket | None) -> bool:
        """Tell whether a client has selected HTTP/2 by ALPN, and log a warning at the first (HS-18)."""
        if not alpn.has_selected_http2(tls):
            return False
        if not self._warned_of_http2:
            self._warned_of_http2 = True
            logger.warning(alpn.WARNING, self.name)
        return True

    @property
    def is_draining(self) -> bool:
        """Whether what some ended connection still brings is being dropped."""
        return bool(self._drains)

    def _drained(self, drain: Drain | alpn.Refusal) -> None:
        if (timer := self._drains.pop(drain, None)) is not None:
            self.clock.cancel(timer)

    def _end_drains(self) -> None:
        for drain in list(self._drains):
            drain.close()

    def answering(self, connection: Any) -> None:
        """Take it that an answer in plain HTTP is written to a connection next, or a refusal (HS-13).

        For servers that have no deadline for it. ``connection`` is the server's object for it, of which there is a weak
        reference; call `upgraded` with it when a 101 is written. A mount leaves it to the framework.
        """
        if self._running:
            self._answers.begin(self.clock, connection)

    def upgraded(self, connection: Any) -> None:
        """Take it that a 101 is written to a connection."""
        self._answers.forget(connection)

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
        outcome = await self._handled(request, source, run)
        return closing(outcome) if isinstance(outcome, Response) and is_last(request) else outcome

    async def _handled(
        self, request: Request, source: BaseSource, run: Callable[[Context], Awaitable[Context]]
    ) -> BaseChannel | Response:
        if self._trusted:
            self._believe_proxies(request)
        context: Context = {
            "request": request,
            "response": None,
            "websocket_channel_source": source,
            "websocket_channel": None,
        }
        if self.is_stopping:
            return self._refused(request, _stops())
        if len(request.header_lines()) > _MAX_HEADERS:
            return self._refused(request, Refusal(431, f"it has more than {_MAX_HEADERS} headers"))
        if _head_size(request) > self.max_head_size:
            return self._refused(request, Refusal(431, f"its head has more than {self.max_head_size} bytes"))
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._handshakes.add(task)
        channel: BaseChannel | None = None
        try:
            context = await run(context)
            outcome = self._outcome(context, source)
            if not isinstance(outcome, Response):
                channel = outcome
            elif isinstance(outcome, Refusal):
                return self._refused(request, outcome)
            return outcome
        except asyncio.CancelledError as exc:
            if not task.cancelling():  # a stage raised it, of something else that was cancelled
                return _failure(request, exc)
            if not self.is_stopping:
                raise
            task.uncancel()  # by the stop of this connector, which refuses what is under way (STOP-5)
            return self._refused(request, _stops())
        except Exception as exc:
            return _failure(request, exc)
        finally:
            self._handshakes.discard(task)
            self._wake_stop()
            if source.channel is not None and source.channel is not channel:
                source.channel.abandon()  # a later stage refused what was upgraded already

    def _refused(self, request: Request, refusal: Refusal) -> Refusal:
        self._refusals.note(request, refusal)
        return refusal

    def _believe_proxies(self, request: Request) -> None:
        """Take what a trusted proxy tells of the peer for what is so (HS-2, HS-15)."""
        if request.remote_address is None and self._addresses and not any(isinstance(a, str) for a in self._addresses):
            return  # there is no Unix socket: it is a peer whose connection has ended already
        lines, remote, trusted = request.header_lines(), request.remote_address, self._trusted
        request.forwarded_hosts = forwarded_hosts(lines, remote, trusted=trusted)
        request.scheme, request.remote_address = forwarded(lines, request.scheme, remote, trusted=trusted)
        request.remote_addr = None if request.remote_address is None else request.remote_address[0]

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
            return Refusal(404, "its route has made neither a channel nor a response")
        if channel is not source.channel and not isinstance(channel, BaseChannel):
            raise TypeError(f"context['websocket_channel'] must be what the connector made, not {channel!r}")
        check_headers(source.response_headers)
        for name, _ in source.response_headers:
            if name.lower() in _RESERVED:
                raise ValueError(f"the header {name!r} of a 101 is the connector's; interceptors may not set it")
        return _stops() if self.is_stopping else channel

    # ---- starting and stopping --------------------------------------------------------------------------------------

    async def _bind(self) -> None:
        """Take the addresses; an address in use is told before the lifespan is entered (STOP-1)."""
        if self.sockets:
            self._sockets = adopt(self.sockets)
        elif self.unix_path is None:
            self._sockets = await bind(self.host, self.port, reuse_port=self.reuse_port)
        else:
            self._unix_socket = await UnixSocket.bind(self.unix_path, mode=self.unix_mode, owner=self._owner)
            self._sockets = [self._unix_socket.sock]

    async def _listen(self) -> None:
        """Let peers connect: what the lifespan prepares is there (STOP-1)."""
        if self._unix_socket is None:
            listen(self._sockets)
        else:
            await self._unix_socket.listen()
        self._addresses = tuple(map(socket_address, self._sockets))

    def serve_protocols(
        self,
        sockets: list[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        connect: Connect | None = None,
    ) -> None:
        """Accept on ``sockets``, and serve each connection by a protocol of ``factory``, over TLS if there is any.

        For ``_start`` of servers that are asyncio protocols; their ``_stop_listening`` need not be filled.

        Args:
            sockets: Those of ``_start``.
            factory: Makes a protocol.
            connect: As ``loop.connect_accepted_socket``, if that is not to be used.
        """
        timeout = self.handshake_timeout
        self.accept(
            TransportAcceptor(self.loop, sockets, factory, ssl=self.ssl, ssl_handshake_timeout=timeout, connect=connect)
        )

    def accept(self, acceptor: Acceptor) -> None:
        """Accept by ``acceptor`` from now on; `stop` sees to its connections (STOP-8, STOP-9)."""
        self._acceptor = acceptor
        acceptor.start()

    def _set_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._clock = None

    def _make_clock(self) -> Clock:
        """Return a clock for the loop that it runs in now."""
        return Clock(self.loop)

    def check_loop(self) -> None:
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
            if self._starting is not None:
                self._starting.cancel()
            await asyncio.wait((stopping,), timeout=4 * _ABANDON_AFTER)
            raise

    def reopen(self) -> None:
        """Take new channels again, after a `stop_mount`: a framework may start the application that holds it anew."""
        self._closed = False

    async def stop_mount(self) -> None:
        """End what `Mount` has begun, and take no more."""
        self._closed = True
        if self._stopping is None:
            if not self._channels and not self._handshakes:
                return
            self.check_loop()
            self._stopped_by = asyncio.current_task()
            self._stopping = begin_later(self.loop, self._stop_mounted(self._current_channel()))
        await self._wait_for_stop(self._stopping)

    async def _stop_mounted(self, caller: BaseChannel | None) -> None:
        try:
            await self.stop_channels(caller)
        finally:
            self._end_drains()
            self._stopping = self._stopped_by = None

    async def _start_all(self) -> None:
        """Start; what waits for others, and only that, may be cancelled: a server is started to its end (STOP-10)."""
        try:
            self._is_waiting = True
            if self.has_wire:
                await self._bind()
            await self._lifespan.enter(self.shutdown_timeout)
            self._is_waiting = False
            try:
                if self.has_wire:
                    await self._listen()
                await self._start(self._sockets)
            except BaseException:
                await self._lifespan.leave(self.shutdown_timeout)
                raise
            self._has_server = True
        except asyncio.CancelledError:
            self._forget_sockets()
            if self._stopping is None:
                self._running = False
                raise
        except BaseException:
            self._forget_sockets()
            self._running = self._stopping is not None
            raise
        finally:
            self._is_waiting = False
            self._starting = None
        if self._stopping is not None:
            raise ConnectorStateError(f"the {self.name} connector was stopped while it started")

    async def _end_start(self, starting: asyncio.Task[None]) -> None:
        """Wait for the end of a start that runs, and cancel it if it waits for others, or for too long."""
        if not self._is_waiting:
            await asyncio.wait((starting,), timeout=self.shutdown_timeout)
        starting.cancel()
        await asyncio.wait((starting,))

    async def _stop_all(self, caller: BaseChannel | None) -> None:
        now = self.loop.time()
        deadline = now + self.shutdown_timeout
        try:
            if self._starting is not None:
                await self._end_start(self._starting)
            if self._has_server:
                if self._unix_socket is not None:
                    self._unix_socket.unlink()  # while it listens: nobody can have taken the path yet
                await self._stop_listening()
                await self.stop_channels(caller)
                if self._acceptor is not None:
                    await self._acceptor.answer_last(now + min(_LAST_REQUESTS, self.shutdown_timeout / 4))
                    await self._acceptor.abort()
                await self._stop()
        finally:
            self._end_drains()
            self._forget_sockets()
            try:
                await self._lifespan.leave(deadline - self.loop.time())
            finally:
                self._has_server = False
                self._running = False
                self._stopping = self._stopped_by = None

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
        """Wait until no channel or handshake is left but the caller's, the time is over, or the stop is cancelled."""
        assert self._hurry is not None
        hurry = self.loop.create_task(self._hurry.wait())
        limit = self.loop.time() + timeout
        try:
            while self._is_busy(caller) and not hurry.done():
                left = limit - self.loop.time()
                if left <= 0:
                    break
                self._released = self.loop.create_future()
                await asyncio.wait((self._released, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._released = None
            hurry.cancel()
            await asyncio.wait((hurry,))

    def _is_busy(self, caller: BaseChannel | None) -> bool:
        if any(channel is not caller for channel in self._channels):
            return True
        return any(task is not self._stopped_by for task in self._handshakes)  # which run their error stages (CTX-6)

    def _forget_sockets(self) -> None:
        if self._unix_socket is not None:
            self._unix_socket.close()
            self._unix_socket = None
        for sock in self._sockets:
            sock.close()
        self._acceptor = None
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


class _Lookout:
    """A clock entry for the channels of a server that is asked for messages: nobody asks while a callback runs.

    One for all of a connector, and none where nobody waits for an end, so that it costs nothing for each message.
    """

    __slots__ = ("_channels", "_connector", "_timer")

    def __init__(self, connector: BaseConnector) -> None:
        self._connector = connector
        self._channels: set[BaseChannel] = set()
        self._timer: Timer | None = None

    def add(self, channel: BaseChannel) -> None:
        self._channels.add(channel)
        if self._timer is None:
            clock = self._connector.clock
            self._timer = clock.at(clock.time() + _LOOK_OUT, self)

    def discard(self, channel: BaseChannel) -> None:
        self._channels.discard(channel)
        if not self._channels and self._timer is not None:
            self._connector.clock.cancel(self._timer)
            self._timer = None

    def tick(self, now: float) -> float | None:
        for channel in list(self._channels):
            if channel.is_looked_for:
                channel.look_for_end()
            elif channel.reason is not None:
                self._channels.discard(channel)
        if self._channels:
            return now + _LOOK_OUT
        self._timer = None
        return None


def _failure(request: Request, error: BaseException) -> Response:
    logger.error("the request for %s failed", shown(request.path), exc_info=error)
    return plain_response(500)


def _stops() -> Refusal:
    """Refuse for a stop, after which the connection ends (STOP-9)."""
    return Refusal(503, "the connector stops", {"Connection": "close"})


class _Linger:
    """A clock entry that calls a function once."""

    __slots__ = ("_abort",)

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort

    def tick(self, now: float) -> float | None:
        self._abort()
        return None


def _head_size(request: Request) -> int:
    """Return how many bytes a request's line and headers have, if there is one space behind each colon."""
    size = len(request.method) + len(request.raw_path) + len(request.query_string) + len("  HTTP/1.1\r\n\r\n")
    if request.query_string:
        size += len("?")
    return size + sum(len(name) + len(value) + len(": \r\n") for name, value in request.header_lines())


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
