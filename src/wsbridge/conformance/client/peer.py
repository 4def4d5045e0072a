"""The suite's own WebSocket client: it sends any bytes, judges what comes back, and reads only when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from ssl import SSLContext
from typing import Self

from wsbridge.conformance.client.errors import Closed, NoWire, Unexpected, WireTimeout
from wsbridge.conformance.client.events import Binary, Close, Drained, Eof, Event, Message, Ping, Text
from wsbridge.conformance.client.frames import SHOWN, Frame
from wsbridge.conformance.client.handshake import Chars, HandshakeRequest
from wsbridge.conformance.client.http import Address, HttpResponse
from wsbridge.conformance.client.limits import DEFAULT_TIMEOUT
from wsbridge.conformance.client.link import PeerLink
from wsbridge.conformance.client.log import WireLog, head_text
from wsbridge.conformance.client.sending import FrameSender
from wsbridge.conformance.client.shape import WHOLE, Shape

__all__ = ["WirePeer"]


class WirePeer(FrameSender):
    """The client's end of a WebSocket; made by `connect`, or by `open` and a handshake by hand.

    Attributes:
        auto_pong: Answer the server's pings, as they are received.
        auto_close: Answer the server's close frame with its code, as it is received.
        received: Every event received so far, in order.
        subprotocol: The negotiated subprotocol.
    """

    def __init__(self, link: PeerLink) -> None:
        super().__init__(link)
        self.auto_pong = True
        self.auto_close = True
        self.received: list[Event] = []
        self.subprotocol: str | None = None

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        target: Chars = "/echo",
        method: Chars = "GET",
        version: Chars = "HTTP/1.1",
        headers: Sequence[tuple[Chars, Chars]] = (),
        replace: Mapping[str, Chars | Sequence[Chars] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: bool | str = False,
        tail: bytes = b"",
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
        recv_buffer: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        timeout_scale: float = 1.0,
        log: WireLog | None = None,
        shape: Shape = WHOLE,
    ) -> Self:
        """Open a WebSocket: `open`, then `upgrade` with `HandshakeRequest.build`, whose arguments these are.

        Raises:
            HandshakeRefused: If the answer is not 101; the connection is closed.
            WireViolation: If the answer is a wrong 101 or no HTTP.
            Closed: If the server closed without an answer.
        """
        request = HandshakeRequest.build(
            address,
            target=target,
            method=method,
            version=version,
            headers=headers,
            replace=replace,
            subprotocols=subprotocols,
            deflate=deflate,
        )
        peer = await cls.open(
            address,
            ssl=ssl,
            server_hostname=server_hostname,
            recv_buffer=recv_buffer,
            timeout=timeout,
            timeout_scale=timeout_scale,
            log=log,
            shape=shape,
        )
        try:
            await peer.upgrade(request, tail=tail)
        except BaseException:
            peer.close()
            raise
        return peer

    async def upgrade(self, request: HandshakeRequest, *, tail: bytes = b"") -> None:
        """Make the handshake on an open connection, with `tail` in the same write as the request.

        Raises:
            HandshakeRefused, WireViolation, Closed: As for `connect`; the connection stays open.
        """
        raw = request.encode()
        if tail:
            self.log.add("sent", len(raw), head_text(raw), raw)
            self._log_sent(tail)
            await self.link.send(raw + tail)  # in one write, whatever its shape
        else:
            await self.request(raw)
        self.start_websocket(request, await self.read_response())

    def start_websocket(self, request: HandshakeRequest, response: HttpResponse) -> None:
        """Check the response to a request that was sent by hand, and speak WebSocket from here on.

        Raises:
            HandshakeRefused, WireViolation: As for `HandshakeRequest.check`.
        """
        self.subprotocol, self._deflate = request.check(response)
        self.link.start_frames(self._deflate)

    async def receive_frame(self, timeout: float | None = None) -> Frame:
        """Return the next frame as it was on the wire; nothing is answered.

        Raises:
            Closed: At the end of the stream.
            NoWire: No bytes go over this connection.
            WireViolation: If wsproto finds the frame illegal where it stands.
        """
        if not self.link.has_bytes:
            raise NoWire("a frame as it was on the wire")
        async with self.limits.within(timeout, "a frame"), self._reading:
            frame = await self._next_frame()
            if frame is None:
                raise Closed("a frame", self.link.end())
            return frame[0]

    async def receive(self, timeout: float | None = None) -> Event:
        """Return the next event: a whole message, a control frame, or the end of the stream.

        Raises:
            WireViolation: If the server sent what RFC 6455 forbids; later frames are then no longer judged.
        """
        async with self.limits.within(timeout, "anything"), self._reading:
            return await self._next_event()

    async def receive_message(self, timeout: float | None = None) -> Message:
        """Return the next message, past pings and pongs; raise `Closed` at a close frame or the end."""
        async with self.limits.within(timeout, "a message"), self._reading:
            while not isinstance(event := await self._next_event(), Text | Binary):
                if isinstance(event, Close | Eof):
                    raise Closed("a message", event)
            return event

    async def receive_text(self, timeout: float | None = None) -> str:
        """Return the next message, which must be a text; raise `Unexpected` or `Closed` if it is not."""
        message = await self.receive_message(timeout)
        if isinstance(message, Binary):
            raise Unexpected("a text message", message)
        return message.data

    async def receive_binary(self, timeout: float | None = None) -> bytes:
        """Return the next message, which must be binary; raise `Unexpected` or `Closed` if it is not."""
        message = await self.receive_message(timeout)
        if isinstance(message, Text):
            raise Unexpected("a binary message", message)
        return message.data

    async def receive_close(self, timeout: float | None = None) -> Close:
        """Return the close frame, past messages, pings and pongs; raise `Closed` at the end of the stream."""
        async with self.limits.within(timeout, "a close frame"), self._reading:
            while not isinstance(event := await self._next_event(), Close):
                if isinstance(event, Eof):
                    raise Closed("a close frame", event)
            return event

    async def wait_eof(self, timeout: float | None = None) -> Eof:
        """Return the end of the stream, past whatever comes before it."""
        async with self.limits.within(timeout, "the end of the stream"), self._reading:
            while not isinstance(event := await self._next_event(), Eof):
                pass
            return event

    async def expect_silence(self, seconds: float) -> None:
        """Check that for so many seconds (not scaled) nothing comes, not even a ping or the end."""
        expected = f"silence for {seconds:g} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._reading:
                raise Unexpected(expected, await self._next_frame() or self.link.end())
        if self.link.input:
            raise Unexpected(expected, bytes(self.link.input[:SHOWN]))

    async def drain(
        self, *, messages: int | None = None, payload_bytes: int | None = None, timeout: float | None = None
    ) -> Drained:
        """Read and only count, until a count is reached, the server ends, or nothing comes for `timeout`.

        Messages are judged, but neither logged one by one nor kept in `received`. Pings are answered.
        """
        count = size = 0
        end: Close | Eof | None = None
        with contextlib.suppress(WireTimeout):
            while (messages is None or count < messages) and (payload_bytes is None or size < payload_bytes):
                async with self.limits.within(timeout, "more"), self._reading:
                    event = await self._next_event(keep=False)
                if isinstance(event, Text | Binary):
                    count += 1
                    size += len(event.data) if isinstance(event, Binary) else len(event.data.encode())
                elif isinstance(event, Close | Eof):
                    end = event
                    break
        self.log.add("received", size, f"drained {count} messages, then {end or 'no more'}")
        return Drained(count, size, end)

    async def _next_event(self, *, keep: bool = True) -> Event:
        event: Event | None = None
        while event is None:
            frame = await self._next_frame(keep=keep)
            if frame is None:
                end = self.link.end()
                if self.received[-1:] != [end]:
                    self.received.append(end)
                return end
            event = frame[1]
        await self._answer(event)
        return event

    async def _answer(self, event: Event) -> None:
        """Do what a good client does; a server that is gone by now shows at the next read."""
        with contextlib.suppress(Closed):
            if isinstance(event, Ping) and self.auto_pong:
                await self.pong(event.payload)
            elif isinstance(event, Close) and self.auto_close and not self.close_sent:
                await self.send_close(None if event.code == 1005 else event.code)

    async def _next_frame(self, *, keep: bool = True) -> tuple[Frame, Event | None] | None:
        """Return the next frame and the event that it completes, which is kept; None at the end of the stream."""
        found = await self.link.next_frame(keep=keep)
        if keep and found is not None and found[1] is not None:
            self.received.append(found[1])
        return found
