"""A socket, over TLS if asked, that is read only when somebody asks for bytes, and loses none to a timeout."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from ssl import MemoryBIO, SSLContext, SSLEOFError, SSLError, SSLObject, SSLWantReadError
from typing import Self

from wsbridge.conformance.client.errors import Closed, WireError, WireTimeout
from wsbridge.conformance.client.events import Eof
from wsbridge.conformance.client.frames import described, frames_in
from wsbridge.conformance.client.http import Address
from wsbridge.conformance.client.limits import TimeLimits
from wsbridge.conformance.client.log import head_text

__all__ = ["SocketStream"]

_READ_SIZE = 256 * 1024
_FLOOD_BLOCK = 64 * 1024
_PEEKED = 4096  # bytes that are looked at, of those that nobody has read


class SocketStream:
    """Bytes to and from the server; made by `connect`.

    Attributes:
        socket: The socket, which does not block.
        tls: What encrypts, None without TLS.
        local_address: This end's ``(host, port)``, or the path of a Unix socket ("" if unnamed).
        input: What has come and nobody has taken.
        eof: Whether the stream has ended.
        reset: Whether it ended by an error.
    """

    def __init__(self, sock: socket.socket, limits: TimeLimits) -> None:
        self.socket = sock
        self.tls: SSLObject | None = None
        self.local_address: Address = ""
        self.input = bytearray()
        self.eof = self.reset = False
        self._limits = limits
        self._log = limits.log
        self._tls_in = MemoryBIO()
        self._tls_out = MemoryBIO()
        self._unsent = memoryview(b"")
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._writing = asyncio.Lock()

    @classmethod
    async def connect(
        cls,
        address: Address,
        limits: TimeLimits,
        *,
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
        recv_buffer: int | None = None,
    ) -> Self:
        """Connect, and send nothing more than TLS does; see `WirePeer.open`."""
        unix = isinstance(address, str)
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        stream = cls(sock, limits)
        try:
            sock.setblocking(False)
            if recv_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
            if not unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with limits.within(None, f"a connection to {address}"):
                await asyncio.get_running_loop().sock_connect(sock, address)
                name: Address = sock.getsockname()
                stream.local_address = name if isinstance(name, str) else (name[0], name[1])
                limits.log.add("note", 0, f"connected from {stream.local_address} to {address}")
                if ssl is not None:
                    host = "localhost" if isinstance(address, str) else address[0]
                    await stream._start_tls(ssl, server_hostname or host)
        except BaseException:
            stream.close()
            raise
        return stream

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def fill(self) -> bool:
        """Read once into the input; return False at the end of the stream."""
        data = b""
        while not self.eof and not data:
            if self.tls is None:
                data = await self._recv()
            else:
                try:
                    data = self.tls.read(_READ_SIZE)
                except SSLWantReadError:
                    await self._fill_tls()
                    continue
                except SSLError as error:
                    self._log.add("note", 0, _tls_end(error))
                else:
                    if not data:
                        self._log.add("note", 0, "the server ended TLS: close_notify")
            self.eof = not data
        self.input += data
        return bool(data)

    async def _recv(self) -> bytes:
        """Read once from the socket; empty at the end."""
        self._check_open()
        while True:
            await self._ready(write=False)
            try:
                data = self.socket.recv(_READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                self._log.add("note", 0, f"the server ended it: {_how(error)}")
                self.eof = self.reset = True
                return b""
            if not data:
                self._log.add("note", 0, "the server ended it: FIN")
            return data

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Send all of `data` after what an earlier call could not; on a timeout the rest stays queued."""
        async with self._limits.within(None, f"the server to take {len(data)} bytes"), self._writing:
            self._check_open()
            await self._flush()
            self._queue(memoryview(data))
            await self._flush()

    async def flood(self, data: bytes, total_bytes: int, timeout: float | None) -> int:
        """Send `data` again and again; see `WirePeer.flood`."""
        goal = -(-total_bytes // len(data)) * len(data)  # rounded up
        block = data * max(1, min(goal, _FLOOD_BLOCK) // len(data))
        sent = queued = 0
        async with self._writing:
            try:
                while sent < goal:
                    if not self._has_output():
                        queued += self._queue(memoryview(block)[: goal - queued])
                    async with self._limits.within(timeout, "the server to take more"):
                        await self._push()
                        await asyncio.sleep(0)
                    sent = max(sent, queued - len(self._unsent))
            except (WireTimeout, Closed) as error:
                self._log.add("note", sent, f"flood stopped: {error}")
            if self.tls is None and queued:  # of what is queued, only the frame that has begun must follow
                self._unsent = self._unsent[: -sent % len(data)]
        return sent

    def _has_output(self) -> bool:
        if not self._unsent and self.tls is not None:
            self._unsent = memoryview(self._tls_out.read())
        return bool(self._unsent)

    def _queue(self, data: memoryview) -> int:
        """Make `data` what is sent next, encrypted with TLS; return its size. Nothing else may be waiting."""
        if self.tls is None:
            self._unsent = data
        else:
            rest = data
            try:
                while rest:
                    rest = rest[self.tls.write(rest) :]
            except SSLError as error:  # the server's end of the stream has been read
                raise Closed(f"to send {len(rest)} bytes", Eof(reset=self.reset)) from error
            self._unsent = memoryview(self._tls_out.read())
        return len(data)

    async def _push(self) -> None:
        """Send what the socket takes at once, or wait until it takes something."""
        self._check_open()
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            await self._ready(write=True)
        except OSError as error:
            self._log.add("note", 0, f"the server had ended it before a write here: {_how(error)}")
            self.reset = True  # the kernel tells of a reset once, so reading will only see the end
            raise Closed(f"to send {len(self._unsent)} bytes", Eof(reset=True)) from error

    async def _flush(self) -> None:
        while self._has_output():
            await self._push()

    # ---- TLS --------------------------------------------------------------------------------------------------------

    async def _start_tls(self, context: SSLContext, server_hostname: str) -> None:
        self.tls = context.wrap_bio(self._tls_in, self._tls_out, server_hostname=server_hostname)
        while True:
            try:
                self.tls.do_handshake()
            except SSLWantReadError:
                await self._fill_tls()
            except SSLError as error:
                self._log.add("note", 0, _tls_end(error))
                raise
            else:
                break
        async with self._writing:
            await self._flush()
        self._log.add("note", 0, f"{self.tls.version()} established")

    async def _fill_tls(self) -> None:
        if not self._writing.locked():  # else whoever writes takes this along
            async with self._writing:
                await self._flush()
        data = await self._recv()
        if data:
            self._tls_in.write(data)
        else:
            self._tls_in.write_eof()

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def half_close(self) -> None:
        """End the sending side alone: FIN, over TLS close_notify before it."""
        if self.tls is not None:
            # unwrap() sends close_notify, then asks for the server's, which is read later if at all.
            with contextlib.suppress(SSLError):
                self.tls.unwrap()
            await self.send(b"")
        with contextlib.suppress(OSError):  # the server was faster
            self.socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """End the connection by a reset (RST)."""
        if not self._closed:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close("ended here: RST")

    def close(self) -> None:
        """Close the socket, and wake whoever waits for it."""
        if not self._closed:
            self._close("closed here")

    def _close(self, how: str) -> None:
        self._closed = True
        self._note_unread()
        self._log.add("note", 0, how)
        if self._waiters:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.socket)
            loop.remove_writer(self.socket)
            for waiter in self._waiters:
                _wake(waiter)
        self.socket.close()

    def _note_unread(self) -> None:
        """Log what the server has sent and nobody has read; it is left where it is, so that closing does what it does.

        Over TLS what is in the socket is not deciphered.
        """
        unread = bytes(self.input)
        with contextlib.suppress(OSError):  # a socket that was never connected, or has nothing
            unread += self.socket.recv(_PEEKED, socket.MSG_PEEK) if self.tls is None and not self.eof else b""
        if unread:
            frames = "; ".join(described(*frame) for frame in list(frames_in(unread))[:4]) or repr(unread)
            shown = head_text(unread) if unread.startswith(b"HTTP/") else frames
            self._log.add("received", len(unread), f"not read by the check: {shown}", unread)

    def _check_open(self) -> None:
        if self._closed:
            raise WireError("this peer has closed its socket")

    async def _ready(self, *, write: bool) -> None:
        """Wait until the socket can be read or written.

        `loop.sock_recv` may have read when it is cancelled, and loses that; this loses nothing to a timeout.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        (loop.add_writer if write else loop.add_reader)(self.socket, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._closed:
                (loop.remove_writer if write else loop.remove_reader)(self.socket)
        self._check_open()


def _how(error: OSError) -> str:
    """Return how a connection ended by an error of the system's, in a word where there is one."""
    return "RST" if isinstance(error, ConnectionResetError | BrokenPipeError) else repr(error)


def _tls_end(error: SSLError) -> str:
    """Return how TLS ended, and by whom."""
    if isinstance(error, SSLEOFError):
        return "TLS was cut short: no close_notify before the end"
    reason = str(error.reason or error)
    if "ALERT" in reason:
        return f"the server ended TLS by an alert: {reason}"
    return f"TLS was ended here: {reason}"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
