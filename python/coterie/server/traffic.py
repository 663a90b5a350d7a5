"""Counts what the server does, bounds how much at once, and tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import anyio

from coterie.protocol import Reply


class Traffic:
    """Used from the event loop's thread only."""

    def __init__(self, max_active: int) -> None:
        self._max_active = max_active
        # One thread waits for each answer; a few more close those whose clients went away.
        self.threads = anyio.CapacityLimiter(max_active + 8)
        self._active = 0
        self._answers = 0
        self._failures = 0
        self._cancelled = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._written_tokens = 0
        self._lookup_tokens = 0
        self._by_expert: dict[str, int] = {}

    def enter(self) -> bool:
        """False if as many answers as allowed are on their way."""
        if self._active >= self._max_active:
            return False
        self._active += 1
        return True

    def leave(self, cancelled: bool) -> None:
        self._active -= 1
        self._cancelled += cancelled

    def answered(self, reply: Reply) -> None:
        self._answers += 1
        self._prompt_tokens += reply.usage.prompt_tokens
        self._cached_tokens += reply.usage.cached_tokens
        self._written_tokens += reply.usage.completion_tokens
        self._lookup_tokens += reply.usage.lookup_tokens
        self._by_expert[reply.expert] = self._by_expert.get(reply.expert, 0) + 1

    def failed(self) -> None:
        self._failures += 1

    def metrics(self, stats: dict[str, Any]) -> str:
        """The Prometheus text format, version 0.0.4."""
        return "".join(f"{line}\n" for line in self._lines(stats))

    def _lines(self, stats: dict[str, Any]) -> Iterator[str]:
        counters = stats.get("counters", {})
        yield from _metric("answers_active", "gauge", {"": self._active})
        yield from _metric("answers_total", "counter", {"": self._answers})
        yield from _metric("failures_total", "counter", {"": self._failures})
        yield from _metric("cancelled_total", "counter", {"": self._cancelled})
        yield from _metric("prompt_tokens_total", "counter", {"": self._prompt_tokens})
        yield from _metric("cached_tokens_total", "counter", {"": self._cached_tokens})
        yield from _metric("completion_tokens_total", "counter", {"": self._written_tokens})
        yield from _metric("lookup_tokens_total", "counter", {"": self._lookup_tokens})
        yield from _metric("expert_answers_total", "counter", self._by_expert, "expert")
        for name in ("budget_bytes", "used_bytes", "peak_bytes"):
            yield from _metric(f"memory_{name}", "gauge", {"": stats.get(name, 0)})
        purposes = stats.get("bytes_by_purpose", {})
        yield from _metric("memory_purpose_bytes", "gauge", purposes, "purpose")
        experts = stats.get("experts", [])
        resident = {str(expert["name"]): int(bool(expert["resident"])) for expert in experts}
        yield from _metric("expert_resident", "gauge", resident, "expert")
        for name, value in counters.items():
            yield from _metric(f"cache_{name}_total", "counter", {"": value})


def _metric(
    name: str, kind: str, values: Mapping[str, float], label: str | None = None
) -> Iterator[str]:
    yield f"# TYPE coterie_{name} {kind}"
    for key, value in values.items():
        escaped = key.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        labels = f'{{{label}="{escaped}"}}' if label else ""
        yield f"coterie_{name}{labels} {value}"
