"""Every order of events that end a channel is played against the table, and what must hold is looked at after each."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest

from wsbridge._channel.ending import CLOSING, FAILED, LOST, OPEN, OVER, STOPPED, WAYS, Ending, Phase, Way

DEPTH = 7
CLOSE_TIMEOUT = 10.0


class Broken(AssertionError):
    """A promise of `Ending` does not hold."""


def hold(promise: bool, what: str) -> None:
    if not promise:
        raise Broken(what)


class Played(Ending):
    """An `Ending` whose sends, frames, connection and clock are a few numbers.

    Attributes:
        unfinished: Whether the peer leaves what was written unread.
        under_way: Sends that were taken and are not written.
        closes: Close frames that were written.
        connection: ``open``, ``half``, ``ending`` (once all is written) or ``gone``.
        armed: When the clock looks at the channel.
        told: What `_tell` was last called with.
        woken: Whether who reads was woken for the end.
    """

    def __init__(self, ways: Mapping[str, Way], *, unfinished: bool) -> None:
        super().__init__()
        self.ways = ways
        self.unfinished = unfinished
        self.under_way = 0
        self.watched = False
        self.closes = 0
        self.connection = "open"
        self.armed: float | None = None
        self.told: bool | None = None
        self.woken = self.forgotten = False
        self._tell = self.tell

    def tell(self, is_last: bool) -> None:
        self.told = is_last

    @property
    def _close_keywords(self) -> Mapping[int, str]:
        return {}

    def _has_sends_under_way(self) -> bool:
        return self.under_way > 0

    def _watch_sends(self) -> None:
        self.watched = True

    def _close_is_settled(self) -> None:
        hold(self._close_waits is None, "what waits for the close frame is told before it is written")

    def _write_close(self, code: int | None, text: str) -> None:
        hold(self.under_way == 0, "the close frame overtakes a send that was taken")
        hold(self._phase >= CLOSING, "a close frame in a phase before CLOSING")
        hold(self.connection in ("open", "half"), "a close frame on a connection that has ended")
        self.closes += 1
        hold(self.closes == 1, "a second close frame")

    def _end_connection(self, *, half: bool, behind: bool) -> None:
        hold(self.closes == 1, "the connection is ended before the close frame is written")
        hold(self.connection != "gone", "a connection that is gone is ended")
        hold(self.connection in ("open", "half"), "a connection is ended twice")
        hold(self.connection == "open" or not half, "the sending side is ended twice")
        self.connection = "half" if half and self.connection != "ending" else "ending"

    def _cut_connection(self) -> None:
        hold(self.connection != "gone", "a connection that is gone is cut")
        self.connection = "gone"

    def _is_peer_behind(self) -> bool:
        return self.unfinished

    def _is_unfinished(self) -> bool:
        return self.unfinished

    def _begin_timeout(self) -> float:
        return CLOSE_TIMEOUT

    def _arm(self, when: float) -> None:
        self.armed = when

    def _wake_senders(self) -> None:
        hold(self._phase >= STOPPED, "senders are woken while sends are taken")

    def _reason_is_known(self) -> None:
        hold(self._reason is not None, "who waits for the reason is woken without one")

    def _drop_undelivered(self) -> None:
        self.forgotten = True

    def _nothing_more(self) -> None:
        self.woken = True

    # ---- what may happen ---------------------------------------------------------------------------------------------

    def happen(self, event: str) -> bool:
        """Have something happen; return False if it cannot now."""
        if event == "send":  # a message is taken, and waits in the server
            if self._phase is not OPEN:
                return False
            self.under_way += 1
        elif event == "sent":
            if not self.under_way:
                return False
            self.under_way -= 1
            if self.watched and not self.under_way:
                self._sends_ended()
        elif event == "gone":  # a send or a control frame finds that the peer has left
            if self.connection == "gone":
                return False
            self._peer_is_gone()
        elif event == "behind":  # the connection is gone, with more read than is taken
            if self._phase is LOST or self._is_gone:
                return False
            self.connection = "gone"
            self._connection_is_gone()
        elif event == "abandoned":
            if self._phase is not OPEN or self.under_way or self._is_gone:
                return False
            self._end(self.ways[event], 1006, "")
        else:
            if event == "lost":
                self.connection = "gone"
            elif event in ("peer", "failed", "noted") and self.connection == "gone" and not self._is_gone:
                return False  # what was read before the loss is told before it
            code, initiator = {"here": (1000, None), "peer": (1001, None), "failed": (1002, None)}.get(
                event, (1006, None)
            )
            self._end(self.ways[event], code, event, initiator)
        return True

    def state(self) -> tuple[Any, ...]:
        """Return all on which it depends what happens next."""
        known = (self._phase, self._reason, self._dropping, self._close_waits, self._cut_at, self._is_gone)
        return (*known, self.under_way, self.watched, self.closes, self.connection, self.armed, self.told, self.woken)


EVENTS = ("here", "peer", "failed", "lost", "cut", "noted", "send", "sent", "gone", "behind", "abandoned")
INITIATORS = {"here": "local", "peer": "peer", "failed": "local"}


def look(before: Played, event: str, after: Played) -> None:
    """Hold one step to what is promised of each."""
    reason = after._reason
    hold(after._phase >= before._phase, "the phase goes back")
    hold(before._reason is None or reason is before._reason, "the reason changes")
    if reason is not None and before._reason is None:
        hold(reason.initiator == INITIATORS.get(event, "network"), "the end is told of the wrong side")
        hold(reason.text == (event if event in WAYS and event != "abandoned" else ""), "the reason has another's text")
    if event in WAYS:
        hold(reason is not None, "an end without a reason")
        hold(after._phase > OPEN, "sends are taken after the end")
    if event == "gone":
        hold(after._phase > OPEN, "sends are taken though the peer is gone")
    if event == "here":
        hold(after._dropping and after.forgotten, "messages are delivered after this side has closed")
    else:
        hold(after._dropping == before._dropping, "what came before the end is not delivered")
    if event == "here" and before._reason is None:
        hold(after._phase is CLOSING, "this side closes, and no close frame is due, or more than that")
    if event == "here":
        hold(before._reason is None or after._phase is before._phase, "a second end does more than drop")
        hold(after.connection == before.connection, "the connection is ended before the peer has answered")
    if event == "failed" and before._phase < FAILED:
        hold(after._phase is FAILED, "the server reads no more, which is not known, or more than that")
    if event in ("cut", "lost", "abandoned"):
        hold(after.closes == before.closes, "a close frame is written at the last moment")
    if event == "abandoned":
        hold(after.connection == before.connection, "a connection on which no 101 was sent is the server's own matter")
    if event == "noted":
        hold(after._phase == max(before._phase, STOPPED), "an end that was only read does more")
    for name, phase in (("peer", OVER), ("lost", LOST), ("cut", LOST), ("abandoned", LOST)):
        if event == name:
            hold(after._phase >= phase, f"after {name} the phase is too low")
    if event == "peer" and before._phase < OVER:
        hold(after._phase is OVER, "the peer's close is taken for a loss")
        if after.connection == "ending" and not after.unfinished:
            hold(after.armed == before.armed, "a timer for a connection that ends by itself")
    if event in ("peer", "failed") and before._phase >= OVER:
        hold(after.state() == before.state(), "something happens after the end")
    if CLOSING <= after._phase < LOST:
        frames = after.closes + (after._close_waits is not None)
        hold(frames == 1 or (frames == 0 and after._is_gone), "a closing channel has not its one close frame")
        hold(after._close_waits is None or after.under_way > 0, "a close frame waits for nothing")
        on_time = after.armed is not None and after._cut_at is not None and after.armed <= after._cut_at
        ends_by_itself = after._is_gone or (after.connection == "ending" and not after.unfinished)
        hold(on_time or ends_by_itself, "a channel that closes holds its slot without a deadline")
    if event == "behind":
        hold(after._phase == max(before._phase, STOPPED), "a connection that is gone ends what is not read yet")
        hold(
            after._reason is before._reason and after.closes == before.closes,
            "a loss is told before what it came after",
        )
        hold(after._phase > STOPPED or after._cut_at is None, "what is read is held to a deadline")
    if after._phase is STOPPED and reason is None and not after._is_gone:
        hold(after._cut_at is not None and after.armed is not None, "a peer that is gone holds its slot for ever")
    if after._phase is FAILED and after._close_waits is None:
        hold(after.connection in ("half", "gone"), "a peer that broke the protocol is not told that nothing follows")
    if after._phase is OVER and after._close_waits is None:
        hold(after.connection in ("ending", "gone"), "after the peer's close the connection is not ended")
    if after._phase >= OVER:
        hold(after.woken, "who reads is not woken for the end")
        hold(after.told is True, "who wants to know it early is not told that all has come")
    if after._phase is LOST:
        hold(after._close_waits is None, "a close frame waits for a connection that is gone")
    if event == "cut" and before._phase < LOST and before.connection != "gone":
        hold(after.connection == "gone", "a connection that is cut is there")


def given_up(played: Played) -> None:
    """Whatever has happened, the deadline ends it."""
    if played._cut_at is not None and played._phase < LOST:
        late = copy.copy(played)
        late._tell = late.tell
        late._end(late.ways["cut"], 1006, "")
        hold(late._phase is LOST and late._reason is not None, "a deadline does not end the channel")


def following(played: Played) -> Iterator[tuple[str, Played]]:
    for event in EVENTS:
        after = copy.copy(played)
        after._tell = after.tell
        if after.happen(event):
            look(played, event, after)
            given_up(after)
            yield event, after


def play(ways: Mapping[str, Way] = WAYS) -> int:
    """Play every sequence of events up to `DEPTH`; return in how many states a channel was.

    What happens depends on the state alone, so that one that was reached before, with as many steps left, is not
    played again.
    """
    states: set[tuple[Any, ...]] = set()
    for unfinished in (False, True):
        reached = [Played(ways, unfinished=unfinished)]
        for _ in range(DEPTH):
            found: dict[tuple[Any, ...], Played] = {}
            for played in reached:
                for _, after in following(played):
                    found.setdefault(after.state(), after)
            reached = list(found.values())
            states |= {(unfinished, *state) for state in found}
    return len(states)


@pytest.mark.rule("CLOSE-3", "CLOSE-5", "CLOSE-6", "CLOSE-10", "SEND-6", "RECV-4")
def test_every_sequence_of_events_keeps_what_is_promised() -> None:
    assert play() > 100


def test_sequences_are_the_same_with_none_left_out() -> None:
    """As `play`, without its short cut, as deep as time allows."""
    for unfinished, depth in itertools.product((False, True), (4,)):
        reached = [Played(WAYS, unfinished=unfinished)]
        for _ in range(depth):
            reached = [after for played in reached for _, after in following(played)]
        assert len(reached) > 1000


def changes(name: str, way: Way) -> Iterator[Way]:
    """Yield a row with each of its fields changed."""
    for initiator in {"local", "peer", "network"} - {way.initiator}:
        yield way._replace(initiator=cast(Any, initiator))
    for phase in Phase:
        if phase is not way.phase:
            yield way._replace(phase=phase)
        if phase is not way.until:
            yield way._replace(until=phase)
    for field in ("is_first", "drops", "closes", "arms"):
        yield way._replace(**cast(Any, {field: not getattr(way, field)}))
    for then in {"nothing", "half", "whole", "cut"} - {way.then}:
        yield way._replace(then=cast(Any, then))


def is_noticed(name: str, changed: Way) -> bool:
    try:
        play({**WAYS, name: changed})
    except Broken:
        return True
    return False


UNSEEN = {
    "here: phase OPEN": "to begin a close raises it",
    "here: phase STOPPED": "to begin a close raises it",
    "here: until FAILED": "from CLOSING on a reason is known",
    "here: until OVER": "from CLOSING on a reason is known",
    "here: until LOST": "from CLOSING on a reason is known",
    "lost: arms True": "a connection that is gone needs no deadline",
    "lost: then half": "a connection that is gone is not ended",
    "lost: then whole": "a connection that is gone is not ended",
    "cut: arms True": "a connection that is gone needs no deadline",
    "abandoned: until STOPPED": "nothing has happened before",
    "abandoned: until CLOSING": "nothing has happened before",
    "abandoned: until FAILED": "nothing has happened before",
    "abandoned: until OVER": "nothing has happened before",
    "abandoned: is_first True": "nothing has happened before",
    "abandoned: arms True": "a connection that is gone needs no deadline",
    "abandoned: then half": "a connection that is gone is not ended",
    "abandoned: then whole": "a connection that is gone is not ended",
    "noted: phase OPEN": "to stop sending raises it",
    "noted: is_first True": "with a reason known nothing is left to do",
    "noted: arms True": "without a close there is no deadline to arm",
}
"""Changes of a row that change nothing that can be seen, and why."""


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_a_table_with_one_thing_changed_is_noticed(name: str) -> None:
    unseen = [described(WAYS[name], changed) for changed in changes(name, WAYS[name]) if not is_noticed(name, changed)]
    assert sorted(unseen) == sorted(what for what in UNSEEN if what.startswith(f"{name}:"))


def described(way: Way, changed: Way) -> str:
    field = next(field for field in way._fields if getattr(way, field) != getattr(changed, field))
    value = getattr(changed, field)
    name = next(name for name, known in WAYS.items() if known is way)
    return f"{name}: {field} {value.name if isinstance(value, Phase) else value}"


@pytest.mark.parametrize(
    ("what", "broken"),
    [
        ("a loss leaves the close frame waiting", {"_close_waits": True}),
        ("a timeout ends with the transport", {"_arm": lambda self, when: None}),
        ("nobody tells that the sends have ended", {"_watch_sends": lambda self: None}),
    ],
)
def test_a_channel_that_forgets_a_step_is_noticed(
    what: str, broken: dict[str, Callable[..., object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if what.startswith("a loss"):
        original = Ending._end

        def end(self: Ending, way: Way, *arguments: Any) -> None:
            waits = self._close_waits
            original(self, way, *arguments)
            self._close_waits = waits or self._close_waits

        monkeypatch.setattr(Ending, "_end", end)
    else:
        for name, function in broken.items():
            monkeypatch.setattr(Played, name, function)
    with pytest.raises(Broken):
        play()
