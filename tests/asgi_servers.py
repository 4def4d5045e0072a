"""Runs the ASGI application of an example on any server, as it is: ``python -m tests.asgi_servers SERVER EXAMPLE``.

Each is stopped as docs/asgi.md says: first the channels, then the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PORT = int(os.environ.get("PORT", "8080"))
EXAMPLES = Path(__file__).parent.parent / "examples"


def _module(name: str) -> Any:
    return importlib.import_module(name)  # not all of them have types


async def _hypercorn(app: Any, until_stopped: Callable[[], Awaitable[None]]) -> None:
    config = _module("hypercorn.config").Config()
    config.bind = [f"127.0.0.1:{PORT}"]
    config.loglevel = "WARNING"
    await _module("hypercorn.asyncio").serve(app, config, shutdown_trigger=until_stopped)


async def _granian(app: Any, until_stopped: Callable[[], Awaitable[None]]) -> None:
    server = _module("granian.server.embed").Server(app, port=PORT, interface="asgi", log_enabled=False)
    serving = asyncio.ensure_future(server.serve())
    await until_stopped()
    server.stop()
    await serving
    os._exit(0)  # in the interpreter's own end a thread of granian's may abort the process


def _daphne(app: Any, until_stopped: Callable[[], Awaitable[None]]) -> None:
    daphne = _module("daphne.server")  # makes an event loop of its own, for Twisted

    async def stopping() -> None:
        await until_stopped()
        server.stop()

    waiting = daphne.twisted_loop.create_task(stopping())
    server = daphne.Server(app, [f"tcp:{PORT}:interface=127.0.0.1"], signal_handlers=False, verbosity=0)
    server.run()
    waiting.result()


def main(server: str, example: str) -> None:
    """Serve until a signal comes."""
    sys.path.insert(0, str(EXAMPLES))
    module = importlib.import_module(example)

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        while True:  # until it listens
            with contextlib.suppress(ConnectionRefusedError):
                (await asyncio.open_connection("127.0.0.1", PORT))[1].close()
                break
            await asyncio.sleep(0.01)
        print(f"Running on http://127.0.0.1:{PORT}", flush=True)
        await stopped.wait()
        await module.websockets.stop()

    if server == "daphne":
        _daphne(module.app, until_stopped)
    else:
        asyncio.run({"hypercorn": _hypercorn, "granian": _granian}[server](module.app, until_stopped))


if __name__ == "__main__":
    main(*sys.argv[1:])
