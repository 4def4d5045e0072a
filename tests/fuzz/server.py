"""The server that is fuzzed, in a process of its own: ``python -m tests.fuzz.server CONNECTOR``.

It prints its port; each line on stdin is answered by what it holds then, as JSON; it ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from benchmarks.soak import held

import wsbridge
from wsbridge import Application, WebSocketChannel, WebSocketOptions

LIMIT = 64 * 1024


class Errors(logging.Handler):
    """Keeps what was logged as an error, by whomever: nothing that a peer sends is one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.found) < 20:
            self.found.append(self.format(record)[-2000:])


async def serve(connector: str) -> None:
    """Serve an echo until stdin ends."""
    errors = Errors()
    logging.getLogger().addHandler(errors)
    counts = {"opened": 0, "closed": 0}

    def on_open(channel: WebSocketChannel, request: object) -> None:
        counts["opened"] += 1

    async def echo(channel: WebSocketChannel, process: None, message: Any) -> None:
        await channel.send(message)

    def on_close(channel: WebSocketChannel, process: None, reason: object) -> None:
        counts["closed"] += 1

    has_deflate = "compression" in wsbridge.load_connector(connector).features
    options = WebSocketOptions(
        on_open=on_open,
        on_text=echo,
        on_binary=echo,
        on_close=on_close,
        compression=has_deflate,
        max_text_size=LIMIT,
        max_binary_size=LIMIT,
        close_timeout=2,
    )
    lines = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with wsbridge.serve(
        Application([("/", options)]), connector, handshake_timeout=60, shutdown_timeout=2
    ) as one:
        print(one.addresses[0][1], flush=True)
        while await lines.readline():
            print(json.dumps({**held(), **counts, "errors": errors.found}), flush=True)
    pipe.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
