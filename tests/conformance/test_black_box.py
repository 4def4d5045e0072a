"""The suite from outside: two servers that are no connectors of ours, in two languages, each in its own process."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.node import installed
from wsbridge.cli import cli
from wsbridge.conformance import SuiteResult, load_results, run
from wsbridge.conformance.harness.session import Session

pytestmark = pytest.mark.suite

pytestmark = pytest.mark.suite

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(command: list[str], folder: Path) -> Iterator[str]:
    """Run a server until the test is done; it prints where it listens."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"(?:ws|http)://(127\.0\.0\.1:\d+)", line):
                # what it says later must not fill the pipe
                drain = threading.Thread(target=process.stdout.read)
                drain.start()
                yield f"ws://{found[1]}"
                process.terminate()
                drain.join()
                return
        pytest.fail(f"{command[0]} did not start: {''.join(said)}")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable, folder = installed(EXAMPLES / "reference-node", tmp_path_factory.mktemp("node"))
    yield from started([executable, "server.js", "0"], folder)


@pytest.fixture(scope="module")
def asgi() -> Iterator[str]:
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0", "--no-access-log"]
    # the options that the example's own documentation names
    yield from started([*command, "--ws", "websockets-sansio", "--ws-max-size", "1048576"], EXAMPLES / "reference-asgi")


def checked(url: str, example: str, repeat: int = 1) -> SuiteResult:
    known = EXAMPLES / example / "known-failing.toml"
    return run(url, repeat=repeat, known_failing=known if known.exists() else None)


@pytest.mark.parametrize("example", ["node", "asgi"])
def test_a_server_that_is_no_connector_is_checked(example: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(example)
    result = checked(url, f"reference-{example}")
    assert [(failed.check, failed.message) for failed in result.failures] == []
    assert result.problems == ()
    assert result.conformant
    assert [one.check for one in result.results] == [check.id for check in Session.applicable(is_url=True)]
    assert len(result.results) > 50
    assert (result.target.kind, result.target.name) == ("url", url)
    # the report says what was not checked
    unchecked = {rule.id for rule in result.not_checked}
    assert {"OPEN-2", "RECV-5", "STOP-3"} <= unchecked
    assert "RECV-1" not in unchecked


def test_the_command_line_checks_a_url(node: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = CliRunner().invoke(cli, ["conformance", node, "--rule", "RECV-1", "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert [one.target.name for one in load_results(report)] == [node]


def test_a_url_with_a_path_is_checked_below_it(node: str) -> None:
    result = CliRunner().invoke(cli, ["conformance", f"{node}/deeper", "--rule", "RECV-1"])
    assert result.exit_code == 2
    serves = f"{node}/deeper serves HTTP, but no reference application (docs/reference-app.md)"
    assert result.output == f"Error: {serves}: /deeper/echo answered 404 Refused, not 101\n"


def test_the_lock_file_names_no_registry() -> None:
    lock = (EXAMPLES / "reference-node" / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock
