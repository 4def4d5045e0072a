"""The steps that the random model may take, as rules of Hypothesis, each of which tells itself in words."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from wsbridge.conformance.client import Opcode
from wsbridge.conformance.contract import CheckFailed, equal
from wsbridge.conformance.harness.bench import Bench, open_descriptors, open_what_stays, watched
from wsbridge.conformance.harness.model.drawn import (
    AT_LIMITS,
    CLOSES,
    MESSAGES,
    OPENINGS,
    PAYLOADS,
    SETUPS,
    SHIPMENTS,
    Message,
    Opening,
    Setup,
    Shipment,
    words_of,
)
from wsbridge.conformance.harness.model.judgement import all_has_settled, judge
from wsbridge.conformance.harness.model.line import End, Line, Plan
from wsbridge.conformance.harness.model.play import KNOCKS, Knock, Play
from wsbridge.conformance.harness.model.story import Stories
from wsbridge.conformance.harness.target import SuiteTarget

__all__ = ["Machine"]

_VIOLATIONS: Sequence[tuple[str, int, bytes, int, int]] = (
    ("a text that is not UTF-8", Opcode.TEXT, b"\xff", 0, 1007),
    ("a frame with a reserved opcode", 3, b"", 0, 1002),
    ("a frame with a reserved bit", Opcode.TEXT, b"x", 2, 1002),
    ("a continuation of nothing", Opcode.CONTINUATION, b"", 0, 1002),
    ("a ping of 126 bytes", Opcode.PING, bytes(126), 0, 1002),
)
_NUMBERS = (1, 2)


def _one_of(which: str) -> Any:
    """Return a strategy for one of the channels of which a property is true."""
    return st.runner().flatmap(lambda machine: st.sampled_from(machine.lines_that(which)))


def _any(which: str) -> Callable[[Any], bool]:
    """Return a precondition: there is such a channel."""
    return lambda machine: bool(machine.lines_that(which))


def _has_wire(which: str) -> Callable[[Any], bool]:
    return lambda machine: bool(machine.target.has_wire and machine.lines_that(which))


def _pass_over_what_is_there(played: int) -> None:
    """Have the garbage collector, which is asked twice for each sequence, look at what comes from here on alone."""
    if played % 100 == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


class Machine(RuleBasedStateMachine):
    """One sequence: a server, up to two channels at a time, and what both sides do, in an event loop of its own.

    Attributes:
        target: What is checked.
        scale: Stretches every time.
        stories: Where what fails is noted.
    """

    target: ClassVar[SuiteTarget]
    scale: ClassVar[float]
    stories: ClassVar[Stories]

    def __init__(self) -> None:
        super().__init__()
        assume(self.stories.goes_on())
        _pass_over_what_is_there(self.stories.played)
        self.story: list[str] = []
        self.bench = Bench(self.target, self.scale)
        self.now: dict[int, Line] = {}  # the channel of each of the two peers, ended or not
        self.play: Play
        self._failed = False
        self._last_opened = self._descriptors = 0
        self._left: list[str] = []
        self._closing = contextlib.ExitStack()
        self._found = self._closing.enter_context(watched(self.bench))
        self._runner = self._closing.enter_context(asyncio.Runner(loop_factory=self.target.conditions.new_event_loop))
        self._runner.get_loop().set_exception_handler(self._told_by_loop)

    def _told_by_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._left.append(f"the event loop reported: {context.get('message')} ({context.get('exception')!r})")

    def lines_that(self, which: str) -> list[Line]:
        """Return the channels that are there now and for which a property is true."""
        return [line for line in self.now.values() if _PROPERTIES[which](line.plan)]

    def _step(self, words: str, work: Coroutine[Any, Any, object]) -> None:
        """Take one step, and look at what it has led to so far."""
        self.story.append(words)

        async def taken() -> None:
            await work
            self.play.check_faults()

        try:
            self._runner.run(taken())
        except BaseException as exc:
            self._failed = True
            self.stories.failed(self.story, exc, self.bench)
            raise

    # ---- the server -------------------------------------------------------------------------------------------------

    @initialize(setup=SETUPS, first=OPENINGS, second=st.one_of(st.none(), OPENINGS, OPENINGS))
    def begins(self, setup: Setup, first: Opening, second: Opening | None) -> None:
        self.stories.begun()
        self.play = Play(self.bench, setup)

        async def start() -> None:
            await open_what_stays()
            self._descriptors = open_descriptors()
            await self.play.start()
            self.story[0] = str(self.play.setup)  # without what the connector has refused

        self._step(str(self.play.setup), start())
        self._open(1, first)
        if second is not None:
            self._open(2, second)

    def _open(self, number: int, opening: Opening) -> None:
        former = self.now.pop(number, None)

        async def open() -> None:
            if former is not None:
                await judge(former)
            line = self.now[number] = self.play.line(f"peer {number}", opening)
            self._last_opened = number
            await self.play.open(line)

        words = "opens a channel" if former is None else "opens another channel, when the former one has ended,"
        self._step(f"peer {number} {words} at {opening}", open())

    def _free(self) -> list[int]:
        return [number for number in _NUMBERS if number not in self.now or not self.now[number].plan.is_open]

    @precondition(lambda self: bool(self._free()))
    @rule(opening=OPENINGS, number=st.runner().flatmap(lambda machine: st.sampled_from(machine._free())))
    def opens(self, opening: Opening, number: int) -> None:
        self._open(number, opening)

    @precondition(lambda self: self.play.setup.idle and bool(self._free()))
    @rule(opening=OPENINGS)
    def opens_slowly(self, opening: Opening) -> None:
        self._open(self._free()[0], replace(opening, held=True))
        self.callbacks_take_time(self.now[self._last_opened])

    @precondition(_any("is there"))
    @rule(line=_one_of("is there"))
    def a_channel_ends(self, line: Line) -> None:  # by its name the simplest rule, to which others are shrunk
        async def end() -> None:
            self.now = {number: other for number, other in self.now.items() if other is not line}
            await judge(line)

        self._step(f"the channel of {line.name} ends, and all of it is looked at", end())

    @rule(what=st.sampled_from(KNOCKS))
    def knocks(self, what: Knock) -> None:
        self._step(f"another peer makes a handshake: {what}", self.play.knock(what))

    # ---- what the peers do ------------------------------------------------------------------------------------------

    @precondition(_any("can send"))
    @rule(line=_one_of("can send"), message=MESSAGES, shipment=SHIPMENTS)
    def peer_sends(self, line: Line, message: Message, shipment: Shipment) -> None:
        self._step(f"{line.name} sends a {message}{shipment}", line.peer_sends(message, shipment))

    @precondition(_any("is open"))
    @rule(line=_one_of("is open"), message=MESSAGES, shipment=SHIPMENTS)
    def peer_sends_on(self, line: Line, message: Message, shipment: Shipment) -> None:
        self._step(f"{line.name} sends a {message}{shipment}", line.peer_sends(message, shipment))

    @precondition(_any("is held"))
    @rule(line=_one_of("is held"), count=st.integers(2, 80), size=st.sampled_from([1, 100, 70_000]))
    def peer_floods(self, line: Line, count: int, size: int) -> None:
        async def flood() -> None:
            for _ in range(count if size < 1000 else count // 8 + 2):
                await line.peer_sends(Message("binary", size), Shipment())

        self._step(f"{line.name} sends {count} binary messages of {size} bytes", flood())

    @precondition(_any("is open"))
    @rule(line=_one_of("is open"), message=AT_LIMITS, shipment=SHIPMENTS)
    def peer_sends_at_a_limit(self, line: Line, message: Message, shipment: Shipment) -> None:
        self._step(f"{line.name} sends a {message}{shipment}", line.peer_sends(message, shipment))

    @precondition(_any("can send"))
    @rule(line=_one_of("can send"), payload=PAYLOADS, is_pong=st.sampled_from([False, False, True]))
    def peer_pings(self, line: Line, payload: bytes, is_pong: bool) -> None:
        if is_pong:
            pong = line.write(lambda: line.peer.pong(payload))
            self._step(f"{line.name} sends a pong that answers nothing", pong)
        else:
            self._step(f"{line.name} pings with {len(payload)} bytes", line.peer_pings(payload))

    @precondition(_any("can end"))
    @rule(line=_one_of("can end"), close=CLOSES, is_empty=st.sampled_from([False, False, True]))
    def peer_closes(self, line: Line, close: tuple[int, str], is_empty: bool) -> None:
        code, text = (None, "") if is_empty else close
        self._step(f"{line.name} closes with {words_of(code, text)}", line.peer_closes(code, text))

    @precondition(_has_wire("can end"))
    @rule(line=_one_of("can end"), frame=st.sampled_from(_VIOLATIONS))
    def peer_breaks_the_protocol(self, line: Line, frame: tuple[str, int, bytes, int, int]) -> None:
        what, opcode, payload, rsv, code = frame

        async def violate() -> None:
            if self.target.hides_violations:
                line.finish(End(1005, "", "peer"))
                line.ended_by(End(1006, "", "network"))  # the empty close may not have come in front of the end
                line.answer = 1005, None
            else:
                line.finish(End(code, None, "local"))
                line.answer = code, None
            await line.write(lambda: line.peer.send_frame(opcode, payload, rsv=rsv))

        self._step(f"{line.name} sends {what}", violate())

    @precondition(_any("can send"))
    @rule(line=_one_of("can send"), drops=st.booleans())
    def peer_leaves(self, line: Line, drops: bool) -> None:
        async def leave() -> None:
            if drops:
                line.peer_drops()
            else:
                await line.peer_half_closes()

        self._step(f"{line.name} {'resets the connection' if drops else 'ends its side of the connection'}", leave())

    @precondition(_any("reads"))
    @rule(line=_one_of("reads"))
    def peer_stops_reading(self, line: Line) -> None:
        self._step(f"{line.name} stops reading", line.stop_reading())

    @precondition(_any("does not read"))
    @rule(line=_one_of("does not read"))
    def peer_reads_again(self, line: Line) -> None:
        async def read() -> None:
            line.start_reading()

        self._step(f"{line.name} reads again", read())

    # ---- what the application does ----------------------------------------------------------------------------------

    @precondition(_any("is there"))
    @rule(line=_one_of("is there"), message=MESSAGES)
    def application_sends(self, line: Line, message: Message) -> None:
        self._step(f"the application sends {line.name} a {message}", line.application_sends(message))

    @precondition(_any("does not read"))
    @rule(line=_one_of("does not read"), count=st.integers(1, 100))
    def application_floods(self, line: Line, count: int) -> None:
        words = f"the application sends {line.name} {count} binary messages of 65536 bytes of noise"
        self._step(words, line.application_floods(count))

    @precondition(_any("is there"))
    @rule(line=_one_of("is there"), close=CLOSES)
    def application_closes(self, line: Line, close: tuple[int, str]) -> None:
        async def end() -> None:
            line.application_closes(*close)

        self._step(f"the application closes the channel of {line.name} with {words_of(*close)}", end())

    @precondition(_any("can fail"))
    @rule(line=_one_of("can fail"), returns=st.booleans())
    def application_ends(self, line: Line, returns: bool) -> None:
        returns = returns and line.opening.is_stream

        async def end() -> None:
            line.trap = "returns" if returns else "raises"
            line.plan.is_open = False
            line.ended_by(End(1000 if returns else 1011, "", "local"))
            line.sent.append(b"!")
            await line.write(lambda: line.peer.send_binary(b"!", compress=False))

        how = "returns from its handler" if returns else "raises an exception"
        self._step(f"the application {how} at the next message of {line.name}, who sends one", end())

    @precondition(_any("is not held"))
    @rule(line=_one_of("is not held"))
    def callbacks_are_held_up(self, line: Line) -> None:
        async def hold() -> None:
            line.gate.clear()
            line.plan.is_held = True

        self._step(f"the callbacks of {line.name} are held up", hold())

    @precondition(_any("is held"))
    @rule(line=_one_of("is held"))
    def callbacks_go_on(self, line: Line) -> None:
        async def let_go() -> None:
            line.gate.set()
            line.plan.is_held = False
            await asyncio.sleep(0)

        self._step(f"the callbacks of {line.name} go on", let_go())

    # ---- time -------------------------------------------------------------------------------------------------------

    @precondition(_any("is there"))
    @rule(line=_one_of("is there"))
    def all_settles(self, line: Line) -> None:
        self._step(f"all that was begun with {line.name} has its effect", all_has_settled(line))

    @precondition(lambda self: self.play.setup.idle)
    @rule(share=st.sampled_from([0.5, 0.8, 1.3]))
    def time_passes(self, share: float) -> None:
        seconds = self.play.idle_timeout * share
        self._step(f"{seconds:.2f} s pass", asyncio.sleep(seconds))

    @precondition(lambda self: self.play.setup.idle and _any("is open")(self))
    @rule(line=_one_of("is open"))
    def callbacks_take_time(self, line: Line) -> None:
        idle = self.play.idle_timeout

        async def take_time() -> None:
            if not line.is_held:
                line.gate.clear()
                await line.peer_sends(Message("binary", 1), Shipment())
            await asyncio.sleep(1.3 * idle)
            line.gate.set()
            line.plan.is_held = False
            await asyncio.sleep(0.5 * idle)

        words = f"a callback of {line.name} takes {1.3 * idle:.2f} s, and another {0.5 * idle:.2f} s pass"
        self._step(words, take_time())

    # ---- the judgement ----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Have everything end, and look at all that was seen; where a step has failed, only let go of everything."""
        if not hasattr(self, "play"):
            self._closing.close()
            return
        if self._failed:
            self._let_go()
            return
        self._step("all channels end", self._end())
        try:
            self._closing.close()
            self._is_clean()
        except BaseException as exc:
            self._failed = True
            self.stories.failed(self.story, exc, self.bench)
            raise

    async def _end(self) -> None:
        for line in self.now.values():
            await judge(line)
        await self.play.every_place_is_back()
        await self.play.stop()
        # tasks end in the next moments, and the sockets of a server that has threads of its own
        for _ in range(200):
            if len(asyncio.all_tasks()) == 1 and open_descriptors() <= self._descriptors:
                break
            await asyncio.sleep(0.005)
        left = [task.get_coro() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            raise CheckFailed(f"tasks are left running: {left}")
        self.play.expected_errors += sum(line.seen.raised for line in self.play.lines.values())

    def _is_clean(self) -> None:
        """Check what is left of the sequence, and what was logged."""
        if found := [*self._left, *self._found]:
            raise CheckFailed("; ".join(found[:5]))
        errors = [record for record in self.bench.logs if record.levelno >= logging.WARNING]
        told = [record.getMessage() for record in errors]
        equal(len(errors), self.play.expected_errors, f"how many failures of the application are logged, in {told}")

    def _let_go(self) -> None:
        """End what a failed sequence has left; what that raises tells nothing more."""

        async def release() -> None:
            await self.play.release()
            await self.play.stop()

        with contextlib.suppress(Exception):
            self._runner.run(release())
        with contextlib.suppress(Exception):
            self._closing.close()


_PROPERTIES: dict[str, Callable[[Plan], bool]] = {
    "is there": lambda plan: True,
    "is open": lambda plan: plan.is_open,
    "can send": lambda plan: plan.can_send,
    "can end": lambda plan: plan.can_send and plan.can_end,
    "can fail": lambda plan: plan.is_open and plan.can_send,
    "reads": lambda plan: plan.reads,
    "does not read": lambda plan: not plan.reads and plan.is_open,
    "is held": lambda plan: plan.is_held and plan.is_open,
    "is not held": lambda plan: not plan.is_held and plan.is_open,
}
