"""The server's own objects are of the types that a connector's aliases name."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, get_args, get_origin

import pytest

import wsbridge
from tests.processes import client_for
from wsbridge import Application, Request, WebSocketChannel, WebSocketOptions
from wsbridge.cli.client import Target
from wsbridge.connectors import memory
from wsbridge.testing import connect

ALIASES = {
    "aiohttp": ("AiohttpChannel", "AiohttpRequest"),
    "websockets": ("WebsocketsChannel", "WebsocketsRequest"),
    "tornado": ("TornadoChannel", "TornadoRequest"),
    "uvicorn": ("UvicornChannel", "UvicornRequest"),
    "uvicorn_wsproto": ("UvicornWsprotoChannel", "UvicornWsprotoRequest"),
    "hypercorn": ("HypercornChannel", "HypercornRequest"),
    "picows": ("PicowsChannel", "PicowsRequest"),
    "granian": ("GranianChannel", "GranianRequest"),
}


@pytest.mark.parametrize("name", ALIASES)
async def test_natives_are_what_the_aliases_say(name: str) -> None:
    pytest.importorskip(name.partition("_")[0])
    module = importlib.import_module(f"wsbridge.connectors.{name}")
    seen: asyncio.Future[tuple[WebSocketChannel, Request]] = asyncio.get_running_loop().create_future()
    options = WebSocketOptions(on_open=lambda channel, request: seen.set_result((channel, request)), ping_interval=None)
    async with (
        wsbridge.serve(Application([("/", options)]), f"{module.__name__}:Connector", port=0) as connector,
        client_for(name).connect(Target(connector.url)),
    ):
        channel, request = await asyncio.wait_for(seen, 5)
    for native, alias in zip((channel.native, request.native), ALIASES[name], strict=True):
        (expected,) = get_args(getattr(module, alias))
        assert isinstance(native, get_origin(expected) or expected)
        assert alias in module.__all__


async def test_the_natives_of_the_memory_connector_too() -> None:
    seen: list[tuple[WebSocketChannel, Request]] = []
    options = WebSocketOptions(on_open=lambda channel, request: seen.append((channel, request)))
    async with connect(options) as peer:
        ((channel, request),) = seen
        assert channel.native is peer.connection
        assert isinstance(channel.native, get_args(memory.MemoryChannel))
        assert isinstance(request.native, get_args(memory.MemoryRequest))


def test_the_types_take_a_native_at_run_time_too() -> None:
    generic: Any = WebSocketChannel
    assert get_args(generic[int]) == (int,)
    assert get_args(Request[int]) == (int,)
    assert isinstance(Request("GET", "/", headers=[], native=7), Request)
