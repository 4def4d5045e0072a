"""STOP-15: a connector on sockets that it is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Generator
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.common import pair
from wsbridge.conformance.client import Close
from wsbridge.conformance.contract import check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench, Served, open_descriptors, open_what_stays
from wsbridge.protocols import Connector

HOST = "127.0.0.1"


def _connector(bench: Bench, **options: Any) -> Connector:
    made: Connector = bench.connector(
        Application([("/", bench.options())]), shutdown_timeout=2 * bench.scale, **options
    )
    return made


@contextlib.contextmanager
def _bound(*, listens: bool = False) -> Generator[socket.socket]:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        if listens:
            sock.listen()
        yield sock


async def _talks(bench: Bench, connector: Connector, address: Any) -> None:
    """Check that a channel opens at an address and carries a message."""
    async with pair(bench, Served(bench, address, "", connector)) as (peer, channel):
        await channel.send_text("here")
        equal(getattr(await peer.receive(), "data", None), "here", f"what a peer of {address} gets")


@check("STOP-15", wire=True)
async def sockets_that_are_bound(bench: Bench) -> None:
    """It serves on each socket that it is given, tells their addresses, and leaves them open when it stops."""
    with _bound() as first, _bound(listens=True) as second:
        addresses = [sock.getsockname() for sock in (first, second)]
        connector = _connector(bench, sockets=[first, second])
        await open_what_stays()
        before = open_descriptors()
        for _ in range(2):
            await bench.within(connector.start(), "start()")
            try:
                equal(list(connector.addresses), addresses, "the addresses")
                for address in addresses:
                    await _talks(bench, connector, address)
            finally:
                await bench.within(connector.stop(), "stop()")
            equal(list(connector.addresses), [], "the addresses after stop()")
            equal([sock.getsockname() for sock in (first, second)], addresses, "the sockets that were given")
            await bench.settle(lambda: open_descriptors() <= before, "the end of its own sockets")


@check("STOP-15", wire=True)
async def who_comes_between_two_starts(bench: Bench) -> None:
    """Whoever connects while the connector is stopped waits, and is served by the next start on the same socket."""
    with _bound() as sock:
        first, second = (_connector(bench, sockets=(sock,)) for _ in range(2))
        await bench.within(first.start(), "start()")
        async with pair(bench, bench.served(first)) as (peer, _):
            stopping = asyncio.ensure_future(bench.within(first.stop(), "stop()"))
            equal(await peer.receive(), Close(1001, "server shutdown"), "what the peer gets")
            await stopping
        async with Served(bench, sock.getsockname(), "").raw() as waiting:
            await waiting.request(
                f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            await bench.within(second.start(), "start()")
            try:
                equal((await waiting.read_response()).status, 101, "the status for the one that waited")
                waiting.close()
            finally:
                await bench.within(second.stop(), "stop()")


@check("STOP-15")
async def sockets_that_cannot_be(bench: Bench) -> None:
    """What cannot be listened on is refused when the connector is made, and the error speaks of sockets."""
    near, far = socket.socketpair()
    with (
        near,
        far,
        _bound() as sock,
        socket.socket() as unbound,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket() as closed,
    ):
        datagrams.bind((HOST, 0))
        closed.close()
        for given, error, more in (
            ([unbound], ValueError, {}),
            ([datagrams], ValueError, {}),
            ([closed], ValueError, {}),
            ([sock, near], ValueError, {}),
            ([sock.fileno()], TypeError, {}),
            (sock, TypeError, {}),
            ([sock], ValueError, {"port": 8000}),
            ([sock], ValueError, {"host": "0.0.0.0"}),
            ([sock], ValueError, {"unix_path": "some/path"}),
            ([sock], ValueError, {"reuse_port": True}),
        ):
            _refused(bench, given, error, more)


def _refused(bench: Bench, given: Any, error: type[Exception], more: dict[str, Any]) -> None:
    try:
        _connector(bench, sockets=given, **more)
    except error as exc:
        true("sockets" in str(exc) or next(iter(more), "sockets") in str(exc), f"the error does not say so: {exc}")
    except Exception as exc:
        fail(f"sockets={given!r} with {more} must raise {error.__name__}, not {exc!r}")
    else:
        fail(f"sockets={given!r} with {more} was taken")


@check("STOP-15", needs=("unix-socket",), wire=True)
async def a_unix_socket_that_is_given(bench: Bench) -> None:
    """It serves on a Unix socket that it is given, and leaves its file where it is."""
    with tempfile.TemporaryDirectory(prefix="wsb") as folder, socket.socket(socket.AF_UNIX) as sock:
        path = os.path.join(folder, "s")
        sock.bind(path)
        connector = _connector(bench, sockets=[sock])
        for _ in range(2):
            await bench.within(connector.start(), "start()")
            try:
                equal(list(connector.addresses), [path], "the addresses")
                true(connector.url.endswith(path), f"the url is {connector.url}")
                await _talks(bench, connector, path)
            finally:
                await bench.within(connector.stop(), "stop()")
            equal(os.listdir(folder), ["s"], "files in its folder")
