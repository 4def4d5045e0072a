"""One connection to the server under test, on which HTTP is spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ssl import SSLContext
from types import TracebackType
from typing import Self

from wsbridge.conformance.client.errors import Closed
from wsbridge.conformance.client.http import Address, HttpResponse
from wsbridge.conformance.client.limits import DEFAULT_TIMEOUT, TimeLimits
from wsbridge.conformance.client.link import Door, PeerLink, SocketLink
from wsbridge.conformance.client.log import WireLog, head_text
from wsbridge.conformance.client.shape import WHOLE, Shape, request_pieces

__all__ = ["APART", "HttpConnection"]

APART = 0.001  # seconds between pieces that shall be read one by one
_MOST_CUTS = 400  # pieces on one connection: what is sent after that goes whole, so that a check ends in its time


class HttpConnection:
    """What a peer is before it is one of a WebSocket: sends requests, reads responses, and ends as it likes.

    Every `timeout` is in seconds, None for that of `limits`, and stretched by the scale there; where it passes,
    `WireTimeout` is raised. A sending method that finds the server gone raises `Closed`.

    Attributes:
        link: What carries it.
        limits: Its time limits.
        log: What went over the wire.
        response: The last HTTP response, None before it.
        shape: How what is sent is put on the wire.
    """

    def __init__(self, link: PeerLink) -> None:
        """Take a link that is connected; use `open`."""
        self.link = link
        self.limits = link.limits
        self.log = link.limits.log
        self.response: HttpResponse | None = None
        self.shape: Shape = WHOLE
        self._cuts = 0
        self._reading = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
        recv_buffer: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        timeout_scale: float = 1.0,
        log: WireLog | None = None,
        shape: Shape = WHOLE,
    ) -> Self:
        """Connect to `(host, port)` or a Unix socket's path, over TLS with `ssl`, and send nothing more.

        Args:
            address: Where to.
            ssl: The context for TLS.
            server_hostname: The name to check, the host of `address` if None.
            recv_buffer: The receive buffer (SO_RCVBUF) in bytes.
            timeout: For each call that is given none, this one too.
            timeout_scale: What each timeout is multiplied by.
            log: Where to log, a new log if None.
            shape: How what is sent is put on the wire.
        """
        limits = TimeLimits(timeout, timeout_scale, log)
        link: PeerLink
        if isinstance(address, Door):
            link = await address.open(limits, ssl=ssl, server_hostname=server_hostname, recv_buffer=recv_buffer)
        else:
            link = await SocketLink.open(
                address, limits, ssl=ssl, server_hostname=server_hostname, recv_buffer=recv_buffer
            )
        made = cls(link)
        made.shape = shape
        return made

    async def __aenter__(self) -> Self:
        """Return the peer."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    @property
    def local_address(self) -> Address:
        """This end's `(host, port)`, or the path of a Unix socket ("" if unnamed)."""
        return self.link.local_address

    async def request(self, raw: bytes) -> None:
        """Send bytes of an HTTP request, the whole of it or a part."""
        self.log.add("sent", len(raw), head_text(raw), raw)
        await self._send_pieces(request_pieces(raw, self.shape.cut))

    async def _send_pieces(self, pieces: Sequence[bytes]) -> None:
        """Send pieces, with time enough after each but the last for the server to read it.

        A server in the same event loop has read a piece before the next is sent: what came in is handled before the
        timer. (One turn of the loop is not enough: there the sender's turn comes first, and two pieces make one read.)
        A server that is gone after the first piece is found out by reading, as it would be had they been one.
        """
        if len(pieces) > 1:
            self._cuts += len(pieces)
            if self._cuts > _MOST_CUTS:
                pieces = [b"".join(pieces)]
        for number, piece in enumerate(pieces, 1):
            try:
                await self.link.send(piece)
            except Closed:
                if number == 1:
                    raise
                self.log.add("note", 0, "the server is gone, and took no more of it")
                return
            if number < len(pieces):
                await asyncio.sleep(APART)

    async def read_response(self, timeout: float | None = None, *, head: bool = False) -> HttpResponse:
        """Read one HTTP response with its body; `head` if it answers HEAD and so has none.

        Raises:
            Closed: If the connection ended before the first byte.
            WireViolation: If it is not a legal response, or ended within it.
        """
        async with self.limits.within(timeout, "an HTTP response"), self._reading:
            self.response = await self.link.read_response(head=head)
            return self.response

    async def read_ahead(self, size: int, timeout: float | None = None) -> None:
        """Read `size` bytes or a little more, or to the end, and leave them to be taken later.

        Raises:
            NoWire: No bytes go over this connection.
        """
        async with self.limits.within(timeout, f"{size} bytes"), self._reading:
            goal = len(self.link.input) + size
            while len(self.link.input) < goal and await self.link.fill():
                pass

    async def skip_to_end(self, timeout: float | None = None) -> None:
        """Read and drop bytes, whatever they are, to the end of the stream.

        Raises:
            NoWire: No bytes go over this connection.
        """
        async with self.limits.within(timeout, "the end of the stream"), self._reading:
            while await self.link.fill():
                self.link.input.clear()

    async def half_close(self) -> None:
        """End the sending side alone: FIN, over TLS close_notify before it."""
        await self.link.half_close()

    def drop(self) -> None:
        """End the connection by a reset (RST)."""
        self.link.drop()

    def close(self) -> None:
        """Close the socket with no word before it; the kernel makes that a reset if there was unread data.

        A call that waits in another task raises `WireError`. A second close does nothing.
        """
        self.link.close()

    async def aclose(self) -> None:
        """Do what `close` does, for `contextlib.aclosing`."""
        self.close()
