"""`asgi_app` by itself: scopes, events and options that are not as they should be, and what servers say otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from wsbridge import Application, CloseReason, Request, Response, UnsupportedOptionError, WebSocketOptions
from wsbridge._common.logs import shown
from wsbridge.connectors.asgi import AsgiApp, asgi_app, make_request
from wsbridge.interceptor import Interceptor

pytestmark = pytest.mark.servers_too

TIMEOUT = 30.0  # seconds after which what does not come has failed
HEADERS = {
    "host": "example.org",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def scope(kind: str = "websocket", path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        "client": ("192.0.2.1", 4711),
        **({"extensions": {"websocket.http.response": {}}} if kind == "websocket" else {"method": "GET"}),
        **more,
    }


class Server:
    """An ASGI server as a test has it: it says what it is told to, and keeps what it is told."""

    def __init__(self, app: AsgiApp, scope: dict[str, Any]) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app(scope, self.events.get, self.sent.put))

    def say(self, kind: str, **event: Any) -> None:
        self.events.put_nowait({"type": kind, **event})

    async def told(self) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            return await self.sent.get()

    async def ends(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self.task
        assert self.sent.empty()


@contextlib.asynccontextmanager
async def opened(
    options: WebSocketOptions[Any] | None = None, **more: Any
) -> AsyncGenerator[tuple[Server, asyncio.Future[CloseReason]]]:
    """A channel that echoes, and how it ends."""
    closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()

    async def echo(channel: Any, process: Any, message: str | bytes) -> None:
        await (channel.send_text(message) if isinstance(message, str) else channel.send_binary(message))

    made = WebSocketOptions[Any](
        on_text=echo,
        on_binary=echo,
        on_close=lambda channel, process, reason: closed.set_result(reason),
        ping_interval=None,
        **more,
    )
    server = Server(asgi_app(options or made), scope())
    server.say("websocket.connect")
    assert (await server.told())["type"] == "websocket.accept"
    yield server, closed
    await server.ends()


@pytest.mark.rule("RECV-1", "RECV-2", "CLOSE-7")
async def test_messages_and_the_peer_s_close() -> None:
    async with opened() as (server, closed):
        server.say("websocket.receive", text="a")
        server.say("websocket.receive", bytes=b"b", text=None)
        server.say("websocket.receive", bytes=bytearray(b"c"))
        for expected in ({"text": "a"}, {"bytes": b"b"}, {"bytes": b"c"}):
            assert await server.told() == {"type": "websocket.send", **expected}
        server.say("websocket.disconnect", code=4001, reason="bye")
        reason = await closed
        assert (reason.code, reason.text, reason.initiator) == (4001, "bye", "peer")


@pytest.mark.rule("CLOSE-7")
@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"code": 1005, "reason": ""}, (1005, "", "peer")),
        ({"code": 1005}, (1006, "", "network")),  # uvicorn's word for a loss
        ({"code": 1006}, (1006, "", "network")),
        ({"code": 1012}, (1012, "", "local")),  # and for its own shutdown
        ({"code": 1012, "reason": ""}, (1012, "", "peer")),
        ({}, (1006, "", "network")),
        ({"code": 1002, "reason": "invalid opcode"}, (1002, "invalid opcode", "local")),  # uvicorn's for a violation
        ({"code": 1007, "reason": ""}, (1007, "", "local")),  # and for invalid UTF-8
        ({"code": 1007}, (1007, "", "peer")),
        ({"code": 1002, "reason": ""}, (1002, "", "peer")),
        ({"code": 1009, "reason": "too big for me"}, (1009, "too big for me", "peer")),
    ],
)
async def test_what_a_disconnect_means(event: dict[str, Any], expected: tuple[int, str, str]) -> None:
    async with opened() as (server, closed):
        server.say("websocket.disconnect", **event)
        reason = await closed
        assert (reason.code, reason.text, reason.initiator) == expected


@pytest.mark.rule("CLOSE-1", "CLOSE-4")
@pytest.mark.parametrize("where", ["in on_open", "behind on_open", "in on_text"])
async def test_nobody_receives_while_a_close_is_under_way(where: str) -> None:
    """granian up to 2.8.7 takes a close only while nobody receives."""
    waiting = 0

    async def close_soon(channel: Any, request: Request) -> None:
        if where == "behind on_open":
            asyncio.get_running_loop().call_later(0, channel.close, 4002, "enough")
        elif where == "in on_open":  # before what reads meanwhile has begun to
            channel.close(4002, "enough")
            await asyncio.sleep(0.01)

    def close(channel: Any, process: None, text: str) -> None:
        channel.close(4002, "enough")

    server = Server.__new__(Server)
    server.events, server.sent = asyncio.Queue(), asyncio.Queue()
    taken: list[int] = []

    async def receive() -> dict[str, Any]:
        nonlocal waiting
        waiting += 1
        try:
            return await server.events.get()
        finally:
            waiting -= 1

    async def send(event: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        taken.append(waiting)
        server.sent.put_nowait(event)

    app = asgi_app(WebSocketOptions(on_open=close_soon, on_text=close, ping_interval=None))
    server.task = asyncio.create_task(app(scope(), receive, send))
    server.say("websocket.connect")
    assert (await server.told())["type"] == "websocket.accept"
    if where == "in on_text":
        server.say("websocket.receive", text="close")
    assert await server.told() == {"type": "websocket.close", "code": 4002, "reason": "enough"}
    assert taken[-1] == 0
    server.say("websocket.disconnect", code=4002, reason="enough")
    await server.ends()


@pytest.mark.rule("ERR-1")
async def test_a_callback_that_raises_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    def fail(channel: Any, process: Any, text: str) -> None:
        raise RuntimeError("no")

    async with opened(WebSocketOptions(on_text=fail, ping_interval=None)) as (server, _):
        server.say("websocket.receive", text="a")
        assert await server.told() == {"type": "websocket.close", "code": 1011, "reason": ""}
        server.say("websocket.disconnect", code=1011, reason="")
    assert "raised RuntimeError" in caplog.text


@pytest.mark.rule("SEND-1")
async def test_a_callback_that_sends_for_ever_to_a_server_that_takes_it_all() -> None:
    """As hypercorn, granian and daphne do when the peer has left: its end is read while the callback runs."""
    ended: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()

    async def stream(channel: Any, process: Any, text: str) -> None:
        while await channel.send_text("more"):
            pass

    async def swallow(event: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    options = WebSocketOptions(
        on_text=stream, on_close=lambda channel, process, reason: ended.set_result(reason), ping_interval=None
    )
    task = asyncio.create_task(asgi_app(options)(scope(), events.get, swallow))
    for event in (
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "stream"},
        {"type": "websocket.disconnect", "code": 4001, "reason": "left"},
    ):
        events.put_nowait(event)
    async with asyncio.timeout(TIMEOUT):
        reason = await ended
        await task
    assert (reason.code, reason.text, reason.initiator) == (4001, "left", "peer")


@pytest.mark.rule("RECV-4", "SEND-1")
async def test_what_is_read_while_a_callback_sends_is_delivered_after_it() -> None:
    read = asyncio.Event()
    got: list[str] = []

    async def on_text(channel: Any, process: Any, text: str) -> None:
        got.append(text)
        while not read.is_set():
            assert await channel.send_text("more")
            await asyncio.sleep(0)

    server = Server.__new__(Server)
    server.events, server.sent = asyncio.Queue(), asyncio.Queue()

    async def receive() -> dict[str, Any]:
        event = await server.events.get()
        if event.get("text") == "2":
            read.set()
        return event

    async def send(event: dict[str, Any]) -> None:
        pass

    server.task = asyncio.create_task(
        asgi_app(WebSocketOptions(on_text=on_text, ping_interval=None))(scope(), receive, send)
    )
    server.say("websocket.connect")
    for text in "123":
        server.say("websocket.receive", text=text)
    server.say("websocket.disconnect", code=1000, reason="")
    await server.ends()
    assert got == ["1", "2", "3"]


@pytest.mark.rule("CLOSE-3", "SEND-1")
async def test_the_end_comes_after_a_callback_during_which_it_was_waited_for() -> None:
    looked, returned = asyncio.Event(), asyncio.Event()
    server = Server.__new__(Server)
    server.events, server.sent = asyncio.Queue(), asyncio.Queue()
    received = 0

    async def on_text(channel: Any, process: Any, text: str) -> None:
        assert await channel.send_text("one")
        await looked.wait()
        asyncio.get_running_loop().call_soon(returned.set)

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        if received == 3:
            looked.set()
        return await server.events.get()

    options = WebSocketOptions(on_text=on_text, ping_interval=None)
    server.task = asyncio.create_task(asgi_app(options)(scope(), receive, server.sent.put))
    server.say("websocket.connect")
    server.say("websocket.receive", text="go")
    async with asyncio.timeout(TIMEOUT):
        await returned.wait()
    assert [(await server.told())["type"] for _ in range(2)] == ["websocket.accept", "websocket.send"]
    server.say("websocket.disconnect", code=1000, reason="")
    await server.ends()
    assert received == 3


@pytest.mark.rule("FLOW-2", "SEND-4")
async def test_one_message_at_a_time_is_handed_to_the_server() -> None:
    """What a server holds of those that wait is its own: hypercorn keeps each."""
    held: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
    texts: list[str] = []
    sending: list[asyncio.Future[bool]] = []

    def on_open(channel: Any, request: Request) -> None:
        sending.extend(asyncio.ensure_future(channel.send_text(text)) for text in "abc")

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "websocket.send":
            texts.append(event["text"])
            taken = asyncio.get_running_loop().create_future()
            held.put_nowait(taken)
            await taken

    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(
        asgi_app(WebSocketOptions(on_open=on_open, ping_interval=None))(scope(), events.get, send)
    )
    events.put_nowait({"type": "websocket.connect"})
    async with asyncio.timeout(TIMEOUT):
        for number in range(2):
            taken = await held.get()
            assert texts == list("abc")[: number + 1]
            if number == 1:  # the third waits behind it when the end comes
                events.put_nowait({"type": "websocket.disconnect", "code": 1006})
            else:
                taken.set_result(None)
        assert await asyncio.gather(*sending) == [True, False, False]
        await task
    assert texts == ["a", "b"]


@pytest.mark.rule("HS-3")
@pytest.mark.parametrize(("known", "expected"), [(["b"], "b"), (["c"], None), ([], None)])
async def test_a_subprotocol_that_the_server_has_not_seen_is_not_agreed(known: list[str], expected: str | None) -> None:
    """hypercorn and daphne see the last line of offers alone, and hypercorn raises for another's."""
    made = scope(subprotocols=known)
    made["headers"] += [(b"sec-websocket-protocol", b"a"), (b"sec-websocket-protocol", ",".join(known).encode())]
    server = Server(asgi_app(WebSocketOptions(subprotocols=["a", "b"], ping_interval=None)), made)
    server.say("websocket.connect")
    assert (await server.told())["subprotocol"] == expected
    server.say("websocket.disconnect", code=1000, reason="")
    await server.ends()


@pytest.mark.rule("CLOSE-4")
@pytest.mark.parametrize("refused", [{4004}, {4004, 1000}])
async def test_a_code_that_the_server_refuses(refused: set[int]) -> None:
    """As daphne does; a close with 1000 is better than none, and the reason stays."""
    closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    tried: list[int] = []

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "websocket.close":
            tried.append(event["code"])
            if event["code"] in refused:
                raise ValueError("invalid close code")
            events.put_nowait({"type": "websocket.disconnect", "code": event["code"]})

    options = WebSocketOptions(
        on_text=lambda channel, process, text: channel.close(4004),
        on_close=lambda channel, process, reason: closed.set_result(reason),
        ping_interval=None,
    )
    task = asyncio.create_task(asgi_app(options)(scope(), events.get, send))
    events.put_nowait({"type": "websocket.connect"})
    events.put_nowait({"type": "websocket.receive", "text": "close"})
    async with asyncio.timeout(TIMEOUT):
        assert (await closed).code == 4004
        await task
    assert tried == [4004, 1000]


@pytest.mark.rule("LIM-1")
async def test_what_is_too_big_closes_with_1009() -> None:
    async with opened(max_text_size=3) as (server, closed):
        server.say("websocket.receive", text="1234")
        assert await server.told() == {"type": "websocket.close", "code": 1009, "reason": ""}
        server.say("websocket.disconnect", code=1006)
        assert (await closed).code == 1009


@pytest.mark.rule("CLOSE-5")
async def test_a_server_that_says_nothing_more_is_left() -> None:
    async with opened(close_timeout=0.05, max_text_size=1) as (server, closed):
        server.say("websocket.receive", text="12")
        assert (await server.told())["code"] == 1009
        assert (await closed).code == 1009


@pytest.mark.rule("LIM-4", "CLOSE-5", "SEND-6")
@pytest.mark.parametrize(
    ("more", "closes", "code"),
    [({"send_timeout": 0.05}, False, 1008), ({"close_timeout": 0.05}, True, 4003)],
    ids=["send-timeout", "close-timeout"],
)
async def test_a_send_that_the_server_holds_back_for_ever(more: dict[str, Any], closes: bool, code: int) -> None:
    loop = asyncio.get_running_loop()
    sent: asyncio.Future[bool] = loop.create_future()
    closed: asyncio.Future[CloseReason] = loop.create_future()

    async def on_open(channel: Any, request: Request) -> None:
        if closes:
            loop.call_soon(channel.close, 4003)
        sent.set_result(await channel.send_text("a"))

    async def send(event: dict[str, Any]) -> None:
        if event["type"] != "websocket.accept":
            await loop.create_future()

    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    app = asgi_app(
        WebSocketOptions(
            on_open=on_open,
            on_close=lambda channel, process, reason: closed.set_result(reason),
            ping_interval=None,
            **more,
        )
    )
    task = asyncio.create_task(app(scope(), events.get, send))
    events.put_nowait({"type": "websocket.connect"})
    async with asyncio.timeout(TIMEOUT):
        assert await sent is False
        assert (await closed).code == code
        await task
    assert task.cancelling() == 0


@pytest.mark.parametrize(
    "event",
    [
        {"type": "websocket.connect"},
        {"type": "websocket.receive"},
        {"type": "websocket.receive", "text": None, "bytes": None},
        {"type": "http.request"},
        {"type": "http.disconnect"},
    ],
)
async def test_an_event_out_of_order(event: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (server, closed):
        server.events.put_nowait(event)
        assert await server.told() == {"type": "websocket.close", "code": 1011, "reason": ""}
        server.say("websocket.disconnect", code=1011, reason="")
        assert (await closed).code == 1011
    assert f"the server sent {shown(str(event))}" in caplog.text


@pytest.mark.parametrize(
    "event", [{}, {"type": "websocket.receive", "text": 5}, {"type": "websocket.receive", "bytes": "a"}]
)
async def test_an_event_that_is_none(event: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (server, closed):
        server.events.put_nowait(event)
        assert await server.told() == {"type": "websocket.close", "code": 1011, "reason": ""}
        server.say("websocket.disconnect", code=1011, reason="")
        assert (await closed).code == 1011
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_disconnect_with_a_code_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (server, closed):
        server.say("websocket.disconnect", code="1000")
        assert (await closed).code == 1006
    assert "whose code is none" in caplog.text


async def test_events_while_the_handshake_is_under_way() -> None:
    """A peer that leaves before the 101, and a server that sends its messages early."""
    gate = asyncio.Event()

    async def wait(context: Any) -> None:
        await gate.wait()

    interceptor = Interceptor(name="wait", enter=wait)
    closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
    got: list[str] = []
    options = WebSocketOptions(
        on_text=lambda channel, process, text: got.append(text),
        on_close=lambda channel, process, reason: closed.set_result(reason),
        ping_interval=None,
    )
    server = Server(asgi_app(Application([("/", options)], [interceptor])), scope())
    server.say("websocket.connect")
    server.say("websocket.receive", text="early")
    server.say("websocket.disconnect", code=4000, reason="")
    gate.set()
    assert (await server.told())["type"] == "websocket.accept"
    await server.ends()
    assert (got, (await closed).code) == (["early"], 4000)


async def test_a_handshake_that_begins_with_something_else(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(asgi_app(WebSocketOptions(ping_interval=None)), scope())
    server.say("websocket.receive", text="a")
    assert (await server.told())["type"] == "websocket.close"
    await server.ends()
    assert "instead of websocket.connect" in caplog.text


@pytest.mark.rule("HS-10")
async def test_a_peer_that_has_left_already() -> None:
    server = Server(asgi_app(WebSocketOptions(ping_interval=None)), scope())
    server.say("websocket.disconnect", code=1006)
    await server.ends()


async def test_a_scope_of_an_unknown_type(caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("webtransport", None):
        server = Server(asgi_app(WebSocketOptions(ping_interval=None)), {**scope(), "type": kind})
        with pytest.raises(ValueError, match=f"unknown ASGI scope type {kind!r}"):
            await server.ends()
        assert f"a scope of the type {kind!r}" in caplog.text


async def test_a_scope_that_tells_no_version_is_of_the_third() -> None:
    made = scope()
    del made["asgi"]
    server = Server(asgi_app(WebSocketOptions(ping_interval=None)), made)
    server.say("websocket.connect")
    assert (await server.told())["type"] == "websocket.accept"
    server.say("websocket.disconnect", code=1000, reason="")
    await server.ends()


@pytest.mark.parametrize("version", ["4.0", "2.0", "", "three"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_another_version_of_asgi(kind: str, version: str, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(asgi_app(WebSocketOptions(ping_interval=None)), scope(kind, asgi={"version": version}))
    start = await server.told()
    assert (start["type"].endswith("response.start"), start["status"]) == (True, 500)
    assert (await server.told())["type"].endswith("response.body")
    await server.ends()
    assert f"the server speaks ASGI {version}" in caplog.text


@pytest.mark.rule("HS-4", "HS-5", "HS-7")
@pytest.mark.parametrize("extensions", [{"websocket.http.response": {}}, {}, None])
async def test_refusals(extensions: dict[str, Any] | None) -> None:
    app = asgi_app(Application([("/there", WebSocketOptions(ping_interval=None))]))
    server = Server(app, scope(path="/nowhere", extensions=extensions))
    server.say("websocket.connect")
    first = await server.told()
    if extensions:
        assert (first["type"], first["status"]) == ("websocket.http.response.start", 404)
        assert (await server.told())["body"] == b"Not Found\n"
    else:  # which every server has: 403
        assert first["type"] == "websocket.close"
    await server.ends()


@pytest.mark.rule("HS-7")
async def test_granian_gets_no_header_twice_in_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """It would abort the process."""
    headers = [("X-A", "1"), ("Set-Cookie", "a=1"), ("x-a", "2"), ("Set-Cookie", "b=2")]

    def answer(context: Any) -> None:
        context["response"] = Response("no", 403, headers)

    app = asgi_app(Application([], interceptors=[Interceptor(name="refuse", enter=answer)]))
    marks: tuple[tuple[dict[str, Any], list[tuple[bytes, bytes]]], ...] = (
        ({"http.response.pathsend": {}}, [(b"x-a", b"1, 2"), (b"set-cookie", b"a=1")]),
        ({}, [(b"x-a", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2")]),
    )
    for mark, expected in marks:
        server = Server(app, scope(extensions={"websocket.http.response": {}, **mark}))
        server.say("websocket.connect")
        sent = (await server.told())["headers"]
        assert [line for line in sent if line[0] in (b"x-a", b"set-cookie")] == expected
        assert (await server.told())["body"] == b"no"
        await server.ends()
    assert [record.getMessage() for record in caplog.records] == [
        "the server cannot refuse a handshake with more than one cookie: 'b=2' is left out"
    ]


@pytest.mark.rule("HS-4", "HS-7")
async def test_plain_http_is_answered_by_interceptors() -> None:
    def answer(context: Any) -> None:
        context["response"] = Response("well", headers=[("X-A", "1"), ("X-A", "2")])

    app = asgi_app(Application([], interceptors=[Interceptor(name="health", enter=answer)]))
    server = Server(app, scope("http"))
    start, body = await server.told(), await server.told()
    assert start["status"] == 200
    assert [value for name, value in start["headers"] if name == b"x-a"] == [b"1", b"2"]
    assert (body["body"], body["more_body"]) == (b"well", False)
    await server.ends()


async def test_a_server_without_websockets_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """It hands a handshake on as an ordinary request. One that has upgraded some is not told of."""
    app = asgi_app(WebSocketOptions(ping_interval=None))
    caplog.set_level("DEBUG", "wsbridge")
    for level in ("ERROR", "DEBUG"):  # once is enough: any peer can ask again
        caplog.clear()
        server = Server(app, scope("http"))
        assert (await server.told())["status"] == 400
        assert (await server.told())["type"] == "http.response.body"
        await server.ends()
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            (
                level,
                "the server hands the handshake for '/' on as an ordinary request: it has no support for WebSockets "
                "(uvicorn needs websockets or wsproto), or will not upgrade this one",
            )
        ]
    channel = Server(app, scope())
    channel.say("websocket.connect")
    assert (await channel.told())["type"] == "websocket.accept"
    channel.say("websocket.disconnect", code=1000, reason="")
    await channel.ends()
    caplog.clear()
    server = Server(app, scope("http"))
    assert (await server.told())["status"] == 400
    assert (await server.told())["type"] == "http.response.body"
    await server.ends()
    assert {record.levelname for record in caplog.records} <= {"DEBUG"}


@pytest.mark.rule("STOP-2", "MOUNT-1")
async def test_a_lifespan_ends_the_channels_and_begins_again() -> None:
    app = asgi_app(WebSocketOptions(ping_interval=None))
    for _ in range(2):
        lifespan = Server(app, scope("lifespan"))
        lifespan.say("lifespan.startup")
        assert await lifespan.told() == {"type": "lifespan.startup.complete"}
        server = Server(app, scope())
        server.say("websocket.connect")
        assert (await server.told())["type"] == "websocket.accept"
        lifespan.say("lifespan.shutdown")
        assert await server.told() == {"type": "websocket.close", "code": 1001, "reason": "server shutdown"}
        server.say("websocket.disconnect", code=1001, reason="server shutdown")
        assert await lifespan.told() == {"type": "lifespan.shutdown.complete"}
        await server.ends()
        await lifespan.ends()
    refused = Server(app, scope())
    refused.say("websocket.connect")
    assert (await refused.told())["status"] == 503
    assert (await refused.told())["type"] == "websocket.http.response.body"
    await refused.ends()


async def test_a_lifespan_event_that_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    lifespan = Server(asgi_app(WebSocketOptions(ping_interval=None)), scope("lifespan"))
    lifespan.say("lifespan.pause")
    await lifespan.ends()
    assert "where an event of its lifespan was due" in caplog.text


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("option", [{"port": 80}, {"ssl": None}, {"handshake_timeout": 1}, {"native_options": {}}])
def test_options_that_are_the_server_s(option: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"asgi_app cannot honour {next(iter(option))}"):
        asgi_app(WebSocketOptions(ping_interval=None), **option)


@pytest.mark.rule("LIM-5")
def test_pings_and_deflate_are_refused() -> None:
    with pytest.raises(UnsupportedOptionError, match="ping_interval: ASGI cannot ping; set it to None, or give server"):
        asgi_app(WebSocketOptions())
    with pytest.raises(UnsupportedOptionError, match="cannot honour compression"):
        asgi_app(WebSocketOptions(compression=True), server_pings=True)
    with pytest.raises(TypeError, match="server_pings must be bool"):
        asgi_app(WebSocketOptions(), server_pings=1)
    asgi_app(WebSocketOptions(), server_pings=True)


@pytest.mark.rule("HS-2")
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"path": "/a b", "raw_path": b"/a%20b"}, ("", "/a b")),
        ({"path": "/ws/x", "raw_path": b"/ws/x", "root_path": "/ws"}, ("/ws", "/x")),  # Starlette
        ({"path": "/x", "raw_path": b"/ws/x", "root_path": "/ws"}, ("/ws", "/x")),
        ({"path": "/x/", "raw_path": b"/ws/x", "root_path": ""}, ("/ws", "/x")),  # Litestar
        ({"path": "/", "raw_path": b"/ws", "root_path": ""}, ("/ws", "/")),
        ({"path": "/wsx", "raw_path": b"/wsx", "root_path": "/ws"}, ("/ws", "/wsx")),
        ({"path": "/\N{SNOWMAN}", "raw_path": None}, ("", "/\N{SNOWMAN}")),
        ({"path": "/a", "raw_path": b"/a?b=c", "query_string": b"b=c"}, ("", "/a")),
    ],
)
def test_paths(more: dict[str, Any], expected: tuple[str, str]) -> None:
    request = make_request(scope(**more))
    assert (request.root_path, request.path) == expected
    assert request.remote_address == ("192.0.2.1", 4711)


def test_a_client_as_granian_tells_it() -> None:
    assert make_request(scope(client=("192.0.2.1", "80"))).remote_address == ("192.0.2.1", 80)
    assert make_request(scope(client=None)).remote_address is None


# ---- HS-19: over HTTP/2 and 3 ---------------------------------------------------------------------------------------


def stream_scope(kind: str = "websocket", *, version: str = "2", **more: Any) -> dict[str, Any]:
    """Return the scope of a WebSocket over HTTP/2 or 3, as hypercorn has it."""
    headers = [(b"host", b"example.org"), (b"sec-websocket-version", b"13")]
    return scope(kind, http_version=version, headers=headers, scheme="wss", **more)


@pytest.mark.rule("HS-2", "HS-19")
@pytest.mark.parametrize("version", ["2", "3"])
async def test_a_websocket_over_http2_and_3(version: str) -> None:
    requests: list[Request] = []

    async def echo(channel: Any, process: Any, text: str) -> None:
        await channel.send_text(text)

    def on_open(channel: Any, request: Request) -> None:
        requests.append(request)

    app = asgi_app(WebSocketOptions(on_open=on_open, on_text=echo, ping_interval=None))
    server = Server(app, stream_scope(version=version))
    server.say("websocket.connect")
    assert await server.told() == {"type": "websocket.accept", "subprotocol": None, "headers": []}
    server.say("websocket.receive", text="a")
    assert await server.told() == {"type": "websocket.send", "text": "a"}
    server.say("websocket.disconnect", code=1000)
    await server.ends()
    (request,) = requests
    assert (request.method, request.http_version, request.host, request.scheme) == (
        "CONNECT",
        version,
        "example.org",
        "wss",
    )


@pytest.mark.rule("HS-19")
async def test_what_belongs_to_a_connection_is_left_out_over_http2() -> None:
    answer = Response("no", 426, {"Upgrade": "websocket", "Connection": "Upgrade", "X-A": "b"})

    def refuse(context: Any) -> Any:
        if context["request"].path == "/refused":
            context["response"] = answer
        else:
            context["websocket_channel_source"].response_headers.add("Keep-Alive", "timeout=5")
            context["websocket_channel_source"].response_headers.add("X-A", "b")
        return context

    options = WebSocketOptions[Any](ping_interval=None)
    app = asgi_app(Application([("/", options)], interceptors=[Interceptor(name="i", enter=refuse)]))
    for made, expected in ((stream_scope, []), (scope, [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")])):
        for kind, prefix in (("websocket", "websocket.http.response"), ("http", "http.response")):
            server = Server(app, made(kind, path="/refused"))
            if kind == "websocket":
                server.say("websocket.connect")
            start = await server.told()
            assert (start["type"], start["status"]) == (f"{prefix}.start", 426)
            found = [line for line in start["headers"] if line[0] not in (b"content-type", b"content-length")]
            assert found == [*expected, (b"x-a", b"b")]
            assert (await server.told())["body"] == b"no"
            await server.ends()
    server = Server(app, stream_scope())
    server.say("websocket.connect")
    assert (await server.told())["headers"] == [(b"x-a", b"b")]
    server.say("websocket.disconnect", code=1000)
    await server.ends()


@pytest.mark.rule("HS-7", "HS-19")
@pytest.mark.parametrize(("status", "expected"), [(200, 400), (204, 400), (302, 302), (404, 404)])
async def test_an_answer_that_would_open_a_websocket_over_http2(status: int, expected: int) -> None:
    def answer(context: Any) -> Any:
        context["response"] = Response("healthy", status)
        return context

    options = WebSocketOptions[Any](ping_interval=None)
    app = asgi_app(Application([("/", options)], interceptors=[Interceptor(name="health", enter=answer)]))
    for made, told in ((stream_scope, expected), (scope, status)):
        server = Server(app, made())
        server.say("websocket.connect")
        assert (await server.told())["status"] == told
        assert (await server.told())["body"] == (
            b"" if told == 204 else b"Bad Request\n" if told == 400 else b"healthy"
        )
        await server.ends()


@pytest.mark.rule("HS-19")
async def test_a_server_that_takes_a_connect_for_a_request(caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn 0.54 does, with ``--http2``; anybody can send one, so it is said once."""
    app = asgi_app(WebSocketOptions(ping_interval=None))
    for _ in range(3):
        server = Server(app, stream_scope("http", method="CONNECT"))
        assert (await server.told())["status"] == 501
        await server.told()
        await server.ends()
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "over HTTP/2 on as an ordinary request" in record.getMessage()
    assert "--http2" in record.getMessage()
    assert app.connector.channels == ()


@pytest.mark.rule("HS-19")
async def test_an_ordinary_request_for_a_websocket_over_http2() -> None:
    server = Server(asgi_app(WebSocketOptions(ping_interval=None)), stream_scope("http"))
    start = await server.told()
    assert (start["status"], (b"allow", b"CONNECT") in start["headers"]) == (405, True)
    await server.told()
    await server.ends()
