"""What the command line and the server need of an assistant: the seam between them and the core.

`coterie.Assistant` conforms; tests conform with a small fake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict

FinishReason = Literal["stop", "length", "cancelled", "context"]


class Message(TypedDict):
    role: str
    content: str


Prompt = str | Sequence[Message]


@dataclass(frozen=True)
class Edited:
    """Feedback on an answer: what it should have been."""

    text: str


Feedback = Literal["accepted", "rejected", "none"] | Edited


class Route(Protocol):
    """Which expert, and why. probabilities are of domains and sum to 1."""

    @property
    def expert(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def probabilities(self) -> Mapping[str, float]: ...
    @property
    def abstained(self) -> bool: ...
    @property
    def explanation(self) -> Any: ...


class Usage(Protocol):
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def lookup_tokens(self) -> int: ...


class Timings(Protocol):
    """how is "hit" (the expert was there), "load" or "join" (another request's load)."""

    @property
    def queue_ms(self) -> float: ...
    @property
    def load_ms(self) -> float: ...
    @property
    def prefill_ms(self) -> float: ...
    @property
    def first_token_ms(self) -> float: ...
    @property
    def decode_tokens_per_second(self) -> float: ...
    @property
    def how(self) -> str: ...


class Reply(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def expert(self) -> str: ...
    @property
    def finish_reason(self) -> FinishReason: ...
    @property
    def examples(self) -> Sequence[str]: ...
    @property
    def route(self) -> Route: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def timings(self) -> Timings: ...
    @property
    def logprobs(self) -> Any: ...


class ReplyStream(Protocol):
    """Pieces of an answer; `reply` after the last one. close() cancels, from any thread."""

    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...
    def close(self) -> None: ...
    @property
    def reply(self) -> Reply: ...


class Assistant(Protocol):
    """Thread-safe. Options are those of coterie.Assistant.generate, by name."""

    def generate(self, prompt_or_messages: Prompt, /, **options: Any) -> Reply: ...
    def stream(self, prompt_or_messages: Prompt, /, **options: Any) -> ReplyStream: ...
    def route(self, prompt: str, /) -> Route: ...
    def feedback(self, id: str, given: Feedback, /, *, domain: str | None = None) -> None: ...
    def forget(self, id: str, /) -> None: ...
    def train(self, expert: str, **options: Any) -> Any: ...
    def training(self) -> dict[str, Any]: ...
    def experts(self) -> list[dict[str, Any]]: ...
    def events(self) -> list[dict[str, Any]]: ...
    def stats(self) -> dict[str, Any]: ...
    def set_memory_budget(self, budget: int, /) -> None: ...
    def problems(self) -> list[str]: ...
    def server_configuration(self) -> dict[str, Any]: ...


def confidence_of(route: Route) -> float:
    """The probability of the likeliest domain; 0 where nothing was classified."""
    return max(route.probabilities.values(), default=0.0)


def route_fields(route: Route) -> dict[str, Any]:
    """A route for programs."""
    return {
        "expert": route.expert,
        "reason": route.reason,
        "confidence": confidence_of(route),
        "probabilities": dict(route.probabilities),
        "abstained": route.abstained,
        "explanation": route.explanation
        if isinstance(route.explanation, (str, dict, list, type(None)))
        else str(route.explanation),
    }


def reply_fields(reply: Reply) -> dict[str, Any]:
    """A reply for programs."""
    timings = reply.timings
    return {
        "id": reply.id,
        "expert": reply.expert,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "examples": list(reply.examples),
        "route": route_fields(reply.route),
        "usage": {
            "prompt_tokens": reply.usage.prompt_tokens,
            "completion_tokens": reply.usage.completion_tokens,
            "cached_tokens": reply.usage.cached_tokens,
            "lookup_tokens": reply.usage.lookup_tokens,
        },
        "timings": {
            name: getattr(timings, name)
            for name in (
                "queue_ms",
                "load_ms",
                "prefill_ms",
                "first_token_ms",
                "decode_tokens_per_second",
                "how",
            )
        },
    }
