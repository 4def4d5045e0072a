"""The suite's client for a connector that has no wire: `MemoryLink` does by calls what a socket does by bytes.

A check sends the same frames; those that are whole and legal become the calls of a `memory.Connection`, and all that
only bytes can be, a fragment, a wrong bit, half a request, raises `NoWire`: such a check is one of bytes, and says so
by ``wire=True``. Nothing else is done for the connector: what it must do itself, such as a pong, comes from it or not
at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from http.client import responses
from itertools import count
from typing import ClassVar

from wsproto.extensions import PerMessageDeflate

from wsbridge.close import is_valid_close_code
from wsbridge.conformance.client import (
    Address,
    Binary,
    Close,
    Closed,
    Door,
    Eof,
    Event,
    Frame,
    HttpResponse,
    NoWire,
    Opcode,
    PeerLink,
    Ping,
    Pong,
    Text,
    TimeLimits,
    WireError,
    WireTimeout,
    close_payload,
    masked,
    parse_head,
)
from wsbridge.connectors import memory

__all__ = ["MemoryDoor", "MemoryLink"]

_LONG = 3600.0  # seconds: more than any check waits
_PORTS = count(50000)
_OUR_VERSIONS = ("HTTP/1.0", "HTTP/1.1")


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

    async def open(self, limits: TimeLimits, **options: object) -> MemoryLink:
        if given := sorted(name for name, value in options.items() if value is not None):
            raise NoWire(f"{given[0]} is an option of sockets")
        return MemoryLink(self.connector, limits)


class MemoryLink(PeerLink):
    """The calls of one connection to a `memory.Connector`.

    Attributes:
        connection: What is called, None before a request.
    """

    has_bytes: ClassVar[bool] = False

    def __init__(self, connector: memory.Connector, limits: TimeLimits) -> None:
        super().__init__(limits)
        self.connection: memory.Connection | None = None
        self._log = limits.log
        self._local_address = ("127.0.0.1", next(_PORTS))
        self._connector = connector
        self._input = bytearray()
        self._eof = self._reset = self._closed = False
        self._writing = asyncio.Lock()

    @property
    def local_address(self) -> Address:
        return self._local_address

    @property
    def input(self) -> bytearray:
        return self._input

    @property
    def is_connected(self) -> bool:
        """Whether the connection is still there, for either end."""
        return self.connection is not None and not self.connection.is_over

    def _opened(self) -> memory.Connection:
        if self.connection is None:
            raise NoWire("nothing was asked, and there is no connection to read from")
        return self.connection

    def _check_open(self) -> None:
        if self._closed:
            raise WireError("this peer has closed its connection")

    # ---- the handshake ----------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        self._check_open()
        if self.connection is not None:
            await self._send_frames(data)
            return
        head, end, tail = data.partition(b"\r\n\r\n")
        if not end:
            raise NoWire("part of a request")
        line, *lines = head.decode("latin-1").split("\r\n")
        parts, pairs = line.split(" "), [one.partition(": ") for one in lines]
        if len(parts) != 3 or parts[2] not in _OUR_VERSIONS or not all(separator for _, separator, _ in pairs):
            raise NoWire(f"a request that is not one: {line[:100]!r}")
        method, target, version = parts
        headers = tuple((name, value) for name, _, value in pairs)
        http_version = version.removeprefix("HTTP/")
        asked = memory.ClientRequest(method, target, headers, "ws", http_version, self._local_address)
        try:
            self.connection = self._connector.open(asked, auto_pong=False, auto_close=False)
        except ConnectionRefusedError as error:
            self._eof = self._reset = True
            raise Closed("to make a request", Eof(reset=True)) from error
        if tail:
            await self._send_frames(tail)

    async def read_response(self, *, head: bool) -> HttpResponse:
        if self._eof:
            raise Closed("an HTTP response", Eof(self._reset))
        connection = self._opened()
        try:
            await connection.wait_answered()
        except ConnectionResetError as error:
            raise Closed("an HTTP response", Eof(reset=True)) from error
        answer = connection.answer
        assert answer is not None
        headers = tuple((name, value) for name, value in answer.headers)
        self._log.add("received", len(answer.body), f"{answer.status} {headers}")
        return HttpResponse(answer.status, responses.get(answer.status, ""), "HTTP/1.1", headers, answer.body)

    def start_frames(self, deflate: PerMessageDeflate | None) -> None:
        pass  # what comes are messages, which nothing has deflated

    # ---- sending ----------------------------------------------------------------------------------------------------

    async def _send_frames(self, data: bytes) -> None:
        async with self.limits.within(None, f"the server to take {len(data)} bytes"), self._writing:
            frames = _frames(data)
            if self._opened().is_over:
                raise Closed(f"to send {frames[0]}", Eof(reset=True))
            for frame in frames:  # what comes after an end that they make is dropped
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

    async def flood(self, data: bytes, total_bytes: int, timeout: float | None) -> int:
        frames = _frames(data)
        goal = -(-total_bytes // len(data))
        sent = 0
        async with self._writing:
            with contextlib.suppress(WireTimeout, Closed):
                while sent < goal and not self._opened().is_over:
                    async with self.limits.within(timeout, "the server to take more"):
                        for frame in frames:
                            await self._send_one(frame)
                        sent += 1
                        if sent % 64 == 0:
                            await asyncio.sleep(0)
        self._log.add("sent", sent * len(data), f"flood of {frames[0]}")
        return sent * len(data)

    # ---- receiving --------------------------------------------------------------------------------------------------

    async def fill(self) -> bool:
        raise NoWire("bytes as they come")

    def end(self) -> Eof:
        return Eof(self._reset)

    async def next_frame(self, *, keep: bool) -> tuple[Frame, Event | None] | None:
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
            self._log.add("received", len(frame.payload), str(frame))
        return frame, event

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def half_close(self) -> None:
        self._log.add("note", 0, "ended here, one way")
        self._opened().half_close()

    def drop(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._log.add("note", 0, "closed here")
            if self.connection is not None:
                self.connection.drop()


def _frames(data: bytes) -> Sequence[Frame]:
    """Return the frames that ``data`` consists of.

    Raises:
        NoWire: One is not whole, or not what a good client sends as one message or control frame.
    """
    frames: list[Frame] = []
    position = 0
    while position < len(data):
        head = parse_head(data, position)
        if head is None or len(data) < position + head.size + head.length:
            raise NoWire("part of a frame")
        start = position + head.size
        payload = data[start : start + head.length]
        if head.masked:
            payload = masked(payload, data[start - 4 : start])
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
        return Ping(arrival.payload), Frame(Opcode.PING, arrival.payload)
    if isinstance(arrival, memory.Pong):
        return Pong(arrival.payload), Frame(Opcode.PONG, arrival.payload)
    assert isinstance(arrival, memory.Close)
    payload = b"" if arrival.code is None else close_payload(arrival.code, arrival.text)
    return Close(1005 if arrival.code is None else arrival.code, arrival.text), Frame(Opcode.CLOSE, payload)
