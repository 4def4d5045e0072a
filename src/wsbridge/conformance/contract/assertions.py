"""How a check says that it failed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

__all__ = ["CheckFailed", "Variants", "equal", "fail", "true", "variants"]

_PATIENCE = 8.0  # seconds in variants that failed, after which no other is tried: the check has a limit, too


class CheckFailed(AssertionError):
    """What a rule promises did not happen; the message says what did.

    Attributes:
        messages: The message, or, of a check of several variants, that of each variant that failed.
    """

    def __init__(self, message: str, *more: str) -> None:
        super().__init__("; ".join((message, *more)))
        self.messages = (message, *more)


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
        raise CheckFailed(f"{what}: expected {_short(expected)}, got {_short(actual)}")


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
        raise CheckFailed(*messages) from cause


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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters) ...{text[-60:]}"
