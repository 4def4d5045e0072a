"""What an application receives and what a connector offers, as protocols."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Protocol, overload, runtime_checkable

from wsbridge._common.moved import moved
from wsbridge.close import CloseReason

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    N_co = TypeVar("N_co", covariant=True, default=object)
else:
    from typing import TypeVar

    N_co = TypeVar("N_co", covariant=True)

    # a checker would accept every misspelled import from here
    __getattr__ = moved(__name__, {"InitializeWebSocket": "wsbridge"})

__all__ = [
    "CONNECTOR_API",
    "CONNECTOR_PAGE",
    "Address",
    "BinaryFormat",
    "BinaryLike",
    "Connector",
    "Deviation",
    "Feature",
    "WebSocketChannel",
]

CONNECTOR_API = 2
"""The version of the interface between wsbridge and its connectors (REG-5)."""

CONNECTOR_PAGE = "docs/writing-a-connector.md"
"""The page that tells of that interface, and of what has changed in it."""

handler_of: ContextVar[tuple[object, object] | None] = ContextVar("wsbridge.handler_of", default=None)
"""Set by what serves a channel in a task of its own, as `wsbridge.stream_handler` does, to the channel and that task.

The channel's ``on_close`` waits for the task; so a ``stop()`` that it awaits must not wait for the channel (STOP-3).
"""

BinaryFormat = Literal["bytes", "memoryview", "stream"]
"""The forms in which a binary message can be asked for. Pedestal: ``:bytes``, ``:byte-buffer``, ``:input-stream``."""

BinaryLike = bytes | bytearray | memoryview | BinaryIO
"""What ``send_binary`` takes: any bytes-like object, or a binary file."""

Feature = Literal["size-limit", "ping", "compression", "unix-socket", "fragments", "mount"]
"""What a connector may lack; it then refuses the options that need it."""

Address = tuple[str, int] | str
"""Where a connector listens: host and port, or the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a connector departs from the contract, in one scenario (CLOSE-8).

    Attributes:
        outcome: What happens instead, in the words of the suite's check of the scenario, which holds it to that. Where
            one cause shows in either of several ways, by how far the server has come, they are joined by `` | ``.
        tried: Why it could not be worked around, and what was tried.
    """

    outcome: str
    tried: str


@runtime_checkable
class WebSocketChannel(Protocol[N_co]):
    """One WebSocket connection, as the application sees it.

    ``N`` is the type of ``native``, `object` unless it is named: a handler for one connector alone annotates its
    channel with that connector's, such as `wsbridge.connectors.aiohttp.AiohttpChannel`.

    Nothing here is thread-safe: from another thread, go through ``loop.call_soon_threadsafe`` (THR-1).
    Pedestal: ``WebSocketChannel``.
    """

    @property
    def id(self) -> str:
        """128 random bits as text, unique across workers and machines (OPEN-7)."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, or None (HS-3)."""

    @property
    def native(self) -> N_co:
        """The server's own connection object; what is done through it is outside the contract."""
        ...

    @property
    def reason(self) -> CloseReason | None:
        """How the channel ended, known as soon as the end is; None while it is open (CLOSE-6)."""

    def on_text(self, callback: Callable[[Any, Any, str], object], /) -> None:
        """Set the callback for text messages: ``callback(channel, process, text)``.

        It is used for messages delivered afterwards. Its result is ignored, but a coroutine is awaited.

        Raises:
            CallbackAlreadySetError: There is one already, from the options or a call; it stays.
            TypeError: ``callback`` cannot be called like that (OPEN-12).

        Pedestal: ``on-text``. OPEN-8, RECV-1.
        """

    @overload
    def on_binary(
        self, callback: Callable[[Any, Any, bytes], object], /, *, format: Literal["bytes"] = "bytes"
    ) -> None: ...
    @overload
    def on_binary(
        self, callback: Callable[[Any, Any, memoryview], object], /, *, format: Literal["memoryview"]
    ) -> None: ...
    @overload
    def on_binary(self, callback: Callable[[Any, Any, BinaryIO], object], /, *, format: Literal["stream"]) -> None: ...
    def on_binary(self, callback: Callable[[Any, Any, Any], object], /, *, format: BinaryFormat = "bytes") -> None:
        """Set the callback for binary messages: ``callback(channel, process, data)``.

        ``format`` says what ``data`` is: ``"bytes"``, ``"memoryview"`` (read-only, stays valid) or ``"stream"``
        (a binary file at position 0).

        Raises:
            CallbackAlreadySetError: There is one already, from the options or a call; it stays.
            TypeError: ``callback`` cannot be called like that (OPEN-12).
            ValueError: ``format`` is not one of the three.

        Pedestal: ``on-binary``. OPEN-8, RECV-2.
        """

    async def send_text(self, text: str, /) -> bool:
        """Send a text message, waiting while the peer reads too slowly.

        Returns:
            True once the server has taken the message, False if the channel has ended. Messages of one task
            keep their order; a cancelled send is wholly sent or not at all.

        Raises:
            TypeError: ``text`` is not a str.
            UnicodeEncodeError: ``text`` has a lone surrogate. Nothing is sent, the channel stays usable.
            ChannelNotOpenError: ``on_open`` has not started yet.
            SendError: The server failed in another way; the channel ends with 1011.

        Pedestal: ``send-text!``. SEND-1 to SEND-7.
        """
        ...

    async def send_binary(self, data: BinaryLike, /) -> bool:
        """Send a binary message: a bytes-like object, or a binary file from its position to its end.

        A file is read off the event loop and not closed; what its ``read`` raises reaches the caller as it is.
        Results and errors are those of `send_text`. Pedestal: ``send-binary!``. SEND-1 to SEND-7.
        """
        ...

    async def send(self, message: Any, /) -> bool:
        """Send what the option ``codec`` makes of ``message``; without a codec a ``str``, bytes-like object or file.

        Results and errors are those of `send_text` and `send_binary`, and what the codec raises reaches the caller as
        it is; then nothing is sent. CODEC-1.
        """
        ...

    def close(self, code: int = 1000, text: str = "") -> Awaitable[None]:
        """Begin to close; return at once. The first end wins, later calls do nothing.

        The close frame follows every message for which a send returned True. What it returns may be awaited, and need
        not be: the close has begun either way, and `wait_closed` waits for the end. Awaited it is None, after one turn
        of the event loop.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            text: At most 123 bytes in UTF-8.

        Raises:
            ValueError: A code that may not be sent, or a text that is too long.
            TypeError: A wrong type.
            ChannelNotOpenError: ``on_open`` has not started yet.

        Pedestal: ``close!``. CLOSE-1, CLOSE-2.
        """
        ...

    async def wait_closed(self) -> CloseReason:
        """Wait until the end is known and return it, whether or not a callback still runs (CLOSE-6)."""
        ...


@runtime_checkable
class TellsEarly(Protocol):
    """What a connector's channel has beside a `WebSocketChannel`, for code that serves it in a task of its own."""

    def tell_early(self, callback: Callable[[bool], object], /) -> None:
        """Have ``callback(is_delivered)`` called as soon as sends return False (SEND-1); at once, if they do.

        It gets True once no more messages will be delivered and ``reason`` is known, in the same turn of the event loop
        as that happens, and False before: messages from before the end are still to come. It may be called several
        times.
        """


@runtime_checkable
class Connector(Protocol):
    """A server that runs an application. Made as ``Connector(app, *, ...)`` with the options of LIM-5."""

    name: ClassVar[str]
    """The name of its entry point."""
    close_keywords: ClassVar[Mapping[int, str]]
    """Close codes and the keywords that its server has for them (CLOSE-9)."""
    features: ClassVar[frozenset[Feature]]
    """The features that it has, of those that a connector may lack."""
    deviations: ClassVar[Mapping[str, Deviation]]
    """What it does differently, by ``RULE/scenario`` (CLOSE-8)."""
    connector_api: ClassVar[int]
    """The `CONNECTOR_API` that it was written for."""

    async def start(self) -> None:
        """Bind the sockets and serve; return when they listen.

        Raises:
            ConnectorStateError: It runs already, or `stop` was called meanwhile (STOP-10).
            OSError: A port or path that cannot be bound; nothing is left behind.

        STOP-1.
        """
        ...

    async def stop(self) -> None:
        """Close every channel with 1001 and the sockets; return when nothing is left.

        Twice, or before `start`, does nothing; during `start` it ends that. STOP-2, STOP-3, STOP-10.
        """
        ...

    @property
    def addresses(self) -> Sequence[Address]:
        """Where it listens; empty while it does not."""
        ...

    @property
    def url(self) -> str:
        """The first address as a URL, such as ``ws://127.0.0.1:8000``.

        Raises:
            ConnectorStateError: It does not listen.
        """
        ...
