"""The protocol of a connection: one request, by h11; what comes after the 101 goes to a `FrameReader`."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import h11
from wsproto.utilities import generate_accept_token

from wsbridge import Request, Response
from wsbridge.connector import (
    LARGE,
    BaseConnector,
    HandshakeDeadline,
    begin_later,
    closing,
    content_of,
    plain_connection,
    plain_response,
    request_parts,
)
from wsbridge_wsproto._reading import FrameReader

_HOST, _ALIAS = re.compile(rb"(?im)^host(?=:)"), f"x-{secrets.token_hex(16)}".encode()


class Connection(asyncio.Protocol):
    """A connection that was accepted."""

    transport: asyncio.Transport

    def __init__(self, connector: BaseConnector, make_source: Callable[[Connection, Request], Any]) -> None:
        self.connector, self.make_source = connector, make_source
        self.deadline = HandshakeDeadline(connector)
        self.http = h11.Connection(h11.SERVER)
        self.early = bytearray()  # what is read before the 101
        self.task: asyncio.Task[None] | None = None  # of the request, and then of the channel
        self.reader: FrameReader | None = None  # as soon as the 101 is written
        self.is_over = False  # what still comes is dropped

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.is_over = self.connector.refuse_http2(transport)
        if not self.is_over:
            self.deadline.begin(transport.abort)

    def data_received(self, data: bytes) -> None:
        if self.reader is not None:
            self.reader.receive(data)
        elif not self.is_over:
            self.early += data
            if self.task is None:
                self.read_head()
            elif len(self.early) > LARGE:
                self.transport.pause_reading()

    def eof_received(self) -> None:  # the transport closes when all is written
        if self.reader is not None and self.reader.channel is not None:
            self.reader.end(self.reader.channel.half_closed)

    def connection_lost(self, error: Exception | None) -> None:
        self.deadline.cancel()
        if self.reader is None and self.task is not None and not self.is_over:
            self.task.cancel()  # it is in `handle`; in `run` nothing but a stop may cancel it
        elif self.reader is not None and self.reader.channel is not None:
            self.reader.end(self.reader.channel.connection_lost)
        self.is_over = True

    def pause_writing(self) -> None:
        if self.reader is not None and self.reader.channel is not None:
            self.reader.channel.pause_writing()

    def resume_writing(self) -> None:
        if self.reader is not None and self.reader.channel is not None:
            self.reader.channel.resume_writing()

    # ---- the request ------------------------------------------------------------------------------------------------

    def read_head(self) -> None:
        limit = self.connector.max_head_size
        size = self.early.find(b"\r\n\r\n", 0, limit) + 4
        if size < 4 and len(self.early) < limit:
            return
        self.deadline.cancel()
        if size < 4:
            self.answer(plain_response(431))
            return
        try:
            self.http.receive_data(_HOST.sub(_ALIAS, self.early[: size - 2]) + b"Host: h11\r\n\r\n")
            native = self.http.next_event()
            if not isinstance(native, h11.Request) or not native.http_version.startswith(b"1."):
                raise h11.RemoteProtocolError("not HTTP/1")
        except h11.RemoteProtocolError as error:
            self.answer(plain_response(error.error_status_hint))
            return
        del self.early[:size]
        headers = [(name, value.decode("latin-1")) for name, value in native.headers.raw_items()][:-1]
        request = Request(
            native.method.decode(),
            native.target.decode(),
            headers=[("Host" if name == _ALIAS else name.decode(), value) for name, value in headers],
            http_version=native.http_version.decode(),
            native=native,
            **request_parts(self.transport),
        )
        self.task = begin_later(self.connector.loop, self.serve(request))

    async def serve(self, request: Request) -> None:
        source = self.make_source(self, request)
        outcome = await self.connector.handle(request, source)
        if isinstance(outcome, Response):
            self.answer(outcome, request.method)
        elif self.transport.is_closing():
            outcome.abandon()
        else:
            self.accept(source, outcome)
            await outcome.run()

    def answer(self, response: Response, method: str = "GET") -> None:
        self.is_over = True
        if self.transport.is_closing():
            return
        headers = closing(response).headers.copy()
        headers.remove("Transfer-Encoding")
        headers.remove("Content-Length")
        length, content = content_of(response, method)
        if length is not None:
            headers["Content-Length"] = str(length)
        head = h11.Response(status_code=response.status_code, headers=_as_bytes(headers), reason=response.status[4:])
        self.connector.answering(self)
        self.transport.write(self.http.send(head) + content)
        self.connector.drain_answered(plain_connection(self.transport))  # what is unread would reset it
        self.transport.close()

    def accept(self, source: Any, channel: Any) -> None:
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), *source.response_headers]
        key = source.request.headers["Sec-WebSocket-Key"].encode()
        headers.append(("Sec-WebSocket-Accept", generate_accept_token(key).decode()))
        if channel.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", channel.subprotocol))
        head = h11.InformationalResponse(status_code=101, headers=_as_bytes(headers), reason="Switching Protocols")
        self.connector.upgraded(self)
        self.transport.write(self.http.send(head))
        self.reader = channel.reader
        channel.reader.begin(bytes(self.early))
        self.early.clear()


def _as_bytes(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.strip().encode("latin-1")) for name, value in headers]
