"""What is below a peer: `SocketLink`, or the link that a connector without a wire brings by its `Door`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from ssl import SSLContext
from typing import ClassVar, Self

from wsbridge.conformance.client.deflate import PerMessageDeflate
from wsbridge.conformance.client.errors import Closed, WireViolation
from wsbridge.conformance.client.events import Eof, Event
from wsbridge.conformance.client.frames import Frame, Opcode, described, frames_in, masked, parse_head
from wsbridge.conformance.client.http import Address, HttpResponse, read_response
from wsbridge.conformance.client.judge import FrameJudge
from wsbridge.conformance.client.limits import TimeLimits
from wsbridge.conformance.client.sockets import SocketStream

__all__ = ["Door", "PeerLink", "SocketLink"]

_MAX_FRAME = 1 << 30  # bytes


class PeerLink(ABC):
    """Carries the handshake and the frames of one peer. It reads only inside a method that returns what it read.

    Attributes:
        limits: The peer's time limits, with its log.
    """

    has_bytes: ClassVar[bool] = True
    """Whether bytes go over it. Otherwise what only bytes can be, such as part of a frame, raises `NoWire`."""

    def __init__(self, limits: TimeLimits) -> None:
        self.limits = limits

    @property
    @abstractmethod
    def local_address(self) -> Address:
        """This end's ``(host, port)``, or the path of a Unix socket ("" if unnamed)."""

    @property
    @abstractmethod
    def input(self) -> bytearray:
        """What has come and belongs to no whole frame yet."""

    @abstractmethod
    async def fill(self) -> bool:
        """Read once into the input; return False at the end of the stream."""

    @abstractmethod
    def end(self) -> Eof:
        """Return the end of the stream, which has come."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send bytes: of a request, or of frames when one was answered.

        Raises:
            Closed: The server is gone.
        """

    @abstractmethod
    async def flood(self, data: bytes, total_bytes: int, timeout: float | None) -> int:
        """See `WirePeer.flood`."""

    @abstractmethod
    async def read_response(self, *, head: bool) -> HttpResponse:
        """See `WirePeer.read_response`."""

    @abstractmethod
    def start_frames(self, deflate: PerMessageDeflate | None) -> None:
        """Take what comes from here on for frames, with the extension that was agreed on."""

    @abstractmethod
    async def next_frame(self, *, keep: bool) -> tuple[Frame, Event | None] | None:
        """Return the next frame and the event that it completes; None at the end of the stream.

        Args:
            keep: Whether to log it; a control frame is logged at any rate.

        Raises:
            WireViolation: It is not legal.
        """

    @abstractmethod
    async def half_close(self) -> None:
        """End the sending side alone."""

    @abstractmethod
    def drop(self) -> None:
        """End the connection by a reset."""

    @abstractmethod
    def close(self) -> None:
        """Close this end with no word before it; a second time it does nothing."""


class Door(str, ABC):
    """An address that is not a socket's: where a connector without a wire is reached, as by a `MemoryDoor`."""

    @abstractmethod
    async def open(self, limits: TimeLimits, **options: object) -> PeerLink:
        """Connect; the options are those of sockets, each None unless it is asked for."""


class SocketLink(PeerLink):
    """Reads responses and frames from a socket, and has wsproto judge the frames."""

    def __init__(self, stream: SocketStream, limits: TimeLimits) -> None:
        super().__init__(limits)
        self.stream = stream
        self._judge = FrameJudge()

    @classmethod
    async def open(
        cls,
        address: Address,
        limits: TimeLimits,
        *,
        ssl: SSLContext | None,
        server_hostname: str | None,
        recv_buffer: int | None,
    ) -> Self:
        """Connect; see `WirePeer.open`."""
        stream = await SocketStream.connect(
            address, limits, ssl=ssl, server_hostname=server_hostname, recv_buffer=recv_buffer
        )
        return cls(stream, limits)

    @property
    def local_address(self) -> Address:
        return self.stream.local_address

    @property
    def input(self) -> bytearray:
        return self.stream.input

    async def fill(self) -> bool:
        return await self.stream.fill()

    def end(self) -> Eof:
        return Eof(self.stream.reset, len(self.stream.input))

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def flood(self, data: bytes, total_bytes: int, timeout: float | None) -> int:
        sent = await self.stream.flood(data, total_bytes, timeout)
        what = next((described(*one) for one in frames_in(data)), repr(data))
        self.limits.log.add("sent", sent, f"flood of {what}", data)
        return sent

    async def read_response(self, *, head: bool) -> HttpResponse:
        if not self.stream.input and not await self.stream.fill():
            raise Closed("an HTTP response", self.end())
        return await read_response(self.stream, self.limits.log, head=head)

    def start_frames(self, deflate: PerMessageDeflate | None) -> None:
        self._judge = FrameJudge(deflate)

    async def next_frame(self, *, keep: bool) -> tuple[Frame, Event | None] | None:
        data = self.stream.input
        while (head := parse_head(data)) is None or len(data) < head.size + head.length:
            if head is not None and head.length > _MAX_FRAME:
                raise WireViolation(f"a frame of {head.length} bytes is more than any check asks for")
            if not await self.stream.fill():
                return None
        wire = bytes(data[: head.size + head.length])
        del data[: len(wire)]
        payload = wire[head.size :]
        if head.masked:
            payload = masked(payload, wire[head.size - 4 : head.size])
        frame = Frame(head.opcode, payload, head.fin, head.rsv, head.masked)
        if keep or head.opcode >= Opcode.CLOSE:
            self.limits.log.add("received", len(wire), str(frame), wire)
        return frame, self._judge.judge(frame, wire)

    async def half_close(self) -> None:
        self.limits.log.add("note", 0, "ended here, one way: FIN")
        await self.stream.half_close()

    def drop(self) -> None:
        self.stream.drop()

    def close(self) -> None:
        self.stream.close()
