"""What a run is made of: for each channel a plan, which follows from the seed alone.

A plan says what the client sends and how it ends, what the application does, and what the proxy does to the bytes on
their way. What the kernel makes of it, which is when each byte is read, differs from run to run; the judge knows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["ENDINGS", "FAULTS", "PACES", "Blocks", "Fault", "Plan", "PlannedMessage", "make_plans"]

Way = Literal["up", "down"]
"""Up: from the client to the server."""

Pace = Literal["plain", "delay", "byte", "split", "mixed"]
PACES: tuple[Pace, ...] = ("plain", "delay", "byte", "split", "mixed")
"""How bytes are passed on: as they come, late, one by one, cut anew and put together anew, in turns with others."""

Kind = Literal["none", "cut", "reset", "half-close", "blackhole", "stuck"]
FAULTS: tuple[tuple[Kind, tuple[Way, ...]], ...] = (
    ("cut", ("up",)),
    ("cut", ("down",)),
    ("reset", ("up",)),
    ("reset", ("down",)),
    ("half-close", ("up",)),
    ("half-close", ("down",)),
    ("blackhole", ("up",)),
    ("blackhole", ("down",)),
    ("blackhole", ("up", "down")),
    ("stuck", ("down",)),
)
"""What happens once, when so many bytes have passed. The first way is the one whose bytes are counted."""

Ending = Literal[
    "close",
    "empty-close",
    "half-close",
    "leave",
    "drop",
    "asks-close",
    "asks-close-unanswered",
    "crossing",
    "asks-raise",
    "reserved-opcode",
    "invalid-text",
    "too-big",
    "idle",
    "stop",
]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
"""How a channel ends that no fault ends. With ``stop``, it lives until the connector stops."""

Opening = Literal["plain", "slow", "raises", "closes"]
MAX_SIZE = 256 * 1024
HEAD = 200  # bytes, about, of a handshake request or its answer


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a connection, and after how many bytes of ``ways[0]``."""

    kind: Kind
    ways: tuple[Way, ...] = ()
    at: int = 0

    def __str__(self) -> str:
        """Return its name, as in tables."""
        return self.kind if self.kind == "none" else f"{self.kind} {'+'.join(self.ways)}"


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """One message of the client: ``cuts`` are where it is fragmented, ``command`` what the application does on it."""

    is_text: bool
    size: int
    cuts: tuple[int, ...] = ()
    command: Literal["", "close", "raise"] = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """One channel. ``senders`` are the sizes of what each background task of the application sends."""

    number: int
    fault: Fault
    up: Pace
    down: Pace
    ending: Ending
    code: int
    text: str
    opening: Opening
    messages: tuple[PlannedMessage, ...]
    replies: tuple[int, ...]
    senders: tuple[tuple[int, ...], ...]
    is_slow: bool
    deflates: bool
    reads_slowly: bool

    @property
    def target(self) -> str:
        """Where the client connects to."""
        route = "idle" if self.ending == "idle" else "deflate" if self.deflates else "plain"
        return f"/{route}?n={self.number}"

    @property
    def is_silent(self) -> bool:
        """Whether the fault can only be noticed by a timeout."""
        return self.fault.kind in ("blackhole", "stuck")

    def __str__(self) -> str:
        """Return it for people."""
        return (
            f"channel {self.number}: {self.fault} at {self.fault.at}, paces {self.up}/{self.down}, ends by "
            f"{self.ending} {self.code}, opening {self.opening}, {len(self.messages)} messages up, "
            f"{[len(sizes) for sizes in self.senders]} down, slow={self.is_slow} deflates={self.deflates}"
        )


class Blocks:
    """What messages are filled with, so that each can be checked in full wherever it arrives."""

    def __init__(self, seed: int) -> None:
        source = random.Random(f"blocks {seed}")
        self._data = source.randbytes(2 * MAX_SIZE)
        self._text = "".join(source.choices("aeinrst \néßжλ中文🦉\u2028", k=MAX_SIZE))

    def text(self, name: str, size: int) -> str:
        """Return the text message ``name``, of about ``size`` characters."""
        start = hash_of(name) % 1000
        return f"{name};{self._text[start : start + size]}"

    def data(self, name: str, size: int) -> bytes:
        """Return the binary message ``name``."""
        start = hash_of(name) % 1000
        return f"{name};".encode() + self._data[start : start + size]


def hash_of(name: str) -> int:
    """Return a number for a name, the same in every process."""
    return int.from_bytes(name.encode()) % 1_000_003


def make_plans(
    seed: int, channels: int, *, compression: bool, faults: tuple[tuple[Kind, tuple[Way, ...]], ...] = FAULTS
) -> list[Plan]:
    """Return the plans of a run: two of three channels have a fault, and every kind of fault and ending occurs."""
    source = random.Random(f"plans {seed}")
    kinds: list[tuple[Kind, tuple[Way, ...]] | None] = []
    endings: list[Ending] = []
    while len(kinds) < channels:
        kinds += [*faults, *[None] * max(1, len(faults) // 2)]
        endings += ENDINGS
    endings = (endings * 2)[:channels]
    source.shuffle(endings)
    kinds = kinds[:channels]
    source.shuffle(kinds)
    return [
        _plan(source, number, kind, ending, compression)
        for number, (kind, ending) in enumerate(zip(kinds, endings, strict=True))
    ]


def _plan(
    source: random.Random, number: int, kind: tuple[Kind, tuple[Way, ...]] | None, ending: Ending, compression: bool
) -> Plan:
    deflates = compression and source.random() < 0.3
    if kind is not None and ending in ("idle", "stop"):
        ending = "close"  # a fault comes first, or none would come
    messages = [_message(source) for _ in range(source.choice((0, 1, 3, 10, 25)))]
    if ending in ("asks-close", "asks-close-unanswered", "crossing"):
        messages.append(PlannedMessage(True, 10, command="close"))
        messages += [_message(source) for _ in range(source.choice((0, 3)))]
    elif ending == "asks-raise":
        messages.append(PlannedMessage(True, 10, command="raise"))
    senders = tuple(
        tuple(_size(source) for _ in range(source.choice((3, 10, 20)))) for _ in range(source.choice((0, 1, 1, 3)))
    )
    replies = tuple(_size(source, large=False) for _ in range(source.choice((0, 1, 1, 2))))
    up, down = source.choice(PACES), source.choice(PACES)
    fault = Fault("none")
    if kind is not None:
        way = kind[1][0]
        reach = sum(message.size for message in messages) if way == "up" else sum(map(sum, senders))
        # some strike within the handshake, one of them before its first byte, most while messages are on their way
        at = source.choice((0, source.randrange(HEAD), source.randrange(HEAD, HEAD + 20)))
        if source.random() < 0.8:
            at = HEAD + source.randrange(reach + 20)
        if kind[0] == "stuck":
            senders = (*senders, (64 * 1024,) * 150)
            at = HEAD + source.randrange(64 * 1024)
        fault = Fault(kind[0], kind[1], at)
    code = source.choice((1000, 1001, 1003, 1011, 3000, 4999))
    return Plan(
        number=number,
        fault=fault,
        up=up,
        down=down,
        ending=ending,
        code=code,
        text=source.choice(("", "bye", "à bientôt")),
        opening=source.choices(("plain", "slow", "raises", "closes"), (72, 20, 4, 4))[0],
        messages=tuple(messages),
        replies=replies,
        senders=senders,
        is_slow=source.random() < 0.3,
        deflates=deflates,
        reads_slowly=source.random() < 0.2,
    )


def _message(source: random.Random) -> PlannedMessage:
    size = _size(source)
    cuts = tuple(sorted(source.randrange(size + 1) for _ in range(3))) if source.random() < 0.2 else ()
    return PlannedMessage(source.random() < 0.5, size, cuts)


def _size(source: random.Random, *, large: bool = True) -> int:
    kinds = (0, source.randrange(125), source.randrange(2000), source.randrange(70_000))
    return source.choices(kinds, (5, 60, 30, 5 if large else 0))[0]
