"""The server that is fuzzed, in a process of its own: ``python -m tests.fuzz.server CONNECTOR``.

It prints its port; each line on stdin is answered by what it holds then, as JSON; it ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import wsbridge
from benchmarks.soak import held
from wsbridge import Application, WebSocketChannel, WebSocketOptions

LIMIT = 64 * 1024


LONGEST = 1000  # characters of a record


class Log(logging.Handler):
    """Counts what is logged from the level info on, by whomever (LOG-1), and keeps what must not be: an error, or what
    is long or not on one line (LOG-2)."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0
        self.bad: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        text = self.format(record)
        is_bad = record.levelno >= logging.ERROR or len(text) > LONGEST or not text.isprintable()
        if is_bad and len(self.bad) < 20:
            self.bad.append(text[-2000:])


async def serve(connector: str) -> None:
    """Serve an echo until stdin ends."""
    log = Log()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.INFO)
    logging.captureWarnings(True)
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
        log.count = 0  # the start is told of
        while await lines.readline():
            print(json.dumps({**held(), **counts, "logged": log.count, "errors": log.bad}), flush=True)
    pipe.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
