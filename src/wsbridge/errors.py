"""Every exception of wsbridge. A closed channel is not one: sends answer False (SEND-1); a stream raises (STREAM-6).

WSBridgeError
|-- ConnectorNotFoundError (LookupError)      no connector of that name
|-- ConnectorNotInstalledError (ImportError)  its server package is missing
|-- LoopNotInstalledError (ImportError)       the package of an event loop is missing
|-- ConnectorVersionError                     written for another connector interface
|-- ServerVersionError                        its server is older or newer than what is supported
|-- ConnectorConflictError (LookupError)      two distributions claim one name
|-- ConnectorStateError (RuntimeError)        started twice, stopped while it starts, and the like
|-- UnsupportedOptionError (ValueError)       an option that this connector cannot honour
|-- UpgradeError                              no WebSocket source in the context, or a used one
|-- CallbackAlreadySetError                   a second callback for one kind of message
|-- ChannelNotOpenError                       a send or close before ``on_open``
|-- SendError                                 the server failed to take a message
|-- ChannelClosedError                        a stream is read, or sent to, after its end
|-- MessageKindError (TypeError)              a text where a binary message is due, or the reverse
|-- MessageDecodeError (ValueError)           a message that the codec cannot read
"""

from __future__ import annotations

from wsbridge.close import CloseReason

__all__ = [
    "CallbackAlreadySetError",
    "ChannelClosedError",
    "ChannelNotOpenError",
    "ConnectorConflictError",
    "ConnectorNotFoundError",
    "ConnectorNotInstalledError",
    "ConnectorStateError",
    "ConnectorVersionError",
    "LoopNotInstalledError",
    "MessageDecodeError",
    "MessageKindError",
    "SendError",
    "ServerVersionError",
    "UnsupportedOptionError",
    "UpgradeError",
    "WSBridgeError",
]


class WSBridgeError(Exception):
    """The base of all errors of wsbridge."""


class ConnectorNotFoundError(WSBridgeError, LookupError):
    """No connector is registered under that name (REG-2)."""


class ConnectorNotInstalledError(WSBridgeError, ImportError):
    """The connector is known, but the server package it needs is not installed (REG-3)."""


class LoopNotInstalledError(WSBridgeError, ImportError):
    """The event loop is known, but its package is not installed."""


class ServerVersionError(WSBridgeError):
    """A package that the connector needs is older or newer than what is supported (REG-6)."""


class ConnectorVersionError(WSBridgeError):
    """The connector was written for another version of the connector interface (REG-5)."""


class ConnectorConflictError(WSBridgeError, LookupError):
    """Two distributions register a connector under one name (REG-4)."""


class ConnectorStateError(WSBridgeError, RuntimeError):
    """The connector is in a state where that cannot be done (STOP-1)."""


class UnsupportedOptionError(WSBridgeError, ValueError):
    """An option that this connector cannot honour; raised when the connector is made."""


class UpgradeError(WSBridgeError):
    """The context holds no WebSocket source to upgrade (CTX-4), or one that has made its channel (CTX-3)."""


class CallbackAlreadySetError(WSBridgeError):
    """The channel has a callback for that kind of message already (OPEN-8)."""


class ChannelNotOpenError(WSBridgeError):
    """A send or a close before ``on_open`` has started (OPEN-11)."""


class SendError(WSBridgeError):
    """The server failed to take a message; the channel ends with 1011 (SEND-7)."""


class ChannelClosedError(WSBridgeError):
    """A stream is read, or sent to, after its channel's end (STREAM-4, STREAM-6).

    Attributes:
        reason: How it ended.
    """

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        text = f" {self.reason.text!r}" if self.reason.text else ""
        return f"the channel has ended: {self.reason.code} ({self.reason.name}){text} by {self.reason.initiator}"


class MessageKindError(WSBridgeError, TypeError):
    """A text message where a binary one is due, or the reverse (STREAM-2, CODEC-2)."""


class MessageDecodeError(WSBridgeError, ValueError):
    """A message that the codec cannot read; the channel is closed with 1007 (CODEC-2). Its cause tells why."""
