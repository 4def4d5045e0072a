"""The head of an HTTP/1 request, for servers whose own HTTP does less than HS-4 asks for.

Needs httptools (llhttp), which the extras of such servers bring.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

__all__ = ["BadRequestError", "Head", "parse_head"]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = r"[\t\x20-\x7e\x80-\xff]*+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\xff]++) HTTP/(1\.[01])\r\n")
_HEADER = re.compile(rf"({_TOKEN}):({_VALUE})\r\n")
_PLAIN = re.compile(rf"(?:(?!content-length:|transfer-encoding:){_TOKEN}:{_VALUE}\r\n)*\r\n", re.IGNORECASE)
"""The headers of nearly all handshakes; those that are not like these are left to llhttp, which is slower."""


class BadRequestError(ValueError):
    """This is no HTTP/1 request."""


class Head(NamedTuple):
    """A request without its body; target and headers as sent, in latin-1."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]


class _Collector:
    """Takes what httptools finds."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_head(head: bytes) -> Head:
    """Parse a request up to the blank line, which is its end.

    The request line is matched here: llhttp knows a list of methods only, and no target that is not ASCII.

    Raises:
        BadRequestError: It is none.
    """
    text = head.decode("latin-1")
    match = _REQUEST_LINE.match(text)
    if match is None:
        raise BadRequestError("the request line")
    method, target, version = match.groups()
    end = match.end()
    if _PLAIN.fullmatch(text, end) is not None:
        plain = [(name, value.strip(" \t")) for name, value in _HEADER.findall(text, end)]
        return Head(method, target, version, plain)
    return Head(method, target, version, _collected(head[end:]))


def _collected(lines: bytes) -> list[tuple[str, str]]:
    """Return the headers as llhttp finds them."""
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(b"GET / HTTP/1.1\r\n" + lines)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        raise BadRequestError(str(exc)) from exc
    if not collector.complete:
        raise BadRequestError("the headers have no end")
    return collector.headers
