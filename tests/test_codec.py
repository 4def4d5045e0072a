"""Codecs: what they read and write, and what a channel and a stream make of what they refuse."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from typing import Any

import pytest

from tests.fakes import FakeChannel, FakeConnector, passes
from wsbridge import (
    Application,
    Codec,
    MessageDecodeError,
    MessageKindError,
    MessageStream,
    Request,
    WebSocketOptions,
    json_codec,
    msgspec_codec,
    stream_handler,
)
from wsbridge.codec import Decoded


@pytest.fixture(params=["msgspec", "stdlib"])
def by_json(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Codec[Any]:
    """Return the JSON codec of either package."""
    if request.param == "msgspec":
        pytest.importorskip("msgspec")
    else:
        monkeypatch.setitem(sys.modules, "msgspec", None)  # as if it were not installed
    return json_codec()


@dataclasses.dataclass
class Move:
    x: int
    y: int = 0


# ---- ready-made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True]}, "text", "", 7, None, [], {"\N{SNOWMAN}": "\n"}, 2**53])
def test_json_there_and_back(by_json: Codec[Any], value: object) -> None:
    text = by_json.encode(value)
    assert isinstance(text, str)
    assert json.loads(text) == value
    assert by_json.decode(text) == value


def test_json_is_compact(by_json: Codec[Any]) -> None:
    assert by_json.encode({"a": [1, "\N{SNOWMAN}"]}) == '{"a":[1,"\N{SNOWMAN}"]}'


@pytest.mark.parametrize("text", ["", "{", "nul", "{'a': 1}", "[1,]", "NaN", "[Infinity]", "-Infinity", "1 2"])
def test_what_is_no_json(by_json: Codec[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as e:
        by_json.decode(text)
    assert not isinstance(e.value, MessageKindError)


def test_json_is_text(by_json: Codec[Any]) -> None:
    with pytest.raises(MessageKindError, match="binary"):
        by_json.decode(b"{}")


@pytest.mark.parametrize("value", [object(), {1j: 2}])
def test_what_json_does_not_know(by_json: Codec[Any], value: object) -> None:
    with pytest.raises(TypeError):
        by_json.encode(value)


def test_msgspec_json() -> None:
    pytest.importorskip("msgspec")
    codec = msgspec_codec(Move)
    assert codec.encode(Move(1, 2)) == '{"x":1,"y":2}'
    assert codec.decode('{"x":3}') == Move(3)
    with pytest.raises(ValueError, match=r"Expected `int`, got `str` - at `\$.x`"):
        codec.decode('{"x":"3"}')
    with pytest.raises(MessageKindError):
        codec.decode(b'{"x":3}')


def test_msgspec_msgpack() -> None:
    pytest.importorskip("msgspec")
    codec = msgspec_codec(Move, format="msgpack")
    data = codec.encode(Move(1, 2))
    assert isinstance(data, bytes)
    assert codec.decode(data) == Move(1, 2)
    with pytest.raises(ValueError, match="truncated"):
        codec.decode(data[:-1])
    with pytest.raises(MessageKindError, match="text"):
        codec.decode("text")


def test_msgspec_of_what_it_does_not_read() -> None:
    pytest.importorskip("msgspec")
    wrong: Any = "yaml"
    with pytest.raises(ValueError, match="format must be 'json' or 'msgpack', not 'yaml'"):
        msgspec_codec(Move, format=wrong)
    with pytest.raises(TypeError):
        msgspec_codec(7)


def test_msgspec_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ImportError, match=r"pip install 'wsbridge\[msgspec\]'"):
        msgspec_codec(Move)


# ---- as an option ---------------------------------------------------------------------------------------------------


class Numbers:
    """Numbers in binary messages."""

    def encode(self, message: int, /) -> bytes:
        return b"%d" % message

    def decode(self, data: str | bytes, /) -> int:
        if isinstance(data, str):
            raise MessageKindError("numbers are binary")
        return int(data)


class HalfACodec:
    def decode(self, data: str | bytes, /) -> int:
        return 0


def log_of(log: list[Any]) -> Any:
    def on_message(channel: Any, process: Any, message: Any) -> None:
        log.append(message)

    return on_message


def test_numbers_are_a_codec() -> None:
    assert isinstance(Numbers(), Codec)
    assert not isinstance(HalfACodec(), Codec)


@pytest.mark.rule("LIM-5", "STREAM-10")
def test_a_codec_that_lacks_a_method_is_refused() -> None:
    wrong: Any = HalfACodec()

    async def handler(stream: MessageStream, request: Request) -> None: ...

    for define in (lambda: WebSocketOptions(codec=wrong), lambda: stream_handler(handler, codec=wrong)):
        with pytest.raises(TypeError, match="codec must have a method 'encode'"):
            define()


def test_on_message_needs_a_codec() -> None:
    with pytest.raises(ValueError, match="on_message needs a codec"):
        WebSocketOptions(on_message=log_of([]))
    with pytest.raises(TypeError, match="on_message must be callable"):
        WebSocketOptions(on_message=7, codec=Numbers())  # type: ignore[call-overload]


def test_options_may_be_replaced() -> None:
    one, two = log_of([]), log_of([])

    def on_text(channel: Any, process: Any, text: str) -> None: ...

    options = WebSocketOptions(on_message=one, codec=Numbers(), on_text=on_text)
    other = dataclasses.replace(options, on_message=two, idle_timeout=7)
    assert isinstance(other.on_binary, Decoded)
    assert (other.on_text, other.on_binary.callback, other.idle_timeout) == (on_text, two, 7)


async def opened(options: WebSocketOptions[Any]) -> FakeChannel:
    channel = await FakeConnector(Application([("/", options)])).open()
    await passes()
    return channel


async def leave(channel: FakeChannel) -> None:
    channel.comes("close", 1000, "")
    channel.comes("lost")
    await passes()


@pytest.mark.parametrize("style", ["callback", "stream"])
@pytest.mark.parametrize(
    ("kind", "data", "code", "error"),
    [("binary", b"seven", 1007, MessageDecodeError), ("text", "7", 1003, MessageKindError)],
)
async def test_what_a_codec_refuses(
    style: str, kind: str, data: Any, code: int, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Any] = []
    told: list[Any] = []

    async def handler(stream: MessageStream[int], request: Request) -> None:
        got.extend([message async for message in stream])

    on_error = log_of(told)
    if style == "callback":
        options: WebSocketOptions[Any] = WebSocketOptions(on_message=log_of(got), codec=Numbers(), on_error=on_error)
    else:
        options = stream_handler(handler, codec=Numbers(), on_error=on_error)
    channel = await opened(options)
    channel.comes("binary", b"7")
    channel.comes(kind, data)
    channel.comes("binary", b"8")
    await passes()
    await leave(channel)
    assert got == [7]
    assert [type(exception) for exception in told] == [error]
    assert channel.wire.written[0] == ("close", code, "")
    assert channel.reason is not None
    assert channel.reason.code == code
    if error is MessageDecodeError:
        cause: object = told[0].__cause__
        assert isinstance(cause, ValueError)
        assert str(told[0]).startswith(f"a message of channel {channel.id} does not decode: invalid literal")
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert channel.id in record.getMessage()
    assert getattr(record, "error") is told[0]  # noqa: B009


async def test_sends_are_encoded() -> None:
    sent: list[object] = []

    async def on_message(channel: Any, process: None, message: int) -> None:
        sent.append(await channel.send(message + 1))
        with pytest.raises(TypeError):
            await channel.send("text")

    channel = await opened(WebSocketOptions(on_message=on_message, codec=Numbers()))
    channel.comes("binary", b"7")
    await passes()
    assert channel.wire.written == [("binary", b"8")]
    await leave(channel)
    assert sent == [True]


async def test_sends_without_a_codec() -> None:
    results: list[object] = []

    async def on_open(channel: Any, request: Request) -> None:
        for message in ("a", b"b", bytearray(b"c"), memoryview(b"d")):
            results.append(await channel.send(message))
        with pytest.raises(TypeError, match="send_binary needs"):
            await channel.send(7)
        channel.close()
        results.append(await channel.send("late"))

    channel = await opened(WebSocketOptions(on_open=on_open))
    assert channel.wire.written == [
        ("text", "a"),
        ("binary", b"b"),
        ("binary", b"c"),
        ("binary", b"d"),
        ("close", 1000, ""),
    ]
    assert results == [True] * 4 + [False]
    await leave(channel)


async def test_a_stream_with_a_codec() -> None:
    got: list[object] = []

    async def handler(stream: MessageStream[int], request: Request) -> None:
        anything: Any = stream
        for name in ("recv_text", "recv_binary"):
            with pytest.raises(TypeError, match=f"{name} is for streams without a codec: use recv"):
                await getattr(anything, name)()
        with pytest.raises(TypeError):
            await anything.send(io.BytesIO(b""))
        got.append(await stream.recv())
        await stream.send(8)

    channel = await opened(stream_handler(handler, codec=Numbers()))
    channel.comes("binary", b"7")
    await passes()
    assert got == [7]
    assert channel.wire.written == [("binary", b"8"), ("close", 1000, "")]
    await leave(channel)


@pytest.mark.rule("CODEC-2", "CLOSE-2")
def test_an_invalid_code_must_be_one_that_can_be_sent() -> None:
    assert getattr(json_codec(4400), "invalid_code") == 4400  # noqa: B009
    with pytest.raises(ValueError, match=r"^close code 1005 may not be sent"):
        json_codec(1005)
    with pytest.raises(TypeError, match=r"^close code must be an int, not str$"):
        json_codec("4400")  # type: ignore[arg-type]
