"""What a check is, how it is registered and how it says that it failed."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsbridge.protocols import Feature

if TYPE_CHECKING:
    from wsbridge.conformance.harness.bench import Bench

__all__ = ["Check", "CheckFailed", "all_checks", "check", "equal", "fail", "true"]


class CheckFailed(AssertionError):
    """What a rule promises did not happen; the message says what did."""


@dataclass(frozen=True, slots=True)
class Check:
    """One scenario of one rule.

    Attributes:
        id: ``RULE/scenario``, such as ``RECV-9/unmasked-frame``.
        rule: The rule's id.
        scenario: The name of its function, with hyphens.
        title: One sentence: what is promised in this scenario.
        run: The check; it raises `CheckFailed`.
        needs: Features that it needs; without one of them its refusal is checked instead.
        black_box: Whether it needs nothing but the reference application, so that it runs against any server.
        stochastic: Whether one pass proves less than several (concurrency, memory).
        wire: Whether it is about bytes on a wire, or sockets; a connector that has neither refuses their options.
        limit: Seconds after which it has failed.
        tls: Whether it needs TLS; a connector that has none refuses that.
    """

    id: str
    rule: str
    scenario: str
    title: str
    run: Callable[[Bench], Awaitable[None]]
    needs: frozenset[Feature]
    black_box: bool
    stochastic: bool
    wire: bool
    limit: float
    tls: bool = False


_CHECKS: dict[str, Check] = {}


def check(
    rule: str,
    *,
    needs: Iterable[Feature] = (),
    black_box: bool = False,
    stochastic: bool = False,
    wire: bool = False,
    tls: bool = False,
    limit: float = 20,
) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[[Bench], Awaitable[None]]]:
    """Register an async function as a check of ``rule``; its name is the scenario, its docstring the title."""

    def register(function: Callable[[Bench], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
        scenario = function.__name__.strip("_").replace("_", "-")
        title = " ".join((function.__doc__ or "").split())
        if not title:
            raise ValueError(f"the check {function.__name__} of {rule} needs a docstring: its promise in one sentence")
        made = Check(
            id=f"{rule}/{scenario}",
            rule=rule,
            scenario=scenario,
            title=title,
            run=function,
            needs=frozenset(needs),
            black_box=black_box,
            stochastic=stochastic,
            wire=wire,
            tls=tls,
            limit=limit,
        )
        if made.id in _CHECKS:
            raise ValueError(f"two checks are named {made.id}")
        _CHECKS[made.id] = made
        return function

    return register


def all_checks() -> tuple[Check, ...]:
    """Return every check of the suite, in the order of its modules."""
    importlib.import_module("wsbridge.conformance.checks")  # which registers them
    return tuple(_CHECKS.values())


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
