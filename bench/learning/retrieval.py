"""What it is worth to show an expert the nearest answers that its user has edited.

    bench/learning/retrieval.py TRAIN.jsonl TEST.jsonl [--model smollm2-135m] [--examples 100]

Rows are {"text": command, "answer": {"action", "device", "parameters"}}. The first rows of TRAIN
are asked, and every answer is edited to the right one; then each row of TEST is asked twice,
without and with retrieval, greedily. Prints exact (the same object), action (the same action) and
valid (JSON), in percent, and the time to the first token. Keeps its log in a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import coterie
from smart_home_task import MAX_TOKENS, messages, read, score, wanted


def remember(assistant: coterie.Assistant, model: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        reply = assistant.generate(
            messages(row["text"]), expert=model, max_tokens=1, retrieval=False, temperature=0.0
        )
        assistant.feedback(reply.id, coterie.Edited(wanted(row)))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COTERIE_INTERACTIONS"] = f"{folder}/interactions.db"
        with coterie.Assistant.open(threads=2) as assistant:
            remember(assistant, options.model, read(options.train)[: options.examples])
            rows = read(options.test)
            print(f"{options.model}, {len(rows)} rows, {options.examples} edits remembered")
            print("| | exact % | action % | valid % | examples shown | first token ms |")
            print("|---|---|---|---|---|---|")
            for retrieval in (False, True):
                found = measure(assistant, options.model, rows, retrieval)
                numbers = " | ".join(f"{value:.1f}" for value in found.values())
                print(f"| {'base + retrieval' if retrieval else 'base'} | {numbers} |")


if __name__ == "__main__":
    main()
