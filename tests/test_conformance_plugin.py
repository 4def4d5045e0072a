"""The pytest door: the suite as tests, and a plugin that nobody notices who does not use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wsproto")  # the extra conformance

pytestmark = pytest.mark.suite

BAD = "tests.conformance.misbehaving"
ONE = "RECV-1/texts-arrive-exactly"
ROOT = Path(__file__).parents[1]


def pytests(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest in ``folder`` as a project of its own does."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE"))}
    # this project's folder, for its misbehaving connectors, before what leads to the wsbridge under test
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["-p", "no:asyncio", "-W", "error", *arguments]  # pytest-asyncio asks for settings
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_each_check_is_a_test_that_k_selects(tmp_path: Path) -> None:
    code, said = pytests(
        tmp_path, "--pyargs", "wsbridge.conformance", "--connector", "aiohttp", "-v", "-k", f"{ONE} or RECV-10/"
    )
    assert code == 0, said
    assert f"test_rule[aiohttp-{ONE}] PASSED" in said
    assert "PASSED (unsupported)" in said
    assert "= conformance: declared =" in said
    assert "unsupported: fragments: refused" in said
    assert "skipped" not in said


def test_several_connectors_stand_side_by_side(tmp_path: Path) -> None:
    connectors = ("--connector", "aiohttp", "--connector", f"{BAD}:StopLeavesATask")
    options = (*connectors, "--timeout-scale", "2", "--repeat", "2")
    code, said = pytests(tmp_path, "--pyargs", "wsbridge.conformance", *options, "-k", ONE)
    assert code == 1
    assert "1 failed, 1 passed" in said
    assert f"{ONE}: task left running: " in said
    assert "  promised  Text messages come through" in said


def test_a_failure_shows_wire_and_callbacks(tmp_path: Path) -> None:
    options = ("--connector", f"{BAD}:StopLeavesATask", "--timeout-scale", "0.1")
    code, said = pytests(tmp_path, "--pyargs", "wsbridge.conformance", *options, "-k", "RECV-1/texts-are-str")
    assert code == 1
    assert "wire, 1 client of / (--> to the server, <-- from it):" in said
    assert "  rule      RECV-1 (RFC 6455, 5.6): A text message is delivered as a `str`" in said
    assert "  often     What is named was still there after stop()" in said
    assert "TEXT masked length=" in said
    assert "callback log:" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "say what to check: --connector NAME, module:Class or ws://host:port"),
        (("--connector", "nope"), "there is no connector 'nope'"),
        (("--connector", "ws://127.0.0.1:9"), "nobody listens at ws://127.0.0.1:9: Connection refused"),
    ],
)
def test_what_is_no_target_ends_the_run_with_a_line(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    code, said = pytests(tmp_path, "--pyargs", "wsbridge.conformance", *options)
    assert code == 2
    assert told in said
    assert "Traceback" not in said


def test_collecting_starts_nothing(tmp_path: Path) -> None:
    options = ("--connector", "ws://127.0.0.1:9", "--connector", f"{BAD}:StartHangs", "--collect-only", "-q")
    code, said = pytests(tmp_path, "--pyargs", "wsbridge.conformance", *options)
    assert code == 0
    assert f"test_rule[ws://127.0.0.1:9-{ONE}]" in said


def test_the_model_is_a_test_too(tmp_path: Path) -> None:
    options = ("--connector", "aiohttp", "--connector", "ws://127.0.0.1:9", "--model", "--collect-only", "-q")
    code, said = pytests(tmp_path, "--pyargs", "wsbridge.conformance", *options)
    assert code == 0
    assert [line.partition("[")[2] for line in said.splitlines() if "random-sequences" in line] == [
        "aiohttp-RECV-4/random-sequences]"
    ]


# ---- a project of its own -------------------------------------------------------------------------------------------


def test_a_few_lines_are_a_test_file(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from wsbridge.conformance import ConnectorSuite\n"
        "from wsbridge.connectors.aiohttp import Connector as Base\n"
        "class Connector(Base):\n"
        "    pass\n"
        "class TestMine(ConnectorSuite):\n"
        "    connector = Connector\n"
        f"    rules = ['{ONE}', 'RECV-10']\n"
    )
    code, said = pytests(tmp_path, "-v")
    assert code == 0, said
    assert f"test_mine.py::TestMine::test_rule[Connector-{ONE}] PASSED" in said
    assert "PASSED (unsupported)" in said


def test_what_is_known_to_fail_is_an_xfail_and_strict(tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(f'["{ONE}"]\nreason = "no wheels"\nlink = "https://example.org/1"\n')
    (tmp_path / "test_mine.py").write_text(
        "import pathlib\n"
        "from wsbridge.conformance import ConnectorSuite\n"
        "class TestBad(ConnectorSuite):\n"
        f"    connector = '{BAD}:StopLeavesATask'\n"
        f"    rules = ['{ONE}']\n"
        "    known_failing = pathlib.Path(__file__).with_name('known.toml')\n"
        "class TestGood(TestBad):\n"
        "    connector = 'aiohttp'\n"
        "class TestRule(ConnectorSuite):\n"
        "    connector = 'aiohttp'\n"
        "    rules = ['RECV-1']\n"
        "    known_failing = {'RECV-1': 'it was so once'}\n"
    )
    code, said = pytests(tmp_path, "-rx", "-v")
    assert code == 1
    assert "no wheels https://example.org/1" in said
    assert f"TestGood::test_rule[aiohttp-{ONE}] FAILED" in said
    assert f"{ONE} is listed as known to fail, but passes: take it off the list" in said
    assert "TestRule::test_rule[aiohttp-known-failing/RECV-1] FAILED" in said
    assert "2 failed" in said
    assert "1 xfailed" in said


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", "TestMine needs: connector = 'module:Class'"),
        ("connector = 'aiohttp'; rules = ['RECV-99']", "there is no rule, check or group of rules 'RECV-99'"),
        ("connector = 'aiohttp'; known_failing = {'RECV-99': 'r'}", "lists RECV-99, which is no rule or check"),
        ("connector = 'aiohttp'; known_failing = 'nowhere.toml'", "nowhere.toml"),
        (
            "connector = 'aiohttp'; rule = ['RECV-1']",
            "rule is no option of ConnectorSuite; did you mean rules?",
        ),
        (
            "connector = 'aiohttp'; known_failling = {}",
            "is no option of ConnectorSuite; did you mean known_failing?",
        ),
        ("connector = 'aiohttp'; port = 8000", "port is no option of ConnectorSuite; there are connector, rules"),
    ],
)
def test_a_wrong_class_is_told(tmp_path: Path, body: str, told: str) -> None:
    (tmp_path / "test_mine.py").write_text(
        f"from wsbridge.conformance import ConnectorSuite\nclass TestMine(ConnectorSuite): {body}\n"
    )
    code, said = pytests(tmp_path)
    assert code == 2
    assert told in said


def test_a_class_may_have_values_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import pytest\n"
        "from wsbridge.conformance import ConnectorSuite\n"
        "class Mixin:\n"
        "    port = 8000\n"
        "class TestMine(Mixin, ConnectorSuite):\n"
        "    'Mine.'\n"
        "    pytestmark = [pytest.mark.filterwarnings('error')]\n"
        "    connector = 'aiohttp'\n"
        f"    rules = ['{ONE}']\n"
        "    _mine = 1\n"
        "    @pytest.fixture(autouse=True)\n"
        "    def around(self): yield\n"
    )
    code, said = pytests(tmp_path)
    assert code == 0, said
    assert "1 passed" in said


def test_a_run_of_the_suite_alone_ends_where_its_target_is_dead(tmp_path: Path) -> None:
    options = ("--connector", f"{BAD}:StartRaises", "-k", "RECV-1/", "--timeout-scale", "0.2")
    code, said = pytests(tmp_path, "--pyargs", "wsbridge.conformance", *options)
    assert code == 2
    assert "1 failed" in said
    assert "the connector cannot start: RuntimeError: no wheels" in said


def test_a_class_whose_target_is_not_there_fails_its_tests(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from wsbridge.conformance import ConnectorSuite\n"
        f"class TestMine(ConnectorSuite): connector = 'nope'; rules = ['{ONE}']\n"
        "def test_other(): pass\n"
    )
    code, said = pytests(tmp_path)
    assert code == 1
    assert "there is no connector 'nope'" in said
    assert "1 failed, 1 passed" in said


# ---- unused ---------------------------------------------------------------------------------------------------------


def test_it_costs_nothing_unused(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_nothing_is_imported():\n"
        "    assert [name for name in sys.modules if name.startswith('wsbridge')] == []\n"
    )
    code, said = pytests(tmp_path)
    assert code == 0, said
    assert re.search("^plugins: .*wsbridge-", said, re.MULTILINE)  # and yet it is there


def test_options_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--model', default='theirs')\n"
        "    parser.addoption('--connector', default='theirs')\n"
    )
    (tmp_path / "test_other.py").write_text(
        "def test_theirs(request):\n"
        "    assert request.config.getoption('--model') == 'theirs'\n"
        "    assert request.config.getoption('--connector') == 'theirs'\n"
    )
    assert pytests(tmp_path)[0] == 0
    code, said = pytests(tmp_path, "--help")
    assert code == 0
    assert "--wsbridge-connector" in said
    assert "--wsbridge-model" in said


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from wsbridge.conformance import ConnectorSuite\n"
        f"class TestMine(ConnectorSuite): connector = 'aiohttp'; rules = ['{ONE}']\n"
    )
    code, said = pytests(tmp_path, "-p", "no:wsbridge")
    assert code == 0, said
    assert "1 passed" in said
