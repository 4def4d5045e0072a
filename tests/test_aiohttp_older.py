"""What stands before the reader of aiohttp before 3.14.4, whichever is installed."""

from __future__ import annotations

from collections import deque
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from wsbridge import WebSocketOptions
from wsbridge.connectors import _aiohttp_reading, _versions
from wsbridge.connectors._codecs import aiohttp as _codec
from wsbridge.connectors._codecs.pieces import PIECE

REFUSED = 0x20
FIN, RSV1 = 0x80, 0x40
CONTINUATION, TEXT, PING = 0x0, 0x1, 0x9


def frame(first: int, payload: bytes = b"", *, masked: bool = True) -> bytes:
    return bytes((first, len(payload) | (0x80 if masked else 0))) + bytes(4 if masked else 0) + payload


def firsts(kind: Any, *frames: bytes, deflates: bool = False) -> list[int]:
    """Return the first byte of each frame, as it is handed on."""
    passed: list[bytes] = []
    heads = kind(passed.append, WebSocketOptions[Any](max_text_size=100), deflates=deflates)
    for one in frames:
        heads(one)
    return [data[0] for data in passed]


@pytest.fixture(params=[_codec._OlderHeads, _codec._OlderMeasuredHeads])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(_codec, "_TOLD_AGAIN", RSV1)
    return request.param


@pytest.mark.rule("RECV-9")
def test_frames_that_may_not_come_are_refused(kind: Any) -> None:
    assert firsts(kind, frame(CONTINUATION)) == [CONTINUATION | REFUSED]
    assert firsts(kind, frame(TEXT), frame(TEXT | FIN)) == [TEXT, TEXT | FIN | REFUSED]
    assert firsts(kind, frame(TEXT | FIN, masked=False)) == [TEXT | FIN | REFUSED]
    assert firsts(kind, frame(TEXT), frame(FIN), frame(TEXT | FIN)) == [TEXT, FIN, TEXT | FIN]


@pytest.mark.rule("LIM-1")
def test_a_message_is_refused_by_the_size_that_is_declared(kind: Any) -> None:
    assert firsts(kind, frame(TEXT, b"x" * 60), frame(FIN, b"x" * 41)) == [TEXT, FIN | REFUSED]
    assert firsts(kind, frame(TEXT, b"x" * 60), frame(FIN, b"x" * 40)) == [TEXT, FIN]


@pytest.mark.rule("RECV-7")
def test_a_continuation_after_a_ping_says_again_that_it_is_deflated(kind: Any) -> None:
    ping = frame(PING | FIN)
    begun = frame(TEXT | RSV1, b"\x02")
    assert firsts(kind, begun, ping, frame(FIN), deflates=True)[2:] == [FIN | RSV1]
    assert firsts(kind, begun, frame(FIN), deflates=True)[1:] == [FIN]
    assert firsts(kind, frame(TEXT), ping, frame(FIN), deflates=True)[2:] == [FIN]
    assert firsts(kind, begun, ping, frame(FIN | RSV1), deflates=True)[2:] == [FIN | RSV1 | REFUSED]


class Transport:
    def __init__(self) -> None:
        self.is_reading = False

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class Reader:
    """Takes each two bytes for a message."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.messages: deque[bytes] = deque()
        self.queue = SimpleNamespace(_buffer=self.messages, _protocol=None)
        self.fed: list[int] = []
        self._payload_parser = self

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.fed.append(len(data))
        self.messages.extend(data[at : at + 2] for at in range(0, len(data), 2))
        return False, b""

    def take(self) -> None:
        """As the queue does it."""
        self.messages.popleft()
        if self.queue._protocol._reading_paused:
            self.queue._protocol.resume_reading()


@pytest.mark.rule("FLOW-1")
def test_a_reader_with_enough_is_fed_no_more() -> None:
    reader = Reader()
    feed = _aiohttp_reading._Pieces(reader, reader.queue)
    feed(bytes(PIECE))
    assert (reader.fed, reader.transport.is_reading) == ([PIECE], True)
    feed(bytes(16 * PIECE))
    most = _aiohttp_reading._MOST
    assert most < len(reader.messages) <= most + PIECE // 2
    assert (set(reader.fed), reader.transport.is_reading) == ({PIECE}, False)
    while reader.messages:
        assert reader.transport.is_reading or len(reader.messages) <= most + PIECE // 2
        reader.take()
    assert (sum(reader.fed), reader.transport.is_reading) == (17 * PIECE, True)


@pytest.mark.rule("RECV-4")
def test_a_frame_is_fed_alone_where_it_would_take_those_before_it_along() -> None:
    fed: list[bytes] = []

    def feed(data: bytes) -> tuple[bool, bytes]:
        fed.append(data)
        return False, b""

    one, two = frame(TEXT | FIN, b"one"), frame(TEXT | FIN, b"two")
    each = _aiohttp_reading._frame_by_frame(feed)
    each(one + two[:3])
    each(two[3:] + one)
    assert fed == [one, two[:3], two[3:], one]


def test_a_version_is_older_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "3.9.18rc1")
    assert _versions.is_older("any", (3, 11))
    assert _versions.is_older("any", (3, 9, 19))
    assert not _versions.is_older("any", (3, 9, 18))
    assert not _versions.is_older("any", (3,))


def test_one_that_is_not_installed_is_not_older() -> None:
    assert not _versions.is_older("wsbridge-no-such-server", (1,))
