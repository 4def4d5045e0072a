"""`BaseChannel`: the life of a channel, once for all connectors: ``on_open``, messages, ``on_error``, ``on_close``.

A connector's channel writes frames through its server and reports what the server read; what that means for the
application is decided here and in the classes below: how it ends (`ending`), what is late (`deadlines`), what is sent
(`sending`). Servers that are asked for messages fill `BaseChannel._receive`; those that push them use `QueuedChannel`,
or, on an asyncio transport, `TransportChannel`.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import CoroutineType
from typing import Any, ClassVar, TypeVar, cast

from wsbridge._channel.clock import Timer
from wsbridge._channel.draining import Connection, unacknowledged
from wsbridge._channel.ending import ABANDONED, CUT, FAILING, HERE, LOSS, LOST, NOTED, OVER, PEER
from wsbridge._channel.host import Host
from wsbridge._channel.published import CHANNEL, check_names
from wsbridge._channel.sending import PING, Sending
from wsbridge._common.callbacks import check_callback
from wsbridge._common.logs import log_failure
from wsbridge._common.tasks import begin_later
from wsbridge.close import BEGUN, CloseReason, Initiator, check_close
from wsbridge.errors import (
    CallbackAlreadySetError,
    ChannelNotOpenError,
    MessageDecodeError,
    MessageKindError,
)
from wsbridge.http import Request
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import BinaryFormat

__all__ = ["BaseChannel"]

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


class BaseChannel(Sending):
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
        "_binary",
        "_binary_convert",
        "_max_binary",
        "_max_text",
        "_path",
        "_process",
        "_request",
        "_secure",
        "_seen_cancels",
        "_task",
        "_text",
        "_timer",
        "_waiter",
        "native",
        "running",
        "subprotocol",
    )

    closed_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The server's exceptions that mean that the peer is gone, beside `OSError`."""

    overrides_internals: ClassVar[bool] = False
    """Whether a class may redefine what is not published: for tests of wsbridge itself."""

    is_pulled: ClassVar[bool] = False
    """Whether the server is asked for messages, so that somebody must read while ``on_open`` runs."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_names(cls, CHANNEL)

    def __init__(
        self,
        connector: Host,
        request: Request,
        options: WebSocketOptions[Any],
        subprotocol: str | None,
    ) -> None:
        super().__init__(connector, options)
        self.subprotocol = subprotocol
        self.native: Any = None
        self.running: Running | None = None
        self._request: Request | None = request  # until on_open has it: an idle channel should keep little
        self._path = request.path
        self._secure = request.scheme == "wss"
        self._process: Any = None
        self._text: Callback | None = options.on_text
        self._binary: Callback | None = options.on_binary
        self._binary_convert: Callable[[bytes], object] | None = None
        limit = options.max_text_size
        self._max_text = sys.maxsize if limit is None else limit // 4  # characters that fit however they are encoded
        self._max_binary = sys.maxsize if options.max_binary_size is None else options.max_binary_size
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._seen_cancels = 0
        self._timer: Timer | None = None

    # ---- what a connector fills -------------------------------------------------------------------------------------

    @abstractmethod
    def _disconnect(self, *, half: bool) -> None:
        """End the connection once all is written: with ``half`` its sending side, for what came after `failed`.

        What the peer still sends is then read and dropped, so that it gets to read why. Otherwise the peer's close is
        in.
        """

    @abstractmethod
    def _aborter(self) -> Callable[[], object]:
        """Return a function that cuts the connection at once, whatever is unsent, and does not hold the channel."""

    @abstractmethod
    async def _receive(self) -> None:
        """Report what the server reads, in order, until ``_phase`` is OVER; await what `text_received` returns.

        It is called again after a callback raised, to read the rest.
        """

    def _drainable(self) -> Connection | None:
        """Return the connection, if its server closes the socket as soon as all is written to it."""
        return None

    def _looked_at(self) -> None:
        """The clock looks at the channel, which may be used to look at the server."""

    def _let_go(self) -> None:
        """Nothing will be asked of the server any more: an application may keep the channel, but nothing else."""

    async def _read_ahead(self) -> None:
        """Read until the first message or the end, while ``on_open`` runs (OPEN-9). Servers that push need not."""

    @property
    def is_looked_for(self) -> bool:
        """Whether a callback runs and the end is not known: nobody reads then, so nobody would notice it."""
        return self._reason is None and self.running is not None

    def look_for_end(self) -> None:
        """Look whether the server has read the end after messages that wait, and take it by `end_read` (CLOSE-6).

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

    def close(self, code: int = 1000, text: str = "") -> Awaitable[None]:
        """See `wsbridge.WebSocketChannel.close`."""
        self._check_loop()
        code = check_close(code, text)
        if not self._opened:
            raise ChannelNotOpenError(f"channel {self.id} is not open yet: close it in on_open or later")
        self._end(HERE, code, text)  # if the peer has ended it, what came before that is of no more interest (CLOSE-1)
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
            self._end(HERE, 1009, "")
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
            self._end(HERE, 1009, "")
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

    def pong_received(self, payload: bytes) -> None:
        """Take a pong; it answers the ping that it repeats and those before it (RFC 6455, 5.5.3)."""
        if len(payload) == PING.size:
            self._pong_in(self._ping_count - PING.unpack(payload)[0])

    def peer_closed(self, code: int | None, text: str) -> None:
        """Take the peer's close frame (code None: an empty one) and answer it (CLOSE-4)."""
        self._end(PEER, code, text)

    def end_read(self, code: int, text: str, initiator: Initiator) -> None:
        """Take an end that the server has read after messages, which are still delivered (CLOSE-6, CLOSE-10).

        One of `peer_closed`, `failed` and `connection_lost` follows, when they are.
        """
        self._end(NOTED, code, text, initiator)

    def connection_gone(self) -> None:
        """Take it that the connection is gone, and that what came before is still to be fed (RECV-4).

        Sends answer False from now on. How the channel ended is told by what is fed yet: a close frame may be in it.
        One of `peer_closed`, `failed` and `connection_lost` follows.
        """
        self._connection_is_gone()

    def connection_lost(self) -> None:
        """Take it that the connection is gone, with or without a close before."""
        self._end(LOSS, 1006, "")

    def half_closed(self) -> None:
        """Take the end of what the peer sends; it may not read the rest, which is written before the server closes."""
        self.connection_lost()
        if self._unsent_bytes():
            self._connector.linger(self._connector.clock.time() + self._options.close_timeout, self._aborter())

    def failed(self, code: int, text: str = "") -> None:
        """Take a violation by the peer, or a message that is too big: close with ``code`` (RECV-8, RECV-9, LIM-1)."""
        self._end(FAILING, code, text)

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
            self._begin_times(pings=self._connector.can("ping"))
            opening = not self._connector.is_stopping
            if not opening:
                self.shut_down()  # stopped between the handshake and here: nothing was told to the application (STOP-5)
            while opening or self._phase < OVER:
                had_ended = False
                try:
                    if opening:
                        opening = False
                        await self._open()
                        opened = True
                    had_ended = self._dropping
                    await self._receive()
                    if self._phase < OVER:
                        self.connection_lost()  # the server reads no more, without a word why
                except asyncio.CancelledError as exc:
                    if self._was_cancelled():
                        if cancelled is not None and self.running is None:
                            self.cut_off()  # a second time: whoever cancels will not wait
                        cancelled = exc
                        self._end(HERE, 1011, "")
                    else:
                        await self._callback_failed(exc)
                except Exception as exc:
                    if had_ended:  # no callback runs after the end: the server fails, and would again
                        logger.exception("channel %s could not read what came after its end", self.id)
                        self.cut_off()
                    else:
                        await self._callback_failed(exc)
                self.running = None
            if opened and self._options.on_close is not None:
                await self._run_last("on_close", self._options.on_close, self._reason)
            await self.close_written()  # the server may end the connection with this task (CLOSE-4)
        except (KeyboardInterrupt, SystemExit):
            self.cut_off()  # or a server that waits for the connection's end would hold it back (ERR-3)
            raise
        finally:
            self._release()
        if cancelled is not None:
            raise cancelled

    def abandon(self) -> None:
        """Give up a channel whose 101 was never sent: no callback runs (HS-10)."""
        self._end(ABANDONED, 1006, "")
        self._release()

    def shut_down(self) -> None:
        """Close for the connector's stop (STOP-2)."""
        if self._opened and self._reason is None:
            self._end(HERE, 1001, "server shutdown")

    def cut_off(self) -> None:
        """Cut the connection, whatever has or has not been said on it."""
        self._end(CUT, 1006, "")
        self._drop()

    def cancel(self) -> None:
        """Cancel the callback that runs now, if any."""
        if self._task is not None and self.running is not None:
            self._task.cancel()

    def is_run_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether ``task`` runs this channel's callbacks."""
        return task is not None and task is self._task

    # ---- ending ------------------------------------------------------------------------------------------------------

    @property
    def _close_keywords(self) -> Mapping[int, str]:
        return self._connector.keywords

    def _reason_is_known(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_peer_behind(self) -> bool:
        connection = self._drainable()
        return connection is not None and (connection[1]() != 0 or unacknowledged(connection[0]) != 0)

    def _end_connection(self, *, half: bool, behind: bool) -> None:
        if behind and self._cut_at is not None and (connection := self._drainable()) is not None:
            self._connector.drain(*connection, self._cut_at)  # the peer may still send (RFC 6455, 7.1.1)
        try:
            self._disconnect(half=half)
        except OSError:  # the peer has reset the connection, which the server reports when it is cut
            self._cut_connection()

    def _cut_connection(self) -> None:
        self._aborter()()

    def _is_unfinished(self) -> bool:
        return self._secure or bool(self._unsent_bytes())

    def _release(self) -> None:
        """Let go of everything, so that nothing keeps an ended channel (THR-3)."""
        self._let_go()
        if self._timer is not None:
            self._connector.clock.cancel(self._timer)
            self._timer = None
        if self._phase < LOST and self._cut_at is not None and self._is_unfinished():
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
        self._end(HERE, 1011, "")
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

    # ---- time --------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._connector.clock.time()

    def _is_busy(self) -> bool:
        return self.running is not None

    def _arm(self, when: float) -> None:
        clock = self._connector.clock
        if self._timer is not None and self._timer.when > when:
            clock.cancel(self._timer)
            self._timer = None
        if self._timer is None:
            self._timer = clock.at(when, self)

    def tick(self, now: float) -> float | None:
        """Do what the clock finds due: LIM-2, LIM-3, LIM-4, CLOSE-5."""
        self._looked_at()
        while (due := self._due(now)).what != "nothing":
            if due.what == "ping":
                self._write_quietly(self._ping, PING.pack(self._ping_count))
            elif due.what == "idle timeout":
                self._end(HERE, 1001, due.what)
            elif due.what == "ping timeout":
                self._end(HERE, 1011, due.what)
                self._end(CUT, 1006, "")
            elif due.what == "send timeout":
                self._end(CUT, 1008, due.what, "local")
                self._drop()
            else:
                self._end(CUT, 1006, "")
        if due.look is None:
            self._timer = None
        return due.look


async def _awaited(awaitable: Awaitable[object]) -> object:
    """Await what a compiled function returns in place of a coroutine."""
    return await awaitable


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
