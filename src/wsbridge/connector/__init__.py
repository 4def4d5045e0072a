"""All that an author of a connector imports, beside the public names of `wsbridge` itself.

A connector derives from `BaseConnector` and `BaseSource`, and its channel from `TransportChannel`, `QueuedChannel` or
`BaseChannel`; ``docs/writing-a-connector.md`` leads through it. Nothing else of the package is for authors: other
modules, and names of these classes that the page does not list, change without notice. `CONNECTOR_API` counts the
changes of what is here.
"""

from wsbridge._channel.channel import BaseChannel
from wsbridge._channel.clock import Clock, Timer
from wsbridge._channel.draining import Connection, plain_connection
from wsbridge._channel.ending import CLOSING, FAILED, LOST, OPEN, OVER, STOPPED, Phase
from wsbridge._channel.queued import QueuedChannel
from wsbridge._channel.sending import TURN
from wsbridge._channel.transport import OnTransport, TransportChannel, abort, end_of, end_writing
from wsbridge._common.logs import PeersLogger, lower, shown
from wsbridge._common.tasks import begin_later, later_turn, settle
from wsbridge.close import Initiator, close_reason, is_valid_close_code
from wsbridge.connector.accepting import Acceptor, Connect, refuse_waiting
from wsbridge.connector.alpn import GRACE, REFUSAL
from wsbridge.connector.answering import ENDED, Taken, of_socket, of_transport
from wsbridge.connector.base import BaseConnector, BaseSource, close_keywords
from wsbridge.connector.configured import ALL_FEATURES
from wsbridge.connector.deflate import LARGE, NAME, Agreement, agree
from wsbridge.connector.handshake import HandshakeDeadline, RequestParts, peer_address, request_parts
from wsbridge.connector.messages import (
    MAX_CONTROL,
    MAX_HEAD,
    MAX_SIZE,
    FrameError,
    FrameHead,
    FrameHeads,
    MessageAssembler,
    MessageSize,
    SizeLimits,
    declared,
    deflated_limit,
    frame_head,
    size_limit,
)
from wsbridge.connector.mount import Mount, MountPoint
from wsbridge.connector.private import server_names
from wsbridge.connector.sockets import BACKLOG, is_unix
from wsbridge.http import closing, content_of, plain_response, says_close
from wsbridge.options import check_seconds
from wsbridge.protocols import CONNECTOR_API, Address, Deviation, Feature
from wsbridge.upgrade import STREAM_VERSIONS

__all__ = [
    "ALL_FEATURES",
    "BACKLOG",
    "CLOSING",
    "CONNECTOR_API",
    "ENDED",
    "FAILED",
    "GRACE",
    "LARGE",
    "LOST",
    "MAX_CONTROL",
    "MAX_HEAD",
    "MAX_SIZE",
    "NAME",
    "OPEN",
    "OVER",
    "REFUSAL",
    "STOPPED",
    "STREAM_VERSIONS",
    "TURN",
    "Acceptor",
    "Address",
    "Agreement",
    "BaseChannel",
    "BaseConnector",
    "BaseSource",
    "Clock",
    "Connect",
    "Connection",
    "Deviation",
    "Feature",
    "FrameError",
    "FrameHead",
    "FrameHeads",
    "HandshakeDeadline",
    "Initiator",
    "MessageAssembler",
    "MessageSize",
    "Mount",
    "MountPoint",
    "OnTransport",
    "PeersLogger",
    "Phase",
    "QueuedChannel",
    "RequestParts",
    "SizeLimits",
    "Taken",
    "Timer",
    "TransportChannel",
    "abort",
    "agree",
    "begin_later",
    "check_seconds",
    "close_keywords",
    "close_reason",
    "closing",
    "content_of",
    "declared",
    "deflated_limit",
    "end_of",
    "end_writing",
    "frame_head",
    "is_unix",
    "is_valid_close_code",
    "later_turn",
    "lower",
    "of_socket",
    "of_transport",
    "peer_address",
    "plain_connection",
    "plain_response",
    "refuse_waiting",
    "request_parts",
    "says_close",
    "server_names",
    "settle",
    "shown",
    "size_limit",
]
