"""The head of an HTTP/1 request, and the answer to one, for servers whose own HTTP does less than HS-4 asks for.

Needs httptools (llhttp), which the extras of such servers bring.
"""

from __future__ import annotations

import email.utils
import re
from typing import NamedTuple

import httptools

from wsbridge.http import Response

__all__ = ["MAX_HEAD", "BadRequestError", "Head", "final_response", "parse_head"]

MAX_HEAD = 16 * 1024  # bytes of a request line and its headers

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\xff]+) HTTP/(1\.[01])\r\n")


class BadRequestError(ValueError):
    """This is no HTTP/1 request."""


class Head(NamedTuple):
    """A request without its body; target and headers as sent, in latin-1."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    has_body: bool


class _Collector:
    """Takes what httptools finds."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.has_body = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        text = name.decode("latin-1")
        lower = text.lower()
        if lower == "transfer-encoding" or (lower == "content-length" and value.strip(b" \t0")):
            self.has_body = True
        self.headers.append((text, value.strip(b" \t").decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_head(head: bytes) -> Head:
    """Parse a request up to the blank line, which is its end.

    The request line is matched here: llhttp knows a list of methods only, and no target that is not ASCII.

    Raises:
        BadRequestError: It is none.
    """
    end = head.find(b"\n") + 1
    match = _REQUEST_LINE.fullmatch(head, 0, end)
    if match is None:
        raise BadRequestError("the request line")
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(b"GET / HTTP/1.1\r\n" + head[end:])
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        raise BadRequestError(str(exc)) from exc
    if not collector.complete:
        raise BadRequestError("the headers have no end")
    method, target, version = (group.decode("latin-1") for group in match.groups())
    return Head(method, target, version, collector.headers, collector.has_body)


def final_response(response: Response, method: str) -> bytes:
    """Return ``response`` to a request by ``method`` as it stands on the wire; the connection ends behind it.

    Raises:
        UnicodeEncodeError: A header is not latin-1.
    """
    lines = [f"HTTP/1.1 {response.status}"]
    names: set[str] = set()
    for name, value in response.headers:
        lower = name.lower()
        if lower not in ("content-length", "transfer-encoding"):
            names.add(lower)
            lines.append(f"{name}: {value}")
    if "connection" not in names:
        lines.append("Connection: close")
    if "date" not in names:
        lines.append(f"Date: {email.utils.formatdate(usegmt=True)}")
    has_body = response.status_code not in (204, 304)
    if has_body:
        lines.append(f"Content-Length: {len(response.body)}")
    head = "\r\n".join((*lines, "", "")).encode("latin-1")
    return head + response.body if has_body and method != "HEAD" else head
