"""A bounded queue in front of a channel, for code that sends without waiting for the peer."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, runtime_checkable

from wsbridge._common.tasks import begin_later
from wsbridge.close import check_close
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import BinaryLike, WebSocketChannel

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M = TypeVar("M", default=str | BinaryLike)
else:
    from typing import TypeVar

    M = TypeVar("M")

__all__ = ["SendResult", "WebSocketConnection", "start_ws_connection"]

_logger = logging.getLogger("wsbridge")


class SendResult(enum.Enum):
    """What became of a message. Pedestal: ``:success`` and ``:closed``."""

    SUCCESS = "success"
    CLOSED = "closed"


@runtime_checkable
class HasOptions(Protocol):
    """What a connector's channel has beside a `WebSocketChannel`, for code that encodes as its ``send`` does."""

    @property
    def options(self) -> WebSocketOptions[Any]:
        """What the channel was made with."""
        ...


class _Entry:
    """A message as it is sent, and who waits for its result."""

    __slots__ = ("is_forgotten", "message", "result")

    def __init__(self, message: Any, result: asyncio.Future[SendResult] | None = None) -> None:
        self.message = message
        self.result = result
        self.is_forgotten = False


_Waiting = tuple[_Entry, "asyncio.Future[bool]"]


class WebSocketConnection(Generic[M]):
    """Sends queued messages over a channel, one after another and in order. Made by `start_ws_connection`.

    ``M`` is the type of its messages, those that the channel's ``send`` takes: a ``str``, a bytes-like object or a
    binary file, or, where the channel has a codec, what that encodes. A checker is told the latter by an annotation,
    ``connection: WebSocketConnection[Move] = start_ws_connection(channel)``. A message is encoded, and a wrong one
    refused, when it is put (CONN-6).

    An async context manager: leaving it is `close`. Pedestal: the core.async channel that ``start-ws-connection``
    returns. CONN-1 to CONN-7.
    """

    __slots__ = ("__weakref__", "_channel", "_codec", "_ended", "_limit", "_queue", "_sender", "_sending", "_waiting")

    def __init__(self, channel: WebSocketChannel, send_buffer: int) -> None:
        self._channel = channel
        self._codec = channel.options.codec if isinstance(channel, HasOptions) else None
        self._limit = send_buffer
        self._queue: deque[_Entry] = deque()
        self._waiting: deque[_Waiting] = deque()  # for a place in the queue
        self._sender: asyncio.Task[None] | None = None
        self._sending: _Entry | None = None
        self._ended = False

    @property
    def channel(self) -> WebSocketChannel:
        """The channel that it sends over."""
        return self._channel

    async def put(self, message: M, /) -> SendResult | None:
        """Queue ``message``, waiting while the queue is full. It is not to be changed until it is sent.

        A put that is cancelled while it waits has queued nothing (CONN-7).

        Returns:
            None once it is queued, `SendResult.CLOSED` if the channel has ended before.

        Raises:
            Exception: What the codec raised; nothing is queued. As for each method that takes a message.
            TypeError: Without a codec, it is neither a ``str`` nor bytes-like nor a file; likewise.
            UnicodeEncodeError: A text that UTF-8 cannot encode; likewise.
        """
        return None if await self._enqueue(_Entry(self._encoded(message))) else await _closed()

    def put_nowait(self, message: M, /) -> SendResult | None:
        """Queue ``message`` at once.

        Returns:
            None once it is queued, `SendResult.CLOSED` if the channel has ended before.

        Raises:
            asyncio.QueueFull: The queue is full.
            Exception: As with `put`.
        """
        entry = _Entry(self._encoded(message))
        if self._is_over():
            return SendResult.CLOSED
        if len(self._queue) >= self._limit:
            raise asyncio.QueueFull(f"{len(self._queue)} messages wait to be sent; the queue holds {self._limit}")
        self._append(entry)
        return None

    async def send(self, message: M, /) -> SendResult:
        """Queue ``message`` and wait until it was sent.

        A send that is cancelled while its message waits, in the queue or for a peer that reads too slowly, has sent
        nothing (CONN-7); one whose message is being written has sent all of it or nothing, as with the channel's own
        (SEND-5).

        Returns:
            `SendResult.SUCCESS`, or `SendResult.CLOSED` if the channel has ended.

        Raises:
            Exception: As with `put`, or what ``send_text`` or ``send_binary`` raised for this message.
        """
        result: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        entry = _Entry(self._encoded(message), result)
        if not await self._enqueue(entry):
            return await _closed()
        try:
            return await result
        except asyncio.CancelledError:
            self._forget(entry)
            raise

    async def close(self, code: int = 1000, text: str = "") -> None:
        """Send what is queued, then close the channel. Nothing more is taken from now on.

        Args:
            code: As for `WebSocketChannel.close`.
            text: Likewise.

        Raises:
            ValueError, TypeError: A code or a text that cannot be sent; then nothing has been done.
        """
        check_close(code, text)
        self._end()
        while self._sender is not None:
            await asyncio.wait((self._sender,))
        if self._channel.reason is None:
            self._channel.close(code, text)

    async def __aenter__(self) -> WebSocketConnection[M]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _encoded(self, message: Any) -> Any:
        """Return what is sent for ``message``; what is wrong with it is raised here, to whoever puts it (CONN-6)."""
        if self._codec is not None:
            message = self._codec.encode(message)
        if isinstance(message, str):
            if not message.isascii():
                message.encode()
        elif not (isinstance(message, bytes) or hasattr(message, "read")):
            try:
                memoryview(message).release()
            except TypeError:
                kind = type(message).__name__
                raise TypeError(f"a message must be a str, bytes-like or a binary file, not {kind}") from None
        return message

    def _is_over(self) -> bool:
        return self._ended or self._channel.reason is not None

    def _end(self) -> None:
        """Take no more; whoever waits for a place gets none."""
        self._ended = True
        for _, place in self._waiting:
            if not place.done():
                place.set_result(False)
        self._waiting.clear()

    async def _enqueue(self, entry: _Entry) -> bool:
        """Queue when there is room, in the order of the calls; False if the channel has ended."""
        if self._is_over():
            await asyncio.sleep(0)  # a loop that does not look at the answer would hold the event loop (FLOW-4)
            return False
        if len(self._queue) < self._limit:
            self._append(entry)
            return True
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, place))
        try:
            return await place
        except asyncio.CancelledError:
            self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not entry)
            self._forget(entry)  # if the place came meanwhile
            raise

    def _forget(self, entry: _Entry) -> None:
        """Do not send ``entry``, for which nobody waits any more, if that is still possible (CONN-7)."""
        if entry is self._sending:
            assert self._sender is not None
            entry.is_forgotten = True
            self._sender.cancel()
        else:
            self._queue = deque(queued for queued in self._queue if queued is not entry)
            self._fill()

    def _append(self, entry: _Entry) -> None:
        self._queue.append(entry)
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
                self._sending = entry = self._queue.popleft()
                self._fill()
                await self._send_one(entry)
                self._sending = None
        finally:
            self._sender = self._sending = None
            if self._queue:
                self._give_up()

    def _give_up(self) -> None:
        """Take it that the sender was cancelled, as every task is at the end of a loop: nothing more is sent."""
        self._end()
        while self._queue:
            result = self._queue.popleft().result
            if result is not None and not result.done():
                result.set_result(SendResult.CLOSED)

    async def _send_one(self, entry: _Entry) -> None:
        result = entry.result
        try:
            if isinstance(entry.message, str):
                sent = await self._channel.send_text(entry.message)
            else:
                sent = await self._channel.send_binary(entry.message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and entry.is_forgotten and task.uncancel() == 0:
                return  # whoever waited for it was cancelled, and nobody else
            if result is not None:
                result.cancel()
            raise
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


async def _closed() -> SendResult:
    """Tell that the channel has ended, and let others run first: who asks in a loop would stop them all."""
    await asyncio.sleep(0)
    return SendResult.CLOSED


def start_ws_connection(channel: WebSocketChannel, *, send_buffer: int = 10) -> WebSocketConnection[M]:
    """Put a queue in front of ``channel``, so that code may send without waiting for a slow peer.

    Args:
        channel: An open channel; of a `MessageStream` its ``channel``.
        send_buffer: How many messages may wait, 1 or more.

    Raises:
        TypeError: ``channel`` is not a channel, or ``send_buffer`` not an int.
        ValueError: ``send_buffer`` is under 1.

    Pedestal: ``start-ws-connection`` with ``:send-buffer-or-n``. CONN-1.
    """
    if not callable(getattr(channel, "send_text", None)):
        raise TypeError(f"channel must be a WebSocketChannel, such as stream.channel, not {type(channel).__name__}")
    if isinstance(send_buffer, bool) or not isinstance(send_buffer, int):
        raise TypeError(f"send_buffer must be an int, not {send_buffer!r}")
    if send_buffer < 1:
        raise ValueError(f"send_buffer must be at least 1, not {send_buffer}")
    return WebSocketConnection(channel, send_buffer)
