"""How a connector is broken on purpose, in one place, so that the suite can be seen to catch it.

Three ways, none of which knows the connector that it breaks:

- `BrokenChannel`: methods put over those of the connector's channel;
- `BrokenConnector`: methods put over those of the connector;
- `Tamper`: frames and heads changed on their way, by a proxy between the peer and the connector.

`breaks` names the rule that is violated. Which checks catch it stands in ``caught.json``, which `refresh` renews.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from wsbridge.conformance.client import Frame, Opcode, build_frame
from wsbridge.connector import BaseConnector
from wsbridge.protocols import Address

__all__ = ["BROKEN", "Breakage", "BrokenChannel", "BrokenConnector", "Tamper", "breaks"]

T = TypeVar("T", bound=type[Any])


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way to break a connector.

    Attributes:
        name: The name of its class.
        rule: The rule that it violates.
        mixin: The class that is put over the connector, its channel or its connections.
        base: The connector that is broken.
    """

    name: str
    rule: str
    mixin: type[Any]
    base: str

    def applied_to(self, connector: type[Any]) -> type[Any]:
        """Return ``connector`` with this breakage."""
        if issubclass(self.mixin, BrokenChannel):
            return _with_channels(connector, self.mixin)
        if issubclass(self.mixin, Tamper):
            return type(self.name, (_TamperingConnector, connector), {"tamper": self.mixin})
        return type(self.name, (self.mixin, connector), {})


BROKEN: list[Breakage] = []


def breaks(rule: str, *, base: str = "websockets") -> Callable[[T], T]:
    """Register a class that violates ``rule``; ``base`` is a connector that does not deviate where it matters."""

    def register(mixin: T) -> T:
        BROKEN.append(Breakage(mixin.__name__, rule, mixin, base))
        return mixin

    return register


class BrokenChannel:
    """Its methods are put over those of the connector's channel; subclasses need ``__slots__ = ()``."""

    __slots__ = ()

    overrides_internals = True


class BrokenConnector(BaseConnector if TYPE_CHECKING else object):  # type: ignore[misc]
    """Its methods are put over those of the connector."""

    overrides_internals = True


def _with_channels(connector: type[Any], over: type[Any]) -> type[Any]:
    made: dict[type[Any], type[Any]] = {}

    class Broken(connector):  # type: ignore[misc]
        overrides_internals = True

        def admit(self, channel: Any) -> None:
            kind = type(channel)
            if kind not in made:
                made[kind] = type(over.__name__, (over, kind), {"__slots__": ()})
            channel.__class__ = made[kind]
            super().admit(channel)

    return Broken


class Tamper:
    """Changes what goes over one connection; made anew for each. This one changes nothing."""

    def incoming(self, frame: Frame) -> list[Frame]:
        """Return what reaches the server instead of ``frame``."""
        return [frame]

    def outgoing(self, frame: Frame) -> list[Frame]:
        """Return what reaches the peer instead of ``frame``."""
        return [frame]

    reads_pieces = False
    """Whether `piece` takes the place of `incoming`."""

    def piece(self, data: bytes) -> bytes:
        """Return what reaches the server instead of what one read has brought, whatever frames that holds."""
        return data

    def request(self, head: bytes) -> bytes:
        """Return what reaches the server instead of the head of the request."""
        return head

    def response(self, head: bytes) -> bytes:
        """Return what reaches the peer instead of the head of the response."""
        return head


class _TamperingConnector:
    """Puts a proxy in front of the connector."""

    overrides_internals = True
    tamper: type[Tamper] = Tamper
    _proxies: list[asyncio.Server]
    _pumps: set[asyncio.Task[None]]
    _front: tuple[Address, ...] = ()

    async def start(self) -> None:
        await super().start()  # type: ignore[misc]
        self._proxies, self._pumps, front = [], set(), []
        for address in super().addresses:  # type: ignore[misc]
            if isinstance(address, str):
                front.append(address)
                continue
            proxy = await asyncio.start_server(partial(self._proxied, address), address[0], 0)
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

    async def _proxied(self, to: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        tamper = self.tamper()
        inner: asyncio.StreamWriter | None = None
        try:
            back, inner = await asyncio.open_connection(*to[:2])
            inner.write(tamper.request(await reader.readuntil(b"\r\n\r\n")))
            head = await back.readuntil(b"\r\n\r\n")
            writer.write(tamper.response(head))
            upgraded = b" 101 " in head.split(b"\r\n", 1)[0]
            async with asyncio.TaskGroup() as group:
                if upgraded and tamper.reads_pieces:
                    group.create_task(_pump_pieces(reader, inner, tamper.piece))
                else:
                    group.create_task(_pump(reader, inner, tamper.incoming if upgraded else None))
                group.create_task(_pump(back, writer, tamper.outgoing if upgraded else None))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._pumps.discard(task)
            for end in (writer, inner):
                if end is not None:
                    end.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[Frame], list[Frame]] | None
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
                    build_frame(out.opcode, out.payload, fin=out.fin, rsv=out.rsv, mask=out.masked)
                    for out in change(frame)
                )
            writer.write(data)
            await writer.drain()
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


async def _pump_pieces(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
) -> None:
    """Copy from one side to the other until its end, changing what each read brings."""
    try:
        while data := await reader.read(65536):
            writer.write(change(data))
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
            # the first bit of a 64-bit length is dropped, which a server must not do
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8)) & (1 << 63) - 1
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
