"""What is read and dropped behind a peer's close frame."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from wsbridge._channel.draining import Drain, plain_connection, unacknowledged

pytestmark = [pytest.mark.rule("SEND-6"), pytest.mark.asyncio]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's end of a connection, and a peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname(), timeout=5)
        server, _ = listening.accept()
    server.setblocking(False)
    with server, peer:
        yield server, peer


class Draining:
    """A drain of the server's end, with so many bytes unsent as are set."""

    def __init__(self, server: socket.socket, unsent: int = 0) -> None:
        self.unsent = unsent
        self.ended = asyncio.get_running_loop().create_future()
        self.drain = Drain(asyncio.get_running_loop(), server, lambda: self.unsent, self.ended.set_result)

    async def end(self) -> None:
        assert await asyncio.wait_for(self.ended, 5) is self.drain


@contextlib.asynccontextmanager
async def draining(server: socket.socket, unsent: int = 0) -> AsyncIterator[Draining]:
    """Drain, and end that."""
    begun = Draining(server, unsent)
    try:
        yield begun
    finally:
        begun.drain.close()


async def until_end(peer: socket.socket) -> int:
    """Read until the end of the stream; return how many bytes came."""
    size = 0
    while data := await asyncio.to_thread(peer.recv, 65536):
        size += len(data)
    return size


async def fill(server: socket.socket) -> int:
    """Write until the system takes no more; return how much it took."""
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += server.send(bytes(65536))
    return size


async def test_a_peer_that_sends_behind_the_end_reads_all(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    size = await fill(server)
    async with draining(server) as begun:
        server.close()
        peer.sendall(b"late")
        assert await until_end(peer) == size
        peer.sendall(b"later")
        peer.close()
        await begun.end()


async def test_the_end_waits_for_what_the_server_still_writes(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    size = await fill(server)
    async with draining(server, unsent=3) as begun:
        peer.sendall(b"late")
        reading = asyncio.create_task(until_end(peer))
        while not server.send(b"end"):
            pass
        begun.unsent = 0
        assert await reading == size + 3
        assert not begun.ended.done()
        peer.close()
        await begun.end()


async def test_a_peer_that_ended_first(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    size = await fill(server)
    async with draining(server, unsent=1) as begun:
        peer.shutdown(socket.SHUT_WR)
        reading = asyncio.create_task(until_end(peer))
        await asyncio.get_running_loop().sock_recv(server, 1)  # the end is in
        assert not begun.ended.done()
        begun.unsent = 0
        await begun.end()
        server.close()
        assert await reading == size


async def test_the_end_of_a_peer_that_reads_on_waits_for_what_the_server_still_writes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    server, peer = pair
    size = await fill(server)
    async with draining(server, unsent=1) as begun:
        peer.shutdown(socket.SHUT_WR)
        while not begun.drain._is_ended_by_peer:  # noqa: ASYNC110  (nobody else is told of it)
            await asyncio.sleep(0)
        reading = asyncio.create_task(until_end(peer))
        await until_written(server)
        assert not begun.ended.done()  # which the system has room for, and the server has not written yet
        begun.unsent = 0
        await begun.end()
        server.close()
        assert await reading == size


async def until_written(server: socket.socket) -> None:
    """Return when the system takes more of the server, and has told so."""
    while not select.select([], [server], [], 0)[1]:  # noqa: ASYNC110  (the event loop is told, and the drain by it)
        await asyncio.sleep(0.001)
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_the_server_has_read_first_is_no_end(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    loop = asyncio.get_running_loop()
    async with draining(server) as begun:
        peer.sendall(b"late")
        read = loop.create_future()
        loop.call_soon(lambda: read.set_result(server.recv(100)))  # before the look at what is readable is acted on
        assert await read == b"late"
        await asyncio.sleep(0)
        assert not begun.ended.done()
        peer.close()
        await begun.end()


async def test_a_reset_that_came_before_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    reset(peer)
    ended: list[Drain] = []
    drain = Drain(asyncio.get_running_loop(), server, lambda: 0, ended.append)
    assert ended == [drain]
    assert drain.is_over


async def test_a_reset_before_the_rest_is_written_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    async with draining(server, unsent=1) as begun:
        reset(peer)
        await begun.end()


def reset(peer: socket.socket) -> None:
    """End a connection by a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


async def test_a_reset_ends_it(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    async with draining(server) as begun:
        reset(peer)
        await begun.end()


async def test_its_time_ends_it_once(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    async with draining(server) as begun:
        server.close()
        begun.drain.tick(0.0)
        await begun.end()
        begun.drain.close()  # a second end would set the future again, which raises
        assert await until_end(peer) == 0


async def test_a_closed_socket_cannot_be_drained(pair: tuple[socket.socket, socket.socket]) -> None:
    server, _ = pair
    server.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        Draining(server)


async def test_where_sockets_have_handles_nothing_is_drained(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, peer = pair
    monkeypatch.setattr("wsbridge._channel.draining.os", Nt())
    with pytest.raises(NotImplementedError, match="handle"):
        Draining(server)
    monkeypatch.undo()
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    with pytest.raises(NotImplementedError):
        Draining(server)
    server.close()
    assert await until_end(peer) == 0  # no second descriptor holds it open


class Nt:
    """Stands for the module `os` on Windows, as far as it is asked there."""

    name = "nt"


def refuse(*arguments: object) -> None:
    raise NotImplementedError


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
async def test_what_the_peer_has_not_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    server, peer = pair
    assert unacknowledged(server) == 0
    await fill(server)
    assert unacknowledged(server) > 65536
    server.close()
    assert unacknowledged(server) == 0
    peer.close()


async def test_the_connection_of_a_transport() -> None:
    class Handed:
        def __init__(self, **info: object) -> None:
            self.get_extra_info = info.get

        def get_write_buffer_size(self) -> int:
            return 7

    with socket.socket() as sock:
        connection = plain_connection(Handed(socket=sock))  # type: ignore[arg-type]
        assert connection is not None
        assert (connection[0], connection[1]()) == (sock, 7)
        assert plain_connection(Handed(socket=sock, ssl_object=object())) is None  # type: ignore[arg-type]
        assert plain_connection(Handed()) is None  # type: ignore[arg-type]
