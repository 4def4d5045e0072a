"""Connectors that take an option and do not what it says: limits, the settings of deflate, large messages, offers."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tests.conformance.breaking import BrokenChannel, BrokenConnector, breaks
from tests.conformance.broken_wires import tampers
from wsbridge.connectors._codecs import pieces
from wsbridge.options import Compression, WebSocketOptions

_OFFERS = re.compile(rb"(?i)(\r\nsec-websocket-extensions:)([^\r]*)")


@breaks("LIM-6")
class KeepsLimitsIn32Bits(BrokenChannel):
    __slots__ = ()

    @property
    def options(self: Any) -> WebSocketOptions[Any]:
        given: WebSocketOptions[Any] = self._options
        limits: dict[str, Any] = {name: getattr(given, name) for name in ("max_text_size", "max_binary_size")}
        kept: dict[str, Any] = {name: limit and (limit % 2**32 or 1) for name, limit in limits.items()}
        return replace(given, **kept)


@breaks("LIM-6", base="aiohttp")
class RefusesLimitsBeyondFourGib(BrokenConnector):
    def check_options(self, options: WebSocketOptions[Any]) -> None:
        super().check_options(options)
        for limit in (options.max_text_size, options.max_binary_size):
            if limit is not None and limit > 2**32:
                raise OverflowError("value too large to convert to unsigned int")


@breaks("LIM-6")
class HasNoLimitBesideNone(BrokenChannel):
    """A deflated message of the one kind is not held to its limit, since the other kind has none, or a high one."""

    __slots__ = ()

    @property
    def options(self: Any) -> WebSocketOptions[Any]:
        given: WebSocketOptions[Any] = self._options
        most = max(given.max_text_size or 2**63, given.max_binary_size or 2**63)
        if most > 2**31:
            self._max_text = self._max_binary = most
            return replace(given, max_text_size=None, max_binary_size=None)
        return given


@breaks("LIM-1")
class MeasuresAtTheDelivery(BrokenChannel):
    """Reads messages of any size, and finds that one is too big when its turn has come."""

    __slots__ = ()

    @property
    def options(self: Any) -> WebSocketOptions[Any]:
        return replace(self._options, max_text_size=None, max_binary_size=None)


@breaks("SEND-8")
class IgnoresTheSettingsOfCompression(BrokenChannel):
    __slots__ = ()

    @property
    def options(self: Any) -> WebSocketOptions[Any]:
        return replace(self._options, compression=self._options.compression is not False)


@breaks("SEND-8")
class TakesNoWindowOver(BrokenChannel):
    __slots__ = ()

    @property
    def options(self: Any) -> WebSocketOptions[Any]:
        given: WebSocketOptions[Any] = self._options
        if not isinstance(given.compression, Compression):
            return given
        return replace(given, compression=replace(given.compression, context_takeover=False))


@breaks("SEND-8")
class IgnoresTheMemoryLevel(BrokenChannel):
    """Knows little and much memory, and nothing between."""

    __slots__ = ()

    @property
    def options(self: Any) -> WebSocketOptions[Any]:
        given: WebSocketOptions[Any] = self._options
        if not isinstance(given.compression, Compression) or given.compression.memory_level is None:
            return given
        level = 1 if given.compression.memory_level < 5 else 9
        return replace(given, compression=replace(given.compression, memory_level=level))


@breaks("SEND-8")
class HasTheSettingsOfTheFirstChannel(BrokenConnector):
    """Keeps what `Compression` says, once it was asked."""

    def admit(self, channel: Any) -> None:
        wanted = channel._options.compression
        if isinstance(wanted, Compression):
            first = self.__dict__.setdefault("first", wanted)
            channel._options = replace(channel._options, compression=first)
        super().admit(channel)


class _Inline(ThreadPoolExecutor):
    """Runs everything at once, and so in the event loop."""

    def submit(self, fn: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*arguments, **options))
        except BaseException as exc:
            future.set_exception(exc)
        return future


@breaks("SEND-9")
class DeflatesInTheEventLoop(BrokenConnector):
    async def start(self) -> None:
        self.loop.set_default_executor(_Inline())
        await super().start()


@breaks("SEND-9")
class DeflatesSideBySide(BrokenChannel):
    """What is small overtakes what is large, in the window too."""

    __slots__ = ()

    def _send_large(self: Any, sending: Any) -> Any:
        return self._track(sending)


@breaks("SEND-9")
class LosesPingsWhileItDeflates(BrokenChannel):
    __slots__ = ()

    def ping_received(self: Any, payload: bytes) -> None:
        if not self._deflating:
            super().ping_received(payload)  # type: ignore[misc]


@breaks("SEND-9")
class LosesWhatComesBehindALargeMessage(BrokenChannel):
    __slots__ = ()

    def feed(self: Any, message: str | bytes) -> None:
        queue = self._queue
        if not (queue and len(queue[-1]) > 64 * 1024):
            super().feed(message)  # type: ignore[misc]


@breaks("SEND-9")
class LosesVeryLargeMessages(BrokenChannel):
    __slots__ = ()

    def feed(self: Any, message: str | bytes) -> None:
        if len(message) < 20 * 1024 * 1024:
            super().feed(message)  # type: ignore[misc]


@breaks("FLOW-3")
class BeginsAnewAfterEachFinalBlock(BrokenConnector):
    """However many blocks of a message end an inflater, the next one is begun at once."""

    async def start(self) -> None:
        self.limit = pieces._MAX_RESTARTS
        pieces._MAX_RESTARTS = 10**9
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        pieces._MAX_RESTARTS = self.limit


def first_offer(tamper: Any, head: bytes) -> bytes:
    return _OFFERS.sub(lambda found: found[1] + found[2].split(b",")[0], head)


def last_offer(tamper: Any, head: bytes) -> bytes:
    return _OFFERS.sub(lambda found: found[1] + found[2].split(b",")[-1], head)


def unquoted(tamper: Any, head: bytes) -> bytes:
    return _OFFERS.sub(lambda found: found[0].replace(b'"', b""), head)


def without_quoted(tamper: Any, head: bytes) -> bytes:
    """Take all from the first quoted string on for a part of it."""
    return _OFFERS.sub(lambda found: found[1] + found[2].split(b'"')[0], head)


def without_windows(tamper: Any, head: bytes) -> bytes:
    return re.sub(rb"; server_max_window_bits=[0-9]+", b"", head)


tampers("SEND-8", "ForgetsTheWindowOfThePeer", request=without_windows)
tampers("FRAME-53", "LooksAtTheFirstOfferAlone", request=first_offer)
tampers("FRAME-53", "LooksAtTheLastOfferAlone", request=last_offer)
tampers("FRAME-54", "CutsQuotedStrings", request=unquoted)
tampers("FRAME-54", "StopsAtAQuotedString", request=without_quoted)
