"""coterie router fit, eval, explain, correct and add-domain: which domain a prompt belongs to."""

from __future__ import annotations

import importlib
import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.manual import manual
from coterie.cli.options import Json
from coterie.cli.output import print_json, print_table

app = typer.Typer(help="Fits, measures, explains and teaches routers.", no_args_is_help=True)

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


Another = Annotated[Path | None, typer.Option("--router", help="Another one than the shipped.")]
Saved = Annotated[Path, typer.Option("--output", "-o", help="Where to save the router.")]


def _opened(path: Path | None) -> Any:
    kind = importlib.import_module("coterie").Router
    return kind.default() if path is None else kind.load(str(path))


@app.command(
    "explain",
    epilog=manual(
        "coterie router explain 'how do I undo a commit'",
        "coterie router explain 'play some jazz' --json",
        environment=("COTERIE_ROUTER", "COTERIE_ISA"),
    ),
)
def explain(
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    router: Another = None,
    json: Json = False,
) -> None:
    """Says why a prompt goes where it goes: the words that decided and the nearest examples."""
    scores = _opened(router).explain(text)
    if json:
        shown = {name: getattr(scores, name) for name in ("domain", "probabilities", "abstained")}
        print_json({**shown, "explanation": scores.explanation})
        return
    typer.echo(f"{scores.domain}: {scores.explanation['summary']}")
    features = [(piece, f"{weight:+.2f}") for piece, weight in scores.explanation["features"]]
    print_table(("piece of the prompt", "margin without it changes by#"), features)
    nearest = [
        (shown, domain, f"{cos:.2f}") for shown, domain, cos in scores.explanation["nearest"]
    ]
    print_table(("nearest example", "domain", "cosine#"), nearest)


@app.command(
    "correct",
    epilog=manual(
        "coterie router correct 'water the fern' assistant -o my_router.gguf",
        environment=("COTERIE_ROUTER", "COTERIE_ISA"),
    ),
)
def correct(
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    label: Annotated[str, typer.Argument(metavar="DOMAIN")],
    output: Saved,
    router: Another = None,
    json: Json = False,
) -> None:
    """Gives a prompt, and prompts like it, another domain."""
    opened = _opened(router)
    opened.correct(text, label)
    opened.save(str(output))
    if json:
        print_json({"version": opened.version, "path": str(output)})
    else:
        typer.echo(f"{output}: {opened.version}")


@app.command(
    "add-domain",
    epilog=manual(
        "coterie router add-domain gardening ten_questions.txt -o my_router.gguf",
        environment=("COTERIE_ROUTER", "COTERIE_ISA"),
    ),
)
def add_domain(
    name: Annotated[str, typer.Argument(metavar="DOMAIN")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="One example a line, ten or so.")],
    output: Saved,
    router: Another = None,
    json: Json = False,
) -> None:
    """Adds a domain to a router from a few examples."""
    examples = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    opened = _opened(router)
    opened.add_domain(name, examples)
    opened.save(str(output))
    if json:
        print_json({"domain": name, "examples": len(examples), "path": str(output)})
    else:
        typer.echo(f"{output}: {name} added from {len(examples)} examples")


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
    router: Another = None,
    json: Json = False,
) -> None:
    """Measures a router: accuracy, macro-F1, wrong-expert rate and ECE."""
    rows = read_rows(file)
    result: dict[str, Any] = _opened(router).evaluate(rows)
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
