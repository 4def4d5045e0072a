"""The suite's own WebSocket client: it sends any bytes, judges what comes back, and reads only when told to.

It shares no code with the servers or the core. wsproto decides whether a frame of the server is legal; the
frame itself is at hand too (`Frame`). The socket is read only inside a receiving method, so a *clogged peer*
is one that calls none, and a receive that times out loses nothing: the next one goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from ssl import MemoryBIO, SSLContext, SSLError, SSLWantReadError
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias, cast

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, ParseFailed, RsvBits
from wsproto.frame_protocol import Opcode as Opcode  # part of this module's API

from wsbridge.conformance.harness.lateness import timeout as timeout_without_stalls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
    from ssl import SSLObject
    from types import TracebackType

Address: TypeAlias = tuple[str, int] | str
Chars: TypeAlias = str | bytes
Direction: TypeAlias = Literal["sent", "received", "note"]

DEFAULT_TIMEOUT = 5.0
_READ_SIZE = 256 * 1024
_FLOOD_BLOCK = 64 * 1024
_MAX_HEAD = 64 * 1024
_MAX_FRAME = 1 << 30
_SHOWN = 48
_APART = 0.001  # seconds between pieces that shall be read one by one
_OPCODES = {int(opcode): opcode for opcode in Opcode}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was on the wire.

    `opcode` is an `Opcode` unless reserved; `payload` is unmasked, not inflated; `rsv` is 0 to 7 (RSV1: 4).
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    def __str__(self) -> str:
        """Describe the frame in one short line."""
        return _describe(_Head(self.fin, self.rsv, self.opcode, self.masked, len(self.payload), 0), self.payload)


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message."""

    data: str


@dataclass(frozen=True, slots=True)
class Binary:
    """A whole binary message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    """The server's close frame; an empty one has code 1005."""

    code: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Eof:
    """The end of the stream, by an error if `reset`, behind `partial` bytes of an unfinished frame."""

    reset: bool = False
    partial: int = 0


Message: TypeAlias = Text | Binary
Event: TypeAlias = Text | Binary | Ping | Pong | Close | Eof


@dataclass(frozen=True, slots=True)
class Drained:
    """What `Peer.drain` counted; `end` is why it stopped early, None if silence or a count stopped it."""

    messages: int
    payload_bytes: int
    end: Close | Eof | None


class Door(str):
    """An address that is no socket's: where a connector without a wire is reached, as in `MemoryDoor`."""

    async def open(self, *, timeout: float, timeout_scale: float, log: WireLog, **options: object) -> Peer:
        """Do what `Peer.open` does."""
        raise NotImplementedError


class WireError(Exception):
    """Base of all errors of this client."""


class WireViolation(WireError):
    """The server broke RFC 6455 or HTTP; `frame` is the frame that did, if one did."""

    def __init__(self, message: str, frame: Frame | None = None) -> None:
        super().__init__(message if frame is None else f"{message}: {frame}")
        self.frame = frame


class WireTimeout(WireError, TimeoutError):
    """What was expected did not come in time."""


class Unexpected(WireError):
    """Something legal came, but not what was expected."""

    def __init__(self, expected: str, got: object) -> None:
        super().__init__(f"expected {expected}, but got {_shortened(str(got))}")


class Closed(WireError):
    """The server ended the connection where something else was expected; `end` is how."""

    def __init__(self, expected: str, end: Close | Eof) -> None:
        super().__init__(f"expected {expected}, but the connection has ended: {end}")
        self.end = end


class HandshakeRefused(WireError):
    """The server answered the handshake with another status than 101."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(f"expected 101, but got {response.status} {response.reason}: {response.body[:200]!r}")
        self.response = response


class _Head(NamedTuple):
    fin: bool
    rsv: int
    opcode: int
    masked: bool
    length: int
    size: int


def parse_head(data: bytes | bytearray, start: int = 0) -> _Head | None:
    """Read a frame header leniently (section 5.2); None if it is not all there."""
    if len(data) < start + 2:
        return None
    first, second = data[start], data[start + 1]
    extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
    masked = bool(second & 0x80)
    size = 2 + extended + 4 * masked
    if len(data) < start + size:
        return None
    length = int.from_bytes(data[start + 2 : start + 2 + extended]) if extended else second & 0x7F
    return _Head(bool(first & 0x80), first >> 4 & 7, _OPCODES.get(first & 0x0F, first & 0x0F), masked, length, size)


def _heads(data: bytes) -> Iterator[tuple[_Head, bytes]]:
    """Yield the header and the start of the unmasked payload of each frame that begins in `data`."""
    position = 0
    while (head := parse_head(data, position)) is not None:
        start = position + head.size
        shown = data[start : start + min(head.length, _SHOWN + 1)]
        yield head, masked(shown, data[start - 4 : start]) if head.masked else shown
        position = start + head.length


def masked(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (section 5.3), by one XOR of two long integers, which is fast for any size."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


def _shortened(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _describe(head: _Head, payload: bytes) -> str:
    """Describe a frame by its header and the start of its payload."""
    shown = payload[:_SHOWN]
    if head.opcode == Opcode.CLOSE and len(shown) >= 2:
        content = f"{int.from_bytes(shown[:2])} {shown[2:]!r}"
    else:
        content = repr(shown) if shown else ""
    name = _OPCODES[head.opcode].name if head.opcode in _OPCODES else f"opcode {head.opcode}"
    flags = f"{'' if head.fin else ' unfinished'}{f' rsv={head.rsv}' if head.rsv else ''}"
    more = "..." if head.length > _SHOWN else ""
    return f"{name}{flags}{' masked' if head.masked else ''} length={head.length} {content}{more}".rstrip()


def build_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool | bytes = True,
    length: int | None = None,
    length_bits: Literal[7, 16, 64] | None = None,
) -> bytes:
    """Return one frame, legal or not.

    Args:
        opcode: 0 to 15.
        payload: What follows the header, whatever `length` says.
        fin: Whether the message ends here.
        rsv: The reserved bits, 0 to 7; RSV1 is 4.
        mask: True for a random key, False for none, or the four bytes of the key.
        length: The length to declare, if not the true one.
        length_bits: The encoding of the length, if not the shortest.
    """
    declared = len(payload) if length is None else length
    if length_bits is None:
        length_bits = 7 if declared < 126 else 16 if declared < 1 << 16 else 64
    key = os.urandom(4) if mask is True else mask or b""
    short = {7: declared, 16: 126, 64: 127}[length_bits]
    head = bytes((fin << 7 | rsv << 4 | opcode, (0x80 if key else 0) | short))
    extended = declared.to_bytes({7: 0, 16: 2, 64: 8}[length_bits]) if length_bits != 7 else b""
    return b"".join((head, extended, key, masked(payload, key) if key else payload))


def close_payload(code: int, text: str = "") -> bytes:
    """Return the payload of a close frame (section 5.5.1), legal or not."""
    return struct.pack("!H", code) + text.encode()


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a `WireLog`: seconds since its start, direction, bytes on the wire, and what they were."""

    at: float
    direction: Direction
    size: int
    text: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.at:9.4f} {self.direction:<8} {self.size:>8} B  {self.text}"


class WireLog:
    """What went over the wire, in bounded memory: texts are shortened, and of the entries `limit` are kept.

    Times count from when the log was made, which `Peer.open` does unless it is given one.
    """

    def __init__(self, *, limit: int = 1000) -> None:
        """Start the clock."""
        self.entries: deque[LogEntry] = deque(maxlen=limit)
        self.total = 0
        self._origin = time.perf_counter()

    def add(self, direction: Direction, size: int, text: str) -> None:
        """Add an entry, shortened."""
        self.total += 1
        self.entries.append(LogEntry(time.perf_counter() - self._origin, direction, size, _shortened(text)))

    def lines(self) -> list[str]:
        """Return the log for people, one line an entry."""
        gone = self.total - len(self.entries)
        lines = [f"({gone} earlier entries are gone)"] if gone else []
        return lines + [str(entry) for entry in self.entries]

    def to_json(self) -> list[dict[str, float | int | str]]:
        """Return the log for `json.dumps`, one object an entry."""
        return [{"at": round(e.at, 6), "direction": e.direction, "size": e.size, "text": e.text} for e in self.entries]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response; header names are as sent, values latin-1, a chunked body is joined."""

    status: int
    reason: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first value of a header, None without it."""
        return next(iter(self.headers_all(name)), None)

    def headers_all(self, name: str) -> list[str]:
        """Return every value of a header, in the order sent."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


def _split(values: Iterable[str], separator: str = ",") -> list[str]:
    return [part.strip() for value in values for part in value.split(separator) if part.strip()]


def _encoded(value: Chars) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """A handshake request, legal or not; `encode` gives its bytes, `check` judges the answer."""

    method: Chars
    target: Chars
    version: Chars
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def build(
        cls,
        address: Address,
        *,
        target: Chars = "/echo",
        method: Chars = "GET",
        version: Chars = "HTTP/1.1",
        headers: Sequence[tuple[Chars, Chars]] = (),
        replace: Mapping[str, Chars | Sequence[Chars] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: bool | str = False,
    ) -> Self:
        """Return a request that is legal but for what the arguments change.

        Args:
            address: Where it goes, for the `Host` header.
            target: The request target.
            method: The method.
            version: The HTTP version.
            headers: More headers, in order, behind the usual ones.
            replace: Usual headers by name: another value, several for as many lines, or None for none.
            subprotocols: What to offer, in one line.
            deflate: True to offer permessage-deflate, or the whole value of `Sec-WebSocket-Extensions`.

        Raises:
            ValueError: If `replace` names a header that would not be sent.
        """
        if isinstance(address, str):
            host = "localhost"
        else:
            host = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        usual: dict[str, Chars | Sequence[Chars] | None] = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)),
            "Sec-WebSocket-Version": "13",
        }
        if subprotocols:
            usual["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        if deflate:
            offer = "permessage-deflate; client_max_window_bits"
            usual["Sec-WebSocket-Extensions"] = offer if deflate is True else deflate
        names = {name.lower(): name for name in usual}
        for name, value in (replace or {}).items():
            if name.lower() not in names:
                raise ValueError(f"replace names {name!r}, but the usual headers are {', '.join(usual)}")
            usual[names[name.lower()]] = value
        lines: list[tuple[bytes, bytes]] = []
        for name, value in usual.items():
            values = [value] if isinstance(value, str | bytes) else value or []
            lines.extend((name.encode(), _encoded(one)) for one in values)
        lines.extend((_encoded(name), _encoded(value)) for name, value in headers)
        return cls(method, target, version, tuple(lines))

    def encode(self) -> bytes:
        """Return the bytes to send."""
        lines = [b" ".join((_encoded(self.method), _encoded(self.target), _encoded(self.version)))]
        lines.extend(b": ".join(pair) for pair in self.headers)
        return b"\r\n".join((*lines, b"", b""))

    def values(self, name: str) -> list[str]:
        """Return every value of a header, in the order sent."""
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name.lower().encode()]

    def check(self, response: HttpResponse) -> tuple[str | None, PerMessageDeflate | None]:
        """Check that the response is a right 101 to this request (section 4.1), and return what it chose.

        Returns:
            The subprotocol and the extension, each None if there is none.

        Raises:
            HandshakeRefused: If the status is not 101.
            WireViolation: If it is, but the response is wrong.
        """
        if response.status != 101:
            raise HandshakeRefused(response)
        keys = self.values("Sec-WebSocket-Key")
        if len(keys) != 1:
            raise WireViolation(f"101 to a request with {len(keys)} keys")
        digest = hashlib.sha1(f"{keys[0]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode("latin-1")).digest()
        accept = base64.b64encode(digest).decode()
        offered = _split(self.values("Sec-WebSocket-Protocol"))
        headers = response.headers_all
        subprotocols = headers("Sec-WebSocket-Protocol")
        facts: list[tuple[str, object, bool]] = [
            ("HTTP/1.1", response.version, response.version == "HTTP/1.1"),
            ("Upgrade: websocket", v := headers("Upgrade"), [one.lower() for one in v] == ["websocket"]),
            (
                "Connection: Upgrade",
                v := headers("Connection"),
                "upgrade" in _split(one.lower() for one in v),
            ),
            (f"accept key {accept}", v := headers("Sec-WebSocket-Accept"), v == [accept]),
            (
                f"at most one of {offered}",
                subprotocols,
                not subprotocols or subprotocols in [[o] for o in offered],
            ),
        ]
        for expected, got, good in facts:
            if not good:
                raise WireViolation(f"in the 101, expected {expected}, but got {got}")
        return next(iter(subprotocols), None), self._check_extensions(response)

    def _check_extensions(self, response: HttpResponse) -> PerMessageDeflate | None:
        """Check the server's choice against the offer (RFC 7692, section 7.1)."""
        accepted = _split(response.headers_all("Sec-WebSocket-Extensions"))
        if not accepted:
            return None
        offers = [_split([offer], ";") for offer in _split(self.values("Sec-WebSocket-Extensions"))]
        deflates = [offer[1:] for offer in offers if offer[0] == "permessage-deflate"]
        name, *parameters = _split(accepted[:1], ";")
        names = [parameter.partition("=")[0] for parameter in parameters]
        may_bits = any(p.startswith("client_max_window_bits") for offer in deflates for p in offer)
        pattern = r"(client|server)_no_context_takeover|(client|server)_max_window_bits=(8|9|1[0-5])"
        good = (
            (len(accepted), name) == (1, "permessage-deflate")
            and bool(deflates)
            and len(names) == len(set(names))
            and all(re.fullmatch(pattern, parameter) for parameter in parameters)
            and (may_bits or "client_max_window_bits" not in names)
        )
        if not good:
            raise WireViolation(f"in the 101, the extensions {accepted} do not answer the offer {offers}")
        extension = PerMessageDeflate()
        extension.finalize(accepted[0])
        return extension


class Peer:
    """One connection to the server under test; made by `connect` (WebSocket) or `open` (bare TCP or TLS).

    Every `timeout` is in seconds, None for the attribute `timeout`, and multiplied by `timeout_scale`; where
    it passes, `WireTimeout` is raised. A sending method that finds the server gone raises `Closed`.

    Attributes:
        auto_pong: Answer the server's pings, as they are received.
        auto_close: Answer the server's close frame with its code, as it is received.
        received: Every event received so far, in order.
        log: What went over the wire.
        local_address: This end's `(host, port)`, or the path of a Unix socket ("" if unnamed).
        response: The last HTTP response, None before it.
        subprotocol: The negotiated subprotocol.
        close_sent: Whether a close frame was sent.
    """

    def __init__(self, sock: socket.socket, log: WireLog) -> None:
        """Wrap a connected, non-blocking socket; use `open` or `connect`."""
        self.timeout = DEFAULT_TIMEOUT
        self.timeout_scale = 1.0
        self.auto_pong = True
        self.auto_close = True
        self.received: list[Event] = []
        self.log = log
        self.local_address: Address = ""
        self.response: HttpResponse | None = None
        self.subprotocol: str | None = None
        self.close_sent = False
        self._socket = sock
        self._tls: SSLObject | None = None
        self._tls_in = MemoryBIO()
        self._tls_out = MemoryBIO()
        self._input = bytearray()
        self._unsent = memoryview(b"")
        self._eof = self._reset = False
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._deflate: PerMessageDeflate | None = None
        self._judge = FrameProtocol(client=True, extensions=[])
        # Control frames have a judge of their own: with one between the fragments of a deflated message,
        # wsproto 1.3 takes the rest for not deflated.
        self._control_judge = FrameProtocol(client=True, extensions=[])
        self._parts: list[str | bytes] = []
        self._close_received = False

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
        recv_buffer: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        timeout_scale: float = 1.0,
        log: WireLog | None = None,
    ) -> Self:
        """Connect to `(host, port)` or a Unix socket's path, over TLS with `ssl`, and send nothing more.

        Args:
            address: Where to.
            ssl: The context for TLS.
            server_hostname: The name to check, the host of `address` if None.
            recv_buffer: The receive buffer (SO_RCVBUF) in bytes.
            timeout: What `Peer.timeout` is to be; bounds this call too.
            timeout_scale: What `Peer.timeout_scale` is to be.
            log: Where to log, a new log if None.
        """
        if isinstance(address, Door):
            opened = await address.open(
                timeout=timeout,
                timeout_scale=timeout_scale,
                log=WireLog() if log is None else log,
                ssl=ssl,
                server_hostname=server_hostname,
                recv_buffer=recv_buffer,
            )
            return cast("Self", opened)
        unix = isinstance(address, str)
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        peer = cls(sock, WireLog() if log is None else log)
        peer.timeout, peer.timeout_scale = timeout, timeout_scale
        try:
            sock.setblocking(False)
            if recv_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
            if not unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with peer._within(None, f"a connection to {address}"):
                await asyncio.get_running_loop().sock_connect(sock, address)
                name: Address = sock.getsockname()
                peer.local_address = name if isinstance(name, str) else (name[0], name[1])
                peer.log.add("note", 0, f"connected from {peer.local_address} to {address}")
                if ssl is not None:
                    host = "localhost" if isinstance(address, str) else address[0]
                    await peer._start_tls(ssl, server_hostname or host)
        except BaseException:
            peer.close()
            raise
        return peer

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        target: Chars = "/echo",
        method: Chars = "GET",
        version: Chars = "HTTP/1.1",
        headers: Sequence[tuple[Chars, Chars]] = (),
        replace: Mapping[str, Chars | Sequence[Chars] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: bool | str = False,
        tail: bytes = b"",
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
        recv_buffer: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        timeout_scale: float = 1.0,
        log: WireLog | None = None,
    ) -> Self:
        """Open a WebSocket: `open`, then `upgrade` with `HandshakeRequest.build`, whose arguments these are.

        Raises:
            HandshakeRefused: If the answer is not 101; the connection is closed.
            WireViolation: If the answer is a wrong 101 or no HTTP.
            Closed: If the server closed without an answer.
        """
        request = HandshakeRequest.build(
            address,
            target=target,
            method=method,
            version=version,
            headers=headers,
            replace=replace,
            subprotocols=subprotocols,
            deflate=deflate,
        )
        peer = await cls.open(
            address,
            ssl=ssl,
            server_hostname=server_hostname,
            recv_buffer=recv_buffer,
            timeout=timeout,
            timeout_scale=timeout_scale,
            log=log,
        )
        try:
            await peer.upgrade(request, tail=tail)
        except BaseException:
            peer.close()
            raise
        return peer

    async def __aenter__(self) -> Self:
        """Return the peer."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    @property
    def deflated(self) -> bool:
        """Whether permessage-deflate was negotiated."""
        return self._deflate is not None

    async def request(self, raw: bytes) -> None:
        """Send bytes of an HTTP request, the whole of it or a part."""
        self.log.add("sent", len(raw), repr(raw[:300]))
        await self._send(raw)

    async def read_response(self, timeout: float | None = None, *, head: bool = False) -> HttpResponse:
        """Read one HTTP response with its body; `head` if it answers HEAD and so has none.

        Raises:
            Closed: If the connection ended before the first byte.
            WireViolation: If it is no legal response, or ended within it.
        """
        async with self._within(timeout, "an HTTP response"), self._reading:
            if not self._input and not await self._fill():
                raise Closed("an HTTP response", self._end())
            raw = await self._take_until(b"\r\n\r\n")
            start, *lines = raw.decode("latin-1").split("\r\n")
            match = re.fullmatch(r"(HTTP/1\.[01]) ([1-9]\d\d)(?: (.*))?", start)
            if match is None:
                raise WireViolation(f"expected an HTTP status line, but got {start!r}")
            pairs = [re.fullmatch(r"([\w!#$%&'*+.^`|~-]+):[ \t]*(.*?)[ \t]*", line, re.ASCII) for line in lines]
            if None in pairs:
                raise WireViolation(f"expected a header line, but got {lines[pairs.index(None)]!r}")
            headers = tuple((pair[1], pair[2]) for pair in pairs if pair is not None)
            response = HttpResponse(int(match[2]), match[3] or "", match[1], headers)
            self.log.add("received", len(raw) + 4, f"{start} {headers}")
            if not head and response.status >= 200 and response.status not in (204, 304):
                body = await self._read_body(response)
                response = HttpResponse(response.status, response.reason, response.version, headers, body)
            self.response = response
            return response

    async def upgrade(self, request: HandshakeRequest, *, tail: bytes = b"") -> None:
        """Make the handshake on an open connection, with `tail` in the same write as the request.

        Raises:
            HandshakeRefused, WireViolation, Closed: As for `connect`; the connection stays open.
        """
        raw = request.encode()
        self.log.add("sent", len(raw), repr(raw[:300]))
        if tail:
            self._log_sent(tail)
        await self._send(raw + tail)
        self.start_websocket(request, await self.read_response())

    def start_websocket(self, request: HandshakeRequest, response: HttpResponse) -> None:
        """Check the response to a request that was sent by hand, and speak WebSocket from here on.

        Raises:
            HandshakeRefused, WireViolation: As for `HandshakeRequest.check`.
        """
        self.subprotocol, self._deflate = request.check(response)
        self._judge = FrameProtocol(client=True, extensions=[self._deflate] if self._deflate else [])

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._log_sent(data)
        await self._send(data)

    async def send_apart(self, data: bytes | Iterable[bytes]) -> None:
        """Send pieces, or the bytes of ``data`` one by one, with time enough behind each for the server to read it.

        A server in the same event loop has read a piece before the next is sent: what came in is handled before the
        timer. (One turn of the loop is not enough: there the sender's turn comes first, and two pieces make one read.)
        """
        for piece in (data[at : at + 1] for at in range(len(data))) if isinstance(data, bytes) else data:
            await self.send_raw(piece)
            await asyncio.sleep(_APART)

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool | bytes = True
    ) -> None:
        """Send one frame, legal or not, never deflated; see `build_frame`."""
        await self.send_raw(build_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask))

    async def send_text(self, text: str, *, compress: bool = True) -> None:
        """Send a text message in one frame, deflated if that was negotiated and `compress` is true."""
        await self.send_fragments(Opcode.TEXT, [text.encode()], compress=compress)

    async def send_binary(self, data: bytes, *, compress: bool = True) -> None:
        """Send a binary message in one frame, deflated as for `send_text`."""
        await self.send_fragments(Opcode.BINARY, [data], compress=compress)

    async def send_fragments(self, opcode: int, parts: Sequence[bytes], *, compress: bool = True) -> None:
        """Send a message as one frame per part, in one write, deflated as for `send_text`."""
        frames: list[bytes] = []
        for index, part in enumerate(parts):
            fin = index == len(parts) - 1
            kind = opcode if index == 0 else Opcode.CONTINUATION
            rsv, payload = RsvBits(False, False, False), part
            if self._deflate is not None and compress:
                rsv, payload = self._deflate.frame_outbound(self._judge, Opcode(kind), rsv, part, fin)
            frames.append(build_frame(kind, payload, fin=fin, rsv=4 * rsv.rsv1))
        await self.send_raw(b"".join(frames))

    async def send_in_parts(self, opcode: int, parts: Sequence[bytes]) -> None:
        """Send a message as `send_fragments` does, or whole where there is no wire to put frames on."""
        await self.send_fragments(opcode, parts)

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping."""
        await self.send_frame(Opcode.PING, payload)

    async def pong(self, payload: bytes = b"") -> None:
        """Send a pong."""
        await self.send_frame(Opcode.PONG, payload)

    async def send_close(self, code: int | None = None, text: str = "") -> None:
        """Send a close frame, an empty one without a code."""
        await self.send_frame(Opcode.CLOSE, b"" if code is None else close_payload(code, text))

    async def flood(self, data: bytes, total_bytes: int, *, timeout: float | None = None) -> int:
        """Send `data` again and again until `total_bytes` are taken, the server is gone, or it takes nothing.

        Args:
            data: One or more whole frames.
            total_bytes: How much to send, rounded up to a multiple of `data`.
            timeout: For how long it may take nothing.

        Returns:
            How many bytes the connection took (over TLS: at least). A frame that was cut short is finished by
            the next sending method.
        """
        goal = -(-total_bytes // len(data)) * len(data)  # rounded up
        block = data * max(1, min(goal, _FLOOD_BLOCK) // len(data))
        sent = queued = 0
        async with self._writing:
            try:
                while sent < goal:
                    if not self._has_output():
                        queued += self._queue(memoryview(block)[: goal - queued])
                    async with self._within(timeout, "the server to take more"):
                        await self._push()
                        await asyncio.sleep(0)
                    sent = max(sent, queued - len(self._unsent))
            except (WireTimeout, Closed) as error:
                self.log.add("note", sent, f"flood stopped: {error}")
            if self._tls is None and queued:  # of what is queued, only the frame that has begun must follow
                self._unsent = self._unsent[: -sent % len(data)]
        self.log.add("sent", sent, f"flood of {next((_describe(*one) for one in _heads(data)), repr(data))}")
        return sent

    async def receive_frame(self, timeout: float | None = None) -> Frame:
        """Return the next frame as it was on the wire; nothing is answered.

        Raises:
            Closed: At the end of the stream.
            WireViolation: If wsproto finds the frame illegal where it stands.
        """
        async with self._within(timeout, "a frame"), self._reading:
            frame = await self._next_frame()
            if frame is None:
                raise Closed("a frame", self._end())
            return frame[0]

    async def receive(self, timeout: float | None = None) -> Event:
        """Return the next event: a whole message, a control frame, or the end of the stream.

        Raises:
            WireViolation: If the server sent what RFC 6455 forbids; later frames are then no longer judged.
        """
        async with self._within(timeout, "anything"), self._reading:
            return await self._next_event()

    async def receive_message(self, timeout: float | None = None) -> Message:
        """Return the next message, past pings and pongs; raise `Closed` at a close frame or the end."""
        async with self._within(timeout, "a message"), self._reading:
            while not isinstance(event := await self._next_event(), Text | Binary):
                if isinstance(event, Close | Eof):
                    raise Closed("a message", event)
            return event

    async def receive_text(self, timeout: float | None = None) -> str:
        """Return the next message, which must be a text; raise `Unexpected` or `Closed` if it is not."""
        message = await self.receive_message(timeout)
        if isinstance(message, Binary):
            raise Unexpected("a text message", message)
        return message.data

    async def receive_binary(self, timeout: float | None = None) -> bytes:
        """Return the next message, which must be binary; raise `Unexpected` or `Closed` if it is not."""
        message = await self.receive_message(timeout)
        if isinstance(message, Text):
            raise Unexpected("a binary message", message)
        return message.data

    async def receive_close(self, timeout: float | None = None) -> Close:
        """Return the close frame, past messages, pings and pongs; raise `Closed` at the end of the stream."""
        async with self._within(timeout, "a close frame"), self._reading:
            while not isinstance(event := await self._next_event(), Close):
                if isinstance(event, Eof):
                    raise Closed("a close frame", event)
            return event

    async def wait_eof(self, timeout: float | None = None) -> Eof:
        """Return the end of the stream, past whatever comes before it."""
        async with self._within(timeout, "the end of the stream"), self._reading:
            while not isinstance(event := await self._next_event(), Eof):
                pass
            return event

    async def expect_silence(self, seconds: float) -> None:
        """Check that for so many seconds (not scaled) nothing comes, not even a ping or the end."""
        expected = f"silence for {seconds:g} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._reading:
                raise Unexpected(expected, await self._next_frame() or self._end())
        if self._input:
            raise Unexpected(expected, bytes(self._input[:_SHOWN]))

    async def drain(
        self, *, messages: int | None = None, payload_bytes: int | None = None, timeout: float | None = None
    ) -> Drained:
        """Read and only count, until a count is reached, the server ends, or nothing comes for `timeout`.

        Messages are judged, but neither logged one by one nor kept in `received`. Pings are answered.
        """
        count = size = 0
        end: Close | Eof | None = None
        with contextlib.suppress(WireTimeout):
            while (messages is None or count < messages) and (payload_bytes is None or size < payload_bytes):
                async with self._within(timeout, "more"), self._reading:
                    event = await self._next_event(keep=False)
                if isinstance(event, Text | Binary):
                    count += 1
                    size += len(event.data) if isinstance(event, Binary) else len(event.data.encode())
                elif isinstance(event, Close | Eof):
                    end = event
                    break
        self.log.add("received", size, f"drained {count} messages, then {end or 'no more'}")
        return Drained(count, size, end)

    async def half_close(self) -> None:
        """End the sending side alone: FIN, over TLS close_notify before it."""
        self.log.add("note", 0, "half-closed")
        if self._tls is not None:
            # unwrap() sends close_notify, then asks for the server's, which is read later if at all.
            with contextlib.suppress(SSLError):
                self._tls.unwrap()
            await self._send(b"")
        with contextlib.suppress(OSError):  # the server was faster
            self._socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """End the connection by a reset (RST)."""
        if not self._closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        """Close the socket with no word before it; the kernel makes that a reset if there was unread data.

        A call that waits in another task raises `WireError`. A second close does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self.log.add("note", 0, "closed here")
        if self._waiters:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            for waiter in self._waiters:
                _wake(waiter)
        self._socket.close()

    async def aclose(self) -> None:
        """Do what `close` does, for `contextlib.aclosing`."""
        self.close()

    @contextlib.asynccontextmanager
    async def _within(self, timeout: float | None, expected: str) -> AsyncGenerator[None]:
        seconds = (self.timeout if timeout is None else timeout) * self.timeout_scale
        scope: asyncio.Timeout | None = None
        try:
            async with timeout_without_stalls(seconds) as scope:
                yield
        except TimeoutError as error:
            if scope is None or not scope.expired():
                raise
            last = "; ".join(entry.text for entry in islice(reversed(self.log.entries), 3))
            raise WireTimeout(f"expected {expected} within {seconds:g} s; before that, latest first: {last}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise WireError("this peer has closed its socket")

    async def _ready(self, *, write: bool) -> None:
        """Wait until the socket can be read or written.

        `loop.sock_recv` may have read when it is cancelled, and loses that; this loses nothing to a timeout.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        (loop.add_writer if write else loop.add_reader)(self._socket, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._closed:
                (loop.remove_writer if write else loop.remove_reader)(self._socket)
        self._check_open()

    async def _start_tls(self, context: SSLContext, server_hostname: str) -> None:
        self._tls = context.wrap_bio(self._tls_in, self._tls_out, server_hostname=server_hostname)
        while True:
            try:
                self._tls.do_handshake()
            except SSLWantReadError:
                await self._fill_tls()
            else:
                break
        async with self._writing:
            await self._flush()
        self.log.add("note", 0, f"{self._tls.version()} established")

    async def _fill_tls(self) -> None:
        if not self._writing.locked():  # else whoever writes takes this along
            async with self._writing:
                await self._flush()
        data = await self._recv()
        if data:
            self._tls_in.write(data)
        else:
            self._tls_in.write_eof()

    async def _recv(self) -> bytes:
        """Read once from the socket; empty at the end."""
        self._check_open()
        while True:
            await self._ready(write=False)
            try:
                return self._socket.recv(_READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                self.log.add("note", 0, f"reading failed: {error!r}")
                self._eof = self._reset = True
                return b""

    async def _fill(self) -> bool:
        """Read once into the input; False at the end of the stream."""
        data = b""
        while not self._eof and not data:
            if self._tls is None:
                data = await self._recv()
            else:
                try:
                    data = self._tls.read(_READ_SIZE)
                except SSLWantReadError:
                    await self._fill_tls()
                    continue
                except SSLError as error:
                    self.log.add("note", 0, f"TLS ended: {error!r}")
            self._eof = not data
        self._input += data
        return bool(data)

    def _end(self) -> Eof:
        """Return the end of the stream, which has come."""
        return Eof(self._reset, len(self._input))

    def _has_output(self) -> bool:
        if not self._unsent and self._tls is not None:
            self._unsent = memoryview(self._tls_out.read())
        return bool(self._unsent)

    def _queue(self, data: memoryview) -> int:
        """Make `data` what is sent next, encrypted with TLS; return its size. Nothing else may be waiting."""
        if self._tls is None:
            self._unsent = data
        else:
            rest = data
            while rest:
                rest = rest[self._tls.write(rest) :]
            self._unsent = memoryview(self._tls_out.read())
        return len(data)

    async def _push(self) -> None:
        """Send what the socket takes at once, or wait until it takes something."""
        self._check_open()
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            await self._ready(write=True)
        except OSError as error:
            self._reset = True  # the kernel tells of a reset once, so reading will only see the end
            raise Closed(f"to send {len(self._unsent)} bytes", Eof(reset=True)) from error

    async def _flush(self) -> None:
        while self._has_output():
            await self._push()

    async def _send(self, data: bytes) -> None:
        """Send all of `data` behind what an earlier call could not; on a timeout the rest stays queued."""
        async with self._within(None, f"the server to take {len(data)} bytes"), self._writing:
            self._check_open()
            await self._flush()
            self._queue(memoryview(data))
            await self._flush()

    def _log_sent(self, data: bytes) -> None:
        frames = list(_heads(data))
        self.close_sent = self.close_sent or any(head.opcode == Opcode.CLOSE for head, _ in frames)
        shown = "; ".join(_describe(*frame) for frame in frames[:4]) or repr(data[:_SHOWN])
        self.log.add("sent", len(data), f"{shown}; and {len(frames) - 4} more frames" if len(frames) > 4 else shown)

    async def _take(self, size: int) -> bytes:
        while len(self._input) < size:
            if not await self._fill():
                raise WireViolation(f"expected {size} bytes of HTTP, but the stream ended after {len(self._input)}")
        data = bytes(self._input[:size])
        del self._input[:size]
        return data

    async def _take_until(self, end: bytes) -> bytes:
        """Take what stands before `end`, and `end` too."""
        while (position := self._input.find(end)) < 0:
            if len(self._input) > _MAX_HEAD or not await self._fill():
                raise WireViolation(f"expected {end!r} in HTTP, but got {bytes(self._input[:300])!r}")
        return (await self._take(position + len(end)))[: -len(end)]

    async def _chunk_size(self) -> int:
        line = (await self._take_until(b"\r\n")).partition(b";")[0].strip()
        if re.fullmatch(rb"[0-9a-fA-F]+", line) is None:
            raise WireViolation(f"expected the size of a chunk, but got {line!r}")
        return int(line, 16)

    async def _read_body(self, response: HttpResponse) -> bytes:
        """Read a body by RFC 9112, section 6.3."""
        body = bytearray()
        lengths = set(response.headers_all("Content-Length"))
        if "chunked" in _split(response.headers_all("Transfer-Encoding")):
            while size := await self._chunk_size():
                body += await self._take(size)
                if (end := await self._take(2)) != b"\r\n":
                    raise WireViolation(f"expected CRLF behind a chunk, but got {end!r}")
            while await self._take_until(b"\r\n"):
                pass
        elif lengths:
            if len(lengths) > 1 or not min(lengths).isdecimal():
                raise WireViolation(f"expected one Content-Length, but got {sorted(lengths)}")
            body += await self._take(int(min(lengths)))
        else:
            while await self._fill():
                pass
            body += await self._take(len(self._input))
        return bytes(body)

    async def _next_event(self, *, keep: bool = True) -> Event:
        event: Event | None = None
        while event is None:
            frame = await self._next_frame(keep=keep)
            if frame is None:
                end = self._end()
                if self.received[-1:] != [end]:
                    self.received.append(end)
                return end
            event = frame[1]
        await self._answer(event)
        return event

    async def _answer(self, event: Event) -> None:
        """Do what a good client does; a server that is gone by now shows at the next read."""
        with contextlib.suppress(Closed):
            if isinstance(event, Ping) and self.auto_pong:
                await self.pong(event.payload)
            elif isinstance(event, Close) and self.auto_close and not self.close_sent:
                await self.send_close(None if event.code == 1005 else event.code)

    async def _next_frame(self, *, keep: bool = True) -> tuple[Frame, Event | None] | None:
        """Return the next frame and the event that it completes; None at the end of the stream."""
        while (head := parse_head(self._input)) is None or len(self._input) < head.size + head.length:
            if head is not None and head.length > _MAX_FRAME:
                raise WireViolation(f"a frame of {head.length} bytes is more than any check asks for")
            if not await self._fill():
                return None
        wire = bytes(self._input[: head.size + head.length])
        del self._input[: len(wire)]
        payload = wire[head.size :]
        if head.masked:
            payload = masked(payload, wire[head.size - 4 : head.size])
        frame = Frame(head.opcode, payload, head.fin, head.rsv, head.masked)
        if keep or head.opcode >= Opcode.CLOSE:
            self.log.add("received", len(wire), str(frame))
        event = self._judged(frame, wire)
        if keep and event is not None:
            self.received.append(event)
        return frame, event

    def _judged(self, frame: Frame, wire: bytes) -> Event | None:
        """Let wsproto judge a frame, and return the event that it completes."""
        if self._close_received:
            raise WireViolation("a frame behind the close frame (section 5.5.1)", frame)
        bad_gateway = frame.opcode == Opcode.CLOSE and frame.payload[:2] == close_payload(1014)
        if bad_gateway:  # registered with IANA, but wsproto 1.3 takes it for illegal
            wire = wire[: -len(frame.payload)] + close_payload(1013) + frame.payload[2:]
        judge = self._control_judge if frame.opcode >= Opcode.CLOSE else self._judge
        judge.receive_bytes(wire)
        try:
            proto = next(judge.received_frames(), None)
        except ParseFailed as error:
            raise WireViolation(f"{error} (a {error.code} error)", frame) from error
        if proto is None:
            return None
        payload = proto.payload
        if isinstance(payload, tuple):
            self._close_received = True
            return Close(1014 if bad_gateway else int(payload[0]), payload[1])
        if frame.opcode >= Opcode.CLOSE:
            return Ping(frame.payload) if frame.opcode == Opcode.PING else Pong(frame.payload)
        self._parts.append(payload)
        if not proto.message_finished:
            return None
        parts, self._parts = self._parts, []
        if proto.opcode is Opcode.TEXT:
            return Text("".join(part for part in parts if isinstance(part, str)))
        return Binary(b"".join(part for part in parts if isinstance(part, bytes)))


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
