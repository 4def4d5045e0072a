"""`connect` and `request`: an application is served in memory, for one peer or one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any

from werkzeug.datastructures import Headers

from wsbridge.application import Application
from wsbridge.connectors.memory import WINDOW, Answer, ClientRequest, Connector
from wsbridge.errors import WSBridgeError
from wsbridge.interceptor import Interceptor
from wsbridge.options import WebSocketOptions, check_seconds
from wsbridge.testing.handshake import HeaderItems, handshake_request, plain_request
from wsbridge.testing.peer import Peer

__all__ = ["App", "Connecting", "HandshakeRefusedError", "connect", "request"]

App = Application | WebSocketOptions[Any] | Sequence[Interceptor] | Connector
"""What can be tested: an application, or the handler of one route, which is then served at every path; or a connector
that runs, ``async with Connector(app) as connector`` of `wsbridge.connectors.memory`, for several peers at once."""

_CLIENT = ("127.0.0.1", 50000)
"""The address of a peer that is not given another."""

_GRACE = 0.5  # seconds that callbacks have to end by themselves


class HandshakeRefusedError(WSBridgeError):
    """The application answered the handshake in plain HTTP. What it raised, if it did, is the cause.

    Attributes:
        status: The status, such as 403.
        headers: The headers of the answer.
        body: The body.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the handshake was refused: {answer.status} {answer.body[:200]!r}")
        self.status = answer.status
        self.headers: Headers = answer.headers
        self.body: bytes = answer.body


class Connecting:
    """What `connect` returns: ``async with`` it, or ``await`` it for a peer that is ended by `close`."""

    def __init__(
        self,
        app: App,
        request: ClientRequest,
        timeout: float,
        window: int,
        *,
        auto_pong: bool,
        auto_close: bool,
        raise_errors: bool,
    ) -> None:
        check_seconds("timeout", timeout)
        self._app = app
        self._request = request
        self._timeout = timeout
        self._window = window
        self._auto_pong = auto_pong
        self._auto_close = auto_close
        self._raise_errors = raise_errors
        self._peer: Peer | None = None
        self._own: Connector | None = None

    def __await__(self) -> Generator[Any, Any, Peer]:
        return self._connect().__await__()

    async def __aenter__(self) -> Peer:
        return await self._connect()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.aclose(is_failing=error is not None)

    async def _connect(self) -> Peer:
        if self._peer is not None:
            raise RuntimeError("this connection was made before: call connect() again")
        connector = self._app if isinstance(self._app, Connector) else await self._start(self._app)
        try:
            connecting = connector.connect(self._request, auto_pong=self._auto_pong, auto_close=self._auto_close)
            async with asyncio.timeout(self._timeout):
                connection = await connecting
            assert connection.answer is not None
            if connection.channel is None:
                cause = connection.errors[-1] if connection.errors else None
                raise HandshakeRefusedError(connection.answer) from cause
        except BaseException:
            await self._stop()
            raise
        self._peer = Peer(connector, connection, self._timeout)
        return self._peer

    @property
    def is_open(self) -> bool:
        """Whether there is a peer that was not ended."""
        return self._peer is not None

    async def aclose(self, *, is_failing: bool = False) -> None:
        """End what is left of the connection, and raise what the application has raised, unless ``is_failing``.

        Raises:
            Exception: The first that the application raised, unless `connect` was told to keep them.
        """
        peer, self._peer = self._peer, None
        if peer is None:
            return
        connection = peer.connection
        try:
            if is_failing:
                connection.drop()
            connection.close()
            if not connection.task.done():
                await asyncio.wait((connection.task,), timeout=_GRACE)
            connection.drop()
        finally:
            await self._stop()
        if self._raise_errors and not is_failing and connection.errors:
            _raise(connection.errors)

    async def _start(self, app: Application | WebSocketOptions[Any] | Sequence[Interceptor]) -> Connector:
        self._own = Connector(
            _application(app),
            shutdown_timeout=_GRACE,
            native_options={"window": self._window, "ignore_compression": True},
        )
        await self._own.start()
        return self._own

    async def _stop(self) -> None:
        if self._own is not None:
            await self._own.stop()


def connect(
    app: App,
    path: str = "/",
    *,
    headers: HeaderItems = (),
    subprotocols: Sequence[str] = (),
    scheme: str = "ws",
    client: tuple[str, int] | None = _CLIENT,
    timeout: float = 5,
    window: int = WINDOW,
    auto_pong: bool = True,
    auto_close: bool = True,
    raise_errors: bool = True,
) -> Connecting:
    """Open a channel to ``app`` and return this end of it: ``async with connect(app, "/echo") as peer``.

    At the end of the block the peer closes, the application's callbacks end, and what they have raised is raised here.

    Args:
        app: What to test, see `App`.
        path: Path and query. What is not ASCII is percent-encoded.
        headers: More headers of the handshake; they replace its own of the same name.
        subprotocols: What to offer.
        scheme: ``ws``, or ``wss`` to be taken for a peer that came by TLS.
        client: What is `Request.remote_address`.
        timeout: Seconds, of the clock on the wall, that anything here may take.
        window: Bytes that the application may send before this end receives them; then its sends wait (FLOW-2).
        auto_pong: Answer pings. False: a peer that the application takes for gone.
        auto_close: Answer a close. False: a peer that leaves the application waiting, until its ``close_timeout``.
        raise_errors: Raise at the end what the application has raised. False: only keep it, in `Peer.errors`.

    Raises:
        HandshakeRefusedError: The answer was not 101; has its status, headers and body.
        TimeoutError: There is no answer.

    The option ``compression`` is accepted and makes no difference, since this peer does not offer it.
    """
    return Connecting(
        app,
        handshake_request(path, headers, subprotocols, scheme, client),
        timeout,
        window,
        auto_pong=auto_pong,
        auto_close=auto_close,
        raise_errors=raise_errors,
    )


async def request(
    app: App,
    path: str = "/",
    *,
    method: str = "GET",
    headers: HeaderItems = (),
    scheme: str = "ws",
    client: tuple[str, int] | None = _CLIENT,
    timeout: float = 5,
) -> Answer:
    """Make a plain HTTP request and return its answer: for what interceptors answer (HS-4, HS-7).

    Args:
        app: See `connect` for this and the others.
        path: Path and query.
        method: Such as ``POST``.
        headers: Beside ``Host``.
        scheme: See `connect`.
        client: See `connect`.
        timeout: See `connect`.

    Returns:
        The answer, a refusal too, with ``status``, ``headers`` and ``body``. What the application raised is logged.

    Raises:
        TimeoutError: There is no answer.
    """
    asked = plain_request(method, path, headers, scheme, client)
    if isinstance(app, Connector):
        return await _ask(app, asked, timeout)
    native = {"ignore_compression": True}
    async with Connector(_application(app), shutdown_timeout=_GRACE, native_options=native) as connector:
        return await _ask(connector, asked, timeout)


async def _ask(connector: Connector, asked: ClientRequest, timeout: float) -> Answer:
    async with asyncio.timeout(timeout):
        connection = await connector.connect(asked)
    connection.drop()
    assert connection.answer is not None
    return connection.answer


def _application(app: Application | WebSocketOptions[Any] | Sequence[Interceptor]) -> Application:
    """Return an application; the handler of one route is served at every path."""
    return app if isinstance(app, Application) else Application([("/", app), ("/{path:path}", app)])


def _raise(errors: Sequence[BaseException]) -> None:
    """Raise the first error, as it is unless it would be taken for a cancellation of the test."""
    first, *others = errors
    for other in others:
        first.add_note(f"the application raised {other!r} too")
    if not isinstance(first, Exception):
        raise RuntimeError(f"the application raised {first!r}") from first
    raise first
