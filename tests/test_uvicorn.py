"""What the uvicorn connector does beyond the suite: its options and implementations, and what h11 lets pass."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("wsproto")

import wsbridge
from wsbridge import (
    Application,
    Compression,
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
from wsbridge.registry import connector_infos, load_connector

APP = Application([("/", WebSocketOptions())])
NAMES = ("uvicorn", "uvicorn-wsproto")
IMPLEMENTATIONS = {"uvicorn": "websockets-sansio", "uvicorn-wsproto": "wsproto"}


def entering(enter: Callable[[Context], object]) -> Interceptor:
    def entered(context: Context) -> Context:
        enter(context)
        return context

    return Interceptor(name="entering", enter=entered)


async def answered(app: Application, name: str, head: str, **native: object) -> HttpResponse:
    """Return the answer to a request."""
    async with wsbridge.serve(app, name, port=0, native_options=native) as connector:
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
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ws", ["websockets", "auto", "none", None])
def test_other_implementations_are_refused(name: str, ws: str | None) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"the {name} connector cannot honour .*{ws}.*: .*; see asgi_app"):
        load_connector(name)(APP, native_options={"ws": ws})


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize(("name", "other"), [NAMES, NAMES[::-1]])
def test_the_connector_of_another_implementation_is_named(name: str, other: str) -> None:
    connector = load_connector(name)
    assert type(connector(APP, native_options={"ws": IMPLEMENTATIONS[name]})) is connector
    with pytest.raises(UnsupportedOptionError, match=f"name the connector '{other}' instead"):
        connector(APP, native_options={"ws": IMPLEMENTATIONS[other]})


@pytest.mark.rule("LIM-5")
def test_wsproto_has_no_settings_of_compression() -> None:
    app = Application([("/", WebSocketOptions(compression=Compression(window_bits=10)))])
    Connector(app)
    with pytest.raises(UnsupportedOptionError, match="window_bits"):
        uvicorn_wsproto.Connector(app)
    uvicorn_wsproto.Connector(Application([("/", WebSocketOptions(compression=True))]))


@pytest.mark.rule("REG-3")
@pytest.mark.parametrize(("name", "stands_on"), [("uvicorn", "websockets"), ("uvicorn-wsproto", "wsproto")])
def test_neither_needs_what_the_other_stands_on(name: str, stands_on: str) -> None:
    code = f"""
import sys
sys.modules[{stands_on!r}] = None  # as if it were not installed
from wsbridge import load_connector
for name in {NAMES!r}:
    try:
        print(load_connector(name).name)
    except ModuleNotFoundError as exc:
        print(name, "needs", exc.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [f"{each} needs {stands_on}" if each == name else each for each in NAMES]
    assert [line.partition(".")[0] for line in done.stdout.splitlines()] == lines
    (info,) = (info for info in connector_infos() if info.name == name)
    assert [needed.name for needed in info.requirements] == ["uvicorn", stands_on]


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("name", NAMES)
async def test_native_options_reach_uvicorn(name: str) -> None:
    response = await answered(APP, name, handshake(), server_header=True, headers=[("X-A", "1")])
    assert response.status == 101
    assert (response.header("server"), response.header("x-a")) == ("uvicorn", "1")


@pytest.mark.rule("HS-7")
@pytest.mark.parametrize("name", NAMES)
async def test_a_refusal_has_a_date_and_the_words_of_its_status(name: str) -> None:
    response = await answered(APP, name, handshake("Origin: http://elsewhere"))
    assert (response.status, response.reason, response.body) == (403, "Forbidden", b"Forbidden\n")
    assert str(response.header("date")).endswith(" GMT")
    teapot = Application([("/", [entering(lambda context: context.update(response=Response("", 599)))])])
    response = await answered(teapot, name, handshake())
    assert (response.status, response.reason) == (599, "")  # which has none


@pytest.mark.rule("HS-8")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("header", "value"), [("a(b", "c"), ("a", "b\x01"), ("", "b"), ("a", "\u20ac")])
async def test_a_header_that_cannot_be_sent_is_500(
    name: str, header: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    adding = entering(lambda context: context["websocket_channel_source"].response_headers.add(header, value))
    app = Application([("/", [adding, websocket_interceptor("echo", WebSocketOptions())])])
    assert (await answered(app, name, handshake())).status == 500
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
    response = await answered(app, "uvicorn-wsproto", handshake(f"Sec-WebSocket-Extensions: {offer}"))
    assert (response.status, response.header("sec-websocket-extensions")) == (101, answer)


@pytest.mark.rule("HS-4")
@pytest.mark.parametrize("name", NAMES)
async def test_a_response_that_comes_after_a_refusal_is_dropped(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is no HTTP is found when the application has been asked already."""
    async with wsbridge.serve(APP, name, port=0) as connector:
        raw = await WirePeer.open(connector.addresses[0], timeout=5)
        async with raw:
            head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
            await raw.request(head.encode())
            assert (await raw.read_response()).status == 400
    assert "Exception in ASGI application" not in caplog.text
