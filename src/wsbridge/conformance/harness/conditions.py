"""What a check can be run under: settings of the event loop, of the server, and of what goes over the wire.

Each is an axis with a few values. A check that does not set an axis itself must hold under all of its values; see
`wsbridge.conformance.harness.setting` for how they are applied, and `wsbridge.conformance.harness.pairwise` for which
are played together.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self

from wsbridge._process.loops import loop_factory
from wsbridge.conformance.hand_clock import HandClockLoop
from wsbridge.conformance.harness.known import closest

__all__ = ["AXES", "OF_THE_LOOP", "PLAIN", "Axis", "Conditions", "HandClock", "conflict", "eager_task"]


def eager_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any
) -> asyncio.Task[Any]:
    """Return a task that has started at once, as by `asyncio.eager_task_factory`; before Python 3.12 a plain one.

    uvloop 0.23 hands each factory an ``eager_start``, which asyncio's own takes from Python 3.14 on.
    """
    options.pop("eager_start", None)
    assert asyncio.iscoroutine(coroutine)  # which a generator is not, whatever a factory may be given
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, coroutine, **options)
    return asyncio.Task(coroutine, loop=loop, **options)


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that can be otherwise.

    Attributes:
        values: What it can be, and what that means; the first is how a check is as it stands.
        text: What it is, in a few words.
    """

    values: Mapping[str, str]
    text: str

    @property
    def plain(self) -> str:
        """The value of a check as it stands."""
        return next(iter(self.values))


def _axis(text: str, **values: str) -> Axis:
    return Axis(MappingProxyType({name.replace("_", "-"): meaning for name, meaning in values.items()}), text)


AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "compress": _axis(
            "permessage-deflate",
            off="neither side has it",
            offered="the peer offers it to a server that has it off",
            on="agreed on, every setting left to the server",
            no_takeover="agreed on, with a new window for each message",
            window_9="agreed on, with a window of 512 bytes",
            memory_1="agreed on, with as little memory as zlib takes",
        ),
        "limits": _axis(
            "the largest message of each kind",
            equal="1 MiB for both",
            uneven="1 MiB of text, and three times that and a byte of binary",
            none="no limit",
            large="a TiB",
        ),
        "tls": _axis("TLS", off="none", on="by an SSLContext"),
        "cut": _axis(
            "how the peer's bytes are cut into segments",
            whole="as they are written",
            head="at each byte of the head of a frame, and of a request in its line ends",
            byte="each byte alone, of what is long the first and the last ones",
            joined="each frame behind an unsolicited pong, in one segment",
        ),
        "frames": _axis("frames of the peer's messages", one="one", fragments="three, of which the second is empty"),
        "served": _axis(
            "by what it is served",
            alone="by a server of its own",
            mounted="by an application of the server's framework, as options at a path",
            below="by one, as an application below a path",
        ),
        "path": _axis("where it is served", root="at /", parameters="at a path with a parameter"),
        "callbacks": _axis(
            "the suite's own callbacks",
            coroutines="coroutine functions",
            functions="plain functions",
            stream="a stream handler",
        ),
        "address": _axis("where it listens", ipv4="127.0.0.1", ipv6="::1", unix="a Unix socket"),
        "loop": _axis("the event loop", asyncio="asyncio's", uvloop="uvloop's"),
        "debug": _axis("asyncio's debug mode", off="off", on="on"),
        "tasks": _axis("how a task starts", lazy="in the next turn", eager="at once (asyncio.eager_task_factory)"),
    }
)
"""Every axis, by the name that ``--condition`` takes."""

OF_THE_LOOP = frozenset(("loop", "debug", "tasks"))
"""Axes of the event loop, under which any check can be run."""


def conflict(axis: str, value: str, other: str, other_value: str) -> bool:
    """Tell whether two conditions cannot hold together: the suite mounts without TLS, on IPv4, at a path as it is."""
    if other == "served":
        axis, value, other, other_value = other, other_value, axis, value
    if axis != "served" or value == AXES["served"].plain or other not in ("tls", "address", "path"):
        return False
    return other_value != AXES[other].plain and (other != "path" or value == "mounted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a check is run under: a value of each axis; each is described in `AXES`.

    Raises:
        ValueError: A value that its axis does not have, or two that cannot hold together.
    """

    compress: str = "off"
    limits: str = "equal"
    tls: str = "off"
    cut: str = "whole"
    frames: str = "one"
    served: str = "alone"
    path: str = "root"
    callbacks: str = "coroutines"
    address: str = "ipv4"
    loop: str = "asyncio"
    debug: str = "off"
    tasks: str = "lazy"

    def __post_init__(self) -> None:
        chosen = self.chosen
        for name, value in chosen.items():
            if value not in (values := AXES[name].values):
                offered = ", ".join(values)
                raise ValueError(f"{name}={value} is no condition{closest(value, values)}: {name} is one of {offered}")
        for name, value in chosen.items():
            for other, other_value in chosen.items():
                if conflict(name, value, other, other_value):
                    raise ValueError(f"{name}={value} and {other}={other_value} cannot hold together")

    @classmethod
    def of_the_loop(cls, loop: str = "asyncio", *, debug: bool = False, eager_tasks: bool = False) -> Self:
        """Return conditions of the event loop alone.

        Raises:
            LoopNotInstalledError: uvloop is not installed.
            ValueError: No loop of that name.
        """
        loop_factory(loop)  # type: ignore[arg-type]
        return cls(loop=loop, debug="on" if debug else "off", tasks="eager" if eager_tasks else "lazy")

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Return what is written as ``axis=value``, several of them joined by commas or one after another.

        Raises:
            ValueError: No such axis or value, or one axis twice; the message offers what is close.
        """
        chosen: dict[str, str] = {}
        for part in (part.strip() for text in texts if text for part in text.split(",")):
            name, equals, value = part.partition("=")
            if not equals:
                raise ValueError(f"a condition is written as axis=value, such as compress=on, not {part!r}")
            if name not in AXES:
                offered = ", ".join(AXES)
                raise ValueError(f"there is no condition {name!r}{closest(name, AXES)}: there are {offered}")
            if chosen.setdefault(name, value) != value:
                raise ValueError(f"{name} cannot be {chosen[name]} and {value} at once")
        return cls(**chosen)

    @property
    def chosen(self) -> dict[str, str]:
        """The axes that are not as a check has them by itself, with their values."""
        return {name: value for name, value in asdict(self).items() if value != AXES[name].plain}

    def over(self, other: Conditions) -> Conditions:
        """Return ``other`` with what is chosen here put over it."""
        return replace(other, **self.chosen)

    def check(self) -> None:
        """Make sure that those of the event loop can be had here.

        Raises:
            LoopNotInstalledError: uvloop is not installed.
            ValueError: Eager tasks before Python 3.12.
        """
        loop_factory(self.loop)  # type: ignore[arg-type]
        if self.tasks == "eager" and sys.version_info < (3, 12):
            raise ValueError("eager tasks need Python 3.12 or newer, which is the first to have them")

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new loop of that kind."""
        make = loop_factory(self.loop) or asyncio.new_event_loop  # type: ignore[arg-type]
        return self._prepared(make())

    def _prepared(self, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        loop.set_debug(self.debug == "on")
        if self.tasks == "eager":
            loop.set_task_factory(eager_task)
        return loop

    def __str__(self) -> str:
        """Return them as ``--condition`` takes them, such as ``compress=on,cut=head``; "" if all are plain."""
        return ",".join(f"{name}={value}" for name, value in self.chosen.items())


assert tuple(AXES) == tuple(field.name for field in fields(Conditions))

PLAIN = Conditions()
"""Each check as it stands, and asyncio as it is."""


class HandClock(Conditions):
    """The same with a clock that is put forward where everything waits; for a server that lives in the loop alone.

    It says nothing about the server, but takes less time: in reports it is as if it were not there, and it is not there
    in a process that a check starts for a server, whose clients are not in its loop.
    """

    __slots__ = ()

    def check(self) -> None:
        """As `Conditions.check`; uvloop's clock cannot be put forward."""
        super().check()
        if self.loop != "asyncio":
            raise ValueError(f"a clock that is put forward is asyncio's alone, and not {self.loop}'s")

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new `HandClockLoop`."""
        return self._prepared(HandClockLoop())
