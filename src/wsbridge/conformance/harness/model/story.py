"""What is kept of the sequences that fail: the shortest of them, as a stranger can read it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from wsbridge.conformance.client import LogEntry
from wsbridge.conformance.harness.bench import Bench

__all__ = ["Stories", "Story"]

SHRINKING = 60.0  # seconds from the first failure on, in which a shorter sequence is looked for


@dataclass(frozen=True, slots=True)
class Story:
    """One sequence that failed: its steps in words, what failed, and what is known of that."""

    steps: Sequence[str]
    message: str
    traceback: str
    wire: dict[str, list[LogEntry]]
    callbacks: list[str]

    def __str__(self) -> str:
        """Return the steps, a line each, with what failed as the last."""
        lines = [f"{number:3}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join((*lines, f"     {self.message}"))


class Stories:
    """Those of one run of the model.

    Attributes:
        shortest: The shortest sequence that has failed, None if none has.
        count: How many sequences have begun until the first failed.
        played: How many have begun at all.
    """

    def __init__(self, *, seconds: float = SHRINKING) -> None:
        self.shortest: Story | None = None
        self.count = self.played = 0
        self._seconds = seconds
        self._until = 0.0

    def begun(self) -> None:
        """Count a sequence."""
        self.played += 1
        if self.shortest is None:
            self.count += 1

    def goes_on(self) -> bool:
        """Tell whether there is time for one more sequence."""
        return self.shortest is None or time.monotonic() < self._until

    def failed(self, steps: Sequence[str], error: BaseException, bench: Bench) -> None:
        """Take a sequence that failed at its last step."""
        if self.shortest is None:
            self._until = time.monotonic() + self._seconds
        elif len(steps) > len(self.shortest.steps):
            return
        message = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        wire = {f"{number} {name}": [*log.entries] for number, (name, log) in enumerate(bench.wire_logs, 1)}
        trace = "".join(traceback.format_exception(error, chain=error.__cause__ is not None))
        self.shortest = Story([*steps], message, trace, wire, bench.recorder.lines())
