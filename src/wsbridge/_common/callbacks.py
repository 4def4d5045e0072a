"""What the application hands over to be called, checked when it is handed over (OPEN-12)."""

from __future__ import annotations

import functools
import inspect
import sys
from types import FunctionType, MethodType
from typing import Any

if sys.version_info >= (3, 14):
    import annotationlib

__all__ = ["check_callback", "described", "is_coroutine_function"]

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
_ANY: Any = object()


def check_callback(name: str, callback: object, *takes: str) -> None:
    """Check that ``callback`` can be called as it will be, and that its body runs then.

    What cannot be told is taken: a callable without a signature, as some in C, and a decorated function that takes any
    arguments, whatever it does with them.

    Args:
        name: What it is, for the error.
        callback: A function or method, plain or coroutine; a class; a partial; or any other object with ``__call__``.
        takes: The names of what it is called with, by position.

    Raises:
        TypeError: It cannot be called, or not with so many arguments, or it is a generator function. The error names
            it, with file and line, and says what it must take.
    """
    if _takes_plainly(callback, len(takes)):
        return
    if not callable(callback):
        raise TypeError(f"{name} must be callable, since it is called as {_call(name, takes)}, not {callback!r}")
    if kind := _generator_kind(callback):
        raise TypeError(
            f"{name} must be a plain or a coroutine function, not {kind}, whose body would never run: "
            f"{described(callback)}"
        )
    try:
        signature = _signature(callback)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*(_ANY for _ in takes))
    except TypeError as exc:
        raise TypeError(
            f"{name} is called as {_call(name, takes)}, which {described(callback)} does not take: "
            f"its parameters are {_shown(signature)} ({exc})"
        ) from None


def _takes_plainly(callback: object, count: int) -> bool:
    """Tell of a function or method at once whether it takes so many arguments; False if that needs a closer look."""
    if type(callback) is MethodType:
        callback, count = callback.__func__, count + 1
    if type(callback) is not FunctionType or callback.__dict__:
        return False
    code = callback.__code__
    return code.co_argcount == count and not code.co_kwonlyargcount and not code.co_flags & _GENERATORS


def is_coroutine_function(callback: object) -> bool:
    """Tell whether calling ``callback`` makes a coroutine, as far as that can be told; a class does not."""
    if isinstance(callback, type):
        return False
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(_function(callback))


def described(callback: object) -> str:
    """Return what ``callback`` is called, and where it stands if that can be told."""
    function = _function(callback)
    name = getattr(callback, "__qualname__", None) or getattr(function, "__qualname__", None) or repr(callback)
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    where = f" ({code.co_filename}, line {code.co_firstlineno})" if inspect.iscode(code) else ""
    return f"{name}{where}"


def _function(callback: object) -> Any:
    """Return the function that runs when ``callback`` is called, below partials, methods and ``__call__``."""
    while isinstance(callback, functools.partial):
        callback = callback.func  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if inspect.isroutine(callback):
        return getattr(callback, "__func__", callback)
    if isinstance(callback, type):
        return callback.__init__  # type: ignore[misc]
    return getattr(type(callback), "__call__", callback)  # noqa: B004  (the function itself, not whether there is one)


def _generator_kind(callback: object) -> str:
    function = callback if isinstance(callback, type) else _function(callback)
    if inspect.isasyncgenfunction(function):
        return "an async generator function"
    return "a generator function" if inspect.isgeneratorfunction(function) else ""


def _signature(callback: Any) -> inspect.Signature:
    """Return its own signature, since a decorator need not call what it wraps with the same arguments."""
    options: dict[str, Any] = {"follow_wrapped": False}
    if sys.version_info >= (3, 14):  # an annotation may name what is imported for type checkers alone
        options["annotation_format"] = annotationlib.Format.FORWARDREF
    return inspect.signature(callback, **options)


def _call(name: str, takes: tuple[str, ...]) -> str:
    return f"{name}({', '.join(takes)})"


def _shown(signature: inspect.Signature) -> str:
    """Return the parameters without their annotations, which make a line long."""
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
