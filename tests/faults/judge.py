"""Holds one channel's logs, of the application, the client and the proxy, to RECV-4, SEND-6, CLOSE-3 and CLOSE-7."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.actors import MAX_MESSAGE, Ledger, PlannedClient, Seen
from tests.faults.plan import Plan
from tests.faults.proxy import Link
from wsbridge import CloseReason

__all__ = ["Figures", "judge"]

_CLOSE = 8
_DATA = (0, 1, 2)


@dataclass(slots=True)
class Figures:
    """What a run counts. ``lost`` must be 0: messages that were read or taken, and of which nobody was told."""

    channels: int = 0
    opened: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    up_sent: int = 0
    up_passed: int = 0
    delivered: int = 0
    up_dropped: int = 0
    down_accepted: int = 0
    down_received: int = 0
    down_cut: int = 0
    refused_sends: int = 0
    lost: int = 0

    def add(self, other: Figures) -> None:
        """Add another run's."""
        for name in self.__slots__:
            mine, its = getattr(self, name), getattr(other, name)
            mine.update(its) if isinstance(mine, Counter) else setattr(self, name, mine + its)


class _Frame(NamedTuple):
    opcode: int
    is_final: bool
    is_legal: bool
    payload: bytes
    end: int


class _Stream:
    """What the bytes that were passed to the server hold: whole messages, and what ends them."""

    def __init__(self, passed: bytearray) -> None:
        head = passed.find(b"\r\n\r\n")
        self.has_request = head >= 0
        self.ends: list[int] = []  # of each whole message in front of the terminal frame
        self.terminal: _Frame | None = None
        position = head + 4
        while self.has_request and self.terminal is None and (frame := _frame(passed, position)) is not None:
            position = frame.end
            if frame.opcode == _CLOSE or not frame.is_legal:
                self.terminal = frame
            elif frame.opcode in _DATA and frame.is_final:
                self.ends.append(frame.end)

    def messages(self, within: int) -> int:
        """Return how many messages are whole in so many bytes."""
        return sum(end <= within for end in self.ends)


def _frame(data: bytearray, start: int) -> _Frame | None:
    """Return the frame that begins at ``start``, if it is all there; of one that is illegal the head is enough."""
    if len(data) < start + 2:
        return None
    opcode, size = data[start] & 0x0F, data[start + 1] & 0x7F
    if opcode not in (0, 1, 2, 8, 9, 10):
        # a server may refuse it by its first byte, and need not before it is whole: 6 bytes of head, 1 of payload
        return _Frame(opcode, True, False, b"", start + 7)
    position = start + 2
    if size > 125:
        width = 2 if size == 126 else 8
        if len(data) < position + width:
            return None
        size = int.from_bytes(data[position : position + width])
        position += width
    key = data[position : position + 4]
    position += 4
    is_legal = size <= MAX_MESSAGE
    if not is_legal:
        return _Frame(opcode, True, False, b"", position)
    end = position + size
    first = data[position] ^ key[0] if size and len(data) > position else 0
    if opcode == 1 and first == 0xFF:
        return _Frame(opcode, True, False, b"\xff", end)  # no text begins so: what is there may be refused
    if len(data) < end:
        return None
    payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[position : min(end, position + 125)]))
    return _Frame(opcode, bool(data[start] & 0x80), True, payload, end)


class _Case:
    def __init__(self, plan: Plan, ledger: Ledger, client: PlannedClient, link: Link) -> None:
        self.plan = plan
        self.seen: Seen = ledger.seen[plan.number]
        self.client = client
        self.link = link
        self.stream = _Stream(link.passed)
        self.stopping = ledger.stopping
        self.surely = len(link.passed) if link.read is None else max(link.read, 0)
        self.found: list[str] = []
        self.figures = Figures(channels=1)

    def judge(self) -> None:
        self.found += [*self.seen.faults, *self.client.faults]
        self._count()
        self._pairs()
        if self.seen.closes:
            self._reason(self.seen.closes[0])
            self._delivered(self.seen.closes[0])
            self._sent(self.seen.closes[0])

    def _count(self) -> None:
        figures, seen = self.figures, self.seen
        figures.opened = len(seen.ids)
        figures.faults[str(self.plan.fault) if self.link.struck else "none"] += 1
        figures.up_sent = len(self.plan.messages)
        figures.up_passed = self.stream.messages(len(self.link.passed))
        figures.delivered = len(seen.delivered)
        accepted = {name for name, result in seen.sends.items() if result}
        figures.down_accepted = len(accepted)
        figures.down_received = len(accepted.intersection(self.client.received))
        figures.refused_sends = sum(result is False for result in seen.sends.values())

    # ---- CLOSE-3, OPEN-1, OPEN-6 ------------------------------------------------------------------------------------

    def _pairs(self) -> None:
        seen = self.seen
        if len(seen.ids) > 1 or seen.on_open_returned > 1:
            self.found.append(f"on_open ran {len(seen.ids)} times")
        if len(seen.closes) != seen.on_open_returned:
            self.found.append(f"on_open returned {seen.on_open_returned} times, on_close ran {len(seen.closes)} times")
        if self.client.handshake == "101" and not seen.ids:
            self.found.append("the client got its 101, and on_open never ran")
        if self.client.handshake not in ("101", "cut", "timeout"):
            allowed = ("503",) if self.plan.ending == "stop" else ("408", "400") if self.link.struck else ()
            if self.client.handshake not in allowed:
                self.found.append(f"the handshake was answered with {self.client.handshake}")
        if self.client.handshake != "101" and not self.link.struck:
            self.found.append(f"the handshake came to {self.client.handshake!r}, and nothing had happened to it")
        if seen.ids and not self.stream.has_request:
            self.found.append("on_open ran, and the request had not arrived")
        for name, result in seen.sends.items():
            if result is None:
                self.found.append(f"the send of {name} never returned")

    # ---- CLOSE-7, CLOSE-10 ------------------------------------------------------------------------------------------

    def _reason(self, reason: CloseReason) -> None:
        seen = (reason.code, reason.text, reason.initiator)
        self.figures.reasons[f"{reason.code} {reason.initiator}"] += 1
        if self.seen.local is not None:
            code, text, _ = self.seen.local
            if seen != (code, text, "local"):
                self.found.append(f"the reason is {seen}, but the local end with {code} {text!r} came first")
            return
        allowed = self._allowed()
        if not any(seen == end or (end[1] is None and (seen[0], seen[2]) == (end[0], end[2])) for end in allowed):
            self.found.append(f"the reason is {seen}, which is none of {allowed}")

    def _allowed(self) -> list[tuple[int, str | None, str]]:
        """Return the ends that may have come first: of those in the stream only the first can, if it was read."""
        allowed: list[tuple[int, str | None, str]] = []
        terminal, link = self.stream.terminal, self.link
        if terminal is not None and terminal.opcode == _CLOSE and self._is_answer:
            terminal = None
        if terminal is not None:
            if terminal.opcode != _CLOSE:
                allowed += [(code, None, "local") for code in self._violation(terminal)]
            elif len(terminal.payload) < 2:
                allowed.append((1005, "", "peer"))
            else:
                allowed.append((int.from_bytes(terminal.payload[:2]), terminal.payload[2:].decode(), "peer"))
        is_first = terminal is not None and terminal.end <= self.surely
        # what was read in front of it comes first
        if not is_first and not self._is_answer and (link.up_end or link.server_end == "reset"):
            allowed.append((1006, "", "network"))
        # a callback that waits in a send to a peer that is stuck keeps what has been read behind it
        if (not is_first or self.plan.fault.kind == "stuck") and link.struck and self.plan.is_silent:
            allowed += [(1011, "ping timeout", "local"), (1008, "send timeout", "local")]
        if not is_first and self.plan.ending == "idle":
            allowed.append((1001, "idle timeout", "local"))
        if self.stopping and (self.plan.ending == "stop" or not is_first):
            allowed.append((1001, "server shutdown", "local"))
        return allowed

    @property
    def _is_answer(self) -> bool:
        """Whether the server closed first, as far as the client knows, so that its own close frame is no end."""
        return self.client.close is not None and not self.client.said_close

    def _violation(self, frame: _Frame) -> tuple[int, ...]:
        if frame.opcode not in (0, 1, 2, 9, 10):
            return (1002,)
        return (1007,) if frame.payload else (1009,)

    # ---- RECV-4 -----------------------------------------------------------------------------------------------------

    def _delivered(self, reason: CloseReason) -> None:
        delivered, link = self.seen.delivered, self.link
        if delivered != list(range(len(delivered))):
            self.found.append(f"the messages were delivered as {delivered}: -1 is none that was sent")
        passed = self.stream.messages(len(link.passed))
        if len(delivered) > passed:
            self.found.append(f"{len(delivered)} messages were delivered, and {passed} had arrived")
        # the application closes or raises, maybe when the end is known: then it wants no more (CLOSE-1, ERR-1)
        has_enough = self.plan.ending.startswith(("asks", "crossing"))
        if reason.initiator == "local" or has_enough:
            self.figures.up_dropped += passed - len(delivered)
            return
        whole = self.stream.messages(self.surely)
        if len(delivered) < whole:
            self.figures.lost += whole - len(delivered)
            self.found.append(f"{whole} messages had been read before the end, {len(delivered)} were delivered")

    # ---- SEND-6, CLOSE-4 --------------------------------------------------------------------------------------------

    def _sent(self, reason: CloseReason) -> None:
        client, sends = self.client, self.seen.sends
        streams: dict[str, list[int]] = defaultdict(list)
        for name in client.received:
            stream, _, number = name.rpartition("/")
            streams[stream].append(int(number) if number.isdecimal() and name in sends else -1)
        for stream, numbers in streams.items():
            if numbers != list(range(len(numbers))):
                self.found.append(f"of {stream!r} the client received {numbers}: -1 was never sent")
        received = set(client.received)
        missing = [name for name, result in sends.items() if result and name not in received]
        if client.before_close is not None:
            if missing:
                self.figures.lost += len(missing)
                self.found.append(f"{missing} were sent with True, and the close frame came without them")
            refused = [name for name, result in sends.items() if result is False and name in received]
            if refused:
                self.found.append(f"{refused} were refused with False, and came before the close frame")
            if len(client.received) > client.before_close:
                self.found.append(f"{client.received[client.before_close :]} came behind the close frame")
            self._close_frame(reason)
        else:
            self.figures.down_cut += len(missing)
            if self._must_have_close(reason):
                self.figures.lost += len(missing)
                self.found.append(
                    f"the client read to the end ({client.end}), and got no close frame; "
                    f"it lacks {len(missing)} messages that were sent with True"
                )

    def _must_have_close(self, reason: CloseReason) -> bool:
        """Tell whether nothing but the server can have kept the close frame from the client."""
        cut_off = reason.code == 1011 and reason.text == "ping timeout"
        return (
            reason.initiator != "network"
            and not cut_off
            and reason.text != "send timeout"
            and not self.link.struck
            and not self.client.has_left
            and self.client.end is not None
        )

    def _close_frame(self, reason: CloseReason) -> None:
        close = self.client.close
        assert close is not None
        got = (close.code, close.text)
        crossed = self.client.said_close
        if reason.initiator == "local" and not crossed:
            if got[0] != reason.code or (reason.code not in (1002, 1007, 1009) and got[1] != reason.text):
                self.found.append(f"the client got the close {got}, and the reason is {reason!r}")
        elif reason.initiator == "peer" and got[0] != reason.code:
            self.found.append(f"the client closed with {reason.code} and got {got} back")


def judge(plan: Plan, ledger: Ledger, client: PlannedClient, link: Link) -> tuple[Figures, list[str]]:
    """Return what one channel counts, and what is wrong with it."""
    case = _Case(plan, ledger, client, link)
    case.judge()
    return case.figures, case.found
