"""What a channel asks of the connector that it belongs to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wsbridge._channel.clock import Clock
from wsbridge.protocols import Feature

__all__ = ["Host"]


class Host(Protocol):
    """The connector as a channel sees it; `wsbridge.connector.BaseConnector` is one."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that both belong to (THR-2)."""
        ...

    @property
    def clock(self) -> Clock:
        """The one clock of all its channels."""
        ...

    @property
    def keywords(self) -> Mapping[int, str]:
        """Its server's own names of close codes (CLOSE-9)."""
        ...

    def can(self, feature: Feature, /) -> bool:
        """Tell whether its server has a feature."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether no more channels may open."""
        ...

    def look_out(self, channel: Any, /) -> None:
        """Have ``channel`` look for its end while a callback of it runs (CLOSE-6)."""

    def linger(self, when: float, abort: Callable[[], object], /) -> None:
        """Call ``abort`` at ``when`` (CLOSE-5)."""

    def drain(self, sock: socket.socket, unsent: Callable[[], int], until: float, /) -> None:
        """Read and drop what still comes on the socket of an ended channel, until the peer ends it, or ``until``."""

    def release(self, channel: Any, /) -> None:
        """Forget ``channel``."""
