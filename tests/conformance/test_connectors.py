"""Every built-in connector against every check of the suite: no failure, no deviation but those allowed."""

from __future__ import annotations

import pytest
from aiohttp import WSCloseCode
from websockets.frames import CloseCode

from wsbridge.conformance.bench import Target
from wsbridge.conformance.check import Check, all_checks
from wsbridge.conformance.report import failure_text
from wsbridge.conformance.runner import Verdict, run_check
from wsbridge.registry import SERVERS, load_connector

ALLOWED: dict[str, set[str]] = {
    "aiohttp": {"RECV-9/unmasked-frame", "RECV-9/message-in-empty-fragment"},
    "websockets": set(),
    "tornado": set(),
}
"""What CLOSE-8 allows at most."""


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
@pytest.mark.parametrize("name", sorted(SERVERS))
def test_check(name: str, check: Check) -> None:
    result = run_check(check, Target(name, load_connector(name)))
    assert result.verdict is not Verdict.FAIL, failure_text(result, check.title)
    if result.verdict is Verdict.UNSUPPORTED:
        assert check.needs == {"fragments"}


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_deviations_are_those_that_are_allowed(name: str) -> None:
    connector = load_connector(name)
    assert set(connector.deviations) <= ALLOWED[name]
    assert {"size-limit", "ping", "compression", "unix-socket"} <= set(connector.features)


@pytest.mark.rule("CLOSE-9")
def test_close_keywords_cover_every_code_that_the_server_names() -> None:
    for name, codes in (("aiohttp", WSCloseCode), ("websockets", CloseCode)):
        table = load_connector(name).close_keywords
        assert dict(table) == {code.value: code.name.lower().replace("_", "-") for code in codes}
    assert not load_connector("tornado").close_keywords
