"""What a message through the memory connector costs: ``python -m benchmarks.memory``.

An echo, one message at a time, from `Peer.send` to the return of `Peer.receive`, in one process. The CPU time of that
process is measured in slices, and their median counts; a median above ``--limit`` is exit status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from typing import Any

from wsbridge import WebSocketChannel, WebSocketOptions
from wsbridge.testing import Peer, connect


async def _echo_text(channel: WebSocketChannel, process: Any, text: str) -> None:
    await channel.send_text(text)


async def _echo_binary(channel: WebSocketChannel, process: Any, data: bytes) -> None:
    await channel.send_binary(data)


async def _slice(peer: Peer, message: str | bytes, count: int) -> float:
    """Return the microseconds of CPU time for a message there and back."""
    begin = time.process_time()
    for _ in range(count):
        await peer.send(message)
        await peer.receive()
    return (time.process_time() - begin) / count * 1e6


async def measure(message: str | bytes, *, slices: int, count: int) -> list[float]:
    """Return the microseconds for a message there and back, of each slice."""
    async with connect(WebSocketOptions(on_text=_echo_text, on_binary=_echo_binary)) as peer:
        await _slice(peer, message, count)  # warm
        return [await _slice(peer, message, count) for _ in range(slices)]


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=15, metavar="N")
    parser.add_argument("--messages", type=int, default=20_000, metavar="N", help="to a slice")
    parser.add_argument("--limit", type=float, metavar="US", help="the most that a median may be, in microseconds")
    options = parser.parse_args()
    medians: list[float] = []
    for name, message in {"text, 64 bytes": "x" * 64, "binary, 4 KiB": bytes(4096)}.items():
        times = asyncio.run(measure(message, slices=options.slices, count=options.messages))
        medians.append(statistics.median(times))
        print(f"{name:<16} {medians[-1]:6.2f} us there and back (slices: {min(times):.2f} to {max(times):.2f})")
    return int(options.limit is not None and max(medians) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
