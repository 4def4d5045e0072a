"""What a peer sends when its connection is a WebSocket: any bytes, frames, messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence

from wsbridge.conformance.client.connection import APART, HttpConnection
from wsbridge.conformance.client.deflate import PerMessageDeflate, deflated
from wsbridge.conformance.client.frames import SHOWN, Opcode, build_frame, close_payload, described, frames_in
from wsbridge.conformance.client.link import PeerLink
from wsbridge.conformance.client.log import head_text
from wsbridge.conformance.client.shape import frame_pieces

__all__ = ["FrameSender"]

_REQUEST = re.compile(rb"[A-Z]+ \S+ HTTP/")
_JOINED = b"joined"  # the payload of the pongs that nobody has asked for


class FrameSender(HttpConnection):
    """A connection on which frames are sent, legal or not.

    Attributes:
        close_sent: Whether a close frame was sent.
    """

    def __init__(self, link: PeerLink) -> None:
        super().__init__(link)
        self.close_sent = False
        self._deflate: PerMessageDeflate | None = None

    @property
    def deflated(self) -> bool:
        """Whether permessage-deflate was negotiated."""
        return self._deflate is not None

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._log_sent(data)
        await self._send_pieces(frame_pieces(data, self.shape.cut))

    async def send_apart(self, data: bytes | Iterable[bytes]) -> None:
        """Send pieces, or the bytes of ``data`` one by one, with time enough after each for the server to read it."""
        for piece in (data[at : at + 1] for at in range(len(data))) if isinstance(data, bytes) else data:
            await self.send_raw(piece)
            await asyncio.sleep(APART)

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool | bytes = True
    ) -> None:
        """Send one frame, legal or not, never deflated; see `build_frame`."""
        await self._send_frames(build_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask))

    async def _send_frames(self, data: bytes) -> None:
        """Send whole frames."""
        is_joined = self.shape.cut == "joined" and self.link.has_bytes and not self.close_sent
        await self.send_raw(build_frame(Opcode.PONG, _JOINED) + data if is_joined else data)

    async def send_text(self, text: str, *, compress: bool = True) -> None:
        """Send a text message in one frame, deflated if that was negotiated and `compress` is true."""
        await self.send_fragments(Opcode.TEXT, [text.encode()], compress=compress)

    async def send_binary(self, data: bytes, *, compress: bool = True) -> None:
        """Send a binary message in one frame, deflated as for `send_text`."""
        await self.send_fragments(Opcode.BINARY, [data], compress=compress)

    async def send_fragments(self, opcode: int, parts: Sequence[bytes], *, compress: bool = True) -> None:
        """Send a message as one frame per part, in one write, deflated as for `send_text`."""
        await self._send_frames(b"".join(self.framed(opcode, self.shape.parts(parts), compress=compress)))

    def framed(self, opcode: int, parts: Sequence[bytes], *, compress: bool = True) -> list[bytes]:
        """Return a message as one frame per part, to be sent next, deflated as for `send_text`."""
        frames: list[bytes] = []
        for index, part in enumerate(parts):
            fin = index == len(parts) - 1
            kind = opcode if index == 0 else Opcode.CONTINUATION
            rsv, payload = 0, part
            if self._deflate is not None and compress:
                rsv, payload = deflated(self._deflate, kind, part, fin=fin)
            frames.append(build_frame(kind, payload, fin=fin, rsv=rsv))
        return frames

    async def send_in_parts(self, opcode: int, parts: Sequence[bytes]) -> None:
        """Send a message as `send_fragments` does, or whole where there is no wire to put frames on."""
        if self.link.has_bytes:
            await self.send_fragments(opcode, parts)
        else:
            await self.send_frame(opcode, b"".join(parts))

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping."""
        await self.send_frame(Opcode.PING, payload)

    async def pong(self, payload: bytes = b"") -> None:
        """Send a pong."""
        await self.send_frame(Opcode.PONG, payload)

    async def send_close(self, code: int | None = None, text: str = "") -> None:
        """Send a close frame, an empty one without a code."""
        await self.send_frame(Opcode.CLOSE, b"" if code is None else close_payload(code, text))

    async def flood(self, data: bytes, total_bytes: int, *, timeout: float | None = None) -> int:
        """Send `data` again and again until `total_bytes` are taken, the server is gone, or it takes nothing.

        Args:
            data: One or more whole frames.
            total_bytes: How much to send, rounded up to a multiple of `data`.
            timeout: For how long it may take nothing.

        Returns:
            How many bytes the connection took (over TLS: at least). A frame that was cut short is finished by
            the next sending method.
        """
        return await self.link.flood(data, total_bytes, timeout)

    def _log_sent(self, data: bytes) -> None:
        if self.response is None and _REQUEST.match(data):
            head, end, rest = data.partition(b"\r\n\r\n")
            self.log.add("sent", len(head + end), head_text(head + end), head + end)
            if rest:
                self._log_frames(rest)
        else:
            self._log_frames(data)

    def _log_frames(self, data: bytes) -> None:
        frames = list(frames_in(data))
        self.close_sent = self.close_sent or any(head.opcode == Opcode.CLOSE for head, _ in frames)
        shown = "; ".join(described(*frame) for frame in frames[:4]) or repr(data[:SHOWN])
        shown += f"; and {len(frames) - 4} more frames" if len(frames) > 4 else ""
        self.log.add("sent", len(data), shown, data)
