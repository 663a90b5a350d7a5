"""The objects of an answer, as OpenAI's clients expect them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from coterie.protocol import Reply, confidence_of

_FINISH = {"stop": "stop", "length": "length", "context": "length", "cancelled": "stop"}


def completion(reply: Reply, answer_id: str, created: int) -> dict[str, Any]:
    """The whole answer at once."""
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": f"coterie/{reply.expert}",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text, "refusal": None},
                "logprobs": logprobs_of(reply),
                "finish_reason": _FINISH[reply.finish_reason],
            }
        ],
        "usage": usage(reply),
        "coterie": about(reply),
    }


def usage(reply: Reply) -> dict[str, Any]:
    prompt, written = reply.usage.prompt_tokens, reply.usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": reply.usage.cached_tokens},
        "completion_tokens_details": {"lookup_tokens": reply.usage.lookup_tokens},
    }


def about(reply: Reply) -> dict[str, Any]:
    """What only coterie says: who answered, why, and what it took."""
    return {
        "id": reply.id,
        "expert": reply.expert,
        "confidence": confidence_of(reply.route),
        "reason": reply.route.reason,
        "loaded_ms": reply.timings.load_ms,
        "finish_reason": reply.finish_reason,
    }


def logprobs_of(reply: Reply) -> dict[str, Any] | None:
    if reply.logprobs is None:
        return None
    return {"content": [_token(one) for one in reply.logprobs], "refusal": None}


class Chunks:
    """The pieces of one streamed answer; all carry the same id."""

    def __init__(self, answer_id: str, created: int, model: str, include_usage: bool) -> None:
        self._head = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage

    def role(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text(self, piece: str) -> bytes:
        return self._chunk({"content": piece})

    def end(self, reply: Reply) -> Iterable[bytes]:
        """The finish, the usage if it was asked for, and the end mark."""
        self._head["model"] = f"coterie/{reply.expert}"
        logprobs = logprobs_of(reply)
        finish = _FINISH[reply.finish_reason]
        yield self._chunk({}, finish, logprobs, {"coterie": about(reply)})
        if self._include_usage:
            yield event({**self._head, "choices": [], "usage": usage(reply)})
        yield b"data: [DONE]\n\n"

    def _chunk(
        self,
        delta: dict[str, Any],
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        fields = {**self._head, "choices": [choice], **(more or {})}
        if self._include_usage:
            fields["usage"] = None  # Present on every chunk but the last, once asked for.
        return event(fields)


def event(fields: dict[str, Any]) -> bytes:
    """One server-sent event."""
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"


def _token(one: dict[str, Any]) -> dict[str, Any]:
    top = [_alternative(*each) for each in one["top"]]
    return {**_alternative(one["token"], one["bytes"], one["logprob"]), "top_logprobs": top}


def _alternative(token: str, data: bytes, logprob: float) -> dict[str, Any]:
    """A token may be a part of a character: its bytes say what its text cannot."""
    # JSON has no infinity; this is the value that OpenAI names for "very unlikely".
    return {"token": token, "logprob": max(float(logprob), -9999.0), "bytes": list(data)}
