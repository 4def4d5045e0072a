"""Catalogue, document, checks and tests hold together: a rule without a check or a test fails here, and the reverse."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import catalogue
from wsbridge.conformance.contract.framing import FRAME_RULES
from wsbridge.connectors._deviations import DEVIATIONS
from wsbridge.protocols import Feature

TESTS = Path(__file__).parent
SPEC = TESTS.parent / "docs" / "spec.md"
COUNTS = {
    "HS": 19,
    "OPEN": 12,
    "RECV": 10,
    "SEND": 9,
    "CLOSE": 10,
    "ERR": 3,
    "LIM": 6,
    "FLOW": 4,
    "STOP": 15,
    "CTX": 7,
    "CONN": 7,
    "STREAM": 10,
    "CODEC": 3,
    "MOUNT": 3,
    "LOG": 3,
    "THR": 4,
    "REG": 6,
}


def rules_named_by_tests() -> dict[str, set[str]]:
    """Return the rules that tests name by ``@pytest.mark.rule(...)`` or ``pytestmark``, each with its files."""
    named: dict[str, set[str]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        for id in _marked_rules(ast.parse(path.read_text(encoding="utf-8"))):
            named.setdefault(id, set()).add(path.name)
    return named


def _marked_rules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rule":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))  # type: ignore[misc]


def test_every_rule_of_the_contract_is_there_once() -> None:
    ids = [rule.id for rule in catalogue.contract_rules()]
    assert ids == [f"{group}-{number}" for group, count in COUNTS.items() for number in range(1, count + 1)]


def test_the_framing_cases_are_rules_of_their_own() -> None:
    frames = FRAME_RULES
    assert len(frames) >= 50
    assert [rule.id for rule in frames] == [f"FRAME-{number}" for number in range(1, len(frames) + 1)]
    assert {rule.section.partition(",")[0] for rule in frames} == {"RFC 6455", "RFC 7692"}


def test_the_rules_are_well_formed() -> None:
    features = set(get_args(Feature))
    for rule in catalogue.rules():
        assert rule.sentence.endswith((".", ":")), rule.id
        assert rule.section == "contract" or re.fullmatch(
            r"RFC (6455|7239|7692|8441|9113), [\d.]+( and [\d.]+)?", rule.section
        ), rule.id
        assert rule.features <= features, rule.id
        assert rule.level != "feature" or rule.features, rule.id
        assert rule.group in catalogue.GROUPS


def test_the_rules_that_a_rule_refers_to_exist() -> None:
    ids = {rule.id for rule in catalogue.rules()}
    referred = re.findall(r"\b(?:" + "|".join(catalogue.GROUPS) + r")-\d+\b", catalogue.document())
    assert set(referred) == ids


def test_a_rule_is_found_by_its_id() -> None:
    assert catalogue.get("RECV-9").level == "rfc"
    with pytest.raises(LookupError, match="RECV-99"):
        catalogue.get("RECV-99")


def test_every_connector_rule_has_a_check() -> None:
    checked = {check.rule for check in all_checks()}
    missing = [rule.id for rule in catalogue.rules() if rule.kind == "connector" and rule.id not in checked]
    assert missing == []


def test_every_check_has_a_rule() -> None:
    ids = {rule.id for rule in catalogue.rules()}
    assert [check.id for check in all_checks() if check.rule not in ids] == []


def test_a_rule_that_needs_a_feature_is_checked_with_that_feature() -> None:
    needed = {rule.id: rule.features for rule in catalogue.rules() if rule.level == "feature"}
    wrong = [check.id for check in all_checks() if not needed.get(check.rule, frozenset()) <= check.needs]
    assert wrong == []


def test_every_library_rule_is_named_by_a_test() -> None:
    named = rules_named_by_tests()
    missing = [rule.id for rule in catalogue.rules() if rule.kind == "library" and rule.id not in named]
    assert missing == []


def test_every_rule_that_a_test_names_exists() -> None:
    ids = {rule.id for rule in catalogue.rules()}
    assert {id: files for id, files in rules_named_by_tests().items() if id not in ids} == {}


def test_the_document_is_not_stale() -> None:
    assert SPEC.read_text(encoding="utf-8") == catalogue.document(), (
        "run: python -m wsbridge.conformance.contract.catalogue --write docs/spec.md"
    )


def test_close_8_tells_every_deviation_that_is_declared() -> None:
    document = catalogue.document()
    scenarios = {check.id for check in all_checks()}
    assert DEVIATIONS
    for name, deviations in DEVIATIONS.items():
        assert set(deviations) <= scenarios
        for scenario, deviation in deviations.items():
            lines = [line for line in document.splitlines() if line.startswith(f"| {name} | ")]
            rows = [line for line in lines if line.endswith(f" | {deviation.tried} |")]
            assert len(rows) == 1, scenario
            assert scenario.partition("/")[0] in rows[0].split(" | ")[1].split(", ")


def test_the_document_has_each_rule_in_full() -> None:
    document = " ".join(catalogue.document().split())
    for rule in catalogue.contract_rules():
        for paragraph in (f"### {rule.id} ", f"**{rule.sentence}**", *rule.text.split("\n")):
            assert " ".join(paragraph.split()) in document, rule.id
    for rule in FRAME_RULES:
        assert f"| {rule.id} | {rule.section} | {rule.sentence} |" in document


def test_the_document_stands_alone() -> None:
    document = catalogue.document()
    for path in re.findall(r"`((?:src|docs|tests)/[\w./-]*)`", document):
        assert (TESTS.parent / path).exists(), path
    assert not re.search(r"shared/|research/|SPEC\.md|DESIGN\.md", document)
    assert max(len(line) for line in document.splitlines() if not line.startswith("|")) <= 120


def test_the_command_writes_or_prints_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue.main(["--write", str(tmp_path / "spec.md")])
    assert (tmp_path / "spec.md").read_text(encoding="utf-8") == catalogue.document()
    assert capsys.readouterr().out == ""
    catalogue.main([])
    assert capsys.readouterr().out == catalogue.document()


def test_the_command_runs_as_the_document_says(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "wsbridge.conformance.contract.catalogue", "--write", "spec.md"],
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "spec.md").read_text(encoding="utf-8") == catalogue.document()
