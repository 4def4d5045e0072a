"""A channel of a server that is asked for messages, in short: the section on reading."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wsbridge.connector import OVER, TURN, BaseChannel


class Channel(BaseChannel):
    """The test stands for its server, as ``native``."""

    is_pulled = True

    kept: str | bytes | None = None  # what was read while ``on_open`` ran

    async def _next(self) -> str | bytes | None:
        """Return the next message, or None at the end."""
        if self.kept is not None:
            message, self.kept = self.kept, None
            return message
        try:
            received: str | bytes = await self.native.recv()
        except EOFError:
            return None
        return received

    async def _receive(self) -> None:
        left = TURN
        while self._phase < OVER:
            message = await self._next()
            if message is None:
                self.connection_lost()
                return
            result = self.text_received(message) if isinstance(message, str) else self.binary_received(message)
            if result is not None:
                await result
                self.running = None
            left -= 1
            if not left:
                left = TURN
                await self.give_way()

    async def _read_ahead(self) -> None:
        self.kept = await self._next()
        if self.kept is None:
            self.connection_lost()

    def _send_text(self, text: str) -> Awaitable[object] | None:
        self.native.sent.append(text)
        return None

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        self.native.sent.append(data)
        return None

    def _close(self, code: int | None, text: str) -> None:
        self.native.sent.append(code)

    def _disconnect(self, *, half: bool) -> None: ...

    def _aborter(self) -> Callable[[], Any]:
        return lambda: None

    def _unsent_bytes(self) -> int:
        return 0
