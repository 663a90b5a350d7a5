"""Measures the table of docs/performance.md on this machine.

    make bench                  builds llama.cpp, and measures beside it
    make bench WRITE=docs       and writes performance.md, .json and .png there
    make bench PEER=PYTHON      beside the llama.cpp of a Python that has llama-cpp-python
    make bench PEER=none        coterie alone

It takes an hour. What is written there already of the same commit and CPU stays, samples add up:
a run of some models, sections or rounds may follow another.

Where there is a peer the two run in turn, A B A B, and medians count. Bars and what they are set
against stand in bench/performance/.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from coterie.store import Store
from performance import batches, machine, page, prefixes, random_llama, speed, switching
from performance.programs import Peer
from performance.rows import Row

MODELS = ["smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
RANDOM = "llama-1b-q4_0 (random)"
SECTIONS = ("speed", "batches", "switching", "prefixes")


def measure(model: str, path: Path, peer: Peer, rounds: int, sections: list[str]) -> list[Row]:
    rows: list[Row] = []
    if "speed" in sections:
        rows += speed.measure(model, path, peer, rounds)
    if model == RANDOM:  # Not in the store: no Assistant knows it.
        return rows
    if "batches" in sections:
        rows += batches.measure(model, path, peer, rounds)
    if "switching" in sections:
        rows += switching.measure(model, path, rounds)
    if "prefixes" in sections:
        rows += prefixes.measure(model, path, rounds)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; those in the store")
    parser.add_argument("--peer", help="a Python with llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument(
        "--random", action="store_true", help="the Q4_0 file of Llama-3.2-1B's shape"
    )
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="the page goes there")
    options = parser.parse_args()

    store = Store()
    paths = {}
    for model in options.models or MODELS:
        record = store.find(model)
        if record is not None:
            paths[model] = Path(store.path_of(record)).resolve()
        elif model in options.models:
            print(f"{model} is missing: coterie pull {model}", file=sys.stderr)
            return 1
    tokenizer = store.find("smollm2-135m")  # Whose the random model takes.
    if options.random and tokenizer is None:
        print("--random takes a tokenizer from: coterie pull smollm2-135m", file=sys.stderr)
        return 1
    command = "make bench WRITE=docs" if options.peer else "make bench PEER=none WRITE=docs"
    rows: list[Row] = []
    about = machine.describe()
    print("\n".join(page.machine_table(about)), flush=True)
    before = page.earlier(options.write, about) if options.write else []
    with tempfile.TemporaryDirectory(prefix="coterie-bench-") as folder:
        if options.random:
            paths[RANDOM] = Path(folder) / "llama-1b-q4_0.gguf"
            random_llama.write(paths[RANDOM], store.path_of(tokenizer))
        for model, path in paths.items():
            found = measure(model, path, Peer(options.peer), options.rounds, options.sections)
            print("\n" + "\n".join(page.table(found)), flush=True)
            rows += found
            if options.write:  # After each model: it takes long, and may be ended before the last.
                page.write(options.write, about, page.together(before, rows), command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
