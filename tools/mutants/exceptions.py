"""Mutants that the suite need not kill, from ``equivalent.toml``.

An ``[[equivalent]]`` is one mutant: ``file``, ``function``, ``line``, the first line of its statement, and ``change``,
as the tool prints them, and ``why`` nothing that is promised depends on it.

A ``[[library]]`` is a function or a class, ``file`` and ``function``, that keeps *library* rules of the contract alone:
those are checked by the project's own tests, and by no check of the suite. ``why`` names them. With ``lines`` it is
those statements of the function alone, each by its first line; without a name, ``""``, it is the whole file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutants.mutation import Mutant

__all__ = ["Exceptions", "StaleError"]

_KEYS = {"equivalent": {"file", "function", "line", "change", "why"}, "library": {"file", "function", "why"}}
_MAY = {"equivalent": set[str](), "library": {"lines"}}


class StaleError(ValueError):
    """An entry matches no mutant, is not complete, or is there twice."""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What is left out.

    Attributes:
        equivalent: Entries for one change, by file, function, line and change.
        library: Reasons by file and function, and by line for what is not the whole function.
    """

    equivalent: Mapping[tuple[str, str, str, str], str]
    library: Mapping[tuple[str, ...], str]

    @staticmethod
    def load(path: Path) -> Exceptions:
        """Read a file.

        Raises:
            StaleError: An entry is not complete, or is there twice.
            OSError: It cannot be read.
        """
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := data.keys() - _KEYS.keys():
            raise StaleError(f"{path}: there is no kind of exception {', '.join(sorted(unknown))}")
        equivalent: dict[tuple[str, str, str, str], str] = {}
        library: dict[tuple[str, ...], str] = {}
        for entry in _entries(path, data, "equivalent"):
            mutant = entry["file"], entry["function"], entry["line"], entry["change"]
            if mutant in equivalent:
                raise StaleError(f"{path} has {mutant} twice")
            equivalent[mutant] = entry["why"]
        for entry in _entries(path, data, "library"):
            place = entry["file"], entry["function"]
            for part in [(*place, line) for line in entry["lines"]] if "lines" in entry else [place]:
                if part in library:
                    raise StaleError(f"{path} has {part} twice")
                library[part] = entry["why"]
        return Exceptions(equivalent, library)

    def of(self, mutant: Mutant) -> str:
        """Return ``equivalent`` or ``library``; "" for a mutant that the suite is to kill."""
        if (mutant.file, mutant.function, mutant.line, mutant.change) in self.equivalent:
            return "equivalent"
        return "library" if self.library.keys() & _places(mutant) else ""

    def check(self, mutants: Iterable[Mutant]) -> None:
        """Make sure that each entry matches one of the mutants.

        Raises:
            StaleError: One does not.
        """
        changes: set[tuple[str, ...]] = set()
        for mutant in mutants:
            changes.add((mutant.file, mutant.function, mutant.line, mutant.change))
            changes |= _places(mutant)
        stale = [" | ".join(entry) for entry in (*self.equivalent, *self.library) if entry not in changes]
        if stale:
            raise StaleError("no mutant is " + "; ".join(stale))


def _places(mutant: Mutant) -> set[tuple[str, ...]]:
    """Return how a mutant's line and what encloses it are named in the file."""
    parts = mutant.function.split(".")
    enclosing = {(mutant.file, ".".join(parts[:length])) for length in range(len(parts) + 1)}
    return {*enclosing, (mutant.file, mutant.function, mutant.line)}


def _entries(path: Path, data: Mapping[str, Any], kind: str) -> Sequence[Mapping[str, Any]]:
    entries: list[Mapping[str, Any]] = data.get(kind, [])
    for entry in entries:
        if entry.keys() - _MAY[kind] != _KEYS[kind] or not entry["why"].strip():
            raise StaleError(f"{path}: an entry of {kind} has {', '.join(sorted(_KEYS[kind]))}, not {dict(entry)}")
    return entries
