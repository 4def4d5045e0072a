"""Load generator: raw sockets that keep text messages in flight and count the bytes of their echoes.

It knows just enough WebSocket to cost less than any server it drives: the handshake is written by hand, the
masked frames are built once, and every message and every echo has one known length, so counting bytes is
counting messages. The first echo of each connection is compared in full. Bounded in messages and in time, and
it connects to 127.0.0.1 only.

Given more servers than one, it drives them in turns, slice by slice.

Example:
    python -m benchmarks.load --server 8000:4711 --server 8001:4712 --messages 20000
"""

import argparse
import base64
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PAYLOAD = b"wsbridge benchmark: sixty-four bytes of text, echoed as it came."
MASK = b"\x5a\x13\xc7\x88"
MESSAGE = bytes([0x81, 0x80 | len(PAYLOAD)]) + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(PAYLOAD))
ECHO = bytes([0x81, len(PAYLOAD)]) + PAYLOAD
CLOSE = bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])  # code 1000, under a mask of zeros

MAX_SECONDS = 15.0
"""Shorter than the 20 s after which wsbridge sends a ping by default, which would be counted as an echo."""
STALL_SECONDS = 5.0
SETTLE_SECONDS = 0.02


class LoadError(Exception):
    """A server refused, closed, stalled, was too slow, or answered with something else than an echo."""


@dataclass(slots=True)
class Result:
    """What was counted for one server: messages, wall seconds, CPU seconds of the server and of the load."""

    messages: int = 0
    seconds: float = 0.0
    server_cpu: float = 0.0
    load_cpu: float = 0.0


@dataclass(slots=True)
class _Connection:
    """One socket, the echo bytes it still owes, and the bytes of an echo received in part."""

    sock: socket.socket
    owed: int = 0
    partial: int = 0


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process in nanosecond steps, through its POSIX CPU clock.

    The kernel brings the clock of another process up to date when that process sleeps, and only every few
    milliseconds while it runs: let it settle first. `/proc/PID/stat` counts in steps of 10 ms, and
    `/proc/PID/schedstat` is zero on kernels built without it.
    """
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), as the C library computes it


def _connect(port: int) -> _Connection:
    """Open a connection, shake hands without extensions, and check one echo byte by byte."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    sock.sendall(request.encode())
    response = _receive(sock, until=b"\r\n\r\n")
    if not response.startswith(b"HTTP/1.1 101 "):
        raise LoadError(f"handshake refused: {response.splitlines()[0]!r}")
    sock.sendall(MESSAGE)
    echo = _receive(sock, until=ECHO)
    if echo != ECHO:
        raise LoadError(f"not an echo: {echo!r}")
    sock.setblocking(False)
    return _Connection(sock)


def _receive(sock: socket.socket, *, until: bytes) -> bytes:
    data = b""
    while not data.endswith(until):
        chunk = sock.recv(65536)
        if not chunk:
            raise LoadError(f"connection closed after {data!r}")
        data += chunk
    return data


class Load:
    """Connections to one server, each with up to `window` messages in flight."""

    def __init__(self, port: int, *, connections: int, window: int) -> None:
        """Connect; the window must fit into a socket buffer, since a send is never retried."""
        self._bursts = [MESSAGE * count for count in range(window + 1)]
        self._connections = [_connect(port) for _ in range(connections)]
        self._by_fd = {connection.sock.fileno(): connection for connection in self._connections}
        self._epoll = select.epoll()
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)

    def exchange(self, messages: int, *, deadline: float) -> None:
        """Send messages until every echo has come, or `time.perf_counter()` has reached the deadline."""
        window = len(self._bursts) - 1
        size = len(ECHO)
        left = messages
        echoes = 0
        for connection in self._connections:
            count = min(window, left)
            left -= count
            self._send(connection, count)
        buffer = bytearray(65536)
        while echoes < messages:
            events = self._epoll.poll(STALL_SECONDS)
            if not events:
                raise LoadError(f"no echo for {STALL_SECONDS:g} s, {messages - left - echoes} messages in flight")
            if time.perf_counter() > deadline:
                raise LoadError(f"not done within {MAX_SECONDS:g} s: choose fewer messages")
            for fd, _ in events:
                connection = self._by_fd[fd]
                received = connection.sock.recv_into(buffer)
                if not received:
                    raise LoadError("the server closed a connection")
                connection.owed -= received
                count, connection.partial = divmod(connection.partial + received, size)
                echoes += count
                if left:
                    count = min(count, left)
                    left -= count
                    self._send(connection, count)
        if any(connection.owed for connection in self._connections):
            raise LoadError("the server sent more bytes than the echoes have")

    def _send(self, connection: _Connection, count: int) -> None:
        if count:
            burst = self._bursts[count]
            if connection.sock.send(burst) != len(burst):
                raise LoadError("a window does not fit into the socket buffer")
            connection.owed += count * len(ECHO)

    def close(self) -> None:
        """Close every connection with a handshake, so that no server has an error to log."""
        self._epoll.close()
        for connection in self._connections:
            connection.sock.settimeout(STALL_SECONDS)
            connection.sock.sendall(CLOSE)
        for connection in self._connections:
            while connection.sock.recv(65536):
                pass
            connection.sock.close()


def measure(
    servers: Sequence[tuple[int, int]], *, connections: int, window: int, messages: int, slices: int
) -> list[Result]:
    """Drive each server, given as port and process, in `slices` turns, `messages` in all.

    The first connections of a process are closed unmeasured. They stay dearer for as long as they live than
    any that come later (CPython 3.13, websockets: 10%), and a server that runs for a while has only later
    ones. The order is reversed with every slice, so that no server always runs behind the same other.
    """
    deadline = time.perf_counter() + MAX_SECONDS
    warm_up = max(1, messages // 10)
    for port, _ in servers:
        load = Load(port, connections=connections, window=window)
        load.exchange(warm_up, deadline=deadline)
        load.close()
    deadline = time.perf_counter() + MAX_SECONDS
    loads = [Load(port, connections=connections, window=window) for port, _ in servers]
    for load in loads:
        load.exchange(warm_up, deadline=deadline)
    time.sleep(SETTLE_SECONDS)
    results = [Result() for _ in servers]
    turns = list(zip(loads, results, servers, strict=True))
    for index in range(slices):
        count = messages * (index + 1) // slices - messages * index // slices
        for load, result, (_, pid) in turns[:: -1 if index % 2 else 1]:
            server_cpu, load_cpu, start = cpu_seconds(pid), time.process_time(), time.perf_counter()
            load.exchange(count, deadline=deadline)
            result.seconds += time.perf_counter() - start
            result.load_cpu += time.process_time() - load_cpu
            time.sleep(SETTLE_SECONDS)
            result.server_cpu += cpu_seconds(pid) - server_cpu
            result.messages += count
    for load in loads:
        load.close()
    return results


def _server(text: str) -> tuple[int, int]:
    port, _, pid = text.partition(":")
    return int(port), int(pid)


def main() -> int:
    """Run from the command line: print a list of results as JSON, or the reason why there is none."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m benchmarks.load",
    )
    parser.add_argument("--server", type=_server, action="append", required=True, metavar="PORT:PID")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--window", type=int, default=8, help="messages in flight on each connection")
    parser.add_argument("--messages", type=int, default=50_000, help="to each server")
    parser.add_argument("--slices", type=int, default=10, help="turns in which they are sent")
    args = parser.parse_args()
    if not 1 <= args.window <= 200:
        parser.error("--window must be from 1 to 200")
    if args.connections < 1 or not 1 <= args.slices <= args.messages:
        parser.error("--connections and --slices must be positive, and --messages no less than --slices")
    try:
        results = measure(
            args.server,
            connections=args.connections,
            window=args.window,
            messages=args.messages,
            slices=args.slices,
        )
    except (LoadError, OSError) as exc:
        print(f"load: {exc}", file=sys.stderr)
        return 1
    print(json.dumps([asdict(result) for result in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
