"""The short form of ``tox run -e faults``: 200 channels talk through the proxy on each connector, once."""

from __future__ import annotations

import random

import pytest

from tests.faults.harness import run
from tests.processes import INSTALLED
from wsbridge.conformance.run.bench import Target
from wsbridge.registry import load_connector

pytestmark = pytest.mark.servers


@pytest.mark.rule("RECV-4", "SEND-6", "CLOSE-3", "CLOSE-7", "OPEN-6")
@pytest.mark.parametrize("name", INSTALLED)
def test_nothing_is_lost_silently(name: str) -> None:
    result = run(Target(name, load_connector(name)), random.randrange(1_000_000))
    assert not result.found, str(result)
    figures = result.figures
    assert figures.opened > 150
    assert figures.delivered > 500
    assert figures.down_received > 1000
    assert set(figures.faults) > {"cut up", "reset down", "half-close up", "blackhole up", "stuck down"}
