"""A wsbridge connector for Sanic."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from sanic import Sanic
from sanic.headers import format_http1_response
from sanic.http import Stage
from sanic.request import Request as NativeRequest
from sanic.server import AsyncioServer, serve
from sanic.server.protocols.websocket_protocol import WebSocketProtocol
from sanic.server.websockets.impl import WebsocketImplProtocol
from websockets.exceptions import InvalidState, PayloadTooBig, ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from wsbridge.base import BaseChannel, BaseConnector, BaseSource, QueuedChannel, close_keywords
from wsbridge.clock import Timer
from wsbridge.http import Request, Response
from wsbridge.options import WebSocketOptions

__all__ = ["Connector"]

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_app_numbers = itertools.count(1)


class _Channel(QueuedChannel):
    __slots__ = ("_core", "_transport")

    native: _WebSocket
    closed_errors = (InvalidState,)

    def opened(self, native: _WebSocket, transport: asyncio.Transport) -> None:
        """Take the connection, when the 101 is written."""
        self.native = native
        self._core = native.ws_proto
        self._transport = transport

    def _send_text(self, text: str) -> None:
        self._core.send_text(text.encode())
        self._write()

    def _send_binary(self, data: bytes) -> None:
        self._core.send_binary(data)
        self._write()

    def _close(self, code: int | None, text: str) -> None:
        if self._core.state is State.OPEN:
            self._core.send_close(code, text)
        self._write()

    def _ping(self, payload: bytes) -> None:
        self._core.send_ping(payload)
        self._write()

    def _write(self) -> None:
        self._transport.write(b"".join(self._core.data_to_send()))

    def _disconnect(self) -> None:
        if not self._failed:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _aborter(self) -> Callable[[], object]:
        return self._transport.abort

    def _unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def _hold_reading(self) -> None:
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._transport.resume_reading()


class _Source(BaseSource):
    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        return _Channel(self.connector, self.request, options, subprotocol)

    def accept(self, channel: BaseChannel) -> bytes:
        """Return the 101."""
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(self.request.headers["Sec-WebSocket-Key"])),
            *self.response_headers,
        ]
        if channel.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", channel.subprotocol))
        return _head(101, headers)


class Connector(BaseConnector):
    """Serves by Sanic's own server. ``native_options``: some settings of `sanic.config.Config`."""

    name = "sanic"
    features = BaseConnector.features - {"compression"}
    close_keywords = close_keywords({code.name: code for code in CloseCode})
    native_option_names: ClassVar[frozenset[str]] = frozenset(("REQUEST_BUFFER_SIZE", "REQUEST_MAX_SIZE"))

    _native: Sanic[Any, Any]
    _servers: list[AsyncioServer]

    async def _start(self, sockets: list[socket.socket]) -> None:
        self._native = Sanic(f"wsbridge-{next(_app_numbers)}", configure_logging=False)
        self._native.config.update(
            {"AUTO_EXTEND": False, "LOG_EXTRA": False, "TOUCHUP": False, **self.native_options}
        )
        self._native.ctx.connector = self
        self._native.signalize(allow_fail_builtin=False)
        self._servers = []
        try:
            for sock in sockets:
                tls = {} if self.ssl is None else {"ssl_handshake_timeout": self.handshake_timeout}
                server = serve(
                    None,
                    None,
                    self._native,
                    ssl=self.ssl,
                    sock=sock,
                    loop=self.loop,
                    protocol=_Connection,
                    backlog=1024,
                    run_async=True,
                    asyncio_server_kwargs=tls,
                )
                self._servers.append(await server)
        except BaseException:
            await self._stop_listening()
            await self._stop()
            raise

    async def _stop_listening(self) -> None:
        for server in self._servers:
            server.server.close()

    async def _stop(self) -> None:
        for server in self._servers:
            for connection in list(server.connections):
                connection.transport.abort()
            if sys.version_info >= (3, 13):
                server.server.abort_clients()
            await asyncio.wait((server.close(),), timeout=0.25)
        Sanic.unregister_app(self._native)


class _Connection(WebSocketProtocol):
    """A connection: Sanic parses the request, wsbridge answers it, and what comes behind it goes to a channel."""

    __slots__ = ("_timer", "connector")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.connector: Connector = self.app.ctx.connector
        self.request_handler = self.answer
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        clock = self.connector.clock
        self._timer = clock.at(clock.time() + self.connector.handshake_timeout, self)

    def tick(self, now: float) -> None:
        """Cut a peer whose request is not complete in time (HS-10)."""
        self._timer = None
        self.transport.abort()

    def check_timeouts(self) -> None:
        """Do nothing: Sanic's own clock starts anew at each byte."""

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self.connector.clock.cancel(self._timer)
            self._timer = None

    async def answer(self, native: NativeRequest) -> None:
        """Answer a request; what Sanic's router and middleware would do otherwise."""
        self._forget_timer()
        request = _request(native, self.transport)
        source = _Source(self.connector, request)
        outcome = await self.connector.handle(request, source)
        stream = native.stream
        if isinstance(outcome, Response):
            stream.keep_alive = False
            await self.send(_refusal(outcome, request.method))
            stream.stage = Stage.IDLE
            return
        assert isinstance(outcome, _Channel)
        try:
            await self.send(source.accept(outcome))
        except BaseException:
            outcome.abandon()
            raise
        stream.upgrade_websocket = True
        self.websocket = _WebSocket(self, outcome)
        self.connector.loop.create_task(outcome.run())
        self.connector.loop.call_soon(self._read_early)

    def _read_early(self) -> None:
        early = bytes(self.recv_buffer)
        self.recv_buffer.clear()
        self.transport.resume_reading()
        if early:
            self.websocket.data_received(early)

    def close(self, timeout: float | None = None) -> None:
        """Close a connection that Sanic is done with, unless it is a channel's now."""
        if self.websocket is None:
            super().close(timeout)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.websocket is not None:
            self.websocket.channel.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.websocket is not None:
            self.websocket.channel.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_timer()


class _Core(ServerProtocol):
    """The protocol under Sanic's WebSocket, which hands on each message as soon as it is parsed."""

    def __init__(self, channel: _Channel) -> None:
        options = channel._options
        self._limits = {
            _TEXT: sys.maxsize if options.max_text_size is None else options.max_text_size,
            _BINARY: sys.maxsize if options.max_binary_size is None else options.max_binary_size,
        }
        limit = max(*self._limits.values(), 125)
        super().__init__(state=State.OPEN, max_size=None if limit == sys.maxsize else limit)
        self._feed = channel.feed
        self._kind: Opcode | None = None
        self._parts = bytearray()

    def recv_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is _CONT:
            if self._kind is None:
                raise ProtocolError("unexpected continuation frame")
        elif opcode in (_TEXT, _BINARY):
            if self._kind is not None:
                raise ProtocolError("expected a continuation frame")
            self._kind = opcode
        else:
            super().recv_frame(frame)
            return
        kind = self._kind
        self._parts += frame.data
        if len(self._parts) > self._limits[kind]:
            raise PayloadTooBig(len(self._parts), self._limits[kind])
        if frame.fin:
            whole, self._parts, self._kind = bytes(self._parts), bytearray(), None
            self._feed(whole.decode() if kind is _TEXT else whole)


class _WebSocket(WebsocketImplProtocol):
    """Sanic's WebSocket, whose receiving side feeds a channel."""

    def __init__(self, connection: _Connection, channel: _Channel) -> None:
        super().__init__(_Core(channel), ping_interval=None)
        self.io_proto = connection
        self.loop = connection.loop
        self.channel = channel
        channel.opened(self, connection.transport)

    def data_received(self, data: bytes) -> None:
        core = self.ws_proto
        was_open = core.state is State.OPEN
        core.receive_data(data)
        answer = b"".join(core.data_to_send())
        if was_open and answer:
            self.io_proto.transport.write(answer)
        for frame in core.events_received():
            if frame.opcode is Opcode.PONG:
                self.channel.pong_received(bytes(frame.data))
            elif frame.opcode is Opcode.CLOSE:
                close = core.close_rcvd
                self.channel.peer_closed(close.code if frame.data else None, close.reason)
        if core.parser_exc is not None and core.close_sent is not None:
            self.channel.failed(int(core.close_sent.code), core.close_sent.reason)

    def eof_received(self) -> bool:
        self.channel.connection_lost()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.channel.connection_lost()


def _request(native: NativeRequest, transport: asyncio.Transport) -> Request:
    remote = transport.get_extra_info("peername")
    return Request(
        native.method,
        native.raw_url.decode("latin-1"),
        headers=[
            (name, value.strip().encode("utf-8", "surrogateescape").decode("latin-1"))
            for name, value in native.headers.items()
        ],
        scheme="wss" if transport.get_extra_info("ssl_object") else "ws",
        http_version=native.version,
        remote_address=(str(remote[0]), int(remote[1])) if isinstance(remote, tuple) else None,
        native=native,
    )


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    return format_http1_response(status, [(name.encode(), value.encode("latin-1")) for name, value in headers])


def _refusal(outcome: Response, method: str) -> bytes:
    headers = outcome.headers.copy()
    headers.remove("Content-Length")
    headers.remove("Transfer-Encoding")
    headers.setdefault("Connection", "close")
    body = b""
    if outcome.status_code not in (204, 304):
        headers["Content-Length"] = str(len(outcome.body))
        body = outcome.body if method != "HEAD" else b""
    return _head(outcome.status_code, headers) + body
