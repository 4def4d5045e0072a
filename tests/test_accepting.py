"""The accept loop below the connectors, and the deadline of answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeTime
from wsbridge import Application, WebSocketOptions
from wsbridge._channel.clock import Clock
from wsbridge._channel.transport import Anchor, anchor
from wsbridge.connector.accepting import Acceptor, TransportAcceptor, refuse_waiting
from wsbridge.connector.answering import Answers, of_transport
from wsbridge.connector.sockets import BACKLOG
from wsbridge.registry import load_connector

pytestmark = pytest.mark.rule("STOP-8")


class Listening(socket.socket):
    """Listens on a free port; ``accept`` raises what is in ``errors`` first."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.errors: list[int] = []
        self.bind(("127.0.0.1", 0))
        self.listen(100)
        self.setblocking(False)

    def accept(self) -> Any:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, errno.errorcode[number])
        return super().accept()


class Taking(Acceptor):
    """Keeps what it accepts."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.taken: list[socket.socket] = []
        self.failing = False

    def _take(self, connection: socket.socket, address: Any) -> None:
        if self.failing:
            raise RuntimeError("no")
        self.taken.append(connection)

    @property
    def is_asked(self) -> bool:
        return bool(self.taken)

    async def abort(self) -> None:
        for connection in self.taken:
            connection.close()
        self.taken.clear()


@pytest.fixture
def listening() -> Iterator[Listening]:
    with Listening() as sock:
        yield sock


@pytest.fixture
async def acceptor(listening: Listening) -> Any:
    made = Taking(asyncio.get_running_loop(), [listening])
    made.start()
    yield made
    made.stop()
    await made.abort()


@contextlib.contextmanager
def clients(sock: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(sock.getsockname())) for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_who_connects_is_taken_and_does_not_block(listening: Listening, acceptor: Taking) -> None:
    with clients(listening, 100):
        await until(lambda: len(acceptor.taken) == 100)
    assert not any(connection.getblocking() for connection in acceptor.taken)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
async def test_a_shortage_is_logged_once_and_accepting_goes_on(
    listening: Listening, acceptor: Taking, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    listening.errors = [number, number]
    with clients(listening, 2):
        await until(lambda: len(acceptor.taken) == 2)
    assert errors(caplog) == [f"no connection can be accepted for now: {errno.errorcode[number]}"]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EINTR])
async def test_a_connection_that_ended_while_it_waited_is_passed_over(
    listening: Listening, acceptor: Taking, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    listening.errors = [number]
    with clients(listening, 1):
        await until(lambda: acceptor.taken)
    assert errors(caplog) == []


async def test_a_stop_during_a_pause_accepts_and_leaves_no_timer(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor = Taking(asyncio.get_running_loop(), [listening])
    acceptor.start()
    listening.errors = [errno.EMFILE]
    with clients(listening, 3):
        await until(lambda: errors(caplog))
        assert acceptor.taken == []
        acceptor.stop()
        assert len(acceptor.taken) == 3
    assert acceptor._resume is None
    assert listening.fileno() == -1
    await acceptor.abort()


@pytest.mark.rule("STOP-9")
async def test_a_stop_accepts_all_who_wait(listening: Listening) -> None:
    acceptor = Taking(asyncio.get_running_loop(), [listening])
    acceptor.start()
    with clients(listening, 90):
        acceptor.stop()
        assert len(acceptor.taken) == 90
    await acceptor.abort()


async def test_a_connection_that_cannot_be_served_is_closed_and_logged(
    listening: Listening, acceptor: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor.failing = True
    with clients(listening, 1) as (client,):
        await until(lambda: errors(caplog))
        assert client.recv(1) == b""
    assert errors(caplog) == ["a connection that was accepted cannot be served"]


class NoReaders:
    """An event loop that cannot watch a socket, as Windows' proactor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def add_reader(self, *arguments: Any) -> None:
        raise NotImplementedError


async def test_a_loop_that_watches_no_socket_is_asked_to_accept(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    loop: Any = NoReaders(asyncio.get_running_loop())
    acceptor = Taking(loop, [listening])
    listening.errors = [errno.ECONNABORTED, errno.EMFILE]
    acceptor.start()
    with clients(listening, 2):
        await until(lambda: len(acceptor.taken) == 2)
        acceptor.stop()
    await acceptor.abort()
    await until(lambda: all(task.done() for task in acceptor._tasks))
    assert errors(caplog) == ["no connection can be accepted for now: EMFILE"]


@pytest.mark.rule("STOP-9")
async def test_who_waits_for_a_server_that_has_ended_is_refused(listening: Listening) -> None:
    with clients(listening, 3) as peers:
        peers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        refuse_waiting([listening], b"HTTP/1.1 503 no\r\n\r\n")
        for peer in peers:
            assert peer.recv(100) == b"HTTP/1.1 503 no\r\n\r\n"
            assert peer.recv(100) == b""


@pytest.mark.rule("STOP-3")
async def test_transports_are_known_until_they_end(listening: Listening) -> None:
    protocols: list[asyncio.Protocol] = []

    def protocol() -> asyncio.Protocol:
        protocols.append(asyncio.Protocol())
        return protocols[-1]

    acceptor = TransportAcceptor(asyncio.get_running_loop(), [listening], protocol)
    acceptor.start()
    with clients(listening, 2) as peers:
        await until(lambda: len(acceptor.transports) == 2)
        assert acceptor.is_asked
        acceptor.stop()
        await acceptor.abort()
        assert not acceptor.is_asked
        assert [peer.recv(1) for peer in peers] == [b"", b""]


async def test_a_protocol_that_cannot_be_made_is_logged(listening: Listening, caplog: pytest.LogCaptureFixture) -> None:
    def protocol() -> asyncio.Protocol:
        raise RuntimeError("no")

    acceptor = TransportAcceptor(asyncio.get_running_loop(), [listening], protocol)
    acceptor.start()
    with clients(listening, 1) as (peer,):
        await until(lambda: errors(caplog))
        assert peer.recv(1) == b""
    acceptor.stop()


def test_what_has_no_weak_reference_has_an_anchor() -> None:
    class Slotted:
        __slots__ = ("closed",)

    with socket.socket() as accepted:
        transport = Slotted()
        found = anchor(transport, accepted)
        assert isinstance(found, Anchor)
        assert found.transport is transport
        other = Connection()
        assert anchor(other, accepted) is other


LIMIT = Path("/proc/sys/net/core/somaxconn")
SOMAXCONN = int(LIMIT.read_text()) if LIMIT.exists() else socket.SOMAXCONN
CONNECTORS = ["aiohttp", "websockets", "tornado", "picows", "uvicorn", "hypercorn"]


@pytest.mark.rule("STOP-1")
@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the backlog")
@pytest.mark.parametrize("name", CONNECTORS)
async def test_as_many_may_wait_on_every_connector(name: str) -> None:
    pytest.importorskip(name)
    connector = load_connector(name)(Application([("/", WebSocketOptions())]))
    await connector.start()
    try:
        (sock,) = connector._sockets
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        assert struct.unpack_from("=I", info, 28) == (min(BACKLOG, SOMAXCONN),)  # tcpi_sacked: linux/tcp_diag.c
    finally:
        await connector.stop()


# ---- answers ------------------------------------------------------------------------------------------------------


class Connection:
    """A connection that was answered."""

    def __init__(self) -> None:
        self.is_untaken = True
        self.progress = 0
        self.is_cut = False


class Answered:
    """Answers to connections, and a clock that is set by hand."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.time = FakeTime()
        self.clock = Clock(self.time)
        self.answers: Answers[Connection] = Answers(10, self.taken, self.cut, keeps=keeps)

    def taken(self, connection: Connection) -> tuple[bool, int]:
        return connection.is_untaken, connection.progress

    def cut(self, connection: Connection) -> None:
        connection.is_cut = True

    def begin(self, connection: Connection) -> None:
        self.answers.begin(self.clock, connection)


@pytest.mark.rule("HS-13")
def test_an_answer_that_is_not_taken_ends_its_connection() -> None:
    answered, connection = Answered(), Connection()
    answered.begin(connection)
    answered.time.advance(9.9)
    assert not connection.is_cut
    connection.progress = 1  # a byte now and then buys no time
    answered.time.advance(0.2)
    assert connection.is_cut
    assert answered.time.timers == []


@pytest.mark.rule("HS-13")
def test_one_that_is_taken_does_not() -> None:
    answered, connection = Answered(), Connection()
    answered.begin(connection)
    connection.is_untaken = False
    answered.time.advance(100)
    assert not connection.is_cut
    assert answered.time.timers == []


@pytest.mark.rule("HS-13")
def test_who_asks_on_and_takes_nothing_is_cut() -> None:
    answered, connection = Answered(), Connection()
    for _ in range(150):
        answered.begin(connection)
        answered.time.advance(0.1)
    assert connection.is_cut


@pytest.mark.rule("HS-13")
def test_who_asks_on_and_takes_something_is_not() -> None:
    answered, connection = Answered(), Connection()
    for number in range(500):
        answered.begin(connection)
        connection.progress = number + 1
        answered.time.advance(0.1)
    assert not connection.is_cut
    answered.time.advance(11)
    assert connection.is_cut


@pytest.mark.rule("HS-13")
def test_a_channel_is_not_held_to_it() -> None:
    answered, connection = Answered(), Connection()
    answered.begin(connection)
    answered.answers.forget(connection)
    answered.answers.forget(connection)
    answered.time.advance(100)
    assert not connection.is_cut


@pytest.mark.rule("HS-13")
@pytest.mark.parametrize("keeps", [False, True])
def test_a_connection_is_not_kept_unless_it_is_but_a_name(keeps: bool) -> None:
    answered, connection = Answered(keeps=keeps), Connection()
    answered.begin(connection)
    cut = answered.cut
    ends: list[bool] = []

    def note(connection: Connection) -> None:
        cut(connection)
        ends.append(connection.is_cut)

    answered.answers._cut = note
    del connection
    answered.time.advance(100)
    assert ends == [True] * keeps
    assert len(answered.answers._deadlines) == 0


@pytest.mark.rule("HS-13")
async def test_what_a_transport_holds_is_not_taken() -> None:
    here, there = socket.socketpair()
    with there:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
        assert of_transport(transport)[0] is False
        transport.write(bytes(4 << 20))
        assert of_transport(transport)[0] is True
        transport.abort()
        await asyncio.sleep(0)
        assert of_transport(transport) == (False, 0)
