"""The suite's client for a connector without a wire: what it takes for bytes, and what such a connector must refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from wsbridge import Application, Request, WebSocketChannel, WebSocketOptions
from wsbridge.close import CloseReason
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.client import (
    Binary,
    Close,
    Closed,
    Eof,
    HandshakeRefused,
    NoWire,
    Opcode,
    Ping,
    Pong,
    Text,
    WirePeer,
    WireTimeout,
    build_frame,
    close_payload,
)
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.in_memory import MemoryDoor, MemoryLink
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict
from wsbridge.connectors import memory

pytestmark = pytest.mark.suite

CHECKS = {check.id: check for check in all_checks()}


class App:
    """An echo that keeps its channel and how it ended."""

    def __init__(self) -> None:
        self.channel: WebSocketChannel
        self.reasons: list[CloseReason] = []

    def opened(self, channel: WebSocketChannel, request: Request) -> None:
        self.channel = channel

    async def text(self, channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    async def binary(self, channel: WebSocketChannel, process: Any, data: bytes) -> None:
        await channel.send_binary(data)

    def closed(self, channel: WebSocketChannel, process: Any, reason: CloseReason) -> None:
        self.reasons.append(reason)

    def options(self) -> WebSocketOptions[Any]:
        return WebSocketOptions(on_open=self.opened, on_text=self.text, on_binary=self.binary, on_close=self.closed)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def served(app: App) -> AsyncGenerator[Served, None]:
    async with Bench(SuiteTarget("memory", memory.Connector)).serve(Application([("/", app.options())])) as served:
        yield served


async def test_frames_become_calls_and_calls_events(served: Served, app: App) -> None:
    async with served.peer() as peer:
        assert isinstance(peer.link, MemoryLink)
        for text in ("", "\u20ac", "x" * 70_000):
            await peer.send_text(text)
            assert await peer.receive() == Text(text)
        await peer.send_raw(build_frame(Opcode.BINARY, b"a", mask=b"abcd") + build_frame(Opcode.PING, b"b"))
        assert {await peer.receive(), await peer.receive()} == {Binary(b"a"), Pong(b"b")}
        await peer.send_close(4001, "bye")
        assert await peer.receive() == Close(4001, "bye")
        assert await peer.receive() == await peer.receive() == Eof()
        assert peer.link.connection is not None
        await peer.link.connection.task
    assert [(reason.code, reason.text) for reason in app.reasons] == [(4001, "bye")]


async def test_it_answers_only_when_it_reads(served: Served, app: App) -> None:
    async with served.peer() as peer:
        app.channel.close(4002)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not app.reasons
        assert await peer.receive_close() == Close(4002)
        assert await peer.wait_eof() == Eof()
        with pytest.raises(Closed):
            await peer.send_text("late")


async def test_pings_are_answered_unless_it_is_told_not_to(served: Served) -> None:
    async with served.peer() as peer:
        assert isinstance(peer.link, MemoryLink)
        connection = peer.link.connection
        assert connection is not None
        connection.put_control(memory.Ping(b"1"))
        assert await peer.receive() == Ping(b"1")
        peer.auto_pong = False
        with pytest.raises(WireTimeout, match="anything"):
            await peer.receive(0.01)


async def test_a_refusal_is_a_response(served: Served) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        async with served.peer("/nowhere"):
            pass
    assert (refused.value.response.status, refused.value.response.version) == (404, "HTTP/1.1")


BYTES = {
    "a first fragment": build_frame(Opcode.TEXT, b"a", fin=False),
    "a stray continuation": build_frame(Opcode.CONTINUATION, b"a"),
    "invalid UTF-8": build_frame(Opcode.TEXT, b"\xff"),
    "a reserved bit": build_frame(Opcode.TEXT, b"a", rsv=4),
    "no mask": build_frame(Opcode.TEXT, b"a", mask=False),
    "part of a frame": build_frame(Opcode.TEXT, b"whole")[:-1],
    "a reserved opcode": build_frame(3),
    "a ping of 126 bytes": build_frame(Opcode.PING, bytes(126)),
    "a close of one byte": build_frame(Opcode.CLOSE, b"\x03"),
    "a code that may not be sent": build_frame(Opcode.CLOSE, close_payload(1005)),
    "a close with invalid UTF-8": build_frame(Opcode.CLOSE, close_payload(1000) + b"\xff"),
    "part of a head": b"\x81",
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
async def test_what_only_bytes_can_be_is_refused(served: Served, data: bytes) -> None:
    async with served.peer() as peer:
        with pytest.raises(NoWire):
            await peer.send_raw(data)
        await peer.send_text("still open")
        assert await peer.receive_text() == "still open"


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET /\r\n\r\n", b"GET / HTTP/2\r\n\r\n"])
async def test_what_is_no_whole_request_is_refused(served: Served, request_: bytes) -> None:
    async with served.raw() as peer:
        with pytest.raises(NoWire):
            await peer.request(request_)
        with pytest.raises(NoWire):
            await peer.read_response()


async def test_options_of_sockets_are_refused(served: Served) -> None:
    with pytest.raises(NoWire, match="recv_buffer"):
        await WirePeer.open(served.address, recv_buffer=4096)


async def test_a_connector_that_does_not_run_is_not_there(served: Served) -> None:
    async with served.raw() as peer:
        assert served.connector is not None
        await served.connector.stop()
        with pytest.raises(Closed):
            await peer.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(Closed):
            await peer.read_response()


def test_only_the_memory_connector_has_such_a_door() -> None:
    with pytest.raises(TypeError, match="without a wire"):
        MemoryDoor.of(object())


# ---- the judgement --------------------------------------------------------------------------------------------------


def judged(connector: type[Any], check: str) -> CheckResult:
    return run_check(CHECKS[check], SuiteTarget("broken", connector), again=False)


class TakesAPort(memory.Connector):
    def __init__(self, app: Application, *, port: int = 0, **options: Any) -> None:
        super().__init__(app, **options)


class NoPongs(memory.Connector):
    def open(self, request: memory.ClientRequest, **options: Any) -> memory.Connection:
        connection = super().open(request, **options)
        put = connection.put_control

        def put_all_but_pongs(control: memory.Ping | memory.Pong | memory.Close | memory.End) -> None:
            if not isinstance(control, memory.Pong):
                put(control)

        connection.put_control = put_all_but_pongs  # type: ignore[method-assign]
        return connection


class ForgetsTheText(memory.Connector):
    def open(self, request: memory.ClientRequest, **options: Any) -> memory.Connection:
        connection = super().open(request, **options)
        close = connection.put_close
        connection.put_close = lambda code, text: close(code, "")  # type: ignore[method-assign]
        return connection


class NeverHoldsBack(memory.Connector):
    def open(self, request: memory.ClientRequest, **options: Any) -> memory.Connection:
        connection = super().open(request, **options)
        connection._window = 1 << 40
        return connection


class TakesLong(memory.Connector):
    """Its messages are long in the making, as those that a busy executor deflates."""

    overrides_internals = True

    def admit(self, channel: Any) -> None:
        async def send_binary(channel: Any, data: bytes) -> bool:
            await asyncio.sleep(0.05)
            return bool(await kind.send_binary(channel, data))

        kind = type(channel)
        over = {"__slots__": (), "overrides_internals": True, "send_binary": send_binary}
        channel.__class__ = type("Late", (kind,), over)
        super().admit(channel)


def test_the_refusal_of_what_needs_a_wire_is_checked() -> None:
    result = judged(TakesAPort, "RECV-9/reserved-bit")
    assert (result.verdict, result.message) == (
        Verdict.FAIL,
        "port=8000 was accepted, although the feature 'wire' is not declared",
    )
    right = judged(memory.Connector, "RECV-9/reserved-bit")
    assert (right.verdict, right.message) == (Verdict.UNSUPPORTED, "wire: refused")


@pytest.mark.parametrize(
    ("connector", "check"),
    [
        (NoPongs, "RECV-7/pings-are-answered"),
        (ForgetsTheText, "CLOSE-4/the-peer-gets-code-and-text"),
        (NeverHoldsBack, "FLOW-2/one-task-sends"),
    ],
)
def test_a_broken_one_is_caught(connector: type[Any], check: str) -> None:
    assert judged(memory.Connector, check).verdict is Verdict.PASS
    assert judged(connector, check).verdict is Verdict.FAIL


@pytest.mark.rule("SEND-6")
def test_a_close_among_senders_waits_for_the_first_message() -> None:
    result = judged(TakesLong, "SEND-6/a-close-among-senders")
    assert (result.verdict, result.message) == (Verdict.PASS, "")
