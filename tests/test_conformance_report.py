"""Reports: what they say of each verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from wsbridge.conformance import SuiteResult, Verdict
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.client import LogEntry
from wsbridge.conformance.contract.catalogue import rules
from wsbridge.conformance.contract.hints import HINTS, hint
from wsbridge.conformance.harness import report
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.known import Known
from wsbridge.conformance.harness.records import FAILED_HERE
from wsbridge.conformance.harness.suite_result import RuleInfo, compare
from wsbridge.conformance.harness.target import TargetInfo
from wsbridge.conformance.harness.verdicts import CheckResult

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parents[1]

RULES = (
    RuleInfo("HS-1", "connector", "rfc", "RFC 6455, 4.2.2", "A `valid` request | is answered.", True),
    RuleInfo("RECV-1", "connector", "core", "contract", "A text is a <str>.", True, stochastic=True),
    RuleInfo("RECV-10", "connector", "feature", "contract", "Parts.", True),
    RuleInfo("STOP-1", "connector", "core", "contract", "Starts.", False),
    RuleInfo("REG-1", "library", "core", "contract", "Listing imports nothing.", False),
)

FAILED = CheckResult(
    "RECV-1/exact",
    "RECV-1",
    Verdict.FAIL,
    0.25,
    "expected 'a', got '<b>'",
    "Traceback (most recent call last)",
    {
        "1 client of /": [
            LogEntry(0.0, "note", 0, "connected"),
            LogEntry(0.5, "sent", 7, "TEXT masked length=1 b'\x00'", "81810000000000"),
        ]
    },
    ["  0.0001  abcd  open"],
    ["ERROR boom"],
    "promise",
    output="a last word\n",
    runs=3,
    expected="'a'",
    actual="'<b>'",
    connection="1 client of /",
)

LEFT = SuiteResult(
    TargetInfo(
        "left",
        "connector",
        "left:Connector",
        ["ping"],
        {"HS-1/odd": {"outcome": "426", "tried": "no hook is there"}},
        {"wsbridge": "0.1.0", "left": "2.0"},
        "3.13.0",
        "Linux",
    ),
    (
        CheckResult("HS-1/plain", "HS-1", Verdict.PASS, 0.1),
        CheckResult("HS-1/odd", "HS-1", Verdict.DEVIATION, 0.1, "HS-1/odd: 426", deviations={"HS-1/odd": "426"}),
        FAILED,
        CheckResult("RECV-10/parts", "RECV-10", Verdict.UNSUPPORTED, 0.1, "fragments: refused"),
    ),
    RULES,
    {"HS-1/plain": "A plain request.", "RECV-1/exact": "Exactly."},
    problems=("the deviation HS-9/x is declared, but no check has seen it",),
    started="2026-01-02T03:04:05+00:00",
    seconds=1.5,
)

RIGHT = SuiteResult(
    TargetInfo("ws://127.0.0.1:1", "url", "Right/1", packages={"wsbridge": "0.1.0"}),
    (
        CheckResult("HS-1/plain", "HS-1", Verdict.PASS, 0.1),
        CheckResult("HS-1/odd", "HS-1", Verdict.FAIL, 0.1, "no 426", cause="promise"),
    ),
    tuple(rule if rule.id == "HS-1" else RuleInfo(rule.id, rule.kind, "core", "contract", "", False) for rule in RULES),
    known={"HS-1": Known("HS-1", "not yet", "https://example.org/1")},
)


def matches(schema: Mapping[str, Any], value: Any, where: str = "report") -> None:
    """Hold a value to the part of JSON Schema that report.schema.json uses."""
    known = {"$schema", "title", "description", "type", "required", "properties", "additionalProperties", "items"}
    assert set(schema) <= known | {"const", "enum"}, where
    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], where
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), where  # type: ignore[arg-type]
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), where
        for name, entry in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            assert inner is not False, f"{where}.{name}"
            matches(inner, entry, f"{where}.{name}")
    if isinstance(value, list):
        for number, entry in enumerate(value):
            matches(schema["items"], entry, f"{where}[{number}]")


SCHEMA = json.loads(resources.files("wsbridge.conformance").joinpath("report.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("result", [LEFT, RIGHT, LEFT.stable()], ids=["left", "right", "stable"])
def test_json_is_as_the_schema_says_and_comes_back(result: SuiteResult) -> None:
    data = json.loads(json.dumps(result.to_json()))
    matches(SCHEMA, data)
    assert SuiteResult.from_json(data) == result


def test_the_schema_is_strict() -> None:
    data = LEFT.to_json()
    for change in ({"schema": 2}, {"more": 1}, {"conformant": "yes"}):
        with pytest.raises(AssertionError):
            matches(SCHEMA, {**data, **change})


# ---- the matrix -----------------------------------------------------------------------------------------------------


def test_the_matrix_has_the_worst_of_each_rule() -> None:
    made = report.matrix([LEFT, RIGHT])
    states = {rule.id: [cell.state for cell in cells] for _, rows in made.groups for rule, cells in rows}
    assert states == {
        "HS-1": ["deviation", "known"],
        "RECV-1": ["fail", "unchecked"],
        "RECV-10": ["unsupported", "unchecked"],
        "STOP-1": ["unchecked", "unchecked"],
    }
    assert [rule.id for rule in made.library] == ["REG-1"]
    assert [title.partition(":")[0] for title, _ in made.groups] == ["HS", "RECV", "STOP"]


def test_a_rule_holds_if_a_part_of_it_is_unsupported() -> None:
    results = tuple(
        CheckResult(f"RECV-1/{verdict}", "RECV-1", verdict) for verdict in (Verdict.PASS, Verdict.UNSUPPORTED)
    )
    made = report.matrix([SuiteResult(LEFT.target, results, RULES)])
    assert [cells[0].state for _, rows in made.groups for rule, cells in rows if rule.id == "RECV-1"] == ["pass"]


NOT_RUN = CheckResult(
    "RECV-1/raw", "RECV-1", Verdict.NOT_APPLICABLE, message="its frames are deflated", conditions="compress=every"
)
LEFT_OUT = SuiteResult(
    RIGHT.target, (CheckResult("HS-1/plain", "HS-1", Verdict.PASS, 0.1), NOT_RUN), RULES, titles={"RECV-1/raw": "Raw."}
)


def test_what_is_not_applicable_counts_nowhere_as_a_pass() -> None:
    assert LEFT_OUT.counts["pass"] == 1
    assert LEFT_OUT.counts["not-applicable"] == 1
    assert LEFT_OUT.conformant
    assert not SuiteResult(RIGHT.target, (NOT_RUN,), RULES).conformant  # nothing was checked
    made = report.matrix([LEFT_OUT])
    assert [cells[0].state for _, rows in made.groups for rule, cells in rows if rule.id == "RECV-1"] == [
        "not-applicable"
    ]
    assert report.verdict_line(LEFT_OUT) == "conformant: 1 passed, 1 not applicable"


def test_what_is_not_applicable_is_in_every_report_with_its_conditions() -> None:
    data = json.loads(json.dumps(LEFT_OUT.to_json()))
    matches(SCHEMA, data)
    assert data["results"][1]["conditions"] == "compress=every"
    assert SuiteResult.from_json(data) == LEFT_OUT
    text = report.markdown([LEFT_OUT])
    assert "| ws://127.0.0.1:1 | Server: Right/1, wsbridge 0.1.0 | yes | 1 | 0 | 0 | 0 | 1 |" in text
    assert "### Not applicable\n\n- ws://127.0.0.1:1: `RECV-1/raw [compress=every]`" in text
    suite = ElementTree.fromstring(report.junit([LEFT_OUT]))[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    skipped = suite.find("testcase[@name='RECV-1/raw [compress=every]']/skipped")
    assert skipped is not None
    assert skipped.get("message") == "not applicable: its frames are deflated"
    shown = " ".join(_Page(report.html([LEFT_OUT])).text)
    assert "○ not applicable" in shown
    assert "○ is not applicable under the conditions" in text
    assert "○" not in report.markdown([RIGHT])
    assert "RECV-1/raw [compress=every]" in shown


def test_a_failure_that_is_no_longer_applicable_has_not_begun_to_pass() -> None:
    failed = replace(NOT_RUN, verdict=Verdict.FAIL)
    changes = compare(replace(LEFT_OUT, results=(failed,)), replace(LEFT_OUT, results=(NOT_RUN,)))
    assert changes.passing == ()
    assert changes.changed == (("RECV-1/raw", "fail", "not-applicable"),)


def test_a_stable_report_takes_rules_and_titles_from_the_catalogue() -> None:
    made = report.matrix([LEFT.stable()])
    sentences = {rule.id: rule.sentence for _, rows in made.groups for rule, _ in rows}
    assert len(sentences) > 100
    assert sentences["HS-1"]
    assert made.titles["RECV-1/texts-arrive-exactly"]


# ---- Markdown -------------------------------------------------------------------------------------------------------


def test_markdown_says_what_each_verdict_is() -> None:
    text = report.markdown([LEFT, RIGHT], spec="spec.md")
    assert "| left | wsbridge 0.1.0, left 2.0 | **no** | 1 | 1 | 1 | 1 |" in text
    assert "| ws://127.0.0.1:1 | Server: Right/1, wsbridge 0.1.0 | yes | 1 | 0 + 1 known | 0 | 0 |" in text
    assert "| [HS-1](spec.md#hs-1) | A `valid` request \\| is answered. | ≈ 1/2 | ⚠ 1/2 |" in text
    assert "| [STOP-1](spec.md#stop-1) | Starts. | · | · |" in text
    assert "- left: `RECV-1/exact`: expected 'a', got '<b>'" in text
    assert "  - expected: `'a'`\n  - got: `'<b>'`\n  - often: The text goes through" in text
    assert "- left: the deviation HS-9/x is declared, but no check has seen it" in text
    assert "- ws://127.0.0.1:1: `HS-1/odd`: not yet (https://example.org/1)" in text
    assert "- left: `HS-1/odd`: 426. no hook is there" in text
    assert "- left: `RECV-10/parts`" in text
    assert "hold it to: [REG-1](spec.md#reg-1)." in text
    assert "spec.md" not in report.markdown([LEFT])


def test_one_line_says_how_it_went() -> None:
    assert report.verdict_line(LEFT) == (
        "not conformant: 1 passed, 1 failed, 1 declared to deviate, 1 unsupported and refused, 1 problems"
    )
    assert report.verdict_line(RIGHT) == "conformant but for what is known: 1 passed, 1 known to fail"


def test_the_text_of_a_failure_has_all_that_is_known() -> None:
    head, facts, *rest = failure_text(FAILED, "Exactly.").split("\n\n")
    assert head == "RECV-1/exact: expected 'a', got '<b>'"
    words = [line.split()[0] for line in facts.splitlines() if line[2] != " "]
    assert words == ["rule", "promised", "expected", "got", "often", "alone"]
    assert facts.startswith("  rule      RECV-1 (RFC 6455, 5.6): A text message is delivered as a `str`")
    assert "\n  promised  Exactly.\n  expected  'a'\n  got       '<b>'\n" in facts
    assert all(len(line) <= 100 for line in facts.splitlines())
    assert rest == [
        "wire, 1 client of / (--> to the server, <-- from it):\n"
        "     0.0000                  connected\n"
        "     0.5000  -->        7 B  TEXT masked length=1 b'\x00'\n"
        "                             81 81 00 00 00 00 00                             .......",
        "callback log:\n    0.0001  abcd  open",
        "logged on 'wsbridge':\n  ERROR boom",
        "the process wrote:\n  a last word",
        "Traceback (most recent call last)",
    ]


def test_a_long_wire_is_shown_around_the_place_of_the_failure() -> None:
    entries = [LogEntry(n / 10, "received", 2, f"PING number {n}") for n in range(40)]
    entries.insert(30, LogEntry(2.95, "note", 0, FAILED_HERE))
    others = {f"{n} other": [LogEntry(0.0, "sent", 1, f"other {n}")] for n in range(2, 7)}
    text = failure_text(replace(FAILED, wire={"1 long": entries, **others}, connection="1 long"))
    assert "wire, 1 long, the last 16 of 34 entries" in text
    shown = [int(number) for number in re.findall(r"PING number (\d+)", text)]
    assert shown == list(range(18, 33))
    assert text.index("PING number 29\n") < text.index(FAILED_HERE) < text.index("PING number 30\n")
    assert re.findall(r"other (\d)\n", text + "\n") == ["4", "5", "6"]
    assert "(2 more connections are in the JSON report and on the HTML page)" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"verdict": Verdict.PASS}, ""),
        ({"cause": "error", "message": "RuntimeError: no wheels"}, ""),
        ({"cause": "error", "message": "WireTimeout: expected a message"}, HINTS["RECV-1"]),
        ({"check": "RECV-9/unmasked-frame"}, HINTS["RECV-9/unmasked-frame"]),
        ({"check": "RECV-9/other"}, HINTS["RECV-9"]),
        (
            {"check": "FRAME-4/x", "message": "observed 'peer saw no close frame'"},
            HINTS["RECV-9"],
        ),
        ({"check": "NOPE-1/x"}, ""),
        ({"cause": "hang"}, "waits for what never comes"),
        ({"cause": "left-over"}, "still there after stop()"),
        ({"cause": "death"}, "The process that ran the check is gone"),
    ],
)
def test_a_hint_is_about_what_failed(changes: dict[str, Any], told: str) -> None:
    hint = replace(FAILED, **changes).hint
    assert told in hint
    assert bool(told) == bool(hint)


def test_every_hint_is_of_a_check_or_a_rule_that_there_is() -> None:
    known = {check.id for check in all_checks()} | {rule.id for rule in rules()}
    assert set(HINTS) <= known
    outside = {check.id for check in all_checks() if check.black_box}
    assert {id for id in outside if not hint(id)} == set()  # strangers get one for each


def test_the_legend_names_every_symbol() -> None:
    assert set(report.LEGEND) == set(report.SYMBOLS)
    assert re.findall("[✔✘⚠≈⊘○·]", report.legend_line()) == list(report.SYMBOLS.values())


# ---- JUnit ----------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_for_each_check() -> None:
    root = ElementTree.fromstring(report.junit([LEFT, RIGHT]))
    left, right = root.findall("testsuite")
    assert left.get("tests") == "5"
    assert left.get("failures") == "2"
    assert (left.get("time"), left.get("timestamp")) == ("1.500", "2026-01-02T03:04:05")
    cases = {case.get("name"): case for case in left.findall("testcase")}
    failure = cases["RECV-1/exact"].find("failure")
    assert failure is not None
    assert failure.get("message") == "expected 'a', got '<b>'"
    assert failure.text is not None
    assert "TEXT masked length=1 b'\ufffd'" in failure.text  # NUL is no XML
    assert cases["HS-1/odd"].findtext("system-out") == "deviation: HS-1/odd: 426"
    assert cases["HS-1/plain"].get("classname") == "left.HS-1"
    assert list(cases["HS-1/plain"]) == []
    skipped = right.find("testcase/skipped")
    assert skipped is not None
    assert skipped.get("message") == "known to fail: not yet https://example.org/1"
    assert (right.get("failures"), right.get("skipped")) == ("0", "1")


# ---- HTML -----------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Holds a page to be well formed, and to ask for nothing beside itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data.split()


def test_the_page_stands_alone_and_shows_everything() -> None:
    source = report.html([LEFT, RIGHT])
    page = _Page(source)
    shown = " ".join(page.text)
    assert page.references == ["https://example.org/1"]  # nothing but the link of a known failure
    assert "@import" not in source
    assert "url(" not in source
    for said in (
        "left",
        "ws://127.0.0.1:1",
        "✘ not conformant",
        "✔ conformant but for what is known",
        "A text is a <str>.",
        "expected 'a', got '<b>'",
        "client → server",
        "TEXT masked length=1",
        "81 81 00 00 00 00 00 .......",
        "rule RECV-1 (the contract): A text is a <str>. promised Exactly. expected 'a' got '<b>' often The text goes",
        "0.0001 abcd open",
        "ERROR boom",
        "a last word",
        "no hook is there",
        "not yet",
        "3 runs",
        "Listing imports nothing.",
        "2026-01-02 03:04 UTC, 1.5 s",
        "3 rules cannot be checked from outside",
    ):
        assert said in shown, said
    assert "<code>valid</code>" in source
    for state in ("pass", "fail", "known", "deviation", "unsupported", "unchecked"):
        assert report.SYMBOLS[state] in shown, state  # a symbol, not the colour alone


def test_a_link_that_is_none_stays_text() -> None:
    known = {"HS-1": Known("HS-1", "why", "javascript:alert(1)")}
    page = _Page(report.html([SuiteResult(RIGHT.target, RIGHT.results, RULES, known=known)]))
    assert page.references == []
    assert "javascript:alert(1)" in page.text
