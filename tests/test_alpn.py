"""HTTP/2 that a client selects by ALPN on a connector, which speaks HTTP/1.1 alone (HS-18)."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.processes import TIMEOUT, each_connector
from wsbridge import Application, Interceptor, Response, WebSocketOptions, serve
from wsbridge.connector import alpn

pytestmark = pytest.mark.slow


class Transport(asyncio.Transport):
    """Keeps what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.calls.append(type(protocol).__name__)

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def is_closing(self) -> bool:
        return "close" in self.calls

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


@pytest.mark.rule("HS-18")
def test_the_answer_is_read_as_what_it_means() -> None:
    h2 = pytest.importorskip("h2.connection")
    client = h2.H2Connection()
    client.initiate_connection()
    events = client.receive_data(alpn.REFUSAL)
    (end,) = (event for event in events if type(event).__name__ == "ConnectionTerminated")
    assert (end.error_code.name, end.last_stream_id) == ("HTTP_1_1_REQUIRED", 0)
    assert type(events[0]).__name__ == "RemoteSettingsChanged"


@pytest.mark.rule("HS-18")
def test_a_client_has_time_to_leave_by_itself_and_no_more() -> None:
    transport, ended = Transport(), list[Any]()
    refusal = alpn.Refusal(transport, ended.append)
    assert transport.calls == ["Refusal", alpn.REFUSAL]
    refusal.data_received(b"GET")
    assert refusal.tick(5.0) == 5.0 + alpn.GRACE
    assert refusal.tick(6.0) is None
    assert transport.calls[2:] == ["close", "abort"]
    assert ended == []
    refusal.connection_lost(None)
    assert ended == [refusal]


@pytest.mark.rule("HS-18")
def test_a_connection_without_tls_has_selected_nothing() -> None:
    assert not alpn.has_selected_http2(None)


async def on_text(channel: Any, process: Any, text: str) -> None:
    await channel.send_text(text)


def page(context: Any) -> Any:
    if "Upgrade" not in context["request"].headers:
        context["response"] = Response("<title>page</title>", content_type="text/html")
    return context


SAY = """
(url) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = (event) => { resolve(event.data); socket.close(); };
  socket.onerror = () => reject(new Error("it did not open"));
})
"""


@pytest.mark.rule("HS-18")
@each_connector
async def test_a_browser_comes_again_with_http_1_1(
    connector: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trustme = pytest.importorskip("trustme")
    pytest.importorskip("wsproto")  # for the client that talks to the browser
    from tests.test_browser import browser

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    app = Application([("/ws", WebSocketOptions(on_text=on_text))], interceptors=[Interceptor(name="page", enter=page)])
    async with (
        serve(app, connector, ssl=context) as server,
        browser(tmp_path, "--ignore-certificate-errors") as tab,
        asyncio.timeout(2 * TIMEOUT),
    ):
        port = server.addresses[0][1]
        await tab.call("Page.enable")
        await tab.call("Page.navigate", url=f"https://127.0.0.1:{port}/")
        await tab.event("Page.loadEventFired")
        assert await tab.evaluate("(async () => document.title)()") == "page"
        assert await tab.evaluate(f"({SAY})({json.dumps(f'wss://127.0.0.1:{port}/ws')})") == "hello"
    (record,) = (record for record in caplog.records if record.levelname == "WARNING" and record.name == "wsbridge")
    assert connector in record.getMessage()
