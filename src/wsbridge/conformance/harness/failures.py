"""What is told of a failed check: the rule, what was expected and what came, the wire around it, and what causes it."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsbridge.conformance.client.log import LogEntry, hex_lines
from wsbridge.conformance.harness.records import FAILED_HERE
from wsbridge.conformance.harness.selection import current_rules, current_titles
from wsbridge.conformance.harness.suite_result import RuleInfo, SuiteResult
from wsbridge.conformance.harness.verdicts import CheckResult

__all__ = ["WAYS", "Failure", "bytes_of", "entry_lines", "excerpt", "explained", "failure_text"]

WAYS = {"sent": "-->", "received": "<--", "note": ""}
"""Marks of what went over the wire: from the suite's client to the server, and back."""

BEFORE = 12
"""Entries of the wire that are shown up to where a check failed."""

_AFTER = 3  # entries behind that, such as what the server had sent and nobody had read
_OTHERS = 3  # other connections of which the last entries are shown
_OF_OTHERS = 5  # such entries
_LINES = 30  # of a log, or of callbacks, that are shown
_WIDTH = 100  # columns of prose in a text


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed check, ready to be shown.

    Attributes:
        facts: What there is to say, with a word for what it is: the rule, what was expected, and so on.
        connection: Which connection `wire` is of; "" without one.
        wire: What went over it around the failure.
        earlier: How many entries there are before those.
    """

    facts: tuple[tuple[str, str], ...]
    connection: str
    wire: tuple[LogEntry, ...]
    earlier: int

    @property
    def heading(self) -> str:
        """What stands above the wire."""
        total = self.earlier + len(self.wire)
        return f"{self.connection}{f', the last {len(self.wire)} of {total} entries' if self.earlier else ''}"


def explained(result: CheckResult, target: SuiteResult | None = None) -> Failure:
    """Return what there is to say of a failure, and what runs it alone.

    Args:
        result: The failure.
        target: The report that it is from, whose rules and titles may be older or newer than those of this version.
    """
    rules = {} if target is None else {rule.id: rule for rule in target.rules}
    rule = rules.get(result.rule) or _current_rules().get(result.rule)
    titles = current_titles() if target is None else {**current_titles(), **target.titles}
    title = titles.get(result.check, "")
    facts = [
        ("rule", "" if rule is None else f"{rule.id} ({_source(rule)}): {rule.sentence}"),
        ("promised", title),
        ("expected", result.expected),
        ("got", result.actual),
        ("differs", result.difference),
        ("often", result.hint),
        ("alone", f"wsbridge conformance {'TARGET' if target is None else target.target.name} {result.arguments}"),
    ]
    entries, earlier = excerpt(result.wire.get(result.connection, []))
    return Failure(
        tuple((word, text) for word, text in facts if text),
        result.connection if entries else "",
        tuple(entries),
        earlier,
    )


@functools.cache
def _current_rules() -> dict[str, RuleInfo]:
    return {rule.id: rule for rule in current_rules()}


def _source(rule: RuleInfo) -> str:
    return "the contract" if rule.section == "contract" else rule.section


def excerpt(entries: Sequence[LogEntry], *, before: int = BEFORE) -> tuple[list[LogEntry], int]:
    """Return the entries around the place where a check failed, or the last, and how many come before them."""
    marks = [index for index, entry in enumerate(entries) if entry.direction == "note" and entry.text == FAILED_HERE]
    end = marks[-1] if marks else len(entries)
    start = max(0, end - before)
    return list(entries[start : end + 1 + _AFTER]), start


def bytes_of(entry: LogEntry, *, most: int = 16) -> str:
    """Return the first bytes of a frame as one line, "" for what is text anyway, such as a request.

    Args:
        entry: The entry.
        most: How many bytes at most.
    """
    if not entry.data or bytes.fromhex(entry.data).startswith((b"GET ", b"HTTP/", b"POST ", b"HEAD ")):
        return ""
    (line,) = hex_lines(entry.data[: 2 * most], width=most)
    return line if entry.size <= most else f"{line} ..."


# ---- as text --------------------------------------------------------------------------------------------------------


def failure_text(result: CheckResult, title: str = "") -> str:
    """Return all that helps to understand a failure, for pytest or a JUnit report.

    Args:
        result: The failure.
        title: What the check promises, if it is none of the suite's own.
    """
    failure = explained(result)
    facts = dict(failure.facts)
    facts = {"rule": facts.pop("rule", ""), "promised": title or facts.pop("promised", ""), **facts}
    parts = [f"{result.label}: {result.message}"]
    if result.remark:
        parts.append(result.remark)
    if any(facts.values()):
        parts.append("\n".join(_fact(word, text) for word, text in facts.items() if text))
    if failure.wire:
        lines = [line for entry in failure.wire for line in entry_lines(entry)]
        parts.append(f"wire, {failure.heading} (--> to the server, <-- from it):\n{_indented(lines)}")
    parts += _other_connections(result, failure.connection)
    for heading, found in (
        ("callback log", result.callbacks),
        ("logged on 'wsbridge'", result.logs),
        ("the process wrote", result.output.strip().splitlines()),
    ):
        if found:
            parts.append(f"{heading}:\n{_indented(_last(found))}")
    if result.details.strip():
        parts.append(result.details.strip())
    return "\n\n".join(parts)


def entry_lines(entry: LogEntry) -> list[str]:
    """Return an entry of the wire as text, with its bytes below it."""
    size = f"{entry.size} B" if entry.size else ""
    lines = [f"{entry.at:9.4f}  {WAYS[entry.direction]:<3}  {size:>9}  {entry.text}"]
    return [*lines, f"{'':27}{found}"] if (found := bytes_of(entry)) else lines


def _other_connections(result: CheckResult, shown: str) -> list[str]:
    others = [(name, entries) for name, entries in result.wire.items() if entries and name != shown]
    parts: list[str] = []
    for name, entries in others[-_OTHERS:]:
        lines = [entry_lines(entry)[0] for entry in entries[-_OF_OTHERS:]]
        parts.append(f"wire, {name}, the last of {len(entries)} entries:\n{_indented(lines)}")
    if len(others) > _OTHERS:
        parts.append(f"({len(others) - _OTHERS} more connections are in the JSON report and on the HTML page)")
    return parts


def _fact(word: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {word:<10}",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _last(lines: Sequence[str]) -> list[str]:
    left_out = len(lines) - _LINES
    return [*([f"({left_out} more before)"] if left_out > 0 else []), *lines[-_LINES:]]


def _indented(lines: Iterable[str]) -> str:
    return textwrap.indent("\n".join(lines), "  ")
