"""The channels that a connector has, and what each needs of it: see `wsbridge._channel.host.Host`."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as ssl_module
from collections.abc import Callable, Mapping

from wsbridge._channel.channel import BaseChannel
from wsbridge._channel.clock import Clock, Timer
from wsbridge._channel.draining import Connection, Drain
from wsbridge.connector import alpn
from wsbridge.connector.configured import Configured

__all__ = ["Channels"]

logger = logging.getLogger("wsbridge")

_LOOK_OUT = 0.25  # seconds between two looks for an end after messages that wait (CLOSE-6)


class Channels(Configured):
    """The part of a connector that its channels lean on."""

    def _set_up(self) -> None:
        super()._set_up()
        self._channels: set[BaseChannel] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: Clock | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._closed = False
        self._released: asyncio.Future[None] | None = None
        self._drains: dict[Drain | alpn.Refusal, Timer] = {}
        self._warned_of_http2 = False
        self._lookout = _Lookout(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that this connector belongs to (THR-2)."""
        if self._loop is None:
            self._set_loop()
        assert self._loop is not None
        return self._loop

    @property
    def clock(self) -> Clock:
        """The one clock of all its channels."""
        if self._clock is None:
            self._clock = self._make_clock()
        return self._clock

    @property
    def keywords(self) -> Mapping[int, str]:
        """The server's own names of close codes (CLOSE-9)."""
        return self.close_keywords

    @property
    def is_stopping(self) -> bool:
        """Whether no more channels may open."""
        return self._closed or self._stopping is not None

    @property
    def channels(self) -> tuple[BaseChannel, ...]:
        """The channels that it has now, those included that do not know yet whether they open."""
        return tuple(self._channels)

    @property
    def has_room(self) -> bool:
        """Whether one more channel may be admitted (HS-12)."""
        return self.max_channels is None or len(self._channels) < self.max_channels

    def admit(self, channel: BaseChannel) -> None:
        """Count ``channel`` from here to its `release`, and keep it alive (HS-12, THR-3)."""
        self._channels.add(channel)

    def release(self, channel: BaseChannel) -> None:
        """Forget ``channel``."""
        self._channels.discard(channel)
        self._lookout.discard(channel)
        self._wake_stop()

    def _wake_stop(self) -> None:
        if self._released is not None and not self._released.done():
            self._released.set_result(None)

    def look_out(self, channel: BaseChannel) -> None:
        """Have ``channel`` look for its end while a callback of it runs, since somebody waits for that (CLOSE-6)."""
        self._lookout.add(channel)

    def linger(self, when: float, abort: Callable[[], object]) -> None:
        """Call ``abort`` at ``when``: a peer may leave the rest of an ended channel's bytes unread (CLOSE-5)."""
        self.clock.at(when, _Linger(abort))

    def drain(self, sock: socket.socket, unsent: Callable[[], int], until: float) -> None:
        """Read and drop what still comes on the socket of an ended channel, until the peer ends it, or ``until``."""
        try:
            drain = Drain(self.loop, sock, unsent, self._drained)
        except (OSError, NotImplementedError):
            return  # it is closed, or cannot be watched: then it ends when the server closes it
        if not drain.is_over:
            self._drains[drain] = self.clock.at(until, drain)

    def drain_answered(self, connection: Connection | None) -> None:
        """As `drain`, for a request whose body is not read: without it the answer might be lost (HS-16)."""
        if connection is not None:
            self.drain(*connection, self.clock.time() + self.handshake_timeout)

    def refuse_http2(self, transport: asyncio.Transport) -> bool:
        """Tell the client of a new connection to use HTTP/1.1, if it has selected HTTP/2; return whether (HS-18).

        The connection is the server's no more then: nothing else may be done with it.
        """
        if not self.is_http2(transport.get_extra_info("ssl_object")):
            return False
        refusal = alpn.Refusal(transport, self._drained)
        self._drains[refusal] = self.clock.at(self.clock.time() + alpn.GRACE, refusal)
        return True

    def is_http2(self, tls: ssl_module.SSLObject | ssl_module.SSLSocket | None) -> bool:
        """Tell whether a client has selected HTTP/2 by ALPN, and log a warning at the first (HS-18)."""
        if not alpn.has_selected_http2(tls):
            return False
        if not self._warned_of_http2:
            self._warned_of_http2 = True
            logger.warning(alpn.WARNING, self.name)
        return True

    @property
    def is_draining(self) -> bool:
        """Whether what some ended connection still brings is being dropped."""
        return bool(self._drains)

    def _drained(self, drain: Drain | alpn.Refusal) -> None:
        if (timer := self._drains.pop(drain, None)) is not None:
            self.clock.cancel(timer)

    def _end_drains(self) -> None:
        for drain in list(self._drains):
            drain.close()

    def _set_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._clock = None

    def _make_clock(self) -> Clock:
        """Return a clock for the loop that it runs in now."""
        return Clock(self.loop)

    def check_loop(self) -> None:
        """In debug mode, refuse calls from another thread or loop (THR-1)."""
        if self.loop.get_debug() and asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                f"the {self.name} connector was called from another event loop; it is not thread-safe: "
                "use loop.call_soon_threadsafe(...) of the loop that started it"
            )


class _Lookout:
    """A clock entry for the channels of a server that is asked for messages: nobody asks while a callback runs.

    One for all of a connector, and none where nobody waits for an end, so that it costs nothing for each message.
    """

    __slots__ = ("_channels", "_connector", "_timer")

    def __init__(self, connector: Channels) -> None:
        self._connector = connector
        self._channels: set[BaseChannel] = set()
        self._timer: Timer | None = None

    def add(self, channel: BaseChannel) -> None:
        self._channels.add(channel)
        if self._timer is None:
            clock = self._connector.clock
            self._timer = clock.at(clock.time() + _LOOK_OUT, self)

    def discard(self, channel: BaseChannel) -> None:
        self._channels.discard(channel)
        if not self._channels and self._timer is not None:
            self._connector.clock.cancel(self._timer)
            self._timer = None

    def tick(self, now: float) -> float | None:
        for channel in list(self._channels):
            if channel.is_looked_for:
                channel.look_for_end()
            elif channel.reason is not None:
                self._channels.discard(channel)
        if self._channels:
            return now + _LOOK_OUT
        self._timer = None
        return None


class _Linger:
    """A clock entry that calls a function once."""

    __slots__ = ("_abort",)

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort

    def tick(self, now: float) -> float | None:
        self._abort()
        return None
