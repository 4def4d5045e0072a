"""What the tests of the suite share."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _few_objects_to_collect() -> Generator[None, None, None]:
    """Keep what is loaded out of the two collections that each check makes, which would take most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
