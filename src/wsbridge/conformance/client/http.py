"""HTTP/1.1 responses, read strictly (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from wsbridge.conformance.client.errors import WireViolation
from wsbridge.conformance.client.log import WireLog, head_text

__all__ = ["Address", "ByteSource", "HttpResponse", "listed", "read_response"]

Address: TypeAlias = tuple[str, int] | str
"""Where a server listens: host and port, or the path of a Unix socket."""

_MAX_HEAD = 64 * 1024  # bytes


class ByteSource(Protocol):
    """Where bytes come from."""

    @property
    def input(self) -> bytearray:
        """Those that have come; a reader takes them off."""
        ...

    async def fill(self) -> bool:
        """Read once into the input; return False at the end of the stream."""
        ...


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response; header names are as sent, values latin-1, a chunked body is joined."""

    status: int
    reason: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first value of a header, None without it."""
        return next(iter(self.headers_all(name)), None)

    def headers_all(self, name: str) -> list[str]:
        """Return every value of a header, in the order sent."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


def listed(values: Iterable[str], separator: str = ",") -> list[str]:
    """Return the elements of a header that is a list, of all its lines."""
    return [part.strip() for value in values for part in value.split(separator) if part.strip()]


async def read_response(source: ByteSource, log: WireLog, *, head: bool = False) -> HttpResponse:
    """Read one response with its body; `head` if it answers HEAD and so has none.

    Raises:
        WireViolation: If it is not a legal response, or the stream ended within it.
    """
    raw = await _take_until(source, b"\r\n\r\n")
    log.add("received", len(raw) + 4, head_text(raw + b"\r\n\r\n"), raw)
    start, *lines = raw.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"(HTTP/1\.[01]) ([1-9]\d\d)(?: (.*))?", start)
    if match is None:
        raise WireViolation(f"expected an HTTP status line, but got {start!r}")
    pairs = [re.fullmatch(r"([\w!#$%&'*+.^`|~-]+):[ \t]*(.*?)[ \t]*", line, re.ASCII) for line in lines]
    if None in pairs:
        raise WireViolation(f"expected a header line, but got {lines[pairs.index(None)]!r}")
    headers = tuple((pair[1], pair[2]) for pair in pairs if pair is not None)
    response = HttpResponse(int(match[2]), match[3] or "", match[1], headers)
    if head or response.status < 200 or response.status in (204, 304):
        return response
    return replace(response, body=await _read_body(source, response))


async def _read_body(source: ByteSource, response: HttpResponse) -> bytes:
    """Read a body by section 6.3."""
    body = bytearray()
    lengths = set(response.headers_all("Content-Length"))
    if "chunked" in listed(response.headers_all("Transfer-Encoding")):
        while size := await _chunk_size(source):
            body += await _take(source, size)
            if (end := await _take(source, 2)) != b"\r\n":
                raise WireViolation(f"expected CRLF behind a chunk, but got {end!r}")
        while await _take_until(source, b"\r\n"):
            pass
    elif lengths:
        if len(lengths) > 1 or not min(lengths).isdecimal():
            raise WireViolation(f"expected one Content-Length, but got {sorted(lengths)}")
        body += await _take(source, int(min(lengths)))
    else:
        while await source.fill():
            pass
        body += await _take(source, len(source.input))
    return bytes(body)


async def _chunk_size(source: ByteSource) -> int:
    line = (await _take_until(source, b"\r\n")).partition(b";")[0].strip()
    if re.fullmatch(rb"[0-9a-fA-F]+", line) is None:
        raise WireViolation(f"expected the size of a chunk, but got {line!r}")
    return int(line, 16)


async def _take(source: ByteSource, size: int) -> bytes:
    while len(source.input) < size:
        if not await source.fill():
            raise WireViolation(f"expected {size} bytes of HTTP, but the stream ended after {len(source.input)}")
    data = bytes(source.input[:size])
    del source.input[:size]
    return data


async def _take_until(source: ByteSource, end: bytes) -> bytes:
    """Take what stands before `end`, and `end` too."""
    while (position := source.input.find(end)) < 0:
        if len(source.input) > _MAX_HEAD or not await source.fill():
            raise WireViolation(f"expected {end!r} in HTTP, but got {bytes(source.input[:300])!r}")
    return (await _take(source, position + len(end)))[: -len(end)]
