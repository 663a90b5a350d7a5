"""Fits the default router: fine-tunes all-MiniLM-L6-v2 on labelled prompts.

    python fit_encoder.py folds --encoder DIR --train train.jsonl --own own_prompts.jsonl --out DIR
    python fit_encoder.py domains (the same)
    python fit_encoder.py final (the same) --dev dev.jsonl

`folds` leaves whole sources out: each source is predicted once by a model that never saw it, and
those predictions (DIR/held_out.jsonl) are what temperature and threshold are fitted on. `domains`
leaves one domain out, ours included, and writes predictions of --dev (DIR/domains.jsonl). `final`
fits on everything and writes DIR/model.pt. Runs on a GPU if there is one.
"""

import argparse
import json
import pathlib
import random
import time
from dataclasses import dataclass, replace

import torch
from minilm import N_LAYERS, Classifier, load_classifier
from prompt_text import LABELS, MAX_TOKENS, Row, encode, open_tokenizer, read_rows
from torch import Tensor
from torch.nn import functional

# Each source is left out once; every fold keeps other sources of each label in training.
FOLDS = [
    ["aqua", "mbpp", "ifeval", "nq-open-dev", "p3:cnn"],
    ["college-math", "gpteacher-codegen", "writingbench", "strategyqa", "p3:xsum", "smart_home"],
    ["gsm8k-train", "nl2bash", "gpteacher-roleplay", "p3:kilt", "p3:wiki_qa"],
    ["superni", "mmlu", "banking77", "p3:adversarial", "p3:quoref", "p3:duorc"],
    ["clinc150", "mt-bench-101", "p3:wiki_bio"],
]
WORD_MASK_ID = 103  # [MASK]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Recipe:
    """What may be varied about a fit."""

    epochs: int = 2
    rate: float = 4e-5
    batch: int = 32
    dropout: float = 0.1
    smoothing: float = 0.0
    word_dropout: float = 0.0
    source_power: float = 1.0  # Rows of a source count like (size of the source)^(power - 1).
    layer_decay: float = 1.0  # The rate of a layer is this times that of the next one.
    n_models: int = 1  # Models of different seeds, whose weights are averaged.
    seed: int = 1


def fold_of(source: str) -> int:
    """The fold that leaves this source out, or -1 for rows that always train."""
    for index, prefixes in enumerate(FOLDS):
        if any(source.startswith(prefix) for prefix in prefixes):
            return index
    return -1


def batches(lengths: list[int], size: int, rng: random.Random | None) -> list[list[int]]:
    """Indices in batches of similar length; in random order where rng is given."""
    order = list(range(len(lengths)))
    if rng is None:
        order.sort(key=lengths.__getitem__)
        return [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(order)
    result = []
    for i in range(0, len(order), 16 * size):
        pool = sorted(order[i : i + 16 * size], key=lengths.__getitem__)
        result += [pool[j : j + size] for j in range(0, len(pool), size)]
    rng.shuffle(result)
    return result


class Prompts:
    """Token ids of prompts in one matrix on the device, cropped batch by batch."""

    def __init__(self, ids: list[list[int]]) -> None:
        self.lengths = [len(row) for row in ids]
        matrix = torch.zeros(len(ids), MAX_TOKENS, dtype=torch.long)
        for i, row in enumerate(ids):
            matrix[i, : len(row)] = torch.tensor(row)
        self.matrix = matrix.to(DEVICE)
        self.tokens = torch.tensor(self.lengths, device=DEVICE)

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Ids [n, t] and the mask of what is a token."""
        width = max(self.lengths[i] for i in indices)
        at = torch.tensor(indices, device=DEVICE)
        return self.matrix[at, :width], torch.arange(width, device=DEVICE) < self.tokens[at, None]


def row_weights(rows: list[Row], power: float) -> Tensor:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.source] = counts.get(row.source, 0) + 1
    weights = torch.tensor([counts[row.source] ** (power - 1.0) for row in rows])
    return weights / weights.mean()


def drop_words(ids: Tensor, mask: Tensor, share: float) -> Tensor:
    """Masks a share of the tokens, never [CLS] or [SEP] (ids 101 and 102)."""
    hit = torch.rand(ids.shape, device=ids.device) < share
    return ids.masked_fill(hit & mask & (ids != 101) & (ids != 102), WORD_MASK_ID)


def depth_of(name: str) -> int:
    """How many layers lie between a parameter and the head; -1 for the head itself."""
    if name.startswith("head"):
        return -1
    return N_LAYERS - 1 - int(name.split(".")[1]) if name.startswith("layers") else N_LAYERS


def optimizer_for(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    by_depth: dict[int, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        by_depth.setdefault(depth_of(name), []).append(parameter)
    groups = []
    for depth, parameters in by_depth.items():
        rate = recipe.rate * (10 if depth < 0 else recipe.layer_decay**depth)
        groups.append({"params": parameters, "lr": rate, "rate": rate})
    return torch.optim.AdamW(groups, weight_decay=0.01, fused=True)


def scheduled(step: int, n_steps: int) -> float:
    """Linear warm-up over 6 % of the steps, then linear to zero."""
    warm = max(1, int(0.06 * n_steps))
    return min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm))


def fit_one(encoder: pathlib.Path, rows: list[Row], prompts: Prompts, recipe: Recipe) -> Classifier:
    """Fine-tunes every weight on the rows by cross-entropy."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    model = load_classifier(encoder, len(LABELS), MAX_TOKENS, recipe.dropout).to(DEVICE)
    labels = torch.tensor([LABELS.index(row.label) for row in rows], device=DEVICE)
    weights = row_weights(rows, recipe.source_power).to(DEVICE)
    plan = [
        batch for _ in range(recipe.epochs) for batch in batches(prompts.lengths, recipe.batch, rng)
    ]
    optimizer = optimizer_for(model, recipe)
    model.train()
    begin = time.monotonic()
    for step, batch in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * scheduled(step, len(plan))
        matrix, mask = prompts.batch(batch)
        if recipe.word_dropout:
            matrix = drop_words(matrix, mask, recipe.word_dropout)
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = model(matrix, mask)
        losses = functional.cross_entropy(
            logits.float(), labels[batch], reduction="none", label_smoothing=recipe.smoothing
        )
        loss = (losses * weights[batch]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            spent = time.monotonic() - begin
            print(f"step {step}/{len(plan)} loss {loss.item():.3f} {spent:.0f} s", flush=True)
    return model.eval()


def fit(encoder: pathlib.Path, rows: list[Row], ids: list[list[int]], recipe: Recipe) -> Classifier:
    """The mean of the weights of n_models fits that differ by their seed."""
    prompts = Prompts(ids)
    model = fit_one(encoder, rows, prompts, recipe)
    total = model.state_dict()
    for i in range(1, recipe.n_models):
        other = fit_one(encoder, rows, prompts, replace(recipe, seed=recipe.seed + i)).state_dict()
        total = {name: value + other[name] for name, value in total.items()}
    model.load_state_dict({name: value / recipe.n_models for name, value in total.items()})
    return model


def predict(model: Classifier, ids: list[list[int]]) -> Tensor:
    """Logits [n, n_labels] in float32."""
    prompts = Prompts(ids)
    logits = torch.zeros(len(ids), len(LABELS))
    with torch.no_grad():
        for batch in batches(prompts.lengths, 64, None):
            logits[batch] = model(*prompts.batch(batch)).cpu()
    return logits


def accuracy(rows: list[Row], logits: Tensor) -> float:
    hits = [LABELS[i] == row.label for i, row in zip(logits.argmax(1).tolist(), rows, strict=True)]
    return sum(hits) / len(hits)


def write_predictions(path: pathlib.Path, rows: list[Row], logits: Tensor) -> None:
    with path.open("w", encoding="utf-8") as out:
        for row, values in zip(rows, logits.tolist(), strict=True):
            record = {"source": row.source, "label": row.label, "text": row.text[:160]}
            out.write(json.dumps({**record, "logits": values}) + "\n")


def run_folds(args: argparse.Namespace, rows: list[Row], recipe: Recipe) -> None:
    tokenizer = open_tokenizer(args.encoder / "vocab.txt")
    ids = encode(tokenizer, [row.text for row in rows])
    held_rows: list[Row] = []
    held_logits: list[Tensor] = []
    for fold in range(len(FOLDS)):
        kept = [i for i, row in enumerate(rows) if fold_of(row.source) != fold]
        left = [i for i, row in enumerate(rows) if fold_of(row.source) == fold]
        model = fit(args.encoder, [rows[i] for i in kept], [ids[i] for i in kept], recipe)
        logits = predict(model, [ids[i] for i in left])
        left_rows = [rows[i] for i in left]
        print(f"fold {fold}: unseen sources {accuracy(left_rows, logits):.4f}", flush=True)
        held_rows += left_rows
        held_logits.append(logits)
        write_predictions(args.out / "held_out.jsonl", held_rows, torch.cat(held_logits))


def run_domains(args: argparse.Namespace, rows: list[Row], recipe: Recipe) -> None:
    tokenizer = open_tokenizer(args.encoder / "vocab.txt")
    ids = encode(tokenizer, [row.text for row in rows])
    dev = read_rows(args.dev)
    dev_ids = encode(tokenizer, [row.text for row in dev])
    with (args.out / "domains.jsonl").open("w", encoding="utf-8") as out:
        for left in LABELS:
            kept = [i for i, row in enumerate(rows) if row.label != left]
            model = fit(args.encoder, [rows[i] for i in kept], [ids[i] for i in kept], recipe)
            for row, values in zip(dev, predict(model, dev_ids).tolist(), strict=True):
                out.write(json.dumps({"left": left, "label": row.label, "logits": values}) + "\n")


def run_final(args: argparse.Namespace, rows: list[Row], recipe: Recipe) -> None:
    tokenizer = open_tokenizer(args.encoder / "vocab.txt")
    model = fit(args.encoder, rows, encode(tokenizer, [row.text for row in rows]), recipe)
    torch.save({k: v.cpu() for k, v in model.state_dict().items()}, args.out / "model.pt")
    dev = read_rows(args.dev)
    logits = predict(model, encode(tokenizer, [row.text for row in dev]))
    print(f"dev {accuracy(dev, logits):.4f}")
    write_predictions(args.out / "dev.jsonl", dev, logits)


MODES = {"folds": run_folds, "domains": run_domains, "final": run_final}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=sorted(MODES))
    parser.add_argument("--encoder", type=pathlib.Path, required=True)
    parser.add_argument("--train", type=pathlib.Path, required=True)
    parser.add_argument("--own", type=pathlib.Path, help="rows that train in every fold")
    parser.add_argument("--dev", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    for name, value in vars(Recipe()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    args = parser.parse_args()
    recipe = Recipe(**{name: getattr(args, name) for name in vars(Recipe())})
    args.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(args.train) + (read_rows(args.own) if args.own else [])
    MODES[args.mode](args, rows, recipe)


if __name__ == "__main__":
    main()
