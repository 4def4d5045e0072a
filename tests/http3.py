"""A client of HTTP/3 for tests, on aioquic, with the streams of `tests.http2`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection, Setting
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

from tests.http2 import TIMEOUT, Requests, Stream

__all__ = ["Http3Connection", "opened"]

_CANCELLED = 0x10C  # H3_REQUEST_CANCELLED: RFC 9114, 8.1


class Http3Connection(QuicConnectionProtocol, Requests):  # type: ignore[misc]
    """A connection of HTTP/3, with its streams."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._h3 = H3Connection(self._quic)
        self._settled = asyncio.Event()
        self.streams: dict[int, Stream] = {}
        self.ended = False

    @property
    def has_websockets(self) -> bool:
        """Whether the server has told that it has WebSockets."""
        settings = self._h3.received_settings or {}
        return bool(settings.get(Setting.ENABLE_CONNECT_PROTOCOL))

    @property
    def address(self) -> tuple[str, int]:
        """This end's, of a connection to this machine."""
        return "127.0.0.1", self._transport.get_extra_info("sockname")[1]

    async def settled(self) -> None:
        """Wait for the server's settings."""
        async with asyncio.timeout(TIMEOUT):
            await self._settled.wait()

    def quic_event_received(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.ended = True
            for stream in self.streams.values():
                stream.over()
        if isinstance(event, StreamReset) and event.stream_id in self.streams:
            self.streams[event.stream_id].was_reset(event.error_code)
        for found in self._h3.handle_event(event):
            self._take(found)
        if self._h3.received_settings is not None:
            self._settled.set()

    def _take(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", -1))
        if stream is None:
            return
        if isinstance(event, HeadersReceived):
            stream.answered(event.headers)
        elif isinstance(event, DataReceived):
            stream.received(event.data, 0)
        if getattr(event, "stream_ended", False):
            stream.finished()

    def _send_headers(self, encoded: Sequence[tuple[bytes, bytes]], *, end: bool) -> int:
        number: int = self._quic.get_next_available_stream_id()
        self._h3.send_headers(number, list(encoded), end_stream=end)
        self.transmit()
        return number

    async def send(self, stream: Stream, data: bytes) -> None:
        self._h3.send_data(stream.number, data, end_stream=False)
        self.transmit()
        await asyncio.sleep(0)

    def finish(self, stream: Stream) -> None:
        self._h3.send_data(stream.number, b"", end_stream=True)
        self.transmit()

    def cancel(self, stream: Stream) -> None:
        self._quic.reset_stream(stream.number, _CANCELLED)
        self._quic.stop_stream(stream.number, _CANCELLED)
        self.transmit()

    def give_back(self, stream: Stream, size: int) -> None:
        """aioquic does it by itself."""


@contextlib.asynccontextmanager
async def opened(host: str, port: int, authority: bytes) -> AsyncGenerator[Http3Connection]:
    """Connect to a server whose certificate is of ``authority``, in PEM."""
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_REQUIRED)
    configuration.load_verify_locations(cadata=authority)
    async with connect(host, port, configuration=configuration, create_protocol=Http3Connection) as connection:
        assert isinstance(connection, Http3Connection)
        await connection.settled()
        yield connection
