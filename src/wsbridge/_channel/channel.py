"""`BaseChannel`: every rule of order, closing and time of a channel, once for all connectors.

A connector's channel writes frames through its server and reports what the server read; what that means for the
application is decided here. Servers that are asked for messages fill `BaseChannel._receive`; those that push them use
`QueuedChannel` of `queued`, or, on an asyncio transport, `TransportChannel` of `transport`.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from struct import Struct
from types import CoroutineType
from typing import Any, ClassVar, TypeVar, cast

from wsbridge._channel.clock import Timer
from wsbridge._channel.draining import Connection, unacknowledged
from wsbridge._channel.host import Host
from wsbridge._common.callbacks import check_callback
from wsbridge._common.logs import log_failure
from wsbridge._common.tasks import begin_later
from wsbridge.close import BEGUN, CloseReason, Initiator, check_close, close_reason
from wsbridge.errors import (
    CallbackAlreadySetError,
    ChannelNotOpenError,
    MessageDecodeError,
    MessageKindError,
    SendError,
)
from wsbridge.http import Request
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import BinaryFormat, BinaryLike

__all__ = ["TURN", "BaseChannel"]

logger = logging.getLogger("wsbridge")

T = TypeVar("T")

Callback = Callable[..., Any]
Running = Coroutine[Any, Any, object]

_COROUTINE: type[CoroutineType[Any, Any, object]] = CoroutineType

_FORMATS: dict[BinaryFormat, Callable[[bytes], object] | None] = {
    "bytes": None,
    "memoryview": memoryview,
    "stream": io.BytesIO,
}
_PING = Struct("!I")
_GRACE = 0.2  # seconds: a pong that lies unread behind a callback that has just ended is no missing pong
_BUSY_STEP = 0.25  # seconds between two looks at a channel whose deadline passed while its callback runs
TURN = 64  # messages that are delivered, or sent one after the other, before all else has its turn (FLOW-3, FLOW-4)
_REFUSED = 1000  # sends that were answered with False, one after the other, and are worth a warning


class BaseChannel(ABC):
    """A `wsbridge.WebSocketChannel` but for the frames.

    A subclass fills the abstract methods, and reports with `text_received`, `binary_received`, `ping_received` (unless
    its server answers pings itself), `pong_received`, `peer_closed`, `failed`, `connection_lost`, `pause_writing` and
    `resume_writing`. It calls `run` in a task once the 101 is sent, or `abandon` if it cannot be.

    Attributes:
        id: OPEN-7.
        subprotocol: HS-3.
        native: The server's connection object.
        running: The coroutine of the callback that runs now; `_receive` sets it to None when it has awaited one.
    """

    __slots__ = (
        "__weakref__",
        "_activity",
        "_binary",
        "_binary_convert",
        "_burst",
        "_checked",
        "_close_begun",
        "_closing",
        "_connector",
        "_cut_at",
        "_deflating",
        "_dropping",
        "_failed",
        "_gone",
        "_idle_timeout",
        "_inflight",
        "_lost",
        "_max_binary",
        "_max_text",
        "_opened",
        "_options",
        "_over",
        "_path",
        "_ping_at",
        "_ping_count",
        "_pong_by",
        "_pong_due",
        "_process",
        "_reason",
        "_refused",
        "_request",
        "_secure",
        "_seen_cancels",
        "_senders",
        "_slow",
        "_stalled",
        "_task",
        "_tell",
        "_text",
        "_timer",
        "_unsent",
        "_waiter",
        "_write_paused",
        "id",
        "native",
        "running",
        "subprotocol",
    )

    closed_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The server's exceptions that mean that the peer is gone, beside `OSError`."""

    is_pulled: ClassVar[bool] = False
    """Whether the server is asked for messages, so that somebody must read while ``on_open`` runs."""

    def __init__(
        self,
        connector: Host,
        request: Request,
        options: WebSocketOptions[Any],
        subprotocol: str | None,
    ) -> None:
        self.id = os.urandom(16).hex()
        self.subprotocol = subprotocol
        self.native: Any = None
        self.running: Running | None = None
        self._connector = connector
        self._request: Request | None = request  # until on_open has it: an idle channel should keep little
        self._path = request.path
        self._secure = request.scheme == "wss"
        self._options = options
        self._process: Any = None
        self._text: Callback | None = options.on_text
        self._binary: Callback | None = options.on_binary
        self._binary_convert: Callable[[bytes], object] | None = None
        limit = options.max_text_size
        self._max_text = sys.maxsize if limit is None else limit // 4  # characters that fit however they are encoded
        self._max_binary = sys.maxsize if options.max_binary_size is None else options.max_binary_size
        self._idle_timeout = options.idle_timeout
        self._checked = connector.loop.get_debug()

        self._opened = False  # on_open has started
        self._gone = False  # sends answer False
        self._refused = 0  # how many have, while nothing was delivered
        self._reason: CloseReason | None = None
        self._dropping = False  # no more messages are delivered, whatever waits or comes
        self._close_begun = False  # a close frame is written, or waits for the sends under way
        self._failed = False  # the server reads no more, because the peer broke the protocol
        self._over = False  # nothing more will come: the peer's close frame is in, or the connection is gone
        self._lost = False  # the connection is gone
        self._waiter: asyncio.Future[None] | None = None
        self._tell: Callable[[bool], object] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._seen_cancels = 0

        self._slow = True  # a send has more to look at than the frame
        self._burst = 0  # sends since the last message was delivered, or since they let others have their turn
        self._write_paused = False
        self._deflating = False  # a large message is, outside the event loop
        self._senders: deque[asyncio.Future[None]] | None = None
        self._inflight: set[asyncio.Task[object]] | None = None
        self._closing: asyncio.Task[None] | None = None

        self._timer: Timer | None = None
        self._activity = 0.0
        self._ping_at: float | None = None
        self._ping_count = 0
        self._pong_by: float | None = None
        self._pong_due: bytes | None = None  # the payload of a pong that waits until the peer reads on
        self._cut_at: float | None = None
        self._stalled = 0.0
        self._unsent: int = 0

    # ---- what a connector fills -------------------------------------------------------------------------------------

    @abstractmethod
    def _send_text(self, text: str) -> Awaitable[object] | None:
        """Write a text message; return what is to be awaited for that, or None.

        Must encode before it touches the connection, so that a `UnicodeEncodeError` harms nothing. What may suspend
        after it has begun must come from `_track`.
        """

    @abstractmethod
    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        """Write a binary message; return what is to be awaited for that, or None. As `_send_text`."""

    @abstractmethod
    def _close(self, code: int | None, text: str) -> None:
        """Write a close frame (None: an empty one), unless the server has written one."""

    @abstractmethod
    def _disconnect(self) -> None:
        """End the sending side of the connection once all is written, or close it. Called when the peer's close is in.

        After `failed` too: what the peer still sends should then be read and dropped, so that it gets to read why.
        """

    @abstractmethod
    def _aborter(self) -> Callable[[], object]:
        """Return a function that cuts the connection at once, whatever is unsent, and does not hold the channel."""

    @abstractmethod
    async def _receive(self) -> None:
        """Report what the server reads, in order, until `_over`; await what `text_received` returns.

        It is called again after a callback raised, to read the rest.
        """

    def _ping(self, payload: bytes) -> None:
        """Write a ping. Needed where the connector has the feature ``"ping"``."""
        raise NotImplementedError

    def _pong(self, payload: bytes) -> None:
        """Write a pong. Needed where `ping_received` is called."""
        raise NotImplementedError

    @abstractmethod
    def _unsent_bytes(self) -> int:
        """Return how much is written and has not left this process yet."""

    def _is_full(self) -> bool:
        """Tell whether the server's write buffer is full. Needed where `_send_large` is called."""
        raise NotImplementedError

    def _drainable(self) -> Connection | None:
        """Return the connection, if its server closes the socket as soon as all is written to it."""
        return None

    async def _read_ahead(self) -> None:  # noqa: B027
        """Read until the first message or the end, while ``on_open`` runs (OPEN-9). Servers that push need not."""

    @property
    def is_looked_for(self) -> bool:
        """Whether the end is not known, and a callback runs, so that nobody reads who would come upon it."""
        return self._reason is None and self.running is not None

    def look_for_end(self) -> None:  # noqa: B027
        """Look whether the server has read the end after messages that wait, and take it by `_end_read` (CLOSE-6).

        Called while a callback runs and somebody waits for the end. Servers that push need not.
        """

    @property
    def options(self) -> WebSocketOptions[Any]:
        """What the channel was made with."""
        return self._options

    # ---- what the application calls ---------------------------------------------------------------------------------

    @property
    def reason(self) -> CloseReason | None:
        """See `wsbridge.WebSocketChannel.reason`."""
        if self.is_pulled and self.is_looked_for:
            self._connector.look_out(self)
        return self._reason

    def on_text(self, callback: Callback, /) -> None:
        """See `wsbridge.WebSocketChannel.on_text`."""
        self._check_loop()
        check_callback("on_text", callback, "channel", "process", "text")
        if self._text is not None:
            raise CallbackAlreadySetError(f"channel {self.id} has an on_text callback already: {self._text!r}")
        self._text = callback

    def on_binary(self, callback: Callback, /, *, format: BinaryFormat = "bytes") -> None:
        """See `wsbridge.WebSocketChannel.on_binary`."""
        self._check_loop()
        check_callback("on_binary", callback, "channel", "process", "data")
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {', '.join(map(repr, _FORMATS))}, not {format!r}")
        if self._binary is not None:
            raise CallbackAlreadySetError(f"channel {self.id} has an on_binary callback already: {self._binary!r}")
        self._binary = callback
        self._binary_convert = _FORMATS[format]

    async def send_text(self, text: str, /) -> bool:
        """See `wsbridge.WebSocketChannel.send_text`."""
        self._burst += 1
        if self._slow or self._burst > TURN or type(text) is not str:
            if not isinstance(text, str):
                raise TypeError(f"send_text needs a str, not {type(text).__name__}")
            if not await self._ready_to_send():
                return False
        try:
            pending = self._send_text(text)
            if pending is not None:
                await pending
        except Exception as exc:
            self._send_failed(exc)
            return await self._refuse()
        return True

    async def send_binary(self, data: BinaryLike, /) -> bool:
        """See `wsbridge.WebSocketChannel.send_binary`."""
        self._burst += 1
        if self._slow or self._burst > TURN or type(data) is not bytes:
            if not isinstance(data, bytes):
                data = await self._whole_message(data)
            if not await self._ready_to_send():
                return False
            if not isinstance(data, bytes):  # the server may write later what the caller changes meanwhile
                data = memoryview(data).tobytes()  # type: ignore[arg-type]
        try:
            pending = self._send_binary(data)
            if pending is not None:
                await pending
        except Exception as exc:
            self._send_failed(exc)
            return await self._refuse()
        return True

    async def send(self, message: Any, /) -> bool:
        """See `wsbridge.WebSocketChannel.send`."""
        codec = self._options.codec
        if codec is not None:
            message = codec.encode(message)
        return await (self.send_text(message) if isinstance(message, str) else self.send_binary(message))

    def close(self, code: int = 1000, text: str = "") -> Awaitable[None]:
        """See `wsbridge.WebSocketChannel.close`."""
        self._check_loop()
        code = check_close(code, text)
        if not self._opened:
            raise ChannelNotOpenError(f"channel {self.id} is not open yet: close it in on_open or later")
        if self._reason is None:
            self._end_here(code, text)
        else:
            self._drop()  # the peer ended it: what came before that is of no more interest (CLOSE-1)
        return BEGUN

    async def wait_closed(self) -> CloseReason:
        """See `wsbridge.WebSocketChannel.wait_closed`."""
        self._check_loop()
        while self._reason is None:
            if self._waiter is None:
                self._waiter = self._connector.loop.create_future()
            if self.is_pulled:
                self._connector.look_out(self)
            await asyncio.shield(self._waiter)
        return self._reason

    def tell_early(self, callback: Callable[[bool], object], /) -> None:
        """See `wsbridge.protocols.TellsEarly`."""
        self._tell = callback
        if self.is_pulled:
            self._connector.look_out(self)
        self._tell_end()

    # ---- what a connector reports -----------------------------------------------------------------------------------

    def text_received(self, text: str) -> Running | None:
        """Deliver a text message (RECV-1); return the callback's coroutine, if it is to be awaited."""
        if self._dropping:
            return None
        if len(text) > self._max_text and self._is_too_big(text):
            self._end_here(1009, "")
            return None
        if self._idle_timeout is not None:
            self._activity = self._connector.clock.time()
        self._burst = 0
        callback = self._text
        if callback is None:
            return None
        result = callback(self, self._process, text)
        if type(result) is _COROUTINE and self._idle_timeout is None:  # the common case, without a call
            self.running = result
            return result
        return None if result is None else self._started(result)

    def binary_received(self, data: bytes) -> Running | None:
        """Deliver a binary message (RECV-2); return the callback's coroutine, if it is to be awaited."""
        if self._dropping:
            return None
        if len(data) > self._max_binary:
            self._end_here(1009, "")
            return None
        if self._idle_timeout is not None:
            self._activity = self._connector.clock.time()
        self._burst = 0
        callback = self._binary
        if callback is None:
            return None
        convert = self._binary_convert
        result = callback(self, self._process, data if convert is None else convert(data))
        if type(result) is _COROUTINE and self._idle_timeout is None:
            self.running = result
            return result
        return None if result is None else self._started(result)

    def ping_received(self, payload: bytes) -> None:
        """Answer a ping (RECV-7), but not behind a close frame (SEND-6).

        Of those that come while the peer reads too slowly, the last is answered (RFC 6455, 5.5.3; FLOW-2).
        """
        if self._write_paused and (not self._deflating or self._is_full()):
            self._pong_due = payload
        elif not (self._close_begun or self._lost):
            self._write_quietly(self._pong, payload)

    def pong_received(self, payload: bytes) -> None:
        """Take a pong; it answers the ping that it repeats and those before it (RFC 6455, 5.5.3)."""
        if len(payload) == _PING.size and self._pong_by is not None and self._options.ping_timeout is not None:
            missing = self._ping_count - _PING.unpack(payload)[0]
            if missing == 0:
                self._pong_by = None
            elif 0 < missing < self._ping_count:
                self._pong_by = self._connector.clock.time() + self._options.ping_timeout

    def peer_closed(self, code: int | None, text: str) -> None:
        """Take the peer's close frame (code None: an empty one) and answer it (CLOSE-4)."""
        if self._over:
            return
        connection = self._drainable()  # before the answer, which the peer cannot have taken yet
        is_behind = connection is not None and (connection[1]() != 0 or unacknowledged(connection[0]) != 0)
        self._end_read(1005 if code is None else code, text, "peer")
        self._begin_close(code, text, is_answer=True)
        self._set_over()
        if self._closing is None:
            self._disconnect_once(is_behind=is_behind)
        if self._cut_at is not None and (self._closing is not None or self._is_unfinished()):
            self._arm(self._cut_at)

    def connection_lost(self) -> None:
        """Take it that the connection is gone, with or without a close before."""
        self._lost = True
        if self._closing is not None:
            self._closing.cancel()  # there is nothing left to write it to
        if not self._over:
            self._end_read(1006, "", "network")
            self._set_over()

    def half_closed(self) -> None:
        """Take the end of what the peer sends; it may not read the rest, which is written before the server closes."""
        self.connection_lost()
        if self._unsent_bytes():
            self._connector.linger(self._connector.clock.time() + self._options.close_timeout, self._aborter())

    def failed(self, code: int, text: str = "") -> None:
        """Take a violation by the peer, or a message that is too big: close with ``code`` (RECV-8, RECV-9, LIM-1)."""
        if self._over or self._failed:
            return
        self._failed = True
        self._end_read(code, text, "local")
        self._begin_close(code, text)
        if self._closing is None:
            self._disconnect_once()

    def pause_writing(self) -> None:
        """Hold back sends: the server's buffer is full (FLOW-2)."""
        if not self._write_paused and not self._lost:
            self._write_paused = self._slow = True
            if self._options.send_timeout is not None:
                self._unsent = self._unsent_bytes()
                self._stalled = self._connector.clock.time()
                self._arm(self._stalled + self._options.send_timeout / 4)

    def resume_writing(self) -> None:
        """Let sends go on."""
        if self._write_paused and not self._deflating:
            self._write_paused = False
            self._set_slow()
            if self._pong_due is not None:
                payload, self._pong_due = self._pong_due, None
                self.ping_received(payload)
            self._next_sender()

    async def run(self) -> None:
        """Live the life of the channel: ``on_open``, messages, ``on_error``, ``on_close``. Once, when the 101 is sent.

        Raises:
            asyncio.CancelledError: The task was cancelled; ``on_close`` has run (ERR-3).
        """
        self._task = asyncio.current_task()
        self._seen_cancels = self._cancelling()
        cancelled: asyncio.CancelledError | None = None
        opened = False
        try:
            self._opened = True
            self._set_slow()
            self._arm_timeouts()
            opening = not self._connector.is_stopping
            if not opening:
                self.shut_down()  # stopped between the handshake and here: nothing was told to the application (STOP-5)
            while opening or not self._over:
                had_ended = False
                try:
                    if opening:
                        opening = False
                        await self._open()
                        opened = True
                    had_ended = self._dropping
                    await self._receive()
                    if not self._over:
                        self.connection_lost()  # the server reads no more, without a word why
                except asyncio.CancelledError as exc:
                    if self._was_cancelled():
                        if cancelled is not None and self.running is None:
                            self.cut_off()  # a second time: whoever cancels will not wait
                        cancelled = exc
                        self._end_or_drop(1011, "")
                    else:
                        await self._callback_failed(exc)
                except Exception as exc:
                    if had_ended:  # no callback runs behind the end: the server fails, and would again
                        logger.exception("channel %s could not read what came behind its end", self.id)
                        self.cut_off()
                    else:
                        await self._callback_failed(exc)
                self.running = None
            if opened and self._options.on_close is not None:
                await self._run_last("on_close", self._options.on_close, self._reason)
            if self._closing is not None:
                await asyncio.wait((self._closing,))  # the server may end the connection with this task (CLOSE-4)
        except (KeyboardInterrupt, SystemExit):
            self.cut_off()  # or a server that waits for the connection's end would hold it back (ERR-3)
            raise
        finally:
            self._release()
        if cancelled is not None:
            raise cancelled

    def abandon(self) -> None:
        """Give up a channel whose 101 was never sent: no callback runs (HS-10)."""
        self._gone = True
        self._over = self._lost = True
        self._set_reason(1006, "", "network")
        self._release()

    def shut_down(self) -> None:
        """Close for the connector's stop (STOP-2)."""
        if self._opened and self._reason is None:
            self._end_here(1001, "server shutdown")

    def cut_off(self) -> None:
        """Cut the connection, whatever has or has not been said on it."""
        if not self._lost:
            self._end_read(1006, "", "network")
            self._cut()
        self._drop()

    def cancel(self) -> None:
        """Cancel the callback that runs now, if any."""
        if self._task is not None and self.running is not None:
            self._task.cancel()

    def is_run_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether ``task`` runs this channel's callbacks."""
        return task is not None and task is self._task

    # ---- sending ----------------------------------------------------------------------------------------------------

    def _track(self, coroutine: Coroutine[Any, Any, object]) -> Awaitable[object]:
        """Run a send that may suspend after it has begun, so that no cancel tears it and a close waits for it."""
        task = self._connector.loop.create_task(coroutine)
        if self._inflight is None:
            self._inflight = set()
        self._inflight.add(task)
        task.add_done_callback(self._inflight.discard)
        task.add_done_callback(_retrieve)
        return asyncio.shield(task)

    def _send_large(self, sending: Coroutine[Any, Any, object]) -> Awaitable[object]:
        """Run a send that deflates outside the event loop (SEND-9).

        The others wait, with nothing encoded, until it is written (SEND-4, FLOW-2); control frames go out meanwhile.
        """
        self._deflating = True
        self.pause_writing()
        return self._track(self._send_alone(sending))

    async def _send_alone(self, sending: Coroutine[Any, Any, object]) -> None:
        try:
            await sending
        finally:
            self._deflating = False
            if not self._is_full():
                self.resume_writing()

    async def _deflated(self, deflate: Callable[[], T], write: Callable[[T], object]) -> None:
        """Have ``deflate`` run by an executor, and write its result, unless nobody is left to read it."""
        result = await self._connector.loop.run_in_executor(None, deflate)
        if self._lost:
            raise ConnectionResetError("the connection was lost while a message was deflated")
        write(result)

    def _set_slow(self) -> None:
        self._slow = (
            not self._opened
            or self._gone
            or self._write_paused
            or bool(self._senders)
            or self._checked
            or self._idle_timeout is not None
        )

    async def _ready_to_send(self) -> bool:
        """Wait for this send's turn; False if the channel has ended."""
        self._check_loop()
        if not self._opened:
            raise ChannelNotOpenError(f"channel {self.id} is not open yet: send in on_open or later")
        if self._burst > TURN:
            self._burst = 0
            await asyncio.sleep(0)  # what ends a loop that sends may have to happen on the event loop
        if not self._gone and (self._write_paused or self._senders):
            await self._wait_for_turn()
        if self._gone:
            return await self._refuse()
        if self._idle_timeout is not None:
            self._activity = self._connector.clock.time()
        return True

    async def _refuse(self) -> bool:
        """Answer a send with False, after all else has had its turn: a loop may be asking that looks at nothing."""
        self._refused += 1
        if self._refused == _REFUSED:
            logger.warning(
                "channel %s has ended, and %d sends on it since were answered with False, to which nobody looks: "
                "end what sends when a send returns False",
                self.id,
                _REFUSED,
            )
        await asyncio.sleep(0)
        return False

    async def _wait_for_turn(self) -> None:
        """Wait in line while the peer reads too slowly; what waits is in its caller's memory alone (FLOW-2)."""
        loop = self._connector.loop
        if self._senders is None:
            self._senders = deque()
        senders = self._senders
        turn: asyncio.Future[None] = loop.create_future()
        senders.append(turn)
        self._slow = True
        try:
            while True:
                await turn
                if self._gone or not self._write_paused:
                    return
                senders[senders.index(turn)] = turn = loop.create_future()
        finally:
            senders.remove(turn)
            if senders:
                loop.call_soon(self._next_sender)  # after this one has written, which may pause writing again
            else:
                self._set_slow()

    def _next_sender(self) -> None:
        if self._senders and not self._write_paused and not self._senders[0].done():
            self._senders[0].set_result(None)

    async def _whole_message(self, data: BinaryLike) -> BinaryLike:
        """Return what ``send_binary`` was given as bytes-like; a file is read off the event loop (SEND-2)."""
        read = getattr(data, "read", None)
        if read is None:
            try:
                memoryview(data).release()  # type: ignore[arg-type]
                return data
            except TypeError:
                raise TypeError(
                    f"send_binary needs a bytes-like object or a binary file, not {type(data).__name__}"
                ) from None
        self._check_loop()
        if not self._opened:
            raise ChannelNotOpenError(f"channel {self.id} is not open yet: send in on_open or later")
        if not self._gone and (self._write_paused or self._senders):
            await self._wait_for_turn()  # not to hold in memory what cannot be sent yet
        if self._gone:
            return b""
        content: Any = await asyncio.to_thread(read)
        if isinstance(content, bytes | bytearray):
            return content
        raise TypeError(f"send_binary needs a binary file; read() of this one returned {type(content).__name__}")

    def _send_failed(self, error: Exception) -> None:
        """Return if a failed send means that the peer is gone; else raise what it means (SEND-1, SEND-3, SEND-7)."""
        if isinstance(error, UnicodeEncodeError):
            raise error
        if isinstance(error, (OSError, self.closed_errors)):
            self._stop_sending()
            return
        if self._reason is None:
            self._end_here(1011, "")
        raise SendError(f"the server could not send on channel {self.id}: {error!r}") from error

    # ---- ending -----------------------------------------------------------------------------------------------------

    def _stop_sending(self) -> None:
        """From now on sends answer False, those that wait too."""
        self._gone = self._slow = True
        self._tell_end()
        if self._senders:
            for turn in self._senders:
                if not turn.done():
                    turn.set_result(None)

    def _set_reason(self, code: int, text: str, initiator: Initiator) -> None:
        if self._reason is None:
            self._reason = close_reason(code, text, initiator, self._connector.close_keywords)
            self._tell_end()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _end_read(self, code: int, text: str, initiator: Initiator) -> None:
        """Take an end that the server has read; the messages from before it are still delivered (CLOSE-6, CLOSE-10)."""
        self._set_reason(code, text, initiator)
        self._stop_sending()

    def _end_here(self, code: int, text: str) -> None:
        """End the channel from this side and begin the close handshake."""
        self._set_reason(code, text, "local")
        self._drop()
        self._stop_sending()
        self._begin_close(code, text)

    def _end_or_drop(self, code: int, text: str) -> None:
        """End the channel from this side, or, if it has ended, deliver no more of what came before that (ERR-1)."""
        if self._reason is None:
            self._end_here(code, text)
        else:
            self._drop()

    def _drop(self) -> None:
        """Deliver no more messages (RECV-4)."""
        if not self._dropping:
            self._dropping = True
            self._drop_undelivered()
            self._tell_end()

    def _drop_undelivered(self) -> None:  # noqa: B027
        """Forget the messages that wait."""

    def _tell_end(self) -> None:
        """Tell who wants to know it early of the end, and whether all that came before is delivered."""
        if self._tell is not None and self._gone:
            self._tell(self._reason is not None and (self._dropping or self._is_delivered()))

    def _is_delivered(self) -> bool:
        """Tell whether all is delivered that came before the end, which is known."""
        return self._over or self._failed

    def _begin_close(self, code: int | None, text: str, *, is_answer: bool = False) -> None:
        """Send a close frame behind the sends under way, if none has been; the clock runs from here (CLOSE-5).

        With the answer to a peer's close the connection ends, mostly at once: then there is nothing to be cut.
        """
        if self._close_begun or self._lost:
            return
        self._close_begun = True
        self._ping_at = self._pong_by = None
        self._cut_at = self._connector.clock.time() + self._options.close_timeout
        if not is_answer:
            self._arm(self._cut_at)
        if self._inflight:
            self._closing = begin_later(self._connector.loop, self._close_behind_sends(code, text))
        else:
            self._write_close(code, text)

    async def _close_behind_sends(self, code: int | None, text: str) -> None:
        while self._inflight:
            await asyncio.wait(self._inflight)
        self._closing = None
        self._write_close(code, text)
        if self._over or self._failed:
            self._disconnect_once(is_behind=not self._failed)

    def _write_close(self, code: int | None, text: str) -> None:
        self._write_quietly(self._close, code, text)

    def _write_quietly(self, write: Callable[..., object], *arguments: object) -> None:
        """Write a control frame, which nobody waits for: a peer that is gone is reported by the receiving side."""
        try:
            write(*arguments)
        except Exception as exc:
            if isinstance(exc, (OSError, self.closed_errors)):
                self._stop_sending()
                return
            logger.exception("channel %s could not write a control frame", self.id)
            self.cut_off()

    def _disconnect_once(self, *, is_behind: bool = False) -> None:
        """Disconnect; a peer that closed and is behind with reading may still send (RFC 6455, 7.1.1)."""
        if not self._lost:
            if is_behind and self._cut_at is not None and (connection := self._drainable()) is not None:
                self._connector.drain(*connection, self._cut_at)
            try:
                self._disconnect()
            except OSError:  # the peer has reset the connection, which the server reports when it is cut
                self._aborter()()

    def _is_unfinished(self) -> bool:
        """Tell whether the connection may outlast the channel, since the peer has to read first, or to end TLS."""
        return self._secure or bool(self._unsent_bytes())

    def _set_over(self) -> None:
        """Nothing more will come: let `run` finish."""
        self._over = True
        self._tell_end()

    def _cut(self) -> None:
        self._lost = True
        if self._closing is not None:
            self._closing.cancel()
        self._aborter()()
        self._set_over()

    def _release(self) -> None:
        """Let go of everything, so that nothing keeps an ended channel (THR-3)."""
        if self._timer is not None:
            self._connector.clock.cancel(self._timer)
            self._timer = None
        if not self._lost and self._cut_at is not None and self._is_unfinished():
            self._connector.linger(self._cut_at, self._aborter())
        self._connector.release(self)
        self._task = self.running = self._process = self._tell = None

    # ---- callbacks --------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        on_open = self._options.on_open
        request, self._request = self._request, None
        if on_open is None:
            return
        result = on_open(self, request)
        del request
        if result is not None and asyncio.iscoroutine(result):
            self.running = result
            if not self.is_pulled:
                result = await result
            else:
                async with _Ahead(begin_later(self._connector.loop, self._read_ahead())):
                    result = await result
            self.running = None
        self._process = None if result is BEGUN else result  # of `lambda channel, request: channel.close()`
        self._activity = self._connector.clock.time()

    def _started(self, result: object) -> Running | None:
        """Return what a callback returned if it is to be awaited; anything else is an ordinary value (OPEN-2)."""
        if not asyncio.iscoroutine(result):
            if not hasattr(type(result), "__await__") or asyncio.isfuture(result) or result is BEGUN:
                return None
            result = _awaited(cast("Awaitable[object]", result))
        if self._idle_timeout is not None:
            result = self._timed(result)
        self.running = result
        return result

    async def _timed(self, running: Running) -> None:
        """Await a callback where idle time counts, which stands still meanwhile (LIM-2)."""
        self._activity = self._connector.clock.time()
        try:
            await running
        finally:
            self._activity = self._connector.clock.time()

    async def _callback_failed(self, error: BaseException) -> None:
        """Log what a callback raised, close with 1011 and tell ``on_error`` (ERR-1)."""
        self.running = None
        by_peer = isinstance(error, (MessageDecodeError, MessageKindError))
        log_failure("a callback", self.id, self._path, error, by_peer=by_peer)
        self._end_or_drop(1011, "")
        if self._options.on_error is not None:
            await self._run_last("on_error", self._options.on_error, error)

    async def _run_last(self, name: str, callback: Callback, argument: object) -> None:
        """Run ``on_error`` or ``on_close``; what they raise is logged and changes nothing (ERR-2)."""
        try:
            result = callback(self, self._process, argument)
            if result is not None and asyncio.iscoroutine(result):
                self.running = result
                await result
        except asyncio.CancelledError as exc:
            if self._was_cancelled():
                logger.warning("%s of channel %s was cancelled", name, self.id)
            else:
                logger.error("%s of channel %s raised", name, self.id, exc_info=exc)
        except Exception as exc:
            logger.error("%s of channel %s raised", name, self.id, exc_info=exc)
        finally:
            self.running = None

    def _cancelling(self) -> int:
        return 0 if self._task is None else self._task.cancelling()

    def _was_cancelled(self) -> bool:
        """Tell whether a `CancelledError` is a new cancellation of the channel's own task (ERR-3)."""
        count = self._cancelling()
        new = count > self._seen_cancels
        self._seen_cancels = count
        return new

    def _is_too_big(self, text: str) -> bool:
        limit = self._options.max_text_size
        return limit is not None and (len(text) > limit or len(text.encode()) > limit)

    def _check_loop(self) -> None:
        """In debug mode, refuse calls from another thread or loop (THR-1)."""
        if not self._checked:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self._connector.loop:
            raise RuntimeError(
                f"channel {self.id} was called from another thread or event loop; it is not thread-safe: "
                "use loop.call_soon_threadsafe(...) of the loop that serves it"
            )

    # ---- time -------------------------------------------------------------------------------------------------------

    def _arm(self, when: float) -> None:
        clock = self._connector.clock
        if self._timer is not None and self._timer.when > when:
            clock.cancel(self._timer)
            self._timer = None
        if self._timer is None:
            self._timer = clock.at(when, self)

    def _arm_timeouts(self) -> None:
        now = self._activity = self._connector.clock.time()
        if self._options.ping_interval is not None and "ping" in self._connector.features:
            self._ping_at = now + self._options.ping_interval
            self._arm(self._ping_at)
        if self._idle_timeout is not None:
            self._arm(now + self._idle_timeout)

    def tick(self, now: float) -> float | None:
        """Do what the clock finds due: LIM-2, LIM-3, LIM-4, CLOSE-5."""
        due: list[float] = []
        if self._lost:
            self._timer = None
            return None
        if self._write_paused and (send_timeout := self._options.send_timeout) is not None:
            due.append(self._tick_send(now, send_timeout))
        if self._cut_at is not None:
            if now >= self._cut_at:
                self._cut()
            else:
                due.append(self._cut_at)
        elif self._reason is None and not self._lost:
            if self._idle_timeout is not None:
                due.append(self._tick_idle(now, self._idle_timeout))
            if self._ping_at is not None:
                due.append(self._tick_ping(now, self._ping_at))
        if self._lost or not due:
            self._timer = None
            return None
        if self._cut_at is not None:
            due.append(self._cut_at)
        return max(min(due), now)

    def _tick_send(self, now: float, send_timeout: float) -> float:
        unsent = self._unsent_bytes()
        if unsent != self._unsent or not unsent:  # none: a large message is being deflated
            self._unsent, self._stalled = unsent, now
        elif now - self._stalled >= send_timeout:
            self._set_reason(1008, "send timeout", "local")
            self._stop_sending()
            self._drop()
            self._cut()
        return min(now + send_timeout / 4, max(self._stalled + send_timeout, now))

    def _tick_idle(self, now: float, idle_timeout: float) -> float:
        if self.running is not None:
            self._activity = now
        when = self._activity + idle_timeout
        if now < when:
            return when if self.running is None else now + min(_BUSY_STEP, idle_timeout)
        self._end_here(1001, "idle timeout")
        return now

    def _tick_ping(self, now: float, ping_at: float) -> float:
        options = self._options
        if self._pong_by is not None and now >= self._pong_by:
            if self.running is not None:
                self._pong_by = now + _BUSY_STEP
            elif now < self._pong_by + _GRACE:
                return self._pong_by + _GRACE
            else:
                self._end_here(1011, "ping timeout")
                self._cut()
                return now
        if now >= ping_at and options.ping_interval is not None:
            self._ping_at = ping_at = now + options.ping_interval
            waits = self._pong_by is not None or options.ping_timeout is None
            if not (self._write_paused and waits):  # no heap of pings behind a stuck peer, which would hide LIM-4
                self._ping_count += 1
                if self._pong_by is None and options.ping_timeout is not None:
                    self._pong_by = now + options.ping_timeout
                self._write_quietly(self._ping, _PING.pack(self._ping_count))
        return ping_at if self._pong_by is None else min(ping_at, self._pong_by)


async def _awaited(awaitable: Awaitable[object]) -> object:
    """Await what a compiled function returns in place of a coroutine."""
    return await awaitable


def _retrieve(task: asyncio.Task[object]) -> None:
    """Take what a send raised: whoever awaits it raises it, and a cancelled one has nobody left to tell."""
    if not task.cancelled():
        task.exception()


class _Ahead:
    """Ends the task that reads ahead while ``on_open`` runs; what it has read is kept by the channel."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
        if error is None and not self._task.cancelled() and (failure := self._task.exception()) is not None:
            raise failure
