"""The accept loop below the connectors, and the deadline of answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import contexts
from tests.fakes import FakeTime
from wsbridge import Application, WebSocketOptions
from wsbridge._channel.clock import Clock
from wsbridge._channel.transport import Anchor, anchor
from wsbridge.connector import accepting
from wsbridge.connector.accepting import Acceptor, TransportAcceptor, refuse_waiting
from wsbridge.connector.answering import ENDED, Answers, of_socket, of_transport
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

    def dup_listening(self) -> socket.socket:
        """Return a second descriptor, as a connector has of a socket that is handed in."""
        sock = socket.socket(fileno=os.dup(self.fileno()))
        sock.setblocking(False)
        return sock

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


async def test_two_sockets_pause_together(caplog: pytest.LogCaptureFixture) -> None:
    """Both are ready in the same turn; what is short is short for both."""
    with Listening() as first, Listening() as second:
        acceptor = Taking(asyncio.get_running_loop(), [first, second])
        acceptor.start()
        first.errors = second.errors = [errno.EMFILE, errno.EMFILE]
        with clients(first, 2), clients(second, 2):
            await asyncio.sleep(0)
            await until(lambda: errors(caplog))
            assert len(first.errors) == 1  # the other was not asked
            await until(lambda: len(acceptor.taken) == 4)
        acceptor.stop()
        await acceptor.abort()


@pytest.mark.rule("STOP-9")
async def test_a_shortage_at_the_stop_is_logged_and_pauses_nothing(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor = Taking(asyncio.get_running_loop(), [listening])
    acceptor.start()
    with clients(listening, 1) as (client,):
        listening.errors = [errno.EMFILE]
        acceptor.stop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert acceptor.taken == []
    assert acceptor._resume is None
    assert errors(caplog) == ["no connection can be accepted for now: EMFILE"]


@pytest.mark.rule("STOP-15")
async def test_a_stop_that_takes_nobody_leaves_who_waits_to_the_next(listening: Listening) -> None:
    acceptor = Taking(asyncio.get_running_loop(), [listening.dup_listening()])
    acceptor.start()
    with clients(listening, 2):
        acceptor.stop(takes_waiting=False)
        assert acceptor.taken == []
        following = Taking(asyncio.get_running_loop(), [listening])
        following.start()
        await until(lambda: len(following.taken) == 2)
        following.stop()
        await following.abort()


@pytest.mark.rule("STOP-9")
async def test_a_stop_takes_no_endless_line_of_those_who_wait(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "_LAST", 2)
    acceptor = Taking(asyncio.get_running_loop(), [listening])
    acceptor.start()
    with clients(listening, 3):
        acceptor.stop()
        assert len(acceptor.taken) == 2
    await acceptor.abort()


@pytest.mark.rule("STOP-9")
@pytest.mark.parametrize("ends", [False, True])
async def test_who_was_accepted_last_has_a_time_to_be_answered(listening: Listening, ends: bool) -> None:
    loop = asyncio.get_running_loop()
    acceptor = Taking(loop, [listening])
    acceptor.start()
    with clients(listening, 1):
        acceptor.stop()
        [connection] = acceptor.taken
        begun = loop.time()
        if ends:
            loop.call_later(0.03, acceptor.taken.clear)
        await acceptor.answer_last(begun + (60 if ends else 0.05))
        assert loop.time() - begun >= (0.03 if ends else 0.05)
        assert acceptor.is_asked is not ends
        connection.close()


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


@pytest.mark.rule("STOP-9")
async def test_who_waits_longer_than_so_many_is_not_refused(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "_LAST", 2)
    with Listening() as other, clients(listening, 3) as peers, clients(other, 1) as (elsewhere,):
        refuse_waiting([listening, other], b"no")
        assert [peer.recv(100) for peer in (*peers[:2], elsewhere)] == [b"no"] * 3
        peers[2].setblocking(False)
        with pytest.raises(BlockingIOError):
            peers[2].recv(1)


@pytest.mark.rule("STOP-9")
async def test_who_has_reset_the_connection_while_it_waited_harms_nobody(listening: Listening) -> None:
    with clients(listening, 2) as (gone, there):
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        refuse_waiting([listening], b"no")
        assert there.recv(100) == b"no"


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


async def test_a_transport_that_cannot_be_made_is_logged_and_its_connection_is_closed(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[socket.socket] = []

    async def connect(factory: Any, sock: socket.socket) -> Any:
        kept.append(sock)
        raise RuntimeError("no")

    acceptor = TransportAcceptor(asyncio.get_running_loop(), [listening], asyncio.Protocol, connect=connect)
    acceptor.start()
    with clients(listening, 1) as (peer,):
        await until(lambda: errors(caplog))
        peer.settimeout(10)
        assert await asyncio.to_thread(peer.recv, 1) == b""
    acceptor.stop()
    assert errors(caplog) == ["a connection that was accepted cannot be served"]
    assert [sock.fileno() for sock in kept] == [-1]
    assert not acceptor.is_asked


async def test_a_connection_is_open_as_long_as_its_transport_is(listening: Listening) -> None:
    made: list[tuple[asyncio.Transport, socket.socket]] = []

    class Plain(asyncio.Transport):
        def is_closing(self) -> bool:
            return len(made) > 1

    async def connect(factory: Any, sock: socket.socket) -> Any:
        made.append((Plain(), sock))
        return made[-1][0], factory()

    acceptor = TransportAcceptor(asyncio.get_running_loop(), [listening], asyncio.Protocol, connect=connect)
    acceptor.start()
    with clients(listening, 1):
        await until(lambda: acceptor.transports)
    assert acceptor.transports == [made[0][0]]
    assert acceptor.is_asked
    made[0][1].close()
    made.append(made[0])
    assert not acceptor.is_asked
    acceptor.stop()


# ---- TLS ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def accepting_tls(sock: socket.socket, **options: Any) -> AsyncIterator[tuple[TransportAcceptor, ssl.SSLContext]]:
    server, client = contexts()
    acceptor = TransportAcceptor(asyncio.get_running_loop(), [sock], asyncio.Protocol, ssl=server, **options)
    acceptor.start()
    yield acceptor, client
    acceptor.stop()
    await acceptor.abort()
    assert not acceptor.is_asked


@pytest.mark.rule("HS-10")
async def test_tls_is_agreed_on_before_a_transport_is_there(listening: Listening) -> None:
    async with accepting_tls(listening, ssl_handshake_timeout=10) as (acceptor, context):
        _, writer = await asyncio.open_connection(*listening.getsockname(), ssl=context)
        await until(lambda: acceptor.transports)
        [transport] = acceptor.transports
        assert transport.get_extra_info("sslcontext") is not None
        writer.transport.abort()
        await until(lambda: not acceptor.is_asked)


@pytest.mark.rule("HS-10")
async def test_who_does_not_speak_tls_is_one_line_for_who_looks_closely(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "wsbridge")
    async with accepting_tls(listening) as (acceptor, _):
        with clients(listening, 1) as (peer,):
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: [record for record in caplog.records if record.name == "wsbridge"])
        assert acceptor.transports == []
    [record] = [record for record in caplog.records if record.name == "wsbridge"]
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith("a connection has ended before it was served: ")


@pytest.mark.rule("STOP-3", "HS-10")
async def test_who_is_silent_while_tls_is_to_be_agreed_on_is_cut(listening: Listening) -> None:
    async with accepting_tls(listening) as (acceptor, _):
        with clients(listening, 1) as (peer,):
            await until(lambda: acceptor.is_asked)
            acceptor.stop()
            await acceptor.abort()
            assert not acceptor.is_asked
            assert peer.recv(1) == b""


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


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        there = socket.create_connection(sock.getsockname())
        return sock.accept()[0], there


@pytest.mark.rule("HS-13")
@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
async def test_what_a_peer_takes_changes_a_number(pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    here, there = pair()
    with here, there:
        here.setblocking(False)
        before = of_socket(here)
        assert not before[0]
        sent = here.send(bytes(1 << 16))
        there.setblocking(False)
        await until(lambda: len(there.recv(sent, socket.MSG_PEEK)) == sent or not of_socket(here)[0])
        if pair is unix_pair:  # whose bytes are taken as they are read
            assert of_socket(here) != before
        there.recv(sent)
        await until(lambda: not of_socket(here)[0])
        if pair is tcp_pair:
            assert of_socket(here)[1] == before[1] + sent
        assert of_socket(here, is_held=True)[0]


@pytest.mark.rule("HS-13")
async def test_a_connection_of_tls_that_is_closed_twice_has_ended(listening: Listening) -> None:
    async with accepting_tls(listening) as (acceptor, context):
        _, writer = await asyncio.open_connection(*listening.getsockname(), ssl=context)
        await until(lambda: acceptor.transports)
        [transport] = acceptor.transports
        assert of_transport(transport) != ENDED
        for _ in range(2):
            transport.close()
        assert of_transport(transport) == ENDED
        writer.transport.abort()


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
