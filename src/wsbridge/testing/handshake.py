"""Requests as `wsbridge.testing` makes them: a handshake, or any other."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from werkzeug.datastructures import Headers

from wsbridge.connectors.memory import ClientRequest

__all__ = ["HeaderItems", "handshake_request", "plain_request"]

HeaderItems = Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]]

_SAFE = "/%:?#[]@!$&'()*+,;=~"  # what stays as it is in a path


def handshake_request(
    path: str, headers: HeaderItems, subprotocols: Sequence[str], scheme: str, client: tuple[str, int] | None
) -> ClientRequest:
    """Return a handshake; ``headers`` replace its own of the same name."""
    return _request("GET", path, {**_handshake(subprotocols), **_pairs(headers)}, scheme, client)


def plain_request(
    method: str, path: str, headers: HeaderItems, scheme: str, client: tuple[str, int] | None
) -> ClientRequest:
    """Return a request that is not a handshake, unless ``headers`` make it one."""
    return _request(method, path, {"host": [("Host", "localhost")], **_pairs(headers)}, scheme, client)


def _handshake(subprotocols: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    own = [
        ("Host", "localhost"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", base64.b64encode(secrets.token_bytes(16)).decode()),
        ("Sec-WebSocket-Version", "13"),
    ]
    if isinstance(subprotocols, str):
        raise TypeError(f"subprotocols must be a sequence of str, not {subprotocols!r}")
    if subprotocols:
        own.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    return _pairs(own)


def _pairs(headers: HeaderItems) -> dict[str, list[tuple[str, str]]]:
    """Return headers by their names in lower case."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, value in Headers(headers):
        name.encode("ascii")
        value.encode("latin-1")
        found.setdefault(name.lower(), []).append((name, value))
    return found


def _request(
    method: str,
    path: str,
    headers: Mapping[str, list[tuple[str, str]]],
    scheme: str,
    client: tuple[str, int] | None,
) -> ClientRequest:
    if not path.startswith("/"):
        raise ValueError(f"path must begin with '/', not {path!r}")
    if scheme not in ("ws", "wss"):
        raise ValueError(f"scheme must be 'ws' or 'wss', not {scheme!r}")
    lines = tuple(line for several in headers.values() for line in several)
    return ClientRequest(method, quote(path, safe=_SAFE), lines, scheme, "1.1", client)
