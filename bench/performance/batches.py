"""Eight requests at once on one expert: decoded tokens of all of them per second."""

from __future__ import annotations

from pathlib import Path

from performance.programs import Peer, ours
from performance.rows import Row

AT_ONCE = "8"
BAR = 1.5


def measure(model: str, path: Path, peer: Peer, rounds: int) -> list[Row]:
    passes, answers, theirs = [], [], []
    for _ in range((rounds + 1) // 2):  # Each is medians of three already.
        result = ours("batch_bench", path)
        passes.append(result["passes"][AT_ONCE]["tokens_per_second"])
        answers.append(result["answers"][AT_ONCE]["tokens_per_second"])
        if peer:
            batches = peer.measure("--batch", path)["passes"]
            theirs.append(batches[AT_ONCE]["tokens_per_second"])
    return [
        Row(model, "eight at once, decode, all of them", "tokens/s", passes, theirs, BAR),
        Row(model, "eight at once, whole answers through Assistant", "tokens/s", answers),
    ]
