"""What it is worth to show an expert the nearest answers that its user has edited, and to train it.

    bench/learning/retrieval.py [--model smollm2-135m] [--examples 100] [--train EPOCHS] [--seed 0]

The first commands of bench/data/smart_home_train.jsonl are asked, and every answer is edited to the
right one; then each of smart_home_dev.jsonl is asked twice, without and with retrieval, greedily.
With --train an adapter is trained on the edits as `coterie train` does, and all is asked of it
again, published or not. Prints exact (the same object), action (the same action) and valid (JSON),
in percent, and the time to the first token. Works in a store of its own that borrows the model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import coterie
from demo_learning import borrow, edit
from smart_home_task import DATA, MAX_TOKENS, messages, read, score


def measure(
    assistant: coterie.Assistant, model: str, rows: list[dict[str, Any]], retrieval: bool
) -> dict[str, float]:
    shown, first_ms, answers = [], [], []
    for row in rows:
        reply = assistant.generate(
            messages(row["text"]),
            expert=model,
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            retrieval=retrieval,
            log=False,
        )
        shown.append(len(reply.examples))
        first_ms.append(reply.timings.first_token_ms)
        answers.append(reply.text)
    return asdict(score(answers, rows)) | {
        "examples": statistics.mean(shown),
        "first_token_ms": statistics.median(first_ms),
    }


def report(name: str, found: dict[str, float]) -> None:
    print(
        f"| {name} | " + " | ".join(f"{value:.1f}" for value in found.values()) + " |", flush=True
    )


def train(assistant: coterie.Assistant, model: str, epochs: int, seed: int) -> str:
    """The expert that the adapter makes."""
    start = time.monotonic()
    result = assistant.train(
        model, adapter="home", epochs=epochs, seed=seed, largest_forgetting=100.0, report_cases=0
    )
    if not result.promoted:
        raise SystemExit(result.verdict)
    print(
        f"\ntrained on {result.examples} edits, {result.held_out} held back, in "
        f"{time.monotonic() - start:.0f} s with the gate: {result.verdict}\n"
    )
    return "home"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--train", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = read(DATA / "smart_home_dev.jsonl")
    with tempfile.TemporaryDirectory(prefix="coterie-retrieval-") as folder:
        home = Path(folder) / "store"
        borrow(home, options.model)
        with coterie.Assistant.open(memory_budget="900MB", home=home, threads=2) as assistant:
            edit(assistant, read(DATA / "smart_home_train.jsonl")[: options.examples])
            print(f"{options.model}, {len(rows)} commands, {options.examples} edits\n")
            print("| | exact % | action % | valid % | examples shown | first token ms |")
            print("|---|---|---|---|---|---|")
            report("base", measure(assistant, options.model, rows, retrieval=False))
            report("base + retrieval", measure(assistant, options.model, rows, retrieval=True))
            if options.train > 0:
                expert = train(assistant, options.model, options.train, options.seed)
                report("adapter", measure(assistant, expert, rows, retrieval=False))
                report("adapter + retrieval", measure(assistant, expert, rows, retrieval=True))


if __name__ == "__main__":
    main()
