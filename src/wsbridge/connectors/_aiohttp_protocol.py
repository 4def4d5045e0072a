"""aiohttp's protocol of a connection, as `wsbridge.connectors.aiohttp` serves by it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from wsbridge.connector import BaseConnector, plain_connection, plain_response
from wsbridge.connectors._aiohttp_native import end_refused, native_response
from wsbridge.connectors._codecs.aiohttp import HOLDS_BACK
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._codecs.pieces import MAX_EARLY

__all__ = ["PROTOCOL", "Protocol"]

_TOO_MANY = "Too many headers"  # in the message of an exception (_http_parser.pyx, http_parser.py)
_MOST_REQUESTS = 32  # that are read before they are answered


class Protocol(web.RequestHandler):
    """Answers a request that aiohttp fails on, without a word of why: that is for the log."""

    __slots__ = ("__weakref__", "_connector", "_has_failed")

    def __init__(self, connector: BaseConnector, manager: web.Server, **options: Any) -> None:
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
        response = native_response(plain_response(status))
        response.force_close()
        return response


class _OlderProtocol(Protocol):
    """Has limits of its own, as long as aiohttp before 3.14.4 reads by itself.

    There a peer that sends nothing is waited for (web_protocol.py, ``connection_made``), a head is read without an end
    up to 3.13.3, requests are read while one is answered, up to 3.14.0, and so is what follows a handshake.
    """

    __slots__ = ("_head_size", "_is_held")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head_size = 0  # bytes of a head that is not all there
        self._is_held = False
        super().connection_made(transport)
        if self.transport is not None:  # as aiohttp does from 3.14.4 on
            self._keepalive = True
            self._next_keepalive_close_time = self._loop.time() + self.keepalive_timeout
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        native: Any = self
        early: bytes = native._message_tail
        if early:
            if len(early) > MAX_EARLY:
                self._hold()
        elif self._request_count > count:
            self._head_size = 0
            if len(self._messages) >= _MOST_REQUESTS:
                self._hold()
        elif self._reads_head():
            self._head_size += len(data)
            if self._head_size > self._connector.max_head_size:
                self._refuse_head()

    def _hold(self) -> None:
        if not self._is_held and isinstance(self.transport, asyncio.Transport):
            self._is_held = True
            self.transport.pause_reading()

    def _reads_head(self) -> bool:
        if self._messages:
            return bool(self._messages[-1][1].is_eof())
        return self._current_request is None or self._current_request.content.is_eof()

    def _refuse_head(self) -> None:
        if isinstance(self.transport, asyncio.Transport) and self._current_request is None and not self._messages:
            self.transport.write(final_response(plain_response(431), "GET"))
            self._connector.drain_answered(plain_connection(self.transport))
        self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        end_refused(request, resp)
        finished = await super().finish_response(request, resp, start_time)
        if self._is_held and len(self._messages) < _MOST_REQUESTS // 2:
            self._is_held = False
            if isinstance(self.transport, asyncio.Transport):
                self.transport.resume_reading()
        return finished


PROTOCOL: type[Protocol] = Protocol if HOLDS_BACK else _OlderProtocol
"""The one for the version that is installed."""
