"""Chat rooms: a path parameter names the room, an interceptor refuses whoever has no valid token.

    wsbridge serve chat:app --app-dir examples --connector aiohttp
    wsbridge connect ws://127.0.0.1:8000/chat/lobby --header "Authorization: Bearer ada-token"

What `on_open` returns, the process object, is handed to every other callback: here, who speaks. A queue stands in front
of each channel (`start_ws_connection`), so that one slow reader does not hold up the room.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from wsbridge import (
    Application,
    CloseReason,
    Context,
    Interceptor,
    Request,
    Response,
    WebSocketChannel,
    WebSocketConnection,
    WebSocketOptions,
    start_ws_connection,
    websocket_interceptor,
)

USERS = {"ada-token": "ada", "grace-token": "grace"}  # in earnest: look the token up where your users are kept


@dataclass(eq=False)
class Member:
    name: str
    room: str
    connection: WebSocketConnection


rooms: defaultdict[str, set[Member]] = defaultdict(set)


def tell(room: str, line: str) -> None:
    for member in tuple(rooms[room]):
        try:
            member.connection.put_nowait(line)
        except asyncio.QueueFull:
            member.connection.channel.close(1013, "too slow")


def authenticate(context: Context) -> Context:
    request: Request = context["request"]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = request.args.get("token", "")  # a browser's WebSocket cannot send the header
    user = USERS.get(token)
    if user is None:
        context["response"] = Response("a valid token, please\n", 401, {"WWW-Authenticate": "Bearer"})
    else:
        request.path_params["user"] = user
    return context


def on_open(channel: WebSocketChannel, request: Request) -> Member:
    member = Member(request.path_params["user"], request.path_params["room"], start_ws_connection(channel))
    rooms[member.room].add(member)
    tell(member.room, f"* {member.name} joined")
    return member


def on_text(channel: WebSocketChannel, member: Member, text: str) -> None:
    tell(member.room, f"{member.name}: {text}")


def on_close(channel: WebSocketChannel, member: Member, reason: CloseReason) -> None:
    rooms[member.room].discard(member)
    tell(member.room, f"* {member.name} left ({reason.name})")
    if not rooms[member.room]:
        del rooms[member.room]


options = WebSocketOptions(on_open=on_open, on_text=on_text, on_close=on_close, idle_timeout=600)
app = Application(
    [("/chat/{room}", [Interceptor(name="authenticate", enter=authenticate), websocket_interceptor("chat", options)])]
)
