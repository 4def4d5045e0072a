"""Tornado's HTTP server and its streams: see the connector, `wsbridge.connectors.tornado`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import weakref
from collections.abc import Generator
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any, cast

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPInputError, HTTPMessageDelegate
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError
from tornado.log import gen_log
from tornado.netutil import ssl_wrap_socket

from wsbridge.connector import (
    GRACE,
    REFUSAL,
    Acceptor,
    BaseConnector,
    HandshakeDeadline,
    begin_later,
    lower,
    plain_response,
)
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._versions import is_older

__all__ = ["IS_OURS", "Answering", "Server", "StreamAcceptor", "end_after", "unsent"]

_BAD_REQUEST = final_response(plain_response(400), "")
_TOO_LARGE = final_response(plain_response(431), "")
_CHUNK = 64 * 1024  # bytes
_NOISE = (
    *("Malformed HTTP message", "Unsatisfiable read", "SSL Error", "Timeout reading body"),
    *("Invalid multipart/form-data", "Unsupported Content-Encoding"),  # before 6.5, of a body that is not there
)
_TAKES_ANY_NAME = is_older("tornado", (6, 5))  # of a header: see `_Checked`
_HEAD = re.compile(
    rb"[\r\n]*+[!#$%&'*+\-.^_`|~0-9A-Za-z]++ [\x21-\x7e\x80-\xff]++ HTTP/[0-9]\.[0-9]\r?\n"
    rb"(?:(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:|[ \t])[\t\x20-\x7e\x80-\xff]*+\r?\n)*+\r?\n"
)

IS_OURS: ContextVar[bool] = ContextVar("wsbridge_tornado", default=False)
"""Set in all that a server of this module runs."""


class ServingConnector(BaseConnector):
    """The part of the connector that keeps tasks and the deadlines of requests."""

    @cached_property
    def _tasks(self) -> set[asyncio.Task[Any]]:
        return set()

    @cached_property
    def _deadlines(self) -> dict[object, HandshakeDeadline]:
        return {}

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it is done, or `stop` ends it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def until_deadline(self, stream: IOStream, timeout: float) -> Generator[None]:
        """Close a stream at the end of a time, or when the block fails."""
        deadline = HandshakeDeadline(self)
        deadline.begin(stream.close, timeout)
        try:
            yield
        except BaseException:
            stream.close()
            raise
        finally:
            deadline.cancel()

    def request_begins(self, connection: HTTP1ServerConnection) -> None:
        """Begin to wait for a request (HS-10)."""
        self.request_complete(connection.context)
        deadline = self._deadlines[connection.context] = HandshakeDeadline(self)
        deadline.begin(connection.stream.close)

    def request_complete(self, context: object) -> None:
        """Wait no longer."""
        if (deadline := self._deadlines.pop(context, None)) is not None:
            deadline.cancel()


class _Checked(HTTP1Connection):
    """Refuses what is no head of a request.

    Before 6.5 any text is a header's name (httputil.py:182), so that ``Transfer-Encoding`` with a blank after it is not
    tornado's, and its body the next request.
    """

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        if _HEAD.fullmatch(data) is None:
            raise HTTPInputError("not the head of a request")
        return super()._parse_headers(data)


class Server(HTTPServer):
    """Ends a connection whose request is not complete in time."""

    connector: ServingConnector
    streams: dict[type[IOStream], type[IOStream]]

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        stream.__class__ = self.streams[type(stream)]
        if isinstance(stream, SSLIOStream):
            task = begin_later(self.connector.loop, self._handle_tls(stream, address))
            task.add_done_callback(lambda task: stream.close() if task.cancelled() else None)  # before its first step
            self.connector.keep(task)
        else:
            self._serve(stream, address)

    def _serve(self, stream: IOStream, address: Any) -> None:
        super().handle_stream(stream, address)  # pyright: ignore[reportUnknownMemberType]

    async def _handle_tls(self, stream: SSLIOStream, address: Any) -> None:
        """Wait for TLS, which tells what the client will speak (HS-18)."""
        with contextlib.suppress(OSError):  # the stream is closed, or TLS was not agreed on
            with self.connector.until_deadline(stream, self.connector.handshake_timeout):
                await stream.wait_for_handshake()
            if not self.connector.is_http2(stream.socket):
                self._serve(stream, address)
                return
            with self.connector.until_deadline(stream, GRACE):
                stream.write(REFUSAL)
                while True:  # what comes is dropped
                    await stream.read_bytes(_CHUNK, partial=True)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        self.connector.request_begins(cast(HTTP1ServerConnection, server_conn))
        if _TAKES_ANY_NAME:
            cast(Any, request_conn).__class__ = _Checked
        delegate = super().start_request(server_conn, request_conn)
        native = delegate.headers_received

        def headers_received(start_line: Any, headers: HTTPHeaders) -> Any:
            try:
                return native(start_line, headers)
            except HTTPInputError:  # a bad Host, for which 6.5 logs a traceback and closes
                stream = cast(HTTP1Connection, request_conn).detach()
                with contextlib.suppress(StreamClosedError):  # the peer has left already
                    stream.write(_BAD_REQUEST).add_done_callback(lambda _: stream.close())

        delegate.headers_received = headers_received  # type: ignore[method-assign]
        return delegate

    def on_close(self, server_conn: object) -> None:
        self.connector.request_complete(cast(HTTP1ServerConnection, server_conn).context)
        super().on_close(server_conn)


class StreamAcceptor(Acceptor):
    """Makes streams of what is accepted, as `tornado.tcpserver.TCPServer` does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sockets: list[socket.socket], server: Server) -> None:
        super().__init__(loop, sockets)
        self._server = server
        self._streams: weakref.WeakSet[IOStream] = weakref.WeakSet()

    def _take(self, connection: socket.socket, address: Any) -> None:
        server = self._server
        sizes = {"max_buffer_size": server.max_buffer_size, "read_chunk_size": server.read_chunk_size}
        if server.ssl_options is None:
            stream = IOStream(connection, **sizes)
        else:
            try:
                secure = ssl_wrap_socket(
                    connection, server.ssl_options, server_side=True, do_handshake_on_connect=False
                )
            except OSError:  # the peer has left already
                connection.close()
                return
            stream = SSLIOStream(secure, **sizes)
        self._streams.add(stream)
        cast(Any, server).handle_stream(stream, address)

    @property
    def is_asked(self) -> bool:
        return any(not stream.closed() for stream in self._streams)

    async def abort(self) -> None:
        for stream in list(self._streams):
            stream.close()


class Answering:
    """A mixin for the streams of one connector: a head that is too large is answered (HS-17), not only cut off."""

    connector: ServingConnector
    error: BaseException | None
    socket: Any

    def close_fd(self) -> None:
        if isinstance(self.error, UnsatisfiableReadError):
            with contextlib.suppress(OSError):
                self.socket.send(_TOO_LARGE)
            if not isinstance(self, SSLIOStream):
                self.connector.drain_answered((self.socket, _nothing_unsent))
        cast(Any, super()).close_fd()


async def end_after(stream: IOStream, data: bytes, connector: ServingConnector) -> None:
    """Write a last answer and close; what the peer still sends is dropped meanwhile."""
    try:
        async with asyncio.timeout(connector.handshake_timeout):
            await stream.write(data)
        if not isinstance(stream, SSLIOStream):
            connector.drain_answered(None if stream.socket is None else (stream.socket, partial(unsent, stream)))
    except (StreamClosedError, TimeoutError):
        pass
    finally:
        stream.close()


def unsent(stream: IOStream) -> int:
    """Return how many bytes a stream holds that are not written to its socket yet."""
    return len(stream._write_buffer or b"")  # pyright: ignore[reportPrivateUsage]


def _nothing_unsent() -> int:
    return 0


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Let pass what tornado logs but for what any peer can cause: that has the level debug here (LOG-1)."""
    if not IS_OURS.get() or not str(record.msg).startswith(_NOISE):
        return True
    return lower(record, gen_log)


gen_log.addFilter(_is_no_noise)
