"""STOP-1 and STOP-4: where a connector listens, and over what."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import ssl
import tempfile
from collections.abc import Callable, Generator, Sequence
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from wsbridge.application import Application
from wsbridge.conformance.checks.common import pair
from wsbridge.conformance.checks.sending_order import closes_in_front_of_a_pong
from wsbridge.conformance.client import Binary, Close, Text, WireError
from wsbridge.conformance.contract import CheckFailed, check, equal, fail, true
from wsbridge.conformance.harness.bench import Bench, Served, open_descriptors, open_what_stays
from wsbridge.conformance.harness.certificates import Certificates
from wsbridge.errors import ConnectorStateError
from wsbridge.http import Request
from wsbridge.protocols import Connector, WebSocketChannel

__all__ = ["free_port", "occupied"]

HOST = "127.0.0.1"


def _echo(bench: Bench) -> Any:
    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    async def on_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
        await channel.send_binary(data)

    return bench.options(on_text=on_text, on_binary=on_binary)


def _connector(bench: Bench, **options: Any) -> Connector:
    """Return a connector that echoes, not started."""
    made: Connector = bench.connector(Application([("/", _echo(bench))]), shutdown_timeout=2 * bench.scale, **options)
    return made


async def _echoes(bench: Bench, connector: Connector, address: Any = None, **peer_options: Any) -> None:
    """Check that the connector serves at an address, by default its first."""
    served = bench.served(connector) if address is None else Served(bench, address, "", connector)
    async with served.peer(**peer_options) as peer:
        await peer.send_text("there?")
        equal(await peer.receive(), Text("there?"), f"the echo at {served.address}")


def free_port(host: str = HOST) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def _second_host() -> str:
    """Return another address of this machine that is of its own: of IPv6, where that is on."""
    with contextlib.suppress(OSError):
        free_port("::1")
        return "::1"
    with contextlib.suppress(OSError):
        free_port("127.0.0.2")
        return "127.0.0.2"
    raise CheckFailed("this machine has but one address of its own, so that this cannot be checked")


@contextlib.contextmanager
def _localhost_is(hosts: Sequence[str]) -> Generator[None, None, None]:
    """Let the name localhost have these addresses, whatever this machine's files say."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("localhost", b"localhost"):
            return real(host, port, *arguments, **options)
        return [entry for one in hosts for entry in real(one, port, *arguments, **options)]

    with mock.patch.object(socket, "getaddrinfo", resolve):
        yield


_QUIET = range(20_000, 30_000)  # below what Linux and others take for connections: nobody takes one in between


@contextlib.contextmanager
def occupied(host: str, port: int = 0) -> Generator[int, None, None]:
    """Listen on a port for as long as the block runs; one is chosen that no system gives out by itself."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for connections of other checks that fade away
        ports = [port] if port else random.sample(_QUIET, 20)
        for number, chosen in enumerate(ports, 1):
            try:
                sock.bind((host, chosen))
                break
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE or number == len(ports):
                    raise
        sock.listen()
        yield int(sock.getsockname()[1])


async def _cannot_start(bench: Bench, connector: Connector, number: int | None = None) -> None:
    """Check that ``start()`` raises OSError and leaves nothing behind."""
    await open_what_stays()
    before, tasks = open_descriptors(), asyncio.all_tasks()
    try:
        await bench.within(connector.start(), "start()")
    except OSError as exc:
        true(number is None or exc.errno == number, f"start() raised {exc!r}")
    except Exception as exc:
        fail(f"start() must raise OSError, not {exc!r}")
    else:
        await connector.stop()
        fail("start() raised nothing")
    equal(list(connector.addresses), [], "the addresses of a connector that did not start")
    # looking whether somebody listens on a Unix socket makes a connection there, whose end takes some turns
    await bench.settle(
        lambda: open_descriptors() <= before, "the end of sockets left behind", timeout=0.5 * bench.scale
    )
    equal(list(asyncio.all_tasks() - tasks), [], "tasks left behind")


@check("STOP-1", wire=True)
async def listens_when_start_returns(bench: Bench) -> None:
    """When start() returns the connector serves, on a free port, which addresses and url tell."""
    connector = _connector(bench)
    await bench.within(connector.start(), "start()")
    try:
        equal(len(connector.addresses), 1, "the number of addresses")
        address = connector.addresses[0]
        host, port = address if isinstance(address, tuple) else (address, 0)
        equal(host, HOST, "the host")
        true(isinstance(port, int) and port > 0, f"the port is {port!r}")
        equal(connector.url, f"ws://{HOST}:{port}", "the url")
        await _echoes(bench, connector)
    finally:
        await bench.within(connector.stop(), "stop()")


@check("STOP-1")
async def no_address_while_it_does_not_run(bench: Bench) -> None:
    """Before start() and after stop() there is no address, and url raises ConnectorStateError."""
    connector = _connector(bench)
    for when in ("before start()", "after stop()"):
        equal(list(connector.addresses), [], f"the addresses {when}")
        with contextlib.suppress(ConnectorStateError):
            fail(f"the url {when} is {connector.url!r}")
        await bench.within(connector.start(), "start()")
        await bench.within(connector.stop(), "stop()")


@check("STOP-1", wire=True)
async def a_given_port(bench: Bench) -> None:
    """A port that is given is the one that is used."""
    port = free_port()
    async with bench.serve(_echo(bench), port=port) as served:
        assert served.connector is not None
        equal(list(served.connector.addresses), [(HOST, port)], "the addresses")
        await _echoes(bench, served.connector)


@check("STOP-1", wire=True)
async def one_port_for_every_address(bench: Bench) -> None:
    """Port 0 on a host of two addresses gives one free port, the same for both."""
    hosts = (HOST, _second_host())
    with _localhost_is(hosts):
        found = await asyncio.get_running_loop().getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
        expected = list(dict.fromkeys(str(entry[4][0]) for entry in found))  # as this loop sees it
        async with bench.serve(_echo(bench), host="localhost") as served:
            assert served.connector is not None
            addresses = [address for address in served.connector.addresses if not isinstance(address, str)]
            equal(sorted(host for host, _ in addresses), sorted(expected), "the hosts")
            equal(len({port for _, port in addresses}), 1, f"different ports in {addresses}")
            for address in addresses:
                await _echoes(bench, served.connector, address)


@check("STOP-1", wire=True)
async def every_url_can_be_used(bench: Bench) -> None:
    """The url leads to the server, for a name, for an address of IPv6 and for the address that stands for all."""
    for host in ("localhost", _second_host(), "0.0.0.0"):
        async with bench.serve(_echo(bench), host=host) as served:
            assert served.connector is not None
            url = urlsplit(served.connector.url)
            equal((url.scheme, url.path), ("ws", ""), f"scheme and path of {served.connector.url}")
            true(url.hostname and url.port, f"no host and port in {served.connector.url}")
            await _echoes(bench, served.connector, (url.hostname, url.port))


@check("STOP-1")
async def started_twice(bench: Bench) -> None:
    """Starting a connector that runs raises ConnectorStateError, and it runs on."""
    connector = _connector(bench)
    results = await bench.within(
        asyncio.gather(connector.start(), connector.start(), return_exceptions=True), "two start() at once"
    )
    try:
        equal(sorted(type(result).__name__ for result in results), ["ConnectorStateError", "NoneType"], "two results")
        addresses = list(connector.addresses)
        try:
            await bench.within(connector.start(), "start()")
        except ConnectorStateError:
            pass
        else:
            fail("a second start() raised nothing")
        equal(list(connector.addresses), addresses, "the addresses")
        await _echoes(bench, connector)
    finally:
        await bench.within(connector.stop(), "stop()")


@check("STOP-1", wire=True)
async def a_port_in_use(bench: Bench) -> None:
    """A port in use raises OSError and leaves nothing behind; when it is free again start() works."""
    with occupied(HOST) as port:
        connector = _connector(bench, port=port)
        await _cannot_start(bench, connector, errno.EADDRINUSE)
        await _cannot_start(bench, connector, errno.EADDRINUSE)
    await bench.within(connector.start(), "start()")
    try:
        equal(list(connector.addresses), [(HOST, port)], "the addresses")
        await _echoes(bench, connector)
    finally:
        await bench.within(connector.stop(), "stop()")


@check("STOP-1", wire=True)
async def a_port_in_use_on_the_second_address(bench: Bench) -> None:
    """A port that is in use on one of two addresses raises OSError, and the socket on the other is closed."""
    hosts = (HOST, _second_host())
    with _localhost_is(hosts), occupied(hosts[1]) as port:
        found = await asyncio.get_running_loop().getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
        if hosts[1] in {entry[4][0] for entry in found}:  # not with a loop that resolves by itself
            await _cannot_start(bench, _connector(bench, host="localhost", port=port), errno.EADDRINUSE)
            with occupied(hosts[0], port):  # an OSError if it were still taken
                pass


@check("STOP-1", wire=True)
async def an_address_of_somebody_else(bench: Bench) -> None:
    """An address that is not this machine's raises OSError and leaves nothing behind."""
    await _cannot_start(bench, _connector(bench, host="192.0.2.1"))  # TEST-NET-1, RFC 5737


@check("STOP-4", wire=True, tls=True)
async def tls(bench: Bench) -> None:
    """With an SSLContext the connector serves TLS: handshake, messages of any size and the close work as without."""
    schemes: list[str] = []
    certificates = Certificates()
    options = _echo(bench)
    async with bench.serve(options, ssl=certificates.server) as served:
        assert served.connector is not None
        true(served.connector.url.startswith("wss://"), f"the url is {served.connector.url}")
        async with pair(bench, served, ssl=certificates.client(), server_hostname="localhost") as (peer, _):
            request: Request = bench.recorder.values("open")[0]
            schemes.append(request.scheme)
            equal(request.remote_address, peer.local_address, "the remote address")
            for size in (0, 1, 20_000, 1024 * 1024):
                await peer.send_binary(bytes([size % 251]) * size)
                equal(await peer.receive() == Binary(bytes([size % 251]) * size), True, f"the echo of {size} bytes")
            await peer.send_close(4000, "bye")
            equal((await peer.receive_close()).code, 4000, "the code that the peer gets")
            await peer.wait_eof()
            reason = await bench.recorder.closed()
            equal((reason.code, reason.text, reason.initiator), (4000, "bye", "peer"), "the reason")
    equal(schemes, ["wss"], "the scheme")


async def _never_opens(bench: Bench, served: Served, what: str, **peer_options: Any) -> None:
    try:
        async with served.peer(**peer_options):
            fail(f"{what} got a channel")
    except (WireError, OSError):  # an SSLError is an OSError
        pass
    equal(bench.recorder.all("open"), [], f"on_open for {what}")


@check("STOP-4", wire=True, tls=True, fixed=["path"])
async def tls_only(bench: Bench) -> None:
    """A peer that speaks no TLS to a TLS port, or trusts another authority, gets no channel; the next one does."""
    certificates = Certificates()
    async with bench.serve(_echo(bench), ssl=certificates.server) as served:
        assert served.connector is not None
        await _never_opens(bench, served, "a peer without TLS")
        strangers = Certificates().client()
        await _never_opens(bench, served, "a peer that trusts others", ssl=strangers, server_hostname="localhost")
        await _echoes(bench, served.connector, ssl=certificates.client(), server_hostname="localhost")


@check("STOP-4", wire=True, tls=True)
async def tls_with_client_certificates(bench: Bench) -> None:
    """A context that asks for client certificates is obeyed: with one a peer gets a channel, without it does not."""
    certificates = Certificates()
    certificates.server.verify_mode = ssl.CERT_REQUIRED
    certificates.authority.configure_trust(certificates.server)
    async with bench.serve(_echo(bench), ssl=certificates.server) as served:
        assert served.connector is not None
        nobody = {"ssl": certificates.client(), "server_hostname": "localhost"}
        await _never_opens(bench, served, "a peer without a certificate", **nobody)
        known = certificates.client(certificate=True)
        await _echoes(bench, served.connector, ssl=known, server_hostname="localhost")


@check("HS-2", wire=True, tls=True)
async def client_certificate(bench: Bench) -> None:
    """A request has the certificate of its own peer, verified; None of a peer that shows none, and without TLS."""
    certificates = Certificates()
    certificates.server.verify_mode = ssl.CERT_OPTIONAL
    certificates.authority.configure_trust(certificates.server)
    shown: list[list[str] | None] = []
    async with bench.serve(ssl=certificates.server) as served:
        for names in (["ada@example.org"], None, ["bob@example.org"]):
            context = certificates.client(certificate=names is not None, name=(names or [""])[0])
            async with pair(bench, served, ssl=context, server_hostname="localhost"):
                pass
            await bench.recorder.wait("close", len(shown) + 1)
            shown.append(_names(bench.recorder.values("open")[-1]))
    equal(shown, [["ada@example.org"], None, ["bob@example.org"]], "the names in the certificates of three peers")
    async with bench.serve() as served, pair(bench, served):
        equal(bench.recorder.values("open")[-1].client_certificate, None, "the certificate of a peer without TLS")


def _names(request: Request) -> list[str] | None:
    """Return the mail addresses that a request's certificate is for."""
    certificate = request.client_certificate
    if certificate is None:
        return None
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind == "email"]


@check("SEND-6", wire=True, tls=True)
async def over_tls_a_pong_behind_the_peers_close(bench: Bench) -> None:
    """Over TLS too a peer that closes, then sends a pong, and reads only then, loses nothing that the system has."""
    certificates = Certificates()
    over_tls = {"ssl": certificates.client(), "server_hostname": "localhost"}
    async with bench.serve(ssl=certificates.server) as served:
        await closes_in_front_of_a_pong(bench, served, much=False, **over_tls)


async def _ends_over_tls(bench: Bench, act: Callable[[Any, WebSocketChannel], Any], code: int, initiator: str) -> None:
    """Check that a TLS peer that then does nothing more is cut off, and the socket closed, within close_timeout."""
    certificates = Certificates()
    close_timeout = 0.25 * bench.scale
    options = bench.options(close_timeout=close_timeout)
    async with (
        bench.serve(options, ssl=certificates.server) as served,
        pair(bench, served, ssl=certificates.client(), server_hostname="localhost") as (peer, channel),
    ):
        before = open_descriptors()
        await act(peer, channel)
        reason = await bench.recorder.closed(timeout=close_timeout + bench.scale)
        equal((reason.code, reason.initiator), (code, initiator), "code and initiator")
        limit = close_timeout + bench.scale
        await bench.settle(lambda: open_descriptors() < before or not before, "the end of the socket", timeout=limit)


@check("CLOSE-5", wire=True, tls=True)
async def over_tls_a_peer_that_stays(bench: Bench) -> None:
    """Over TLS too a peer that answers the close, keeps TCP open and says no close_notify is cut off."""

    async def act(peer: Any, channel: WebSocketChannel) -> None:
        channel.close(4001)
        equal(await peer.receive(), Close(4001), "what the peer gets")

    await _ends_over_tls(bench, act, 4001, "local")


@check("CLOSE-5", wire=True, tls=True)
async def over_tls_a_peer_that_closes_and_stays(bench: Bench) -> None:
    """Over TLS too a peer that closes, keeps TCP open and reads nothing more is cut off."""

    async def act(peer: Any, channel: WebSocketChannel) -> None:
        await peer.send_close(4002)

    await _ends_over_tls(bench, act, 4002, "peer")


@check("CLOSE-5", wire=True, tls=True)
async def over_tls_a_peer_that_never_answers(bench: Bench) -> None:
    """Over TLS too a peer that never answers a close is cut off after close_timeout."""

    async def act(peer: Any, channel: WebSocketChannel) -> None:
        channel.close(4001)

    await _ends_over_tls(bench, act, 4001, "local")


@contextlib.contextmanager
def _path() -> Generator[str, None, None]:
    with tempfile.TemporaryDirectory(prefix="wsb") as directory:  # a path of a socket has to be short
        yield os.path.join(directory, "s")


def _files(path: str) -> list[str]:
    return os.listdir(os.path.dirname(path))


@check("STOP-4", needs=("unix-socket",))
async def a_unix_socket(bench: Bench) -> None:
    """With unix_path the connector serves on a Unix socket, and removes it when it stops; then it starts again."""
    with _path() as path:
        connector = _connector(bench, unix_path=path)
        for number in (1, 2):
            await bench.within(connector.start(), "start()")
            try:
                equal(list(connector.addresses), [path], "the addresses")
                true(connector.url.endswith(path), f"the url is {connector.url}")
                await _echoes(bench, connector)
                request: Request = bench.recorder.values("open")[-1]
                equal((request.remote_address, request.scheme), (None, "ws"), "remote address and scheme")
            finally:
                await bench.within(connector.stop(), "stop()")
            equal(_files(path), [], "files that are left")
            equal(len(bench.recorder.all("close")), number, "how often on_close ran")


@check("STOP-4", needs=("unix-socket",))
async def a_unix_socket_in_use(bench: Bench) -> None:
    """A path that another connector listens on raises OSError, and that one goes on; so does a path that cannot be."""
    with _path() as path:
        async with bench.serve(_echo(bench), unix_path=path) as served:
            assert served.connector is not None
            await _cannot_start(bench, _connector(bench, unix_path=path), errno.EADDRINUSE)
            await _echoes(bench, served.connector)
        await _cannot_start(bench, _connector(bench, unix_path=os.path.join(path, "no", "directory")))


@check("STOP-4", stochastic=True, wire=True)
async def reuse_port(bench: Bench) -> None:
    """With reuse_port two connectors share a port, every connection is served, and one goes on when the other stops."""
    first, second = (_connector(bench, reuse_port=True) for _ in range(2))
    await bench.within(first.start(), "start()")
    try:
        port = first.addresses[0][1]
        second = _connector(bench, reuse_port=True, port=port)
        await bench.within(second.start(), "start() of a second connector on the same port")
        try:
            equal(list(second.addresses), list(first.addresses), "the addresses")
            for _ in range(20):
                await _echoes(bench, first)
            await bench.recorder.wait("close", 20)
        finally:
            await bench.within(second.stop(), "stop()")
        for _ in range(5):
            await _echoes(bench, first)
    finally:
        await bench.within(first.stop(), "stop()")


@check("STOP-4", wire=True)
async def without_reuse_port(bench: Bench) -> None:
    """Without reuse_port, its default, a port is not shared: the second connector's start() raises OSError."""
    async with bench.serve(_echo(bench)) as served:
        assert served.connector is not None
        port = served.connector.addresses[0][1]
        await _cannot_start(bench, _connector(bench, port=port), errno.EADDRINUSE)
        await _cannot_start(bench, _connector(bench, port=port, reuse_port=True), errno.EADDRINUSE)
        await _echoes(bench, served.connector)
