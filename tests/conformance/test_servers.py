"""The connectors that start an ASGI server, against every check of the suite."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import pytest
from websockets.frames import CloseCode
from wsproto.frame_protocol import CloseReason

from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check
from wsbridge.conformance.harness.execution import run_check
from wsbridge.conformance.harness.failures import failure_text
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import Verdict
from wsbridge.connector import ALL_FEATURES
from wsbridge.connectors._deviations import DEVIATIONS
from wsbridge.registry import load_connector

pytestmark = pytest.mark.asgi

LACKING: dict[str, set[str]] = {
    "uvicorn": {"mount"},
    "uvicorn-wsproto": {"mount"},
    "hypercorn": {"mount"},
    "granian": {"mount", "ping", "compression"},
}
"""The features that a connector does not have, beside ``fragments``."""


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
@pytest.mark.parametrize("name", LACKING)
def test_check(name: str, check: Check, record_property: Callable[[str, object], None]) -> None:
    result = run_check(check, SuiteTarget(name, load_connector(name)))
    if result.remark:
        record_property("run again", result.remark)
    assert result.verdict is not Verdict.FAIL, failure_text(result, check.title)
    if result.verdict is Verdict.UNSUPPORTED:
        assert check.needs - load_connector(name).features <= {"fragments"} | LACKING[name]
        assert check.needs - load_connector(name).features or (check.tls and not load_connector(name).has_tls)


@pytest.mark.parametrize("name", LACKING)
def test_features_are_those_that_are_told(name: str) -> None:
    assert set(load_connector(name).features) == set(ALL_FEATURES) - {"fragments"} - LACKING[name]


@pytest.mark.rule("CLOSE-9")
def test_close_keywords_cover_every_code_that_the_server_names() -> None:
    keywords: dict[str, type[IntEnum]] = {
        "uvicorn": CloseCode,
        "uvicorn-wsproto": CloseReason,
        "hypercorn": CloseReason,
    }
    for name, codes in keywords.items():
        table = load_connector(name).close_keywords
        assert dict(table) == {code.value: code.name.lower().replace("_", "-") for code in codes}


@pytest.mark.parametrize("name", sorted(LACKING))
def test_deviations_are_those_that_close_8_tells(name: str) -> None:
    assert load_connector(name).deviations == DEVIATIONS.get(name, {})
    assert (name in DEVIATIONS) == (name == "granian")


def test_every_deviation_of_granian_is_of_a_scenario_and_tells_what_was_tried() -> None:
    scenarios = {check.id for check in all_checks()}
    for scenario, deviation in load_connector("granian").deviations.items():
        assert scenario in scenarios
        assert len(deviation.tried.split()) > 5
