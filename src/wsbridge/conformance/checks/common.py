"""What several groups of checks need: sends that are counted, a peer that is clogged, a server whose sends fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance import lateness
from wsbridge.conformance.client import Binary, Close, Eof, Text, WirePeer
from wsbridge.conformance.contract import CheckFailed, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.connector import BaseChannel
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

__all__ = [
    "LEAVE",
    "Mishap",
    "Sends",
    "clog",
    "failing",
    "logged",
    "messages_until_close",
    "none_lost",
    "numbered",
    "pair",
]

LEAVE: tuple[Callable[[WirePeer], object], ...] = (lambda peer: peer.close(), lambda peer: peer.drop())
"""How a peer leaves with no word: by the end of its connection, and by a reset."""

_HEADER = 8  # bytes: the number at the head of each message
_ENOUGH = 64 * 1024 * 1024  # bytes: more than any system buffers for one connection


class Mishap(Exception):
    """What callbacks and handlers raise in checks of failures."""


def logged(bench: Bench, error: BaseException) -> list[logging.LogRecord]:
    """Return what was logged on ``wsbridge`` with the traceback of ``error``."""
    return [record for record in bench.logs if record.exc_info and record.exc_info[1] is error]


@contextlib.asynccontextmanager
async def pair(
    bench: Bench, served: Served, target: str = "/", **options: Any
) -> AsyncGenerator[tuple[WirePeer, WebSocketChannel]]:
    """Open a channel and yield both of its ends; the recorder's options must serve it."""
    before = len(bench.recorder.channels)
    async with served.peer(target, **options) as peer:
        yield peer, await bench.recorder.opened(before + 1)


def numbered(number: int, size: int = _HEADER) -> bytes:
    """Return a message of ``size`` bytes, which nothing can deflate, that tells its number and whether it is whole."""
    return number.to_bytes(_HEADER) + random.Random(number).randbytes(size - _HEADER)


@dataclass(slots=True)
class Sends:
    """Numbered messages on one channel, and what came of each.

    Attributes:
        channel: Where they are sent.
        size: How long they are, in bytes.
        taken: Those for which a send returned True, by their number.
        refused: Those for which it returned False.
        waiting: Sends that have not returned.
    """

    channel: WebSocketChannel
    size: int = 64 * 1024
    taken: list[int] = field(default_factory=list[int])
    refused: list[int] = field(default_factory=list[int])
    waiting: dict[int, asyncio.Task[bool]] = field(default_factory=dict[int, asyncio.Task[bool]])
    count: int = 0

    def begin(self) -> asyncio.Task[bool]:
        """Begin the next send in a task of its own."""
        number = self.count
        self.count += 1
        task = asyncio.ensure_future(self._send(number))
        if not task.done():  # an eager one may be
            self.waiting[number] = task
        return task

    async def _send(self, number: int) -> bool:
        try:
            taken = await self.channel.send_binary(numbered(number, self.size))
        finally:
            self.waiting.pop(number, None)
        true(isinstance(taken, bool), f"a send returned {taken!r}")
        (self.taken if taken else self.refused).append(number)
        return taken

    async def until_refused(self) -> None:
        """Send one message after another until a send returns False."""
        while await self.begin():
            pass

    async def all_return(self, bench: Bench, when: str, *, timeout: float | None = None) -> None:
        """Wait until no send waits any more."""
        if tasks := list(self.waiting.values()):
            await bench.within(asyncio.wait(tasks), f"the sends that waited {when}", timeout=timeout)
        for task in tasks:
            if not task.cancelled():
                task.result()


async def clog(bench: Bench, channel: WebSocketChannel, *, size: int = 64 * 1024) -> Sends:
    """Send to a peer that does not read until a send waits; return the sends."""
    sends = Sends(channel, size)
    while sends.count * size < _ENOUGH:
        _, waiting = await lateness.wait((sends.begin(),), 0.06 * bench.scale)
        if waiting:
            return sends
    raise CheckFailed(f"FLOW-2: no send waited, although a peer that reads nothing was sent {_ENOUGH} bytes")


async def messages_until_close(peer: WirePeer) -> tuple[list[int], Close | Eof]:
    """Read numbered messages up to the close frame, or the end without one; return their numbers and the end.

    Raises:
        CheckFailed: One is not whole.
    """
    numbers: list[int] = []
    while not isinstance(event := await peer.receive(), Close | Eof):
        if isinstance(event, Text):
            raise CheckFailed(f"a text came that nobody sent: {event.data[:60]!r}")
        if isinstance(event, Binary):
            number = int.from_bytes(event.data[:_HEADER])
            true(event.data == numbered(number, len(event.data)), f"message {number} came through changed")
            numbers.append(number)
    return numbers, event


def none_lost(sends: Sends, received: list[int]) -> None:
    """Check SEND-6: what the peer got before the close frame is exactly what a send returned True for."""
    lost, denied = sorted(set(sends.taken) - set(received)), sorted(set(received) - set(sends.taken))
    true(not lost, f"a send returned True for {len(lost)} messages that the peer never got, the first is {lost[:1]}")
    true(not denied, f"no send returned True for {len(denied)} messages that the peer got, the first is {denied[:1]}")
    equal(len(received), len(set(received)), "messages that came, against different ones")


def failing(
    bench: Bench,
    error: Callable[[], Exception],
    *,
    late: bool = False,
    names: Iterable[str] = ("_send_text", "_send_binary"),
    options: WebSocketOptions[Any] | None = None,
) -> Application:
    """Return an application whose channels raise ``error()`` where they would have their server write.

    The channel is of the connector's own class but for the methods that are called ``names``, so that nothing else
    changes; it stands for a failure inside a server, which cannot be caused in a way that fits every server.

    Args:
        bench: Whose recorder's options are served.
        error: Makes what is raised.
        late: Raise it not from the call but when its result is awaited.
        names: The methods to replace.
        options: Others than the recorder's.
    """

    def fails(channel: BaseChannel, *arguments: Any) -> Awaitable[object]:
        if not late:
            raise error()
        return _fails(error())

    def spoil(context: Context) -> None:
        channel: Any = context["websocket_channel"]
        true(isinstance(channel, BaseChannel), f"the channel is no BaseChannel but {channel!r}")
        kind = channel.__class__
        channel.__class__ = type(f"Failing{kind.__name__}", (kind,), {"__slots__": (), **dict.fromkeys(names, fails)})

    served = bench.options() if options is None else options
    chain = (Interceptor(name="spoil", leave=spoil), websocket_interceptor("failing", served))
    return Application([("/", chain)])


async def _fails(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error
