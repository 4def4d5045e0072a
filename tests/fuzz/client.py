"""The client: sends an input, and holds what comes back to what is allowed."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

from tests.fuzz.strategies import Input

__all__ = ["FuzzReply", "ask"]

TIMEOUT = 30.0  # seconds in which a connection must have ended, its client having ended its side
_ALLOWED = frozenset((1000, 1001, 1002, 1003, 1005, 1007, 1009))


@dataclass(slots=True)
class FuzzReply:
    """What came back.

    Attributes:
        status: Of the response; None without one.
        codes: Of the close frames.
        problem: What is not allowed about it, or "".
    """

    status: int | None = None
    codes: list[int] = field(default_factory=list[int])
    problem: str = ""


async def ask(port: int, sent: Input) -> FuzzReply:
    """Send an input, end the sending side, and read to the end."""
    answer = FuzzReply()
    try:
        async with asyncio.timeout(TIMEOUT):
            received = await _exchange(port, sent)
    except TimeoutError:
        answer.problem = f"the connection was not ended within {TIMEOUT:g} s"
        return answer
    _judge(answer, received, sent)
    return answer


async def _exchange(port: int, sent: Input) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    received = b""
    try:
        with contextlib.suppress(ConnectionError):
            if sent.body is not None:
                writer.write(sent.head)
                while b"\r\n\r\n" not in received:
                    if not (more := await reader.read(65536)):
                        return received
                    received += more
                whole = sent.body
            else:
                whole = sent.head
            start = 0
            for cut in sent.cuts:
                if start < cut < len(whole):
                    writer.write(whole[start:cut])
                    await asyncio.sleep(0)
                    start = cut
            writer.write(whole[start:])
            writer.write_eof()
            while more := await reader.read(65536):
                received += more
    except OSError:
        pass  # the server has ended it by a reset
    finally:
        writer.transport.abort()
    return received


def _judge(answer: FuzzReply, received: bytes, sent: Input) -> None:
    if not received:
        if sent.body is not None:
            answer.problem = "a request that is right got no answer"
        return
    head, _, rest = received.partition(b"\r\n\r\n")
    start = head.split(b"\r\n")[0].split(b" ", 2)
    if start[0] not in (b"HTTP/1.1", b"HTTP/1.0") or len(start) < 2 or not start[1].isdigit():
        answer.problem = f"an answer that is no HTTP: {received[:80]!r}"
        return
    answer.status = int(start[1])
    if answer.status == 101:
        answer.problem = _frames(rest, answer.codes)
    elif sent.body is not None:
        answer.problem = f"a request that is right got {answer.status}"
    elif not (400 <= answer.status < 500 or answer.status in (100, 501, 503, 505)):
        answer.problem = f"the status {answer.status}"


def _frames(data: bytes, codes: list[int]) -> str:
    """Parse what a server sent; return what is wrong with it."""
    position = 0
    while position < len(data):
        if codes:
            return f"something follows the close frame: {data[position : position + 20]!r}"
        if len(data) < position + 2:
            return ""  # cut off
        first, size = data[position], data[position + 1]
        position += 2
        if size & 0x80:
            return "a masked frame"
        if first & 0x30 or first & 0x0F not in (0, 1, 2, 8, 9, 10):
            return f"a frame that begins with {first:#x}"
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[position : position + width])
            position += width
        payload = data[position : position + size]
        position += size
        if first & 0x0F == 8:
            if len(payload) < size:
                return ""
            codes.append(struct.unpack("!H", payload[:2])[0] if payload else 1005)
            if codes[0] not in _ALLOWED:
                return f"the close code {codes[0]}"
    return ""
