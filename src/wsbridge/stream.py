"""Messages read in a loop: `stream_handler` turns a coroutine function into options, `MessageStream` is what it gets.

It stands on the public protocol alone. ``on_open`` starts one task for the handler; the callbacks for messages put them
into a small buffer, and make the channel wait, and with it the peer, while that is full (FLOW-1).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypedDict, Unpack, overload

from wsbridge._common.callbacks import check_callback, described, is_coroutine_function
from wsbridge._common.logs import log_failure
from wsbridge._common.tasks import begin_later
from wsbridge.close import CloseReason
from wsbridge.codec import Codec, decode_or_close
from wsbridge.errors import ChannelClosedError, MessageKindError
from wsbridge.http import Request
from wsbridge.options import OPTION_NAMES, Compression, WebSocketOptions
from wsbridge.protocols import BinaryLike, TellsEarly, WebSocketChannel, handler_of

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M = TypeVar("M", default=str | bytes)
else:
    from typing import TypeVar

    M = TypeVar("M")

__all__ = ["ChannelOptions", "MessageStream", "stream_handler"]

_logger = logging.getLogger("wsbridge")

_LARGE = 64 * 1024  # bytes (or characters): one such message is enough to hold the peer back
_OWN = frozenset(("on_open", "on_text", "on_binary", "on_message", "on_close"))

Raw = str | bytes
Handler = Callable[["MessageStream[M]", "Request[Any]"], Coroutine[Any, Any, object]]
OnError = Callable[["WebSocketChannel[Any]", "MessageStream[M] | None", Exception], object]


class ChannelOptions(TypedDict, total=False):
    """The options that `stream_handler` hands on to `WebSocketOptions`, where they are explained."""

    subprotocols: Sequence[str]
    origins: Sequence[str]
    max_text_size: int | None
    max_binary_size: int | None
    compression: bool | Compression
    idle_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    send_timeout: float | None
    close_timeout: float


class MessageStream(Generic[M]):
    """One WebSocket connection, read in a loop. ``M`` is the type of its messages: ``str | bytes`` without a codec.

    Several tasks may send at once, and one may read meanwhile; two that read at once are a mistake (STREAM-5). An async
    iterator: ``async for message in stream`` ends with the channel and raises nothing. STREAM-1 to STREAM-9.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_channel",
        "_codec",
        "_is_over",
        "_large",
        "_limit",
        "_loop",
        "_request",
        "_room",
        "_task",
        "_waiter",
    )

    def __init__(self, channel: WebSocketChannel, request: Request, codec: Codec[M] | None, limit: int) -> None:
        self._channel = channel
        self._request = request
        self._codec = codec
        self._limit = limit
        self._large = _LARGE
        self._buffer: deque[M] = deque()
        self._is_over = False  # nothing more will be put into the buffer
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None  # of the one that reads, while nothing is there
        self._room: asyncio.Future[None] | None = None  # of the channel, while the buffer is full
        self._task: asyncio.Task[None] | None = None
        if isinstance(channel, TellsEarly):
            channel.tell_early(self._told)

    @property
    def id(self) -> str:
        """The channel's `WebSocketChannel.id`."""
        return self._channel.id

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, or None."""
        return self._channel.subprotocol

    @property
    def request(self) -> Request[Any]:
        """The request that opened the channel."""
        return self._request

    @property
    def channel(self) -> WebSocketChannel[Any]:
        """The channel below, for what takes one, such as `start_ws_connection`."""
        return self._channel

    @property
    def reason(self) -> CloseReason | None:
        """How the channel ended; None while its end is not known (CLOSE-6). Messages may still wait to be read."""
        return self._channel.reason

    def __aiter__(self) -> MessageStream[M]:
        return self

    async def __anext__(self) -> M:
        buffer = self._buffer
        if self._waiter is not None:
            raise _second_reader(self.id)
        if not buffer:  # as _arrival, without the call: this is the hot path
            if self._is_over:
                await asyncio.sleep(0)  # a loop that begins anew would hold the event loop (FLOW-4)
            while not buffer:
                if self._is_over:
                    raise StopAsyncIteration
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
        message = buffer.popleft()
        if self._room is not None and not buffer:
            self._let_in()
        return message

    async def recv(self, timeout: float | None = None) -> M:
        """Return the next message, waiting for it.

        A read that is cancelled, or runs into ``timeout``, loses no message. What had arrived before the peer's close
        or the loss is returned before `ChannelClosedError` is raised; after `close` nothing more is.

        Args:
            timeout: Seconds, or None: no limit.

        Raises:
            ChannelClosedError: The channel has ended; again at every later call.
            TimeoutError: No message came in time.
            RuntimeError: Another task is reading.

        STREAM-2 to STREAM-5.
        """
        await self._arrival(timeout)
        return self._take()

    async def recv_text(self: MessageStream[str | bytes], timeout: float | None = None) -> str:
        """Return the next message, which must be a text. For streams without a codec.

        Raises:
            MessageKindError: It is binary; it stays the next message.
            TypeError: The stream has a codec.

        All else is as with `recv`. STREAM-2.
        """
        message = await self._next_of("recv_text", str, timeout)
        assert isinstance(message, str)
        return message

    async def recv_binary(self: MessageStream[str | bytes], timeout: float | None = None) -> bytes:
        """Return the next message, which must be binary. For streams without a codec.

        Raises:
            MessageKindError: It is a text; it stays the next message.
            TypeError: The stream has a codec.

        All else is as with `recv`. STREAM-2.
        """
        message = await self._next_of("recv_binary", bytes, timeout)
        assert isinstance(message, bytes)
        return message

    @overload
    async def send(self: MessageStream[str | bytes], message: str | BinaryLike, /) -> None: ...
    @overload
    async def send(self, message: M, /) -> None: ...
    async def send(self, message: Any, /) -> None:
        """Send a message, waiting while the peer reads too slowly.

        Args:
            message: A ``str``, a bytes-like object or a binary file; with a codec, what that encodes.

        Raises:
            ChannelClosedError: The channel has ended, and the message was not sent.
            TypeError: Of another type. Nothing is sent, and the channel stays usable.
            Exception: What the codec raised, or `WebSocketChannel.send_text` or ``send_binary``; likewise.

        STREAM-6.
        """
        if self._codec is not None:
            message = self._codec.encode(message)
        if isinstance(message, str):
            sent = await self._channel.send_text(message)
        else:
            sent = await self._channel.send_binary(message)
        if not sent:
            self._lift()
            raise ChannelClosedError(await self._channel.wait_closed())

    def close(self, code: int = 1000, text: str = "") -> Awaitable[None]:
        """Begin to close, and read no more; return at once. As `WebSocketChannel.close`. STREAM-4."""
        begun = self._channel.close(code, text)
        self._forget()
        return begun

    async def wait_closed(self) -> CloseReason:
        """Wait until the end is known and return it; for a handler that is not reading.

        It is known as soon as the server knows it. From a peer that is held back, since nobody reads what it sends, the
        server reads no more either, and it learns that the peer has gone by a send or ping that fails. STREAM-8.
        """
        return await self._channel.wait_closed()

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def _arrival(self, timeout: float | None) -> None:
        """Wait until a message is there."""
        if self._waiter is not None:
            raise _second_reader(self.id)
        if not self._buffer:
            if self._is_over:
                await asyncio.sleep(0)  # as in __anext__
            async with asyncio.timeout(timeout):
                while not self._buffer:
                    if self._is_over:
                        raise ChannelClosedError(await self._channel.wait_closed())
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None

    def _take(self) -> M:
        message = self._buffer.popleft()
        if self._room is not None and not self._buffer:
            self._let_in()
        return message

    async def _next_of(self, name: str, kind: type[object], timeout: float | None) -> M:
        if self._codec is not None:
            raise TypeError(f"{name} is for streams without a codec: use recv")
        await self._arrival(timeout)
        if not isinstance(self._buffer[0], kind):
            other = "binary" if kind is str else "a text"
            raise MessageKindError(f"{name}: the next message of channel {self.id} is {other}; it is still there")
        return self._take()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- what the channel puts in -----------------------------------------------------------------------------------

    def _put(self, message: M, size: int) -> Coroutine[Any, Any, None] | None:
        """Take a message; return what the channel is to wait for, if the buffer is full now (FLOW-1)."""
        buffer = self._buffer
        buffer.append(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if len(buffer) >= self._limit or size > self._large:
            return self._until_room()
        return None

    async def _until_room(self) -> None:
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _let_in(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _told(self, is_delivered: bool) -> None:
        """Take word of the end, which may come after messages that nobody lets in."""
        self._lift()
        if is_delivered:
            self._is_over = True
            self._wake()

    def _lift(self) -> None:
        """Take whatever still comes: at the end of the channel what is left is bounded."""
        self._limit = self._large = sys.maxsize
        self._let_in()

    def _forget(self) -> None:
        """Drop what is unread: nobody reads any more."""
        self._is_over = True
        self._buffer.clear()
        self._lift()
        self._wake()

    # ---- the handler ------------------------------------------------------------------------------------------------

    async def _run(self, handler: Handler[M], on_error: OnError[M] | None) -> None:
        """Run the handler to its end and close the channel; raise nothing of it (STREAM-7)."""
        handler_of.set((self._channel, asyncio.current_task()))
        try:
            await handler(self, self._request)
        except asyncio.CancelledError as exc:
            if not _cancels():
                await self._failed(exc, on_error)
            elif self._channel.reason is None:
                self._channel.close(1011)
        except Exception as exc:
            if not self._is_end(exc):
                await self._failed(exc, on_error)
        if self._channel.reason is None:
            self._channel.close()
        self._forget()

    def _is_end(self, error: Exception) -> bool:
        """Tell whether ``error`` says no more than that this channel has ended."""
        return self._channel.reason is not None and _says_closed(error)

    async def _failed(self, error: BaseException, on_error: Callable[..., object] | None) -> None:
        """Do for the handler what the channel does for a callback (ERR-1, ERR-2)."""
        log_failure("the handler", self.id, self._request.path, error)
        if self._channel.reason is None:
            self._channel.close(1011)
        if on_error is None:
            return
        try:
            result = on_error(self._channel, self, error)
            if asyncio.iscoroutine(result):
                await result
        except Exception as exc:
            _logger.error("on_error of channel %s raised", self.id, exc_info=exc)
        except asyncio.CancelledError as exc:
            if _cancels():
                _logger.warning("on_error of channel %s was cancelled", self.id)
            else:
                _logger.error("on_error of channel %s raised", self.id, exc_info=exc)

    async def _ended(self, cancel: bool) -> None:
        """Tell the handler of the end, and wait for it."""
        self._is_over = True
        self._wake()
        task, self._task = self._task, None
        assert task is not None
        if cancel:
            task.cancel()
        before = _cancels()
        with contextlib.suppress(asyncio.CancelledError):  # it was cancelled before it began
            await task  # which a cancel of the waiting one cancels too
        if _cancels() > before:
            raise asyncio.CancelledError


def _cancels() -> int:
    """Return how often the current task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _says_closed(error: BaseException) -> bool:
    """Tell whether it is `ChannelClosedError`, or that is all that the tasks of a group raised."""
    if isinstance(error, BaseExceptionGroup):
        parts: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return all(map(_says_closed, parts))
    return isinstance(error, ChannelClosedError)


def _second_reader(id: str) -> RuntimeError:
    return RuntimeError(f"another task is reading from channel {id} already: one reads, any number send")


def _received(channel: WebSocketChannel, stream: MessageStream[Any], message: str | bytes) -> Awaitable[None] | None:
    return stream._put(message, len(message))


@overload
def stream_handler(
    handler: Handler[Raw],
    *,
    codec: None = None,
    on_error: OnError[Raw] | None = None,
    cancel_on_close: bool = False,
    receive_buffer: int = 16,
    **options: Unpack[ChannelOptions],
) -> WebSocketOptions[MessageStream[Raw]]: ...
@overload
def stream_handler(
    handler: Handler[M],
    *,
    codec: Codec[M],
    on_error: OnError[M] | None = None,
    cancel_on_close: bool = False,
    receive_buffer: int = 16,
    **options: Unpack[ChannelOptions],
) -> WebSocketOptions[MessageStream[M]]: ...
def stream_handler(
    handler: Handler[Any],
    *,
    codec: Codec[Any] | None = None,
    on_error: OnError[Any] | None = None,
    cancel_on_close: bool = False,
    receive_buffer: int = 16,
    **options: Unpack[ChannelOptions],
) -> WebSocketOptions[MessageStream[Any]]:
    """Return options for a handler that reads its messages in a loop; they go wherever options do.

    The handler runs in a task of its own, beginning when ``on_open`` would. When it returns, the channel is closed with
    1000; when it raises, that is logged, the channel closed with 1011 and ``on_error`` called (ERR-1). A
    `ChannelClosedError` that it lets through after the end is not a failure.

    Args:
        handler: ``async def handler(stream, request)``.
        codec: Turns messages into objects and back; see `Codec`.
        on_error: ``on_error(channel, stream, exception)``, as in `WebSocketOptions`.
        cancel_on_close: Whether the handler is cancelled at the channel's end; otherwise it runs on to its own.
        receive_buffer: How many messages may wait to be read, 1 or more; one of over 64 KiB fills it. While it is full,
            the peer is held back.
        options: Those of `WebSocketOptions` that are not callbacks.

    Raises:
        TypeError: ``handler`` is not a coroutine function or does not take two arguments, ``codec`` lacks a method, an
            unknown option, or one of a wrong type; the message names it.
        ValueError: A value that is out of range; likewise.

    STREAM-1, STREAM-7 to STREAM-10.
    """
    if not is_coroutine_function(handler):
        raise TypeError(f"handler must be a coroutine function, not {described(handler)}")
    check_callback("handler", handler, "stream", "request")
    if on_error is not None:
        check_callback("on_error", on_error, "channel", "stream", "exception")
    if not isinstance(cancel_on_close, bool):
        raise TypeError(f"cancel_on_close must be a bool, not {cancel_on_close!r}")
    if isinstance(receive_buffer, bool) or not isinstance(receive_buffer, int):
        raise TypeError(f"receive_buffer must be an int, not {receive_buffer!r}")
    if receive_buffer < 1:
        raise ValueError(f"receive_buffer must be at least 1, not {receive_buffer}")
    for name in options:
        if name in _OWN:
            raise TypeError(f"{name} is no option of stream_handler: the handler reads for itself")
        if name not in OPTION_NAMES:
            raise TypeError(f"stream_handler has no option {name!r}")

    def on_open(channel: WebSocketChannel, request: Request) -> MessageStream[Any]:
        stream: MessageStream[Any] = MessageStream(channel, request, codec, receive_buffer)
        stream._task = begin_later(stream._loop, stream._run(handler, on_error))
        return stream

    def on_coded(channel: WebSocketChannel, stream: MessageStream[Any], data: str | bytes) -> Awaitable[None] | None:
        assert codec is not None
        return stream._put(decode_or_close(codec, channel, data), len(data))

    async def on_close(channel: WebSocketChannel, stream: MessageStream[Any], reason: CloseReason) -> None:
        await stream._ended(cancel_on_close)

    on_message = _received if codec is None else on_coded
    return WebSocketOptions(
        on_open=on_open,
        on_text=on_message,
        on_binary=on_message,
        on_close=on_close,
        on_error=on_error,
        codec=codec,
        **options,
    )
