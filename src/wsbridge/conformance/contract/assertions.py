"""How a check says that it failed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from typing import cast

__all__ = ["CheckFailed", "Variants", "difference", "equal", "fail", "true", "variants"]

_WHOLE = 70  # characters of a value that a reader compares at a glance
_AROUND = 20  # items of a text, or of bytes, that are shown before the place where two values differ
_PATIENCE = 8.0  # seconds in variants that failed, after which no other is tried: the check has a limit, too


class CheckFailed(AssertionError):
    """What a rule promises did not happen; the message says what did.

    Attributes:
        messages: The message, or, of a check of several variants, that of each variant that failed.
        expected: What was expected, as it is shown, of the first variant; "" where the message alone says it.
        actual: What came instead.
        difference: Where the two differ, if they are too long to see it.
        moment: When it was found, by `time.perf_counter`.
    """

    def __init__(self, message: str, *more: str, expected: str = "", actual: str = "", difference: str = "") -> None:
        super().__init__("; ".join((message, *more)))
        self.messages = (message, *more)
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


class _Enough(Exception):
    """No further variant is to be tried."""


class Variants:
    """The variants of a check, of which one that fails hides no other; made by `variants`."""

    def __init__(self) -> None:
        self._failed: list[Exception] = []
        self._messages: list[str] = []
        self._spent = 0.0

    @contextlib.contextmanager
    def __call__(self, what: str = "") -> Generator[None]:
        """Run one variant, and go on after it whether it fails or not.

        Args:
            what: Stands in front of its failure, if that does not tell by itself which variant it is.

        Where those that failed have taken too long the rest is not tried.
        """
        began = time.monotonic()
        try:
            yield
        except Exception as exc:
            self.note(exc, what)
            self._spent += time.monotonic() - began
            if self._spent > _PATIENCE:
                self._messages.append("what would have followed was not tried")
                raise _Enough from exc

    def note(self, failure: Exception, what: str = "") -> None:
        """Take a failure, to tell it at the end."""
        self._failed.append(failure)
        text = str(failure) if isinstance(failure, CheckFailed) else f"{type(failure).__name__}: {failure}"
        self._messages.append(f"{what}: {text}" if what else text)

    def tell(self) -> None:
        """Fail the check with what all variants failed by; nothing happens if none did.

        Raises:
            CheckFailed: One or more failed; what they raised is its cause.
        """
        if not self._failed:
            return
        failed, messages = self._failed, self._messages
        self._failed, self._messages = [], []
        cause = failed[0] if len(failed) == 1 else ExceptionGroup("the variants that failed", failed)
        first = failed[0]
        told = {name: str(getattr(first, name, "")) for name in ("expected", "actual", "difference")}
        failure = CheckFailed(*messages, **told)
        failure.moment = getattr(first, "moment", failure.moment)
        raise failure from cause


@contextlib.contextmanager
def variants() -> Generator[Variants]:
    """Run the variants of a check, and fail at the end with what each of them failed by.

    ``with variants() as variant: ...``, and in it ``with variant(): ...`` around each of them. What is raised beside
    them is told with them.
    """
    made = Variants()
    try:
        yield made
    except _Enough:
        pass
    except Exception as exc:
        made.note(exc)
    made.tell()


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
