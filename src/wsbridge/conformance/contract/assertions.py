"""How a check says that it failed."""

from __future__ import annotations

__all__ = ["CheckFailed", "equal", "fail", "true"]


class CheckFailed(AssertionError):
    """What a rule promises did not happen; the message says what did."""


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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters) ...{text[-60:]}"
