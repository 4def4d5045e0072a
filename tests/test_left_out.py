"""Which modules are not imported where ``-m`` leaves them out (`tests.conftest`)."""

from __future__ import annotations

import pytest

from tests.conftest import is_left_out

WHOLE = "import pytest\n\npytestmark = pytest.mark.slow\n"
LIST = "pytestmark = [\n    pytest.mark.suite,\n    pytest.mark.filterwarnings('ignore'),\n]\n"
ONE = "@pytest.mark.slow\ndef test_it() -> None: ...\n"
NONE = "def test_it() -> None: ...\n"


@pytest.mark.parametrize(
    ("expression", "taken"),
    [
        ("slow", {WHOLE, ONE}),
        ("suite", {LIST}),
        ("suite or slow", {WHOLE, LIST, ONE}),
        ("not (slow or suite)", {ONE, NONE}),
        ("not (servers)", {WHOLE, LIST, ONE, NONE}),
        ("not slow and suite", {WHOLE, LIST, ONE, NONE}),  # not understood: pytest sees to it
    ],
)
def test_a_module_without_a_test_that_is_meant_is_left_out(expression: str, taken: set[str]) -> None:
    assert {text for text in (WHOLE, LIST, ONE, NONE) if not is_left_out(text, expression)} == taken
