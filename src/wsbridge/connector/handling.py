"""How a connector answers a request: with what its application says, or by a refusal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from werkzeug.datastructures import Headers

from wsbridge._channel.channel import BaseChannel
from wsbridge._common.logs import shown
from wsbridge._common.proxies import forwarded, forwarded_hosts
from wsbridge.connector.answering import Answers, Taken
from wsbridge.connector.channels import Channels
from wsbridge.http import Request, Response, check_headers, closing, is_last, plain_response
from wsbridge.interceptor import Context, execute
from wsbridge.protocols import Address
from wsbridge.refusal import Refusal, RefusalLog

__all__ = ["Handling", "Source"]

logger = logging.getLogger("wsbridge")

_MAX_HEADERS = 128  # of a request
_RESERVED = frozenset(
    f"{prefix}{name}"
    for prefix, names in {
        "": ("connection", "upgrade", "content-length", "transfer-encoding"),
        "sec-websocket-": ("accept", "extensions", "protocol", "version", "key"),
    }.items()
    for name in names
)


class Source(Protocol):
    """A request's `wsbridge.connector.BaseSource`, as far as it is needed here."""

    channel: BaseChannel | None
    response_headers: Headers


class Handling(Channels):
    """The part of a connector that handles requests."""

    def _set_up(self) -> None:
        super()._set_up()
        self._handshakes: set[asyncio.Task[Any]] = set()
        self._addresses: tuple[Address, ...] = ()
        self._running = False
        self._answers: Answers[Any] = Answers(
            self.handshake_timeout, self._how_taken, self._cut_answered, keeps=self.keeps_answered
        )
        self._refusals = RefusalLog()

    def _how_taken(self, connection: Any) -> Taken:
        """Tell how an answered connection stands. Needed where `answering` is called."""
        raise NotImplementedError

    def _cut_answered(self, connection: Any) -> None:
        """Cut a connection whose peer does not take its answer. Needed where `answering` is called."""
        raise NotImplementedError

    def answering(self, connection: Any) -> None:
        """Take it that an answer in plain HTTP is written to a connection next, or a refusal (HS-13).

        For servers that have no deadline for it. ``connection`` is the server's object for it, which must allow a weak
        reference; call `upgraded` with it when a 101 is written. A mount leaves it to the framework.
        """
        if self._running:
            self._answers.begin(self.clock, connection)

    def upgraded(self, connection: Any) -> None:
        """Take it that a 101 is written to a connection."""
        self._answers.forget(connection)

    def handle(self, request: Request, source: Source) -> Coroutine[Any, Any, BaseChannel | Response]:
        """Run a request through the application (HS-4 to HS-9, CTX-3).

        Returns:
            To be awaited, the response to send, or a channel: send its 101, with ``source.response_headers``, and await
            its `run`, or call its `abandon` if that fails.
        """
        return self.handle_by(request, source, self._application_chain)

    async def handle_by(
        self, request: Request, source: Source, run: Callable[[Context], Awaitable[Context]]
    ) -> BaseChannel | Response:
        """As `handle`, with what runs the context given."""
        outcome = await self._handled(request, source, run)
        return closing(outcome) if isinstance(outcome, Response) and is_last(request) else outcome

    async def _handled(
        self, request: Request, source: Source, run: Callable[[Context], Awaitable[Context]]
    ) -> BaseChannel | Response:
        if self._trusted:
            self._believe_proxies(request)
        context: Context = {
            "request": request,
            "response": None,
            "websocket_channel_source": source,
            "websocket_channel": None,
        }
        if self.is_stopping:
            return self._refused(request, _stops())
        if len(request.header_lines()) > _MAX_HEADERS:
            return self._refused(request, Refusal(431, f"it has more than {_MAX_HEADERS} headers"))
        if _head_size(request) > self.max_head_size:
            return self._refused(request, Refusal(431, f"its head has more than {self.max_head_size} bytes"))
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._handshakes.add(task)
        channel: BaseChannel | None = None
        try:
            context = await run(context)
            outcome = self._outcome(context, source)
            if not isinstance(outcome, Response):
                channel = outcome
            elif isinstance(outcome, Refusal):
                return self._refused(request, outcome)
            return outcome
        except asyncio.CancelledError as exc:
            if not task.cancelling():  # a stage raised it, of something else that was cancelled
                return _failure(request, exc)
            if not self.is_stopping:
                raise
            task.uncancel()  # by the stop of this connector, which refuses what is under way (STOP-5)
            return self._refused(request, _stops())
        except Exception as exc:
            return _failure(request, exc)
        finally:
            self._handshakes.discard(task)
            self._wake_stop()
            if source.channel is not None and source.channel is not channel:
                source.channel.abandon()  # a later stage refused what was upgraded already

    def _refused(self, request: Request, refusal: Refusal) -> Refusal:
        self._refusals.note(request, refusal)
        return refusal

    def _believe_proxies(self, request: Request) -> None:
        """Believe what a trusted proxy tells of the peer (HS-2, HS-15)."""
        if request.remote_address is None and self._addresses and not any(isinstance(a, str) for a in self._addresses):
            return  # there is no Unix socket: it is a peer whose connection has ended already
        lines, remote, trusted = request.header_lines(), request.remote_address, self._trusted
        request.forwarded_hosts = forwarded_hosts(lines, remote, trusted=trusted)
        request.scheme, request.remote_address = forwarded(lines, request.scheme, remote, trusted=trusted)
        request.remote_addr = None if request.remote_address is None else request.remote_address[0]

    def _application_chain(self, context: Context) -> Coroutine[Any, Any, Context]:
        return execute(context, self.app.interceptors, self.app.route)

    def _outcome(self, context: Context, source: Source) -> BaseChannel | Response:
        response = context.get("response")
        if response is not None:
            if not isinstance(response, Response):
                raise TypeError(f"context['response'] must be a wsbridge.Response, not {response!r}")
            check_headers(response.headers)
            return response
        channel: BaseChannel | None = context.get("websocket_channel")
        if channel is None:
            return Refusal(404, "its route has made neither a channel nor a response")
        if channel is not source.channel and not isinstance(channel, BaseChannel):
            raise TypeError(f"context['websocket_channel'] must be what the connector made, not {channel!r}")
        check_headers(source.response_headers)
        for name, _ in source.response_headers:
            if name.lower() in _RESERVED:
                raise ValueError(f"the header {name!r} of a 101 is the connector's; interceptors may not set it")
        return _stops() if self.is_stopping else channel


def _failure(request: Request, error: BaseException) -> Response:
    logger.error("the request for %s failed", shown(request.path), exc_info=error)
    return plain_response(500)


def _stops() -> Refusal:
    """Refuse for a stop, after which the connection ends (STOP-9)."""
    return Refusal(503, "the connector stops", {"Connection": "close"})


def _head_size(request: Request) -> int:
    """Return how many bytes a request's line and headers have, if there is one space after each colon."""
    size = len(request.method) + len(request.raw_path) + len(request.query_string) + len("  HTTP/1.1\r\n\r\n")
    if request.query_string:
        size += len("?")
    return size + sum(len(name) + len(value) + len(": \r\n") for name, value in request.header_lines())
