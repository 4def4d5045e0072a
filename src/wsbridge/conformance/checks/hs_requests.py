"""HS-16 and HS-17: requests with a body, and large ones; CLOSE-4: the text of the answering close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.client import Close, HttpResponse, WireError
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Response
from wsbridge.interceptor import Context, Interceptor

_BODIES: dict[str, tuple[str, str, bytes]] = {
    "a length": ("Content-Length", "5", b"12345"),
    "a length and no body yet": ("Content-Length", "500000", b""),
    "a body in chunks": ("Transfer-Encoding", "chunked", b"5\r\n12345\r\n0\r\n\r\n"),
}
_PLAIN = {"Upgrade": None, "Connection": None, "Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None}
_DEFAULT = 64 * 1024  # bytes


def tokens(answer: HttpResponse, name: str) -> list[str]:
    """Return the elements of a header over all its lines, in lower case."""
    return [item.strip().lower() for line in answer.headers_all(name) for item in line.split(",")]


@asynccontextmanager
async def _answering(bench: Bench) -> AsyncGenerator[Served, None]:
    """Serve an application whose interceptor answers ``/polling``."""

    def answer(context: Context) -> None:
        request = context["request"]
        if request.path == "/polling":
            context["response"] = Response(f"{request.method} {request.headers.get('Content-Length')}", 200)

    interceptors = [Interceptor(name="answer", enter=answer)]
    async with bench.serve(Application([("/", bench.options())], interceptors=interceptors)) as served:
        yield served


async def _last(served: Served, what: str, body: bytes, **request: object) -> HttpResponse:
    """Send one request with a body, and return its answer, after which the connection must end, as it says."""
    async with served.raw() as peer:
        await peer.request(handshake(served, **request).encode() + body)  # type: ignore[arg-type]
        answer = await peer.read_response()
        true("close" in tokens(answer, "Connection"), f"Connection in the answer to {what}: {answer.headers}")
        if not isinstance(served.address, str) or served.connector is None:
            await peer.half_close()
        await peer.wait_eof()
        return answer


# ---- HS-16 ----------------------------------------------------------------------------------------------------------


@check("HS-16", wire=True)
async def interceptors_may_answer_it(bench: Bench) -> None:
    """An interceptor sees a request with a body and answers it; the connection ends then, and the answer says so."""
    async with _answering(bench) as served:
        for what, (name, value, body) in _BODIES.items():
            answer = await _last(
                served, what, body, target="/polling", method="POST", headers=[(name, value)], replace=_PLAIN
            )
            length = value if name == "Content-Length" else None
            equal((answer.status, answer.body), (200, f"POST {length}".encode()), f"the answer to {what}")
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("HS-16", wire=True, fixed=["cut"])
async def nobody_answers_it(bench: Bench) -> None:
    """Without an answer of an interceptor it gets 404 where no route is, 405 for a POST, and 400 for a handshake."""
    async with _answering(bench) as served:
        for what, (name, value, body) in _BODIES.items():
            headers = [(name, value)]
            plain = {"headers": headers, "replace": _PLAIN}
            for status, request in (
                (404, {"target": "/nowhere", "method": "POST", **plain}),
                (405, {"method": "POST", **plain}),
                (400, {"headers": headers}),
            ):
                answer = await _last(served, what, body, **request)
                equal(answer.status, status, f"the status for {what} in {request}")
        async with served.peer(headers=[("Content-Length", "0")]):  # that is not a body
            await bench.recorder.wait("open")
    equal(bench.recorder.kinds().count("open"), 1, "how often on_open ran")


@check("HS-16", wire=True)
async def a_body_that_takes_its_time(bench: Bench) -> None:
    """A peer that sends its body for a while and reads only then gets the whole answer, and is not reset before."""
    async with _answering(bench) as served:
        plain = {"method": "POST", "headers": [("Content-Length", "10000000")], "replace": _PLAIN}
        for target, status in (("/polling", 200), ("/nowhere", 404)):
            async with served.raw() as peer:
                await peer.request(handshake(served, target, **plain).encode())
                for _ in range(5):
                    await asyncio.sleep(0.1)  # in which a server may give up and reset it
                    await peer.send_raw(bytes(10_000))
                equal((await peer.read_response()).status, status, f"the status for {target}")


@check("HS-16")
async def it_is_seen_without_a_wire_too(bench: Bench) -> None:
    """A request that tells of a body is refused as a handshake, and answered by interceptors, on whatever connector."""
    async with _answering(bench) as served:
        headers = [("Content-Length", "5")]
        equal((await ask(served, headers=headers)).status, 400, "the status for a handshake")
        answer = await ask(served, target="/polling", method="POST", headers=headers, replace=_PLAIN)
        equal((answer.status, answer.body), (200, b"POST 5"), "what an interceptor answered")
        true("close" in tokens(answer, "Connection"), f"Connection in that answer: {answer.headers}")
    equal(bench.recorder.kinds(), [], "the callbacks")


@check("HS-4", wire=True)
async def an_end_is_told(bench: Bench) -> None:
    """An answer after which the connection ends says so, beside what else it says of it; the others do not."""
    async with _answering(bench) as served:
        for target, status in (("/polling", 200), ("/nowhere", 404), ("/", 426)):
            for asked in (None, "close"):
                replace = {**_PLAIN, "Connection": asked}
                async with served.raw() as peer:
                    await peer.request(handshake(served, target, replace=replace).encode())
                    answer = await peer.read_response()
                    equal(answer.status, status, f"the status for {target}")
                    said = tokens(answer, "Connection")
                    true(status != 426 or "upgrade" in said, f"Connection of a 426: {said}")
                    true(asked is None or "close" in said, f"Connection where the peer asked for a close: {said}")
                    if "close" in said:
                        await peer.wait_eof()
                    else:
                        await peer.request(handshake(served, target, replace=replace).encode())
                        equal((await peer.read_response()).status, status, f"the status of the next {target}")


# ---- HS-17 ----------------------------------------------------------------------------------------------------------


def _request(served: Served, size: int, *, lines: int = 1, where: str = "headers") -> bytes:
    """Return a handshake of ``size`` bytes."""
    if where == "target":
        base = len(handshake(served, "/?").encode())
        return handshake(served, "/?" + "q" * (size - base)).encode()
    names = [f"X-{number:03}" for number in range(lines)]
    base = len(handshake(served, headers=[(name, "") for name in names]).encode())
    sizes = [(size - base) // lines] * lines
    sizes[0] += (size - base) % lines
    return handshake(served, headers=[(name, "y" * each) for name, each in zip(names, sizes, strict=True)]).encode()


async def _status(served: Served, request: bytes, *, pieces: int = 1) -> int:
    async with served.raw() as peer:
        step = -(-len(request) // pieces)
        with contextlib.suppress(OSError, WireError):  # a server that has seen enough may not wait for the rest
            for start in range(0, len(request), step):
                await peer.request(request[start : start + step])
        return (await peer.read_response()).status


@check("HS-17")
async def up_to_the_limit_and_over_it(bench: Bench) -> None:
    """A request of just `max_head_size` bytes opens a channel, one of a byte more gets 431, by its target, too."""
    limit = 20_000
    async with bench.serve(max_head_size=limit) as served:
        for lines in (1, 15):
            equal(await _status(served, _request(served, limit, lines=lines)), 101, f"the status for {lines} lines")
            equal(await _status(served, _request(served, limit + 1, lines=lines)), 431, "the status for a byte more")
        equal(await _status(served, _request(served, limit, where="target")), 101, "the status for a long target")
        equal(await _status(served, _request(served, limit + 1, where="target")), 431, "the status for a longer one")
    true(bench.recorder.kinds().count("open") <= 3, "on_open ran for a request that was refused")


@check("HS-17")
async def the_default(bench: Bench) -> None:
    """By default 64 KiB are taken, in one line, in many or in the target, and not more."""
    async with bench.serve() as served:
        for request in (
            _request(served, _DEFAULT),
            _request(served, _DEFAULT, lines=60),
            _request(served, _DEFAULT, where="target"),
            _request(served, 8_000, lines=80),
        ):
            equal(await _status(served, request), 101, f"the status for {len(request)} bytes")
        equal(await _status(served, _request(served, _DEFAULT + 1)), 431, "the status for one byte more")


@check("HS-17", wire=True)
async def far_over_it(bench: Bench) -> None:
    """What is far over the limit gets 431 too, before its end, whole or in pieces, and so do very many headers."""
    async with bench.serve(max_head_size=10_000) as served:
        for pieces in (1, 7):
            for request in (
                _request(served, 300_000),
                _request(served, 300_000, where="target"),
                _request(served, 300_000, lines=100),
                _request(served, 9_000, lines=400),
            ):
                equal(await _status(served, request, pieces=pieces), 431, f"the status for {len(request)} bytes")
        async with served.raw() as peer:
            await peer.request(_request(served, 30_000).rstrip(b"\r\n"))
            equal((await peer.read_response()).status, 431, "the status for a head that has no end yet")
        equal(await _status(served, _request(served, 10_000)), 101, "the status for one that is not too large")


@check("HS-17", wire=True)
async def in_pieces(bench: Bench) -> None:
    """A head that comes piece by piece is measured as a whole: one of just the limit passes, a byte more gets 431."""
    limit = 20_000
    async with bench.serve(max_head_size=limit) as served:
        for lines in (1, 40):
            for size, status in ((limit, 101), (limit + 1, 431)):
                request = _request(served, size, lines=lines)
                async with served.raw() as peer:
                    with contextlib.suppress(OSError, WireError):  # of a server that has seen enough
                        await peer.send_apart(request[at : at + 700] for at in range(0, size, 700))
                    answer = await peer.read_response()
                equal(answer.status, status, f"the status for {size} bytes in {lines} lines")


# ---- CLOSE-4 --------------------------------------------------------------------------------------------------------


@check("CLOSE-4", black_box=True)
async def a_peer_gets_its_text_back(bench: Bench) -> None:
    """A peer that closes with a text gets it back with its code, of any width in UTF-8, up to 123 bytes."""
    async with bench.reference() as served:
        for text in ("bye", "", "gr\xfc\u20ac", "x" * 123):
            async with served.peer("/echo") as peer:
                await peer.send_close(4000, text)
                equal(await peer.receive_close(), Close(4000, text), "what comes back")
                await peer.wait_eof()
