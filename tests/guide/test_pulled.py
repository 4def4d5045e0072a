"""The short form of a channel that is pulled reads what comes, while ``on_open`` runs too, and its end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.fakes import FakeConnector, FakeSource, handshake
from tests.guide.pulled import Channel
from wsbridge import Application, WebSocketOptions
from wsbridge.connector import TURN


class _Server:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()

    async def recv(self) -> str | bytes:
        message = await self.incoming.get()
        if message is None:
            raise EOFError
        return message


class _Source(FakeSource):
    kind = cast(Any, Channel)


async def open_channel(options: WebSocketOptions[Any]) -> tuple[_Server, Channel, asyncio.Task[None]]:
    connector = FakeConnector(Application([("/", options)]))
    request = handshake()
    channel = await connector.handle(request, _Source(connector, request))
    assert isinstance(channel, Channel)
    server = channel.native = _Server()
    return server, channel, connector.run_channel(channel)


async def test_messages_are_delivered_in_order_those_during_on_open_too() -> None:
    seen: list[object] = []
    may_end = asyncio.Event()

    async def on_open(channel: Any, request: Any) -> None:
        await may_end.wait()

    async def on_message(channel: Any, process: Any, message: object) -> None:
        seen.append(message)

    options = WebSocketOptions[Any](on_open=on_open, on_text=on_message, on_binary=on_message)
    server, channel, running = await open_channel(options)
    messages = [str(number) if number % 2 else bytes([number]) for number in range(TURN + 1)]
    for message in [*messages, None]:
        server.incoming.put_nowait(message)
    await asyncio.sleep(0.01)
    assert channel.kept == messages[0]
    may_end.set()
    await running
    assert seen == messages
    assert channel.reason is not None
    assert channel.reason.code == 1006


async def test_an_end_during_on_open_is_noticed() -> None:
    async def on_open(channel: Any, request: Any) -> None:
        await channel.wait_closed()

    server, channel, running = await open_channel(WebSocketOptions[Any](on_open=on_open))
    server.incoming.put_nowait(None)
    await running
    assert channel.reason is not None
