"""coterie.Expert: one model file opened outside any cache, for scripts, tests and parity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing

from coterie import _coterie
from coterie.native import Native
from coterie.protocol import FinishReason, Prompt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from coterie.adapter import Adapter


@dataclass(frozen=True)
class ExpertReply:
    """An answer of one expert. Times in milliseconds. lookup_tokens: see coterie.Usage."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    lookup_tokens: int
    prefill_ms: float
    first_token_ms: float
    decode_tokens_per_second: float


class Expert(Native[_coterie.Expert]):
    """A model with its tokenizer, weights read in place from the file. Thread-safe."""

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, activations: str = "int8", threads: int = 0
    ) -> Expert:
        """Opens a GGUF file.

        activations: "int8" rounds activations to 8 bits per block of 32 values, "f32" does not
        (the reference, several times slower). threads: 0 means one per core. Raises KeyError for a
        missing file, OSError for a damaged one, coterie.Error for one that is not supported.
        """
        core = _coterie.Expert.open(os.fspath(path), activations=activations, threads=threads)
        return cls(core)

    @property
    def tokenizer(self) -> _coterie.Tokenizer:
        """encode(text, *, add_special=True, parse_special=True) -> ids; decode(ids) -> str;
        n_vocab."""
        return self._native.tokenizer

    @property
    def description(self) -> dict[str, Any]:
        """What the file says of its model: dimensions, vocabulary, context."""
        return dict(self._native.description)

    def logits(
        self, ids: Sequence[int], *, adapter: Adapter | None = None
    ) -> numpy.typing.NDArray[numpy.float32]:
        """Logits after each token of one sequence: float32 [n_tokens, n_vocab].

        Raises ValueError for an id outside the vocabulary. Ctrl-C ends it between two layers.
        """
        return self._native.logits(list(ids), adapter._core if adapter is not None else None)

    def generate(
        self,
        prompt_or_messages: Prompt,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        adapter: Adapter | None = None,
        lookup: bool = True,
    ) -> ExpertReply:
        """Answers a prompt or conversation through the file's chat template; greedy by default.

        Options are those of coterie.Options. Ctrl-C cancels and raises KeyboardInterrupt. Raises
        ValueError for options out of range, coterie.Error "out_of_range" for a prompt longer than
        the context.
        """
        sampling = _coterie.SamplingOptions()
        sampling.temperature = temperature
        sampling.top_k = top_k
        sampling.top_p = top_p
        sampling.min_p = min_p
        sampling.repetition_penalty = repetition_penalty
        sampling.seed = seed
        core = adapter._core if adapter is not None else None
        fields = self._native.generate(
            prompt_or_messages, max_tokens, sampling, list(stop), core, lookup
        )
        return ExpertReply(**fields)


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describes a GGUF file without loading it: keys, tensors by type, chat template.

    Raises what Expert.open would raise for a file that is missing or damaged.
    """
    return dict(_coterie.inspect(os.fspath(path)))
