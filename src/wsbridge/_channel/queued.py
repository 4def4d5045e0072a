"""`QueuedChannel`: the channel of a server that pushes its messages."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import Any, ClassVar, cast

from wsbridge._channel.channel import BaseChannel
from wsbridge._channel.ending import FAILED, OPEN, OVER
from wsbridge._channel.host import Host
from wsbridge._channel.sending import TURN
from wsbridge.http import Request
from wsbridge.options import WebSocketOptions

__all__ = ["QueuedChannel"]

_MAX_QUEUE = 64  # messages
_LARGE = 64 * 1024  # bytes (or characters): one such message is enough to hold the peer back
_SMALL = 4 * 1024  # bytes: messages up to this size are written together
_CORK = 0.001  # seconds for which that may last
_MAX_CORKED = 128 * 1024  # bytes that may wait for it
_EMPTY = cast("deque[str | bytes]", ())
"""The queue of an idle channel: a deque has 760 bytes when it is empty, too."""


class QueuedChannel(BaseChannel):
    """A channel of a server that pushes its messages: they wait here, in order, for the task of `run`.

    The connector calls `feed`, and fills `_hold_reading` and `_resume_reading`. One whose server frames messages and
    leaves their writing to it may call `_written`, and fills `_flush`.
    """

    __slots__ = ("_cork_until", "_corked", "_held", "_loop", "_queue", "_wakeup")

    small: ClassVar[int] = _SMALL
    """Messages up to so many bytes are written together; more, where that takes no copy."""

    def __init__(
        self,
        connector: Host,
        request: Request,
        options: WebSocketOptions[Any],
        subprotocol: str | None,
    ) -> None:
        super().__init__(connector, request, options, subprotocol)
        self._queue: deque[str | bytes] = _EMPTY
        self._loop = connector.loop
        self._wakeup: asyncio.Future[None] | None = None
        self._held = False
        self._cork_until: float | None = None
        self._corked = 0

    @abstractmethod
    def _hold_reading(self) -> None:
        """Read no more from the peer (FLOW-1)."""

    @abstractmethod
    def _resume_reading(self) -> None:
        """Read on."""

    def feed(self, message: str | bytes) -> None:
        """Take a message from the server: text as ``str``, binary as ``bytes``.

        It is dropped after an end: after a local one, and after `peer_closed`, `failed` or `connection_lost`. After
        `end_read` it is not, since what is fed then came in before that end (RECV-4, CLOSE-6).
        """
        if self._reason is not None and (self._dropping or self._phase >= FAILED):
            return
        queue = self._queue
        if queue is _EMPTY:
            queue = self._queue = deque()
        queue.append(message)
        wakeup = self._wakeup
        if wakeup is not None:
            self._wakeup = None
            if not wakeup.done():
                wakeup.set_result(None)
        elif not self._held and (len(queue) >= _MAX_QUEUE or len(message) > _LARGE):
            self._held = True
            self._hold_reading()

    async def _receive(self) -> None:
        message: str | bytes | None
        while True:
            queue = self._queue
            left = TURN
            while queue:
                message = queue.popleft()
                result = self.text_received(message) if isinstance(message, str) else self.binary_received(message)
                if not queue:
                    self._emptied()
                if result is not None:
                    await result
                    self.running = None
                left -= 1
                if not left:
                    left = TURN
                    await self.give_way()
            self._emptied()
            if self._phase >= OVER:
                return
            message = result = None  # an idle channel should not keep the last one alive
            queue = self._queue = _EMPTY  # nor this frame the deque
            self._wakeup = self._loop.create_future()
            await self._wakeup

    def _emptied(self) -> None:
        """Read on; tell that what came before the end is delivered."""
        if self._phase > OPEN:
            self._tell_end()
        if self._held:
            self._held = False
            self._resume_reading()

    def _is_delivered(self) -> bool:
        return self._phase >= FAILED and not self._queue

    def _drop_undelivered(self) -> None:
        if self._queue:
            self._queue.clear()
        if self._held:
            self._held = False
            self._resume_reading()

    def _flush(self) -> None:
        """Write what is framed. Needed where `_written` is called."""
        raise NotImplementedError

    def _written(self, size: int) -> None:
        """Write the message of ``size`` bytes that is framed; with more to handle at once, their answers together.

        Messages that are sent within one turn from outside a callback, such as by a task that reads a `MessageStream`,
        are written together as well.
        """
        self._corked += size
        if (not self._queue and self.running is not None) or size > self.small or self._corked > _MAX_CORKED:
            self._corked = 0
            self._flush()
            return
        loop = self._loop
        if self._cork_until is None:
            self._cork_until = loop.time() + _CORK
            loop.call_soon(self._uncork)
        elif loop.time() > self._cork_until:
            self._flush()

    def _uncork(self) -> None:
        self._cork_until = None
        self._corked = 0
        self._flush()

    def _nothing_more(self) -> None:
        if self._held:  # after a cut nobody empties the queue, and whoever reads must get to the end
            self._held = False
            self._resume_reading()
        wakeup = self._wakeup
        if wakeup is not None:
            self._wakeup = None
            if not wakeup.done():
                wakeup.set_result(None)
