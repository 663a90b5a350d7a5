"""Options that several commands share, and the opening of what they name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.byte_size import parse_bytes
from coterie.cli.output import remark
from coterie.errors import nearest
from coterie.protocol import Assistant
from coterie.store import Store


def size(text: str | int) -> int:
    """Bytes of a size on the command line."""
    try:
        return parse_bytes(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def stored_names(incomplete: str) -> list[str]:
    """Models of the store, for shell completion."""
    records, _ = Store().records()
    return [record.name for record in records if record.name.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Log = Annotated[
    bool,
    typer.Option("--log/--no-log", help="Keep the answer, on this machine, for feedback."),
]
Lookup = Annotated[
    bool | None,
    typer.Option(
        "--lookup/--no-lookup",
        help="Write faster what repeats something of the conversation; the answer is the same. "
        "As configured if not given.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A coterie.toml that names experts, budget, what is kept of prompts and more. Without "
        "one, every model of the store is an expert.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, metavar="N", help="One per core if not given."),
]
Expert = Annotated[
    str | None,
    typer.Option(
        "--expert",
        metavar="NAME",
        autocompletion=stored_names,
        help="This one, whatever the router says; names are those of `coterie models`.",
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option("--max-tokens", min=1, max=1 << 20, metavar="N", help="Longest answer, tokens."),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        min=0,
        max=10,
        metavar="X",
        help="0: always the likeliest token; higher: more varied. The expert's own, mostly 0.7, if "
        "not given.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=(1 << 63) - 1,
        metavar="N",
        help="The same number gives the same answer; another one each time if not given.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--memory-budget",
        parser=size,
        metavar="SIZE",
        help="For weights, KV, scratch and the router together, such as 2GiB or 500MB; half of "
        "the free memory if not given.",
    ),
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


def open_log(config: Path | None) -> Any:
    """The interaction log that a configuration names, without opening an expert."""
    log = importlib.import_module("coterie").InteractionLog
    return log.open(None if config is None else str(config))


def check_expert(assistant: Assistant, name: str | None) -> None:
    """KeyError with the nearest name, and all, if there is no such expert; None is the router."""
    known = [str(expert["name"]) for expert in assistant.experts()]
    if name is not None and name not in known:
        raise KeyError(
            f'there is no expert "{name}"{nearest(name, known)} choose one of {", ".join(known)}'
        )
