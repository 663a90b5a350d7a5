"""Runs in an interpreter that has torch, transformers, peft and llama-cpp-python: what they make of
an adapter. test_adapter_peers.py calls it.

    adapter_peer.py make  MODEL.gguf FOLDER      a random adapter of PEFT, saved to FOLDER
    adapter_peer.py peft  MODEL.gguf FOLDER OUT  float32 logits of PEFT under the adapter in FOLDER
    adapter_peer.py bare  MODEL.gguf OUT         the same without an adapter
    adapter_peer.py gradients MODEL.gguf FOLDER OUT.npz
                                                 a random adapter of rank 8, saved to FOLDER, and
                                                 its gradients in float32 and float64
    adapter_peer.py llama MODEL.gguf FILE OUT    logits of llama.cpp under a GGUF adapter

OUT is a .npy of [n_tokens, n_vocab]. The base is the GGUF file, dequantised for PEFT.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy

# Plain text in tokens that any of the vocabularies has.
IDS = [(7 * i + 11) % 9000 + 300 for i in range(48)]


def base(path: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def save_logits(model: Any, out: str) -> None:
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0]
    numpy.save(out, logits.float().numpy())


def adapted(path: Path, config: Any, std: float) -> Any:
    """The base with an adapter whose B is random."""
    import torch
    from peft import get_peft_model

    model = get_peft_model(base(path), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model


def make(model_path: Path, folder: str) -> None:
    """Every kind of layer, a rank, an alpha and a scale that are not the common ones."""
    from peft import LoraConfig

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=8,
        lora_alpha=16,
        use_rslora=True,
        target_modules=[f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")],
        rank_pattern={"model.layers.1.mlp.up_proj": 4, "k_proj": 2},
        alpha_pattern={"down_proj": 5, "model.layers.0.self_attn.q_proj": 32},
    )
    adapted(model_path, config, std=0.006).save_pretrained(folder)


def peft(model_path: Path, folder: str, out: str) -> None:
    from peft import PeftModel

    save_logits(PeftModel.from_pretrained(base(model_path), folder), out)


def bare(model_path: Path, out: str) -> None:
    save_logits(base(model_path), out)


def gradients(model_path: Path, folder: str, out: str) -> None:
    """Of the mean loss over the last half of IDS, by "DTYPE.LAYER.NAME_proj.lora_A" and so on."""
    import torch
    from peft import LoraConfig

    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
    model = adapted(model_path, config, std=0.02)
    model.save_pretrained(folder)
    labels = torch.tensor([[-100] * (len(IDS) // 2) + IDS[len(IDS) // 2 :]])
    found = {}
    for dtype in (torch.float32, torch.float64):
        model.zero_grad()
        model.to(dtype)(input_ids=torch.tensor([IDS]), labels=labels).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            parts = name.split(".")
            layer = parts[parts.index("layers") + 1]
            kind = next(part for part in parts if part.endswith("_proj"))
            matrix = next(part for part in parts if part.startswith("lora_"))
            found[f"{dtype}.{layer}.{kind}.{matrix}"] = parameter.grad.numpy().copy()
    numpy.savez(out, **found)


def llama(model_path: Path, file: str, out: str) -> None:
    from llama_cpp import Llama

    model = Llama(
        str(model_path),
        lora_path=file,
        n_ctx=128,
        logits_all=True,
        n_threads=2,
        verbose=False,
    )
    model.eval(IDS)
    numpy.save(out, numpy.array(model.scores[: len(IDS)], dtype=numpy.float32))


if __name__ == "__main__":
    commands = {"make": make, "peft": peft, "bare": bare, "gradients": gradients, "llama": llama}
    command = commands[sys.argv[1]]
    command(Path(sys.argv[2]), *sys.argv[3:])
