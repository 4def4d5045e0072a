"""Mutants that the suite need not kill, from ``equivalent.toml``.

An ``[[equivalent]]`` is one mutant: ``file``, ``function``, ``line``, the first line of its statement, and ``change``,
as the tool prints them, and ``why`` nothing that is promised depends on it.

A ``[[library]]`` is a function or a class, ``file`` and ``function``, that keeps *library* rules of the contract alone:
those are checked by the project's own tests, and by no check of the suite. ``why`` names them.
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


class StaleError(ValueError):
    """An entry matches no mutant, is not complete, or is there twice."""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What is left out.

    Attributes:
        equivalent: Entries for one change, by file, function, line and change.
        library: Reasons by file and function.
    """

    equivalent: Mapping[tuple[str, str, str, str], str]
    library: Mapping[tuple[str, str], str]

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
        equivalent = {
            (entry["file"], entry["function"], entry["line"], entry["change"]): entry["why"]
            for entry in _entries(path, data, "equivalent")
        }
        library = {(entry["file"], entry["function"]): entry["why"] for entry in _entries(path, data, "library")}
        if len(equivalent) < len(data.get("equivalent", ())) or len(library) < len(data.get("library", ())):
            raise StaleError(f"{path} has one entry twice")
        return Exceptions(equivalent, library)

    def of(self, mutant: Mutant) -> str:
        """Return ``equivalent`` or ``library``; "" for a mutant that the suite is to kill."""
        if (mutant.file, mutant.function, mutant.line, mutant.change) in self.equivalent:
            return "equivalent"
        parts = mutant.function.split(".")
        enclosing = [".".join(parts[:length]) for length in range(len(parts) + 1)]
        return "library" if any((mutant.file, name) in self.library for name in enclosing) else ""

    def check(self, mutants: Iterable[Mutant]) -> None:
        """Make sure that each entry matches one of the mutants.

        Raises:
            StaleError: One does not.
        """
        changes: set[tuple[str, ...]] = set()
        for mutant in mutants:
            changes.add((mutant.file, mutant.function, mutant.line, mutant.change))
            parts = mutant.function.split(".")
            changes.update((mutant.file, ".".join(parts[:length])) for length in range(len(parts) + 1))
        stale = [" | ".join(entry) for entry in (*self.equivalent, *self.library) if entry not in changes]
        if stale:
            raise StaleError("no mutant is " + "; ".join(stale))


def _entries(path: Path, data: Mapping[str, Any], kind: str) -> Sequence[Mapping[str, str]]:
    entries: list[Mapping[str, str]] = data.get(kind, [])
    for entry in entries:
        if entry.keys() != _KEYS[kind] or not entry["why"].strip():
            raise StaleError(f"{path}: an entry of {kind} has {', '.join(sorted(_KEYS[kind]))}, not {dict(entry)}")
    return entries
