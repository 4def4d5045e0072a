"""A channel over ASGI's events: how it sends and receives, and what an end means, which servers tell in many ways.

What is worked around is listed in the connector's docstring, `wsbridge.connectors.asgi`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, TypeVar, cast

from wsbridge import Request, WebSocketOptions
from wsbridge.connector import LOST, OPEN, OVER, TURN, BaseChannel, BaseConnector, Initiator, begin_later, shown

__all__ = ["Channel", "Event", "Receive", "Scope", "Send", "nothing"]

logger = logging.getLogger("wsbridge")

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

T = TypeVar("T")

_AHEAD = 64  # events that are read ahead while a callback runs, and
_AHEAD_SIZE = 64 * 1024  # bytes or characters of them


class EventSender(BaseChannel):
    """The part of a channel that sends."""

    __slots__ = ("_ended", "_events", "_puts", "_senders_in", "_stalled_since", "_turn")

    native: Scope

    def __init__(
        self, connector: BaseConnector, request: Request, options: WebSocketOptions[Any], subprotocol: str | None
    ) -> None:
        super().__init__(connector, request, options, subprotocol)
        self._puts: Send = cast(Send, _ended)
        self._ended = False  # a disconnect was received: nothing more may be
        self._turn = asyncio.Lock()
        self._senders_in: dict[asyncio.Task[Any], bool] = {}  # who waits in send(), and whether it was interrupted
        self._stalled_since = 0.0
        self._events: set[asyncio.Task[None]] = set()  # closes that are under way

    @abstractmethod
    def _interrupt(self) -> None:
        """Let a pending ``receive()`` return: a close is to be sent."""

    def _send_text(self, text: str) -> Awaitable[object] | None:
        text.encode()
        return self._put({"type": "websocket.send", "text": text})

    def _send_binary(self, data: bytes) -> Awaitable[object] | None:
        return self._put({"type": "websocket.send", "bytes": data})

    async def _put(self, event: Event) -> None:
        """Send an event, when those before it are sent (FLOW-2), and let the clock see that it is under way (LIM-4)."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if not self._senders_in:
            now = self._stalled_since = self._connector.clock.time()
            if self._timer is None:
                self._arm(now + self._glance())
        self._senders_in[task] = False
        try:
            async with self._turn:
                if self._phase > OPEN:
                    raise ConnectionResetError("the channel ended")
                await self._puts(event)
        except asyncio.CancelledError:
            if not self._senders_in[task]:
                raise
            task.uncancel()
            raise ConnectionResetError("the channel ended") from None
        except Exception:
            if self._phase > OPEN:  # what a server raises after the end says nothing more
                raise ConnectionResetError("the channel ended") from None
            raise
        finally:
            del self._senders_in[task]
            self._stalled_since = self._connector.clock.time()
        if self._phase is LOST:
            raise ConnectionResetError("the channel was cut off")

    def _held_since(self) -> float | None:
        return self._stalled_since if self._senders_in else None

    def _close(self, code: int | None, text: str) -> None:
        if self._ended:
            return  # the server has answered already, or the connection is gone
        self._start_close({"type": "websocket.close", "code": 1000 if code is None else code, "reason": text})

    def _start_close(self, event: Event) -> None:
        self._interrupt()
        task = begin_later(self._connector.loop, self._put_close(event))
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _put_close(self, event: Event) -> None:
        try:
            await self._puts(event)
        except OSError:
            self.connection_lost()
        except Exception as exc:
            logger.debug("the server did not take the close of channel %s", self.id, exc_info=exc)
            if event["code"] == 1000 or self._phase >= OVER:
                self.connection_lost()
            else:
                await self._put_close({**event, "code": 1000})  # better than none

    def _disconnect(self, *, half: bool) -> None:
        pass  # the server does, when the application returns

    def _aborter(self) -> Callable[[], object]:
        return nothing

    def _unsent_bytes(self) -> int:
        return 0  # the server does not tell

    def _interrupt_senders(self) -> None:
        """Let pending sends return, which the server may hold back for ever (SEND-6)."""
        for task, is_interrupted in self._senders_in.items():
            if not is_interrupted:
                self._senders_in[task] = True
                task.cancel()
        for closing in self._events:
            closing.cancel()


class Channel(EventSender):
    """A channel of an ASGI server; those of connectors that know their server do more by its own means."""

    __slots__ = ("_ahead", "_ahead_limit", "_gets", "_held", "_interrupted", "_waits")

    is_pulled = True

    def __init__(
        self, connector: BaseConnector, request: Request, options: WebSocketOptions[Any], subprotocol: str | None
    ) -> None:
        super().__init__(connector, request, options, subprotocol)
        self._gets: Receive = _ended
        self._held: deque[Event] = deque()  # read ahead, and not delivered yet
        self._waits: asyncio.Task[Any] | None = None  # who waits in receive()
        self._ahead: asyncio.Task[None] | None = None  # reads while a callback runs
        self._ahead_limit = 1  # events that it may hold
        self._interrupted = False

    def opened(self, receive: Receive, send: Send) -> None:
        """Take the connection, when the 101 is written."""
        self._gets = receive
        self._puts = send

    def _let_go(self) -> None:
        self._gets = self._puts = cast(Any, _ended)

    def _looked_at(self) -> None:
        self._look_ahead(1)

    def _look_ahead(self, limit: int) -> None:
        """Read on while a callback sends: most servers take messages for a peer that left (SEND-1)."""
        self._ahead_limit = max(limit, self._ahead_limit)
        is_read = self._waits is not None or self._ahead is not None or not self._has_room()
        if self.running is not None and not (is_read or self._phase >= OVER or self._ended or self._events):
            self._ahead = begin_later(self._connector.loop, self._read_next())

    def look_for_end(self) -> None:
        self._look_ahead(_AHEAD)

    def _has_room(self) -> bool:
        return len(self._held) < self._ahead_limit and sum(map(_size, self._held)) < _AHEAD_SIZE

    async def _get(self) -> Event | None:
        """Return the next event; None if the wait for it was interrupted."""
        return await self._unless_interrupted(self._gets())

    async def _unless_interrupted(self, awaitable: Awaitable[T]) -> T | None:
        self._waits = asyncio.current_task()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._interrupted = False
            self._waits.uncancel()  # type: ignore[union-attr]
            return None
        finally:
            self._waits = None

    def _interrupt(self) -> None:
        """Let a pending `_unless_interrupted` return."""
        if self._waits is not None and not self._interrupted:
            self._interrupted = True
            self._waits.cancel()

    async def _receive(self) -> None:
        left = TURN
        while self._phase < OVER:
            left -= 1
            if not left:
                left = TURN
                await self.give_way()  # nobody says that receive() suspends (FLOW-3)
            event: Event | None
            if self._held:
                event = self._held.popleft()
            elif self._ahead is not None:
                self._ahead_limit = 1
                await self._ahead
                self._ahead = None
                continue  # it may have been the end
            else:
                event = None if self._events else await self._get()
            if event is None:
                await self._after_interrupt()
                continue
            text = event.get("text") if event["type"] == "websocket.receive" else None
            if text is not None:
                result = self.text_received(text)
            else:
                data = event.get("bytes") if event["type"] == "websocket.receive" else None
                if data is None:
                    self._other_event(event)
                    continue
                result = self.binary_received(data if type(data) is bytes else bytes(data))
            if result is not None:
                await result
                self.running = None

    async def _after_interrupt(self) -> None:
        while self._events and self._phase < OVER:  # a close is under way: granian waits for whoever receives
            await self._unless_interrupted(asyncio.wait(self._events))

    async def _read_ahead(self) -> None:
        # it goes on when on_open has ended: on granian a receive() that is cancelled takes a message with it
        self._ahead = begin_later(self._connector.loop, self._read_next())
        await asyncio.shield(self._ahead)

    async def _read_next(self) -> None:
        """Read events, and hold those that are messages, and the end that comes after them."""
        while self._has_room() and not (self._phase >= OVER or self._ended):
            event = None if self._events else await self._get()
            if event is None:
                await self._after_interrupt()
            elif event["type"] == "websocket.receive":
                self._held.append(event)
            elif event["type"] == "websocket.disconnect" and self._held:
                self._ended = True
                self._held.append(event)
                self.end_read(*self._end_of(event))
            else:
                self._other_event(event)

    def _other_event(self, event: Event) -> None:
        if event["type"] == "websocket.disconnect":
            self._ended = True
            self._disconnected(event)
        else:
            logger.error("the server sent %s to channel %s, which has no place there", shown(str(event)), self.id)
            self.close(1011)

    def _disconnected(self, event: Event) -> None:
        """Take the end."""
        code, text, initiator = self._end_of(event)
        if initiator == "peer":
            self.peer_closed(None if code == 1005 else code, text)
        else:
            self.end_read(code, text, initiator)
            self.connection_lost()

    def _end_of(self, event: Event) -> tuple[int, str, Initiator]:
        """Return code, text and initiator of the end; what an event means differs between the servers."""
        told = event.get("code") or 1005
        if not isinstance(told, int):
            logger.error("the server sent %s to channel %s, whose code is none", shown(str(event)), self.id)
        code = int(told) if isinstance(told, int) else 1006
        if code in (1005, 1006, 1012) and (code == 1006 or "reason" not in event):
            return (1012, "", "local") if code == 1012 else (1006, "", "network")
        is_violation = (code == 1002 and event.get("reason")) or (code == 1007 and "reason" in event)
        return code, event.get("reason") or "", "local" if is_violation else "peer"

    def _nothing_more(self) -> None:
        self._interrupt()
        self._interrupt_senders()


def nothing() -> None:
    pass


def _size(event: Event) -> int:
    return len(event.get("text") or event.get("bytes") or "")


async def _ended(*event: Event) -> Event:
    raise ConnectionResetError("the channel has ended")
