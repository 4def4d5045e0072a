"""HS-18: a client that selects HTTP/2 by ALPN."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.certificates import Certificates
from wsbridge.connector.alpn import GRACE

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")  # RFC 9113, 3.4
_SETTINGS = bytes.fromhex("000000040000000000")
_GOAWAY = bytes.fromhex("00000807000000000000000000" + "0000000d")  # HTTP_1_1_REQUIRED
_ANSWER = _SETTINGS + _GOAWAY


class _Offering(Certificates):
    """An application's own TLS context for a server, which offers HTTP/2 too and does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.server.set_alpn_protocols(["h2", "http/1.1"])


@contextlib.asynccontextmanager
async def _http2(
    bench: Bench, served: Served, certificates: Certificates
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect as a client that speaks HTTP/2 if it may."""
    context = certificates.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert isinstance(served.address, tuple)
    host, port = served.address
    opening = asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
    reader, writer = await bench.within(opening, "the TLS handshake")
    try:
        selected = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        equal(selected, "h2", "what is agreed on by ALPN")
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def _warnings(bench: Bench) -> list[str]:
    return [record.getMessage() for record in bench.logs if record.levelno >= logging.WARNING]


@check("HS-18", wire=True, tls=True)
async def a_client_that_selects_http2(bench: Bench) -> None:
    """A client that selects HTTP/2 gets SETTINGS and a GOAWAY with HTTP_1_1_REQUIRED, whatever it has sent by then."""
    certificates = _Offering()
    async with bench.serve(ssl=certificates.server) as served:
        for sent in (_PREFACE, b"", _PREFACE + bytes(200_000)):
            async with _http2(bench, served, certificates) as (reader, writer):
                writer.write(sent)
                equal(await bench.within(reader.readexactly(len(_ANSWER)), "the answer"), _ANSWER, "the answer")
    equal(bench.recorder.all("open"), [], "on_open for a client that speaks HTTP/2")


@check("HS-18", wire=True, tls=True)
async def one_that_stays(bench: Bench) -> None:
    """A client that has its answer and does not leave is ended: it sees no more bytes, and the end."""
    certificates = _Offering()
    async with (
        bench.serve(ssl=certificates.server) as served,
        _http2(bench, served, certificates) as (reader, writer),
    ):
        writer.write(_PREFACE)
        ended = bench.within(reader.read(), "the connection", timeout=2 * GRACE + bench.timeout)
        equal(await ended, _ANSWER, "all that comes")


@check("HS-18", wire=True, tls=True)
async def at_a_stop_nothing_is_left(bench: Bench) -> None:
    """A stop ends such a connection too."""
    certificates = _Offering()
    async with contextlib.AsyncExitStack() as stack:
        async with bench.serve(ssl=certificates.server) as served:
            reader, _ = await stack.enter_async_context(_http2(bench, served, certificates))
            await bench.within(reader.readexactly(len(_ANSWER)), "the answer")
        with contextlib.suppress(ConnectionError):
            equal(await bench.within(reader.read(), "the connection"), b"", "what comes at the stop")


@check("HS-18", wire=True, tls=True)
async def the_log_says_so_once(bench: Bench) -> None:
    """One warning for a connector, however many clients select HTTP/2: it says what would be right."""
    certificates = _Offering()
    async with bench.serve(ssl=certificates.server) as served:
        for _ in range(3):
            async with _http2(bench, served, certificates) as (reader, writer):
                writer.write(_PREFACE)
                await bench.within(reader.readexactly(len(_ANSWER)), "the answer")
    found = _warnings(bench)
    equal(len(found), 1, f"how many warnings there are: {found}")
    for word in ("HTTP/2", "set_alpn_protocols", bench.connector.name):
        true(word in found[0], f"the warning does not have {word!r}: {found[0]}")


@check("HS-18", wire=True, tls=True)
async def http_1_1_beside_it(bench: Bench) -> None:
    """With such a context a client that selects HTTP/1.1, or nothing, gets its channel, and nothing is logged."""
    certificates = _Offering()
    chosen = certificates.client()
    chosen.set_alpn_protocols(["http/1.1"])
    async with bench.serve(ssl=certificates.server) as served:
        for number, context in enumerate((chosen, certificates.client()), 1):
            async with served.peer(ssl=context, server_hostname="localhost") as peer:
                await bench.recorder.wait("open", number)
                await peer.send_close(1000)
                equal((await peer.receive_close()).code, 1000, "the code of the answered close")
            await bench.recorder.closed(number)
    equal(_warnings(bench), [], "what is logged")
