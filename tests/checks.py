"""Checks that tests make, to run them by the conformance suite's own runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.bench import Bench

__all__ = ["made"]


def made(
    function: Callable[[Bench], Awaitable[None]], *, limit: float = 5, needs: tuple[Any, ...] = (), **options: Any
) -> Check:
    """Return a check of a test, which is of no rule but RECV-1 by name."""
    return Check(
        id="RECV-1/made",
        rule="RECV-1",
        scenario="made",
        title="A check of this test.",
        run=function,
        needs=frozenset(needs),
        black_box=False,
        stochastic=options.get("stochastic", False),
        wire=options.get("wire", False),
        limit=limit,
    )
