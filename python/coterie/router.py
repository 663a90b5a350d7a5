"""coterie.Router: which domain a prompt belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coterie import _coterie


@dataclass(frozen=True)
class DomainScores:
    """The domain to act on ("general" after an abstention), calibrated probabilities of all
    domains, most probable first, and why."""

    domain: str
    probabilities: Mapping[str, float]
    abstained: bool
    explanation: Mapping[str, Any]
    router_version: str


class Router:
    """A classifier of prompts. Immutable but for correct(), which replaces what is behind it."""

    def __init__(self, core: Any) -> None:
        self._core = core

    @classmethod
    def default(cls) -> Router:
        """The router that ships: a fine-tuned encoder with 8-bit weights."""
        return cls(_coterie.Router.load(_coterie.default_router_path()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Router:
        return cls(_coterie.Router.load(os.fspath(path)))

    @classmethod
    def fit(cls, rows: Iterable[tuple[str, str]]) -> Router:
        """Fits a linear model over words and letters to (text, label) rows, in seconds."""
        return cls(_coterie.Router.fit([(text, label) for text, label in rows]))

    def classify(self, text: str) -> DomainScores:
        return DomainScores(**self._core.classify(text))

    def correct(self, text: str, label: str) -> None:
        """From now on this prompt, and prompts like it, belong to `label`. save() keeps it."""
        self._core = self._core.correct(text, label)

    def save(self, path: str | os.PathLike[str]) -> None:
        self._core.save(os.fspath(path))

    def evaluate(self, rows: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """accuracy, macro_f1, wrong_expert_rate, ece, abstained_rate, recall_by_label and n."""
        return dict(self._core.evaluate([(text, label) for text, label in rows]))

    @property
    def domains(self) -> list[str]:
        return list(self._core.domains)

    @property
    def tier(self) -> str:
        """ "encoder" or "lexical"."""
        return str(self._core.tier)

    @property
    def version(self) -> str:
        return str(self._core.version)
