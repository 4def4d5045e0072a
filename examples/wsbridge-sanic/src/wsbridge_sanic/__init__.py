"""A wsbridge connector for Sanic. Read and tried on Sanic 25.3 to 25.12 with websockets 16.0 to 17.4.

Native -> call: TEXT, BINARY, CONT in ``recv_frame`` -> ``feed``; PONG -> ``pong_received``; CLOSE -> ``peer_closed``;
``parser_exc`` -> ``failed``; ``eof_received``, ``connection_lost`` -> ``connection_lost``; ``pause_writing`` and
``resume_writing`` -> their namesakes.

Works around:

- Sanic answers a request by its router, its middleware and `HTTPResponse`, which overwrites ``Connection``: here
  ``request_handler`` is `_Connection.answer`, which asks wsbridge and writes what it says.
- Sanic cancels the task that answers a request when the connection is lost, and the callbacks with it: a channel runs
  in a task of its own.
- `WebsocketImplProtocol` makes a task of each read, raises invalid UTF-8 in it, where nobody looks, and forgets a close
  that comes while nobody waits in ``recv()``; its ``send()`` raises `CancelledError` when the peer is gone. Its core,
  websockets' `ServerProtocol`, is spoken to directly, and hands on each frame in `_Core.recv_frame`.
- That core takes a close inside a fragmented message for a violation. It answers pings behind its own close frame, and
  without a bound those of a peer that does not read: the channel does it.
- Sanic answers a head beyond ``REQUEST_MAX_HEADER_SIZE`` with 413, and never takes more than 16 KiB: `_Http` has the
  connector's limit.
- Sanic gives a peer that does not read its answer 5 seconds of its own, and closes while something is unread, which
  resets the connection: ``BaseConnector.answering``, ``drain_answered`` in `_Connection.close`.
- Sanic's server is asyncio's, which forgets who waits at a stop, and floods the log without descriptors: its protocol
  class alone is used, by ``BaseConnector.serve_protocols``.
- Sanic's time limits begin anew with each byte: ``check_timeouts`` does nothing, the connector's clock bounds the
  request. It fails on a request whose URL is none, while it makes an error page of it: see `_Request`.

Names that nobody documents: ``recv_frame``, ``current_size``, ``parser_exc``, ``close_sent`` and ``close_rcvd`` of
websockets, which are listed in `_PRIVATE`; those of Sanic's protocols and of its `Http`, which are public otherwise.

It lacks compression, which Sanic does not negotiate, and a mount: an application of Sanic's own brings its own protocol
class, which leaves no place for `_Connection`. It declares two deviations: see `Connector.deviations`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from sanic import Sanic
from sanic.exceptions import BadRequest, PayloadTooLarge, SanicException
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.models.server_types import Signal
from sanic.request import Request as NativeRequest
from sanic.server.protocols.websocket_protocol import WebSocketProtocol
from sanic.server.websockets.impl import WebsocketImplProtocol
from websockets.exceptions import InvalidState, PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from wsbridge import Request, Response, WebSocketOptions
from wsbridge.connector import (
    MAX_CONTROL,
    BaseChannel,
    BaseConnector,
    BaseSource,
    Deviation,
    FrameError,
    HandshakeDeadline,
    MessageAssembler,
    Taken,
    TransportChannel,
    abort,
    close_keywords,
    closing,
    content_of,
    end_of,
    of_transport,
    plain_connection,
    request_parts,
    server_names,
    settle,
)

__all__ = ["Connector"]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5


_PRIVATE = {"websockets.server:ServerProtocol": "recv_frame current_size parser_exc close_sent close_rcvd"}
server_names("websockets", "16.0 to 17.4", _PRIVATE)


# ---- the channel ----------------------------------------------------------------------------------------------------


class _Channel(TransportChannel):
    __slots__ = ("core", "wire_end")

    native: _WebSocket
    core: _Core
    closed_errors = (InvalidState,)

    def opened(self, native: _WebSocket, transport: asyncio.Transport) -> None:
        """Take the connection, when the 101 is written."""
        self.native = native
        self._transport = transport
        self.wire_end = end_of(transport)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _send_text(self, text: str) -> None:
        self.core.send_text(text.encode())
        self.write()

    def _send_binary(self, data: bytes) -> None:
        self.core.send_binary(data)
        self.write()

    def _close(self, code: int | None, text: str) -> None:
        if self.core.state is State.OPEN:
            self.core.send_close(code, text)
        self.write()

    def _ping(self, payload: bytes) -> None:
        self.core.send_ping(payload)
        self.write()

    def _pong(self, payload: bytes) -> None:
        self.core.send_pong(payload)
        self.write()

    def write(self) -> None:
        """Write what the core has to say; the mark of the end, an empty one, is left to the channel."""
        data = b"".join(self.core.data_to_send())
        if data and not self.wire_end.is_closing():  # asyncio warns of each write from the sixth on (LOG-3)
            self._transport.write(data)


# ---- the source -----------------------------------------------------------------------------------------------------


class _Source(BaseSource):
    def _make_channel(self, options: WebSocketOptions[Any], subprotocol: str | None) -> _Channel:
        channel = _Channel(self.connector, self.request, options, subprotocol)
        channel.core = _Core(channel, MessageAssembler(options.max_text_size, options.max_binary_size))
        return channel

    def accept(self, channel: _Channel) -> bytes:
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


# ---- the connector --------------------------------------------------------------------------------------------------


class Connector(BaseConnector):
    """Serves by Sanic's own server. ``native_options``: two settings of `sanic.config.Config`."""

    name = "sanic"
    connector_api = 2
    features = BaseConnector.features - {"compression"}
    close_keywords = close_keywords({code.name: code for code in CloseCode})
    deviations: ClassVar[Mapping[str, Deviation]] = MappingProxyType(
        {
            "LIM-1/smaller-limit-at-once": Deviation(
                "peer saw 1009 or still open",
                "websockets' core takes one limit, for both kinds of message and for control frames, and no hook sees "
                "the head of a frame: it is given the larger one; what is over the smaller is refused when it is in",
            ),
            "LIM-1/a-head-that-is-cut": Deviation(
                "peer saw 1009 or still open",
                "the same: the larger of two limits is that of both kinds",
            ),
            "LIM-6/held-to-any-limit": Deviation(
                "peer saw 1009 or still open",
                "the same: of two limits that differ the core is given the larger one, and none beside a None",
            ),
        }
    )
    native_option_names: ClassVar[frozenset[str]] = frozenset(("REQUEST_BUFFER_SIZE", "REQUEST_MAX_SIZE"))

    tasks: set[asyncio.Task[Any]]
    _native: Sanic[Any, Any]

    async def _start(self, sockets: list[socket.socket]) -> None:
        name = f"wsbridge-{secrets.token_hex(8)}"
        native = self._native = Sanic(name, request_class=_Request, configure_logging=False)
        # TOUCHUP rewrites methods of Sanic's classes, LOG_EXTRA unset writes to the environment: for the whole process
        native.config.update({"AUTO_EXTEND": False, "LOG_EXTRA": False, "TOUCHUP": False, **self.native_options})
        native.signalize(allow_fail_builtin=False)
        native.ctx.connector = self
        self.tasks = set()
        options: dict[str, Any] = {"loop": self.loop, "app": native, "connections": set(), "signal": Signal()}
        self.serve_protocols(sockets, partial(_Connection, **options))

    def _how_taken(self, connection: _Connection) -> Taken:
        return of_transport(connection.transport)

    def _cut_answered(self, connection: _Connection) -> None:
        abort(connection.transport)

    async def _stop(self) -> None:
        await settle(self.tasks)
        Sanic.unregister_app(self._native)


# ---- the receiving side ---------------------------------------------------------------------------------------------


class _Request(NativeRequest):
    """Sanic's request. The empty one of an error page is made of a URL that may be what was wrong, and would raise."""

    def __init__(self, **options: Any) -> None:
        if options["method"] == "NONE":
            options["url_bytes"] = b"*"
        super().__init__(**options)


class _Http(Http):
    """Sanic's parser of requests, with the connector's limit for a head."""

    protocol: _Connection

    @property
    def HEADER_MAX_SIZE(self) -> int:  # type: ignore[override]
        """Where the empty line behind a head must have begun."""
        return self.protocol.connector.max_head_size - 3

    async def error_response(self, exception: Exception) -> None:
        """Refuse what Sanic cannot read; a head that is too large with 431, for Sanic's own 413."""
        if self.stage is Stage.REQUEST and isinstance(exception, PayloadTooLarge):
            exception = SanicException("Request Header Fields Too Large", status_code=431, quiet=True)
        self.protocol.connector.answering(self.protocol)
        await super().error_response(exception)


class _Connection(WebSocketProtocol):
    """A connection: Sanic parses the request, wsbridge answers it, and what comes behind it goes to a channel."""

    __slots__ = ("__weakref__", "connector", "deadline")

    HTTP_CLASS = _Http

    websocket: _WebSocket | None
    transport: asyncio.Transport

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.connector: Connector = self.app.ctx.connector
        self.request_handler = self.answer
        self.deadline = HandshakeDeadline(self.connector)

    # ---- the handshake ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        if self.connector.refuse_http2(transport):
            return
        super().connection_made(transport)
        self.connector.tasks.add(self._task)
        self._task.add_done_callback(self.connector.tasks.discard)
        self.deadline.begin(transport.abort)

    async def connection_task(self) -> None:
        """Begin in the next turn: an eager task would begin before Sanic's `connection_made` has made its buffer."""
        await asyncio.sleep(0)
        await super().connection_task()

    def check_timeouts(self) -> None:
        """Do nothing; Sanic would look here for requests and answers that take too long."""

    async def answer(self, native: NativeRequest) -> None:
        """Answer a request, as Sanic's application would."""
        self.deadline.cancel()
        stream: Any = native.stream
        stream.keep_alive = False
        request = _make_request(native, self.transport)
        source = _Source(self.connector, request)
        outcome = await self.connector.handle(request, source)
        if isinstance(outcome, Response):
            self.connector.answering(self)
            await self.send(_plain(outcome, request.method))
            stream.stage = Stage.IDLE
        else:
            await self._open(outcome, source)
            stream.upgrade_websocket = True

    async def _open(self, channel: BaseChannel, source: _Source) -> None:
        assert isinstance(channel, _Channel)
        self.connector.upgraded(self)
        self.transport.pause_reading()  # what comes now, the end too, is for the channel (HS-11)
        try:
            await self.send(source.accept(channel))
        except BaseException:
            channel.abandon()
            raise
        self.websocket = _WebSocket(self, channel)
        self.loop.create_task(channel.run())
        self.loop.call_soon(self._read_early)  # when on_open has begun

    def _read_early(self) -> None:
        """Take what came behind the request, and read on."""
        assert self.websocket is not None
        early = bytes(self.recv_buffer)
        self.recv_buffer.clear()
        self.transport.resume_reading()
        if early:
            self.websocket.data_received(early)

    def close(self, timeout: float | None = None) -> None:
        """Close a connection with which Sanic is done, unless it is a channel's by now."""
        if self.websocket is None and not self.transport.is_closing():
            self.connector.drain_answered(plain_connection(self.transport))  # what is unread would reset it
            self.transport.close()

    # ---- the channel; data_received and eof_received call their namesakes of the websocket --------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.websocket is not None:
            self.websocket.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.websocket is not None:
            self.websocket.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline.cancel()
        super().connection_lost(exc)


class _WebSocket(WebsocketImplProtocol):
    """Sanic's WebSocket, whose receiving side feeds a channel."""

    ws_proto: _Core

    def __init__(self, connection: _Connection, channel: _Channel) -> None:
        super().__init__(channel.core, ping_interval=None)
        self.io_proto, self.loop = connection, connection.loop
        self.channel = channel
        channel.opened(self, connection.transport)

    def data_received(self, data: bytes) -> None:
        core = self.ws_proto
        core.receive_data(data)
        self.channel.write()
        if core.parser_exc is not None and core.close_sent is not None:
            self.channel.failed(int(core.close_sent.code), core.close_sent.reason)

    def eof_received(self) -> bool:
        self.channel.half_closed()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.channel.connection_lost()

    def pause_writing(self) -> None:
        self.channel.pause_writing()

    def resume_writing(self) -> None:
        self.channel.resume_writing()


class _Core(ServerProtocol):
    """The protocol inside Sanic's WebSocket, which hands on each frame as soon as it is parsed."""

    def __init__(self, channel: _Channel, assembler: MessageAssembler) -> None:
        self._max_size = assembler.frame_limit()
        super().__init__(state=State.OPEN, max_size=self._max_size)
        self._channel = channel
        self._assembler = assembler

    def recv_frame(self, frame: Frame) -> None:
        channel, opcode = self._channel, frame.opcode
        if opcode is Opcode.PING:
            channel.ping_received(bytes(frame.data))
            return
        if opcode is Opcode.CLOSE:
            self.current_size = None  # no message is begun: a close may come inside one (RECV-9)
        super().recv_frame(frame)
        self.events.clear()  # or they would be kept until the whole read is parsed, with what they hold
        if self.current_size is not None and self._max_size is not None:  # control frames count too: leave room
            self.current_size = min(self.current_size, self._max_size - MAX_CONTROL)
        if opcode is Opcode.PONG:
            channel.pong_received(bytes(frame.data))
        elif opcode is Opcode.CLOSE:
            assert self.close_rcvd is not None
            channel.peer_closed(self.close_rcvd.code if frame.data else None, self.close_rcvd.reason)
        else:
            self._data_received(frame)

    def _data_received(self, frame: Frame) -> None:
        """Put messages together; what is raised here closes with 1009 or 1007."""
        try:
            message = self._assembler.add(frame.opcode, frame.data, fin=frame.fin)
        except FrameError as exc:
            cause = exc.__cause__
            if isinstance(cause, UnicodeDecodeError):
                raise UnicodeDecodeError(*cause.args) from None
            raise PayloadTooBig(None, self._assembler.left(frame.opcode)) from None
        if message is not None:
            self._channel.feed(message)


def _make_request(native: NativeRequest, transport: asyncio.Transport) -> Request:
    headers = [(_as_sent(name), _as_sent(value).strip()) for name, value in native.headers.items()]
    if not all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in headers):
        raise BadRequest("Bad Request")
    return Request(
        native.method,
        native.raw_url.decode("latin-1"),
        headers=[(name.decode(), value.decode("latin-1")) for name, value in headers],
        http_version=native.version,
        native=native,
        **request_parts(transport),
    )


def _as_sent(text: str) -> bytes:
    """Return what Sanic has decoded."""
    return text.encode("utf-8", "surrogateescape")


def _plain(response: Response, method: str) -> bytes:
    """Return a response in plain HTTP, behind which the connection is closed."""
    headers = closing(response).headers.copy()
    headers.remove("Transfer-Encoding")
    headers.remove("Content-Length")
    length, content = content_of(response, method)
    if length is not None:
        headers["Content-Length"] = str(length)
    return _head(response.status_code, headers) + content


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    return format_http1_response(status, [(name.encode(), value.encode("latin-1")) for name, value in headers])
