"""An application: routes to channels, and the interceptors around them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter, Map, RequestRedirect, Rule

from wsbridge._common.callbacks import check_callback, described, is_coroutine_function
from wsbridge.http import Request
from wsbridge.interceptor import Context, Interceptor
from wsbridge.options import WebSocketOptions
from wsbridge.refusal import Refusal
from wsbridge.upgrade import Upgrade, websocket_interceptor

__all__ = ["Application", "Handler", "Route"]

Handler = WebSocketOptions[Any] | Sequence[Interceptor]
"""What serves a route: options, or interceptors, mostly with a `websocket_interceptor` as the last one."""

Route = tuple[str, Handler]

_PARAMETER = re.compile(r"\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<kind>path))?\}")


class _Rest(BaseConverter):
    """What ``{name:path}`` matches; line breaks too, which werkzeug's own ``path`` does not."""

    regex = r"[^/][\s\S]*?"
    part_isolating = False  # slashes too
    weight = 200  # as werkzeug's: whatever else matches comes first


class _Everything(_Rest):
    """What ``/{name:path}`` matches, which is meant for all paths: ``/`` too."""

    regex = r"[\s\S]*?"
    part_isolating = False


_CONVERTERS = {"path": _Rest, "all": _Everything}


class Application:
    """Routes, each with its options or interceptors, and the interceptors that run before all of them.

    Args:
        routes: Pairs of a path and a handler. A path begins with ``/``; ``{name}`` matches one segment and
            ``{name:path}`` the rest, slashes too; ``/{name:path}`` alone matches every path, ``/`` as "" as well. The
            decoded path is matched, to the letter; a fixed segment wins over a parameter. A handler is
            `WebSocketOptions`, or a sequence of `Interceptor` that ends with `websocket_interceptor` (or with one that
            sets a response).
        interceptors: Run first, for any request, so that they can answer plain HTTP too (HS-4).
        lifespan: ``lifespan(application)`` returns an async context manager, such as `contextlib.asynccontextmanager`
            makes: what is entered before the first request and left after the last channel (STOP-6), the place for a
            pool or a background task. An application that is mounted may have none: its framework does.

    Raises:
        TypeError: A route is not a pair, a handler is neither options nor interceptors, one of the interceptors is not
            an `Interceptor`, or ``lifespan`` is not callable.
        ValueError: A path is ill-formed or stands there twice.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        interceptors: Iterable[Interceptor] = (),
        *,
        lifespan: Callable[[Application], AbstractAsyncContextManager[object]] | None = None,
    ) -> None:
        if lifespan is not None:
            _check_lifespan(lifespan)
        self.lifespan = lifespan
        self.interceptors = _interceptors(interceptors, "interceptors")
        self._map = Map(strict_slashes=False, merge_slashes=False, redirect_defaults=False, converters=_CONVERTERS)
        self._handlers: list[tuple[Interceptor, ...]] = []
        self._fixed: dict[str, tuple[Interceptor, ...]] = {}  # what the map would find first, at less cost
        self._everything: tuple[tuple[Interceptor, ...], str] | None = None  # of `/{name:path}`, and the name
        seen: dict[str, str] = {}
        for route in routes:
            if not isinstance(route, tuple) or len(route) != 2:
                raise TypeError(f"a route must be a pair (path, handler), not {route!r}")
            path, handler = route
            rule = _rule(path)
            shape = _PARAMETER.sub(lambda match: "{:path}" if match["kind"] else "{}", path)
            if shape in seen:
                raise ValueError(f"route {path!r} matches the same paths as {seen[shape]!r}")
            seen[shape] = path
            self._map.add(Rule(rule, endpoint=len(self._handlers), strict_slashes=True))
            self._handlers.append(as_interceptors(handler, path))
            if rule.startswith("/<all:"):
                self._everything = self._handlers[-1], rule[len("/<all:") : -1]
            if rule == path and not path.startswith("//"):  # which matches nothing, see below
                self._fixed[path] = self._handlers[-1]
        self._map.update()
        # bound once: host, scheme and method play no part in a match
        self._adapter = self._map.bind("")

    @property
    def options(self) -> Iterator[WebSocketOptions[Any]]:
        """The options that can be seen in the routes and interceptors, for a connector to check early."""
        for chain in (self.interceptors, *self._handlers):
            for interceptor in chain:
                if isinstance(interceptor.enter, Upgrade):
                    yield interceptor.enter.options

    def route(self, context: Context) -> tuple[Interceptor, ...]:
        """Return the interceptors for the request in ``context``, or none with the ``response`` 404 set (HS-5)."""
        request: Request = context["request"]
        fixed = self._fixed.get(request.path)
        if fixed is not None:
            return fixed
        try:
            if request.path.startswith("//"):  # werkzeug would match it as if it had one slash
                if self._everything is None:
                    raise NotFound
                handler, name = self._everything
                request.path_params[name] = request.path[1:]
                return handler
            endpoint, parameters = self._adapter.match(request.path, method="GET")
        except (NotFound, RequestRedirect):  # a redirect is how werkzeug says: but for a slash
            context["response"] = Refusal(404, "no route matches that path")
            return ()
        request.path_params.update(parameters)
        return self._handlers[int(endpoint)]


def _check_lifespan(lifespan: Callable[..., object]) -> None:
    if not callable(lifespan):
        raise TypeError(f"lifespan must be callable and return an async context manager, not {lifespan!r}")
    if inspect.isasyncgenfunction(lifespan):
        raise TypeError(f"lifespan is a generator function: it needs @asynccontextmanager: {described(lifespan)}")
    if is_coroutine_function(lifespan):
        raise TypeError(f"lifespan must return an async context manager, not a coroutine: {described(lifespan)}")
    check_callback("lifespan", lifespan, "application")


def as_interceptors(handler: Handler, path: str) -> tuple[Interceptor, ...]:
    """Return the interceptors of a route's handler.

    Raises:
        TypeError: It is neither options nor interceptors.
    """
    if isinstance(handler, WebSocketOptions):
        return (websocket_interceptor(path, handler),)
    return _interceptors(handler, f"route {path!r}")


def _interceptors(interceptors: object, where: str) -> tuple[Interceptor, ...]:
    if isinstance(interceptors, str | dict) or not isinstance(interceptors, Iterable):
        raise TypeError(f"{where}: expected WebSocketOptions or a sequence of Interceptor, not {interceptors!r}")
    chain: list[Interceptor] = []
    for interceptor in interceptors:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(interceptor, Interceptor):
            raise TypeError(f"{where}: {interceptor!r} is no Interceptor")
        chain.append(interceptor)
    if where != "interceptors" and not chain:
        raise ValueError(f"{where}: a handler needs at least one interceptor")
    return tuple(chain)


def _rule(path: object) -> str:
    """Return ``path`` in werkzeug's notation."""
    if not isinstance(path, str):
        raise TypeError(f"a route's path must be a str, not {path!r}")
    if not path.startswith("/"):
        raise ValueError(f"route {path!r} must begin with '/'")
    fixed = _PARAMETER.sub("", path)
    if wrong := re.search(r"[{}<>?#]", fixed):
        raise ValueError(f"route {path!r}: {wrong[0]!r} may stand only in {{name}} or {{name:path}}")
    names = [match["name"] for match in _PARAMETER.finditer(path)]
    if len(set(names)) < len(names):
        raise ValueError(f"route {path!r} names a parameter twice")
    if (match := _PARAMETER.fullmatch(path, 1)) is not None and match["kind"]:
        return f"/<all:{match['name']}>"
    return _PARAMETER.sub(lambda match: f"<{match['kind'] or 'string'}:{match['name']}>", path)
