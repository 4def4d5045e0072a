"""What a rule of the contract is."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from wsbridge.protocols import Feature

__all__ = ["NO_TABLES", "Kind", "Level", "Rule", "Table", "rule"]

Kind = Literal["connector", "library"]
Level = Literal["core", "feature", "rfc"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that belongs to a rule: the names of its columns, and its rows, in Markdown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


NO_TABLES: Mapping[str, Table] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the contract.

    Attributes:
        id: ``GROUP-N``, such as ``RECV-9``.
        kind: ``connector``, checked against every connector by the suite; ``library``, about the core alone.
        level: ``rfc``, what the RFC asks of every server; ``feature``, binding where the feature is; else ``core``.
        section: ``RFC 6455, N``, ``RFC 7692, N``, or ``contract``.
        features: What a connector may lack that the rule, or the part that says so, needs.
        sentence: The rule in one sentence.
        text: What it promises beyond the sentence, in paragraphs of Markdown.
        stochastic: Whether one pass proves less than several (concurrency, memory).
    """

    id: str
    kind: Kind
    level: Level
    section: str
    features: frozenset[Feature]
    sentence: str
    text: str = ""
    stochastic: bool = False

    @property
    def group(self) -> str:
        """The part of the id before the number."""
        return self.id.rpartition("-")[0]


def rule(
    id: str,
    *,
    sentence: str,
    text: str = "",
    kind: Kind = "connector",
    level: Level = "core",
    section: str = "contract",
    features: Iterable[Feature] = (),
    stochastic: bool = False,
) -> Rule:
    """Make a rule; ``sentence`` and ``text`` may be broken and indented as the code around them."""
    return Rule(
        id, kind, level, section, frozenset(features), " ".join(sentence.split()), inspect.cleandoc(text), stochastic
    )


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
