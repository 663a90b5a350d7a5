"""How fast adapters are trained, beside PEFT on the same file and threads.

    bench/learning/speed.py [MODEL…] [--peer PYTHON --peer-script peft_train_bench.py] [--rounds 3]

Rank 8 on all linear layers, one sequence of 512 tokens. With a peer the two alternate (A B A B) and
the medians and their ratio are printed; PYTHON has torch, transformers, peft, gguf and accelerate,
and the script prints one JSON object with tokens_per_s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from coterie.store import Store
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/release/bench/training_bench"
TOKENS = 512


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(path: Path, share: float, top_layers: int, steps: int) -> dict[str, Any]:
    return run([str(PROGRAM), str(path), str(TOKENS), str(share), str(top_layers), str(steps)])


def peer(python: str, script: str, path: Path, dtype: str, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:  # transformers wants the ending.
        named = Path(folder) / "model.gguf"
        named.symlink_to(path)
        return run([python, script, str(named), "--dtype", dtype, "--steps", str(steps)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["smollm2-135m", "qwen2.5-coder-0.5b"])
    parser.add_argument("--peer")
    parser.add_argument("--peer-script")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    store = Store()
    table = Table()
    for column in ("model", "what", "tokens/s", "training MB", "PEFT", "ratio"):
        table.add_column(column, justify="left" if column in ("model", "what") else "right")
    for name in arguments.models:
        record = store.find(name)
        if record is None:
            raise SystemExit(f"{name} is not in the store: coterie pull {name}")
        path = Path(store.path_of(record)).resolve()
        speeds: dict[str, list[float]] = {"all": [], "peer": [], "35 %": [], "top 8": []}
        memory = {}
        for _ in range(arguments.rounds):
            rows = (("all", 1.0, 0), ("35 %", 0.35, 0), ("top 8", 0.35, 8))
            for what, share, top_layers in rows:
                result = ours(path, share, top_layers, arguments.steps)
                speeds[what].append(result["tokens_per_s"])
                memory[what] = result["training_mb"]
            if arguments.peer:
                result = peer(
                    arguments.peer, arguments.peer_script, path, arguments.dtype, arguments.steps
                )
                speeds["peer"].append(result["tokens_per_s"])
        medians = {what: statistics.median(values) for what, values in speeds.items() if values}
        for what in ("all", "35 %", "top 8"):
            beside = medians.get("peer") if what == "all" else None
            before = {"35 %": "all", "top 8": "35 %"}.get(what)
            ratio = medians[what] / (beside or medians[before] if before or beside else 1)
            table.add_row(
                name,
                {"all": "all tokens in the loss", "35 %": "35 % of them", "top 8": "top 8 layers"}[
                    what
                ],
                f"{medians[what]:.0f}",
                f"{memory[what]:.0f}",
                f"{beside:.0f}" if beside else "",
                f"{ratio:.2f} of {'PEFT' if what == 'all' else 'the row above'}"
                if beside or before
                else "",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
