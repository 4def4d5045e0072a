"""What `BaseConnector` does for servers that are asyncio protocols: it accepts, refuses HTTP/2, drains, and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.certificates import contexts
from tests.fakes import FakeConnector, passes
from wsbridge import Application
from wsbridge._channel.draining import plain_connection
from wsbridge.connector import REFUSAL, BaseConnector, Taken, of_transport

TIMEOUT = 10.0
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Answering(asyncio.Protocol):
    """Answers each request; as long as `Serving.answer` is None it does not."""

    def __init__(self, connector: Serving) -> None:
        self.connector = connector
        self.transport: asyncio.Transport
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self.connector.refuse_http2(transport):
            self.connector.protocols.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n") and self.connector.answer is not None:
            self.connector.answering(self)
            self.transport.write(self.connector.answer)
            self.transport.close()


class Serving(FakeConnector):
    """A connector whose server is a protocol of the test's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Application([]), **{"shutdown_timeout": 4, **options})
        self.answer: bytes | None = ANSWER
        self.protocols: list[Answering] = []

    async def _start(self, sockets: list[socket.socket]) -> None:
        await super()._start(sockets)
        self.serve_protocols(sockets, lambda: Answering(self))

    async def _stop_listening(self) -> None:
        await BaseConnector._stop_listening(self)

    def _how_taken(self, protocol: Answering) -> Taken:
        return of_transport(protocol.transport)

    def _cut_answered(self, protocol: Answering) -> None:
        protocol.transport.abort()

    @property
    def address(self) -> tuple[str, int]:
        (address,) = self.addresses
        assert isinstance(address, tuple)
        return address

    async def connected(self) -> Answering:
        """Wait for the next connection."""
        await until(lambda: self.protocols)
        return self.protocols.pop(0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  (the other side of a socket tells of nothing)
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def client(address: tuple[str, int], **options: Any) -> AsyncIterator[tuple[asyncio.StreamReader, Any]]:
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(*address, **options)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def connect(address: tuple[str, int]) -> socket.socket:
    """Connect while the event loop stands still, so that it has not accepted yet."""
    return socket.create_connection(address, timeout=TIMEOUT)


def received(sock: socket.socket) -> bytes:
    """Return all that comes up to the end."""
    with sock.makefile("rb") as file:
        return file.read()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- accepting ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-8")
async def test_who_connects_is_served_by_a_protocol() -> None:
    async with Serving() as connector, client(connector.address) as (reader, writer):
        writer.write(REQUEST)
        assert await reader.read(-1) == ANSWER


@pytest.mark.rule("STOP-9")
async def test_who_waits_at_a_stop_is_accepted_and_answered() -> None:
    connector = Serving()
    await connector.start()
    with connect(connector.address) as waiting:
        waiting.sendall(REQUEST)
        await connector.stop()
        assert received(waiting) == ANSWER


@pytest.mark.rule("STOP-9")
async def test_who_is_connected_at_a_stop_may_complete_a_request() -> None:
    connector = Serving()
    await connector.start()
    async with client(connector.address) as (reader, writer):
        writer.write(REQUEST[:-2])
        await connector.connected()
        stopping = asyncio.create_task(connector.stop())
        await until(
            lambda: connector.addresses and connector._acceptor is not None and not connector._acceptor._sockets
        )
        writer.write(REQUEST[-2:])
        assert await reader.read(-1) == ANSWER
        await stopping
    assert connector.calls == ["start 1", "stop"]


@pytest.mark.rule("STOP-3", "STOP-9")
async def test_who_is_connected_at_a_stop_and_silent_is_cut() -> None:
    connector = Serving(shutdown_timeout=0.1)
    await connector.start()
    async with client(connector.address) as (reader, _):
        await connector.connected()
        await connector.stop()
        assert await reader.read(-1) == b""


@pytest.mark.rule("STOP-15")
async def test_who_waits_on_a_socket_that_was_handed_in_is_left_to_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connector = Serving(sockets=[listener])
        await connector.start()
        with connect(connector.address) as waiting:
            waiting.sendall(REQUEST)
            await connector.stop()
            assert connector.protocols == []
            async with connector:
                await connector.connected()
                await until(lambda: not connector._acceptor.is_asked)  # type: ignore[union-attr]
                assert received(waiting) == ANSWER


# ---- HTTP/2 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def h2() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context that offers HTTP/2, and a client's that selects it."""
    server, trusting = contexts()
    for context in (server, trusting):
        context.set_alpn_protocols(["h2", "http/1.1"])
    return server, trusting


@pytest.mark.rule("HS-18")
async def test_who_selects_http_2_is_told_to_use_http_1_1(
    h2: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    async with Serving(ssl=h2[0]) as connector:
        for _ in range(2):
            async with client(connector.address, ssl=h2[1]) as (reader, writer):
                writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                assert await reader.readexactly(len(REFUSAL)) == REFUSAL
                assert connector.is_draining
            await until(lambda: not connector.is_draining)  # the client has left
        h2[1].set_alpn_protocols(["http/1.1"])
        async with client(connector.address, ssl=h2[1]) as (reader, writer):
            writer.write(REQUEST)
            assert await reader.read(-1) == ANSWER
    [warning] = warnings(caplog)  # at the first alone
    assert "a client selected HTTP/2" in warning
    assert "the fake connector" in warning


@pytest.mark.rule("HS-18")
async def test_who_selects_http_2_and_stays_is_cut_at_the_stop(h2: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    connector = Serving(ssl=h2[0])
    await connector.start()
    async with client(connector.address, ssl=h2[1]) as (reader, _):
        assert await reader.readexactly(len(REFUSAL)) == REFUSAL
        await connector.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        await passes()
        assert not connector.is_draining


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-13")
async def test_who_does_not_read_an_answer_is_cut_at_the_handshake_timeout() -> None:
    async with Serving(handshake_timeout=7) as connector:
        time = connector.use_fake_time()
        connector.answer = bytes(32 << 20)
        async with client(connector.address) as (reader, writer):
            writer.write(REQUEST)
            protocol = await connector.connected()
            await until(lambda: protocol.transport.is_closing())
            time.advance(6.9)
            assert protocol.transport.get_write_buffer_size() > 0
            time.advance(0.2)
            await passes()
            assert protocol.transport.get_write_buffer_size() == 0
            with contextlib.suppress(ConnectionResetError):
                assert len(await reader.read(-1)) < len(connector.answer)


@pytest.mark.rule("HS-13")
async def test_what_is_written_to_a_channel_has_no_deadline() -> None:
    async with Serving(handshake_timeout=7) as connector:
        time = connector.use_fake_time()
        async with client(connector.address):
            protocol = await connector.connected()
            connector.answering(protocol)
            connector.upgraded(protocol)
            protocol.transport.write(bytes(32 << 20))
            time.advance(8)
            assert not protocol.transport.is_closing()
            connector.upgraded(protocol)


@pytest.mark.rule("HS-13")
async def test_a_mount_leaves_answers_to_the_framework() -> None:
    mounted = Serving()
    _ = mounted.loop
    time = mounted.use_fake_time()
    async with Serving() as connector, client(connector.address):
        protocol = await connector.connected()
        mounted.answering(protocol)
        assert time.timers == []


# ---- draining -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def draining(until: float | None) -> AsyncIterator[tuple[Serving, Any, Answering, Any]]:
    """Drain the server's side of a connection, for so many seconds or as a request with a body is drained."""
    async with Serving(handshake_timeout=7) as connector, client(connector.address) as (reader, writer):
        protocol = await connector.connected()
        time = connector.use_fake_time()
        connection = plain_connection(protocol.transport)
        assert connection is not None
        if until is None:
            connector.drain_answered(connection)
        else:
            connector.drain(*connection, time.now + until)
        assert time.timers == [time.now + (until or 7)]
        protocol.transport.close()
        assert await reader.read(-1) == b""
        yield connector, time, protocol, writer


@pytest.mark.rule("SEND-6", "HS-16")
@pytest.mark.parametrize("seconds", [3, None])
async def test_a_connection_is_drained_until_its_time_is_over(seconds: float | None) -> None:
    async with draining(seconds) as (connector, time, _, writer):
        time.advance((seconds or 7) - 0.1)
        assert connector.is_draining
        writer.write(b"late")
        await until(lambda: not writer.transport.get_write_buffer_size())
        time.advance(0.2)
        assert (connector.is_draining, time.timers) == (False, [])


@pytest.mark.rule("SEND-6")
async def test_a_connection_is_drained_until_its_peer_ends_it() -> None:
    async with draining(3) as (connector, time, _, writer):
        writer.close()
        await until(lambda: not connector.is_draining)
        assert time.timers == []


@pytest.mark.rule("SEND-6", "STOP-3")
async def test_a_stop_ends_what_is_drained() -> None:
    async with draining(3) as (connector, time, _, _):
        await connector.stop()
        assert (connector.is_draining, time.timers) == (False, [])


@pytest.mark.rule("SEND-6")
async def test_what_has_ended_is_not_drained() -> None:
    async with Serving() as connector:
        time = connector.use_fake_time()
        connector.drain_answered(None)  # such as TLS
        near, far = socket.socketpair()
        far.close()
        near.close()
        connector.drain(near, lambda: 0, time.now + 3)
        with connect(connector.address) as peer:
            protocol = await connector.connected()
            sock: socket.socket = protocol.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connector.drain(sock, lambda: 0, time.now + 3)  # its peer has reset it
        assert (connector.is_draining, time.timers) == (False, [])
