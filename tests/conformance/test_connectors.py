"""Every built-in connector against every check of the suite: no failure, no deviation but those allowed."""

from __future__ import annotations

import pytest
from aiohttp import WSCloseCode
from picows import WSCloseCode as PicowsCloseCode
from websockets.frames import CloseCode

from wsbridge.base import ALL_FEATURES
from wsbridge.conformance.bench import Target
from wsbridge.conformance.check import Check, all_checks
from wsbridge.conformance.report import failure_text
from wsbridge.conformance.runner import Verdict, run_check
from wsbridge.registry import SERVERS, load_connector

ALLOWED: dict[str, set[str]] = {
    "aiohttp": {"RECV-9/unmasked-frame", "RECV-9/message-in-empty-fragment"},
    "websockets": set(),
    "tornado": set(),
    "picows": set(),
}
"""What CLOSE-8 allows at most."""

LACKING: dict[str, set[str]] = {"picows": {"compression", "mount", "unix-socket"}}
"""The features that a server does not have, beside ``fragments``; the others have every one."""


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
@pytest.mark.parametrize("name", sorted(SERVERS))
def test_check(name: str, check: Check) -> None:
    result = run_check(check, Target(name, load_connector(name)))
    assert result.verdict is not Verdict.FAIL, failure_text(result, check.title)
    if result.verdict is Verdict.UNSUPPORTED:
        assert check.needs & ({"fragments"} | LACKING.get(name, set()))


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_deviations_are_those_that_are_allowed(name: str) -> None:
    connector = load_connector(name)
    assert set(connector.deviations) <= ALLOWED[name]
    assert set(connector.features) == set(ALL_FEATURES) - {"fragments"} - LACKING.get(name, set())


@pytest.mark.rule("CLOSE-9")
def test_close_keywords_cover_every_code_that_the_server_names() -> None:
    for name, codes in (("aiohttp", WSCloseCode), ("websockets", CloseCode)):
        table = load_connector(name).close_keywords
        assert dict(table) == {code.value: code.name.lower().replace("_", "-") for code in codes}
    assert not load_connector("tornado").close_keywords
    table = load_connector("picows").close_keywords  # NO_INFO, which is 0, is what picows says for 1005
    assert dict(table) == {code.value or 1005: code.name.lower().replace("_", "-") for code in PicowsCloseCode}
