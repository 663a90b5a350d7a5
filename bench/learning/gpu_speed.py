"""How fast adapters are trained on a GPU, beside PEFT on the same GPU, weights and tokens.

    python bench/learning/gpu_speed.py BENCH [--rounds 2] [--steps 20] [--tiny] [--device cuda]

BENCH is the built gpu_training_bench, with libcoterie_train where it finds it; python has torch,
transformers and peft. A model of Llama-3.2-1B's shape with random weights in bf16 is made once.
4 sequences of 512 tokens, all in the loss, rank 8. The two alternate (A B A B) in processes of
their own; medians of steps, and of those the median over rounds. The first losses, of the base,
must agree. --tiny is a rehearsal on any machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SEQUENCES, TOKENS = 4, 512


def make_model(folder: Path, tiny: bool) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}
    real = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    real |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    shape = small if tiny else real
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape,
        head_dim=shape["hidden_size"] // shape["num_attention_heads"],
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def batch(n_vocab: int) -> list[list[int]]:
    rows, state = [], 1
    for _ in range(SEQUENCES):
        row = []
        for _ in range(TOKENS):
            state = (state * 1103515245 + 12345) % (1 << 31)
            row.append(state % n_vocab)
        rows.append(row)
    return rows


def peer(folder: str, targets: str, checkpoint: bool, steps: int, device: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).to(device)
    if checkpoint:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    wanted = ["q_proj", "v_proj"] if targets == "qv" else "all-linear"
    model = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, target_modules=wanted, task_type="CAUSAL_LM")
    )
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0, fused=True)
    ids = torch.tensor(batch(model.config.vocab_size), device=device)
    seconds, losses = [], []
    for _ in range(steps + 4):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[4:])
    print(
        json.dumps(
            {
                "engine": "PEFT",
                "targets": targets,
                "recompute": "checkpointing" if checkpoint else "none",
                "tokens_per_s": SEQUENCES * TOKENS / median,
                "step_ms": median * 1e3,
                "first_loss": losses[0],
                "last_loss": losses[-1],
                "gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0,
            }
        ),
        flush=True,
    )


def used_gb() -> float:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return 0.0
    return float(done.stdout.split()[0]) * 2**20 / 1e9


def run(command: list[str]) -> dict[str, Any]:
    """The JSON that the command prints, and what the whole GPU had in use at most meanwhile."""
    before, peak, done = used_gb(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, used_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    finally:
        done.set()
        watcher.join()
    return json.loads(output.strip().splitlines()[-1]) | {"process_gb": max(0.0, peak - before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.peer[0], a.peer[1], a.peer[2] == "checkpoint", a.steps, a.device)
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), a.tiny)
        device = "cuda" if a.device == "cuda" else "torch:cpu"
        for _ in range(a.rounds):
            for targets in ("qv", "all"):
                for how in ("none", "checkpoint"):
                    ours = "none" if how == "none" else "partial"
                    here = [sys.executable, __file__, a.bench, "--device", a.device]
                    here += ["--steps", str(a.steps), "--peer", folder, targets, how]
                    there = [a.bench, folder, targets, ours, str(a.steps), device]
                    for command in (there, here):
                        result = run(command)
                        print(json.dumps(result), flush=True)
                        key = (result["engine"], targets, result["recompute"])
                        found.setdefault(key, []).append(result)
    print(
        f"{'engine':8} {'targets':8} {'recompute':14} {'tokens/s':>9} {'GB':>6} {'process GB':>10}"
    )
    medians = {k: statistics.median(r["tokens_per_s"] for r in v) for k, v in found.items()}
    for key, results in found.items():
        allocated = max(r["gpu_gb"] for r in results)
        process = max(r["process_gb"] for r in results)
        ratio = medians[key] / medians[("PEFT", key[1], "none")]
        print(
            f"{key[0]:8} {key[1]:8} {key[2]:14} {medians[key]:9.0f} {allocated:6.2f} "
            f"{process:10.2f}  {ratio:.2f} of PEFT's best"
        )
    first = [r["first_loss"] for results in found.values() for r in results]
    if max(first) - min(first) > 0.005 * min(first):
        raise SystemExit(f"the base's loss differs: {sorted(first)}")


if __name__ == "__main__":
    main()
