"""Request traces (bench/workloads/*.json), and what came of replaying one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coterie.workload import Workload


@dataclass(frozen=True)
class Asked:
    """turn: its requests are sent at once, those of the next when all have been answered."""

    turn: int
    expert: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class Trace:
    """what: for people; fits: how many of the experts memory is to hold."""

    name: str
    what: str
    experts: list[str]
    fits: int
    requests: list[Asked]

    def turns(self) -> list[list[Asked]]:
        turns: list[list[Asked]] = [[] for _ in range(self.requests[-1].turn + 1)]
        for each in self.requests:
            turns[each.turn].append(each)
        return turns


def read(path: Path) -> Trace:
    """ValueError names the file and what is wrong."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        trace = Trace(
            path.stem,
            str(fields["what"]),
            list(fields["experts"]),
            int(fields["fits"]),
            [Asked(**each) for each in fields["requests"]],
        )
        _check(trace)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no request trace: {error}") from None
    return trace


def _check(trace: Trace) -> None:
    if not 0 < trace.fits < len(trace.experts):
        raise ValueError("fits must be above 0 and below the number of experts")
    last = -1
    for number, each in enumerate(trace.requests):
        if each.turn not in (last, last + 1) or each.turn < 0:
            raise ValueError(f"request {number}: turns must count up from 0")
        if each.expert not in trace.experts:
            raise ValueError(f'request {number}: expert "{each.expert}" is not of this trace')
        if not each.prompt or each.max_tokens < 1:
            raise ValueError(f"request {number}: it asks nothing")
        last = each.turn
    if last < 0:
        raise ValueError("it has no requests")


@dataclass(frozen=True)
class Answer:
    """first_ms: from sending the request to the first text of its answer."""

    expert: str
    text: str
    first_ms: float
    prompt_tokens: int


@dataclass(frozen=True)
class Replayed:
    """One replay by one program. peak_bytes: of its ledger; None if it has none."""

    answers: list[Answer]
    loads: int
    bytes_loaded: int
    seconds: float
    peak_bytes: int | None = None

    def samples(self) -> dict[str, Any]:
        """What was measured, without the texts."""
        return {
            "first_token_ms": [round(answer.first_ms, 2) for answer in self.answers],
            "loads": self.loads,
            "bytes_loaded": self.bytes_loaded,
            "seconds": round(self.seconds, 3),
            "peak_bytes": self.peak_bytes,
        }

    def check(self, trace: Trace, budget: int) -> None:
        """SystemExit unless every request was answered by whom it asked, within the budget."""
        for asked, answer in zip(trace.requests, self.answers, strict=True):
            if answer.expert != asked.expert or not answer.text.strip():
                raise SystemExit(f"{trace.name}: {asked} was answered by {answer}")
        if self.peak_bytes is not None and self.peak_bytes > budget:
            raise SystemExit(f"{trace.name}: {self.peak_bytes} bytes in a budget of {budget}")


def hit_rate(loads: int, requests: int) -> float:
    """The share of requests for which nothing was loaded: each load is for the request that caused
    it, and whoever joined it found it there."""
    return 1 - loads / requests


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that is no less than this share of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def in_turns(log: Workload, trace: Trace) -> Workload:
    """A request log of a replay with its turns apart, for a simulation of another policy: what that
    loads more must not let the next turn begin before this one has been answered."""
    sizes = [len(turn) for turn in trace.turns()]
    if len(log.requests) != sum(sizes):
        raise ValueError(f"{len(log.requests)} requests were logged and {sum(sizes)} sent")
    gap = 0.0
    begin = 0
    for size in sizes:
        own = log.requests[begin : begin + size]
        gap = max(gap, sum(each.hold_s + log.bases[each.base].load_s for each in own))
        begin += size
    turns = [turn for turn, size in enumerate(sizes) for _ in range(size)]
    return Workload(
        log.bases,
        [
            replace(each, arrival_s=2 * gap * turn)
            for each, turn in zip(log.requests, turns, strict=True)
        ],
    )


def line(trace: Trace, name: str, replays: Sequence[Replayed]) -> dict[str, Any]:
    """A row of the table, over all rounds of a program on a trace."""
    n = len(trace.requests) * len(replays)
    first = [answer.first_ms for replay in replays for answer in replay.answers]
    loads = sum(replay.loads for replay in replays)
    return {
        "program": name,
        "hit_rate": hit_rate(loads, n),
        "first_token_p50_ms": percentile(first, 0.5),
        "first_token_p99_ms": percentile(first, 0.99),
        "loads": loads / len(replays),
        "bytes_loaded": sum(replay.bytes_loaded for replay in replays) / len(replays),
        "seconds": percentile([replay.seconds for replay in replays], 0.5),
    }


def computed_line(trace: Trace, name: str, simulated: dict[str, Any]) -> dict[str, Any]:
    """A row of a policy that was simulated: it has no times."""
    return {
        "program": name,
        "hit_rate": hit_rate(simulated["loads"], len(trace.requests)),
        "loads": simulated["loads"],
        "bytes_loaded": simulated["bytes_loaded"],
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| | hit rate | first token, p50 | p99 | loads | loaded | whole trace |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["program"],
            f"{row['hit_rate']:.0%}",
            _time(row.get("first_token_p50_ms")),
            _time(row.get("first_token_p99_ms")),
            f"{row['loads']:.3g}",
            f"{row['bytes_loaded'] / 1e9:.2f} GB",
            f"{row['seconds']:.1f} s" if "seconds" in row else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _time(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f} ms"
