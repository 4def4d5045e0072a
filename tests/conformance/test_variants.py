"""A check of several variants tells each that fails (`wsbridge.conformance.contract.variants`)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from wsbridge.conformance.contract import CheckFailed, assertions, variants


def _try(outcomes: Sequence[Exception | None], beside: Exception | None = None) -> list[int]:
    """Run a variant for each outcome, and raise ``beside`` after them; return the numbers of those that ran."""
    ran: list[int] = []
    try:
        with variants() as variant:
            for number, outcome in enumerate(outcomes):
                with variant(f"variant {number}"):
                    ran.append(number)
                    if outcome is not None:
                        raise outcome
            if beside is not None:
                raise beside
    except CheckFailed as failed:
        failed.add_note(f"ran {len(ran)}")
        raise
    return ran


def test_each_variant_that_fails_is_told() -> None:
    with pytest.raises(CheckFailed) as failed:
        _try([None, CheckFailed("one"), None, ValueError("another")])
    assert failed.value.messages == ("variant 1: one", "variant 3: ValueError: another")
    assert str(failed.value) == "variant 1: one; variant 3: ValueError: another"
    assert isinstance(failed.value.__cause__, ExceptionGroup)


def test_what_is_raised_beside_them_is_told_with_them() -> None:
    with pytest.raises(CheckFailed) as failed:
        _try([CheckFailed("one")], RuntimeError("the rest"))
    assert failed.value.messages == ("variant 0: one", "RuntimeError: the rest")


def test_nothing_is_raised_where_none_fails() -> None:
    assert _try([None, None]) == [0, 1]


def test_timeouts_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check has a limit as a whole; beyond it nothing of what its variants failed by would be told."""
    monkeypatch.setattr(assertions, "_PATIENCE", 0.0)
    with pytest.raises(CheckFailed, match="not tried") as failed:
        _try([None, TimeoutError("late"), TimeoutError("later")])
    assert failed.value.__notes__ == ["ran 2"]
    assert len(failed.value.messages) == 2
