"""The plot of docs/replay.md: first tokens against how often the expert was switched before."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from performance.traces import Trace


def switches(trace: Trace) -> list[int]:
    """Numbers of the requests to another expert than the one before."""
    names = [asked.expert for asked in trace.requests]
    return [i for i, (before, name) in enumerate(pairwise(names), 1) if name != before]


def first_tokens(replays: Sequence[dict[str, Any]], requests: Sequence[int]) -> list[float]:
    """The median of all replays for each, in ms."""
    return [statistics.median(each["first_token_ms"][i] for each in replays) for i in requests]


def plot(path: Path, traces: Sequence[Trace], results: Sequence[dict[str, Any]]) -> None:
    figure, axes = pyplot.subplots(1, len(traces), figsize=(3.2 * len(traces), 3), squeeze=False)
    for trace, result, its_axes in zip(traces, results, axes[0], strict=True):
        at = switches(trace)
        for program, replays in result["replays"].items():
            its_axes.plot(range(1, len(at) + 1), first_tokens(replays, at), label=program, lw=1)
        its_axes.set(title=trace.name, xlabel="switches", yscale="log")
    axes[0][0].set_ylabel("first token, ms")
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
