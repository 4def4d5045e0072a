"""How a channel ends: one ordered phase, one reason, and one table of what each way to an end does.

Nothing here knows an event loop or a server, so that every order of events can be played in a test
(``tests/channel/test_ending.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Literal, NamedTuple

from wsbridge.close import CloseReason, Initiator, close_reason

__all__ = [
    "ABANDONED",
    "CLOSING",
    "CUT",
    "FAILED",
    "FAILING",
    "HERE",
    "LOSS",
    "LOST",
    "NOTED",
    "OPEN",
    "OVER",
    "PEER",
    "STOPPED",
    "WAYS",
    "Ending",
    "Phase",
    "Way",
]


class Phase(IntEnum):
    """How far a channel has ended. It never goes back."""

    OPEN = 0
    """Sends are taken."""
    STOPPED = 1
    """Sends answer False."""
    CLOSING = 2
    """A close frame is written, or waits for the sends under way."""
    FAILED = 3
    """The server reads no more, because the peer broke the protocol."""
    OVER = 4
    """Nothing more will come: the peer's close frame is in."""
    LOST = 5
    """The connection is gone."""


OPEN, STOPPED, CLOSING, FAILED, OVER, LOST = Phase


class Way(NamedTuple):
    """What a way to an end does, in the order of these fields."""

    initiator: Initiator
    """Whose end it is, if none was known before: the first reason stays."""
    until: Phase
    """The phase from which on it does nothing more, but drop."""
    phase: Phase
    """What the channel is raised to."""
    is_first: bool = False
    """It does nothing more, but drop, if a reason is known."""
    drops: bool = False
    """The messages that wait are delivered no more (RECV-4)."""
    closes: bool = False
    """A close frame is sent after all sends that were taken, unless one has been (CLOSE-3, SEND-6)."""
    arms: bool = False
    """Whoever does not end the connection is cut off in time (CLOSE-5)."""
    then: Literal["nothing", "half", "whole", "cut"] = "nothing"
    """What becomes of the connection: its sending side, or all of it, is ended once all is written; or it is cut."""


HERE = Way("local", CLOSING, CLOSING, is_first=True, drops=True, closes=True, arms=True)
"""This side closes: by ``close``, an exception, a timeout, a stop, a message that is too big."""
PEER = Way("peer", OVER, OVER, closes=True, then="whole")
"""The peer's close frame is read, and answered (CLOSE-4)."""
FAILING = Way("local", FAILED, FAILED, closes=True, arms=True, then="half")
"""The peer broke the protocol, and is to read why (RECV-8, RECV-9, LIM-1)."""
LOSS = Way("network", LOST, LOST)
"""The connection is gone."""
CUT = Way("network", LOST, LOST, then="cut")
"""The connection is cut, whatever has been said on it."""
ABANDONED = Way("network", LOST, LOST)
"""The 101 was never sent, and no callback runs (HS-10)."""
NOTED = Way("network", CLOSING, STOPPED)
"""The end was read, but messages from before it are not delivered yet (CLOSE-6)."""

WAYS: Mapping[str, Way] = {
    "here": HERE,
    "peer": PEER,
    "failed": FAILING,
    "lost": LOSS,
    "cut": CUT,
    "abandoned": ABANDONED,
    "noted": NOTED,
}


class Ending(ABC):
    """The part of a channel that ends it.

    Promises, whatever comes in which order: one reason, set once; the phase never goes back; a close frame is written
    once at most, after every send that was taken, and never on a connection that is gone; after OVER nothing else is
    written; and a channel that has begun to close is cut off at `_cut_at`, unless its connection ends before.
    """

    __slots__ = ("_close_waits", "_cut_at", "_dropping", "_is_gone", "_phase", "_reason", "_tell")

    def __init__(self) -> None:
        self._phase = OPEN
        self._reason: CloseReason | None = None
        self._dropping = False  # no more messages are delivered, whatever waits or comes
        self._close_waits: tuple[int | None, str] | None = None  # for the sends under way
        self._cut_at: float | None = None
        self._is_gone = False  # the connection, with more read than is taken: how the channel ended is not known yet
        self._tell: Callable[[bool], object] | None = None

    # ---- what the rest of the channel fills --------------------------------------------------------------------------

    @property
    @abstractmethod
    def _close_keywords(self) -> Mapping[int, str]:
        """The server's own names of close codes (CLOSE-9)."""

    @abstractmethod
    def _has_sends_under_way(self) -> bool:
        """Tell whether a send that was taken is not written yet."""

    @abstractmethod
    def _watch_sends(self) -> None:
        """Call `_sends_ended` when none is left."""

    @abstractmethod
    def _close_is_settled(self) -> None:
        """A close frame that waited for sends is written, or has no connection left."""

    @abstractmethod
    def _write_close(self, code: int | None, text: str) -> None:
        """Write a close frame; what it raises is dealt with there."""

    @abstractmethod
    def _end_connection(self, *, half: bool, behind: bool) -> None:
        """End the connection, or its sending side, once all is written; ``behind``: the peer may still send."""

    @abstractmethod
    def _cut_connection(self) -> None:
        """Cut the connection at once."""

    @abstractmethod
    def _is_peer_behind(self) -> bool:
        """Tell whether the peer has not read all yet, and may send until it has."""

    @abstractmethod
    def _is_unfinished(self) -> bool:
        """Tell whether the connection may outlast the channel, since the peer has to read first, or to end TLS."""

    @abstractmethod
    def _begin_timeout(self) -> float:
        """Return when a close that begins now is given up; pings and idle time end with it."""

    @abstractmethod
    def _arm(self, when: float) -> None:
        """Look at the channel at ``when``."""

    @abstractmethod
    def _wake_senders(self) -> None:
        """Let sends that wait see that the channel has stopped."""

    @abstractmethod
    def _reason_is_known(self) -> None:
        """Wake whoever waits for the reason."""

    def _is_delivered(self) -> bool:
        """Tell, once the end is known, whether all that came before it is delivered."""
        return self._phase >= FAILED

    def _drop_undelivered(self) -> None:  # noqa: B027
        """Forget the messages that wait."""

    def _nothing_more(self) -> None:  # noqa: B027
        """Nothing more will come: wake whoever reads."""

    # ---- the one way through the table -------------------------------------------------------------------------------

    def _end(self, way: Way, code: int | None, text: str, initiator: Initiator | None = None) -> None:
        """Do what ``way`` does, or what of it is left to do.

        Args:
            way: A row of `WAYS`.
            code: Of the reason and of the close frame. None: 1005, and an empty frame.
            text: Of both.
            initiator: Whose end it is, where the row does not say it right.
        """
        if self._phase >= way.until or (way.is_first and self._reason is not None):
            if way.drops:
                self._drop()
            return
        is_behind = way.then == "whole" and self._is_peer_behind()  # before the answer, which nobody can have read yet
        self._set_reason(code, text, initiator or way.initiator)
        if way.phase < CLOSING:
            self._cut_at = None  # what came before is in this process, and may take its time
        if way.drops:
            self._drop()
        self._stop_sending()
        if way.closes and self._phase < CLOSING:
            self._begin_close(code, text)
        self._raise_to(way.phase)
        if way.phase is LOST:
            self._close_waits = None  # there is nothing left to write it to
            self._close_is_settled()
        if way.then == "cut" and not self._is_gone:
            self._cut_connection()
        if way.phase >= OVER:
            self._nothing_more()
        if way.phase >= FAILED:
            self._tell_end()
        is_there = self._phase < LOST and not self._is_gone
        if way.then in ("half", "whole") and self._close_waits is None and is_there:
            self._end_connection(half=way.then == "half", behind=is_behind)
        if self._cut_at is not None and self._phase < LOST and (way.arms or self._may_outlast()):
            self._arm(self._cut_at)

    def _may_outlast(self) -> bool:
        return self._close_waits is not None or (self._phase is OVER and self._is_unfinished())

    def _sends_ended(self) -> None:
        """Take it that no send is under way any more: the close frame that waited is written."""
        if self._close_waits is None:
            return
        code, text = self._close_waits
        self._close_waits = None
        if not self._is_gone:
            self._write_close(code, text)
            if FAILED <= self._phase < LOST:
                self._end_connection(half=self._phase is FAILED, behind=self._phase is not FAILED)
        self._close_is_settled()

    def _peer_is_gone(self) -> None:
        """A write found the peer gone, which the server will report: if it does not, the connection is cut in time."""
        self._stop_sending()
        if self._reason is None and self._cut_at is None:
            self._cut_at = self._begin_timeout()
            self._arm(self._cut_at)

    def _connection_is_gone(self) -> None:
        """The connection is gone, and what was read of it may hold messages, and the end, that are not taken yet."""
        self._is_gone = True
        self._stop_sending()
        if self._phase < CLOSING:
            self._cut_at = None  # what came before is in this process, and may take its time

    def _begin_close(self, code: int | None, text: str) -> None:
        self._raise_to(CLOSING)
        self._cut_at = self._begin_timeout()
        if self._has_sends_under_way():
            self._close_waits = code, text
            self._watch_sends()
        elif not self._is_gone:
            self._write_close(code, text)

    def _raise_to(self, phase: Phase) -> None:
        if self._phase < phase:
            self._phase = phase

    def _set_reason(self, code: int | None, text: str, initiator: Initiator) -> None:
        if self._reason is None:
            self._reason = close_reason(1005 if code is None else code, text, initiator, self._close_keywords)
            self._tell_end()
            self._reason_is_known()

    def _stop_sending(self) -> None:
        """From now on sends answer False, those that wait too."""
        self._raise_to(STOPPED)
        self._tell_end()
        self._wake_senders()

    def _drop(self) -> None:
        """Deliver no more messages (RECV-4)."""
        if not self._dropping:
            self._dropping = True
            self._drop_undelivered()
            self._tell_end()

    def _tell_end(self) -> None:
        """Tell those who want to know early of the end, and whether all that came before is delivered."""
        if self._tell is not None and self._phase > OPEN:
            self._tell(self._reason is not None and (self._dropping or self._is_delivered()))
