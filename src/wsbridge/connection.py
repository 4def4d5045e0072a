"""A bounded queue in front of a channel, for code that sends without waiting for the peer."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from types import TracebackType

from wsbridge.protocols import BinaryLike, WebSocketChannel

__all__ = ["SendResult", "WebSocketConnection", "start_ws_connection"]

_logger = logging.getLogger("wsbridge")

Message = str | BinaryLike


class SendResult(enum.Enum):
    """What became of a message. Pedestal: ``:success`` and ``:closed``."""

    SUCCESS = "success"
    CLOSED = "closed"


_Entry = tuple[Message, "asyncio.Future[SendResult] | None"]


class WebSocketConnection:
    """Sends queued messages over a channel, one after another and in order. Made by `start_ws_connection`.

    An async context manager: leaving it is `close`. Pedestal: the core.async channel that ``start-ws-connection``
    returns. CONN-1 to CONN-5.
    """

    __slots__ = ("__weakref__", "_channel", "_closing", "_limit", "_queue", "_room", "_sender")

    def __init__(self, channel: WebSocketChannel, send_buffer: int) -> None:
        self._channel = channel
        self._limit = send_buffer
        self._queue: deque[_Entry] = deque()
        self._room: deque[asyncio.Future[None]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def channel(self) -> WebSocketChannel:
        """The channel that it sends over."""
        return self._channel

    async def put(self, message: Message, /) -> SendResult | None:
        """Queue ``message``, waiting while the queue is full.

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
        if len(self._queue) >= self._limit or self._room:
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
        self._closing = True
        self._free_room()
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
        return self._closing or self._channel.reason is not None

    async def _enqueue(self, message: Message, result: asyncio.Future[SendResult] | None) -> bool:
        """Queue when there is room, in the order of the calls; False if the channel has ended."""
        loop = asyncio.get_running_loop()
        while not self._is_over() and len(self._queue) >= self._limit:
            turn: asyncio.Future[None] = loop.create_future()
            self._room.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_room()  # the place was ours; the next in line takes it
                raise
            finally:
                if turn in self._room:
                    self._room.remove(turn)
        if self._is_over():
            return False
        self._append(message, result)
        return True

    def _append(self, message: Message, result: asyncio.Future[SendResult] | None) -> None:
        self._queue.append((message, result))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_queued())

    def _give_room(self) -> None:
        while self._room:
            turn = self._room.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _free_room(self) -> None:
        while self._room:
            self._give_room()

    async def _send_queued(self) -> None:
        """Send until the queue is empty; the task lives no longer, so that a forgotten connection leaves none."""
        try:
            while self._queue:
                message, result = self._queue.popleft()
                self._give_room()
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
            self._free_room()


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
