"""The client of ``wsbridge connect``, over the client of whichever server package is installed.

The command line imports this when it needs it; nothing else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import io
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, TextIO

import click

from wsbridge._process.signals import STOPPING, handling
from wsbridge.close import PORTABLE_NAMES, close_reason

__all__ = [
    "CLIENTS",
    "Client",
    "ClosedReason",
    "ConnectError",
    "NoClientError",
    "Target",
    "choose_client",
    "talk",
]

CONNECT_TIMEOUT = 10.0  # seconds for the whole handshake
CLOSE_TIMEOUT = 5.0  # seconds that the server has to answer a close
_PREVIEW = 32  # bytes of a binary message that are shown


class NoClientError(Exception):
    """No package with a client is installed."""


class ConnectError(Exception):
    """There is no connection: nobody listens, or the handshake was refused."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and what to say in the handshake."""

    url: str
    subprotocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class ClosedReason:
    """How a connection ended, as a client sees it.

    Attributes:
        code: The server's close code; 1005 for a close frame without one, 1006 for none.
        text: The text beside it.
    """

    code: int
    text: str

    @property
    def is_normal(self) -> bool:
        """Whether it is a normal close: 1000, or an empty close frame."""
        return self.code in (1000, 1005)

    def describe(self) -> str:
        """Return code, name and text in one line."""
        name = close_reason(self.code, self.text, "peer", PORTABLE_NAMES).name
        return f"{self.code} {name}" + (f": {printable(self.text)}" if self.text else "")


class Client(ABC):
    """One connection. Made by `connect`; ended by `close`, after which `messages` runs out."""

    subprotocol: str | None = None

    @classmethod
    @abstractmethod
    def connect(cls, target: Target) -> contextlib.AbstractAsyncContextManager[Client]:
        """Connect for the length of a block.

        Raises:
            ConnectError: Nobody listens there, or the handshake was refused.
        """

    @abstractmethod
    async def send_text(self, text: str) -> bool:
        """Send a text message; False if the connection has ended."""

    @abstractmethod
    async def receive(self) -> str | bytes | ClosedReason:
        """Return the next message, or how the connection ended."""

    @abstractmethod
    async def close(self) -> None:
        """Close with 1000; what comes until the server's answer can still be received."""


# ---- the three implementations -------------------------------------------------------------------------------------


class WebsocketsClient(Client):
    """Over ``websockets.asyncio.client``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, target: Target) -> AsyncGenerator[Client]:
        """See `Client.connect`."""
        from websockets.asyncio.client import connect  # noqa: TID251  (a client, imported only when it is used)
        from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI  # noqa: TID251  (as above)

        # before 15 it knows no proxy, and hands what it does not know on to the event loop
        direct: dict[str, Any] = {"proxy": None} if "proxy" in inspect.signature(connect).parameters else {}
        try:
            connection = await connect(
                target.url,
                subprotocols=_tokens(target.subprotocols),
                additional_headers=target.headers,
                origin=_token(target.origin),
                open_timeout=CONNECT_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                max_size=None,
                **direct,
            )
        except InvalidStatus as exc:
            response = exc.response
            raise _refused(response.status_code, response.reason_phrase, bytes(response.body or b"")) from exc
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ValueError) as exc:
            raise _unreachable(target, exc) from exc
        async with connection:
            yield cls(connection)

    async def send_text(self, text: str) -> bool:
        """See `Client.send_text`."""
        from websockets.exceptions import ConnectionClosed  # noqa: TID251  (as above)

        try:
            await self._connection.send(text)
        except ConnectionClosed:
            return False
        return True

    async def receive(self) -> str | bytes | ClosedReason:
        """See `Client.receive`."""
        from websockets.exceptions import ConnectionClosed  # noqa: TID251  (as above)

        try:
            message: str | bytes = await self._connection.recv()
        except ConnectionClosed as exc:
            return ClosedReason(1006, "") if exc.rcvd is None else ClosedReason(exc.rcvd.code, exc.rcvd.reason)
        return message

    async def close(self) -> None:
        """See `Client.close`."""
        await self._connection.close()


class AiohttpClient(Client):
    """Over ``aiohttp.ClientSession.ws_connect``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.subprotocol = connection.protocol
        self._closed = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, target: Target) -> AsyncGenerator[Client]:
        """See `Client.connect`."""
        import aiohttp  # noqa: TID251  (a client, imported only when it is used)

        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    connection = await session.ws_connect(
                        target.url,
                        protocols=target.subprotocols,
                        headers=target.headers,
                        origin=target.origin,
                        max_msg_size=0,
                    )
            except aiohttp.WSServerHandshakeError as exc:
                raise _refused(exc.status, _phrase(exc.status), b"") from exc
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
                raise _unreachable(target, exc) from exc
            async with connection:
                yield cls(connection)

    async def send_text(self, text: str) -> bool:
        """See `Client.send_text`."""
        try:
            await self._connection.send_str(text)
        except ConnectionError:
            return False
        return True

    async def receive(self) -> str | bytes | ClosedReason:
        """See `Client.receive`."""
        import aiohttp  # noqa: TID251  (as above)

        message = await self._connection.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        if message.type is aiohttp.WSMsgType.CLOSE:
            return ClosedReason(message.data or 1005, message.extra or "")
        if message.type is not aiohttp.WSMsgType.CLOSING:
            return ClosedReason(self._connection.close_code or 1006, "")
        # close() waits for the answer; aiohttp keeps only its code
        await self._closed.wait()
        return ClosedReason(self._connection.close_code or 1005, "")

    async def close(self) -> None:
        """See `Client.close`."""
        try:
            await self._connection.close()
        finally:
            self._closed.set()


class TornadoClient(Client):
    """Over ``tornado.websocket.websocket_connect``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.subprotocol = connection.selected_subprotocol

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, target: Target) -> AsyncGenerator[Client]:
        """See `Client.connect`."""
        from tornado.httpclient import HTTPClientError, HTTPRequest  # noqa: TID251  (a client, imported when used)
        from tornado.httputil import HTTPHeaders  # noqa: TID251  (as above)
        from tornado.websocket import WebSocketError, websocket_connect  # noqa: TID251  (as above)

        headers = HTTPHeaders()
        for name, value in target.headers:
            headers.add(name, value)
        if target.origin is not None:
            headers.add("Origin", target.origin)
        try:
            request = HTTPRequest(target.url, headers=headers, connect_timeout=CONNECT_TIMEOUT)
            # subprotocols of None, not []: an empty list sends an empty header
            connection = await websocket_connect(
                request, subprotocols=list(target.subprotocols) or None, max_message_size=2**62
            )
        except HTTPClientError as exc:
            if exc.code == 599:
                raise _unreachable(target, exc) from exc
            body = b"" if exc.response is None else exc.response.body
            raise _refused(exc.code, _phrase(exc.code), body) from exc
        except (OSError, WebSocketError, ValueError) as exc:
            raise _unreachable(target, exc) from exc
        client = cls(connection)
        try:
            yield client
        finally:
            connection.close()

    async def send_text(self, text: str) -> bool:
        """See `Client.send_text`."""
        from tornado.websocket import WebSocketClosedError  # noqa: TID251  (as above)

        try:
            await self._connection.write_message(text)
        except WebSocketClosedError:
            return False
        return True

    async def receive(self) -> str | bytes | ClosedReason:
        """See `Client.receive`."""
        message: str | bytes | None = await self._connection.read_message()
        if message is not None:
            return message
        # tornado has no code for a loss, nor for an empty close frame
        return ClosedReason(self._connection.close_code or 1006, self._connection.close_reason or "")

    async def close(self) -> None:
        """See `Client.close`."""
        self._connection.close(1000)


CLIENTS: Mapping[str, type[Client]] = MappingProxyType(
    {"websockets": WebsocketsClient, "aiohttp": AiohttpClient, "tornado": TornadoClient}
)
"""The clients by the package that each needs, the preferred first."""


def choose_client(name: str | None = None) -> type[Client]:
    """Return the client ``name``, or the first whose package is installed.

    Raises:
        NoClientError: It is not, or none is; the message says what to install.
    """
    for package in CLIENTS if name is None else (name,):
        if importlib.util.find_spec(package) is not None:
            return CLIENTS[package]
    needed = "websockets, aiohttp or tornado" if name is None else name
    verb = "none of them is" if name is None else "which is not"
    raise NoClientError(f"connect needs a client: {needed}, {verb} installed. Run: pip install {name or 'websockets'}")


def _tokens(subprotocols: tuple[str, ...]) -> Any:
    """Websockets has types of its own for these strings."""
    return subprotocols or None


def _token(origin: str | None) -> Any:
    return origin


def _phrase(status: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _refused(status: int, phrase: str, body: bytes) -> ConnectError:
    line = next(iter(body.decode("utf-8", "replace").strip().splitlines()), "")[:200]
    head = f"the server refused the handshake: {status} {printable(phrase)}".rstrip()
    return ConnectError(head if line in ("", phrase) else f"{head}: {printable(line)}")


def _unreachable(target: Target, exc: BaseException) -> ConnectError:
    reason = "it took too long" if isinstance(exc, TimeoutError) and not str(exc) else str(exc) or type(exc).__name__
    return ConnectError(f"cannot connect to {target.url}: {printable(reason)}")


# ---- the conversation ----------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Escape what could steer a terminal; a peer's text is not to be trusted."""
    return "".join(char if char.isprintable() or char in "\t" else repr(char)[1:-1] for char in text)


def shown(message: str | bytes, *, is_terminal: bool) -> str:
    """Return a message as a line of output: to the letter in a pipe, made harmless on a terminal."""
    if isinstance(message, bytes):
        dots = "..." if len(message) > _PREVIEW else ""
        return f"<{len(message)} bytes: {message[:_PREVIEW].hex(' ')}{dots}>"
    return f"< {printable(message)}" if is_terminal else message


async def talk(
    client: type[Client],
    target: Target,
    *,
    wait: float = 1.0,
    stdin: BinaryIO | None = None,
    stdout: TextIO | None = None,
) -> ClosedReason:
    """Send the lines of the input, print what comes, and return how the connection ended.

    At the end of the input a terminal's user has said goodbye; a pipe's answers may take ``wait`` seconds more.

    Raises:
        ConnectError: There is no connection.
    """
    source = stdin if stdin is not None else sys.stdin.buffer
    sink = stdout if stdout is not None else sys.stdout
    is_interactive = source.isatty()
    with _interrupts() as interrupted:
        async with client.connect(target) as connection:
            agreed = f" ({connection.subprotocol})" if connection.subprotocol else ""
            how = "; Ctrl-D closes" if is_interactive else ""
            click.echo(f"connected to {target.url}{agreed}{how}", err=True)

            receiving = asyncio.ensure_future(_print_messages(connection, sink))
            sending = asyncio.ensure_future(_send_lines(connection, source, 0 if is_interactive else wait))
            stopping = asyncio.ensure_future(interrupted.wait())
            try:
                await asyncio.wait((receiving, sending, stopping), return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and not receiving.done():
                    sending.result()
                if not receiving.done():
                    closing = asyncio.ensure_future(connection.close())
                    await asyncio.wait((receiving,), timeout=CLOSE_TIMEOUT)
                    closing.cancel()
                    await asyncio.wait((closing,))
                return receiving.result() if receiving.done() else ClosedReason(1006, "")
            finally:
                for task in (receiving, sending, stopping):
                    task.cancel()
                await asyncio.wait((receiving, sending, stopping))


async def _send_lines(connection: Client, source: BinaryIO, wait: float) -> None:
    """Send each line of ``source``, then give the answers ``wait`` seconds; end earlier with the connection."""
    async for line in _lines(source):
        if not await connection.send_text(line):
            return
    if wait:
        await asyncio.sleep(wait)


async def _print_messages(connection: Client, sink: TextIO) -> ClosedReason:
    """Print what comes; return how the connection ended."""
    is_terminal = sink.isatty()
    while True:
        message = await connection.receive()
        if isinstance(message, ClosedReason):
            return message
        click.echo(shown(message, is_terminal=is_terminal), file=sink)
        sink.flush()


@contextlib.contextmanager
def _interrupts() -> Generator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    interrupted = asyncio.Event()
    with handling(dict.fromkeys(STOPPING, interrupted.set)):
        yield interrupted


async def _lines(source: BinaryIO) -> AsyncGenerator[str]:
    """Yield the lines of ``source``, a terminal, pipe or file, without their ends.

    A thread reads, since an event loop cannot wait for files. It reads past the stream's buffer, whose lock a thread
    that is left waiting for a key would hold while the interpreter ends.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    more = threading.Semaphore(1)
    try:
        descriptor = source.fileno()
    except (OSError, io.UnsupportedOperation):
        read: Callable[[], bytes] = source.read
    else:
        read = _reader(descriptor)

    def feed() -> None:
        chunk = b"?"
        while chunk:
            more.acquire()  # one chunk at a time: a large file is not read ahead of a slow server
            try:
                chunk = read()
            except OSError:
                chunk = b""
            with contextlib.suppress(RuntimeError):  # the loop is closed; nobody listens any more
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    threading.Thread(target=feed, name="wsbridge-stdin", daemon=True).start()
    rest = b""
    while chunk := await chunks.get():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield _text(line)
        more.release()
    if rest:
        yield _text(rest)


def _reader(descriptor: int) -> Callable[[], bytes]:
    return lambda: os.read(descriptor, 65536)


def _text(line: bytes) -> str:
    encoding = getattr(sys.stdin, "encoding", None) or "utf-8"
    return line.removesuffix(b"\r").decode(encoding, "replace")
