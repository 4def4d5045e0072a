"""Shows mutants to the checks that reach them, until one fails."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.mutants.mutation import Mutant
from tools.mutants.reach import Reach, Uses
from tools.mutants.workers import Copy, SilentError

__all__ = ["Found", "Killer", "Store", "source_hash"]

_START = 0.1  # seconds that a check costs besides


@dataclass(slots=True)
class Found:
    """What is known of a mutant.

    Attributes:
        key: The mutant's.
        check: What killed it: a check, or ``import``; "" for a survivor.
        target: On which connector.
        message: What was wrong.
        tried: The checks that passed, by target, each with what its code is recognised by.
        short: Whether checks were left out for want of time.
    """

    key: str
    check: str = ""
    target: str = ""
    message: str = ""
    tried: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    short: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether any check has run it."""
        return bool(self.check) or any(self.tried.values())


class Store:
    """Keeps what is found, in a file with a line for each finding; the last of a mutant counts.

    Args:
        path: The file; it is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._found: dict[str, Found] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                found = Found(**json.loads(line))
                self._found[found.key] = found

    def get(self, mutant: Mutant) -> Found | None:
        """Return what is known of a mutant."""
        return self._found.get(mutant.key)

    def put(self, found: Found) -> None:
        """Keep a finding."""
        with self._lock:
            self._found[found.key] = found
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found), separators=(",", ":")) + "\n")


class Killer:
    """Finds out what kills mutants.

    Args:
        sources: The text of each module, by its path.
        reaches: What the checks of each target reach.
        store: What is found, and was found before.
        patience: Seconds of checks, as they run without a mutant, that a mutant is shown to.
    """

    def __init__(
        self, sources: Mapping[str, str], reaches: Sequence[Reach], store: Store, *, patience: float = float("inf")
    ) -> None:
        self._sources = sources
        self._reaches = reaches
        self._store = store
        self._patience = patience
        self._uses = Uses(sources)
        self._lock = threading.Lock()
        self._kills: Counter[tuple[str, str]] = Counter()  # by function and check: what kills one often kills the next
        self._unsure: set[tuple[str, str]] = set()  # targets and checks that failed where they need not

    def judge(self, copy: Copy, mutant: Mutant) -> Found:
        """Return what is known of a mutant, once the checks that reach it have run."""
        known = self._store.get(mutant)
        if known is not None and known.check and self._is_current(known):
            return known
        found = Found(mutant.key)
        left, met = self._patience, set[str]()
        for reach, checks in self._candidates(mutant):
            tried = known.tried.get(reach.target, {}) if known is not None else {}
            still = {id: code for id, code in tried.items() if id in reach.checks and reach.checks[id].code == code}
            found.tried[reach.target] = still
            new = sorted((id for id in checks if id not in still), key=met.__contains__)  # what is new comes first
            shown = _within(new, reach, left)
            found.short |= len(shown) < len(new)
            left -= sum(reach.checks[id].seconds for id in shown)
            met.update(checks)
            if self._meets(copy, mutant, reach, shown, found):
                break
        self._store.put(found)
        return found

    def is_reached(self, mutant: Mutant) -> bool:
        """Tell whether any check runs what a mutant changes."""
        return bool(self._candidates(mutant))

    def _is_current(self, found: Found) -> bool:
        """Tell whether what killed a mutant is still there."""
        return found.check == "import" or any(
            reach.target == found.target and found.check in reach.checks for reach in self._reaches
        )

    def _candidates(self, mutant: Mutant) -> list[tuple[Reach, list[str]]]:
        """Return the checks that a mutant is shown to, first those that cost least and promise most."""
        lines = self._uses.lines(mutant)
        found: list[tuple[Reach, list[str]]] = []
        for reach in self._reaches:
            checks = reach.reaching(lines)
            if not checks and mutant.names is not None:  # nothing names it, as with what runs at the import alone
                checks = reach.reaching(reach.lines_of(mutant.file))
            if checks:
                promise = reach.promise(lines | {(mutant.file, line) for line in _around(mutant)})
                likeness = reach.likeness(f"{mutant.function} {mutant.line} {mutant.change}")
                found.append((reach, self._ordered(mutant, reach, checks, promise, likeness)))
        return sorted(found, key=lambda pair: sum(pair[0].checks[id].seconds for id in pair[1]))

    def _ordered(
        self,
        mutant: Mutant,
        reach: Reach,
        checks: set[str],
        promise: Mapping[str, float],
        likeness: Mapping[str, float],
    ) -> list[str]:
        """Return checks in the order in which a mutant is shown to them.

        First those that have killed others in the same function. Then, in turn, those that promise most for their time
        by what they run and by what they say: many lines are run by nearly all checks, but one that runs what few run
        near by is likely to be about that, and so is one that has the words of the line.
        """
        with self._lock:
            kills = {id: self._kills[f"{mutant.file} {mutant.function}", id] for id in checks}
        first = sorted((id for id in checks if kills[id]), key=lambda id: -kills[id])
        by_runs = sorted(checks, key=lambda id: -promise.get(id, 0.0) / (reach.checks[id].seconds + _START))
        by_words = sorted(checks, key=lambda id: -likeness.get(id, 0.0) / (reach.checks[id].seconds + _START))
        in_turn = [id for pair in zip(by_runs, by_words, strict=True) for id in pair]
        return list(dict.fromkeys([*first, *in_turn]))

    def _meets(self, copy: Copy, mutant: Mutant, reach: Reach, checks: list[str], found: Found) -> bool:
        """Show a mutant to checks; tell whether one has killed it."""
        text = mutant.applied_to(self._sources[mutant.file])
        while checks:
            with copy.changed(mutant.file, text):
                killer, message = self._first_failure(copy, reach, checks, found)
                sure = killer in ("", "import") or self._fails_again(copy, reach, killer)
            if not killer:
                return False
            if sure and (not self._is_doubtful(reach, killer) or self._passes(copy, reach, killer)):
                self._note(mutant, reach, killer, message, found)
                return True
            with self._lock:
                self._unsure.add((reach.target, killer))
            found.tried[reach.target][killer] = reach.checks[killer].code
            checks = checks[checks.index(killer) + 1 :]
        return False

    def _first_failure(self, copy: Copy, reach: Reach, checks: Sequence[str], found: Found) -> tuple[str, str]:
        """Return the first check that fails and its message, or two empty texts."""
        last = "import"
        try:
            for ran in copy.run(reach.target, [(id, reach.checks[id].scale) for id in checks]):
                if ran.verdict == "fail":
                    return ran.check, ran.message
                found.tried[reach.target][ran.check] = reach.checks[ran.check].code
                last = ran.check
        except SilentError as exc:
            return exc.check or last, str(exc)
        return "", ""

    def _is_doubtful(self, reach: Reach, check: str) -> bool:
        if check == "import":
            return False
        return reach.checks[check].stochastic or (reach.target, check) in self._unsure

    def _fails_again(self, copy: Copy, reach: Reach, check: str) -> bool:
        return not self._is_doubtful(reach, check) or not self._passes(copy, reach, check)

    def _passes(self, copy: Copy, reach: Reach, check: str) -> bool:
        """Run one check on the source as it is now."""
        try:
            ran = [one.verdict for one in copy.run(reach.target, [(check, reach.checks[check].scale)])]
        except SilentError:
            return False
        return ran not in ([], ["fail"])

    def _note(self, mutant: Mutant, reach: Reach, killer: str, message: str, found: Found) -> None:
        found.check, found.target, found.message = killer, reach.target, message
        found.tried, found.short = {}, False
        with self._lock:
            self._kills[f"{mutant.file} {mutant.function}", killer] += 1


def _around(mutant: Mutant) -> range:
    """Return the lines of a mutant's file that what it changes may lead to."""
    return range(0) if mutant.names is not None else range(mutant.lines[0] - 5, mutant.lines[-1] + 15)


def _within(checks: list[str], reach: Reach, seconds: float) -> list[str]:
    """Return as many checks as take so long together."""
    kept: list[str] = []
    for id in checks:
        seconds -= reach.checks[id].seconds
        if seconds < 0:
            break
        kept.append(id)
    return kept


def source_hash(sources: Mapping[str, str]) -> str:
    """Return what a set of modules is recognised by."""
    total = hashlib.sha256()
    for file in sorted(sources):
        total.update(f"{file}\0{sources[file]}\0".encode())
    return total.hexdigest()[:12]
