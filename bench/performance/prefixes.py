"""A system prompt of 512 tokens again, after a switch away and back."""

from __future__ import annotations

import statistics
from pathlib import Path

import prefix_bench
from performance.rows import Row

MAX_BEYOND_MS = 30.0


def measure(model: str, path: Path, rounds: int) -> list[Row]:
    times = prefix_bench.Times(model)
    prefix_bench.measure_memory(times, model, prefix_bench.system_prompt(path), rounds)
    resident = statistics.median(times.samples("resident", "first_token"))
    evicted = [
        first - load - resident
        for first, load in zip(
            times.samples("evicted", "first_token"), times.samples("evicted", "load"), strict=True
        )
    ]
    switched = [first - resident for first in times.samples("switched", "first_token")]
    computed = times.samples("nothing kept", "first_token")
    return [
        Row(
            model,
            "system prompt of 512 tokens, after a switch, beyond resident",
            "ms",
            switched,
            [],
            MAX_BEYOND_MS,
            "lower",
        ),
        Row(
            model,
            "system prompt of 512 tokens, its expert loaded again, beyond resident and loading",
            "ms",
            evicted,
            [],
            MAX_BEYOND_MS,
            "lower",
        ),
        Row(model, "system prompt of 512 tokens, first token, computed", "ms", computed),
    ]
