"""What is written in unusual ways, or wrongly, by peers and applications: HS-2, HS-6, HS-9, STOP-7, STREAM-2."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import tempfile
from collections.abc import Callable
from typing import Any

from wsbridge.application import Application
from wsbridge.codec import json_codec
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.contract import check, equal
from wsbridge.conformance.harness.bench import Bench
from wsbridge.http import Request
from wsbridge.interceptor import Context, Interceptor
from wsbridge.stream import MessageStream, stream_handler
from wsbridge.upgrade import websocket_interceptor

__all__: list[str] = []

# ---- HS-2 -----------------------------------------------------------------------------------------------------------


@check("HS-2")
async def the_absolute_form(bench: Bench) -> None:
    """A request with the whole URL in its line has the path and the query of that (RFC 9112, 3.2.2)."""
    async with bench.serve(Application([("/{rest:path}", bench.options())])) as served:
        for number, (below, path, query) in enumerate(
            (("/a/b?c=/d", "/a/b", {"c": "/d"}), ("/", "/", {}), ("?q=1", "/", {"q": "1"}), ("", "/", {})), 1
        ):
            raw = handshake(served, "/aim").encode().replace(b" /aim ", f" http://{served.host}{below} ".encode())
            async with served.raw() as peer:
                await peer.request(raw)
                equal((await peer.read_response()).status, 101, f"the status for http://...{below}")
            request: Request = await _nth(bench, number)
            equal((request.path, dict(request.args)), (path, query), f"path and query of http://...{below}")


async def _nth(bench: Bench, number: int) -> Any:
    await bench.recorder.wait("open", number)
    return bench.recorder.values("open")[number - 1]


# ---- HS-6 -----------------------------------------------------------------------------------------------------------

_RIGHT_ORIGINS = {
    "https://example.com:1": "https://example.com:1",
    "https://example.com:65535": "https://example.com:65535",
    "HTTPS://Example.COM": "https://example.com:443",
    "https://example.com.": "https://example.com.",
    "https://[0:0:0:0:0:0:0:1]": "https://[::1]",
    "https://[::1]": "https://[0:0::1]",
    "https://127.0.0.1": "https://127.0.0.1",
    "chrome-extension://ABCdef": "chrome-extension://abcdef",
}
"""Entries, and an origin that each lets in."""


@check("HS-6")
async def entries_at_their_limits(bench: Bench) -> None:
    """Ports, addresses and hosts are compared by what they mean, however the entry or the origin writes them."""
    async with bench.serve(bench.options(origins=list(_RIGHT_ORIGINS))) as served:
        for origin in _RIGHT_ORIGINS.values():
            equal((await ask(served, headers=[("Origin", origin)])).status, 101, f"the status for {origin}")
        for origin in ("https://[::2]", "https://[::1]:444", "https://[::g]", "http://127.0.0.1", "https://x:99999"):
            equal((await ask(served, headers=[("Origin", origin)])).status, 403, f"the status for {origin}")


# ---- HS-9 -----------------------------------------------------------------------------------------------------------


def _puts(key: str, value: object) -> Callable[[Context], None]:
    def leave(context: Context) -> None:
        context[key] = value

    return leave


def _adds(name: str, value: str) -> Callable[[Context], None]:
    def leave(context: Context) -> None:
        context["websocket_channel_source"].response_headers.add(name, value)

    return leave


def _returns(value: Any) -> Callable[[Context], Any]:
    return lambda context: value


@check("HS-9")
async def what_an_interceptor_may_not_do(bench: Bench) -> None:
    """What is no context, no response, no channel of the connector or no header for a 101 is answered with 500."""
    stages = {
        "a response that is none": _puts("response", "text"),
        "a channel that is none": _puts("websocket_channel", object()),
        "a context that is none": _returns("context"),
        "a header that is the connector's": _adds("Sec-WebSocket-Accept", "x"),
        "another one": _adds("upgrade", "x"),
        "a name that is none": _adds("X Y", "x"),
        "a value with a line break": _adds("X-Y", "\x00"),
    }
    last = websocket_interceptor("last", bench.options())
    for what, stage in stages.items():
        chain = (Interceptor(name="wrong", leave=stage), last)
        before = len(bench.logs)
        async with bench.serve(Application([("/", chain)])) as served:
            equal((await ask(served)).status, 500, f"the status for {what}")
        errors = [record for record in bench.logs[before:] if record.levelno >= logging.ERROR]
        equal([record.exc_info is not None for record in errors], [True], f"the errors that are logged for {what}")
    equal(bench.recorder.kinds(), [], "the callbacks that ran")


# ---- STOP-7 ---------------------------------------------------------------------------------------------------------


@check("STOP-7", needs=("unix-socket",))
async def whose_the_file_is(bench: Bench) -> None:
    """`unix_owner` takes a user, a group or both, by name or number; of others and of none it says so."""
    user, group = os.geteuid(), os.getegid()
    owners = [f"{user}:{group}", f":{group}", str(user)]
    with contextlib.suppress(KeyError):  # who runs this may have no name, as in a container
        name = pwd.getpwuid(user).pw_name
        owners += [name, f"{name}:{grp.getgrgid(group).gr_name}"]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        for owner in owners:
            async with bench.serve(unix_path=path, unix_owner=owner) as served:
                found = os.stat(path)
                equal((found.st_uid, found.st_gid), (user, group), f"whose the file is with {owner!r}")
                async with served.peer():
                    pass
        for owner in ("", ":", "no such user", ":no such group"):
            equal(_refused(bench, path, owner), "ValueError about unix_owner", f"what unix_owner={owner!r} does")
        equal(os.listdir(folder), [], "files that are left")


def _refused(bench: Bench, path: str, owner: str) -> str:
    try:
        bench.connector(Application([("/", bench.options())]), unix_path=path, unix_owner=owner)
    except ValueError as exc:
        return f"{type(exc).__name__} about {str(exc).partition(':')[0]}"
    return "nothing"


# ---- STREAM-2 -------------------------------------------------------------------------------------------------------


@check("STREAM-2")
async def reads_of_a_kind_with_a_codec(bench: Bench) -> None:
    """With a codec `recv_text` and `recv_binary` raise TypeError, and the message stays the next one."""

    async def handler(stream: MessageStream[Any], request: Request) -> None:
        for read in (stream.recv_text, stream.recv_binary):
            try:
                await read()
            except TypeError as exc:
                found.append(str(exc).partition(" ")[0])
        await stream.send([*found, await stream.recv()])

    found: list[str] = []
    options = stream_handler(handler, codec=json_codec(), **bench.target.neutral)
    async with bench.serve(options) as served, served.peer() as peer:
        await peer.send_text('"message"')
        equal(await peer.receive_text(), '["recv_text","recv_binary","message"]', "what was raised and read")
