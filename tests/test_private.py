"""A server's private names are looked up when a connector is imported."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from wsbridge.connector import server_names

NAME = "wsbridge_tests_server"


class Base:
    def __init__(self) -> None:
        self._inherited = 1


class Server(Base):
    _own = 1

    def __init__(self) -> None:
        super().__init__()
        self._made = 1


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(NAME)
    vars(module).update(Server=Server, _LIMIT=7)
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


def test_what_is_there_is_found() -> None:
    table = {f"{NAME}:Server": "_own _made _inherited", NAME: "_LIMIT", f"{NAME}:Server.__init__": "__code__"}
    assert dict(server_names("pytest", "1 to 2", table)) == {"_LIMIT": 7}


def test_one_of_two_is_enough() -> None:
    assert server_names("pytest", "1 to 2", {f"{NAME}:Server": "_own|_other _never|_made", NAME: "_LIMIT|_MAX"})


def test_what_is_not_there_is_named_with_the_versions() -> None:
    table = {f"{NAME}:Server": "_own _gone _a|_b", NAME: "_MAX", f"{NAME}:Other": "_x _y", f"{NAME}.sub:Class": "_z"}
    with pytest.raises(ImportError) as raised:
        server_names("pytest", "1 to 2", table)
    assert not isinstance(raised.value, ModuleNotFoundError)  # it is installed (REG-3)
    assert str(raised.value) == (
        f"pytest {pytest.__version__} lacks {NAME}:Server._gone, {NAME}:Server._a|_b, {NAME}:_MAX, {NAME}:Other, "
        f"{NAME}.sub:Class, which the connector needs; it is for 1 to 2"
    )


def test_a_server_that_no_distribution_brings_is_named_too() -> None:
    with pytest.raises(ImportError, match=r"^no-such-server \(of an unknown version\) lacks"):
        server_names("no-such-server", "1 to 2", {NAME: "_gone"})
