"""What each connector logs of malformed input, in short; the long form is ``python -m tests.fuzz``."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("psutil")

from tests.fuzz.run import fuzz
from tests.processes import each_connector

pytestmark = pytest.mark.slow


@pytest.mark.rule("LOG-1", "LOG-2")
@each_connector
def test_a_flood_of_malformed_input_leaves_no_more_than_a_record_a_connection(connector: str) -> None:
    report = fuzz(connector, 500)
    assert report.inputs >= 500
    assert report.after["errors"] == []
    assert report.after["logged"] <= report.inputs
