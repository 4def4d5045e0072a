"""What the uvicorn connector does beyond the suite: its options, and what h11 lets pass."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn")

import wsbridge
from wsbridge import Application, UnsupportedOptionError, WebSocketOptions
from wsbridge.conformance import wire
from wsbridge.connectors.uvicorn import Connector

APP = Application([("/", WebSocketOptions())])


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("ws", ["wsproto", "websockets", "auto", "none"])
def test_other_implementations_are_refused(ws: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"the uvicorn connector cannot honour .*{ws}"):
        Connector(APP, native_options={"ws": ws})


@pytest.mark.rule("LIM-5")
async def test_native_options_reach_uvicorn() -> None:
    native = {"ws": "websockets-sansio", "server_header": True, "headers": [("X-A", "1")]}
    async with (
        wsbridge.serve(APP, "uvicorn", port=0, native_options=native) as connector,
        await wire.Peer.connect(connector.addresses[0], target="/") as peer,
    ):
        assert peer.response is not None
        headers = {name.lower(): value for name, value in peer.response.headers}
        assert (headers["server"], headers["x-a"]) == ("uvicorn", "1")


@pytest.mark.rule("HS-4")
async def test_a_response_that_comes_after_a_refusal_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """A body that is no HTTP is found when the application has been asked already."""
    async with wsbridge.serve(APP, "uvicorn", port=0) as connector:
        raw = await wire.Peer.open(connector.addresses[0], timeout=5)
        async with raw:
            head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
            await raw.request(head.encode())
            assert (await raw.read_response()).status == 400
    assert "Exception in ASGI application" not in caplog.text
