"""SEND-6, HS-4: nothing is written after a close frame, nor any HTTP after the one answer to a handshake."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import handshake
from wsbridge.conformance.client import Close, Closed, Eof, Opcode, Text, WirePeer, build_frame, close_payload
from wsbridge.conformance.contract import check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

__all__: list[str] = []

_BEHIND = (
    build_frame(Opcode.PING, b"late")
    + build_frame(Opcode.TEXT, b"late")
    + build_frame(Opcode.BINARY, b"late")
    + build_frame(Opcode.PING)
)
_CLOSE = build_frame(Opcode.CLOSE, close_payload(4000))

End = Callable[[WirePeer], Awaitable[object]]


async def _on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    """Do what the peer asks for."""
    if text == "raise":
        raise RuntimeError("on_text raises")
    if text == "close":
        channel.close(4001)
        await channel.send_text("after the close")
    elif text == "send and close":
        sends = [asyncio.ensure_future(channel.send_binary(bytes(100_000))) for _ in range(5)]
        await asyncio.sleep(0)
        channel.close(4001)
        sends += [asyncio.ensure_future(channel.send_binary(bytes(100_000))) for _ in range(5)]
        await asyncio.wait(sends)
    else:
        await channel.send_text(text)


def _raw(*frames: bytes) -> End:
    return lambda peer: peer.send_raw(b"".join(frames))


def _says(text: str) -> End:
    return _raw(build_frame(Opcode.TEXT, text.encode()))


async def _nothing(peer: WirePeer) -> None:
    """Leave all to the server."""


_ENDS: Mapping[str, tuple[str, End]] = {
    "the peer's close": ("/", _raw(_CLOSE)),
    "the peer's empty close": ("/", _raw(build_frame(Opcode.CLOSE))),
    "the peer's close behind a message": ("/", _raw(build_frame(Opcode.TEXT, b"echo"), _CLOSE)),
    "the peer's close in a message": ("/", _raw(build_frame(Opcode.TEXT, b"part", fin=False), _CLOSE)),
    "a second close": ("/", _raw(_CLOSE, build_frame(Opcode.CLOSE, close_payload(4002)))),
    "a local close": ("/", _says("close")),
    "a local close among sends": ("/", _says("send and close")),
    "an exception": ("/", _says("raise")),
    "a violation": ("/", _raw(build_frame(3, b"?"))),
    "text that is not UTF-8": ("/", _raw(build_frame(Opcode.TEXT, b"\xff"))),
    "an on_open that closes": ("/closes", _nothing),
    "an on_open that raises": ("/raises", _nothing),
    "the idle timeout": ("/idle", _nothing),
}


def _routes(bench: Bench, **options: Any) -> Application:
    def raises(channel: WebSocketChannel, request: Request) -> None:
        raise RuntimeError("on_open raises")

    def closes(channel: WebSocketChannel, request: Request) -> None:
        channel.close(4001)

    def made(**more: Any) -> WebSocketOptions[Any]:
        return bench.bare_options(on_text=_on_text, close_timeout=0.5 * bench.scale, **options, **more)

    return Application(
        [
            ("/", made()),
            ("/closes", made(on_open=closes)),
            ("/raises", made(on_open=raises)),
            ("/idle", made(idle_timeout=0.05 * bench.scale)),
        ]
    )


async def _one_close(peer: WirePeer, end: End, behind: bytes, *, at_once: bool) -> None:
    """Bring about an end and send what comes after it; check that a close frame is the last that comes, and the one."""
    peer.auto_close = False
    await end(peer)
    with contextlib.suppress(Closed):
        if at_once:
            await peer.send_raw(behind)
        while not isinstance(event := await peer.receive(), Close):
            if isinstance(event, Eof):
                true(False, "there was no close frame")
            true(not (isinstance(event, Text) and event.data in ("late", "after the close")), f"{event} came")
        await peer.send_raw(behind)
        await peer.send_raw(_CLOSE)
        await peer.half_close()
    event = await peer.receive()
    true(isinstance(event, Eof) and not event.partial, f"after the close frame came {event}")
    closes = [event for event in peer.received if isinstance(event, Close)]
    equal(len(closes), 1, "how many close frames came")


async def _after_each_end(bench: Bench, **options: Any) -> None:
    async with bench.serve(_routes(bench, **options)) as served:
        with variants() as variant:
            for what, (target, end) in _ENDS.items():
                for at_once in (False,) if target == "/idle" else (False, True):  # which messages put off
                    with variant(f"{what}, {'and at once' if at_once else 'and then'} pings and messages"):
                        async with served.peer(target, deflate=bool(options)) as peer:
                            await _one_close(peer, end, _BEHIND, at_once=at_once)


@check("SEND-6", wire=True)
async def nothing_after_a_close_frame(bench: Bench) -> None:
    """Whoever ends a channel, its close frame is the one and the last that is written, whatever comes after it."""
    await _after_each_end(bench)


@check("SEND-6", wire=True, needs=("compression",))
async def nothing_after_a_close_frame_where_it_deflates(bench: Bench) -> None:
    """The same where messages are deflated, large ones in another thread."""
    await _after_each_end(bench, compression=True)


@check("SEND-6", wire=True)
async def nothing_but_frames_after_the_101(bench: Bench) -> None:
    """After a 101 no HTTP comes, whatever looks like it: a request, a bad one, a stop, an exception."""
    behind = {
        "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a bad request": b"\r\n\r\nNONSENSE\r\n\r\n",
        "zeros": bytes(200),
        "a large head": b"X-Large: " + b"x" * 200_000,
    }
    async with bench.serve(_routes(bench)) as served:
        with variants() as variant:
            for with_request in (True, False):
                for what, raw in behind.items():
                    with variant(f"{what}, {'with the request' if with_request else 'later'}"):
                        async with served.raw() as peer:
                            built = handshake(served)
                            await peer.request(built.encode() + (raw if with_request else b""))
                            peer.start_websocket(built, await peer.read_response())
                            peer.auto_close = False
                            with contextlib.suppress(Closed):
                                if not with_request:
                                    await peer.send_raw(raw)
                                await peer.half_close()
                            while not isinstance(event := await peer.receive(), Close | Eof):
                                true(False, f"{event} came")
                            if isinstance(event, Close):
                                event = await peer.receive()
                            true(isinstance(event, Eof) and not event.partial, f"after the last frame came {event}")


# ---- one answer ------------------------------------------------------------------------------------------------------


async def _answers(context: Context) -> None:
    context["response"] = Response("answered", 418)


async def _raises(context: Context) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("a stage raises")


_REFUSED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "a path without a route": ("/nowhere", {}),
    "a bad key": ("/", {"replace": {"Sec-WebSocket-Key": "bad"}}),
    "another version": ("/", {"replace": {"Sec-WebSocket-Version": "8"}}),
    "another origin": ("/", {"headers": [("Origin", "http://evil.example")]}),
    "an answer": ("/enter-answers", {}),
    "an exception": ("/enter-raises", {}),
    "an answer after the upgrade": ("/leave-answers", {}),
    "an exception after the upgrade": ("/leave-raises", {}),
}


async def _only_answer(served: Served, request: bytes) -> None:
    async with served.raw() as peer:
        await peer.request(request)
        answer = await peer.read_response()
        true(400 <= answer.status <= 599, f"the status: {answer.status}")
        with contextlib.suppress(Closed):
            await peer.half_close()
        with contextlib.suppress(Closed):
            await peer.read_ahead(1)
        equal(bytes(peer.link.input[:200]), b"", "what came after the answer")


@check("HS-7", wire=True)
async def one_answer(bench: Bench) -> None:
    """A handshake that is not let in gets one answer, and nothing after it, whoever refuses it, and at which stage."""
    upgrade = websocket_interceptor("upgrade", bench.options())
    stages: dict[str, dict[str, Any]] = {
        "/enter-answers": {"enter": _answers},
        "/enter-raises": {"enter": _raises},
        "/leave-answers": {"leave": _answers},
        "/leave-raises": {"leave": _raises},
    }
    routes = [(path, (Interceptor(name=path, **stage), upgrade)) for path, stage in stages.items()]
    async with bench.serve(Application([("/", (upgrade,)), *routes])) as served:
        with variants() as variant:
            for what, (target, changes) in _REFUSED.items():
                with variant(what):
                    await _only_answer(served, handshake(served, target, **changes).encode())
    equal(bench.recorder.kinds(), [], "the callbacks")
