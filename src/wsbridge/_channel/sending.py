"""What is sent on a channel: in line while the peer reads too slowly, whole whatever is cancelled, before its close."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from struct import Struct
from typing import Any, ClassVar, TypeVar

from wsbridge._channel.deadlines import Deadlines
from wsbridge._channel.ending import CLOSING, HERE, LOST, OPEN
from wsbridge._channel.host import Host
from wsbridge._common.tasks import retrieve
from wsbridge.errors import ChannelNotOpenError, SendError
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import BinaryLike

__all__ = ["PING", "TURN", "Sending"]

logger = logging.getLogger("wsbridge")

T = TypeVar("T")

PING = Struct("!I")  # the payload of our pings: their number

TURN = 64  # messages that are delivered, or sent one after the other, before all else has its turn (FLOW-3, FLOW-4)
_REFUSED = 1000  # sends that were answered with False, one after the other, and are worth a warning


class Sending(Deadlines):
    """The part of a channel that sends."""

    __slots__ = (
        "_burst",
        "_checked",
        "_connector",
        "_deflating",
        "_inflight",
        "_opened",
        "_pong_due",
        "_refused",
        "_senders",
        "_settled",
        "_slow",
        "id",
    )

    closed_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The server's exceptions that mean that the peer is gone, beside `OSError`."""

    def __init__(self, connector: Host, options: WebSocketOptions[Any]) -> None:
        super().__init__(options)
        self.id = os.urandom(16).hex()
        self._connector = connector
        self._checked = connector.loop.get_debug()
        self._opened = False  # on_open has started
        self._slow = True  # a send has more to look at than the frame
        self._burst = 0  # sends since the last message was delivered, or since they let others have their turn
        self._refused = 0  # how many were answered with False, while nothing was delivered
        self._deflating = False  # a large message is, outside the event loop
        self._senders: deque[asyncio.Future[None]] | None = None
        self._inflight: set[asyncio.Task[object]] | None = None
        self._settled: asyncio.Future[None] | None = None  # until a close frame that waits is written
        self._pong_due: bytes | None = None  # the payload of a pong that waits until the peer reads on

    # ---- what a connector fills --------------------------------------------------------------------------------------

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

    def _ping(self, payload: bytes) -> None:
        """Write a ping. Needed where the connector has the feature ``"ping"``."""
        raise NotImplementedError

    def _pong(self, payload: bytes) -> None:
        """Write a pong. Needed where `ping_received` is called."""
        raise NotImplementedError

    def _is_full(self) -> bool:
        """Tell whether the server's write buffer is full. Needed where `_send_large` is called."""
        raise NotImplementedError

    @abstractmethod
    def cut_off(self) -> None:
        """Cut the connection, whatever has or has not been said on it."""

    # ---- what the application calls ----------------------------------------------------------------------------------

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

    def pause_writing(self) -> None:
        """Hold back sends: the server's buffer is full (FLOW-2)."""
        if not self._write_paused and self._phase < LOST:
            self._write_paused = self._slow = True
            self._begin_stall()

    def resume_writing(self) -> None:
        """Let sends go on."""
        if self._write_paused and not self._deflating:
            self._write_paused = False
            self._set_slow()
            if self._pong_due is not None:
                payload, self._pong_due = self._pong_due, None
                self.ping_received(payload)
            self._next_sender()

    def ping_received(self, payload: bytes) -> None:
        """Answer a ping (RECV-7), but not after a close frame (SEND-6).

        Of those that come while the peer reads too slowly, the last is answered (RFC 6455, 5.5.3; FLOW-2).
        """
        if self._write_paused and (not self._deflating or self._is_full()):
            self._pong_due = payload
        elif self._phase < CLOSING:
            self._write_quietly(self._pong, payload)

    # ---- ending ------------------------------------------------------------------------------------------------------

    def _wake_senders(self) -> None:
        self._slow = True
        if self._senders:
            for turn in self._senders:
                if not turn.done():
                    turn.set_result(None)

    def _has_sends_under_way(self) -> bool:
        return bool(self._inflight)

    def _watch_sends(self) -> None:
        for task in self._inflight or ():
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[object]) -> None:
        if not self._inflight:
            self._sends_ended()

    async def give_way(self) -> None:
        """Let all else have its turn: to be awaited after each `TURN` messages that are delivered (FLOW-3)."""
        self._refused = 0
        await asyncio.sleep(0)

    async def close_written(self) -> None:
        """Wait until a close frame that waits for sends is written, or has no connection left (SEND-6)."""
        if self._close_waits is not None:
            if self._settled is None:
                self._settled = self._connector.loop.create_future()
            await asyncio.shield(self._settled)

    def _close_is_settled(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _write_close(self, code: int | None, text: str) -> None:
        self._write_quietly(self._close, code, text)

    # ---- sending ----------------------------------------------------------------------------------------------------

    def _track(self, coroutine: Coroutine[Any, Any, object]) -> Awaitable[object]:
        """Run a send that may suspend after it has begun, so that no cancel tears it and a close waits for it."""
        task = self._connector.loop.create_task(coroutine)
        if self._inflight is None:
            self._inflight = set()
        self._inflight.add(task)
        task.add_done_callback(self._inflight.discard)
        task.add_done_callback(retrieve)  # whoever awaits it raises it; a cancelled one has nobody left to tell
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
        if self._phase is LOST:
            raise ConnectionResetError("the connection was lost while a message was deflated")
        write(result)

    def _set_slow(self) -> None:
        self._slow = (
            not self._opened
            or self._phase > OPEN
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
        if self._phase is OPEN and (self._write_paused or self._senders):
            await self._wait_for_turn()
        if self._phase > OPEN:
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
                if self._phase > OPEN or not self._write_paused:
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
        if self._phase is OPEN and (self._write_paused or self._senders):
            await self._wait_for_turn()  # not to hold in memory what cannot be sent yet
        if self._phase > OPEN:
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
            self._peer_is_gone()
            return
        if self._reason is None:
            self._end(HERE, 1011, "")
        raise SendError(f"the server could not send on channel {self.id}: {error!r}") from error

    def _write_quietly(self, write: Callable[..., object], *arguments: object) -> None:
        """Write a control frame, which nobody waits for: a peer that is gone is reported by the receiving side."""
        try:
            write(*arguments)
        except Exception as exc:
            if isinstance(exc, (OSError, self.closed_errors)):
                self._peer_is_gone()
                return
            logger.exception("channel %s could not write a control frame", self.id)
            self.cut_off()

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
