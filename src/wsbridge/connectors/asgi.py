"""wsbridge as an ASGI 3 application: `asgi_app`, for any server and inside any framework; needs no package.

Event -> call: ``websocket.receive`` -> ``text_received``, ``binary_received``; ``websocket.disconnect`` ->
``peer_closed`` or ``connection_lost``. Tried on uvicorn 0.54, hypercorn 0.18, granian 2.8.7 and
daphne 4.2.

ASGI says less than the contract needs, and each server says another part of it (docs/asgi.md). What is done on all:

- No event tells a lost connection from an empty close. uvicorn leaves out the key ``reason`` for a loss, so a code 1005
  without it is one; so is 1006 (hypercorn: any close). A 1012 without it is uvicorn's own shutdown.
- No event tells a violation from a peer that closes with 1002 or 1007 either. uvicorn alone gives a text for the first,
  and a key ``reason`` with the second, and no peer has cause to say so: these are taken for violations.
- Servers take messages for a peer that left, and keep those of many tasks: one is sent at a time, and while a callback
  sends, the next event is read.
- Most servers send no close frame for an application that raised or returned: it is always sent here.
- The ``send`` of a close waits for a pending ``receive()`` on granian up to 2.8.7 (asgi/io.rs, ``close``): that is
  interrupted first, and none begins while a close is under way.
- granian aborts its process for a refusal with a header that is repeated (ws.rs:87): they are joined to one.
- granian sends an empty message for text that UTF-8 cannot encode: text is encoded before it is sent.
- Nothing is told of pings, so that ``ping_interval`` is refused, unless ``server_pings`` leaves them to the server.
- daphne raises for a close with a code other than 1000 and 3000-4999 (autobahn's ``sendClose``): 1000 is sent then.
- A send waits in the server as long as the peer does not read: at the channel's end it is interrupted.
- Over HTTP/2 and 3 a WebSocket has no Upgrade and no key (HS-19); hypercorn alone has them. Of hypercorn 0.18: sends to
  a peer that reads nothing never wait (protocol/h2.py:74), what comes on a stream that has ended cuts the connection
  (h2.py:259; h3.py:64 the whole endpoint), and HTTP/3 tells of no end (h3.py:89). uvicorn 0.54 with ``--http2`` offers
  them, and hands them on as requests.
- A connection cannot be cut: what is cut off here ends when the application returns, as the server pleases.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeAlias, cast
from urllib.parse import quote, unquote

from werkzeug.datastructures import Headers

from wsbridge import (
    Application,
    ConnectorStateError,
    Request,
    Response,
    UnsupportedOptionError,
    WebSocketChannel,
    WebSocketOptions,
)
from wsbridge.connector import (
    STREAM_VERSIONS,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Mount,
    MountPoint,
    content_of,
    later_turn,
    peer_address,
    plain_response,
    shown,
)
from wsbridge.connectors._asgi_channel import Channel as Channel
from wsbridge.connectors._asgi_channel import Event as Event
from wsbridge.connectors._asgi_channel import Receive as Receive
from wsbridge.connectors._asgi_channel import Scope as Scope
from wsbridge.connectors._asgi_channel import Send as Send
from wsbridge.connectors._asgi_channel import nothing as nothing

__all__ = ["AsgiApp", "AsgiChannel", "AsgiRequest", "Connector", "asgi_app"]

logger = logging.getLogger("wsbridge")

AsgiRequest: TypeAlias = Request[Scope]
"""A `Request` of an ASGI server, for annotations: ``native`` is the scope."""

AsgiChannel: TypeAlias = WebSocketChannel[Scope]
"""A `WebSocketChannel` of an ASGI server, for annotations: ``native`` is the scope."""

Handle: TypeAlias = Callable[[Request, BaseSource], Awaitable[BaseChannel | Response]]

_RESPONSE = "websocket.http.response"  # the extension that lets a handshake be refused with more than a 403
_PATHSEND = "http.response.pathsend"  # which granian alone has in the scope of a WebSocket
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OF_CONNECTIONS = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))
_MOUNT_OPTIONS = ("max_channels", "max_head_size", "shutdown_timeout", "trusted_proxies")


# ---- the channel -----------------------------------------------------------------------------------------------------

# `Channel` of `wsbridge.connectors._asgi_channel`.


# ---- the source ------------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        return cast(Connector, self.connector).make_channel(self.request, options, subprotocol)


# ---- the connector ---------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """What `asgi_app` is built on, and the connectors that start an ASGI server themselves.

    Args:
        server_pings: Leave pings to the server and its own settings, where wsbridge cannot send any: ``ping_interval``
            and ``ping_timeout`` are then not refused, and mean nothing.
    """

    name = "asgi"
    connector_api = 2
    features = frozenset(("size-limit",))

    def __init__(self, app: Application, *, server_pings: bool = False, **options: Any) -> None:
        if not isinstance(server_pings, bool):
            raise TypeError(f"server_pings must be bool, not {server_pings!r}")
        self._server_pings = server_pings
        self._has_upgraded = True  # the server is known to have support for WebSockets
        self._was_told = False  # that the server has none over HTTP/2 or 3
        super().__init__(app, **options)

    def check_options(self, options: WebSocketOptions[Any]) -> None:
        if "ping" not in self.features and options.ping_interval is not None:
            if not self._server_pings:
                raise self.unsupported(
                    "ping_interval",
                    "ASGI cannot ping; set it to None, or give server_pings=True to leave pings to the server",
                )
            options = replace(options, ping_interval=None)
        super().check_options(options)

    def make_channel(self, request: Request, options: WebSocketOptions[Any], subprotocol: str | None) -> BaseChannel:
        """Return a channel for a handshake; its native object is the scope, or what the server has for it."""
        scope = cast(Scope, request.native)
        known: Sequence[str] = scope.get("subprotocols") or ()
        if subprotocol not in known:  # hypercorn and daphne see the last line alone, and fail for another's
            subprotocol = next((own for own in options.subprotocols if own in known), None)
        channel = Channel(self, request, options, subprotocol)
        channel.native = scope
        return channel

    def make_request(self, scope: Scope) -> Request:
        """Return the request that a scope tells of."""
        return make_request(scope)

    async def _start(self, sockets: list[socket.socket]) -> None:
        raise ConnectorStateError("an ASGI application is started by its server: see asgi_app")

    async def _stop(self) -> None:
        pass

    # ---- one scope --------------------------------------------------------------------------------------------------

    async def serve_http(self, handle: Handle, scope: Scope, send: Send) -> None:
        """Answer a request in plain HTTP (HS-4)."""
        try:
            await later_turn(self.loop)
            request = self.make_request(scope)
            outcome = await handle(request, _Source(self, request))
            if isinstance(outcome, BaseChannel):
                outcome.abandon()
                outcome = self._not_upgraded(request)
            self._answer_begins(scope)
            await respond(send, "http.response", outcome, method=request.method, version=request.http_version)
        finally:
            del send  # a traceback that is kept, such as in a log record, would keep it

    def _not_upgraded(self, request: Request) -> Response:
        """Answer a handshake that the server takes for an ordinary request."""
        if request.http_version in STREAM_VERSIONS:
            level = logging.DEBUG if self._was_told else logging.ERROR
            self._was_told = True
            logger.log(
                level,
                "the server hands a WebSocket over HTTP/%s on as an ordinary request: it has no support for these; let "
                "it speak HTTP/1.1 alone (uvicorn: without --http2), or serve by hypercorn (docs/asgi.md)",
                request.http_version,
            )
            return plain_response(501)
        level = logging.DEBUG if self._has_upgraded else logging.ERROR
        logger.log(
            level,
            "the server hands the handshake for %s on as an ordinary request: it has no support for WebSockets "
            "(uvicorn needs websockets or wsproto), or will not upgrade this one",
            shown(request.path),
        )
        self._has_upgraded = True  # once is enough
        return plain_response(400)

    async def serve_websocket(self, handle: Handle, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a handshake, and live the channel's life."""
        try:
            await later_turn(self.loop)  # the server may not have kept the task yet, nor read what follows the request
            channel = await self._open_channel(handle, scope, receive, send)
        finally:
            del receive, send  # as in serve_http
        if channel is not None:
            await channel.run()

    async def _open_channel(self, handle: Handle, scope: Scope, receive: Receive, send: Send) -> BaseChannel | None:
        """Answer a handshake; return the channel whose 101 is sent."""
        try:
            event = await receive()
            if event["type"] != "websocket.connect":
                if event["type"] != "websocket.disconnect":
                    logger.error("the server began a WebSocket with %r instead of websocket.connect", event)
                    await send({"type": "websocket.close", "code": 1011, "reason": ""})
                return None
            self._has_upgraded = True
            request = self.make_request(scope)
            source = _Source(self, request)
            outcome = await handle(request, source)
            if isinstance(outcome, Response):
                await self._refuse(scope, send, outcome)
                return None
            try:
                await self._accept(source, outcome, receive, send)
            except BaseException as exc:
                outcome.abandon()
                if isinstance(exc, OSError):
                    return None  # the peer has left
                raise
            return outcome
        finally:
            del receive, send

    def _answer_begins(self, scope: Scope) -> None:
        """Take it that a request is answered next (HS-13); an ASGI server of the user's own sees to it itself."""

    async def _accept(self, source: BaseSource, channel: Any, receive: Receive, send: Send) -> None:
        await send(accept_event(source, channel))
        channel.opened(receive, send)

    async def _refuse(self, scope: Scope, send: Send, response: Response) -> None:
        extensions: Mapping[str, Any] = scope.get("extensions") or {}
        version: str = scope.get("http_version", "1.1")
        if version in STREAM_VERSIONS and response.status_code < 300:
            logger.debug("an answer of %d would open the WebSocket for %r", response.status_code, scope["path"])
            response = plain_response(400)
        self._answer_begins(scope)
        try:
            if _RESPONSE in extensions:
                may_repeat = _PATHSEND not in extensions
                await respond(send, _RESPONSE, response, may_repeat=may_repeat, version=version)
            else:
                logger.debug("the server can refuse only with 403, not %d", response.status_code)
                await send({"type": "websocket.close", "code": 1000, "reason": ""})
        except OSError:
            logger.debug("the peer left before it was refused")


# ---- the receiving side ----------------------------------------------------------------------------------------------


def accept_event(source: BaseSource, channel: BaseChannel) -> Event:
    """Return the event that sends the 101."""
    return {
        "type": "websocket.accept",
        "subprotocol": channel.subprotocol,
        "headers": _encoded(_sendable(source.response_headers, source.request.http_version)),
    }


async def respond(
    send: Send,
    kind: str,
    response: Response,
    *,
    method: str = "GET",
    may_repeat: bool = True,
    version: str = "1.1",
) -> None:
    """Send an answer in plain HTTP.

    Args:
        send: The server's.
        kind: What the types of its events begin with.
        response: The answer.
        method: Of the request.
        may_repeat: Whether the server can send a header twice.
        version: Of HTTP.
    """
    headers = _sendable(response.headers, version, "content-length")
    if not may_repeat:
        headers = _joined(headers)
    length, content = content_of(response, method)
    if length is not None:
        headers.append(("Content-Length", str(length)))
    await send({"type": f"{kind}.start", "status": response.status_code, "headers": _encoded(headers)})
    await send({"type": f"{kind}.body", "body": content, "more_body": False})


def _sendable(headers: Headers, version: str, *without: str) -> list[tuple[str, str]]:
    """Return the headers of an answer, over HTTP/2 and 3 without those of a connection (RFC 9113, 8.2.2; HS-19)."""
    dropped = _OF_CONNECTIONS.union(without) if version in STREAM_VERSIONS else without
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _joined(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers with those of one name in one line, which means the same, but for cookies: the first is left."""
    joined: dict[str, tuple[str, str]] = {}
    for name, value in headers:
        key = name.lower()
        if key not in joined:
            joined[key] = (name, value)
        elif key == "set-cookie":
            logger.error("the server cannot refuse a handshake with more than one cookie: %r is left out", value)
        else:
            joined[key] = (name, f"{joined[key][1]}, {value}")
    return list(joined.values())


def may_upgrade(method: str, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request may become a WebSocket, for servers that look too closely or not closely enough.

    wsbridge checks the rest of it (HS-4). Names are in lower case.
    """
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        lines.setdefault(name, []).extend(item.strip().lower() for item in value.split(b","))
    has_body = b"transfer-encoding" in lines or any(item != b"0" for item in lines.get(b"content-length", ()))
    return (
        method == "GET"
        and version == "1.1"
        and b"websocket" in lines.get(b"upgrade", ())
        and b"upgrade" in lines.get(b"connection", ())
        and not has_body
    )


def has_controls(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a header's value has a control character, which h11 lets pass."""
    return any(_CONTROL.search(value) for _, value in headers)


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def make_request(scope: Scope, **options: Any) -> Request:
    """Return the request that an ``http`` or ``websocket`` scope tells of."""
    path: str = scope["path"]
    root_path: str = (scope.get("root_path") or "").rstrip("/")
    raw: bytes = scope.get("raw_path") or quote(path, safe="/:@!$&'()*+,;=~-._%").encode()
    raw = raw.partition(b"?")[0]
    whole = unquote(raw, errors="replace")
    if path not in (whole, whole.removeprefix(root_path)):
        below = path.rstrip("/")  # Litestar takes its prefix off the path, not off what was sent, and adds a slash
        root_path = whole.removesuffix(below) if whole.endswith(below) else root_path
    query: bytes = scope.get("query_string") or b""
    target = raw.decode("latin-1") + ("?" + query.decode("latin-1") if query else "")
    version = scope.get("http_version", "1.1")
    method = "CONNECT" if version in STREAM_VERSIONS else "GET"  # a scope of a WebSocket has none
    return Request(
        scope.get("method", method),
        target,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        scheme="wss" if scope.get("scheme") in ("https", "wss") else "ws",
        http_version=version,
        remote_address=peer_address(scope.get("client")),
        native=scope,
        root_path=root_path,
        **options,
    )


class AsgiApp(Mount):
    """An ASGI 3 application; made by `asgi_app`."""

    connector: Connector

    def __init__(self, connector: Connector, handler: WebSocketOptions[Any] | Application) -> None:
        super().__init__(connector, handler)
        self._point = MountPoint(handler)
        connector._has_upgraded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it.

        Raises:
            ValueError: A scope of a type that is unknown here.
        """
        kind = scope.get("type")
        spoken: Mapping[str, Any] = scope.get("asgi") or {}
        version = str(spoken.get("version", "3.0"))
        if kind == "lifespan":
            await self._live(receive, send)
        elif kind not in ("http", "websocket"):
            logger.error("the server sent a scope of the type %r, which is none of http, websocket and lifespan", kind)
            raise ValueError(f"unknown ASGI scope type {kind!r}")
        elif version.partition(".")[0] != "3":
            logger.error("the server speaks ASGI %s; wsbridge speaks ASGI 3", version)
            if kind == "http":
                await respond(send, "http.response", plain_response(HTTPStatus.INTERNAL_SERVER_ERROR))
            else:
                await self.connector._refuse(scope, send, plain_response(HTTPStatus.INTERNAL_SERVER_ERROR))
        elif kind == "http":
            await self.connector.serve_http(self.handle, scope, send)
        else:
            await self.connector.serve_websocket(self.handle, scope, receive, send)

    async def handle(self, request: Request, source: BaseSource) -> BaseChannel | Response:
        request.path_params.update(self._point.path_params(cast(Scope, request.native).get("path_params") or {}))
        return await super().handle(request, source)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Take part in the server's lifespan: its shutdown ends the channels (MOUNT-1)."""
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                self.connector.reopen()
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return
            else:
                logger.error("the server sent %r where an event of its lifespan was due", event)
                return


def asgi_app(
    handler: WebSocketOptions[Any] | Application, *, connector: type[Connector] = Connector, **options: Any
) -> AsgiApp:
    """Return ``handler`` as an ASGI 3 application, for an ASGI server, or to mount in a framework (MOUNT-1).

    Args:
        handler: Options, which serve any path that is routed here, or a whole application, whose routes are below the
            scope's ``root_path``.
        connector: A subclass of `Connector` to use instead.
        options: ``max_channels``, ``max_head_size``, which the server may undercut, ``shutdown_timeout``,
            ``trusted_proxies`` and ``server_pings`` of the connector.

    Returns:
        The application. At the end of a lifespan, where the server has one and the framework hands it on, every channel
        is closed with 1001; ``await app.stop()`` does that always.

    Raises:
        UnsupportedOptionError: An option of the connector that is the server's own, such as ``port``, or one of the
            application's channels that ASGI cannot honour.
    """
    for name in options:
        if name not in (*_MOUNT_OPTIONS, "server_pings"):
            raise UnsupportedOptionError(
                f"asgi_app cannot honour {name}: it is the server's own, or unknown; it takes "
                f"{', '.join((*_MOUNT_OPTIONS, 'server_pings'))}"
            )
    return AsgiApp(connector(MountPoint(handler).app, **options), handler)
