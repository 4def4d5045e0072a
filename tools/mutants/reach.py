"""Which lines of the source each check runs, so that a mutant meets the checks that can tell it from the original.

Each check runs once on the source as it is, with its times shortened; one that fails then runs in a process of its own
with the suite's times, and one that fails again is left out: what it said of a mutant would mean nothing.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.mutants.mutation import Mutant
from tools.mutants.workers import Copy, Ran, SilentError

__all__ = ["SCALE", "Reach", "Reached", "Uses", "record"]

SCALE = 0.2
"""Of the suite's times: what a mutant breaks never comes, and there is no use in waiting long for it."""

_TOGETHER = 100  # checks in one process


@dataclass(frozen=True, slots=True)
class Reached:
    """A check, as it ran without a mutant.

    Attributes:
        code: What its code is recognised by.
        stochastic: Whether one run proves less than several.
        scale: Of its times.
        seconds: How long it took.
        passed: Whether it did not fail.
        lines: The numbers of the lines that ran, by file.
    """

    code: str
    stochastic: bool
    scale: float
    seconds: float
    passed: bool
    lines: Mapping[str, Sequence[int]]


@dataclass(slots=True)
class Reach:
    """What the checks of one target reach.

    Attributes:
        target: Its name.
        checks: By their ids.
        texts: What each says, by its id.
    """

    target: str
    checks: dict[str, Reached] = field(default_factory=dict[str, Reached])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    _by_line: dict[tuple[str, int], list[str]] = field(default_factory=dict[tuple[str, int], list[str]])
    _by_word: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def index(self) -> None:
        """Make `reaching` and `likeness` quick, when all checks are there."""
        self._by_line.clear()
        self._by_word.clear()
        for id, text in self.texts.items():
            for word in words_of(text):
                self._by_word.setdefault(word, []).append(id)
        for id, check in self.checks.items():
            for file, lines in check.lines.items() if check.passed else ():
                for line in lines:
                    self._by_line.setdefault((file, line), []).append(id)

    def reaching(self, lines: Iterable[tuple[str, int]]) -> set[str]:
        """Return the checks that run any of these lines, each a file and a number."""
        return {id for line in lines for id in self._by_line.get(line, ())}

    def promise(self, lines: Iterable[tuple[str, int]]) -> dict[str, float]:
        """Return for each check how much of these lines it runs that few others run: it is likely to be about them."""
        promise: dict[str, float] = {}
        for line in lines:
            ids = self._by_line.get(line, ())
            for id in ids:
                promise[id] = promise.get(id, 0.0) + 1 / len(ids)
        return promise

    def likeness(self, text: str) -> dict[str, float]:
        """Return for each check how many of the words of ``text`` it has that few others have."""
        likeness: dict[str, float] = {}
        for word in words_of(text):
            ids = self._by_word.get(word, ())
            for id in ids:
                likeness[id] = likeness.get(id, 0.0) + 1 / len(ids)
        return likeness

    def lines_of(self, file: str) -> set[tuple[str, int]]:
        """Return the lines of a file that any check runs."""
        return {line for line in self._by_line if line[0] == file}

    @staticmethod
    def load(path: Path, target: str) -> Reach:
        """Return what was saved; without a file nothing."""
        if not path.exists():
            return Reach(target)
        data = json.loads(path.read_text(encoding="utf-8"))
        return Reach(target, {id: Reached(**entry) for id, entry in data.items()})

    def save(self, path: Path) -> None:
        """Save the checks."""
        data = {id: asdict(check) for id, check in self.checks.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
        new.replace(path)


def record(copy: Copy, path: Path, target: str, tell: Callable[[str], object]) -> Reach:
    """Return what the checks of ``target`` reach: what is saved, and the checks that are new or changed.

    Args:
        copy: The source.
        path: Where it is saved.
        target: The connector's name.
        tell: Told what is under way.

    Raises:
        SilentError: The checks cannot be listed.
    """
    reach = Reach.load(path, target)
    listed = copy.checks(target)
    reach.checks = {id: check for id, check in reach.checks.items() if id in listed and check.code == listed[id][0]}
    new = [id for id in listed if id not in reach.checks]
    for start in range(0, len(new), _TOGETHER):
        tell(f"{target}: {start} of {len(new)} checks are recorded")
        failed: list[str] = []
        for ran, scale in _recorded(copy, target, new[start : start + _TOGETHER], SCALE):
            if ran.verdict == "fail":
                failed.append(ran.check)
            reach.checks[ran.check] = _reached(ran, listed[ran.check], scale)
        for id in failed:
            for ran, scale in _recorded(copy, target, [id], 1.0):
                if ran.verdict == "fail":
                    tell(f"{target}: {id} fails without a mutant, and is left out: {ran.message}")
                reach.checks[id] = _reached(ran, listed[id], scale)
        reach.save(path)
    reach.texts = {id: text for id, (_, _, text) in listed.items()}
    reach.index()
    return reach


def _reached(ran: Ran, listed: tuple[str, bool, str], scale: float) -> Reached:
    return Reached(listed[0], listed[1], scale, ran.seconds, ran.verdict != "fail", ran.lines)


def _recorded(copy: Copy, target: str, checks: Sequence[str], scale: float) -> Iterable[tuple[Ran, float]]:
    """Yield what came of each check; the rest goes on in a new process after one that ends its process."""
    left = list(checks)
    while left:
        try:
            for ran in copy.run(target, [(id, scale) for id in left], record=True):
                left.remove(ran.check)
                yield ran, scale
            return
        except SilentError as exc:
            if exc.check not in left:
                raise
            left.remove(exc.check)
            yield Ran(exc.check, "fail", exc.seconds, str(exc), {}), scale


def words_of(text: str) -> set[str]:
    """Return the words of a text, those inside of names too, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Za-z]{3,}", text)}


class Uses:
    """The lines in functions that name something that is made at the import, and so stand for the import.

    Args:
        sources: The text of each module, by its path.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._named: dict[str, set[tuple[str, int]]] = {}
        for file, text in sources.items():
            for node in ast.walk(ast.parse(text)):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    continue
                for part in ast.walk(node):
                    match part:
                        case ast.Name(id=name) | ast.Attribute(attr=name):
                            self._named.setdefault(name, set()).add((file, part.lineno))
                        case _:
                            pass

    def lines(self, mutant: Mutant) -> set[tuple[str, int]]:
        """Return the lines whose checks a mutant is shown to: its own, or those that use what it makes."""
        if mutant.names is None:
            return {(mutant.file, line) for line in mutant.lines}
        return {line for name in mutant.names for line in self._named.get(name, ())}
