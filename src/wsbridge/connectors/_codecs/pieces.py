"""Reading in pieces, and inflating: for the parsers that are fed, websockets' core and wsproto, and for tornado."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from time import perf_counter
from typing import Any

from wsbridge.connector import MAX_SIZE

__all__ = ["END_OF_MESSAGE", "MAX_EARLY", "PIECE", "Inflation", "PieceReader", "bound_early"]

END_OF_MESSAGE = b"\x00\x00\xff\xff"
"""What a sender takes off a deflated message, and a receiver puts back (RFC 7692, 7.2.2)."""

MAX_EARLY = 64 * 1024  # bytes that are kept of what a peer sends before its request is answered (HS-11)
PIECE = 2 * 1024  # bytes that are parsed at once, beside the rest of a frame that has begun
_TURN = 0.002  # seconds after which everything else on the loop gets its turn (FLOW-3)
_MAX_RESTARTS = 16  # of an inflater in one frame


def bound_early(kept: bytearray, transport: asyncio.Transport) -> None:
    """Read no more if enough is kept of what a peer sends after its request, until that is answered (HS-11)."""
    if len(kept) > MAX_EARLY:
        transport.pause_reading()


class PieceReader:
    """A mixin for the protocol class of a connection: what comes is parsed piece by piece, while it is not held.

    A read of 256 KiB can hold 40,000 messages, or some that inflate a thousandfold: a channel that has enough says so
    after a piece, and when the time of a turn is over the rest waits for the next. A parser that has begun what is done
    outside the event loop stops after that piece too (`_wait_for`). At any time only one goes on: the next turn, the
    channel's `resume`, or the end of that work; what is left waits for it, and so does the end of the connection
    (RECV-4). The class has ``transport`` and fills `_parse`.
    """

    __slots__ = ("_due", "_held", "_is_busy", "_last", "_started", "_unread")

    transport: asyncio.Transport

    def prepare(self) -> None:
        """Be ready to keep what comes, until `begin_reading`."""
        self._unread = bytearray()  # what came and may not be parsed yet
        self._held = True
        self._started = False  # the request is answered by a 101
        self._due = False  # `_read` will be called
        self._is_busy = False  # `_end_of_work` will be
        self._last: Callable[[], object] | None = None  # what comes after all that is unread

    def _parse(self, data: bytes) -> None:
        """Have a piece parsed; may `hold`."""
        raise NotImplementedError

    def _lacking(self) -> int:
        """Return how many bytes of the frame that has begun are to come, to be parsed at once; 0 if that is unknown."""
        return 0

    def _kept(self) -> None:
        """See to what came while it is held: before `begin_reading` nobody else does."""
        if not self._started:
            bound_early(self._unread, self.transport)

    def _read_on(self) -> None:
        """Read on, when all is parsed."""
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._held or self._is_busy or self._unread or len(data) > PIECE:
            self._unread += data
            if self._held:
                self._kept()
            elif not (self._due or self._is_busy):
                self._read()
        else:
            self._parse(data)

    def begin_reading(self, early: bytes = b"") -> None:
        """Parse what is kept, then ``early``, and read on, in the next turn: when ``on_open`` has begun (HS-11)."""
        self._held = self._started = True
        self._unread += early
        if self._unread:
            self.transport.pause_reading()  # the end that may follow must not overtake it
        asyncio.get_running_loop().call_soon(self.resume)

    def hold(self) -> None:
        """Parse and read no more."""
        self._held = True
        self.transport.pause_reading()

    def resume(self) -> None:
        """Parse and read on."""
        self._held = False
        if self._is_busy:
            return
        if self._unread:
            self._read_soon()  # not below the channel, which calls this
        else:
            self._read_on()

    def _read_soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._read)

    def _wait_for(self, work: asyncio.Future[Any]) -> None:
        """Parse and read no more until ``work`` is done, and `_worked` has taken it."""
        self._is_busy = True
        self.transport.pause_reading()
        work.add_done_callback(self._end_of_work)

    def _end_of_work(self, work: asyncio.Future[Any]) -> None:
        self._is_busy = False
        self._worked(work)
        if not (self._is_busy or self._due):
            self._read()

    def _worked(self, work: asyncio.Future[Any]) -> None:
        """Take what was waited for. Needed where `_wait_for` is called."""
        raise NotImplementedError

    def _read(self) -> None:
        self._due = False
        unread, began = self._unread, perf_counter()
        while unread and not (self._held or self._is_busy):
            size = max(PIECE, self._lacking())
            piece = bytes(unread[:size])
            del unread[:size]
            self._parse(piece)
            if unread and perf_counter() - began > _TURN:
                break
        if self._is_busy:
            return  # `_end_of_work` reads on
        if unread and not self._held:
            self.transport.pause_reading()
            self._read_soon()
        elif self._last is not None:
            last, self._last = self._last, None
            last()
        elif not self._held:
            self._read_on()

    def _comes_last(self, what: Callable[[], object]) -> bool:
        """Have ``what`` called when all that came before is parsed; False if that is so, or no channel reads it."""
        if self._is_busy or (self._unread and (self._started or not self._held)):
            self._last = what
            return True
        return False

    def _loss_comes_last(self, what: Callable[[], object]) -> bool:
        """As `_comes_last`, for the loss of the connection, which ends what is sent at once.

        A channel that has enough may be a long way from the rest, and what it sends meanwhile reaches nobody.
        """
        is_behind = self._comes_last(what)
        if is_behind:
            self._gone()
        return is_behind

    def _gone(self) -> None:
        """Tell the channel that the connection is gone, by `BaseChannel.connection_gone`."""
        raise NotImplementedError


class Inflation:
    """A payload that is inflated in steps, after each block with BFINAL too, where an inflater ends.

    Args:
        inflater: What a message before has left, or a new one.
        payload: What is deflated.
        window_bits: For the inflaters that go on after a final block (RFC 7692, 7.2.3.4).

    Attributes:
        inflater: The one for what comes next.
        size: How many bytes are inflated.
    """

    __slots__ = ("_left", "_parts", "_restarts", "_window_bits", "inflater", "size")

    def __init__(self, inflater: Any, payload: bytes, window_bits: int) -> None:
        self.inflater = inflater
        self.size = 0
        self._left = payload
        self._parts: list[bytes] = []
        self._restarts = 0
        self._window_bits = window_bits

    def go_on(self, limit: int) -> bool:
        """Inflate until all is, or there is a byte more than ``limit``; tell whether it is all.

        Raises:
            zlib.error: It is not deflated, or there are too many final blocks.
        """
        limit = min(limit, MAX_SIZE - 1)
        while self.size <= limit:
            data = self.inflater.decompress(self._left, limit - self.size + 1)
            self.size += len(data)
            self._parts.append(data)
            self._left = self.inflater.unconsumed_tail
            if self.inflater.eof:
                self._start_anew()
            elif self.size <= limit:
                self._parts = [b"".join(self._parts)]
                return True
        return False

    def _start_anew(self) -> None:
        if self._restarts == _MAX_RESTARTS:
            raise zlib.error("too many final blocks")
        self._restarts += 1
        self._left = self.inflater.unused_data
        self.inflater = zlib.decompressobj(wbits=-self._window_bits)

    @property
    def data(self) -> bytes:
        """What is inflated."""
        return b"".join(self._parts)  # which copies nothing when all is inflated
