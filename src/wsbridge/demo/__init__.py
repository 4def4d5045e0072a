"""``wsbridge demo``: one chat room, served by every installed connector at once, and a page to look at it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from wsbridge import registry
from wsbridge._process.signals import stop_signals
from wsbridge.application import Application
from wsbridge.close import CloseReason
from wsbridge.connection import WebSocketConnection, start_ws_connection
from wsbridge.http import Request, Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.protocols import Connector, WebSocketChannel
from wsbridge.serving import log_urls, serve

__all__ = ["CannotListenError", "NothingToShowError", "Room", "application", "run_demo", "start_demo"]

logger = logging.getLogger("wsbridge.demo")

PATH = "/room"
PORTS_TRIED = 20  # after the one that was asked for; then a free one is taken
MAX_TEXT = 2000  # characters of one chat message
REMEMBERED = 30  # ends that are told to each new peer, so that a page learns of its own
SEND_BUFFER = 100


class NothingToShowError(Exception):
    """No connector is installed that works."""


class CannotListenError(Exception):
    """The port cannot be had, and not because it is in use."""


# ---- the room -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Member:
    """The process object of a channel in the room: who it is and which server it came by.

    Attributes:
        key: The page's own word for the connection, by which it knows the end of it.
        name: What the user is called.
        via: The name of the connector.
        connection: The queue in front of the channel, so that a slow reader holds up nobody.
    """

    key: str
    name: str
    via: str
    connection: WebSocketConnection

    def tell(self, event: dict[str, Any]) -> None:
        """Queue an event; a member that has not read the last hundred is not waited for."""
        try:
            self.connection.put_nowait(json.dumps(event))
        except asyncio.QueueFull:
            self.connection.channel.close(1013, "too slow")


@dataclass(slots=True)
class Room:
    """Everybody on every server: they share one process and one event loop."""

    members: set[Member] = field(default_factory=set[Member])
    ends: deque[dict[str, Any]] = field(default_factory=lambda: deque[dict[str, Any]](maxlen=REMEMBERED))

    def tell(self, event: dict[str, Any]) -> None:
        """Tell everybody."""
        for member in tuple(self.members):
            member.tell(event)


def application(
    room: Room,
    via: str,
    *,
    origins: Iterable[str] = (),
    page: Callable[[Request], Response] | None = None,
    pings: bool = True,
) -> Application:
    """Return the application for the connector ``via``; one for each, all with the same room.

    Args:
        room: Shared by all.
        via: What the room calls the server.
        origins: Where the page may come from, if not from this server.
        page: Makes the page; given to one of the servers.
        pings: Whether the server can be told to ping.
    """

    def on_open(channel: WebSocketChannel, request: Request) -> Member:
        name = request.args.get("name", "")[:40].strip() or "anonymous"
        member = Member(
            request.args.get("key", "")[:40], name, via, start_ws_connection(channel, send_buffer=SEND_BUFFER)
        )
        room.members.add(member)
        member.tell({"type": "welcome", "ends": list(room.ends)})
        room.tell({"type": "joined", "name": name, "via": via, "members": len(room.members)})
        return member

    async def on_text(channel: WebSocketChannel, member: Member, text: str) -> None:
        event = _event(text)
        kind, what = event.get("type"), event.get("text", "")
        if kind == "say" and isinstance(what, str):
            room.tell({"type": "said", "name": member.name, "via": via, "text": what[:MAX_TEXT]})
        elif kind == "ping":
            await channel.send_text(json.dumps({"type": "pong", "at": event.get("at")}))
        elif kind == "close":
            try:
                channel.close(event["code"], what)
            except (LookupError, TypeError, ValueError) as exc:
                member.tell({"type": "refused", "text": str(exc)})
        elif kind == "raise":
            raise RuntimeError("the demo was asked to raise")
        else:
            channel.close(1008, "no event of the demo")

    def on_close(channel: WebSocketChannel, member: Member, reason: CloseReason) -> None:
        room.members.discard(member)
        end = {
            "type": "ended",
            "key": member.key,
            "name": member.name,
            "via": via,
            "keyword": str(reason),
            "portable": reason.name,
            "code": reason.code,
            "text": reason.text,
            "initiator": reason.initiator,
        }
        room.ends.append(end)
        room.tell(end | {"members": len(room.members)})

    options = WebSocketOptions(
        on_open=on_open,
        on_text=on_text,
        on_close=on_close,
        origins=tuple(origins),
        max_text_size=16 * 1024,
        close_timeout=3,
        ping_interval=20 if pings else None,
    )
    return Application([(PATH, options)], interceptors=[] if page is None else [_page_interceptor(page)])


def _event(text: str) -> dict[str, Any]:
    """Return what a page sent, or an event of no type."""
    try:
        event = json.loads(text)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}  # pyright: ignore[reportUnknownVariableType]


# ---- the page -----------------------------------------------------------------------------------------------------


def _page_interceptor(page: Callable[[Request], Response]) -> Interceptor:
    def enter(context: Context) -> Context:
        request: Request = context["request"]
        if request.path == "/" and request.method == "GET" and "Upgrade" not in request.headers:
            context["response"] = page(request)
        return context

    return Interceptor(name="page", enter=enter)


def render_page(config: dict[str, Any]) -> Response:
    """Return the page, with what it needs to know in it, and a policy that lets it load nothing from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    document = files(__name__).joinpath("page.html").read_text("utf-8")
    # "<" would end the script element, whatever stands around it
    data = json.dumps(config).replace("<", "\\u003c")
    sources = " ".join(server["url"] for server in config["servers"])
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
        f"connect-src {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(
        document.replace("{{nonce}}", nonce).replace("{{config}}", data),
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
        content_type="text/html; charset=utf-8",
    )


# ---- serving ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that runs.

    Attributes:
        url: The page.
        servers: The started connectors.
        notes: What is to be told: ports that were taken, connectors that are missing.
    """

    url: str
    servers: tuple[Connector, ...]
    notes: tuple[str, ...]


async def start_demo(stack: AsyncExitStack, port: int) -> Demo:
    """Serve the room on every installed connector until ``stack`` is closed; the first serves the page too.

    Raises:
        NothingToShowError: There is none that works.
        CannotListenError: A port cannot be had for another reason than that it is in use.
    """
    room = Room()
    notes: list[str] = []
    servers: list[Connector] = []
    versions: dict[str, str] = {}
    origins: tuple[str, ...] = ()

    def page(request: Request) -> Response:
        # a page from localhost talks to localhost, so that its own server sees its own origin
        host = "localhost" if request.host.startswith("localhost:") else "127.0.0.1"
        facts = [
            {"name": server.name, "version": versions[server.name], "url": f"ws://{host}:{_port(server)}{PATH}"}
            for server in servers
        ]
        return render_page({"servers": facts})

    for name, info in _connectors().items():
        if info is None or not info.is_installed:
            notes.append(f"{name} is not installed. Run: {registry.install_command(name, registry.SERVERS[name])}")
            continue
        try:
            connector = registry.load_connector(f"{name}@{info.distribution}")
            pings = "ping" in connector.features
            app = application(room, name, origins=origins, page=None if servers else page, pings=pings)
        except Exception as exc:
            notes.append(f"{name} is left out, it cannot be used: {type(exc).__name__}: {exc}")
            continue
        wanted = port + len(servers) if port else 0
        server = await _start(stack, app, connector, wanted)
        servers.append(server)
        versions[name] = info.server_version or info.version
        used = _port(server)
        if wanted not in (0, used):
            notes.append(f"port {wanted} is in use; {name} listens on {used}")
        if not origins:
            origins = _origins(server)
    if not servers:
        raise NothingToShowError("; ".join(notes) or "no connector is installed")
    return Demo(_page_url(servers[0]), tuple(servers), tuple(notes))


def run_demo(port: int, *, tell: Callable[[Iterable[str]], None]) -> None:
    """Run the demo until SIGINT or SIGTERM; ``tell`` is given the lines for the user.

    Raises:
        NothingToShowError: There is no connector that works.
        CannotListenError: A port cannot be had for another reason than that it is in use.
    """
    asyncio.run(_run_demo(port, tell))


async def _run_demo(port: int, tell: Callable[[Iterable[str]], None]) -> None:
    with stop_signals() as stop:
        async with AsyncExitStack() as stack:
            demo = await start_demo(stack, port)
            for server in demo.servers:
                log_urls(server)
            tell([*demo.notes, f"Open {demo.url}", "Ctrl-C ends the demo."])
            await stop.wait()


def _connectors() -> dict[str, registry.ConnectorInfo | None]:
    """Return the connectors of wsbridge that serve, then all others, by name; None for one that nothing registers."""
    found: dict[str, registry.ConnectorInfo | None] = dict.fromkeys(registry.SERVERS)
    for info in registry.connector_infos():
        if found.get(info.name) is None and info.serves:
            found[info.name] = info
    return found


async def _start(stack: AsyncExitStack, app: Application, connector: type[Any], port: int) -> Connector:
    """Start on ``port``, or, where that is in use, on one of the next or on a free one."""
    following = range(port, min(port + PORTS_TRIED, 65536)) if port else ()
    for candidate in (*following, 0):
        try:
            return await stack.enter_async_context(serve(app, connector, port=candidate, shutdown_timeout=2))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or candidate == 0:
                raise CannotListenError(exc.strerror or str(exc)) from exc
    raise AssertionError("unreachable")


def _port(server: Connector) -> int:
    address = server.addresses[0]
    assert not isinstance(address, str)
    return address[1]


def _page_url(server: Connector) -> str:
    return server.url.replace("ws://", "http://", 1) + "/"


def _origins(server: Connector) -> tuple[str, ...]:
    """Return the origins that the page may have: its URL, and localhost, which is the same machine."""
    return (_page_url(server).rstrip("/"), f"http://localhost:{_port(server)}")
