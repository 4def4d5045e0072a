"""One channel of a sequence: its peer, what both sides have done, and what is therefore to be expected."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Literal, Protocol

from wsbridge.close import CloseReason
from wsbridge.conformance import lateness
from wsbridge.conformance.client import (
    Binary,
    Close,
    Eof,
    Opcode,
    Ping,
    Text,
    WireError,
    WirePeer,
    build_frame,
    close_payload,
)
from wsbridge.conformance.contract import CheckFailed, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.model.declared import Declared
from wsbridge.conformance.harness.model.drawn import Message, Opening, Setup, Shipment
from wsbridge.conformance.harness.model.outbox import Outbox
from wsbridge.conformance.harness.recorder import Event
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.errors import ChannelClosedError
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream

__all__ = ["Boom", "End", "Line", "Plan"]

_A_MOMENT = 0.02  # seconds in which what is held back is given a chance to go out all the same
_LONG = 3600.0


class Boom(RuntimeError):
    """What the application of the model raises."""


@dataclass(frozen=True, slots=True)
class End:
    """What may have ended a channel: a reason, in which None stands for anything."""

    code: int
    text: str | None
    initiator: Literal["peer", "local", "network"]

    def fits(self, reason: CloseReason) -> bool:
        """Tell whether it is what ``reason`` says."""
        return (reason.code, reason.initiator) == (self.code, self.initiator) and self.text in (None, reason.text)

    def __str__(self) -> str:
        return f"{self.code} {'with any text' if self.text is None else repr(self.text)} by {self.initiator}"


@dataclass(slots=True)
class _Seen:
    """What the application of one channel has seen and done."""

    messages: list[str | bytes] = field(default_factory=list[str | bytes])
    begun: list[str | bytes] = field(default_factory=list[str | bytes])  # what it has begun to send
    sent: list[str | bytes] = field(default_factory=list[str | bytes])  # for which a send returned True
    handled: int = 0  # messages, echoes included
    refused: int = 0  # sends that were answered with False
    raised: int = 0  # callbacks
    errors: int = 0  # calls of on_error


@dataclass(slots=True)
class Plan:
    """What the steps have made of a channel, whatever its server has made of it by now.

    Which steps can follow is asked of this alone: what is drawn must not depend on how fast anything happens.

    Attributes:
        is_open: Whether no step has ended it.
        is_held: Whether its callbacks are held up.
        reads: Whether the peer reads.
        can_send: Whether the peer can send, be it for nothing.
        can_end: Whether it can, and has not sent its last.
    """

    is_held: bool
    is_open: bool = True
    reads: bool = True
    can_send: bool = True
    can_end: bool = True


class Stage(Protocol):
    """What a line knows of the play that it is part of."""

    target: SuiteTarget
    bench: Bench
    setup: Setup
    declared: Declared
    idle_timeout: float

    def fault(self, message: str) -> None: ...
    def told_text(self, text: str) -> str | None: ...
    def events_of(self, line: Line) -> list[Event]: ...


class Line:
    """One channel, from its handshake on.

    Attributes:
        key: Its number among all of the sequence, which the request has in its query.
        name: What it is called in the steps.
        opening: How it was opened.
        peer: Its peer.
        channel: What ``on_open`` got, None before.
        sent: The messages that the peer has sent before any end, none too large.
        pings: The payloads of its pings, as many as were sent before any end.
        ends: What may be the reason, in the order in which it happened. What happens when the reason is known is not.
        seen: What the application has seen and done.
        reason: The end, as soon as it is known here.
        plan: What the steps have made of it.
    """

    def __init__(self, play: Stage, key: int, name: str, opening: Opening) -> None:
        self.play = play
        self.key = key
        self.name = name
        self.opening = opening
        self.setup: Setup = play.setup
        self.peer: WirePeer
        self.channel: WebSocketChannel | None = None
        self.stream: MessageStream[str | bytes] | None = None
        self.sent: list[str | bytes] = []
        self.pings: list[bytes] = []
        self.ends: list[End] = []
        self.seen = _Seen()
        self.reason: CloseReason | None = None
        self.reason_at = 0.0
        self.stack = contextlib.AsyncExitStack()
        self.plan = Plan(opening.held)
        self.gate = asyncio.Event()  # callbacks wait for it
        if not opening.held:
            self.gate.set()
        self.out = Outbox()
        self.app = Outbox()
        self.trap: Literal["", "raises", "returns"] = ""
        self.has_dropped = False  # the peer has reset the connection
        self.has_finished: bool = False  # the peer has sent its last: its close, a violation, its half-close
        self.has_closed = False  # it has sent a close frame, or is about to
        self.half_closed = False
        self.has_oversized = False  # the peer has sent what is too large
        self.answers_close = opening.answers_close
        self.answer: tuple[int, str | None] | None = None  # the close frame that answers the last that the peer sent
        self.delivered_at_close: int | None = None  # how many messages were delivered when `close` was called
        self.is_judged = False
        self.active_at: list[float] = []  # when a send began that has returned True
        self.faults: list[BaseException] = []
        self._sending = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._number = 0

    # ---- how it stands ----------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended it, as far as is known here."""
        return not self.ends and not self.known()

    @property
    def is_held(self) -> bool:
        """Whether its callbacks are held up."""
        return not self.gate.is_set()

    @property
    def reads(self) -> bool:
        """Whether the peer reads."""
        return self._reader is not None and not self._reader.done()

    @property
    def can_send(self) -> bool:
        """Whether the peer can send, be it for nothing."""
        return not (self.has_dropped or self.half_closed)

    @property
    def may_be_held_back(self) -> bool:
        """Whether what is sent, on either side, may have to wait."""
        return self.is_held or not self.reads or not self.is_open

    def known(self) -> CloseReason | None:
        """Return the end, if the connector knows it."""
        if self.reason is None and self.channel is not None:
            found = self.channel.reason
            if found is not None:
                self._take_reason(found)
        return self.reason

    def kinds(self) -> list[str]:
        """Return the callbacks so far, in order."""
        return [event.kind for event in self.play.events_of(self) if not event.kind.endswith("-end")]

    def has_seen(self, kind: str) -> bool:
        """Tell whether a callback has begun, or, with ``-end``, has ended."""
        return any(event.kind == kind for event in self.play.events_of(self))

    @property
    def is_over(self) -> bool:
        """Whether its ``on_close``, or the handler of its stream, has returned."""
        return self.has_seen("close-end")

    @property
    def has_left(self) -> bool:
        """Whether it surely counts no more (HS-12); when a stream's ``on_close`` returns cannot be told from here."""
        return self.is_judged or (self.is_over and not self.opening.is_stream)

    def ended_by(self, end: End) -> None:
        """Take it that something may have ended it, unless it has ended before."""
        if self.known() is None:
            self.ends.append(end)

    def _take_reason(self, reason: CloseReason) -> None:
        if self.reason is None:
            self.reason, self.reason_at = reason, time.monotonic()
        elif self.reason != reason:
            self.play.fault(f"the reason of {self.name} was {self.reason!r} and is {reason!r} now")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so, which it must be in time."""
        deadline = lateness.Deadline(self.play.bench.timeout)
        while not condition():
            if deadline.left() <= 0:
                raise CheckFailed(f"{self.name}: {what} did not come about; its callbacks were {self.kinds()}")
            await asyncio.sleep(0.001)

    # ---- the application's side -------------------------------------------------------------------------------------

    def arrived(self, channel: WebSocketChannel) -> None:
        """Take the channel that the application got for it."""
        if self.channel is not None:
            self.play.fault(f"the application got a second channel for one handshake of {self.name}")
            return
        self.channel = channel
        if self.opening.awaits or self.setup.idle:  # which tells when it is closed
            self._watcher = asyncio.get_running_loop().create_task(self._watch(channel))

    async def _watch(self, channel: WebSocketChannel) -> None:
        self._take_reason(await channel.wait_closed())

    async def take(self, channel: WebSocketChannel, message: str | bytes) -> bool:
        """Handle a message, as the application does; return whether it goes on.

        Raises:
            Boom: It is to raise.
        """
        if channel is not self.channel:
            self.play.fault(f"a message of another channel was delivered to {self.name}")
        self.seen.messages.append(message)
        await self.gate.wait()
        if self.trap == "raises":
            self.trap = ""
            self.seen.raised += 1
            raise Boom("raised by the model")
        if self.trap == "returns":
            return False
        if self.opening.echoes:
            await self._send(message)
        self.seen.handled += 1
        return True

    async def _send(self, message: str | bytes) -> None:
        async with self._sending:  # so that there is one order, of echoes and all else
            assert self.channel is not None
            began = time.monotonic()
            self.seen.begun.append(message)
            before = bool(self.ends) or self.may_be_idle
            if self.stream is not None:
                try:
                    await self.stream.send(message)
                    sent = True
                except ChannelClosedError:
                    sent = False
            elif isinstance(message, str):
                sent = await self.channel.send_text(message)
            else:
                sent = await self.channel.send_binary(message)
            if sent:
                self.active_at.append(began)
                self.seen.sent.append(message)
                if self.seen.refused:
                    self.play.fault(f"a send on {self.name} returned True after one had returned False")
            else:
                self.seen.refused += 1
                if not (before or self.ends):
                    self.play.fault(f"a send on {self.name}, which nothing has ended, returned False")

    @property
    def may_be_idle(self) -> bool:
        """Whether it may end at any time since nothing happens."""
        return self.setup.idle

    async def application_sends(self, message: Message) -> None:
        """Send a message outside of callbacks."""
        content = message.content(self.setup.limits, self._next_number())
        task = self.app.put(partial(self._send, content))
        await self._given_time(task, "a send of the application, to a peer that reads,")

    async def application_floods(self, count: int) -> None:
        """Send many large messages, so that a peer that does not read holds them back."""
        for _ in range(count):
            content = Message("binary", 65_536, "noise").content((None, None), self._next_number())
            self.app.put(partial(self._send, content))

        async def nothing() -> None:
            pass

        await self._given_time(self.app.put(nothing), "the sends of the application, to a peer that reads,")

    def application_closes(self, code: int, text: str) -> None:
        """Close, as any task may; what that does is known at once."""
        assert self.channel is not None
        self.plan.is_open = False
        before = self.known()
        if self.stream is not None:
            self.stream.close(code, text)
        else:
            self.channel.close(code, text)
        after = self.known()
        if before is None:
            end = End(code, text, "local")
            self.ends = [end]
            true(after is not None and end.fits(after), f"the reason of {self.name} right after close() is {after!r}")
        if self.delivered_at_close is None:
            self.delivered_at_close = len(self.seen.messages)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def _given_time(self, task: asyncio.Task[None], what: str) -> None:
        """Wait for what is done in an outbox, which must be done in time unless something may hold it back."""
        if self.may_be_held_back or self.may_be_idle:
            await asyncio.wait((task,), timeout=_A_MOMENT)
            return
        _, pending = await lateness.wait((task,), self.play.bench.timeout)
        if pending:
            raise CheckFailed(f"{self.name}: {what} did not end")

    # ---- the peer's side --------------------------------------------------------------------------------------------

    async def write(self, work: Callable[[], Awaitable[object]]) -> None:
        """Have the peer do something on the connection after all that it has begun."""
        task = self.out.put(work)
        await self._given_time(task, "what its peer writes, though nobody is held up,")

    def account(self, kind: Literal["text", "binary"], content: str | bytes) -> None:
        """Take it that the peer sends a message."""
        limit = self.setup.limits[0 if kind == "text" else 1]
        size = len(content.encode()) if isinstance(content, str) else len(content)
        is_oversized = limit is not None and size > limit
        if is_oversized:
            self.plan.is_open = self.plan.can_end = False
        if self.has_finished:
            return
        if is_oversized:
            self.finish(End(1009, None, "local"))
            self.has_oversized = True
            self.answer = 1009, None
        elif self.known() is None:
            self.sent.append(content)

    def finish(self, end: End) -> None:
        """Take it that the peer does what ends the channel: nothing that it sends after that counts."""
        self.plan.is_open = self.plan.can_end = False
        if not self.has_finished:
            self.has_finished = True
            self.ended_by(end)

    async def peer_sends(self, message: Message, shipment: Shipment) -> None:
        """Send a message, in the way that was drawn."""
        content = message.content(self.setup.limits, self._next_number())
        counts = not self.has_finished and self.known() is None
        self.account(message.kind, content)
        data = content.encode() if isinstance(content, str) else content
        opcode = Opcode.TEXT if message.kind == "text" else Opcode.BINARY
        if not self.play.target.has_wire:
            await self.write(lambda: self.peer.send_frame(opcode, data))
            return
        size = -(-len(data) // shipment.parts) or 1
        parts = [data[number * size : (number + 1) * size] for number in range(shipment.parts)]
        ping = build_frame(Opcode.PING, b"between")
        if shipment.pings and shipment.parts > 1 and counts:  # with one that is too large, those in front of its end
            self.pings += [b"between"] * (shipment.parts - 1)

        async def ship() -> None:
            # deflated when its turn has come: each message may refer to those in front of it
            frames = self.peer.framed(opcode, parts, compress=shipment.deflated)
            pieces: list[bytes] = []
            for number, frame in enumerate(frames):
                if number and shipment.pings:
                    pieces.append(ping)
                edges = [0, *(cut for cut in shipment.cuts if cut < len(frame)), len(frame)]
                pieces += [frame[begin:end] for begin, end in pairwise(edges)]
            if shipment.cuts:
                await self.peer.send_apart(pieces)
            else:
                await self.peer.send_raw(b"".join(pieces))

        await self.write(ship)

    async def peer_pings(self, payload: bytes) -> None:
        """Send a ping."""
        is_late = self.has_oversized and self.play.declared.measures_late
        if (not self.has_finished or is_late) and self.known() is None:
            self.pings.append(payload)
        await self.write(lambda: self.peer.ping(payload))

    async def peer_closes(self, code: int | None, text: str) -> None:
        """Send a close frame."""
        end = End(1005 if code is None else code, self.play.told_text(text), "peer")
        if not self.has_finished:
            self.answer = end.code, None if self.play.target.loses_close_text else end.text
        self.finish(end)
        self.has_closed = True
        await self.write(lambda: self.peer.send_close(code, text))

    async def peer_half_closes(self) -> None:
        """End the sending side alone, after all that was begun."""
        self.finish(End(1006, "", "network"))
        if self.play.target.hides_violations:  # whose empty close is told from a loss by what the connection looks like
            self.ended_by(End(1006, "", "network"))
        self.half_closed = True
        self.plan.can_send = False
        await self.write(lambda: self.peer.half_close())

    def peer_drops(self) -> None:
        """Reset the connection, whatever was begun."""
        self.ended_by(End(1006, "", "network"))  # which may overtake what the server has not read
        self.has_dropped = self.has_finished = True
        self.plan.is_open = self.plan.can_send = self.plan.can_end = False
        self.peer.drop()

    def start_reading(self) -> None:
        """Read all that comes, from now on."""
        self.plan.reads = True
        if not self.reads and not self.has_dropped:
            self._reader = asyncio.get_running_loop().create_task(self._read())

    async def stop_reading(self) -> None:
        """Read nothing more."""
        self.plan.reads = False
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            await asyncio.wait((self._reader,))

    async def _read(self) -> None:
        try:
            while not isinstance(event := await self.peer.receive(_LONG), Eof):
                if isinstance(event, Ping):
                    self.out.put(partial(self.peer.pong, event.payload))
                elif isinstance(event, Close) and self.answers_close:
                    self.answer_close(event)
        except (WireError, OSError) as exc:
            if not self.has_dropped:
                self.faults.append(exc)

    def opening_is_over(self) -> None:
        """From now on the peer answers a close frame at once."""
        self.answers_close = True

    def answer_close(self, close: Close) -> None:
        """Answer the server's close frame, unless the peer has sent one."""
        if not self.has_closed and self.can_send:
            self.has_closed = self.has_finished = True
            payload = b"" if close.code == 1005 else close_payload(close.code)
            self.out.put(lambda: self.peer.send_frame(Opcode.CLOSE, payload))

    # ---- its end ----------------------------------------------------------------------------------------------------

    async def release(self) -> None:
        """Let go of what it holds, whatever has become of it."""
        self.gate.set()
        for task in (self._reader, self._watcher):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait((task,))
        await self.stack.aclose()

    def close_frame(self) -> Close | None:
        """Return the server's close frame, if the peer has read one."""
        return next((event for event in self.peer.received if isinstance(event, Close)), None)

    def watched(self) -> asyncio.Task[None] | None:
        """Return the task that awaits ``wait_closed()``, if there is one."""
        return self._watcher

    def reading(self) -> asyncio.Task[None] | None:
        """Return the task that reads for the peer, if there is one."""
        return self._reader

    def messages_received(self) -> list[str | bytes]:
        """Return the messages that the peer has read."""
        return [event.data for event in self.peer.received if isinstance(event, Text | Binary)]
