"""What an adapter learns of a smart home's commands, and in what time.

    bench/learning/smart_home.py [--examples 100] [--epochs 6] [--seeds 1] [--model smollm2-135m]

Trains on the first rows of bench/data/smart_home_train.jsonl (only the answer is in the loss) and
asks every command of smart_home_dev.jsonl greedily. Prints exact (the same object), action (the
same action) and valid (JSON), in percent, and speed. The peer on the same rows: peft_smart_home.py.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import asdict
from typing import Any

import coterie
from coterie.store import Store
from smart_home_task import DATA, MAX_TOKENS, SYSTEM, messages, read, score, wanted


def prompt(text: str) -> str:
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def example(expert: coterie.Expert, row: dict[str, Any]) -> tuple[list[int], list[bool]]:
    encode = expert.tokenizer.encode
    asked = encode(prompt(row["text"]), add_special=False)
    told = encode(wanted(row) + "<|im_end|>", add_special=False)
    return asked + told, [False] * len(asked) + [True] * len(told)


def ask(expert: coterie.Expert, adapter: coterie.Adapter | None) -> dict[str, float]:
    rows = read(DATA / "smart_home_dev.jsonl")
    answers = [
        expert.generate(messages(row["text"]), max_tokens=MAX_TOKENS, adapter=adapter).text
        for row in rows
    ]
    return {name: round(value, 1) for name, value in asdict(score(answers, rows)).items()}


def train(
    expert: coterie.Expert, n_examples: int, epochs: int, batch: int, rate: float, seed: int
) -> dict[str, Any]:
    examples = [example(expert, row) for row in read(DATA / "smart_home_train.jsonl")[:n_examples]]
    trainer = coterie.Trainer(
        expert,
        max_tokens=768,
        rank=8,
        alpha=16.0,
        learning_rate=rate,
        seed=seed,
        warmup_steps=5,
        total_steps=epochs * -(-len(examples) // batch),
    )
    order = random.Random(seed)
    tokens, start = 0, time.monotonic()
    for _ in range(epochs):
        order.shuffle(examples)
        for begin in range(0, len(examples), batch):
            tokens += trainer.step(examples[begin : begin + batch])["tokens"]
    seconds = time.monotonic() - start
    result: dict[str, Any] = {"seed": seed, **ask(expert, trainer.adapter())}
    return result | {"train_s": round(seconds, 1), "tokens_per_s": round(tokens / seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    store = Store()
    record = store.find(arguments.model)
    if record is None:
        raise SystemExit(f"{arguments.model} is not in the store: coterie pull {arguments.model}")
    expert = coterie.Expert.open(store.path_of(record))
    print(json.dumps({"base": ask(expert, None)}))
    results = []
    for seed in range(arguments.seeds):
        results.append(
            train(
                expert,
                arguments.examples,
                arguments.epochs,
                arguments.batch,
                arguments.learning_rate,
                seed,
            )
        )
        print(json.dumps(results[-1]), flush=True)
    mean = {
        k: round(statistics.mean(r[k] for r in results), 1) for k in ("exact", "action", "valid")
    }
    print(json.dumps({"mean": mean, "examples": arguments.examples, "epochs": arguments.epochs}))


if __name__ == "__main__":
    main()
