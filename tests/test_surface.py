"""What connectors use of wsbridge is published, and stands in `wsbridge.connector`."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

import wsbridge
import wsbridge.connector
from tests.fakes import FakeConnector, FakeSource, PushedChannel
from wsbridge._channel.published import CHANNEL, CONNECTOR, all_names, own_names
from wsbridge.connector import (
    BaseChannel,
    BaseConnector,
    BaseSource,
    Clock,
    HandshakeDeadline,
    MessageAssembler,
    TransportChannel,
)
from wsbridge.errors import ConnectorVersionError
from wsbridge.protocols import CONNECTOR_PAGE as PAGE
from wsbridge.registry import load_connector

ROOT = Path(__file__).parent.parent
SOURCE = Path(wsbridge.__file__).parent
EXAMPLES = sorted((ROOT / "examples").glob("wsbridge-*/src/*/*.py"))
NEEDS = {"wsbridge_sanic": ("sanic",), "wsbridge_wsproto": ("h11", "wsproto")}
"""What the packages in `EXAMPLES` need."""

CONNECTORS = sorted((SOURCE / "connectors").rglob("*.py"))
FILES = [*CONNECTORS, *EXAMPLES]
PUBLISHED: Mapping[type, Mapping[str, str]] = {BaseChannel: CHANNEL, BaseConnector: CONNECTOR, BaseSource: CONNECTOR}


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "wsbridge":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "wsbridge")


def _label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path in EXAMPLES else path.name


@pytest.mark.parametrize("path", FILES, ids=_label)
def test_a_connector_imports_what_every_author_may(path: Path) -> None:
    allowed = {"wsbridge": set(wsbridge.__all__), "wsbridge.connector": set(wsbridge.connector.__all__)}
    if path.name == "_versions.py":
        allowed["wsbridge.registry"] = {"check_range"}  # which reads the extras of this distribution, and of no other
    others = [
        f"{module}.{name}"
        for module, name in _imports(path)
        if name not in allowed.get(module, ())
        and not (module.startswith("wsbridge.connectors") and path not in EXAMPLES)
    ]
    assert others == []


def _classes(module: ModuleType) -> Iterator[type]:
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == module.__name__:
            yield kind


def _uses(kind: type) -> Iterator[str]:
    """Yield the names with an underscore that a class's methods use of themselves."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            of = node.value
            is_super = isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "super"
            if is_super or (isinstance(of, ast.Name) and of.id in ("self", "cls")):
                yield node.attr


def _reaches(path: Path) -> Iterator[str]:
    """Yield the names with an underscore that are used of something else than oneself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            of = ast.unparse(node.value)
            if of not in ("self", "cls", "super()"):
                yield f"{of}.{node.attr}"


def _module(path: Path) -> ModuleType:
    if path in EXAMPLES:
        package = path.parent.name
        for needed in NEEDS[package]:
            pytest.importorskip(needed)
        sys.path.insert(0, str(path.parent.parent))
        try:
            return importlib.import_module(package if path.stem == "__init__" else f"{package}.{path.stem}")
        finally:
            sys.path.pop(0)
    name = ".".join(("wsbridge", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        pytest.skip(f"its server is not installed: {exc}")


def _names(base: type, kind: type) -> set[str]:
    """Return wsbridge's own names with an underscore of a class, those included that its ``__init__`` sets."""
    names = set(own_names(kind))
    for above in base.__mro__:
        if above.__module__.startswith("wsbridge."):
            nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(above))))
            written = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
            names |= {node.attr for node in written if node.attr.startswith("_")}
    return names


def test_each_example_says_what_it_needs() -> None:
    assert {path.parent.name for path in EXAMPLES} == set(NEEDS)


@pytest.mark.parametrize("path", FILES, ids=_label)
def test_a_connector_uses_published_names_alone(path: Path) -> None:
    found: list[str] = []
    classes = list(_classes(_module(path)))
    for kind in classes:
        for base, published in PUBLISHED.items():
            if issubclass(kind, base):
                used = (set(_uses(kind)) & _names(base, kind)) - set(published)
                found += [f"{kind.__qualname__}: {name}" for name in sorted(used)]
    of_bases = set(own_names(TransportChannel)) | _names(BaseConnector, BaseConnector)
    of_bases -= set(CHANNEL) | set(CONNECTOR)
    of_here = {name for kind in classes for name in {*vars(kind), *_uses(kind)}}
    found += [what for what in _reaches(path) if what.rpartition(".")[2] in of_bases - of_here]
    assert found == []


@pytest.mark.parametrize(("kind", "published"), [(TransportChannel, CHANNEL), (BaseConnector, CONNECTOR)])
def test_what_is_published_is_there(kind: type, published: Mapping[str, str]) -> None:
    there = all_names(kind) | own_names(BaseSource) | {"_transport", "name", "connector_api"}
    assert set(published) - there == set()


def test_the_page_lists_what_is_published() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert [name for name in (*CHANNEL, *CONNECTOR) if f"`{name}" not in text] == []


def test_the_page_has_a_line_for_each_name_of_the_module_for_authors() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    _, _, section = text.partition("### `wsbridge.connector`\n")
    rows = re.findall(r"^\| (`[^|]*) \|", section.partition("\n### ")[0], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert sorted(named) == sorted(wsbridge.connector.__all__)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Of a connector", BaseConnector),
        ("Of a channel", TransportChannel),
        ("Of the clock", Clock),
        ("Of a `MessageAssembler`", MessageAssembler),
        ("Of a `HandshakeDeadline`", HandshakeDeadline),
    ],
)
def test_the_signatures_on_the_page_are_those_of_the_code(heading: str, kind: type) -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n### {heading}\n")
    cells = re.findall(r"^\| (`[^|]*) \|", section.partition("\n### ")[0], re.MULTILINE)
    found = [one for cell in cells for one in re.findall(r"`(?:await )?(\w+)\((.*?)\)`", cell)]
    assert found
    for name, arguments in found:
        expected = [
            f"{'*' if one.kind is one.VAR_POSITIONAL else ''}{one.name}"
            for one in list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
        ]
        said = [one.partition("=")[0].strip() for one in arguments.split(",") if one.strip() not in ("", "*", "/")]
        assert said == expected, name


@pytest.mark.rule("REG-5")
def test_a_channel_that_redefines_what_is_not_published_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Mine defines _end, _timer, which wsbridge keeps.*writing-a-connector\.md"):

        class Mine(PushedChannel):
            __slots__ = ("_mine", "_timer")

            overrides_internals = False

            def _end(self, *arguments: Any) -> None:
                pass


@pytest.mark.rule("REG-5")
def test_a_connector_that_redefines_what_is_not_published_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Mine defines _stop_all, which wsbridge keeps"):

        class Mine(FakeConnector):
            async def _stop_all(self, caller: Any) -> None:
                pass


@pytest.mark.rule("REG-5")
@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        *((FakeConnector, name, None) for name in ("handle", "accept", "linger", "drain", "release", "start", "clock")),
        (FakeConnector, "channels", 3),
        *((PushedChannel, name, None) for name in ("run", "close", "feed", "send_text", "tick", "native")),
        (FakeSource, "initialize_websocket", None),
    ],
)
def test_a_class_that_redefines_a_public_name_is_refused(base: type, name: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"\.Mine defines {name}, which wsbridge keeps.*writing-a-connector\.md"):
        type("Mine", (base,), {name: value, "__slots__": ()})
    type("Mine", (base,), {name: value, "__slots__": (), "overrides_internals": True})


@pytest.mark.rule("REG-5")
def test_a_class_of_the_server_that_stands_before_the_base_counts() -> None:
    class Server:
        def handle(self) -> None: ...

        def run(self) -> None: ...

    with pytest.raises(TypeError, match=r"defines handle \(in .*Server\), which wsbridge keeps"):
        type("Mine", (Server, FakeConnector), {})
    with pytest.raises(TypeError, match=r"defines run \(in .*Server\), which wsbridge keeps"):
        type("Mine", (Server, PushedChannel), {})
    type("Mine", (FakeConnector, Server), {})  # the base's come first


@pytest.mark.rule("REG-5")
def test_what_is_published_may_be_redefined() -> None:
    for base, published in ((FakeConnector, CONNECTOR), (PushedChannel, CHANNEL), (FakeSource, CONNECTOR)):
        may = {name: getattr(base, name, None) for name, how in published.items() if how in ("fill", "set")}
        type("Mine", (base,), {"__slots__": (), **may})


@pytest.mark.rule("REG-5")
@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("features", frozenset(("sizelimit",)), "has 'sizelimit', which is unknown; did you mean 'size-limit'"),
        ("features", FakeConnector.features | {"quic"}, "has 'quic', which is unknown; there are 'compression', "),
        ("features", "ping", "must be a frozenset of names, not 'ping'"),
        ("features", None, "must be a frozenset of names, not None"),
        ("compression_settings", {"windowbits"}, "has 'windowbits', which is unknown; did you mean 'window_bits'"),
        ("compression_settings", "window_bits", "must be a frozenset of names"),
        ("native_option_names", "backlog", "must be a frozenset of names"),
    ],
)
def test_a_set_with_an_unknown_name_is_refused(attribute: str, value: object, said: str) -> None:
    with pytest.raises(TypeError, match=rf"\.Mine\.{attribute} {re.escape(said)}.*writing-a-connector\.md"):
        type("Mine", (FakeConnector,), {attribute: value})


@pytest.mark.rule("REG-5")
def test_a_class_for_another_version_is_left_to_the_registry() -> None:
    old = type("Old", (FakeConnector,), {"connector_api": 1, "handle": None, "features": {"sizelimit"}})
    with pytest.raises(ConnectorVersionError, match=r"version 1 of the connector interface.*has version 2"):
        load_connector(old)


def test_a_name_of_ones_own_is_nobodys_matter() -> None:
    class Mine(FakeConnector):
        def _mine(self) -> int:
            return 1

    assert cast(Any, Mine)._mine(None) == 1


@pytest.mark.parametrize("kind", [BaseConnector, BaseSource, TransportChannel])
def test_the_page_says_of_each_public_name_whose_it_is(kind: type) -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    names = {name for name in dir(kind) if not name.startswith("_")}
    assert sorted(name for name in names if not re.search(rf"`(await )?{name}\b", text)) == []
