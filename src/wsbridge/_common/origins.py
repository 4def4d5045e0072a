"""Origins, as browsers send them and as the option ``origins`` lists them (HS-6; RFC 6454, 7)."""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "DEFAULT_PORTS",
    "Allowed",
    "Origin",
    "allowed_origins",
    "check_origin",
    "is_nobody",
    "is_own",
    "parse_origin",
]

DEFAULT_PORTS = MappingProxyType({"http": 80, "https": 443, "ws": 80, "wss": 443})

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^\x00-\x20#/:<>?@\[\\\]^|\x7f-\U0010ffff]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_NOT_IN_HOSTS = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f*]")  # of a domain (WHATWG URL, 3.2), and our asterisk
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOTS = re.compile("[.\u3002]")  # once it is normalized: NFKC turns the other two dots of UTS 46 into these
_KEPT = MappingProxyType({"\xdf": "\xdf", "\u1e9e": "\xdf", "\u03c2": "\u03c2", "\u200c": "\u200c", "\u200d": "\u200d"})
"""What browsers keep and IDNA 2003 did not (UTS 46, non-transitional): sharp s, final sigma and the joiners."""
_IGNORED = re.compile("[\xad\u034f\u200b\u2060-\u2064\ufe00-\ufe0f\ufeff]")  # nothing is left of these
_OPAQUE = frozenset(("about", "blob", "data", "file", "javascript"))
_NOBODY = frozenset(("null", "file://"))  # the latter from some WebViews, for what is "null" elsewhere


class Origin(NamedTuple):
    """An origin in its normal form.

    Attributes:
        scheme: In lower case.
        host: In lower case, ASCII; an IPv6 address without brackets, in its short form.
        port: The default port where none is given; None where its scheme has no default.
    """

    scheme: str
    host: str
    port: int | None


class Allowed(NamedTuple):
    """What the option ``origins`` lets in.

    Attributes:
        any: Whether that is all: ``"*"`` is listed.
        exact: The origins that are listed.
        below: Those whose subdomains are, ``scheme://*.host``.
    """

    any: bool
    exact: frozenset[Origin]
    below: tuple[Origin, ...]

    def lets_in(self, origin: Origin) -> bool:
        """Tell whether ``origin`` is listed, or a subdomain of one whose subdomains are."""
        if self.any or origin in self.exact:
            return True
        return any(
            origin.scheme == domain.scheme and origin.port == domain.port and origin.host.endswith(f".{domain.host}")
            for domain in self.below
        )


def parse_origin(text: str) -> Origin | None:
    """Return the origin that a header or ``scheme://host`` names, in any case; None if it names none, as ``null``."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    scheme, host = match["scheme"], match["host"]
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    port = DEFAULT_PORTS.get(scheme) if match["port"] is None else int(match["port"])
    return None if port is not None and port > 65535 else Origin(scheme, host, port)


def is_nobody(text: str) -> bool:
    """Tell whether an ``Origin`` says that the page has none, as in a sandboxed frame or from a file; any page can."""
    return text in _NOBODY


def is_own(origin: Origin, scheme: str, host: str) -> bool:
    """Tell whether a page of ``origin`` and a request with ``Host: host`` belong together.

    They differ in scheme behind a proxy that ends TLS, so that host and port decide; where both ports are the defaults
    of their schemes they are the same place. An origin with a scheme that is not the web's is another place.

    Args:
        origin: The page's.
        scheme: ``ws`` or ``wss``, of the request.
        host: Host and port that it is addressed to.
    """
    own = parse_origin(f"{scheme}://{host}")
    if own is None or own.host != origin.host or origin.scheme not in DEFAULT_PORTS:
        return False
    both_default = own.port == DEFAULT_PORTS[own.scheme] and origin.port == DEFAULT_PORTS[origin.scheme]
    return own.port == origin.port or both_default


@functools.lru_cache(maxsize=256)
def allowed_origins(entries: tuple[str, ...]) -> Allowed:
    """Return the option ``origins`` as what is asked at each handshake.

    Raises:
        ValueError: One can never match; see `check_origin`.
    """
    checked = [check_origin(entry) for entry in entries if entry != "*"]
    return Allowed(
        "*" in entries,
        frozenset(origin for origin, is_below in checked if not is_below),
        tuple(origin for origin, is_below in checked if is_below),
    )


def check_origin(entry: str) -> tuple[Origin, bool]:
    """Return the origin that an entry of the option ``origins`` names, and whether it stands for those below it.

    It is ``scheme://host[:port]``, or ``scheme://*.host[:port]`` for the subdomains of a host, at any depth and without
    itself. A host with letters beyond ASCII is encoded as browsers do it.

    Raises:
        ValueError: No browser ever sends such an origin; the message says what would be right.
    """
    scheme, separator, rest = entry.partition("://")
    scheme = scheme.lower()
    if entry.lower() == "null" or scheme in _OPAQUE:
        raise _wrong(entry, "any page can have the origin 'null', in a sandboxed frame", "*")
    if re.search(r"\s", entry):
        raise _wrong(entry, "an origin has no blanks")
    if not separator:
        raise _wrong(entry, "it has no scheme", f"https://{entry}" if entry and not re.search(r"[:/]", entry) else "")
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise _wrong(entry, f"{scheme!r} is no scheme", f"https://{rest}" if scheme == "*" and rest else "")
    if scheme in ("ws", "wss"):
        raise _wrong(entry, "an origin is that of the page, not of its WebSocket", f"http{scheme[2:]}://{rest}")
    if wrong := re.search(r"[/?#]", rest):
        raise _wrong(entry, f"an origin ends before the {wrong[0]!r}", f"{scheme}://{rest[: wrong.start()]}")
    if "@" in rest:
        raise _wrong(entry, "an origin names no user", f"{scheme}://{rest.rpartition('@')[2]}")
    host, port = _split(entry, scheme, rest)
    is_below = host.startswith("*.")
    host = _checked_host(entry, scheme, host.removeprefix("*."), is_below=is_below)
    return Origin(scheme, host, DEFAULT_PORTS.get(scheme) if port is None else port), is_below


def _split(entry: str, scheme: str, rest: str) -> tuple[str, int | None]:
    """Split host and port."""
    host, port = rest, None
    if match := re.fullmatch(r"(?P<host>.*):(?P<port>[^\]]*)", rest):
        host, port = match["host"], match["port"]
    if not host:
        raise _wrong(entry, "it has no host")
    if port is None:
        return host, None
    if port == "*":
        raise _wrong(entry, "each port is to be listed by itself", f"{scheme}://{host}:8080")
    if port == "":
        raise _wrong(entry, "its port is empty", f"{scheme}://{host}")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise _wrong(entry, f"{port!r} is no port from 1 to 65535")
    return host, int(port)


def _checked_host(entry: str, scheme: str, host: str, *, is_below: bool) -> str:
    """Return the host in its normal form."""
    if "*" in host:
        domain = host.lstrip("*.")
        right = f"{scheme}://*.{domain}" if domain and "*" not in domain else "*" if not domain else ""
        raise _wrong(entry, "an asterisk may stand alone, or for the subdomains as the first label", right)
    if host.startswith("["):
        host = _checked_address(entry, host, ipaddress.IPv6Address, is_below=is_below)
    elif scheme not in DEFAULT_PORTS:  # such as chrome-extension://, whose host is not a domain
        host = host.lower()
        if wrong := _NOT_IN_HOSTS.search(host) or re.search(r"[^\x00-\x7f]", host):
            raise _wrong(entry, f"no host of {scheme}:// has {wrong[0]!r}")
    else:
        host = _checked_domain(entry, scheme, host, is_below=is_below)
    return host


def _checked_domain(entry: str, scheme: str, host: str, *, is_below: bool) -> str:
    domain = _to_ascii(host)
    if wrong := _NOT_IN_HOSTS.search(domain):
        raise _wrong(entry, f"no host has {wrong[0]!r}")
    labels = domain.removesuffix(".").split(".")
    if not all(labels):
        top = domain.lstrip(".")
        raise _wrong(entry, "a label of its host is empty", f"{scheme}://*.{top}" if domain != top and top else "")
    if _NUMBER.fullmatch(labels[-1]):  # browsers take it for an IPv4 address, and write it in its usual form
        domain = _checked_address(entry, domain, ipaddress.IPv4Address, is_below=is_below)
    return domain


def _checked_address(
    entry: str, host: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], *, is_below: bool
) -> str:
    if is_below:
        raise _wrong(entry, "an address has no subdomains")
    try:
        return str(kind(host.removeprefix("[").removesuffix("]")))
    except ValueError as exc:
        raise _wrong(entry, f"{host} is no address ({exc})") from None


def _to_ascii(host: str) -> str:
    """Encode a host as browsers do (UTS 46, non-transitional): in lower case, what is not ASCII as ``xn--...``.

    There are no tables of UTS 46 here: a letter that it forbids is encoded as well, and matches nothing.
    """
    if host.isascii():
        return host.lower()
    folded = "".join(_KEPT.get(letter) or unicodedata.normalize("NFKC", letter).casefold() for letter in host)
    labels = _DOTS.split(unicodedata.normalize("NFC", _IGNORED.sub("", folded)))
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)


def _wrong(entry: str, why: str, right: str = "") -> ValueError:
    hint = f"write {right!r}" if right else "an origin is 'scheme://host' or 'scheme://host:port'"
    return ValueError(f"origins: {entry!r} would match nothing: {why}; {hint}")
