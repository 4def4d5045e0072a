"""How many Python and C calls an echoed message costs, counted and not timed, so that the figure is exact.

    python -m tests.hot_path            compare with the committed table
    python -m tests.hot_path --write    write the figures of this Python and these servers into it

One message is sent at a time, and the event loop is turned until its echo is back, with `sys.setprofile` on in these
turns alone. A turn in which nothing happens has a price too, which is measured and taken off, so that it does not
matter how many there are. Counted are twice as many messages and half of them, and what lies between is what a message
costs.
"""

import argparse
import asyncio
import base64
import gc
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import wsbridge

TABLE = Path(__file__).with_suffix(".json")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = {
    "aiohttp": ("aiohttp",),
    "websockets": ("websockets",),
    "tornado": ("tornado",),
    "picows": ("picows",),
    "uvicorn": ("uvicorn", "websockets"),
    "hypercorn": ("hypercorn", "wsproto"),
}
"""The connectors that are counted, and the packages whose versions the number of all calls depends on."""

KINDS = ("text", "binary")
MESSAGES = 32
MAX_TURNS = 10_000  # for one message
_OWN = str(Path(wsbridge.__file__).parent)
_MASK = b"\x11\x22\x33\x44"


class NotExactError(Exception):
    """The count of a message is no whole number, or it never came back: the measurement is wrong."""


@dataclass(frozen=True)
class Calls:
    """What an echoed message costs: calls made by or to wsbridge's own functions, and all calls of the process."""

    own: int
    all: int
    names: dict[str, int] = field(compare=False, default_factory=dict)

    def __str__(self) -> str:
        lines = [f"    {count:4}  {name}" for name, count in sorted(self.names.items(), key=lambda item: -item[1])]
        return "\n".join([f"{self.own} of wsbridge's own, {self.all} in all:", *lines])


class Counting:
    """Counts calls while it is switched on."""

    def __init__(self) -> None:
        self.own = self.all = 0
        self.names: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" and event != "c_call":
            return
        code = frame.f_code
        self.all += 1
        self.own += code.co_filename.startswith(_OWN)
        name = code.co_qualname if event == "call" else f"{code.co_qualname} -> {argument.__name__}"
        self.names[name] += 1

    async def turn(self) -> None:
        """Turn the event loop once."""
        sys.setprofile(self)
        await asyncio.sleep(0)
        sys.setprofile(None)

    def minus(self, other: "Counting", times: int = 1) -> "Counting":
        """Return what is left without another count."""
        left = Counting()
        left.own, left.all = self.own - times * other.own, self.all - times * other.all
        left.names = self.names.copy()
        for name, count in other.names.items():
            left.names[name] -= times * count
        return left


def _frame(opcode: int, payload: bytes) -> bytes:
    masked = bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + _MASK + masked


async def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, (parts.hostname, parts.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        response += await loop.sock_recv(sock, 1)
    assert response.startswith(b"HTTP/1.1 101 "), response
    return sock


async def _idle(turns: int) -> Counting:
    counting = Counting()
    for _ in range(turns):
        await counting.turn()
    return counting


async def _exchange(sock: socket.socket, messages: int, *, frame: bytes, echo: bytes) -> Counting:
    """Have messages echoed, one after the other; return their calls without those of the turns."""
    counting = Counting()
    turns = 0
    for _ in range(messages):
        assert sock.send(frame) == len(frame)
        received = b""
        for _ in range(MAX_TURNS):
            await counting.turn()
            turns += 1
            try:
                received += sock.recv(len(echo) + 1)
            except BlockingIOError:
                continue
            if len(received) >= len(echo):
                break
        else:
            raise NotExactError(f"no echo after {MAX_TURNS} turns")
        if received != echo:
            raise NotExactError(f"not an echo: {received!r}")
        for _ in range(8):  # what the server does behind it
            await counting.turn()
            turns += 1
    one = (await _idle(20)).minus(await _idle(10))
    if one.own or one.all % 10:
        raise NotExactError(f"a turn in which nothing happens costs {one.all} tenths of a call")
    idle = Counting()
    idle.all = one.all // 10
    idle.names = Counter({name: count // 10 for name, count in one.names.items()})
    return counting.minus(idle, turns)


async def _count(connector: str, kind: str) -> Calls:
    async def on_text(channel: wsbridge.WebSocketChannel, process: None, text: str) -> None:
        await channel.send_text(text)

    async def on_binary(channel: wsbridge.WebSocketChannel, process: None, data: bytes) -> None:
        await channel.send_binary(data)

    app = wsbridge.Application([("/", wsbridge.WebSocketOptions(on_text=on_text, on_binary=on_binary))])
    opcode, payload = (
        (0x1 if kind == "text" else 0x2),
        b"sixty-four bytes, as in the benchmark: counted, where it times.",
    )
    frame, echo = _frame(opcode, payload), bytes((0x80 | opcode, len(payload))) + payload
    async with wsbridge.serve(app, f"wsbridge.connectors.{connector}:Connector", port=0) as server:
        with await _connect(server.url) as sock:
            await _exchange(sock, MESSAGES, frame=frame, echo=echo)
            once = await _exchange(sock, MESSAGES, frame=frame, echo=echo)
            twice = await _exchange(sock, 2 * MESSAGES, frame=frame, echo=echo)
            slope = twice.minus(once)
            sock.send(_frame(0x8, b"\x03\xe8"))
            await asyncio.get_running_loop().sock_recv(sock, 100)
    if slope.own % MESSAGES or slope.all % MESSAGES:
        raise NotExactError(f"{MESSAGES} messages cost {slope.own} and {slope.all} calls on {connector}")
    names = {name: count // MESSAGES for name, count in slope.names.items() if count >= MESSAGES}
    return Calls(slope.own // MESSAGES, slope.all // MESSAGES, names)


def count(connector: str, kind: str) -> Calls:
    """Count the calls of an echo on a connector, in an event loop of its own."""
    gc.collect()
    gc.disable()
    try:
        return asyncio.run(_count(connector, kind), debug=False)
    finally:
        sys.setprofile(None)
        gc.enable()


def installed(connector: str) -> str:
    """Return the versions that the number of all calls depends on."""
    return ", ".join(f"{package} {version(package)}" for package in PACKAGES[connector])


def read() -> dict[str, Any]:
    """Return the committed table: for each connector its own calls, and by Python all calls with the versions."""
    table: dict[str, Any] = json.loads(TABLE.read_text())
    return table


def update(entry: dict[str, Any], counts: dict[str, Calls], versions: str) -> None:
    """Write counts into a connector's entry; what wsbridge itself costs more or less now, it does on every Python."""
    own = {kind: calls.own for kind, calls in counts.items()}
    for by_python in entry["all"].values():
        for kind, old in entry["own"].items():
            by_python[kind] += own[kind] - old
    entry["own"] = own
    here = {"versions": versions} | {kind: calls.all for kind, calls in counts.items()}
    entry["all"] = dict(sorted({**entry["all"], PYTHON: here}.items()))


def main(say: Callable[[str], object] = print) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hot_path", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the figures into the table")
    parser.add_argument("--connector", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    parser.add_argument("--names", action="store_true", help="show what is called")
    args = parser.parse_args()
    table = read() if TABLE.exists() else {}
    differ = False
    for connector in args.connector:
        counts = {kind: count(connector, kind) for kind in KINDS}
        for kind, calls in counts.items():
            say(f"{connector} {kind}: {calls if args.names else f'{calls.own} own, {calls.all} in all'}")
        before = json.dumps(table.get(connector))
        update(table.setdefault(connector, {"own": {}, "all": {}}), counts, installed(connector))
        differ |= json.dumps(table[connector]) != before
    if args.write:
        TABLE.write_text(json.dumps(table, indent=2) + "\n")
        return 0
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
