"""How much better held-out letters of one person are foretold by an adapter, beside PEFT.

    bench/learning/style.py [--peer PYTHON] [--model smollm2-135m] [--seeds 3] [--precision auto]

128 letters (style_letters.py) in 3 epochs of batches of 4; 32 others are held out. Prints the mean
negative log-likelihood of those in nats a token before and after, and the seconds of training; a
seed gives the order of the letters and what adapters begin as. PYTHON has torch, transformers, peft
and gguf: PEFT then learns the same letters in the same order, steps and schedule on the same file,
in float32. Exits with 1 if it gains more than we do in the mean of the seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import coterie
from coterie.store import Store
from style_letters import split

EPOCHS, BATCH, RATE, WARMUP = 3, 4, 1e-3, 10


def order(n: int, seed: int) -> list[list[int]]:
    """The batches of all epochs."""
    chance, batches = random.Random(seed), []
    for _ in range(EPOCHS):
        rows = list(range(n))
        chance.shuffle(rows)
        batches += [rows[i : i + BATCH] for i in range(0, n, BATCH)]
    return batches


def ours(path: Path, seed: int, precision: str) -> dict[str, float]:
    expert = coterie.Expert.open(path)
    learnt, held_out = (
        [
            (ids, [False] + [True] * (len(ids) - 1))
            for ids in (expert.tokenizer.encode(text, add_special=False) for text in texts)
        ]
        for texts in split()
    )
    batches = order(len(learnt), seed)
    trainer = coterie.Trainer(
        expert,
        max_tokens=768,
        learning_rate=RATE,
        warmup_steps=WARMUP,
        total_steps=len(batches),
        seed=seed,
        precision=precision,
    )

    def nats(adapted: bool) -> float:
        found = trainer.evaluate(held_out, adapted=adapted)
        return sum(nll for nll, _ in found) / sum(n for _, n in found)

    before, start = nats(False), time.monotonic()
    for batch in batches:
        trainer.step([learnt[i] for i in batch])
    seconds = time.monotonic() - start
    return {"before": before, "after": nats(True), "seconds": seconds}


def peers(path: Path, seed: int, python: str) -> dict[str, float]:
    plan = {
        "model": str(path),
        "letters": split(),
        "batches": order(len(split()[0]), seed),
        "rate": RATE,
        "warmup": WARMUP,
        "seed": seed,
    }
    peer = Path(__file__).with_name("style_peer.py")
    done = subprocess.run(
        [python, str(peer)], input=json.dumps(plan), capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--peer", help="an interpreter with torch, transformers, peft and gguf")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--precision", default="auto", help="ours: auto, bf16 or f32")
    arguments = parser.parse_args()
    store = Store()
    record = store.find(arguments.model)
    if record is None:
        raise SystemExit(f"{arguments.model} is not in the store: coterie pull {arguments.model}")
    path = store.path_of(record)
    gains: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        rows = {"coterie": ours(path, seed, arguments.precision)}
        if arguments.peer:
            rows["peft"] = peers(path, seed, arguments.peer)
        for name, row in rows.items():
            row["gain"] = row["before"] - row["after"]
            gains.setdefault(name, []).append(row["gain"])
            shown = {"engine": name, "seed": seed} | {k: round(v, 4) for k, v in row.items()}
            print(json.dumps(shown), flush=True)
    means = {name: statistics.mean(each) for name, each in gains.items()}
    print(json.dumps({"mean gain": {name: round(gain, 4) for name, gain in means.items()}}))
    return int("peft" in means and means["coterie"] < means["peft"])


if __name__ == "__main__":
    sys.exit(main())
