"""Connectors in distributions of their own: one by its module path, one installed and found by its entry point.

The installation and the suite on it take about two minutes and a package index, so they run where
``WSBRIDGE_OUT_OF_TREE=1`` says so: in one environment, not in each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.node import missing
from wsbridge.conformance import SuiteResult, Verdict, load_results
from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.registry import SERVERS, load_connector

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "wsbridge-sanic"

BARE = ROOT / "examples" / "wsbridge-wsproto"

PAGES = {
    ROOT / "docs" / "writing-a-connector.md": [EXAMPLE, BARE, ROOT / "tests" / "guide"],
    EXAMPLE / "README.md": [EXAMPLE],
}
"""The pages about the examples, each with the folders whose code it shows."""

FEW = 4
"""Checks of each group, which are enough to see whether an example is broken; all of them take two minutes."""

out_of_tree = pytest.mark.skipif(
    os.environ.get("WSBRIDGE_OUT_OF_TREE") != "1", reason="WSBRIDGE_OUT_OF_TREE=1 installs the Sanic connector"
)
_UNREACHABLE = re.compile(r"No matching distribution|not find a version|NewConnectionError|[Tt]imed? ?out|SSLError")


def run(
    command: Sequence[str | Path], folder: Path, timeout: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or end it with all that it has started.

    Raises:
        subprocess.TimeoutExpired: It took longer than ``timeout``.
    """
    words = [str(word) for word in command]
    with subprocess.Popen(
        words,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, output)


class Environment:
    """A virtual environment with the checkout's wsbridge and the example in it, and nothing from here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "venv"
        self.bin = self.home / "bin"
        # neither this environment's packages nor a pytest configuration of the user's
        leave_out = {"PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "VIRTUAL_ENV", "PYTHONDEVMODE"}
        self.env = {name: value for name, value in os.environ.items() if name not in leave_out}

    def __call__(self, program: str, *arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return run([self.bin / program, *arguments], self.folder, timeout, self.env)

    def install(self) -> None:
        made = run([sys.executable, "-m", "venv", self.home], self.folder, 120, self.env)
        assert made.returncode == 0, made.stdout
        # both in one command: wsbridge is then the checkout's, and not looked for on the index
        command = ["-m", "pip", "install", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
        try:
            done = self("python", *command, f"{ROOT}[conformance]", EXAMPLE, timeout=300)
        except subprocess.TimeoutExpired:
            missing("pip install did not end within 300 s: is the package index within reach?")
            raise
        if done.returncode != 0:
            said = [line.strip() for line in done.stdout.splitlines()]
            last = [line for line in said if line.startswith("ERROR")] or said[-3:]
            if _UNREACHABLE.search(done.stdout):
                missing(f"pip install failed, is the package index within reach? {' '.join(last[:3])}")
            pytest.fail(done.stdout, pytrace=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("out-of-tree")
    made = Environment(folder)
    made.install()
    yield made
    shutil.rmtree(made.home)


@out_of_tree
def test_it_is_found_by_its_entry_point(environment: Environment) -> None:
    done = environment("wsbridge", "connectors", "--json")
    assert done.returncode == 0, done.stdout
    found = {info["name"]: info for info in json.loads(done.stdout)}
    assert set(found) == {*SERVERS, "memory", "sanic"}
    assert found["sanic"]["distribution"] == "wsbridge-sanic"
    assert found["sanic"]["connector"] == "wsbridge_sanic:Connector"
    assert found["sanic"]["installed"]


@out_of_tree
def test_both_are_the_checkouts(environment: Environment) -> None:
    where = "import wsbridge, wsbridge_sanic; print(wsbridge.__file__, wsbridge_sanic.__file__, sep='\\n')"
    done = environment("python", "-c", where)
    assert done.returncode == 0, done.stdout
    assert all(Path(line).is_relative_to(environment.home) for line in done.stdout.splitlines()), done.stdout
    checked = environment("python", "-m", "pip", "check", "--disable-pip-version-check")
    assert checked.returncode == 0, checked.stdout


@out_of_tree
def test_the_suite_passes_on_it(environment: Environment) -> None:
    report = environment.folder / "sanic.json"
    done = environment("wsbridge", "conformance", "sanic", "--conditions", "plain", "--json", report, timeout=400)
    results = load_results(report) if report.exists() else []
    failures = [f"{failed.check}: {failed.message}" for result in results for failed in result.failures]
    assert failures == [], done.stdout
    assert done.returncode == 0, done.stdout
    (result,) = results
    assert result.conformant
    assert result.problems == ()
    assert {"wsbridge", "wsbridge-sanic", "sanic", "websockets"} <= set(result.target.packages)
    assert lacking(result) == {"compression", "fragments", "mount"}
    assert set(result.target.deviations) == {
        "LIM-1/a-head-that-is-cut",
        "LIM-1/smaller-limit-at-once",
        "LIM-6/held-to-any-limit",
    }


def lacking(result: SuiteResult) -> set[str]:
    refused = [one.message for one in result.results if one.verdict is Verdict.UNSUPPORTED]
    return {feature for message in refused for feature in message.partition(":")[0].split(", ")}


@out_of_tree
def test_its_own_tests_run(environment: Environment) -> None:
    folder = environment.folder / "wsbridge-sanic"
    shutil.copytree(EXAMPLE / "tests", folder / "tests")
    shutil.copy(EXAMPLE / "pyproject.toml", folder)
    done = environment("python", "-m", "pytest", "-q", folder, "-k", "HS-5 or RECV-7", timeout=120)
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9]\d* passed", done.stdout), done.stdout


# ---- the one on a bare asyncio protocol, by its module path ----------------------------------------------------------


def few_of_each_group() -> list[Check]:
    """Return the first check of each of the first rules of every group."""
    first: dict[str, Check] = {}
    for check in all_checks():
        first.setdefault(check.rule, check)
    groups: dict[str, list[Check]] = {}
    for rule, check in first.items():
        groups.setdefault(rule.partition("-")[0], []).append(check)
    return [check for checks in groups.values() for check in checks[:FEW]]


@pytest.mark.parametrize("check", few_of_each_group(), ids=lambda check: check.id)
def test_the_bare_protocol_keeps_the_contract(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h11")
    pytest.importorskip("wsproto")
    monkeypatch.syspath_prepend(str(BARE / "src"))
    connector = load_connector("wsbridge_wsproto:Connector")
    result = run_check(check, SuiteTarget("wsbridge_wsproto:Connector", connector))
    lacking = check.needs - connector.features
    assert lacking <= {"compression", "fragments", "mount"}
    assert result.verdict is (Verdict.UNSUPPORTED if lacking else Verdict.PASS), failure_text(result, check.title)


# ---- what is said about them ----------------------------------------------------------------------------------------


def blocks(page: Path, language: str) -> list[str]:
    """Return the parts of a page's code; a line of dots leaves something out."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [part for block in found for part in re.split(r"^\.\.\.\n", block, flags=re.MULTILINE)]


def is_part(code: str, whole: str) -> bool:
    """Tell whether lines of code stand together in a file, however deep, and with however many blank ones between."""
    lines, source = ([line for line in text.splitlines() if line.strip()] for text in (code, whole))
    spans = ("\n".join(source[start : start + len(lines)]) for start in range(len(source)))
    return any(textwrap.dedent(span).strip() == "\n".join(lines).strip() for span in spans)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(("language", "pattern"), [("python", "**/*.py"), ("toml", "pyproject.toml")])
def test_the_code_on_a_page_is_the_examples(page: Path, language: str, pattern: str) -> None:
    sources = [path.read_text(encoding="utf-8") for folder in PAGES[page] for path in sorted(folder.glob(pattern))]
    found = blocks(page, language)
    assert found
    assert [code for code in found if not any(is_part(code, source) for source in sources)] == []


def test_names_of_checks_on_the_pages_are_checks() -> None:
    known = {check.id for check in all_checks()}
    for page in PAGES:
        named = set(re.findall(r"\b[A-Z]+-\d+/[a-z][a-z0-9-]+", page.read_text(encoding="utf-8")))
        assert named <= known, named - known
