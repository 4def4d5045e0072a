"""What the picows connector does beyond the suite: the mends of picows' handshake, its native objects, its own HTTP."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.processes import TIMEOUT
from wsbridge import Application, Interceptor, Response, UnsupportedOptionError, WebSocketChannel, WebSocketOptions
from wsbridge.interceptor import Context

pytest.importorskip("picows")
pytest.importorskip("httptools")
pytest.importorskip("wsproto")

from wsbridge.conformance.client import HandshakeRequest, HttpResponse, Opcode, WirePeer, build_frame
from wsbridge.connectors._codecs import http1 as _http1
from wsbridge.connectors._codecs.answers import final_response
from wsbridge.connectors._codecs.http1 import BadRequestError, parse_head
from wsbridge.connectors.picows import Connector, PicowsChannel, PicowsRequest


async def echo(channel: WebSocketChannel, process: None, message: Any) -> None:
    await (channel.send_text(message) if isinstance(message, str) else channel.send_binary(message))


ECHO = WebSocketOptions(on_text=echo, on_binary=echo)


@asynccontextmanager
async def serving(*routes: Any, interceptors: Any = (), **options: Any) -> AsyncGenerator[tuple[str, int]]:
    app = Application(routes or [("/", ECHO)], interceptors)
    async with asyncio.timeout(TIMEOUT), Connector(app, **options) as connector:
        address = connector.addresses[0]
        assert isinstance(address, tuple)
        yield address


async def answer(address: tuple[str, int], *parts: bytes) -> HttpResponse:
    async with await WirePeer.open(address) as peer:
        for part in parts:
            await peer.request(part)
        return await peer.read_response()


# ---- the handshake ----------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-1")
async def test_the_handshake_of_firefox() -> None:
    request = (
        "GET / HTTP/1.1\r\nHost: {}:{}\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\nAccept: */*\r\n"
        "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nSec-WebSocket-Version: 13\r\n"
        "Origin: http://{}:{}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nDNT: 1\r\nConnection: keep-alive, Upgrade\r\n"
        "Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\nSec-Fetch-Site: same-origin\r\nPragma: no-cache\r\n"
        "Cache-Control: no-cache\r\nUpgrade: websocket\r\n\r\n"
    )
    async with serving() as address:
        response = await answer(address, request.format(*address, *address).encode())
    assert response.status == 101
    assert response.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert response.header("Sec-WebSocket-Extensions") is None


@pytest.mark.rule("HS-4", "CTX-2")
async def test_interceptors_take_their_time() -> None:
    """picows asks for its listener by a plain function; a chain that awaits, in any stage, is no matter here."""
    order: list[str] = []
    begun, gate = asyncio.Event(), asyncio.Event()

    async def enter(context: Context) -> None:
        order.append("enter")
        begun.set()
        await gate.wait()
        order.append("entered")

    async def leave(context: Context) -> None:
        await asyncio.sleep(0)
        order.append("left")

    options = WebSocketOptions(on_open=lambda channel, request: order.append("open"), on_text=echo)
    slow = Interceptor(name="slow", enter=enter, leave=leave)
    async with serving(("/", options), interceptors=[slow]) as address:
        request = HandshakeRequest.build(address, target="/")
        async with await WirePeer.open(address) as peer:
            await peer.request(request.encode() + build_frame(Opcode.TEXT, b"early"))
            await begun.wait()
            gate.set()
            peer.start_websocket(request, await peer.read_response())
            assert await peer.receive_text() == "early"
    assert order == ["enter", "entered", "left", "open"]


@pytest.mark.rule("HS-9")
@pytest.mark.parametrize("is_async", [False, True])
async def test_no_word_of_an_exception_reaches_the_peer(caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    def fails(context: Context) -> None:
        raise RuntimeError("secret")

    async def fails_later(context: Context) -> None:
        await asyncio.sleep(0)
        fails(context)

    bad = Interceptor(name="bad", enter=fails_later if is_async else fails)
    async with serving(interceptors=[bad]) as address:
        response = await answer(address, HandshakeRequest.build(address, target="/").encode())
    assert response.status == 500
    assert b"secret" not in response.body + repr(response.headers).encode()
    assert "secret" in caplog.text


@pytest.mark.rule("STOP-4")
def test_a_unix_socket_is_refused(tmp_path: Any) -> None:
    with pytest.raises(UnsupportedOptionError, match="the picows connector cannot honour unix_path"):
        Connector(Application([("/", ECHO)]), unix_path=str(tmp_path / "socket"))


@pytest.mark.rule("SEND-8")
def test_compression_is_refused() -> None:
    with pytest.raises(UnsupportedOptionError, match="the picows connector cannot honour compression"):
        Connector(Application([("/", WebSocketOptions(on_text=echo, compression=True))]))


@pytest.mark.rule("HS-4")
async def test_what_is_no_request_is_refused() -> None:
    end = b"\r\n\r\n"
    async with serving() as address:
        for status, raw in (
            (400, b"HELLO" + end),
            (400, b"GET / HTTP/1.1\r\nHost : x" + end),
            (405, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3" + end + b"abc"),
            (405, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + end),
            (431, b"GET / HTTP/1.1\r\nX: " + b"x" * 65536),
            (431, b"GET / HTTP/1.1\r\nX: " + b"x" * 65536 + end),
            (404, b"BREW /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0" + end),
        ):
            assert (await answer(address, raw)).status == status, raw[:60]


@pytest.mark.rule("HS-8", "HS-9")
async def test_a_header_that_cannot_be_sent_is_500_and_no_channel(caplog: pytest.LogCaptureFixture) -> None:
    opened: list[object] = []

    def add(context: Context) -> None:
        context["websocket_channel_source"].response_headers["X-Name"] = "\N{SNOWMAN}"

    def refuse(context: Context) -> None:
        context["response"] = Response("no", 403, {"X-Name": "\N{SNOWMAN}"})

    options = WebSocketOptions(on_open=lambda channel, request: opened.append(channel))
    for stage in (add, refuse):
        async with serving(("/", options), interceptors=[Interceptor(name="x", enter=stage)]) as address:
            response = await answer(address, HandshakeRequest.build(address, target="/").encode())
        assert (response.status, opened) == (500, [])
    assert caplog.text.count("the header 'X-Name' cannot be sent") == 2


# ---- native -----------------------------------------------------------------------------------------------------


async def test_the_native_objects_tell_of_the_handshake_as_it_was() -> None:
    seen: asyncio.Future[tuple[PicowsChannel, PicowsRequest]] = asyncio.get_running_loop().create_future()
    options = WebSocketOptions(on_open=lambda channel, request: seen.set_result((channel, request)))
    async with serving(("/a", options)) as address:
        request = HandshakeRequest.build(address, target="/a?q=1", replace={"Connection": "keep-alive, Upgrade"})
        async with await WirePeer.open(address) as peer:
            await peer.upgrade(request)
            channel, got = await seen
            native = channel.native
            for each in (got.native, native.request):
                assert (each.method, each.path, each.version) == (b"GET", b"/a?q=1", b"HTTP/1.1")
                assert each.headers["connection"] == "keep-alive, Upgrade"
            assert native.response.status == 101
            assert native.underlying_transport.get_extra_info("peername") == peer.local_address
            native.send_ping(b"by hand")
            assert (await peer.receive_frame()).payload == b"by hand"


@pytest.mark.rule("CLOSE-7")
async def test_a_close_by_the_native_object_is_the_channels() -> None:
    seen: asyncio.Future[PicowsChannel] = asyncio.get_running_loop().create_future()
    options = WebSocketOptions(on_open=lambda channel, request: seen.set_result(channel))
    async with serving(("/", options)) as address:
        async with await WirePeer.connect(address, target="/") as peer:
            channel = await seen
            channel.native.send_close(4001, "by hand")  # type: ignore[arg-type]
            close = await peer.receive_close()
            assert (close.code, close.text) == (4001, "by hand")
            reason = await channel.wait_closed()
        assert (reason.code, reason.text, reason.initiator) == (4001, "by hand", "local")


@pytest.mark.rule("CLOSE-7")
async def test_a_disconnect_by_the_native_object_is_a_loss() -> None:
    seen: asyncio.Future[PicowsChannel] = asyncio.get_running_loop().create_future()
    options = WebSocketOptions(on_open=lambda channel, request: seen.set_result(channel))
    async with serving(("/", options)) as address, await WirePeer.connect(address, target="/") as peer:
        channel = await seen
        channel.native.disconnect()
        await peer.wait_eof()
        assert (await channel.wait_closed()).code == 1006


# ---- receiving --------------------------------------------------------------------------------------------------


@pytest.mark.rule("RECV-9", "RECV-7")
async def test_what_stands_before_a_violation_in_one_read_is_handled_before_it() -> None:
    """picows finds the violation before it hands on the frame in front of it."""
    async with serving() as address:
        for first, expected in ((build_frame(Opcode.PING, b"p"), Opcode.PONG), (build_frame(Opcode.TEXT), None)):
            async with await WirePeer.connect(address, target="/") as peer:
                await peer.send_raw(first + build_frame(0x3, b"x"))
                frames = [await peer.receive_frame()]
                if expected is not None:
                    assert frames[-1].opcode == expected
                    frames.append(await peer.receive_frame())
                assert frames[-1].payload[:2] == (1002).to_bytes(2)


@pytest.mark.rule("CLOSE-4")
async def test_a_violation_behind_a_close_is_not_seen() -> None:
    async with serving() as address, await WirePeer.connect(address, target="/") as peer:
        await peer.send_raw(build_frame(Opcode.CLOSE, (4321).to_bytes(2)) + build_frame(0x3, b"x"))
        assert (await peer.receive_close()).code == 4321


@pytest.mark.rule("LIM-1")
async def test_a_head_in_pieces_is_refused_as_soon_as_it_tells() -> None:
    options = WebSocketOptions(on_text=echo, on_binary=echo, max_text_size=1000, max_binary_size=1 << 20)
    head = build_frame(Opcode.TEXT, length=1001)
    async with serving(("/", options)) as address:
        for before in (b"", build_frame(Opcode.BINARY, b"x"), build_frame(Opcode.PONG)):
            async with await WirePeer.connect(address, target="/") as peer:
                await peer.send_raw(before + head[:1])
                if before and before[0] & 15 == Opcode.BINARY:
                    assert await peer.receive_binary() == b"x"
                for position in range(1, len(head)):
                    await peer.send_raw(head[position : position + 1])
                    await asyncio.sleep(0)
                assert (await peer.receive_close()).code == 1009


async def test_picows_logs_no_error_for_what_a_peer_sends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving() as address:
            for bad in (build_frame(0x3), build_frame(Opcode.TEXT, b"\xff"), build_frame(Opcode.TEXT, length=1 << 40)):
                async with await WirePeer.connect(address, target="/") as peer:
                    await peer.send_raw(bad)
                    await peer.receive_close()
    assert caplog.records == []


async def test_the_read_buffer_is_an_option() -> None:
    async with (
        serving(native_options={"read_buffer_init_size": 2048}) as address,
        await WirePeer.connect(address, target="/") as peer,
    ):
        await peer.send_text("x" * 100_000)
        assert await peer.receive_text() == "x" * 100_000


# ---- HTTP -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-2")
def test_a_head_is_parsed_to_the_letter() -> None:
    head = parse_head(b"BREW /\xff%20?\xe9 HTTP/1.0\r\nA:  b c \t\r\nEmpty:\r\na: \xe9\r\nContent-Length: 00\r\n\r\n")
    assert head == (
        *("BREW", "/\xff%20?\xe9", "1.0"),
        *([("A", "b c"), ("Empty", ""), ("a", "\xe9"), ("Content-Length", "00")],),
    )


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.2\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n"),
        *(b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\r\nA: b\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"),
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_bad_head(head: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_head(head)


@pytest.mark.rule("HS-4")
def test_what_is_parsed_without_llhttp_is_what_llhttp_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"A:b\r\n", b"Host: \tc d\t \r\n", b"e:\r\n", b"f: \xe9,:\r\n", b"Upgrade: websocket\r\n", b"a: B\r\n"]
    lines += [b"b : c\r\n", b"@: c\r\n", b"d: \0\r\n", b"e: \x7f\r\n", b" f\r\n", b"g\r\n", b"h: i\n", b"j: \rk\r\n"]
    with_llhttp = 0
    for chosen in itertools.product(lines, repeat=3):
        head = b"GET / HTTP/1.1\r\n%b\r\n" % b"".join(chosen)
        found: list[object] = []
        for plain in (_http1._PLAIN, re.compile("(?!)")):
            with monkeypatch.context() as patched:
                patched.setattr(_http1, "_PLAIN", plain)
                try:
                    found.append(parse_head(head))
                except BadRequestError:
                    found.append(None)
        assert found[0] == found[1], head
        with_llhttp += found[0] is None
    assert 0 < with_llhttp < len(lines) ** 3


@pytest.mark.rule("HS-7")
def test_a_response_on_the_wire() -> None:
    response = Response("text", 418, [("X", "1"), ("x", "\xe9"), ("Content-Length", "9"), ("Date", "now")])
    head = b"HTTP/1.1 418 I'm a Teapot\r\nX: 1\r\nx: \xe9\r\n"
    sent = final_response(response, "GET")
    assert sent.startswith(head)
    assert sent.endswith(b"\r\nContent-Length: 4\r\n\r\ntext")
    assert b"\r\nDate: now\r\n" in sent
    assert b"\r\nConnection: close\r\n" in sent
    assert final_response(response, "HEAD") == sent.removesuffix(b"text")
    assert b"Content-Length" not in final_response(Response("", 204), "GET")
