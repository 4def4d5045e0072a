"""The failure that docs/conformance.md reads from start to end is what the suite says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wsproto")  # the extra conformance

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance.md"
BLOCK = re.compile(
    r"(<!-- failure -->\n```console\n\$ wsbridge (?P<command>[^\n]*)\n)(?P<output>.*?)\n```\n", re.DOTALL
)


def failure(tmp_path: Path) -> tuple[str, str]:
    """Return the block of the page, and what its command says about the failure, by lines without blanks at the end."""
    found = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    (tmp_path / "mine.py").write_text(
        "from tests.conformance.misbehaving import AnswersPingsWithoutTheirPayload as Connector\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "COLUMNS": "80"}
    command = [sys.executable, "-m", "wsbridge.cli", *found["command"].split()]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("  fail "))
    return found["output"], "\n".join(lines[start : lines.index("", start)])


def steady(text: str) -> str:
    """Return it without what differs from run to run: times, ports, keys, and the sizes of HTTP heads."""
    text = re.sub(r"\d+\.\d{4}\b", "0.0000", text)
    text = re.sub(r"(127\.0\.0\.1(?:', |:))\d+", r"\g<1>0", text)
    text = re.sub(r"\d+ B (GET|HTTP)", r"0 B \1", text)
    return re.sub(r"( masked length=\d+.*\n +[0-9a-f]{2} [0-9a-f]{2}) .*", r"\1", text)


def test_the_page_reads_a_failure_as_it_is(tmp_path: Path) -> None:
    page, said = failure(tmp_path)
    assert steady(page) == steady(said)
    assert "8a 00" in page  # which the text explains


def test_the_page_names_every_fact() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("### Reading a failure")[2].partition("### A busy machine")[0]
    for word in ("rule", "promised", "expected", "got", "differs", "often", "alone", "wire"):
        assert f"`{word}`" in text, word
