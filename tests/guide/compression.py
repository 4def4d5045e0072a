"""How a connector deflates by zlib, where its server does not: the section on compression."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable
from functools import partial
from typing import Any

from wsbridge import Compression, Request, WebSocketOptions
from wsbridge.connector import LARGE, Agreement, TransportChannel, agree

_TAIL = b"\x00\x00\xff\xff"  # what a deflated message leaves out (RFC 7692, 7.2.1)


class Deflate:
    """The compression of one channel, on the terms of its agreement."""

    def __init__(self, agreement: Agreement, compression: bool | Compression) -> None:
        self.agreement = agreement
        self.memory_level = getattr(compression, "memory_level", None) or zlib.DEF_MEM_LEVEL
        self.deflater: Any = None
        self.inflater: Any = None

    def deflate(self, data: bytes) -> bytes:
        """Return the payload of a message; the first bit that is reserved is set in its first frame."""
        if self.deflater is None:
            bits = self.agreement.server_max_window_bits or zlib.MAX_WBITS
            self.deflater = zlib.compressobj(wbits=-bits, memLevel=self.memory_level)
        data = self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        if self.agreement.server_no_context_takeover:
            self.deflater = None
        return data.removesuffix(_TAIL) or b"\0"  # an empty message: zlib flushes nothing twice

    def inflate(self, data: bytes, room: int, *, is_last: bool) -> bytes:
        """Return what a part of a message inflates to, but not more than one byte beyond ``room``.

        Raises:
            zlib.error: It cannot be inflated: close with 1002 or 1007.
        """
        inflated = self._inflate(data, room)
        if is_last and self.inflater is not None:
            inflated += self._inflate(_TAIL, room - len(inflated))
        if is_last and self.agreement.client_no_context_takeover:
            self.inflater = None
        return inflated

    def _inflate(self, data: bytes, room: int) -> bytes:
        inflated = bytearray()
        while data and len(inflated) <= room:
            if self.inflater is None:
                bits = self.agreement.client_max_window_bits or zlib.MAX_WBITS
                self.inflater = zlib.decompressobj(-bits)
            inflated += self.inflater.decompress(data, room + 1 - len(inflated))
            data = self.inflater.unused_data
            if self.inflater.eof:  # a block with BFINAL: what follows begins anew
                self.inflater = None
        return bytes(inflated)


class Channel(TransportChannel):
    """A channel that deflates what it sends, if that is agreed on; the test writes its frames."""

    def __init__(self, connector: Any, request: Request, options: WebSocketOptions[Any], protocol: str | None) -> None:
        super().__init__(connector, request, options, protocol)
        agreement = agree(request, options.compression)
        self.compression = None if agreement is None else Deflate(agreement, options.compression)
        self.written: list[tuple[int, bytes, bool]] = []
        self.is_full = False

    def _send_text(self, text: str) -> Awaitable[object] | None:
        return self.write_message(1, text.encode())

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        return self.write_message(2, data)

    def write_message(self, opcode: int, data: bytes) -> Awaitable[object] | None:
        if self.compression is None:
            self.write_frame(opcode, data)
            return None
        deflate, write = partial(self.compression.deflate, data), partial(self.write_frame, opcode, deflated=True)
        if len(data) > LARGE:
            return self._send_large(self._deflated(deflate, write))
        write(deflate())
        return None

    def _is_full(self) -> bool:
        return self.is_full  # between pause_writing and resume_writing of the protocol

    def write_frame(self, opcode: int, payload: bytes, *, deflated: bool = False) -> None:
        self.written.append((opcode, payload, deflated))

    def _close(self, code: int | None, text: str) -> None:
        self.write_frame(8, b"")

    def _disconnect(self, *, half: bool) -> None: ...

    def _unsent_bytes(self) -> int:
        return 0
