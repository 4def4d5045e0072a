"""The deadline of a handshake, in no real time, and what a request tells of its connection."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from typing import Any

import pytest

from tests.fakes import FakeConnector
from wsbridge.connector import HandshakeDeadline, peer_address, request_parts


class Connection:
    """What is cut."""

    def __init__(self) -> None:
        self.cuts = 0

    def abort(self) -> None:
        self.cuts += 1


@pytest.mark.rule("HS-10")
async def test_a_connection_is_cut_once_at_the_end_of_the_connectors_time() -> None:
    connector = FakeConnector(handshake_timeout=5)
    time, connection, deadline = connector.use_fake_time(), Connection(), HandshakeDeadline(connector)
    deadline.begin(connection.abort)
    time.advance(4.9)
    assert connection.cuts == 0
    time.advance(20)
    assert connection.cuts == 1
    assert time.timers == []
    deadline.cancel()


@pytest.mark.rule("HS-10")
async def test_one_that_is_complete_is_left_alone() -> None:
    connector = FakeConnector(handshake_timeout=5)
    time, connection, deadline = connector.use_fake_time(), Connection(), HandshakeDeadline(connector)
    deadline.cancel()  # before it has begun
    deadline.begin(connection.abort)
    deadline.cancel()
    deadline.cancel()
    assert time.timers == []
    time.advance(20)
    assert connection.cuts == 0


async def test_it_begins_anew_for_the_next_request() -> None:
    connector = FakeConnector(handshake_timeout=5)
    time, connection, deadline = connector.use_fake_time(), Connection(), HandshakeDeadline(connector)
    deadline.begin(connection.abort)
    time.advance(4)
    deadline.begin(connection.abort)
    time.advance(4)
    assert connection.cuts == 0
    time.advance(1.1)
    assert connection.cuts == 1
    deadline.begin(connection.abort, 1)
    time.advance(1.1)
    assert connection.cuts == 2


@pytest.mark.parametrize("ends", [True, False])
async def test_it_keeps_nothing_of_a_connection_that_is_no_longer_waited_for(ends: bool) -> None:
    connector = FakeConnector(handshake_timeout=5)
    time, connection, deadline = connector.use_fake_time(), Connection(), HandshakeDeadline(connector)
    reference = weakref.ref(connection)
    deadline.begin(connection.abort)
    del connection
    assert reference() is not None
    if ends:
        time.advance(6)
    else:
        deadline.cancel()
    gc.collect()
    assert reference() is None


class Transport(asyncio.BaseTransport):
    """A transport that knows what it is told."""


@pytest.mark.rule("HS-2")
def test_a_request_tells_of_its_connection() -> None:
    plain = Transport({"peername": ("192.0.2.1", 50000)})
    assert request_parts(plain) == {"scheme": "ws", "remote_address": ("192.0.2.1", 50000), "tls": None}
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    secure = Transport({"peername": ("2001:db8::1", 50000, 0, 0), "ssl_object": tls})
    assert request_parts(secure) == {"scheme": "wss", "remote_address": ("2001:db8::1", 50000), "tls": tls}
    assert request_parts(Transport({"peername": ""})) == request_parts(None)
    assert request_parts(None) == {"scheme": "ws", "remote_address": None, "tls": None}


@pytest.mark.rule("HS-2")
@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("192.0.2.1", 50000), ("192.0.2.1", 50000)),
        (["192.0.2.1", 50000], ("192.0.2.1", 50000)),
        (("fe80::1%eth0", 50000, 0, 2), ("fe80::1%eth0", 50000)),
        (["testclient", None], ("testclient", 0)),
        (["testclient"], ("testclient", 0)),
        (["", 0], None),
        ([], None),
        ((), None),
        ("", None),
        ("/run/peer.sock", None),
        (b"\0abstract", None),
        (None, None),
    ],
)
def test_the_address_of_a_peer(name: Any, address: tuple[str, int] | None) -> None:
    assert peer_address(name) == address
