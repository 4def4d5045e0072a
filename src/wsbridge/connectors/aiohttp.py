"""The aiohttp connector: pulled, one handler task per channel. Tried on aiohttp from 3.11.0 to 3.14.5.

Native -> call: TEXT, BINARY -> ``text_received``, ``binary_received``; PONG -> ``pong_received``; CLOSE ->
``peer_closed``; ERROR -> ``failed``; CLOSED -> ``connection_lost``.

Works around, in `wsbridge.connectors._aiohttp_native`, `wsbridge.connectors._aiohttp_protocol`,
`wsbridge.connectors._aiohttp_reading` and `wsbridge.connectors._codecs.aiohttp` where it is not done here:

- ``receive()`` closes the connection itself on an error, and a ``close()`` from another task skips the close handshake
  (web_ws.py): `WebSocket.close` does nothing, close frames are written as frames.
- A send waits after its frame is written, on a future that all senders share (base_protocol.py), so that cancelling one
  cancels all: ``writer_limit`` is out of reach, and `Watch` tells the channel, whose sends wait before that.
- A deflated message over 16 KiB, 5 up to 3.13.1, is written by an executor, and others overtake it
  (_websocket/writer.py): tracked.
- A half-close goes unnoticed while bytes are unsent: `Watch` stands before aiohttp's protocol.
- After a parser error nothing more is read: `Rest` takes over the transport and drops what comes until its end, so
  that a peer in mid-upload gets to read why.
- Bad offers of deflate are agreed to, quoted ones too, and a window of 15 bits is taken and not told
  (_websocket/helpers.py): aiohttp finds one offer, made of what the core has agreed on (`fit`).
- A control frame with RSV1 is taken for a deflated one, there is one limit for both kinds, and 2**32 - 1 is more than
  the compiled reader takes (reader_c.pxd, ``_max_msg_size``), which fails after the 101: `follow_heads`.
- What came after the request goes into the reader past whoever stands before it, and may end within a frame, so that
  `Heads` would take the rest of that for a head (web_protocol.py, ``set_parser``): `WebSocket._post_start` takes it.
- Close codes 1006 and those over 4999 are taken for valid: they are checked here.
- ``max_msg_size`` is exclusive, and counts deflated bytes first: see `native_limit`.
- With a subprotocol offered that is not spoken it warns, with the peer's list (web_ws.py:317): `fit`.
- A head that is too large is answered with 400, and a body that is left unread is waited for though the peer has left
  (web_protocol.py:696, ``lingering_time``): `Protocol`. Its limits are of a line: the whole is counted afterwards.
- A peer that does not read its answers may stay (web_protocol.py, ``finish_response``): `BaseConnector.answering`.
- A peer is told aiohttp's version, and what its parser thinks of a malformed request: `Protocol`, `SERVER`.

And before 3.14.4, where versions differ at import or for each connection, and never for each message:

- A message is too big when it is all there, and a read is parsed to its end, into a queue that counts no empty messages
  (reader_py.py): `follow_heads` for each connection, and `feeding` in pieces.
- The final blocks of a deflated message are a loop that copies the rest for each, in 3.14.0 to 3.14.3
  (compression_utils.py): `MeasuredHeads` wherever messages are deflated.
- A control frame between fragments ends their being deflated, up to 3.14.1, and a frame that is refused takes those of
  the same read along, up to 3.11.16: `_OlderHeads`, ``_frame_by_frame``.
- There is no time-out before the first request, no end to a head, to the requests behind
  one that is answered, and to what follows a handshake (web_protocol.py): ``_OlderProtocol``.
- What follows a handshake that is refused is parsed and forgotten: `end_refused`, in applications that have a mount
  too.
- The first line of ``Connection`` has to have it all, before 3.14 (web_ws.py, ``_handshake``): `fit`.

Private names are listed in `_PRIVATE`. ``RequestHandler._close``: a runner's ``cleanup()`` sets it before
``on_shutdown`` runs, and what peers answer to the close of a mount would be dropped unread (web_protocol.py,
``data_received``), so that they had to be cut off. ``WebSocketResponse._reader``, the queue of what was read, and its
``_buffer``, pairs of a message and its size: a close frame lies in it unseen while a callback runs, and a violation
that was read then is forgotten when the connection is lost (reader_py.py, ``feed_eof``). ``_writer`` asks the transport
whether it is closing, which over TLS does not tell of a loss: `TlsWriting`.

What it declares is in `wsbridge.connectors._deviations`: an unmasked frame is accepted, and so is a new message after
an empty first fragment; a large message is inflated in the event loop. All of it is done in aiohttp's compiled reader,
which offers no hook. Before 3.14.4 the first two are refused, since heads are looked at; before 3.14 a message after
one that ended with a final block is empty.
"""

from __future__ import annotations

from wsbridge.connectors._versions import check_range

check_range("aiohttp")

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias, cast

from aiohttp import HttpVersion10, HttpVersion11, WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.log import server_logger

from wsbridge import Application, Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ALL_FEATURES,
    CLOSING,
    ENDED,
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
    close_keywords,
    end_writing,
    is_valid_close_code,
    of_transport,
    plain_response,
    request_parts,
    server_names,
)
from wsbridge.connectors._aiohttp_native import (
    SERVER,
    Log,
    TlsWriting,
    WebSocket,
    ending_refused,
    fit,
    native_response,
    run_now,
)
from wsbridge.connectors._aiohttp_protocol import PROTOCOL, Protocol
from wsbridge.connectors._aiohttp_reading import Rest, Watch, feeding
from wsbridge.connectors._codecs.aiohttp import HOLDS_BACK, follow_heads, native_limit
from wsbridge.connectors._deviations import AIOHTTP

__all__ = ["AiohttpChannel", "AiohttpRequest", "Connector", "mount"]

AiohttpRequest: TypeAlias = Request[web.BaseRequest]
"""A `Request` of this connector, for annotations."""

AiohttpChannel: TypeAlias = WebSocketChannel[web.WebSocketResponse]
"""A `WebSocketChannel` of this connector, for annotations."""

_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_NEVER = 2**62  # bytes: a writer limit that is not reached
_LOOK = 0.1  # seconds between two looks whether what came before a half-close is delivered

_PRIVATE = {
    "aiohttp.web:RequestHandler": (
        "_close _current_request _keepalive _keepalive_handle _loop _message_tail _messages _next_keepalive_close_time"
        " _payload_parser _process_keepalive _request_count"
    ),
    "aiohttp.web:WebSocketResponse": "_post_start _pre_start _reader _writer",
    "aiohttp._websocket.reader:WebSocketDataQueue": "_buffer _protocol",
    "aiohttp._websocket.writer": "WEBSOCKET_MAX_SYNC_CHUNK_SIZE",
}
_FOUND = server_names("aiohttp", "3.11.0 to 3.14.5", _PRIVATE)
_SYNC_DEFLATE: int = _FOUND["WEBSOCKET_MAX_SYNC_CHUNK_SIZE"]  # bytes: larger messages are deflated in an executor


# ---- the channel ----------------------------------------------------------------------------------------------------


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
    )

    native: WebSocket
    is_pulled = True

    def begin(self, request: web.BaseRequest, early: bytes) -> None:
        """Take the connection, when the 101 is written; ``early`` has come after the request.

        Raises:
            ConnectionResetError: The peer has left.
        """
        if request.transport is None:
            raise ConnectionResetError("the peer has left")
        self._transport: asyncio.Transport = request.transport
        self._protocol = request.protocol
        self._send_frame = self.native.send_frame
        self._deflates = bool(self.native.compress)
        self._held: WSMessage | None = None
        self._failure: BaseException | None = None  # what was read before the connection was lost, and not told yet
        reader = self.native._reader
        assert reader is not None
        self._queue = reader._buffer
        self._rest: Rest | None = None
        self._is_ahead = False
        watch = Watch(self._transport, self)
        feed = feeding(self._protocol, reader)
        self._heads = follow_heads(feed, self._options, deflates=self._deflates)
        watch.pass_to(feed if self._heads is None else self._heads)
        if early:
            watch.data_received(early)

    def opened(self) -> None:
        """Have what writes, which is ready by now, see a loss below TLS."""
        if self._transport.get_extra_info("ssl_object") is not None:
            writer = self.native._writer
            assert writer is not None
            writer.transport = TlsWriting(self._transport)  # type: ignore[assignment]  # as far as it is used

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

    def lost_after_messages(self) -> None:
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
        run_now(self.native.send_frame(payload, WSMsgType.CLOSE))

    def _ping(self, payload: bytes) -> None:
        run_now(self.native.ping(payload))

    def read_on(self) -> None:
        """Read what the peer answers to a close, though aiohttp's runner has told its protocols to take no more."""
        self._protocol._close = False

    def _pong(self, payload: bytes) -> None:
        run_now(self.native.pong(payload))

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
            self._rest = Rest(self._transport, self)
            self.failed(code)
        await self._rest.ended.wait()


def _is_valid(code: int) -> bool:
    return code == 0 or is_valid_close_code(code)  # 0: an empty close frame


# ---- the source -----------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, native: web.BaseRequest) -> None:
        super().__init__(connector, request)
        self._native = native

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.native = WebSocket(
            protocols=() if subprotocol is None else (subprotocol,),
            autoclose=False,
            autoping=False,
            compress=options.compression is not False,  # where something is agreed on (`fit`)
            max_msg_size=native_limit(options),
            writer_limit=_NEVER,
        )
        return channel


# ---- the connector --------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """Serves by `aiohttp.web.Server`. ``native_options``: keyword arguments of that class."""

    name = "aiohttp"
    connector_api = 2
    features = ALL_FEATURES - {"fragments"}
    mount_harness = "wsbridge.conformance.mounts.aiohttp:serve"
    close_keywords = close_keywords({code.name: code for code in WSCloseCode})
    deviations = AIOHTTP
    native_option_names = frozenset(
        ("access_log", "max_headers", "max_field_size", "max_line_size", "read_bufsize", "tcp_keepalive")
    )

    _server: web.Server

    async def _start(self, sockets: list[socket.socket]) -> None:
        native: dict[str, Any] = {"access_log": None, "logger": Log(server_logger)}
        native |= dict.fromkeys(("max_line_size", "max_field_size"), self.max_head_size)
        native["lingering_time"] = 0  # for a body: aiohttp would wait for it though the peer has left
        native |= self.native_options
        self._server = web.Server(self._serve)
        native |= {"loop": self.loop, "keepalive_timeout": self.handshake_timeout}
        self.serve_protocols(sockets, partial(PROTOCOL, self, self._server, **native))

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


# ---- the receiving side ---------------------------------------------------------------------------------------------


async def _answer(
    handle: Callable[[Request, BaseSource], Coroutine[Any, Any, BaseChannel | Response]],
    connector: BaseConnector,
    native: web.BaseRequest,
    **request_options: Any,
) -> web.StreamResponse:
    """Answer a request, and live the life of its channel: in one coroutine, since each wakes for a message."""
    if native.version not in (HttpVersion10, HttpVersion11):  # aiohttp would answer by the peer's version
        native.protocol.force_close()
        return native_response(plain_response(400))
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
        if isinstance(native.protocol, Protocol):  # in a mount it is the server's of somebody else
            connector.answering(native.protocol)
        return native_response(outcome)
    assert isinstance(outcome, _Channel)
    channel, headers, ws = outcome, source.response_headers, outcome.native
    for name, value in headers:
        ws.headers.add(name, value)
    ws.headers.setdefault("Server", SERVER)
    try:
        if isinstance(native.protocol, Protocol):
            connector.upgraded(native.protocol)
        ws.begun = partial(channel.begin, native)
        await ws.prepare(fit(native, request, channel))
        channel.opened()
    except BaseException as exc:
        channel.abandon()
        if isinstance(exc, OSError):
            return ws  # the peer has left, which aiohttp finds out again when it finishes the response
        raise
    del handle, request, source, outcome, headers, request_options  # not for the life of the channel
    await channel.run()
    return ws


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
    if not HOLDS_BACK and ending_refused not in app.middlewares:
        app.middlewares.append(ending_refused)
    app.on_shutdown.append(stop)
    return mounted
