"""Ratios of turns, their interval, and what is said of a target."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

RESAMPLES = 5_000
NOISY_WIDTH = 0.10
"""Of the ratio: an interval wider than that is not a result."""

Verdict = Literal["met", "not met", "not decided"]


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of pairs, and its 95 % interval by bootstrap over the pairs."""

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, subject: Sequence[float], baseline: Sequence[float]) -> "Ratio":
        """Compare figures that were taken in turns, pair by pair."""
        ratios = [above / below for above, below in zip(subject, baseline, strict=True)]
        rng = random.Random(0)
        medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
        low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]
        return cls(statistics.median(ratios), low, high, len(ratios))

    @property
    def noisy(self) -> bool:
        """Whether the interval is too wide for the ratio to say much."""
        return (self.high - self.low) / self.median > NOISY_WIDTH

    def verdict(self, target: float, *, at_least: bool = False) -> Verdict:
        """Tell whether the whole interval is on the right side of a target, or the wrong one."""
        if at_least:
            return "met" if self.low >= target else "not met" if self.high < target else "not decided"
        return "met" if self.high <= target else "not met" if self.low > target else "not decided"


def compare(value: float, target: float) -> Verdict:
    """Tell whether a figure that is not a ratio is at most the target."""
    return "met" if value <= target else "not met"
