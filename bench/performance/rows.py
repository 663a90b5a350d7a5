"""What a row of the table holds, and whether it meets its bar."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Row:
    """One measured quantity of one model."""

    model: str
    what: str
    unit: str
    ours: list[float]  # Samples; the median counts, or for a p95 or p99 the one value.
    theirs: list[float] = field(default_factory=list)  # The peer's, in turn with ours.
    bar: float | None = None
    better: Literal["times", "lower"] = (
        "times"  # The bar: at least so many times the peer, or most.
    )
    limit: float | None = None  # What the machine allows at most, in the same unit.
    limited_by: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.ours)

    @property
    def peer(self) -> float | None:
        return statistics.median(self.theirs) if self.theirs else None

    @property
    def times(self) -> float | None:
        return self.value / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """None: there is no bar, or no peer to hold it against."""
        if self.bar is None:
            return None
        if self.better == "lower":
            return self.value <= self.bar
        if self.times is None or self.peer is None:
            return None
        wanted = self.bar * self.peer
        if self.limit is not None:  # No decoder reads faster than memory is.
            wanted = min(wanted, 0.92 * self.limit)
        return self.value >= wanted
