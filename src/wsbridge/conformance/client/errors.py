"""What a peer raises."""

from __future__ import annotations

import time

from wsbridge.conformance.client.events import Close, Eof
from wsbridge.conformance.client.frames import Frame
from wsbridge.conformance.client.log import WireLog, shortened

__all__ = ["Closed", "NoWire", "Unexpected", "WireError", "WireTimeout", "WireViolation"]


class WireError(Exception):
    """Base of all errors of this client.

    Attributes:
        expected: What was waited for, in words; "" where that is not the matter.
        actual: What came instead.
        moment: When it was raised, by `time.perf_counter`.
        log: That of the connection that it is about, None if that is not known.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual
        self.moment = time.perf_counter()
        self.log: WireLog | None = None


class WireViolation(WireError):
    """The server broke RFC 6455 or HTTP; `frame` is the frame that did, if one did."""

    def __init__(self, message: str, frame: Frame | None = None) -> None:
        super().__init__(message if frame is None else f"{message}: {frame}")
        self.frame = frame


class WireTimeout(WireError, TimeoutError):
    """What was expected did not come in time."""


class Unexpected(WireError):
    """Something legal came, but not what was expected."""

    def __init__(self, expected: str, got: object) -> None:
        shown = shortened(str(got))
        super().__init__(f"expected {expected}, but got {shown}", expected=expected, actual=shown)


class Closed(WireError):
    """The server ended the connection where something else was expected; `end` is how."""

    def __init__(self, expected: str, end: Close | Eof) -> None:
        message = f"expected {expected}, but the connection has ended: {end}"
        super().__init__(message, expected=expected, actual=f"the end of the connection: {end}")
        self.end = end


class NoWire(WireError):
    """A check wants what only bytes on a wire can be, of a connector that has none."""
