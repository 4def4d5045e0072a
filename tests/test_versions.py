"""The tool that tries older servers: what it tries, what it makes of a report, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from tools.versions import __main__ as command
from tools.versions import releases, table
from tools.versions.trial import Outcome, judged
from wsbridge._common.requirements import Requirement

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

# ---- what is tried --------------------------------------------------------------------------------------------------


def test_first_and_last_patch_of_each_minor_release_within_the_range_are_tried() -> None:
    known = ["3.9.1", "3.10.0", "3.11.0", "3.11.3", "3.11.18", "3.12.0", "4.0", "4.0.1", "5.0.0", "5.0.1", "6.0"]
    assert releases.chosen(known, ">=3.11,<6") == ["3.11.0", "3.11.18", "3.12.0", "4.0", "4.0.1", "5.0.0", "5.0.1"]
    assert releases.chosen(known, ">=7") == []
    assert releases.ends(["1", "2", "3"]) == ["1", "3"]
    assert releases.ends(["1"]) == ["1"]


@pytest.mark.parametrize(
    ("text", "numbers"), [("6.4", (6, 4)), ("3.7.4.post0", (3, 7, 4)), ("1.0rc1", None), ("x", None)]
)
def test_pre_releases_are_no_versions(text: str, numbers: tuple[int, ...] | None) -> None:
    assert releases.version(text) == numbers


def test_ranges_are_those_of_the_extras() -> None:
    for name, distribution in releases.CONNECTORS.items():
        specifier = releases.range_of(ROOT, name)
        assert Requirement(distribution, specifier, "0.0.1").problem is not None
        assert specifier.startswith(">=")
    assert releases.requirements(ROOT, "uvicorn-wsproto").keys() == {"uvicorn", "wsproto"}


def _index(monkeypatch: pytest.MonkeyPatch) -> None:
    def released(distribution: str) -> list[str]:
        return ["0.0.1", *_floors(distribution), "999.0"]

    monkeypatch.setattr(releases, "released", released)


def _floors(distribution: str) -> list[str]:
    names = [name for name, its in releases.CONNECTORS.items() if its == distribution]
    return sorted({releases.range_of(ROOT, name).partition(",")[0].removeprefix(">=") for name in names})


def test_what_is_asked_for_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    _index(monkeypatch)
    assert command.planned(["tornado==0.0.1"], only_ends=False) == [("tornado", "0.0.1")]
    (floor,) = _floors("tornado")
    assert command.planned(["tornado"], only_ends=True) == [("tornado", floor), ("tornado", "999.0")]
    assert {name for name, _ in command.planned([], only_ends=True)} == set(releases.CONNECTORS)
    with pytest.raises(SystemExit, match=r"there is no connector 'torpedo' with a server: there are aiohttp,"):
        command.planned(["torpedo"], only_ends=False)
    with pytest.raises(SystemExit, match=r"there is no tornado 6\.4\.9; the newest are 0\.0\.1,"):
        command.planned(["tornado==6.4.9"], only_ends=False)


def test_newer_releases_than_the_table_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _index(monkeypatch)
    tried = Outcome("conformant", "3.13")
    known: table.Table = {name: {"999.0": tried} for name in releases.CONNECTORS if name != "granian"}
    assert command.newer(known) == ["granian: granian 999.0 is out, and none was tried last"]
    known["tornado"] = {"6.6.1": tried, "6.10": tried}
    assert "tornado: tornado 999.0 is out, and 6.10 was tried last" in command.newer(known)


# ---- what comes of it -----------------------------------------------------------------------------------------------


def _report(**changes: Any) -> dict[str, Any]:
    results = [
        {"check": "A-1/a", "verdict": "pass", "message": ""},
        {"check": "A-1/b", "verdict": "fail", "message": "not so\nbut so"},
        {"check": "A-1/c", "verdict": "deviation", "message": "", "deviations": {"A-1/c": "x", "A-2/d": "y"}},
        {"check": "A-1/e", "verdict": "deviation", "message": ""},
    ]
    declared = {"A-1/c": {"tried": "one"}, "A-2/d": {"tried": "one"}, "A-1/e": {"tried": "two"}}
    return {
        "conformant": False,
        "counts": {"pass": 1},
        "problems": ["a deviation that nothing has seen"],
        "target": {"deviations": declared},
        "results": results,
        **changes,
    }


def test_a_report_is_told_in_short() -> None:
    outcome = judged(_report(), "3.12")
    assert outcome == Outcome(
        "fails",
        "3.12",
        passed=1,
        failed={"A-1/b": "not so", "problem 1": "a deviation that nothing has seen"},
        deviations={"one": 1, "two": 1},
    )
    assert outcome.to_json().keys() == {"verdict", "python", "passed", "failed", "deviations"}
    good = judged(_report(conformant=True, problems=[], results=[]), "3.12")
    assert (good.verdict, good.to_json()) == ("conformant", {"verdict": "conformant", "python": "3.12", "passed": 1})


def test_what_is_other_than_before_is_told() -> None:
    was = Outcome("conformant", "3.12", 9, deviations={"w": 2})
    fails = Outcome("fails", "3.12", 8, failed={"A-1/a": "no"}, deviations={"w": 2})
    former: table.Table = {"tornado": {"6.4": was, "6.5": fails}}
    assert table.differences(former, {"tornado": {"6.4": Outcome("conformant", "3.13", 10, deviations={"w": 2})}}) == []
    assert table.differences(former, {"tornado": {"6.9": fails}, "aiohttp": {"1": fails}}) == []
    assert table.differences(former, {"tornado": {"6.4": fails, "6.5": was}}) == [
        "tornado 6.4: was conformant (2 declared), is fails (1 failed, 2 declared)",
        "  A-1/a: no",
        "tornado 6.5: was fails (1 failed, 2 declared), is conformant (2 declared)",
        "  A-1/a: fails no longer",
    ]


def test_the_page_tells_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    known: table.Table = {
        "tornado": {
            "6.10": Outcome("conformant", "3.13", 9, deviations={"why": 2}),
            "6.4": Outcome("fails", "3.13", 8, failed={"A-1/a": "no"}),
            "6.1": Outcome("cannot be used", "3.13", why="it cannot be installed"),
        }
    }
    table.save(tmp_path, known)
    assert table.load(tmp_path) == known
    page = (tmp_path / table.PAGE).read_text()
    lines = [line for line in page.splitlines() if line.startswith("| 6.")]
    assert [line.split("|")[1].strip() for line in lines] == ["6.1", "6.4", "6.10"]
    assert "| conformant | 9 | 2: (1) |" in page
    assert "\n1. why\n" in page
    assert "- 6.4: `A-1/a`: no\n" in page
    assert "- 6.1: it cannot be installed\n" in page
    assert table.load(tmp_path / "nothing") == {}


# ---- what is committed ----------------------------------------------------------------------------------------------


def test_the_page_is_that_of_the_table() -> None:
    assert (ROOT / table.PAGE).read_text(encoding="utf-8") == table.page(ROOT, table.load(ROOT)), (
        "run: python -m tools.versions --write-docs"
    )


@pytest.mark.parametrize("name", releases.CONNECTORS)
def test_the_floor_and_all_that_is_within_the_range_are_conformant(name: str) -> None:
    tried, specifier = table.load(ROOT)[name], releases.range_of(ROOT, name)
    within = {text: outcome for text, outcome in tried.items() if Requirement(name, specifier, text).problem is None}
    assert {text for text, outcome in within.items() if outcome.verdict != "conformant"} == set()
    floor = releases.version(specifier.partition(",")[0].removeprefix(">="))
    assert floor is not None
    oldest = min(releases.version(text) or () for text in within)
    assert oldest[: len(floor)] == floor, f"{name}: the floor {floor} was not tried"
