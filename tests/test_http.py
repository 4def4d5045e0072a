"""`Request` and `Response`: the facts of a handshake, from what stood on the wire."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from wsbridge import Request, Response
from wsbridge.http import check_headers, content_of, plain_response

pytestmark = pytest.mark.rule("HS-2")


def request(target: str = "/", headers: list[tuple[str, str]] | None = None, **options: Any) -> Request:
    return Request("GET", target, headers=headers or [], **options)


def test_a_request_tells_what_stood_on_the_wire() -> None:
    native = object()
    made = Request(
        "GET",
        "/a%20b?x=1&y=2&x=3",
        headers=[("Host", "example.org:8000"), ("Cookie", "a=1; b=2"), ("Sec-WebSocket-Protocol", "v1, v2")],
        scheme="wss",
        http_version="1.0",
        remote_address=("192.0.2.1", 50000),
        native=native,
    )
    assert made.method == "GET"
    assert made.path == "/a b"
    assert made.raw_path == "/a%20b"
    assert made.root_path == ""
    assert made.path_params == {}
    assert made.query_string == b"x=1&y=2&x=3"
    assert made.args.to_dict(flat=False) == {"x": ["1", "3"], "y": ["2"]}
    assert dict(made.cookies) == {"a": "1", "b": "2"}
    assert made.scheme == "wss"
    assert made.host == "example.org:8000"
    assert made.http_version == "1.0"
    assert made.remote_address == ("192.0.2.1", 50000)
    assert made.remote_addr == "192.0.2.1"
    assert made.subprotocols == ("v1", "v2")
    assert made.native is native


def test_a_request_over_a_unix_socket_has_no_remote_address() -> None:
    made = request()
    assert (made.remote_address, made.remote_addr, made.scheme, made.native) == (None, None, "ws", None)


def test_a_method_keeps_its_case() -> None:
    assert Request("get", "/", headers=[]).method == "get"


@pytest.mark.parametrize(
    ("target", "path", "raw_path"),
    [
        ("/", "/", "/"),
        ("/a/b", "/a/b", "/a/b"),
        ("/gr%C3%BC%C3%9Fe", "/gr\u00fc\u00dfe", "/gr%C3%BC%C3%9Fe"),
        ("/gr\u00c3\u00bc\u00c3\u009fe", "/gr\u00fc\u00dfe", "/gr\u00c3\u00bc\u00c3\u009fe"),  # UTF-8 sent as it is
        ("/%ff%C3", "/\ufffd\ufffd", "/%ff%C3"),
        ("/\u00ff", "/\ufffd", "/\u00ff"),
        ("/a%2Fb", "/a/b", "/a%2Fb"),
        ("/a%252Fb", "/a%2Fb", "/a%252Fb"),
        ("/a+b%2B", "/a+b+", "/a+b%2B"),
        ("/a%", "/a%", "/a%"),
        ("/a%zz", "/a%zz", "/a%zz"),
        ("/%00", "/\0", "/%00"),
        ("//a", "//a", "//a"),
        ("//", "//", "//"),
        ("/a/", "/a/", "/a/"),
        ("/a;b=c", "/a;b=c", "/a;b=c"),
        ("/a/../b", "/a/../b", "/a/../b"),
        ("", "/", ""),
        ("*", "*", "*"),
        ("http://example.org/a%20b?q", "/a b", "/a%20b"),
        ("http://example.org?q", "/", "/"),
        ("http://example.org", "/", "/"),
        ("http://example.org/?u=http://other/x", "/", "/"),
    ],
)
def test_a_path_is_decoded_as_utf_8_and_kept_as_sent(target: str, path: str, raw_path: str) -> None:
    made = request(target)
    assert (made.path, made.raw_path) == (path, raw_path)


@pytest.mark.parametrize(
    ("target", "raw", "parsed"),
    [
        ("/", b"", []),
        ("/?", b"", []),
        ("/?a=1&a=2&b=", b"a=1&a=2&b=", [("a", "1"), ("a", "2"), ("b", "")]),
        ("/?a", b"a", [("a", "")]),
        ("/?a=%C3%BC&b=%ff", b"a=%C3%BC&b=%ff", [("a", "\u00fc"), ("b", "\ufffd")]),
        ("/?a=\u00c3\u00bc&b=\u00ff", b"a=\xc3\xbc&b=\xff", [("a", "\u00fc"), ("b", "\ufffd")]),
        ("/?a=b+c&d=e%2Bf", b"a=b+c&d=e%2Bf", [("a", "b c"), ("d", "e+f")]),
        ("/?a=1?b=2", b"a=1?b=2", [("a", "1?b=2")]),
        ("http://example.org?a=1", b"a=1", [("a", "1")]),
    ],
)
def test_a_query_is_there_raw_and_parsed(target: str, raw: bytes, parsed: list[tuple[str, str]]) -> None:
    made = request(target)
    assert made.query_string == raw
    assert list(made.args.items(multi=True)) == parsed
    assert made.args is made.args


def test_headers_have_no_case_and_keep_their_values() -> None:
    made = request(headers=[("X-One", "1"), ("x-one", "2"), ("X-Latin", "\u00e9\u00ff")])
    assert made.headers["X-ONE"] == "1"
    assert made.headers.getlist("X-One") == ["1", "2"]
    assert made.headers["x-latin"] == "\u00e9\u00ff"
    assert list(made.headers) == [("X-One", "1"), ("x-one", "2"), ("X-Latin", "\u00e9\u00ff")]


@pytest.mark.parametrize(
    ("lines", "offered"),
    [
        ([], ()),
        ([""], ()),
        (["a"], ("a",)),
        (["b, a", " c ,,d"], ("b", "a", "c", "d")),
        ([",", " "], ()),
    ],
)
def test_subprotocols_are_those_of_all_lines_in_order(lines: list[str], offered: tuple[str, ...]) -> None:
    made = request(headers=[("Sec-WebSocket-Protocol", line) for line in lines])
    assert made.subprotocols == offered


@pytest.mark.rule("MOUNT-1")
@pytest.mark.parametrize(
    ("target", "root_path", "path"),
    [
        ("/mounted/a%20b", "/mounted", "/a b"),
        ("/mounted", "/mounted", "/"),
        ("/mounted/", "/mounted", "/"),
        ("/a%20b/c", "/a b", "/c"),
        ("/elsewhere", "/mounted", "/elsewhere"),
        ("/mountedness", "/mounted", "/mountedness"),
        ("/a", "", "/a"),
    ],
)
def test_a_path_is_that_below_the_mount(target: str, root_path: str, path: str) -> None:
    made = request(target, root_path=root_path)
    assert (made.path, made.raw_path, made.root_path) == (path, target, root_path)


@pytest.mark.parametrize("asked", [False, True])
def test_a_client_certificate_is_told_where_one_was_asked_for(asked: bool) -> None:
    trustme: Any = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("server.example").configure_cert(server)
    authority.issue_cert("client.example", common_name="a client").configure_cert(client)
    authority.configure_trust(server)
    authority.configure_trust(client)
    server.verify_mode = ssl.CERT_REQUIRED if asked else ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server, server_hostname="server.example")
    for side in (other, tls) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()

    certificate = request(scheme="wss", tls=tls).client_certificate

    if asked:
        assert certificate is not None
        assert (("commonName", "a client"),) in certificate["subject"]
    else:
        assert certificate is None


def test_a_frameworks_path_parameters_are_copied() -> None:
    given = {"room": "7"}
    made = request(path_params=given)
    made.path_params["user"] = "ada"
    assert given == {"room": "7"}


# ---- responses ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-7")
def test_a_response_has_a_status_headers_and_a_body() -> None:
    response = Response("gr\u00fc\u00dfe", 418, [("X-A", "1"), ("X-A", "2")])
    assert (response.status_code, response.body) == (418, "gr\u00fc\u00dfe".encode())
    assert response.headers.getlist("X-A") == ["1", "2"]
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.rule("HS-7")
def test_a_response_is_empty_by_default_and_takes_bytes_and_a_content_type() -> None:
    assert (Response().status_code, Response().body) == (200, b"")
    response = Response(b"\xff", headers={"X-A": ["1", "2"]}, content_type="application/octet-stream")
    assert (response.body, response.headers["Content-Type"]) == (b"\xff", "application/octet-stream")
    assert response.headers.getlist("X-A") == ["1", "2"]


@pytest.mark.rule("HS-7")
@pytest.mark.parametrize("status", [99, 101, 199, 600, -1])
def test_a_status_that_ends_no_request_is_a_value_error(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        Response("", status)


@pytest.mark.rule("HS-7")
@pytest.mark.parametrize("body", [None, 3, ["a"], bytearray(b"a")])
def test_a_body_of_another_type_is_a_type_error(body: Any) -> None:
    with pytest.raises(TypeError, match="body"):
        Response(body)


@pytest.mark.rule("HS-7")
@pytest.mark.parametrize(
    ("status", "method", "length", "content"),
    [
        (200, "GET", 4, b"body"),
        (200, "HEAD", 4, b""),
        (200, "head", 4, b"body"),  # methods have a case
        (404, "POST", 4, b"body"),
        (204, "GET", None, b""),
        (204, "HEAD", None, b""),
        (304, "GET", None, b""),
        (103, "GET", None, b""),
    ],
)
def test_what_of_an_answer_follows_its_head(status: int, method: str, length: int | None, content: bytes) -> None:
    response = Response("body")
    response.status_code = status  # which may be any by now
    assert content_of(response, method) == (length, content)
    assert content_of(Response(), "GET") == (0, b"")


def test_a_plain_response_says_no_more_than_its_status() -> None:
    response = plain_response(503, {"Retry-After": "1"})
    assert (response.status_code, response.body, response.headers["Retry-After"]) == (
        503,
        b"Service Unavailable\n",
        "1",
    )


@pytest.mark.rule("HS-7", "HS-8")
@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("", "v", "'' cannot be sent: names have"),
        ("X Y", "v", "'X Y' cannot be sent: names have"),
        ("X:", "v", "'X:' cannot be sent: names have"),
        ("X\u00e9", "v", "cannot be sent: names have"),
        ("X", "a\0b", r"'X' cannot be sent: no value may have '\\x00'"),
        ("X", "\u20ac", "'X' cannot be sent: no value may have '\u20ac'"),
    ],
)
def test_a_header_that_cannot_be_sent_as_it_is_is_named(name: str, value: str, wrong: str) -> None:
    check_headers(Headers([("X-Fine", "any \u00e9 value\t!"), ("X-Fine", "")]))
    with pytest.raises(ValueError, match=wrong):
        check_headers(Headers([("X-Fine", "v"), (name, value)]))
