"""The hot path is guarded by counts: a call more for each message, in wsbridge or below it, is seen at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests import hot_path
from wsbridge._channel import channel
from wsbridge._channel.channel import BaseChannel

COMMAND = "run: python -m tests.hot_path --write"


@pytest.fixture(params=hot_path.PACKAGES)
def connector(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    for package in hot_path.PACKAGES[name]:
        pytest.importorskip(package)
    return name


@pytest.mark.parametrize("kind", hot_path.KINDS)
def test_an_echo_costs_the_committed_number_of_calls(connector: str, kind: str) -> None:
    entry = hot_path.read()[connector]
    calls = hot_path.count(connector, kind)
    assert calls.own == entry["own"][kind], f"if that is meant, {COMMAND}\n{calls}"
    expected: dict[str, Any] | None = entry["all"].get(hot_path.PYTHON)
    assert expected is not None, f"no figures for Python {hot_path.PYTHON}; {COMMAND}"
    if hot_path.installed(connector) == expected["versions"]:
        assert calls.all == expected[kind], f"if that is meant, {COMMAND}\n{calls}"


def test_new_figures_are_right_on_pythons_that_are_not_here() -> None:
    entry: dict[str, Any] = {
        "own": {"text": 10, "binary": 9},
        "all": {"3.9": {"versions": "a 1", "text": 36, "binary": 35}},
    }
    counts = {"text": hot_path.Calls(own=12, all=37), "binary": hot_path.Calls(own=8, all=33)}
    hot_path.update(entry, counts, "a 2")
    assert entry["own"] == {"text": 12, "binary": 8}
    assert entry["all"] == {
        "3.9": {"versions": "a 1", "text": 38, "binary": 34},
        hot_path.PYTHON: {"versions": "a 2", "text": 37, "binary": 33},
    }


def test_a_call_put_in_on_purpose_is_caught(connector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hot_path.count(connector, "text")
    source = "def text_received(self, text):\n    return original(self, text)\n"
    names: dict[str, Any] = {"original": BaseChannel.text_received}
    exec(compile(source, channel.__file__, "exec"), names)
    monkeypatch.setattr(BaseChannel, "text_received", names["text_received"])
    after = hot_path.count(connector, "text")
    assert (after.own, after.all) == (before.own + 1, before.all + 1)


def test_a_call_of_the_server_is_told_from_those_of_wsbridge(connector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hot_path.count(connector, "text")
    original = BaseChannel.text_received

    def text_received(self: BaseChannel, text: str) -> Any:
        return original(self, text)

    monkeypatch.setattr(BaseChannel, "text_received", text_received)
    after = hot_path.count(connector, "text")
    assert (after.own, after.all) == (before.own, before.all + 1)
