"""Commands to a smart home as a task: what is asked, what is wanted, and what counts as right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "data"
SYSTEM = (
    "You control a smart home. Answer with one JSON object with the keys action, device and "
    "parameters."
)
MAX_TOKENS = 56  # Longer than any right answer.


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of {"text": command, "answer": {"action", "device", "parameters"}}."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def wanted(row: dict[str, Any]) -> str:
    return json.dumps(row["answer"], separators=(",", ":"), ensure_ascii=False)


@dataclass
class Score:
    """Percent of the answers that are exactly right, have the right action, and are JSON."""

    exact: float
    action: float
    valid: float


def score(answers: list[str], rows: list[dict[str, Any]]) -> Score:
    exact = action = valid = 0
    for text, row in zip(answers, rows, strict=True):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        valid += 1
        if isinstance(value, dict):
            action += value.get("action") == row["answer"]["action"]
            exact += value == row["answer"]
    share = 100 / len(rows)
    return Score(exact * share, action * share, valid * share)
