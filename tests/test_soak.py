"""The soak script, in small: it passes on every connector that has a socket, and it sees what is wrong."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from tests.processes import INSTALLED, running
from wsbridge.registry import load_connector

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LISTENING = [name for name in INSTALLED if getattr(load_connector(name), "has_wire", True)]
HELD = {"rss": 1, "tasks": 1, "descriptors": 8, "threads": 2, "opened": 0, "closed": 0, "messages": 0, "unsent": 0}


@pytest.mark.parametrize("connector", LISTENING or [pytest.param("", marks=pytest.mark.skip("no server is installed"))])
async def test_a_short_soak_leaves_nothing(connector: str, tmp_path: Path) -> None:
    written = tmp_path / "soak.json"
    size = ("--channels=50", "--minutes=0.02", "--messages=500", "--drops=50", f"--json={written}")
    command = (sys.executable, "-W", "error", "-m", "benchmarks.soak", f"--connector={connector}", *size)
    async with running(*command, cwd=ROOT) as process:
        status = await process.end()
    assert status == 0, process.lines
    result = json.loads(written.read_text(encoding="utf-8"))
    end = result["samples"][-1][1]
    assert end["opened"] == end["closed"] == result["totals"]["connected"] > 50
    assert end["messages"] > 0


@pytest.mark.parametrize(
    ("totals", "end", "expected"),
    [
        ({}, {}, ""),
        ({"lost": 1}, {}, "lost"),
        ({"wrong": 1}, {}, "wrong"),
        ({"unanswered": 1}, {}, "did not come before a close"),
        ({"connected": 1}, {"opened": 1}, "on_close"),
        ({}, {"reasons": {"1011 local": 1}}, "reasons"),
        ({}, {"tasks": 2}, "1 tasks are left"),
        ({}, {"descriptors": 9}, "1 descriptors are left"),
    ],
)
def test_it_sees_what_is_wrong(totals: dict[str, int], end: dict[str, Any], expected: str) -> None:
    held = {**HELD, "reasons": {}}
    found = soak.judged(soak.Totals(left=Counter(), **totals), [("start", held), ("end", {**held, **end})])
    assert (len(found), expected in "".join(found)) == (1 if expected else 0, True)


def test_it_sees_memory_that_grows() -> None:
    held = {**HELD, "reasons": {}}
    samples = [
        (name, {**held, "rss": rss}) for name, rss in (("start", 1), ("full", 2), ("1", 100), ("2", 120), ("end", 1))
    ]
    assert "memory grew" in "".join(soak.judged(soak.Totals(), samples))
