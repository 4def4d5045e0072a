"""The aiohttp connector: pulled, one handler task per channel. Tried on aiohttp 3.14.4 and 3.14.5.

Native -> call: TEXT, BINARY -> ``text_received``, ``binary_received``; PONG -> ``pong_received``; CLOSE ->
``peer_closed``; ERROR -> ``failed``; CLOSED -> ``connection_lost``.

Mends, with public names of aiohttp only:

- ``receive()`` closes the connection itself on an error, and a ``close()`` from another task skips the close handshake
  (web_ws.py): `_WebSocket.close` does nothing, close frames are written as frames.
- A send waits after its frame is written, on a future that all senders share (base_protocol.py), so that cancelling one
  cancels all: ``writer_limit`` is out of reach, and `_Watch` tells the channel, whose sends wait before that.
- A deflated message over 16 KiB is written by an executor, and others overtake it (_websocket/writer.py): tracked.
- A half-close goes unnoticed while bytes are unsent: `_Watch` stands before aiohttp's protocol.
- After a parser error nothing more is read: `_Rest` takes over the transport and drops what comes until its end, so
  that a peer in mid-upload gets to read why.
- Bad offers of deflate are agreed to, quoted ones too, and a window of 15 bits is taken and not told
  (_websocket/helpers.py): aiohttp finds one offer, made of what the core has agreed on (`_offer`).
- A control frame with RSV1 is taken for a deflated one, there is one limit for both kinds, and 2**32 - 1 is more than
  the compiled reader takes (reader_c.pxd, ``_max_msg_size``), which fails behind the 101: `_Heads`.
- Close codes 1006 and those over 4999 are taken for valid: they are checked here.
- ``max_msg_size`` is exclusive, and counts deflated bytes first: see `_native_limit`.
- With a subprotocol offered that is not spoken it warns, with the peer's list (web_ws.py:317): `_fit`.
- A head that is too large is answered with 400, and a body that is left unread is waited for though the peer has left
  (web_protocol.py:696, ``lingering_time``): `_Protocol`. Its limits are of a line: the whole is counted afterwards.
- A peer that does not read its answers may stay (web_protocol.py, ``finish_response``): `BaseConnector.answering`.
- A peer is told aiohttp's version, and what its parser thinks of a malformed request: `_Protocol`, `_SERVER`.

Private names are listed in `_PRIVATE`. ``RequestHandler._close``: a runner's ``cleanup()`` sets it before
``on_shutdown`` runs, and what peers answer to the close of a mount would be dropped unread (web_protocol.py,
``data_received``), so that they had to be cut off. ``WebSocketResponse._reader``, the queue of what was read, and its
``_buffer``, pairs of a message and its size: a close frame lies in it unseen while a callback runs, and a violation
that was read then is forgotten when the connection is lost (reader_py.py, ``feed_eof``).

What it declares is in `wsbridge.connectors._deviations`: an unmasked frame is accepted, and so is a new message behind
an empty first fragment; a large message is inflated in the event loop. All of it is done in aiohttp's compiled reader,
which offers no hook.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias, cast

from aiohttp import HttpVersion10, HttpVersion11, WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.log import server_logger

from wsbridge import Application, Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    CLOSING,
    ENDED,
    NAME,
    OVER,
    TURN,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Mount,
    MountPoint,
    OnTransport,
    Taken,
    abort,
    agree,
    close_keywords,
    deflated_limit,
    end_writing,
    is_valid_close_code,
    of_transport,
    plain_connection,
    plain_response,
    request_parts,
    says_close,
    server_names,
    size_limit,
)
from wsbridge.connectors._deviations import AIOHTTP

__all__ = ["AiohttpChannel", "AiohttpRequest", "Connector", "mount"]

AiohttpRequest: TypeAlias = Request[web.BaseRequest]
"""A `Request` of this connector, for annotations."""

AiohttpChannel: TypeAlias = WebSocketChannel[web.WebSocketResponse]
"""A `WebSocketChannel` of this connector, for annotations."""

_SERVER = "wsbridge"  # where aiohttp would put its own version and Python's
_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_NEVER = 2**62  # bytes: a writer limit that is not reached
_SUBPROTOCOL = "Sec-WebSocket-Protocol"
_TOO_MANY = "Too many headers"  # in the message of an exception (_http_parser.pyx, http_parser.py)
_LOOK = 0.1  # seconds between two looks whether what came before a half-close is delivered
_HIGHEST = 2**32 - 2  # bytes: the highest limit that the compiled reader can hold, and add one to (reader_c.pxd)
_EXTENSIONS = "Sec-WebSocket-Extensions"
_REFUSED = 0x20  # RSV2, which no extension gives a meaning

_PRIVATE = {
    "aiohttp.web:RequestHandler": "_close",
    "aiohttp.web:WebSocketResponse": "_reader",
    "aiohttp._websocket.reader:WebSocketDataQueue": "_buffer",
    "aiohttp._websocket.writer": "WEBSOCKET_MAX_SYNC_CHUNK_SIZE",
}
_FOUND = server_names("aiohttp", "3.14.4 to 3.14.5", _PRIVATE)
_SYNC_DEFLATE: int = _FOUND["WEBSOCKET_MAX_SYNC_CHUNK_SIZE"]  # bytes: larger messages are deflated in an executor


class _WebSocket(web.WebSocketResponse):
    """A response whose close handshake is left to the channel."""

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        return True


class _Channel(OnTransport, BaseChannel):
    __slots__ = (
        "_deflates",
        "_failure",
        "_heads",
        "_held",
        "_is_ahead",
        "_protocol",
        "_queue",
        "_rest",
        "_send_frame",
        "_transport",
        "_writer",
    )

    native: _WebSocket
    is_pulled = True

    def opened(self, request: web.BaseRequest, writer: Any) -> None:
        """Take the connection, when the 101 is written."""
        assert request.transport is not None
        self._transport: asyncio.Transport = request.transport
        self._protocol = request.protocol
        self._writer = writer
        self._send_frame = self.native.send_frame
        self._deflates = bool(self.native.compress)
        self._held: WSMessage | None = None
        self._failure: BaseException | None = None  # what was read before the connection was lost, and not told yet
        reader = self.native._reader
        assert reader is not None
        self._queue = reader._buffer
        self._rest: _Rest | None = None
        self._is_ahead = False
        self._heads: _Heads | None = None
        watch = _Watch(self._transport, self)
        if self._deflates or not _is_native(self._options):
            self._heads = _Heads(watch.data_received, self._options, deflates=self._deflates)
            watch.pass_to(self._heads)

    def half_closed(self) -> None:
        """Cut the connection when what came is delivered: asyncio would wait until the peer has read what is unsent."""
        if self._phase >= CLOSING:
            return
        self.look_for_end()
        self.end_read(1006, "", "network")
        if self.running is None or (self._is_ahead and self._held is None):
            self._transport.abort()
        else:
            self._connector.loop.call_later(_LOOK, self.half_closed)

    def lost_behind_messages(self) -> None:
        """Take it that the connection is gone, though messages that came before may not be delivered."""
        self.look_for_end()
        self.end_read(1006, "", "network")

    def look_for_end(self) -> None:
        for message, _ in self._queue:
            if message.type is WSMsgType.CLOSE:
                if _is_valid(message.data):
                    self.end_read(message.data or 1005, message.extra or "", "peer")
                else:
                    self.end_read(1002, "", "local")
                return
        self.keep_failure()
        if self._failure is not None:
            self.end_read(self._code_of(self._failure), "", "local")

    def _send_text(self, text: str) -> Awaitable[object]:
        data = text.encode()
        if self._deflates and len(data) > _SYNC_DEFLATE:
            return self._send_large(self._send_frame(data, _TEXT))
        return self._send_frame(data, _TEXT)

    def _send_binary(self, data: bytes) -> Awaitable[object]:
        if self._deflates and len(data) > _SYNC_DEFLATE:
            return self._send_large(self._send_frame(data, _BINARY))
        return self._send_frame(data, _BINARY)

    def _is_full(self) -> bool:
        return self._protocol.writing_paused

    def _close(self, code: int | None, text: str) -> None:
        payload = b"" if code is None else struct.pack("!H", code) + text.encode()
        _run_now(self.native.send_frame(payload, WSMsgType.CLOSE))

    def _ping(self, payload: bytes) -> None:
        _run_now(self.native.ping(payload))

    def read_on(self) -> None:
        """Read what the peer answers to a close, though aiohttp's runner has told its protocols to take no more."""
        self._protocol._close = False

    def _pong(self, payload: bytes) -> None:
        _run_now(self.native.pong(payload))

    def _disconnect(self, *, half: bool) -> None:
        # Over TLS aiohttp closes when the handler returns: after a second close no abort works (asyncio/sslproto.py).
        if self._transport.can_write_eof():
            if half:
                end_writing(self._transport)
            else:
                self._transport.close()

    async def _receive(self) -> None:
        receive, queue = self.native.receive, self._queue
        message: WSMessage | None
        left = TURN
        while self._phase < OVER:
            left -= 1
            if not left:
                left = TURN
                if queue:
                    await self.give_way()  # receive() does not suspend while there is something (FLOW-3)
            if self._held is None:
                message = await receive()
            else:
                message, self._held = self._held, None
            if message.type is _TEXT:
                result = self.text_received(message.data)
            elif message.type is _BINARY:
                result = self.binary_received(message.data)
            else:
                await self._control_received(message)
                continue
            message = None  # an idle channel should not keep the last one alive
            if result is not None:
                await result
                self.running = None
                result = None

    async def _read_ahead(self) -> None:
        self._is_ahead = True
        try:
            while self._held is None and self._phase < OVER:
                message = await self.native.receive()
                if message.type is _TEXT or message.type is _BINARY:
                    self._held = message
                else:
                    await self._control_received(message)
        finally:
            self._is_ahead = False

    async def _control_received(self, message: WSMessage) -> None:
        if message.type is WSMsgType.PING:
            self.ping_received(message.data)
        elif message.type is WSMsgType.PONG:
            self.pong_received(message.data)
        elif message.type is WSMsgType.CLOSE and _is_valid(message.data):
            self.peer_closed(message.data or None, message.extra or "")
        elif message.type is WSMsgType.CLOSE:
            await self._read_rest(1002)
        elif message.type is WSMsgType.ERROR and not isinstance(message.data, OSError):
            await self._read_rest(self._code_of(message.data))
        else:
            if self._failure is not None:
                self.failed(self._code_of(self._failure))
            self.connection_lost()

    def _code_of(self, error: BaseException) -> int:
        """Return the code for aiohttp's own error, or for what zlib raises about data that is not deflated."""
        if self._heads is not None and self._heads.is_too_big:
            return 1009
        return int(error.code) if isinstance(error, WebSocketError) else 1002

    def keep_failure(self) -> None:
        """Keep why the reader failed, which a loss makes it forget."""
        reader = self.native._reader
        if reader is not None and not isinstance(failure := reader.exception(), OSError | None):
            self._failure = failure

    async def _read_rest(self, code: int) -> None:
        """Fail the connection, then wait until the peer ends it or the clock cuts it."""
        if self._transport.is_closing():
            self.failed(code)
            self.connection_lost()
            return
        if self._rest is None:
            self._rest = _Rest(self._transport, self)
            self.failed(code)
        await self._rest.ended.wait()


def _is_valid(code: int) -> bool:
    return code == 0 or is_valid_close_code(code)  # 0: an empty close frame


class _Watch(asyncio.BaseProtocol):
    """Stands before aiohttp's protocol, which passes over a half-close (web_protocol.py), and tells the channel."""

    __slots__ = ("_channel", "_native", "_transport", "data_received")

    def __init__(self, transport: asyncio.Transport, channel: _Channel) -> None:
        native: Any = transport.get_protocol()
        self._native = native
        self._channel = weakref.ref(channel)
        self._transport = transport
        self.pass_to(native.data_received)

    def pass_to(self, data_received: Callable[[bytes], None]) -> None:
        """Have the transport call ``data_received`` for what comes; uvloop looks for it here alone."""
        self.data_received = data_received
        self._transport.set_protocol(self)

    def eof_received(self) -> None:
        if (channel := self._channel()) is not None:
            asyncio.get_running_loop().call_soon(channel.half_closed)  # when it has taken what came before

    def pause_writing(self) -> None:
        self._native.pause_writing()
        if (channel := self._channel()) is not None:
            channel.pause_writing()

    def resume_writing(self) -> None:
        self._native.resume_writing()
        if (channel := self._channel()) is not None:
            channel.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if (channel := self._channel()) is not None:
            channel.keep_failure()
        self._native.connection_lost(exc)
        if (channel := self._channel()) is not None:
            channel.lost_behind_messages()


class _Rest(_Watch):
    """Reads and drops what a peer still sends, and hands the end of the connection on to aiohttp's protocol."""

    __slots__ = ("ended",)

    def __init__(self, transport: asyncio.Transport, channel: _Channel) -> None:
        super().__init__(transport, channel)
        self.ended = asyncio.Event()
        self.pass_to(_drop)
        transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if (channel := self._channel()) is not None:
            channel.connection_lost()
        self.ended.set()


def _drop(data: bytes) -> None:
    pass


class _Heads:
    """Follows the heads of frames where aiohttp's compiled reader is too lenient, and makes it refuse them itself.

    What it marks fails in aiohttp in its turn, behind the messages before it. It costs time for each frame, and so
    stands before a connection only where messages are deflated, or where the limits are none that aiohttp can have:
    aiohttp takes a control frame with RSV1 for a deflated one (RFC 7692, 6.1), and knows one limit for both kinds.

    Attributes:
        is_too_big: Whether what it marked, behind which nothing is read, is a message that is too big.
    """

    __slots__ = ("_deflates", "_left", "_limits", "_pass_on", "_pending", "_skip", "is_too_big")

    def __init__(self, pass_on: Callable[[bytes], None], options: WebSocketOptions[Any], *, deflates: bool) -> None:
        self._pass_on = pass_on
        self._limits = {1: options.max_text_size, 2: options.max_binary_size}
        self._deflates = deflates
        self.is_too_big = False
        self._pending = b""  # the start of a head
        self._skip = 0  # bytes to come of the payload, its mask included
        self._left: int | None = None  # what the message may still be long; None: any length

    def __call__(self, data: bytes) -> None:
        frames = bytearray(self._pending + data)
        self._pending, position = b"", 0
        while position < len(frames):
            if self._skip:
                step = min(self._skip, len(frames) - position)
                self._skip -= step
                position += step
                continue
            extended = {126: 2, 127: 8}.get(frames[position + 1] & 0x7F, 0) if position + 1 < len(frames) else 9
            if len(frames) < position + 2 + extended:
                self._pending = bytes(frames[position:])
                del frames[position:]
                break
            start = position + 2 + extended
            length = int.from_bytes(frames[position + 2 : start]) if extended else frames[position + 1] & 0x7F
            if self._is_too_long(frames[position], length):
                self.is_too_big = True
                frames[position] |= _REFUSED
            elif self._deflates and frames[position] & 0x48 == 0x48:
                frames[position] |= _REFUSED
            self._skip = length + (4 if frames[position + 1] & 0x80 else 0)
            position = start
        self._pass_on(bytes(frames))

    def _is_too_long(self, first: int, length: int) -> bool:
        """Count what a message is long; what is deflated is measured again when it is inflated (`BaseChannel`)."""
        opcode = first & 0x0F
        if opcode >= 8:
            return False
        if opcode:
            limit = self._limits.get(opcode)
            self._left = deflated_limit(limit) if limit is not None and first & 0x40 else limit
        if self._left is None:
            return False
        self._left -= length
        return self._left < 0


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, native: web.BaseRequest) -> None:
        super().__init__(connector, request)
        self._native = native

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.native = _WebSocket(
            protocols=() if subprotocol is None else (subprotocol,),
            autoclose=False,
            autoping=False,
            compress=options.compression is not False,  # where something is agreed on (`_offer`)
            max_msg_size=_native_limit(options),
            writer_limit=_NEVER,
        )
        return channel


class _Protocol(web.RequestHandler):
    """Answers a request that aiohttp fails on, without a word of why: that is for the log."""

    __slots__ = ("__weakref__", "_connector", "_has_failed")

    def __init__(self, connector: Connector, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connector = connector
        self._has_failed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._connector.refuse_http2(cast(asyncio.Transport, transport)):
            super().connection_made(transport)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        is_last = self._has_failed or (isinstance(resp, web.Response) and not resp.keep_alive)
        if is_last and isinstance(self.transport, asyncio.Transport):
            self._connector.drain_answered(plain_connection(self.transport))  # a body, or the rest of what is none
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)
        self._has_failed = True
        if isinstance(exc, LineTooLong) or (isinstance(exc, BadHttpMessage) and exc.message.startswith(_TOO_MANY)):
            status = 431
        response = _native_response(plain_response(status))
        response.force_close()
        return response


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Has a peer's malformed requests logged at the level debug: anybody can send them."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        malformed = isinstance(kwargs.get("exc_info"), HttpProcessingError)
        super().log(logging.DEBUG if malformed else level, msg, *args, **kwargs)


class Connector(BaseConnector):
    """Serves by `aiohttp.web.Server`. ``native_options``: keyword arguments of that class."""

    name = "aiohttp"
    connector_api = 2
    features = ALL_FEATURES - {"fragments"}
    mount_harness = "wsbridge.conformance.harness.aiohttp:serve"
    close_keywords = close_keywords({code.name: code for code in WSCloseCode})
    deviations = AIOHTTP
    native_option_names = frozenset(
        ("access_log", "max_headers", "max_field_size", "max_line_size", "read_bufsize", "tcp_keepalive")
    )

    _server: web.Server

    async def _start(self, sockets: list[socket.socket]) -> None:
        native: dict[str, Any] = {"access_log": None, "logger": _Log(server_logger)}
        native |= dict.fromkeys(("max_line_size", "max_field_size"), self.max_head_size)
        native["lingering_time"] = 0  # for a body: aiohttp would wait for it though the peer has left
        native |= self.native_options
        self._server = web.Server(self._serve)
        native |= {"loop": self.loop, "keepalive_timeout": self.handshake_timeout}
        self.serve_protocols(sockets, partial(_Protocol, self, self._server, **native))

    def _serve(self, native: web.BaseRequest) -> Coroutine[Any, Any, web.StreamResponse]:
        return _answer(self.handle, self, native)

    def _how_taken(self, connection: web.RequestHandler) -> Taken:
        return ENDED if connection.transport is None else of_transport(connection.transport)

    def _cut_answered(self, connection: web.RequestHandler) -> None:
        if connection.transport is not None:
            abort(connection.transport)

    async def _stop(self) -> None:
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=0.1)
        for _ in range(3):
            for connection in self._server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0)


def mount(
    app: web.Application,
    path: str,
    handler: WebSocketOptions[Any] | Application,
    *,
    connector: type[Connector] = Connector,
    **options: Any,
) -> Mount:
    """Serve ``handler`` at ``path`` of an aiohttp application, beside its own routes (MOUNT-1).

    Args:
        app: An application that has not started.
        path: As for ``app.router``, for options; its ``{name}`` parts are the request's ``path_params``. For an
            `Application` a fixed prefix, below which its routes are.
        handler: Options, or a whole application.
        connector: A subclass of `Connector` to use instead.
        options: ``max_channels``, ``max_head_size``, which the server may undercut, ``shutdown_timeout`` and
            ``trusted_proxies`` of the connector.

    Returns:
        The mount; the application's shutdown stops it.
    """
    point = MountPoint(handler, path)
    mounted = Mount(connector(point.app, **options), handler)
    root_path = point.root_path

    async def serve(native: web.Request) -> web.StreamResponse:
        parameters = point.path_params(native.match_info)
        return await _answer(mounted.handle, mounted.connector, native, root_path=root_path, path_params=parameters)

    async def stop(app: web.Application) -> None:
        for channel in mounted.connector.channels:
            cast(_Channel, channel).read_on()
        await mounted.stop()

    if point.has_routes:
        path = f"{root_path}{{tail:/.*|}}" if root_path else "/{tail:.*}"
    app.router.add_route("*", path, serve)
    app.on_shutdown.append(stop)
    return mounted


async def _answer(
    handle: Callable[[Request, BaseSource], Coroutine[Any, Any, BaseChannel | Response]],
    connector: BaseConnector,
    native: web.BaseRequest,
    **request_options: Any,
) -> web.StreamResponse:
    """Answer a request, and live the life of its channel: in one coroutine, since each wakes for a message."""
    if native.version not in (HttpVersion10, HttpVersion11):  # aiohttp would answer by the peer's version
        native.protocol.force_close()
        return _native_response(plain_response(400))
    target = native.raw_path
    request = Request(
        native.method,
        target if target.isascii() else target.encode("utf-8", "surrogateescape").decode("latin-1"),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in native.raw_headers],
        http_version="1.1" if native.version == HttpVersion11 else "1.0",
        native=native,
        **request_parts(native.transport),
        **request_options,
    )
    source = _Source(connector, request, native)
    outcome = await handle(request, source)
    if isinstance(outcome, Response):
        if isinstance(native.protocol, _Protocol):  # in a mount it is the server's of somebody else
            connector.answering(native.protocol)
        return _native_response(outcome)
    assert isinstance(outcome, _Channel)
    channel, headers, ws = outcome, source.response_headers, outcome.native
    for name, value in headers:
        ws.headers.add(name, value)
    ws.headers.setdefault("Server", _SERVER)
    try:
        if isinstance(native.protocol, _Protocol):
            connector.upgraded(native.protocol)
        offer = native.headers.get(_EXTENSIONS)
        if channel.options.compression is not False:
            offer = _offer(request, channel.options)
        writer = await ws.prepare(_fit(native, channel.subprotocol, offer))
        channel.opened(native, writer)
    except BaseException as exc:
        channel.abandon()
        if isinstance(exc, OSError):
            return ws  # the peer has left, which aiohttp finds out again when it finishes the response
        raise
    del handle, request, source, outcome, headers, writer, request_options  # not for the life of the channel
    await channel.run()
    return ws


def _native_response(outcome: Response) -> web.Response:
    response = web.Response(body=outcome.body, status=outcome.status_code)
    response.headers.popall("Content-Type", None)
    for name, value in outcome.headers:
        response.headers.add(name, value)
    response.headers.setdefault("Server", _SERVER)
    if says_close(outcome):
        response.force_close()
    return response


def _fit(native: web.BaseRequest, subprotocol: str | None, offer: str | None) -> web.BaseRequest:
    """Return the request as aiohttp takes it without a word, with ``offer`` for all that is offered, if it is anything.

    What it does not know is a list of protocols in ``Upgrade`` (HS-1) and a second line of subprotocols, and it warns,
    with the peer's list, where none of them is spoken (web_ws.py:317).
    """
    is_fit = native.headers["Upgrade"].lower() == "websocket" and _SUBPROTOCOL not in native.headers
    if is_fit and native.headers.get(_EXTENSIONS) == offer:
        return native
    kept = ("Sec-WebSocket-Key", "Sec-WebSocket-Version")
    headers = [(name, value) for name in kept for value in native.headers.getall(name, ())]
    if subprotocol is not None:
        headers.append((_SUBPROTOCOL, subprotocol))
    if offer is not None:
        headers.append((_EXTENSIONS, offer))
    return native.clone(headers=[("Upgrade", "websocket"), *headers])


def _offer(request: Request, options: WebSocketOptions[Any]) -> str | None:
    """Return what aiohttp shall find offered: what is agreed on, of which it answers all (FRAME-37).

    It takes a window of 15 bits without a word, but is free to agree on a smaller one.
    """
    agreement = agree(request, options.compression)
    if agreement is None:
        return None
    parts = [NAME]
    if agreement.server_max_window_bits is not None:
        parts.append(f"server_max_window_bits={min(agreement.server_max_window_bits, 14)}")
    if agreement.server_no_context_takeover:
        parts.append("server_no_context_takeover")
    return "; ".join(parts)


def _is_native(options: WebSocketOptions[Any]) -> bool:
    """Tell whether aiohttp itself can hold a peer to the limits, as long as nothing is deflated."""
    text, binary = options.max_text_size, options.max_binary_size
    return text == binary and (text is None or text < _HIGHEST)


def _native_limit(options: WebSocketOptions[Any]) -> int:
    """Return ``max_msg_size``: exclusive, 0 for none, and with room for what deflate adds to random bytes."""
    limit = max(size_limit(options.max_text_size), size_limit(options.max_binary_size))
    if options.compression is not False:
        limit = deflated_limit(limit)
    return limit + 1 if limit < _HIGHEST else 0  # without one, `_Heads` refuses what is too big


def _run_now(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a control frame's coroutine, which does not suspend below the writer's limit."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("aiohttp suspended while it wrote a control frame")
