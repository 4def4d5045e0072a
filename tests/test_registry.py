"""Finding connectors: fake distributions are put on ``sys.path``, with entry points and modules of their own."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from wsbridge import registry
from wsbridge._common.requirements import Requirement
from wsbridge.connector import BaseConnector
from wsbridge.errors import (
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    ConnectorVersionError,
    ServerVersionError,
)
from wsbridge.registry import ConnectorInfo, connector_infos, connector_names, load_connector

Install = Callable[..., None]

CONNECTOR = """
class Connector:
    name = "fake"
    connector_api = 2
    async def start(self): ...
    async def stop(self): ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution: its connectors as ``name="module:Class"``, its modules as ``module=source``."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(
        distribution: str,
        connectors: dict[str, str],
        *,
        version: str = "2.1",
        requires: Sequence[str] = (),
        modules: dict[str, str] | None = None,
    ) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        with (info / "METADATA").open("a") as metadata:
            metadata.writelines(f"Requires-Dist: {line}\n" for line in requires)
        lines = "".join(f"{name} = {value}\n" for name, value in connectors.items())
        (info / "entry_points.txt").write_text(f"[wsbridge.connectors]\n{lines}")
        for module, source in (modules or {}).items():
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


def named(name: str) -> list[ConnectorInfo]:
    return [info for info in connector_infos() if info.name == name]


@pytest.mark.rule("REG-1")
def test_reg_1_lists_what_distributions_register(install: Install) -> None:
    install("fake-dist", {"fake": "fake_module:Connector"})

    assert named("fake") == [ConnectorInfo("fake", "fake-dist", "2.1", "fake_module:Connector", None, None)]
    assert named("fake")[0].is_installed
    assert "fake" in connector_names()
    assert "fake" in connector_names(installed=True)
    assert "fake_module" not in sys.modules


@pytest.mark.rule("REG-1")
def test_reg_1_the_own_connectors_are_listed_with_their_servers() -> None:
    own = {info.name: info for info in connector_infos() if info.distribution == "wsbridge"}

    memory = own.pop("memory")
    assert (memory.server, memory.is_installed, memory.serves) == (None, True, False)
    assert "memory" in connector_names(installed=True)
    assert "memory" not in connector_names(serving=True)
    assert set(own) == set(registry.SERVERS)
    for info in own.values():
        assert info.server == registry.SERVERS[info.name]
        assert [needed.name for needed in info.requirements].count(info.server) == 1
        assert info.is_installed is all(needed.installed is not None for needed in info.requirements)


@pytest.mark.rule("REG-1")
def test_reg_1_listing_imports_no_connector_and_no_server() -> None:
    script = """
        import sys
        import wsbridge
        names = wsbridge.connector_names()
        from wsbridge.registry import connector_infos
        connector_infos()
        print(names)
        roots = {name.partition(".")[0] for name in sys.modules}
        assert not roots & {"aiohttp", "websockets", "tornado", "picows"}, roots
        assert not [name for name in sys.modules if name.startswith("wsbridge.connectors")]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "'aiohttp'" in done.stdout


@pytest.mark.rule("REG-1")
def test_reg_1_loading_imports_the_one_that_is_asked_for(install: Install) -> None:
    install(
        "two",
        {"one": "one_module:Connector", "other": "other_module:Connector"},
        modules={"one_module": CONNECTOR, "other_module": CONNECTOR},
    )

    assert load_connector("one").__module__ == "one_module"
    assert "other_module" not in sys.modules


@pytest.mark.rule("REG-2")
def test_reg_2_an_unknown_name_is_told_the_closest_and_what_there_is(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wsbridge", {"absent": "absent_module:Connector", "present": "present_module:Connector"})
    install("present-server", {})
    monkeypatch.setattr(registry, "SERVERS", MappingProxyType({"absent": "no-server", "present": "present-server"}))

    with pytest.raises(ConnectorNotFoundError) as caught:
        load_connector("presnet")

    assert str(caught.value) == (
        "there is no connector 'presnet'. Did you mean 'present'? Installed: present. Could be installed: absent."
    )
    assert isinstance(caught.value, LookupError)


@pytest.mark.rule("REG-2")
def test_reg_2_nothing_is_close_and_nothing_is_there(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("wsbridge", {})
    monkeypatch.setattr(registry, "SERVERS", MappingProxyType({}))

    with pytest.raises(ConnectorNotFoundError) as caught:
        load_connector("zzz")

    assert str(caught.value) == "there is no connector 'zzz'. Installed: none. Could be installed: none."


@pytest.mark.rule("REG-3")
def test_reg_3_a_missing_server_is_told_with_what_installs_it(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wsbridge", {"own": "own_module:Connector"}, modules={"own_module": "import own_server.web"})
    monkeypatch.setattr(registry, "SERVERS", MappingProxyType({"own": "own-server"}))

    with pytest.raises(ConnectorNotInstalledError) as caught:
        load_connector("own")

    assert str(caught.value) == (
        "the connector 'own' needs own_server, which is not installed. "
        'Run: pip install ".[own]" (in a checkout of wsbridge) or pip install own-server'
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert caught.value.__cause__.name == "own_server"
    assert connector_names(installed=True) == ()


@pytest.fixture
def own(install: Install, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install wsbridge with one connector, whose extra asks for a server and a parser, at versions that are given."""

    def own(server: str | None, parser: str | None = "1.0", *, bounds: str = "<3,>=2.2") -> None:
        requires = [
            f"own_server{bounds} ; extra == 'own'",
            'own.parser>=1; extra == "own"',
            "own-server>=9 ; extra == 'bench'",
            "click>=8.1",
        ]
        source = "import own_server, own_parser\n" + CONNECTOR
        install("wsbridge", {"own": "own_module:Connector"}, requires=requires, modules={"own_module": source})
        for name, version in (("own-server", server), ("own-parser", parser)):
            if version is not None:
                install(name, {}, version=version, modules={name.replace("-", "_"): ""})
        monkeypatch.setattr(registry, "SERVERS", MappingProxyType({"own": "own-server"}))

    return own


@pytest.mark.rule("REG-3")
@pytest.mark.parametrize(
    ("server", "parser", "missing"),
    [
        (None, None, "own_server and own.parser, which are not installed"),
        ("2.2", None, "own.parser, which is not installed"),
        (None, "1.0", "own_server, which is not installed"),
    ],
)
def test_reg_3_all_that_is_missing_is_told_by_the_metadata_of_the_extra(
    own: Install, server: str | None, parser: str | None, missing: str
) -> None:
    own(server, parser)

    with pytest.raises(ConnectorNotInstalledError) as caught:
        load_connector("own")

    assert str(caught.value) == (
        f"the connector 'own' needs {missing}. "
        'Run: pip install ".[own]" (in a checkout of wsbridge) or pip install "own_server>=2.2,<3" "own.parser>=1"'
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert connector_names(installed=True) == ()


@pytest.mark.rule("REG-6")
@pytest.mark.parametrize("version", ["2.2", "2.2.0", "2.10", "2.3rc1", "2.9.9.post1"])
def test_reg_6_a_version_that_is_supported(own: Install, version: str) -> None:
    own(version)

    assert load_connector("own").__module__ == "own_module"
    assert [info.problem for info in connector_infos()] == [None]


@pytest.mark.rule("REG-6")
@pytest.mark.parametrize(
    ("version", "age"), [("2.1.9", "older"), ("1.10", "older"), ("2", "older"), ("3.0", "newer"), ("3.0.1", "newer")]
)
def test_reg_6_a_version_that_is_not_supported(own: Install, version: str, age: str) -> None:
    own(version)

    with pytest.raises(ServerVersionError) as caught:
        load_connector("own")

    problem = f"own_server {version} is {age} than what is supported (own_server>=2.2,<3)"
    assert [info.problem for info in connector_infos()] == [problem]
    assert str(caught.value) == (
        f"the connector 'own' cannot be used: {problem}. "
        'Run: pip install ".[own]" (in a checkout of wsbridge) or pip install "own_server>=2.2,<3" "own.parser>=1"'
    )
    assert "own_module" not in sys.modules


@pytest.mark.rule("REG-6")
def test_reg_6_what_stands_beside_the_server_counts_too(own: Install) -> None:
    own("2.2", "0.9")

    with pytest.raises(
        ServerVersionError, match=r"own\.parser 0\.9 is older than what is supported \(own\.parser>=1\)"
    ):
        load_connector("own")


@pytest.mark.rule("REG-6")
def test_reg_6_any_version_will_do_where_none_is_asked_for(own: Install) -> None:
    own("0.1", bounds="")

    assert load_connector("own").__module__ == "own_module"


@pytest.mark.rule("REG-6")
def test_reg_6_a_range_is_checked_by_the_name_of_a_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(version: str) -> None:
        needed = (Requirement("tornado", ">=6.4", version),)
        monkeypatch.setattr(registry, "_own_requirements", lambda name: needed)

    installed("6.4")
    registry.check_range("tornado")
    installed("6.2")
    with pytest.raises(
        ServerVersionError, match=r"tornado 6\.2 is older than what is supported \(tornado>=6\.4\)\. Run: "
    ):
        registry.check_range("tornado")


@pytest.mark.rule("REG-6")
@pytest.mark.parametrize("name", registry.SERVERS)
def test_reg_6_a_connectors_own_module_tells_it_too(name: str) -> None:
    """Whoever imports it past the registry is not left with a name that the server lacks."""
    server = registry.SERVERS[name]
    script = f"""
        import sys
        from importlib import metadata
        from wsbridge._common import requirements

        version = metadata.version
        requirements.version = lambda name: "0.1" if name == {server!r} else version(name)
        sys.modules[{server!r}] = None  # no name of it is asked for before
        import wsbridge.connectors.{name.replace("-", "_")}
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    told = done.stderr.splitlines()[-1]
    assert told.startswith(
        f"wsbridge.errors.ServerVersionError: the connector {name!r} cannot be used: {server} 0.1 is"
    )
    assert f"({server}>=" in told
    assert f'Run: pip install ".[{name}]" (in a checkout of wsbridge) or pip install "' in told


@pytest.mark.rule("REG-6")
def test_reg_6_the_command_line_tells_it(own: Install) -> None:
    from click.testing import CliRunner

    from wsbridge.cli import Exit, cli

    own("2.1")
    problem = "own_server 2.1 is older than what is supported (own_server>=2.2,<3)"

    served = CliRunner().invoke(cli, ["serve", "app:app", "--connector=own"])
    listed = CliRunner().invoke(cli, ["connectors"])
    checked = CliRunner().invoke(cli, ["connectors", "--check", "--json"])

    assert served.exit_code == Exit.CONNECTOR_FAILED
    assert served.output.startswith(f"Error: the connector 'own' cannot be used: {problem}. Run: pip install ")
    assert listed.output.splitlines()[1].endswith(f"own-server 2.1  not supported: {problem}")
    assert checked.exit_code == Exit.CONNECTOR_FAILED
    [row] = json.loads(checked.output)
    assert (row["problem"], row["works"]) == (problem, False)
    assert problem in row["error"]


@pytest.mark.rule("REG-6")
def test_reg_6_every_requirement_of_this_project_is_understood() -> None:
    """What the own metadata asks for is what pyproject.toml says, name by name."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for info in connector_infos():
        if info.server is not None and info.distribution == "wsbridge":
            assert sorted(re.split("[<>=]", line)[0] for line in extras[info.name]) == sorted(
                needed.name for needed in info.requirements
            )
            assert all(needed.specifier for needed in info.requirements)


@pytest.mark.rule("REG-3")
def test_reg_3_a_missing_server_of_anothers_connector(install: Install) -> None:
    install("fake-dist", {"fakeserver": "fake_module:Connector"}, modules={"fake_module": "import fakeserver"})

    with pytest.raises(ConnectorNotInstalledError, match=r"needs fakeserver, .* Run: pip install fakeserver$"):
        load_connector("fakeserver")


@pytest.mark.rule("REG-3")
@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param("1 / 0", ZeroDivisionError, id="raises"),
        pytest.param("import a_module_that_is_not_there", ModuleNotFoundError, id="another-module"),
        pytest.param("import fake.part", ModuleNotFoundError, id="part-of-the-server"),
        pytest.param("from fake import nothing", ImportError, id="name-of-the-server"),
    ],
)
def test_reg_3_a_connector_that_fails_to_import_raises_its_own_error(
    install: Install, source: str, error: type[Exception]
) -> None:
    install(
        "fake-dist",
        {"fake": "fake_module:Connector"},
        modules={"fake_module": source, "fake": "__path__: list[str] = []"},
    )

    with pytest.raises(error) as caught:
        load_connector("fake")

    assert not isinstance(caught.value, ConnectorNotInstalledError)


@pytest.mark.rule("REG-3")
def test_reg_3_a_source_tree_that_is_not_installed_names_the_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OWN_DISTRIBUTION", "wsbridge-that-nobody-has-installed")

    assert registry.install_command("picows", "picows") == (
        'pip install ".[picows]" (in a checkout of wsbridge) or pip install picows'
    )


@pytest.mark.rule("REG-4")
def test_reg_4_two_distributions_with_one_name(install: Install) -> None:
    install("dist-one", {"same": "one_module:Connector"}, modules={"one_module": CONNECTOR})
    install("dist.two", {"same": "two_module:Connector"}, modules={"two_module": CONNECTOR})

    with pytest.raises(ConnectorConflictError, match=r"say 'same@dist-one' or 'same@dist\.two'$"):
        load_connector("same")
    assert load_connector("same@dist-one").__module__ == "one_module"
    assert load_connector("same@Dist_Two").__module__ == "two_module"
    assert connector_names().count("same") == 1
    with pytest.raises(ConnectorNotFoundError, match="no connector 'same@dist-three'"):
        load_connector("same@dist-three")


@pytest.mark.rule("REG-4")
def test_reg_4_an_import_path_or_a_class(install: Install) -> None:
    install("unrelated", {}, modules={"fake_module": CONNECTOR + "\nclass Space:\n    inner = Connector\n"})

    connector = load_connector("fake_module:Connector")

    assert connector.__qualname__ == "Connector"
    assert load_connector("fake_module:Space.inner") is connector
    assert load_connector(connector) is connector


@pytest.mark.rule("REG-4")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fake_module:", "'fake_module:' is no import path; write it as 'module:Class'"),
        (":Connector", "':Connector' is no import path; write it as 'module:Class'"),
        ("fake_module:Conector", "module 'fake_module' has no 'Conector'"),
        ("no_module.at_all:Connector", "there is no module 'no_module' to import 'no_module.at_all:Connector' from"),
    ],
)
def test_reg_4_a_wrong_import_path(install: Install, path: str, message: str) -> None:
    install("unrelated", {}, modules={"fake_module": CONNECTOR})

    with pytest.raises(ConnectorNotFoundError) as caught:
        load_connector(path)

    assert str(caught.value) == message


@pytest.mark.rule("REG-4")
def test_reg_4_a_module_of_an_import_path_raises_its_own_error(install: Install) -> None:
    install("unrelated", {}, modules={"fake_module": "import a_module_that_is_not_there"})

    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        load_connector("fake_module:Connector")


@pytest.mark.rule("REG-4")
def test_reg_4_what_is_no_connector(install: Install) -> None:
    install("unrelated", {}, modules={"fake_module": "number = 5\nclass Empty: ..."})

    for path in ("fake_module:number", "fake_module:Empty"):
        with pytest.raises(TypeError, match=f"^'{path}' is no connector"):
            load_connector(path)
    with pytest.raises(TypeError, match=r"^'int' is no connector"):
        load_connector(int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^a connector is a name, 'module:Class' or a class, not 5$"):
        load_connector(5)  # type: ignore[arg-type]


@pytest.mark.rule("REG-5")
def test_reg_5_another_version_of_the_interface(install: Install) -> None:
    install("fake-dist", {"fake": "fake_module:Connector"}, modules={"fake_module": CONNECTOR.replace("= 2", "= 7")})

    with pytest.raises(ConnectorVersionError) as caught:
        load_connector("fake")

    assert str(caught.value) == (
        "the connector 'fake' was written for version 7 of the connector interface; this wsbridge has version 2. "
        "docs/writing-a-connector.md tells what has changed"
    )


@pytest.mark.rule("REG-5")
def test_reg_5_a_connector_that_lacks_a_part() -> None:
    class Half(BaseConnector):
        name = "half"
        connector_api = 2

        async def _stop(self) -> None: ...

    with pytest.raises(
        TypeError, match=r"Half' lacks _start; docs/writing-a-connector\.md tells what is to be filled$"
    ):
        load_connector(Half)


@pytest.mark.rule("REG-5")
def test_reg_5_a_connector_that_does_not_say_for_which_interface() -> None:
    class Silent(BaseConnector):
        name = "silent"

    with pytest.raises(TypeError, match=r"connector_api, the version of the connector interface .* \(now 2\)$"):
        load_connector(Silent)
