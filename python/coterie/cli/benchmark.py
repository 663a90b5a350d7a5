"""coterie bench: how fast the experts of this machine answer."""

from __future__ import annotations

from typing import Any

import typer

from coterie.byte_size import format_bytes
from coterie.cli import options
from coterie.cli.options import Budget, Config, Expert, Json, MaxTokens, Threads
from coterie.cli.output import print_json, print_table
from coterie.errors import sentence_of
from coterie.protocol import Assistant

_PROMPT = "Explain in a few sentences how a bicycle stays upright while it is moving."


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    expert: Expert = None,
    max_tokens: MaxTokens = 64,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Times loading, first token and writing, expert by expert."""
    assistant = options.open_assistant(config, memory_budget, threads)
    known = {str(fields["name"]): fields for fields in assistant.experts()}
    if expert is not None and expert not in known:
        raise KeyError(f'there is no expert "{expert}": choose one of {", ".join(known)}')
    names = [expert] if expert is not None else list(known)
    measured = [{**_measure(assistant, name, max_tokens), **_size(known[name])} for name in names]
    if json:
        print_json(measured)
        return
    columns = ("expert", "size#", "load ms#", "first token ms#", "prefill ms#", "tokens/s#", "")
    print_table(columns, [_row(one) for one in measured])


def _measure(assistant: Assistant, name: str, max_tokens: int) -> dict[str, Any]:
    """Two answers: the first may load, the second finds everything there."""
    settings = {"expert": name, "max_tokens": max_tokens, "temperature": 0}
    try:
        first = assistant.generate(_PROMPT, **settings)
        second = assistant.generate(_PROMPT, **settings)
    except Exception as error:  # One expert that does not fit leaves the others to be measured.
        return {"expert": name, "error": sentence_of(error)}
    return {
        "expert": name,
        "load_ms": first.timings.load_ms,
        "first_token_ms": second.timings.first_token_ms,
        "prefill_ms": second.timings.prefill_ms,
        "decode_tokens_per_second": second.timings.decode_tokens_per_second,
        "prompt_tokens": second.usage.prompt_tokens,
        "completion_tokens": second.usage.completion_tokens,
    }


def _size(fields: dict[str, Any]) -> dict[str, Any]:
    return {"bytes": fields["bytes"]} if "bytes" in fields else {}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    size = format_bytes(one["bytes"]) if "bytes" in one else ""
    if "error" in one:
        return (one["expert"], size, "", "", "", "", one["error"])
    times = (f"{one[key]:.0f}" for key in ("load_ms", "first_token_ms", "prefill_ms"))
    return (one["expert"], size, *times, f"{one['decode_tokens_per_second']:.1f}", "")
