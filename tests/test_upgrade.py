"""`upgrade_request_to_websocket`: which requests become channels, and what the others are answered with."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.datastructures import Headers

from tests.fakes import HANDSHAKE
from wsbridge import (
    Context,
    InitializeWebSocket,
    Interceptor,
    Request,
    Response,
    UpgradeError,
    WebSocketOptions,
    upgrade_request_to_websocket,
    websocket_interceptor,
)
from wsbridge.upgrade import is_allowed_origin, negotiate_subprotocol

KEY = HANDSHAKE["Sec-WebSocket-Key"]
OPTIONS: WebSocketOptions[None] = WebSocketOptions()


class Source:
    """A source as a connector puts it into the context, which makes a word of each channel."""

    def __init__(self) -> None:
        self.response_headers = Headers()
        self.calls: list[tuple[Context, WebSocketOptions[Any]]] = []

    def initialize_websocket(self, context: Context, options: WebSocketOptions[Any]) -> Context:
        self.calls.append((context, options))
        return {**context, "websocket_channel": "channel"}


def request(
    method: str = "GET", *, version: str = "1.1", scheme: str = "ws", **changes: str | list[str] | None
) -> Request:
    """Return a handshake with some headers changed: ``Sec_WebSocket_Key=None`` leaves one out, a list repeats it."""
    headers: dict[str, str | list[str] | None] = {**HANDSHAKE}
    headers.update({name.replace("_", "-"): value for name, value in changes.items()})
    lines: list[tuple[str, str]] = []
    for name, value in headers.items():
        lines += [(name, line) for line in ([value] if isinstance(value, str) else value or ())]
    return Request(method, "/", headers=lines, http_version=version, scheme=scheme)


def upgrade(made: Request, options: WebSocketOptions[Any] = OPTIONS) -> Context:
    context: Context = {
        "request": made,
        "response": None,
        "websocket_channel_source": Source(),
        "websocket_channel": None,
    }
    return upgrade_request_to_websocket(context, options)


def refusal(made: Request, options: WebSocketOptions[Any] = OPTIONS) -> Response:
    context = upgrade(made, options)
    assert context["websocket_channel"] is None
    assert context["websocket_channel_source"].calls == []
    response = context["response"]
    assert isinstance(response, Response)
    return response


@pytest.mark.rule("CTX-3")
def test_a_handshake_is_handed_to_the_source() -> None:
    source = Source()
    assert isinstance(source, InitializeWebSocket)
    context: Context = {"request": request(), "websocket_channel_source": source}
    upgraded = upgrade_request_to_websocket(context, OPTIONS)
    assert upgraded == {**context, "websocket_channel": "channel"}
    assert source.calls == [(context, OPTIONS)]


@pytest.mark.rule("CTX-3")
def test_a_refused_request_comes_back_with_a_response() -> None:
    context: Context = {"request": request("POST"), "websocket_channel_source": Source()}
    assert upgrade_request_to_websocket(context, OPTIONS) is context
    assert context["response"].status_code == 405


@pytest.mark.rule("CTX-4")
@pytest.mark.parametrize("context", [{}, {"websocket_channel_source": None}])
def test_without_a_source_it_raises(context: Context) -> None:
    with pytest.raises(UpgradeError, match="websocket_channel_source"):
        upgrade_request_to_websocket({"request": request(), **context}, OPTIONS)


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("options", [None, {}, {"on_text": print}])
def test_options_of_another_type_are_a_type_error(options: Any) -> None:
    with pytest.raises(TypeError, match="WebSocketOptions"):
        upgrade(request(), options)
    with pytest.raises(TypeError, match="WebSocketOptions"):
        websocket_interceptor("name", options)


@pytest.mark.rule("CTX-5")
def test_the_interceptor_is_that_call() -> None:
    interceptor = websocket_interceptor("echo", OPTIONS)
    assert isinstance(interceptor, Interceptor)
    assert (interceptor.name, interceptor.leave, interceptor.error) == ("echo", None, None)
    assert interceptor.enter is not None
    source = Source()
    context: Context = {"request": request(), "websocket_channel_source": source}
    assert interceptor.enter(context) == {**context, "websocket_channel": "channel"}
    assert source.calls == [(context, OPTIONS)]


# ---- HS-4 ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-1", "HS-4")
@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": ["keep-alive", "upgrade"]},
        {"Connection": "UPGRADE ,x"},
        {"Upgrade": "h2c, WebSocket"},
        {"Upgrade": ["h2c", "WEBSOCKET"]},
        {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"Sec_WebSocket_Key": "////////////////////+/=="},
    ],
)
def test_a_valid_handshake_is_upgraded(changes: dict[str, Any]) -> None:
    assert upgrade(request(**changes))["websocket_channel"] == "channel"


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "get"])
def test_another_method_is_405(method: str) -> None:
    response = refusal(request(method))
    assert (response.status_code, response.headers["Allow"]) == (405, "GET")


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize("version", ["1.0", "0.9", "2.0", "4"])
def test_another_version_of_http_is_refused(version: str) -> None:
    assert refusal(request(version=version)).status_code == 505


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": None},
        {"Connection": None},
        {"Upgrade": "websockets"},
        {"Upgrade": "web socket"},
        {"Connection": "keep-alive"},
        {"Connection": "Upgraded"},
        {"Upgrade": None, "Connection": None, "Sec_WebSocket_Version": None},
    ],
)
def test_no_upgrade_is_426_and_tells_how(changes: dict[str, Any]) -> None:
    response = refusal(request(**changes))
    assert response.status_code == 426
    assert (response.headers["Upgrade"], response.headers["Connection"]) == ("websocket", "Upgrade")
    assert "Sec-WebSocket-Version" not in response.headers


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize("version", [None, "", "8", "12", "14", "013", "13, 8", ["13", "13"], ["13", "8"], "13.0"])
def test_another_version_is_426_and_tells_which(version: Any) -> None:
    response = refusal(request(Sec_WebSocket_Version=version))
    assert response.status_code == 426
    assert response.headers["Sec-WebSocket-Version"] == "13"
    assert (response.headers["Upgrade"], response.headers["Connection"]) == ("websocket", "Upgrade")


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "short",
        [KEY, KEY],
        KEY + "=",
        KEY[:-2],
        KEY[:-1],
        "dGhlIHNhbXBsZSBub25jZTE=",  # 17 bytes
        "dGhlIHNhbXBsZSBub25j",  # 15 bytes
        "dGhlIHNhbXBsZSBub25jZ!==",
        "dGhlIHNhbXBs-SBub25jZQ==",
        "d\u00e9hlIHNhbXBsZSBub25jZQ==",
        "====" * 6,
        "dGhlIHNhbXBsZSB=b25jZQ==",
    ],
)
def test_a_key_that_is_no_16_bytes_in_base64_is_400(key: Any) -> None:
    assert refusal(request(Sec_WebSocket_Key=key)).status_code == 400


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize("host", [None, "", ["example.org", "example.org"]])
def test_a_host_that_is_missing_or_repeated_is_400(host: Any) -> None:
    assert refusal(request(Host=host)).status_code == 400


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize(
    "headers", [{"Content_Length": "5"}, {"Content_Length": ["0", "5"]}, {"Transfer_Encoding": "chunked"}]
)
def test_a_request_with_a_body_is_400(headers: dict[str, Any]) -> None:
    assert refusal(request(**headers)).status_code == 400


@pytest.mark.rule("HS-4")
def test_an_empty_body_is_none() -> None:
    assert upgrade(request(Content_Length="0"))["websocket_channel"] == "channel"


@pytest.mark.rule("HS-4")
def test_the_first_check_that_fails_decides() -> None:
    broken: dict[str, Any] = {
        "method": "POST",
        "version": "1.0",
        "Upgrade": None,
        "Sec_WebSocket_Version": "8",
        "Sec_WebSocket_Key": None,
        "Origin": "https://evil.example",
    }
    seen: list[int] = []
    while broken:
        seen.append(refusal(request(**broken)).status_code)
        del broken[next(iter(broken))]
    assert seen == [405, 505, 426, 426, 400, 403]
    assert refusal(request(Host=None, Origin="https://evil.example")).status_code == 400


# ---- HS-19 --------------------------------------------------------------------------------------------------------


def over_http2(method: str = "CONNECT", *, version: str = "2", **changes: str | list[str] | None) -> Request:
    """Return a handshake as it comes on a stream of HTTP/2 or 3, with some headers changed."""
    return request(
        method, version=version, scheme="wss", Upgrade=None, Connection=None, Sec_WebSocket_Key=None, **changes
    )


@pytest.mark.rule("HS-19")
@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("changes", [{}, {"Origin": "https://example.org"}, {"Content_Length": "0"}])
def test_over_http2_and_3_there_is_no_upgrade_and_no_key(version: str, changes: dict[str, Any]) -> None:
    assert upgrade(over_http2(version=version, **changes))["websocket_channel"] == "channel"


@pytest.mark.rule("HS-19")
@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "connect"])
def test_over_http2_and_3_another_method_is_405(method: str, version: str) -> None:
    response = refusal(over_http2(method, version=version))
    assert (response.status_code, response.headers["Allow"]) == (405, "CONNECT")


@pytest.mark.rule("HS-19")
@pytest.mark.parametrize("version", [None, "", "8", "013", "13, 8", ["13", "13"]])
def test_over_http2_another_version_is_400_and_tells_which(version: Any) -> None:
    response = refusal(over_http2(Sec_WebSocket_Version=version))
    assert (response.status_code, response.headers["Sec-WebSocket-Version"]) == (400, "13")
    assert not {"upgrade", "connection"} & {name.lower() for name, _ in response.headers}


@pytest.mark.rule("HS-6", "HS-19")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Host": None}, 400),
        ({"Host": ["example.org", "example.org"]}, 400),
        ({"Content_Length": "5"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example", "Sec_WebSocket_Version": "8"}, 400),
    ],
)
def test_over_http2_the_other_checks_are_the_same(changes: dict[str, Any], status: int) -> None:
    assert refusal(over_http2(**changes)).status_code == status


# ---- HS-3 ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-3")
@pytest.mark.parametrize(
    ("ours", "offered", "agreed"),
    [
        ((), None, None),
        ((), "a", None),
        (("a", "b"), None, None),
        (("a", "b"), "c", None),
        (("a", "b"), "b", "b"),
        (("a", "b"), "b, a", "a"),
        (("a", "b"), ["c, b", "a"], "a"),
        (("a",), "A", None),
    ],
)
def test_the_first_of_ours_that_is_offered_is_agreed_on(
    ours: tuple[str, ...], offered: Any, agreed: str | None
) -> None:
    options: WebSocketOptions[None] = WebSocketOptions(subprotocols=ours)
    assert negotiate_subprotocol(options, request(Sec_WebSocket_Protocol=offered)) == agreed


# ---- HS-6 ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("HS-6")
@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        (None, "example.org", "ws", ()),
        ("http://example.org", "example.org", "ws", ()),
        ("HTTP://EXAMPLE.org", "example.ORG", "ws", ()),
        ("http://example.org:80", "example.org", "ws", ()),
        ("http://example.org", "example.org:80", "ws", ()),
        ("http://example.org:8000", "example.org:8000", "ws", ()),
        ("https://example.org", "example.org", "wss", ()),
        ("https://example.org", "example.org:443", "wss", ()),
        ("https://example.org", "example.org", "ws", ()),  # TLS ends at a proxy in front
        ("http://[::1]:8000", "[::1]:8000", "ws", ()),
        ("https://a.example", "example.org", "ws", ("https://a.example",)),
        ("https://A.example:443", "example.org", "ws", ("https://a.EXAMPLE",)),
        ("https://a.example", "example.org", "ws", ("http://b.example", "https://a.example:443")),
        ("app://local:1", "example.org", "ws", ("app://local:1",)),
        ("https://a.example", "example.org", "ws", ("*",)),
        ("null", "example.org", "ws", ("*",)),
        ("file://", "example.org", "ws", ("*",)),
        ("tauri://localhost", "example.org", "ws", ("*",)),
    ],
)
def test_an_origin_that_is_let_in(origin: str | None, host: str, scheme: str, allowed: tuple[str, ...]) -> None:
    options: WebSocketOptions[None] = WebSocketOptions(origins=allowed)
    assert upgrade(request(Host=host, scheme=scheme, Origin=origin), options)["websocket_channel"] == "channel"


@pytest.mark.rule("HS-6")
@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://evil.example", "example.org", ()),
        ("http://example.org.evil.example", "example.org", ()),
        ("http://sub.example.org", "example.org", ()),
        ("http://example.org:8000", "example.org", ()),
        ("http://example.org", "example.org:8000", ()),
        ("https://example.org:8443", "example.org", ()),
        ("ftp://example.org", "example.org", ()),
        ("null", "example.org", ()),
        ("", "example.org", ("*",)),
        ("example.org", "example.org", ("*",)),
        ("http://example.org/", "example.org", ()),
        ("http://user@example.org", "example.org", ()),
        ("http://example.org:port", "example.org", ("*",)),
        (["http://example.org", "http://example.org"], "example.org", ()),
        (["http://example.org", "http://example.org"], "example.org", ("*",)),
        ("http://a.example", "example.org", ("https://a.example",)),
        ("https://a.example:8443", "example.org", ("https://a.example",)),
        ("https://evil.example", "[::1", ()),
    ],
)
def test_an_origin_that_is_not_let_in(origin: Any, host: str, allowed: tuple[str, ...]) -> None:
    options: WebSocketOptions[None] = WebSocketOptions(origins=allowed)
    assert refusal(request(Host=host, Origin=origin), options).status_code == 403


@pytest.mark.rule("HS-6")
@pytest.mark.parametrize("origin", ["app://example.org", "app://example.org:80", "chrome-extension://example.org"])
def test_an_origin_of_another_scheme_than_the_webs_is_none_of_ours(origin: str) -> None:
    assert not is_allowed_origin(request(Origin=origin), ())


@pytest.mark.rule("HS-6")
def test_a_host_that_a_trusted_proxy_tells_is_ours_beside_the_requests_own() -> None:
    made = request(Host="127.0.0.1:8000", Origin="https://app.example")
    assert not is_allowed_origin(made, ())
    made.forwarded_hosts = ("inner.example", "app.example")
    assert is_allowed_origin(made, ())
    assert is_allowed_origin(request(Host="127.0.0.1:8000", Origin="http://127.0.0.1:8000"), ())
