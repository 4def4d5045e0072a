"""One WebSocket application, unchanged, on any server.

Write against `WebSocketChannel` and `WebSocketOptions`; run it by a connector: aiohttp, websockets, tornado, or another
that is registered under the entry-point group ``wsbridge.connectors``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wsbridge.application import Application
from wsbridge.close import CloseReason
from wsbridge.codec import Codec, json_codec, msgspec_codec
from wsbridge.errors import (
    CallbackAlreadySetError,
    ChannelClosedError,
    ChannelNotOpenError,
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    ConnectorStateError,
    ConnectorVersionError,
    LoopNotInstalledError,
    MessageDecodeError,
    MessageKindError,
    SendError,
    ServerVersionError,
    UnsupportedOptionError,
    UpgradeError,
    WSBridgeError,
)
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import Compression, WebSocketOptions
from wsbridge.protocols import Connector, WebSocketChannel
from wsbridge.upgrade import InitializeWebSocket, upgrade_request_to_websocket, websocket_interceptor

if TYPE_CHECKING:
    from wsbridge.connection import SendResult, WebSocketConnection, start_ws_connection
    from wsbridge.registry import connector_names, load_connector
    from wsbridge.serving import run, serve
    from wsbridge.stream import MessageStream, stream_handler

__all__ = [
    "Application",
    "CallbackAlreadySetError",
    "ChannelClosedError",
    "ChannelNotOpenError",
    "CloseReason",
    "Codec",
    "Compression",
    "Connector",
    "ConnectorConflictError",
    "ConnectorNotFoundError",
    "ConnectorNotInstalledError",
    "ConnectorStateError",
    "ConnectorVersionError",
    "Context",
    "InitializeWebSocket",
    "Interceptor",
    "LoopNotInstalledError",
    "MessageDecodeError",
    "MessageKindError",
    "MessageStream",
    "Request",
    "Response",
    "SendError",
    "SendResult",
    "ServerVersionError",
    "UnsupportedOptionError",
    "UpgradeError",
    "WSBridgeError",
    "WebSocketChannel",
    "WebSocketConnection",
    "WebSocketOptions",
    "connector_names",
    "json_codec",
    "load_connector",
    "msgspec_codec",
    "run",
    "serve",
    "start_ws_connection",
    "stream_handler",
    "upgrade_request_to_websocket",
    "websocket_interceptor",
]

__version__ = "0.1.0"

_LATER = {
    "SendResult": "connection",
    "WebSocketConnection": "connection",
    "start_ws_connection": "connection",
    "connector_names": "registry",
    "load_connector": "registry",
    "run": "serving",
    "serve": "serving",
    "MessageStream": "stream",
    "stream_handler": "stream",
}
"""What is imported when it is asked for: a connector, and an application that is mounted, need none of it."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
