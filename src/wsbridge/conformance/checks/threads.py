"""THR-1 and THR-3: one thread, and what is kept of a channel."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from wsbridge.conformance import lateness
from wsbridge.conformance.client import WirePeer
from wsbridge.conformance.contract import CheckFailed, check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.http import Request
from wsbridge.protocols import WebSocketChannel

# ---- THR-1 ----------------------------------------------------------------------------------------------------------

_Call = Callable[[WebSocketChannel], Any]
_CALLS: dict[str, _Call] = {
    "send_text": lambda channel: channel.send_text("wrong"),
    "send_binary": lambda channel: channel.send_binary(b"wrong"),
    "send_binary of a memoryview": lambda channel: channel.send_binary(memoryview(b"wrong")),
    "close": lambda channel: channel.close(4000, "wrong"),
    "on_text": lambda channel: channel.on_text(print),
    "on_binary": lambda channel: channel.on_binary(print),
    "wait_closed": lambda channel: channel.wait_closed(),
}


def _bare(call: _Call, channel: WebSocketChannel) -> None:
    """Make a call in a thread without an event loop."""
    result = call(channel)
    if asyncio.iscoroutine(result):
        try:
            result.send(None)
        finally:
            result.close()


def _in_a_loop(call: _Call, channel: WebSocketChannel) -> None:
    """Make a call in an event loop of its own."""

    async def run() -> None:
        result = call(channel)
        if asyncio.iscoroutine(result):
            async with lateness.timeout(1):
                await result

    asyncio.run(run())


async def _in_a_thread(function: Callable[[], object]) -> BaseException | None:
    """Run ``function`` in a thread and return what it raised."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as exc:
            raised.append(exc)
        finally:
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=run, name="another thread")
    thread.start()
    await ended.wait()
    thread.join()
    return raised[0] if raised else None


@check("THR-1")
async def another_thread_or_loop(bench: Bench) -> None:
    """In debug mode each call from another thread, with a loop or without, raises and names call_soon_threadsafe."""
    asyncio.get_running_loop().set_debug(True)
    options = bench.bare_options(on_open=lambda channel, request: channels.append(channel))
    channels: list[WebSocketChannel] = []
    async with bench.serve(options) as served, served.peer() as peer:
        await bench.settle(lambda: channels, "on_open")
        for make, where in ((_bare, "another thread"), (_in_a_loop, "another event loop")):
            for name, call in _CALLS.items():
                error = await _in_a_thread(partial(make, call, channels[0]))
                if not isinstance(error, RuntimeError) or "call_soon_threadsafe" not in str(error):
                    raise CheckFailed(f"{name} from {where}: {error!r}, and no RuntimeError that names the way")
        equal(channels[0].reason, None, "the reason, after calls that did nothing")
        channels[0].on_text(lambda channel, process, text: channel.send_text(text))
        await peer.send_text("still right")
        equal(await peer.receive_text(), "still right", "the first that the peer received")


@check("THR-1")
async def the_right_thread_in_debug_mode(bench: Bench) -> None:
    """In debug mode calls on the loop that serves the channel work, from callbacks and by call_soon_threadsafe."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        equal(await channel.send_text(text), True, "a send in a callback")
        equal(await channel.send_binary(text.encode()), True, "a send in a callback")

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("one")
        equal(await peer.receive_text(), "one", "the text")
        equal(await peer.receive_binary(), b"one", "the bytes")
        channel = bench.recorder.channels[0]
        error = await _in_a_thread(lambda: loop.call_soon_threadsafe(channel.close, 4000, "by the book"))
        equal(error, None, "what call_soon_threadsafe raised")
        close = await peer.receive_close()
        equal((close.code, close.text), (4000, "by the book"), "code and text of the close")
        await bench.recorder.closed()


@check("THR-1")
async def stop_from_another_loop(bench: Bench) -> None:
    """In debug mode a connector's stop() from another loop raises as well, and the connector goes on."""
    asyncio.get_running_loop().set_debug(True)
    async with bench.serve() as served, served.peer() as peer:
        connector = served.connector
        if connector is None:
            raise CheckFailed("there is no connector")
        error = await _in_a_thread(lambda: asyncio.run(connector.stop()))
        true(
            isinstance(error, RuntimeError) and "call_soon_threadsafe" in str(error),
            f"stop() from another event loop: {error!r}, and no RuntimeError that names the way",
        )
        await peer.send_text("still here")
        await bench.recorder.wait("text")


# ---- THR-3 ----------------------------------------------------------------------------------------------------------


class _Process:
    """A process object that can be referred to weakly."""


class _Watch:
    """Options whose callbacks keep nothing but weak references; what they see is told by the recorder's log."""

    def __init__(self, bench: Bench, **options: Any) -> None:
        self.refs: list[weakref.ref[Any]] = []
        self._log = bench.recorder.log
        self.options = bench.bare_options(on_open=self._opened, on_text=self._text, on_close=self._closed, **options)

    def _opened(self, channel: WebSocketChannel, request: Request) -> _Process:
        process = _Process()
        self.refs += [weakref.ref(channel), weakref.ref(process), weakref.ref(request)]
        self._log("open")
        return process

    async def _text(self, channel: WebSocketChannel, process: _Process, text: str) -> None:
        self._log("text", value=text)
        if text == "close":
            channel.close(4000, "mine")
        else:
            await channel.send_text(text)

    async def _closed(self, channel: WebSocketChannel, process: _Process, reason: object) -> None:
        await asyncio.sleep(0)
        self._log("close")

    def alive(self) -> int:
        """Return how many of channels, process objects and requests there are."""
        gc.collect()
        return sum(ref() is not None for ref in self.refs)


@check("THR-3", stochastic=True)
async def an_open_channel_is_kept(bench: Bench) -> None:
    """The connector keeps an open channel alive that nobody else refers to, idle or not."""
    watch = _Watch(bench)
    async with bench.serve(watch.options) as served, served.peer() as peer:
        await bench.recorder.wait("open")
        for count in range(1, 4):
            watch.alive()
            await asyncio.sleep(0.01)
            await peer.send_text(str(count))
            equal(await peer.receive_text(), str(count), "the echo")
        true(watch.refs[0]() is not None and watch.refs[1]() is not None, "the channel or its process object is gone")
        watch.alive()
        await peer.send_close(1000)
        await bench.recorder.wait("close")


_ENDS: dict[str, Callable[[WirePeer], Any]] = {
    "the peer's close": lambda peer: peer.send_close(1000),
    "a loss": lambda peer: peer.half_close(),
    "a local close": lambda peer: peer.send_text("close"),
}


@check("THR-3", stochastic=True)
async def nothing_is_kept_of_an_ended_one(bench: Bench) -> None:
    """After on_close the connector keeps neither the channel nor its process object nor its request."""
    watch = _Watch(bench, idle_timeout=60, send_timeout=60, close_timeout=60)
    count = 0
    async with bench.serve(watch.options) as served:
        for what, end in _ENDS.items():
            for _ in range(5):
                count += 1
                async with served.peer() as peer:
                    await peer.send_text("echo")
                    equal(await peer.receive_text(), "echo", "the echo")
                    await end(peer)
                    await peer.wait_eof()
                    await bench.recorder.wait("close", count)
            try:
                await bench.settle(lambda: not watch.alive(), "the end of what belongs to ended channels")
            except CheckFailed:
                kept = sorted({type(ref()).__name__ for ref in watch.refs if ref() is not None})
                raise CheckFailed(f"after {what} there are still {watch.alive()} of {', '.join(kept)}") from None
    equal(len(watch.refs), 3 * count, "how many things were looked at")
