"""First tokens: of resident experts, after a switch, and with a long system prompt."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import coterie
from performance.rows import Row

# Some 20 tokens once a template is around them.
SHORT_PROMPT = "Say hello."
MAX_RESIDENT_MS = {
    "smollm2-135m": 50,
    "gemma-3-270m": 50,
    "qwen2.5-coder-0.5b": 120,
    "qwen2.5-coder-1.5b": 300,
}
MAX_SWITCH_MS = {
    "smollm2-135m": 60,
    "gemma-3-270m": 60,
    "qwen2.5-coder-0.5b": 100,
    "qwen2.5-coder-1.5b": 150,
}
MAX_COLD = 1.2  # Times what reading the file takes.


def first_token_ms(assistant: coterie.Assistant, model: str, prompt: str) -> float:
    reply = assistant.generate(
        prompt, expert=model, max_tokens=2, temperature=0.0, log=False, reuse=False
    )
    return reply.timings.first_token_ms


def leave_memory(assistant: coterie.Assistant) -> None:
    """Waits until no expert is resident; page caches stay as they are."""
    while any(expert["resident"] for expert in assistant.stats()["experts"]):
        time.sleep(0.02)


def drop_from_page_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def read_seconds(path: Path) -> float:
    """How long the file takes to come from the disk, read from its beginning to its end."""
    drop_from_page_cache(path)
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass
    return time.perf_counter() - begin


def measure(model: str, path: Path, rounds: int) -> list[Row]:
    resident, switched, cold, reading = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "coterie.toml"
        settings.write_text('[cache]\nkeep_alive = "0s"\n')
        with coterie.Assistant.open(memory_budget="4GB") as assistant:
            first_token_ms(assistant, model, SHORT_PROMPT)
            for _ in range(4 * rounds):
                resident.append(first_token_ms(assistant, model, SHORT_PROMPT))
        with coterie.Assistant.open(settings, memory_budget="4GB") as assistant:
            first_token_ms(assistant, model, SHORT_PROMPT)
            for _ in range(rounds):
                leave_memory(assistant)
                switched.append(first_token_ms(assistant, model, SHORT_PROMPT))
            for _ in range(rounds):
                leave_memory(assistant)
                reading.append(1e3 * read_seconds(path))
                drop_from_page_cache(path)
                cold.append(first_token_ms(assistant, model, SHORT_PROMPT))
    middle = sorted(resident)[len(resident) // 2]
    p95 = sorted(resident)[int(0.95 * (len(resident) - 1))]
    beyond = [value - middle for value in switched]
    return [
        Row(
            model,
            "first token of a short prompt, resident, p95",
            "ms",
            [p95],
            [],
            MAX_RESIDENT_MS.get(model),
            "lower",
        ),
        Row(
            model,
            "switch, page cache warm, beyond resident",
            "ms",
            beyond,
            [],
            MAX_SWITCH_MS.get(model),
            "lower",
        ),
        Row(
            model,
            "switch, page cache cold, times reading the file",
            "",
            [ms / read for ms, read in zip(cold, reading, strict=True)],
            [],
            MAX_COLD,
            "lower",
        ),
    ]
