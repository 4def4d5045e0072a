"""aiohttp's own objects as the connector, `wsbridge.connectors.aiohttp`, needs them, and what aiohttp is handed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from wsbridge import Request, Response, WebSocketOptions
from wsbridge.connector import NAME, BaseChannel, agree, end_of, says_close

__all__ = [
    "SERVER",
    "Log",
    "TlsWriting",
    "WebSocket",
    "end_refused",
    "ending_refused",
    "fit",
    "native_response",
    "run_now",
]

_EXTENSIONS = "Sec-WebSocket-Extensions"
SERVER = "wsbridge"  # where aiohttp would put its own version and Python's
_SUBPROTOCOL = "Sec-WebSocket-Protocol"


class WebSocket(web.WebSocketResponse):
    """A response whose close handshake is left to the channel, and whose first bytes are."""

    begun: Callable[[bytes], None]
    """Called when aiohttp's reader is there, with what came after the request: it may end within a frame, and what
    follows frames must follow these, too."""

    def _pre_start(self, request: web.BaseRequest) -> tuple[str | None, Any]:
        if request.transport is None:  # before 3.14.0 an AssertionError
            raise ConnectionResetError("the peer has left")
        return super()._pre_start(request)

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        connection: Any = request.protocol
        early, connection._message_tail = connection._message_tail, b""
        super()._post_start(request, protocol, writer)
        begun = self.begun
        del self.begun  # which holds the request
        begun(early)

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        return True


class Log(logging.LoggerAdapter[logging.Logger]):
    """Has a peer's malformed requests logged at the level debug: anybody can send them."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        malformed = isinstance(kwargs.get("exc_info"), HttpProcessingError)
        super().log(logging.DEBUG if malformed else level, msg, *args, **kwargs)


def native_response(outcome: Response) -> web.Response:
    """Return a response in plain HTTP as aiohttp takes it."""
    response = web.Response(body=outcome.body, status=outcome.status_code)
    response.headers.popall("Content-Type", None)
    for name, value in outcome.headers:
        response.headers.add(name, value)
    response.headers.setdefault("Server", SERVER)
    if says_close(outcome):
        response.force_close()
    return response


def end_refused(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the connection with an answer that leaves bytes after a handshake unread, before 3.14.4.

    aiohttp parses them as requests, forgets those, and raises if they are none (web_protocol.py, ``finish_response``).
    """
    connection: Any = request.protocol
    if connection._message_tail:
        connection._message_tail = b""
        response.force_close()


@web.middleware
async def ending_refused(request: web.Request, handler: Handler) -> web.StreamResponse:
    """As `end_refused`, for an application that has a mount."""
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        end_refused(request, refusal)
        raise
    end_refused(request, response)
    return response


def fit(native: web.BaseRequest, request: Request, channel: BaseChannel) -> web.BaseRequest:
    """Return the request of a channel as aiohttp takes it without a word, with one offer for all that is offered.

    What it does not know is a list of protocols in ``Upgrade`` (HS-1), a second line of subprotocols and, before 3.14,
    one of ``Connection``, and it warns, with the peer's list, where none of them is spoken (web_ws.py:317).
    """
    subprotocol, offer = channel.subprotocol, native.headers.get(_EXTENSIONS)
    if channel.options.compression is not False:
        offer = _offer(request, channel.options)
    is_fit = native.headers["Upgrade"].lower() == "websocket" and _SUBPROTOCOL not in native.headers
    is_fit = is_fit and "upgrade" in native.headers["Connection"].lower()
    if is_fit and native.headers.get(_EXTENSIONS) == offer:
        return native
    kept = ("Sec-WebSocket-Key", "Sec-WebSocket-Version")
    headers = [(name, value) for name in kept for value in native.headers.getall(name, ())]
    if subprotocol is not None:
        headers.append((_SUBPROTOCOL, subprotocol))
    if offer is not None:
        headers.append((_EXTENSIONS, offer))
    return native.clone(headers=[("Upgrade", "websocket"), ("Connection", "Upgrade"), *headers])


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


def run_now(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a control frame's coroutine, which does not suspend below the writer's limit."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("aiohttp suspended while it wrote a control frame")


class TlsWriting:
    """Stands for the transport of TLS before aiohttp's writer, which asks it whether it is closing: see `end_of`."""

    __slots__ = ("is_closing", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.is_closing = end_of(transport).is_closing
