"""coterie.Assistant: the router, the experts and their cache behind one object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from coterie import _coterie
from coterie.errors import nearest
from coterie.native import Native
from coterie.protocol import Edited, Feedback, FinishReason, Prompt
from coterie.training import TrainingOptions, TrainingReport


class Options(TypedDict, total=False):
    """The keyword arguments of Assistant.generate and Assistant.stream; all may be left out.

    Sampling that is None or left out is the expert's own default.
    """

    max_tokens: int
    """Longest answer; 256 if left out."""
    temperature: float | None
    """0: always the likeliest token. 0.7 unless the expert says otherwise."""
    top_k: int | None
    """Sample from the k likeliest tokens; 0: from all. 40."""
    top_p: float | None
    """Sample from the likeliest tokens that reach this probability together. 0.95."""
    min_p: float | None
    """Leave out tokens less likely than this share of the likeliest's probability. 0.05."""
    repetition_penalty: float | None
    """Divides the logits of recent tokens; 1: none."""
    seed: int | None
    """The same seed on the same machine gives the same answer; another one each time if None."""
    stop: str | Sequence[str] | None
    """Strings that end the answer; they are not part of it."""
    expert: str | None
    """Who answers, by name; the router chooses if None."""
    adapter: str | None
    """An adapter of the store to answer with, by name; "": none, None: the expert's own."""
    conversation: str | None
    """A name under which requests belong together: the router stays with an expert as long as the
    topic does."""
    logprobs: int | None
    """How many alternatives to report for each token, 0 to 20."""
    priority: Literal["interactive", "background"] | None
    """ "background" gives way to every "interactive" request, which is what None means."""
    retrieval: bool | None
    """Show the expert the nearest answers that you accepted or edited; as configured if None."""
    log: bool | None
    """False: keep nothing of this answer on disk, in the interaction log or as a prefix."""
    reuse: bool | None
    """False: compute the whole prompt, whatever is known of it, and keep nothing for later ones."""
    lookup: bool | None
    """False: do not compute ahead what may repeat something of the conversation. The answer is the
    same either way, token by token; as configured if None."""
    timeout: float | None
    """Seconds to wait for a turn and for memory; then TimeoutError. Without one, for ever."""


_OPTION_NAMES = tuple(Options.__annotations__)


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
    """Tokens read and tokens written. cached_tokens: of those read, known from an earlier prompt
    that began alike, and not computed again. lookup_tokens: of those written, computed ahead in one
    pass with an earlier one, because they repeat something of the conversation."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    lookup_tokens: int = 0


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
    adapter: the version that answered, such as "home@3"; empty: none.
    examples: ids of earlier answers that the expert was shown, nearest first.

    logprobs, if asked for: one dict a token with "token", "bytes", "logprob" and "top", a list of
    (token, bytes, logprob), most likely first.
    """

    id: str
    text: str
    expert: str
    finish_reason: FinishReason
    examples: list[str]
    route: Route
    usage: Usage
    timings: Timings
    logprobs: list[dict[str, Any]] | None = field(default=None, repr=False)
    adapter: str = ""


def _reply(fields: dict[str, Any]) -> Reply:
    return Reply(
        **{
            **fields,
            "route": Route(**fields["route"]),
            "usage": Usage(**fields["usage"]),
            "timings": Timings(**fields["timings"]),
        }
    )


class ReplyStream(Native[_coterie.ReplyStream]):
    """Pieces of an answer as they are written; `reply` is the whole of it, after the last piece.

    close() cancels, from any thread: the reply then says "cancelled". So does Ctrl-C while waiting
    for a piece, and dropping the stream. `with assistant.stream(...) as stream:` closes at the end.
    """

    def __init__(self, core: _coterie.ReplyStream) -> None:
        super().__init__(core)
        self._reply: Reply | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._native.next_piece()
        if piece is None:
            self._reply = _reply(self._native.result())
            raise StopIteration
        return piece

    def close(self) -> None:
        """Asks the answer to end, and returns at once. Closing twice, or after the end, is fine."""
        self._native.cancel()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def reply(self) -> Reply:
        """Waits for the end of the answer; raises what ended it, if that was an error."""
        if self._reply is None:
            self._reply = _reply(self._native.result())
        return self._reply


class Assistant(Native[_coterie.Assistant]):
    """Routes a prompt to an expert, which is loaded inside the memory budget, and answers.

    Thread-safe; blocking calls release the GIL. Errors: ValueError for bad arguments, KeyError for
    an unknown expert or model, MemoryError if an expert can never fit the budget (with the
    numbers), TimeoutError, OSError for a damaged file, and coterie.Error with .code for the rest;
    "out_of_range" is a prompt longer than the expert's context.
    """

    def close(self) -> None:
        """Gives the experts' memory back as soon as no answer is on its way; then every call raises
        coterie.Error. `with coterie.Assistant.open() as assistant:` closes at the end."""
        self._core = None

    def __enter__(self) -> Assistant:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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

    def generate(self, prompt_or_messages: Prompt, /, **options: Unpack[Options]) -> Reply:
        """Answers a prompt (a str) or a conversation (a list of {"role", "content"}).

        Routes, loads the expert if need be, and waits for the whole answer. Options are those of
        coterie.Options. Ctrl-C cancels the answer and raises KeyboardInterrupt.
        """
        stream = self.stream(prompt_or_messages, **options)
        for _ in stream:
            pass
        return stream.reply

    def stream(self, prompt_or_messages: Prompt, /, **options: Unpack[Options]) -> ReplyStream:
        """The same as generate, piece by piece; whole characters only.

        Returns at once: routing and loading happen while the first piece is waited for.
        """
        given: dict[str, Any] = {**options}
        for name in given:
            if name not in Options.__annotations__:
                known = ", ".join(_OPTION_NAMES)
                raise TypeError(
                    f'there is no option "{name}"{nearest(name, _OPTION_NAMES)} there are {known}'
                )
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        return ReplyStream(self._native.stream(prompt_or_messages, given))

    def feedback(
        self,
        id: str,
        given: Feedback,
        /,
        *,
        domain: str | None = None,
    ) -> None:
        """Says what you think of a reply, by its id; the last word counts, "none" takes it back.

        domain: where the prompt belongs, if the router was wrong. Accepting the answer of an expert
        that you asked by name, after another had answered the same, teaches the router as well.
        KeyError for an id that is not in the log (any more), ValueError for an empty edit or an
        unknown domain, coterie.Error ("failed_precondition") if no log is kept.
        """
        verdict, text = ("edited", given.text) if isinstance(given, Edited) else (given, "")
        self._native.feedback(id, verdict, text, domain or "")

    def forget(self, id: str, /) -> None:
        """Erases a reply from the log, all that is kept of prompts, what the router learned from it
        and every version of an
        adapter that was trained on it: the current one is trained again without it, which takes as
        long as training does. KeyError if it is not there."""
        self._native.forget(id)

    def train(self, expert: str, **options: Unpack[TrainingOptions]) -> TrainingReport:
        """Trains a LoRA adapter on the feedback that an expert's answers got, and waits for it.

        Answers go on meanwhile, and first. The adapter is published only if it is better on
        feedback that was held back (`report.promoted`, `report.verdict`); it then answers as an
        expert of its own name, on the same weights. `training()` says how far it has come. Options
        are those of coterie.TrainingOptions. Ctrl-C ends it; the same again goes on from there.
        coterie.Error ("failed_precondition") if there is nothing to learn from, MemoryError if it
        does not fit the budget.
        """
        given: dict[str, Any] = {**options}
        known = {**TrainingOptions.__annotations__}
        for name in given:
            if name not in known:
                raise TypeError(
                    f'there is no option "{name}"{nearest(name, tuple(known))} there are '
                    + ", ".join(known)
                )
        if "replay" in given:
            given["replay"] = str(Path(given["replay"]).resolve())
        return TrainingReport(**self._native.train(expert, given))

    def training(self) -> dict[str, Any]:
        """How far the training under way, or the last one, has come: phase ("measuring",
        "training", "judging", "paused: memory"), step, steps, loss, tokens_per_second,
        seconds_left, memory_bytes."""
        return dict(self._native.training())

    def route(self, prompt: str, /) -> Route:
        """Decides only, in milliseconds: loads nothing and changes nothing."""
        return Route(**self._native.route(prompt))

    def reload_adapters(self) -> None:
        """Finds the experts that adapters published since then make. New versions of an adapter
        need no call: an answer takes the one that is current when it begins."""
        self._native.reload_adapters()

    def experts(self) -> list[dict[str, Any]]:
        """The experts by name: path, bytes, quality per domain, resident, fits."""
        return list(self._native.experts())

    def events(self) -> list[dict[str, Any]]:
        """What happened since the last call, oldest first: dicts with "kind" ("loading", "loaded",
        "evicted", "load_failed", "log_failed", "adapter_failed", "trained", "training_failed"),
        "expert", "bytes", "text" and "reason"."""
        return list(self._native.events())

    def stats(self) -> dict[str, Any]:
        """Budget, bytes in use by purpose, experts, counters, queue and health. Disturbs nothing;
        docs/cache.md says what each number means."""
        return dict(self._native.stats())

    def set_memory_budget(self, budget: int, /) -> None:
        """Changes the budget (bytes). Idle experts beyond it are evicted at once, busy ones when
        their answers end. ValueError if it does not hold the router and the pinned experts."""
        self._native.set_memory_budget(budget)

    def problems(self) -> list[str]:
        """Models that were left out, and why."""
        return list(self._native.problems())

    def server_configuration(self) -> dict[str, Any]:
        """The [server] table of the configuration."""
        return dict(self._native.server_configuration())
