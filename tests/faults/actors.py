"""Both sides of a run, each with a log of its own: the application and the clients."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from dataclasses import dataclass, field
from typing import Any

from tests.faults.plan import Blocks, Plan, PlannedMessage
from wsbridge import Application, CloseReason, Request, WebSocketChannel, WebSocketOptions
from wsbridge.conformance.client import (
    Close,
    Closed,
    Eof,
    HandshakeRefused,
    HandshakeRequest,
    Opcode,
    WireError,
    WireLog,
    WirePeer,
    WireTimeout,
    WireViolation,
    build_frame,
)

__all__ = ["IDLE_TIMEOUT", "MAX_MESSAGE", "Deliberate", "Ledger", "PlannedClient", "Seen"]

PING_INTERVAL, PING_TIMEOUT = 1.0, 4.0
SEND_TIMEOUT = 3.0
IDLE_TIMEOUT = 2.0
CLOSE_TIMEOUT = 4.0
HANDSHAKE_TIMEOUT = 5.0
MAX_MESSAGE = 300_000  # bytes


class Deliberate(Exception):
    """Raised by callbacks because the plan says so."""


def up_name(plan: Plan, index: int) -> str:
    """Return the name of a message of the client."""
    return f"{plan.number}/up/{index}"


@dataclass(slots=True, weakref_slot=True)
class Seen:
    """What the application saw of one channel; it is the process object too.

    Attributes:
        delivered: The numbers of the client's messages, in the order of delivery.
        sends: What each send returned, by the message's name, in the order of the calls.
        local: The first local end: code and text, and how many messages were delivered by then.
        faults: What is wrong by itself, noted when it happens.
        closed: The application has been told of the end.
    """

    plan: Plan
    ids: list[str] = field(default_factory=list[str])
    on_open_returned: int = 0
    closes: list[CloseReason] = field(default_factory=list[CloseReason])
    delivered: list[int] = field(default_factory=list[int])
    sends: dict[str, bool | None] = field(default_factory=dict[str, bool | None])
    local: tuple[int, str, int] | None = None
    errors: int = 0
    faults: list[str] = field(default_factory=list[str])
    running: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Ledger:
    """The application, whose times are stretched by a scale, and what it saw.

    Attributes:
        stopping: Whether the connector has been told to stop.
    """

    def __init__(self, plans: list[Plan], blocks: Blocks, scale: float) -> None:
        self.seen = {plan.number: Seen(plan) for plan in plans}
        self.channels: list[weakref.ref[Any]] = []
        self.stopping = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.faults: list[str] = []
        self._blocks = blocks
        self._scale = scale

    def application(self, neutral: dict[str, Any], *, compression: bool) -> Application:
        """Return what the connector serves."""
        options: dict[str, Any] = {
            "on_open": self._on_open,
            "on_text": self._on_message,
            "on_binary": self._on_message,
            "on_close": self._on_close,
            "on_error": self._on_error,
            "max_text_size": MAX_MESSAGE,
            "max_binary_size": MAX_MESSAGE,
            "ping_interval": PING_INTERVAL * self._scale,
            "ping_timeout": PING_TIMEOUT * self._scale,
            "send_timeout": SEND_TIMEOUT * self._scale,
            "close_timeout": CLOSE_TIMEOUT * self._scale,
            **neutral,
        }
        return Application(
            [
                ("/plain", WebSocketOptions(**options)),
                ("/deflate", WebSocketOptions(**options, compression=compression)),
                ("/idle", WebSocketOptions(**options, idle_timeout=IDLE_TIMEOUT * self._scale)),
            ]
        )

    async def _on_open(self, channel: WebSocketChannel, request: Request) -> Seen:
        seen = self.seen[int(request.args["n"])]
        plan = seen.plan
        seen.ids.append(channel.id)
        if len(seen.ids) > 1:
            seen.faults.append("on_open ran more than once")
        self.channels.append(weakref.ref(channel))
        seen.running = "on_open"
        if plan.opening == "slow":
            await asyncio.sleep(0.5)
        elif plan.opening == "raises":
            self._ends_here(seen, channel, 1011, "")
            seen.running = ""
            seen.closed.set()  # on_close will not
            raise Deliberate
        elif plan.opening == "closes":
            self._close(seen, channel, 4001, "in on_open")
        for index, sizes in enumerate(plan.senders):
            task = asyncio.create_task(self._talk(channel, seen, f"{plan.number}/task{index}", sizes))
            self.tasks.add(task)
            task.add_done_callback(self._talked)
        seen.running = ""
        seen.on_open_returned += 1
        return seen

    async def _on_message(self, channel: WebSocketChannel, seen: Seen, data: str | bytes) -> None:
        plan = seen.plan
        if seen.running:
            seen.faults.append(f"a message was delivered while {seen.running} ran")
        if seen.closes:
            seen.faults.append("a message was delivered behind on_close")
        if not seen.on_open_returned:
            seen.faults.append("a message was delivered before on_open had returned")
        if seen.local is not None:
            seen.faults.append(f"a message was delivered behind the local end {seen.local}")
        index = len(seen.delivered)
        seen.delivered.append(self._number(plan, index, data))
        seen.running = f"the callback of message {index}"
        try:
            if plan.is_slow:
                await asyncio.sleep(0.005)
            command = plan.messages[index].command if index < len(plan.messages) else ""
            if command == "raise":
                self._ends_here(seen, channel, 1011, "")
                raise Deliberate
            if command == "close":
                self._close(seen, channel, plan.code, plan.text)
            for number, size in enumerate(plan.replies):
                await self._send(channel, seen, f"{plan.number}/reply/{index * len(plan.replies) + number}", size)
        finally:
            seen.running = ""

    async def _on_close(self, channel: WebSocketChannel, seen: Seen, reason: CloseReason) -> None:
        if not isinstance(seen, Seen):
            self.faults.append(f"on_close got the process object {seen!r}")
            return
        if seen.running:
            seen.faults.append(f"on_close ran while {seen.running} did")
        seen.closes.append(reason)
        if await channel.send_text("late"):
            seen.faults.append("a send in on_close returned True")
        if channel.reason != reason or await channel.wait_closed() != reason:
            seen.faults.append(f"on_close got {reason!r}, but the channel has {channel.reason!r}")
        seen.closed.set()

    async def _on_error(self, channel: WebSocketChannel, seen: Seen | None, error: Exception) -> None:
        if not isinstance(error, Deliberate):
            self.faults.append(f"on_error got {error!r}")
        if seen is not None:
            seen.errors += 1

    def _number(self, plan: Plan, index: int, data: str | bytes) -> int:
        """Return which of the client's messages this is, -1 for one that it has not sent."""
        if index < len(plan.messages) and data == message(plan, index, self._blocks):
            return index
        head = (data if isinstance(data, str) else data[:40].decode("latin-1")).partition(";")[0]
        number = head.removeprefix(f"{plan.number}/up/")
        known = number.isdecimal() and int(number) < len(plan.messages)
        return int(number) if known and data == message(plan, int(number), self._blocks) else -1

    def _ends_here(self, seen: Seen, channel: WebSocketChannel, code: int, text: str) -> None:
        """Note a local end, if it is the first that this channel knows of (CLOSE-10)."""
        if channel.reason is None:
            seen.local = (code, text, len(seen.delivered))

    def _close(self, seen: Seen, channel: WebSocketChannel, code: int, text: str) -> None:
        self._ends_here(seen, channel, code, text)
        channel.close(code, text)
        if seen.local is not None and (channel.reason is None or channel.reason.code != code):
            seen.faults.append(f"close({code}) on an open channel made it {channel.reason!r}")

    def _talked(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.faults.append(f"a send raised {error!r}")

    async def _talk(self, channel: WebSocketChannel, seen: Seen, name: str, sizes: tuple[int, ...]) -> None:
        endless = seen.plan.ending == "stop"
        for index in itertools.count() if endless else range(len(sizes)):
            if not await self._send(channel, seen, f"{name}/{index}", sizes[index % len(sizes)]):
                return
            if endless or index % 5 == 4:
                await asyncio.sleep(0.05 if endless else 0.01)

    async def _send(self, channel: WebSocketChannel, seen: Seen, name: str, size: int) -> bool:
        ended = channel.reason is not None
        seen.sends[name] = None
        if size % 2:
            sent = await channel.send_text(self._blocks.text(name, size // 2))
        else:
            sent = await channel.send_binary(self._blocks.data(name, size))
        seen.sends[name] = sent
        if sent and ended:
            seen.faults.append(f"the send of {name} began behind the end and returned True")
        return sent


def message(plan: Plan, index: int, blocks: Blocks) -> str | bytes:
    """Return a message of the client."""
    made = plan.messages[index]
    name = up_name(plan, index)
    return blocks.text(name, made.size // 2) if made.is_text else blocks.data(name, made.size)


@dataclass(slots=True)
class PlannedClient:
    """One client, and what it saw.

    Attributes:
        patience: Seconds without anything that are a hang.
        handshake: ``101``, the status of a refusal, ``cut`` where the answer was not whole, or ``timeout``.
        received: The names of the messages, in order of arrival; for one that is not as it was sent, what is wrong.
        before_close: How many had arrived when the close frame did, None without one.
        close: The close frame.
        end: How the stream ended; None if the client left first.
        faults: What is wrong by itself.
        said_close: Whether a close frame was sent before one had come.
    """

    plan: Plan
    blocks: Blocks
    patience: float
    handshake: str = ""
    received: list[str] = field(default_factory=list[str])
    before_close: int | None = None
    close: Close | None = None
    end: Eof | None = None
    has_left: bool = False
    said_close: bool = False
    faults: list[str] = field(default_factory=list[str])
    log: WireLog = field(default_factory=lambda: WireLog(limit=40))

    async def play(self, address: tuple[str, int]) -> None:
        """Do what the plan says."""
        plan = self.plan
        peer = await WirePeer.open(address, timeout=self.patience, log=self.log)
        async with peer:
            peer.auto_close = plan.ending != "asks-close-unanswered"
            if not await self._shake_hands(peer, address):
                return
            reading = asyncio.create_task(self._read(peer))
            try:
                await self._write(peer)
                if plan.ending in ("leave", "drop"):
                    self.has_left = True
                    reading.cancel()
                    if plan.ending == "drop":
                        peer.drop()
                await asyncio.wait((reading,))
            finally:
                reading.cancel()
                await asyncio.wait((reading,))
            if not reading.cancelled():
                reading.result()

    async def _shake_hands(self, peer: WirePeer, address: tuple[str, int]) -> bool:
        request = HandshakeRequest.build(address, target=self.plan.target, deflate=self.plan.deflates)
        try:
            await peer.upgrade(request)
        except HandshakeRefused as exc:
            self.handshake = str(exc.response.status)
        except (Closed, WireViolation) as exc:
            whole = isinstance(exc, WireViolation) and "the stream ended after" not in str(exc)
            if whole and "in HTTP, but got" not in str(exc):
                self.faults.append(f"the handshake: {exc}")
            self.handshake = "cut"
        except WireTimeout:
            self.handshake = "timeout"
        else:
            self.handshake = "101"
        return self.handshake == "101"

    async def _read(self, peer: WirePeer) -> None:
        while self.end is None:
            try:
                event = await peer.receive()
            except WireTimeout:
                self.faults.append(f"nothing more came, and no end, for {self.patience:g} s")
                return
            except WireError as exc:
                self.faults.append(f"reading: {exc}")
                return
            if isinstance(event, Close):
                if self.close is not None:
                    self.faults.append("a second close frame")
                self.close, self.before_close = event, len(self.received)
            elif isinstance(event, Eof):
                self.end = event
            elif hasattr(event, "data"):
                self.received.append(self._name(event.data))
            if self.plan.reads_slowly:
                await asyncio.sleep(0.002)

    def _name(self, data: str | bytes) -> str:
        head = data[:40] if isinstance(data, str) else data[:40].decode("latin-1")
        name = head.partition(";")[0]
        expected = (
            self.blocks.text(name, len(data) - len(name) - 1)
            if isinstance(data, str)
            else self.blocks.data(name, len(data) - len(name) - 1)
        )
        return name if data == expected else f"garbage: {data[:60]!r}"

    async def _write(self, peer: WirePeer) -> None:
        plan = self.plan
        try:
            for index, made in enumerate(plan.messages):
                await self._send(peer, made, message(plan, index, self.blocks))
                if index % 4 == 3:
                    await peer.ping(b"between")
                if index % 7 == 6:
                    await asyncio.sleep(0.01)
            await self._end(peer)
        except WireError:
            pass  # the server has ended, or the proxy has; what was passed on is known to it

    async def _send(self, peer: WirePeer, made: PlannedMessage, data: str | bytes) -> None:
        raw = data.encode() if isinstance(data, str) else data
        cuts = [0, *made.cuts, len(raw)] if made.cuts else [0, len(raw)]
        parts = [raw[start:end] for start, end in itertools.pairwise(cuts)]
        await peer.send_fragments(Opcode.TEXT if made.is_text else Opcode.BINARY, parts)

    async def _end(self, peer: WirePeer) -> None:
        plan = self.plan
        match plan.ending:
            case "close" | "crossing":
                self.said_close = self.close is None
                await peer.send_close(plan.code, plan.text)
                await peer.pong(b"late")  # while what the server sent is on its way, which must come nevertheless
            case "empty-close":
                self.said_close = self.close is None
                await peer.send_close()
                await peer.pong(b"late")
            case "half-close":
                await peer.half_close()
            case "reserved-opcode":
                await peer.send_frame(3, b"x")
            case "invalid-text":
                await peer.send_frame(Opcode.TEXT, b"\xff\xfe")
            case "too-big":
                await peer.send_raw(build_frame(Opcode.BINARY, b"", length=MAX_MESSAGE + 1))
