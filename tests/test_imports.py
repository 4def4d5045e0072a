"""Which module may import which: no circles, and each layer only what is below it.

An import in a function counts, and so does one for type checkers alone: who reads a module needs what either names.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping

import grimp
import pytest

import wsbridge

GRAPH = grimp.build_graph("wsbridge", include_external_packages=True, cache_dir=None)
OWN = sorted(name for name in GRAPH.modules if name.partition(".")[0] == "wsbridge")

APPLICATION = (
    *("application", "close", "codec", "connection", "errors", "http", "interceptor", "options", "protocols"),
    *("refusal", "registry", "serving", "stream", "tls", "upgrade"),
)
"""What applications use."""

OUTER = ("connectors", "cli", "testing", "conformance", "demo")
"""What stands on the library, and what nothing of it imports."""

LIBRARIES = {
    *("aiofastnet", "aiohttp", "granian", "hypercorn", "picows", "tornado", "uvicorn", "websockets"),
    *("h11", "httptools", "wsproto"),
}
"""Servers, and what they parse with."""

CLIENTS = {("wsbridge.cli.client", name) for name in ("aiohttp", "tornado", "websockets")}
"""`wsbridge connect` speaks by the client of a package that has a server too."""


def circles() -> set[frozenset[str]]:
    """Return the modules that import each other, by others too, in groups."""
    found: set[frozenset[str]] = set()
    for name in OWN:
        both = GRAPH.find_upstream_modules(name) & GRAPH.find_downstream_modules(name)
        if both:
            found.add(frozenset(both | {name}))
    return found


def members(*names: str) -> list[str]:
    """Return the modules of that name below ``wsbridge``, and all that is below them."""
    roots = [f"wsbridge.{name}" for name in names]
    found = [name for name in OWN if any(name == root or name.startswith(f"{root}.") for root in roots)]
    assert all(root in OWN for root in roots)
    return found


def imports(importers: Iterable[str], imported: Iterable[str]) -> list[str]:
    """Return how ``importers`` import any of ``imported``, by other modules too, the shortest ways first."""
    wanted = set(imported)
    ways = [
        GRAPH.find_shortest_chain(one, other) or ()
        for one in importers
        for other in GRAPH.find_upstream_modules(one) & wanted
    ]
    return [" -> ".join(way) for way in sorted(ways, key=lambda way: (len(way), way))]


def test_no_modules_import_each_other() -> None:
    assert circles() == set()


def test_the_core_imports_nothing_that_stands_on_it() -> None:
    core = members(*APPLICATION, "_channel", "_common", "_process", "connector")
    assert imports([*core, "wsbridge"], members(*OUTER)) == []


def test_helpers_import_no_layer_above_them() -> None:
    above = members(*APPLICATION, "_channel", "connector")
    assert imports(members("_common"), [*above, *members("_process")]) == []
    assert imports(members("_process"), set(above) - set(members("errors", "close"))) == []
    assert imports(members("_channel"), members("connector", "application", "upgrade", "registry", "serving")) == []
    assert imports(members(*APPLICATION), members("_channel", "connector")) == []


def test_the_core_imports_no_server_and_no_parser() -> None:
    outside = members("connectors", "conformance", "demo")
    found = {
        (name, library)
        for name in OWN
        if name not in outside
        for library in GRAPH.find_modules_directly_imported_by(name) & LIBRARIES
    }
    assert found == CLIENTS


SUITE: Mapping[str, tuple[str, ...]] = {
    "contract": ("client", "harness", "checks", "doors", "lateness"),
    "lateness": ("contract", "client", "harness", "checks", "doors"),
    "client": ("contract", "harness", "checks", "doors"),
    "harness.bench": ("checks", "doors"),
    "harness.server_process": ("checks", "doors"),
    "harness": ("doors",),
    "checks": ("doors", "harness.execution", "harness.report", "harness.selection", "harness.session"),
}
"""What a part of the conformance suite does not import."""


@pytest.mark.parametrize("part", SUITE)
def test_the_suite_is_built_in_layers(part: str) -> None:
    above = members(*(f"conformance.{name}" for name in SUITE[part]))
    assert imports(members(f"conformance.{part}"), above) == []


@pytest.mark.parametrize("name", ["wsbridge", "wsbridge.conformance", "wsbridge.connector", "wsbridge.testing"])
def test_no_module_hides_a_public_name(name: str) -> None:
    package = importlib.import_module(name)
    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    assert modules & set(package.__all__) == set()


def test_the_graph_has_what_is_installed() -> None:
    assert {f"wsbridge.{name}" for _, name, _ in pkgutil.iter_modules(wsbridge.__path__)} <= set(OWN)
