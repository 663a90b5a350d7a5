"""Measures what README and docs/measurements.md state, on this machine, and prints it as tables.

    make bench                          coterie alone
    make bench PEER=PYTHON              beside llama.cpp, through a Python that has llama-cpp-python

Speeds are medians; coterie and the peer run in turn, A B A B. Weight bytes times tokens/s is set
beside the read bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import coterie
from coterie.store import Store

ROOT = Path(__file__).resolve().parents[1]
MODELS = ["smollm2-135m", "qwen2.5-coder-0.5b"]
BUDGET = 600_000_000
# 20 tokens or so once a template is around them.
SHORT_PROMPT = "Say hello."
BATCHES = ["1", "2", "4", "8", "16"]


def run_json(command: list[str]) -> dict[str, Any]:
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output.strip().splitlines()[-1]))


def speeds(path: Path, peer: str | None, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians over rounds of coterie and, if there is one, the peer, run in turn."""
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(rounds):
        ours.append(run_json([str(ROOT / "build/release/bench/expert_bench"), str(path)]))
        if peer:
            theirs.append(run_json([peer, str(ROOT / "bench/llama_cpp_peer.py"), str(path)]))

    def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
        numbers = [key for key, value in runs[0].items() if isinstance(value, int | float)]
        return {key: statistics.median(run[key] for run in runs) for key in numbers}

    return {**ours[0], **medians(ours)}, medians(theirs) if theirs else {}


def print_speeds(model: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for what in ("prefill", "decode"):
        own = ours[f"{what}_tokens_per_second"]
        row = f"| {model} | {what} {512 if what == 'prefill' else 64} | {own:.0f} |"
        if theirs:
            other = theirs[f"{what}_tokens_per_second"]
            row += f" {other:.0f} | {own / other:.2f} |"
        else:
            row += " - | - |"
        if what == "decode":
            used = ours["weight_bytes"] * own
            limit = ours["read_bytes_per_second"]
            row += f" {used / 1e9:.1f} of {limit / 1e9:.1f} GB/s read |"
        else:
            row += f" int8 limit {ours['int8_macs_per_second'] / 1e9:.0f} GMAC/s |"
        print(row)
    adapted = ours["adapter_decode_tokens_per_second"]
    cost = ours["decode_tokens_per_second"] / adapted - 1
    print(f"| {model} | decode, adapter | {adapted:.0f} | - | - | {cost:+.1%} time for rank 8 |")


def print_batches(model: str, path: Path, peer: str | None, rounds: int) -> None:
    """Tokens of all sequences per second: forward passes, whole answers, llama.cpp's passes."""
    rates: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        results = {"coterie": run_json([str(ROOT / "build/release/bench/batch_bench"), str(path)])}
        if peer:
            script = str(ROOT / "bench/llama_cpp_peer.py")
            results["llama.cpp"] = run_json([peer, script, "--batch", str(path)])
        for who, result in results.items():
            for level in ("passes", "answers"):
                for n, measured in result.get(level, {}).items():
                    row = rates.setdefault(f"{who}, {level}", {})
                    row.setdefault(n, []).append(measured["tokens_per_second"])
    for name, row in rates.items():
        cells = [f"{statistics.median(row[n]):.0f}" for n in BATCHES]
        print(f"| {model} | {name} | {' | '.join(cells)} |")


def first_tokens() -> dict[str, list[float]]:
    """First-token times (ms) of resident experts and of switches, through the Assistant."""
    assistant = coterie.Assistant.open(memory_budget=BUDGET)
    times: dict[str, list[float]] = {}

    def ask(model: str) -> None:
        reply = assistant.generate(
            SHORT_PROMPT, expert=model, max_tokens=2, temperature=0.0, log=False, reuse=False
        )
        kind = "resident" if reply.timings.how == "hit" else "switch"
        times.setdefault(f"{model} {kind}", []).append(reply.timings.first_token_ms)

    for turn in range(22):
        model = MODELS[turn % 2]
        ask(model)
        ask(model)
    return {name: values[1:] for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python with llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    store = Store()
    print(f"{platform.processor() or platform.machine()}, coterie {coterie.__version__}\n")
    print("| model | what | tokens/s | llama.cpp | times | beside the limit |")
    print("|---|---|---|---|---|---|")
    for model in MODELS:
        record = store.find(model)
        if record is None:
            print(f"{model} is missing: coterie pull {model}", file=sys.stderr)
            return 1
        ours, theirs = speeds(store.path_of(record), arguments.peer, arguments.rounds)
        print_speeds(model, ours, theirs)
    print(f"\n| model | tokens/s, sequences at once | {' | '.join(BATCHES)} |")
    print("|---" * (len(BATCHES) + 2) + "|")
    for model in MODELS:
        record = store.find(model)
        if record is not None:
            print_batches(model, store.path_of(record), arguments.peer, arguments.rounds)
    print("\n| first token of a short prompt | median ms | worst ms | n |")
    print("|---|---|---|---|")
    for name, values in sorted(first_tokens().items()):
        print(f"| {name} | {statistics.median(values):.0f} | {max(values):.0f} | {len(values)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
