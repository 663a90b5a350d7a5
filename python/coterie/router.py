"""coterie.Router: which domain a prompt belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coterie import _coterie
from coterie.native import Native


@dataclass(frozen=True)
class DomainScores:
    """The domain to act on ("general" after an abstention), calibrated probabilities of all
    domains, most probable first, and why."""

    domain: str
    probabilities: Mapping[str, float]
    abstained: bool
    explanation: Mapping[str, Any]
    router_version: str


class Router(Native[_coterie.Router]):
    """A classifier of prompts. Immutable but for correct(), which replaces what is behind it."""

    @classmethod
    def default(cls) -> Router:
        """The router that ships: a fine-tuned encoder with 8-bit weights."""
        return cls(_coterie.Router.load(_coterie.default_router_path()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Router:
        """Opens a file of save(). Raises KeyError if there is none, OSError if it is damaged."""
        return cls(_coterie.Router.load(os.fspath(path)))

    @classmethod
    def fit(cls, rows: Iterable[tuple[str, str]]) -> Router:
        """Fits a linear model over words and letters to (text, label) rows, in seconds."""
        return cls(_coterie.Router.fit([(text, label) for text, label in rows]))

    def classify(self, text: str) -> DomainScores:
        """The domain of a prompt, in milliseconds; reads the first 60 and last 25 words."""
        return DomainScores(**self._native.classify(text))

    def explain(self, text: str) -> DomainScores:
        """classify(), and in .explanation what decided: "features", pairs of (piece of the prompt,
        what the margin loses without it), and "nearest", examples of the router as (text, domain,
        cosine). Takes up to 25 times as long as classify()."""
        return DomainScores(**self._native.explain(text))

    def add_domain(self, name: str, examples: Iterable[str]) -> None:
        """From now on there is one more domain, known by examples: ten are enough for prompts much
        like them, correct() adds to it. save() keeps it. Raises ValueError for a name that is
        taken, or for no examples."""
        self._core = self._native.add_domain(name, list(examples))

    def set_examples(self, rows: Iterable[tuple[str, str]]) -> None:
        """Keeps at most 500 (text, label) rows in the router's file: explain() shows the nearest
        ones, and they hold their ground against corrections. Only before the first correction."""
        self._core = self._native.with_examples([(text, label) for text, label in rows])

    def correct(self, text: str, label: str) -> None:
        """From now on this prompt, and prompts like it, belong to `label`. save() keeps it."""
        self._core = self._native.correct(text, label)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes model, calibration and corrections to one file, atomically."""
        self._native.save(os.fspath(path))

    def evaluate(self, rows: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """accuracy, macro_f1, wrong_expert_rate, ece, abstained_rate, recall_by_label and n."""
        return dict(self._native.evaluate([(text, label) for text, label in rows]))

    @property
    def domains(self) -> list[str]:
        """The labels it knows."""
        return list(self._native.domains)

    @property
    def tier(self) -> str:
        """ "encoder" or "lexical"."""
        return str(self._native.tier)

    @property
    def version(self) -> str:
        """Of the fitted model, and the number of corrections since."""
        return str(self._native.version)
