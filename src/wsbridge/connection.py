"""A bounded queue in front of a channel, for code that sends without waiting for the peer."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from types import TracebackType

from wsbridge.protocols import BinaryLike, WebSocketChannel
from wsbridge.tasks import begin_later

__all__ = ["SendResult", "WebSocketConnection", "start_ws_connection"]

_logger = logging.getLogger("wsbridge")

Message = str | BinaryLike


class SendResult(enum.Enum):
    """What became of a message. Pedestal: ``:success`` and ``:closed``."""

    SUCCESS = "success"
    CLOSED = "closed"


_Entry = tuple[Message, "asyncio.Future[SendResult] | None"]
_Waiting = tuple[_Entry, "asyncio.Future[bool]"]


class WebSocketConnection:
    """Sends queued messages over a channel, one after another and in order. Made by `start_ws_connection`.

    An async context manager: leaving it is `close`. Pedestal: the core.async channel that ``start-ws-connection``
    returns. CONN-1 to CONN-5.
    """

    __slots__ = ("__weakref__", "_channel", "_ended", "_limit", "_queue", "_sender", "_waiting")

    def __init__(self, channel: WebSocketChannel, send_buffer: int) -> None:
        self._channel = channel
        self._limit = send_buffer
        self._queue: deque[_Entry] = deque()
        self._waiting: deque[_Waiting] = deque()  # for a place in the queue
        self._sender: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def channel(self) -> WebSocketChannel:
        """The channel that it sends over."""
        return self._channel

    async def put(self, message: Message, /) -> SendResult | None:
        """Queue ``message``, waiting while the queue is full. It is not to be changed until it is sent.

        Returns:
            None once it is queued, `SendResult.CLOSED` if the channel has ended before.
        """
        return None if await self._enqueue(message, None) else SendResult.CLOSED

    def put_nowait(self, message: Message, /) -> SendResult | None:
        """Queue ``message`` at once.

        Returns:
            None once it is queued, `SendResult.CLOSED` if the channel has ended before.

        Raises:
            asyncio.QueueFull: The queue is full.
        """
        if self._is_over():
            return SendResult.CLOSED
        if len(self._queue) >= self._limit:
            raise asyncio.QueueFull(f"{len(self._queue)} messages wait to be sent; the queue holds {self._limit}")
        self._append(message, None)
        return None

    async def send(self, message: Message, /) -> SendResult:
        """Queue ``message`` and wait until it was sent.

        Returns:
            `SendResult.SUCCESS`, or `SendResult.CLOSED` if the channel has ended.

        Raises:
            Exception: What ``send_text`` or ``send_binary`` raised for this message.
        """
        result: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        if not await self._enqueue(message, result):
            return SendResult.CLOSED
        return await result

    async def close(self) -> None:
        """Send what is queued, then close the channel with 1000. Nothing more is taken from now on."""
        self._end()
        while self._sender is not None:
            await asyncio.shield(self._sender)
        if self._channel.reason is None:
            self._channel.close()

    async def __aenter__(self) -> WebSocketConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _is_over(self) -> bool:
        return self._ended or self._channel.reason is not None

    def _end(self) -> None:
        """Take no more; who waits for a place gets none."""
        self._ended = True
        for _, place in self._waiting:
            if not place.done():
                place.set_result(False)
        self._waiting.clear()

    async def _enqueue(self, message: Message, result: asyncio.Future[SendResult] | None) -> bool:
        """Queue when there is room, in the order of the calls; False if the channel has ended."""
        if self._is_over():
            return False
        if len(self._queue) < self._limit:
            self._append(message, result)
            return True
        entry: _Entry = (message, result)
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, place))
        try:
            return await place
        except asyncio.CancelledError:
            self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not entry)
            self._queue = deque(queued for queued in self._queue if queued is not entry)  # the place came meanwhile
            self._fill()
            raise

    def _append(self, message: Message, result: asyncio.Future[SendResult] | None) -> None:
        self._queue.append((message, result))
        if self._sender is None:
            self._sender = begin_later(asyncio.get_running_loop(), self._send_queued())

    def _fill(self) -> None:
        """Give the free places of the queue to those who wait for one, at once, so that nobody comes in between."""
        if self._is_over():
            self._end()
        while self._waiting and len(self._queue) < self._limit:
            entry, place = self._waiting.popleft()
            if not place.done():  # a cancelled one is about to forget its entry
                self._queue.append(entry)
                place.set_result(True)

    async def _send_queued(self) -> None:
        """Send until the queue is empty; the task lives no longer, so that a forgotten connection leaves none."""
        try:
            while self._queue:
                message, result = self._queue.popleft()
                self._fill()
                await self._send_one(message, result)
        finally:
            self._sender = None

    async def _send_one(self, message: Message, result: asyncio.Future[SendResult] | None) -> None:
        try:
            if isinstance(message, str):
                sent = await self._channel.send_text(message)
            else:
                sent = await self._channel.send_binary(message)
        except Exception as exc:
            if result is None or result.done():
                _logger.error("a queued message on channel %s was not sent", self._channel.id, exc_info=exc)
            else:
                result.set_exception(exc)
            return
        if result is not None and not result.done():
            result.set_result(SendResult.SUCCESS if sent else SendResult.CLOSED)
        if not sent:
            self._end()


def start_ws_connection(channel: WebSocketChannel, *, send_buffer: int = 10) -> WebSocketConnection:
    """Put a queue in front of ``channel``, so that code may send without waiting for a slow peer.

    Args:
        channel: An open channel.
        send_buffer: How many messages may wait, 1 or more.

    Raises:
        TypeError: ``send_buffer`` is no int.
        ValueError: ``send_buffer`` is under 1.

    Pedestal: ``start-ws-connection`` with ``:send-buffer-or-n``. CONN-1.
    """
    if isinstance(send_buffer, bool) or not isinstance(send_buffer, int):
        raise TypeError(f"send_buffer must be an int, not {send_buffer!r}")
    if send_buffer < 1:
        raise ValueError(f"send_buffer must be at least 1, not {send_buffer}")
    return WebSocketConnection(channel, send_buffer)
