"""From a request to a channel: the handshake rules that hold on every connector (HS-3 to HS-6, HS-19)."""

from __future__ import annotations

import binascii
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from wsbridge._common.logs import shown
from wsbridge._common.origins import allowed_origins, is_nobody, is_own, parse_origin
from wsbridge.errors import UpgradeError
from wsbridge.http import Request, has_body
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.refusal import Refusal

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

__all__ = ["InitializeWebSocket", "negotiate_subprotocol", "upgrade_request_to_websocket", "websocket_interceptor"]

STREAM_VERSIONS = ("2", "3")
"""Of HTTP: each request is a stream of its own, and a WebSocket one that stays open (RFC 8441, RFC 9220)."""


@runtime_checkable
class InitializeWebSocket(Protocol):
    """What a connector puts into the context as ``websocket_channel_source`` for each request.

    Pedestal: ``InitializeWebSocket``.
    """

    @property
    def response_headers(self) -> Headers:
        """The headers that the 101 will carry beside its own; interceptors add to them (HS-8)."""
        ...

    def initialize_websocket(self, context: Context, options: WebSocketOptions[Any]) -> Context:
        """Make the channel for the request in ``context`` and return the context with ``websocket_channel`` set.

        The handshake has been checked by `upgrade_request_to_websocket` before. Where the connector has no
        place left (HS-12) ``response`` is set instead. Pedestal: ``initialize-websocket``. CTX-3.
        """
        ...


def upgrade_request_to_websocket(context: Context, options: WebSocketOptions[Any]) -> Context:
    """Check the request in ``context`` and make a channel of it.

    The channel opens when the leave stages have run: the 101 is sent then, and ``on_open`` runs after it.

    Args:
        context: Holds ``request`` and ``websocket_channel_source``.
        options: The callbacks and limits of the channel.

    Returns:
        The context, with ``websocket_channel`` set, or, if the request is refused, with ``response`` set.

    Raises:
        UpgradeError: There is no ``websocket_channel_source`` in the context, or it has made a channel already.
        TypeError: ``options`` are not `WebSocketOptions`.

    Pedestal: ``upgrade-request-to-websocket``. HS-4, CTX-3, CTX-4.
    """
    if not isinstance(options, WebSocketOptions):
        raise TypeError(f"options must be WebSocketOptions, not {type(options).__name__}")
    source = context.get("websocket_channel_source")
    if source is None:
        raise UpgradeError("the context has no 'websocket_channel_source': no connector put this request there")
    refusal = check_handshake(context["request"], options)
    if refusal is not None:
        context["response"] = refusal
        return context
    upgraded: Context = source.initialize_websocket(context, options)
    return upgraded


def websocket_interceptor(name: str, options: WebSocketOptions[Any]) -> Interceptor:
    """Return `upgrade_request_to_websocket` with ``options`` as an interceptor, the last of a route.

    Raises:
        TypeError: ``options`` are not `WebSocketOptions`.

    Pedestal: ``websocket-interceptor``. CTX-5.
    """
    return Interceptor(name=name, enter=Upgrade(options))


class Upgrade:
    """The enter stage of `websocket_interceptor`; it shows its options, so that a connector can check them early."""

    __slots__ = ("options",)

    def __init__(self, options: WebSocketOptions[Any]) -> None:
        if not isinstance(options, WebSocketOptions):
            raise TypeError(f"options must be WebSocketOptions, not {type(options).__name__}")
        self.options = options

    def __call__(self, context: Context) -> Context:
        return upgrade_request_to_websocket(context, self.options)


def negotiate_subprotocol(options: WebSocketOptions[Any], request: Request) -> str | None:
    """Return the first of ``options.subprotocols`` that the peer offers, or None (HS-3)."""
    if not options.subprotocols:
        return None
    offered = request.subprotocols
    return next((subprotocol for subprotocol in options.subprotocols if subprotocol in offered), None)


def check_handshake(request: Request, options: WebSocketOptions[Any]) -> Refusal | None:
    """Return the refusal of a request that is not a valid handshake, in the order of HS-4, or None."""
    is_stream = request.http_version in STREAM_VERSIONS
    method = "CONNECT" if is_stream else "GET"
    if request.method != method:
        return Refusal(405, f"its method is {shown(request.method)}, not {method}", {"Allow": method})
    if not is_stream and request.http_version != "1.1":
        return Refusal(505, f"its HTTP version is {shown(request.http_version)}, not 1.1")
    lines = request.header_lines()
    last = {name.lower(): value for name, value in lines}  # all at once: this runs for every handshake
    repeated: set[str] = set() if len(last) == len(lines) else _repeated(lines)
    is_version = last.get("sec-websocket-version") == "13" and "sec-websocket-version" not in repeated
    if not is_stream:
        refusal = _check_upgrade(request, lines, last, repeated, is_version=is_version)
        if refusal is not None:
            return refusal
    elif not is_version:  # no 426: that needs an Upgrade, which may not be there (RFC 9113, 8.2.2; HS-19)
        return Refusal(400, _wrong_version(request), {"Sec-WebSocket-Version": "13"})
    if not last.get("host") or "host" in repeated:
        return Refusal(400, f"its Host is {_shown(request, 'Host')}")
    if ("content-length" in last or "transfer-encoding" in last) and has_body(request):
        return Refusal(400, "it has a body")  # which would be taken for frames (HS-16)
    if "origin" in last and not is_allowed_origin(request, options.origins):
        return Refusal(403, _wrong_origin(request))
    return None


def _check_upgrade(
    request: Request, lines: list[tuple[str, str]], last: dict[str, str], repeated: set[str], *, is_version: bool
) -> Refusal | None:
    """Check what HTTP/1.1 has in front of a WebSocket (RFC 6455, 4.2.1)."""
    for name, token in (("upgrade", "websocket"), ("connection", "upgrade")):
        if last.get(name, "").lower() != token and token not in _elements(lines, name):
            why = "it asks for no upgrade to a WebSocket; a proxy on its way has to pass on Upgrade and Connection"
            return Refusal(426, why, {"Upgrade": "websocket", "Connection": "Upgrade"})
    if not is_version:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        return Refusal(426, _wrong_version(request), headers)
    if not _is_key(last.get("sec-websocket-key", "")) or "sec-websocket-key" in repeated:
        return Refusal(400, "its Sec-WebSocket-Key is missing, repeated or not the base64 of 16 bytes")
    return None


def _wrong_version(request: Request) -> str:
    return f"its Sec-WebSocket-Version is {_shown(request, 'Sec-WebSocket-Version')}, not 13"


def _shown(request: Request, name: str) -> str:
    """Return the values of a header for a log."""
    values: list[str] = request.headers.getlist(name)
    return " and ".join(map(shown, values[:2])) or "missing"


def _wrong_origin(request: Request) -> str:
    """Return for a log why the origin is not let in, with both origins that were compared."""
    origin = _shown(request, "Origin")
    own = " or ".join(shown(f"{request.scheme.replace('ws', 'http', 1)}://{host}") for host in own_hosts(request)[:3])
    return f"its origin is {origin}, which is neither the request's own, {own}, nor listed in origins"


def _repeated(lines: list[tuple[str, str]]) -> set[str]:
    """Return the headers that have more than one line, in lower case."""
    counts = Counter(name.lower() for name, _ in lines)
    return {name for name, count in counts.items() if count > 1}


def _elements(lines: list[tuple[str, str]], name: str) -> list[str]:
    """Return the elements of a header over all its lines, in lower case."""
    return [item.strip().lower() for found, line in lines if found.lower() == name for item in line.split(",")]


def is_allowed_origin(request: Request, allowed: Sequence[str]) -> bool:
    """Tell whether the request has no origin, its own, or an allowed one (HS-6; RFC 6455, 10.2)."""
    origins: list[str] = request.headers.getlist("Origin")
    if len(origins) != 1:
        return not origins
    listed = allowed_origins(tuple(allowed))
    if is_nobody(origins[0]):
        return listed.any
    origin = parse_origin(origins[0])
    if origin is None:
        return False
    return listed.lets_in(origin) or any(is_own(origin, request.scheme, host) for host in own_hosts(request))


def own_hosts(request: Request) -> tuple[str, ...]:
    """Return what the request is addressed to: its ``Host``, and what a trusted proxy tells beside it."""
    return (request.headers["Host"], *request.forwarded_hosts)


def _is_key(key: str) -> bool:
    """Tell whether ``key`` is the base64 of 16 bytes (RFC 6455, 4.2.1)."""
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except (binascii.Error, ValueError):
        return False
