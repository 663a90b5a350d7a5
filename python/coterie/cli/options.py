"""Options that several commands share, and the opening of what they name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.byte_size import parse_bytes
from coterie.cli.output import remark
from coterie.protocol import Assistant

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="A coterie.toml; without one, the store decides.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, max=1024, help="One per core if not given.")
]
Expert = Annotated[str | None, typer.Option("--expert", help="This one, whatever the router says.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, max=1 << 20)]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, max=10, help="0: always the likeliest.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=(1 << 63) - 1)]


def size(text: str | int) -> int:
    try:
        return parse_bytes(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Budget = Annotated[
    int | None,
    typer.Option("--memory-budget", parser=size, metavar="SIZE", help="Such as 2GiB or 500MB."),
]


def open_assistant(config: Path | None, budget: int | None, threads: int | None) -> Assistant:
    """The real assistant. Tests put a fake in the place of this function."""
    options: dict[str, Any] = {"memory_budget": budget, "threads": threads}
    path = None if config is None else str(config)
    coterie = importlib.import_module("coterie")
    assistant: Assistant = coterie.Assistant.open(path, **options)
    for problem in assistant.problems():
        remark(problem)
    return assistant
