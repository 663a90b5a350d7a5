"""An assistant without models: says what it was asked to say, as coterie.Assistant would."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from coterie.errors import Error
from coterie.protocol import Message, Prompt


@dataclasses.dataclass(frozen=True)
class FakeRoute:
    expert: str
    reason: str = "code 0.90"
    probabilities: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"code": 0.9, "general": 0.1}
    )
    abstained: bool = False
    explanation: str = "nearest prompts are about code"


@dataclasses.dataclass(frozen=True)
class FakeUsage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 4
    lookup_tokens: int = 2


@dataclasses.dataclass(frozen=True)
class FakeTimings:
    queue_ms: float = 0.5
    load_ms: float = 120.0
    prefill_ms: float = 30.0
    first_token_ms: float = 150.0
    decode_tokens_per_second: float = 42.0
    how: str = "load"


@dataclasses.dataclass(frozen=True)
class FakeReply:
    id: str
    text: str
    expert: str
    finish_reason: str
    route: FakeRoute
    usage: FakeUsage
    timings: FakeTimings
    logprobs: list[dict[str, Any]] | None
    examples: tuple[str, ...] = ()


class FakeStream:
    """Pieces one by one. Waits before each beyond `free_pieces` until released or closed."""

    def __init__(self, owner: FakeAssistant, reply: FakeReply, pieces: Sequence[str]) -> None:
        self._owner = owner
        self._reply = reply
        self._left = list(pieces)
        self.closed = threading.Event()

    def __iter__(self) -> FakeStream:
        return self

    def __next__(self) -> str:
        owner = self._owner
        if not self._left:
            raise StopIteration
        if owner.free_pieces == 0:
            while not self.closed.wait(0.01) and not owner.released.is_set():
                pass
            if self.closed.is_set():
                raise StopIteration
        else:
            owner.free_pieces -= 1
        if owner.fail_after is not None:
            if owner.fail_after == 0:
                raise owner.failure
            owner.fail_after -= 1
        if self._left[0] == "^C":
            self._left.clear()
            raise KeyboardInterrupt
        return self._left.pop(0)

    def close(self) -> None:
        self.closed.set()

    @property
    def reply(self) -> FakeReply:
        if self._left:
            raise Error("the answer is still being written", "failed_precondition")
        return self._reply


class FakeAssistant:
    """Records its calls in `asked`. Failing: fail_after pieces, `failure` is raised."""

    def __init__(self, pieces: Sequence[str] = ("Hello", ", wörld", "!")) -> None:
        self.pieces = list(pieces)
        self.asked: list[tuple[list[Message], dict[str, Any]]] = []
        self.streams: list[FakeStream] = []
        self.free_pieces = -1
        self.released = threading.Event()
        self.fail_after: int | None = None
        self.failure: Exception = Error("broken", "internal")
        self.finish_reason = "stop"
        self.budget = 2_000_000_000
        self.said: list[tuple[str, Any, str | None]] = []  # Feedback: id, what, domain.
        self.log_failure: str | None = None  # Told once, as an event.

    def stream(
        self,
        prompt_or_messages: Prompt,
        *,
        max_tokens: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: list[str] | None = None,
        expert: str | None = None,
        conversation: str | None = None,
        logprobs: int | None = None,
        timeout: float | None = None,
        log: bool = True,
        reuse: bool = True,
        lookup: bool | None = None,
    ) -> FakeStream:
        given = {name: value for name, value in locals().items() if name != "self"}
        messages = given.pop("prompt_or_messages")
        self.asked.append((messages, given))
        if expert is not None and expert not in ("small", "coder"):
            raise KeyError(f'there is no expert "{expert}"')
        name = expert or "coder"
        top = [("Hello", b"Hello", -0.1), ("�", b"\xc3", float("-inf"))][: logprobs or 0]
        reply = FakeReply(
            id="r-1",
            text="".join(self.pieces),
            expert=name,
            finish_reason=self.finish_reason,
            route=FakeRoute(name),
            usage=FakeUsage(7, len(self.pieces)),
            timings=FakeTimings(),
            logprobs=None
            if logprobs is None
            else [
                {"token": piece, "bytes": piece.encode(), "logprob": -0.1, "top": top}
                for piece in self.pieces
            ],
        )
        stream = FakeStream(self, reply, self.pieces)
        self.streams.append(stream)
        return stream

    def generate(self, prompt_or_messages: Prompt, **options: Any) -> FakeReply:
        stream = self.stream(prompt_or_messages, **options)
        for _ in stream:
            pass
        return stream.reply

    def route(self, prompt: str) -> FakeRoute:
        return FakeRoute("coder")

    def experts(self) -> list[dict[str, Any]]:
        sizes = {"small": 98_000_000, "coder": 491_000_000}
        return [
            {"name": name, "bytes": size, "fits": True, "base": f"sha256:{name}", "adapter": ""}
            for name, size in sizes.items()
        ]

    def feedback(self, id: str, given: Any, *, domain: str | None = None) -> None:
        if id != "r-1":
            raise KeyError(f'no interaction has this id: "{id}"')
        self.said.append((id, given, domain))

    def forget(self, id: str) -> None:
        self.said = [one for one in self.said if one[0] != id]

    def events(self) -> list[dict[str, Any]]:
        failure, self.log_failure = self.log_failure, None
        return [{"kind": "log_failed", "expert": "coder", "text": failure}] if failure else []

    def stats(self) -> dict[str, Any]:
        rows = [
            {**e, "resident": i == 0, "leases": 0, "uses": i} for i, e in enumerate(self.experts())
        ]
        return {
            "budget_bytes": self.budget,
            "used_bytes": 98_000_000,
            "peak_bytes": 600_000_000,
            "bytes_by_purpose": {"expert_weights": 98_000_000},
            "experts": rows,
            "counters": {"loads": 3, "hits": 2, "joins": 0, "evictions": 1, "bytes_loaded": 10**9},
        }

    def problems(self) -> list[str]:
        return []

    def server_configuration(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": 0, "api_key": "configured"}

    def set_memory_budget(self, budget: int) -> None:
        self.budget = budget
