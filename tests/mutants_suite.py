"""A suite of three checks for `tests.test_mutants`, of a package `tiny` that is made there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["Suite"]

tiny: Any = importlib.import_module("tiny")


def _is_large() -> bool:
    return [tiny.is_large(n) for n in (10, 11)] == [False, True]


def _at_least_nothing() -> bool:
    return [tiny.at_least_nothing(n) for n in (-1, 0, 1)] == [0, 0, 1]


def _fails() -> bool:
    return False


def _counts_down() -> bool:
    return [tiny.counted_down(3)] == [0]


class Suite:
    """The checks; what the constructor gets is the name of one more, which fails without a mutant."""

    source = Path(tiny.__file__).parent
    omitted = ()

    def __init__(self, target: str) -> None:
        self._checks = {
            "is-large": _is_large,
            "at-least-nothing": _at_least_nothing,
            "counts-down": _counts_down,
            target: _fails,
        }

    def checks(self) -> dict[str, tuple[str, bool, str]]:
        return {id: ("1", id == "is-large", id) for id in self._checks}

    def limit(self, id: str, scale: float) -> float:
        return scale

    def run(self, id: str, scale: float) -> tuple[str, str]:
        return ("pass", "") if self._checks[id]() else ("fail", f"{id} does not hold")
