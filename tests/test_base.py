"""`BaseConnector`, `BaseSource` and `Mount`, on a server of the test's own that has no wire."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import HANDSHAKE, FakeConnector, FakeSource, PulledChannel, PushedChannel, handshake, passes
from tests.virtual_time import in_virtual_time
from wsbridge import (
    Application,
    CloseReason,
    Compression,
    Connector,
    ConnectorStateError,
    Context,
    InitializeWebSocket,
    Interceptor,
    Response,
    UnsupportedOptionError,
    UpgradeError,
    WebSocketChannel,
    WebSocketOptions,
    upgrade_request_to_websocket,
    websocket_interceptor,
)
from wsbridge.connector import BaseChannel, BaseConnector, Mount, close_keywords
from wsbridge.protocols import Feature

OPTIONS: WebSocketOptions[None] = WebSocketOptions()
FAST = 0.2  # seconds: the shutdown timeout of what is to run into it


def serving(options: WebSocketOptions[Any] = OPTIONS, **connector_options: Any) -> FakeConnector:
    return FakeConnector(Application([("/", options)]), **{"shutdown_timeout": 5, **connector_options})


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def refused(connector: FakeConnector, **request: Any) -> Response:
    response = await connector.request(handshake(**request))
    assert isinstance(response, Response)
    return response


# ---- options ------------------------------------------------------------------------------------------------------


async def test_a_connector_is_what_the_protocol_says() -> None:
    async with serving() as connector:  # Python 3.11 asks for its url to tell
        assert isinstance(connector, Connector)


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("host", None, TypeError),
        ("host", 7, TypeError),
        ("port", "80", TypeError),
        ("port", None, TypeError),
        ("port", True, TypeError),
        ("port", -1, ValueError),
        ("port", 65536, ValueError),
        ("unix_path", Path("/tmp/s"), TypeError),
        ("ssl", True, TypeError),
        ("reuse_port", 1, TypeError),
        ("max_channels", 0, ValueError),
        ("max_channels", 1.5, TypeError),
        ("max_channels", "9", TypeError),
        ("handshake_timeout", 0, ValueError),
        ("handshake_timeout", None, TypeError),
        ("shutdown_timeout", float("inf"), ValueError),
        ("shutdown_timeout", "1", TypeError),
        ("trusted_proxies", "10.0.0.1", TypeError),
        ("trusted_proxies", ["proxy"], ValueError),
        ("native_options", None, TypeError),
        ("native_options", ["backlog"], TypeError),
        ("backlog", 7, TypeError),
    ],
)
def test_a_wrong_option_raises_an_error_that_names_it(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name) as raised:
        serving(**{name: value})
    assert type(raised.value) is error


@pytest.mark.rule("LIM-5")
def test_valid_options_are_kept() -> None:
    given: dict[str, Any] = {
        "host": "localhost",
        "port": 65535,
        "unix_path": "/tmp/s",
        "ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        "reuse_port": True,
        "max_channels": 1,
        "handshake_timeout": 1,
        "shutdown_timeout": 2.5,
        "native_options": {"backlog": 7},
    }
    connector = serving(**given, trusted_proxies=["10.0.0.0/8"])
    assert {name: getattr(connector, name) for name in given} == given


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("app", [None, OPTIONS, "module:app"])
def test_the_application_must_be_one(app: Any) -> None:
    with pytest.raises(TypeError, match="app must be an Application"):
        BaseConnector.__init__(object.__new__(FakeConnector), app)


class Poor(FakeConnector):
    """A connector that lacks every feature."""

    name = "poor"
    features = frozenset[Feature]()
    native_option_names = frozenset[str]()


ACCEPTABLE: dict[str, Any] = {"ping_interval": None, "max_text_size": None, "max_binary_size": None}


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"compression": True}, "compression"),
        ({"compression": Compression()}, "compression"),
        ({"ping_interval": 5}, "ping_interval"),
        ({"max_text_size": 10}, "max_text_size"),
        ({"max_binary_size": 10}, "max_binary_size"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_an_option_that_needs_a_lacking_feature_is_refused_when_it_is_made(
    options: dict[str, Any], named: str, nested: bool
) -> None:
    made: WebSocketOptions[Any] = WebSocketOptions(**{**ACCEPTABLE, **options})
    handler = [Interceptor(name="first"), websocket_interceptor("last", made)] if nested else made
    with pytest.raises(UnsupportedOptionError, match=named) as raised:
        Poor(Application([("/", handler)]))
    assert "poor" in str(raised.value)
    Poor(Application([("/", WebSocketOptions(**ACCEPTABLE))]))


@pytest.mark.rule("LIM-5")
def test_connector_options_that_cannot_be_honoured_are_refused() -> None:
    app = Application([])
    with pytest.raises(UnsupportedOptionError, match=r"poor.*unix_path"):
        Poor(app, unix_path="/tmp/s")
    with pytest.raises(UnsupportedOptionError, match=r"native_options\['backlog'\].*none"):
        Poor(app, native_options={"backlog": 7})
    with pytest.raises(UnsupportedOptionError, match=r"native_options\['nagle'\].*backlog"):
        FakeConnector(app, native_options={"backlog": 7, "nagle": True})


@pytest.mark.rule("LIM-5")
def test_a_server_that_takes_no_context_refuses_tls() -> None:
    class WithoutTLS(FakeConnector):
        has_tls = False

    WithoutTLS(Application([]))
    with pytest.raises(UnsupportedOptionError, match="cannot honour ssl: its server takes no SSLContext"):
        WithoutTLS(Application([]), ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize(
    ("lacking", "option", "said"),
    [
        ("AF_UNIX", {"unix_path": "/tmp/s"}, "unix_path: Python has no Unix sockets on this system; listen on a port"),
        ("SO_REUSEPORT", {"reuse_port": True}, "reuse_port: this system has no SO_REUSEPORT; give each process a port"),
    ],
)
def test_what_this_system_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, lacking: str, option: dict[str, Any], said: str
) -> None:
    serving(**option)
    monkeypatch.delattr(socket, lacking)
    with pytest.raises(UnsupportedOptionError, match=rf"^the fake connector cannot honour {said}$"):
        serving(**option)


@pytest.mark.rule("STOP-15")
@pytest.mark.parametrize(
    "option",
    [{"host": "localhost"}, {"port": 80}, {"unix_path": "/tmp/s"}, {"reuse_port": True}],
    ids=lambda o: next(iter(o)),
)
def test_sockets_that_are_handed_in_stand_alone(option: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert serving(sockets=[listener]).sockets == (listener,)
        with pytest.raises(
            ValueError, match="sockets are bound already: leave out host, port, unix_path and reuse_port"
        ):
            serving(sockets=[listener], **option)


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("setting", ["window_bits", "memory_level", "context_takeover"])
def test_a_compression_setting_that_the_server_lacks_is_refused(setting: str) -> None:
    class Settable(FakeConnector):
        compression_settings = frozenset({setting})

    value: Any = False if setting == "context_takeover" else 9
    options: WebSocketOptions[Any] = WebSocketOptions(compression=Compression(**{setting: value}))
    with pytest.raises(UnsupportedOptionError, match=setting):
        serving(options)
    Settable(Application([("/", options)]))


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("compression", [True, Compression()])
def test_compression_without_settings_needs_the_feature_alone(compression: bool | Compression) -> None:
    serving(WebSocketOptions(compression=compression))


@pytest.mark.rule("CLOSE-9")
def test_keywords_are_made_of_a_servers_names() -> None:
    assert dict(close_keywords({"GOING_AWAY": 1001})) == {1001: "going-away"}


async def test_options_that_only_the_request_shows_are_refused_then(caplog: pytest.LogCaptureFixture) -> None:
    def choose(context: Context) -> Any:
        interceptor = websocket_interceptor("late", WebSocketOptions(compression=True))
        assert interceptor.enter is not None
        return interceptor.enter(context)

    connector = Poor(Application([("/", [Interceptor(name="choose", enter=choose)])]))
    assert (await refused(connector)).status_code == 500
    assert len(errors(caplog)) == 1


# ---- starting -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-1")
async def test_a_connector_listens_once_it_is_started() -> None:
    connector = serving()
    assert not connector.addresses
    with pytest.raises(ConnectorStateError, match="fake connector does not listen"):
        _ = connector.url
    await connector.start()
    (address,) = connector.addresses
    assert connector.url == f"ws://{address[0]}:{address[1]}"
    assert connector.calls == ["start 1"]
    with pytest.raises(ConnectorStateError, match="runs already"):
        await connector.start()
    await connector.stop()
    assert connector.addresses == ()
    assert connector.calls == ["start 1", "stop listening", "stop"]


@pytest.mark.rule("STOP-1")
@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [
        (("127.0.0.1", 80), False, "ws://127.0.0.1:80"),
        (("127.0.0.1", 80), True, "wss://127.0.0.1:80"),
        (("0.0.0.0", 80), False, "ws://127.0.0.1:80"),
        (("::1", 80), False, "ws://[::1]:80"),
        (("::", 80), True, "wss://[::1]:80"),
        ("/run/s", False, "ws+unix:///run/s"),
        ("/run/s", True, "wss+unix:///run/s"),
    ],
)
def test_the_url_of_an_address(address: Any, tls: bool, url: str) -> None:
    connector = serving(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None)
    connector._addresses = (address,)
    assert connector.url == url


@pytest.mark.rule("STOP-1")
async def test_a_start_that_fails_leaves_nothing_behind() -> None:
    connector = serving()
    connector.failing = RuntimeError("broken server")
    with pytest.raises(RuntimeError, match="broken server"):
        await connector.start()
    assert connector.addresses == ()
    await connector.stop()
    connector.failing = None
    async with connector:
        assert len(connector.addresses) == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = serving(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="cannot listen"):
            await busy.start()
        assert busy.calls == []


@pytest.mark.rule("STOP-4")
async def test_a_unix_socket_is_removed_at_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(unix_path=str(path)) as connector:
        assert path.exists()
        assert connector.addresses == (str(path),)
    assert not path.exists()


@pytest.mark.rule("STOP-1", "STOP-2")
async def test_a_connector_need_fill_no_more_than_its_start_and_its_stop() -> None:
    calls: list[str] = []

    class Least(BaseConnector):
        name = "least"
        connector_api = 1
        has_wire = False

        async def _start(self, sockets: list[socket.socket]) -> None:
            calls.append(f"start {len(sockets)}")

        async def _stop(self) -> None:
            calls.append("stop")

    async with Least(Application([])) as connector:
        assert connector.addresses == ()
    assert calls == ["start 0", "stop"]


@pytest.mark.rule("THR-2")
def test_a_connector_belongs_to_the_loop_that_started_it() -> None:
    connector = serving()
    loops: list[asyncio.AbstractEventLoop] = []
    clocks: list[object] = []

    async def live() -> None:
        async with connector:
            loops.append(connector.loop)
            clocks.append(connector.clock)
            assert connector.loop is asyncio.get_running_loop()
            channel = await connector.open()
            await passes()
            channel.comes("lost")
            await passes()
            assert channel.reason is not None

    asyncio.run(live())
    asyncio.run(live())
    assert loops[0] is not loops[1]
    assert clocks[0] is not clocks[1]


@pytest.mark.rule("THR-1", "THR-2")
async def test_debug_mode_refuses_a_stop_from_another_loop() -> None:
    asyncio.get_running_loop().set_debug(True)
    connector = serving()
    await connector.start()
    mount = Mount(serving(), OPTIONS)
    await mount.handle(handshake(), FakeSource(mount.connector, handshake()))

    def elsewhere(call: Callable[[], Any]) -> None:
        with pytest.raises(RuntimeError, match=r"loop\.call_soon_threadsafe"):
            asyncio.run(call())

    await asyncio.to_thread(elsewhere, connector.stop)
    await asyncio.to_thread(elsewhere, mount.stop)
    await connector.stop()
    for channel in mount.connector.channels:
        channel.abandon()


# ---- requests -----------------------------------------------------------------------------------------------------


async def test_a_handshake_becomes_a_channel() -> None:
    connector = serving(WebSocketOptions(subprotocols=["chat"]))
    source = FakeSource(connector, handshake(Sec_WebSocket_Protocol="other, chat"))
    assert isinstance(source, InitializeWebSocket)
    channel = await connector.handle(source.request, source)
    assert isinstance(channel, BaseChannel)
    assert channel.subprotocol == "chat"
    assert source.channel is channel
    assert connector.channels == (channel,)
    channel.abandon()
    assert not connector.channels


@pytest.mark.rule("HS-4", "HS-5", "HS-7", "HS-9", "CTX-1")
@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/plain", 200, b"hello"),
        ("/refused", 405, b"Method Not Allowed\n"),
        ("/nowhere", 404, b"Not Found\n"),
        ("/undecided", 404, b"Not Found\n"),
        ("/raises", 500, b"Internal Server Error\n"),
        ("/no-response", 500, b"Internal Server Error\n"),
        ("/no-channel", 500, b"Internal Server Error\n"),
    ],
)
async def test_a_request_that_becomes_no_channel_gets_a_response(
    target: str, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[set[str]] = []

    def raises(context: Context) -> None:
        raise ValueError("secret")

    def sets(key: str, value: Any) -> Interceptor:
        return Interceptor(name=key, enter=lambda context: {**context, key: value})

    app = Application(
        [
            ("/plain", [sets("response", Response("hello"))]),
            ("/refused", OPTIONS),
            ("/undecided", [Interceptor(name="nothing")]),
            ("/raises", [Interceptor(name="raises", enter=raises)]),
            ("/no-response", [sets("response", "hello")]),
            ("/no-channel", [sets("websocket_channel", "channel")]),
        ],
        interceptors=[Interceptor(name="all", enter=lambda context: seen.append(set(context)))],
    )
    connector = FakeConnector(app)
    response = await connector.request(handshake(target, method="POST"))
    assert isinstance(response, Response)
    assert (response.status_code, response.body) == (status, body)
    assert seen == [{"request", "response", "websocket_channel_source", "websocket_channel"}]
    assert len(errors(caplog)) == (1 if status == 500 else 0)
    assert not connector.channels


@pytest.mark.rule("HS-17")
async def test_a_head_that_is_too_large_is_431() -> None:
    connector = serving(max_head_size=1024)
    size = len("GET / HTTP/1.1\r\n\r\n") + sum(len(f"{name}: {value}\r\n") for name, value in HANDSHAKE.items())
    for extra, status in ((1024 - size, 101), (1025 - size, 431)):
        outcome = await connector.request(handshake(X="x" * (extra - len("X: \r\n"))))
        assert getattr(outcome, "status_code", 101) == status
    query = await connector.request(handshake(f"/?{'q' * (1024 - size - 1)}"))
    assert isinstance(query, BaseChannel)
    assert (await refused(connector, target=f"/?{'q' * (1024 - size)}")).status_code == 431
    for channel in connector.channels:
        channel.abandon()


@pytest.mark.rule("HS-9")
async def test_a_cancellation_that_a_stage_itself_raises_is_500(caplog: pytest.LogCaptureFixture) -> None:
    async def waits(context: Context) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    connector = FakeConnector(Application([("/", [Interceptor(name="waits", enter=waits)])]))
    assert (await refused(connector)).status_code == 500
    assert errors(caplog) == ["the request for '/' failed"]


@pytest.mark.rule("HS-8")
async def test_headers_for_the_101_are_kept_for_it() -> None:
    def enter(context: Context) -> None:
        context["websocket_channel_source"].response_headers.add("X-A", "1")
        context["websocket_channel_source"].response_headers.add("X-A", "2")

    chain = [Interceptor(name="headers", enter=enter), websocket_interceptor("last", OPTIONS)]
    connector = FakeConnector(Application([("/", chain)]))
    source = FakeSource(connector, handshake())
    channel = await connector.handle(source.request, source)
    assert isinstance(channel, BaseChannel)
    assert list(source.response_headers) == [("X-A", "1"), ("X-A", "2")]
    channel.abandon()


@pytest.mark.rule("HS-8")
@pytest.mark.parametrize(
    "name", ["Upgrade", "connection", "Sec-WebSocket-Accept", "sec-websocket-protocol", "Content-Length"]
)
async def test_the_headers_of_the_handshake_are_the_connectors(name: str, caplog: pytest.LogCaptureFixture) -> None:
    def enter(context: Context) -> None:
        context["websocket_channel_source"].response_headers[name] = "mine"

    chain = [Interceptor(name="headers", enter=enter), websocket_interceptor("last", OPTIONS)]
    connector = FakeConnector(Application([("/", chain)]))
    assert (await refused(connector)).status_code == 500
    assert not connector.channels
    assert len(errors(caplog)) == 1


@pytest.mark.rule("CTX-3")
@pytest.mark.parametrize("way", ["response", "raise", "error stage"])
async def test_a_later_stage_that_refuses_kills_the_channel(way: str) -> None:
    opened: list[str] = []

    def leave(context: Context) -> None:
        assert isinstance(context["websocket_channel"], WebSocketChannel)
        if way != "response":
            raise ValueError("no")
        context["response"] = Response("no", 409)

    def error(context: Context, exception: Exception) -> None:
        if way != "error stage":
            raise exception
        context["response"] = Response("no", 409)

    options: WebSocketOptions[Any] = WebSocketOptions(on_open=lambda channel, request: opened.append("opened"))
    chain = [
        Interceptor(name="outer", error=error),
        Interceptor(name="inner", leave=leave),
        websocket_interceptor("last", options),
    ]
    connector = FakeConnector(Application([("/", chain)]), max_channels=1)
    for _ in range(3):  # each gives its place back
        assert (await refused(connector)).status_code == (500 if way == "raise" else 409)
    assert (connector.channels, opened) == ((), [])


@pytest.mark.rule("CTX-3")
async def test_the_channel_opens_when_the_leave_stages_have_run() -> None:
    order: list[str] = []
    options: WebSocketOptions[Any] = WebSocketOptions(on_open=lambda channel, request: order.append("on_open"))
    chain = [
        Interceptor(name="first", leave=lambda context: order.append("leave")),
        websocket_interceptor("last", options),
    ]
    connector = FakeConnector(Application([("/", chain)]))
    channel = await connector.open()
    await passes()
    assert order == ["leave", "on_open"]
    channel.comes("lost")
    await passes()


@pytest.mark.rule("CTX-3")
async def test_a_second_upgrade_of_a_request_raises_and_takes_no_place() -> None:
    options: WebSocketOptions[Any] = WebSocketOptions()
    raised: list[str] = []

    def twice(context: Context) -> None:
        upgrade_request_to_websocket(context, options)
        first = context["websocket_channel"]
        with pytest.raises(UpgradeError) as error:
            upgrade_request_to_websocket(context, options)
        raised.append(str(error.value))
        assert context["websocket_channel"] is first

    connector = FakeConnector(Application([("/", [Interceptor(name="twice", enter=twice)])]), max_channels=2)
    channel = await connector.open()
    assert raised == ["the request has been upgraded already: a handshake makes one channel"]
    assert connector.channels == (channel,)
    channel.comes("lost")
    await passes()
    assert not connector.channels


@pytest.mark.rule("HS-12")
async def test_above_max_channels_is_503_and_an_ended_channel_gives_its_place_back() -> None:
    gate = asyncio.Event()

    async def on_close(channel: Any, process: Any, reason: CloseReason) -> None:
        await gate.wait()

    connector = serving(WebSocketOptions(on_close=on_close), max_channels=2)
    first, second = await connector.open(), await connector.open()
    for _ in range(3):
        response = await refused(connector)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    first.comes("lost")
    await passes()
    assert (await refused(connector)).status_code == 503  # until on_close has returned
    gate.set()
    await passes()
    third = await connector.open()
    for channel in (second, third):
        channel.comes("lost")
    await passes()
    assert not connector.channels


@pytest.mark.rule("HS-2")
async def test_a_trusted_proxy_tells_scheme_and_address() -> None:
    seen: list[Any] = []

    def enter(context: Context) -> None:
        request = context["request"]
        seen.append((request.scheme, request.remote_address, request.remote_addr))
        context["response"] = Response()

    app = Application([], interceptors=[Interceptor(name="look", enter=enter)])
    headers = {"X_Forwarded_For": "198.51.100.7", "X_Forwarded_Proto": "https"}
    for proxies in ([], ["192.0.2.0/24"]):
        await FakeConnector(app, trusted_proxies=proxies).request(handshake(**headers))
    unix = handshake(**headers)
    unix.remote_address = None
    await FakeConnector(app, trusted_proxies=["192.0.2.0/24"]).request(unix)
    assert seen == [
        ("ws", ("192.0.2.1", 50000), "192.0.2.1"),
        ("wss", ("198.51.100.7", 0), "198.51.100.7"),
        ("ws", None, None),
    ]


@pytest.mark.rule("HS-2", "HS-15")
@pytest.mark.parametrize("on_unix_socket", [False, True])
async def test_a_peer_without_an_address_is_a_proxy_on_a_unix_socket_alone(
    tmp_path: Path, on_unix_socket: bool
) -> None:
    """Where a port is served, it is a peer whose connection has ended already."""
    seen: list[Any] = []

    def enter(context: Context) -> None:
        seen.append(context["request"].remote_address)
        context["response"] = Response()

    app = Application([], interceptors=[Interceptor(name="look", enter=enter)])
    where: dict[str, Any] = {"unix_path": str(tmp_path / "s")} if on_unix_socket else {}
    async with FakeConnector(app, trusted_proxies=["unix"], **where) as connector:
        request = handshake(X_Forwarded_For="198.51.100.7")
        request.remote_address = None
        await connector.request(request)
    assert seen == [("198.51.100.7", 0) if on_unix_socket else None]


@pytest.mark.rule("HS-10")
async def test_a_handshake_that_is_cancelled_by_its_peer_leaves_nothing() -> None:
    async def wait(context: Context) -> None:
        await asyncio.Event().wait()

    chain = [Interceptor(name="slow", leave=wait), websocket_interceptor("last", OPTIONS)]
    connector = FakeConnector(Application([("/", chain)]))
    task = asyncio.ensure_future(connector.request(handshake()))
    await passes()
    assert len(connector.channels) == 1
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert not connector.channels


# ---- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-3")
async def test_stopping_before_a_start_or_twice_does_nothing() -> None:
    connector = serving()
    await connector.stop()
    await connector.start()
    await connector.stop()
    await connector.stop()
    assert connector.calls == ["start 1", "stop listening", "stop"]
    await connector.start()
    await asyncio.gather(connector.stop(), connector.stop())
    assert connector.calls[3:] == ["start 1", "stop listening", "stop"]


@pytest.mark.rule("STOP-2")
async def test_every_channel_is_closed_at_once_and_the_stop_waits_for_the_answers() -> None:
    reasons: list[CloseReason] = []
    connector = serving(WebSocketOptions(on_close=lambda channel, process, reason: reasons.append(reason)))
    await connector.start()
    channels = [await connector.open(kind=kind) for kind in (PulledChannel, PushedChannel)]
    await passes()
    stopping = asyncio.ensure_future(connector.stop())
    await passes()
    for channel in channels:
        assert channel.wire.written == [("close", 1001, "server shutdown")]
    assert (await refused(connector)).status_code == 503
    assert not stopping.done()
    assert connector.calls == ["start 1", "stop listening"]
    for channel in channels:
        channel.comes("close", 1001, "")
    await stopping
    assert [(reason.code, reason.text, reason.initiator) for reason in reasons] == [
        (1001, "server shutdown", "local")
    ] * 2
    assert connector.calls[-1] == "stop"


@pytest.mark.rule("STOP-2")
@in_virtual_time
async def test_a_peer_that_does_not_answer_is_cut_off_at_half_time() -> None:
    reasons: list[CloseReason] = []
    connector = serving(
        WebSocketOptions(on_close=lambda channel, process, reason: reasons.append(reason)), shutdown_timeout=FAST
    )
    await connector.start()
    channel = await connector.open()
    await passes()
    start = asyncio.get_running_loop().time()
    await connector.stop()
    assert asyncio.get_running_loop().time() - start == pytest.approx(FAST / 2)
    assert channel.wire.kinds == ["close", "abort"]
    assert [reason.code for reason in reasons] == [1001]


@pytest.mark.rule("STOP-2")
async def test_a_callback_that_runs_at_half_time_is_cancelled_and_on_close_runs() -> None:
    log: list[str] = []

    async def on_text(channel: Any, process: Any, text: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    options: WebSocketOptions[Any] = WebSocketOptions(
        on_text=on_text, on_close=lambda channel, process, reason: log.append(f"closed {reason.code}")
    )
    connector = serving(options, shutdown_timeout=FAST)
    await connector.start()
    channel = await connector.open()
    channel.comes("text", "a")
    await passes()
    await connector.stop()
    assert log == ["cancelled", "closed 1001"]


@pytest.mark.rule("STOP-2")
@in_virtual_time
async def test_what_still_runs_in_the_end_is_cancelled_logged_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    end = asyncio.Event()

    async def stubborn(channel: Any, process: Any, value: Any) -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                log.append("ignored a cancel")

    connector = serving(WebSocketOptions(on_text=stubborn), shutdown_timeout=FAST)
    await connector.start()
    channel = await connector.open()
    channel.comes("text", "a")
    await passes()
    start = asyncio.get_running_loop().time()
    await connector.stop()
    assert asyncio.get_running_loop().time() - start == pytest.approx(FAST + 0.25)
    assert log == ["ignored a cancel"] * 2
    assert not connector.channels
    assert [channel.id in error for error in errors(caplog)] == [True]
    end.set()
    await asyncio.wait(connector.tasks)


@pytest.mark.rule("STOP-3")
async def test_a_stop_that_is_cancelled_cuts_off_at_once() -> None:
    connector = serving(shutdown_timeout=60)
    await connector.start()
    channel = await connector.open()
    await passes()
    stopping = asyncio.ensure_future(connector.stop())
    await passes()
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    assert stopping.cancelled()
    assert channel.wire.kinds == ["close", "abort"]
    await passes()
    assert connector.calls[-1] == "stop"
    await connector.start()
    await connector.stop()


@pytest.mark.rule("STOP-3")
async def test_a_stop_that_is_cancelled_as_it_ends_is_cancelled_all_the_same() -> None:
    connector = serving()
    await connector.start()
    stopping = asyncio.ensure_future(connector.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    await passes()
    assert connector.calls == ["start 1", "stop listening", "stop"]


@pytest.mark.rule("STOP-3")
async def test_a_stop_that_is_cancelled_behind_the_last_channel_goes_on_without_its_caller() -> None:
    connector = serving()
    connector.gate = asyncio.Event()
    await connector.start()
    stopping = asyncio.ensure_future(connector.stop())
    await passes()
    assert connector.calls[-1] == "stop"
    stopping.cancel()
    connector.gate.set()
    await asyncio.wait((stopping,))
    assert stopping.cancelled()
    assert connector.addresses == ()


@pytest.mark.rule("STOP-3")
@pytest.mark.parametrize("where", ["on_open", "on_text", "on_close"])
async def test_a_stop_from_a_callback_does_not_deadlock(where: str) -> None:
    log: list[str] = []

    async def stop(*arguments: Any) -> None:
        await connector.stop()
        log.append("stopped")

    callback: dict[str, Any] = {where: stop}
    connector = serving(WebSocketOptions(**callback), shutdown_timeout=60)
    await connector.start()
    channel = await connector.open()
    other = await connector.open() if where == "on_text" else None
    channel.comes("text", "a")
    await passes()
    if other is not None:
        assert other.wire.kinds == ["close"]
        other.comes("close", 1001, "")
    else:
        channel.comes("close", 1001, "")
    await passes()
    assert not connector.tasks
    assert log == ["stopped"]
    assert not connector.channels


@pytest.mark.rule("STOP-5")
async def test_a_handshake_under_way_is_refused() -> None:
    async def wait(context: Context) -> None:
        await asyncio.Event().wait()

    chain = [Interceptor(name="slow", leave=wait), websocket_interceptor("last", OPTIONS)]
    connector = FakeConnector(Application([("/", chain)]), shutdown_timeout=60)
    await connector.start()
    task = asyncio.ensure_future(connector.request(handshake()))
    await passes()
    await connector.stop()
    response = await task
    assert isinstance(response, Response)
    assert response.status_code == 503
    assert task.cancelling() == 0
    assert not connector.channels


@pytest.mark.rule("STOP-5")
async def test_a_handshake_that_passes_its_stages_during_a_stop_is_refused() -> None:
    async def stubborn(context: Context) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    chain = [Interceptor(name="slow", leave=stubborn), websocket_interceptor("last", OPTIONS)]
    connector = FakeConnector(Application([("/", chain)]), shutdown_timeout=60)
    await connector.start()
    task = asyncio.ensure_future(connector.request(handshake()))
    await passes()
    await connector.stop()
    response = await task
    assert isinstance(response, Response)
    assert response.status_code in (404, 503)
    assert not connector.channels


@pytest.mark.rule("STOP-5")
async def test_a_channel_that_has_not_opened_yet_is_waited_for() -> None:
    connector = serving(shutdown_timeout=60)
    await connector.start()
    source = FakeSource(connector, handshake())
    channel = await connector.handle(source.request, source)
    assert isinstance(channel, PushedChannel)
    stopping = asyncio.ensure_future(connector.stop())
    await passes()
    assert not stopping.done()
    connector.run_channel(channel)
    await passes()
    assert channel.wire.written == [("close", 1001, "server shutdown")]
    channel.comes("close", 1001, "")
    await stopping


@pytest.mark.rule("CLOSE-5")
async def test_bytes_that_a_peer_leaves_unread_are_given_up_after_the_close_timeout() -> None:
    connector = serving(WebSocketOptions(close_timeout=3))
    time = connector.use_fake_time()
    channel = await connector.open()
    channel.wire.unsent = 7
    channel.comes("close", 1000, "")
    await passes()
    assert not connector.tasks
    time.advance(3.1)
    assert channel.wire.kinds == ["close", "disconnect", "abort"]
    time.advance(10)
    assert channel.wire.kinds == ["close", "disconnect", "abort"]


# ---- mounts -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MOUNT-1")
async def test_a_mount_of_options_serves_any_path_and_checks_the_handshake() -> None:
    mount = Mount(serving(), OPTIONS)
    source = FakeSource(mount.connector, handshake("/any/path"))
    channel = await mount.handle(source.request, source)
    assert isinstance(channel, BaseChannel)
    channel.abandon()
    refusal = handshake("/any/path", method="POST")
    response = await mount.handle(refusal, FakeSource(mount.connector, refusal))
    assert isinstance(response, Response)
    assert response.status_code == 405


@pytest.mark.rule("MOUNT-1")
async def test_a_mount_of_an_application_has_its_routes() -> None:
    app = Application([("/here", OPTIONS)])
    mount = Mount(FakeConnector(app), app)
    for target, status in (("/here", None), ("/there", 404)):
        request = handshake(target)
        outcome = await mount.handle(request, FakeSource(mount.connector, request))
        assert getattr(outcome, "status_code", None) == status
        if isinstance(outcome, BaseChannel):
            outcome.abandon()


@pytest.mark.rule("MOUNT-1", "STOP-2")
async def test_a_mount_stops_its_channels_and_takes_no_more() -> None:
    connector = serving()
    mount = Mount(connector, OPTIONS)
    source = FakeSource(connector, handshake())
    channel = await mount.handle(source.request, source)
    assert isinstance(channel, PushedChannel)
    connector.run_channel(channel)
    await passes()
    stops = [asyncio.ensure_future(mount.stop()) for _ in range(2)]
    await passes()
    assert channel.wire.written == [("close", 1001, "server shutdown")]
    channel.comes("close", 1001, "")
    await asyncio.gather(*stops)
    late = handshake()
    response = await mount.handle(late, FakeSource(connector, late))
    assert isinstance(response, Response)
    assert response.status_code == 503
    await mount.stop()
    assert connector.calls == []


@pytest.mark.rule("MOUNT-2")
async def test_the_clock_of_a_mount_ends_with_its_last_channel() -> None:
    connector = serving()
    time = connector.use_fake_time()
    mount = Mount(connector, OPTIONS)
    assert time.timers == []
    channels: list[PushedChannel] = []
    for _ in range(2):
        source = FakeSource(connector, handshake())
        channel = await mount.handle(source.request, source)
        assert isinstance(channel, PushedChannel)
        connector.run_channel(channel)
        channels.append(channel)
    await passes()
    assert time.timers == [1020]
    for channel in channels:
        channel.comes("lost")
    await passes()
    assert time.timers == []
