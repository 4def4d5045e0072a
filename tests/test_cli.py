"""The command line: in a process of its own where signals, exit codes and imports count, else by click's runner."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import importlib
import importlib.metadata
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import wsbridge
from tests.processes import (
    ECHO,
    INSTALLED,
    TIMEOUT,
    WSBRIDGE,
    children,
    client_for,
    command,
    each_connector,
    failed,
    processes,
    running,
    serving,
    write_application,
)
from wsbridge import Application, registry
from wsbridge.cli import Exit, cli
from wsbridge.cli.client import CLIENTS, Client, ClosedReason, ConnectError, Target, choose_client
from wsbridge.cli.lazy import LazyCommand
from wsbridge.protocols import CONNECTOR_API

pytestmark = pytest.mark.slow


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    """A folder with an application, and a connector that needs no server."""
    write_application(tmp_path)
    return tmp_path


def invoke(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, arguments, **options)


# ---- every command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["serve", "connectors", "connect", "demo"])
def test_help_has_an_example_and_the_exit_codes(name: str) -> None:
    result = invoke(name, "--help")

    assert result.exit_code == Exit.OK
    assert re.search(rf"Examples?:\n.*wsbridge {name}", result.output, re.DOTALL)
    assert re.search(r"Exit codes:\n +0  done", result.output)


def test_help_of_serve_documents_each_of_its_exit_codes() -> None:
    output = invoke("serve", "--help").output

    for code in Exit:
        if code <= Exit.NO_EXTRA or code is Exit.BAD_CERTIFICATE:
            assert re.search(rf"^ +{code.value}  {re.escape(code.meaning)}$", output, re.MULTILINE), code


def test_help_of_the_whole_lists_every_command() -> None:
    result = invoke("--help")

    assert result.exit_code == Exit.OK
    for name in ("serve", "connectors", "connect", "demo", "conformance"):
        assert re.search(rf"^  {name} ", result.output, re.MULTILINE)


@pytest.mark.parametrize("name", ["serve", "connectors", "connect", "demo"])
def test_a_command_is_listed_with_the_first_line_of_its_help(name: str) -> None:
    listed = cli.commands[name]
    assert isinstance(listed, LazyCommand)

    assert listed.short_help == (listed.load().help or "").partition("\n")[0]


def test_version() -> None:
    assert invoke("--version").output == f"wsbridge, version {wsbridge.__version__}\n"


def test_the_console_script_is_the_command_line() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"wsbridge": "_wsbridge_main:main"}
    done = subprocess.run(
        [sys.executable, "-c", "import _wsbridge_main; _wsbridge_main.main()", "--version"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wsbridge, version {wsbridge.__version__}\n"


def test_a_lazy_command_is_imported_when_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_command.py").write_text(
        textwrap.dedent(
            """
            import click
            @click.command()
            @click.argument("word")
            def shout(word):
                "Shout a word."
                click.echo(word.upper())
            """
        )
    )
    (tmp_path / "lazy_lacking.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    group = click.Group()
    group.add_command(LazyCommand("shout", "lazy_command:shout", extra="loud", short_help="Shout."))
    group.add_command(LazyCommand("lacks", "lazy_lacking:lacks", extra="loud", short_help="Lack."))

    assert "shout  Shout." in CliRunner().invoke(group, ["--help"]).output
    assert "lazy_command" not in sys.modules
    assert CliRunner().invoke(group, ["shout", "hey"]).output == "HEY\n"
    assert "Shout a word." in CliRunner().invoke(group, ["shout", "--help"]).output
    result = CliRunner().invoke(group, ["lacks"])
    assert result.exit_code == Exit.NO_EXTRA
    assert result.output == (
        'Error: lacks needs a_package_that_is_not_there, which is not installed. Run: pip install ".[loud]"\n'
    )


# ---- serve --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STOP-1", "STOP-2")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@each_connector
async def test_stop_2_serve_until_a_signal(app_dir: Path, connector: str, signum: signal.Signals) -> None:
    async with serving(app_dir, connector=connector) as process:
        found = await process.line(rf"{connector} listens on (ws://127\.0\.0\.1:\d+)$")
        async with client_for(connector).connect(Target(f"{found[1]}/echo")) as client:
            assert await client.send_text("hello")
            assert await client.receive() == "hello"
            code = asyncio.ensure_future(process.end(signum))
            end = await client.receive()
        assert await code == Exit.OK
    assert (end.code, end.text) == (1001, "server shutdown")  # type: ignore[union-attr]
    assert len(process.lines) == 2
    assert process.lines[1].endswith(f"{connector} stops")


@pytest.mark.rule("STOP-2")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_stop_2_serve_without_a_peer(app_dir: Path, signum: signal.Signals) -> None:
    async with serving(app_dir) as process:
        await process.url()
        assert await process.end(signum) == Exit.OK


@pytest.mark.rule("STOP-4", "STOP-7")
async def test_stop_4_serve_on_a_unix_socket(app_dir: Path) -> None:
    path = app_dir / "socket"
    where = ("--unix-path", str(path), "--unix-mode", "0660", "--unix-owner", str(os.getuid()))
    arguments = ("serve", "echo:app", "-c", "stub:Connector", *where)
    async with running(*WSBRIDGE, *arguments, cwd=app_dir) as process:
        assert await process.url() == f"ws+unix://{path}"
        assert path.is_socket()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await process.end(signal.SIGTERM) == Exit.OK
    assert not path.exists()


async def test_serve_takes_the_connector_from_the_environment(app_dir: Path) -> None:
    arguments = ("serve", "echo:app", "--port=0")
    async with running(*WSBRIDGE, *arguments, cwd=app_dir, WSBRIDGE_CONNECTOR="stub:Connector") as process:
        await process.line("stub listens on")
        assert await process.end(signal.SIGTERM) == Exit.OK


def serve_in_place(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let the command stop where it would serve; return what it would have served with."""
    calls: list[dict[str, Any]] = []

    def run(application: Application, connector: type[Any], **options: Any) -> None:
        calls.append({"application": application, "connector": connector, **options})

    monkeypatch.setattr("wsbridge.cli.serve.run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return calls


@pytest.mark.parametrize(
    ("names", "code", "line"),
    [
        (["stub:Connector"], Exit.OK, ""),
        (
            ["one", "two"],
            Exit.NO_CONNECTOR,
            "Error: say which connector by --connector or WSBRIDGE_CONNECTOR; installed are one, two\n",
        ),
        ([], Exit.NOT_INSTALLED, "Error: no connector is installed. Run one of: "),
    ],
)
def test_serve_without_a_connector_named(
    app_dir: Path, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], code: Exit, line: str
) -> None:
    monkeypatch.delenv("WSBRIDGE_CONNECTOR", raising=False)
    monkeypatch.setattr(registry, "connector_names", lambda **_: tuple(names))
    calls = serve_in_place(monkeypatch)

    result = invoke("serve", "echo:app", f"--app-dir={app_dir}")

    assert result.exit_code == code, result.output
    assert result.output.startswith(line)
    assert len(calls) == (code is Exit.OK)
    for module in ("echo", "stub"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("target", "code", "line"),
    [
        ("ecko:app", Exit.NO_MODULE, "there is no module 'ecko' in {dir!r} or on sys.path; did you mean 'echo'?"),
        ("deep.er:app", Exit.NO_MODULE, "there is no module 'deep' in {dir!r} or on sys.path"),
        (
            "raises:app",
            Exit.MODULE_FAILED,
            "module 'raises' failed to import: ZeroDivisionError: division by zero ({dir}/raises.py, line 2)",
        ),
        ("says:app", Exit.MODULE_FAILED, "module 'says' failed to import: KeyError ({dir}/says.py, line 1)"),
        (
            "wrong:app",
            Exit.MODULE_FAILED,
            "module 'wrong' failed to import: ValueError: max_text_size must be at least 1, not 0 "
            "({dir}/wrong.py, line 3)",
        ),
        (
            "needs:app",
            Exit.MODULE_FAILED,
            "module 'needs' failed to import: ModuleNotFoundError: No module named 'not_there' "
            "({dir}/needs.py, line 1)",
        ),
        (
            "syntax:app",
            Exit.MODULE_FAILED,
            "module 'syntax' failed to import: SyntaxError: invalid syntax (syntax.py, line 1)",
        ),
        ("exits:app", Exit.MODULE_FAILED, "module 'exits' failed to import: SystemExit: 3 ({dir}/exits.py, line 1)"),
        ("echo:ap", Exit.NO_ATTRIBUTE, "module 'echo' has no attribute 'ap'; it has 'app'"),
        ("says_nothing:app.deeper", Exit.NO_ATTRIBUTE, "module 'says_nothing' has no attribute 'app.deeper'"),
        ("echo:number", Exit.NO_APPLICATION, "echo:number must be a wsbridge.Application; it is of type 'int'"),
        ("echo", Exit.USAGE, "'echo' must be written as MODULE:APP, such as 'echo:app'"),
        ("some/echo.py", Exit.USAGE, "'some/echo.py' must be written as MODULE:APP, such as 'echo:app'"),
        (":app", Exit.USAGE, "':app' must be written as MODULE:APP, such as ':app:app'"),
    ],
)
def test_serve_a_wrong_application(app_dir: Path, target: str, code: Exit, line: str) -> None:
    sources = {
        "raises": "\n1 / 0",
        "says": "raise KeyError",
        "wrong": "from wsbridge import WebSocketOptions\n\nWebSocketOptions(max_text_size=0)",
        "needs": "import not_there",
        "syntax": "def f(:",
        "exits": "raise SystemExit(3)",
        "says_nothing": "app = 1",
    }
    for name, source in sources.items():
        (app_dir / f"{name}.py").write_text(source)

    result = command("serve", target, f"--app-dir={app_dir}", "--connector=stub:Connector", "--port=0")

    assert failed(result, code) == line.format(dir=str(app_dir))


def test_serve_debug_shows_the_traceback(app_dir: Path) -> None:
    (app_dir / "raises.py").write_text("1 / 0")

    result = command("serve", "raises:app", f"--app-dir={app_dir}", "--connector=stub:Connector", "--debug")

    assert result.returncode == Exit.MODULE_FAILED
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1].startswith("Error: module 'raises' failed to import: ")


@pytest.mark.rule("REG-2", "REG-3", "REG-5")
@pytest.mark.parametrize(
    ("connector", "code", "line"),
    [
        ("aiohtp", Exit.NO_CONNECTOR, r"there is no connector 'aiohtp'\. Did you mean 'aiohttp'\? Installed: .*"),
        ("nowhere:Connector", Exit.NO_CONNECTOR, "there is no module 'nowhere' to import 'nowhere:Connector' from"),
        (
            "old:Connector",
            Exit.CONNECTOR_FAILED,
            "the connector 'old:Connector' cannot be used: ConnectorVersionError: the connector 'old:Connector' was "
            f"written for version 0 of the connector interface; this wsbridge has version {CONNECTOR_API}. "
            r"docs/writing-a-connector\.md tells what has changed",
        ),
        (
            "raises:Connector",
            Exit.CONNECTOR_FAILED,
            r"the connector 'raises:Connector' cannot be used: ZeroDivisionError: division by zero \(.*, line 1\)",
        ),
        (
            "stub:Featureless",
            Exit.UNSUPPORTED,
            "the stub connector cannot honour ping_interval: its server cannot ping; set it to None",
        ),
    ],
)
def test_reg_serve_a_wrong_connector(app_dir: Path, connector: str, code: Exit, line: str) -> None:
    (app_dir / "raises.py").write_text("1 / 0")
    (app_dir / "old.py").write_text("import stub\nclass Connector(stub.Connector):\n    connector_api = 0\n")

    result = command("serve", "echo:app", f"--app-dir={app_dir}", f"--connector={connector}", "--port=0")

    assert re.fullmatch(line, failed(result, code))


@pytest.mark.rule("STOP-1")
def test_stop_1_serve_where_it_cannot_listen(app_dir: Path) -> None:
    serve = ("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = command(*serve, f"--port={port}")
    assert failed(result, Exit.CANNOT_LISTEN) == f"cannot listen on 127.0.0.1 port {port}: Address already in use"

    path = str(app_dir / "no-folder" / "socket")
    line = failed(command(*serve, f"--unix-path={path}"), Exit.CANNOT_LISTEN)
    assert line == f"cannot listen on Unix socket {path!r}: No such file or directory"

    line = failed(command(*serve, f"--host={'x' * 70}.invalid", "--port=0"), Exit.CANNOT_LISTEN)
    assert line.startswith(f"cannot listen on {'x' * 70}.invalid port 0: ")


def test_serve_an_oserror_while_it_runs_is_no_failure_to_listen(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(application: Application, connector: type[Any], **options: Any) -> None:
        options["on_listening"](connector)
        raise OSError("later")

    serve_in_place(monkeypatch)
    monkeypatch.setattr("wsbridge.cli.serve.run", run)

    result = invoke("serve", "echo:app", f"--app-dir={app_dir}", "--connector=stub:Connector")

    assert result.exit_code == Exit.FAILURE
    assert repr(result.exception) == "OSError('later')"
    for module in ("echo", "stub"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unix-mode=660"], "--unix-mode needs --unix-path"),
        (["--unix-owner=0"], "--unix-owner needs --unix-path"),
        (["--unix-path=x", "--unix-mode=9"], "'9' must be permissions in octal, such as 660"),
        (["--unix-path=x", "--unix-mode=1777"], "'1777' must be permissions in octal, such as 660"),
        (["--unix-path=x", "--unix-owner=no such user"], "this system has no user 'no such user'"),
        (["--unix-path=x", "--port=1"], "--unix-path stands alone: leave out --port"),
        (["--unix-path=x", "--host=y"], "--unix-path stands alone: leave out --host"),
        (["--shutdown-timeout=0"], "Invalid value for '--shutdown-timeout': it must be positive and finite, not 0.0"),
        (["--shutdown-timeout=nan"], "it must be positive and finite, not nan"),
        (["--port=65536"], "65536 is not in the range 0<=x<=65535"),
        (["--app-dir=/no/such/folder"], "does not exist"),
    ],
)
def test_serve_wrong_arguments(options: Sequence[str], message: str) -> None:
    result = invoke("serve", "echo:app", "--connector=stub:Connector", *options)

    assert result.exit_code == Exit.USAGE
    assert message in result.output


# ---- serve --reload -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_reload_starts_afresh_at_a_change_and_ends_with_its_child(app_dir: Path, signum: signal.Signals) -> None:
    pytest.importorskip("watchfiles")
    async with serving(app_dir, "--reload") as process:
        await process.url()
        [first] = children(process)
        (app_dir / "echo.py").write_text(ECHO.replace("app =", "print('changed', flush=True)\napp ="))
        await process.line(r"echo\.py changed; starting again")
        await process.line("stub stops")
        await process.url()
        await process.line("changed", stdout=True)
        [second] = children(process)
        assert first.pid != second.pid
        assert not first.is_running()
        assert await process.end(signum) == Exit.OK
        assert not second.is_running()


async def test_reload_waits_for_a_module_to_be_mended(app_dir: Path) -> None:
    pytest.importorskip("watchfiles")
    (app_dir / "echo.py").write_text("1 / 0")
    async with serving(app_dir, "--reload") as process:
        await process.line("module 'echo' failed to import: ZeroDivisionError")
        await process.line("waiting for a change")
        (app_dir / "echo.py").write_text(ECHO)
        await process.url()
        assert await process.end(signal.SIGTERM) == Exit.OK


async def test_reload_ends_with_the_exit_code_of_what_no_edit_mends(app_dir: Path) -> None:
    pytest.importorskip("watchfiles")
    async with serving(app_dir, "--reload", connector="nowhere:Connector") as process:
        assert await process.end() == Exit.NO_CONNECTOR
    assert process.lines == ["Error: there is no module 'nowhere' to import 'nowhere:Connector' from"]


async def test_reload_a_child_outlives_no_parent(app_dir: Path) -> None:
    pytest.importorskip("watchfiles")
    async with serving(app_dir, "--reload") as process:
        await process.url()
        [child] = children(process)
        process.process.kill()
        await process.line("stub stops")  # its stderr is the child's too
        await process.end()
    async with asyncio.timeout(TIMEOUT):
        # nobody here is told of the end of a process whose parent is gone
        while child.is_running() and child.status() != processes().STATUS_ZOMBIE:  # noqa: ASYNC110  (see above)
            await asyncio.sleep(0.01)


def test_reload_needs_its_extra(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    result = invoke("serve", "echo:app", "--reload")

    assert result.exit_code == Exit.NO_EXTRA
    assert result.output == ('Error: --reload needs watchfiles, which is not installed. Run: pip install ".[reload]"\n')


# ---- with no server installed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of wsbridge in an interpreter that finds wsbridge, its two dependencies, and nothing else."""
    site = tmp_path_factory.mktemp("site")
    for name in ("wsbridge", "werkzeug", "click", "markupsafe"):
        (site / name).symlink_to(Path(str(importlib.import_module(name).__file__)).parent)
    found = importlib.metadata.distribution("wsbridge")
    info = site / "wsbridge-0.1.0.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (info / name).write_text(found.read_text(name) or "")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-W", "error", "-P", "-m", "wsbridge.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    return run


Bare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.rule("REG-1")
def test_reg_1_connectors_with_none_installed(bare: Bare) -> None:
    result = bare("connectors", "--check")

    assert (result.returncode, result.stderr) == (Exit.OK, "")
    head, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["NAME", "FROM", "SERVER", "STATUS"]
    names = [row.split()[0] for row in rows]
    assert names == sorted({*registry.SERVERS, "memory"})
    assert rows.pop(names.index("memory")).split() == ["memory", "wsbridge", "0.1.0", "-", "works"]
    install = 'not installed: pip install ".[tornado]" (in a checkout of wsbridge) or pip install "tornado>=6.4"'
    tornado = next(row for row in rows if row.startswith("tornado"))
    assert tornado.split(maxsplit=4) == ["tornado", "wsbridge", "0.1.0", "tornado", install]
    assert len({row.index("not installed") for row in rows} | {head.index("STATUS")}) == 1


@pytest.mark.rule("REG-1")
def test_reg_1_connectors_as_json_with_none_installed(bare: Bare) -> None:
    rows = json.loads(bare("connectors", "--json").stdout)

    assert rows[0] == {
        "name": "aiohttp",
        "distribution": "wsbridge",
        "version": "0.1.0",
        "connector": "wsbridge.connectors.aiohttp:Connector",
        "server": "aiohttp",
        "server_version": None,
        "installed": False,
        "problem": None,
        "install": 'pip install ".[aiohttp]" (in a checkout of wsbridge) or pip install "aiohttp>=3.11"',
    }
    assert [row["name"] for row in rows] == sorted({*registry.SERVERS, "memory"})


@pytest.mark.rule("REG-3")
def test_reg_3_what_is_missing_is_told_in_one_line(bare: Bare) -> None:
    line = failed(bare("serve", "echo:app", "--connector=tornado"), Exit.NOT_INSTALLED)
    assert line == (
        "the connector 'tornado' needs tornado, which is not installed. "
        'Run: pip install ".[tornado]" (in a checkout of wsbridge) or pip install "tornado>=6.4"'
    )
    line = failed(bare("serve", "echo:app", "--connector=picows"), Exit.NOT_INSTALLED)
    assert line == (
        "the connector 'picows' needs httptools and picows, which are not installed. "
        'Run: pip install ".[picows]" (in a checkout of wsbridge) or pip install "httptools>=0.6.4" "picows>=2.0,<2.4"'
    )
    line = failed(bare("serve", "echo:app"), Exit.NOT_INSTALLED)
    assert line.startswith("no connector is installed. Run one of: ")
    line = failed(bare("serve", "echo:app", "--reload"), Exit.NO_EXTRA)
    assert line.startswith("--reload needs watchfiles, which is not installed.")
    line = failed(bare("connect", "ws://127.0.0.1:1/"), Exit.NO_EXTRA)
    assert line.startswith("connect needs a client: websockets, aiohttp or tornado, none of them is installed.")
    line = failed(bare("connect", "ws://127.0.0.1:1/", "--client=aiohttp"), Exit.NO_EXTRA)
    assert line == "connect needs a client: aiohttp, which is not installed. Run: pip install aiohttp"
    line = failed(bare("demo", "--port=0"), Exit.NOT_INSTALLED)
    assert line.startswith("aiohttp is not installed. Run: ")


# ---- connectors ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("REG-1")
def test_reg_1_connectors_imports_nothing_of_them() -> None:
    script = """
        import sys
        from wsbridge.cli import cli
        cli(["connectors", "--json"], standalone_mode=False)
        roots = {name.partition(".")[0] for name in sys.modules}
        assert not roots & {"aiohttp", "websockets", "tornado", "picows"}, roots
        assert not [name for name in sys.modules if name.startswith("wsbridge.connectors")]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert {row["name"]: row["server_version"] for row in json.loads(done.stdout)} == {
        info.name: info.server_version for info in registry.connector_infos()
    }


@pytest.mark.skipif(not INSTALLED, reason="no server is installed")
def test_connectors_check_tries_each() -> None:
    result = command("connectors", "--check", "--json")

    assert (result.returncode, result.stderr) == (Exit.OK, "")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    for name in INSTALLED:
        connector = registry.load_connector(name)
        assert rows[name]["works"] is True
        assert rows[name]["error"] is None
        assert rows[name]["connector_api"] == CONNECTOR_API
        assert rows[name]["features"] == sorted(connector.features)
        assert rows[name]["deviations"] == {
            scenario: {"outcome": deviation.outcome, "tried": deviation.tried}
            for scenario, deviation in connector.deviations.items()
        }


@pytest.fixture
def infos(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connectors registered that work, that do not, and that are not installed."""
    monkeypatch.syspath_prepend(str(app_dir))
    infos = tuple(
        registry.ConnectorInfo(name, distribution, "1", value, server, version)
        for name, distribution, value, server, version in (
            ("absent", "wsbridge", "absent:Connector", "no-server", None),
            ("broken", "plugin", "no_module_here:Connector", None, None),
            ("plain", "plugin", "stub:Featureless", None, None),
            ("refuses", "plugin", "stub:Refusing", None, None),
            ("twice", "one", "stub:Connector", None, None),
            ("twice", "two", "stub:Connector", "server", "3.2"),
        )
    )
    monkeypatch.setattr(registry, "connector_infos", lambda: infos)
    monkeypatch.setattr(registry, "SERVERS", MappingProxyType({"absent": "no-server", "unknown": "other-server"}))


@pytest.mark.usefixtures("infos")
def test_connectors_table() -> None:
    result = invoke("connectors")

    assert result.exit_code == Exit.OK
    absent, unknown = (
        f'not installed: pip install ".[{name}]" (in a checkout of wsbridge) or pip install {server}'
        for name, server in registry.SERVERS.items()
    )
    assert result.output == textwrap.dedent(
        f"""\
        NAME     FROM        SERVER        STATUS
        absent   wsbridge 1  no-server     {absent}
        broken   plugin 1    -             registered
        plain    plugin 1    -             registered
        refuses  plugin 1    -             registered
        twice    one 1       -             registered; say twice@one
        twice    two 1       server 3.2    installed; say twice@two
        unknown  -           other-server  {unknown}
        """
    )


@pytest.mark.usefixtures("infos")
def test_connectors_table_in_colour_says_the_same() -> None:
    coloured = invoke("connectors", color=True).output

    assert "\x1b[33mnot installed" in coloured
    assert click.unstyle(coloured) == invoke("connectors").output


@pytest.mark.usefixtures("infos")
def test_connectors_check_tells_what_fails() -> None:
    result = invoke("connectors", "--check")

    assert result.exit_code == Exit.CONNECTOR_FAILED
    lines = result.output.splitlines()
    assert lines[2].endswith(
        "fails: ConnectorNotFoundError: there is no module 'no_module_here' to import 'no_module_here:Connector' from"
    )
    assert lines[3].endswith("  works")
    assert "fails: RuntimeError: it answered a handshake with 'HTTP/1.1 500 Oh dear'" in lines[4]
    assert lines[5].endswith("  works; say twice@one")
    assert lines[lines.index("plain: no optional features") + 1] == "  deviates in nothing"
    assert "twice: compression, ping, size-limit, unix-socket" in lines


@pytest.mark.usefixtures("infos")
def test_connectors_check_as_json() -> None:
    result = invoke("connectors", "--check", "--json")

    assert result.exit_code == Exit.CONNECTOR_FAILED
    rows = json.loads(result.output)
    assert [(row["name"], row["installed"], row["works"]) for row in rows] == [
        ("absent", False, None),
        ("broken", True, False),
        ("plain", True, True),
        ("refuses", True, False),
        ("twice", True, True),
        ("twice", True, True),
        ("unknown", False, None),
    ]
    assert rows[-1]["connector"] is None
    assert rows[0]["features"] is rows[0]["deviations"] is None


# ---- connect ------------------------------------------------------------------------------------------------------

each_client = pytest.mark.parametrize("package", list(CLIENTS))


@pytest.fixture
async def echo_url(app_dir: Path, package: str) -> AsyncGenerator[str]:
    """An echo server that is not of the client's own package, where there is another."""
    pytest.importorskip(package)
    others = [name for name in INSTALLED if name != package] or INSTALLED
    async with serving(app_dir, connector=others[0]) as process:
        yield f"{await process.url()}/echo"
        assert await process.end(signal.SIGTERM) == Exit.OK


async def connect(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, "connect", *arguments, stdin=stdin)


@each_client
async def test_connect_piped_input(echo_url: str, package: str) -> None:
    result = await connect(echo_url, f"--client={package}", "--wait=0.5", stdin="one\ntwo\r\nthree")

    assert result.returncode == Exit.OK, result.stderr
    assert result.stdout == "one\ntwo\nthree\n"
    assert result.stderr == f"connected to {echo_url}\nclosed: 1000 normal\n"


@each_client
async def test_connect_a_close_by_the_server(echo_url: str, package: str) -> None:
    result = await connect(echo_url, f"--client={package}", "--wait=20", stdin="close 4321 enough\n")

    assert result.returncode == Exit.CLOSED
    assert result.stdout == ""
    assert result.stderr.endswith("closed: 4321 private: enough\n")


@each_client
async def test_connect_a_normal_close_by_the_server(echo_url: str, package: str) -> None:
    result = await connect(echo_url, f"--client={package}", "--wait=20", stdin="close 1000 bye\n")

    assert result.returncode == Exit.OK
    assert result.stderr.endswith("closed: 1000 normal: bye\n")


@each_client
async def test_connect_says_what_it_is_told_to_in_the_handshake(echo_url: str, package: str) -> None:
    result = await connect(
        f"{echo_url}?show=1",
        f"--client={package}",
        "--wait=0.5",
        "--subprotocol=chat.v1",
        "--subprotocol=chat.v2",
        "--header=X-Word: a: b",
        "--origin=https://friend.example",
    )

    assert result.returncode == Exit.OK, result.stderr
    numbers = bytes(range(32)).hex(" ")
    assert result.stdout == f"a: b https://friend.example\n<40 bytes: {numbers}...>\n"
    assert result.stderr.startswith(f"connected to {echo_url}?show=1 (chat.v2)\n")


@each_client
async def test_connect_a_refused_handshake(echo_url: str, package: str) -> None:
    result = await connect(f"{echo_url}/not", f"--client={package}")

    assert failed(result, Exit.NO_CONNECTION) == "the server refused the handshake: 404 Not Found"


@each_client
def test_connect_where_nobody_is(package: str) -> None:
    pytest.importorskip(package)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"

    line = failed(command("connect", url, f"--client={package}"), Exit.NO_CONNECTION)

    assert line.startswith(f"cannot connect to {url}: ")


@each_client
async def test_connect_the_loss_of_the_connection(package: str) -> None:
    pytest.importorskip(package)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search(r"(?i)sec-websocket-key: (\S+)", request)
        assert key is not None
        digest = hashlib.sha1(f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n\x81\x02hi"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        result = await connect(url, f"--client={package}", "--wait=20")

    assert result.returncode == Exit.CLOSED
    assert result.stdout == "hi\n"
    assert result.stderr.endswith("closed: 1006 abnormal\n")


@pytest.mark.parametrize("package", ["websockets"])
@pytest.mark.parametrize("goodbye", ["end-of-input", "interrupt"])
async def test_connect_at_a_terminal(echo_url: str, goodbye: str) -> None:
    parent, child = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *WSBRIDGE, "connect", echo_url, stdin=child, stdout=child, stderr=child, start_new_session=True
    )
    os.close(child)
    shown = b""

    async def until(text: bytes) -> None:
        nonlocal shown
        async with asyncio.timeout(TIMEOUT):
            while text not in shown:
                shown += await asyncio.to_thread(os.read, parent, 1024)

    try:
        await until(b"; Ctrl-D closes\r\n")
        os.write(parent, b"hello \xe2\x80\xae\n")
        await until(b"< hello \\u202e\r\n")  # what could steer a terminal is escaped
        if goodbye == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            os.write(parent, b"\x04")
        await until(b"closed: 1000 normal\r\n")
        async with asyncio.timeout(TIMEOUT):
            assert await process.wait() == Exit.OK
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(parent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://127.0.0.1/"], "'http://127.0.0.1/' must begin with ws:// or wss://"),
        (["ws://127.0.0.1/", "--header=word"], "--header 'word' must be written as 'NAME: VALUE'"),
        (["ws://127.0.0.1/", "--header=a: b\r\nc: d"], "must be written as 'NAME: VALUE'"),
        (["ws://127.0.0.1/", "--wait=-1"], "it must be positive and finite, not -1.0"),
    ],
)
def test_connect_wrong_arguments(arguments: Sequence[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsbridge.cli.client.choose_client", lambda _: Client)

    result = invoke("connect", *arguments)

    assert result.exit_code == Exit.USAGE
    assert message in result.output


def test_connect_prefers_the_first_client_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in (set[str](), {"websockets"}, {"websockets", "aiohttp"}):
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name, absent=absent: None if name in absent else object()
        )
        expected = next(package for package in CLIENTS if package not in absent)
        assert choose_client() is CLIENTS[expected]


# ---- demo ---------------------------------------------------------------------------------------------------------


async def http_get(url: str) -> tuple[str, str, str]:
    """Return status line, headers and body of a plain request to a loopback port."""
    host, _, path = url.removeprefix("http://").partition("/")
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(host.partition(":")[2]))
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    status, _, headers = head.partition("\r\n")
    return status, headers, body


async def events(client: Client, *kinds: str) -> dict[str, Any]:
    """Return the next event of one of ``kinds``."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            message = await client.receive()
            assert isinstance(message, str), message
            event: dict[str, Any] = json.loads(message)
            if event["type"] in kinds:
                return event


@pytest.mark.rule("HS-4", "HS-6")
@pytest.mark.skipif(not INSTALLED, reason="no server is installed")
async def test_demo_one_room_on_every_connector() -> None:
    async with running(*WSBRIDGE, "demo", "--port=0") as process:
        page_url = (await process.line(r"^Open (http://127\.0\.0\.1:\d+/)$", stdout=True))[1]
        status, headers, body = await http_get(page_url)
        assert status == "HTTP/1.1 200 OK"
        assert re.search(r"(?i)^content-security-policy: default-src 'none';", headers, re.MULTILINE)
        servers = page_config(body)
        assert sorted(servers) == sorted(registry.connector_names(installed=True, serving=True))
        assert "{{" not in body
        origin = page_url.rstrip("/")

        async with contextlib.AsyncExitStack() as stack:
            clients: dict[str, Client] = {}
            for name, url in servers.items():
                target = Target(f"{url}?name=Ada&key=key-{name}", origin=origin)
                clients[name] = await stack.enter_async_context(client_for(name).connect(target))
                assert (await events(clients[name], "welcome"))["ends"] == []
                assert (await events(clients[name], "joined"))["members"] == len(clients)
            for speaker, client in clients.items():
                await client.send_text(json.dumps({"type": "say", "text": f"<b>from {speaker}"}))
                for other in clients.values():
                    said = await events(other, "said")
                    assert said == {"type": "said", "name": "Ada", "via": speaker, "text": f"<b>from {speaker}"}
            for client in clients.values():
                await client.send_text(json.dumps({"type": "ping", "at": 1.5}))
                assert (await events(client, "pong"))["at"] == 1.5

            watcher_name = next(iter(servers))
            target = Target(f"{servers[watcher_name]}?key=watcher", origin=origin)
            watcher = await stack.enter_async_context(client_for(watcher_name).connect(target))
            for name, client in clients.items():
                await client.send_text(json.dumps({"type": "close", "code": 5, "text": ""}))
                assert "close code 5 may not be sent" in (await events(client, "refused"))["text"]
                await client.send_text(json.dumps({"type": "close", "code": 1001, "text": "bye"}))
                ended = await events(watcher, "ended")
                keyword = registry.load_connector(name).close_keywords.get(1001, "going-away")
                assert ended.pop("members") > 0
                expected = {
                    "type": "ended",
                    "key": f"key-{name}",
                    "name": "Ada",
                    "via": name,
                    "keyword": keyword,
                    "portable": "going-away",
                    "code": 1001,
                    "text": "bye",
                    "initiator": "local",
                }
                assert ended == expected
                async with client_for(name).connect(Target(servers[name], origin=origin)) as again:
                    assert expected in (await events(again, "welcome"))["ends"]
                    await again.send_text("no event")
                    while not isinstance(await again.receive(), ClosedReason):
                        pass
                assert (await events(watcher, "ended"))["code"] == 1008
        assert await process.end(signal.SIGTERM) == Exit.OK


def page_config(body: str) -> dict[str, str]:
    """Return the URLs that a page connects to, by connector."""
    found = re.search(r'<script type="application/json" id="config" nonce="\S+">(.*?)</script>', body)
    assert found is not None
    return {server["name"]: server["url"] for server in json.loads(found[1])["servers"]}


@pytest.mark.rule("HS-6")
@pytest.mark.skipif(not INSTALLED, reason="no server is installed")
async def test_hs_6_demo_on_either_name_of_this_machine() -> None:
    async with running(*WSBRIDGE, "demo", "--port=0") as process:
        port = (await process.line(r"^Open http://127\.0\.0\.1:(\d+)/$", stdout=True))[1]
        for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            _, headers, body = await http_get(f"{origin}/")
            servers = page_config(body)
            assert f"connect-src {' '.join(servers.values())};" in headers
            for name, url in servers.items():
                assert url.startswith(origin.replace("http", "ws").rpartition(":")[0])
                async with client_for(name).connect(Target(url, origin=origin)) as client:
                    await events(client, "welcome")
        assert await process.end(signal.SIGTERM) == Exit.OK


@pytest.mark.rule("HS-6")
@each_connector
async def test_hs_6_demo_lets_in_no_other_origin(connector: str) -> None:
    async with running(*WSBRIDGE, "demo", "--port=0") as process:
        url = (await process.line(rf"{connector} listens on (\S+)"))[1]
        with pytest.raises(ConnectError, match="403"):
            async with client_for(connector).connect(Target(f"{url}/room", origin="http://elsewhere.example")):
                pass
        assert await process.end(signal.SIGINT) == Exit.OK


@pytest.mark.skipif(not INSTALLED, reason="no server is installed")
async def test_demo_passes_over_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(*WSBRIDGE, "demo", f"--port={port}") as process:
            await process.line(rf"^port {port} is in use; \S+ listens on \d+$", stdout=True)
            opened = await process.line(r"^Open http://127\.0\.0\.1:(\d+)/$", stdout=True)
            assert int(opened[1]) != port
            assert await process.end(signal.SIGTERM) == Exit.OK


@pytest.mark.usefixtures("infos")
def test_demo_where_it_may_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, *_: object, **__: object) -> None: ...

        async def __aenter__(self) -> None:
            raise PermissionError(errno.EACCES, "cannot listen on 127.0.0.1 port 1: Permission denied")

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr("wsbridge.demo.serve", Refused)

    result = invoke("demo", "--port=1")

    assert result.exit_code == Exit.CANNOT_LISTEN
    assert result.output == "Error: cannot listen on 127.0.0.1 port 1: Permission denied\n"


def test_demo_tells_which_connectors_are_missing(monkeypatch: pytest.MonkeyPatch, app_dir: Path) -> None:
    monkeypatch.syspath_prepend(str(app_dir))
    infos = (
        registry.ConnectorInfo("absent", "wsbridge", "1", "absent:Connector", "no-server", None),
        registry.ConnectorInfo("broken", "plugin", "1", "no_module_here:Connector", None, None),
        registry.ConnectorInfo("stub", "plugin", "1", "stub:Connector", None, None),
    )
    monkeypatch.setattr(registry, "connector_infos", lambda: infos)
    monkeypatch.setattr(registry, "SERVERS", MappingProxyType({"absent": "no-server", "unknown": "other-server"}))

    class Stops(contextlib.nullcontext[asyncio.Event]):
        def __enter__(self) -> asyncio.Event:
            event = asyncio.Event()
            event.set()
            return event

    monkeypatch.setattr("wsbridge.demo.stop_signals", Stops)

    result = invoke("demo", "--port=0")

    assert result.exit_code == Exit.OK, result.output
    lines = [line for line in result.output.splitlines() if "listens on" not in line]
    assert lines[:2] == [
        'absent is not installed. Run: pip install ".[absent]" (in a checkout of wsbridge) or pip install no-server',
        'unknown is not installed. Run: pip install ".[unknown]" (in a checkout of wsbridge) or '
        "pip install other-server",
    ]
    assert lines[2].startswith("broken is left out, it cannot be used: ConnectorNotFoundError: ")
    assert lines[3].startswith("Open http://127.0.0.1:")
    sys.modules.pop("stub", None)
