"""How a check says that it failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

__all__ = ["CheckFailed", "difference", "equal", "fail", "true"]

_WHOLE = 70  # characters of a value that a reader compares at a glance
_AROUND = 20  # items of a text, or of bytes, that are shown before the place where two values differ


class CheckFailed(AssertionError):
    """What a rule promises did not happen; the message says what did.

    Attributes:
        expected: What was expected, as it is shown; "" where the message alone says it.
        actual: What came instead.
        difference: Where the two differ, if they are too long to see it.
        moment: When it was found, by `time.perf_counter`.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "", difference: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual
        self.difference = difference
        self.moment = time.perf_counter()


def fail(message: str) -> None:
    """Fail the check.

    Raises:
        CheckFailed: Always.
    """
    raise CheckFailed(message)


def true(condition: object, message: str) -> None:
    """Fail the check with ``message`` unless ``condition`` holds."""
    if not condition:
        raise CheckFailed(message)


def equal(actual: object, expected: object, what: str) -> None:
    """Fail the check unless ``actual`` equals ``expected``."""
    if actual != expected:
        raise CheckFailed(
            f"{what}: expected {_short(expected)}, got {_short(actual)}",
            expected=_short(expected),
            actual=_short(actual),
            difference=difference(actual, expected),
        )


def difference(actual: object, expected: object) -> str:
    """Return where two values differ, with what is there in each; "" if they are short, or of different types."""
    if type(actual) is not type(expected) or max(len(repr(actual)), len(repr(expected))) <= _WHOLE:
        return ""
    if not isinstance(actual, str | bytes | bytearray | list | tuple):
        return ""
    ours = cast("Sequence[object]", actual)
    theirs = cast("Sequence[object]", expected)
    shorter = min(len(ours), len(theirs))
    at = next((index for index in range(shorter) if ours[index] != theirs[index]), shorter)
    if isinstance(actual, list | tuple):
        lengths = f" ({len(theirs)} of them expected, {len(ours)} came)" if len(ours) != len(theirs) else ""
        return f"at item {at}{lengths}: expected {_item(theirs, at)}, got {_item(ours, at)}"
    unit = "character" if isinstance(actual, str) else "byte"
    lengths = f" (of {len(theirs)} expected, {len(ours)} came)" if len(ours) != len(theirs) else ""
    return f"at {unit} {at}{lengths}: expected {_around(theirs, at)}, got {_around(ours, at)}"


def _item(values: Sequence[object], at: int) -> str:
    return _short(values[at], 100) if at < len(values) else "no more"


def _around(value: Sequence[object], at: int) -> str:
    start, end = max(0, at - _AROUND), at + 2 * _AROUND
    return f"{'...' if start else ''}{value[start:end]!r}{'...' if end < len(value) else ''}"


def _short(value: object, limit: int = 300) -> str:
    text = repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit * 2 // 3]}... ({len(text)} characters) ...{text[-limit // 5 :]}"
