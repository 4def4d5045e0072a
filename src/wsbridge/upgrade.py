"""From a request to a channel: the handshake rules that hold on every connector (HS-3 to HS-6)."""

from __future__ import annotations

import binascii
from collections import Counter
from typing import Any

from wsbridge.errors import UpgradeError
from wsbridge.http import Request, Response, plain_response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import DEFAULT_PORTS, WebSocketOptions, parse_origin

__all__ = ["negotiate_subprotocol", "upgrade_request_to_websocket", "websocket_interceptor"]


def upgrade_request_to_websocket(context: Context, options: WebSocketOptions[Any]) -> Context:
    """Check the request in ``context`` and make a channel of it.

    The channel opens when the leave stages have run: the 101 is sent then, and ``on_open`` runs after it.

    Args:
        context: Holds ``request`` and ``websocket_channel_source``.
        options: The callbacks and limits of the channel.

    Returns:
        The context, with ``websocket_channel`` set, or, if the request is refused, with ``response`` set.

    Raises:
        UpgradeError: There is no ``websocket_channel_source`` in the context.
        TypeError: ``options`` are no `WebSocketOptions`.

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
        TypeError: ``options`` are no `WebSocketOptions`.

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


def check_handshake(request: Request, options: WebSocketOptions[Any]) -> Response | None:
    """Return the refusal of a request that is no valid handshake, in the order of HS-4, or None."""
    if request.method != "GET":
        return plain_response(405, {"Allow": "GET"})
    if request.http_version != "1.1":
        return plain_response(505)
    lines = request.header_lines()
    last = {name.lower(): value for name, value in lines}  # all at once: this runs for every handshake
    repeated: set[str] = set() if len(last) == len(lines) else _repeated(lines)
    for name, token in (("upgrade", "websocket"), ("connection", "upgrade")):
        if last.get(name, "").lower() != token and token not in _elements(lines, name):
            return plain_response(426, {"Upgrade": "websocket", "Connection": "Upgrade"})
    if last.get("sec-websocket-version") != "13" or "sec-websocket-version" in repeated:
        return plain_response(426, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    if not _is_key(last.get("sec-websocket-key", "")) or "sec-websocket-key" in repeated:
        return plain_response(400)
    if not last.get("host") or "host" in repeated:
        return plain_response(400)
    if last.get("content-length", "0") != "0" or "content-length" in repeated or "transfer-encoding" in last:
        return plain_response(400)  # a body would be taken for frames
    if "origin" in last and not is_allowed_origin(request, options.origins):
        return plain_response(403)
    return None


def _repeated(lines: list[tuple[str, str]]) -> set[str]:
    """Return the headers that have more than one line, in lower case."""
    counts = Counter(name.lower() for name, _ in lines)
    return {name for name, count in counts.items() if count > 1}


def _elements(lines: list[tuple[str, str]], name: str) -> list[str]:
    """Return the elements of a header over all its lines, in lower case."""
    return [item.strip().lower() for found, line in lines if found.lower() == name for item in line.split(",")]


def is_allowed_origin(request: Request, allowed: tuple[str, ...] | Any) -> bool:
    """Tell whether the request has no origin, its own, or an allowed one (HS-6; RFC 6455, 10.2)."""
    origins: list[str] = request.headers.getlist("Origin")
    if not origins:
        return True
    origin = parse_origin(origins[0]) if len(origins) == 1 else None
    if origin is None:
        return False
    if "*" in allowed or any(parse_origin(entry) == origin for entry in allowed):
        return True
    scheme = "https" if request.scheme == "wss" else "http"
    own = parse_origin(f"{scheme}://{request.headers['Host']}")
    # a page and its WebSocket differ in scheme behind a proxy that ends TLS: host and port decide
    return own is not None and own[1] == origin[1] and _same_port(own, origin)


def _same_port(own: tuple[str, str, int], origin: tuple[str, str, int]) -> bool:
    """Compare ports; where both are the defaults of their schemes, they are the same place."""
    if own[2] == origin[2]:
        return True
    return own[2] == DEFAULT_PORTS[own[0]] and origin[2] == DEFAULT_PORTS.get(origin[0])


def _is_key(key: str) -> bool:
    """Tell whether ``key`` is the base64 of 16 bytes (RFC 6455, 4.2.1)."""
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except (binascii.Error, ValueError):
        return False
