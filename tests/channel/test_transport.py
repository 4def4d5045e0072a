"""Channels whose connection is an asyncio transport, on loopback; and how such a connection is cut and half closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.certificates import contexts
from tests.fakes import FakeConnector, handshake, passes
from wsbridge import WebSocketOptions
from wsbridge._channel.transport import abort, aborter, anchor, end_writing
from wsbridge.connector import TransportChannel, end_of, request_parts

TIMEOUT = 10.0


class Lines(TransportChannel):
    """A channel whose messages are lines, and its close frame too."""

    __slots__ = ()

    def _send_text(self, text: str) -> None:
        self._transport.write(f"{text}\n".encode())

    def _send_binary(self, data: bytes) -> None:
        self._transport.write(data + b"\n")

    def _close(self, code: int | None, text: str) -> None:
        self._transport.write(f"close {code}\n".encode())


class Protocol(asyncio.Protocol):
    """Reads lines: ``close`` is a close frame, ``violation`` what no peer may send, all else a text."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.rest = b""
        self.channel: Lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        connector = self.served.connector
        channel = self.channel = Lines(connector, handshake(scheme=self.served.scheme), self.served.options, None)
        channel._transport = transport
        connector.admit(channel)
        connector.run_channel(channel)
        self.served.channels.put_nowait(channel)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line == b"close":
                self.channel.peer_closed(1000, "")
            elif line == b"violation":
                self.channel.failed(1002)
            else:
                self.channel.feed(line.decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.channel.connection_lost()

    def pause_writing(self) -> None:
        self.channel.pause_writing()

    def resume_writing(self) -> None:
        self.channel.resume_writing()


class Served:
    """A server of such channels."""

    def __init__(self, scheme: str, **options: Any) -> None:
        self.scheme = scheme
        self.connector = FakeConnector()
        self.options: WebSocketOptions[Any] = WebSocketOptions(ping_interval=None, **options)
        self.channels: asyncio.Queue[Lines] = asyncio.Queue()


@contextlib.asynccontextmanager
async def served(*, tls: bool = False, **options: Any) -> AsyncIterator[tuple[Lines, asyncio.StreamReader, Any]]:
    """Yield a channel, and its peer's reader and writer."""
    server_tls: ssl.SSLContext | None
    client_tls: ssl.SSLContext | None
    server_tls, client_tls = contexts() if tls else (None, None)
    made = Served("wss" if tls else "ws", **options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(made), "127.0.0.1", 0, ssl=server_tls)
    async with asyncio.timeout(TIMEOUT), server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_tls)
        channel = await made.channels.get()
        try:
            yield channel, reader, writer
        finally:
            writer.transport.abort()
            channel._transport.abort()
            if made.connector.tasks:
                await asyncio.wait(made.connector.tasks)
    assert made.connector.channels == ()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  (the other side of a socket tells of nothing)
            await asyncio.sleep(0.001)


# ---- channels -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLOSE-4")
@pytest.mark.parametrize("tls", [False, True])
async def test_a_peers_close_is_answered_and_ends_the_connection(tls: bool) -> None:
    async with served(tls=tls) as (channel, reader, writer):
        assert await channel.send_text("hello")
        assert await channel.send_binary(b"there")
        writer.write(b"close\n")
        assert await reader.read(-1) == b"hello\nthere\nclose 1000\n"
        assert (await channel.wait_closed()).initiator == "peer"


@pytest.mark.rule("RECV-8", "CLOSE-5")
async def test_after_a_violation_the_peer_reads_why_and_may_send_on() -> None:
    async with served() as (channel, reader, writer):
        writer.write(b"violation\n")
        assert await reader.read(-1) == b"close 1002\n"
        assert not channel._transport.is_closing()  # its sending side alone is
        writer.write(b"more\n" * 1000)
        await writer.drain()
        writer.close()
        await until(channel._transport.is_closing)


@pytest.mark.rule("RECV-8", "CLOSE-5")
async def test_after_a_violation_tls_has_no_half_to_end() -> None:
    async with served(tls=True) as (channel, reader, writer):
        writer.write(b"violation\n")
        assert await reader.readline() == b"close 1002\n"
        assert not channel._transport.is_closing()
        assert not reader.at_eof()
        writer.close()
        await until(channel._transport.is_closing)


@pytest.mark.rule("FLOW-1")
async def test_a_peer_is_read_no_faster_than_its_messages_are_taken() -> None:
    taken: list[str] = []
    gate = asyncio.Event()

    async def on_text(channel: Any, process: Any, text: str) -> None:
        await gate.wait()
        taken.append(text)

    async with served(on_text=on_text) as (channel, _, writer):
        numbers = [str(number) for number in range(1000)]
        writer.writelines(f"{number}\n".encode() for number in numbers)
        await until(lambda: not channel._transport.is_reading())
        gate.set()
        await until(lambda: taken == numbers)
        assert channel._transport.is_reading()


@pytest.mark.rule("FLOW-2", "CLOSE-5")
async def test_what_is_unsent_is_told_and_can_be_cut() -> None:
    async with served() as (channel, reader, _):
        size = 32 << 20
        assert await channel.send_binary(bytes(size))
        assert channel._unsent_bytes() > 0
        waiting = asyncio.create_task(channel.send_text("after"))
        await passes()
        assert not waiting.done()
        channel.cut_off()
        assert await waiting is False
        await passes()
        assert channel._unsent_bytes() == 0
        with contextlib.suppress(ConnectionResetError):
            assert len(await reader.read(-1)) < size


@pytest.mark.rule("SEND-6")
async def test_a_peer_that_is_behind_with_reading_gets_all_whatever_it_sends_after_its_close() -> None:
    async with served() as (channel, reader, writer):
        size = 1 << 20
        assert await channel.send_binary(bytes(size))
        writer.write(b"close\n" + b"late\n" * 1000)
        await channel.wait_closed()
        writer.write(b"later\n" * 1000)
        assert len(await reader.read(-1)) == size + len(b"\nclose 1000\n")
        connector: Any = channel._connector
        assert connector.is_draining
        writer.close()
        await until(lambda: not connector.is_draining)


# ---- connections ----------------------------------------------------------------------------------------------------


class Slotted:
    """A transport of which there is no weak reference, as uvloop's of TLS."""

    __slots__ = ("calls", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.calls: list[str] = []

    def get_extra_info(self, name: str) -> object:
        return self.sock if name == "socket" else None

    def abort(self) -> None:
        self.calls.append("abort")


@pytest.mark.rule("CLOSE-5")
@pytest.mark.parametrize("anchored", [False, True])
async def test_a_transport_without_weak_references_can_be_cut(anchored: bool) -> None:
    with socket.socket() as sock:
        transport: Any = Slotted(sock)
        if anchored:
            anchor(transport, sock)
        aborter(transport)()
        assert transport.calls == ["abort"]


@pytest.mark.rule("THR-3")
async def test_what_cuts_a_transport_that_is_anchored_does_not_keep_it() -> None:
    sock = socket.socket()
    transport: Any = Slotted(sock)
    anchor(transport, sock)
    cut = aborter(transport)
    calls = transport.calls
    sock.close()
    del sock, transport
    gc.collect()
    cut()
    assert calls == []


@pytest.mark.rule("CLOSE-5")
async def test_a_connection_of_tls_that_is_closed_twice_can_be_cut() -> None:
    """Which asyncio's own ``abort`` raises for, in an AttributeError."""
    async with served(tls=True) as (channel, reader, _):
        transport = channel._transport
        for _ in range(2):
            transport.close()
        abort(transport)
        assert await reader.read(-1) == b""


def test_the_sending_side_of_what_is_being_closed_is_left_alone() -> None:
    calls: list[str] = []

    class Transport(asyncio.Transport):
        def is_closing(self) -> bool:
            return "close" in calls

        def close(self) -> None:
            calls.append("close")

        def write_eof(self) -> None:
            if self.is_closing():
                raise RuntimeError("unable to perform operation on a closing transport")  # as uvloop's
            calls.append("write_eof")

    transport = Transport()
    end_writing(transport)
    transport.close()
    end_writing(transport)
    assert calls == ["write_eof", "close"]


class Tls:
    """A transport of TLS: asyncio's has ``_ssl_protocol``, uvloop's has not."""

    def __init__(self, below: Any = None) -> None:
        self.is_closed = False
        self.socket: object | None = object()
        if below is not None:
            self._ssl_protocol = SimpleNamespace(_transport=below)

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> object:
        return {"ssl_object": "tls", "socket": self.socket}[name]


@pytest.mark.rule("LOG-3")
def test_log_3_a_loss_below_tls_is_seen() -> None:
    below: Any = SimpleNamespace(is_lost=False)
    below.is_closing = lambda: below.is_lost
    transport: Any = Tls(below)
    end = end_of(transport)
    assert not end.is_closing()
    below.is_lost = True
    assert end.is_closing()


@pytest.mark.rule("LOG-3")
def test_log_3_a_loss_below_tls_of_uvloop_is_seen_by_its_socket() -> None:
    transport: Any = Tls()
    end = end_of(transport)
    assert not end.is_closing()
    transport.socket = None
    assert end.is_closing()


@pytest.mark.rule("LOG-3")
def test_log_3_tls_that_is_closed_here_is_closing() -> None:
    transport: Any = Tls(SimpleNamespace(is_closing=lambda: False))
    end = end_of(transport)
    transport.is_closed = True
    assert end.is_closing()


def test_without_tls_a_transport_tells_its_end_itself() -> None:
    plain: Any = SimpleNamespace(get_extra_info=lambda name: None)
    assert end_of(plain) is plain


@pytest.mark.rule("HS-2")
def test_hs_2_a_peer_that_has_left_on_uvloop_has_no_address() -> None:
    def get_extra_info(name: str) -> None:
        if name == "peername":
            raise AttributeError("'NoneType' object has no attribute 'getpeername'")

    gone: Any = SimpleNamespace(get_extra_info=get_extra_info)
    assert request_parts(gone) == {"scheme": "ws", "remote_address": None, "tls": None}
