"""One WebSocket application, unchanged, on any server.

Write against `WebSocketChannel` and `WebSocketOptions`; run it by a connector: aiohttp, websockets, tornado, or another
that is registered under the entry-point group ``wsbridge.connectors``.
"""

from wsbridge.application import Application
from wsbridge.close import CloseReason
from wsbridge.connection import SendResult, WebSocketConnection, start_ws_connection
from wsbridge.errors import (
    CallbackAlreadySetError,
    ChannelNotOpenError,
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    ConnectorStateError,
    ConnectorVersionError,
    SendError,
    UnsupportedOptionError,
    UpgradeError,
    WSBridgeError,
)
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import Compression, WebSocketOptions
from wsbridge.protocols import Connector, InitializeWebSocket, WebSocketChannel
from wsbridge.registry import connector_names, load_connector
from wsbridge.serving import run, serve
from wsbridge.upgrade import upgrade_request_to_websocket, websocket_interceptor

__all__ = [
    "Application",
    "CallbackAlreadySetError",
    "ChannelNotOpenError",
    "CloseReason",
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
    "Request",
    "Response",
    "SendError",
    "SendResult",
    "UnsupportedOptionError",
    "UpgradeError",
    "WSBridgeError",
    "WebSocketChannel",
    "WebSocketConnection",
    "WebSocketOptions",
    "connector_names",
    "load_connector",
    "run",
    "serve",
    "start_ws_connection",
    "upgrade_request_to_websocket",
    "websocket_interceptor",
]

__version__ = "0.1.0"
