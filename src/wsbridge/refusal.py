"""Handshakes that wsbridge itself refuses: the answer, and the one line that says why (HS-14)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from wsbridge._common.logs import shown
from wsbridge.http import Request, Response

__all__ = ["Refusal", "RefusalLog"]

logger = logging.getLogger("wsbridge")

_BURST = 20  # lines
_PER_SECOND = 5.0  # lines: a connection that is kept alive can be refused any number of times


class Refusal(Response):
    """The answer ``status`` with its standard phrase as the body; the peer is told nothing else.

    Attributes:
        why: For the log, where it follows "refused with 403 ..., because"; of what a peer has written only `shown`.
    """

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{HTTPStatus(status).phrase}\n", status, headers)
        self.why = why


class RefusalLog:
    """Writes a line for each refused handshake, but only as many as peers may cause.

    That is 20 at once and 5 a second; the next line tells how many were left out.
    """

    __slots__ = ("_left", "_left_out", "_now", "_since")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        self._left = float(_BURST)
        self._left_out = 0

    def note(self, request: Request, refusal: Refusal) -> None:
        """Log that ``request`` was refused, at INFO."""
        if refusal.status_code == HTTPStatus.NOT_FOUND and not _wants_websocket(request):
            return  # a page that is not there is not a handshake
        if not logger.isEnabledFor(logging.INFO):
            return
        now = self._now()
        self._left = min(float(_BURST), self._left + _PER_SECOND * (now - self._since))
        self._since = now
        if self._left < 1:
            self._left_out += 1
            return
        self._left -= 1
        before = f"; before it {self._left_out} were refused without a line" if self._left_out else ""
        self._left_out = 0
        status, path = refusal.status_code, shown(request.path)
        logger.info("refused with %d the handshake for %s: %s%s", status, path, refusal.why, before)


def _wants_websocket(request: Request) -> bool:
    return "websocket" in map(str.lower, request.header_list("Upgrade"))
