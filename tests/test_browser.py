"""The chat example from a real browser, Chromium, on every connector; and by the handshake that Firefox sends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from tests.node import missing
from tests.processes import TIMEOUT, each_connector, running
from tests.test_examples import serving
from wsbridge.conformance.client import WirePeer

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    *(("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()),
)
CHAT = """
(url) => new Promise((resolve, reject) => {
  const heard = [];
  const socket = new WebSocket(url);
  socket.onopen = () => { for (const text of ["hello", "\\u2603".repeat(3)]) socket.send(text); };
  socket.onmessage = (event) => { if (heard.push(event.data) === 3) socket.close(4001, "enough"); };
  socket.onclose = (event) => resolve({ heard, code: event.code, clean: event.wasClean });
  setTimeout(() => reject(new Error("too slow: " + heard)), 20000);
})
"""


class Browser:
    """One page of a browser, told what to do over its debugging protocol."""

    def __init__(self, peer: WirePeer) -> None:
        self._peer = peer
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._events: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        await self._peer.send_text(json.dumps({"id": number, "method": method, "params": parameters, **session}))
        while True:
            answer: dict[str, Any] = json.loads(await self._peer.receive_text(TIMEOUT))
            self._events.append(answer.get("method", ""))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]  # type: ignore[no-any-return]

    async def event(self, name: str) -> None:
        """Wait for an event, which may have come before."""
        while name not in self._events:
            self._events.append(json.loads(await self._peer.receive_text(TIMEOUT)).get("method", ""))

    async def open(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        session = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = session["sessionId"]

    async def evaluate(self, expression: str) -> Any:
        """Return what a promise in the page resolves to."""
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]


@contextlib.asynccontextmanager
async def browser(profile: Path, *flags: str) -> AsyncGenerator[Browser]:
    if CHROMIUM is None:
        missing("a browser is needed: apt-get install chromium")
    assert CHROMIUM is not None
    async with running(CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank") as process:
        found = await process.line(r"DevTools listening on ws://127\.0\.0\.1:(\d+)(/\S+)")
        async with await WirePeer.connect(("127.0.0.1", int(found[1])), target=found[2], timeout=TIMEOUT) as peer:
            page = Browser(peer)
            await page.open()
            yield page
            page._session = None
            await page.call("Browser.close")
        await process.end()


@pytest.mark.rule("HS-1", "CLOSE-4")
@each_connector
async def test_the_chat_from_a_browser(connector: str, tmp_path: Path) -> None:
    async with serving("chat", connector) as url, browser(tmp_path) as page:
        await page.call("Page.enable")
        await page.call("Page.navigate", url=url.replace("ws://", "http://") + "/")  # 404, in the right origin
        await page.event("Page.loadEventFired")
        result = await page.evaluate(f"({CHAT})({json.dumps(url + '/chat/lobby?token=ada-token')})")
    assert result == {
        "heard": ["* ada joined", "ada: hello", "ada: \N{SNOWMAN}\N{SNOWMAN}\N{SNOWMAN}"],
        "code": 4001,
        "clean": True,
    }


@pytest.mark.rule("HS-1")
@each_connector
async def test_the_chat_by_the_handshake_of_firefox(connector: str) -> None:
    async with serving("chat", connector) as url:
        host, _, port = url.removeprefix("ws://").partition(":")
        firefox = {
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Accept": "*/*",
            "Accept-Language": "en-US,en;q=0.5",
            "Accept-Encoding": "gzip, deflate, br, zstd",
            "Sec-WebSocket-Extensions": "permessage-deflate",
            "Origin": f"http://{host}:{port}",
            "Sec-Fetch-Dest": "empty",
            "Sec-Fetch-Mode": "websocket",
            "Sec-Fetch-Site": "same-origin",
            "Pragma": "no-cache",
            "Cache-Control": "no-cache",
        }
        target = "/chat/lobby?token=ada-token"
        async with await WirePeer.connect(
            (host, int(port)),
            target=target,
            headers=tuple(firefox.items()),
            replace={"Connection": "keep-alive, Upgrade"},
            timeout=TIMEOUT,
        ) as peer:
            assert await peer.receive_text() == "* ada joined"
            await peer.send_text("hello")
            assert await peer.receive_text() == "ada: hello"
