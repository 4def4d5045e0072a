"""What a peer records of its connection: the bytes, and who ended it how."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

pytest.importorskip("wsproto")  # the extra conformance

import trustme

from wsbridge.conformance.client import (
    Address,
    Closed,
    Eof,
    Opcode,
    WireLog,
    WirePeer,
    WireTimeout,
    WireViolation,
    build_frame,
)
from wsbridge.conformance.client.log import KEPT, hex_lines

pytestmark = pytest.mark.suite

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Address]:
    """Serve ``handler`` on a free port; it ends the connection itself, or the end of the block does."""
    writers: list[asyncio.StreamWriter] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def stays(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...


def texts(log: WireLog) -> list[str]:
    return [entry.text for entry in log.entries]


async def test_the_record_has_the_first_bytes_as_they_were_on_the_wire() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x02hi" + b"\x82\x7e\x03\xe8" + bytes(1000))

    async with serving(answers) as address, await WirePeer.open(address) as peer:
        assert await peer.receive_text() == "hi"
        assert await peer.receive_binary() == bytes(1000)
        sent = build_frame(Opcode.TEXT, b"x" * 500)
        await peer.send_raw(sent)
    short, long, ours = [entry for entry in peer.log.entries if entry.direction != "note"]
    assert (short.data, short.size) == ("81026869", 4)
    assert bytes.fromhex(long.data) == (b"\x82\x7e\x03\xe8" + bytes(1000))[:KEPT]
    assert bytes.fromhex(ours.data) == sent[:KEPT]
    assert ours.size == len(sent)


def test_bytes_are_shown_as_in_an_editor() -> None:
    assert hex_lines("81026869") == ["81 02 68 69                                      ..hi"]
    lines = hex_lines((bytes(range(32)) + b"~\x7f").hex())
    assert [line[:47].rstrip() for line in lines] == [
        "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f",
        "7e 7f",
    ]
    assert lines[2].endswith("  ~.")
    assert hex_lines("") == []


async def test_a_request_sent_by_hand_is_no_frame_in_the_record() -> None:
    async with serving(stays) as address, await WirePeer.open(address) as peer:
        await peer.send_raw(GET + build_frame(Opcode.PING, mask=b"\0\0\0\0"))
    request, ping = [entry for entry in peer.log.entries if entry.direction == "sent"]
    assert request.text == "GET / HTTP/1.1 | Host: localhost"
    assert ping.text == "PING masked length=0"


@pytest.mark.parametrize(
    ("handler", "told"), [(ends, "the server ended it: FIN"), (resets, "the server ended it: RST")]
)
async def test_the_record_says_how_the_server_ended_it(handler: Handler, told: str) -> None:
    async with serving(handler) as address, await WirePeer.open(address) as peer:
        assert await peer.receive() == Eof(reset="RST" in told)
    assert texts(peer.log)[1:] == [told, "closed here"]


async def test_the_record_says_when_a_write_met_the_end() -> None:
    async with serving(resets) as address, await WirePeer.open(address) as peer:
        await asyncio.sleep(0.05)
        with pytest.raises(Closed):
            await peer.ping()
    assert "the server had ended it before a write here: RST" in texts(peer.log)


async def test_the_record_says_how_this_end_ended_it() -> None:
    async with serving(stays) as address:
        peer = await WirePeer.open(address)
        peer.drop()
        peer.close()
        assert texts(peer.log)[1:] == ["ended here: RST"]
        async with await WirePeer.open(address) as other:
            await other.half_close()
        assert texts(other.log)[1:] == ["ended here, one way: FIN", "closed here"]


async def test_the_record_says_what_was_waited_for() -> None:
    async with serving(stays) as address, await WirePeer.open(address) as peer:
        with pytest.raises(WireTimeout) as caught:
            await peer.receive_close(0.05)
    assert "waited 0.05 s for a close frame" in texts(peer.log)
    assert caught.value.log is peer.log
    assert (caught.value.expected, caught.value.actual) == ("a close frame within 0.05 s", "nothing of the kind")


async def test_the_record_has_what_the_check_did_not_read() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x01a\x81\x01b\x88")

    async with serving(answers) as address, await WirePeer.open(address) as peer:
        assert await peer.receive_text() == "a"
        with pytest.raises(WireTimeout):
            await peer.read_ahead(100, 0.05)
    unread = next(entry for entry in peer.log.entries if entry.text.startswith("not read"))
    assert unread.text == "not read by the check: TEXT length=1 b'b'"
    assert (unread.data, unread.direction) == ("81016288", "received")


async def test_what_is_left_in_the_socket_is_looked_at_and_stays_there() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x01a")
        with contextlib.suppress(ConnectionError):
            await reader.read()
            ended.append("FIN")
            return
        ended.append("RST")

    ended: list[str] = []
    async with serving(answers) as address:
        async with await WirePeer.open(address) as peer:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
    assert "not read by the check: TEXT length=1 b'a'" in texts(peer.log)
    assert ended == ["RST"]  # as a close with unread data is


async def test_an_answer_that_is_no_http_is_in_the_record() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")

    async with serving(answers) as address, await WirePeer.open(address) as peer:
        await peer.request(GET)
        with pytest.raises(WireViolation):
            await peer.read_response()
    assert "220 mail.example ESMTP" in texts(peer.log)


# ---- over TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's and a client's context."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_the_record_tells_the_end_of_tls_from_a_cut(authority: trustme.CA) -> None:
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    server, client = contexts(authority)
    async with serving(ends, tls=server) as address, await WirePeer.open(address, ssl=client) as peer:
        await peer.receive()
    assert "the server ended TLS: close_notify" in texts(peer.log)
    async with serving(cuts, tls=server) as address, await WirePeer.open(address, ssl=client) as peer:
        await peer.receive()
    assert "TLS was cut short: no close_notify before the end" in texts(peer.log)


async def test_the_record_names_an_alert(authority: trustme.CA) -> None:
    server, client = contexts(authority)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    log = WireLog()

    def refuse() -> None:  # asyncio's servers say nothing when they refuse, others send an alert
        connection, _ = listening.accept()
        with connection, pytest.raises(ssl.SSLError):
            server.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        refusing = asyncio.create_task(asyncio.to_thread(refuse))
        async with await WirePeer.open(listening.getsockname(), ssl=client, log=log) as peer:
            await peer.receive()  # in TLS 1.3 the alert comes behind the handshake
        await refusing
    assert "the server ended TLS by an alert: TLSV13_ALERT_CERTIFICATE_REQUIRED" in texts(log)


async def test_the_record_says_that_this_end_refused_a_certificate(authority: trustme.CA) -> None:
    server, client = contexts(authority)
    log = WireLog()
    async with serving(stays, tls=server) as address:
        with pytest.raises(ssl.SSLCertVerificationError):
            await WirePeer.open(address, ssl=client, server_hostname="other.example", log=log)
    assert "TLS was ended here: CERTIFICATE_VERIFY_FAILED" in texts(log)
