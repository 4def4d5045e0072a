"""The committed reports and the pages made of them: how they are made, and that they are fresh."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from tests.test_conformance_report import LEFT, RIGHT, RULES
from tools import committed, costs, reports, stock
from wsbridge.conformance import Session, SuiteResult, Verdict
from wsbridge.conformance.harness.selection import MODEL_CHECK
from wsbridge.conformance.harness.target import TargetInfo
from wsbridge.conformance.harness.verdicts import CheckResult

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


# ---- their form -----------------------------------------------------------------------------------------------------


def test_a_report_has_a_line_for_each_result_that_is_more_than_a_pass(tmp_path: Path) -> None:
    committed.save(tmp_path, {"left": LEFT, "right": RIGHT})
    assert committed.load(tmp_path) == {"left": LEFT.stable(), "right": RIGHT.stable()}
    checks = [["HS-1", "plain", "odd"], ["RECV-1", "exact"], ["RECV-10", "parts"]]
    assert json.loads((tmp_path / committed.CHECKS).read_text()) == checks
    assert (tmp_path / "right.json").read_text().split("\n") == [
        "{",
        ' "target": {',
        '  "name": "ws://127.0.0.1:1",',
        '  "kind": "url",',
        '  "location": "Right/1",',
        '  "packages": {"wsbridge": "0.1.0"}',
        " },",
        ' "known": {',
        '  "HS-1": {"reason": "not yet", "link": "https://example.org/1"}',
        " },",
        ' "passed": 1,',
        ' "not run": [',
        '  ["RECV-1", "exact"],',
        '  ["RECV-10", "parts"]',
        " ],",
        ' "results": [',
        '  {"check": "HS-1/odd", "verdict": "fail", "message": "no 426", "cause": "promise"}',
        " ]",
        "}",
        "",
    ]


def test_checks_are_in_the_order_of_the_suite(tmp_path: Path) -> None:
    ids = [*(check.id for check in Session.applicable(is_url=False)), MODEL_CHECK]
    results = tuple(CheckResult(id, id.partition("/")[0], Verdict.PASS) for id in ids)
    one, all_but_one = SuiteResult(RIGHT.target, results[7:8]), SuiteResult(RIGHT.target, results[:7] + results[8:])
    committed.save(tmp_path, {"one": one, "others": all_but_one})
    assert committed.load(tmp_path) == {"one": one, "others": all_but_one}
    committed.save(tmp_path, {"reversed": SuiteResult(RIGHT.target, results[::-1])})
    assert committed.load(tmp_path)["reversed"] == SuiteResult(RIGHT.target, results)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"odd"', '"odd", "never-run"'),
        ('"plain", ', ""),
        ('"exact"', '"exactly"'),
        ("[[", "["),
    ],
)
def test_a_report_counts_what_passed(tmp_path: Path, before: str, after: str) -> None:
    """So that no check is taken for one that passed because it stands in the list."""
    committed.save(tmp_path, {"left": LEFT})
    path = tmp_path / committed.CHECKS
    path.write_text(json.dumps(json.loads(path.read_text())).replace(before, after))
    with pytest.raises(ValueError, match="is damaged"):
        committed.load(tmp_path)


def test_a_check_has_one_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two results of one check"):
        committed.save(tmp_path, {"left": replace(LEFT, results=LEFT.results[:1] * 2)})


# ---- the pages ------------------------------------------------------------------------------------------------------


def project(tmp_path: Path, *results: SuiteResult) -> Path:
    committed.save(tmp_path / reports.REPORTS, {result.target.name: result for result in results})
    (tmp_path / "README.md").write_text(f"before\n{reports.MARKERS[0]}\nold\n{reports.MARKERS[1]}\nafter\n")
    return tmp_path


def named(name: str) -> SuiteResult:
    return SuiteResult(TargetInfo(name, "connector"), LEFT.results[:1], RULES)


def test_the_pages_are_made_of_the_committed_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = project(tmp_path, named("zebra"), named("tornado"), named("aiohttp"))
    assert reports.main(["--write-docs", "--root", str(root)]) == 0
    assert capsys.readouterr().out == "wrote docs/support.md\nwrote README.md\n"
    support, readme = (root / "docs/support.md").read_text(), (root / "README.md").read_text()
    assert "| rule | what is promised | aiohttp | tornado | zebra |" in support
    assert readme.startswith(f"before\n{reports.MARKERS[0]}\n| checked |")
    assert readme.endswith(f"(docs/support.md).\n{reports.MARKERS[1]}\nafter\n")
    assert "old" not in readme
    assert reports.documents(root) == {Path("docs/support.md"): support, Path("README.md"): readme}


def test_pages_cannot_be_made_of_nothing(tmp_path: Path) -> None:
    root = project(tmp_path)
    with pytest.raises(ValueError, match="there are no reports"):
        reports.documents(root)
    shutil.rmtree(root / "docs")
    root = project(tmp_path, named("aiohttp"))
    (root / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="lacks"):
        reports.documents(root)


def test_refresh_checks_the_connectors_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def run(name: str, **options: Any) -> SuiteResult:
        asked.append((name, options))
        return LEFT if name == "tornado" else named(name)

    monkeypatch.setattr(reports, "run", run)
    root = project(tmp_path)
    assert reports.main(["--refresh", "aiohttp", "--root", str(root), "--timeout-scale", "2"]) == 0
    assert [(name, options["model"], options["scale"]) for name, options in asked] == [("aiohttp", True, 2.0)]
    assert committed.load(root / reports.REPORTS) == {"aiohttp": named("aiohttp").stable()}
    assert reports.main(["--refresh", "--root", str(root)]) == 1  # tornado's is not conformant
    assert [name for name, _ in asked[1:]] == list(reports.NAMES)
    assert {*committed.load(root / reports.REPORTS)} == {*reports.NAMES}
    targets = {result.target.name for result in reports.connector_reports(root)}
    assert targets == {*reports.NAMES, "left"} - {"tornado"}


def test_a_new_check_has_not_run_on_what_is_not_refreshed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = CheckResult("RECV-1/new", "RECV-1", Verdict.PASS, 0.1)
    monkeypatch.setattr(reports, "run", lambda name, **_: replace(named(name), results=(*named(name).results, new)))
    root = project(tmp_path, named("tornado"), named("aiohttp"))
    assert reports.main(["--refresh", "aiohttp", "--root", str(root)]) == 0
    written = committed.load(root / reports.REPORTS)
    found = {name: [one.check for one in report.results] for name, report in written.items()}
    assert found == {"aiohttp": ["HS-1/plain", "RECV-1/new"], "tornado": ["HS-1/plain"]}


def failed(name: str, check: str, message: str) -> SuiteResult:
    result = CheckResult(check, check.partition("/")[0], Verdict.FAIL, 0.1, message, "traceback", cause="promise")
    return SuiteResult(TargetInfo(name, "connector", packages={"wsbridge": "1", "hypercorn": "0.18"}), (result,))


def test_what_a_server_costs_is_told_by_its_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "asgi-hypercorn": failed(
            "asgi-hypercorn", "CLOSE-7/the-peer-closed-with-an-empty-frame", "got (1006, 'network')"
        ),
        "asgi-granian": failed("asgi-granian", "RECV-1/texts-are-str", "expected 'a', got 'b'"),
    }
    formers: list[SuiteResult | None] = []

    def run(name: str, scale: float, former: SuiteResult | None) -> SuiteResult:
        formers.append(former)
        return found[name]

    monkeypatch.setattr(stock, "run", run)
    root = project(tmp_path, named("aiohttp"))
    (root / "docs/asgi.md").write_text(f"top\n{reports.ASGI_MARKERS[0]}\nold\n{reports.ASGI_MARKERS[1]}\nend\n")
    assert reports.main(["--refresh", "asgi-hypercorn", "--root", str(root)]) == 0
    page = (root / "docs/asgi.md").read_text()
    assert page.startswith(f"top\n{reports.ASGI_MARKERS[0]}\nThe 1 checks that bind `asgi_app`")
    assert page.endswith(f"{reports.ASGI_MARKERS[1]}\nend\n")
    assert "hypercorn 0.18" in page
    assert "| what happens | rules | hypercorn |" in page
    assert "| checks that hold |  | 0 of 1 |" in page
    assert "| the peer closes with an empty frame | CLOSE-7 | 1006 by `network` |" in page
    (result,) = reports.asgi_reports(root)
    assert [known.reason for known in result.known.values()] == [
        "the peer closes with an empty frame: 1006 by `network`"
    ]
    assert [one.target.name for one in reports.connector_reports(root)] == ["aiohttp"]

    assert reports.main(["--refresh", "asgi-hypercorn", "--missing", "--root", str(root)]) == 0
    assert formers == [None, replace(result, known={})]

    # a failure that no cost tells of is one
    assert reports.main(["--refresh", "asgi-granian", "--root", str(root)]) == 1
    assert costs.cost_of("asgi-granian", found["asgi-granian"].results[0]) is None
    assert ("asgi-hypercorn", costs.COSTS[0]) not in costs.unseen([result])
    assert len(costs.unseen([result])) == sum(len(cost.servers) for cost in costs.COSTS) - 1


def test_something_must_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reports.main([])
    assert "say --refresh or --write-docs" in capsys.readouterr().err


HINT = "run: python -m tools.reports --refresh --missing"
ASGI_HINT = f"{HINT} asgi"


@pytest.mark.parametrize("name", reports.NAMES)
def test_the_committed_report_is_fresh(name: str) -> None:
    """Of the checks that there are now, each once; how they ended is the suite's business."""
    found = {result.target.name: result for result in reports.connector_reports(ROOT)}
    assert name in found, HINT
    checks = [result.check for result in found[name].results]
    model = [check for check in checks if check == MODEL_CHECK]
    assert sorted(checks) == sorted([*(check.id for check in Session.applicable(is_url=False)), *model]), HINT
    assert found[name].conformant, HINT
    assert found[name] == found[name].stable()


@pytest.mark.parametrize("name", stock.STOCK)
def test_the_committed_report_of_an_asgi_server_is_fresh(name: str) -> None:
    """Of the checks that there are now, each once, and every failure with a reason that a user can read."""
    found = {result.target.name: result for result in reports.asgi_reports(ROOT)}
    assert name in found, ASGI_HINT
    result = found[name]
    assert [one.check for one in result.results] == [check.id for check in stock.checks()], ASGI_HINT
    assert result.conformant, ASGI_HINT
    assert result == costs.explained(result).stable(), ASGI_HINT
    assert [cost for server, cost in costs.unseen([result]) if server == name] == []


def test_the_pages_are_fresh() -> None:
    for path, text in reports.documents(ROOT).items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, "run: python -m tools.reports --write-docs"
