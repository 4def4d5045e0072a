"""A proxy that harms connections on their way, by plan, and knows exactly what it has passed on.

TCP never reorders the bytes of a direction, and neither does this proxy. "Reordered reads" are reads that come in
another order, and in other pieces, than they were written: a pace of ``mixed`` lets the waiting pieces of many
connections and of both directions go in random turns, and ``split`` cuts them anew and puts them together anew.

What the server's process has read at the moment of a reset is known to the byte where the kernel tells it (Linux):
what was passed on, less what waits in the sending socket, less what waits unread in the server's. The proxy, the
server and the clients share one event loop, so that nothing happens in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import random
import socket
import struct
import sys
from typing import Literal

from tests.faults.plan import Pace, Plan, Way
from wsbridge.conformance import lateness

__all__ = ["Link", "Proxy"]

Address = tuple[str, int]
End = Literal["", "fin", "reset"]

_READ = 64 * 1024
_BYTES = 300  # that are passed on one by one on a connection, and of each read the first:
_BYTES_OF_A_READ = 30
_SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes of the send queue that are not sent yet
_GONE = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNABORTED}
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_UNKNOWN = 1 << 40


class Mixer:
    """Lets those who wait go in random turns."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._waiting: list[asyncio.Future[None]] = []

    async def turn(self) -> None:
        """Wait for a turn, which comes when everyone else has had the chance to wait too."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_later(0.01, self._release)
        self._waiting.append(future)
        await future

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._source.shuffle(waiting)
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Link:
    """One connection through the proxy.

    Attributes:
        plan: What happens on it.
        passed: What was passed to the server, and how many bytes to the client.
        read: How many bytes of ``passed`` the server's process is known to have read, None for all: set by a reset.
        struck: Whether the fault has happened.
        up_end, down_end: How each side was told that there is no more.
        server_end: How the server ended its side.
        client_end: How the client ended its side.
    """

    def __init__(self, plan: Plan, mixer: Mixer, seed: int) -> None:
        self.plan = plan
        self.passed = bytearray()
        self.passed_down = 0
        self.read: int | None = None
        self.struck = False
        self.up_end: End = ""
        self.down_end: End = ""
        self.server_end: End = ""
        self.client_end: End = ""
        self.released = asyncio.Event()
        self._mixer = mixer
        self._source = random.Random(f"link {seed} {plan.number}")
        self._client: socket.socket | None = None
        self._server: socket.socket | None = None
        self._deaf: set[Way] = set()
        self._over = asyncio.Event()

    async def run(self, listener: socket.socket, server: Address) -> None:
        """Take one connection and pass it on, until both sides have ended."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            stack.enter_context(listener)
            self._client = stack.enter_context((await loop.sock_accept(listener))[0])
            listener.close()
            self._server = stack.enter_context(socket.socket())
            for sock in (self._client, self._server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.plan.fault.kind == "stuck":
                self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            await loop.sock_connect(self._server, server)
            pumps = {loop.create_task(self._pump("up")), loop.create_task(self._pump("down"))}
            over: asyncio.Task[object] = loop.create_task(self._over.wait())
            try:
                left = set(pumps)
                while left and not self._over.is_set():
                    done, _ = await asyncio.wait((*left, over), return_when=asyncio.FIRST_COMPLETED)
                    left -= done
            finally:
                for task in (*pumps, over):
                    task.cancel()
                results = await asyncio.gather(*pumps, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    # ---- the way of the bytes ---------------------------------------------------------------------------------------

    async def _pump(self, way: Way) -> None:
        source, pace = (self._client, self.plan.up) if way == "up" else (self._server, self.plan.down)
        assert source is not None
        singles = _BYTES
        while True:
            data = await self._recv(way, source)
            if data is None:
                return
            if not data:
                await self._finish(way)
                return
            of_this = min(singles, _BYTES_OF_A_READ)
            while data and way not in self._deaf:
                piece = 1 if pace == "byte" and of_this > 0 else len(data)
                if pace == "split":
                    piece = self._source.randint(1, piece)
                singles -= piece == 1
                of_this -= 1
                await self._wait(pace)
                if way in self._deaf:
                    break
                if not await self._pass(way, data[:piece]):
                    return
                data = data[piece:]

    async def _recv(self, way: Way, source: socket.socket) -> bytes | None:
        """Read once; None if the link is at its end by a reset."""
        if way in self._deaf and self.plan.fault.kind == "stuck":
            await self.released.wait()  # nobody reads, until the application was told of an end
        if self.plan.up == "split" and way == "up":
            await asyncio.sleep(0.002)  # so that writes come together
        while True:
            try:
                data = source.recv(_READ)
            except BlockingIOError:
                await _ready(source, write=False)
                continue
            except OSError as error:
                self._check(error)
                self._note_end(way, "reset")
                if way == "down" or not self._is_hidden:
                    self.reset()
                else:
                    self._deaf |= {"up", "down"}
                return None
            if not data:
                self._note_end(way, "fin")
            return data

    @property
    def _is_hidden(self) -> bool:
        """Whether the ends of the two sides are hidden from each other, until the server ends the connection."""
        return self.struck and self.plan.is_silent

    def _note_end(self, way: Way, end: End) -> None:
        if way == "up":
            self.client_end = self.client_end or end
        else:
            self.server_end = self.server_end or end

    async def _wait(self, pace: Pace) -> None:
        if pace == "delay":
            await asyncio.sleep(self._source.random() * 0.03)
        elif pace == "mixed":
            await self._mixer.turn()
        elif pace != "plain":
            await asyncio.sleep(0)

    async def _pass(self, way: Way, data: bytes) -> bool:
        """Pass bytes on, and let the fault happen in front of the byte that it is planned for."""
        fault = self.plan.fault
        strikes = False
        if not self.struck and fault.ways[:1] == (way,):
            left = fault.at - (len(self.passed) if way == "up" else self.passed_down)
            strikes = left <= len(data)
            data = data[: max(left, 0)] if strikes else data
        sink = self._server if way == "up" else self._client
        assert sink is not None
        while data:
            try:
                sent = sink.send(data)
            except BlockingIOError:
                await _ready(sink, write=True)
                continue
            except OSError as error:
                self._check(error)
                return await self._sink_is_gone(way)
            if way == "up":
                self.passed += data[:sent]
            else:
                self.passed_down += sent
            data = data[sent:]
        return self._strike() if strikes else True

    async def _sink_is_gone(self, way: Way) -> bool:
        """What is left cannot be passed on. A server that is gone may have written, so that is read to its end."""
        if way == "up":
            self._deaf.add("up")
            return True
        self.client_end = self.client_end or "reset"
        if self._is_hidden:
            self._deaf |= {"up", "down"}
            return True
        self.reset()
        return False

    def _strike(self) -> bool:
        """Let the fault happen; return whether the pump goes on."""
        self.struck = True
        fault = self.plan.fault
        match fault.kind:
            case "cut":
                self._end_both("fin")
                return False
            case "reset":
                self.reset()
                return False
            case "half-close":
                self._shut(fault.ways[0])
        self._deaf |= set(fault.ways)
        return True

    async def _finish(self, way: Way) -> None:
        """One side has sent all; tell the other, unless it is not to know."""
        if way == "up":
            if "up" not in self._deaf:
                self._shut("up")
        else:  # the server has ended, which no fault hides for ever
            self._shut("down")
            if self._is_hidden:
                self._end_both("fin")

    def _shut(self, way: Way) -> None:
        sink = self._server if way == "up" else self._client
        assert sink is not None
        if way == "up":
            self.up_end = self.up_end or "fin"
        else:
            self.down_end = self.down_end or "fin"
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End both sides by a reset."""
        self._end_both("reset")

    def _end_both(self, end: End) -> None:
        if self._over.is_set():
            return
        assert self._client is not None
        assert self._server is not None
        if not self.server_end:
            # a close is a reset too, as soon as the server writes or where it has written what was not read
            self.read = len(self.passed) - _unread(self._server)
        self.up_end = self.up_end or end
        self.down_end = self.down_end or end
        for sock in (self._client, self._server):
            if end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._over.set()
        _forget(self._client)
        _forget(self._server)
        self._client.close()
        self._server.close()

    def _check(self, error: OSError) -> None:
        if not self._over.is_set() and error.errno not in _GONE:
            raise error


class Proxy:
    """Makes an address for each plan, and keeps what it knows of each connection."""

    def __init__(self, server: Address, seed: int) -> None:
        self.links: dict[int, Link] = {}
        self._server = server
        self._seed = seed
        self._mixer = Mixer(random.Random(f"mixer {seed}"))
        self._tasks: dict[asyncio.Task[None], Plan] = {}

    def open(self, plan: Plan) -> Address:
        """Return where to connect for ``plan``, once."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        listener.setblocking(False)
        address: Address = listener.getsockname()[:2]
        link = self.links[plan.number] = Link(plan, self._mixer, self._seed)
        self._tasks[asyncio.get_running_loop().create_task(link.run(listener, self._server))] = plan
        return address

    async def finish(self, timeout: float) -> list[str]:
        """Wait until every connection has ended on both sides, read on where none was; return what has not."""
        for link in self.links.values():
            link.released.set()
        if not self._tasks:
            return []
        done, pending = await lateness.wait(self._tasks, timeout)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        failed = [f"the proxy failed: {task.exception()!r}" for task in done if task.exception() is not None]
        if pending:
            plans = "\n    ".join(str(self._tasks[task]) for task in pending)
            failed.append(f"connections had not ended {timeout:g} s after the connector's stop:\n    {plans}")
        self._tasks.clear()
        return failed


async def _ready(sock: socket.socket, *, write: bool) -> None:
    """Wait until a socket can be read or written, or was closed here."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    (loop.add_writer if write else loop.add_reader)(sock, wake)
    try:
        await waiter
    finally:
        if sock.fileno() >= 0:
            (loop.remove_writer if write else loop.remove_reader)(sock)


def _forget(sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.remove_writer(sock)


def _unread(sock: socket.socket) -> int:
    """Return how much of what was sent on ``sock`` its peer's process has not read; where unknown, a great number."""
    try:
        unsent = struct.unpack("i", fcntl.ioctl(sock, _SIOCOUTQNSD, bytes(4)))[0]
        return int(unsent) + _receive_queue(sock.getpeername(), sock.getsockname())
    except OSError:
        return _UNKNOWN


def _receive_queue(local: Address, remote: Address) -> int:
    """Ask the kernel (sock_diag(7)) how much waits unread in the socket of these addresses."""
    ends = struct.pack("!HH", local[1], remote[1]) + _address(local) + _address(remote)
    wanted = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
    wanted += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, no cookie
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(wanted), _SOCK_DIAG_BY_FAMILY, 1, 0, 0) + wanted)
        answer = kernel.recv(4096)
    if int.from_bytes(answer[4:6], sys.byteorder) != _SOCK_DIAG_BY_FAMILY:
        return _UNKNOWN  # there is none: the server has closed it
    return int(struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0])  # idiag_rqueue of struct inet_diag_msg


def _address(address: Address) -> bytes:
    return socket.inet_aton(address[0]).ljust(16, b"\0")
