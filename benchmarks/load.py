"""Load generator: raw sockets that keep messages in flight and count the bytes of their echoes.

It knows just enough WebSocket to cost less than any server it drives: the handshake is written by hand, the masked
frames are built once, and every message and every echo has one known length, so counting bytes is counting messages.
The first echo of each connection is compared in full. Bounded in messages and in time, on the loopback network only.
Given more servers than one, it drives them in turns, slice by slice, the order reversed every time.

Example:
    python -m benchmarks.load echo --server 8000:4711 --server 8001:4712 --messages 20000

prints a JSON list with an object of figures for each server.
"""

import argparse
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.wire import (
    CLOSE,
    PAYLOAD,
    STALL_SECONDS,
    LoadError,
    Talk,
    connect,
    cpu_seconds,
    deflated,
    frame,
    open_echo,
    receive,
    receive_frame,
    request,
    resident,
)

MAX_SECONDS = 100.0
SETTLE_SECONDS = 0.02
IN_FLIGHT = 10
"""Messages under way at once where the number of channels grows."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Server:
    """A server to drive."""

    port: int
    pid: int
    dialect: str = ""

    @classmethod
    def parse(cls, text: str) -> "Server":
        """Read PORT:PID or PORT:PID:DIALECT."""
        port, pid, *dialect = text.split(":")
        return cls(int(port), int(pid), *dialect)


@dataclass(slots=True)
class _Connection:
    """One socket, the echo bytes it still owes, the bytes of an echo received in part, and what is unsent."""

    sock: socket.socket
    owed: int = 0
    partial: int = 0
    unsent: memoryview | None = None


class Load:
    """Connections to one server, each with up to `window` messages in flight."""

    def __init__(self, server: Server, *, talk: Talk, connections: int, window: int) -> None:
        self._talk = talk
        self._port = server.port
        self._window = window
        self._bursts = [memoryview(talk.message * count) for count in range(window + 1)]
        self.connections: list[_Connection] = []
        self._by_fd: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._next = 0
        self._among = 1
        self._buffer = bytearray(1 << 18)
        self.open(connections)

    def open(self, count: int) -> None:
        """Have so many connections open."""
        while len(self.connections) < count:
            connection = _Connection(open_echo(self._port, self._talk))
            self.connections.append(connection)
            self._by_fd[connection.sock.fileno()] = connection
            self._epoll.register(connection.sock.fileno(), select.EPOLLIN)

    def exchange(self, messages: int, *, deadline: float) -> None:
        """Send messages until every echo has come, or `time.perf_counter()` has reached the deadline."""
        left, echoes, size = messages, 0, len(self._talk.echo)
        for connection in self.connections:
            count = min(self._window, left)
            left -= count
            self._send(connection, count)
        while echoes < messages:
            for connection, count in self._events(deadline, size):
                echoes += count
                if left and count:
                    count = min(count, left)
                    left -= count
                    self._send(connection, count)
        if any(connection.owed for connection in self.connections):
            raise LoadError("the server sent more bytes than the echoes have")

    def rotate(self, messages: int, *, among: int, deadline: float) -> None:
        """Keep `IN_FLIGHT` messages under way, each on the next of the first `among` connections."""
        self._among = among
        left, echoes, size = messages, 0, len(self._talk.echo)
        for _ in range(min(IN_FLIGHT, left)):
            left -= 1
            self._send_next()
        while echoes < messages:
            for _, count in self._events(deadline, size):
                echoes += count
                for _ in range(min(count, left)):
                    left -= 1
                    self._send_next()

    def _send_next(self) -> None:
        self._next = (self._next + 1) % self._among
        self._send(self.connections[self._next], 1)

    def _events(self, deadline: float, size: int) -> list[tuple[_Connection, int]]:
        """Wait, and return how many echoes came on which connection."""
        events = self._epoll.poll(STALL_SECONDS)
        if not events:
            raise LoadError(f"no echo for {STALL_SECONDS:g} s")
        if time.perf_counter() > deadline:
            raise LoadError(f"not done within {MAX_SECONDS:g} s: choose fewer messages")
        came = []
        for fd, event in events:
            connection = self._by_fd[fd]
            if event & select.EPOLLOUT:
                self._flush(connection)
            if event & ~select.EPOLLOUT:
                received = connection.sock.recv_into(self._buffer)
                if not received:
                    raise LoadError("the server closed a connection")
                connection.owed -= received
                count, connection.partial = divmod(connection.partial + received, size)
                came.append((connection, count))
        return came

    def _send(self, connection: _Connection, count: int) -> None:
        if not count:
            return
        burst = self._bursts[count]
        connection.owed += count * len(self._talk.echo)
        if connection.unsent is not None:
            connection.unsent = memoryview(bytes(connection.unsent) + bytes(burst))
            return
        sent = connection.sock.send(burst)
        if sent < len(burst):
            connection.unsent = burst[sent:]
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: _Connection) -> None:
        assert connection.unsent is not None
        sent = connection.sock.send(connection.unsent)
        connection.unsent = connection.unsent[sent:] or None
        if connection.unsent is None:
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close every connection with a handshake, so that no server has an error to log."""
        self._epoll.close()
        for connection in self.connections:
            connection.sock.settimeout(STALL_SECONDS)
            connection.sock.sendall(CLOSE)
        for connection in self.connections:
            while connection.sock.recv(65536):
                pass
            connection.sock.close()


class Meter:
    """What one server and the load cost in its turns."""

    def __init__(self, server: Server) -> None:
        self.pid = server.pid
        self.count = 0
        self.seconds = self.load_cpu = self.server_cpu = 0.0

    def turn(self, count: int, work: Callable[[], object]) -> None:
        """Do `count` times something, and measure it."""
        server_cpu, load_cpu, start = cpu_seconds(self.pid), time.process_time(), time.perf_counter()
        work()
        self.seconds += time.perf_counter() - start
        self.load_cpu += time.process_time() - load_cpu
        time.sleep(SETTLE_SECONDS)
        self.server_cpu += cpu_seconds(self.pid) - server_cpu
        self.count += count

    def figures(self) -> Figures:
        """Return CPU microseconds for each, how many a second, and the busy shares of server and load."""
        return {
            "us": self.server_cpu / self.count * 1e6,
            "rate": self.count / self.seconds,
            "busy": self.server_cpu / self.seconds,
            "load_busy": self.load_cpu / self.seconds,
        }


def _slices(servers: Sequence[Server], total: int, slices: int, work: Callable[[int, int], object]) -> list[Figures]:
    """Have `work(index of a server, how many)` done in turns."""
    meters = [Meter(server) for server in servers]
    for index in range(slices):
        count = total * (index + 1) // slices - total * index // slices
        for number in range(len(servers))[:: -1 if index % 2 else 1]:
            meters[number].turn(count, lambda: work(number, count))  # noqa: B023  (called at once)
    return [meter.figures() for meter in meters]


def echo(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Echo messages on all connections.

    The first connections of a process are closed unmeasured. They cost more, for as long as they live, than any that
    come later (CPython 3.13, websockets: 10%), and a server that runs for a while has only later ones.
    """
    deadline = time.perf_counter() + MAX_SECONDS
    loads = []
    for server in servers:
        talk = Talk.of(args.size, args.kind, server.dialect)
        load = Load(server, talk=talk, connections=args.connections, window=args.window)
        load.exchange(max(1, args.messages // 10), deadline=deadline)
        load.close()
        loads.append(Load(server, talk=talk, connections=args.connections, window=args.window))
    for load in loads:
        load.exchange(max(1, args.messages // 10), deadline=deadline)
    time.sleep(SETTLE_SECONDS)
    figures = _slices(
        servers, args.messages, args.slices, lambda index, count: loads[index].exchange(count, deadline=deadline)
    )
    for load in loads:
        load.close()
    return figures


def latency(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Send one message after the other on one connection; the percentiles are microseconds."""
    socks = []
    talks = [Talk.of(args.size, args.kind, server.dialect) for server in servers]
    for server, talk in zip(servers, talks, strict=True):
        sock = open_echo(server.port, talk)
        sock.settimeout(STALL_SECONDS)
        socks.append(sock)
    samples: list[list[int]] = [[] for _ in servers]

    def ping_pong(index: int, count: int) -> None:
        sock, talk, taken = socks[index], talks[index], samples[index]
        for _ in range(count):
            start = time.perf_counter_ns()
            sock.sendall(talk.message)
            receive(sock, len(talk.echo))
            taken.append(time.perf_counter_ns() - start)

    for index in range(len(servers)):
        ping_pong(index, max(1, args.messages // 10))
        samples[index].clear()
    figures = _slices(servers, args.messages, args.slices, ping_pong)
    for sock, taken, figure in zip(socks, samples, figures, strict=True):
        taken.sort()
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            figure[name] = taken[min(int(share * len(taken)), len(taken) - 1)] / 1000
        sock.sendall(CLOSE)
        sock.close()
    return figures


class _Visit:
    """A connection that is opened, has one message echoed, and is closed."""

    def __init__(self, server: Server, talk: Talk, source: str) -> None:
        self.sock = socket.socket()
        self.sock.bind((source, 0))
        self.sock.connect(("127.0.0.1", server.port))  # by the kernel alone, at once
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.sock.send(request(server.port, talk.path))
        self._talk = talk
        self._data = b""
        self._step = 0

    def goes_on(self) -> bool:
        """Take what came; return False at the end."""
        data = self.sock.recv(4096)
        if not data:
            if self._step < 2:
                raise LoadError(f"connection closed after {self._data!r}")
            self.sock.close()
            return False
        self._data += data
        if self._step == 0 and self._data.endswith(b"\r\n\r\n"):
            if not self._data.startswith(b"HTTP/1.1 101 "):
                raise LoadError(f"handshake refused: {self._data!r}")
            self.sock.send(self._talk.message)
            self._step, self._data = 1, b""
        elif self._step == 1 and len(self._data) >= len(self._talk.echo):
            if self._data != self._talk.echo:
                raise LoadError(f"not an echo: {self._data!r}")
            self.sock.send(CLOSE)
            self._step, self._data = 2, b""
        return True


def visits(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Open, echo once and close, 16 connections at a time."""
    talk = Talk.of(64, "text", "")
    sources = [f"127.0.1.{last}" for last in range(1, 201)]
    serial = 0

    def visit(index: int, count: int) -> None:
        nonlocal serial
        epoll = select.epoll()
        under_way: dict[int, _Visit] = {}
        begun = 0
        while begun < count or under_way:
            while begun < count and len(under_way) < 16:
                begun += 1
                serial += 1
                new = _Visit(servers[index], talk, sources[serial % len(sources)])
                under_way[new.sock.fileno()] = new
                epoll.register(new.sock.fileno(), select.EPOLLIN)
            events = epoll.poll(STALL_SECONDS)
            if not events:
                raise LoadError(f"nothing for {STALL_SECONDS:g} s")
            for fd, _ in events:
                if not under_way[fd].goes_on():
                    del under_way[fd]
        epoll.close()

    for index in range(len(servers)):
        visit(index, max(1, args.messages // 5))
    return _slices(servers, args.messages, args.slices, visit)


def growth(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Open more and more channels, measure a message at each step, and the memory of those of the last step."""
    deadline = time.perf_counter() + 4 * MAX_SECONDS
    result = []
    for server in servers:
        figures: Figures = {}
        talk = Talk.of(64, "text", server.dialect)
        first = Load(server, talk=talk, connections=50, window=8)
        first.exchange(args.messages, deadline=deadline)
        first.close()
        load = Load(server, talk=talk, connections=1, window=1)
        for count in args.channels:
            before, open_before = resident(server.pid), len(load.connections)
            load.open(count)
            time.sleep(0.3)
            if count == args.channels[-1]:
                figures["bytes"] = (resident(server.pid) - before) / (count - open_before)
            for among, name in ((IN_FLIGHT, "some"), (count, "all")):
                messages = max(among, args.messages)
                load.rotate(max(among, messages // 4), among=among, deadline=deadline)
                meter = Meter(server)
                meter.turn(messages, lambda: load.rotate(messages, among=among, deadline=deadline))  # noqa: B023
                figures[f"us, {name} of {count}"] = meter.figures()["us"]
        result.append(figures)
    return result


def memory(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Open channels that deflate, have each echo a message, and tell how much memory one of them takes."""
    message = frame(1, deflated(PAYLOAD), masked=True, rsv1=True)
    result = []
    for server in servers:
        kept: list[socket.socket] = []
        before, counted = 0, 0
        for number in range(args.connections + args.connections // 10):
            if number == args.connections // 10:  # the first ones find the allocator empty
                time.sleep(0.3)
                before, counted = resident(server.pid), number
            sock = connect(server.port, extensions="permessage-deflate")
            sock.sendall(message)
            first, _ = receive_frame(sock)
            if first != 0xC1:
                raise LoadError(f"a frame {first:#x} instead of a deflated echo")
            kept.append(sock)
        time.sleep(0.3)
        result.append({"bytes": (resident(server.pid) - before) / (len(kept) - counted)})
    return result


def broadcast(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Have messages of one channel sent to all; each delivery is counted."""
    talk = Talk.of(64, "text", "")
    socks = [[connect(server.port) for _ in range(args.connections)] for server in servers]
    spread: list[list[float]] = [[] for _ in servers]

    def send(index: int, count: int) -> None:
        for _ in range(count // args.connections):
            start = time.perf_counter()
            socks[index][0].sendall(talk.message)
            for sock in socks[index]:
                if receive(sock, len(talk.echo)) != talk.echo:
                    raise LoadError("something else than the message")
            spread[index].append(time.perf_counter() - start)

    for index in range(len(servers)):
        send(index, 2 * args.connections)
        spread[index].clear()
    figures = _slices(servers, args.messages * args.connections, args.messages, send)
    for figure, seconds in zip(figures, spread, strict=True):
        figure["ms"] = sorted(seconds)[len(seconds) // 2] * 1000
    return figures


def idle(servers: Sequence[Server], args: argparse.Namespace) -> list[Figures]:
    """Hold connections that do nothing but answer pings."""
    (server,) = servers
    epoll = select.epoll()
    by_fd: dict[int, socket.socket] = {}
    for _ in range(args.connections):
        sock = connect(server.port)
        by_fd[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)

    def answer(seconds: float) -> int:
        """Wait, and answer the pings that come; return how many did."""
        count = 0
        for fd, _ in epoll.poll(seconds):
            first, payload = receive_frame(by_fd[fd])
            if first != 0x89:
                raise LoadError(f"a frame {first:#x} instead of a ping")
            by_fd[fd].sendall(frame(0xA, payload, masked=True))
            count += 1
        return count

    print("READY", file=sys.stderr, flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:  # when all are; the first have pings to answer by then
        answer(0.05)
    pings = 0
    cpu, start = cpu_seconds(server.pid), time.perf_counter()
    end = start + args.seconds
    while (left := end - time.perf_counter()) > 0:
        pings += answer(left)
    seconds = time.perf_counter() - start
    used = cpu_seconds(server.pid) - cpu
    return [{"busy": used / seconds, "pings": pings / seconds, "us per ping": used / pings * 1e6 if pings else 0.0}]


WORKLOADS = {
    "echo": echo,
    "latency": latency,
    "visits": visits,
    "growth": growth,
    "memory": memory,
    "broadcast": broadcast,
    "idle": idle,
}


def main() -> int:
    """Run from the command line: print a list of results as JSON, or the reason why there is none."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m benchmarks.load",
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--server", type=Server.parse, action="append", required=True, metavar="PORT:PID[:DIALECT]")
    parser.add_argument("--size", type=int, default=64, help="bytes of a message")
    parser.add_argument("--kind", choices=("text", "binary"), default="text")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--window", type=int, default=8, help="messages in flight on each connection")
    parser.add_argument("--messages", type=int, default=50_000, help="to each server")
    parser.add_argument("--slices", type=int, default=10, help="turns in which they are sent")
    parser.add_argument("--channels", type=int, nargs="+", default=[10, 100, 1000, 10_000], help="steps of growth")
    parser.add_argument("--seconds", type=float, default=20.0, help="of idleness")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        results = WORKLOADS[args.workload](args.server, args)
    except (LoadError, OSError) as exc:
        print(f"load: {exc or type(exc).__name__}", file=sys.stderr)
        return 1
    print(json.dumps(results))
    sys.stdout.flush()
    os._exit(0)  # without closing thousands of sockets one by one


if __name__ == "__main__":
    sys.exit(main())
