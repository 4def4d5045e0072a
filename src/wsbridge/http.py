"""The HTTP side of a handshake: `Request` and `Response`, over werkzeug's sans-I/O classes."""

from __future__ import annotations

import copy
import re
import ssl
from collections.abc import Iterable, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, cast
from urllib.parse import parse_qsl, unquote

from werkzeug.datastructures import Headers, ImmutableMultiDict, MultiDict
from werkzeug.sansio.request import Request as _SansIORequest
from werkzeug.sansio.response import Response as _SansIOResponse

from wsbridge._common.proxies import RemoteAddress
from wsbridge._common.proxies import forwarded as forwarded
from wsbridge._common.proxies import parse_networks as parse_networks

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    N_co = TypeVar("N_co", covariant=True, default=object)
else:
    from typing import TypeVar

    N_co = TypeVar("N_co", covariant=True)

__all__ = ["Request", "Response"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_VALUES = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class Request(_SansIORequest, Generic[N_co]):
    """The request of a handshake, or any other that reached the application (HS-2).

    What werkzeug's sans-I/O request offers, ``method``, ``path``, ``query_string`` (raw bytes), ``args``, ``headers``,
    ``cookies``, ``host`` and so on, and the rest of HS-2. ``N`` is the type of ``native``, `object` unless it is named:
    a handler for one connector alone annotates its request with that connector's, such as
    `wsbridge.connectors.aiohttp.AiohttpRequest`.

    Attributes:
        path: Below the path that the application is mounted at, decoded as UTF-8, bad sequences as U+FFFD.
        root_path: The path that the application is mounted at, or "".
        raw_path: The whole path as sent, without the query.
        path_params: What the route's ``{name}`` parts matched.
        scheme: ``"ws"`` or ``"wss"``; a proxy's word counts if the connector trusts it.
        http_version: Such as ``"1.1"``.
        remote_address: Host and port of the peer, or None: it came by a Unix socket, or a trusted proxy does not know
            it either. Where a trusted proxy tells the address but no port, the port is 0.
        forwarded_hosts: What the peer addressed, by the word of a trusted proxy (``X-Forwarded-Host``). They count
            beside ``Host`` for the request's own origin (HS-6).
        client_certificate: The peer's verified certificate, as `ssl.SSLSocket.getpeercert` gives it; None without one.
        subprotocols: Those that the peer offers, in its order, over all header lines.

    Pedestal: the request map.
    """

    def __init__(
        self,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str, str]],
        scheme: str = "ws",
        http_version: str = "1.1",
        remote_address: RemoteAddress | None = None,
        tls: ssl.SSLObject | ssl.SSLSocket | None = None,
        native: Any = None,
        root_path: str = "",
        path_params: Mapping[str, str] | None = None,
    ) -> None:
        """Make a request from what stood on the wire.

        Args:
            method: As sent.
            target: The request target as sent, in latin-1: path and query, or the absolute form.
            headers: Names and values in latin-1, in order, repeated ones too.
            scheme: ``ws`` or ``wss``, from the connection.
            http_version: Such as ``"1.1"``.
            remote_address: Host and port of the other end of the connection.
            tls: The connection's TLS, if it has one.
            native: The server's own request.
            root_path: The decoded path that the application is mounted at.
            path_params: What a framework's own router matched before.
        """
        self._lines = list(headers)
        self._headers: Headers | None
        raw_path, _, query = (target if target[:1] == "/" else _origin_form(target)).partition("?")
        path = raw_path
        if "%" in path or not path.isascii():
            path = unquote(raw_path.encode("latin-1"), errors="replace")
        if root_path:
            below = path.removeprefix(root_path)
            if not below or below.startswith("/"):  # the mount is whole segments
                path = below
        super().__init__(
            method=method,
            scheme=scheme,
            server=None,
            root_path=root_path,
            path=path,
            query_string=query.encode("latin-1"),
            headers=cast(Headers, None),  # made of the lines when they are asked for
            remote_addr=None if remote_address is None else remote_address[0],
        )
        self.method = method  # as sent: HTTP methods have a case
        self.path = path or "/"  # werkzeug folds leading slashes, routing does not
        self.raw_path = raw_path
        self.http_version = http_version
        self.remote_address = remote_address
        self.forwarded_hosts: tuple[str, ...] = ()
        self.client_certificate: Mapping[str, Any] | None = None
        if tls is not None and tls.context.verify_mode is not ssl.CERT_NONE:
            self.client_certificate = tls.getpeercert() or None
        self._native = native
        self.path_params: dict[str, str] = {} if path_params is None else dict(path_params)

    @property
    def headers(self) -> Headers:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The headers: names in any case, repeated ones too, in latin-1."""
        if self._headers is None:
            self._headers = Headers(self._lines)
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers

    def header_lines(self) -> list[tuple[str, str]]:
        """Return names and values of all headers, in order."""
        return self._lines if self._headers is None else list(self._headers)

    @property
    def native(self) -> N_co:
        """The server's own request object; what is done through it is outside the contract."""
        return cast(N_co, self._native)

    @cached_property
    def args(self) -> MultiDict[str, str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The parsed query, decoded as UTF-8, bad sequences as U+FFFD; blank values are kept."""
        query = self.query_string.decode("utf-8", "replace")
        return ImmutableMultiDict(parse_qsl(query, keep_blank_values=True, errors="replace"))

    @cached_property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the peer offers, in its order, over all header lines."""
        return tuple(self.header_list("Sec-WebSocket-Protocol"))

    def header_list(self, name: str) -> list[str]:
        """Return the comma-separated elements of the header ``name`` over all its lines, empty ones left out."""
        lines: list[str] = self.headers.getlist(name)
        return [item.strip() for line in lines for item in line.split(",") if item.strip()]


class Response(_SansIOResponse):
    """An answer in plain HTTP, which an interceptor sets to refuse a handshake or to serve another request (HS-7).

    Args:
        body: Bytes, or text, which is encoded as UTF-8.
        status: The status code; 101 and other interim codes are not for applications.
        headers: A mapping or pairs; repeated names are kept.
        content_type: By default ``text/plain; charset=utf-8``.

    Raises:
        TypeError: ``body`` is neither str nor bytes.
        ValueError: ``status`` is not from 200 to 599.
    """

    default_mimetype = "text/plain"

    def __init__(
        self,
        body: str | bytes = b"",
        status: int = 200,
        headers: Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]] | None = None,
        *,
        content_type: str | None = None,
    ) -> None:
        if not isinstance(body, str | bytes):
            raise TypeError(f"response body must be str or bytes, not {type(body).__name__}")
        if not 200 <= int(status) <= 599:
            raise ValueError(f"response status must be from 200 to 599, not {status!r}")
        super().__init__(status=int(status), headers=headers, content_type=content_type)
        self.body = body.encode() if isinstance(body, str) else body


def plain_response(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer ``status`` with its standard phrase as the body, and nothing else of this side in it."""
    return Response(f"{HTTPStatus(status).phrase}\n", status, headers)


def has_body(request: Request) -> bool:
    """Tell whether a request has a body (RFC 9112, 6); that of a handshake would be taken for frames (HS-16)."""
    for name, value in request.header_lines():
        lower = name.lower()
        if lower == "transfer-encoding" or (lower == "content-length" and value != "0"):
            return True
    return False


def is_last(request: Request) -> bool:
    """Tell whether the connection ends after the answer: the peer has asked for that, or a body is left unread."""
    if request.http_version not in ("1.0", "1.1"):  # a connection of HTTP/2 or 3 serves others, too
        return False
    asked = [item.lower() for item in request.header_list("Connection")]
    return "close" in asked or (request.http_version == "1.0" and "keep-alive" not in asked) or has_body(request)


def content_of(response: Response, method: str) -> tuple[int | None, bytes]:
    """Return what ``Content-Length`` of an answer to ``method`` says, and the content that follows its head.

    None: it has no such header, since an answer of its status has no content (RFC 9110, 6.4.1 and 8.6). The answer to
    HEAD tells the length of what it leaves out.
    """
    status = response.status_code
    if status < 200 or status in (204, 304):
        return None, b""
    return len(response.body), b"" if method == "HEAD" else response.body


def says_close(response: Response) -> bool:
    """Tell whether an answer says that the connection ends after it."""
    lines: list[str] = response.headers.getlist("Connection")
    return any(item.strip().lower() == "close" for line in lines for item in line.split(","))


def closing(response: Response) -> Response:
    """Return an answer that says that the connection ends after it (RFC 9112, 9.6); the one given is not changed."""
    if says_close(response):
        return response
    lines: list[str] = response.headers.getlist("Connection")
    items = [item.strip() for line in lines for item in line.split(",")]
    kept = [item for item in items if item.lower() not in ("", "keep-alive")]
    changed = copy.copy(response)
    changed.headers = Headers(response.headers)
    changed.headers["Connection"] = ", ".join((*kept, "close"))
    return changed


def check_headers(headers: Headers) -> None:
    """Check that the headers of an answer can be sent as they are (RFC 9110, 5.1 and 5.5).

    Raises:
        ValueError: Names the one that cannot.
    """
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"the header {name!r} cannot be sent: names have letters, digits and !#$%&'*+-.^_`|~")
        if wrong := _NOT_IN_VALUES.search(value):
            raise ValueError(f"the header {name!r} cannot be sent: no value may have {wrong[0]!r}")


def _origin_form(target: str) -> str:
    """Return the path and query of a target that may be in absolute form (RFC 9112, 3.2.2)."""
    _, separator, rest = target.partition("://")
    if not separator:
        return target
    position = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    below = rest[position:]
    return below if below.startswith("/") else "/" + below
