"""What a check is, and how one is registered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from wsbridge.protocols import Feature

__all__ = ["Check", "check", "registered"]

F = TypeVar("F", bound=Callable[[Any], Awaitable[None]])
"""An async function of a `wsbridge.conformance.harness.bench.Bench`, which this module does not know."""


@dataclass(frozen=True, slots=True)
class Check:
    """One scenario of one rule.

    Attributes:
        id: ``RULE/scenario``, such as ``RECV-9/unmasked-frame``.
        rule: The rule's id.
        scenario: The name of its function, with hyphens.
        title: One sentence: what is promised in this scenario.
        run: The check, called with a `Bench`; it raises `CheckFailed`.
        needs: Features that it needs; without one of them its refusal is checked instead.
        black_box: Whether it needs nothing but the reference application, so that it runs against any server.
        stochastic: Whether one pass proves less than several (concurrency, memory).
        wire: Whether it is about bytes on a wire, or sockets; a connector that has neither refuses their options.
        limit: Seconds after which it has failed.
        tls: Whether it needs TLS; a connector that has none refuses that.
        fixed: The conditions under which it says nothing, though it does not set them: axes, or one value of one, as
            ``axis=value``.
    """

    id: str
    rule: str
    scenario: str
    title: str
    run: Callable[[Any], Awaitable[None]]
    needs: frozenset[Feature]
    black_box: bool
    stochastic: bool
    wire: bool
    limit: float
    tls: bool = False
    fixed: frozenset[str] = frozenset()


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
    fixed: Iterable[str] = (),
) -> Callable[[F], F]:
    """Register an async function as a check of ``rule``; its name is the scenario, its docstring the title."""

    def register(function: F) -> F:
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
            fixed=frozenset(fixed),
        )
        if made.id in _CHECKS:
            raise ValueError(f"two checks are named {made.id}")
        _CHECKS[made.id] = made
        return function

    return register


def registered() -> tuple[Check, ...]:
    """Return every check that a module has registered, in that order."""
    return tuple(_CHECKS.values())
