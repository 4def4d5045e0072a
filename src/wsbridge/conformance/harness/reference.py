"""The reference application: what a server offers to be checked from outside, in any language.

Its routes are described in ``docs/reference-app.md``; `reference_application` is this library's own, which the suite
serves by the connector under test.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from wsbridge.application import Application
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import WebSocketChannel
from wsbridge.upgrade import websocket_interceptor

__all__ = ["FLOOD_SIZE", "MAX_SIZE", "SUBPROTOCOLS", "reference_application"]

MAX_SIZE = 1024 * 1024  # bytes: the largest message that the reference application takes
SUBPROTOCOLS = ("wsbridge.v2", "wsbridge.v1")  # what /subprotocols speaks, the preferred first
FLOOD_SIZE = 64 * 1024  # bytes: each message of /flood


async def _echo_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    await channel.send_text(text)


async def _echo_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
    await channel.send_binary(data)


async def _reverse_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    await channel.send_text(text[::-1])


async def _reverse_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
    await channel.send_binary(data[::-1])


async def _countdown(channel: WebSocketChannel, request: Request) -> None:
    for number in range(int(request.path_params["start"]), 0, -1):
        await channel.send_text(str(number))
    channel.close(1000, "done")


def _close(channel: WebSocketChannel, request: Request) -> None:
    channel.close(int(request.path_params["code"]), request.args.get("text", ""))


async def _subprotocol(channel: WebSocketChannel, request: Request) -> None:
    await channel.send_text(channel.subprotocol or "")


async def _headers(channel: WebSocketChannel, request: Request) -> None:
    names = ("X-Probe", "X-Other")
    await channel.send_text(json.dumps({name.lower(): request.headers.getlist(name) for name in names}))


async def _flood(channel: WebSocketChannel, request: Request) -> None:
    message = bytes(FLOOD_SIZE)
    for _ in range(int(request.path_params["count"])):
        if not await channel.send_binary(message):
            return
    channel.close(1000, "done")


async def _slow(channel: WebSocketChannel, process: Any, text: str) -> None:
    await asyncio.sleep(0.5)
    await channel.send_text(text)


def _answer_headers(context: Context) -> None:
    headers = context["websocket_channel_source"].response_headers
    headers.add("X-Answer", "one")
    headers.add("X-Answer", "two")


def _reject(context: Context) -> None:
    status = int(context["request"].path_params["status"])
    context["response"] = Response("refused\n", status, [("X-Refused", "a"), ("X-Refused", "b")])


def reference_application(**options: Any) -> Application:
    """Return the reference application.

    Args:
        options: What every channel is given beside its callbacks, such as what a connector needs that has no limits.
    """

    def channel(**own: Any) -> WebSocketOptions[Any]:
        return WebSocketOptions(**{**own, **options})

    return Application(
        [
            (
                "/echo",
                channel(on_text=_echo_text, on_binary=_echo_binary, max_text_size=MAX_SIZE, max_binary_size=MAX_SIZE),
            ),
            ("/reverse", channel(on_text=_reverse_text, on_binary=_reverse_binary)),
            ("/countdown/{start}", channel(on_open=_countdown)),
            ("/close/{code}", channel(on_open=_close)),
            ("/subprotocols", channel(on_open=_subprotocol, on_text=_echo_text, subprotocols=SUBPROTOCOLS)),
            (
                "/headers",
                (
                    Interceptor(name="headers", enter=_answer_headers),
                    websocket_interceptor("headers", channel(on_open=_headers)),
                ),
            ),
            ("/reject/{status}", (Interceptor(name="reject", enter=_reject),)),
            ("/flood/{count}", channel(on_open=_flood)),
            ("/slow", channel(on_text=_slow)),
        ]
    )
