"""The client's end of a channel in tests; `wsbridge.testing.connect` makes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from werkzeug.datastructures import Headers

from wsbridge.close import CloseReason, check_close
from wsbridge.connectors.memory import Arrival, Close, Connection, Connector, End, Ping
from wsbridge.errors import ChannelClosedError, MessageKindError
from wsbridge.protocols import WebSocketChannel

__all__ = ["Peer"]

_SHOWN = 40  # characters or bytes of a message


class Peer:
    """The client's end of one channel. Made by `connect`.

    Every wait has a limit, ``timeout`` in seconds of the clock on the wall; None is what `connect` was told. One task
    receives, any number send.

    Attributes:
        channel: The application's end, for a look at what it has become.
        headers: Those of the answer to the handshake, its 101.
        subprotocol: The one that was agreed on, or None.
        connector: Serves the application.
        connection: What is below, for what this class has no method for.
        timeout: The limit where none is given.
    """

    def __init__(self, connector: Connector, connection: Connection, timeout: float) -> None:
        assert connection.channel is not None
        assert connection.answer is not None
        self.channel: WebSocketChannel[Connection] = connection.channel
        self.headers: Headers = connection.answer.headers
        self.subprotocol = self.channel.subprotocol
        self.connector = connector
        self.connection = connection
        self.timeout = timeout

    @property
    def reason(self) -> CloseReason | None:
        """How the channel ended, as this end sees it; None while it is open.

        In the words of the application's `WebSocketChannel.reason`: ``"local"`` is a close by the application,
        ``"peer"`` one by this end, ``"network"`` a loss.
        """
        return self.connection.reason

    @property
    def errors(self) -> Sequence[BaseException]:
        """What the application has raised, in callbacks, interceptors and the handlers of streams, in order."""
        return tuple(self.connection.errors)

    # ---- messages ---------------------------------------------------------------------------------------------------

    async def send(self, message: str | bytes | bytearray | memoryview, *, timeout: float | None = None) -> None:
        """Send a message; wait while the application is held back, as TCP would (FLOW-1).

        Raises:
            ChannelClosedError: The channel has ended, or this end has closed.
            TimeoutError: The application takes no more; the message is sent nevertheless.
            TypeError: Neither text nor bytes-like.
            UnicodeEncodeError: A text with a lone surrogate.
        """
        connection = self.connection
        if type(message) is str:
            if not message.isascii():
                message.encode()
        elif type(message) is not bytes:
            message = _message(message)
        if not connection.send(message):
            raise self._closed()
        if connection.must_drain:
            try:
                async with asyncio.timeout(self._limit(timeout)):
                    await connection.drain()
            except TimeoutError:
                raise self._late("the application took no more messages", timeout) from self._cause()

    async def send_json(self, value: object, *, timeout: float | None = None) -> None:
        """Send ``value`` as JSON, in a text message."""
        await self.send(json.dumps(value), timeout=timeout)

    async def receive(self, *, timeout: float | None = None) -> str | bytes:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Raises:
            ChannelClosedError: The channel has ended and all its messages were received. What the application raised
                is the cause, if it did.
            TimeoutError: No message came in time; says what has arrived until then.
            RuntimeError: Another task is receiving.
        """
        inbox = self.connection.inbox
        if not inbox or not isinstance(inbox[0], str | bytes):
            await self._message_arrived(timeout)
        message = self.connection.take()
        assert isinstance(message, str | bytes)
        return message

    async def receive_text(self, *, timeout: float | None = None) -> str:
        """Return the next message, which must be a text.

        Raises:
            MessageKindError: It is binary; it stays the next.

        All else is as with `receive`.
        """
        await self._message_arrived(timeout)
        if not isinstance(message := self.connection.inbox[0], str):
            raise MessageKindError(f"the next message is {_shown(message)}, and not a text; it is still there")
        self.connection.take()
        return message

    async def receive_binary(self, *, timeout: float | None = None) -> bytes:
        """Return the next message, which must be binary.

        Raises:
            MessageKindError: It is a text; it stays the next.

        All else is as with `receive`.
        """
        await self._message_arrived(timeout)
        if not isinstance(message := self.connection.inbox[0], bytes):
            raise MessageKindError(f"the next message is {_shown(message)}, and not binary; it is still there")
        self.connection.take()
        return message

    async def receive_json(self, *, timeout: float | None = None) -> Any:
        """Return what the next message, of either kind, holds as JSON."""
        return json.loads(await self.receive(timeout=timeout))

    async def receive_nothing(self, seconds: float = 0.05) -> None:
        """Check that no message is there, and that none comes within ``seconds``. An end is not one.

        Raises:
            AssertionError: One is; it stays the next.
        """
        try:
            await self._message_arrived(seconds)
        except (TimeoutError, ChannelClosedError):
            return
        raise AssertionError(f"no message was expected, but there is {_shown(self.connection.inbox[0])}")

    def __aiter__(self) -> Peer:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message; the loop ends with the channel."""
        try:
            return await self.receive()
        except ChannelClosedError:
            raise StopAsyncIteration from None

    # ---- control ----------------------------------------------------------------------------------------------------

    async def ping(self, payload: bytes = b"", *, timeout: float | None = None) -> None:
        """Send a ping and wait for its pong.

        Raises:
            ChannelClosedError: The channel has ended.
            TimeoutError: There is no pong, as while the application is held back.
            ValueError: A payload of more than 125 bytes.
        """
        if len(payload) > 125:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(payload)}")
        answered = self.connection.ping(bytes(payload))
        try:
            async with asyncio.timeout(self._limit(timeout)):
                if await answered:
                    return
        except TimeoutError:
            raise self._late("no pong", timeout) from self._cause()
        raise self._closed()

    async def close(
        self, code: int | None = 1000, text: str = "", *, wait: bool = True, timeout: float | None = None
    ) -> CloseReason:
        """Send a close frame and wait until the application's callbacks, ``on_close`` too, have ended.

        Args:
            code: As for `WebSocketChannel.close`; None sends an empty frame.
            text: Likewise.
            wait: Whether to wait; if not, return at once.
            timeout: Seconds.

        Returns:
            The first end of the channel, which need not be this close.

        Raises:
            TimeoutError: A callback still runs.
            ValueError, TypeError: A code or a text that cannot be sent.
        """
        if code is None:
            if text:
                raise ValueError("an empty close frame has no text")
        else:
            code = check_close(code, text)
        self.connection.close(code, text)
        return await self._ended(wait, timeout)

    async def drop(self, *, wait: bool = True, timeout: float | None = None) -> CloseReason:
        """Lose the connection without a close frame; wait, and return, as `close` does."""
        self.connection.drop()
        return await self._ended(wait, timeout)

    async def wait_closed(self, *, timeout: float | None = None) -> CloseReason:
        """Wait until the channel has ended and the application's callbacks have; return how it ended.

        Messages that have come can still be received.

        Raises:
            TimeoutError: It is still open, or a callback still runs.
        """
        if not self.connection.task.done():
            await asyncio.wait((self.connection.task,), timeout=self._limit(timeout))
        if self.reason is None:
            raise self._late("the channel did not end", timeout) from self._cause()
        if not self.connection.task.done():
            raise self._late("the application's callbacks did not end", timeout) from self._cause()
        return self.reason

    async def advance(self, seconds: float) -> None:
        """Move time forward for the timeouts of the connector's channels (idle, ping, send, close); nobody waits.

        What is due by then happens, each at its time. Sleeps of the application go by the clock on the wall.
        """
        await self.connector.advance(seconds)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _limit(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout

    async def _message_arrived(self, timeout: float | None) -> None:
        """Wait until the next in the inbox is a message, past control frames."""
        connection = self.connection
        inbox = connection.inbox
        while True:
            while inbox:
                if isinstance(inbox[0], str | bytes):
                    return
                connection.take()
            if connection.reason is not None and connection.is_over:
                raise self._closed()
            if not await connection.wait(self._limit(timeout)):
                if connection.reason is not None:  # nothing can come after a close
                    raise self._closed()
                raise self._late("no message", timeout) from self._cause()

    async def _ended(self, wait: bool, timeout: float | None) -> CloseReason:
        if wait:
            return await self.wait_closed(timeout=timeout)
        assert self.reason is not None
        return self.reason

    def _closed(self) -> ChannelClosedError:
        assert self.reason is not None
        error = ChannelClosedError(self.reason)
        error.__cause__ = self._cause()
        return error

    def _cause(self) -> BaseException | None:
        return self.connection.errors[-1] if self.connection.errors else None

    def _late(self, what: str, timeout: float | None) -> TimeoutError:
        connection = self.connection
        arrived = ", ".join(map(_shown, connection.arrived)) or "nothing"
        text = f"{what} within {self._limit(timeout):g} s; arrived until then: {arrived}"
        if connection.channel is not None and connection.channel.running is not None:
            text += f"; the application is in {getattr(connection.channel.running, '__qualname__', 'a callback')}"
        return TimeoutError(text)


def _message(message: object) -> bytes | str:
    if isinstance(message, str):
        return str(message)
    try:
        return memoryview(message).tobytes()  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a message is a str or bytes-like, not {type(message).__name__}") from None


def _shown(arrival: Arrival) -> str:
    if isinstance(arrival, str | bytes):
        kind = "text" if isinstance(arrival, str) else "binary"
        more = f"... ({len(arrival)} in all)" if len(arrival) > _SHOWN else ""
        return f"{kind} {arrival[:_SHOWN]!r}{more}"
    if isinstance(arrival, Close):
        return "an empty close" if arrival.code is None else f"close {arrival.code} {arrival.text!r}"
    if isinstance(arrival, End):
        return "the end of the connection, cut by the application's side" if arrival.is_cut else "the end"
    return "ping" if isinstance(arrival, Ping) else "pong"
