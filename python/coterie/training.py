"""Training: what it takes, what it reports, and a trainer for scripts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy
import numpy.typing

from coterie import _coterie
from coterie.adapter import Adapter
from coterie.expert import Expert

_Sequence = tuple[Sequence[int], Sequence[bool]]


class TrainerOptions(TypedDict, total=False):
    """How an adapter is trained. What is not given has the default.

    rank 8 · alpha 2 * rank · rslora False (scale alpha / sqrt(rank)) · targets all of "q", "k",
    "v", "o", "gate", "up", "down" · dropout 0 (of what the adapter reads, below 1) · top_layers 0
    (all) · learning_rate 1e-3 · warmup_steps 10 · total_steps 0 (of :class:`Trainer` alone: the
    rate falls to 0 at that step; 0: it does not) · clip_norm 1.0 · weight_decay 0 ·
    preference_beta 0.1 · preference_weight 0.2 · seed 0 · precision "auto" (products with
    quantised weights in 8 bits, as when the expert answers, the others in bf16 where the CPU has
    it, else f32), "bf16" or "f32" · device "cpu" ("cuda": see docs/gpu.md)
    """

    rank: int
    alpha: float
    rslora: bool
    targets: Sequence[str]
    dropout: float
    top_layers: int
    learning_rate: float
    warmup_steps: int
    total_steps: int
    clip_norm: float
    weight_decay: float
    preference_beta: float
    preference_weight: float
    seed: int
    precision: str
    device: str


class TrainingOptions(TrainerOptions, total=False):
    """Options of Assistant.train.

    adapter: its name, "EXPERT-tuned" if not given · epochs 4 · batch_examples 8 · episode_share 1
    (how often an answer is learnt after the nearest others, as retrieval shows them) · replay_share
    0.25 (of general text, against forgetting) · replay: a UTF-8 text file to rehearse beside the
    passages that are built in, the configuration's if not given · largest_forgetting 0.05 (nats a
    token that general text may lose) · held_out_share 0.2 · max_tokens 1024 (longer examples are
    left out) · report_cases 16 (held back, that the report compares on)
    """

    adapter: str
    epochs: int
    batch_examples: int
    episode_share: float
    replay_share: float
    replay: str | os.PathLike[str]
    largest_forgetting: float
    held_out_share: float
    report_cases: int
    max_tokens: int


@dataclass(frozen=True)
class TrainingReport:
    """What a training came to. Gains and losses in nats per token; above 0 a gain is better."""

    expert: str
    adapter: str  # "NAME@VERSION" as published; "" if nothing was.
    promoted: bool
    verdict: str  # One sentence.
    examples: int
    held_out: int
    gain: float  # On cases held back, against what answered before,
    gain_interval: tuple[float, float]  # with its 99 % interval.
    held_out_before: float
    held_out_after: float
    forgetting: float  # On general text, against the base.
    # Of some cases held back, as they are answered: "base", "base_retrieval" (shown the nearest
    # answers of those learnt from), "adapter", "adapter_retrieval"; smaller is better.
    compared: dict[str, float]
    compared_cases: int
    seconds: float
    tokens_per_second: float
    memory_bytes: int  # Beside the expert's weights.
    served_difference: float  # Between the trainer and the expert that serves, on a probe.
    losses: list[float]  # Of every step.
    left_out: list[tuple[str, str]]  # Interactions that could not be learnt from, and why.


class Trainer:
    """Trains one adapter on an expert's weights in place, step by step: for scripts and tests.

    max_tokens: of one step's pass; longer sequences are refused with MemoryError. Calls must not
    overlap. `coterie.Assistant.train` learns from feedback, with a gate and versions.
    """

    def __init__(self, base: Expert, *, max_tokens: int = 512, **options: Any) -> None:
        for name in options:
            if name not in TrainerOptions.__annotations__:
                known = ", ".join(TrainerOptions.__annotations__)
                raise TypeError(f'there is no option "{name}"; there are {known}')
        self._core = _coterie.Trainer(base._native, options, max_tokens)

    def step(self, batch: Sequence[_Sequence]) -> dict[str, Any]:
        """One step of the optimiser over sequences: token ids, and for each whether it is to be
        predicted (never the first). Returns loss (mean nats per target), gradient_norm and more."""
        return dict(self._core.step([(list(ids), list(mask)) for ids, mask in batch]))

    def evaluate(
        self, sequences: Sequence[_Sequence], *, adapted: bool = True
    ) -> list[tuple[float, int]]:
        """Summed negative log-likelihood (nats) and number of the targets of each sequence."""
        return self._core.evaluate([(list(ids), list(mask)) for ids, mask in sequences], adapted)

    def gradients(
        self,
    ) -> list[tuple[int, str, numpy.typing.NDArray[Any], numpy.typing.NDArray[Any]]]:
        """Of the last step, before clipping: layer, linear, those of A [rank, in] and B
        [out, rank], in the order of rows that PEFT has."""
        return list(self._core.gradients())

    def load(self, adapter: Adapter) -> None:
        """Goes on from an adapter of at most this rank. ValueError if it has no place here."""
        self._core.load(adapter._core)

    def adapter(self, name: str = "adapter") -> Adapter:
        """The adapter as it is now, for Expert.generate, Expert.logits and Adapter.save."""
        return Adapter(self._core.adapter(name))

    @property
    def memory_bytes(self) -> int:
        """Bytes beside the expert's weights."""
        return self._core.memory_bytes

    @property
    def precision(self) -> str:
        """Either "bf16" or "f32": of products that do not run in 8 bits (precision "auto").

        Sums and the matrices of the adapter are f32.
        """
        return "bf16" if self._core.is_bf16 else "f32"
