"""Origins: what browsers send, what the option ``origins`` lists, and what it refuses since it would match nothing."""

from __future__ import annotations

import unicodedata

import pytest

from wsbridge import WebSocketOptions
from wsbridge._common.origins import allowed_origins, check_origin, is_nobody, is_own, parse_origin

pytestmark = pytest.mark.rule("HS-6")


def lets_in(entry: str, origin: str) -> bool:
    parsed = parse_origin(origin)
    assert parsed is not None
    return allowed_origins((entry,)).lets_in(parsed)


@pytest.mark.parametrize(
    ("origin", "parts"),
    [
        ("https://A.Example", ("https", "a.example", 443)),
        ("HTTP://a.example", ("http", "a.example", 80)),
        ("ws://a.example", ("ws", "a.example", 80)),
        ("wss://a.example:8443", ("wss", "a.example", 8443)),
        ("http://[::1]:8000", ("http", "::1", 8000)),
        ("http://[0:0:0::1]", ("http", "::1", 80)),
        ("tauri://localhost", ("tauri", "localhost", None)),
        ("app://obsidian.md:7", ("app", "obsidian.md", 7)),
        ("safari-web-extension://6AB1-C", ("safari-web-extension", "6ab1-c", None)),
    ],
)
def test_an_origin_is_split_with_its_default_port(origin: str, parts: tuple[str, str, int | None]) -> None:
    assert parse_origin(origin) == parts


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "a.example", "//a.example", "http://", "http:///", "file://", "http://a.example/", "http://a?b"),
        *("http://a#b", "http://u@a.example", "http://a.example:", "http://a.example:port", "http://a.example:65536"),
        *(
            "http://a b",
            "http://a.example http://b.example",
            "http://[::1",
            "http://[::g]",
            "http://[1:::2]",
            "http://::1",
        ),
        *("1a://b", "http://a\\b", "http://\xfc.example", "http://a.example\n"),
    ],
)
def test_what_names_no_origin(text: str) -> None:
    assert parse_origin(text) is None


def test_a_page_without_an_origin() -> None:
    assert is_nobody("null")
    assert is_nobody("file://")
    assert not is_nobody("")
    assert not is_nobody("http://null")


@pytest.mark.parametrize(
    "origin",
    [
        "http://tauri.localhost",
        "tauri://localhost",
        "capacitor://localhost",
        "ionic://localhost",
        "chrome-extension://mdplmiioglkpgkgblfdilgebpppgdlm",
        "moz-extension://3f0b7e5c-9a3c-4e8e-b0a1-0d6f0b9d8e11",
        "safari-web-extension://6AB1",
        "app://obsidian.md",
        "vscode-webview://1k2j",
        "https://a.example:8443",
        "https://under_score.example",
        "https://a.example.",
        "https://[::1]:8443",
        "http://127.0.0.1:8000",
    ],
)
def test_a_listed_origin_is_let_in_and_no_other(origin: str) -> None:
    assert lets_in(origin, origin)
    assert lets_in(origin.upper(), origin)
    parsed = parse_origin(origin)
    assert parsed is not None
    allowed = allowed_origins((origin,))
    assert not allowed.lets_in(parsed._replace(scheme=f"{parsed.scheme}x"))
    assert not allowed.lets_in(parsed._replace(host=f"x.{parsed.host}"))
    assert not allowed.lets_in(parsed._replace(host=f"{parsed.host}.x"))
    assert not allowed.lets_in(parsed._replace(port=8444))


@pytest.mark.parametrize(
    ("entry", "let_in", "refused"),
    [
        (
            "https://*.example.com",
            ["https://a.example.com", "https://a.b.Example.com", "https://a.example.com:443"],
            [
                "https://example.com",
                "https://aexample.com",
                "http://a.example.com",
                "https://a.example.com:8443",
                "https://a.example.com.evil.example",
            ],
        ),
        ("http://*.localhost:3000", ["http://app.localhost:3000"], ["http://app.localhost", "http://localhost:3000"]),
        ("tauri://*.localhost", ["tauri://a.localhost"], ["tauri://localhost", "https://a.localhost"]),
    ],
)
def test_an_asterisk_stands_for_all_subdomains(entry: str, let_in: list[str], refused: list[str]) -> None:
    assert [lets_in(entry, origin) for origin in let_in] == [True] * len(let_in)
    assert [lets_in(entry, origin) for origin in refused] == [False] * len(refused)


HOSTS = {
    "b\xfccher": "xn--bcher-kva",
    "B\xdcCHER": "xn--bcher-kva",
    "bu\u0308cher": "xn--bcher-kva",
    "stra\xdfe": "xn--strae-oqa",  # not strasse, as in IDNA 2003
    "STRA\u1e9eE": "xn--strae-oqa",
    "\u03b2\u03cc\u03bb\u03bf\u03c2": "xn--nxasmm1c",
    "\u65e5\u672c\u8a9e": "xn--wgv71a119e",
    "\uff45xample": "example",
    "a\xad\xfc": "xn--a-eha",
    "\u2615": "xn--53h",  # browsers take emoji
    "\u2615\ufe0f": "xn--53h",
}


@pytest.mark.parametrize(("host", "encoded"), HOSTS.items(), ids=ascii)
def test_a_host_is_encoded_as_browsers_do_it(host: str, encoded: str) -> None:
    assert lets_in(f"https://{host}.example", f"https://{encoded}.example")
    assert lets_in(f"https://{host}\u3002example", f"https://{encoded}.example")
    assert lets_in(f"https://*.{host}.example:8443", f"https://a.{encoded}.example:8443")


def test_letters_are_mapped_as_uts_46_does() -> None:
    idna = pytest.importorskip("idna")
    seen = 0
    for letter in map(chr, (*range(0x80, 0x590), *range(0x1E00, 0x2000), *range(0xFF01, 0xFF5F))):
        if unicodedata.category(letter) in ("Cn", "Cc") or not letter.isalpha():
            continue
        try:
            expected = idna.encode(f"a{letter}z", uts46=True, transitional=False).decode()
        except idna.IDNAError:
            continue
        seen += 1
        assert check_origin(f"https://a{letter}z")[0].host == expected
    assert seen > 1000


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize(
    ("entry", "right"),
    [
        ("a.example", "write 'https://a.example'"),
        ("*.a.example", "write 'https://*.a.example'"),
        ("*://a.example", "write 'https://a.example'"),
        ("https://a.example/", "write 'https://a.example'"),
        ("https://a.example:8443/path?q", "write 'https://a.example:8443'"),
        ("https://user@a.example", "write 'https://a.example'"),
        ("https://a.example:", "write 'https://a.example'"),
        ("https://.a.example", "write 'https://*.a.example'"),
        ("https://*", "write '*'"),
        ("https://**.a.example", "write 'https://*.a.example'"),
        ("http://localhost:*", "each port is to be listed by itself"),
        ("wss://a.example:8443", "write 'https://a.example:8443'"),
        ("ws://a.example", "write 'http://a.example'"),
        ("null", "write '*'"),
        ("file:///index.html", "write '*'"),
        ("https://a.*.example", "as the first label"),
        ("https://a*.example", "as the first label"),
        ("https://*.*.example", "as the first label"),
        ("chrome-extension://*", "as the first label"),
        ("https://a.example:70000", "'70000' is no port from 1 to 65535"),
        ("https://a.example:0", "'0' is no port from 1 to 65535"),
        ("https://a.example:port", "'port' is no port"),
        ("https://", "it has no host"),
        ("https://:8443", "it has no host"),
        ("https://a..example", "a label of its host is empty"),
        ("https://*.", "a label of its host is empty"),
        ("https://a%2fb.example", "no host has '%'"),
        ("https://a\u2100b.example", "no host has '/'"),
        ("chrome-extension://\xfc", "no host of chrome-extension:// has '\xfc'"),
        ("http://127.1", "127.1 is no address"),
        ("http://0x7f000001", "0x7f000001 is no address"),
        ("http://[::1", "is no address"),
        ("http://[::g]", "is no address"),
        ("http://*.127.0.0.1", "an address has no subdomains"),
        ("http://*.[::1]", "an address has no subdomains"),
        (" https://a.example", "an origin has no blanks"),
        ("https://a example", "an origin has no blanks"),
        ("1https://a.example", "'1https' is no scheme"),
        ("", "it has no scheme"),
    ],
)
def test_what_would_match_nothing_is_refused_with_what_would_be_right(entry: str, right: str) -> None:
    with pytest.raises(ValueError, match=r"^origins: ") as raised:
        WebSocketOptions(origins=["https://ok.example", entry])
    assert repr(entry) in str(raised.value)
    assert right in str(raised.value)


@pytest.mark.parametrize(
    ("origin", "scheme", "host", "own"),
    [
        ("https://a.example", "ws", "a.example", True),
        ("http://a.example", "wss", "a.example:443", True),
        ("http://a.example", "wss", "a.example:8443", False),
        ("http://[::1]:8000", "ws", "[0::1]:8000", True),
        ("http://a.example", "ws", "a.example, b", False),
        ("http://a.example", "ws", "", False),
        ("app://a.example:80", "ws", "a.example", False),
    ],
)
def test_its_own(origin: str, scheme: str, host: str, own: bool) -> None:
    parsed = parse_origin(origin)
    assert parsed is not None
    assert is_own(parsed, scheme, host) is own
