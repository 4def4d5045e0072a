"""Interceptors over a plain dict: enter in order, leave in reverse, errors to the first that takes them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from wsbridge._common.callbacks import check_callback

__all__ = ["Context", "ContextStage", "ErrorStage", "Interceptor", "execute"]

logger = logging.getLogger("wsbridge")

Context = dict[str, Any]
"""A plain dict. Its documented keys: ``request`` (`Request`), ``response`` (`Response` or None),
``websocket_channel_source`` (`InitializeWebSocket`), ``websocket_channel`` (`WebSocketChannel` or None). Interceptors
may add their own (CTX-1)."""

_STAGES = MappingProxyType({"enter": ("context",), "leave": ("context",), "error": ("context", "exception")})

ContextStage = Callable[[Context], Context | Awaitable[Context | None] | None]
ErrorStage = Callable[[Context, Exception], Context | Awaitable[Context | None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interceptor:
    """A named step around the handling of a request. Pedestal: ``interceptor``. CTX-2.

    Each stage is a plain or coroutine function and returns the context, or None for the one it was given.

    Attributes:
        name: Says in logs and errors which it is.
        enter: ``enter(context)``, in order. A ``response`` in the context ends the enter stages.
        leave: ``leave(context)``, in reverse.
        error: ``error(context, exception)``, in reverse from the stage that raised. Returning takes the exception,
            and the leave stages go on from there; raising hands it on. When the handshake is cancelled, every error
            stage runs, with the `asyncio.CancelledError`, which none can take (CTX-6).

    Raises:
        TypeError: The name is not a str, or a stage cannot be called as it will be (OPEN-12).
    """

    name: str
    enter: ContextStage | None = None
    leave: ContextStage | None = None
    error: ErrorStage | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"interceptor name must be a non-empty str, not {self.name!r}")
        for stage, takes in _STAGES.items():
            function = getattr(self, stage)
            if function is not None:
                if not callable(function):
                    raise TypeError(f"interceptor {self.name!r}: {stage} must be callable or None, not {function!r}")
                check_callback(f"interceptor {self.name!r}: {stage}", function, *takes)


async def execute(
    context: Context,
    interceptors: Iterable[Interceptor],
    route: Callable[[Context], Iterable[Interceptor]] | None = None,
) -> Context:
    """Run ``context`` through the interceptors and return it.

    ``route`` is asked for more of them once the first have entered and no ``response`` is set.

    Raises:
        Exception: What a stage raised and no error stage took.
        asyncio.CancelledError: The task was cancelled; the error stages of all that had entered have run (CTX-6).
    """
    entered: list[Interceptor] = []
    try:
        return await _execute(context, interceptors, route, entered)
    except asyncio.CancelledError as exc:
        await _release(context, entered, exc)
        raise


async def _execute(
    context: Context,
    interceptors: Iterable[Interceptor],
    route: Callable[[Context], Iterable[Interceptor]] | None,
    entered: list[Interceptor],
) -> Context:
    failure: Exception | None = None
    try:
        while True:
            for interceptor in interceptors:
                if context.get("response") is not None:
                    break
                entered.append(interceptor)
                if interceptor.enter is not None:
                    result = interceptor.enter(context)
                    # by far the most return the context that they got, which costs no call here
                    context = context if result is context else await _result(interceptor, "enter", result, context)
            if route is None or context.get("response") is not None:
                break
            interceptors, route = route(context), None
    except Exception as exc:
        failure = exc
    while entered:
        interceptor = entered.pop()
        try:
            if failure is None:
                if interceptor.leave is not None:
                    context = await _result(interceptor, "leave", interceptor.leave(context), context)
            elif interceptor.error is not None:
                context = await _result(interceptor, "error", interceptor.error(context, failure), context)
                failure = None
        except Exception as exc:
            failure = exc
    if failure is not None:
        raise failure
    return context


async def _release(context: Context, entered: list[Interceptor], cancelled: asyncio.CancelledError) -> None:
    """Let all that entered give back what they hold; another cancellation ends one error stage, not the others."""
    while entered:
        interceptor = entered.pop()
        if interceptor.error is None:
            continue
        try:
            result = interceptor.error(context, cast(Any, cancelled))
            context = await _result(interceptor, "error", result, context)
        except asyncio.CancelledError:
            continue
        except Exception:
            logger.exception("the error stage of the interceptor %r raised for a cancelled handshake", interceptor.name)


async def _result(interceptor: Interceptor, stage: str, result: object, context: Context) -> Context:
    """Await what a stage returned where that is needed, and check that it is a context."""
    if type(result) is not dict and inspect.isawaitable(result):
        result = await result
    if result is None:
        return context
    if not isinstance(result, dict):
        raise TypeError(
            f"interceptor {interceptor.name!r}: {stage} must return the context (a dict) or None, not {result!r}"
        )
    return result  # pyright: ignore[reportUnknownVariableType]
