"""Whether the gate lets an adapter pass that helps, and keeps one that does not.

    bench/learning/gate.py [--seeds 20] [--first 0] [--shuffled] [--ask] [--epochs 4]

Each seed draws a hundred commands of bench/data/smart_home_train.jsonl, whose answers are edited to
the right ones, and an adapter is trained as `coterie train` does. With --shuffled every command is
edited to the answer of another one: what such edits do teach, JSON, an adapter of a hundred others
like them knows already, and it is the one to beat. With --ask the commands of smart_home_dev.jsonl
are asked of the base with retrieval, and of the adapter without and with it. One JSON line a seed,
then how many passed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import coterie
from demo_learning import ADAPTER, MODEL, borrow, edit
from retrieval import measure
from smart_home_task import DATA, read

N_EDITS = 100


def edits(rows: list[dict[str, Any]], seed: int, shuffled: bool) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = draw.sample(rows, N_EDITS)
    answers = [row["answer"] for row in rows]
    if shuffled:
        draw.shuffle(answers)
    return [{"text": row["text"], "answer": a} for row, a in zip(rows, answers, strict=True)]


def trained(
    assistant: coterie.Assistant, rows: list[dict[str, Any]], options: argparse.Namespace, seed: int
) -> coterie.TrainingReport:
    edit(assistant, rows)
    return assistant.train(
        MODEL,
        adapter=ADAPTER,
        epochs=options.epochs,
        seed=seed,
        report_cases=0,
    )


def opened(home: Path, options: argparse.Namespace) -> coterie.Assistant:
    borrow(home)
    return coterie.Assistant.open(memory_budget="900MB", home=home, threads=options.threads)


def run(
    seed: int, rows: list[dict[str, Any]], adapters: Path | None, options: argparse.Namespace
) -> dict[str, Any]:
    """One user's training, against the base or the adapter in a folder of a store."""
    with tempfile.TemporaryDirectory(prefix="coterie-gate-") as folder:
        home = Path(folder) / "store"
        if adapters is not None:
            shutil.copytree(adapters, home / "adapters")
        with opened(home, options) as assistant:
            report = trained(assistant, edits(rows, seed, options.shuffled), options, seed)
            found: dict[str, Any] = {
                "seed": seed,
                "promoted": report.promoted,
                "gain": round(report.gain, 4),
                "interval": [round(bound, 4) for bound in report.gain_interval],
                "forgetting": round(report.forgetting, 4),
                "held_out": report.held_out,
                "seconds": round(report.seconds, 1),
                "verdict": report.verdict,
            }
            if options.ask and report.promoted:
                asked = read(DATA / "smart_home_dev.jsonl")
                found["retrieval"] = measure(assistant, MODEL, asked, retrieval=True)
                found["adapter"] = measure(assistant, ADAPTER, asked, retrieval=False)
                found["adapter + retrieval"] = measure(assistant, ADAPTER, asked, retrieval=True)
    return found


def to_beat(folder: Path, rows: list[dict[str, Any]], options: argparse.Namespace) -> Path:
    """The adapters of a store with one of shuffled edits."""
    with opened(folder / "store", options) as assistant:
        report = trained(assistant, edits(rows, options.first, shuffled=True), options, 0)
    if not report.promoted:
        raise SystemExit(f"the adapter to beat was not promoted: {report.verdict}")
    return folder / "store" / "adapters"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--ask", action="store_true")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = read(DATA / "smart_home_train.jsonl")
    n_promoted = 0
    with tempfile.TemporaryDirectory(prefix="coterie-gate-") as folder:
        known = to_beat(Path(folder), rows[:N_EDITS], options) if options.shuffled else None
        for seed in range(options.first, options.first + options.seeds):
            found = run(seed, rows[N_EDITS:], known, options)
            n_promoted += found["promoted"]
            print(json.dumps(found), flush=True)
    print(json.dumps({"promoted": n_promoted, "of": options.seeds}))


if __name__ == "__main__":
    main()
