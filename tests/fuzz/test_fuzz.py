"""The short form: some thousand inputs for each connector."""

from __future__ import annotations

import pytest

from tests.fuzz.run import fuzz
from tests.processes import each_connector

pytestmark = pytest.mark.servers


@pytest.mark.rule("HS-4", "HS-10", "RECV-8", "RECV-9", "LIM-1", "SEND-6", "LOG-1", "LOG-2")
@each_connector
def test_malformed_inputs_do_no_harm(connector: str) -> None:
    report = fuzz(connector, 2000)
    assert report.inputs >= 2000
    assert len(report.answers) > 5  # they were not all refused alike
