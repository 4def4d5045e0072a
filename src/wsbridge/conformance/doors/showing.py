"""What a terminal shows of failures: each explained, and how many of each rule there are."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from wsbridge.conformance.harness.failures import WAYS, Failure, bytes_of, explained
from wsbridge.conformance.harness.suite_result import SuiteResult
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = ["MOST", "show_by_rule", "show_failure"]

MOST = 10
"""Failures of a target that are explained on a terminal; the reports explain all."""

_STYLES = {"expected": "green", "got": "red", "differs": "yellow", "often": "cyan", "sent": "cyan", "received": "green"}
_INDENT = 6  # columns
_WIDE = 112  # columns from which on a line of the wire has room for 16 bytes
_HEAD_LINES = 3  # lines for a request or a response, where the check is about the handshake


def show_failure(result: CheckResult, target: SuiteResult, console: Console) -> None:
    """Print what there is to say of a failure, below the line that names it."""
    failure = explained(result, target)
    facts = Table.grid(padding=(0, 1))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column(overflow="fold")
    for word, text in failure.facts:
        facts.add_row(word, Text(text, style=_STYLES.get(word, "")))
    if failure.connection:
        facts.add_row("wire", Text(f"{failure.heading} (--> to the server, <-- from it)"))
    console.print(Padding(facts, (0, 0, 0, _INDENT)))
    if failure.wire:
        console.print(Padding(_wire(failure, result, console), (0, 0, 0, _INDENT)))
    console.print()


def _wire(failure: Failure, result: CheckResult, console: Console) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    room = console.width - _INDENT - 27
    is_of_handshake = result.rule.startswith("HS-")
    for entry in failure.wire:
        style = _STYLES.get(entry.direction, "dim")
        size = f"{entry.size} B" if entry.size else ""
        is_head = is_of_handshake and entry.direction != "note"
        text = Text(_cut(entry.text, room * (_HEAD_LINES if is_head else 1)), style=style)
        table.add_row(f"{entry.at:.4f}", Text(WAYS[entry.direction], style=style), size, text)
        if found := bytes_of(entry, most=16 if console.width >= _WIDE else 8):
            table.add_row("", "", "", Text(found, style="dim", no_wrap=True))
    return table


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(1, room - 3)]}..."


def show_by_rule(found: Sequence[SuiteResult], console: Console, *, everything: bool) -> None:
    """Print how many checks of each rule passed, failed and are not applicable.

    Args:
        found: The results; of one in which nothing failed nothing is shown, unless everything is.
        console: Where to.
        everything: Whether the rules that hold are shown too.
    """
    for target in found:
        failures = target.failures
        failed_rules = {result.rule for result in failures}
        rules = [rule for rule in target.rules if target.of_rule(rule.id) and (everything or rule.id in failed_rules)]
        if not rules:
            continue
        has_left_out = any(r.verdict is Verdict.NOT_APPLICABLE for rule in rules for r in target.of_rule(rule.id))
        table = Table(box=None, pad_edge=False)
        table.add_column("rule", no_wrap=True)
        for name in ("passed", "failed", *(("n/a",) if has_left_out else ())):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("what it promises", no_wrap=True)
        room = console.width - max(len(rule.id) for rule in rules) - (24 if has_left_out else 18)
        for rule in rules:
            results = target.of_rule(rule.id)
            failed = sum(result in failures for result in results)
            numbers = [Text(str(sum(result.verdict is Verdict.PASS for result in results)))]
            numbers.append(Text(str(failed), style="bold red" if failed else ""))
            if has_left_out:
                numbers.append(Text(str(sum(result.verdict is Verdict.NOT_APPLICABLE for result in results))))
            table.add_row(rule.id, *numbers, Text(_cut(rule.sentence, room)))
        console.print()
        console.print(f"{target.target.name}, by rule", style="bold", markup=False)
        console.print(table)
