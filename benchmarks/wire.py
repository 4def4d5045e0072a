"""Raw sockets for the load: handshakes written by hand, frames built once."""

import base64
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MASK = b"\x5a\x13\xc7\x88"
CLOSE = bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])  # code 1000, under a mask of zeros
STALL_SECONDS = 15.0
PAYLOAD = b"wsbridge benchmark: sixty-four bytes of text, echoed as it came."


class LoadError(Exception):
    """A server refused, closed, stalled, was too slow, or answered with something else than an echo."""


def frame(opcode: int, payload: bytes, *, masked: bool, rsv1: bool = False) -> bytes:
    """Return a whole frame, as a client (masked) or a server writes it."""
    first, mask = 0x80 | opcode | (0x40 if rsv1 else 0), 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    if not masked:
        return head + payload
    padded = payload + bytes(-size % 4)
    key = int.from_bytes(MASK * (len(padded) // 4))
    return head + MASK + (int.from_bytes(padded) ^ key).to_bytes(len(padded))[:size]


@dataclass(frozen=True)
class Talk:
    """A message and its echo as they go over the wire, and what comes before the first of them."""

    message: bytes
    echo: bytes
    path: str = "/"
    preamble: tuple[bytes, ...] = ()
    """What is sent after the handshake: each item once a frame has come."""

    @classmethod
    def of(cls, size: int, kind: str, dialect: str) -> "Talk":
        """Return a message of `size` bytes, ``text`` or ``binary``; `dialect` is the protocol above WebSocket."""
        payload = (PAYLOAD * (size // len(PAYLOAD) + 1))[:size]
        if dialect == "socketio":
            payload = b'42["m","' + payload.replace(b'"', b"'") + b'"]'
            path, preamble = "/socket.io/?EIO=4&transport=websocket", (frame(1, b"40", masked=True),)
        else:
            path, preamble = "/", ()
        opcode = 1 if kind == "text" else 2
        return cls(frame(opcode, payload, masked=True), frame(opcode, payload, masked=False), path, preamble)


def request(port: int, path: str = "/", *, extensions: str = "") -> bytes:
    """Return a handshake's request."""
    key = base64.b64encode(os.urandom(16)).decode()
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    ).encode()


def source_addresses() -> Iterator[str]:
    """Return addresses of the loopback network in turn, so that no pair of address and port runs out of ports."""
    while True:
        for last in range(1, 51):
            yield f"127.0.0.{last}"


_sources = source_addresses()


def connect(port: int, path: str = "/", *, extensions: str = "") -> socket.socket:
    """Open a connection and shake hands; the socket blocks, for at most `STALL_SECONDS`."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS, source_address=(next(_sources), 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(request(port, path, extensions=extensions))
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        chunk = sock.recv(4096, socket.MSG_PEEK)
        if not chunk:
            raise LoadError(f"connection closed after {response!r}")
        end = (response + chunk).find(b"\r\n\r\n")
        take = len(chunk) if end < 0 else end + 4 - len(response)
        response += sock.recv(take)
    if not response.startswith(b"HTTP/1.1 101 "):
        raise LoadError(f"handshake refused: {response.splitlines()[0]!r}")
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    """Return exactly `size` bytes."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise LoadError(f"connection closed after {bytes(data[:100])!r}")
        data += chunk
    return bytes(data)


def receive_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Return the first byte and the payload of the next frame of a server."""
    first, length = receive(sock, 2)
    if length > 125:
        length = int.from_bytes(receive(sock, 2 if length == 126 else 8))
    return first, receive(sock, length)


def open_echo(port: int, talk: Talk) -> socket.socket:
    """Open a connection, and check one echo byte by byte; return the socket, which no longer blocks."""
    sock = connect(port, talk.path)
    for part in talk.preamble:
        receive_frame(sock)
        sock.sendall(part)
        receive_frame(sock)
    if len(talk.message) < 1024:
        sock.sendall(talk.message)
        echo = receive(sock, len(talk.echo))
        if echo != talk.echo:
            raise LoadError(f"not an echo: {echo!r}")
    sock.setblocking(False)
    return sock


def deflated(payload: bytes) -> bytes:
    """Return a payload deflated as the first message of a channel, for any size of the window."""
    deflater = zlib.compressobj(wbits=-9)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process in nanosecond steps, through its POSIX CPU clock.

    The kernel brings the clock of another process up to date when that process sleeps, and only every few
    milliseconds while it runs: let it settle first. `/proc/PID/stat` counts in steps of 10 ms, and
    `/proc/PID/schedstat` is zero on kernels built without it.
    """
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), as the C library computes it


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def peak(pid: int) -> int:
    """Return the most bytes that a process has held since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LoadError("the kernel tells no VmHWM")


def forget_peak(pid: int) -> None:
    """Let `peak` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
