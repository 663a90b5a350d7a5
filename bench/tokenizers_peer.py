"""Tokenizers of coterie and of Hugging Face side by side: one core, the same text.

    tokenizers_peer.py MODEL.gguf TEXT [ROUNDS=3]

Runs build/release/bench/tokenizer_bench and, with `pip install tokenizers==0.23.3`, the reference
that tests/core/formats/make_tokenizer_golden.py builds from the same file, in turn. Processor time,
medians. The reference gets the first 400 kB of the text, in one piece as ours does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "core" / "formats"))
os.environ["RAYON_NUM_THREADS"] = "1"

import make_tokenizer_golden as golden  # noqa: E402


def reference(path: str):  # type: ignore[no-untyped-def]
    tokens, second, types = golden.read_gguf(path)
    if isinstance(second[0], float):
        return golden.sentence_piece(tokens, second, types)
    return golden.byte_level(golden.family_of(path), tokens, second, types)


def main() -> None:
    path, text_path = sys.argv[1:3]
    n_rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    text = Path(text_path).read_bytes()[:400_000].decode(errors="ignore")
    peer = reference(path)
    bench = [str(ROOT / "build/release/bench/tokenizer_bench"), path, text_path]
    bench += ["--benchmark_format=json", "--benchmark_filter=EncodeText|EncodeOneLetter|Build"]
    ours: dict[str, list[float]] = {}
    theirs: list[float] = []
    for _ in range(n_rounds):
        out = subprocess.run(bench, check=True, capture_output=True, text=True).stdout
        for row in json.loads(out)["benchmarks"]:
            rate = row.get("bytes_per_second", 0) / 1e6
            ours.setdefault(row["name"], []).append(rate or row["cpu_time"] / 1e6)
        begin = time.process_time()
        peer.encode(text, add_special_tokens=False)
        theirs.append(len(text.encode()) / 1e6 / (time.process_time() - begin))
    rate, other = statistics.median(ours["BM_EncodeText"]), statistics.median(theirs)
    print(f"coterie      {rate:7.1f} MB/s")
    print(f"tokenizers   {other:7.1f} MB/s; coterie is {rate / other:.0f} times as fast")
    letters = statistics.median(ours["BM_EncodeOneLetter"])
    print(f"one letter   {2**20 / 1e6 / letters:7.2f} s for 2^20 of it")
    print(f"building     {statistics.median(ours['BM_Build']):7.1f} ms")


if __name__ == "__main__":
    main()
