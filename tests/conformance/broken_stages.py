"""Connectors that run a chain of interceptors once too often, or not to its end (CTX-7)."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import contextlib
from typing import Any

from tests.conformance.breaking import BrokenConnector, breaks
from wsbridge.http import Response


class _Again(BrokenConnector):
    """Runs the error stage of the first interceptor once more."""

    def is_due(self, outcome: Any) -> bool:
        return False

    async def handle_by(self, request: Any, source: Any, run: Any) -> Any:
        outcome = await super().handle_by(request, source, run)
        if self.app.interceptors and self.app.interceptors[0].error is not None and self.is_due(outcome):
            context = {"request": request, "response": outcome}
            error: Any = self.app.interceptors[0].error
            with contextlib.suppress(RuntimeError):
                await error(context, RuntimeError("once more"))
        return outcome


@breaks("CTX-7")
class LeavesTwiceAfterAFailure(_Again):
    def is_due(self, outcome: Any) -> bool:
        return isinstance(outcome, Response) and outcome.status_code == 500


@breaks("CTX-7")
class LeavesTwiceWhenFull(_Again):
    def is_due(self, outcome: Any) -> bool:
        return isinstance(outcome, Response) and outcome.status_code == 503 and not self.is_stopping


@breaks("CTX-7")
class LeavesTwiceAtAStop(_Again):
    def is_due(self, outcome: Any) -> bool:
        return bool(self.is_stopping)


@breaks("CTX-7")
class LeavesTwiceWhateverComes(_Again):
    def is_due(self, outcome: Any) -> bool:
        return True
