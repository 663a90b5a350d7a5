"""Intervals for systems that answered the same tasks: resampled by task, pair by pair."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def difference(ours: Sequence[float], theirs: Sequence[float], n: int = 4000) -> Interval:
    """Of means, ours less theirs, by the percentile bootstrap over tasks."""
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    choose = random.Random(1)
    means = sorted(sum(choose.choices(gaps, k=len(gaps))) / len(gaps) for _ in range(n))
    return Interval(sum(gaps) / len(gaps), means[int(0.025 * n)], means[int(0.975 * n)])


def ratio(ours: Sequence[float], theirs: Sequence[float], n: int = 4000) -> Interval:
    """Of sums, theirs over ours: how many times faster we are, if these are seconds."""
    choose = random.Random(2)
    indices = range(len(ours))
    ratios = []
    for _ in range(n):
        sample = choose.choices(indices, k=len(indices))
        ratios.append(sum(theirs[i] for i in sample) / sum(ours[i] for i in sample))
    ratios.sort()
    return Interval(sum(theirs) / sum(ours), ratios[int(0.025 * n)], ratios[int(0.975 * n)])


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
