"""The suite's own end of the wire, which shares no code with any server, nor with the core.

wsproto decides whether a frame of the server is legal; the frame itself is at hand too (`Frame`). The socket is read
only inside a receiving method, so a *clogged peer* is one that calls none, and a receive that times out loses nothing:
the next one goes on where it stopped.

Checks import from here.
"""

from wsbridge.conformance.client.errors import Closed, NoWire, Unexpected, WireError, WireTimeout, WireViolation
from wsbridge.conformance.client.events import Binary, Close, Drained, Eof, Event, Message, Ping, Pong, Text
from wsbridge.conformance.client.frames import Frame, Opcode, build_frame, close_payload, masked, parse_head
from wsbridge.conformance.client.handshake import HandshakeRefused, HandshakeRequest
from wsbridge.conformance.client.http import Address, HttpResponse
from wsbridge.conformance.client.limits import TimeLimits
from wsbridge.conformance.client.link import Door, PeerLink, SocketLink
from wsbridge.conformance.client.log import LogEntry, WireLog
from wsbridge.conformance.client.peer import WirePeer
from wsbridge.conformance.client.shape import Cut, Shape

__all__ = [
    "Address",
    "Binary",
    "Close",
    "Closed",
    "Cut",
    "Door",
    "Drained",
    "Eof",
    "Event",
    "Frame",
    "HandshakeRefused",
    "HandshakeRequest",
    "HttpResponse",
    "LogEntry",
    "Message",
    "NoWire",
    "Opcode",
    "PeerLink",
    "Ping",
    "Pong",
    "Shape",
    "SocketLink",
    "Text",
    "TimeLimits",
    "Unexpected",
    "WireError",
    "WireLog",
    "WirePeer",
    "WireTimeout",
    "WireViolation",
    "build_frame",
    "close_payload",
    "masked",
    "parse_head",
]
