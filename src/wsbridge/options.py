"""What an application asks for: callbacks, limits and timeouts of its channels, checked when they are made."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from wsbridge._common.callbacks import check_callback
from wsbridge._common.origins import allowed_origins
from wsbridge.close import CloseReason
from wsbridge.codec import Codec, Decoded, check_codec

if TYPE_CHECKING:
    from wsbridge.http import Request
    from wsbridge.protocols import WebSocketChannel

__all__ = ["Compression", "WebSocketOptions"]

M = TypeVar("M")
P = TypeVar("P")

MIB = 1024 * 1024
_CALLBACKS = MappingProxyType(
    {
        "on_open": ("channel", "request"),
        "on_text": ("channel", "process", "text"),
        "on_binary": ("channel", "process", "data"),
        "on_close": ("channel", "process", "reason"),
        "on_error": ("channel", "process", "exception"),
        "on_message": ("channel", "process", "message"),
    }
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How messages are deflated (permessage-deflate, RFC 7692). None leaves a setting to the server.

    Attributes:
        window_bits: The size of the window of either side, as a power of two: 9 to 15.
        memory_level: zlib's memory level, 1 to 9.
        context_takeover: Whether the window outlives a message; False saves memory between messages.

    A setting that the connector's server has no way to set raises `UnsupportedOptionError` when the connector is made.
    """

    window_bits: int | None = None
    memory_level: int | None = None
    context_takeover: bool | None = None

    def __post_init__(self) -> None:
        _whole("window_bits", self.window_bits, 9, 15)
        _whole("memory_level", self.memory_level, 1, 9)
        if self.context_takeover is not None and not isinstance(self.context_takeover, bool):
            raise TypeError(f"context_takeover must be a bool or None, not {self.context_takeover!r}")


@dataclass(frozen=True, kw_only=True)  # with slots, Python 3.11 cannot call WebSocketOptions[P](...)
class WebSocketOptions(Generic[P]):
    """The callbacks, limits and timeouts of a channel. ``P`` is what ``on_open`` returns, the *process object*.

    A callback is a coroutine function, or a plain function, which runs on the event loop (OPEN-2), and takes what it is
    called with (OPEN-12). Callbacks of one channel never overlap (RECV-5). All times are seconds, all sizes bytes.

    Attributes:
        on_open: ``on_open(channel, request)``, first; its result is the process object. Pedestal: ``:on-open``.
        on_text: ``on_text(channel, process, text)``. Pedestal: ``:on-text``.
        on_binary: ``on_binary(channel, process, data)`` with ``bytes``. Pedestal: ``:on-binary``.
        on_close: ``on_close(channel, process, reason)``, once, if and only if ``on_open`` returned. Pedestal:
            ``:on-close``.
        on_error: ``on_error(channel, process, exception)``, when another callback has raised (ERR-1).
        on_message: ``on_message(channel, process, message)`` with what ``codec`` makes of a message, of either kind
            that has no callback of its own (CODEC-1).
        codec: Turns messages into objects and back, for ``on_message`` and `WebSocketChannel.send`.
        subprotocols: Those that are spoken, the preferred first (HS-3).
        origins: Origins that are let in beside the request's own, as ``scheme://host[:port]``, with any scheme;
            ``scheme://*.host`` for all subdomains of a host, ``"*"`` for any, ``null`` too (HS-6).
        max_text_size: The largest text message, in its UTF-8 bytes; None: no limit (LIM-1).
        max_binary_size: The largest binary message; None: no limit (LIM-1).
        compression: Whether messages are deflated where the peer offers it, or how (SEND-8).
        idle_timeout: Close with 1001 after that long without a message in or out; None: never (LIM-2).
        ping_interval: Ping the peer that often; None: never (LIM-3).
        ping_timeout: Cut off a peer that has not answered a ping for that long; None: never (LIM-3).
        send_timeout: Cut off a peer that has taken no byte for that long; None: never (LIM-4).
        close_timeout: Cut off a peer that has not finished the close for that long (CLOSE-5).

    Raises:
        TypeError: An unknown option, one of a wrong type, or a callback that cannot be called as it will be; the
            message names it.
        ValueError: A value that is out of range; the message names the option.

    Pedestal: the ``ws-opts`` of ``upgrade-request-to-websocket``. LIM-5.
    """

    on_open: Callable[..., Any] | None = None
    on_text: Callable[..., Any] | None = None
    on_binary: Callable[..., Any] | None = None
    on_close: Callable[..., Any] | None = None
    on_error: Callable[..., Any] | None = None
    on_message: Callable[..., Any] | None = None
    codec: Codec[Any] | None = None
    subprotocols: Sequence[str] = ()
    origins: Sequence[str] = ()
    max_text_size: int | None = MIB
    max_binary_size: int | None = MIB
    compression: bool | Compression = False
    idle_timeout: float | None = None
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    send_timeout: float | None = 60
    close_timeout: float = 10

    if TYPE_CHECKING:
        # both checkers solve P from these three, in this order; from one `P | Awaitable[P]` neither does
        @overload
        def __init__(
            self: WebSocketOptions[None],
            *,
            on_open: None = None,
            on_text: Callable[[WebSocketChannel[Any], None, str], object] | None = None,
            on_binary: Callable[[WebSocketChannel[Any], None, bytes], object] | None = None,
            on_close: Callable[[WebSocketChannel[Any], None, CloseReason], object] | None = None,
            on_error: Callable[[WebSocketChannel[Any], None, Exception], object] | None = None,
            on_message: Callable[[WebSocketChannel[Any], None, M], object] | None = None,
            codec: Codec[M] | None = None,
            subprotocols: Sequence[str] = (),
            origins: Sequence[str] = (),
            max_text_size: int | None = MIB,
            max_binary_size: int | None = MIB,
            compression: bool | Compression = False,
            idle_timeout: float | None = None,
            ping_interval: float | None = 20,
            ping_timeout: float | None = 20,
            send_timeout: float | None = 60,
            close_timeout: float = 10,
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            on_open: Callable[[WebSocketChannel[Any], Request[Any]], Awaitable[P]],
            on_text: Callable[[WebSocketChannel[Any], P, str], object] | None = None,
            on_binary: Callable[[WebSocketChannel[Any], P, bytes], object] | None = None,
            on_close: Callable[[WebSocketChannel[Any], P, CloseReason], object] | None = None,
            on_error: Callable[[WebSocketChannel[Any], P | None, Exception], object] | None = None,
            on_message: Callable[[WebSocketChannel[Any], P, M], object] | None = None,
            codec: Codec[M] | None = None,
            subprotocols: Sequence[str] = (),
            origins: Sequence[str] = (),
            max_text_size: int | None = MIB,
            max_binary_size: int | None = MIB,
            compression: bool | Compression = False,
            idle_timeout: float | None = None,
            ping_interval: float | None = 20,
            ping_timeout: float | None = 20,
            send_timeout: float | None = 60,
            close_timeout: float = 10,
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            on_open: Callable[[WebSocketChannel[Any], Request[Any]], P],
            on_text: Callable[[WebSocketChannel[Any], P, str], object] | None = None,
            on_binary: Callable[[WebSocketChannel[Any], P, bytes], object] | None = None,
            on_close: Callable[[WebSocketChannel[Any], P, CloseReason], object] | None = None,
            on_error: Callable[[WebSocketChannel[Any], P | None, Exception], object] | None = None,
            on_message: Callable[[WebSocketChannel[Any], P, M], object] | None = None,
            codec: Codec[M] | None = None,
            subprotocols: Sequence[str] = (),
            origins: Sequence[str] = (),
            max_text_size: int | None = MIB,
            max_binary_size: int | None = MIB,
            compression: bool | Compression = False,
            idle_timeout: float | None = None,
            ping_interval: float | None = 20,
            ping_timeout: float | None = 20,
            send_timeout: float | None = 60,
            close_timeout: float = 10,
        ) -> None: ...
        def __init__(self, **options: Any) -> None: ...

    def __post_init__(self) -> None:
        for name, takes in _CALLBACKS.items():
            callback = getattr(self, name)
            if callback is not None:
                if not callable(callback):
                    raise TypeError(f"{name} must be callable or None, not {callback!r}")
                check_callback(name, callback, *takes)
        check_codec(self.codec)
        if self.on_message is not None:
            self._decode_for(self.on_message)
        for name in ("subprotocols", "origins"):
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        for subprotocol in self.subprotocols:
            if not _TOKEN.fullmatch(subprotocol):
                raise ValueError(f"subprotocols: {subprotocol!r} is no token (RFC 6455, 4.1)")
        if len(set(self.subprotocols)) < len(self.subprotocols):
            raise ValueError(f"subprotocols: one stands twice in {self.subprotocols!r}")
        allowed_origins(tuple(self.origins))
        for name in ("max_text_size", "max_binary_size"):
            _whole(name, getattr(self, name), 1, None)
        if not isinstance(self.compression, bool | Compression):
            raise TypeError(f"compression must be a bool or Compression, not {self.compression!r}")
        for name in ("idle_timeout", "ping_interval", "ping_timeout", "send_timeout"):
            check_seconds(name, getattr(self, name), optional=True)
        check_seconds("close_timeout", self.close_timeout)

    def _decode_for(self, on_message: Callable[..., Any]) -> None:
        if self.codec is None:
            raise ValueError("on_message needs a codec")
        for name in ("on_text", "on_binary"):
            callback = getattr(self, name)
            if callback is None or isinstance(callback, Decoded):  # the latter after dataclasses.replace
                object.__setattr__(self, name, Decoded(self.codec, on_message))


OPTION_NAMES: frozenset[str] = frozenset(field.name for field in fields(WebSocketOptions))


def check_seconds(name: str, value: object, *, optional: bool = False) -> None:
    """Check that the option ``name`` is a positive, finite number of seconds (or None, if ``optional``).

    Raises:
        TypeError: It is not a number.
        ValueError: It is not positive or not finite.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds{' or None' if optional else ''}, not {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def _whole(name: str, value: object, low: int, high: int | None) -> None:
    """Check that the option ``name`` is a whole number in range, or None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, not {value!r}")


def _strings(name: str, value: object) -> tuple[str, ...]:
    """Return the option ``name`` as a tuple of strings; a lone str is a mistake, not a sequence."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of str, not {value!r}")
    strings = tuple(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    for item in strings:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(item, str):
            raise TypeError(f"{name} must hold str only, not {item!r}")
    return strings  # pyright: ignore[reportUnknownVariableType]
