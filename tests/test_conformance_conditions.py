"""The suite under other event loops, debug mode and eager tasks: by call, command line and pytest (THR-4)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wsproto")  # the extra conformance

from click.testing import CliRunner

from tests.test_conformance_plugin import pytests
from wsbridge._process.loops import LoopName
from wsbridge.cli import Exit, cli
from wsbridge.conformance import TargetError, run
from wsbridge.conformance.harness.conditions import PLAIN, Conditions, eager_task
from wsbridge.conformance.harness.suite_result import load_results
from wsbridge.errors import LoopNotInstalledError
from wsbridge.protocols import CONNECTOR_API
from wsbridge.registry import load_connector

pytestmark = pytest.mark.suite

Memory: Any = load_connector("memory")
CHECK = "HS-5/an-unknown-path"
seen: list[Conditions] = []


class Watching(Memory):  # type: ignore[misc]
    """Notes the conditions that it is started in."""

    overrides_internals = True
    connector_api = CONNECTOR_API

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        name: LoopName = "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"
        eager = loop.get_task_factory() is eager_task
        seen.append(Conditions.of_the_loop(name, debug=loop.get_debug(), eager_tasks=eager))
        await super().start()


class Demanding(Watching):
    """Starts on uvloop in debug mode alone."""

    connector_api = CONNECTOR_API

    async def start(self) -> None:
        await super().start()
        if seen[-1] != Conditions(loop="uvloop", debug="on"):
            raise AssertionError(f"it was started under {seen[-1]}")


EACH = (
    Conditions(loop="uvloop"),
    Conditions(debug="on"),
    *(
        (Conditions(tasks="eager"), Conditions(loop="uvloop", debug="on", tasks="eager"))
        if sys.version_info >= (3, 12)
        else ()
    ),
)


@pytest.mark.rule("THR-4")
@pytest.mark.parametrize("conditions", [PLAIN, *EACH], ids=lambda conditions: str(conditions) or "plain")
def test_a_check_runs_under_the_conditions_and_its_report_says_so(conditions: Conditions) -> None:
    seen.clear()
    result = run(
        Watching,
        rules=[CHECK],
        isolate=False,
        loop="uvloop" if conditions.loop == "uvloop" else "asyncio",
        debug=conditions.debug == "on",
        eager_tasks=conditions.tasks == "eager",
    )
    assert result.conformant, result.failures
    assert set(seen) == {conditions}
    assert result.conditions == conditions
    assert type(result).from_json(result.to_json()).conditions == conditions


@pytest.mark.parametrize("conditions", EACH, ids=str)
def test_a_process_of_its_own_has_them_too(conditions: Conditions, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--loop", conditions.loop]
    options += ["--debug"] if conditions.debug == "on" else []
    options += ["--eager-tasks"] if conditions.tasks == "eager" else []
    outcome = CliRunner().invoke(cli, ["conformance", "memory", "--rule", CHECK, *options, "--json", str(report)])
    assert outcome.exit_code == 0, outcome.output
    assert f" under {conditions}" in " ".join(outcome.output.split())
    assert load_results(report)[0].conditions == conditions


@pytest.mark.rule("STOP-10")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before Python 3.12")
def test_an_eager_start_has_begun_when_it_is_stopped() -> None:
    result = run("memory", rules=["STOP-10/a-stop-at-any-moment-of-a-start"], eager_tasks=True)
    assert result.conformant, result.failures


def test_a_report_from_before_there_were_conditions_is_read() -> None:
    result = run(Watching, rules=[CHECK], isolate=False)
    data = json.loads(json.dumps(result.to_json()))
    del data["conditions"]
    assert type(result).from_json(data).conditions == PLAIN
    data["conditions"] = {"loop": "uvloop", "debug": True, "eager_tasks": False}
    assert type(result).from_json(data).conditions == Conditions(loop="uvloop", debug="on")


def test_a_running_server_has_a_loop_of_its_own() -> None:
    with pytest.raises(
        TargetError, match="cannot be checked under loop=uvloop: a running server's event loop is its own"
    ):
        run("ws://127.0.0.1:9", loop="uvloop")


def test_a_loop_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(LoopNotInstalledError, match="needs uvloop"):
        run("memory", rules=[CHECK], loop="uvloop")
    outcome = CliRunner().invoke(cli, ["conformance", "memory", "--loop", "uvloop"])
    assert outcome.exit_code == Exit.USAGE
    assert "needs uvloop, which is not installed" in outcome.output


def test_eager_tasks_need_a_python_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    with pytest.raises(ValueError, match=r"eager tasks need Python 3\.12"):
        Conditions(tasks="eager").check()
    outcome = CliRunner().invoke(cli, ["conformance", "memory", "--eager-tasks"])
    assert outcome.exit_code == Exit.USAGE
    assert "eager tasks need Python 3.12 or newer" in outcome.output


SUITE = f"""
from wsbridge.conformance import ConnectorSuite

class TestIt(ConnectorSuite):
    connector = "tests.test_conformance_conditions:Demanding"
    rules = ["{CHECK}"]
    debug = True
"""


def test_a_suite_class_has_them_as_attributes_and_the_rest_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    code, said = pytests(tmp_path, "--loop", "uvloop")
    assert (code, "1 passed" in said) == (0, True), said
    code, said = pytests(tmp_path)
    assert (code, "1 failed" in said) == (1, True), said
    assert "it was started under debug=on" in said


def test_without_a_class_the_command_line_says_all(tmp_path: Path) -> None:
    options = ("--pyargs", "wsbridge.conformance", "--connector", "tests.test_conformance_conditions:Demanding")
    code, said = pytests(tmp_path, *options, "--loop", "uvloop", "--loop-debug", "-k", CHECK)
    assert (code, "1 passed" in said) == (0, True), said
