"""The websockets connector: messages are pushed as they are parsed. Read and tried on websockets 13.0 to 17.4.

Native -> call: TEXT, BINARY, CONT in ``recv_frame`` -> ``feed``; PONG -> ``pong_received``; CLOSE -> ``peer_closed``;
``parser_exc`` -> ``failed``; ``eof_received``, ``connection_lost`` -> ``connection_lost``; ``pause_writing`` and
``resume_writing`` -> their namesakes.

Works around; lines are those of 17.4:

- ``ServerProtocol.accept`` (server.py:121) refuses what HS-4 accepts, and with other codes: ``process_request`` answers
  everything, by a 101 too. Another method than GET and HTTP/1.0 (up to 16), ``Content-Length: 0`` (up to 15) and a
  path that is not ASCII close the connection (http11.py:181), and so does a body; a line over 8 KiB gets 414 or 431, or
  closes it (up to 16): `HeadReader._kept` lets them pass, or refuses them.
- 13 has an exception of each refusal, which 13.1 logs as an error: `_Protocol13`. After one 13.0 starts keepalive and
  calls the handler, and what is no HTTP is raised as the parser's own exception.
- What stands after the request is parsed before the 101 is out (asyncio/server.py:205), and ``open_timeout`` cuts slow
  interceptors too: `HeadReader._kept`, and the connector's clock.
- ``process_event`` comes when the whole read is parsed and answered, so that invalid text would be found after the
  answer to a close that follows it: ``recv_frame`` is called frame by frame, and what it raises is answered in order.
- A close inside a fragmented message is answered with 1002 (protocol.py:712), and 4096 fragments are the most
  (asyncio/messages.py:181): `FrameReader._frame_received` joins them.
- A read of 256 KiB can hold 40,000 messages, or some that inflate a thousandfold: it is parsed piece by piece.
- A peer that does not read its refusal may stay (asyncio/connection.py, ``send_context``): `BaseConnector.answering`.
- Pings are answered after the close frame too, and without bound for a peer that does not read: the channel does it.
- A failed connection is half closed, by TLS closed, at once (protocol.py:472), and the peer might not get to read why;
  the native ``close()`` waits for TCP: the channel does both.
- The size limit counts deflated bytes first, and is one for text and binary: `FrameReader._limit`.
- What follows a deflate block with BFINAL is lost, and up to 16 RSV1 is taken on a continuation: `_Deflate`.

Names that websockets does not document are listed in `_PRIVATE`, here and in `wsbridge.connectors._codecs.websockets`.
It declares no deviation.
"""

from __future__ import annotations

from wsbridge.connectors._versions import check_range

check_range("websockets")

import asyncio
import contextlib
import email.utils
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from http.client import responses
from typing import Any, ClassVar, TypeAlias, cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.http11 import Request as NativeRequest
from websockets.http11 import Response as NativeResponse
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from wsbridge import Application, Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    BaseChannel,
    BaseConnector,
    BaseSource,
    HandshakeDeadline,
    Mount,
    MountPoint,
    Taken,
    abort,
    begin_later,
    close_keywords,
    closing,
    content_of,
    of_transport,
    plain_response,
    server_names,
    settle,
)
from wsbridge.connectors._codecs.websockets import Channel, agree_on_deflate
from wsbridge.connectors._versions import is_older
from wsbridge.connectors._websockets_head import KNOWS_METHODS, HeadReader

__all__ = ["Connector", "WebsocketsChannel", "WebsocketsRequest", "mount"]

WebsocketsRequest: TypeAlias = Request[NativeRequest]
"""A `Request` of this connector, for annotations."""

WebsocketsChannel: TypeAlias = WebSocketChannel[ServerConnection]
"""A `WebSocketChannel` of this connector, for annotations."""

_Handle = Callable[[Request, BaseSource], Awaitable[BaseChannel | Response]]
_ProcessRequest = Callable[[Any, Any], Awaitable[NativeResponse | None] | NativeResponse | None]

_CONNECTING, _OPEN = State.CONNECTING, State.OPEN

_PRIVATE = {
    "websockets.asyncio.server:ServerConnection": "handshake paused send_data",
    "websockets.server:ServerProtocol": "eof_sent",
}
server_names("websockets", "13.0 to 17.4", _PRIVATE)


# ---- the channel ----------------------------------------------------------------------------------------------------

# `Channel` of `wsbridge.connectors._codecs.websockets`, which uvicorn's default implementation shares.


# ---- the source -----------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, native: _Connection) -> None:
        super().__init__(connector, request)
        self._native = native

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> Channel:
        channel = Channel(self.connector, self.request, options, subprotocol)
        channel.native = self._native
        return channel

    def accept(self, channel: BaseChannel) -> NativeResponse:
        """Return the 101."""
        native, protocol = self._native, self._native.protocol
        assert native.request is not None
        headers = Headers()
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Accept"] = accept_key(native.request.headers["Sec-WebSocket-Key"])
        extensions = agree_on_deflate(protocol, self.request, channel.options.compression)
        if extensions is not None:
            headers["Sec-WebSocket-Extensions"] = extensions
        if channel.subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = channel.subprotocol
            protocol.subprotocol = cast(Any, channel.subprotocol)
        native.agreed(channel.options)
        for name, value in self.response_headers:
            headers[name] = value
        return NativeResponse(101, "Switching Protocols", headers)


# ---- the connector --------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """Serves by websockets' `ServerConnection`. ``native_options``: ``write_limit`` and ``logger`` of its ``serve``."""

    name = "websockets"
    connector_api = 2
    features = ALL_FEATURES - {"fragments"}
    mount_harness = "wsbridge.conformance.mounts.websockets:serve"
    close_keywords = close_keywords({code.name: code for code in CloseCode})
    compression_settings = frozenset(("window_bits", "memory_level", "context_takeover"))
    native_option_names: ClassVar[frozenset[str]] = frozenset(("logger", "write_limit"))

    _server: _Server

    async def _start(self, sockets: list[socket.socket]) -> None:
        options: dict[str, Any] = {"logger": _quiet_logger(), **self.native_options}
        logger = options.pop("logger")
        self._server = server = _Server(self._live)

        def protocol() -> asyncio.Protocol:
            return _Connection(
                self,
                HandshakeDeadline(self),
                ServerProtocol(logger=logger),
                cast(Server, server),
                ping_interval=None,
                close_timeout=self.handshake_timeout,  # of refused requests; the channels have their own
                **options,
            )

        self.serve_protocols(sockets, protocol)

    async def _live(self, connection: _Connection) -> None:
        """Live a connection's life."""
        try:
            await connection.handshake(self._answer, None, None)
            channel = connection.channel
            if connection.protocol.state is _OPEN and channel is not None:
                connection.begin(channel)  # as `live`, without a frame more that each message wakes
                try:
                    await channel.run()
                finally:
                    connection.let_go()
                await connection.close()
        except (WebSocketException, OSError, EOFError):
            pass  # no handshake came, or one that was refused; the peer's own affair
        except Exception:
            if connection.request is not None:  # what is no HTTP is raised as the parser's own exception up to 13
                connection.logger.exception("connection handler failed")
        finally:
            abort(connection.transport)
            self._server.handler_tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer(self, connection: ServerConnection, request: NativeRequest) -> NativeResponse:
        assert isinstance(connection, _Connection)
        return await connection.answer(self.handle, connection.make_request())

    def _how_taken(self, connection: _Connection) -> Taken:
        return of_transport(connection.transport)

    def _cut_answered(self, connection: _Connection) -> None:
        abort(connection.transport)

    async def _stop(self) -> None:
        await settle(self._server.handler_tasks)


def _quiet_logger() -> logging.Logger:
    """Return a logger for what needs attention, which ordinary ends do not."""
    logger = logging.Logger("websockets.server", logging.WARNING)
    logger.parent = logging.getLogger(logger.name)
    return logger


# ---- the receiving side ---------------------------------------------------------------------------------------------


class _Server:
    """What a connection takes for its server: `websockets.asyncio.server.Server`, but that it does not accept."""

    def __init__(self, live: Callable[[_Connection], Coroutine[Any, Any, None]]) -> None:
        self.handler = live
        self.handler_tasks: set[asyncio.Task[None]] = set()

    def is_serving(self) -> bool:
        return True  # what comes at the stop is refused by the base

    def start_connection_handler(self, connection: _Connection) -> None:
        """Do what connections do by themselves since 17."""
        self.handler_tasks.add(begin_later(connection.loop, self.handler(connection)))


class _Protocol(ServerProtocol):
    """Refuses without a word of why: websockets tells a peer what its parser, or an exception, says."""

    def reject(self, status: int, text: str) -> NativeResponse:
        return super().reject(status, f"{HTTPStatus(status).phrase}\n")


class _Protocol13(_Protocol):
    """Takes a refusal for no failure, as since 14: 13 has an exception of it, and 13.1 logs that as an error."""

    def send_response(self, response: NativeResponse) -> None:
        super().send_response(response)
        if isinstance(self.handshake_exc, InvalidStatus):
            self.handshake_exc = None

    def close_expected(self) -> bool:
        return self.eof_sent if self.state is _CONNECTING else super().close_expected()


_PROTOCOL = _Protocol13 if is_older("websockets", (14,)) else _Protocol


class _Connection(HeadReader, ServerConnection):
    """A connection whose request is answered by wsbridge, and whose frames then go to a channel."""

    __slots__ = ("_deadline", "connector")

    def __init__(
        self,
        connector: Connector,
        deadline: HandshakeDeadline | None,
        protocol: ServerProtocol,
        server: Server,
        **options: Any,
    ) -> None:
        super().__init__(protocol, server, **options)
        protocol.__class__ = _PROTOCOL
        self.connector = connector
        self.prepare()
        self._deadline = deadline  # None in a mount, whose server has its own

    # ---- the handshake ----------------------------------------------------------------------------------------------

    def respond(self, status: int, text: str) -> NativeResponse:
        return ServerProtocol.reject(self.protocol, status, text)  # the words of who mounts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._deadline is not None and self.connector.refuse_http2(cast(asyncio.Transport, transport)):
            return
        super().connection_made(transport)
        if self._deadline is not None:
            self._deadline.begin(self.transport.abort)

    def _waits_no_longer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None  # not for the life of the channel

    async def answer(self, handle: _Handle, request: Request) -> NativeResponse:
        """Return the response that wsbridge has for the request."""
        self._waits_no_longer()
        self.ping_interval = None
        if self.is_too_large:
            return _refusal(plain_response(431), request.method)
        source = _Source(self.connector, request, self)
        outcome = await handle(request, source)
        try:
            if self.protocol.state is not _CONNECTING:
                raise asyncio.CancelledError  # the peer has left, and any answer would be logged as an error
            if isinstance(outcome, Response):
                self.connector.answering(self)
                response = _refusal(outcome, request.method)
            else:
                response = source.accept(outcome)
        except BaseException:
            if isinstance(outcome, BaseChannel):
                outcome.abandon()
            raise
        if isinstance(outcome, Channel):
            self.channel = outcome
        return response

    async def live(self) -> None:
        """Live the channel's life; the 101 is written."""
        channel = self.channel
        assert channel is not None
        self.begin(channel)
        try:
            await channel.run()
        finally:
            self.let_go()

    def start_keepalive(self) -> None:
        if self.protocol.state is _OPEN:  # up to 13 it is called for one that was refused too
            super().start_keepalive()

    def parse_unopened(self, data: bytes) -> None:
        with contextlib.suppress(EOFError):  # over TLS uvloop 0.23 hands on what it reads behind the peer's end
            ServerConnection.data_received(self, data)

    def eof_received(self) -> None:
        if self._comes_last(self.eof_received):
            return
        super().eof_received()
        self.half_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._loss_comes_last(partial(self.connection_lost, exc)):
            return
        super().connection_lost(exc)
        self._waits_no_longer()
        self.lost()

    # ---- sending ----------------------------------------------------------------------------------------------------

    def send_data(self) -> None:
        if self._started:
            super().send_data()
        else:
            ServerConnection.send_data(self)
            if self.protocol.eof_sent:  # refused: read on, to see the peer leave
                self._unread.clear()
                self.transport.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writing_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.writing_resumed()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Wait for the end of a connection whose channel has ended; the native server closes by this too."""
        if not self._started:
            await super().close(code, reason)
            return
        if self.channel is not None:
            self.channel.shut_down()
        await self.wait_closed()


def _refusal(outcome: Response, method: str) -> NativeResponse:
    """Return a response in plain HTTP, after which the connection is closed."""
    headers = Headers()
    for name, value in closing(outcome).headers:
        if name.lower() not in ("content-length", "transfer-encoding"):
            headers[name] = value
    headers.setdefault("Date", email.utils.formatdate(usegmt=True))
    length, content = content_of(outcome, method)
    if length is not None:
        headers["Content-Length"] = str(length)
    return NativeResponse(outcome.status_code, responses.get(outcome.status_code, ""), headers, content)


class _Mount(Mount):
    """A `Mount` whose ``serve_kwargs`` are for `websockets.asyncio.server.serve`."""

    serve_kwargs: dict[str, Any]


def mount(
    handler: WebSocketOptions[Any] | Application,
    *,
    path: str | None = None,
    process_request: _ProcessRequest | None = None,
    websocket_handler: Callable[[ServerConnection], Awaitable[None]] | None = None,
    connector: type[Connector] = Connector,
    **options: Any,
) -> _Mount:
    """Return what `websockets.asyncio.server.serve` needs to serve ``handler``: ``serve(**mount(...).serve_kwargs)``.

    Args:
        handler: Options, or a whole application.
        path: Where, beside what else is served: for options as in `wsbridge.Application`, for an application a fixed
            prefix. None: everywhere.
        process_request: As for ``serve``: it sees every request first, those for ``path`` too, and a response of its is
            the answer (MOUNT-3).
        websocket_handler: As the handler of ``serve``, for other paths; without it they are 404 (MOUNT-1).
        connector: A subclass of `Connector` to use instead.
        options: ``max_channels``, ``max_head_size``, ``shutdown_timeout`` and ``trusted_proxies`` of the connector.

    Returns:
        The mount. The server's ``close`` ends its channels; ``await mount.stop()`` does it without ending the server.
    """
    point = MountPoint(handler, path or "/", route=path or "/")
    made = connector(point.app, **options)
    mounted = _Mount(made, handler)
    root_path = point.root_path

    def is_ours(request: Request) -> bool:
        if path is None:
            return True
        if point.has_routes:
            return request.path == root_path or request.path.startswith(root_path + "/")
        return bool(point.app.route({"request": request, "response": None}))

    async def answer(connection: ServerConnection, native: NativeRequest) -> NativeResponse | None:
        assert isinstance(connection, _Connection)
        request = connection.make_request()
        ours = is_ours(request) or connection.is_too_large
        if not ours and request.method != "GET" and not KNOWS_METHODS:
            return connection.respond(405, "Method Not Allowed\n")
        response: NativeResponse | None = None
        if process_request is not None and not connection.is_too_large:
            result = process_request(connection, native)
            response = await result if isinstance(result, Awaitable) else result
        if response is not None:
            return response
        if ours:
            return await connection.answer(mounted.handle, connection.make_request(root_path) if root_path else request)
        return None if websocket_handler is not None else connection.respond(404, "Not Found\n")

    async def live(connection: ServerConnection) -> None:
        assert isinstance(connection, _Connection)
        if connection.protocol.state is not _OPEN:
            return  # refused, or lost again: up to 13 it comes here nevertheless
        if connection.channel is not None:
            await connection.live()
        elif websocket_handler is not None:
            connection.resume()
            await websocket_handler(connection)

    mounted.serve_kwargs = {
        "handler": live,
        "process_request": answer,
        "create_connection": partial(_Connection, made, None),
        "server_header": None,
    }
    return mounted
