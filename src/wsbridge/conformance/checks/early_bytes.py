"""HS-11: what a peer sends before its channel reads, handed over byte for byte, wherever the request's packet ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.framing_cuts import mixed
from wsbridge.conformance.checks.hs import handshake
from wsbridge.conformance.client import Opcode, Pong, WirePeer, build_frame
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.conformance.harness.certificates import Certificates
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.upgrade import websocket_interceptor

__all__ = ["whatever_stands_behind_the_request", "whatever_stands_behind_the_request_of_a_slow_chain"]

_LARGE = 200_000  # bytes: more than any server keeps while it waits, and than one read


class _Early:
    """Messages in frames, and a place to cut them: what comes with the request, before the 101, and after it."""

    def __init__(self, bench: Bench, *, deflate: bool = False) -> None:
        self.bench = bench
        self.deflate = deflate
        raw, self.messages = mixed(30, deflate=deflate)
        self.raw = raw + build_frame(Opcode.PING, b"last")
        self.first = 2 + 4 + self.raw[1] % 128  # bytes of the first frame
        large = bytes(range(256)) * (_LARGE // 256)
        self.large = build_frame(Opcode.BINARY, large) + self.raw
        self.large_messages: list[str | bytes] = [large, *self.messages]

    def cuts(self) -> Sequence[tuple[str, bytes, int]]:
        """Return what is tried: the name of it, all bytes, and how many of them come with the request."""
        return (
            ("nothing", self.raw, 0),
            ("a byte", self.raw, 1),
            ("half a head", self.raw, 3),
            ("a head", self.raw, 6),
            ("a frame", self.raw, self.first),
            ("a frame and a byte", self.raw, self.first + 1),
            ("several frames", self.raw, 2000),
            ("all but a byte", self.raw, len(self.raw) - 1),
            ("all", self.raw, len(self.raw)),
            ("a part of a large frame", self.large, 70_000),
            ("a large frame", self.large, len(self.large)),
        )

    async def received(self, peer: WirePeer, what: str, *, large: bool, before: int) -> None:
        """Check that the messages came, each once and in order, and that the last ping is answered after them."""
        expected = self.large_messages if large else self.messages
        recorder = self.bench.recorder
        await recorder.until(lambda: len(recorder.values()) >= before + len(expected), f"the last message after {what}")
        while await peer.receive() != Pong(b"last"):
            pass
        got = recorder.values()[before:]
        if got != expected:
            wrong = next((at for at, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]), -1)
            true(
                False, f"{len(got)} messages came for {len(expected)}, and number {wrong} is not the one that was sent"
            )


def _chain(bench: Bench, options: WebSocketOptions[Any], released: asyncio.Event | None) -> Application:
    async def wait(context: Context) -> None:
        bench.recorder.log("waits")
        if released is not None:
            await released.wait()

    return Application([("/", (Interceptor(name="slow", enter=wait), websocket_interceptor("upgrade", options)))])


async def _each_cut(
    bench: Bench, served: Served, early: _Early, *, released: asyncio.Event | None = None, **connection: Any
) -> None:
    with variants() as variant:
        for what, raw, cut in early.cuts():
            with variant(f"{what} with the request"):
                before, waited = len(bench.recorder.values()), len(bench.recorder.all("waits"))
                async with served.raw(**connection) as peer:
                    built = handshake(served, deflate=early.deflate)
                    if released is not None:
                        released.clear()
                    sending = asyncio.ensure_future(peer.request(built.encode() + raw[:cut]))
                    try:
                        middle = cut
                        if released is not None:
                            await bench.recorder.wait("waits", waited + 1)
                            middle = min(cut + 1000, len(raw))
                            await asyncio.wait((sending,), timeout=0.02)  # a large one is held back meanwhile
                            if sending.done():
                                await peer.send_apart([raw[cut : cut + 1], raw[cut + 1 : middle]])
                            else:
                                middle = cut
                            released.set()
                        await bench.within(sending, "the request, with what comes with it")
                        peer.start_websocket(built, await peer.read_response())
                        await peer.send_raw(raw[middle:])
                        await early.received(peer, what, large=raw is early.large, before=before)
                    finally:
                        sending.cancel()
                        await asyncio.wait((sending,))


@check("HS-11", wire=True)
async def whatever_stands_behind_the_request(bench: Bench) -> None:
    """A byte, half a head, some frames or a large one in the request's packet are lost, doubled or moved by none."""
    async with bench.serve(bench.options()) as served:
        await _each_cut(bench, served, _Early(bench))


@check("HS-11", wire=True)
async def whatever_stands_behind_the_request_of_a_slow_chain(bench: Bench) -> None:
    """The same where interceptors still decide, and more comes meanwhile."""
    released = asyncio.Event()
    async with bench.serve(_chain(bench, bench.options(), released)) as served:
        await _each_cut(bench, served, _Early(bench), released=released)


@check("HS-11", wire=True)
async def whatever_stands_behind_the_request_of_a_slow_on_open(bench: Bench) -> None:
    """The same where the rest comes after the 101 and before on_open has returned."""

    async def on_open(*arguments: Any) -> None:
        await asyncio.sleep(0.01)

    async with bench.serve(bench.options(on_open=on_open)) as served:
        await _each_cut(bench, served, _Early(bench))


@check("HS-11", wire=True, needs=("compression", "size-limit"))
async def whatever_stands_behind_the_request_where_it_deflates(bench: Bench) -> None:
    """The same for messages that are deflated, with limits that differ."""
    options = bench.options(compression=True, max_text_size=100_000, max_binary_size=_LARGE * 2)
    async with bench.serve(options) as served:
        await _each_cut(bench, served, _Early(bench, deflate=True))


@check("HS-11", wire=True, tls=True)
async def whatever_stands_behind_the_request_over_tls(bench: Bench) -> None:
    """The same over TLS, with and without a chain that is slow."""
    certificates = Certificates()
    over_tls: dict[str, Any] = {"ssl": certificates.client(), "server_hostname": "localhost"}
    released = asyncio.Event()
    for waits in (None, released):
        async with bench.serve(_chain(bench, bench.options(), waits), ssl=certificates.server) as served:
            await _each_cut(bench, served, _Early(bench), released=waits, **over_tls)


@check("HS-11", wire=True)
async def a_request_in_single_bytes(bench: Bench) -> None:
    """A request that comes byte by byte, the last one with a frame and a half, opens its channel and loses nothing."""
    async with bench.serve() as served, served.raw() as peer:
        built = handshake(served)
        request, frame = built.encode(), build_frame(Opcode.TEXT, b"early")
        await peer.send_apart(request[:-1])
        await peer.send_apart([request[-1:] + frame + frame[:4], frame[4:]])
        peer.start_websocket(built, await peer.read_response())
        await bench.recorder.wait("text", 2)
        equal(bench.recorder.values(), ["early", "early"], "the messages")
