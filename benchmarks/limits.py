"""How much memory a server needs: per idle channel, by each setting of compression, and at its limits.

    python -m benchmarks.limits --write docs/performance/limits.md

Each figure is of a fresh server process on loopback, of wsbridge and of the same server by hand (`limits_subjects`):
bytes of resident memory for each of some thousand idle channels that have echoed a message, and the growth of the
process's peak while a peer floods it (FLOW-1), does not read (FLOW-2) or sends a deflate bomb (LIM-1). The client is
raw sockets.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.limits_subjects import OFFERED, PIECE, SETTINGS, SUBJECTS

KIB, MIB = 1024, 1024 * 1024
TIMEOUT = 30.0  # seconds
STALL = 1.5  # seconds without progress after which a peer counts as held back
BOMB = 1024 * MIB
MASK = bytes(4)


class MissingError(Exception):
    """A package is not installed."""


class UnsupportedError(Exception):
    """The server has no such setting."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process."""

    pid: int
    port: int

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * KIB
        raise RuntimeError(f"the server has ended, or /proc has no {name}")

    @property
    def resident(self) -> int:
        """What it has in memory, in bytes."""
        return self._status("VmRSS")

    def reset_peak(self) -> int:
        """Begin a new peak; return what it has in memory now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.resident

    @property
    def peak(self) -> int:
        """The most that it had in memory since `reset_peak`."""
        return self._status("VmHWM")


@contextlib.contextmanager
def serving(name: str, setting: str) -> Iterator[Server]:
    """Run a subject in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.limits_subjects", name, setting]
    with (
        tempfile.TemporaryFile("w+") as log,  # servers by hand say much about peers that leave
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            word, _, rest = process.stdout.readline().strip().partition(" ")
            if word == "MISSING":
                raise MissingError(rest)
            if word == "UNSUPPORTED":
                raise UnsupportedError(rest)
            if word != "PORT":
                log.seek(0)
                raise RuntimeError(f"{name} did not start: {log.read()[-2000:]}")
            yield Server(process.pid, int(rest))
        finally:
            process.kill()


def connect(server: Server, path: str = "/", offer: str = "") -> socket.socket:
    """Open a channel; ``offer`` is for ``Sec-WebSocket-Extensions``."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)
    extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
    )
    sock.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    if not head.startswith(b"HTTP/1.1 101") or (b"permessage-deflate" in head.lower()) != bool(offer):
        raise RuntimeError(f"the handshake was answered with {head!r}")
    return sock


def frame(payload: bytes, first: int = 0x82) -> bytes:
    """Return a masked frame; the mask is zero."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8)
    return head + MASK + payload


def deflated(payload: bytes) -> bytes:
    """Return a frame of a message that is deflated, by the smallest window that zlib has."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -9)
    return frame((compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4], 0xC2)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := sock.recv(size - len(data))):
            raise ConnectionError("the server has closed")
        data += more
    return data


def receive(sock: socket.socket) -> tuple[int, bytes]:
    """Return the first byte and the payload of the next frame."""
    first, size = _exactly(sock, 2)
    if size >= 126:
        size = int.from_bytes(_exactly(sock, 2 if size == 126 else 8))
    return first, _exactly(sock, size)


def _offer(setting: str) -> str:
    if SETTINGS[setting] is None:
        return ""
    return "permessage-deflate; client_max_window_bits"


def idle(name: str, setting: str, channels: int) -> float:
    """Return the KiB that an idle channel takes that has echoed a message of 1 KiB, measured on many."""
    message = os.urandom(KIB)
    sent = frame(message) if SETTINGS[setting] is None else deflated(message)
    with serving(name, setting) as server, contextlib.ExitStack() as stack:
        before = 0
        for number in range(channels + 200):
            if number == 200:
                before = server.resident  # what is needed once is there
            sock = stack.enter_context(connect(server, "/", _offer(setting)))
            sock.sendall(sent)
            receive(sock)
        return (server.resident - before) / channels / KIB


def _warmed(server: Server, offer: str = "") -> None:
    for _ in range(3):
        with connect(server, "/", offer) as sock:
            sock.sendall(frame(bytes(300_000)))
            receive(sock)


def flood(name: str) -> tuple[float, float]:
    """Send 256 MiB to a callback that works; return the MiB that were taken and those by which the peak grew."""
    with serving(name, "off") as server:
        _warmed(server)
        data = frame(bytes(PIECE)) * 4
        with connect(server, "/busy") as sock:
            before = server.reset_peak()
            sock.setblocking(False)
            taken, part = 0, memoryview(data)
            while taken < OFFERED:
                if not select.select((), (sock,), (), STALL)[1]:
                    break
                sent = sock.send(part)
                taken += sent
                part = part[sent:] or memoryview(data)
            return taken / MIB, (server.peak - before) / MIB


def unread(name: str, path: str) -> float:
    """Have 256 MiB offered to a peer that does not read; return the MiB by which the peak grew."""
    with serving(name, "off") as server:
        _warmed(server)
        before = server.reset_peak()
        with connect(server, path):
            last, since = 0, time.monotonic()
            while time.monotonic() - since < STALL:
                time.sleep(0.1)
                if (now := server.peak) > last + MIB:
                    last, since = now, time.monotonic()
            return (server.peak - before) / MIB


def bomb(name: str) -> tuple[str, float]:
    """Send 1 MiB that inflates to 1 GiB; return what the peer was told and the MiB by which the peak grew."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = 4 * MIB
    first = compressor.compress(bytes(chunk)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    more = compressor.compress(bytes(chunk)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = (first + more * (BOMB // chunk - 1))[:-4]
    with serving(name, "on") as server:
        _warmed(server, "permessage-deflate")
        with connect(server, "/", "permessage-deflate") as sock:
            before = server.reset_peak()
            try:
                sock.sendall(frame(payload, 0xC2))
                opcode, payload = receive(sock)
                told = str(int.from_bytes(payload[:2])) if opcode & 0xF == 8 else "a message"
            except ConnectionError:
                told = "no word, TCP cut"
            return told, (server.peak - before) / MIB


def _cell(measure: Callable[[], str]) -> str:
    try:
        return measure()
    except UnsupportedError:
        return "not to be set"


def table(name: str, channels: int) -> dict[str, str]:
    """Measure everything of one subject."""
    row: dict[str, str] = {}
    for setting in SETTINGS:
        row[f"idle: {setting}"] = _cell(lambda setting=setting: f"{idle(name, setting, channels):.1f}")  # type: ignore[misc]
    taken, grown = flood(name)
    row["flood"] = f"{grown:.1f}" + (", all taken" if taken >= OFFERED / MIB else "")
    for path, key in (("/push", "unread, 1 task"), ("/push128", "unread, 128 tasks")):
        row[key] = f"{unread(name, path):.1f}"

    def exploded() -> str:
        told, grown = bomb(name)
        return f"{grown:.1f}, {told}"

    row["bomb"] = _cell(exploded)
    return row


COLUMNS = {
    "flood": "flood, MiB",
    "unread, 1 task": "unread, 1 task, MiB",
    "unread, 128 tasks": "unread, 128 tasks, MiB",
    "bomb": "deflate bomb, MiB and answer",
}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def page(rows: dict[str, dict[str, str]], channels: int) -> str:
    """Return the tables in Markdown."""
    servers = sorted({name.partition("-")[2] for name in rows})
    versions = ", ".join(f"{name} {_version(name)}" for name in servers)
    lines = [
        "| subject | " + " | ".join(SETTINGS) + " |",
        "|---|" + "--:|" * len(SETTINGS),
        *(
            f"| {name} | " + " | ".join(row[f"idle: {setting}"] for setting in SETTINGS) + " |"
            for name, row in rows.items()
        ),
    ]
    flows = [
        "| subject | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "--:|" * len(COLUMNS),
        *(f"| {name} | " + " | ".join(row[key] for key in COLUMNS) + " |" for name, row in rows.items()),
    ]
    return f"""# Memory and limits

Made by `python -m benchmarks.limits --channels {channels} --write docs/performance/limits.md` on
{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}, {platform.system()} {platform.release()};
{versions}. Each figure is of a server process of its own: `wsbridge-NAME` is
wsbridge on that connector, `native-NAME` the same server by hand, in its usual idiom, with messages of up to 1 MiB.

## Memory for each idle channel

KiB of resident memory for each of {channels} channels, every one of which has echoed a message of 1 KiB, by how they
are deflated: `compression=False`, `True`, and `Compression(...)` with `context_takeover=False`, or with `window_bits=9`
and `memory_level=1`. "Not to be set": the server has no such setting, and wsbridge raises `UnsupportedOptionError`.

{chr(10).join(lines)}

## At the limits

MiB by which the server process's peak grew.

- Flood: a peer sends 256 MiB in messages of 64 KiB to a callback that does not end. FLOW-1 bounds it to 16 MiB; "all
  taken" means that nothing held the peer back.
- Unread: the application offers 256 MiB in messages of 64 KiB to a peer that does not read, from one task and from 128,
  awaiting each send where the server has something to await. FLOW-2 bounds it to 16 MiB.
- Deflate bomb: 1 MiB that inflates to 1 GiB of zeros, where the limit is 1 MiB. LIM-1 wants 1009 within 16 MiB.

{chr(10).join(flows)}
"""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connector", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--channels", type=int, default=2000, help="idle channels (2000)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the page to write")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and args.channels + 300 > hard:
        parser.error(f"--channels {args.channels}: this machine lets a process have {hard} descriptors")
    rows: dict[str, dict[str, str]] = {}
    for name in SUBJECTS:
        if args.connector and name.partition("-")[2] not in args.connector:
            continue
        try:
            rows[name] = table(name, args.channels)
        except MissingError as exc:
            print(f"{name} is left out: {exc}")
            continue
        print(name, rows[name], flush=True)
    text = page(rows, args.channels)
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
