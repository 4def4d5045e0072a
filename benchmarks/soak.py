"""Soak: thousands of channels for minutes, with connects, sends and drops; nothing may pile up in the server.

The server runs in a process of its own, whose memory, tasks, descriptors and threads are printed before the first
channel, each minute, and after the last one has left. Every echo is compared; a client that leaves does so by a close
handshake, by the end of its stream, or by a reset, in turns drawn from the seed, and the server's count of reasons
must equal what the clients did.

Example:
    python -m benchmarks.soak --connector tornado --channels 5000 --minutes 10

The exit status is 1 if an echo was lost or wrong, a channel ended for another reason than its client's, an `on_open`
did not have exactly one `on_close`, tasks, descriptors or threads are left, or memory grew by more than a tenth from
the end of the first minute of load to the end of the last.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import gc
import json
import os
import random
import resource
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"
LEAVE = ("close", "eof", "reset")
TICK = 0.02  # seconds between two turns of the load
CONNECTING = 64  # handshakes at once
LINGER_SECONDS = 30.0
SPARE = 200  # descriptors beside those of the channels
MIB = 1024 * 1024
COUNTED = ("tasks", "descriptors", "threads")


# ---- the server's process -------------------------------------------------------------------------------------------


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process open ``wanted`` files.

    Raises:
        SystemExit: The hard limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} descriptors are needed, but the hard limit is {hard}: see ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def held() -> dict[str, int]:
    """Return what this process holds now, garbage left out."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed, which is not a leak
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return {
        "rss": resident,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def measured(counts: Counter[str], reasons: Counter[str]) -> dict[str, Any]:
    """Return what this process holds, and what has happened in it."""
    return {
        **held(),
        "opened": counts["opened"],
        "closed": counts["closed"],
        "messages": counts["messages"],
        "unsent": counts["unsent"],
        "reasons": dict(reasons),
    }


async def serve(connector: str, channels: int) -> None:
    """Serve an echo until stdin ends; each line of it is answered with what this process holds."""
    import wsbridge

    raise_descriptor_limit(channels + SPARE)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    def on_open(channel: Any, request: Any) -> Counter[str]:
        counts["opened"] += 1
        return Counter()

    async def on_text(channel: Any, process: Counter[str], text: str) -> None:
        counts["messages"] += 1
        if not await channel.send_text(text):
            process["unsent"] += 1

    def on_close(channel: Any, process: Counter[str], reason: Any) -> None:
        counts["closed"] += 1
        if reason.initiator == "peer":
            counts["unsent"] += process["unsent"]
        reasons[f"{reason.code} {reason.initiator}"] += 1

    options = wsbridge.WebSocketOptions(on_open=on_open, on_text=on_text, on_close=on_close)
    lines = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with wsbridge.serve(wsbridge.Application([("/", options)]), connector) as server:
        print(urlsplit(server.url).port, flush=True)
        while await lines.readline():
            print(json.dumps(measured(counts, reasons)), flush=True)
    pipe.close()


# ---- the clients ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Totals:
    """What the clients did and saw."""

    sent: int = 0
    echoed: int = 0
    wrong: int = 0
    lost: int = 0
    unanswered: int = 0
    ended: int = 0
    connected: int = 0
    refused: int = 0
    left: Counter[str] = field(default_factory=Counter[str])


class Client(asyncio.Protocol):
    """One connection: counts its own messages, and compares each echo with the message that it must be."""

    def __init__(self, totals: Totals, number: int) -> None:
        self.totals = totals
        self.number = number
        self.sent = 0
        self.leaving = ""
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._owed: deque[bytes] = deque()
        self._input = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._input += data
        if not self.ready.done():
            head, end, rest = bytes(self._input).partition(b"\r\n\r\n")
            if not end:
                return
            self._input = bytearray(rest)
            if not head.startswith(b"HTTP/1.1 101 "):
                self.ready.set_exception(ConnectionError(head.split(b"\r\n")[0].decode("latin-1")))
                self._transport.abort()
                return
            self.ready.set_result(None)
        while len(self._input) >= 2 and len(self._input) >= 2 + self._input[1]:
            opcode, payload = self._input[0], bytes(self._input[2 : 2 + self._input[1]])
            del self._input[: 2 + len(payload)]
            self._frame(opcode, payload)

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 0x89:
            self._write(0x8A, payload)
        elif opcode == 0x88:
            if not self.leaving:  # only clients leave here
                self.totals.ended += 1
            self._transport.close()
        elif opcode == 0x81 and self._owed and self._owed[0] == payload:
            self._owed.popleft()
            self.totals.echoed += 1
        else:
            self.totals.wrong += 1

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"no answer to the handshake: {exc}"))
        elif not self.leaving:
            self.totals.ended += 1
        if self.leaving == "":
            self.totals.lost += len(self._owed)
        elif self.leaving == "close":
            self.totals.unanswered += len(self._owed)
        self.gone.set_result(None)

    def send(self) -> None:
        """Send the next message, unless this client has left."""
        if self.leaving or self._transport.is_closing():
            return
        payload = f"{self.number}:{self.sent}".encode()
        self.sent += 1
        self.totals.sent += 1
        self._owed.append(payload)
        self._write(0x81, payload)

    def leave(self, how: str) -> None:
        """Close by a handshake, end the stream, or reset the connection."""
        self.leaving = how
        self.totals.left[how] += 1
        if how == "close":
            self._write(0x88, b"\x03\xe8")
        elif how == "eof":
            self._transport.close()
        else:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _write(self, first: int, payload: bytes) -> None:
        self._transport.write(bytes((first, 0x80 | len(payload), 0, 0, 0, 0)) + payload)  # under a mask of zeros


class Load:
    """Keeps ``channels`` clients there: some send, some leave and are replaced, as the seed has it."""

    def __init__(self, port: int, arguments: argparse.Namespace) -> None:
        self.totals = Totals()
        self._port = port
        self._arguments = arguments
        self._random = random.Random(arguments.seed)
        self._clients: list[Client] = []
        self._leaving: set[Client] = set()
        self._number = 0

    async def connect(self, count: int) -> None:
        """Bring ``count`` more clients."""
        while count > 0:
            batch, count = min(count, CONNECTING), count - CONNECTING
            await asyncio.gather(*(self._connect() for _ in range(batch)))

    async def _connect(self) -> None:
        self._number += 1
        loop = asyncio.get_running_loop()
        client = Client(self.totals, self._number)
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await loop.create_connection(lambda: client, HOST, self._port)
                await client.ready
        except OSError as exc:
            self.totals.refused += 1
            if self.totals.refused == 1:
                print(f"a handshake failed: {exc}", file=sys.stderr)
            return
        self.totals.connected += 1
        self._clients.append(client)

    async def run(self, until: float) -> None:
        """Send and leave at the rates asked for, until ``time.monotonic()`` has reached ``until``."""
        begun = time.monotonic()
        sent = left = 0
        while (now := time.monotonic()) < until:
            due = int((now - begun) * self._arguments.messages) - sent
            sent += due
            for client in self._random.choices(self._clients, k=due):
                client.send()
            due = int((now - begun) * self._arguments.drops) - left
            left += due
            for _ in range(due):
                self._leave(self._random.randrange(len(self._clients)))
            await self.connect(due)
            await asyncio.sleep(TICK)

    def _leave(self, index: int) -> None:
        self._clients[index], self._clients[-1] = self._clients[-1], self._clients[index]
        client = self._clients.pop()
        self._leaving.add(client)
        client.gone.add_done_callback(lambda _: self._leaving.discard(client))
        client.leave(self._random.choice(LEAVE))

    async def end(self) -> None:
        """Let every client leave, and wait until all are gone."""
        while self._clients:
            self._leave(len(self._clients) - 1)
            if len(self._clients) % CONNECTING == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(LINGER_SECONDS):
            while self._leaving:
                await asyncio.wait({client.gone for client in self._leaving})


# ---- the run --------------------------------------------------------------------------------------------------------


class Server:
    """The server's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, connector: str, channels: int) -> tuple[Server, int]:
        """Return the server and its port."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.soak", "--serve"),
            *(f"--connector={connector}", f"--channels={channels}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        server = cls(process)
        line = await server._stdout.readline()
        if not line:
            raise SystemExit(f"the server of {connector} did not start")
        return server, int(line)

    async def measure(self) -> dict[str, Any]:
        """Return what the server's process holds."""
        self._stdin.write(b"\n")
        async with asyncio.timeout(LINGER_SECONDS):
            line = await self._stdout.readline()
        if not line:
            raise SystemExit("the server has died")
        held: dict[str, Any] = json.loads(line)
        return held

    async def settled(self, start: dict[str, Any]) -> dict[str, Any]:
        """Return what it holds once nothing of a channel is left, or what it still holds."""
        deadline = time.monotonic() + LINGER_SECONDS
        while True:
            held = await self.measure()
            is_clean = held["opened"] == held["closed"] and all(held[name] <= start[name] for name in COUNTED)
            if is_clean or time.monotonic() > deadline:
                return held
            await asyncio.sleep(0.2)

    async def stop(self) -> int:
        """End the process and return its exit status."""
        self._stdin.close()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()


def row(when: str, held: dict[str, Any]) -> str:
    """Return one line of the table."""
    there = held["opened"] - held["closed"]
    return (
        f"{when:>8} {there:>9} {held['opened']:>9} {held['messages']:>10} {held['rss'] / MIB:>9.1f} "
        f"{held['tasks']:>7} {held['descriptors']:>12} {held['threads']:>8}"
    )


def judged(totals: Totals, samples: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return what is wrong."""
    (_, start), (_, end) = samples[0], samples[-1]
    loaded = [held for _, held in samples[2:-1]]
    found: list[str] = []
    for name in ("wrong", "lost", "refused", "ended"):
        if count := getattr(totals, name):
            found.append(f"{count} {'clients' if name in ('refused', 'ended') else 'echoes'} {name}")
    if totals.unanswered != end["unsent"]:  # what a send returned True for comes before the close frame (SEND-6)
        found.append(
            f"{totals.unanswered} echoes did not come before a close, but {end['unsent']} sends returned False"
        )
    if not end["opened"] == end["closed"] == totals.connected:
        found.append(f"{totals.connected} clients, but {end['opened']} on_open and {end['closed']} on_close")
    cut = totals.left["eof"] + totals.left["reset"]
    expected = {"1000 peer": totals.left["close"], "1006 network": cut}
    if end["reasons"] != {reason: count for reason, count in expected.items() if count}:
        found.append(f"the reasons were {end['reasons']}, not {expected}")
    found += [f"{end[name] - start[name]} {name} are left" for name in COUNTED if end[name] > start[name]]
    if len(loaded) >= 2 and loaded[-1]["rss"] > 1.1 * loaded[0]["rss"]:
        found.append(f"memory grew from {loaded[0]['rss'] / MIB:.1f} to {loaded[-1]['rss'] / MIB:.1f} MiB under load")
    return found


async def soak(arguments: argparse.Namespace) -> int:
    """Run it and return the exit status."""
    raise_descriptor_limit(arguments.channels + SPARE)
    server, port = await Server.start(arguments.connector, arguments.channels)
    samples: list[tuple[str, dict[str, Any]]] = []

    async def sample(when: str, held: dict[str, Any]) -> None:
        samples.append((when, held))
        print(row(when, held), flush=True)

    print(f"{arguments.connector}: {arguments.channels} channels, {arguments.minutes:g} min, seed {arguments.seed}")
    print(
        f"{'':>8} {'channels':>9} {'opened':>9} {'messages':>10} {'RSS MiB':>9} {'tasks':>7} "
        f"{'descriptors':>12} {'threads':>8}"
    )
    load = Load(port, arguments)
    try:
        await sample("start", await server.measure())
        await load.connect(arguments.channels)
        await sample("full", await server.measure())
        begun = time.monotonic()
        end = begun + arguments.minutes * 60
        while (now := time.monotonic()) < end:
            await load.run(min(end, now + 60))
            await sample(f"{(time.monotonic() - begun) / 60:.0f} min", await server.measure())
        await load.end()
        await sample("end", await server.settled(samples[0][1]))
    finally:
        status = await server.stop()
    found = judged(load.totals, samples)
    if status:
        found.append(f"the server ended with status {status}")
    totals = load.totals
    print(
        f"sent {totals.sent}, echoed {totals.echoed}, refused after a close {totals.unanswered}, "
        f"lost {totals.lost}, wrong {totals.wrong}, left {dict(totals.left)}"
    )
    for one in found:
        print(f"FAILED: {one}")
    if arguments.json is not None:
        result = {
            "arguments": {**vars(arguments), "json": None},
            "samples": samples,
            "totals": {**asdict(totals), "left": dict(totals.left)},
        }
        arguments.json.write_text(json.dumps({**result, "failures": found}, indent=2) + "\n")
    return 1 if found else 0


def main() -> int:
    """Read the arguments and run the soak, or the server of one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--connector", required=True, help="the name of a connector")
    parser.add_argument("--channels", type=int, default=5000, help="how many are open at a time")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long they talk")
    parser.add_argument("--messages", type=float, default=1000.0, help="a second, over all channels")
    parser.add_argument("--drops", type=float, default=20.0, help="a second; each is replaced by a new channel")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of clients and of how they leave")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.channels < 1 or arguments.minutes <= 0 or arguments.messages < 0 or arguments.drops < 0:
        parser.error("--channels and --minutes must be above 0, --messages and --drops at least 0")
    if arguments.serve:
        asyncio.run(serve(arguments.connector, arguments.channels))
        return 0
    return asyncio.run(soak(arguments))


if __name__ == "__main__":
    sys.exit(main())
