"""Fits the default router: fine-tunes all-MiniLM-L6-v2 on labelled prompts.

    python fit_encoder.py folds --encoder DIR --train train.jsonl --own own_prompts.jsonl --out DIR
    python fit_encoder.py final --encoder DIR --train train.jsonl --own own_prompts.jsonl \
        --dev dev.jsonl --out DIR

`folds` leaves whole sources out: each source is predicted once by a model that never saw it, and
those predictions (DIR/held_out.jsonl) are what calibrate.py fits temperature and threshold on.
`final` fits on everything and writes DIR/model.pt. On 2 cores one epoch takes a few minutes.
"""

import argparse
import copy
import json
import pathlib
import random
import time
from dataclasses import dataclass

import torch
from minilm import Classifier, load_classifier
from prompt_text import LABELS, MAX_TOKENS, Row, encode, open_tokenizer, read_rows
from torch import Tensor
from torch.nn import functional

# Each source is left out once; every fold keeps other sources of each label in training.
FOLDS = [
    ["aqua", "mbpp", "ifeval", "nq-open-dev", "p3:cnn"],
    ["college-math", "gpteacher-codegen", "writingbench", "strategyqa", "p3:xsum"],
    ["gsm8k-train", "nl2bash", "gpteacher-roleplay", "p3:kilt", "p3:wiki_qa"],
    ["superni", "mmlu", "banking77", "p3:adversarial", "p3:quoref", "p3:duorc"],
    ["clinc150", "mt-bench-101", "p3:wiki_bio"],
]
WORD_MASK_ID = 103  # [MASK]


@dataclass
class Recipe:
    """What may be varied about a fit."""

    epochs: int = 1
    rate: float = 4e-5
    batch: int = 32
    dropout: float = 0.1
    smoothing: float = 0.0
    word_dropout: float = 0.0
    average_decay: float = 0.0  # Of an exponential average of the weights; 0 turns it off.
    source_power: float = 1.0  # Rows of a source count like (size of the source)^(power - 1).
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


def padded(ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids [n, t] and the mask of what is a token."""
    width = max(map(len, ids))
    matrix = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.bool)
    for i, row in enumerate(ids):
        matrix[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return matrix, mask


def row_weights(rows: list[Row], power: float) -> Tensor:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.source] = counts.get(row.source, 0) + 1
    weights = torch.tensor([counts[row.source] ** (power - 1.0) for row in rows])
    return weights / weights.mean()


def drop_words(ids: Tensor, mask: Tensor, share: float) -> Tensor:
    """Masks a share of the tokens, never [CLS] or [SEP] (ids 101 and 102)."""
    hit = (torch.rand(ids.shape) < share) & mask & (ids != 101) & (ids != 102)
    return ids.masked_fill(hit, WORD_MASK_ID)


def optimizer_for(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    head = [p for name, p in model.named_parameters() if name.startswith("head")]
    body = [p for name, p in model.named_parameters() if not name.startswith("head")]
    groups = [{"params": body, "rate": recipe.rate}, {"params": head, "rate": 10 * recipe.rate}]
    return torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=0.01, fused=True)


def scheduled(step: int, n_steps: int) -> float:
    """Linear warm-up over 6 % of the steps, then linear to zero."""
    warm = max(1, int(0.06 * n_steps))
    return min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm))


def update_average(average: Classifier, model: Classifier, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1.0 - decay)


def fit(encoder: pathlib.Path, rows: list[Row], ids: list[list[int]], recipe: Recipe) -> Classifier:
    """Fine-tunes every weight on the rows by cross-entropy."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    model = load_classifier(encoder, len(LABELS), MAX_TOKENS, recipe.dropout)
    average = copy.deepcopy(model).eval() if recipe.average_decay else None
    labels = torch.tensor([LABELS.index(row.label) for row in rows])
    weights = row_weights(rows, recipe.source_power)
    plan = [
        batch
        for _ in range(recipe.epochs)
        for batch in batches([len(row) for row in ids], recipe.batch, rng)
    ]
    optimizer = optimizer_for(model, recipe)
    model.train()
    begin = time.monotonic()
    for step, batch in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * scheduled(step, len(plan))
        matrix, mask = padded([ids[i] for i in batch])
        if recipe.word_dropout:
            matrix = drop_words(matrix, mask, recipe.word_dropout)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(matrix, mask)
        losses = functional.cross_entropy(
            logits.float(), labels[batch], reduction="none", label_smoothing=recipe.smoothing
        )
        loss = (losses * weights[batch]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if average is not None:
            update_average(average, model, min(recipe.average_decay, step / (step + 20)))
        if step % 50 == 0:
            spent = time.monotonic() - begin
            print(f"step {step}/{len(plan)} loss {loss.item():.3f} {spent:.0f} s", flush=True)
    return (average or model).eval()


def predict(model: Classifier, ids: list[list[int]]) -> Tensor:
    """Logits [n, n_labels] in float32."""
    logits = torch.zeros(len(ids), len(LABELS))
    with torch.no_grad():
        for batch in batches([len(row) for row in ids], 64, None):
            logits[batch] = model(*padded([ids[i] for i in batch]))
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


def run_final(args: argparse.Namespace, rows: list[Row], recipe: Recipe) -> None:
    tokenizer = open_tokenizer(args.encoder / "vocab.txt")
    model = fit(args.encoder, rows, encode(tokenizer, [row.text for row in rows]), recipe)
    torch.save(model.state_dict(), args.out / "model.pt")
    dev = read_rows(args.dev)
    logits = predict(model, encode(tokenizer, [row.text for row in dev]))
    print(f"dev {accuracy(dev, logits):.4f}")
    write_predictions(args.out / "dev.jsonl", dev, logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["folds", "final"])
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
    (run_folds if args.mode == "folds" else run_final)(args, rows, recipe)


if __name__ == "__main__":
    main()
