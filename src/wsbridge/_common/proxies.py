"""Who the peer is behind proxies: what a trusted one tells in ``X-Forwarded-*`` and ``Forwarded`` (HS-2, HS-15)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["UNIX", "RemoteAddress", "TrustedProxies", "forwarded", "forwarded_hosts", "parse_networks"]

RemoteAddress = tuple[str, int]
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"
"""Trusts peers on a Unix socket, which have no address; the mode of its file says who those may be."""

_HEADERS = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")
_SCHEMES = {"https": "wss", "wss": "wss", "http": "ws", "ws": "ws"}
_UNIX_HOP = "unix:"  # nginx's $remote_addr of a peer on a Unix socket
_PORT = r"(?P<{}>[0-9]{{1,5}}|_[A-Za-z0-9._-]+)"  # the latter is RFC 7239's obfuscated port
_WITH_PORT = re.compile(rf"(?P<v4>[0-9.]+):{_PORT.format('of4')}|\[(?P<v6>[^\[\]]+)\](?::{_PORT.format('of6')})?")
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,32}")  # of a link-local address; RFC 6874 without its escapes
_PAIR = re.compile(r"\s*(?P<name>[A-Za-z]+)=(?:\"(?P<quoted>[^\"\\]*)\"|(?P<token>[^\s\"]+))\s*")


class TrustedProxies:
    """The option ``trusted_proxies``: addresses, networks such as ``"10.0.0.0/8"``, and ``"unix"``.

    Whoever lists both ``0.0.0.0/0`` and ``::/0`` trusts everybody, a peer on a Unix socket too. An IPv4 address that is
    mapped into IPv6, such as ``::ffff:10.0.0.3``, is in the networks of that IPv4 address.

    Raises:
        TypeError: It is not a sequence of str.
        ValueError: One is neither an address nor a network nor ``"unix"``; the message names it.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, proxies: Sequence[str]) -> None:
        if isinstance(proxies, str) or not all(isinstance(proxy, str) for proxy in proxies):
            raise TypeError(f"trusted_proxies must be a sequence of str, not {proxies!r}")
        networks: list[IPNetwork] = []
        for proxy in proxies:
            if proxy != UNIX:
                try:
                    networks.append(ipaddress.ip_network(proxy))
                except ValueError as exc:
                    raise ValueError(
                        f"trusted_proxies: {proxy!r} is no IP address or network, nor 'unix': {exc}"
                    ) from exc
        self._networks = tuple(networks)
        self._unix = UNIX in proxies or {4, 6} == {net.version for net in networks if net.prefixlen == 0}

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    @property
    def has_unix(self) -> bool:
        """Whether a peer on a Unix socket is trusted."""
        return self._unix

    def trusts(self, remote: RemoteAddress | None) -> bool:
        """Tell whether a peer at ``remote`` is trusted; None stands for a Unix socket."""
        if remote is None:
            return self._unix
        address = _address(remote[0])
        if address is None:
            return False
        mapped = _mapped(address)
        return any(address in network or (mapped is not None and mapped in network) for network in self._networks)

    def index(self, hops: Sequence[str]) -> int:
        """Return which hop is the client: from the end, the first that is not trusted, or else the one before all."""
        for index in range(len(hops) - 1, 0, -1):
            hop = _hop(hops[index])
            if not (self._unix if hops[index] == _UNIX_HOP else hop is not None and self.trusts(hop)):
                return index
        return 0


def parse_networks(proxies: Sequence[str]) -> TrustedProxies:
    """Return the option ``trusted_proxies`` as what asks it; see `TrustedProxies` for the errors."""
    return TrustedProxies(proxies)


def forwarded(
    lines: Iterable[tuple[str, str]], scheme: str, remote: RemoteAddress | None, *, trusted: TrustedProxies
) -> tuple[str, RemoteAddress | None]:
    """Return scheme and remote address as a trusted proxy tells them, or as they are.

    ``X-Forwarded-*`` and ``Forwarded`` are each read by itself. A proxy writes one of them, and passes on what a client
    has written into the other: where they contradict each other neither is believed (HS-15).

    Args:
        lines: Names and values of all headers, in order.
        scheme: ``ws`` or ``wss``, of the connection.
        remote: The other end of the connection; None for a Unix socket.
        trusted: Whose word counts.

    Returns:
        ``ws`` or ``wss``; and the address of the client, with port 0 where none is told, or None if it is not known. It
        is never that of a proxy, unless that has told of nobody.
    """
    if not trusted.trusts(remote):
        return scheme, remote
    ways = _ways(lines)
    clients = [_hop(way.hops[trusted.index(way.hops)]) for way in ways if way.hops]
    if clients:
        remote = clients[0] if len({client and client[0] for client in clients}) == 1 else None
    schemes = {_SCHEMES[told] for way in ways if (told := _protocol(way, trusted)) in _SCHEMES}
    return schemes.pop() if len(schemes) == 1 else scheme, remote


def forwarded_hosts(
    lines: Iterable[tuple[str, str]], remote: RemoteAddress | None, *, trusted: TrustedProxies
) -> tuple[str, ...]:
    """Return what the client addressed as a trusted proxy tells it, by ``X-Forwarded-Host`` or ``Forwarded``.

    Several proxies may have written one each; where they contradict each other neither is believed, as in `forwarded`.
    """
    if not trusted.trusts(remote):
        return ()
    hosts = {way.hosts for way in _ways(lines) if way.hosts}
    return hosts.pop() if len(hosts) == 1 else ()


class _Way(NamedTuple):
    """What one family of headers tells, each in the order that the proxies wrote it in."""

    hops: Sequence[str]
    protocols: Sequence[str]
    hosts: tuple[str, ...]


def _ways(lines: Iterable[tuple[str, str]]) -> tuple[_Way, _Way]:
    """Return what the headers tell, by ``X-Forwarded-*`` and by ``Forwarded``."""
    found: dict[str, list[str]] = {name: [] for name in _HEADERS}
    for name, value in lines:
        if (lower := name.lower()) in found:
            found[lower] += _elements(value)
    hops, protocols, hosts, elements = found.values()
    return _Way(hops, protocols, tuple(hosts)), _by_forwarded(elements)


def _protocol(way: _Way, trusted: TrustedProxies) -> str:
    """Return the protocol that the proxy next to the client tells, if there is one for each hop, or else the last."""
    if not way.protocols:
        return ""
    at = trusted.index(way.hops) if len(way.protocols) == len(way.hops) else -1
    return way.protocols[at].lower()


def _by_forwarded(elements: Sequence[str]) -> _Way:
    hops = [_pairs(element) for element in elements]
    has_for = any("for" in hop or not hop for hop in hops)  # what is ill-formed tells of somebody, but not of whom
    has_proto = any("proto" in hop for hop in hops)
    return _Way(
        [hop.get("for", "unknown") for hop in hops] if has_for else (),
        [hop.get("proto", "") for hop in hops] if has_proto else (),
        tuple(hop["host"] for hop in hops if "host" in hop),
    )


def _elements(value: str) -> list[str]:
    """Split a list at its commas, and at nothing else: what a client wrote before the last one cannot reach over it.

    A quote is a character like any other, in ``Forwarded`` as well: no value that counts has a comma there.
    """
    return [element for part in value.split(",") if (element := part.strip(" \t"))]


def _pairs(element: str) -> dict[str, str]:
    """Return the pairs of an element of ``Forwarded`` (RFC 7239, 4), names in lower case; none if it is ill-formed."""
    pairs: dict[str, str] = {}
    for part in element.split(";"):
        match = _PAIR.fullmatch(part)
        if match is None or match["name"].lower() in pairs:
            return {}
        pairs[match["name"].lower()] = match["token"] or match["quoted"] or ""
    return pairs


def _hop(text: str) -> RemoteAddress | None:
    """Return address and port of a hop; None if it is not an address: ``unknown``, ``_hidden``, or anything else."""
    host, port = text, "0"
    if match := _WITH_PORT.fullmatch(text):
        host = match["v4"] or match["v6"]
        port = match["of4"] or match["of6"] or "0"
    address = _address(host)
    if address is None or (match is not None and (address.version == 6) != (match["v6"] is not None)):
        return None
    number = 0 if port.startswith("_") else int(port)
    return (str(_mapped(address) or address), number) if number <= 65535 else None


def _address(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 6 and address.scope_id is not None and not _ZONE.fullmatch(address.scope_id):
        return None
    return address


def _mapped(address: IPAddress) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is mapped into an IPv6 one, if one is."""
    return address.ipv4_mapped if address.version == 6 else None
