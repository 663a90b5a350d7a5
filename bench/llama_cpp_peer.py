"""Speed of llama.cpp on one file, through llama-cpp-python's C interface: one JSON object.

    llama_cpp_peer.py MODEL.gguf [N_PROMPT=512] [N_GENERATE=64] [N_REPEAT=5] [DEPTH=0]
    llama_cpp_peer.py --batch MODEL.gguf [N_GENERATE=32] [N_REPEAT=3] [N_PROMPT=32]

Needs `pip install llama-cpp-python==0.3.36`, which builds llama.cpp for this CPU (10 minutes on two
cores). The same tokens, threads and file as bench/expert_bench.cc; with --batch, as the passes of
bench/batch_bench.cc: tokens of all sequences per second at batches of 1, 2, 4, 8 and 16.
"""

import ctypes
import json
import os
import statistics
import sys
import time
from typing import Any

import llama_cpp

QUIET = llama_cpp.llama_log_callback(lambda level, text, user: None)


def open_context(path: str, n_batch: int, n_context: int, n_sequences: int) -> Any:
    """A model and a context on every core of this process."""
    n_threads = len(os.sched_getaffinity(0))
    llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_parameters = llama_cpp.llama_model_default_params()
    if os.environ.get("LLAMA_NO_EXTRA_BUFFERS"):
        # Without its AMX and repacked kernels, for machines on which the AMX ones crash.
        model_parameters.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_parameters)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = n_context
    parameters.n_batch = parameters.n_ubatch = n_batch
    parameters.n_seq_max = n_sequences
    parameters.n_threads = parameters.n_threads_batch = n_threads
    return llama_cpp.llama_init_from_model(model, parameters)


def decode(context: Any, batch: Any) -> None:
    if llama_cpp.llama_decode(context, batch) != 0:
        raise SystemExit("llama_decode failed")
    llama_cpp.llama_synchronize(context)


def tokens(n: int, sequence: int = 0) -> list[int]:
    return [(7 * i + 11 + 131 * sequence) % 20000 + 300 for i in range(n)]


def main() -> None:
    if sys.argv[1] == "--batch":
        measure_batches(sys.argv[2], *numbers_from(3, (32, 3, 32)))
    else:
        measure_one(sys.argv[1], *numbers_from(2, (512, 64, 5, 0)))


def numbers_from(first: int, fallbacks: tuple[int, ...]) -> list[int]:
    given = sys.argv[first:]
    return [int(given[i]) if i < len(given) else fallback for i, fallback in enumerate(fallbacks)]


def measure_batches(path: str, n_generate: int, n_repeat: int, n_prompt: int) -> None:
    batches = (1, 2, 4, 8, 16)
    most = max(batches)
    context = open_context(path, 512, most * (n_prompt + n_generate + 8), most)
    memory = llama_cpp.llama_get_memory(context)

    def fill(batch: Any, rows: list[tuple[int, int, int]], last_only: bool) -> None:
        """rows: token, position and sequence of each."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = not last_only or i + 1 == len(rows)

    batch = llama_cpp.llama_batch_init(512, 0, 1)
    rates: dict[int, list[float]] = {n: [] for n in batches}
    for _ in range(n_repeat):
        for n in batches:
            llama_cpp.llama_memory_clear(memory, True)
            for sequence in range(n):
                prompt = tokens(n_prompt, sequence)
                fill(batch, [(t, i, sequence) for i, t in enumerate(prompt)], last_only=True)
                decode(context, batch)
            begin = time.perf_counter()
            for step, token in enumerate(tokens(n_generate)):
                fill(batch, [(token, n_prompt + step, s) for s in range(n)], last_only=False)
                decode(context, batch)
            rates[n].append(n * n_generate / (time.perf_counter() - begin))
    passes = {
        str(n): {"tokens_per_second": statistics.median(rates[n]), "samples": rates[n]}
        for n in batches
    }
    print(json.dumps({"threads": len(os.sched_getaffinity(0)), "passes": passes}))


def measure_one(path: str, n_prompt: int, n_generate: int, n_repeat: int, depth: int) -> None:
    start = time.perf_counter()
    context = open_context(path, 512, depth + max(n_prompt, n_generate) + 8, 1)
    memory = llama_cpp.llama_get_memory(context)

    def run(ids: list[int]) -> None:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        decode(context, llama_cpp.llama_batch_get_one(array, len(ids)))

    run(tokens(1))
    first_token_s = time.perf_counter() - start
    prefill, one_by_one = [], []
    for _ in range(n_repeat):
        llama_cpp.llama_memory_clear(memory, True)
        begin = time.perf_counter()
        run(tokens(n_prompt))
        prefill.append(n_prompt / (time.perf_counter() - begin))
        llama_cpp.llama_memory_clear(memory, True)
        context_tokens = tokens(depth)
        for first in range(0, depth, 512):
            run(context_tokens[first : first + 512])
        begin = time.perf_counter()
        for token in tokens(n_generate):
            run([token])
        one_by_one.append(n_generate / (time.perf_counter() - begin))
    print(
        json.dumps(
            {
                "threads": len(os.sched_getaffinity(0)),
                "open_to_first_token_s": first_token_s,
                "prefill_tokens_per_second": statistics.median(prefill),
                "decode_tokens_per_second": statistics.median(one_by_one),
                "prefill_samples": prefill,
                "decode_samples": one_by_one,
            }
        )
    )


if __name__ == "__main__":
    main()
