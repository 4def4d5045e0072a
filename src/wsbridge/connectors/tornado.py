"""The tornado connector: pushed, one task that reads and one that runs callbacks per channel. Tried on 6.4 to 6.6.

Native -> call: ``_handle_message`` -> ``feed``, ``pong_received``, ``peer_closed``; ``_abort`` and ``close`` of the
protocol -> ``failed``; `StreamClosedError` -> ``connection_lost``.

Works around, in `Frames` of `wsbridge.connectors._tornado_frames`, a subclass of `WebSocketProtocol13`, but where told
(lines of tornado 6.6.1, websocket.py):

- A violation or invalid UTF-8 cuts TCP without a word (690), and so does a message too big (1208), before the peer can
  read its close frame: a close frame is written, and what the peer still sends is read and dropped.
- Unmasked frames and RSV1 on control frames are accepted (1189, 1183), reserved opcodes not refused before their
  message is whole, and the size limit holds for control frames too (1208): `_read_bytes` looks at the frame's head.
- A ping between deflated fragments undoes ``_frame_compressed`` (1183): it is put back.
- Any close code is accepted and echoed (1288), and a close lasts 5 s (1361): `_handle_message` is replaced.
- In an offer of deflate, parameters without a value are lost, and bad ones cut TCP (httputil.py:1290, 923):
  `_parse_extensions_header` returns what the core has agreed on.
- What follows a deflated block with BFINAL is lost (826), there is one limit for both kinds, and it cannot be
  ``sys.maxsize`` and more (830): `_inflate`.
- A message sent costs a task (1144), and nothing bounds the write buffer: `_write_frame`, and the channel waits.
- ``get`` checks less than HS-4 (238), and stays for the life of the channel: `_Handler.prepare` answers any method, and
  its task ends there.
- The keep-alive timer covers one wait, and not the body (http1connection.py:229): `Server` of
  `wsbridge.connectors._tornado_server` has a deadline per request, and answers a bad Host, for which 6.5 logs a
  traceback.
- Before 6.5 any text is a header's name, so that a body may be the next request: `Server` has each head checked. A
  mount has the heads that the application's own server takes.
- A head that is too large is cut off without an answer (iostream.py:986): `Answering`, there. A body is read before the
  handler runs (web.py:2636), and ``Connection: close`` replaces what else the header says (http1connection.py:481):
  `_BodyHandler`, `_Handler._respond_and_close`.
- It logs each malformed request, with the peer's words, and each failed TLS handshake (http1connection.py:344,
  iostream.py:1452): a filter, there.
- A peer that does not read its answers may stay (http1connection.py:583): `BaseConnector.answering`.
- ``close_all_connections`` forgets WebSockets (httpserver.py:211): the connector keeps their reading tasks.

It declares no deviation. Private names are listed in `_PRIVATE` and looked for at import.
"""

from __future__ import annotations

from wsbridge.connectors._versions import check_range

check_range("tornado")

import asyncio
import logging
import re
import socket
import struct
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias, cast
from urllib.parse import quote

from tornado import web
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream, SSLIOStream
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from wsbridge import Application, Request, Response, WebSocketChannel, WebSocketOptions
from wsbridge.connector import (
    ENDED,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Connection,
    Feature,
    Mount,
    MountPoint,
    Taken,
    agree,
    begin_later,
    content_of,
    of_socket,
    peer_address,
    plain_response,
    says_close,
    server_names,
    settle,
    shown,
)
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._tornado_frames import BINARY, CLOSE, PING, PONG, TEXT, FrameChannel, Frames, Terms, read
from wsbridge.connectors._tornado_server import (
    IS_OURS,
    Answering,
    Server,
    ServingConnector,
    StreamAcceptor,
    end_after,
    unsent,
)

__all__ = ["Connector", "TornadoChannel", "TornadoRequest", "mount"]

TornadoRequest: TypeAlias = Request[HTTPServerRequest]
"""A `Request` of this connector, for annotations."""

TornadoChannel: TypeAlias = WebSocketChannel[WebSocketHandler]
"""A `WebSocketChannel` of this connector, for annotations."""

logger = logging.getLogger("wsbridge")

_PRIVATE = {
    "tornado.websocket:WebSocketProtocol13": "_abort _compressor _decompressor _frame_compressed _handle_message "
    "_fragmented_message_opcode _parse_extensions_header _read_bytes _receive_frame _receive_frame_loop _write_frame",
    "tornado.iostream:BaseIOStream": "_write_buffer",
    "tornado.websocket:_PerMessageDeflateDecompressor": "_create_decompressor _decompressor _max_wbits",
}
server_names("tornado", "6.4 to 6.6", _PRIVATE)

_Handle = Callable[[Request, BaseSource], Coroutine[Any, Any, BaseChannel | Response]]


# ---- the channel ----------------------------------------------------------------------------------------------------


class _Channel(FrameChannel):
    __slots__ = ("_frames", "_stream")

    native: _Handler

    def prepare(self, handler: _Handler) -> None:
        """Take the options as tornado wants them."""
        self.native = handler
        self.terms = cast(Connector, self._connector).terms_of(self._options)
        self.gate = None

    def opened(self, frames: Frames) -> None:
        """Take the connection, when the 101 is written."""
        self._frames = frames
        self._stream = stream = frames.stream
        if stream.closed():
            self.abandon()
            return
        stream.set_nodelay(True)
        stream.max_buffer_size = sys.maxsize  # the limit is the message's
        loop = self._connector.loop
        begin_later(loop, self.run())
        cast(Connector, self._connector).keep(begin_later(loop, read(frames)))

    def _send_text(self, text: str) -> Awaitable[object] | None:
        return self._frames.send(TEXT, text.encode())

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        return self._frames.send(BINARY, data)

    def send_large(self, deflate: Callable[[], bytes], write: Callable[[bytes], None]) -> Awaitable[object]:
        """Deflate a large message outside the event loop, and write it."""
        return self._send_large(self._deflated(deflate, write))

    def _is_full(self) -> bool:
        return self._stream.writing()

    def _close(self, code: int | None, text: str) -> None:
        self._frames.send_control(CLOSE, b"" if code is None else struct.pack("!H", code) + text.encode())
        self._frames.server_terminated = True

    def _ping(self, payload: bytes) -> None:
        self._frames.send_control(PING, payload)

    def _pong(self, payload: bytes) -> None:
        self._frames.send_control(PONG, payload)

    def written(self, future: asyncio.Future[None]) -> None:
        """Take it that the write buffer is empty, or the connection gone."""
        if not self._stream.writing():  # after a message and a control frame there are two to wait for
            self.resume_writing()

    def _disconnect(self, *, half: bool) -> None:
        """`read` does."""

    def _drainable(self) -> Connection | None:
        stream = self._stream
        return None if stream.socket is None else (stream.socket, partial(unsent, stream))

    def _aborter(self) -> Callable[[], object]:
        return partial(_close_if_there, weakref.ref(self._stream))

    def _unsent_bytes(self) -> int:
        return unsent(self._stream)

    def _hold_reading(self) -> None:
        self.gate = self._connector.loop.create_future()

    def _resume_reading(self) -> None:
        if self.gate is not None and not self.gate.done():
            self.gate.set_result(None)
        self.gate = None


def _close_if_there(reference: Callable[[], IOStream | None]) -> None:
    """Close a stream that has not ended; one that has is not kept, nor what it knows of TLS."""
    if (stream := reference()) is not None:
        stream.close()


# ---- the source -----------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def __init__(self, connector: BaseConnector, request: Request, handler: _Handler) -> None:
        super().__init__(connector, request)
        self._handler = handler

    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = self._handler.channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.prepare(self._handler)
        return channel


# ---- the connector --------------------------------------------------------------------------------------------------


class Connector(ServingConnector):
    """Serves by `tornado.httpserver.HTTPServer`. ``native_options``: keyword arguments of that class."""

    name = "tornado"
    connector_api = 2
    features = BaseConnector.features | frozenset[Feature](("mount",))
    mount_harness = "wsbridge.conformance.mounts.tornado:serve"
    compression_settings = frozenset(("window_bits", "memory_level", "context_takeover"))
    native_option_names = frozenset(("chunk_size", "max_body_size", "max_header_size"))

    _server: Server

    _terms: Terms | None = None

    def terms_of(self, options: WebSocketOptions[Any]) -> Terms:
        """Return options as tornado wants them; those of the last channel are kept, mostly all have the same."""
        if self._terms is None or self._terms.options is not options:
            self._terms = Terms(options)
        return self._terms

    async def _start(self, sockets: list[socket.socket]) -> None:
        native: dict[str, Any] = {"max_header_size": self.max_head_size, **self.native_options}
        self._server = Server(_Application(self), ssl_options=self.ssl, **native)
        self._server.connector = self
        self._server.streams = {
            kind: cast("type[IOStream]", type(kind.__name__, (Answering, kind), {"connector": self}))
            for kind in (IOStream, SSLIOStream)
        }
        context = copy_context()
        context.run(IS_OURS.set, True)
        context.run(self.accept, StreamAcceptor(self.loop, sockets, self._server))

    def _how_taken(self, connection: IOStream) -> Taken:
        sock = connection.socket
        return ENDED if sock is None else of_socket(sock, is_held=bool(unsent(connection)))

    def _cut_answered(self, connection: IOStream) -> None:
        connection.close()

    async def _stop(self) -> None:
        await self._server.close_all_connections()
        for task in self._tasks:
            task.cancel()
        await settle(self._tasks)


# ---- the receiving side ---------------------------------------------------------------------------------------------


class _AnyMethod(tuple[str, ...]):
    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        return True


class _Handler(WebSocketHandler):
    """One request."""

    # beside the dictionary of tornado's class, as in `Frames`
    __slots__ = ("_connector", "_handle", "_point", "channel")

    SUPPORTED_METHODS = _AnyMethod()  # HS-4 decides
    channel: _Channel

    def initialize(self, connector: Connector, handle: _Handle, point: MountPoint | None = None) -> None:
        self._connector = connector
        self._handle = handle
        self._point = point

    async def prepare(self) -> None:
        """Answer the request."""
        native = self.request
        connection: Any = native.connection
        context = connection.context
        task: Any = asyncio.current_task()
        self._connector.keep(task)
        self._connector.request_complete(context)
        stream: IOStream = connection.stream
        point = self._point
        groups: dict[Any, Any] = {**dict(enumerate(self.path_args, 1)), **self.path_kwargs}
        request = Request(
            native.method or "",
            native.uri or "",
            headers=native.headers.get_all(),
            scheme="wss" if native.protocol == "https" else "ws",
            http_version=native.version.removeprefix("HTTP/"),
            remote_address=peer_address(context.address),
            tls=stream.socket if isinstance(stream, SSLIOStream) else None,
            native=native,
            root_path="" if point is None else point.root_path,
            path_params=None if point is None else point.path_params(groups),
        )
        source = _Source(self._connector, request, self)
        outcome = await self._handle(request, source)
        if isinstance(outcome, Response):
            self._respond(outcome)
            return
        try:
            self._add_headers(source.response_headers)
            self._connector.upgraded(stream)
            self.open_args, self.open_kwargs = (), {}
            self.ws_connection = frames = self.get_websocket_protocol()
            frames.agreement = agree(request, self.channel.options.compression)
            await self.ws_connection.accept_connection(self)
        except BaseException:
            outcome.abandon()
            raise

    def _respond(self, response: Response) -> None:
        connection: Any = self.request.connection
        stream: IOStream = connection.stream
        self.set_status(response.status_code)
        self._add_headers(response.headers)
        self._connector.answering(stream)
        if says_close(response):
            self._respond_and_close(response)
            return
        finish = cast("Callable[[bytes | None], object]", self.finish)  # pyright: ignore[reportUnknownMemberType]
        length, content = content_of(response, "GET")  # what is left out for HEAD tornado leaves out
        finish(None if length is None else content)

    def _respond_and_close(self, response: Response) -> None:
        """Answer where the connection ends after it: tornado would say so in another way, or read a body first."""
        data = final_response(response, self.request.method or "")
        stream = self.detach()
        self._connector.keep(begin_later(self._connector.loop, end_after(stream, data, self._connector)))
        self.application.log_request(self)

    def _add_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        for name, value in headers:
            value.encode("latin-1")  # which tornado does when it is too late
            self.add_header(name, value)

    def get_websocket_protocol(self) -> Frames:
        return Frames(self, self.channel, cast(WebSocketProtocol13, super().get_websocket_protocol()).params)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return self.channel.subprotocol

    def decode_argument(self, value: bytes | None, name: str | None = None) -> Any:
        return None if value is None else value.decode("utf-8", "replace")

    def check_xsrf_cookie(self) -> None:
        """HS-6 is the protection."""

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.clear_header("Content-Type")

    def compute_etag(self) -> None:
        return None

    def check_etag_header(self) -> bool:
        return False

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self._respond(plain_response(status_code))

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not isinstance(value, web.HTTPError):
            logger.error("the request for %s failed", shown(self.request.uri or ""), exc_info=value)


@web.stream_request_body
class _BodyHandler(_Handler):
    """One request that has a body, which is not read (HS-16)."""

    __slots__ = ()


class _Application(web.Application):
    """Hands every request to a handler of ours."""

    def __init__(self, connector: Connector) -> None:
        super().__init__(log_function=_log_nothing)
        self._arguments = {"connector": connector, "handle": connector.handle}

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        has_body = "Transfer-Encoding" in request.headers or request.headers.get("Content-Length", "0") != "0"
        return self.get_handler_delegate(request, _BodyHandler if has_body else _Handler, self._arguments)


def _log_nothing(handler: web.RequestHandler) -> None:
    """Write no access log."""


def mount(
    app: web.Application,
    path: str,
    handler: WebSocketOptions[Any] | Application,
    *,
    connector: type[Connector] = Connector,
    **options: Any,
) -> Mount:
    """Serve ``handler`` at ``path`` of a tornado application, beside its own routes and before them (MOUNT-1).

    Args:
        app: An application.
        path: For options a regular expression, as for the application's own routes; its named groups are the request's
            ``path_params``, unnamed ones by their number from ``"1"``. For an `Application` a fixed prefix, below which
            its routes are.
        handler: Options, or a whole application.
        connector: A subclass of `Connector` to use instead.
        options: ``max_channels``, ``max_head_size``, which the server may undercut, ``shutdown_timeout`` and
            ``trusted_proxies`` of the connector.

    Returns:
        The mount. Tornado has no shutdown hook: await its ``stop()``.
    """
    point = MountPoint(handler, path)
    mounted = Mount(connector(point.app, **options), handler)
    if point.has_routes:
        path = re.escape(quote(point.root_path, "/:@!$&'()*+,;=")) + "(?:/.*)?"
    arguments = {"connector": mounted.connector, "handle": mounted.handle, "point": point}
    app.add_handlers(".*$", [(path, _Handler, arguments)])
    return mounted
