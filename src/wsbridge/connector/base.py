"""`BaseConnector` and `BaseSource`: what a connector derives from."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

from werkzeug.datastructures import Headers

from wsbridge._channel.channel import BaseChannel
from wsbridge._channel.published import CONNECTOR, check_names
from wsbridge._common.tasks import begin_later, retrieve
from wsbridge.connector.accepting import Acceptor, Connect, TransportAcceptor
from wsbridge.connector.sockets import adopt, bind, listen, socket_address
from wsbridge.connector.stopping import Stopping
from wsbridge.connector.unix import UnixSocket
from wsbridge.errors import ConnectorStateError, UpgradeError
from wsbridge.http import Request
from wsbridge.interceptor import Context
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Address
from wsbridge.refusal import Refusal
from wsbridge.upgrade import negotiate_subprotocol

__all__ = ["BaseConnector", "BaseSource", "close_keywords"]

_LAST_REQUESTS = 0.25  # seconds that a connected peer has left to complete a request, when a stop begins


def close_keywords(codes: Mapping[str, int]) -> Mapping[int, str]:
    """Return the close keywords for a server's own names of close codes: lower case, with hyphens (CLOSE-9)."""
    return MappingProxyType({int(code): name.lower().replace("_", "-") for name, code in codes.items()})


class BaseSource(ABC):
    """A `wsbridge.InitializeWebSocket`: one request, which may become a channel.

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
        if self.channel is not None:  # a second one would be nobody's, and keep its place for ever
            raise UpgradeError("the request has been upgraded already: a handshake makes one channel")
        self.connector.check_options(options)
        if not self.connector.has_room:
            why = f"max_channels, {self.connector.max_channels}, are open"
            context["response"] = Refusal(503, why, {"Retry-After": "1"})
        else:
            channel = self._make_channel(options, negotiate_subprotocol(options, self.request))
            self.connector.admit(channel)
            self.channel = context["websocket_channel"] = channel
        return context


class BaseConnector(Stopping):
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
            open, so that whoever connects later waits for the next to listen, and `start` works again (STOP-15).
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

    def _set_up(self) -> None:
        super()._set_up()
        self._sockets: list[socket.socket] = []
        self._unix_socket: UnixSocket | None = None
        self._acceptor: Acceptor | None = None
        self._is_waiting = False
        self._has_server = False

    # ---- what a connector fills --------------------------------------------------------------------------------------

    @abstractmethod
    async def _start(self, sockets: list[socket.socket]) -> None:
        """Serve on ``sockets``, which listen already; on an exception leave nothing running.

        A stop meanwhile waits for its end, and cancels it at ``shutdown_timeout`` alone (STOP-10).
        """

    async def _stop_listening(self) -> None:
        """Accept those who wait, then no more; leave the connections that are open (STOP-9).

        This default is for servers that `accept` or `serve_protocols` accepts for. Peers that wait on sockets that were
        handed in are left to the next to listen on them (STOP-15).
        """
        if self._acceptor is not None:
            self._acceptor.stop(takes_waiting=not self.sockets)

    @abstractmethod
    async def _stop(self) -> None:
        """End the server and all that is left of it; every channel has ended, or is given up."""

    @classmethod
    def prepare_process(cls) -> None:
        """Open what the server opens once in a process and keeps; the suite counts what is left from there on."""

    # ---- the protocol ------------------------------------------------------------------------------------------------

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
            starting.add_done_callback(retrieve)  # or that it was stopped would be logged
            await self.stop()
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

    # ---- starting and stopping ---------------------------------------------------------------------------------------

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

    def _forget_sockets(self) -> None:
        if self._unix_socket is not None:
            self._unix_socket.close()
            self._unix_socket = None
        for sock in self._sockets:
            sock.close()
        self._acceptor = None
        self._sockets = []
        self._addresses = ()
