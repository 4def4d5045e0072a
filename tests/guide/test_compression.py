"""The code of the section on compression does what the section says."""

from __future__ import annotations

import asyncio
import os
import zlib
from typing import Any, cast

import pytest

from tests.fakes import FakeConnector, FakeSource, handshake
from tests.guide.compression import Channel, Deflate
from wsbridge import Application, Compression, WebSocketOptions
from wsbridge.connector import LARGE, Agreement, BaseChannel


def inflated(of: Deflate, data: bytes) -> bytes:
    return of.inflate(data, 10**6, is_last=True)


@pytest.mark.parametrize("stands_alone", [False, True])
def test_a_message_comes_back(stands_alone: bool) -> None:
    agreement = Agreement(server_no_context_takeover=stands_alone, client_no_context_takeover=stands_alone)
    one, other = Deflate(agreement, True), Deflate(agreement, Compression(memory_level=9))
    for message in (b"", b"one", b"", b"one" * 1000, b""):
        assert inflated(other, one.deflate(message)) == message


def test_no_more_is_inflated_than_is_wanted() -> None:
    bomb = Deflate(Agreement(), True).deflate(bytes(10**6))
    assert len(Deflate(Agreement(), True).inflate(bomb, 100, is_last=True)) == 101


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_a_block_with_bfinal_ends_a_message_and_not_the_channel(end: bytes) -> None:
    ends = zlib.compressobj(wbits=-15)
    final = ends.compress(b"one") + ends.flush() + end
    other = Deflate(Agreement(), True)
    assert inflated(other, final) == b"one"
    assert inflated(other, Deflate(Agreement(), True).deflate(b"two")) == b"two"


def test_what_cannot_be_inflated_is_told() -> None:
    with pytest.raises(zlib.error):
        inflated(Deflate(Agreement(), True), b"\xff\xff\xff")


class _Source(FakeSource):
    kind = cast(Any, Channel)


@pytest.mark.parametrize("size", [0, 100, LARGE + 1])
async def test_a_message_is_deflated_and_a_large_one_outside_the_event_loop(size: int) -> None:
    connector = FakeConnector(Application([("/", WebSocketOptions[Any](compression=True))]))
    request = handshake(Sec_WebSocket_Extensions="permessage-deflate")
    channel = await connector.handle(request, _Source(connector, request))
    assert isinstance(channel, BaseChannel)
    running = connector.run_channel(channel)
    await asyncio.sleep(0)
    message = os.urandom(size)
    assert await channel.send_binary(message)
    ((opcode, payload, is_deflated),) = cast(Channel, channel).written
    assert (opcode, is_deflated) == (2, True)
    assert inflated(Deflate(Agreement(), True), payload) == message
    channel.connection_lost()
    await running
