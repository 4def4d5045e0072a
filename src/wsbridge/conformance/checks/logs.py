"""LOG-1 to LOG-3: what stands in the log because of a peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable, Generator
from typing import Any

from wsbridge.application import Application
from wsbridge.codec import json_codec
from wsbridge.conformance.checks.common import pair
from wsbridge.conformance.checks.hs import handshake
from wsbridge.conformance.client import Opcode, WireError, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.certificates import Certificates
from wsbridge.protocols import WebSocketChannel

_LONG = "/" + "x" * 3000
_UGLY = "\n\x1b[31mforged\u2028\u202e"
_REFUSED = "refused with "  # the line of HS-14, which has a bound of its own
_MOST = 100  # characters of a peer's

_BAD_REQUESTS: dict[str, bytes] = {
    "nothing": b"",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40,
    "no HTTP": b"\x00\x01\x02 nothing that HTTP knows\r\n\r\n",
    "half a request": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bad header": b"GET / HTTP/1.1\r\nHost: x\r\nno colon " + b"y" * 3000 + b"\r\n\r\n",
    "a bad length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a bad coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "bad chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a head without end": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000,
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 400 + b"\r\n",
    "another path": b"GET " + _LONG.encode() + b"?token=secret HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is none": b"GET /%zz/%0a%ff?%80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no upgrade": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    "another upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
}
_BAD_FRAMES: dict[str, bytes] = {
    "nothing": b"",
    "half a frame": build_frame(Opcode.TEXT, b"half of it")[:-3],
    "a reserved bit": build_frame(Opcode.TEXT, b"x", rsv=2),
    "a reserved opcode": build_frame(5, b"x"),
    "no mask": build_frame(Opcode.PING, b"x", mask=False),
    "invalid UTF-8": build_frame(Opcode.TEXT, b"\xff" * 3000),
    "a long ping": build_frame(Opcode.PING, b"x" * 126),
    "a bad code": build_frame(Opcode.CLOSE, struct.pack("!H", 1006) + b"why"),
    "a bad reason": build_frame(Opcode.CLOSE, close_payload(1000) + b"\xff"),
    "half a close": build_frame(Opcode.CLOSE, b"x"),
    "a close with a forged reason": build_frame(Opcode.CLOSE, close_payload(4000, _UGLY)),
    "no beginning": build_frame(Opcode.CONTINUATION, b"x"),
    "a message that is too big": build_frame(Opcode.BINARY, b"x" * 70_000),
    "a length of 2**63": struct.pack("!BBQ", 0x82, 0xFF, 2**63) + b"\0" * 40,
}


class _All(logging.Handler):
    """Takes what is logged from the level info on, by whomever."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def all_records() -> Generator[list[logging.LogRecord], None, None]:
    """Yield the list of all that is logged from here on; that of this library too, which the bench keeps from root."""
    handler = _All()
    loggers = (logging.getLogger(), logging.getLogger("wsbridge"))
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.INFO)
        one.addHandler(handler)
    try:
        yield handler.records
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(handler)
            one.setLevel(level)


async def _end(peer: WirePeer) -> None:
    """Read to the end, having ended the sending side."""
    with contextlib.suppress(WireError, OSError):
        await peer.half_close()
        await peer.wait_eof()


def _judge(records: list[logging.LogRecord], what: str, *, connections: int = 1) -> None:
    for record in records:
        text = logging.Formatter().format(record)
        true(len(text) < 5 * _MOST and text.isprintable(), f"after {what} was logged: {text[:300]!r}")
    records = [record for record in records if not record.getMessage().startswith(_REFUSED)]
    lines = [f"{record.levelname} {record.name}: {record.getMessage()[:200]!r}" for record in records]
    true(len(records) <= connections, f"after {what} {len(records)} records were logged: {lines[:5]}")
    true(all(record.levelno <= logging.WARNING for record in records), f"after {what} was logged: {lines}")


@check("LOG-1", wire=True, fixed=["served"])
async def bad_requests(bench: Bench) -> None:
    """No request, however malformed, is worth more than one short record, and none above a warning."""
    async with bench.serve() as served:
        for what, request in _BAD_REQUESTS.items():
            with all_records() as records:
                async with served.raw() as peer:
                    with contextlib.suppress(OSError):  # the server was faster
                        await peer.request(request)
                    await _end(peer)
                async with served.raw() as peer:
                    with contextlib.suppress(OSError):
                        await peer.request(request)
                    peer.drop()
                await _later(bench, served)
                _judge(records, f"{what}, which is sent twice,", connections=2)
    equal(bench.recorder.all("error"), [], "what on_error was told")


async def _later(bench: Bench, served: Served) -> None:
    """Open a channel and end it, after what came before."""
    async with served.peer() as peer:
        await peer.send_close(1000)
        await peer.wait_eof()


@check("LOG-1", wire=True, fixed=["served"])
async def bad_frames(bench: Bench) -> None:
    """No frame, however malformed, is worth more than one short record, and none above a warning."""
    neutral = bench.target.neutral
    limits: dict[str, Any] = {} if "max_text_size" in neutral else {"max_text_size": 65536, "max_binary_size": 65536}

    async def echo(channel: WebSocketChannel, process: Any, message: Any) -> None:
        await channel.send(message)

    options = bench.bare_options(on_text=echo, on_binary=echo, **limits)
    async with bench.serve(options) as served:
        for what, frame in _BAD_FRAMES.items():
            with all_records() as records:
                async with served.raw() as peer:
                    built = handshake(served, headers=[("Sec-WebSocket-Protocol", "x" * 500)])
                    await peer.request(built.encode())
                    equal((await peer.read_response()).status, 101, "the status")
                    await peer.send_raw(build_frame(Opcode.TEXT, b"before") + frame)
                    await _end_raw(peer)
                await _later(bench, served)
                _judge(records, what)


async def _end_raw(peer: WirePeer) -> None:
    """As `_end`, where what comes is not HTTP, and is not judged."""
    with contextlib.suppress(WireError, OSError):
        await peer.half_close()
        await peer.skip_to_end()


@check("LOG-1", fixed=["served"])
async def an_ordinary_channel(bench: Bench) -> None:
    """A channel that opens, talks and ends as it should leaves at most one record."""
    async with bench.serve() as served:
        with all_records() as records:
            async with served.peer("/?token=secret") as peer:
                await peer.send_text("hello")
                await bench.recorder.wait("text")
                await peer.send_close(4000, "bye")
                await bench.recorder.closed()
                await peer.wait_eof()
            _judge(records, "an ordinary channel")
            true(not any("secret" in record.getMessage() for record in records), "the query stands in the log")


@check("LOG-2", fixed=["path", "served"])
async def paths_are_cut(bench: Bench) -> None:
    """A path that is long, or has control characters in it, stands cut and escaped in what is logged of a failure."""

    def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        raise RuntimeError("on_text raises")

    app = Application([("/{name:path}", bench.options(on_text=on_text))])
    async with bench.serve(app) as served:
        for number, path in enumerate((_LONG, "/%0Aforged%1B%5B31m"), 1):
            async with served.peer(path) as peer:
                await peer.send_text("x")
                await peer.receive_close()
                await bench.recorder.closed(number)
        errors = [record for record in bench.logs if record.levelno >= logging.ERROR]
        equal(len(errors), 2, "the number of errors logged")
        for record in errors:
            text = record.getMessage()
            true(len(text) < 3 * _MOST and text.isprintable(), f"what was logged of a path: {text[:300]!r}")


@check("LOG-2")
async def messages_are_cut(bench: Bench) -> None:
    """A message that does not decode is told of in one short line, whatever it has in it."""

    class Quoting:
        def encode(self, message: Any) -> str:
            return str(message)

        def decode(self, data: str | bytes) -> Any:
            raise ValueError(f"this is nothing that I know: {data!s}")

    def on_message(channel: WebSocketChannel, process: Any, message: Any) -> None:
        raise AssertionError("nothing decodes")

    async with bench.serve(bench.bare_options(on_message=on_message, codec=Quoting())) as served:
        for text in ("x" * 100_000, _UGLY):
            bench.logs.clear()
            async with served.peer() as peer:
                await peer.send_text(text)
                equal((await peer.receive_close()).code, 1007, "the code")
            records = [record for record in bench.logs if record.levelno > logging.DEBUG]
            equal([record.levelno for record in records], [logging.WARNING], "the levels of what was logged")
            line = logging.Formatter().format(records[0])
            true("this is nothing that I know" in line, f"what was wrong is not told: {line[:300]!r}")
            true(len(line) < 5 * _MOST and line.isprintable(), f"what was logged: {line[:600]!r}")


@check("LOG-2")
async def what_is_no_json(bench: Bench) -> None:
    """`json_codec` has one short line logged of what is not JSON, however much of it there is."""

    def on_message(channel: WebSocketChannel, process: Any, message: Any) -> None:
        raise AssertionError("nothing decodes")

    async with bench.serve(bench.bare_options(on_message=on_message, codec=json_codec())) as served:
        async with served.peer() as peer:
            await peer.send_text('{"' + "A" * 100_000)
            equal((await peer.receive_close()).code, 1007, "the code")
        lines = [logging.Formatter().format(record) for record in bench.logs if record.levelno > logging.DEBUG]
        equal(len(lines), 1, "the number of records")
        true(len(lines[0]) < 5 * _MOST and lines[0].isprintable(), f"what was logged: {lines[0][:600]!r}")


async def _leave_in_mid_flood(
    bench: Bench, leave: Callable[[WirePeer], object], frame: bytes, certificates: Certificates | None = None
) -> None:
    async def echo(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    tls: dict[str, Any] = {} if certificates is None else {"ssl": certificates.server}
    over: dict[str, Any] = (
        {} if certificates is None else {"ssl": certificates.client(), "server_hostname": "localhost"}
    )
    async with bench.serve(bench.options(on_text=echo), **tls) as served:
        with all_records() as records:
            for number in range(1, 21):
                async with pair(bench, served, **over) as (peer, _):
                    await peer.send_raw(frame * 200)
                    leave(peer)
                    await bench.recorder.closed(number)
            lines = [f"{record.levelname} {record.name}: {record.getMessage()[:200]}" for record in records]
            equal(lines[:5], [], f"{len(lines)} records were logged of 20 peers that left")


@check("LOG-3", stochastic=True, fixed=["served"])
async def in_mid_answer(bench: Bench) -> None:
    """Peers that reset the connection while their messages are answered leave nothing in the log."""
    await _leave_in_mid_flood(bench, lambda peer: peer.drop(), build_frame(Opcode.TEXT, b"hi"))


@check("LOG-3", stochastic=True, fixed=["served"])
async def in_mid_pong(bench: Bench) -> None:
    """Peers that reset the connection while their pings are answered leave nothing in the log."""
    await _leave_in_mid_flood(bench, lambda peer: peer.drop(), build_frame(Opcode.PING, b"hi"))


@check("LOG-3", wire=True, tls=True, stochastic=True)
async def over_tls_in_mid_answer(bench: Bench) -> None:
    """Over TLS, too, peers that reset the connection while they are answered leave nothing in the log."""
    frame = build_frame(Opcode.TEXT, b"hi")
    await _leave_in_mid_flood(bench, lambda peer: peer.drop(), frame, Certificates())


@check("LOG-3", stochastic=True, fixed=["served"])
async def in_mid_send(bench: Bench) -> None:
    """A peer that goes while the application sends to it without an end leaves nothing in the log."""

    async def send(channel: WebSocketChannel, request: Any) -> None:
        while await channel.send_text("x" * 200):  # noqa: ASYNC110
            await asyncio.sleep(0)  # the peer gets its turn

    async with bench.serve(bench.options(on_open=send)) as served:
        with all_records() as records:
            for number in range(1, 11):
                async with pair(bench, served) as (peer, _):
                    await peer.receive_text()
                    peer.drop()
                    await bench.recorder.closed(number)
            lines = [f"{record.levelname} {record.name}: {record.getMessage()[:200]}" for record in records]
            equal(lines[:5], [], f"{len(lines)} records were logged of 10 peers that left")
