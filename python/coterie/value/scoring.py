"""Scores an answer by a rule: exactly right is 1, else 0. No model judges another.

A check is a dict with a "kind":
  number            answer: the last number of the text equals it
  json              answer: the first JSON object of the text equals it
  any_of            answers: one of them stands in the text, as whole words, whatever the case
  label             answer, labels: the one label of `labels` that stands first in the text
  rules             rules: every one of _RULES named there holds
  python_function   prefix, entry_point, test: the function passes the test
  python_line       prefix, suffix, entry_point, test: the line, set between them, passes the test
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from coterie.value.sandbox import run_python


def score(check: dict[str, Any], answer: str) -> float:
    """1 if the answer passes the check, else 0. Raises KeyError for an unknown kind of check."""
    return float(_KINDS[check["kind"]](check, answer))


def _number(check: dict[str, Any], answer: str) -> bool:
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", answer)
    if not numbers:
        return False
    return abs(float(numbers[-1].replace(",", "")) - float(check["answer"])) < 1e-6


def _json(check: dict[str, Any], answer: str) -> bool:
    start = answer.find("{")
    if start < 0:
        return False
    try:
        found, _ = json.JSONDecoder().raw_decode(answer[start:])
    except (ValueError, RecursionError):
        return False
    return bool(_plain(found) == _plain(check["answer"]))


def _plain(value: Any) -> Any:
    """Numbers and strings that read the same are the same: 40, 40.0 and "40"."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, bool | None) else str(value).strip()


def _any_of(check: dict[str, Any], answer: str) -> bool:
    text = f" {_words(answer)} "
    return any(f" {_words(one)} " in text for one in check["answers"])


def _words(text: str) -> str:
    """Lower case, without punctuation but for apostrophes, one blank between words."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(re.sub(r"[^\w'.]|\.(?!\d)|(?<!\d)\.", " ", text).split())


def _label(check: dict[str, Any], answer: str) -> bool:
    text = f" {_words(answer)} "
    found = [label for label in check["labels"] if _at(text, label) >= 0]
    # "urgent" stands in every "not urgent": of such two the longer one is meant.
    meant = [
        label
        for label in found
        if not any(label != other and _words(label) in _words(other) for other in found)
    ]
    return bool(meant) and bool(min(meant, key=lambda one: _at(text, one)) == check["answer"])


def _at(text: str, label: str) -> int:
    return text.find(f" {_words(label)} ")


def _sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])[\"')]*\s+", text.strip()) if re.search(r"\w", s)]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


def _holds_line_starts(text: str, starts: list[str]) -> bool:
    lines = [line.replace("*", "") for line in _lines(text)]
    return all(line.startswith(tuple(starts)) for line in lines) and all(
        any(line.startswith(start) for line in lines) for start in starts
    )


def _within(n: int, bounds: list[int]) -> bool:
    return bounds[0] <= n <= bounds[1]


_RULES: dict[str, Callable[[str, Any], bool]] = {
    "words": lambda text, bounds: _within(len(text.split()), bounds),
    "sentences": lambda text, bounds: _within(len(_sentences(text)), bounds),
    "lines": lambda text, bounds: _within(len(_lines(text)), bounds),
    "bullets": lambda text, bounds: _within(
        sum(line.startswith("- ") for line in _lines(text)), bounds
    ),
    "contains": lambda text, words: all(word.casefold() in text.casefold() for word in words),
    "lacks": lambda text, words: all(word.casefold() not in text.casefold() for word in words),
    "starts": lambda text, start: text.strip().startswith(start),
    "ends": lambda text, end: text.strip().rstrip(".").endswith(end),
    "each_starts": lambda text, word: all(s.startswith(word) for s in _sentences(text)),
    "upper": lambda text, _: text.upper() == text and text.lower() != text,
    "line_starts": _holds_line_starts,
}


def _rules(check: dict[str, Any], answer: str) -> bool:
    return bool(answer.strip()) and all(
        _RULES[name](answer, value) for rule in check["rules"] for name, value in rule.items()
    )


def _code_in(answer: str) -> str:
    """The first fenced block, closed or not; the whole text where there is none."""
    block = re.search(r"```[^\n]*\n(.*?)(?:\n```|```|\Z)", answer, re.DOTALL)
    return block.group(1) if block else answer


def _python_function(check: dict[str, Any], answer: str) -> bool:
    code = _code_in(answer)
    if f"def {check['entry_point']}" not in code:
        code = check["prefix"] + code  # Only the body was written.
    else:
        # What the problem brings besides the function: imports and helpers.
        head = check["prefix"][: check["prefix"].rfind(f"def {check['entry_point']}")]
        code = f"{head}\n{code}"
    return run_python(f"{code}\n{check['test']}\ncheck({check['entry_point']})\n")[0]


def _python_line(check: dict[str, Any], answer: str) -> bool:
    line = next((one for one in _code_in(answer).splitlines() if one.strip()), "")
    before = check["prefix"].rstrip("\n").splitlines()[-1]
    after = next((one for one in check["suffix"].splitlines() if one.strip()), "")
    # Models drop the indentation; that of a neighbour is all that a reader could supply as well.
    for indent in dict.fromkeys(
        (
            _indent(line),
            _indent(before),
            _indent(before) + 4,
            _indent(after),
            max(0, _indent(after) - 4),
        )
    ):
        code = f"{check['prefix']}{' ' * indent}{line.strip()}\n{check['suffix']}"
        if run_python(f"{code}\n{check['test']}\ncheck({check['entry_point']})\n")[0]:
            return True
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


_KINDS: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "number": _number,
    "json": _json,
    "any_of": _any_of,
    "label": _label,
    "rules": _rules,
    "python_function": _python_function,
    "python_line": _python_line,
}
