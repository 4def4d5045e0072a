"""Codecs: what they read and write, and what a channel and a stream make of what they refuse."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import io
import json
import sys
import uuid
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
    """Return the JSON codec, with msgspec installed and without; it is the same (CODEC-3)."""
    if request.param == "msgspec":
        pytest.importorskip("msgspec")
    else:
        monkeypatch.setitem(sys.modules, "msgspec", None)  # as if it were not installed
    return json_codec()


@dataclasses.dataclass
class Move:
    x: int
    y: int = 0


class Colour(enum.Enum):
    RED = "red"


# ---- ready-made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True]}, "text", "", 7, None, [], {"\N{SNOWMAN}": "\n"}, 2**53])
def test_json_there_and_back(by_json: Codec[Any], value: object) -> None:
    text = by_json.encode(value)
    assert isinstance(text, str)
    assert json.loads(text) == value
    assert by_json.decode(text) == value


def test_json_is_compact(by_json: Codec[Any]) -> None:
    assert by_json.encode({"a": [1, "\N{SNOWMAN}"]}) == '{"a":[1,"\N{SNOWMAN}"]}'


NAN, INF = float("nan"), float("inf")

ENCODED: list[tuple[object, str]] = [
    ((1, 2), "[1,2]"),
    ({1: 2, 1.5: 3, None: 4, False: 5}, '{"1":2,"1.5":3,"null":4,"false":5}'),
    (2**70, "1180591620717411303424"),
    (1e16, "1e+16"),
    (1e-7, "1e-07"),
    (-0.0, "-0.0"),
    ("\U0001f600\u2028</", '"\U0001f600\u2028</"'),
    ("\0\x7f\t", '"\\u0000\x7f\\t"'),
]
REFUSED: list[tuple[object, type[Exception]]] = [
    (NAN, ValueError),
    ([INF], ValueError),
    ({"a": -INF}, ValueError),
    ("a\ud83d", UnicodeEncodeError),
    (b"ab", TypeError),
    (bytearray(b"ab"), TypeError),
    ({1}, TypeError),
    (Move(1), TypeError),
    (datetime.datetime(2026, 1, 2), TypeError),
    (decimal.Decimal("1.50"), TypeError),
    (uuid.UUID(int=1), TypeError),
    (Colour.RED, TypeError),
    (print, TypeError),
    ({1j: 2}, TypeError),
    ({(1, 2): 3}, TypeError),
]
DECODED: list[tuple[str, object]] = [
    ('"\\ud83d\\ude00"', "\U0001f600"),
    ('"\\\\ud83d"', "\\ud83d"),
    ("1180591620717411303424", 2**70),
    ('{"a":1,"a":2}', {"a": 2}),
    ("-0", 0),
    ("1.0", 1.0),
    ("1e308", 1e308),
    ("1e-400", 0.0),
    (" \n1\t ", 1),
    ('"\u2028\x7f"', "\u2028\x7f"),
]
NO_JSON = [
    *("", " ", "{", "nul", "{'a': 1}", "[1,]", "NaN", "[Infinity]", "-Infinity", "1 2", "01", "+1", ".5", "1.", "0x1"),
    *('"a\tb"', "\ufeff1", "1e400", "[-1e400]", "1" * 5000, '"\\ud83d"', '"\\uDE00\\uD83D"', '{"\\udfff":1}', "//\n1"),
    "[" * 200_000,
]


@pytest.mark.rule("CODEC-3")
@pytest.mark.parametrize(("value", "text"), ENCODED, ids=ascii)
def test_what_json_is_written_as(by_json: Codec[Any], value: object, text: str) -> None:
    assert by_json.encode(value) == text


@pytest.mark.rule("CODEC-3")
@pytest.mark.parametrize(("value", "error"), REFUSED, ids=ascii)
def test_what_json_does_not_know(by_json: Codec[Any], value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        by_json.encode(value)


@pytest.mark.rule("CODEC-3")
@pytest.mark.parametrize(("text", "value"), DECODED, ids=ascii)
def test_what_json_is_read_as(by_json: Codec[Any], text: str, value: object) -> None:
    decoded = by_json.decode(text)
    assert (type(decoded), decoded) == (type(value), value)


@pytest.mark.rule("CODEC-3")
@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: ascii(text)[:20])
def test_what_is_no_json(by_json: Codec[Any], text: str) -> None:
    with pytest.raises((ValueError, RecursionError)) as e:
        by_json.decode(text)
    assert not isinstance(e.value, MessageKindError)


def test_json_is_text(by_json: Codec[Any]) -> None:
    with pytest.raises(MessageKindError, match="binary"):
        by_json.decode(b"{}")


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
