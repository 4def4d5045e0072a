"""Connectors that hold a peer back, and forget to let it go on (FLOW-1)."""

from __future__ import annotations

from typing import Any

from tests.conformance.breaking import BrokenChannel, breaks


@breaks("FLOW-1")
class NeverReadsOn(BrokenChannel):
    """Lets its server read no more once it has had enough."""

    __slots__ = ()

    def _resume_reading(self: Any) -> None:
        pass
