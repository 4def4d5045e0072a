"""What Hypothesis draws for the random model: how a server is set up, how a peer opens a channel, and what it sends.

Each thing that is drawn tells itself in words, for the steps of a sequence that fails. What stands first in a choice is
what a failing sequence is shrunk to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

from hypothesis import strategies as st

from wsbridge.options import Compression

__all__ = [
    "AT_LIMITS",
    "CLOSES",
    "LIMIT",
    "MESSAGES",
    "OPENINGS",
    "OVER",
    "PAYLOADS",
    "SETUPS",
    "SHIPMENTS",
    "Message",
    "Opening",
    "Setup",
    "Shipment",
    "words_of",
]

MIB: Final = 1024 * 1024
LIMIT: Final = -1
"""A size that is drawn: just the limit of the message's kind."""
OVER: Final = -2
"""A size that is drawn: one byte more than the limit."""
_UNLIMITED = 100_000  # bytes that stand for the limit where there is none

Kind = Literal["text", "binary"]
Fill = Literal["x", "\xe9", "noise"]
Style = Literal["callbacks", "a stream in a loop", "a stream by recv", "a stream by recv with timeouts"]


# ---- the server -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setup:
    """How the server of one sequence is set up.

    Attributes:
        compression: The option of the same name.
        limits: ``max_text_size`` and ``max_binary_size``.
        max_channels: The option of the same name.
        receive_buffer: The option of the streams.
        pings: Whether the server pings its peers, often.
        idle: Whether its channels have a short ``idle_timeout``.
        mounted: Whether it is mounted in an application of its server's framework.
    """

    compression: bool | Compression = False
    limits: tuple[int | None, int | None] = (MIB, MIB)
    max_channels: int | None = None
    receive_buffer: int = 16
    pings: bool = False
    idle: bool = False
    mounted: bool = False

    def __str__(self) -> str:
        texts, binaries = self.limits
        said = [
            f"compression {self.compression}",
            f"texts up to {_size(texts)}",
            f"binary ones up to {_size(binaries)}",
        ]
        if self.max_channels is not None:
            said.append(f"{self.max_channels} channels at most")
        if self.receive_buffer != 16:
            said.append(f"a receive_buffer of {self.receive_buffer}")
        said += [
            what
            for what, is_so in (("pings", self.pings), ("an idle timeout", self.idle), ("a mount", self.mounted))
            if is_so
        ]
        return f"a server with {', '.join(said)}"


def _size(limit: int | None) -> str:
    return "any size" if limit is None else f"{limit} bytes"


SETUPS: Final = st.builds(
    Setup,
    compression=st.sampled_from(
        [
            False,
            True,
            Compression(context_takeover=False),
            Compression(window_bits=9),
            Compression(window_bits=10, context_takeover=False),
            Compression(memory_level=1),
            True,
        ]
    ),
    limits=st.sampled_from(
        [
            (MIB, MIB),
            (None, None),
            (100, 5000),
            (5000, 100),
            (None, 200),
            (200, None),
            (1, 70_000),
            (300_000, 126),
            (4096, 4096),
        ]
    ),
    max_channels=st.sampled_from([None, 2, 2, 3]),
    receive_buffer=st.sampled_from([16, 1, 2]),
    pings=st.sampled_from([False, False, False, True]),
    idle=st.sampled_from([False, False, False, False, True]),
    mounted=st.sampled_from([False, False, False, True]),
)


# ---- a channel ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """How a peer opens a channel, and how the application serves it.

    Attributes:
        style: By callbacks, or how a handler reads its stream.
        rest: The end of the path, as it is sent.
        offer: The value of ``Sec-WebSocket-Extensions``; "" for none.
        held: Whether ``on_open`` waits until the callbacks go on.
        awaits: Whether somebody awaits ``wait_closed()`` from the beginning.
        answers_close: Whether the peer answers the server's close frame as soon as it reads it.
        echoes: Whether the application answers each message with the same.
        narrow: Whether the peer has a small receive buffer.
        early: The sizes of the binary messages that are sent in one write with the request.
    """

    style: Style = "callbacks"
    rest: str = "a"
    offer: str = ""
    held: bool = False
    awaits: bool = False
    answers_close: bool = True
    echoes: bool = False
    narrow: bool = False
    early: tuple[int, ...] = ()

    @property
    def is_stream(self) -> bool:
        """Whether a handler reads a stream."""
        return self.style != "callbacks"

    @property
    def path(self) -> str:
        """The path as it is sent."""
        return f"/{'stream' if self.is_stream else 'calls'}/{self.rest}"

    @property
    def decoded(self) -> str:
        """The path as the application is told it."""
        return unquote(self.path)

    def __str__(self) -> str:
        said = [f"read by {self.style}"]
        if self.offer:
            said.append(f"offering {self.offer!r}")
        said += [
            what
            for what, is_so in (
                ("with callbacks held up from the beginning", self.held),
                ("with somebody awaiting wait_closed()", self.awaits),
                ("not answering closes at once", not self.answers_close),
                ("echoed by the application", self.echoes),
                ("with a small receive buffer", self.narrow),
                (f"with messages of {', '.join(map(str, self.early))} bytes behind the request", self.early),
            )
            if is_so
        ]
        return f"{self.path}, {', '.join(said)}"


_OFFERS = (
    "",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
)
_STYLES: tuple[Style, ...] = (
    "callbacks",
    "callbacks",
    "a stream in a loop",
    "a stream by recv",
    "a stream by recv with timeouts",
)

OPENINGS: Final = st.builds(
    Opening,
    style=st.sampled_from(_STYLES),
    rest=st.sampled_from(["a", "a/b", "%C3%A9", "a%2Fb", "a%20b/c"]),
    offer=st.sampled_from(_OFFERS),
    held=st.sampled_from([False, False, False, True]),
    awaits=st.booleans(),
    answers_close=st.sampled_from([True, True, False]),
    echoes=st.sampled_from([False, False, False, True]),
    narrow=st.sampled_from([False, False, True]),
    early=st.sampled_from([(), (), (), (3,), (0, 60), (60, 1, 2)]),
)


# ---- messages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is sent.

    Attributes:
        kind: Text or binary.
        size: In bytes, of a text in UTF-8; or `LIMIT` or `OVER`.
        fill: What it is made of: what can be deflated well, characters of two bytes, or what can hardly be deflated.
    """

    kind: Kind = "text"
    size: int = 0
    fill: Fill = "x"

    def length(self, limits: tuple[int | None, int | None]) -> int:
        """Return its size in bytes, under the limits of a server."""
        limit = limits[0 if self.kind == "text" else 1]
        if self.size >= 0:
            return self.size
        return (_UNLIMITED if limit is None else limit) + (self.size == OVER)

    def content(self, limits: tuple[int | None, int | None], number: int) -> str | bytes:
        """Return what is sent; ``number`` makes it differ from others, if there is room for it."""
        size = self.length(limits)
        head = f"{number}:"[:size]
        left = size - len(head)
        if self.kind == "binary":
            return head.encode() + (random.Random(size).randbytes(left) if self.fill == "noise" else b"\0" * left)
        if self.fill == "noise":
            return head + random.Random(size).randbytes(left // 2 + 1).hex()[:left]
        return head + ("\xe9" * (left // 2) + "x" * (left % 2) if self.fill == "\xe9" else "x" * left)

    def __str__(self) -> str:
        size = {LIMIT: "just as large as the limit", OVER: "one byte larger than the limit"}
        fill = {"x": "", "\xe9": " of \xe9", "noise": " of noise"}[self.fill]
        return f"{self.kind} {size.get(self.size, f'of {self.size} bytes')}{fill}"


_SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([LIMIT, OVER, LIMIT, 125, 126, 127, 200, 4097, 65_535, 65_536, 70_000, 300_000]),
)
_KINDS: tuple[Kind, ...] = ("text", "binary")
_FILLS: tuple[Fill, ...] = ("x", "noise", "\xe9")

MESSAGES: Final = st.builds(Message, kind=st.sampled_from(_KINDS), size=_SIZES, fill=st.sampled_from(_FILLS))


AT_LIMITS: Final = st.builds(
    Message, kind=st.sampled_from(_KINDS), size=st.sampled_from([LIMIT, LIMIT, OVER]), fill=st.sampled_from(_FILLS)
)
"""Messages that are as large as they may be, or one byte larger."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """How a peer sends a message.

    Attributes:
        parts: Into how many frames it goes.
        pings: Whether pings stand between them.
        deflated: Whether it is deflated, if that was agreed on.
        cuts: After how many bytes of each frame, counted from its beginning, a TCP segment ends; () for one write.
    """

    parts: int = 1
    pings: bool = False
    deflated: bool = True
    cuts: tuple[int, ...] = ()

    def __str__(self) -> str:
        said = [] if self.deflated else ["not deflated"]
        if self.parts > 1:
            said.append(f"in {self.parts} fragments{' with pings between' if self.pings else ''}")
        if self.cuts:
            said.append(f"each frame cut after {' and '.join(map(str, self.cuts))} bytes")
        return "".join(f", {one}" for one in said)


_CUTS = (1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14)  # bytes: mostly within a frame's head

SHIPMENTS: Final = st.builds(
    Shipment,
    parts=st.sampled_from([1, 1, 1, 2, 3, 4]),
    pings=st.booleans(),
    deflated=st.sampled_from([True, True, False]),
    cuts=st.one_of(
        st.just(()),
        st.lists(st.sampled_from(_CUTS), min_size=1, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    ),
)

PAYLOADS: Final = st.binary(max_size=125)
"""Of pings and pongs."""

CLOSES: Final = st.tuples(st.sampled_from([1000, 1001, 1003, 1011, 3000, 3999, 4000, 4999]), st.text(max_size=20))
"""Codes and texts of a close."""


def words_of(code: int | None, text: str) -> str:
    """Return a close in words."""
    return "an empty close frame" if code is None else f"code {code} and the text {text!r}"
