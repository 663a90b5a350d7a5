"""Temperature, abstention and metrics of predictions: the same rules as router/calibration.cc."""

import math

import torch
from prompt_text import LABELS
from torch import Tensor
from torch.nn import functional

GENERAL = LABELS.index("general")
WRONG_SPECIALIST_COST = 0.5
BINS = 15


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that gives the labels the largest likelihood."""
    grid = torch.linspace(math.log(0.05), math.log(20.0), 600).exp()
    losses = [functional.cross_entropy(logits / t, labels).item() for t in grid]
    return grid[int(torch.tensor(losses).argmin())].item()


def fit_abstention(
    logits: Tensor, labels: Tensor, temperature: float, max_given_up: float
) -> float:
    """The probability under which giving a prompt to the general expert is the better bet."""
    probability, first = (logits / temperature).softmax(1).max(1)
    gains = []
    for p, label, truth in zip(probability.tolist(), first.tolist(), labels.tolist(), strict=True):
        if label == GENERAL:
            continue
        now = 1.0 if label == truth else -WRONG_SPECIALIST_COST
        gains.append((p, (1.0 if truth == GENERAL else 0.0) - now))
    gains.sort()
    best, threshold, gain = 0.0, 0.0, 0.0
    for i in range(min(len(gains), int(max_given_up * len(labels)))):
        gain += gains[i][1]
        above = gains[i + 1][0] if i + 1 < len(gains) else 1.0
        if gain > best and above > gains[i][0]:
            best, threshold = gain, (gains[i][0] + above) / 2
    return threshold


def metrics(
    logits: Tensor, labels: Tensor, temperature: float, threshold: float
) -> dict[str, float]:
    """Accuracy, macro-F1, wrong-expert rate and abstentions after abstaining; ECE before."""
    probability, first = (logits / temperature).softmax(1).max(1)
    chosen = torch.where(probability < threshold, torch.tensor(GENERAL), first)
    right = chosen == labels
    f1 = []
    for label in labels.unique().tolist():
        hits = ((chosen == label) & right).sum().item()
        f1.append(2 * hits / ((chosen == label).sum().item() + (labels == label).sum().item()))
    bins = (probability * BINS).long().clamp(0, BINS - 1)
    gap = probability - (first == labels).float()
    ece = sum(gap[bins == b].sum().abs().item() for b in range(BINS)) / len(labels)
    return {
        "n": len(labels),
        "accuracy": right.float().mean().item(),
        "macro_f1": sum(f1) / len(f1),
        "wrong_expert_rate": (~right & (chosen != GENERAL)).float().mean().item(),
        "ece": ece,
        "abstained": (probability < threshold).float().mean().item(),
    }
