"""Which conditions are played together: every pair of values once in a group of rules, not the product of all."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from wsbridge.conformance.harness.conditions import AXES, Conditions, conflict

__all__ = ["COMBINE", "Combine", "Place", "Values", "allowed", "family", "plan", "singles"]

Combine: TypeAlias = Literal["plain", "pairs", "all"]
COMBINE: tuple[Combine, ...] = get_args(Combine)

_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "the handshake": ("HS", "OPEN", "CTX", "MOUNT"),
        "messages": ("RECV", "FRAME", "CODEC", "STREAM"),
        "sending": ("SEND", "FLOW", "CONN"),
        "the end": ("CLOSE", "ERR", "LIM"),
    }
)
_SERVER = "the server"

Pair: TypeAlias = tuple[tuple[str, str], tuple[str, str]]
"""Two values of two axes, in the order of `AXES`."""

Place: TypeAlias = tuple[str, Conditions]
"""The id of a check, and what it is played under."""

_TRIES = 12  # checks that are looked at for each place; the one that covers most is taken

_ORDER = {name: number for number, name in enumerate(AXES)}


def family(rule: str) -> str:
    """Return the family of rules within which each pair of conditions is played once."""
    group = rule.rpartition("-")[0]
    return next((name for name, groups in _FAMILIES.items() if group in groups), _SERVER)


def _pairs(row: Mapping[str, str]) -> set[Pair]:
    """Return the pairs of values that hold together in a row."""
    return {(one, other) for one, other in combinations(sorted(row.items(), key=lambda item: _ORDER[item[0]]), 2)}


Values: TypeAlias = Mapping[str, Sequence[str]]
"""Values of axes, by their names; the plain one of each first."""


def _all_pairs(values: Values) -> set[Pair]:
    """Return the pairs that a check can be put under; an axis that it sets itself has no part in them."""
    return {
        ((one, value), (other, other_value))
        for one, other in combinations([axis for axis in AXES if axis in values], 2)
        for value in values[one]
        for other_value in values[other]
        if not conflict(one, value, other, other_value)
    }


def _plain(axes: Iterable[str]) -> dict[str, str]:
    return {axis: AXES[axis].plain for axis in axes}


def allowed(open_to: Values, possible: Values) -> dict[str, tuple[str, ...]]:
    """Return the values that a check can be put under on a target, the plain one of each axis first.

    Args:
        open_to: What the check leaves open; see `CheckResult.open_to`.
        possible: What the target can have.
    """
    found = {
        axis: (AXES[axis].plain, *(value for value in values if value in possible[axis]))
        for axis, values in open_to.items()
    }
    return {axis: values for axis, values in found.items() if values[1:]}


def plan(checks: Mapping[str, Values], chance: random.Random) -> list[Place]:
    """Return where each pair of values is played, for one group of rules.

    Every pair of values that any of the checks can be put under holds in at least one place, but those that hold in
    each check as it stands. The places are few rather than fewest: each is the best of some that are tried.

    Args:
        checks: What each check can be put under, by its id; see `allowed`.
        chance: Decides between what is equally good, and so which check meets which conditions.
    """
    possible = {check: _all_pairs(values) for check, values in checks.items()}
    left = {pair for pairs in possible.values() for pair in pairs}
    for values in checks.values():
        left -= _pairs(_plain(values))
    uses = dict.fromkeys(checks, 0)
    places: list[Place] = []
    while left:
        open_checks = [check for check in checks if possible[check] & left]
        tried = sorted(open_checks, key=lambda check: (uses[check], chance.random()))[:_TRIES]
        best = max(
            ((check, _row(checks[check], possible[check] & left, chance)) for check in tried),
            key=lambda entry: len(_pairs(entry[1]) & left),
        )
        check, row = best
        left -= _pairs(row)
        uses[check] += 1
        places.append((check, Conditions(**row)))
    return places


def _row(values: Values, wanted: set[Pair], chance: random.Random) -> dict[str, str]:
    """Return a value for each axis, so that many of the ``wanted`` pairs hold: one of them for certain."""
    row = dict(chance.choice(sorted(wanted)))
    rest = [axis for axis in AXES if axis in values and axis not in row]
    chance.shuffle(rest)
    for axis in rest:
        fitting = [
            value
            for value in values[axis]
            if not any(conflict(axis, value, other, taken) for other, taken in row.items())
        ]
        chance.shuffle(fitting)
        row[axis] = max(fitting, key=lambda value: len(_pairs({**row, axis: value}) & wanted))
    return row


def singles(checks: Mapping[str, Values]) -> list[Place]:
    """Return every check under every single condition that it can be put under, all else as it stands."""
    return [
        (check, Conditions(**{axis: value}))
        for check, values in checks.items()
        for axis in AXES
        for value in values.get(axis, ())[1:]
    ]
