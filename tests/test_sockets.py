"""The sockets that connectors listen on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wsbridge._channel.transport import aborter
from wsbridge.connector import sockets
from wsbridge.connector.sockets import bind, check_sockets, listen, reserve, socket_address

pytestmark = pytest.mark.rule("STOP-1")


@contextmanager
def closing(bound: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Close all of them at the end."""
    try:
        yield bound
    finally:
        for sock in bound:
            sock.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, tuple[Any, ...]]) -> None:
    """Have every host name stand for ``addresses``."""

    async def getaddrinfo(*arguments: Any, **options: Any) -> list[tuple[Any, ...]]:
        return [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


def connects_to(address: Any, family: int = socket.AF_INET) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


async def test_port_0_gives_a_free_one_that_listens() -> None:
    with closing(await bind("127.0.0.1", 0)) as (sock,):
        address = socket_address(sock)
        assert address[0] == "127.0.0.1"
        assert int(address[1]) > 0
        assert not sock.getblocking()
        assert not connects_to(address)
        listen([sock])
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert connects_to(address)


async def test_a_port_that_is_given_is_used_and_one_in_use_is_an_os_error() -> None:
    with closing(await bind("127.0.0.1", 0)) as (first,):
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as raised:
            await bind("127.0.0.1", port)
        assert raised.value.errno == errno.EADDRINUSE
    with closing(await bind("127.0.0.1", port)) as (again,):
        assert again.getsockname()[1] == port


async def test_every_address_of_a_host_has_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(
        monkeypatch,
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET, ("127.0.0.2", 0)),
        (socket.AF_INET, ("127.0.0.1", 0)),  # named twice, bound once
    )
    with closing(await bind("localhost", 0)) as bound:
        assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1", "127.0.0.2"]
        assert len({sock.getsockname()[1] for sock in bound}) == 1


async def test_a_port_that_is_taken_on_the_next_address_is_tried_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0)))
    real: Callable[..., list[socket.socket]] = sockets._bind_all
    tries: list[int] = []

    def blocked_once(*arguments: Any, **options: Any) -> list[socket.socket]:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EADDRINUSE, "taken on the next")
        return real(*arguments, **options)

    monkeypatch.setattr(sockets, "_bind_all", blocked_once)
    with closing(await bind("localhost", 0)) as bound:
        assert (len(bound), len(tries)) == (2, 2)


async def test_the_tries_for_a_free_port_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def never(*arguments: Any, **options: Any) -> list[socket.socket]:
        tries.append(1)
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(sockets, "_bind_all", never)
    with pytest.raises(OSError, match="taken"):
        await bind("localhost", 0)
    assert 1 < len(tries) < 100


async def test_nothing_is_left_open_when_the_second_address_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(await bind("127.0.0.2", 0)) as (taken,):
        port = taken.getsockname()[1]
        resolve_to(monkeypatch, (socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.2", port)))
        with pytest.raises(OSError, match=r"127\.0\.0\.2") as raised:
            await bind("localhost", port)
        assert raised.value.errno == errno.EADDRINUSE
        assert not connects_to(("127.0.0.1", port))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_address_is_bound_for_ipv6_alone() -> None:
    with closing(await bind("::1", 0)) as (sock,):
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert socket_address(sock) == ("::1", sock.getsockname()[1])


def lack(monkeypatch: pytest.MonkeyPatch, *lacking: str, family: int = 0) -> None:
    """Have this machine lack addresses, or a family of them."""

    class Socket(socket.socket):
        def __init__(self, wanted: int = -1, *arguments: Any, **options: Any) -> None:
            if wanted == family:
                raise OSError(errno.EAFNOSUPPORT, "no such family")
            super().__init__(wanted, *arguments, **options)

        def bind(self, address: Any, /) -> None:
            if address[0] in lacking:
                raise OSError(errno.EADDRNOTAVAIL, "no such address")
            super().bind(address)

    monkeypatch.setattr("wsbridge.connector.sockets.socket.socket", Socket)


async def test_an_address_that_this_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "127.0.0.8", "127.0.0.9")
    first, second = (socket.AF_INET, ("127.0.0.8", 0)), (socket.AF_INET, ("127.0.0.9", 0))
    resolve_to(monkeypatch, first, (socket.AF_INET, ("127.0.0.1", 0)))
    with closing(await bind("localhost", 0)) as bound:
        assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1"]
    resolve_to(monkeypatch, first)
    with pytest.raises(OSError, match=r"127\.0\.0\.8") as raised:
        await bind("elsewhere", 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL
    resolve_to(monkeypatch, first, second)
    with pytest.raises(OSError, match="no address to listen on") as raised:
        await bind("elsewhere", 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL


async def test_a_family_that_this_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, family=socket.AF_INET6)
    resolve_to(monkeypatch, (socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0)))
    with closing(await bind("localhost", 0)) as bound:
        assert len(bound) == 1


async def test_an_unknown_host_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*arguments: Any, **options: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="unknown"):
        await bind("no.such.host.invalid", 0)


async def test_no_host_is_every_address() -> None:
    with closing(await bind("", 0)) as bound:
        listen(bound)
        assert connects_to(("127.0.0.1", bound[0].getsockname()[1]))


@pytest.mark.rule("STOP-4")
async def test_a_port_can_be_shared() -> None:
    with closing(await bind("127.0.0.1", 0, reuse_port=True)) as (first,):
        port = first.getsockname()[1]
        with closing(await bind("127.0.0.1", port, reuse_port=True)) as (second,):
            assert second.getsockname()[1] == port


async def test_a_port_that_is_bound_is_held_before_it_listens() -> None:
    with closing(await bind("127.0.0.1", 0)) as (first,):
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as raised:
            await bind("127.0.0.1", port)
        assert raised.value.errno == errno.EADDRINUSE
        listen([first])
        assert connects_to(("127.0.0.1", port))


async def test_a_port_whose_connections_fade_away_can_be_taken_again() -> None:
    """What SO_REUSEADDR is for: the closing side of a connection keeps its port for a minute."""
    with closing(await bind("127.0.0.1", 0)) as (sock,):
        listen([sock])
        port = sock.getsockname()[1]
        sock.setblocking(True)
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = sock.accept()
            accepted.close()
            assert client.recv(1) == b""
    with closing(await bind("127.0.0.1", port)) as again:
        listen(again)
        assert connects_to(("127.0.0.1", port))


async def test_who_cannot_listen_is_told_where() -> None:
    with closing(await bind("127.0.0.1", 0, reuse_port=True)) as (sock,):
        port = sock.getsockname()[1]

        class Refused(socket.socket):
            def listen(self, backlog: int = 0, /) -> None:
                raise OSError(errno.EADDRINUSE, "taken")

        with Refused(fileno=os.dup(sock.fileno())) as refused, pytest.raises(OSError, match=rf"port {port}: taken"):
            listen([refused])


async def test_where_no_other_system_needs_it_a_port_is_not_closed_to_its_own_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux alone lets two bind one port by SO_REUSEADDR, so that it is turned off there until the socket listens."""
    with closing(await bind("127.0.0.1", 0)) as (sock,):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        listen([sock])
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    monkeypatch.setattr(sys, "platform", "darwin")
    with closing(await bind("127.0.0.1", 0)) as (sock,):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1


# ---- shared with other processes -------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-13")
async def test_a_port_is_reserved_for_those_that_share_it() -> None:
    with closing(await reserve("127.0.0.1", 0)) as (held,):
        port = held.getsockname()[1]
        assert not connects_to(("127.0.0.1", port))
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as raised:
            await bind("127.0.0.1", port)
        assert raised.value.errno == errno.EADDRINUSE
        with closing(await bind("127.0.0.1", port, reuse_port=True)) as workers:
            listen(workers)
            assert connects_to(("127.0.0.1", port))


@pytest.mark.rule("STOP-13")
async def test_a_port_that_others_share_is_reserved_only_if_that_is_said() -> None:
    with closing(await bind("127.0.0.1", 0, reuse_port=True)) as others:
        listen(others)
        port = others[0].getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as raised:
            await reserve("127.0.0.1", port)
        assert raised.value.errno == errno.EADDRINUSE
        with closing(await reserve("127.0.0.1", port, shared=True)) as (held,):
            assert held.getsockname()[1] == port
            assert held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0


# ---- handed in -------------------------------------------------------------------------------------------------------


def bound_to_loopback(kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    return sock


def closed() -> socket.socket:
    sock = bound_to_loopback()
    sock.close()
    return sock


@pytest.mark.rule("STOP-15")
@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: 3, TypeError, "sockets must be a sequence of sockets, not one with 3"),
        (closed, ValueError, "sockets must be open: "),
        (lambda: bound_to_loopback(socket.SOCK_DGRAM), ValueError, "sockets must be stream sockets of TCP or Unix: "),
        (socket.socket, ValueError, "sockets must be bound: "),
        (lambda: socket.socket(socket.AF_UNIX), ValueError, "sockets must be bound: "),
    ],
    ids=["number", "closed", "datagrams", "unbound", "unbound-unix"],
)
def test_what_is_handed_in_must_be_listenable(make: Callable[[], Any], error: type[Exception], said: str) -> None:
    with bound_to_loopback() as right:
        check_sockets([])
        check_sockets([right])
        with contextlib.ExitStack() as stack:
            given = make()
            if isinstance(given, socket.socket):
                stack.enter_context(given)
            with pytest.raises(error, match=f"^{said}"):
                check_sockets([right, given])


@pytest.mark.rule("STOP-15")
def test_what_is_connected_cannot_be_listened_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        pytest.raises(ValueError, match=r"^sockets must be for listening, and not connected: "),
    ):
        check_sockets([listener, client])


@pytest.mark.rule("STOP-15")
def test_a_number_or_a_single_socket_is_no_sequence_of_them() -> None:
    with bound_to_loopback() as sock:
        for given in (sock, 3, None, iter([sock])):
            with pytest.raises(TypeError, match=r"^sockets must be a sequence of sockets, not "):
                check_sockets(given)  # type: ignore[arg-type]


async def test_a_transport_that_has_sent_its_rest_and_ended_can_be_cut() -> None:
    """asyncio's own ``abort`` raises there."""
    here, there = socket.socketpair()
    there.setblocking(False)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            ended.set_result(exc)

    transport, _ = await loop.create_connection(Protocol, sock=here)
    abort = aborter(transport)
    transport.write(bytes(4 << 20))
    assert transport.get_write_buffer_size() > 0
    transport.close()
    with there:
        while await loop.sock_recv(there, 1 << 20):
            pass
    assert await ended is None
    abort()


async def test_a_transport_with_a_rest_is_cut_at_once() -> None:
    here, there = socket.socketpair()
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            ended.set_result(exc)

    transport, _ = await loop.create_connection(Protocol, sock=here)
    transport.write(bytes(4 << 20))
    transport.close()
    aborter(transport)()
    assert await ended is None
    there.close()


async def test_what_cuts_a_transport_does_not_keep_it() -> None:
    """An ended connection's TLS objects are 300 KiB; a deadline must not hold them."""
    here, there = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
    abort = aborter(transport)
    reference = weakref.ref(transport)
    there.close()
    async with asyncio.timeout(10):
        while not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    del transport
    gc.collect()
    assert reference() is None
    abort()
