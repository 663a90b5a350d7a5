"""Prints what held-out predictions say, as Markdown.

    python report.py folds/held_out.jsonl [--domains domains.jsonl] [--languages languages.jsonl]

Temperature and threshold of each fold are fitted on the other folds: nothing that is reported was
fitted on the prompts that it is reported for. --domains reads what `fit_encoder.py domains` wrote.
"""

import argparse
import json
import pathlib

import torch
from calibration import fit_abstention, fit_temperature, metrics
from fit_encoder import FOLDS, fold_of
from prompt_text import LABELS
from torch import Tensor

MAX_GIVEN_UP = 0.05
TARGET = 0.95
GENERAL = LABELS.index("general")


def family(source: str) -> str:
    """The source without its parts: p3:xsum_x -> p3:xsum, mmlu_law -> mmlu."""
    return source if source == "smart_home" else source.split("_")[0]


def share_kept(confidence: Tensor, right: Tensor, target: float) -> float:
    """The largest share of most confident prompts of which `target` are right."""
    order = confidence.argsort(descending=True)
    accuracy = right[order].float().cumsum(0) / torch.arange(1, len(order) + 1)
    enough = (accuracy >= target).nonzero()
    return (int(enough.max()) + 1) / len(order) if len(enough) else 0.0


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The chance that a prompt inside scores higher than one outside."""
    both = torch.cat([inside, outside])
    ranks = torch.empty(len(both))
    ranks[both.argsort()] = torch.arange(1, len(both) + 1, dtype=torch.float32)
    n, m = len(inside), len(outside)
    return ((ranks[:n].sum() - n * (n + 1) / 2) / (n * m)).item()


def totals(logits: Tensor, labels: Tensor, folds: Tensor) -> tuple[Tensor, Tensor]:
    """Prints the totals; returns calibrated probabilities and what is chosen after abstention."""
    probabilities = torch.zeros_like(logits)
    chosen = torch.zeros_like(labels)
    thresholds = torch.zeros(len(labels))
    for fold in folds.unique().tolist():
        here, rest = folds == fold, folds != fold
        temperature = fit_temperature(logits[rest], labels[rest])
        below = fit_abstention(logits[rest], labels[rest], temperature, MAX_GIVEN_UP)
        probabilities[here] = (logits[here] / temperature).softmax(1)
        thresholds[here] = below
        values = metrics(logits[here], labels[here], temperature, 0.0)
        print(f"fold {fold}: temperature {temperature:.2f}, below {below:.2f}, {rounded(values)}")
    confidence, first = probabilities.max(1)
    chosen = torch.where(confidence < thresholds, torch.tensor(GENERAL), first)
    print("never abstaining:", rounded(metrics(probabilities.log(), labels, 1.0, 0.0)))
    right = chosen == labels
    wrong = (~right & (chosen != GENERAL)).float().mean().item()
    print(
        f"abstaining: accuracy {right.float().mean():.4f}, wrong expert {wrong:.4f}, "
        f"abstained {(confidence < thresholds).float().mean():.4f}"
    )
    kept = share_kept(confidence, first == labels, TARGET)
    print(f"share kept at {TARGET:.0%} accuracy: {kept:.3f}")
    return probabilities, chosen


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}


def print_sources(sources: list[str], labels: Tensor, chosen: Tensor) -> None:
    print("\n| source | prompts | accuracy | wrong expert | to general |\n|---|---|---|---|---|")
    for source in sorted(set(sources)):
        at = torch.tensor([name == source for name in sources])
        right = chosen[at] == labels[at]
        wrong = ~right & (chosen[at] != GENERAL)
        shares = [100 * right.float().mean(), 100 * wrong.float().mean()]
        print(
            f"| {source} | {int(at.sum())} | {shares[0]:.1f} | {shares[1]:.1f} "
            f"| {100 - sum(shares):.1f} |"
        )


def print_domains(path: pathlib.Path, temperature: float) -> None:
    """How a model treats prompts of a domain that it never saw, at 10 % of known ones held back."""
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    print("\n| unknown domain | AUROC | to general by itself | safe, 10 % held back |")
    print("|---|---|---|---|")
    for left in LABELS:
        rows = [record for record in records if record["left"] == left]
        p = (torch.tensor([row["logits"] for row in rows]) / temperature).softmax(1)
        confidence, first = p.max(1)
        unknown = torch.tensor([row["label"] == left for row in rows])
        below = confidence[~unknown].quantile(0.1)
        general = (first == GENERAL)[unknown]
        safe = general | (confidence[unknown] < below)
        print(
            f"| {left} | {auroc(confidence[~unknown], confidence[unknown]):.3f} "
            f"| {100 * general.float().mean():.0f} | {100 * safe.float().mean():.0f} |"
        )


def print_languages(path: pathlib.Path) -> None:
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    hits: dict[str, list[bool]] = {}
    for record in records:
        right = LABELS[int(torch.tensor(record["logits"]).argmax())] == record["label"]
        hits.setdefault(record["source"], []).append(right)
    print("\n| language | accuracy |\n|---|---|")
    for language, right in hits.items():
        print(f"| {language} | {100 * sum(right) / len(right):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=pathlib.Path)
    parser.add_argument("--domains", type=pathlib.Path)
    parser.add_argument("--languages", type=pathlib.Path)
    args = parser.parse_args()
    records = [json.loads(line) for line in args.predictions.read_text("utf-8").splitlines()]
    logits = torch.tensor([record["logits"] for record in records])
    labels = torch.tensor([LABELS.index(record["label"]) for record in records])
    folds = torch.tensor([fold_of(record["source"]) for record in records])
    assert int(folds.min()) >= 0 and int(folds.max()) < len(FOLDS), "every source has a fold"
    _, chosen = totals(logits, labels, folds)
    print_sources([family(record["source"]) for record in records], labels, chosen)
    if args.domains:
        print_domains(args.domains, fit_temperature(logits, labels))
    if args.languages:
        print_languages(args.languages)


if __name__ == "__main__":
    main()
