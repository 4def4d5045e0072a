"""The suite's client for a connector that has no wire: `MemoryPeer` does by calls what `Peer` does by frames.

A check sends the same frames; those that are whole and legal become the calls of a `Connection`, and all that only
bytes can be, a fragment, a wrong bit, half a request, raises `NoWire`: such a check is one of bytes, and says so by
``wire=True``. Nothing else is done for the connector: what it must do itself, such as a pong, comes from it or not at
all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from http.client import responses
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from wsbridge.close import is_valid_close_code
from wsbridge.conformance.client import wire
from wsbridge.conformance.client.wire import (
    Binary,
    Closed,
    Door,
    Eof,
    Event,
    Frame,
    HttpResponse,
    Opcode,
    Peer,
    Text,
    WireError,
    WireLog,
    WireTimeout,
)
from wsbridge.connectors import memory

if TYPE_CHECKING:
    pass

__all__ = ["MemoryDoor", "MemoryPeer", "NoWire"]

_LONG = 3600.0  # seconds: more than any check waits
_PORTS = count(50000)
_OUR_VERSIONS = ("HTTP/1.0", "HTTP/1.1")


class NoWire(WireError):
    """A check wants what only bytes on a wire can be."""


class MemoryDoor(Door):
    """Where a connector without a wire is reached."""

    connector: memory.Connector

    @classmethod
    def of(cls, connector: object) -> MemoryDoor:
        """Return the door of a connector."""
        if not isinstance(connector, memory.Connector):
            raise TypeError(f"a connector without a wire must be a {memory.Connector!r}, not {type(connector)!r}")
        door = cls("localhost")
        door.connector = connector
        return door

    async def open(self, *, timeout: float, timeout_scale: float, log: WireLog, **options: Any) -> Peer:
        """See `Door.open`."""
        if given := sorted(name for name, value in options.items() if value is not None):
            raise NoWire(f"{given[0]} is an option of sockets")
        return MemoryPeer(self.connector, timeout, timeout_scale, log)


class MemoryPeer(Peer):
    """A `Peer` without a socket. It reads, and answers, only inside a receiving method, as that does."""

    def __init__(self, connector: memory.Connector, timeout: float, timeout_scale: float, log: WireLog) -> None:
        super().__init__(cast(Any, None), log)
        self.timeout, self.timeout_scale = timeout, timeout_scale
        self.local_address = ("127.0.0.1", next(_PORTS))
        self._connector = connector
        self._connection: memory.Connection | None = None

    # ---- the handshake ----------------------------------------------------------------------------------------------

    async def request(self, raw: bytes) -> None:
        self.log.add("sent", len(raw), repr(raw[:300]))
        await self._send(raw)

    async def _send(self, data: bytes) -> None:
        self._check_open()
        if self._connection is not None:
            await self._send_frames(data)
            return
        head, end, tail = data.partition(b"\r\n\r\n")
        if not end:
            raise NoWire("part of a request")
        line, *lines = head.decode("latin-1").split("\r\n")
        parts, pairs = line.split(" "), [one.partition(": ") for one in lines]
        if len(parts) != 3 or parts[2] not in _OUR_VERSIONS or not all(separator for _, separator, _ in pairs):
            raise NoWire(f"a request that is none: {line[:100]!r}")
        method, target, version = parts
        local = cast("tuple[str, int]", self.local_address)
        headers = tuple((name, value) for name, _, value in pairs)
        asked = memory.ClientRequest(method, target, headers, "ws", version.removeprefix("HTTP/"), local)
        try:
            self._connection = self._connector.open(asked, auto_pong=False, auto_close=False)
        except ConnectionRefusedError as error:
            self._eof = self._reset = True
            raise Closed("to make a request", Eof(reset=True)) from error
        if tail:
            await self._send_frames(tail)

    async def read_response(self, timeout: float | None = None, *, head: bool = False) -> HttpResponse:
        if self._eof:
            raise Closed("an HTTP response", Eof(self._reset))
        connection = self._opened()
        async with self._within(timeout, "an HTTP response"), self._reading:
            try:
                await connection.wait_answered()
            except ConnectionResetError as error:
                raise Closed("an HTTP response", Eof(reset=True)) from error
        answer = connection.answer
        assert answer is not None
        headers = tuple((name, value) for name, value in answer.headers)
        phrase = responses.get(answer.status, "")
        self.response = HttpResponse(answer.status, phrase, "HTTP/1.1", headers, answer.body)
        self.log.add("received", len(answer.body), f"{answer.status} {headers}")
        return self.response

    def _opened(self) -> memory.Connection:
        if self._connection is None:
            raise NoWire("nothing was asked, and there is no connection to read from")
        return self._connection

    # ---- sending ----------------------------------------------------------------------------------------------------

    async def _send_frames(self, data: bytes) -> None:
        async with self._within(None, f"the server to take {len(data)} bytes"), self._writing:
            frames = _frames(data)
            if self._opened().is_over:
                raise Closed(f"to send {frames[0]}", Eof(reset=True))
            for frame in frames:  # what is behind an end that they make is dropped
                await self._send_one(frame)

    async def _send_one(self, frame: Frame) -> None:
        connection = self._opened()
        payload = frame.payload
        if frame.opcode == Opcode.TEXT:
            connection.send(payload.decode())
        elif frame.opcode == Opcode.BINARY:
            connection.send(payload)
        elif frame.opcode == Opcode.PING:
            connection.ping(payload)
        elif frame.opcode == Opcode.PONG:
            connection.pong(payload)
        else:
            connection.close(int.from_bytes(payload[:2]) if payload else None, payload[2:].decode())
        await connection.drain()

    async def send_in_parts(self, opcode: int, parts: Sequence[bytes]) -> None:
        await self.send_frame(opcode, b"".join(parts))

    async def flood(self, data: bytes, total_bytes: int, *, timeout: float | None = None) -> int:
        frames = _frames(data)
        goal = -(-total_bytes // len(data))
        sent = 0
        async with self._writing:
            with contextlib.suppress(WireTimeout, Closed):
                while sent < goal and not self._opened().is_over:
                    async with self._within(timeout, "the server to take more"):
                        for frame in frames:
                            await self._send_one(frame)
                        sent += 1
                        if sent % 64 == 0:
                            await asyncio.sleep(0)
        self.log.add("sent", sent * len(data), f"flood of {frames[0]}")
        return sent * len(data)

    # ---- receiving --------------------------------------------------------------------------------------------------

    async def receive_frame(self, timeout: float | None = None) -> Frame:
        raise NoWire("a frame as it was on the wire")

    async def _fill(self) -> bool:
        raise NoWire("bytes as they come")

    async def _next_frame(self, *, keep: bool = True) -> tuple[Frame, Event | None] | None:
        connection = self._opened()
        if self._eof:
            return None
        while not connection.inbox:
            self._check_open()
            await connection.wait(_LONG)
        arrival = connection.take()
        if isinstance(arrival, memory.End):
            self._eof, self._reset = True, arrival.is_cut
            return None
        event, frame = _as_event(arrival)
        if keep or not isinstance(event, Text | Binary):
            self.log.add("received", len(frame.payload), str(frame))
        if keep:
            self.received.append(event)
        return frame, event

    @property
    def is_connected(self) -> bool:
        """Whether the connection is still there, for either end."""
        return self._connection is not None and not self._connection.is_over

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def half_close(self) -> None:
        self.log.add("note", 0, "half-closed")
        self._opened().half_close()

    def drop(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.log.add("note", 0, "closed here")
            if self._connection is not None:
                self._connection.drop()


def _frames(data: bytes) -> Sequence[Frame]:
    """Return the frames that ``data`` consists of.

    Raises:
        NoWire: One is not whole, or not what a good client sends as one message or control frame.
    """
    frames: list[Frame] = []
    position = 0
    while position < len(data):
        head = wire.parse_head(data, position)
        if head is None or len(data) < position + head.size + head.length:
            raise NoWire("part of a frame")
        start = position + head.size
        payload = data[start : start + head.length]
        if head.masked:
            payload = wire.masked(payload, data[start - 4 : start])
        frame = Frame(head.opcode, payload, head.fin, head.rsv, head.masked)
        if not _is_whole_and_legal(frame):
            raise NoWire(f"a frame that is more than a message: {frame}")
        frames.append(frame)
        position = start + head.length
    return frames


def _is_whole_and_legal(frame: Frame) -> bool:
    if not frame.fin or frame.rsv or not frame.masked or not isinstance(frame.opcode, Opcode):
        return False
    if frame.opcode is Opcode.CONTINUATION or (frame.opcode >= Opcode.CLOSE and len(frame.payload) > 125):
        return False
    text = frame.payload if frame.opcode is Opcode.TEXT else b""
    if frame.opcode is Opcode.CLOSE and frame.payload:
        if len(frame.payload) == 1 or not is_valid_close_code(int.from_bytes(frame.payload[:2])):
            return False
        text = frame.payload[2:]
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_event(arrival: memory.Arrival) -> tuple[Event, Frame]:
    if isinstance(arrival, str):
        return Text(arrival), Frame(Opcode.TEXT, arrival.encode())
    if isinstance(arrival, bytes):
        return Binary(arrival), Frame(Opcode.BINARY, arrival)
    if isinstance(arrival, memory.Ping):
        return wire.Ping(arrival.payload), Frame(Opcode.PING, arrival.payload)
    if isinstance(arrival, memory.Pong):
        return wire.Pong(arrival.payload), Frame(Opcode.PONG, arrival.payload)
    assert isinstance(arrival, memory.Close)
    payload = b"" if arrival.code is None else wire.close_payload(arrival.code, arrival.text)
    return wire.Close(1005 if arrival.code is None else arrival.code, arrival.text), Frame(Opcode.CLOSE, payload)
