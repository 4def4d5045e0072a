"""Connectors that break a rule of streams or of typed messages: the channel is right, what is read from it is not."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from tests.conformance.breaking import BrokenChannel, breaks
from tests.conformance.broken_ends import TellsOfTheEndAfterTheMessages
from wsbridge.codec import Decoded
from wsbridge.errors import ChannelClosedError
from wsbridge.protocols import handler_of
from wsbridge.stream import MessageStream

stream: Any = importlib.import_module("wsbridge.stream")  # without its types: what is put into it is wrong on purpose

T = TypeVar("T", bound=type[Any])


def breaks_stream(rule: str, *, base: str = "websockets") -> Callable[[T], T]:
    """Register a class whose methods are put over those of each stream; it needs ``__slots__ = ()``."""

    def register(over: T) -> T:
        kind = type(over.__name__, (over, MessageStream), {"__slots__": ()})

        async def _open(self: Any) -> None:
            stream.MessageStream = kind
            try:
                await super(channel, self)._open()
            finally:
                stream.MessageStream = MessageStream

        channel: Any = type(over.__name__, (BrokenChannel,), {"__slots__": (), "_open": _open})
        breaks(rule, base=base)(channel)
        return over

    return register


# ---- STREAM ---------------------------------------------------------------------------------------------------------


@breaks_stream("STREAM-1")
class NeverBegins:
    __slots__ = ()

    async def _run(self: Any, handler: Any, on_error: Any) -> None:
        await self._channel.wait_closed()


@breaks_stream("STREAM-1")
class HasAnIdOfItsOwn:
    __slots__ = ()

    @property
    def id(self) -> str:
        return str(id(self))


@breaks_stream("STREAM-2")
class ReadsTheLatestFirst:
    __slots__ = ()

    def _put(self: Any, message: Any, size: int) -> Any:
        waits = super()._put(message, size)
        self._buffer.rotate(1)
        return waits


@breaks_stream("STREAM-2")
class LosesTheOtherKind:
    __slots__ = ()

    async def _next_of(self: Any, name: str, kind: type[object], timeout: float | None) -> Any:
        await self._arrival(timeout)
        if not isinstance(self._buffer[0], kind):
            self._take()
        return await super()._next_of(name, kind, timeout)


@breaks_stream("STREAM-3")
class IsNeverReadAgain:
    """After a read that is cancelled, or whose time is over, it still waits for that one."""

    __slots__ = ()

    async def _arrival(self: Any, timeout: float | None) -> None:
        try:
            await super()._arrival(timeout)
        except (asyncio.CancelledError, TimeoutError):
            self._waiter = self._loop.create_future()
            raise


@breaks_stream("STREAM-3")
class ReadsNothingInNoTime:
    __slots__ = ()

    async def _arrival(self: Any, timeout: float | None) -> None:
        if timeout == 0:
            raise TimeoutError
        await super()._arrival(timeout)


@breaks_stream("STREAM-4")
class DropsWhatIsUnreadAtTheEnd:
    __slots__ = ()

    async def _ended(self: Any, cancel: bool) -> None:
        self._buffer.clear()
        await super()._ended(cancel)


@breaks_stream("STREAM-4")
class ReadsOnAtTheEnd:
    """Wakes nobody who reads."""

    __slots__ = ()

    def _wake(self) -> None:
        pass


@breaks_stream("STREAM-4")
class ReadsOnAfterClose:
    __slots__ = ()

    def close(self: Any, code: int = 1000, text: str = "") -> None:
        self._channel.close(code, text)


@breaks_stream("STREAM-5")
class TakesASecondReader:
    __slots__ = ()

    async def _arrival(self: Any, timeout: float | None) -> None:
        self._waiter = None
        await super()._arrival(timeout)


@breaks_stream("STREAM-5")
class SendsOrReads:
    __slots__ = ()

    async def send(self: Any, message: Any) -> None:
        if self._waiter is not None:
            raise RuntimeError("somebody is reading")
        await super().send(message)


@breaks_stream("STREAM-6")
class LosesInSilence:
    __slots__ = ()

    async def send(self: Any, message: Any) -> None:
        await self._channel.send(message)


@breaks_stream("STREAM-6")
class SendsTextOnly:
    __slots__ = ()

    async def send(self: Any, message: Any) -> None:
        await super().send(str(message))


@breaks_stream("STREAM-6")
class HoldsBackTheReason:
    """Waits until the messages from before the end are read."""

    __slots__ = ()

    async def send(self: Any, message: Any) -> None:
        while self._channel.reason is not None and self._buffer:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await super().send(message)


@breaks_stream("STREAM-7")
class LeavesTheChannelOpen:
    __slots__ = ()

    async def _run(self: Any, handler: Any, on_error: Any) -> None:
        await handler(self, self._request)
        await self._channel.wait_closed()


@breaks_stream("STREAM-7")
class HidesFailures:
    __slots__ = ()

    async def _failed(self: Any, error: BaseException, on_error: Any) -> None:
        pass


@breaks_stream("STREAM-7")
class TakesTheEndForAFailure:
    __slots__ = ()

    def _is_end(self, error: Exception) -> bool:
        return False


@breaks_stream("STREAM-7")
class TakesAnyEndForItsOwn:
    __slots__ = ()

    def _is_end(self, error: Exception) -> bool:
        return isinstance(error, ChannelClosedError)


@breaks_stream("STREAM-7")
class DoesNotWaitForTheHandler:
    __slots__ = ()

    async def _ended(self: Any, cancel: bool) -> None:
        self._wake()


@breaks_stream("STREAM-8")
class KeepsTheEndToItself:
    __slots__ = ()

    async def wait_closed(self: Any) -> Any:
        await asyncio.Event().wait()


@breaks_stream("STREAM-8")
class IsUnknownToTheStop:
    __slots__ = ()

    async def _run(self: Any, handler: Any, on_error: Any) -> None:
        async def unknown(*arguments: Any) -> None:
            handler_of.set(None)
            await handler(*arguments)

        await super()._run(unknown, on_error)


@breaks_stream("STREAM-8")
class CancelsNoHandler:
    __slots__ = ()

    async def _ended(self: Any, cancel: bool) -> None:
        await super()._ended(False)


@breaks_stream("STREAM-8")
class CancelsAnyHandler:
    __slots__ = ()

    async def _ended(self: Any, cancel: bool) -> None:
        await super()._ended(True)


@breaks_stream("STREAM-8", base="aiohttp")  # which may end before its handler begins
class PassesTheCancelOn:
    __slots__ = ()

    async def _ended(self: Any, cancel: bool) -> None:
        self._wake()
        if cancel:
            self._task.cancel()
        await self._task


@breaks_stream("STREAM-8")
class ShieldsTheHandler:
    __slots__ = ()

    async def _ended(self: Any, cancel: bool) -> None:
        await asyncio.shield(self._task)


@breaks("STREAM-8")
class TellsBehindTheMessages(TellsOfTheEndAfterTheMessages):
    """Keeps the end to itself until what came before it is read."""

    __slots__ = ()

    def tell_early(self: Any, callback: Any) -> None:
        pass


@breaks("STREAM-8")
class PingsNobodyWhoIsHeldBack(BrokenChannel):
    __slots__ = ()

    def _next_ping(self: Any, now: float) -> bool:
        if self.running is None:
            return bool(super()._next_ping(now))
        self._ping_at = now + 0.25
        return False


@breaks_stream("STREAM-9")
class HoldsNobodyBack:
    __slots__ = ()

    def _put(self: Any, message: Any, size: int) -> Any:
        self._limit = self._large = sys.maxsize
        return super()._put(message, size)


@breaks_stream("STREAM-9")
class DropsWhatDoesNotFit:
    __slots__ = ()

    def _put(self: Any, message: Any, size: int) -> Any:
        if len(self._buffer) < self._limit - 1 and size <= self._large:
            return super()._put(message, size)
        return None


# ---- CODEC ----------------------------------------------------------------------------------------------------------


@breaks("CODEC-1")
class DecodesNothing(BrokenChannel):
    __slots__ = ()

    async def _open(self: Any) -> None:
        await super()._open()
        for name in ("_text", "_binary"):
            callback = getattr(self, name)
            if isinstance(callback, Decoded):
                setattr(self, name, callback.callback)


@breaks("CODEC-1")
class EncodesByStr(BrokenChannel):
    __slots__ = ()

    async def send(self: Any, message: Any) -> bool:
        return bool(await self.send_text(str(message)))


@breaks("CODEC-2")
class BlamesItself(BrokenChannel):
    """Closes with 1011 for what the peer did wrong."""

    __slots__ = ()

    def close(self: Any, code: int = 1000, text: str = "") -> None:
        super().close(1011 if code in (1003, 1007, 4400) else code, text)
