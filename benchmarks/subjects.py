"""The servers under test, by name: wsbridge on each connector, each server's own echo, and ASGI frameworks.

A name ends in `+uvloop` to be run on uvloop. To add one, add it to `SUBJECTS`: an async context manager that takes
a `Setup` and yields the port; a native server for a connector goes into `NATIVES` too. Connectors need no entry,
`wsbridge-NAME` serves on the connector NAME.

Example:
    python -m benchmarks.subjects native-aiohttp --mode echo

prints `PORT n` when it listens on 127.0.0.1, `MISSING reason` when a package or connector is not installed, or
`UNSUPPORTED reason`, and serves until stdin (a pipe or a terminal) closes or SIGTERM comes.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, get_args
from urllib.parse import urlsplit

from benchmarks.asgi import FRAMEWORKS, on_granian, on_hypercorn, on_uvicorn
from benchmarks.natives import (
    PING_SECONDS,
    Deflate,
    Mode,
    Setup,
    UnsupportedError,
    native_aiohttp,
    native_picows,
    native_tornado,
    native_websockets,
)

Subject = Callable[[Setup], AbstractAsyncContextManager[int]]
UVLOOP = "+uvloop"


def wsbridge_options(setup: Setup) -> Any:
    """Return the options of wsbridge's side for a setup."""
    import wsbridge

    everybody: set[wsbridge.WebSocketChannel] = set()

    async def echo_text(channel: wsbridge.WebSocketChannel, process: None, text: str) -> None:
        await channel.send_text(text)

    async def echo_binary(channel: wsbridge.WebSocketChannel, process: None, data: bytes) -> None:
        await channel.send_binary(data)

    def enter(channel: wsbridge.WebSocketChannel, request: wsbridge.Request) -> None:
        everybody.add(channel)

    async def broadcast(channel: wsbridge.WebSocketChannel, process: None, text: str) -> None:
        for other in everybody:
            await other.send_text(text)

    def leave(channel: wsbridge.WebSocketChannel, process: None, reason: wsbridge.CloseReason) -> None:
        everybody.discard(channel)

    callbacks: dict[str, dict[str, Any]] = {
        "echo": {"on_text": echo_text, "on_binary": echo_binary},
        "broadcast": {"on_open": enter, "on_text": broadcast, "on_close": leave},
    }
    compression: dict[Deflate, bool | wsbridge.Compression] = {
        "off": False,
        "default": True,
        "no-takeover": wsbridge.Compression(context_takeover=False),
        "small": wsbridge.Compression(window_bits=9, memory_level=1),
    }
    times: dict[str, Any] = {"ping_interval": None}
    if setup.pings:
        times = {"ping_interval": PING_SECONDS, "ping_timeout": PING_SECONDS, "idle_timeout": 3600}
    return wsbridge.WebSocketOptions(**callbacks[setup.mode], compression=compression[setup.compression], **times)


@asynccontextmanager
async def wsbridge_on(setup: Setup, *, connector: str) -> AsyncIterator[int]:
    """Serve a wsbridge application on a connector; yield the port."""
    import wsbridge

    try:
        wsbridge.load_connector(connector)
    except wsbridge.ConnectorNotFoundError as exc:
        raise ImportError(str(exc)) from exc
    app = wsbridge.Application([("/", wsbridge_options(setup))])
    try:
        async with wsbridge.serve(app, connector, port=0) as server:
            port = urlsplit(server.url).port
            assert port is not None
            yield port
    except wsbridge.UnsupportedOptionError as exc:
        raise UnsupportedError(str(exc)) from exc


@asynccontextmanager
async def stream_on(setup: Setup, *, connector: str) -> AsyncIterator[int]:
    """Serve wsbridge's echo in its other style, a handler that iterates over the messages; yield the port."""
    import wsbridge

    if setup != Setup():
        raise UnsupportedError("this is the echo alone")

    async def echo(stream: wsbridge.MessageStream, request: wsbridge.Request) -> None:
        async for message in stream:
            await stream.send(message)

    try:
        wsbridge.load_connector(connector)
    except wsbridge.ConnectorNotFoundError as exc:
        raise ImportError(str(exc)) from exc
    async with wsbridge.serve(
        wsbridge.Application([("/", wsbridge.stream_handler(echo, ping_interval=None))]), connector, port=0
    ) as server:
        port = urlsplit(server.url).port
        assert port is not None
        yield port


NATIVES: dict[str, tuple[str, ...]] = {
    "aiohttp": ("native-aiohttp", "native-aiohttp-best"),
    "websockets": ("native-websockets", "native-websockets-best"),
    "tornado": ("native-tornado", "native-tornado-default"),
    "picows": ("native-picows", "native-picows-best"),
    "uvicorn": ("native-uvicorn",),
    "hypercorn": ("native-hypercorn",),
    "granian": ("native-granian",),
}
"""By connector: the usual idiom of its server, then others."""

SUBJECTS: dict[str, Subject] = {
    "native-aiohttp": native_aiohttp,
    "native-aiohttp-best": partial(native_aiohttp, best=True),
    "native-websockets": native_websockets,
    "native-websockets-best": partial(native_websockets, best=True),
    "native-tornado": native_tornado,
    "native-tornado-default": partial(native_tornado, nodelay=False),
    "native-picows": native_picows,
    "native-picows-best": partial(native_picows, best=True),
    "native-uvicorn": partial(on_uvicorn, framework=""),
    "native-hypercorn": on_hypercorn,
    "native-granian": on_granian,
    **{name: partial(on_uvicorn, framework=name) for name in FRAMEWORKS},
}


def subject(name: str) -> Subject:
    """Return a subject.

    Raises:
        KeyError: There is none of that name.
    """
    kind, _, connector = name.partition("-")
    if kind == "wsbridge":
        return partial(wsbridge_on, connector=connector)
    if kind == "stream":
        return partial(stream_on, connector=connector)
    return SUBJECTS[name]


def connectors() -> list[str]:
    """Return the names of the connectors that serve a network, installed or not."""
    import wsbridge

    return list(wsbridge.connector_names(serving=True))


async def run(name: str, setup: Setup) -> None:
    """Serve a subject until stdin closes or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            stop.set()

    async with subject(name.removesuffix(UVLOOP))(setup) as port:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_reader(sys.stdin.fileno(), on_stdin)
        print(f"PORT {port}", flush=True)
        await stop.wait()
        loop.remove_reader(sys.stdin.fileno())


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m benchmarks.subjects",
    )
    parser.add_argument("name")
    parser.add_argument("--mode", choices=get_args(Mode), default="echo")
    parser.add_argument("--compression", choices=get_args(Deflate), default="off")
    parser.add_argument("--pings", action="store_true", help="pings every 20 s, and an idle timeout where there is one")
    args = parser.parse_args()
    try:
        subject(args.name.removesuffix(UVLOOP))
    except KeyError:
        parser.error(f"there is no subject {args.name!r}")
    try:
        factory = None
        if args.name.endswith(UVLOOP):
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run(args.name, Setup(args.mode, args.compression, args.pings)))
    except ImportError as exc:
        print(f"MISSING {exc}", flush=True)
    except UnsupportedError as exc:
        print(f"UNSUPPORTED {exc}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
