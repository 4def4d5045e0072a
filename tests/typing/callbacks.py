"""What a type checker infers from `on_open`, and what it refuses. Read by mypy and pyright, never run.

Each ``type: ignore`` is an error that must be found: one that is not needed is an error itself.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, assert_type

from wsbridge import CloseReason, Request, WebSocketChannel, WebSocketOptions


@dataclass
class Session:
    user: str


class Admin(Session):
    pass


# ---- what on_open returns is what the others get ------------------------------------------------------------------


def open_session(channel: WebSocketChannel, request: Request) -> Session:
    return Session(request.args["user"])


async def open_session_later(channel: WebSocketChannel, request: Request) -> Session:
    return Session(request.args["user"])


def open_admin(channel: WebSocketChannel, request: Request) -> Admin:
    return Admin("root")


async def open_nothing(channel: WebSocketChannel, request: Request) -> None: ...


def text_of_session(channel: WebSocketChannel, process: Session, text: str) -> None: ...


async def text_of_session_later(channel: WebSocketChannel, process: Session, text: str) -> None: ...


def binary_of_session(channel: WebSocketChannel, process: Session, data: bytes) -> None: ...


def close_of_session(channel: WebSocketChannel, process: Session, reason: CloseReason) -> None: ...


def error_of_session(channel: WebSocketChannel, process: Session | None, error: Exception) -> None: ...


def text_of_nothing(channel: WebSocketChannel, process: None, text: str) -> None: ...


def text_of_int(channel: WebSocketChannel, process: int, text: str) -> None: ...


def text_of_anything(channel: WebSocketChannel, process: object, text: str) -> None: ...


plain = WebSocketOptions(
    on_open=open_session,
    on_text=text_of_session,
    on_binary=binary_of_session,
    on_close=close_of_session,
    on_error=error_of_session,
)
assert_type(plain, WebSocketOptions[Session])

later = WebSocketOptions(on_open=open_session_later, on_text=text_of_session_later, on_close=close_of_session)
assert_type(later, WebSocketOptions[Session])

alone = WebSocketOptions(on_open=open_session_later)
assert_type(alone, WebSocketOptions[Session])

nothing = WebSocketOptions(on_open=open_nothing, on_text=text_of_nothing)
assert_type(nothing, WebSocketOptions[None])

none = WebSocketOptions(on_text=text_of_nothing)
assert_type(none, WebSocketOptions[None])

empty = WebSocketOptions(subprotocols=["chat"], idle_timeout=60)
assert_type(empty, WebSocketOptions[None])

WebSocketOptions(on_open=open_session_later, on_text=text_of_anything)
WebSocketOptions(on_text=text_of_anything)
WebSocketOptions(on_open=open_admin, on_text=text_of_session)
WebSocketOptions(on_text=lambda channel, process, text: channel.send_text(text.upper()))
WebSocketOptions(on_open=open_session, on_text=lambda channel, process, text: print(process.user, text.upper()))
WebSocketOptions(on_open=open_session_later, on_text=lambda channel, process, text: print(process.user))


class Room:
    """Methods are callbacks too."""

    async def opened(self, channel: WebSocketChannel, request: Request) -> Session:
        return Session("a")

    async def text(self, channel: WebSocketChannel, process: Session, text: str) -> None: ...


room = Room()
assert_type(WebSocketOptions(on_open=room.opened, on_text=room.text), WebSocketOptions[Session])


# ---- what does not fit --------------------------------------------------------------------------------------------

WebSocketOptions(on_open=open_session, on_text=text_of_int)  # type: ignore[arg-type]
WebSocketOptions(on_open=open_session_later, on_text=text_of_int)  # type: ignore[misc]
WebSocketOptions(on_text=text_of_int)  # type: ignore[arg-type]
WebSocketOptions(on_text=close_of_session)  # type: ignore[arg-type]
WebSocketOptions(on_open=open_session, on_binary=text_of_session)  # type: ignore[arg-type]
WebSocketOptions(on_open=text_of_session)  # type: ignore[arg-type]
WebSocketOptions(on_open=open_session, max_text_size="1 MiB")  # type: ignore[call-overload]
WebSocketOptions(on_ping=text_of_nothing)  # type: ignore[call-overload]
WebSocketOptions(text_of_nothing)  # type: ignore[call-overload]


def error_of_certain_session(channel: WebSocketChannel, process: Session, error: Exception) -> None: ...


# on_error gets None if it was on_open that raised
WebSocketOptions(on_open=open_session, on_error=error_of_certain_session)  # type: ignore[arg-type]


# ---- the channel --------------------------------------------------------------------------------------------------


async def use(channel: WebSocketChannel, file: BinaryIO) -> None:
    assert_type(await channel.send_text("a"), bool)
    assert_type(await channel.send_binary(b"a"), bool)
    await channel.send_binary(bytearray(b"a"))
    await channel.send_binary(memoryview(b"a"))
    await channel.send_binary(file)
    assert_type(channel.reason, CloseReason | None)
    assert_type(await channel.wait_closed(), CloseReason)
    assert_type(channel.subprotocol, str | None)
    channel.on_text(text_of_nothing)
    channel.on_binary(of_bytes)
    channel.on_binary(of_view, format="memoryview")
    channel.on_binary(of_stream, format="stream")

    channel.send_text(b"a")  # type: ignore[arg-type, unused-coroutine]
    await channel.send_binary("a")  # type: ignore[arg-type]
    channel.on_binary(of_view)  # type: ignore[arg-type]
    channel.on_binary(of_bytes, format="stream")  # type: ignore[call-overload]
    channel.on_binary(of_bytes, format="text")  # type: ignore[call-overload]
    assert_type(channel.close(), Awaitable[None])
    await channel.close(1001, "soon")
    channel.close()
    channel.close("1000")  # type: ignore[arg-type]
    channel.id = "mine"  # type: ignore[misc]


def of_bytes(channel: WebSocketChannel, process: Any, data: bytes) -> None: ...
def of_view(channel: WebSocketChannel, process: Any, data: memoryview) -> None: ...
def of_stream(channel: WebSocketChannel, process: Any, data: BinaryIO) -> None: ...


# ---- options are passed on with their process object ---------------------------------------------------------------


def logged(on_open: Callable[[WebSocketChannel, Request], Awaitable[Session]]) -> WebSocketOptions[Session]:
    return WebSocketOptions(on_open=on_open, on_text=text_of_session)


assert_type(logged(open_session_later), WebSocketOptions[Session])
logged(open_session)  # type: ignore[arg-type]
