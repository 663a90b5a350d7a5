"""PEFT learns what style.py gives it: it needs torch, transformers, peft and gguf."""

from __future__ import annotations

import json
import os
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    plan = json.load(sys.stdin)
    torch.manual_seed(plan["seed"])
    torch.set_num_threads(os.cpu_count() or 1)
    folder, file = os.path.split(os.path.realpath(plan["model"]))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    learnt, held_out = (
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        for texts in plan["letters"]
    )

    def loss(batch: list[list[int]]) -> tuple[torch.Tensor, int]:
        """The sum over all tokens but the first of each, and how many."""
        longest = max(len(ids) for ids in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for i, row in enumerate(batch):
            ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        total = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum"
        )
        return total, sum(len(row) - 1 for row in batch)

    def nats() -> float:
        with torch.inference_mode():
            parts = [loss([row]) for row in held_out]
        return float(sum(total for total, _ in parts)) / sum(n for _, n in parts)

    before = nats()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan["rate"], weight_decay=0)
    batches = plan["batches"]
    start = time.perf_counter()
    for step, batch in enumerate(batches):
        warm = min(1, (step + 1) / plan["warmup"])
        optimizer.param_groups[0]["lr"] = plan["rate"] * warm * (1 - step / len(batches))
        optimizer.zero_grad()
        total, n = loss([learnt[i] for i in batch])
        (total / n).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    seconds = time.perf_counter() - start
    print(json.dumps({"before": before, "after": nats(), "seconds": seconds}))


if __name__ == "__main__":
    main()
