"""Speed of llama.cpp on one file, through llama-cpp-python's C interface: one JSON object.

    llama_cpp_peer.py MODEL.gguf [N_PROMPT=512] [N_GENERATE=64] [N_REPEAT=5]

Needs `pip install llama-cpp-python==0.3.36`, which builds llama.cpp for this CPU (10 minutes on two
cores). The same tokens, threads and file as bench/expert_bench.cc.
"""

import ctypes
import json
import os
import statistics
import sys
import time

import llama_cpp


def main() -> None:
    path = sys.argv[1]
    n_prompt, n_generate, n_repeat = (
        int(sys.argv[i]) if len(sys.argv) > i else fallback
        for i, fallback in ((2, 512), (3, 64), (4, 5))
    )
    n_threads = len(os.sched_getaffinity(0))
    quiet = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    start = time.perf_counter()
    model_parameters = llama_cpp.llama_model_default_params()
    if os.environ.get("LLAMA_NO_EXTRA_BUFFERS"):
        # Without its AMX and repacked kernels, for machines on which the AMX ones crash.
        model_parameters.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_parameters)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = max(n_prompt, n_generate) + 8
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = n_threads
    context = llama_cpp.llama_init_from_model(model, parameters)
    memory = llama_cpp.llama_get_memory(context)

    def run(ids: list[int]) -> None:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        batch = llama_cpp.llama_batch_get_one(array, len(ids))
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)

    def tokens(n: int) -> list[int]:
        return [(7 * i + 11) % 20000 + 300 for i in range(n)]

    run(tokens(1))
    first_token_s = time.perf_counter() - start
    prefill, decode = [], []
    for _ in range(n_repeat):
        llama_cpp.llama_memory_clear(memory, True)
        begin = time.perf_counter()
        run(tokens(n_prompt))
        prefill.append(n_prompt / (time.perf_counter() - begin))
        llama_cpp.llama_memory_clear(memory, True)
        begin = time.perf_counter()
        for token in tokens(n_generate):
            run([token])
        decode.append(n_generate / (time.perf_counter() - begin))
    print(
        json.dumps(
            {
                "threads": n_threads,
                "open_to_first_token_s": first_token_s,
                "prefill_tokens_per_second": statistics.median(prefill),
                "decode_tokens_per_second": statistics.median(decode),
                "prefill_samples": prefill,
                "decode_samples": decode,
            }
        )
    )


if __name__ == "__main__":
    main()
