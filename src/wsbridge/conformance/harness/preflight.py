"""A look at a running server: whether anybody is there, and serves the reference application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from wsbridge.conformance.client import (
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    HttpResponse,
    WireError,
    WirePeer,
    WireTimeout,
    WireViolation,
)

__all__ = ["BrokenTargetError", "TargetError", "gone", "server_name"]

_LIMIT = 5.0  # seconds for each step
_LOOKS = 3  # looks at a server that seems to be gone: one that is started again by a supervisor is not
_BETWEEN = 0.3  # seconds between them
_SHOWN = 40  # bytes of an answer that a message shows
_REFERENCE = "docs/reference-app.md"
_TLS_RECORD = b"\x15\x03"  # how an alert of TLS begins, which answers a request in plain HTTP


class TargetError(ValueError):
    """There is nothing to check: no such connector, nobody at the URL, or no reference application there."""


class BrokenTargetError(TargetError):
    """There is something to check, but it cannot be: its module cannot be imported, or it answers no more.

    Attributes:
        details: The traceback, or what its process wrote.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


async def server_name(url: str, scale: float = 1.0) -> str:
    """Make sure that a server is there and serves the reference application; return how it names itself.

    Raises:
        TargetError: It is not, or does not; one line says how far it came.
    """
    path = _path(url)
    wrong = f"there is a WebSocket at {url}, but it serves no reference application ({_REFERENCE}): {path}"
    async with _handshake(url, scale) as (peer, request, response):
        try:
            peer.start_websocket(request, response)
        except HandshakeRefused as exc:
            status = f"{response.status} {response.reason}".rstrip()
            message = (
                f"{url} serves HTTP, but no reference application ({_REFERENCE}): {path} answered {status}, not 101"
            )
            raise TargetError(message) from exc
        except WireViolation as exc:
            raise TargetError(f"{url} answers a handshake for {path} wrongly: {exc}") from exc
        try:
            await peer.send_text("wsbridge")
            answer = await peer.receive_text()
        except Closed as exc:
            raise TargetError(f"{wrong} closed the connection") from exc
        except WireTimeout as exc:
            raise TargetError(f"{wrong} sent nothing back within {_LIMIT * scale:g} s") from exc
        except (WireError, OSError) as exc:
            raise TargetError(f"{wrong}: {exc}") from exc
        if answer != "wsbridge":
            raise TargetError(f"{wrong} answered {answer[:_SHOWN]!r} to 'wsbridge'")
    return response.header("Server") or ""


async def gone(url: str, scale: float = 1.0) -> str:
    """Return why a server that was there is gone; "" if it still answers a handshake, by whatever status."""
    reason = ""
    for number in range(_LOOKS):
        if number:
            await asyncio.sleep(_BETWEEN * scale)
        try:
            async with _handshake(url, scale):
                return ""
        except TargetError as exc:
            reason = str(exc)
    return reason


def _path(url: str) -> str:
    return f"{urlsplit(url).path.rstrip('/')}/echo"


@asynccontextmanager
async def _handshake(url: str, scale: float) -> AsyncGenerator[tuple[WirePeer, HandshakeRequest, HttpResponse]]:
    """Ask for a WebSocket; yield the peer, the request and the answer.

    Raises:
        TargetError: There is no answer, or it is no HTTP.
    """
    parts = urlsplit(url)
    address, seconds = (parts.hostname or "", parts.port or 80), _LIMIT * scale
    try:
        async with asyncio.timeout(seconds):
            peer = await WirePeer.open(address, timeout=seconds)
    except TimeoutError as exc:
        raise TargetError(f"nobody listens at {url}: no answer within {seconds:g} s") from exc
    except OSError as exc:
        raise TargetError(f"nobody listens at {url}: {os.strerror(exc.errno) if exc.errno else exc}") from exc
    try:
        request = HandshakeRequest.build(address, target=_path(url))
        try:
            await peer.send_raw(request.encode())
            response = await peer.read_response()
        except Closed as exc:
            raise TargetError(f"{url} answers a handshake by ending the connection") from exc
        except (WireTimeout, WireViolation) as exc:
            raise TargetError(_no_http(url, _received(peer), seconds)) from exc
        yield peer, request, response
    finally:
        await peer.aclose()


def _received(peer: WirePeer) -> bytes:
    """Return the beginning of what a peer got, read or not."""
    taken = b"".join(bytes.fromhex(entry.data) for entry in peer.log.entries if entry.direction == "received")
    return taken + bytes(peer.link.input)


def _no_http(url: str, received: bytes, seconds: float) -> str:
    if not received:
        return f"{url} takes the connection, and answers nothing to a handshake within {seconds:g} s"
    if received.startswith(_TLS_RECORD):
        return f"{url} speaks TLS: the suite needs a port without it, for ws://"
    return f"{url} does not speak HTTP: to a handshake it sent {received[:_SHOWN]!r}"
