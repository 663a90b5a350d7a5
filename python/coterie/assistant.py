"""coterie.Assistant: the router, the experts and their cache behind one object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie import _coterie
from coterie.protocol import FinishReason, Prompt


@dataclass(frozen=True)
class Route:
    """Which expert answers, and why.

    probabilities: of the router's domains, blind to what is in memory; empty for an expert asked
    for by name. explanation: the numbers behind the choice (scores and bonuses of each expert).
    """

    expert: str
    reason: str
    probabilities: Mapping[str, float]
    abstained: bool
    explanation: Mapping[str, Any]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds, but for the speed. how: "hit" (the expert was there), "load", or "join"
    (another request was loading it). first_token_ms counts from the call, loading included."""

    how: str
    queue_ms: float
    load_ms: float
    prefill_ms: float
    first_token_ms: float
    decode_tokens_per_second: float


@dataclass(frozen=True)
class Reply:
    """An answer. finish_reason: "stop", "length" (max_tokens), "context" (no room) or "cancelled".

    logprobs, if asked for: one dict a token with "token", "bytes", "logprob" and "top", a list of
    (token, bytes, logprob), most likely first.
    """

    id: str
    text: str
    expert: str
    finish_reason: FinishReason
    route: Route
    usage: Usage
    timings: Timings
    logprobs: list[dict[str, Any]] | None = field(default=None, repr=False)


def _reply(fields: dict[str, Any]) -> Reply:
    return Reply(
        **{
            **fields,
            "route": Route(**fields["route"]),
            "usage": Usage(**fields["usage"]),
            "timings": Timings(**fields["timings"]),
        }
    )


class ReplyStream:
    """Pieces of an answer as they are written; `reply` is the whole of it, after the last piece.

    close() cancels, from any thread: the reply then says "cancelled". So does Ctrl-C while waiting
    for a piece, and dropping the stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._reply: Reply | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._stream.next_piece()
        if piece is None:
            self._reply = _reply(self._stream.result())
            raise StopIteration
        return str(piece)

    def close(self) -> None:
        self._stream.cancel()

    @property
    def reply(self) -> Reply:
        """Waits for the end of the answer; raises what ended it, if that was an error."""
        if self._reply is None:
            self._reply = _reply(self._stream.result())
        return self._reply


class Assistant:
    """Routes a prompt to an expert, which is loaded inside the memory budget, and answers.

    Thread-safe; blocking calls release the GIL. Errors: ValueError for bad arguments, KeyError for
    an unknown expert or model, MemoryError if an expert can never fit the budget (with the
    numbers), TimeoutError, OSError for a damaged file, and coterie.Error with .code for the rest;
    "out_of_range" is a prompt longer than the expert's context.
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    @classmethod
    def open(
        cls,
        config: str | os.PathLike[str] | None = None,
        *,
        memory_budget: int | str | None = None,
        threads: int | None = None,
        home: str | os.PathLike[str] | None = None,
    ) -> Assistant:
        """Opens the experts of a coterie.toml, or, without one, all models in the store.

        memory_budget: bytes, or a size such as "2GiB"; half of the free memory if not said.
        threads: one per core if not said. home: the model store, $COTERIE_HOME if not said.
        Loads no expert.
        """
        return cls(
            _coterie.Assistant.open(
                None if config is None else os.fspath(config),
                memory_budget=memory_budget,
                threads=threads,
                home=None if home is None else os.fspath(home),
            )
        )

    def generate(
        self,
        prompt_or_messages: Prompt,
        /,
        *,
        max_tokens: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        expert: str | None = None,
        conversation: str | None = None,
        logprobs: int | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Answers a prompt (a str) or a conversation (a list of {"role", "content"}).

        Sampling that is None is the expert's own default (temperature 0.7, top_k 40, top_p 0.95,
        min_p 0.05). expert: by name instead of by the router. conversation: a name under which
        requests belong together. logprobs: how many alternatives to report for each token.
        timeout: seconds to wait for memory.
        """
        stream = self.stream(
            prompt_or_messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
            expert=expert,
            conversation=conversation,
            logprobs=logprobs,
            timeout=timeout,
        )
        for _ in stream:
            pass
        return stream.reply

    def stream(
        self,
        prompt_or_messages: Prompt,
        /,
        *,
        max_tokens: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        expert: str | None = None,
        conversation: str | None = None,
        logprobs: int | None = None,
        timeout: float | None = None,
    ) -> ReplyStream:
        """The same as generate, piece by piece; whole characters only."""
        options = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
            "stop": [stop] if isinstance(stop, str) else stop,
            "expert": expert,
            "conversation": conversation,
            "logprobs": logprobs,
            "timeout": timeout,
        }
        return ReplyStream(self._core.stream(prompt_or_messages, options))

    def route(self, prompt: str, /) -> Route:
        """Decides only: loads nothing and changes nothing."""
        return Route(**self._core.route(prompt))

    def experts(self) -> list[dict[str, Any]]:
        """The experts by name: path, bytes, quality per domain, resident, fits."""
        return list(self._core.experts())

    def events(self) -> list[dict[str, Any]]:
        """What happened to memory since the last call, oldest first: dicts with "kind" ("loading",
        "loaded", "evicted", "load_failed"), "expert", "bytes", "text" and "reason"."""
        return list(self._core.events())

    def stats(self) -> dict[str, Any]:
        """Budget, bytes in use by purpose, experts and counters. Disturbs nothing."""
        return dict(self._core.stats())

    def set_memory_budget(self, budget: int, /) -> None:
        """Changes the budget (bytes). Idle experts beyond it are evicted; nothing in use is."""
        self._core.set_memory_budget(budget)

    def problems(self) -> list[str]:
        """Models that were left out, and why."""
        return list(self._core.problems())

    def server_configuration(self) -> dict[str, Any]:
        """The [server] table of the configuration."""
        return dict(self._core.server_configuration())
