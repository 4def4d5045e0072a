"""Module names of 0.1 that stand elsewhere now: what users have written still works, and is told what to write."""

from __future__ import annotations

import importlib

import pytest

from wsbridge import connector

MOVED = [
    ("alpn", "REFUSAL"),
    ("answering", "of_transport"),
    ("base", "BaseConnector"),
    ("channel", "QueuedChannel"),
    ("clock", "Clock"),
    ("draining", "plain_connection"),
    ("frames", "MessageAssembler"),
    ("sockets", "is_unix"),
]


@pytest.mark.parametrize(("module", "name"), MOVED)
def test_a_name_of_an_old_module_is_that_of_the_new_one(module: str, name: str) -> None:
    old = importlib.import_module(f"wsbridge.{module}")
    said = rf"^wsbridge\.{module}\.{name} is wsbridge\.connector\.{name} now; import it from there$"
    with pytest.warns(DeprecationWarning, match=said):
        found = getattr(old, name)
    assert found is getattr(connector, name)


def test_the_warning_shows_the_line_that_is_to_be_changed() -> None:
    with pytest.warns(DeprecationWarning, match="import it from there") as caught:
        from wsbridge.base import Mount  # noqa: F401
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("module", [module for module, _ in MOVED])
def test_what_an_old_module_never_had_it_has_not(module: str) -> None:
    old = importlib.import_module(f"wsbridge.{module}")
    with pytest.raises(AttributeError, match=rf"^module 'wsbridge\.{module}' has no attribute 'nothing'$"):
        _ = old.nothing
