"""The conformance suite's client, against small raw servers, with wsproto's server side as the oracle."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import json
import pkgutil
import socket
import ssl
import zlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("wsproto")  # the extra conformance

import trustme
from wsproto import ConnectionType, WSConnection, frame_protocol
from wsproto import events as ev
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, RsvBits

from wsbridge.conformance import client, lateness
from wsbridge.conformance.client import (
    Address,
    Binary,
    Close,
    Closed,
    Drained,
    Eof,
    Frame,
    HandshakeRefused,
    HandshakeRequest,
    HttpResponse,
    Opcode,
    Ping,
    Pong,
    SocketLink,
    Text,
    Unexpected,
    WireError,
    WireLog,
    WirePeer,
    WireTimeout,
    WireViolation,
    build_frame,
    close_payload,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.suite

FAST = 0.05


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, *, path: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Address]:
    """Serve `handler` on a free port (or a Unix socket); its failure is the test's."""
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        except Exception as error:
            failures.append(error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    if path is None:
        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
        address: Address = server.sockets[0].getsockname()
    else:
        server = await asyncio.start_unix_server(run, path)
        address = path
    try:
        yield address
        if tasks:
            await asyncio.wait(tasks, timeout=5)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failures


class Oracle:
    """A wsproto server connection on streams, which keeps what it got."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.connection = WSConnection(ConnectionType.SERVER)
        self.request: ev.Request | None = None
        self.events: list[ev.Event] = []

    async def send(self, *events: ev.Event) -> None:
        self.writer.write(b"".join(self.connection.send(event) for event in events))
        await self.writer.drain()

    async def receive(self) -> list[ev.Event]:
        """Read once; accept a handshake request with the last subprotocol and deflate."""
        # By itself, wsproto's server would drop what is sent right behind the request.
        head = self.request is None
        data = await (self.reader.readuntil(b"\r\n\r\n") if head else self.reader.read(1 << 16))
        self.connection.receive_data(data or None)
        events = list(self.connection.events())
        for event in events:
            if isinstance(event, ev.Request):
                self.request = event
                last = event.subprotocols[-1] if event.subprotocols else None
                await self.send(ev.AcceptConnection(last, [PerMessageDeflate()]))
        self.events += events
        return events


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo messages, answer pings and the close."""
    oracle = Oracle(reader, writer)
    while True:
        for event in await oracle.receive():
            if isinstance(event, ev.CloseConnection):
                if oracle.connection.state.name == "REMOTE_CLOSING":
                    await oracle.send(event.response())
                return
            if isinstance(event, ev.Message):
                await oracle.send(type(event)(event.data, event.frame_finished, event.message_finished))
            elif isinstance(event, ev.Ping):
                await oracle.send(event.response())


def upgraded(after: Handler) -> Handler:
    """Make the handshake by wsproto, then let `after` do with the streams what it likes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        oracle = Oracle(reader, writer)
        while oracle.request is None:
            await oracle.receive()
        await after(reader, writer)

    return handler


def sending(*chunks: bytes, hold: bool = False) -> Handler:
    """After the handshake, send the chunks, then close, or hold the connection until the peer ends it."""

    async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        if hold:
            await reader.read(-1)

    return upgraded(after)


def answering(*chunks: bytes) -> Handler:
    """Answer the request with these bytes, and close."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()

    return handler


def the_socket(peer: WirePeer) -> socket.socket:
    assert isinstance(peer.link, SocketLink)
    return peer.link.stream.socket


def plain(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return build_frame(opcode, payload, fin=fin, rsv=rsv, mask=False)


def test_the_client_imports_no_server_and_no_core_module() -> None:
    own = {name for _, name, _ in pkgutil.iter_modules(client.__path__, f"{client.__name__}.")}
    own |= {client.__name__, lateness.__name__, "wsbridge.conformance"}
    names = set[str]().union(*(imported(importlib.import_module(name)) for name in own - {"wsbridge.conformance"}))
    assert "wsbridge.conformance.client.sockets" in names
    assert not {name.split(".")[0] for name in names - own} & {"wsbridge", "aiohttp", "websockets", "tornado", "None"}


def imported(module: ModuleType) -> set[str]:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


# Frames.


@pytest.mark.parametrize("size", [0, 1, 4, 5, 125, 126, 65535, 65536, 1_000_003])
@pytest.mark.parametrize("mask", [True, b"\x00\xff\x01\x80"])
def test_a_built_frame_is_what_wsproto_reads(size: int, mask: bool | bytes) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    proto = FrameProtocol(client=False, extensions=[])
    proto.receive_bytes(build_frame(Opcode.BINARY, payload, mask=mask))
    (frame,) = proto.received_frames()
    assert (frame.opcode, frame.payload, frame.message_finished) == (Opcode.BINARY, payload, True)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (build_frame(1, b"ab", mask=False), b"\x81\x02ab"),
        (build_frame(1, b"ab", mask=b"\0\0\0\0"), b"\x81\x82\0\0\0\0ab"),
        (build_frame(1, b"ab", mask=b"\1\2\3\4"), b"\x81\x82\1\2\3\4``"),
        (build_frame(0xF, b"", fin=False, rsv=7, mask=False), b"\x7f\x00"),
        (build_frame(2, b"ab", mask=False, rsv=4, length=5), b"\xc2\x05ab"),
        (build_frame(2, b"", mask=False, length=70000), b"\x82\x7f\0\0\0\0\0\1\x11\x70"),
        (build_frame(2, b"a", mask=False, length_bits=16), b"\x82\x7e\0\1a"),
        (build_frame(2, b"a", mask=False, length_bits=64), b"\x82\x7f\0\0\0\0\0\0\0\1a"),
        (build_frame(8, close_payload(4000, "é"), mask=False), b"\x88\x04\x0f\xa0\xc3\xa9"),
    ],
)
def test_frames_by_the_byte(frame: bytes, expected: bytes) -> None:
    assert frame == expected


# The handshake.


async def test_connect_echo_and_close() -> None:
    async with serving(echo) as address:
        async with await WirePeer.connect(address, target="/a?b", subprotocols=["x", "y"], tail=b"") as peer:
            assert (peer.subprotocol, peer.deflated, peer.local_address[0]) == ("y", False, "127.0.0.1")
            assert peer.response is not None
            assert peer.response.header("upgrade") == "websocket"
            await peer.send_text("grüß")
            await peer.send_binary(bytes(70000))
            await peer.send_fragments(Opcode.TEXT, [b"\xc3", b"", b"\xa9"])
            await peer.ping(b"p")
            assert await peer.receive_text() == "grüß"
            assert await peer.receive_binary() == bytes(70000)
            assert await peer.receive_message() == Text("é")
            assert await peer.receive() == Pong(b"p")
            await peer.send_close(4001, "bye")
            assert await peer.receive_close() == Close(4001, "bye")
            assert await peer.wait_eof() == await peer.receive() == Eof()
        expected = [Text("grüß"), Binary(bytes(70000)), Text("é"), Pong(b"p"), Close(4001, "bye"), Eof()]
        assert peer.received == expected
        sent = [entry.text for entry in peer.log.entries if entry.direction == "sent"]
        assert sent[0].startswith("GET /a?b HTTP/1.1 | Host: 127.0.0.1:")
        assert sent[3].startswith("TEXT unfinished masked length=1")
        assert "CLOSE masked length=5 4001 b'bye'" in sent
        assert not any(len(line) > 400 for line in peer.log.lines())


async def test_what_is_sent_right_behind_the_request_is_answered() -> None:
    tail = build_frame(Opcode.TEXT, b"early") + build_frame(Opcode.PING)
    async with serving(echo) as address, await WirePeer.connect(address, tail=tail) as peer:
        assert await peer.receive_text() == "early"
        assert await peer.receive() == Pong()
        assert not peer.close_sent
    tail = build_frame(Opcode.CLOSE)
    async with serving(echo) as address, await WirePeer.connect(address, tail=tail) as peer:
        assert peer.close_sent
        assert await peer.receive_close() == Close(1005)


def test_the_request_is_as_asked() -> None:
    request = HandshakeRequest.build(
        ("::1", 80),
        target=b"/\xff",
        method="PUT",
        version="HTTP/1.0",
        headers=[("X", b"\xe9"), ("x", "é")],
        replace={"host": None, "Sec-WebSocket-Key": ["a", b"b"], "upgrade": "h2c"},
        subprotocols=["p", "q"],
        deflate="permessage-deflate; server_max_window_bits=10",
    )
    assert request.encode() == (
        b"PUT /\xff HTTP/1.0\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a\r\n"
        b"Sec-WebSocket-Key: b\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: p, q\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n"
        b"X: \xe9\r\nx: \xe9\r\n\r\n"
    )
    assert HandshakeRequest.build(("::1", 80)).values("host") == ["[::1]:80"]
    assert HandshakeRequest.build("/run/x").values("Host") == ["localhost"]
    with pytest.raises(ValueError, match="replace names 'Hots', but the usual headers are Host, Upgrade"):
        HandshakeRequest.build(("h", 1), replace={"Hots": None})


async def test_a_request_sent_byte_by_byte() -> None:
    async with serving(echo) as address, await WirePeer.open(address) as peer:
        request = HandshakeRequest.build(address)
        for byte in request.encode():
            await peer.request(bytes([byte]))
        peer.start_websocket(request, await peer.read_response())
        await peer.send_text("a")
        assert await peer.receive_text() == "a"


async def test_what_is_sent_apart_is_read_apart() -> None:
    sizes: list[int] = []

    class Reader(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))

    server = await asyncio.get_running_loop().create_server(Reader, "127.0.0.1", 0)
    async with server, await WirePeer.open(server.sockets[0].getsockname()) as peer:
        await peer.send_apart(build_frame(Opcode.PING, b"byte by byte"))
        await peer.send_apart([b"two", b"pieces"])
        assert sizes == [1] * (2 + 4 + 12) + [3, 6]


async def test_a_refusal_brings_the_response() -> None:
    raw = b"HTTP/1.1 426 Upgrade Required\r\nX: a\r\nx:  \xe9 \r\nContent-Length: 3\r\n\r\nno!"
    async with serving(answering(raw)) as address:
        with pytest.raises(HandshakeRefused, match="expected 101, but got 426 Upgrade Required: b'no!'") as caught:
            await WirePeer.connect(address)
    response = caught.value.response
    assert response == HttpResponse(
        426, "Upgrade Required", "HTTP/1.1", (("X", "a"), ("x", "é"), ("Content-Length", "3")), b"no!"
    )
    assert (response.headers_all("X"), response.header("X"), response.header("y")) == (["a", "é"], "a", None)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.0 404\r\n\r\nto the end", b"to the end"),
        (
            b"HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: u\r\n\r\n",
            b"abc0123456789",
        ),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_bodies(raw: bytes, body: bytes) -> None:
    async with serving(answering(raw[:20], raw[20:])) as address, await WirePeer.open(address) as peer:
        await peer.request(b"GET / HTTP/1.1\r\n\r\n")
        assert (await peer.read_response()).body == body


async def test_a_response_to_head_has_no_body_and_the_next_is_read_behind_it() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\nx"
    async with serving(answering(raw)) as address, await WirePeer.open(address) as peer:
        await peer.request(b"HEAD / HTTP/1.1\r\n\r\n")
        assert (await peer.read_response(head=True)).status == 200
        assert (await peer.read_response()).body == b"x"
        with pytest.raises(Closed, match="expected an HTTP response, but the connection has ended") as caught:
            await peer.read_response()
        assert caught.value.end == Eof()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"HTTP/2 200 OK\r\n\r\n", "expected an HTTP status line, but got 'HTTP/2 200 OK'"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "expected a header line, but got 'A : b'"),
        (b"HTTP/1.1 200 OK\r\n", "expected b'.*' in HTTP, but got b'HTTP/1.1 200 OK"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",
            "expected 2 bytes of HTTP, but the stream ended after 1",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\na",
            "expected one Content-Length",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
            "expected the size of a chunk, but got b'0x1'",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "expected CRLF behind a chunk, but got b'bc'",
        ),
    ],
)
async def test_what_is_no_http_is_a_violation(raw: bytes, message: str) -> None:
    async with serving(answering(raw)) as address:
        with pytest.raises(WireViolation, match=message):
            await WirePeer.connect(address)


GOOD_101 = {
    "Upgrade": "WebSocket",
    "Connection": "keep-alive, upgrade",
    "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",  # to the RFC's own key, section 1.3
}


def check(
    *,
    offer: str | bool = False,
    replace: dict[str, str | list[str] | None] | None = None,
    **changes: str | None,
) -> tuple[str | None, PerMessageDeflate | None]:
    """Check a 101 with changed headers against a request with the RFC's key."""
    key: dict[str, str | list[str] | None] = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    request = HandshakeRequest.build("/x", replace=key | (replace or {}), subprotocols=["a", "b"], deflate=offer)
    values = GOOD_101 | {name.replace("_", "-"): value for name, value in changes.items()}
    headers = tuple((name, value) for name, value in values.items() if value is not None)
    return request.check(HttpResponse(101, "", "HTTP/1.1", headers))


def test_a_right_101() -> None:
    assert check() == (None, None)
    assert check(Sec_WebSocket_Protocol="b") == ("b", None)
    deflate = check(offer=True, Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits=11")[1]
    assert deflate is not None
    assert (deflate.client_max_window_bits, deflate.enabled()) == (11, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Upgrade": None}, r"expected Upgrade: websocket, but got \[\]"),
        ({"Connection": "close"}, r"expected Connection: Upgrade, but got \['close'\]"),
        (
            {"Sec_WebSocket_Accept": "x"},
            r"expected accept key s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=, but got \['x'\]",
        ),
        ({"Sec_WebSocket_Protocol": "c"}, r"expected at most one of \['a', 'b'\], but got \['c'\]"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "extensions .* do not answer the offer"),
        ({"replace": {"Sec-WebSocket-Key": ["a", "b"]}}, "101 to a request with 2 keys"),
        ({"replace": {"Sec-WebSocket-Key": None}}, "101 to a request with 0 keys"),
    ],
)
def test_a_wrong_101(changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(WireViolation, match=message):
        check(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offer", "accepted"),
    [
        (True, "x-webkit-deflate-frame"),
        (True, "permessage-deflate; unknown"),
        (True, "permessage-deflate; server_max_window_bits=16"),
        (True, "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
        (True, "permessage-deflate, permessage-deflate"),
        ("permessage-deflate", "permessage-deflate; client_max_window_bits=10"),
        ("x-other", "permessage-deflate"),
    ],
)
def test_a_wrong_choice_of_extensions(offer: str | bool, accepted: str) -> None:
    with pytest.raises(WireViolation, match="do not answer the offer"):
        check(offer=offer, Sec_WebSocket_Extensions=accepted)


def test_http_1_0_is_no_switching_of_protocols() -> None:
    with pytest.raises(WireViolation, match=r"expected HTTP/1\.1, but got HTTP/1\.0"):
        HandshakeRequest.build("/x").check(HttpResponse(101, "", "HTTP/1.0", ()))


# Sending.


async def test_deflate_both_ways_with_context() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        oracle = Oracle(reader, writer)
        text = ""
        while True:
            for event in await oracle.receive():
                if isinstance(event, ev.TextMessage):
                    text += event.data
                    if event.message_finished:
                        await oracle.send(ev.TextMessage(text))
                        text = ""
                elif isinstance(event, ev.CloseConnection):
                    return
                else:
                    seen.append(type(event).__name__.encode())

    async with serving(handler) as address, await WirePeer.connect(address, deflate=True) as peer:
        assert peer.deflated
        for _ in range(2):
            await peer.send_text("hello " * 100)
            await peer.send_fragments(Opcode.TEXT, [b"a" * 50, b"", b"b" * 50])
            await peer.send_text("plain", compress=False)
        first = await peer.receive_frame()
        assert (first.opcode, first.rsv, first.fin, first.masked) == (Opcode.TEXT, 4, True, False)
        assert zlib.decompressobj(-15).decompress(first.payload + b"\0\0\xff\xff") == b"hello " * 100
        assert await peer.receive_text() == "a" * 50 + "b" * 50
        assert await peer.receive_text() == "plain"
        again = await peer.receive_frame()
        assert len(again.payload) < len(first.payload)  # the context was kept
        assert await peer.receive_text() == "a" * 50 + "b" * 50
        assert peer.received[3] == Text("hello " * 100)
        lengths = [entry.size for entry in peer.log.entries if "TEXT rsv=4" in entry.text]
        assert max(lengths) < 100


async def test_a_ping_between_deflated_fragments_disturbs_nothing() -> None:
    deflate = PerMessageDeflate()
    proto = FrameProtocol(client=False, extensions=[])
    none = RsvBits(False, False, False)
    parts = [deflate.frame_outbound(proto, Opcode.TEXT, none, b"abc" * 9, False)[1]]
    parts.append(deflate.frame_outbound(proto, Opcode.CONTINUATION, none, b"def" * 9, True)[1])
    frames = plain(1, parts[0], fin=False, rsv=4) + plain(9, b"!") + plain(0, parts[1])
    async with serving(sending(frames)) as address, await WirePeer.connect(address, deflate=True) as peer:
        assert await peer.receive() == Ping(b"!")
        assert await peer.receive() == Text("abc" * 9 + "def" * 9)


async def test_a_server_that_takes_nothing_stops_a_flood_and_a_send() -> None:
    resume = asyncio.Event()
    got: list[frame_protocol.Frame] = []

    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await resume.wait()
        proto = FrameProtocol(client=False, extensions=[])
        while not any(frame.opcode is Opcode.CLOSE for frame in got):
            proto.receive_bytes(await reader.read(1 << 20))
            got.extend(proto.received_frames())

    frame = build_frame(Opcode.BINARY, bytes(9973))
    async with serving(upgraded(handler)) as address, await WirePeer.connect(address) as peer:
        total = 64 << 20
        sent = await peer.flood(frame, total, timeout=FAST)
        assert 0 < sent < total
        peer.limits.timeout = FAST
        with pytest.raises(WireTimeout, match=r"expected the server to take \d+ bytes within 0.05 s"):
            await peer.send_binary(bytes(32 << 20))
        resume.set()
        peer.limits.timeout = 5
        assert await peer.flood(frame, 50000) == 6 * len(frame)
        await peer.send_close()
        await peer.wait_eof()
    sizes = [len(frame.payload) for frame in got if frame.opcode is Opcode.BINARY]
    assert sum(sizes) == 9973 * (-(-sent // len(frame)) + 6) + (32 << 20)


async def test_a_flood_ends_where_the_server_goes() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.transport.abort()

    async with serving(upgraded(handler)) as address, await WirePeer.connect(address) as peer:
        assert await peer.flood(build_frame(2, b"x"), 1 << 30) < 1 << 30
        assert (await peer.wait_eof()).reset
        with pytest.raises(Closed, match=r"expected to send 8 bytes, but the connection has ended: Eof\(reset=True"):
            await peer.send_text("ab")


async def test_a_reply_to_a_server_that_is_gone_is_no_error() -> None:
    async with (
        serving(sending(plain(8, close_payload(1001)))) as address,
        await WirePeer.connect(address) as peer,
    ):
        the_socket(peer).shutdown(socket.SHUT_WR)
        assert await peer.receive() == Close(1001)


# Receiving.


async def test_receive_joins_fragments_and_shows_control_frames_between() -> None:
    frames = (
        plain(1, b"\xc3", fin=False)
        + plain(9, b"!")
        + plain(0, b"", fin=False)
        + plain(0, b"\xa9")
        + plain(2, bytes(126))
    )
    async with (
        serving(sending(*(bytes([b]) for b in frames))) as address,
        await WirePeer.connect(address) as peer,
    ):
        events = [await peer.receive() for _ in range(4)]
    assert events == [Ping(b"!"), Text("é"), Binary(bytes(126)), Eof()]


async def test_receive_frame_shows_each_frame() -> None:
    frames = plain(2, b"a", fin=False) + plain(9) + plain(0, b"b" * 70000)
    async with serving(sending(frames)) as address, await WirePeer.connect(address) as peer:
        expected = [
            Frame(Opcode.BINARY, b"a", fin=False),
            Frame(Opcode.PING),
            Frame(Opcode.CONTINUATION, b"b" * 70000),
        ]
        assert [await peer.receive_frame() for _ in range(3)] == expected
        with pytest.raises(Closed, match="expected a frame, but the connection has ended"):
            await peer.receive_frame()
        assert peer.received == [Ping(), Binary(b"a" + b"b" * 70000)]
        assert str(expected[0]) == "BINARY unfinished length=1 b'a'"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (build_frame(1, b"a", mask=b"abcd"), "unexpected masked frame.*TEXT masked length=1 b'a'"),
        (plain(1, b"a", rsv=4), "Reserved bit set.*TEXT rsv=4"),
        (plain(9, b"", rsv=1), "Reserved bit set.*PING rsv=1"),
        (plain(3), "Invalid opcode 0x3.*opcode 3"),
        (plain(0xB), "Invalid opcode 0xb.*opcode 11"),
        (plain(9, fin=False), "fragment control frame"),
        (plain(9, bytes(126)), "payload len > 125"),
        (plain(0, b"a"), "unexpected CONTINUATION"),
        (plain(1, fin=False) + plain(1), "expected CONTINUATION"),
        (plain(1, b"\xff"), "invalid start byte.*1007 error"),
        (plain(8, b"\x03"), "CLOSE with 1 byte payload"),
        (plain(8, close_payload(999)), "invalid code.*CLOSE length=2 999"),
        (plain(8, close_payload(1005)), "local-only reason"),
        (plain(8, close_payload(2999)), "unknown reserved code"),
        (plain(8, close_payload(1014) + b"\xff"), "CLOSE reason"),
        (plain(8, close_payload(1000)) + plain(1), "a frame behind the close frame.*TEXT length=0"),
        (build_frame(2, b"a", mask=False, length_bits=16), "2 bytes when 1 would have sufficed"),
        (
            build_frame(2, mask=False, length=1 << 62),
            "a frame of 4611686018427387904 bytes is more than any check",
        ),
    ],
)
async def test_what_the_rfc_forbids_is_a_violation(frame: bytes, message: str) -> None:
    async with serving(sending(frame, hold=True)) as address, await WirePeer.connect(address) as peer:
        with pytest.raises(WireViolation, match=message):
            await peer.wait_eof()


async def test_a_violation_carries_its_frame() -> None:
    async with (
        serving(sending(plain(5, b"x") + plain(1, b"unjudged"))) as address,
        await WirePeer.connect(address) as peer,
    ):
        with pytest.raises(WireViolation) as caught:
            await peer.receive_frame()
        assert caught.value.frame == Frame(5, b"x")
        assert await peer.wait_eof() == Eof()


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1012, 1013, 1014, 3000, 4999])
async def test_every_legal_close_code_is_taken_and_answered(code: int) -> None:
    answer = asyncio.get_running_loop().create_future()

    async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(8, close_payload(code, "t")))
        answer.set_result(await reader.readexactly(8))

    async with serving(upgraded(after)) as address, await WirePeer.connect(address) as peer:
        assert await peer.receive_close() == Close(code, "t")
        assert await answer == build_frame(8, close_payload(code), mask=(await answer)[2:6])


async def test_pings_and_closes_are_answered_only_if_asked() -> None:
    for auto in (True, False):
        got = asyncio.get_running_loop().create_future()

        async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(plain(9, b"?") + plain(8))
            got.set_result(await reader.read(-1))  # noqa: B023

        async with serving(upgraded(after)) as address, await WirePeer.connect(address) as peer:
            peer.auto_pong = peer.auto_close = auto
            assert await peer.receive_close() == Close(1005)
            await peer.half_close()
            assert peer.close_sent is auto
            assert [byte & 0xF for byte in (await got)[:1]] == ([Opcode.PONG] if auto else [])
            assert len(await got) == (13 if auto else 0)


async def test_what_comes_must_be_what_was_expected() -> None:
    frames = plain(2, b"b") + plain(1, b"t") + plain(9)
    async with serving(sending(frames, hold=True)) as address, await WirePeer.connect(address) as peer:
        with pytest.raises(Unexpected, match=r"expected a text message, but got Binary\(data=b'b'\)"):
            await peer.receive_text()
        with pytest.raises(Unexpected, match=r"expected a binary message, but got Text\(data='t'\)"):
            await peer.receive_binary()
        with pytest.raises(Unexpected, match=r"expected silence for 5 s, but got .*PING"):
            await peer.expect_silence(5)
        await peer.expect_silence(FAST)
    async with (
        serving(sending(plain(8, close_payload(1000)))) as address,
        await WirePeer.connect(address) as peer,
    ):
        with pytest.raises(Closed, match=r"expected a message, but .* Close\(code=1000, text=''\)") as caught:
            await peer.receive_text()
        assert caught.value.end == Close(1000)
        with pytest.raises(Closed, match="expected a close frame, but the connection has ended: Eof"):
            await peer.receive_close()
        with pytest.raises(Unexpected, match="expected silence for 5 s, but got Eof"):
            await peer.expect_silence(5)
    async with serving(sending(b"\x81", hold=True)) as address, await WirePeer.connect(address) as peer:
        with pytest.raises(Unexpected, match=r"expected silence for 0.05 s, but got b'\\x81'"):
            await peer.expect_silence(FAST)


async def test_a_timeout_tells_what_was_missed_and_loses_nothing() -> None:
    proceed = asyncio.Event()

    async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(1, b"a", fin=False) + plain(0, b"bcd")[:3])
        await proceed.wait()
        writer.write(plain(0, b"bcd")[3:])

    async with serving(upgraded(after)) as address, await WirePeer.connect(address, timeout_scale=0.5) as peer:
        with pytest.raises(WireTimeout, match=r"expected a message within 0\.05 s; .*TEXT unfinished"):
            await peer.receive_message(0.1)
        proceed.set()
        assert await peer.receive_message() == Text("abcd")


async def test_the_end_of_the_stream_is_told_in_all_its_kinds() -> None:
    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    for handler, end in ((sending(b"\x81\x05abc"), Eof(False, 5)), (upgraded(abort), Eof(True))):
        async with serving(handler) as address, await WirePeer.connect(address) as peer:
            assert await peer.receive() == end
            assert await peer.wait_eof() == end
            assert peer.received == [end]


async def test_drain_counts_and_keeps_nothing() -> None:
    message = plain(1, b"a" * 9, fin=False) + plain(0, b"b")
    frames = message * 1000 + plain(9) + message * 500 + plain(8, close_payload(1001))
    async with serving(sending(frames, hold=True)) as address, await WirePeer.connect(address) as peer:
        assert await peer.drain(messages=3) == Drained(3, 30, None)
        assert await peer.drain(payload_bytes=35) == Drained(4, 40, None)
        assert await peer.drain() == Drained(1493, 14930, Close(1001))
        assert await peer.drain(timeout=FAST) == Drained(0, 0, None)
        assert peer.received == []
        assert len(peer.log.entries) < 15
    async with serving(sending()) as address, await WirePeer.connect(address) as peer:
        assert await peer.drain() == Drained(0, 0, Eof())


async def test_a_clogged_peer_holds_the_server_back() -> None:
    written = 0
    stuck = asyncio.Event()

    async def after(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.transport.set_write_buffer_limits(high=0)
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        for _i in range(100):
            writer.write(plain(2, bytes(65536)))
            asyncio.get_running_loop().call_later(FAST, stuck.set)
            await writer.drain()
            written += 1

    async with serving(upgraded(after)) as address, await WirePeer.connect(address, recv_buffer=4096) as peer:
        assert the_socket(peer).getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 65536
        await stuck.wait()
        assert written < 100
        assert await peer.drain() == Drained(100, 6553600, Eof())


# Ending.


@pytest.mark.parametrize("how", ["half_close", "close", "drop"])
async def test_how_the_server_sees_the_end(how: str) -> None:
    seen = asyncio.get_running_loop().create_future()

    async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.set_result(await reader.read(1))
        except ConnectionResetError as error:
            seen.set_result(type(error))
        writer.write(plain(1, b"still"))

    async with serving(upgraded(after)) as address, await WirePeer.connect(address) as peer:
        if how == "half_close":
            await peer.half_close()
            assert await peer.receive_text() == "still"
        else:
            {"close": peer.close, "drop": peer.drop}[how]()
        assert await seen == (ConnectionResetError if how == "drop" else b"")
        peer.drop()
        await peer.aclose()


async def test_a_closed_peer_does_nothing_more() -> None:
    async with serving(sending(hold=True)) as address:
        async with await WirePeer.connect(address) as peer:
            waiting = asyncio.create_task(peer.receive())
            await asyncio.sleep(0)  # it waits now
        with pytest.raises(WireError, match="this peer has closed its socket"):
            await waiting
        for call in (peer.receive(), peer.send_text("x")):
            with pytest.raises(WireError, match="this peer has closed its socket"):
                await call


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await WirePeer.open(str(tmp_path / "none"))


# Transports.


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    async with serving(echo, path=str(tmp_path / "s")) as address, await WirePeer.connect(address) as peer:
        await peer.send_text("a")
        assert await peer.receive_text() == "a"
        assert peer.local_address == ""


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_over_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    big = bytes(range(256)) * 4096
    async with serving(echo, tls=contexts[0]) as address:
        async with await WirePeer.connect(address, ssl=contexts[1]) as peer:
            await peer.send_binary(big)
            assert await peer.drain(payload_bytes=len(big)) == Drained(1, len(big), None)
            frame = build_frame(Opcode.TEXT, b"f" * 1000)
            flood, drained = await asyncio.gather(peer.flood(frame, 3000 * len(frame)), peer.drain(messages=3000))
            assert (flood, drained) == (3000 * len(frame), Drained(3000, 3_000_000, None))
            await peer.half_close()
            assert await peer.wait_eof() == Eof()
        assert any("TLSv1.3 established" in line for line in peer.log.lines())


async def test_a_flood_over_tls_can_stall_and_go_on(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    resume = asyncio.Event()

    async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await resume.wait()
        size = 0
        while data := await reader.read(1 << 20):
            size += len(data)
        sizes.append(size)

    sizes: list[int] = []
    frame = build_frame(Opcode.BINARY, bytes(9994))
    async with (
        serving(upgraded(after), tls=contexts[0]) as address,
        await WirePeer.connect(address, ssl=contexts[1]) as peer,
    ):
        sent = await peer.flood(frame, 64 << 20, timeout=FAST)
        assert 0 < sent < 64 << 20
        resume.set()
        await peer.send_close()
        await peer.half_close()
        await peer.wait_eof()
    assert sizes[0] >= sent
    assert (sizes[0] - 6) % len(frame) == 0


async def test_tls_that_ends_hard_is_the_end_of_the_stream(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with (
        serving(upgraded(after), tls=contexts[0]) as address,
        await WirePeer.connect(address, ssl=contexts[1]) as peer,
    ):
        assert isinstance(await peer.receive(), Eof)


async def test_a_certificate_for_another_name_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with serving(echo, tls=contexts[0]) as address:
        with pytest.raises(ssl.SSLCertVerificationError):
            await WirePeer.connect(address, ssl=contexts[1], server_hostname="other.example")


# The log.


def test_the_log_is_bounded_and_fit_for_json() -> None:
    log = WireLog(limit=2)
    for size in range(3):
        log.add("note", size, "x" * 1000)
    lines = log.lines()
    assert lines[0] == "(1 earlier entries are gone)"
    assert lines[1].endswith("note            1 B  " + "x" * 300 + "...")
    entries = json.loads(json.dumps(log.to_json()))
    assert [sorted(entry) for entry in entries] == [["at", "data", "direction", "size", "text"]] * 2
    assert [entry["size"] for entry in entries] == [1, 2]


async def test_many_frames_make_one_short_entry() -> None:
    async with serving(sending(hold=True)) as address, await WirePeer.connect(address, log=WireLog()) as peer:
        await peer.send_raw(build_frame(1, b"x" * 100000) + build_frame(9) * 9)
        await peer.send_raw(b"\x81")
        long, short = list(peer.log.entries)[-2:]
    assert long.text.startswith("TEXT masked length=100000 b'xxx")
    assert long.text.endswith("; and 6 more frames")
    assert (long.size, short.text) == (100014 + 9 * 6, r"b'\x81'")
