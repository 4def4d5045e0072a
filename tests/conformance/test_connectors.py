"""Every built-in connector against every check of the suite: no failure, no deviation but those allowed.

The clock of the checks is put forward where everything waits. With ``WSBRIDGE_REAL_SECONDS`` it is not: so tox runs the
oldest servers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import WSCloseCode
from picows import WSCloseCode as PicowsCloseCode
from websockets.frames import CloseCode

from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check, CheckFailed, catalogue
from wsbridge.conformance.harness.conditions import PLAIN, HandClock
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.connector import ALL_FEATURES
from wsbridge.connectors._deviations import DEVIATIONS
from wsbridge.connectors._versions import is_older
from wsbridge.registry import SERVERS, load_connector

ALLOWED: dict[str, set[str]] = {
    "aiohttp": {
        *("RECV-9/unmasked-frame", "RECV-9/message-in-empty-fragment", "SEND-9/inflated-outside-the-event-loop"),
        *(["FRAME-42/messages-behind-bfinal"] if is_older("aiohttp", (3, 14)) else []),
    },
    "websockets": set(),
    "tornado": set(),
    "picows": set(),
}
"""What CLOSE-8 allows at most."""

ASGI = {"uvicorn", "uvicorn-wsproto", "hypercorn", "granian"}
"""Those of `tests.conformance.test_servers`, an environment of their own."""

LACKING: dict[str, set[str]] = {
    "memory": {"compression", "mount", "unix-socket"},
    "picows": {"compression", "mount", "unix-socket"},
}
"""The features that a server does not have, beside ``fragments``; the others have every one."""

CONDITIONS = PLAIN if os.environ.get("WSBRIDGE_REAL_SECONDS") else HandClock()

VACUOUS = {"FRAME-1", "FRAME-2", "FRAME-6"}
"""Rules of how a whole frame is encoded, of which nothing is left where there are no frames."""


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
@pytest.mark.parametrize("name", sorted({*SERVERS, "memory"} - ASGI))
def test_check(name: str, check: Check, record_property: Callable[[str, object], None]) -> None:
    result = run_check(check, SuiteTarget(name, load_connector(name), conditions=CONDITIONS))
    if result.remark:
        record_property("run again", result.remark)
    assert result.verdict is not Verdict.FAIL, failure_text(result, check.title)
    if result.verdict is Verdict.UNSUPPORTED:
        lacking = check.needs - load_connector(name).features
        assert lacking <= {"fragments"} | LACKING.get(name, set())
        assert lacking or (check.wire and name == "memory")


@pytest.mark.suite
@pytest.mark.parametrize("check", [check for check in all_checks() if check.wire], ids=lambda check: check.id)
def test_a_check_of_the_wire_is_one(check: Check) -> None:
    target = SuiteTarget("memory", load_connector("memory"))
    if not check.needs <= target.features:
        return  # refused for that already
    result = run_check(replace(check, wire=False), target)
    assert result.verdict is (Verdict.PASS if check.rule in VACUOUS else Verdict.FAIL)
    assert check.rule in VACUOUS or result.cause in ("error", "promise")


def test_what_needs_no_wire_binds_without_one() -> None:
    features = load_connector("memory").features
    left = {check.rule for check in all_checks() if check.needs <= features and not check.wire}
    lacking = {rule.id for rule in catalogue.rules() if rule.kind == "connector"} - left
    assert {id for id in lacking if not id.startswith("FRAME")} == {
        *("RECV-3", "RECV-8", "RECV-9"),  # fragments, invalid UTF-8 and violations are bytes
        *("RECV-10", "SEND-8", "SEND-9", "STOP-4", "MOUNT-1", "MOUNT-2"),  # features, and TLS, that it lacks
        *("HS-13", "HS-18", "STOP-7", "STOP-8", "STOP-9"),  # sockets, and what is in the system's hands
    }


class Unstarted(load_connector("aiohttp")):  # type: ignore[misc]
    """Lacks what has options that are on by default, and can be made but not started."""

    overrides_internals = True
    conformance_factory = ()  # in this process: a check that measures one would start it for nothing
    features = ALL_FEATURES - {"ping", "size-limit"}

    async def start(self) -> None:
        raise CheckFailed("made, and not started")


@pytest.mark.suite
def test_a_check_gives_no_option_that_it_does_not_need() -> None:
    target = SuiteTarget("unstarted", Unstarted)
    results = [run_check(check, target) for check in all_checks() if check.needs <= target.features - {"mount"}]
    made = [result for result in results if "made, and not started" in result.message]
    assert len(made) > 300
    refused = [result.check for result in results if "cannot honour" in result.message + "".join(result.logs)]
    assert refused == []


@pytest.mark.parametrize("name", sorted(set(SERVERS) - ASGI))
def test_deviations_are_those_that_are_allowed(name: str) -> None:
    connector = load_connector(name)
    assert set(connector.deviations) <= ALLOWED[name]
    assert connector.deviations == DEVIATIONS.get(name, {})  # from which CLOSE-8 is written
    assert set(connector.features) == set(ALL_FEATURES) - {"fragments"} - LACKING.get(name, set())


@pytest.mark.rule("CLOSE-9")
def test_close_keywords_cover_every_code_that_the_server_names() -> None:
    for name, codes in (("aiohttp", WSCloseCode), ("websockets", CloseCode)):
        table = load_connector(name).close_keywords
        assert dict(table) == {code.value: code.name.lower().replace("_", "-") for code in codes}
    assert not load_connector("tornado").close_keywords
    table = load_connector("picows").close_keywords  # NO_INFO, which is 0, is what picows says for 1005
    assert dict(table) == {code.value or 1005: code.name.lower().replace("_", "-") for code in PicowsCloseCode}
