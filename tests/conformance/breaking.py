"""How a connector is broken on purpose, in one place, so that the suite can be seen to catch it.

Three ways, none of which knows the connector that it breaks:

- `BrokenChannel`: methods put over those of the connector's channel;
- `BrokenConnector`: methods put over those of the connector;
- `BrokenWire`: frames changed on their way, by a proxy between the peer and the connector.

`breaks` names the rule that is violated and the checks that must fail for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from wsbridge.conformance.wire import Frame, Opcode, build_frame
from wsbridge.protocols import Address

__all__ = ["BROKEN", "Breakage", "BrokenChannel", "BrokenConnector", "BrokenWire", "breaks"]


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way to break a connector.

    Attributes:
        name: The name of its class.
        rule: The rule that it violates.
        checks: The ids of the checks that must fail.
        mixin: The class that is put over the connector or its channel.
    """

    name: str
    rule: str
    checks: tuple[str, ...]
    mixin: type[Any]

    def applied_to(self, connector: type[Any]) -> type[Any]:
        """Return ``connector`` with this breakage."""
        if issubclass(self.mixin, BrokenChannel):
            over = self.mixin
            made: dict[type[Any], type[Any]] = {}

            class Broken(connector):  # type: ignore[misc]
                def admit(self, channel: Any) -> None:
                    kind = type(channel)
                    if kind not in made:
                        made[kind] = type(over.__name__, (over, kind), {"__slots__": ()})
                    channel.__class__ = made[kind]
                    super().admit(channel)

            return Broken
        return type(self.mixin.__name__, (self.mixin, connector), {})


BROKEN: list[Breakage] = []


def breaks(rule: str, *scenarios: str) -> Callable[[type[Any]], type[Any]]:
    """Register a class that violates ``rule``, for which the checks ``RULE/scenario`` must fail.

    A scenario of another rule is given as ``OTHER-1/scenario``.
    """

    def register(mixin: type[Any]) -> type[Any]:
        checks = tuple(scenario if "/" in scenario else f"{rule}/{scenario}" for scenario in scenarios)
        BROKEN.append(Breakage(mixin.__name__, rule, checks, mixin))
        return mixin

    return register


class BrokenChannel:
    """Its methods are put over those of the connector's channel; subclasses need ``__slots__ = ()``."""

    __slots__ = ()


class BrokenConnector:
    """Its methods are put over those of the connector."""


class BrokenWire:
    """Changes what goes over the wire, by a proxy in front of the connector."""

    _proxies: list[asyncio.Server]
    _pumps: set[asyncio.Task[None]]
    _front: tuple[Address, ...] = ()

    masks: ClassVar[bool] = True

    def incoming(self, frame: Frame) -> list[Frame]:
        """Return what reaches the server instead of ``frame``."""
        return [frame]

    def outgoing(self, frame: Frame) -> list[Frame]:
        """Return what reaches the peer instead of ``frame``."""
        return [frame]

    def request(self, head: bytes) -> bytes:
        """Return what reaches the server instead of the head of the request."""
        return head

    def response(self, head: bytes) -> bytes:
        """Return what reaches the peer instead of the head of the response."""
        return head

    async def start(self) -> None:
        await super().start()  # type: ignore[misc]
        self._proxies, self._pumps, front = [], set(), []
        for address in super().addresses:  # type: ignore[misc]
            proxy = await asyncio.start_server(lambda r, w, to=address: self._proxied(r, w, to), address[0], 0)
            self._proxies.append(proxy)
            front.append(proxy.sockets[0].getsockname()[:2])
        self._front = tuple(front)

    async def stop(self) -> None:
        await super().stop()  # type: ignore[misc]
        for proxy in getattr(self, "_proxies", []):
            proxy.close()
        for pump in list(getattr(self, "_pumps", ())):
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await pump
        self._front = ()

    @property
    def addresses(self) -> tuple[Address, ...]:
        return self._front

    async def _proxied(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        inner: asyncio.StreamWriter | None = None
        try:
            back, inner = await asyncio.open_connection(*to[:2])
            inner.write(self.request(await reader.readuntil(b"\r\n\r\n")))
            head = await back.readuntil(b"\r\n\r\n")
            writer.write(self.response(head))
            upgraded = b" 101 " in head.split(b"\r\n", 1)[0]
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, inner, self.incoming if upgraded else None, mask=True))
                group.create_task(_pump(back, writer, self.outgoing if upgraded else None, mask=False))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._pumps.discard(task)
            for end in (writer, inner):
                if end is not None:
                    end.close()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    change: Callable[[Frame], list[Frame]] | None,
    *,
    mask: bool,
) -> None:
    """Copy from one side to the other until its end, changing frames on the way."""
    try:
        while True:
            if change is None:
                data = await reader.read(65536)
                if not data:
                    break
            else:
                frame = await _read_frame(reader)
                if frame is None:
                    break
                data = b"".join(
                    build_frame(out.opcode, out.payload, fin=out.fin, rsv=out.rsv, mask=mask and frame.masked)
                    for out in change(frame)
                )
            writer.write(data)
            await writer.drain()
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


async def _read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """Read one frame as it stands, legal or not; None at the end of the stream."""
    try:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        key = await reader.readexactly(4) if second & 0x80 else b""
        payload = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    if key:
        size = len(payload)
        repeated = (key * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
    opcode = first & 0x0F
    known = Opcode(opcode) if opcode in {int(member) for member in Opcode} else opcode
    return Frame(known, payload, bool(first & 0x80), first >> 4 & 0x07, bool(second & 0x80))
