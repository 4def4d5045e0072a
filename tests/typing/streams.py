"""What a type checker infers of streams and typed messages, and what it refuses. Read, never run.

Each ``type: ignore`` is an error that must be found: one that is not needed is an error itself.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false, reportUnusedFunction=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, assert_type

from wsbridge import (
    ChannelClosedError,
    CloseReason,
    Codec,
    MessageStream,
    Request,
    WebSocketChannel,
    WebSocketOptions,
    json_codec,
    msgspec_codec,
    stream_handler,
)


@dataclass
class Move:
    x: int


MOVES = msgspec_codec(Move)
assert_type(MOVES, Codec[Move])
assert_type(json_codec(), Codec[Any])
assert_type(msgspec_codec(Move, format="msgpack"), Codec[Move])
EITHER: Codec[Move | int] = msgspec_codec(Move | int)
msgspec_codec(Move, format="yaml")  # type: ignore[call-overload]


class Numbers:
    def encode(self, message: int, /) -> bytes:
        return b"%d" % message

    def decode(self, data: str | bytes, /) -> int:
        return int(data)


# ---- without a codec ------------------------------------------------------------------------------------------------


async def chat(stream: MessageStream, request: Request) -> None:
    async for message in stream:
        assert_type(message, str | bytes)
        await stream.send(message)
    assert_type(await stream.recv(), str | bytes)
    assert_type(await stream.recv(timeout=1), str | bytes)
    assert_type(await stream.recv_text(), str)
    assert_type(await stream.recv_binary(timeout=1), bytes)
    assert_type(stream.reason, CloseReason | None)
    assert_type(await stream.wait_closed(), CloseReason)


async def sends(stream: MessageStream, file: BinaryIO) -> None:
    await stream.send("a")
    await stream.send(bytearray(b"a"))
    await stream.send(memoryview(b"a"))
    await stream.send(file)
    await stream.send(7)  # type: ignore[call-overload]
    stream.close("1000")  # type: ignore[arg-type]


assert_type(stream_handler(chat), WebSocketOptions[MessageStream])
assert_type(stream_handler(chat, idle_timeout=60, cancel_on_close=True), WebSocketOptions[MessageStream])
stream_handler(chat, idle_timeout="60")  # type: ignore[call-overload]
stream_handler(chat, on_ping=print)  # type: ignore[call-overload]
stream_handler(chat, on_text=print)  # type: ignore[call-overload]
stream_handler(chat, codec=MOVES)  # type: ignore[arg-type]


@stream_handler
async def decorated(stream: MessageStream, request: Request) -> None: ...


assert_type(decorated, WebSocketOptions[MessageStream])


def plain(stream: MessageStream, request: Request) -> None: ...


stream_handler(plain)  # type: ignore[arg-type]


def error_of_chat(channel: WebSocketChannel, stream: MessageStream | None, error: Exception) -> None: ...


stream_handler(chat, on_error=error_of_chat)


async def reason_of(stream: MessageStream) -> CloseReason | None:
    try:
        await stream.recv()
    except ChannelClosedError as exc:
        return exc.reason
    return None


# ---- with one -------------------------------------------------------------------------------------------------------


async def play(stream: MessageStream[Move], request: Request) -> None:
    async for message in stream:
        assert_type(message, Move)
    assert_type(await stream.recv(), Move)
    await stream.send(Move(1))
    await stream.send("text")  # type: ignore[arg-type]
    await stream.recv_text()  # type: ignore[misc]


async def count(stream: MessageStream[int], request: Request) -> None: ...
async def either(stream: MessageStream[Move | int], request: Request) -> None: ...


assert_type(stream_handler(play, codec=MOVES), WebSocketOptions[MessageStream[Move]])
assert_type(stream_handler(count, codec=Numbers()), WebSocketOptions[MessageStream[int]])
stream_handler(either, codec=EITHER)
stream_handler(count, codec=MOVES)  # type: ignore[arg-type]
stream_handler(play)  # type: ignore[arg-type]
stream_handler(play, codec=object())  # type: ignore[call-overload]


# ---- in callbacks ---------------------------------------------------------------------------------------------------


async def move(channel: WebSocketChannel, process: None, message: Move) -> None:
    assert_type(await channel.send(message), bool)


async def move_of_str(channel: WebSocketChannel, process: str, message: Move) -> None: ...
async def open_str(channel: WebSocketChannel, request: Request) -> str:
    return "a"


assert_type(WebSocketOptions(on_message=move, codec=MOVES), WebSocketOptions[None])
assert_type(WebSocketOptions(on_open=open_str, on_message=move_of_str, codec=MOVES), WebSocketOptions[str])
WebSocketOptions(on_message=lambda channel, process, message: print(message.x), codec=MOVES)
WebSocketOptions(on_message=lambda channel, process, message: print(message.y), codec=MOVES)  # type: ignore[attr-defined]
WebSocketOptions(on_message=move, codec=Numbers())  # type: ignore[arg-type]
WebSocketOptions(on_open=open_str, on_message=move, codec=MOVES)  # type: ignore[misc]
WebSocketOptions(on_message=move, codec=object())  # type: ignore[call-overload]
