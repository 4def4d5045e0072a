"""The head of a request on its way to websockets' parser, which takes less than HS-4 asks for.

What is worked around is listed in the connector's docstring, `wsbridge.connectors.websockets`.
"""

from __future__ import annotations

import re
from typing import Any

from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS
from websockets.http11 import Request as NativeRequest

from wsbridge import Request
from wsbridge.connector import BaseConnector, request_parts
from wsbridge.connectors._codecs.websockets import FrameReader

__all__ = ["KNOWS_METHODS", "HeadReader"]

_MAX_LINES = MAX_NUM_HEADERS + 2  # those of the request and the end; for more the connection is closed up to 16
_LONG = MAX_LINE_LENGTH - 192  # bytes of a target or a header, which leaves room for the rest of the line
_FAKE = ("GET", "/", "1.1")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\xff]+) HTTP/(1\.[01])\r\n")
_BODY = re.compile(rb"^(?:content-length|transfer-encoding):", re.IGNORECASE | re.MULTILINE)
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")
_END = b"\r\n\r\n"
_NOT_ASCII = re.compile(rb"[\x80-\xff]")

KNOWS_METHODS = "method" in NativeRequest.__dataclass_fields__  # since 17


class HeadReader(FrameReader):
    """A mixin for the protocol class of a connection: has its request parsed, and nothing that stands after it.

    Attributes:
        is_too_large: Whether the head is, so that the request is to be answered with 431 (HS-17).
    """

    # beside the dictionary of websockets' class, as in `FrameReader`
    __slots__ = ("_aside", "_head_lines", "_head_size", "_line", "is_too_large")

    request: Any  # of websockets: None until it is complete
    connector: BaseConnector

    def prepare(self) -> None:
        super().prepare()
        self._line: tuple[str, str, str] | None = None  # method, target and version as sent
        self._aside: list[tuple[str, str]] = []  # headers that websockets would not take
        self._head_size = self._head_lines = 0  # so far
        self.is_too_large = False

    def _kept(self) -> None:
        """Let the request be parsed, line by line if it came in pieces, and nothing that stands after it (HS-11)."""
        if self._started:
            return
        unread = self._unread
        limit = self.connector.max_head_size
        if self._line is None and (end := unread.find(_END) + len(_END)) >= len(_END):
            if end <= limit and unread.count(b"\n", 0, end) <= _MAX_LINES:
                head = bytes(unread[:end])
                del unread[:end]
                self._parse_head(head)
            else:
                self._refuse_large()
        while self.request is None and (end := unread.find(b"\n") + 1):
            line = bytes(unread[:end])
            del unread[:end]
            self._head_size += end
            self._head_lines += 1
            if self._head_size > limit or self._head_lines > _MAX_LINES:
                self._refuse_large()
                break
            self.parse_unopened(self._request_line(line) if self._line is None else self._fit(line))
        if self.protocol.eof_sent:
            self.parse_unopened(bytes(unread))  # to be dropped
            unread.clear()
        elif self.request is not None:
            super()._kept()
        elif self._head_size + len(unread) > limit:
            self._refuse_large()

    def _refuse_large(self) -> None:
        """Have the request answered with 431 (HS-17): websockets is told of another one."""
        self.is_too_large = True
        self._unread.clear()
        if self._line is None:
            self._line = _FAKE
            self.parse_unopened(b"GET / HTTP/1.1\r\n")
        self.parse_unopened(b"\r\n")

    def _parse_head(self, head: bytes) -> None:
        first = head.find(b"\n") + 1
        fit, headers = self._request_line(head[:first]), head[first:]
        if len(headers) > _LONG or _BODY.search(headers):
            headers = b"".join(map(self._fit, headers.splitlines(keepends=True)))
        self.parse_unopened(fit + headers)

    def _fit(self, line: bytes) -> bytes:
        """Return a header as websockets takes it: nothing of one that is too long for it, or tells of a body."""
        if len(line) > _LONG or _BODY.match(line):
            found = _HEADER.fullmatch(line)
            if found is not None:
                self._aside.append((found[1].decode(), found[2].decode("latin-1")))
                return b""
        return line

    def _request_line(self, line: bytes) -> bytes:
        """Keep the request line, and return one that websockets takes, or surely refuses."""
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            return b"\n"  # no HTTP: closed
        method, target, version = match.groups()
        self._line = method.decode(), target.decode("latin-1"), version.decode()
        if not KNOWS_METHODS:
            method, version = b"GET", b"1.1"
        target = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
        return b"%b %b HTTP/%b\r\n" % (method, target if len(target) <= _LONG else b"/", version)

    def make_request(self, root_path: str = "") -> Request:
        """Return the request, which is complete."""
        native = self.request
        assert native is not None
        assert self._line is not None
        method, target, version = self._line
        if native.path == "/" and len(target) > _LONG:
            native.path = target
        for name, value in self._aside:
            native.headers[name] = value
        self._aside.clear()
        return Request(
            method,
            target,
            headers=[
                (name, value if value.isascii() else value.encode("latin-1", "surrogateescape").decode("latin-1"))
                for name, value in native.headers.raw_items()
            ],
            http_version=version,
            native=native,
            root_path=root_path,
            **request_parts(self.transport),
        )
