"""What a training beside it costs a request: time to the first token, and speed of the answer.

    bench/learning/preemption.py [--model smollm2-135m] [--requests 20] [--rounds 4]

In each round asks some commands with nothing else to do, and the same while an adapter is trained
on --examples edited answers: greedily, one after another, with a pause between them in which
training goes on. Prints the time to the first token and the decoding speed, medians and 95th
percentiles, and checks that the answers are the same and that training was under way.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import coterie
from demo_learning import borrow, edit
from smart_home_task import DATA, messages, read

PAUSE_S = 0.4
TOKENS = 32


def ask(assistant: coterie.Assistant, model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    first_ms, speeds, texts = [], [], []
    for row in rows:
        reply = assistant.generate(
            messages(row["text"]), expert=model, max_tokens=TOKENS, temperature=0.0, log=False
        )
        first_ms.append(reply.timings.first_token_ms)
        if reply.usage.completion_tokens > TOKENS // 2:
            speeds.append(reply.timings.decode_tokens_per_second)
        texts.append(reply.text)
        time.sleep(PAUSE_S)
    return {"first_ms": first_ms, "speeds": speeds, "texts": texts}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(name: str, found: dict[str, Any]) -> None:
    first, speed = found["first_ms"], found["speeds"]
    print(
        f"| {name} | {statistics.median(first):.0f} | {percentile(first, 0.95):.0f} "
        f"| {statistics.median(speed):.1f} | {percentile(speed, 0.05):.1f} |"
    )


def train_beside(assistant: coterie.Assistant, model: str, epochs: int) -> threading.Thread:
    trainer = threading.Thread(target=assistant.train, args=(model,), kwargs={"epochs": epochs})
    trainer.start()
    for phase in ("measuring", "training"):
        while assistant.training()["phase"] != phase and trainer.is_alive():
            time.sleep(0.01)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    rows = read(DATA / "smart_home_dev.jsonl")[: options.requests]
    idle: dict[str, list[Any]] = {"first_ms": [], "speeds": [], "texts": []}
    during: dict[str, list[Any]] = {"first_ms": [], "speeds": [], "texts": []}
    with tempfile.TemporaryDirectory(prefix="coterie-preemption-") as folder:
        home = Path(folder) / "store"
        borrow(home)
        with coterie.Assistant.open(memory_budget="900MB", home=home) as assistant:
            edit(assistant, read(DATA / "smart_home_train.jsonl")[: options.examples])
            for part in (rows[i :: options.rounds] for i in range(options.rounds)):
                for name, values in ask(assistant, options.model, part).items():
                    idle[name] += values
                trainer = train_beside(assistant, options.model, options.epochs)
                for name, values in ask(assistant, options.model, part).items():
                    during[name] += values
                if not trainer.is_alive() or assistant.training()["phase"] != "training":
                    raise SystemExit("not a measurement: training ended first; give more epochs")
                trainer.join()
    if during["texts"] != idle["texts"]:
        raise SystemExit("not a measurement: the answers are not the same")
    print(f"{options.model}, {len(rows)} requests in {options.rounds} rounds")
    print("| | first token ms, median | 95 % | tokens/s, median | 5 % |")
    print("|---|---|---|---|---|")
    show("idle", idle)
    show("while training", during)
    delays = [statistics.median(during["first_ms"]) - statistics.median(idle["first_ms"])]
    delays.append(percentile(during["first_ms"], 0.95) - percentile(idle["first_ms"], 0.95))
    share = 100 * statistics.median(during["speeds"]) / statistics.median(idle["speeds"])
    print(f"first token later by {delays[0]:.0f} ms (median), {delays[1]:.0f} ms (95 %)")
    print(f"decoding at {share:.1f} % of the idle speed")


if __name__ == "__main__":
    main()
