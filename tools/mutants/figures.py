"""Counts mutants, and makes the table and the page ``docs/mutants.md``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wsbridge.conformance.contract.definition import markdown_table

__all__ = ["BARS", "GROUPS", "Count", "counted", "figure", "group_of", "page", "table", "total", "wilson"]

GROUPS: Mapping[str, str] = {"connectors": "The connectors", "core": "The core"}
BARS: Mapping[str, int] = {"connectors": 95, "core": 98}
"""Per cent of the mutants that are not equivalent, which the suite is to kill."""

_Z = 1.959964  # 95 % of a normal distribution lie within so many deviations


@dataclass(slots=True)
class Count:
    """How many mutants there are of what kind.

    Attributes:
        mutants: All that were looked at.
        killed: By a check.
        survived: No check failed, though some ran the line.
        unreached: No check runs the line.
        equivalent: Listed in ``equivalent.toml``.
        library: In code that keeps rules of the kind *library* alone.
        short: Of those that survived: not all checks were run, for want of time.
    """

    mutants: int = 0
    killed: int = 0
    survived: int = 0
    unreached: int = 0
    equivalent: int = 0
    library: int = 0
    short: int = 0

    def add(self, state: str, *, short: bool = False) -> None:
        """Count one, by the name of its attribute."""
        self.mutants += 1
        setattr(self, state, getattr(self, state) + 1)
        self.short += short

    @property
    def judged(self) -> int:
        """Those that the suite is to kill."""
        return self.killed + self.survived + self.unreached


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the Wilson interval of a share, for 95 % confidence; (0, 1) for no trials."""
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    middle = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def group_of(file: str) -> str:
    """Return whose figure a file counts in."""
    return "connectors" if file.startswith("connectors/") else "core"


def counted(found: Iterable[tuple[str, str, bool]]) -> dict[str, Count]:
    """Return the counts by file, in the order of the files.

    Args:
        found: For each mutant its file, the name of an attribute of `Count`, and whether checks were left out.
    """
    counts: dict[str, Count] = {}
    for file, state, short in sorted(found):
        counts.setdefault(file, Count()).add(state, short=short)
    return counts


def total(counts: Mapping[str, Count], group: str) -> Count:
    """Return the sum of the files of a group."""
    files = [count for file, count in counts.items() if group_of(file) == group]
    return Count(*(sum(getattr(count, name) for count in files) for name in Count.__slots__))


def _percent(count: Count) -> str:
    return f"{100 * count.killed / count.judged:.1f} %" if count.judged else ""


def figure(count: Count, group: str, *, whole: bool) -> str:
    """Return the figure of a group in one sentence."""
    if not count.judged:
        return f"{GROUPS[group]}: no mutants."
    low, high = wilson(count.killed, count.judged)
    between = "" if whole else f", between {100 * low:.1f} and {100 * high:.1f} % with 95 % confidence"
    left = f" For {count.short} that survived not all checks were run." if count.short else ""
    return (
        f"{GROUPS[group]}: {count.killed} of {count.judged} mutants are killed, {_percent(count)}{between}; the bar is "
        f"{BARS[group]} %.{left}"
    )


def table(counts: Mapping[str, Count]) -> str:
    """Return the counts by file in Markdown, with a sum for each group."""
    columns = ("file", "mutants", "killed", "survived", "not reached", "equivalent", "library", "of those to kill")
    rows: list[Sequence[str]] = []
    for group, title in GROUPS.items():
        files = [(file, count) for file, count in counts.items() if group_of(file) == group]
        rows += [_row(f"`{file}`", count) for file, count in files]
        if files:
            rows.append(_row(f"**{title}**", total(counts, group)))
    return markdown_table(columns, rows)


def _row(name: str, count: Count) -> tuple[str, ...]:
    numbers = (count.mutants, count.killed, count.survived, count.unreached, count.equivalent, count.library)
    return (name, *(str(number) for number in numbers), _percent(count))


_PAGE = """
# What the conformance suite catches

Faults are put into wsbridge's own source, one at a time, and [the suite](conformance.md) runs on what comes of it. Each
is a *mutant*: a copy in which a `<` has become `<=`, a condition is always true, a call is gone. A check that fails has
*killed* it. One that *survived* shows a promise that no check is about, or code that no promise needs.

{figures}

{date}, {versions}; {sample}

## How to read it

- *Not reached*: no check runs the line on any connector. These count as survivors.
- *Equivalent*: the fault changes nothing that [the contract](spec.md) promises. Each such mutant is listed with the
  reason in [`equivalent.toml`](../tools/mutants/equivalent.toml), and is left out of the per cents.
- *Library*: in functions that keep rules of the kind *library* alone, which the project's own tests are about and the
  suite is not. They are listed there too, and left out of the per cents.
- *Survived* is not *wrong*: the unit tests of the project, which are not asked here, may well kill it.
- A sample whose survivors were looked at while checks were written flatters the suite. Checks were written by the
  survivors of seed 1; another seed says more.
- A check that hangs, or a process that dies, is a kill. A check that is about concurrency or memory has to fail twice
  with the mutant, and to pass once more without it.
- Left out altogether, as not about a connector: the registry, `run` and `wsbridge serve` with their signals, and
  `wsbridge.testing`; the rules of these are of the kind *library*. So are texts, annotations and assertions.

`tox run -e mutants` takes a sample of both groups, `tox run -e mutants -- --all` every mutant, for a night; what is
found is kept in `.mutants/`, so that a run goes on where another ended. `--file 'connectors/aiohttp.py'` takes one
file, `--survivors` lists what is left of what is known, `--all --unreached` the lines that no check runs, which takes
no more than to run the suite once, and `--write` writes this page.

## By file

{table}
"""


def page(counts: Mapping[str, Count], *, date: str, versions: str, sample: str, whole: bool) -> str:
    """Return the page in Markdown.

    Args:
        counts: By file.
        date: Of the run.
        versions: What it ran on.
        sample: How the mutants were chosen.
        whole: Whether they are all that there are.
    """
    figures = "\n".join(f"- {figure(total(counts, group), group, whole=whole)}" for group in GROUPS)
    return _PAGE.lstrip().format(figures=figures, date=date, versions=versions, sample=sample, table=table(counts))
