"""Trying a connector: it is started, asked for one handshake, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wsbridge import registry
from wsbridge.application import Application
from wsbridge.cli.failure import described
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Connector, Deviation
from wsbridge.serving import listening_urls, serve

__all__ = ["Trial", "try_connector"]

TIMEOUT = 10.0  # seconds for a connector to start, answer one handshake and stop
HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_SIZES = ("max_text_size", "max_binary_size")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a connector said and did when it was tried.

    Attributes:
        error: What was wrong, in one line; None if it works.
        features: Its optional features.
        deviations: What it declares, by the scenario.
        connector_api: The version of the interface that it was written for.
    """

    error: str | None
    features: Sequence[str] = ()
    deviations: Mapping[str, Deviation] = field(default_factory=dict[str, Deviation])
    connector_api: int | None = None


def try_connector(info: registry.ConnectorInfo) -> Trial:
    """Load a connector, start it, on a free loopback port if it has a wire, try a handshake, and stop it."""
    try:
        connector = registry.load_connector(f"{info.name}@{info.distribution}")
    except Exception as exc:
        return Trial(_line(exc))
    trial = Trial(None, sorted(connector.features), dict(connector.deviations), connector.connector_api)
    try:
        asyncio.run(_serve_one(connector))
    except Exception as exc:
        return replace(trial, error=_line(exc))
    return trial


def _line(exc: Exception) -> str:
    return " ".join(described(exc).split())


async def _serve_one(connector: type[Any]) -> None:
    sizes: dict[str, Any] = {} if "size-limit" in connector.features else dict.fromkeys(_SIZES)
    pings: dict[str, Any] = {} if "ping" in connector.features else {"ping_interval": None}
    application = Application([("/", WebSocketOptions(**sizes, **pings))])
    async with asyncio.timeout(TIMEOUT), serve(application, connector, shutdown_timeout=1) as server:
        if getattr(connector, "has_wire", True):
            await _shake_hands(server)
        else:
            await _shake_hands_in_memory(server)


async def _shake_hands(server: Connector) -> None:
    host, port = listening_urls(server)[0].removeprefix("ws://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(HANDSHAKE.format(host=f"{host}:{port}").encode())
        status = (await reader.readline()).decode("latin-1").strip()
        if status.split(" ")[1:2] != ["101"]:
            raise RuntimeError(f"it answered a handshake with {status!r}")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _shake_hands_in_memory(server: Connector) -> None:
    from wsbridge.connectors.memory import Connector as Memory  # no connector is imported before it is tried
    from wsbridge.testing import connect

    assert isinstance(server, Memory)
    async with connect(server):
        return
