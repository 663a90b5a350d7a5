"""coterie router fit and eval: which domain a prompt belongs to."""

from __future__ import annotations

import importlib
import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.manual import manual
from coterie.cli.options import Json
from coterie.cli.output import print_json, print_table

app = typer.Typer(help="Fits and measures routers.", no_args_is_help=True)

Rows = Annotated[
    Path, typer.Argument(metavar="FILE.jsonl", help='Lines of {"text": …, "label": …}.')
]


@app.command(
    "fit",
    epilog=manual(
        "coterie router fit my_prompts.jsonl -o my_router.gguf",
        "COTERIE_ROUTER=my_router.gguf coterie route 'Where is my parcel?'",
        environment=("COTERIE_ROUTER",),
    ),
)
def fit(
    file: Rows,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the router.")],
    json: Json = False,
) -> None:
    """Fits a lexical router to labelled prompts; takes seconds."""
    rows = read_rows(file)
    router = importlib.import_module("coterie").Router.fit(rows)
    router.save(str(output))
    domains = sorted({label for _, label in rows})
    if json:
        print_json({"rows": len(rows), "domains": domains, "path": str(output)})
    else:
        typer.echo(f"{output}: fitted to {len(rows)} prompts of {', '.join(domains)}")


@app.command(
    "eval",
    epilog=manual(
        "coterie router eval held_out.jsonl --router my_router.gguf",
        "coterie router eval held_out.jsonl --json",
        environment=("COTERIE_ROUTER", "COTERIE_ISA"),
    ),
)
def evaluate(
    file: Rows,
    router: Annotated[Path | None, typer.Option(help="Another one than the shipped.")] = None,
    json: Json = False,
) -> None:
    """Measures a router: accuracy, macro-F1, wrong-expert rate and ECE."""
    rows = read_rows(file)
    kind = importlib.import_module("coterie").Router
    result: dict[str, Any] = (
        kind.default() if router is None else kind.load(str(router))
    ).evaluate(rows)
    if json:
        print_json(result)
        return
    numbers = [(key, _shown(value)) for key, value in result.items() if _is_number(value)]
    print_table(("measure", "value#"), numbers)


def read_rows(path: Path) -> list[tuple[str, str]]:
    """(text, label) of each line; ValueError names file and line."""
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                fields = json_module.loads(line)
                row = (fields["text"], fields["label"])
                if not all(isinstance(value, str) for value in row):
                    raise TypeError("text and label must be strings")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f'{path}, line {number}: expected {{"text": …, "label": …}}: {error}'
                ) from None
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
