"""What the uvicorn connector does beyond the suite: its options and implementations, and what h11 lets pass."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("wsproto")

import wsbridge
import wsbridge.connectors
from wsbridge import (
    Application,
    Compression,
    ConnectorNotInstalledError,
    Interceptor,
    Response,
    UnsupportedOptionError,
    WebSocketOptions,
    websocket_interceptor,
)
from wsbridge.conformance.client import HttpResponse, WirePeer
from wsbridge.connectors import uvicorn_wsproto
from wsbridge.connectors.uvicorn import Connector
from wsbridge.interceptor import Context

APP = Application([("/", WebSocketOptions())])
IMPLEMENTATIONS = ("websockets-sansio", "wsproto")


def entering(enter: Callable[[Context], object]) -> Interceptor:
    def entered(context: Context) -> Context:
        enter(context)
        return context

    return Interceptor(name="entering", enter=entered)


async def answered(app: Application, ws: str, head: str, **native: object) -> HttpResponse:
    """Return the answer to a request."""
    async with wsbridge.serve(app, "uvicorn", port=0, native_options={"ws": ws, **native}) as connector:
        peer = await WirePeer.open(connector.addresses[0], timeout=5)
        async with peer:
            await peer.request(f"{head}\r\nHost: a\r\n\r\n".encode("latin-1"))
            return await peer.read_response()


def handshake(*lines: str) -> str:
    """Return the head of a handshake, without its host."""
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key)
    return "\r\n".join(("GET / HTTP/1.1", *upgrade, *lines))


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("ws", ["websockets", "auto", "none", None])
def test_other_implementations_are_refused(ws: str | None) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"the uvicorn connector cannot honour .*{ws}"):
        Connector(APP, native_options={"ws": ws})


@pytest.mark.rule("LIM-5")
def test_an_implementation_is_a_class() -> None:
    assert type(Connector(APP)) is type(Connector(APP, native_options={"ws": "websockets-sansio"})) is Connector
    assert type(Connector(APP, native_options={"ws": "wsproto"})) is uvicorn_wsproto.Connector
    assert type(uvicorn_wsproto.Connector(APP)) is uvicorn_wsproto.Connector

    class Own(Connector):
        connector_api = 2

    for own, ws in ((Own, "wsproto"), (uvicorn_wsproto.Connector, "websockets-sansio")):
        with pytest.raises(UnsupportedOptionError, match=ws):
            own(APP, native_options={"ws": ws})


@pytest.mark.rule("LIM-5")
def test_wsproto_has_no_settings_of_compression() -> None:
    app = Application([("/", WebSocketOptions(compression=Compression(window_bits=10)))])
    Connector(app)
    with pytest.raises(UnsupportedOptionError, match="window_bits"):
        Connector(app, native_options={"ws": "wsproto"})
    Connector(Application([("/", WebSocketOptions(compression=True))]), native_options={"ws": "wsproto"})


@pytest.mark.rule("REG-3")
def test_wsproto_is_asked_for_by_name_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wsbridge.connectors, "uvicorn_wsproto")
    monkeypatch.delitem(sys.modules, "wsbridge.connectors.uvicorn_wsproto")
    monkeypatch.setitem(sys.modules, "wsproto", None)
    with pytest.raises(ConnectorNotInstalledError, match=r"needs wsproto .*pip install wsproto"):
        Connector(APP, native_options={"ws": "wsproto"})
    Connector(APP)


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
async def test_native_options_reach_uvicorn(ws: str) -> None:
    response = await answered(APP, ws, handshake(), server_header=True, headers=[("X-A", "1")])
    assert response.status == 101
    assert (response.header("server"), response.header("x-a")) == ("uvicorn", "1")


@pytest.mark.rule("HS-7")
@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
async def test_a_refusal_has_a_date_and_the_words_of_its_status(ws: str) -> None:
    response = await answered(APP, ws, handshake("Origin: http://elsewhere"))
    assert (response.status, response.reason, response.body) == (403, "Forbidden", b"Forbidden\n")
    assert str(response.header("date")).endswith(" GMT")
    teapot = Application([("/", [entering(lambda context: context.update(response=Response("", 599)))])])
    response = await answered(teapot, ws, handshake())
    assert (response.status, response.reason) == (599, "")  # which has none


@pytest.mark.rule("HS-8")
@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "value"), [("a(b", "c"), ("a", "b\x01"), ("", "b"), ("a", "\u20ac")])
async def test_a_header_that_cannot_be_sent_is_500(
    ws: str, name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    adding = entering(lambda context: context["websocket_channel_source"].response_headers.add(name, value))
    app = Application([("/", [adding, websocket_interceptor("echo", WebSocketOptions())])])
    assert (await answered(app, ws, handshake())).status == 500
    assert "the request for '/' failed" in caplog.text


@pytest.mark.rule("SEND-8")
@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        (
            "permessage-deflate; client_max_window_bits=10, permessage-deflate",
            "permessage-deflate; client_max_window_bits=10",
        ),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits = 8", None),
        ("x-\xe9, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; foo", None),
    ],
)
async def test_wsproto_is_told_of_one_offer_that_it_understands(offer: str, answer: str | None) -> None:
    app = Application([("/", WebSocketOptions(compression=True))])
    response = await answered(app, "wsproto", handshake(f"Sec-WebSocket-Extensions: {offer}"))
    assert (response.status, response.header("sec-websocket-extensions")) == (101, answer)


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
async def test_a_response_that_comes_after_a_refusal_is_dropped(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is no HTTP is found when the application has been asked already."""
    async with wsbridge.serve(APP, "uvicorn", port=0, native_options={"ws": ws}) as connector:
        raw = await WirePeer.open(connector.addresses[0], timeout=5)
        async with raw:
            head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
            await raw.request(head.encode())
            assert (await raw.read_response()).status == 400
    assert "Exception in ASGI application" not in caplog.text
