"""THR-4: event loops that make tasks in another way, and asyncio's debug mode."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from wsbridge.conformance.checks.stream import handled
from wsbridge.conformance.client import Opcode, Pong, Text, build_frame
from wsbridge.conformance.contract import check, equal, true
from wsbridge.conformance.harness.bench import Bench
from wsbridge.conformance.harness.conditions import eager_task
from wsbridge.connection import start_ws_connection
from wsbridge.http import Request
from wsbridge.protocols import WebSocketChannel
from wsbridge.stream import MessageStream


def _set_task_factory() -> None:
    """Let the loop's tasks start at once; before Python 3.12, which is the first to have such, be made elsewhere."""
    asyncio.get_running_loop().set_task_factory(eager_task)


def _early(text: str) -> bytes:
    return build_frame(Opcode.PING, b"early") + build_frame(Opcode.TEXT, text.encode())


@check("THR-4")
async def nothing_is_read_before_on_open(bench: Bench) -> None:
    """With tasks that start at once, what came after the request waits until on_open has begun, and is in order."""
    _set_task_factory()

    async def on_open(channel: WebSocketChannel, request: Request) -> None:
        true(await channel.send_text("first"), "the first send of on_open returned False")
        await asyncio.sleep(0.01)
        bench.recorder.log("opened")

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        await channel.send_text(text)

    options = bench.options(on_open=on_open, on_text=on_text)
    async with bench.serve(options) as served, served.peer(tail=_early("second")) as peer:
        equal(await peer.receive(), Text("first"), "what the peer gets first")
        equal(await peer.receive(), Pong(b"early"), "what the peer gets next")
        equal(await peer.receive(), Text("second"), "what the peer gets last")
    await bench.recorder.closed()
    kinds = [kind for kind in bench.recorder.kinds() if kind in ("opened", "text")]
    equal(kinds, ["opened", "text"], "the order")


@check("THR-4")
async def a_handler_that_returns_at_once(bench: Bench) -> None:
    """With tasks that start at once, a handler begins when on_open has returned, and may end without a pause."""
    _set_task_factory()

    async def handler(stream: MessageStream[Any], request: Request) -> None:
        true(len(bench.recorder.all("opened")) == 1, "the handler began before the channel had taken its stream")

    options = handled(bench, handler)
    on_open = options.on_open
    assert on_open is not None

    def opened(channel: WebSocketChannel, request: Request) -> Any:
        stream = on_open(channel, request)
        bench.recorder.log("opened", channel.id)
        return stream

    async with bench.serve(replace(options, on_open=opened)) as served, served.peer() as peer:
        await bench.recorder.wait("handler-end")
        equal((await peer.receive_close()).code, 1000, "the code of the close")


@check("THR-4")
async def a_queue_that_is_sent_at_once(bench: Bench) -> None:
    """With tasks that start at once, what is put into a queue is sent in order, however often it has been empty."""
    _set_task_factory()
    numbers = [str(number) for number in range(20)]

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        connection = start_ws_connection(channel, send_buffer=2)
        for number in numbers:
            await connection.put(number)

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await peer.send_text("begin")
        equal([await peer.receive_text() for _ in numbers], numbers, "what the peer gets")


@check("THR-4", fixed=["path"])
async def a_stop_that_has_little_to_do(bench: Bench) -> None:
    """With tasks that start at once, a connector stops and starts again, with a channel open and without."""
    _set_task_factory()
    async with bench.serve() as served:
        connector = served.connector
        assert connector is not None
        await bench.within(connector.stop(), "stop() without a channel")
        await bench.within(connector.start(), "the second start()")
        async with bench.served(connector).peer() as peer:
            await bench.recorder.wait("open")
            await asyncio.gather(connector.stop(), peer.receive_close())
        await bench.within(connector.start(), "the third start()")


@check("THR-4")
async def a_life_in_debug_mode(bench: Bench) -> None:
    """In debug mode a channel's life is as ever: messages, a large one, a ping, a close."""
    asyncio.get_running_loop().set_debug(True)

    async def on_text(channel: WebSocketChannel, process: object, text: str) -> None:
        equal(await channel.send_text(text), True, "a send")

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        for text in ("", "one", "large" * 50_000):
            await peer.send_text(text)
            equal(await peer.receive_text(), text, "the echo")
        await peer.send_frame(Opcode.PING, b"ping")
        equal(await peer.receive(), Pong(b"ping"), "the answer to a ping")
        await peer.send_close(4001)
        equal((await peer.receive_close()).code, 4001, "the code of the answer")
        equal((await bench.recorder.closed()).code, 4001, "the code of the reason")
