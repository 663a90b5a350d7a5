"""Prints what held_out.jsonl says: calibration, totals, and a Markdown table with one row a source.

python report.py DIR/held_out.jsonl [--own]
"""

import argparse
import json
import pathlib

import torch
from calibration import fit_abstention, fit_temperature, metrics
from prompt_text import LABELS

MAX_GIVEN_UP = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=pathlib.Path)
    args = parser.parse_args()
    records = [json.loads(line) for line in args.predictions.read_text("utf-8").splitlines()]
    logits = torch.tensor([record["logits"] for record in records])
    labels = torch.tensor([LABELS.index(record["label"]) for record in records])
    temperature = fit_temperature(logits, labels)
    threshold = fit_abstention(logits, labels, temperature, MAX_GIVEN_UP)
    print(f"temperature {temperature:.3f}, abstain below {threshold:.3f}")
    for name, below in (("never abstaining", 0.0), ("abstaining", threshold)):
        values = metrics(logits, labels, temperature, below)
        print(name, {key: round(value, 4) for key, value in values.items()})
    print("\n| source | prompts | accuracy | wrong expert | to general |\n|---|---|---|---|---|")
    sources = [record["source"].split("_")[0] for record in records]
    means = []
    for source in sorted(set(sources)):
        at = torch.tensor([i for i, name in enumerate(sources) if name == source])
        values = metrics(logits[at], labels[at], temperature, threshold)
        means.append((values["accuracy"], values["wrong_expert_rate"]))
        general = 1 - values["accuracy"] - values["wrong_expert_rate"]
        print(
            f"| {source} | {len(at)} | {100 * values['accuracy']:.1f} "
            f"| {100 * values['wrong_expert_rate']:.1f} | {100 * general:.1f} |"
        )
    accuracy = sum(mean[0] for mean in means) / len(means)
    wrong = sum(mean[1] for mean in means) / len(means)
    print(f"| mean of sources | | {100 * accuracy:.1f} | {100 * wrong:.1f} | |")


if __name__ == "__main__":
    main()
