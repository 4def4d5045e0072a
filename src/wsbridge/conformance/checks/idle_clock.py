"""LIM-2, LIM-3: when the clock of a channel begins, and what makes it begin anew, kind by kind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import handshake
from wsbridge.conformance.checks.recv import deflated
from wsbridge.conformance.client import Close, Closed, Opcode, Ping, WirePeer, build_frame
from wsbridge.conformance.contract import CheckFailed, check, equal, true, variants
from wsbridge.conformance.harness.bench import Bench, Served
from wsbridge.http import Request
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

__all__: list[str] = []

_IDLE = 0.3  # seconds, stretched
_TIMEOUT = Close(1001, "idle timeout")

Do = Callable[[WirePeer, Mapping[str, WebSocketChannel], str], Awaitable[object]]


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _is_closed(bench: Bench, peer: WirePeer, since: float, what: str) -> None:
    """Check that the peer gets the close of an idle channel, ``_IDLE`` after ``since`` and not before."""
    idle = _IDLE * bench.scale
    equal(await peer.receive_close(idle + 2 * bench.scale), _TIMEOUT, f"what came after {what}")
    took = _now() - since
    true(took >= 0.85 * idle, f"after {what} the end came {took:.2f} s later, and was due after {idle:g} s")
    true(took <= idle + bench.scale + bench.lost, f"after {what} the end came {took:.2f} s later only")


async def _all(rows: Mapping[str, Awaitable[None]]) -> None:
    """Await all at once, and fail by each that fails."""
    done = await asyncio.gather(*rows.values(), return_exceptions=True)
    with variants() as variant:
        for what, outcome in zip(rows, done, strict=True):
            with variant(what):
                if isinstance(outcome, BaseException):
                    raise outcome


# ---- when it begins -------------------------------------------------------------------------------------------------


def _slow(bench: Bench, seconds: float, **options: Any) -> Application:
    """Return routes whose handshakes take ``seconds``, in their enter or their leave stage."""

    async def wait(context: Context) -> None:
        await asyncio.sleep(seconds)

    upgrade = websocket_interceptor("upgrade", bench.bare_options(**options))
    return Application(
        [
            ("/at-once", (upgrade,)),
            ("/enter", (Interceptor(name="enter", enter=wait), upgrade)),
            ("/leave", (Interceptor(name="leave", leave=wait), upgrade)),
        ]
    )


async def _opened_slowly(
    bench: Bench, served: Served, target: str, pause: float, then: Callable[[WirePeer, float], Awaitable[None]]
) -> None:
    """Connect, wait, make the handshake, and go on with the time at which its 101 came."""
    async with served.raw() as peer:
        await asyncio.sleep(pause)
        built = handshake(served, target)
        await peer.request(built.encode())
        peer.start_websocket(built, await peer.read_response(pause + bench.timeout))
        await then(peer, _now())


def _slow_rows(
    bench: Bench, served: Served, pause: float, then: Callable[[WirePeer, float], Awaitable[None]]
) -> dict[str, Awaitable[None]]:
    return {
        "a connection that is silent first": _opened_slowly(bench, served, "/at-once", pause, then),
        "a slow enter stage": _opened_slowly(bench, served, "/enter", 0, then),
        "a slow leave stage": _opened_slowly(bench, served, "/leave", 0, then),
    }


@check("LIM-2")
async def not_before_it_is_open(bench: Bench) -> None:
    """The time counts from the 101 on: neither from the connection, nor from the request, nor from its channel."""
    pause = 1.2 * _IDLE * bench.scale
    looks: dict[str, Any] = {"ping_interval": pause / 6} if "ping" in bench.target.features else {}  # in between
    app = _slow(bench, pause, idle_timeout=_IDLE * bench.scale, **looks)
    async with bench.serve(app) as served:
        await _all(_slow_rows(bench, served, pause, lambda peer, since: _is_closed(bench, peer, since, "the 101")))


@check("LIM-2")
async def the_whole_time_after_a_callback(bench: Bench) -> None:
    """After on_open, and after a callback of a message, the whole time counts, however long they ran within it."""
    part = 0.6 * _IDLE * bench.scale
    ends: dict[str, float] = {}

    def runs(path: str) -> Callable[..., Awaitable[None]]:
        async def callback(*arguments: Any) -> None:
            await asyncio.sleep(part)
            ends[path] = _now()

        return callback

    async def ends_in_time(path: str) -> None:
        async with served.peer(path) as peer:
            if path != "/on_open":
                await peer.send_text("text")
                await peer.send_binary(b"binary")
            equal(await peer.receive_close(6 * part + 2 * bench.scale), _TIMEOUT, "what came")
            took = _now() - ends[path]
            true(took >= 0.85 * _IDLE * bench.scale, f"the end came {took:.2f} s after the callback, and is due later")

    names = ("on_open", "on_text", "on_binary")
    routes = [
        (f"/{name}", bench.bare_options(**{name: runs(f"/{name}")}, idle_timeout=_IDLE * bench.scale)) for name in names
    ]
    async with bench.serve(Application(routes)) as served:
        await _all({name: ends_in_time(f"/{name}") for name in names})


@check("LIM-3", needs=("ping",))
async def no_ping_before_it_is_due(bench: Bench) -> None:
    """The first ping comes a ping_interval after the 101, however long the handshake has taken."""
    interval = _IDLE * bench.scale

    async def pinged(peer: WirePeer, since: float) -> None:
        event = await peer.receive(interval + 2 * bench.scale)
        true(isinstance(event, Ping), f"something else than a ping came first: {event}")
        took = _now() - since
        true(took >= 0.85 * interval, f"the first ping came {took:.2f} s after the 101, and is due after {interval:g}")

    app = _slow(bench, 1.2 * interval, ping_interval=interval)
    async with bench.serve(app) as served:
        await _all(_slow_rows(bench, served, 1.2 * interval, pinged))


# ---- what makes it begin anew ---------------------------------------------------------------------------------------


def _raw(*frames: bytes) -> Do:
    return lambda peer, channels, path: peer.send_raw(b"".join(frames))


_INSIDE = build_frame(Opcode.TEXT, b"in ", fin=False), build_frame(Opcode.CONTINUATION, b"parts")
_IN: dict[str, Do] = {
    "a text": _raw(build_frame(Opcode.TEXT, b"in")),
    "a binary message": _raw(build_frame(Opcode.BINARY, b"in")),
    "an empty text": _raw(build_frame(Opcode.TEXT)),
    "an empty binary message": _raw(build_frame(Opcode.BINARY)),
    "a message in fragments": _raw(*_INSIDE),
    "a large message": _raw(build_frame(Opcode.BINARY, bytes(100_000))),
}
_OUT: dict[str, Do] = {
    "a text out": lambda peer, channels, path: channels[path].send_text("out"),
    "a binary message out": lambda peer, channels, path: channels[path].send_binary(b"out"),
    "an empty message out": lambda peer, channels, path: channels[path].send_binary(b""),
    "a large message out": lambda peer, channels, path: channels[path].send_text("out" * 30_000),
}
_DEFLATED: dict[str, Do] = {
    "a deflated message": _raw(build_frame(Opcode.TEXT, deflated(b"in"), rsv=4)),
    "a large deflated message": _raw(build_frame(Opcode.TEXT, deflated(b"in" * 40_000), rsv=4)),
    **_OUT,
}


async def _wrong_send(peer: WirePeer, channels: Mapping[str, WebSocketChannel], path: str) -> None:
    """Send what is not a message."""
    try:
        await channels[path].send_text(5)  # type: ignore[arg-type]
    except TypeError:
        return
    raise CheckFailed("a text of a wrong type raised no TypeError")


_NOT: dict[str, Do] = {
    "a ping": _raw(build_frame(Opcode.PING, b"alive")),
    "a pong": _raw(build_frame(Opcode.PONG, b"alive")),
    "a ping and a pong": _raw(build_frame(Opcode.PING), build_frame(Opcode.PONG)),
    "a send of what is no message": _wrong_send,
}


async def _kept_open(
    bench: Bench, served: Served, path: str, do: Do, channels: dict[str, WebSocketChannel], **options: Any
) -> None:
    """Do something again and again for longer than ``_IDLE``; the channel must live till then, and end after it."""
    idle = _IDLE * bench.scale
    async with served.peer(path, **options) as peer:
        reading = asyncio.ensure_future(peer.receive_close(4 * idle + 2 * bench.scale))
        since = _now()
        try:
            for _ in range(8):
                await bench.settle(lambda: path in channels, "on_open")
                since = _now()
                await do(peer, channels, path)
                await asyncio.sleep(idle / 5)
                true(not reading.done(), f"the channel was closed {_now() - since:.2f} s after this came or went")
            equal(await reading, _TIMEOUT, "what came at last")
            took = _now() - since
            true(took >= 0.85 * idle, f"the end came {took:.2f} s after the last, and was due after {idle:g} s")
        finally:
            reading.cancel()
            await asyncio.wait((reading,))


async def _not_kept_open(
    bench: Bench, served: Served, path: str, do: Do, channels: dict[str, WebSocketChannel], **options: Any
) -> None:
    """Do something again and again; the channel must be closed as if nothing was done."""
    idle = _IDLE * bench.scale
    async with served.peer(path, **options) as peer:
        since = _now()
        await bench.settle(lambda: path in channels, "on_open")
        reading = asyncio.ensure_future(_is_closed(bench, peer, since, "the 101"))
        try:
            while not reading.done():
                try:
                    await do(peer, channels, path)
                except Closed:
                    break
                await asyncio.wait((reading,), timeout=idle / 5)
                true(_now() - since < 3 * idle + bench.scale + bench.lost, "the channel was not closed")
            await reading
        finally:
            reading.cancel()
            await asyncio.wait((reading,))


async def _for_each(bench: Bench, how: Callable[..., Awaitable[None]], ways: Mapping[str, Do], **options: Any) -> None:
    channels: dict[str, WebSocketChannel] = {}

    def on_open(channel: WebSocketChannel, request: Request) -> None:
        channels[request.path] = channel

    deflate = bool(options.get("compression"))
    served_by = bench.bare_options(on_open=on_open, idle_timeout=_IDLE * bench.scale, **options)
    async with bench.serve(Application([("/{way}", served_by)])) as served:
        await _all(
            {
                what: how(bench, served, f"/{number}", do, channels, deflate=deflate)
                for number, (what, do) in enumerate(ways.items())
            }
        )


@check("LIM-2")
async def each_message_begins_it_anew(bench: Bench) -> None:
    """Each kind of message makes the time begin anew, in or out, empty, large, in fragments or with no callback."""
    await _for_each(bench, _kept_open, _IN | _OUT if bench.target.has_wire else _OUT)


@check("LIM-2", needs=("compression",))
async def each_deflated_message_begins_it_anew(bench: Bench) -> None:
    """So does each message that is deflated, in or out, small or large."""
    await _for_each(bench, _kept_open, _DEFLATED, compression=True)


@check("LIM-2")
async def nothing_else_begins_it_anew(bench: Bench) -> None:
    """Pings, pongs and a send that raises leave the time as it is."""
    await _for_each(bench, _not_kept_open, _NOT)


@check("LIM-2", wire=True)
async def a_part_of_a_message_does_not(bench: Bench) -> None:
    """A message counts when it is whole: neither its fragments nor the bytes of a frame make the time begin anew."""
    started: set[str] = set()

    async def fragment(peer: WirePeer, channels: Mapping[str, WebSocketChannel], path: str) -> None:
        opcode = Opcode.CONTINUATION if path in started else Opcode.TEXT
        started.add(path)
        await peer.send_frame(opcode, b"part", fin=False)

    async def byte(peer: WirePeer, channels: Mapping[str, WebSocketChannel], path: str) -> None:
        begins = path not in started
        started.add(path)
        await peer.send_raw(build_frame(Opcode.BINARY, length=1000)[:8] if begins else b"x")

    await _for_each(bench, _not_kept_open, {"fragments": fragment, "bytes of a frame": byte})


@check("LIM-3", needs=("ping",))
async def pings_whatever_comes(bench: Bench) -> None:
    """A ping goes out in each ping_interval, whatever messages come and go meanwhile."""
    interval = 0.15 * bench.scale
    options = bench.bare_options(on_text=_answers, ping_interval=interval, ping_timeout=20 * bench.scale)
    async with bench.serve(options) as served, served.peer() as peer:
        began = _now()
        count = 0
        while count < 3:
            await peer.send_text("talk")
            try:
                while not isinstance(await peer.receive(interval / 4), Ping):
                    pass
                count += 1
            except TimeoutError:
                pass
            seconds = _now() - began
            true(seconds <= (count + 1) * interval + bench.scale + bench.lost, f"{count} pings in {seconds:.2f} s")


async def _answers(channel: WebSocketChannel, process: object, text: str) -> None:
    await channel.send_text(text)
