"""The connectors that start an ASGI server, against every check of the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from websockets.frames import CloseCode
from wsproto.frame_protocol import CloseReason

from tools.reports import VARIANTS
from wsbridge.conformance.contract.check import Check, all_checks
from wsbridge.conformance.run.bench import Target
from wsbridge.conformance.run.report import failure_text
from wsbridge.conformance.run.runner import Verdict, run_check
from wsbridge.connector import ALL_FEATURES
from wsbridge.connectors._deviations import DEVIATIONS
from wsbridge.registry import load_connector

pytestmark = pytest.mark.servers

LACKING: dict[str, set[str]] = {
    "uvicorn": {"mount"},
    "uvicorn-wsproto": {"mount"},
    "hypercorn": {"mount"},
    "granian": {"mount", "ping", "compression"},
}
"""The features that a connector does not have, beside ``fragments``."""


def load(name: str) -> Any:
    return load_connector(VARIANTS.get(name, (name,))[0])


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
@pytest.mark.parametrize("name", LACKING)
def test_check(name: str, check: Check, record_property: Callable[[str, object], None]) -> None:
    result = run_check(check, Target(name, load(name)))
    if result.remark:
        record_property("run again", result.remark)
    assert result.verdict is not Verdict.FAIL, failure_text(result, check.title)
    if result.verdict is Verdict.UNSUPPORTED:
        assert check.needs - load(name).features <= {"fragments"} | LACKING[name]
        assert check.needs - load(name).features or (check.tls and not load(name).has_tls)


@pytest.mark.parametrize("name", LACKING)
def test_features_are_those_that_are_told(name: str) -> None:
    assert set(load(name).features) == set(ALL_FEATURES) - {"fragments"} - LACKING[name]


@pytest.mark.rule("CLOSE-9")
def test_close_keywords_cover_every_code_that_the_server_names() -> None:
    for name, codes in (("uvicorn", CloseCode), ("hypercorn", CloseReason)):
        table = load(name).close_keywords
        assert dict(table) == {code.value: code.name.lower().replace("_", "-") for code in codes}


@pytest.mark.parametrize("name", sorted(LACKING))
def test_deviations_are_those_that_close_8_tells(name: str) -> None:
    assert load(name).deviations == DEVIATIONS.get(name, {})
    assert (name in DEVIATIONS) == (name == "granian")


def test_every_deviation_of_granian_is_of_a_scenario_and_tells_what_was_tried() -> None:
    scenarios = {check.id for check in all_checks()}
    for scenario, deviation in load_connector("granian").deviations.items():
        assert scenario in scenarios
        assert len(deviation.tried.split()) > 5
