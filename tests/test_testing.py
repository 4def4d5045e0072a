"""`wsbridge.testing`: a peer without a socket, what it sees, and what it must not lose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.virtual_time import in_virtual_time
from wsbridge import (
    Application,
    ChannelClosedError,
    CloseReason,
    ConnectorStateError,
    Context,
    Interceptor,
    MessageKindError,
    MessageStream,
    Request,
    Response,
    UnsupportedOptionError,
    WebSocketChannel,
    WebSocketOptions,
    run,
    serve,
    start_ws_connection,
    stream_handler,
    websocket_interceptor,
)
from wsbridge.connectors.memory import Close, Connector, End, Ping
from wsbridge.testing import Connecting, HandshakeRefusedError, connect, request


async def echo_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    await channel.send_text(text)


async def echo_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
    await channel.send_binary(data)


ECHO = WebSocketOptions(on_text=echo_text, on_binary=echo_binary)


class Seen:
    """What an application's callbacks saw."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.reasons: list[CloseReason] = []
        self.requests: list[Request] = []
        self.channels: list[WebSocketChannel] = []

    def options(self, **options: Any) -> WebSocketOptions[Any]:
        return WebSocketOptions(
            **{
                "on_open": self.opened,
                "on_text": lambda channel, process, text: self.messages.append(text),
                "on_binary": lambda channel, process, data: self.messages.append(data),
                "on_close": lambda channel, process, reason: self.reasons.append(reason),
                **options,
            }
        )

    def opened(self, channel: WebSocketChannel, request: Request) -> None:
        self.channels.append(channel)
        self.requests.append(request)

    @property
    def ends(self) -> list[tuple[int, str, str]]:
        return [(reason.code, reason.text, reason.initiator) for reason in self.reasons]


def end(reason: CloseReason | None) -> tuple[int, str, str] | None:
    return None if reason is None else (reason.code, reason.text, reason.initiator)


@pytest.fixture
def seen() -> Seen:
    return Seen()


# ---- messages -------------------------------------------------------------------------------------------------------


async def test_messages_go_there_and_back() -> None:
    async with connect(ECHO, "/echo") as peer:
        for message in ("hello", "", "\u20ac\U0001f600", b"", b"\x00\xff", "x" * 1024 * 1024):
            await peer.send(message)
            assert await peer.receive() == message
        await peer.send(bytearray(b"ab"))
        assert await peer.receive_binary() == b"ab"
        await peer.send(memoryview(b"cd"))
        assert await peer.receive() == b"cd"
        await peer.send_json({"a": [1, "\u20ac"]})
        assert await peer.receive_json() == {"a": [1, "\u20ac"]}
        assert peer.reason is None


async def test_what_is_no_message_is_refused() -> None:
    async with connect(ECHO) as peer:
        with pytest.raises(TypeError, match="not int"):
            await peer.send(7)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            await peer.send("\ud800")
        await peer.send("still there")
        assert await peer.receive_text() == "still there"


async def test_a_message_of_the_other_kind_stays_the_next() -> None:
    async with connect(ECHO) as peer:
        await peer.send("text")
        with pytest.raises(MessageKindError, match="text 'text'"):
            await peer.receive_binary()
        assert await peer.receive_text() == "text"
        await peer.send(b"data")
        with pytest.raises(MessageKindError, match="binary b'data'"):
            await peer.receive_text()
        assert await peer.receive_binary() == b"data"


async def test_a_loop_over_messages_ends_with_the_channel() -> None:
    async def count(channel: WebSocketChannel, request: Request) -> None:
        for number in range(int(request.args["to"])):
            await channel.send_text(str(number))
        channel.close(4000, "done")

    async with connect(WebSocketOptions(on_open=count), "/?to=3") as peer:
        assert [message async for message in peer] == ["0", "1", "2"]
        assert end(peer.reason) == (4000, "done", "local")
        with pytest.raises(ChannelClosedError, match="4000"):
            await peer.receive()
        with pytest.raises(ChannelClosedError):
            await peer.send("too late")


async def test_a_stream_handler_is_tested_like_callbacks() -> None:
    async def shout(stream: MessageStream, request: Request) -> None:
        async for message in stream:
            assert isinstance(message, str)
            await stream.send(message.upper())

    async with connect(stream_handler(shout)) as peer:
        await peer.send("a")
        assert await peer.receive() == "A"


async def test_two_peers_of_one_application(seen: Seen) -> None:
    channels: list[WebSocketChannel] = []

    async def say(channel: WebSocketChannel, process: None, text: str) -> None:
        for other in channels:
            await other.send_text(text)

    options = WebSocketOptions(on_open=lambda channel, request: channels.append(channel), on_text=say)
    async with connect(options) as ada, connect(options) as grace:
        await ada.send("hello")
        assert [await ada.receive(), await grace.receive()] == ["hello", "hello"]


# ---- timeouts -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_receive_past_its_timeout_tells_what_has_arrived() -> None:
    async with connect(ECHO) as peer:
        with pytest.raises(TimeoutError, match=r"no message within 0\.01 s; arrived until then: nothing$"):
            await peer.receive(timeout=0.01)
        await peer.send("a" * 50)
        await peer.send(b"b")
        await peer.receive()
        await peer.receive()
        await peer.advance(20)
        expected = rf"text '{'a' * 40}'\.\.\. \(50 in all\), binary b'b', ping$"
        with pytest.raises(TimeoutError, match=expected):
            await peer.receive(timeout=0.01)
        await peer.send("after")
        assert await peer.receive() == "after"


@in_virtual_time
async def test_a_timeout_tells_which_callback_still_runs() -> None:
    async def hangs(channel: WebSocketChannel, process: Any, text: str) -> None:
        await asyncio.Event().wait()

    async with connect(WebSocketOptions(on_text=hangs), timeout=0.02) as peer:
        await peer.send("a")
        with pytest.raises(TimeoutError, match=r"in .*hangs"):
            await peer.receive()
        with pytest.raises(TimeoutError, match="callbacks did not end"):
            await peer.close()


@in_virtual_time
async def test_every_wait_has_a_limit() -> None:
    async with connect(ECHO, timeout=0.02, auto_close=False) as peer:
        with pytest.raises(TimeoutError, match=r"no message within 0\.02 s"):
            await peer.receive_text()
        with pytest.raises(TimeoutError, match="no message"):
            async for _ in peer:
                pass
        with pytest.raises(TimeoutError, match="the channel did not end"):
            await peer.wait_closed()


@in_virtual_time
async def test_receive_nothing_finds_what_is_there() -> None:
    async with connect(ECHO) as peer:
        await peer.receive_nothing(0.01)
        await peer.send("a")
        with pytest.raises(AssertionError, match="text 'a'"):
            await peer.receive_nothing()
        assert await peer.receive() == "a"
        await peer.close()
        await peer.receive_nothing(0.01)


async def test_two_that_receive_at_once_are_a_mistake() -> None:
    async with connect(ECHO) as peer:
        first = asyncio.ensure_future(peer.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await peer.receive()
        await peer.send("a")
        assert await first == "a"


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with connect(ECHO) as peer:
        reading = asyncio.ensure_future(peer.receive())
        await asyncio.sleep(0)
        await peer.send("a")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await peer.receive() == "a"


# ---- closes ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLOSE-7")
@pytest.mark.parametrize(("code", "got"), [(1000, 1000), (4321, 4321), (None, 1005)])
async def test_the_peer_closes(seen: Seen, code: int | None, got: int) -> None:
    async with connect(seen.options()) as peer:
        text = "" if code is None else "bye"
        assert end(await peer.close(code, text)) == (got, text, "peer")
        assert seen.ends == [(got, text, "peer")]  # on_close has run
        assert [arrival for arrival in peer.connection.arrived if isinstance(arrival, Close)] == [Close(code, text)]
        assert end(peer.channel.reason) == (got, text, "peer")


async def test_a_close_that_cannot_be_sent_is_refused(seen: Seen) -> None:
    async with connect(seen.options()) as peer:
        for code in (999, 1005, 1006, 5000):
            with pytest.raises(ValueError, match=str(code)):
                await peer.close(code)
        with pytest.raises(ValueError, match="text"):
            await peer.close(None, "why")
        assert peer.reason is None


async def test_a_close_need_not_be_waited_for(seen: Seen) -> None:
    goes_on = asyncio.Event()

    async def waits(channel: WebSocketChannel, process: Any, reason: CloseReason) -> None:
        await goes_on.wait()

    async with connect(seen.options(on_close=waits)) as peer:
        assert end(await peer.close(4000, wait=False)) == (4000, "", "peer")
        goes_on.set()
        assert end(await peer.wait_closed()) == (4000, "", "peer")


@pytest.mark.rule("CLOSE-7")
async def test_the_application_closes(seen: Seen) -> None:
    async with connect(seen.options(on_text=lambda channel, process, text: channel.close(4000, "\u20ac"))) as peer:
        await peer.send("go")
        assert end(await peer.wait_closed()) == (4000, "\u20ac", "local")
        assert seen.ends == [(4000, "\u20ac", "local")]


async def test_messages_before_a_close_are_received_first() -> None:
    async def talk(channel: WebSocketChannel, request: Request) -> None:
        await channel.send_text("a")
        await channel.send_text("b")
        channel.close(4000)

    async with connect(WebSocketOptions(on_open=talk)) as peer:
        await peer.wait_closed()
        assert [await peer.receive(), await peer.receive()] == ["a", "b"]
        for _ in range(2):
            with pytest.raises(ChannelClosedError) as closed:
                await peer.receive()
            assert closed.value.reason.code == 4000


@pytest.mark.rule("CLOSE-7")
async def test_the_peer_is_lost(seen: Seen) -> None:
    async with connect(seen.options()) as peer:
        assert end(await peer.drop()) == (1006, "", "network")
        assert seen.ends == [(1006, "", "network")]
        assert await seen.channels[0].send_text("gone") is False


@pytest.mark.rule("LIM-1")
async def test_a_message_that_is_too_big(seen: Seen) -> None:
    async with connect(seen.options(max_text_size=3)) as peer:
        await peer.send("abc")
        await peer.send("\u20ac1")
        assert end(await peer.wait_closed()) == (1009, "", "local")
        assert seen.messages == ["abc"]


@pytest.mark.rule("CLOSE-10")
async def test_closes_that_cross() -> None:
    reasons: list[CloseReason] = []

    def close_too(channel: WebSocketChannel, process: Any, text: str) -> None:
        channel.close(4001)
        peer.connection.close(4002)

    options = WebSocketOptions(on_text=close_too, on_close=lambda channel, process, reason: reasons.append(reason))
    async with connect(options) as peer:
        await peer.send("go")
        await peer.wait_closed()
        assert [reason.code for reason in reasons] == [4001]


@pytest.mark.rule("CLOSE-5")
async def test_a_peer_that_never_answers_a_close_is_cut_off(seen: Seen) -> None:
    async with connect(seen.options(close_timeout=10), auto_close=False) as peer:
        peer.channel.close(4000)
        await peer.advance(9.9)
        assert (seen.reasons, peer.connection.is_over) == ([], False)
        await peer.advance(0.2)
        assert seen.ends == [(4000, "", "local")]
        assert list(peer.connection.arrived) == [Close(4000, ""), End(is_cut=True)]


@pytest.mark.rule("SEND-1")
async def test_sends_after_the_end_answer_false(seen: Seen) -> None:
    async with connect(seen.options()) as peer:
        await peer.close()
        assert await peer.channel.send_text("a") is False
        assert await peer.channel.send_binary(b"a") is False


# ---- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-2")
async def test_an_idle_timeout_in_no_time(seen: Seen) -> None:
    async with connect(seen.options(idle_timeout=3600)) as peer:
        await peer.advance(3599)
        await peer.send("a")
        await peer.receive_nothing(0.01)
        await peer.advance(3599)
        assert peer.reason is None
        await peer.advance(1.1)
        assert end(peer.reason) == (1001, "idle timeout", "local")
        assert seen.ends == [(1001, "idle timeout", "local")]


@pytest.mark.rule("LIM-3")
async def test_pings_and_a_peer_that_answers_them(seen: Seen) -> None:
    async with connect(seen.options(ping_interval=20, ping_timeout=5)) as peer:
        await peer.advance(105)
        assert sum(isinstance(arrival, Ping) for arrival in peer.connection.arrived) == 5
        assert peer.reason is None


@pytest.mark.rule("LIM-3")
async def test_a_peer_that_answers_no_ping(seen: Seen) -> None:
    async with connect(seen.options(ping_interval=20, ping_timeout=5), auto_pong=False) as peer:
        await peer.advance(24)
        assert peer.reason is None
        await peer.advance(2)
        assert end(peer.reason) == (1011, "ping timeout", "local")
        assert seen.ends == [(1011, "ping timeout", "local")]


@pytest.mark.rule("LIM-4")
async def test_a_peer_that_takes_nothing(seen: Seen) -> None:
    async with connect(seen.options(send_timeout=60, ping_interval=None), window=1000) as peer:
        assert await peer.channel.send_binary(bytes(2000)) is True
        waiting = asyncio.ensure_future(peer.channel.send_text("waits"))
        await peer.advance(50)
        assert (waiting.done(), peer.reason) == (False, None)
        await peer.advance(30)
        assert await waiting is False
        assert seen.ends == [(1008, "send timeout", "local")]


@pytest.mark.parametrize("seconds", [0, -1, float("inf")])
async def test_time_goes_forward(seconds: float) -> None:
    async with connect(ECHO) as peer:
        with pytest.raises(ValueError, match="seconds"):
            await peer.advance(seconds)


@in_virtual_time
async def test_the_clock_on_the_wall_counts_too(seen: Seen) -> None:
    async with connect(seen.options(idle_timeout=0.05)) as peer:
        assert end(await peer.wait_closed()) == (1001, "idle timeout", "local")


async def test_pings_of_the_peer(seen: Seen) -> None:
    async with connect(seen.options()) as peer:
        await peer.ping(b"there?")
        with pytest.raises(ValueError, match="125"):
            await peer.ping(bytes(126))
        await peer.close()
        with pytest.raises(ChannelClosedError):
            await peer.ping()


# ---- back-pressure --------------------------------------------------------------------------------------------------


@pytest.mark.rule("FLOW-2")
async def test_the_application_waits_for_a_peer_that_does_not_read() -> None:
    async with connect(WebSocketOptions(), window=10_000) as peer:
        sends = [asyncio.ensure_future(peer.channel.send_binary(bytes(4000))) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [send.done() for send in sends] == [True, True, True, False, False]
        assert await peer.receive() == bytes(4000)
        assert await sends[3]
        assert [len(await peer.receive()) for _ in range(4)] == [4000] * 4
        assert await asyncio.gather(*sends) == [True] * 5


@pytest.mark.rule("FLOW-1")
@in_virtual_time
async def test_the_peer_waits_for_an_application_that_is_busy() -> None:
    goes_on = asyncio.Event()
    count = 0

    async def slow(channel: WebSocketChannel, process: Any, text: str) -> None:
        nonlocal count
        await goes_on.wait()
        count += 1

    async with connect(WebSocketOptions(on_text=slow), window=1000) as peer:
        sent = 0
        with pytest.raises(TimeoutError, match="took no more messages"):  # noqa: PT012  (the block is what is tested)
            while sent < 1000:
                sent += 1
                await peer.send("", timeout=0.01)
        assert 2 <= sent < 200
        with pytest.raises(TimeoutError, match="no pong"):
            await peer.ping(timeout=0.01)
        pinging = asyncio.ensure_future(peer.ping())
        goes_on.set()
        await pinging
        await peer.send("last")
        await peer.close()
        assert count == sent + 1


async def test_a_ping_waits_behind_what_the_peer_does_not_read() -> None:
    async with connect(WebSocketOptions(ping_interval=20, ping_timeout=5), window=100) as peer:
        await peer.channel.send_binary(bytes(200))
        await peer.advance(21)
        await peer.receive()
        await peer.advance(3)
        assert peer.reason is None


async def test_a_close_behind_what_the_peer_does_not_read(seen: Seen) -> None:
    async with connect(seen.options(), window=100) as peer:
        await peer.channel.send_binary(bytes(200))
        peer.channel.close(4000)
        await peer.advance(1)
        assert seen.ends == []
        assert len(await peer.receive()) == 200
        assert end(await peer.wait_closed()) == (4000, "", "local")
        assert seen.ends == [(4000, "", "local")]


# ---- the handshake --------------------------------------------------------------------------------------------------


async def test_the_handshake_is_the_applications(seen: Seen) -> None:
    app = Application([("/room/{name}", seen.options(subprotocols=["v2", "v1"]))])
    headers = {"Cookie": "a=b", "X-Many": ["1", "2"], "Host": "chat.example"}
    async with connect(app, "/room/caf\u00e9 1?q=\u20ac", headers=headers, subprotocols=["v1", "v3"]) as peer:
        assert peer.subprotocol == "v1"
        assert peer.headers["Sec-WebSocket-Protocol"] == "v1"
        got = seen.requests[0]
        assert (got.path_params, got.args["q"]) == ({"name": "caf\u00e9 1"}, "\u20ac")
        assert (got.cookies["a"], got.headers.getlist("x-many"), got.host) == ("b", ["1", "2"], "chat.example")
        assert (got.scheme, got.remote_address) == ("ws", ("127.0.0.1", 50000))
        assert got.native is peer.connection.request
        assert seen.channels[0].native is peer.connection
        assert peer.channel is seen.channels[0]
    async with connect(app, "/room/a", scheme="wss", client=None) as peer:
        assert (seen.requests[1].scheme, seen.requests[1].remote_address) == ("wss", None)


@pytest.mark.rule("HS-8")
async def test_headers_of_the_101() -> None:
    def enter(context: Context) -> None:
        context["websocket_channel_source"].response_headers.add("X-One", "a")
        context["websocket_channel_source"].response_headers.add("X-One", "b")

    chain = (Interceptor(name="headers", enter=enter), websocket_interceptor("echo", ECHO))
    async with connect(chain, "/anywhere/at/all") as peer:
        assert peer.headers.getlist("X-One") == ["a", "b"]
        await peer.send("a")
        assert await peer.receive() == "a"


async def test_a_refusal_is_an_exception_that_tells() -> None:
    def enter(context: Context) -> None:
        context["response"] = Response("no entry", 403, {"X-Why": "because"})

    with pytest.raises(HandshakeRefusedError, match="403 b'no entry'") as refused:
        async with connect((Interceptor(name="no", enter=enter),)):
            pass
    assert (refused.value.status, refused.value.body) == (403, b"no entry")
    assert refused.value.headers["X-Why"] == "because"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Upgrade": "h2c"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 426),
    ],
)
@pytest.mark.rule("HS-4", "HS-6")
async def test_the_core_checks_the_handshake(headers: dict[str, str], status: int) -> None:
    with pytest.raises(HandshakeRefusedError) as refused:
        await connect(ECHO, headers=headers)
    assert refused.value.status == status


@pytest.mark.rule("HS-5")
async def test_a_path_with_no_route() -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await connect(Application([("/a", ECHO)]), "/b")


@pytest.mark.rule("HS-9")
async def test_an_interceptor_that_raises_is_the_cause_of_the_500(caplog: pytest.LogCaptureFixture) -> None:
    chain = (Interceptor(name="bad", enter=raises),)
    with pytest.raises(HandshakeRefusedError, match="500") as refused:
        await connect(chain)
    assert isinstance(refused.value.__cause__, Oops)


@in_virtual_time
async def test_a_handshake_that_hangs_has_a_limit() -> None:
    ended = asyncio.Event()

    async def hangs(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await connect((Interceptor(name="hangs", enter=hangs),), timeout=0.02)
    assert ended.is_set()


async def test_plain_requests() -> None:
    def enter(context: Context) -> None:
        if context["request"].path == "/health":
            context["response"] = Response(context["request"].method, 200, {"X-A": "1"})

    app = Application([("/echo", ECHO)], interceptors=[Interceptor(name="health", enter=enter)])
    answer = await request(app, "/health", method="POST", headers=[("X-B", "2")])
    assert (answer.status, answer.headers["X-A"], answer.body) == (200, "1", b"POST")
    assert (await request(app, "/health", method="HEAD")).body == b""
    assert (await request(app, "/echo")).status == 426
    assert (await request(app, "/other")).status == 404


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"path": "echo"}, ValueError),
        ({"scheme": "http"}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"subprotocols": "chat"}, TypeError),
        ({"headers": {"X-Euro": "\u20ac"}}, UnicodeEncodeError),
    ],
)
def test_arguments_are_checked_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        connect(ECHO, **arguments)


async def test_the_window_is_checked() -> None:
    with pytest.raises(ValueError, match="window"):
        await connect(ECHO, window=0)


async def test_compression_makes_no_difference() -> None:
    app = Application([("/", WebSocketOptions(on_text=echo_text, compression=True))])
    async with connect(app, headers={"Sec-WebSocket-Extensions": "permessage-deflate"}) as peer:
        assert "Sec-WebSocket-Extensions" not in peer.headers
        await peer.send("a")
        assert await peer.receive() == "a"


# ---- what the application raises ------------------------------------------------------------------------------------


class Oops(Exception):
    pass


def raises(*arguments: object) -> Any:
    raise Oops("here")


async def raise_in_stream(stream: MessageStream, request: Request) -> None:
    await stream.recv()
    raise Oops("here")


FAILING: dict[str, WebSocketOptions[Any]] = {
    "on_open": WebSocketOptions(on_open=raises),
    "on_text": WebSocketOptions(on_text=raises),
    "stream": stream_handler(raise_in_stream),
}


@pytest.mark.parametrize("options", FAILING.values(), ids=FAILING)
async def test_an_exception_is_the_cause_of_the_end_that_it_makes(options: WebSocketOptions[Any]) -> None:
    with pytest.raises(ChannelClosedError, match="1011") as closed:  # noqa: PT012  (the block is what is tested)
        async with connect(options) as peer:
            if options is not FAILING["on_open"]:
                await peer.send("go")
            await peer.receive()
    assert isinstance(closed.value.__cause__, Oops)


@pytest.mark.parametrize("options", [*FAILING.values(), WebSocketOptions(on_close=raises)], ids=[*FAILING, "on_close"])
async def test_an_exception_is_raised_at_the_end_of_the_block(options: WebSocketOptions[Any]) -> None:
    with pytest.raises(Oops, match="here"):  # noqa: PT012  (the block is what is tested)
        async with connect(options) as peer:
            if options is FAILING["on_text"] or options is FAILING["stream"]:
                await peer.send("go")


async def test_an_exception_can_be_kept() -> None:
    async with connect(FAILING["on_text"], raise_errors=False) as peer:
        await peer.send("go")
        assert end(await peer.wait_closed()) == (1011, "", "local")
        assert [repr(error) for error in peer.errors] == ["Oops('here')"]


async def test_exceptions_are_told_apart_by_peer() -> None:
    async with connect(FAILING["on_text"], raise_errors=False) as bad, connect(ECHO) as good:
        await bad.send("go")
        await bad.wait_closed()
        assert (len(bad.errors), len(good.errors)) == (1, 0)


async def test_an_exception_of_the_test_is_not_hidden() -> None:
    with pytest.raises(AssertionError, match="of the test"):  # noqa: PT012  (the block is what is tested)
        async with connect(FAILING["on_text"]) as peer:
            await peer.send("go")
            await peer.wait_closed()
            raise AssertionError("of the test")


async def test_a_second_exception_is_noted() -> None:
    def worse(*arguments: object) -> None:
        raise KeyError("there")

    with pytest.raises(Oops) as raised:  # noqa: PT012  (the block is what is tested)
        async with connect(WebSocketOptions(on_text=raises, on_error=worse)) as peer:
            await peer.send("go")
            await peer.wait_closed()
    assert any("KeyError('there')" in note for note in raised.value.__notes__)


async def test_a_stray_cancellation_does_not_cancel_the_test() -> None:
    def stray(*arguments: object) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="CancelledError"):  # noqa: PT012  (the block is what is tested)
        async with connect(WebSocketOptions(on_text=stray)) as peer:
            await peer.send("go")
            await peer.wait_closed()


# ---- beginning and end ----------------------------------------------------------------------------------------------


async def test_the_end_of_the_block_closes_and_waits(seen: Seen) -> None:
    async with connect(seen.options()) as peer:
        pass
    assert seen.ends == [(1000, "", "peer")]
    assert peer.connection.task.done()


async def test_the_end_of_a_block_that_fails_is_a_loss(seen: Seen) -> None:
    with pytest.raises(Oops):
        async with connect(seen.options()):
            raise Oops
    assert seen.ends == [(1006, "", "network")]


async def test_a_callback_that_never_ends_is_cancelled_at_the_end_of_the_block() -> None:
    cancelled = asyncio.Event()

    async def forever(channel: WebSocketChannel, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with connect(WebSocketOptions(on_open=forever)):
        pass
    assert cancelled.is_set()


async def test_it_can_be_awaited_and_ended_by_hand(seen: Seen) -> None:
    connecting = connect(seen.options())
    peer = await connecting
    assert isinstance(connecting, Connecting)
    with pytest.raises(RuntimeError, match="before"):
        await connecting
    await peer.send("a")
    await connecting.aclose()
    await connecting.aclose()
    assert (seen.messages, seen.ends) == (["a"], [(1000, "", "peer")])


@pytest.fixture
async def connector(seen: Seen) -> AsyncGenerator[Connector, None]:
    async with Connector(Application([("/", seen.options())]), max_channels=2) as connector:
        yield connector


async def test_several_peers_of_one_connector(connector: Connector, seen: Seen) -> None:
    async with connect(connector) as one, connect(connector):
        with pytest.raises(HandshakeRefusedError) as refused:
            await connect(connector)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
        await one.close()
        async with connect(connector) as three:
            await three.send("a")
            await three.close()
    assert seen.messages == ["a"]


@pytest.mark.rule("STOP-2")
async def test_a_stop_is_seen_by_the_peer(connector: Connector, seen: Seen) -> None:
    async with connect(connector) as peer:
        await connector.stop()
        assert end(await peer.wait_closed()) == (1001, "server shutdown", "local")
        assert seen.ends == [(1001, "server shutdown", "local")]
        with pytest.raises(ConnectionRefusedError):
            await connect(connector)


async def test_the_time_of_a_connector_is_that_of_all_its_channels(seen: Seen) -> None:
    async with (
        Connector(Application([("/", seen.options(idle_timeout=60))])) as connector,
        connect(connector) as one,
        connect(connector) as two,
    ):
        await connector.advance(61)
        assert [end(one.reason), end(two.reason)] == [(1001, "idle timeout", "local")] * 2


async def test_it_is_a_connector_like_others() -> None:
    async with serve(Application([("/", ECHO)]), "memory") as connector:
        assert list(connector.addresses) == []
        with pytest.raises(ConnectorStateError):
            print(connector.url)
        assert isinstance(connector, Connector)
        async with connect(connector) as peer:
            await peer.send("a")
            assert await peer.receive() == "a"


@pytest.mark.parametrize(
    "options", [{"host": "0.0.0.0"}, {"port": 8000}, {"unix_path": "x.sock"}, {"reuse_port": True}], ids=str
)
def test_what_needs_a_socket_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"memory connector cannot honour {next(iter(options))}"):
        Connector(Application([("/", ECHO)]), **options)


def test_compression_is_refused_but_for_tests() -> None:
    app = Application([("/", WebSocketOptions(compression=True))])
    with pytest.raises(UnsupportedOptionError, match="compression"):
        Connector(app)
    Connector(app, native_options={"ignore_compression": True})


async def test_nothing_is_left_over(seen: Seen) -> None:
    before = asyncio.all_tasks()
    filters = list(logging.getLogger("wsbridge").filters)
    async with connect(seen.options()) as peer:
        await peer.send("a")
    async with connect(seen.options()) as peer:
        await peer.drop()
    assert asyncio.all_tasks() == before
    assert logging.getLogger("wsbridge").filters == filters


async def test_a_queue_in_front_of_a_channel_works_here_too() -> None:
    async def open_queue(channel: WebSocketChannel, request: Request) -> None:
        async with start_ws_connection(channel) as queue:
            for number in range(30):
                await queue.put(str(number))

    async with connect(WebSocketOptions(on_open=open_queue), window=100) as peer:
        assert [message async for message in peer] == [str(number) for number in range(30)]


def test_it_serves_no_network() -> None:
    with pytest.raises(UnsupportedOptionError, match="the memory connector has no socket"):
        run(Application([("/", ECHO)]), "memory")
