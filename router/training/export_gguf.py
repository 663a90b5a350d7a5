"""Writes a fitted encoder as the router's GGUF file, and golden logits for the C++ test.

    python export_gguf.py --encoder DIR --model DIR/model.pt --held-out DIR/held_out.jsonl \
        --version 2026.11 --out default_router.gguf [--golden prompts.txt golden.json]

Matrices become Q8_0, the rest stays float32. Temperature and abstention threshold are fitted on the
predictions for held-out sources.
"""

import argparse
import json
import pathlib

import gguf
import numpy
import torch
from calibration import fit_abstention, fit_temperature
from minilm import D_FF, D_MODEL, EPSILON, N_HEADS, N_LAYERS, Classifier
from prompt_text import LABELS, MAX_TOKENS, TAIL_TOKENS, encode, open_tokenizer
from torch import Tensor

MAX_GIVEN_UP = 0.05
LAYER_PARTS = {
    "qkv": "attn_qkv",
    "attention_out": "attn_output",
    "attention_norm": "attn_output_norm",
    "up": "ffn_up",
    "down": "ffn_down",
    "out_norm": "layer_output_norm",
}


def tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors by their names in the file."""
    named = {
        "token_embd.weight": state["words.weight"],
        "position_embd.weight": state["positions.weight"],
        "token_embd_norm.weight": state["norm.weight"],
        "token_embd_norm.bias": state["norm.bias"],
        "cls.weight": state["head.weight"],
        "cls.bias": state["head.bias"],
    }
    for i in range(N_LAYERS):
        for part, name in LAYER_PARTS.items():
            for kind in ("weight", "bias"):
                named[f"blk.{i}.{name}.{kind}"] = state[f"layers.{i}.{part}.{kind}"]
    return named


def is_matrix(name: str) -> bool:
    return name == "token_embd.weight" or (
        name.endswith(".weight") and any(part in name for part in ("_qkv", "output.w", "ffn_"))
    )


def read_held_out(path: pathlib.Path) -> tuple[Tensor, Tensor]:
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    labels = [LABELS.index(record["label"]) for record in records]
    return torch.tensor([record["logits"] for record in records]), torch.tensor(labels)


def add_keys(writer: gguf.GGUFWriter, args: argparse.Namespace, vocabulary: list[str]) -> float:
    """Writes everything but tensors; returns the temperature."""
    logits, labels = read_held_out(args.held_out)
    temperature = fit_temperature(logits, labels)
    threshold = fit_abstention(logits, labels, temperature, MAX_GIVEN_UP)
    print(f"temperature {temperature:.3f}, abstain below {threshold:.3f}")
    writer.add_int64("router.format", 1)
    writer.add_string("router.tier", "encoder")
    writer.add_string("router.version", args.version)
    writer.add_array("router.domains", LABELS)
    writer.add_float64("router.temperature", temperature)
    writer.add_float64("router.abstain_below", threshold)
    writer.add_string("general.name", "coterie default router")
    writer.add_string("general.license", "Apache-2.0")
    writer.add_string("router.training.base", "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0")
    writer.add_string("router.training.data", args.data)
    writer.add_string("router.training.recipe", args.recipe)
    writer.add_string(
        "router.training.calibration", "temperature and threshold: sources left out of training"
    )
    shape = {"layers": N_LAYERS, "heads": N_HEADS, "width": D_MODEL, "ff_width": D_FF}
    shape |= {"max_tokens": MAX_TOKENS, "tail_tokens": TAIL_TOKENS}
    for key, value in shape.items():
        writer.add_int64(f"router.encoder.{key}", value)
    writer.add_float64("router.encoder.epsilon", EPSILON)
    writer.add_array("router.encoder.vocabulary", vocabulary)
    return temperature


def write_golden(
    args: argparse.Namespace, state: dict[str, Tensor], vocab_size: int, temperature: float
) -> None:
    """Logits of the unrounded model for our own prompts, separated by lines of three dashes."""
    model = Classifier(len(LABELS), vocab_size, MAX_TOKENS, 0.0)
    model.load_state_dict(state)
    model.eval()
    prompts = args.golden[0].read_text("utf-8").split("\n---\n")
    tokenizer = open_tokenizer(args.encoder / "vocab.txt")
    cases = []
    with torch.no_grad():
        for prompt, ids in zip(prompts, encode(tokenizer, prompts), strict=True):
            logits = model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
            values = [round(value, 5) for value in logits[0].tolist()]
            cases.append({"prompt": prompt, "ids": ids, "logits": values})
    golden = {"version": args.version, "temperature": temperature, "cases": cases}
    args.golden[1].write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("encoder", "model", "held-out", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--data", default="public prompt sets and our own templates")
    parser.add_argument("--recipe", default="")
    parser.add_argument("--golden", type=pathlib.Path, nargs=2, metavar=("PROMPTS", "JSON"))
    args = parser.parse_args()
    state = torch.load(args.model, weights_only=True)
    vocabulary = (args.encoder / "vocab.txt").read_text("utf-8").splitlines()
    writer = gguf.GGUFWriter(args.out, "coterie-router")
    temperature = add_keys(writer, args, vocabulary)
    for name, tensor in tensors(state).items():
        values = tensor.float().numpy().astype(numpy.float32)
        if is_matrix(name):
            blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if args.golden:
        write_golden(args, state, len(vocabulary), temperature)


if __name__ == "__main__":
    main()
