"""What a type checker knows of the server's own objects. Read by mypy and pyright, never run.

Each ``type: ignore`` is an error that must be found: one that is not needed is an error itself. An application names
the connector that it is for in its annotations alone, so that the server need not be installed where it runs.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, assert_type

from aiohttp import web
from hypercorn.protocol.ws_stream import WSStream
from picows import WSTransport, WSUpgradeRequest
from tornado.httputil import HTTPServerRequest
from tornado.websocket import WebSocketHandler
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request as WebsocketsNative

from wsbridge import MessageStream, Request, WebSocketChannel, WebSocketOptions, stream_handler
from wsbridge.connectors.aiohttp import AiohttpChannel, AiohttpRequest
from wsbridge.connectors.granian import GranianChannel, GranianRequest
from wsbridge.connectors.hypercorn import HypercornChannel, HypercornRequest
from wsbridge.connectors.memory import ClientRequest, Connection, MemoryChannel, MemoryRequest
from wsbridge.connectors.picows import PicowsChannel, PicowsRequest
from wsbridge.connectors.tornado import TornadoChannel, TornadoRequest
from wsbridge.connectors.uvicorn import UvicornChannel, UvicornRequest
from wsbridge.connectors.uvicorn_wsproto import UvicornWsprotoChannel, UvicornWsprotoRequest
from wsbridge.connectors.websockets import WebsocketsChannel, WebsocketsRequest

# ---- each connector's ----------------------------------------------------------------------------------------------


def open_aiohttp(channel: AiohttpChannel, request: AiohttpRequest) -> str:
    assert_type(channel.native, web.WebSocketResponse)
    assert_type(request.native, web.BaseRequest)
    print(channel.native.settings)  # type: ignore[attr-defined]
    return request.native.raw_path


def open_websockets(channel: WebsocketsChannel, request: WebsocketsRequest) -> None:
    assert_type(channel.native, ServerConnection)
    assert_type(request.native, WebsocketsNative)
    print(request.native.raw_path)  # type: ignore[attr-defined]


async def open_tornado(channel: TornadoChannel, request: TornadoRequest) -> None:
    assert_type(channel.native, WebSocketHandler)
    assert_type(request.native, HTTPServerRequest)


def open_picows(channel: PicowsChannel, request: PicowsRequest) -> int:
    assert_type(channel.native, WSTransport)
    assert_type(request.native, WSUpgradeRequest)
    assert_type(channel.native.request.path, bytes)
    return len(request.native.headers)


def open_in_memory(channel: MemoryChannel, request: MemoryRequest) -> None:
    assert_type(channel.native, Connection)
    assert_type(request.native, ClientRequest)


def open_granian(channel: GranianChannel, request: GranianRequest) -> str:
    assert_type(channel.native, MutableMapping[str, Any])
    assert_type(request.native, MutableMapping[str, Any])
    return str(request.native["path"])


def open_uvicorn(channel: UvicornChannel, request: UvicornRequest) -> str:
    assert_type(channel.native, WebSocketsSansIOProtocol)
    assert_type(request.native, MutableMapping[str, Any])
    return str(request.native["path"])


def open_uvicorn_on_wsproto(channel: UvicornWsprotoChannel, request: UvicornWsprotoRequest) -> bool:
    assert_type(channel.native, WSProtocol)
    assert_type(request.native, MutableMapping[str, Any])
    return channel.native.handshake_complete


def open_hypercorn(channel: HypercornChannel, request: HypercornRequest) -> None:
    assert_type(channel.native, WSStream)
    assert_type(request.native, MutableMapping[str, Any])


async def text_of_aiohttp(channel: AiohttpChannel, process: str, text: str) -> None:
    await channel.send_text(str(channel.native.compress))


# what on_open returns is found as without them
assert_type(WebSocketOptions(on_open=open_aiohttp, on_text=text_of_aiohttp), WebSocketOptions[str])
assert_type(WebSocketOptions(on_open=open_aiohttp), WebSocketOptions[str])
assert_type(WebSocketOptions(on_open=open_websockets), WebSocketOptions[None])
assert_type(WebSocketOptions(on_open=open_tornado), WebSocketOptions[None])
assert_type(WebSocketOptions(on_open=open_picows), WebSocketOptions[int])
assert_type(WebSocketOptions(on_open=open_uvicorn), WebSocketOptions[str])
assert_type(WebSocketOptions(on_open=open_uvicorn_on_wsproto), WebSocketOptions[bool])


# ---- of a framework of one's own, of two, of none ------------------------------------------------------------------


def open_mounted(channel: AiohttpChannel, request: Request[web.Request]) -> None:
    assert_type(request.native.match_info, web.UrlMappingMatchInfo)


def open_either(channel: WebSocketChannel, request: Request[web.BaseRequest | HTTPServerRequest]) -> None:
    if isinstance(request.native, HTTPServerRequest):
        assert_type(request.native, HTTPServerRequest)
    else:
        assert_type(request.native, web.BaseRequest)
    print(request.native.uri)  # type: ignore[union-attr]


async def open_anywhere(channel: WebSocketChannel, request: Request) -> str:
    assert_type(channel.native, object)
    assert_type(request.native, object)
    print(channel.native.anything)  # type: ignore[attr-defined]
    return request.path


def open_unchecked(channel: WebSocketChannel[Any], request: Request[Any]) -> str:
    return str(channel.native.anything)


WebSocketOptions(on_open=open_mounted)
WebSocketOptions(on_open=open_either)
assert_type(WebSocketOptions(on_open=open_anywhere), WebSocketOptions[str])
assert_type(WebSocketOptions(on_open=open_unchecked), WebSocketOptions[str])
WebSocketOptions(on_open=lambda channel, request: print(channel.native.anything, request.native.anything))


async def read(stream: MessageStream, request: AiohttpRequest) -> None:
    async for message in stream:
        await stream.send(message)
    assert_type(stream.channel, WebSocketChannel[Any])


stream_handler(read)


# ---- a channel is given to what takes any, and not to what takes another's ------------------------------------------


def pass_on(aiohttp: AiohttpChannel, request: AiohttpRequest) -> None:
    open_aiohttp(aiohttp, request)
    open_unchecked(aiohttp, request)
    open_either(aiohttp, request)
    open_websockets(aiohttp, request)  # type: ignore[arg-type]
    open_mounted(aiohttp, request)  # type: ignore[arg-type]
