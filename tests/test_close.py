"""`CloseReason`, the names of close codes, and what `close` may be given."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from types import MappingProxyType
from typing import Any

import pytest

from tests.fakes import FakeConnector, passes
from wsbridge import (
    Application,
    CloseReason,
    MessageStream,
    Request,
    WebSocketChannel,
    WebSocketOptions,
    stream_handler,
)
from wsbridge.close import BEGUN, PORTABLE_NAMES, check_close, close_reason, is_valid_close_code
from wsbridge.conformance.contract.tables import TABLES
from wsbridge.connector import close_keywords

SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


@pytest.mark.rule("CLOSE-2")
def test_the_codes_that_may_be_sent_are_those_of_the_contract() -> None:
    assert {code for code in range(-1, 70000) if is_valid_close_code(code)} == SENDABLE


@pytest.mark.rule("CLOSE-2")
@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
@pytest.mark.parametrize("text", ["", "bye", "x" * 123, "\u00e9" * 61, "\U0001f600" * 30])
def test_a_valid_close_is_let_through(code: int, text: str) -> None:
    assert check_close(code, text) == code


@pytest.mark.rule("CLOSE-2")
def test_an_int_enum_becomes_a_plain_int() -> None:
    class Code(enum.IntEnum):
        DONE = 4000

    code = check_close(Code.DONE, "")
    assert (code, type(code)) == (4000, int)


@pytest.mark.rule("CLOSE-2")
@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_a_code_that_may_not_be_sent_is_a_value_error(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        check_close(code, "")


@pytest.mark.rule("CLOSE-2")
@pytest.mark.parametrize("text", ["x" * 124, "\u00e9" * 62, "\ud800"])
def test_a_text_that_no_close_frame_holds_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (a UnicodeEncodeError is one, with Python's own words)
        check_close(1000, text)


@pytest.mark.rule("CLOSE-2")
@pytest.mark.parametrize(
    ("code", "text"), [("1000", ""), (1000.0, ""), (None, ""), (True, ""), (1000, b""), (1000, None), (1000, 7)]
)
def test_a_wrong_type_is_a_type_error(code: Any, text: Any) -> None:
    with pytest.raises(TypeError, match=r"close (code|text) must be"):
        check_close(code, text)


@pytest.mark.rule("CLOSE-6")
def test_a_reason_is_frozen_and_reads_as_its_keyword() -> None:
    reason = CloseReason(1000, "bye", "local", "normal", "ok")
    with pytest.raises(dataclasses.FrozenInstanceError):
        reason.code = 1001  # type: ignore[misc]
    assert not hasattr(reason, "__dict__")
    assert (str(reason), f"{reason}") == ("ok", "ok")
    assert reason == CloseReason(1000, "bye", "local", "normal", "ok")
    assert hash(reason) == hash(CloseReason(1000, "bye", "local", "normal", "ok"))
    strings: tuple[object, ...] = ("ok", "normal")
    assert reason not in strings


@pytest.mark.rule("CLOSE-9")
def test_the_portable_names_are_those_of_the_contract() -> None:
    assert dict(PORTABLE_NAMES) == {
        1000: "normal",
        1001: "going-away",
        1002: "protocol-error",
        1003: "unsupported",
        1005: "no-status-received",
        1006: "abnormal",
        1007: "invalid-payload-data",
        1008: "policy-violation",
        1009: "message-too-big",
        1010: "mandatory-extension",
        1011: "internal-server-error",
        1012: "service-restart",
        1013: "try-again-later",
        1014: "bad-gateway",
        1015: "tls-handshake",
    }
    assert TABLES["CLOSE-9"].rows == tuple((str(code), f"`{name}`") for code, name in PORTABLE_NAMES.items())
    assert isinstance(PORTABLE_NAMES, MappingProxyType)


@pytest.mark.rule("CLOSE-9")
@pytest.mark.parametrize(
    ("code", "name", "keyword"),
    [
        (1000, "normal", "ok"),  # both name it
        (1001, "going-away", "going-away"),  # the connector's table lacks it
        (4001, "private", "kicked"),  # the connector's table alone
        (3000, "registered", "registered"),
        (3999, "registered", "registered"),
        (4000, "private", "private"),
        (4999, "private", "private"),
        (999, "unknown", "unknown"),
        (1016, "unknown", "unknown"),
        (2999, "unknown", "unknown"),
        (5000, "unknown", "unknown"),
    ],
)
def test_a_code_is_named_by_the_connector_and_by_the_portable_table(code: int, name: str, keyword: str) -> None:
    reason = close_reason(code, "text", "peer", {1000: "ok", 4001: "kicked"})
    assert reason == CloseReason(code, "text", "peer", name, keyword)


@pytest.mark.rule("CLOSE-9")
def test_keywords_are_a_servers_names_in_lower_case_with_hyphens() -> None:
    keywords = close_keywords({"OK": 1000, "INVALID_TEXT": 1007})
    assert dict(keywords) == {1000: "ok", 1007: "invalid-text"}
    assert isinstance(keywords, MappingProxyType)


@pytest.mark.rule("CLOSE-1")
async def test_a_close_may_be_awaited_and_need_not_be() -> None:
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "another's")
    assert [await BEGUN] == [None]  # type: ignore[func-returns-value]
    assert turns == ["another's"]
    assert list(await asyncio.gather(BEGUN, BEGUN)) == [None, None]
    async with asyncio.timeout(5):
        await asyncio.wait_for(BEGUN, 5)
    assert "the close has begun" in repr(BEGUN)  # which is what a REPL, or a debugger, shows of `channel.close()`


@pytest.mark.rule("CLOSE-1", "OPEN-1")
async def test_channels_and_streams_return_it() -> None:
    seen: list[Any] = []

    async def handler(stream: MessageStream, request: Request) -> None:
        seen.append(stream.close())
        await stream.close()

    def on_close(channel: WebSocketChannel, process: None, reason: CloseReason) -> None:
        seen.append((process, channel.close()))

    by_lambda = WebSocketOptions(on_open=lambda channel, request: channel.close(), on_close=on_close)
    for options in (stream_handler(handler), by_lambda):
        channel = await FakeConnector(Application([("/", options)])).open()
        await passes()
        channel.comes("close", 1000, "")
        channel.comes("lost")
        await passes()
    assert seen == [BEGUN, (None, BEGUN)]
