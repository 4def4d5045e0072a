"""From a request to a channel: the handshake rules that hold on every connector (HS-3 to HS-6, HS-19)."""

from __future__ import annotations

import binascii
import re
from collections import Counter
from typing import Any

from wsbridge.errors import UpgradeError
from wsbridge.http import Request, Response, plain_response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import DEFAULT_PORTS, WebSocketOptions, parse_origin

__all__ = ["negotiate_subprotocol", "offers_deflate", "upgrade_request_to_websocket", "websocket_interceptor"]

STREAM_VERSIONS = ("2", "3")
"""Of HTTP: each request is a stream of its own, and a WebSocket one that stays open (RFC 8441, RFC 9220)."""

_DEFLATE_PARAMETER = re.compile(  # RFC 7692, 7.1.1 and 7.1.2
    r"(?:server|client)_no_context_takeover"
    r"|client_max_window_bits"
    r"|(?:server|client)_max_window_bits\s*=\s*(?P<quote>\"?)(?:[89]|1[0-5])(?P=quote)"
)


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


def offers_deflate(request: Request) -> bool:
    """Tell whether the peer offers permessage-deflate, and in no way that must be declined (RFC 7692, 7.1)."""
    found = False
    for offer in request.header_list("Sec-WebSocket-Extensions"):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == "permessage-deflate":
            found = True
            names = [parameter.partition("=")[0].rstrip() for parameter in parameters]
            if len(set(names)) < len(names) or not all(map(_DEFLATE_PARAMETER.fullmatch, parameters)):
                return False
    return found


def check_handshake(request: Request, options: WebSocketOptions[Any]) -> Response | None:
    """Return the refusal of a request that is no valid handshake, in the order of HS-4, or None."""
    is_stream = request.http_version in STREAM_VERSIONS
    method = "CONNECT" if is_stream else "GET"
    if request.method != method:
        return plain_response(405, {"Allow": method})
    if not is_stream and request.http_version != "1.1":
        return plain_response(505)
    lines = request.header_lines()
    last = {name.lower(): value for name, value in lines}  # all at once: this runs for every handshake
    repeated: set[str] = set() if len(last) == len(lines) else _repeated(lines)
    is_version = last.get("sec-websocket-version") == "13" and "sec-websocket-version" not in repeated
    refusal = _check_stream(is_version) if is_stream else _check_upgrade(lines, last, repeated, is_version=is_version)
    if refusal is not None:
        return refusal
    if not last.get("host") or "host" in repeated:
        return plain_response(400)
    if last.get("content-length", "0") != "0" or "content-length" in repeated or "transfer-encoding" in last:
        return plain_response(400)  # a body would be taken for frames
    if "origin" in last and not is_allowed_origin(request, options.origins):
        return plain_response(403)
    return None


def _check_upgrade(
    lines: list[tuple[str, str]], last: dict[str, str], repeated: set[str], *, is_version: bool
) -> Response | None:
    """Check what HTTP/1.1 has in front of a WebSocket (RFC 6455, 4.2.1)."""
    for name, token in (("upgrade", "websocket"), ("connection", "upgrade")):
        if last.get(name, "").lower() != token and token not in _elements(lines, name):
            return plain_response(426, {"Upgrade": "websocket", "Connection": "Upgrade"})
    if not is_version:
        return plain_response(426, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    if not _is_key(last.get("sec-websocket-key", "")) or "sec-websocket-key" in repeated:
        return plain_response(400)
    return None


def _check_stream(is_version: bool) -> Response | None:
    """Check what a stream of HTTP/2 or 3 has in front of a WebSocket: no upgrade and no key (RFC 8441, 5; HS-19)."""
    # no 426, which needs an Upgrade (RFC 9110, 15.5.22), and that may not be there (RFC 9113, 8.2.2)
    return None if is_version else plain_response(400, {"Sec-WebSocket-Version": "13"})


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
