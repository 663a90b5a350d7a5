"""Prefill and decode of one model beside llama.cpp and the machine's limits, A B A B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from performance.programs import Peer, ours
from performance.rows import Row

PROMPT, GENERATED, DEPTH = 512, 64, 2048
# Beside llama.cpp: prefill, decode, decode at depth. Zen 4 and the files of models.lock.json.
BARS = {
    "smollm2-135m": (5.0, 1.8, 2.5),
    "gemma-3-270m": (3.0, 1.6, 1.6),
    "qwen2.5-coder-0.5b": (2.8, 1.6, 1.6),
    "qwen2.5-coder-1.5b": (2.2, 1.35, 1.4),
    "llama-1b-q4_0 (random)": (1.5, 1.3, None),
}
MAX_ADAPTER_COST = 0.04
MAX_GAP_RATIO = 1.5
MAX_BEYOND_TENSORS = 60e6


def measure(model: str, path: Path, peer: Peer, rounds: int) -> list[Row]:
    # Three passes a process, of which the median counts: the first one finds its memory untouched.
    shallow = [(PROMPT, GENERATED, 3, 0), (16, GENERATED, 1, DEPTH)]
    runs: list[list[dict[str, Any]]] = [[], []]
    theirs: list[list[dict[str, Any]]] = [[], []]
    for _ in range(rounds):
        for i, arguments in enumerate(shallow):
            runs[i].append(ours("expert_bench", path, *arguments))
            if peer:
                theirs[i].append(peer.measure(path, *arguments))
    prefill_bar, decode_bar, depth_bar = BARS.get(model, (None, None, None))

    def row(what: str, i: int, key: str, bar: float | None) -> Row:
        return Row(
            model,
            what,
            "tokens/s",
            [run[key] for run in runs[i]],
            # llama.cpp has one way to decode.
            [run.get(key, run["decode_tokens_per_second"]) for run in theirs[i]],
            bar,
        )

    prefill = row(f"prefill {PROMPT}", 0, "prefill_tokens_per_second", prefill_bar)
    # As answers are written by default: drawn from the largest logits. Greedy ones need fewer of
    # them, others all.
    decode = row(f"decode {GENERATED}", 0, "drawn_tokens_per_second", decode_bar)
    deep = row(f"decode at depth {DEPTH}", 1, "drawn_tokens_per_second", depth_bar)
    others = [
        row(f"{what} {which}", i, key, None)
        for i, what in enumerate((f"decode {GENERATED}", f"decode at depth {DEPTH}"))
        for which, key in (
            ("greedy", "greedy_tokens_per_second"),
            ("every logit", "decode_tokens_per_second"),
        )
    ]
    first = runs[0][0]
    prefill.limit = first["int8_macs_per_second"] / first["macs_per_token"]
    prefill.limited_by = "int8 rate"
    for decoding in (decode, deep, *others):
        bandwidth = max(run["read_bytes_per_second"] for run in runs[0])
        decoding.limit = bandwidth / first["read_bytes_per_token"]
        decoding.limited_by = "read bandwidth"
    adapted = [
        run["decode_tokens_per_second"] / run["adapter_decode_tokens_per_second"] - 1
        for run in runs[0]
    ]
    cost = Row(model, "decode cost of a rank-8 adapter", "", adapted, [], MAX_ADAPTER_COST, "lower")
    screen = Row(
        model, "screen of the head, in free memory", "MB", [first["screen_bytes"] / 1e6], [], None
    )
    return [prefill, decode, deep, *others, cost, screen, *one_process(model, path)]


def one_process(model: str, path: Path) -> list[Row]:
    """How evenly tokens come, and what is resident beyond what must be."""
    runs = [ours("session_bench", path) for _ in range(3)]
    gaps = [run["token_ms_p99"] / run["token_ms_median"] for run in runs]
    beyond = [run["peak_resident_bytes"] - run["tensor_bytes"] - run["kv_bytes"] for run in runs]
    return [
        Row(model, "time between tokens, p99 over median", "", gaps, [], MAX_GAP_RATIO, "lower"),
        Row(
            model,
            "resident beyond tensors and KV",
            "MB",
            [value / 1e6 for value in beyond],
            [],
            MAX_BEYOND_TENSORS / 1e6,
            "lower",
        ),
    ]
