"""What a trusted proxy tells of the peer: as nginx, HAProxy and load balancers write it, and as clients forge it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from tests.fakes import FakeConnector
from wsbridge import Application
from wsbridge._common.proxies import forwarded, forwarded_hosts, parse_networks

pytestmark = pytest.mark.rule("HS-2")

PROXIES = parse_networks(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])
PROXY = ("10.1.2.3", 5)
PEER = ("198.51.100.7", 0)


def told(*lines: str, scheme: str = "ws", remote: Any = PROXY, trusted: Any = PROXIES) -> tuple[str, Any]:
    """Return what lines tell: ``"For: 1.2.3.4"``, short for ``X-Forwarded-For``, or ``"Forwarded: for=..."``."""
    pairs = [line.split(": ", 1) for line in lines]
    headers = [(name if name == "Forwarded" else f"X-Forwarded-{name}", value) for name, value in pairs]
    return forwarded(headers, scheme, remote, trusted=trusted)


@pytest.mark.parametrize(
    ("remote", "headers", "expected"),
    [
        pytest.param(PROXY, [("X-Forwarded-For", "198.51.100.7")], ("ws", PEER), id="proxy"),
        pytest.param(("fd00::1", 5), [("X-Forwarded-For", "2001:db8::1")], ("ws", ("2001:db8::1", 0)), id="ipv6"),
        pytest.param(
            PROXY,
            [("X-Forwarded-For", "203.0.113.9, 198.51.100.7, 192.0.2.1")],
            ("ws", PEER),
            id="proxies-passed-over-and-forgery-before-not-believed",
        ),
        pytest.param(
            PROXY,
            [("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-For", "10.9.9.9")],
            ("ws", PEER),
            id="two-lines",
        ),
        pytest.param(PROXY, [("X-Forwarded-For", "10.4.4.4")], ("ws", ("10.4.4.4", 0)), id="all-trusted"),
        pytest.param(PROXY, [("X-Forwarded-For", "198.51.100.7, unknown")], ("ws", None), id="no-address"),
        pytest.param(PROXY, [("X-Forwarded-For", "")], ("ws", PROXY), id="empty"),
        pytest.param(PROXY, [], ("ws", PROXY), id="no-header"),
        pytest.param(
            PEER, [("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-Proto", "https")], ("ws", PEER), id="not-trusted"
        ),
        pytest.param(None, [("X-Forwarded-For", "198.51.100.7")], ("ws", None), id="unix-socket"),
        pytest.param(("", 0), [("X-Forwarded-For", "198.51.100.7")], ("ws", ("", 0)), id="no-ip-address"),
        pytest.param(PROXY, [("X-Forwarded-Proto", "https")], ("wss", PROXY), id="https"),
        pytest.param(PROXY, [("X-Forwarded-Proto", "http, WSS")], ("wss", PROXY), id="last-proto"),
        pytest.param(
            PROXY,
            [("X-Forwarded-Proto", "http"), ("X-Forwarded-Proto", "https")],
            ("wss", PROXY),
            id="last-line",
        ),
        pytest.param(PROXY, [("X-Forwarded-Proto", "gopher")], ("ws", PROXY), id="unknown-proto"),
    ],
)
def test_a_trusted_proxy_is_believed_and_nobody_else(
    remote: tuple[str, int] | None,
    headers: list[tuple[str, str]],
    expected: tuple[str, tuple[str, int] | None],
) -> None:
    assert forwarded(Headers(headers), "ws", remote, trusted=PROXIES) == expected


@pytest.mark.parametrize(
    "lines",
    [
        ['For: "x, 198.51.100.7'],
        ['For: "', "For: 198.51.100.7"],
        ['For: "a\\", 198.51.100.7'],
        ['For: "203.0.113.9, 198.51.100.7", 198.51.100.7'],
        ["For: 203.0.113.9;, 198.51.100.7"],
        ["For: , 198.51.100.7"],
        ["For: 203.0.113.9", "For: 198.51.100.7", "For: 10.0.0.9"],
        ['Forwarded: for=", for=198.51.100.7'],
        ['Forwarded: for="203.0.113.9', 'Forwarded: for="198.51.100.7";proto=http'],
        ["Forwarded: by=x;, for=198.51.100.7"],
    ],
)
def test_nothing_that_a_client_wrote_before_hides_what_a_proxy_appends(lines: list[str]) -> None:
    assert told(*lines) == ("ws", PEER)


@pytest.mark.parametrize(
    ("hop", "expected"),
    [
        ("198.51.100.7", PEER),
        (" 198.51.100.7\t", PEER),
        ("198.51.100.7:50123", ("198.51.100.7", 50123)),
        ("198.51.100.7:0", PEER),
        ("198.51.100.7:_port", PEER),
        ("2001:DB8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]", ("2001:db8::7", 0)),
        ("[2001:db8::7]:443", ("2001:db8::7", 443)),
        ("::ffff:198.51.100.7", PEER),
        ("[::ffff:198.51.100.7]:80", ("198.51.100.7", 80)),
        ("fe80::1%eth0", ("fe80::1%eth0", 0)),
        ("198.51.100.7,", PEER),
        ("198.51.100.7, ,", PEER),
    ],
)
def test_an_address_is_read_as_proxies_write_it(hop: str, expected: tuple[str, int]) -> None:
    assert told(f"For: {hop}")[1] == expected
    assert told(f"For: 203.0.113.9, {hop}")[1] == expected


@pytest.mark.parametrize(
    "hop",
    [
        "unknown",
        "_hidden",
        "unix:",
        "-",
        '""',
        '"198.51.100.7"',
        "198.51.100.7:",
        "198.51.100.7:99999",
        "198.51.100.7:-1",
        "198.51.100.7 x",
        "198.51.100",
        "198.51.100.07",
        "[198.51.100.7]",
        "[2001:db8::7",
        "[2001:db8::7]x",
        "2001:db8::7]:443",
        "fe80::1%<b>",
        "localhost",
        "\u00b2.0.0.1",
    ],
)
@pytest.mark.parametrize("before", ["", "198.51.100.7, ", "10.0.0.7, "])
def test_a_last_hop_that_is_no_address_is_nobody_and_never_the_proxy(hop: str, before: str) -> None:
    assert told(f"For: {before}{hop}")[1] is None


def test_hops_of_trusted_proxies_are_passed_over_in_any_form() -> None:
    for hops in ("10.0.0.1:80", "::ffff:10.0.0.1", "[fd00::1]:443, 10.0.0.1", "[::ffff:10.0.0.1]:1, fd00::2"):
        assert told(f"For: 203.0.113.9, 198.51.100.7, {hops}")[1] == PEER


def test_the_connection_may_come_from_a_mapped_address() -> None:
    assert told("For: 198.51.100.7", remote=("::ffff:10.1.2.3", 5))[1] == PEER
    mapped = parse_networks(["::ffff:10.0.0.0/104"])
    assert told("For: 198.51.100.7", remote=("::ffff:10.1.2.3", 5), trusted=mapped)[1] == PEER
    assert told("For: 198.51.100.7", remote=("::ffff:11.1.2.3", 5))[1] == ("::ffff:11.1.2.3", 5)


def test_http_of_a_trusted_proxy_makes_a_tls_connection_plain() -> None:
    assert told("Proto: http", scheme="wss") == ("ws", PROXY)


def test_the_scheme_is_that_between_the_client_and_the_first_proxy_where_each_tells_one() -> None:
    assert told("For: 198.51.100.7, 10.0.0.1", "Proto: https, http") == ("wss", PEER)
    assert told("For: 203.0.113.9, 198.51.100.7, 10.0.0.1", "Proto: http, https, http") == ("wss", PEER)
    assert told("For: 203.0.113.9, 198.51.100.7", "Proto: https, http, http") == ("ws", PEER)


def test_a_proxy_on_a_unix_socket_is_believed_where_unix_is_listed() -> None:
    for listed in (["unix"], ["10.0.0.0/8", "unix"], ["0.0.0.0/0", "::/0"]):
        trusted = parse_networks(listed)
        assert trusted.has_unix
        assert told("For: 198.51.100.7", "Proto: https", remote=None, trusted=trusted) == ("wss", PEER)
    for listed in ([], ["10.0.0.0/8"], ["0.0.0.0/0"], ["::/0"]):
        trusted = parse_networks(listed)
        assert not trusted.has_unix
        assert told("For: 198.51.100.7", "Proto: https", remote=None, trusted=trusted) == ("ws", None)
    assert told("For: 198.51.100.7", remote=PROXY, trusted=parse_networks(["unix"])) == ("ws", PROXY)


def test_a_hop_over_a_unix_socket_is_passed_over_where_unix_is_listed() -> None:
    trusted = parse_networks(["unix"])
    assert told("For: 198.51.100.7, unix:", remote=None, trusted=trusted)[1] == PEER
    assert told("For: unix:", remote=None, trusted=trusted)[1] is None


@pytest.mark.rule("HS-15")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=198.51.100.7", ("ws", PEER)),
        ("For=198.51.100.7;Proto=https;by=203.0.113.43", ("wss", PEER)),
        ("for=203.0.113.9, for=198.51.100.7;proto=https, for=10.0.0.1;proto=http", ("wss", PEER)),
        ('for="198.51.100.7:47011"', ("ws", ("198.51.100.7", 47011))),
        ('for="[2001:db8::7]:4711"; proto="https"', ("wss", ("2001:db8::7", 4711))),
        ('for="198.51.100.7:_gazonk"', ("ws", PEER)),
        ("for=unknown", ("ws", None)),
        ('for="_gazonk"', ("ws", None)),
        ("for=198.51.100.7, by=10.0.0.1", ("ws", None)),  # whoever came to the last proxy, it does not tell
        ("for=198.51.100.7;for=203.0.113.9", ("ws", None)),
        ("198.51.100.7", ("ws", None)),
        ("proto=https", ("wss", PROXY)),
        ("proto=gopher", ("ws", PROXY)),
        ("", ("ws", PROXY)),
    ],
)
def test_forwarded_is_read_too(value: str, expected: tuple[str, Any]) -> None:
    assert told(f"Forwarded: {value}") == expected


@pytest.mark.rule("HS-15")
def test_the_two_ways_are_not_mixed() -> None:
    both = ["For: 198.51.100.7", "Proto: https"]
    assert told(*both, "Forwarded: for=198.51.100.7;proto=https") == ("wss", PEER)
    assert told(*both, 'Forwarded: for="198.51.100.7:4711"') == ("wss", PEER)
    assert told(*both, "Forwarded: for=203.0.113.9;proto=https") == ("wss", None)
    assert told(*both, "Forwarded: for=unknown;proto=http") == ("ws", None)
    assert told("For: unknown", "Forwarded: for=_hidden") == ("ws", None)


@pytest.mark.rule("HS-6", "HS-15")
def test_hosts_that_the_client_addressed() -> None:
    def hosts(*lines: tuple[str, str], remote: Any = PROXY) -> tuple[str, ...]:
        return forwarded_hosts(lines, remote, trusted=PROXIES)

    x_host, by_forwarded = ("X-Forwarded-Host", "a.example"), ("Forwarded", 'for=198.51.100.7;host="a.example"')
    assert hosts() == ()
    assert hosts(x_host) == hosts(by_forwarded) == hosts(x_host, by_forwarded) == ("a.example",)
    assert hosts(("X-Forwarded-Host", "a.example:8443, inner"), ("x-forwarded-host", "b")) == (
        "a.example:8443",
        "inner",
        "b",
    )
    assert hosts(x_host, ("Forwarded", "host=b.example")) == ()
    assert hosts(x_host, remote=PEER) == hosts(x_host, remote=None) == ()


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize(
    ("proxies", "error"),
    [
        ("10.0.0.0/8", TypeError),
        ("unix", TypeError),
        ([1], TypeError),
        (["proxy"], ValueError),
        (["10.0.0.1/8"], ValueError),
        (["Unix"], ValueError),
        ([""], ValueError),
    ],
)
def test_trusted_proxies_are_addresses_networks_or_unix(proxies: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="trusted_proxies"):
        parse_networks(proxies)


@pytest.mark.parametrize(("trusted", "lines"), [(["127.0.0.1"], 1), (["unix"], 0), ([], 0)])
def test_networks_alone_have_no_effect_on_a_unix_socket_which_is_said(
    trusted: list[str], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    FakeConnector(Application([]), unix_path="/run/app.sock", trusted_proxies=trusted)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * lines
    assert all("add 'unix'" in record.getMessage() for record in caplog.records)
