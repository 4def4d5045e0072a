"""The line that a refused handshake leaves: why, escaped, cut, and not as often as a peer likes (HS-14)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.fakes import HANDSHAKE, FakeConnector
from wsbridge import Application, Context, Interceptor, Request, Response, WebSocketOptions
from wsbridge._common.logs import shown
from wsbridge.refusal import Refusal, RefusalLog

pytestmark = pytest.mark.rule("HS-14")


def handshake(path: str = "/", method: str = "GET", **changes: str | None) -> Request:
    headers = HANDSHAKE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [(name, value) for name, value in headers.items() if value is not None]
    return Request(method, path, headers=lines, remote_address=("192.0.2.1", 5))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, which must be at INFO and without a traceback, and forget it."""
    assert all((r.name, r.levelname, r.exc_info) == ("wsbridge", "INFO", None) for r in caplog.records)
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (
            handshake(Origin="http://localhost:3000", Host="localhost:8000"),
            "refused with 403 the handshake for '/': its origin is 'http://localhost:3000', which is neither the "
            "request's own, 'http://localhost:8000', nor listed in origins",
        ),
        (
            handshake(Upgrade=None),
            "refused with 426 the handshake for '/': it asks for no upgrade to a WebSocket; "
            "a proxy on its way has to pass on Upgrade and Connection",
        ),
        (
            handshake(Sec_WebSocket_Version="8"),
            "refused with 426 the handshake for '/': its Sec-WebSocket-Version is '8', not 13",
        ),
        (
            handshake(Sec_WebSocket_Key=None),
            "refused with 400 the handshake for '/': "
            "its Sec-WebSocket-Key is missing, repeated or not the base64 of 16 bytes",
        ),
        (handshake(Host=None), "refused with 400 the handshake for '/': its Host is missing"),
        (handshake(Content_Length="5"), "refused with 400 the handshake for '/': it has a body"),
        (handshake(method="POST"), "refused with 405 the handshake for '/': its method is 'POST', not GET"),
        (handshake("/no"), "refused with 404 the handshake for '/no': no route matches that path"),
    ],
)
async def test_a_line_says_why(request_: Request, line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    outcome = await FakeConnector(Application([("/", WebSocketOptions())])).request(request_)
    assert isinstance(outcome, Response)
    assert said(caplog) == [line]


async def test_a_line_for_what_the_connector_refuses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    connector = FakeConnector(Application([("/", WebSocketOptions())]), max_channels=1)
    channel = await connector.open()
    await connector.request(handshake())
    await connector.request(handshake(**{f"X_{number}": "" for number in range(130)}))
    channel.comes("lost")
    assert said(caplog) == [
        "refused with 503 the handshake for '/': max_channels, 1, are open",
        "refused with 431 the handshake for '/': it has more than 128 headers",
    ]


async def test_a_line_for_what_a_stop_refuses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")

    async def wait(context: Context) -> None:
        await asyncio.Event().wait()

    connector = FakeConnector(Application([("/", WebSocketOptions())], [Interceptor(name="slow", enter=wait)]))
    await connector.start()
    task = asyncio.ensure_future(connector.request(handshake()))
    await asyncio.sleep(0)
    await connector.stop()
    outcome = await task
    assert isinstance(outcome, Refusal)
    assert (outcome.status_code, outcome.why) == (503, "the connector stops")
    assert said(caplog) == ["refused with 503 the handshake for '/': the connector stops"]


async def test_no_line_for_an_answer_of_the_applications_or_a_missing_page(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")

    def enter(context: Context) -> None:
        if context["request"].path == "/mine":
            context["response"] = Response("no", 403)

    def leave(context: Context) -> None:
        if context["request"].path == "/replaced":
            context["response"] = Response("not here either", 404)

    app = Application([("/", WebSocketOptions())], [Interceptor(name="mine", enter=enter, leave=leave)])
    connector = FakeConnector(app)
    for request in (handshake("/mine"), handshake("/replaced"), handshake("/favicon.ico", Upgrade=None)):
        assert isinstance(await connector.request(request), Response)
    assert said(caplog) == []


def test_what_a_peer_wrote_is_escaped_and_cut() -> None:
    assert shown("a'b") == '"a\'b"'
    assert shown("\x1b[31m\n\xe9\u20ac") == r"'\x1b[31m\n\xe9\u20ac'"
    assert shown("x" * 100) == f"'{'x' * 100}'"
    assert shown("x" * 101) == f"'{'x' * 100}'... (101 in all)"


async def test_a_long_origin_makes_no_long_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    connector = FakeConnector(Application([("/{path:path}", WebSocketOptions())]))
    long = "\xff" * 5000
    await connector.request(handshake(f"/{long}", Origin=f"http://{long}", Host=long))
    (line,) = said(caplog)
    assert line.isascii()
    assert len(line) < 2500


def test_a_peer_cannot_fill_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsbridge")
    now = 100.0
    log = RefusalLog(lambda: now)

    def refuse(times: int) -> list[str]:
        for _ in range(times):
            log.note(handshake(), Refusal(400, "why"))
        return said(caplog)

    line = "refused with 400 the handshake for '/': why"
    assert refuse(1000) == [line] * 20
    now += 0.1
    assert refuse(10) == []
    now += 0.2
    assert refuse(10) == [f"{line}; before it 990 were refused without a line"]
    now += 3600
    assert refuse(1000) == [f"{line}; before it 9 were refused without a line", *[line] * 19]


def test_nothing_is_counted_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    caplog.set_level(logging.WARNING, "wsbridge")
    for _ in range(100):
        log.note(handshake(), Refusal(400, "why"))
    caplog.set_level(logging.INFO, "wsbridge")
    log.note(handshake(), Refusal(400, "why"))
    assert said(caplog) == ["refused with 400 the handshake for '/': why"]


def test_a_refusal_tells_the_peer_no_more_than_its_status() -> None:
    refusal: Any = Refusal(503, "secret", {"Retry-After": "1"})
    assert (refusal.status_code, refusal.body, refusal.why) == (503, b"Service Unavailable\n", "secret")
    assert refusal.headers["Retry-After"] == "1"
    assert "secret" not in str(refusal.headers)
