"""The command line of the suite, as a new user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from click.testing import CliRunner, Result

from wsbridge.cli import cli
from wsbridge.conformance import load_results
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.doors.showing import MOST

pytestmark = pytest.mark.suite

BAD = "tests.conformance.misbehaving"
ONE = "RECV-1/texts-arrive-exactly"
ROOT = Path(__file__).parents[1]


def conformance(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["conformance", *map(str, arguments)])


def test_a_conformant_connector_exits_with_0() -> None:
    result = conformance("aiohttp", "--rule", "RECV-1", "--rule", "RECV-10")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert re.match(r"aiohttp  pass         RECV-1/\S+  \d+\.\d\d s$", lines[0])
    assert any(line.startswith("aiohttp  unsupported  RECV-10/") for line in lines)
    table = [line.split() for line in lines[-2:]]
    assert table[0] == ["checked", "passed", "failed", "known", "deviate", "unsupported", "seconds", "conformant"]
    assert (table[1][0], table[1][2:6], table[1][7]) == ("aiohttp", ["0", "0", "0", "1"], "yes")


def test_one_that_is_not_exits_with_1_and_says_why() -> None:
    result = conformance(f"{BAD}:StopLeavesATask", "--rule", ONE)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(line.startswith(f"  fail         {ONE}  task left running: ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ws://127.0.0.1:9"], "Error: nobody listens at ws://127.0.0.1:9: Connection refused"),
        (["aioht"], "Error: there is no connector 'aioht'. Did you mean 'aiohttp'?"),
        (["wss://127.0.0.1:9"], "Error: 'wss://127.0.0.1:9' must be written as ws://host:port"),
        (["aiohttp", "--rule", "RECV-99"], "Error: there is no rule, check or group of rules 'RECV-99'"),
        (["aiohttp", "--rule", "REG-1"], "Error: REG-1 is a library rule"),
        (["aiohttp", "--rule", "MODEL"], "Error: MODEL is no check: the random model is played by --model"),
        (["aiohttp", "--rule", "CONN"], "Error: CONN has rules of the library alone"),
        (["--list", "--rule", "MODEL"], "Error: MODEL is no check: the random model is played by --model"),
        (["nothing.json"], "Error: [Errno 2] No such file or directory: 'nothing.json'"),
        (["pyproject.toml.json"], "Error: "),
        (["--list", "--rule", "NOPE-1"], "Error: there is no rule, check or group of rules 'NOPE-1'"),
        (
            ["tests.conformance.raises_on_import:Connector"],
            "Error: the connector cannot be imported: RuntimeError: not today (",
        ),
    ],
)
def test_nothing_to_check_is_told_in_a_line_and_exits_with_2(arguments: list[str], told: str) -> None:
    result = conformance(*arguments)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith(told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say what to check"),
        (["aiohttp", "--report", "/nowhere/report.html"], "there is no folder '/nowhere'"),
        (["aiohttp", "--json", "/"], "is a directory"),
        (["aiohttp", "--repeat", "0"], "--repeat"),
        (["aiohttp", "--timeout-scale", "0"], "--timeout-scale"),
        (["aiohttp", "--baseline", "/nowhere.json"], "does not exist"),
        (["aiohttp", "--known-failing", "/nowhere.toml"], "does not exist"),
        (["aiohttp", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], told: str) -> None:
    result = conformance(*arguments)
    assert result.exit_code == 2
    assert told in result.output


def test_what_cannot_start_exits_with_2_after_one_check() -> None:
    result = conformance(f"{BAD}:StartRaises", "--rule", "RECV-1")
    assert result.exit_code == 2
    assert re.search(
        r"\d+ of \d+ checks were not run: the connector cannot start: RuntimeError: no wheels", result.output
    )
    assert result.output.count("\n  fail         RECV-1/") == 1


def test_the_other_targets_are_checked_although_one_is_not_there(tmp_path: Path) -> None:
    data = tmp_path / "r.json"
    result = conformance("ws://127.0.0.1:9", "aiohttp", "ws://127.0.0.1:9", "--rule", ONE, "--json", data)
    assert result.exit_code == 2
    assert [one.target.name for one in load_results(data)] == ["aiohttp"]
    assert [line for line in result.output.splitlines() if line.startswith("Error: ")] == [
        "Error: nobody listens at ws://127.0.0.1:9: Connection refused",
        "Error: nobody listens at ws://127.0.0.1:9: Connection refused",
    ]


def test_the_first_failure_ends_the_run_if_asked() -> None:
    for flag in ("--exitfirst", "-x"):
        result = conformance(f"{BAD}:StopLeavesATask", "--rule", "RECV-1", "--rule", "HS-5", flag)
        assert result.exit_code == 1
        assert result.output.count(f"{BAD}:StopLeavesATask  fail  ") == 1
        assert re.search(r"\d+ of \d+ checks were not run: the first failure ends the run", result.output)


def test_a_failure_is_explained_within_80_columns() -> None:
    result = conformance(f"{BAD}:AnswersPingsWithoutTheirPayload", "--rule", "FRAME-17")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  fail         FRAME-17/ping-of-any"))
    block = lines[at + 1 : lines.index("", at)]
    words = [line.split()[0] for line in block if re.match(" {6}[a-z]", line)]
    assert words == ["rule", "promised", "expected", "got", "often", "alone", "wire"]
    assert all(len(line) <= 80 for line in block)
    shown = "\n".join(line.rstrip() for line in block)
    assert "      rule     FRAME-17 (RFC 6455, 5.5.2): A ping is answered by a pong with its\n" in shown
    assert "      expected Pong(payload=b'a')\n      got      Pong(payload=b'')\n" in shown
    assert re.search(r"<-- +2 B PONG length=0\n +8a 00 +\.\.\n +\d\.\d{4} +the check failed here\n", shown)


def test_the_rules_that_failed_are_counted_and_all_if_asked() -> None:
    arguments = (
        f"{BAD}:AnswersPingsWithoutTheirPayload",
        "--rule",
        "FRAME-17",
        "--rule",
        "HS-5",
    )
    table = conformance(*arguments).output.partition(", by rule\n")[2].splitlines()
    assert table[0].split() == ["rule", "passed", "failed", "what", "it", "promises"]
    assert [line.split()[:4] for line in table[1:]] == [["FRAME-17", "0", "2", "A"]]
    table = conformance(*arguments, "--summary").output.partition(", by rule\n")[2].splitlines()
    assert [line.split()[0] for line in table[1:]] == ["HS-5", "FRAME-17"]
    assert ", by rule" not in conformance("aiohttp", "--rule", "HS-5").output


def test_only_the_first_failures_are_explained() -> None:
    result = conformance(f"{BAD}:StopLeavesATask", "--rule", "FRAME-1", "--rule", "FRAME-4", "--rule", "FRAME-30")
    lines = [line for line in result.output.splitlines() if line.startswith("  fail         FRAME-")]
    assert len(lines) > MOST
    assert len(re.findall("^      rule     FRAME-", result.output, re.MULTILINE)) == MOST
    assert f"  only the first {MOST} are explained here; --report and --json explain all" in result.output


def test_help_has_examples_and_exit_codes() -> None:
    result = conformance("--help")
    assert result.exit_code == 0
    assert "\n    wsbridge conformance aiohttp\n" in result.output
    assert "Exit codes:\n    0  everything that was checked is conformant\n" in result.output


def test_reports_are_written_and_read_again(tmp_path: Path) -> None:
    page, data, junit, table = (tmp_path / name for name in ("r.html", "r.json", "r.xml", "r.md"))
    files = ("--report", page, "--json", data, "--junit", junit, "--markdown", table)
    result = conformance("aiohttp", f"{BAD}:StopLeavesATask", "--rule", ONE, *files)
    assert result.exit_code == 1
    assert result.output.splitlines()[-4:] == [f"wrote {path}" for path in (page, data, junit, table)]
    assert [one.target.name for one in load_results(data)] == ["aiohttp", f"{BAD}:StopLeavesATask"]
    assert len(ElementTree.parse(junit).getroot()) == 2
    assert page.read_text().startswith("<!doctype html>")
    assert table.read_text().startswith("| checked |")
    # a former run is a target too
    joined = tmp_path / "joined.html"
    result = conformance(data, "tornado", "--rule", ONE, "--report", joined)
    assert result.exit_code == 1
    for name in ("aiohttp", "StopLeavesATask", "tornado"):
        assert name in joined.read_text()


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    result = conformance("aiohttp", "--rule", ONE, "--report", path)
    assert result.exit_code == 2
    assert "cannot be written: File name too long" in result.output.replace("\n", " ")


def test_the_baseline_shows_what_changed(tmp_path: Path) -> None:
    former = tmp_path / "former.json"
    assert conformance("aiohttp", "--rule", ONE, "--rule", "RECV-10", "--json", former).exit_code == 0
    result = conformance("aiohttp", "--rule", ONE, "--rule", "RECV-10", "--baseline", former)
    assert "aiohttp: nothing has changed since the baseline" in result.output
    result = conformance(f"{BAD}:StopLeavesATask", "--rule", "RECV-1", "--baseline", former)
    lines = result.output.splitlines()
    assert f"{BAD}:StopLeavesATask: changed since the baseline" in lines
    assert f"  newly failing  {ONE}" in lines
    assert "  new            RECV-1/texts-are-str" in lines
    assert any(line.startswith("  gone           RECV-10/") for line in lines)
    both = json.dumps([json.loads(former.read_text())] * 2)
    former.write_text(both)
    result = conformance("tornado", "--rule", ONE, "--baseline", former)
    assert "the baseline has no report of tornado" in result.output


def test_known_failures_exit_with_0_until_they_pass(tmp_path: Path) -> None:
    known = tmp_path / "known.toml"
    known.write_text(f'["{ONE}"]\nreason = "no wheels"\nlink = "https://example.org/1"\n')
    result = conformance(f"{BAD}:StopLeavesATask", "--rule", ONE, "--known-failing", known)
    assert result.exit_code == 0
    assert f"  known        {ONE}  no wheels https://example.org/1" in result.output.splitlines()
    result = conformance("aiohttp", "--rule", ONE, "--known-failing", known)
    assert result.exit_code == 1
    assert f"{ONE} is listed as known to fail, but passes: take it off the list" in result.output
    known.write_text('["RECV-99"]\nreason = "r"')
    result = conformance("aiohttp", "--known-failing", known)
    assert result.exit_code == 2
    assert result.output.startswith("Error: the known-failing file lists RECV-99")


def test_the_list_has_every_rule_and_check() -> None:
    lines = conformance("--list").output.splitlines()
    listed = {line.split()[0] for line in lines}
    assert {check.id for check in all_checks()} <= listed
    assert "REG-1" in listed
    only = conformance("--list", "--rule", ONE).output.splitlines()
    assert only[0].startswith("RECV-1  (connector; rfc; RFC 6455, 5.6)  ")
    assert only[1] == f"    {ONE}  (from outside too)"
    assert len(only) == 3
    assert conformance("--list", "--rule", "RECV-10").output.startswith(
        "RECV-10  (connector; feature; contract; needs "
    )


def test_checks_run_in_this_process_for_a_debugger() -> None:
    result = conformance("aiohttp", "--rule", ONE, "--no-isolate")
    assert result.exit_code == 0


def test_a_module_in_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from wsbridge.connectors.aiohttp import Connector\n")
    command = [sys.executable, "-m", "wsbridge.cli", "conformance", "mine:Connector", "--rule", ONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine:Connector  pass")
    assert "\x1b" not in done.stdout


def test_a_terminal_gets_a_progress_bar() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wsbridge.cli", "conformance", f"{BAD}:StopLeavesATask", "--rule", ONE]
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert process.wait(60) == 1
    text = said.decode()
    assert "\x1b[" in text
    assert re.search("[01]/1", text)
    assert "task left running: " in text
