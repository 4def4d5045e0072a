"""Reports of results: one HTML page, JUnit XML, Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from wsbridge.conformance.client.log import LogEntry, hex_lines
from wsbridge.conformance.contract.catalogue import GROUPS
from wsbridge.conformance.contract.definition import markdown_table
from wsbridge.conformance.harness.failures import bytes_of, explained, failure_text
from wsbridge.conformance.harness.records import FAILED_HERE
from wsbridge.conformance.harness.selection import current_rules, current_titles
from wsbridge.conformance.harness.suite_result import RuleInfo, SuiteResult
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = [
    "SYMBOLS",
    "Cell",
    "Matrix",
    "html",
    "junit",
    "markdown",
    "matrix",
    "summary",
]

SYMBOLS: Mapping[str, str] = MappingProxyType(
    {
        "pass": "✔",
        "fail": "✘",
        "known": "⚠",
        "deviation": "≈",
        "unsupported": "⊘",
        "not-applicable": "○",
        "unchecked": "·",
    }
)
"""What stands for each state of a rule or a check."""

LEGEND: Mapping[str, str] = MappingProxyType(
    {
        "pass": "holds",
        "fail": "fails",
        "known": "is known to fail",
        "deviation": "deviates in a part, as is declared; the declared behaviour was checked",
        "unsupported": "needs a feature that is not there; its refusal was checked",
        "not-applicable": "is not applicable under the conditions of the run, and was not run",
        "unchecked": "was not checked, as it cannot be seen from outside, or was left out",
    }
)

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "pass": "pass",
        "fail": "fail",
        "known": "known to fail",
        "deviation": "deviation",
        "unsupported": "unsupported",
        "not-applicable": "not applicable",
        "unchecked": "not checked",
    }
)


# ---- the matrix -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """One rule of one target.

    Attributes:
        state: A key of `SYMBOLS`.
        results: The results of its checks.
    """

    state: str
    results: tuple[CheckResult, ...]

    @property
    def symbol(self) -> str:
        """What stands for the state."""
        return SYMBOLS[self.state]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rules by targets.

    Attributes:
        targets: The results of each target.
        groups: The title of each group of rules, with each rule and its cells, one for each target.
        library: The rules about wsbridge itself.
        titles: What each check promises, by its id.
    """

    targets: tuple[SuiteResult, ...]
    groups: tuple[tuple[str, tuple[tuple[RuleInfo, tuple[Cell, ...]], ...]], ...]
    library: tuple[RuleInfo, ...]
    titles: Mapping[str, str]


def state_of(result: CheckResult, target: SuiteResult) -> str:
    """Return the state of one check: its verdict, or ``known``."""
    if result.verdict is Verdict.FAIL and target.known_as(result.check) is not None:
        return "known"
    return result.verdict.value


def _cell(rule: RuleInfo, target: SuiteResult) -> Cell:
    results = target.of_rule(rule.id)
    states = {state_of(result, target) for result in results}
    # the worst comes first; a rule holds if only a part of it is unsupported, or not applicable
    order = ("fail", "known", "deviation", "pass", "unsupported", "not-applicable")
    return Cell(next((state for state in order if state in states), "unchecked"), results)


def matrix(targets: Sequence[SuiteResult]) -> Matrix:
    """Return the rules by ``targets``; a rule that only an older or newer report knows is among them."""
    found: dict[str, RuleInfo] = {}
    titles: dict[str, str] = {}
    for target in targets:
        for rule in target.rules:
            found.setdefault(rule.id, rule)
        titles |= target.titles
    if not all(target.rules for target in targets):
        found = {rule.id: rule for rule in current_rules()} | found
        titles = current_titles() | titles
    order = list(GROUPS)
    groups = sorted(
        {rule.id.rpartition("-")[0] for rule in found.values()},
        key=lambda group: (order.index(group) if group in order else len(order), group),
    )
    rows = {
        group: tuple(
            (rule, tuple(_cell(rule, target) for target in targets))
            for rule in found.values()
            if rule.id.rpartition("-")[0] == group and rule.kind == "connector"
        )
        for group in groups
    }
    return Matrix(
        tuple(targets),
        tuple((f"{group}: {GROUPS.get(group, group)}", rows[group]) for group in groups if rows[group]),
        tuple(rule for rule in found.values() if rule.kind == "library"),
        titles,
    )


# ---- text -----------------------------------------------------------------------------------------------------------


def verdict_line(target: SuiteResult) -> str:
    """Return the outcome for a target in one line."""
    counts = target.counts
    words = [f"{counts['pass']} passed"]
    unexpected = counts["fail"] - counts["known"]
    words += [f"{unexpected} failed"] if unexpected else []
    words += [f"{counts['known']} known to fail"] if counts["known"] else []
    words += [f"{counts['deviation']} declared to deviate"] if counts["deviation"] else []
    words += [f"{counts['unsupported']} unsupported and refused"] if counts["unsupported"] else []
    words += [f"{counts['not-applicable']} not applicable"] if counts["not-applicable"] else []
    words += [f"{len(target.problems)} problems"] if target.problems else []
    conformant = "conformant" if target.conformant else "not conformant"
    if target.conformant and counts["known"]:
        conformant += " but for what is known"
    return f"{conformant}: {', '.join(words)}"


def packages_line(target: SuiteResult) -> str:
    """Return the versions of what was checked, and the conditions, if any."""
    found = [f"{name} {version}" for name, version in target.target.packages.items()]
    if target.target.kind == "url" and target.target.location:
        found.insert(0, f"Server: {target.target.location}")
    under = f" under {target.conditions}" if str(target.conditions) else ""
    return ", ".join(found) + under


# ---- Markdown -------------------------------------------------------------------------------------------------------


def markdown(targets: Sequence[SuiteResult], *, spec: str = "") -> str:
    """Return a report as Markdown: the outcomes, the matrix, what failed or deviates, and what was run again.

    Args:
        targets: The results.
        spec: Where the contract is, to link the rules to.
    """
    made = matrix(targets)
    has_left_out = any(target.counts["not-applicable"] for target in targets)
    parts = [summary(targets), legend_line(SYMBOLS if has_left_out else [s for s in SYMBOLS if s != "not-applicable"])]
    names = [target.target.name for target in targets]
    for title, rows in made.groups:
        table = markdown_table(
            ("rule", "what is promised", *names),
            [(_linked(rule.id, spec), _escaped(rule.sentence), *map(_shown, cells)) for rule, cells in rows],
        )
        parts += [f"### {title}", table]
    for heading, section in (
        ("Failures", _failures(targets)),
        ("Known failures", _known(targets)),
        ("Deviations", _deviations(targets)),
        ("Unsupported", _of_verdict(targets, Verdict.UNSUPPORTED)),
        ("Not applicable", _of_verdict(targets, Verdict.NOT_APPLICABLE)),
        ("Run again", _run_again(targets)),
    ):
        parts += [f"### {heading}", section] if section else []
    if made.library:
        rules = ", ".join(_linked(rule.id, spec) for rule in made.library)
        parts.append(f"Rules about wsbridge itself, which its own tests hold it to: {rules}.")
    return "\n\n".join(parts) + "\n"


def legend_line(states: Iterable[str] = SYMBOLS) -> str:
    """Return what the symbols of ``states`` mean, as one line of Markdown."""
    return "; ".join(f"{SYMBOLS[state]} {LEGEND[state]}" for state in states) + "."


def summary(targets: Sequence[SuiteResult]) -> str:
    """Return the outcome for each target as a Markdown table."""
    rows: list[tuple[str, ...]] = []
    has_left_out = any(target.counts["not-applicable"] for target in targets)
    for target in targets:
        counts = target.counts
        failed = f"{counts['fail'] - counts['known']}" + (f" + {counts['known']} known" if counts["known"] else "")
        row = (
            _escaped(target.target.name),
            _escaped(packages_line(target)),
            "yes" if target.conformant else "**no**",
            str(counts["pass"]),
            failed,
            str(counts["deviation"]),
            str(counts["unsupported"]),
        )
        rows.append((*row, str(counts["not-applicable"])) if has_left_out else row)
    columns = ("checked", "versions", "conformant", "passed", "failed", "declared deviations", "unsupported")
    return markdown_table((*columns, "not applicable") if has_left_out else columns, rows)


def _shown(cell: Cell) -> str:
    if cell.state in ("pass", "unsupported", "not-applicable", "unchecked"):
        return cell.symbol
    number = sum(result.verdict.value in ("fail", "deviation") for result in cell.results)
    return f"{cell.symbol} {number}/{len(cell.results)}"


def _failures(targets: Sequence[SuiteResult]) -> str:
    lines: list[str] = []
    for target in targets:
        for result in target.failures:
            lines.append(f"- {target.target.name}: `{result.label}`: {_escaped(result.message)}")
            if target.titles:  # none in a committed report, which tells as little as it can
                facts = explained(result, target).facts
                lines += [f"  - {word}: {_fact(word, text)}" for word, text in facts if word != "promised"]
    return "\n".join(lines + [f"- {t.target.name}: {_escaped(problem)}" for t in targets for problem in t.problems])


def _fact(word: str, text: str) -> str:
    """Return a fact of a failure; what was compared is no Markdown."""
    if word not in ("expected", "got", "alone"):
        return _escaped(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {' '.join(text.split())} {fence}" if "`" in text else f"`{' '.join(text.split())}`"


def _known(targets: Sequence[SuiteResult]) -> str:
    lines: list[str] = []
    for target in targets:
        for result in target.known_failures:
            known = target.known_as(result.check)
            assert known is not None
            link = f" ({known.link})" if known.link else ""
            lines.append(f"- {target.target.name}: `{result.check}`: {_escaped(known.reason)}{link}")
    return "\n".join(lines)


def _deviations(targets: Sequence[SuiteResult]) -> str:
    return "\n".join(
        f"- {target.target.name}: `{scenario}`: {_escaped(said['outcome'])}. {_escaped(said['tried'])}"
        for target in targets
        for scenario, said in target.target.deviations.items()
    )


def _of_verdict(targets: Sequence[SuiteResult], verdict: Verdict) -> str:
    lines: list[str] = []
    for target in targets:
        checks = [f"`{r.label}`" for r in target.results if r.verdict is verdict]
        lines += [f"- {target.target.name}: {', '.join(checks)}"] if checks else []
    return "\n".join(lines)


def _run_again(targets: Sequence[SuiteResult]) -> str:
    return "\n".join(f"- {t.target.name}: `{r.check}`: {r.remark}" for t in targets for r in t.results if r.remark)


def _linked(rule: str, spec: str) -> str:
    return f"[{rule}]({spec}#{rule.lower()})" if spec and not rule.startswith("FRAME-") else rule


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# ---- JUnit ----------------------------------------------------------------------------------------------------------

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(targets: Sequence[SuiteResult]) -> str:
    """Return a report as JUnit XML: a suite for each target, a case for each check."""
    root = ElementTree.Element("testsuites", name="wsbridge conformance")
    for target in targets:
        counts = target.counts
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(f"wsbridge conformance: {target.target.name}"),
            tests=str(len(target.results) + len(target.problems)),
            failures=str(len(target.failures) + len(target.problems)),
            errors="0",
            skipped=str(counts["known"] + counts["not-applicable"]),
            time=f"{target.seconds:.3f}",
            timestamp=target.started.partition("+")[0],
        )
        for result in target.results:
            _junit_case(suite, target, result)
        for problem in target.problems:
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(target.target.name), name=_xml(problem))
            ElementTree.SubElement(case, "failure", message=_xml(problem), type="problem")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _junit_case(suite: ElementTree.Element, target: SuiteResult, result: CheckResult) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_xml(f"{target.target.name}.{result.rule}"),
        name=_xml(result.label),
        time=f"{result.seconds:.3f}",
    )
    if (state := state_of(result, target)) == "known":
        # what is expected to fail has no element of its own in JUnit; pytest reports it in this way too
        known = target.known_as(result.check)
        assert known is not None
        reason = f"known to fail: {known.reason} {known.link}".rstrip()
        ElementTree.SubElement(case, "skipped", type="known-failing", message=_xml(reason))
    elif state == "not-applicable":
        ElementTree.SubElement(case, "skipped", type=state, message=_xml(f"not applicable: {result.message}"))
    elif state == "fail":
        element = ElementTree.SubElement(case, "failure", message=_xml(result.message), type=result.cause or "promise")
        element.text = _xml(failure_text(result, target.titles.get(result.check, "")))
    elif told := [*([f"{state}: {result.message}"] if state != "pass" else []), *filter(None, [result.remark])]:
        ElementTree.SubElement(case, "system-out").text = _xml("; ".join(told))


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


# ---- HTML -----------------------------------------------------------------------------------------------------------


def html(targets: Sequence[SuiteResult]) -> str:
    """Return a report as one HTML page that needs nothing else: the matrix, and the logs of each failure."""
    environment = Environment(
        loader=PackageLoader("wsbridge.conformance"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    made = matrix(targets)
    used = {cell.state for _, rows in made.groups for _, cells in rows for cell in cells}
    used |= {state_of(result, target) for target in targets for result in target.results}
    return environment.get_template("report.html.j2").render(
        matrix=made,
        used=used,
        symbols=SYMBOLS,
        legend=LEGEND,
        names=_NAMES,
        ways={"sent": "client → server", "received": "client ← server", "note": ""},
        checks_of=_checks_of,
        state_of=state_of,
        short_name=_short_name,
        verdict_line=verdict_line,
        packages_line=packages_line,
        facts=_facts,
        failed_here=FAILED_HERE,
        hex_of=_hex_of,
    )


def _facts(result: CheckResult, target: SuiteResult) -> tuple[tuple[str, str], ...]:
    return explained(result, target).facts


def _hex_of(entry: LogEntry) -> list[str]:
    return hex_lines(entry.data) if bytes_of(entry) else []


def _short_name(target: SuiteResult) -> str:
    """Return the end of a target's name that tells it from others: the class, or the address."""
    name = target.target.name
    return name.partition("://")[2] if "://" in name else name.rpartition(":")[2]


def _checks_of(cells: Iterable[Cell]) -> list[str]:
    """Return the checks that stand in any of a rule's cells."""
    return list(dict.fromkeys(result.check for cell in cells for result in cell.results))


def _code(text: str) -> Markup:
    """Return Markdown's code in a sentence as HTML."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )
