"""What an expert forgets of general text while it learns a task from corrections.

    bench/learning/forgetting.py TEXT [--replay FILE] [--share 0.25 --share 0] [--epochs 4]

Gives --examples commands of bench/data/smart_home_train.jsonl to the model, edits every answer to
the right one, and trains an adapter once for each --share of replay, on a store of its own. Then
reads the beginning of TEXT (any text that no part of this project was made from; wikitext2's
valid.txt) in windows of 512 tokens, without and with the adapter, and prints the mean negative
log-likelihood in nats a token beside what the training's own probe said of it. Each of the figures
is over the same windows; the interval is of the mean of their differences (95 %).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import coterie
from coterie.store import Store
from demo_learning import borrow, edit
from smart_home_task import DATA, read

WINDOW = 512


def windows(
    expert: coterie.Expert, text: Path, n_tokens: int
) -> list[tuple[list[int], list[bool]]]:
    beginning = text.read_text(encoding="utf-8")[: 8 * n_tokens]
    ids = expert.tokenizer.encode(beginning, add_special=False)[:n_tokens]
    parts = [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
    return [(part, [False] + [True] * (len(part) - 1)) for part in parts]


def nats(trainer: coterie.Trainer, parts: Any, adapted: bool) -> list[float]:
    return [nll / n for nll, n in trainer.evaluate(parts, adapted=adapted)]


def measure(
    expert: coterie.Expert, adapter: coterie.Adapter, parts: Any, before: list[float]
) -> dict[str, float]:
    trainer = coterie.Trainer(expert, max_tokens=WINDOW)
    trainer.load(adapter)
    after = nats(trainer, parts, adapted=True)
    differences = [b - a for a, b in zip(before, after, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return {
        "nats_before": round(statistics.mean(before), 4),
        "nats_after": round(statistics.mean(after), 4),
        "forgetting": round(statistics.mean(differences), 4),
        "interval": round(2.02 * error, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--share", type=float, action="append")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--tokens", type=int, default=40 * WINDOW)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    store = Store()
    record = store.find(options.model)
    if record is None:
        raise SystemExit(f"{options.model} is not in the store: coterie pull {options.model}")
    expert = coterie.Expert.open(store.path_of(record))
    parts = windows(expert, options.text, options.tokens)
    before = nats(coterie.Trainer(expert, max_tokens=WINDOW), parts, adapted=False)
    with tempfile.TemporaryDirectory(prefix="coterie-forgetting-") as folder:
        home = Path(folder) / "store"
        borrow(home, options.model)
        with coterie.Assistant.open(memory_budget="900MB", home=home) as assistant:
            edit(assistant, read(DATA / "smart_home_train.jsonl")[: options.examples])
            for i, share in enumerate(options.share or [0.25, 0.0]):
                chosen: dict[str, Any] = (
                    {} if options.replay is None else {"replay": options.replay}
                )
                report = assistant.train(
                    options.model,
                    adapter=f"share-{i}",
                    epochs=options.epochs,
                    replay_share=share,
                    seed=options.seed,
                    largest_forgetting=100.0,  # To be measured, whatever it is.
                    **chosen,
                )
                row: dict[str, Any] = {"replay_share": share, "verdict": report.verdict}
                if report.promoted:
                    folder_of = home / "adapters" / report.adapter.replace("@", "/v000")
                    adapter = coterie.Adapter.open(folder_of, base=expert)
                    row |= measure(expert, adapter, parts, before)
                row |= {
                    "probe": round(report.forgetting, 4),
                    "gain": round(report.gain, 4),
                    "seconds": round(report.seconds, 1),
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
