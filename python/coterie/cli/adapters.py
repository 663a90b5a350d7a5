"""coterie adapters list, show, export, import, rollback and remove."""

from __future__ import annotations

import importlib
import json as json_module
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.byte_size import format_bytes
from coterie.cli.manual import manual
from coterie.cli.options import Json, stored_names
from coterie.cli.output import print_json, print_table, remark
from coterie.errors import Error
from coterie.store import ModelRecord, Store

app = typer.Typer(
    help="Adapters: small changes of a model by LoRA, with all their versions.",
    no_args_is_help=True,
)

# What a merged model is compared on: plain prose, facts, code and a list.
PROBE = (
    "The water in a kettle boils at about one hundred degrees. On a cold morning in March, Anna "
    "walked to the station, bought a newspaper and waited for the train to Leeds.\n"
    "def mean(values):\n    return sum(values) / len(values)\n"
    "Shopping: bread, two lemons, a jar of honey."
)

_HOME = ("COTERIE_HOME",)


class Format(StrEnum):
    """What `export` writes."""

    PEFT = "peft"
    GGUF = "gguf"
    MERGED_HF = "merged-hf"
    MERGED_GGUF = "merged-gguf"


def known_adapters(incomplete: str) -> list[str]:
    """Adapters of the store, for shell completion."""
    folder = Store().home / "adapters"
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(name for name in names if name.startswith(incomplete) and name[0] != ".")


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Of the adapter.", autocompletion=known_adapters),
]
Version = Annotated[
    int | None,
    typer.Option("--version", min=1, metavar="N", help="This one; the current one if not given."),
]


def adapter_store() -> Any:
    return importlib.import_module("coterie._coterie").AdapterStore(str(Store().home))


def base_record(base_id: str) -> ModelRecord | None:
    """The model of the store that an adapter belongs to."""
    records, _ = Store().records()
    return next((record for record in records if f"sha256:{record.sha256}" == base_id), None)


def base_of(name: str, version: int | None) -> ModelRecord:
    base = adapter_store().show(name, version)["base"]
    record = base_record(base["id"])
    if record is None:
        raise Error(
            f'the base of adapter "{name}" is not in the store: {base["name"]} ({base["id"]})',
            "failed_precondition",
        )
    return record


def open_expert(record: ModelRecord, **options: str) -> Any:
    return importlib.import_module("coterie").Expert.open(Store().path_of(record), **options)


@app.command(
    "list",
    epilog=manual("coterie adapters list", "coterie adapters list --json", environment=_HOME),
)
def list_adapters(json: Json = False) -> None:
    """Lists the adapters of the store: base, versions, size, and how many interactions are in."""
    adapters = adapter_store().list()
    if json:
        print_json(adapters)
        return
    rows = []
    for adapter in adapters:
        current = next(
            (row for row in adapter["versions"] if row["version"] == adapter["current"]), None
        )
        record = base_record(adapter["base"]["id"])
        rows.append(
            (
                adapter["name"],
                record.name if record else f"{adapter['base']['name']} (not in the store)",
                adapter["current"] or "-",
                len(adapter["versions"]),
                format_bytes(current["file_bytes"]) if current else "-",
                current["interactions"] if current else "-",
                next((row["problem"] for row in adapter["versions"] if row["problem"]), ""),
            )
        )
    columns = ("adapter", "base", "current#", "versions#", "size#", "interactions#", "problem")
    print_table(columns, rows)


@app.command(
    "show",
    epilog=manual(
        "coterie adapters show home", "coterie adapters show home --version 2", environment=_HOME
    ),
)
def show(name: Name, version: Version = None, json: Json = False) -> None:
    """Shows one version: what it changes, what it was made from, and what was measured."""
    shown = adapter_store().show(name, version)
    for field in ("trainer", "metrics"):
        shown[field] = json_module.loads(shown[field] or "{}")
    if json:
        print_json(shown)
        return
    if shown["problem"]:
        remark(shown["problem"])
    record = base_record(shown["base"]["id"])
    layers = shown["layers"]
    print_table(
        ("", ""),
        [
            ("adapter", f"{shown['name']}@{shown['version']}"),
            ("base", f"{record.name if record else shown['base']['name']} {shown['base']['id']}"),
            ("changes", ", ".join(shown["linears"])),
            ("layers", f"{len(layers)}, {layers[0]} to {layers[-1]}"),
            ("rank", ", ".join(map(str, shown["ranks"]))),
            ("parameters", f"{shown['parameters']:,}"),
            ("in memory", format_bytes(shown["served_bytes"])),
            ("interactions", len(shown["interactions"])),
            *((f"trainer {key}", value) for key, value in shown["trainer"].items()),
            *((f"measured {key}", value) for key, value in shown["metrics"].items()),
            ("files", shown["path"]),
        ],
    )


def moved_log_probabilities(expert: Any, adapter: Any, merged: Any) -> float:
    """Mean |difference| of the log-probabilities of all next tokens of PROBE, in nats."""
    numpy = importlib.import_module("numpy")
    ids = expert.tokenizer.encode(PROBE)

    def log_probabilities(logits: Any) -> Any:
        logits = logits.astype(numpy.float64)
        logits -= logits.max(-1, keepdims=True)
        return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))

    unmerged = log_probabilities(expert.logits(ids, adapter=adapter))
    return float(numpy.abs(log_probabilities(merged.logits(ids)) - unmerged).mean())


@app.command(
    "export",
    epilog=manual(
        "coterie adapters export home --as peft -o home_adapter",
        "coterie adapters export home --as gguf -o home.gguf",
        "coterie adapters export home --as merged-gguf --type Q8_0 -o merged.gguf",
        environment=_HOME,
    ),
)
def export(
    name: Name,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PATH", help="A folder (peft, merged-hf) or file."),
    ],
    format: Annotated[
        Format,
        typer.Option(
            "--as",
            help="peft: for PEFT; gguf: for llama.cpp; merged-…: a whole model with the adapter "
            "added to its weights, for programs that know no adapters.",
        ),
    ] = Format.PEFT,
    type: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Of the matrices that a merge changes: F16, BF16 or Q8_0 (GGUF only).",
        ),
    ] = "F16",
    version: Version = None,
    json: Json = False,
) -> None:
    """Writes an adapter for other programs. A merge says how far it moved the log-probabilities."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise Error(f"there is something at {output} already", "failed_precondition")
    record = base_of(name, version)
    merges = format in (Format.MERGED_HF, Format.MERGED_GGUF)
    expert = open_expert(record, activations="f32" if merges else "int8")
    core = adapter_store().load(name, base=expert._native, version=version)
    adapter = importlib.import_module("coterie").Adapter(core)
    result: dict[str, Any] = {"adapter": name, "format": str(format), "path": str(output)}
    if merges:
        kind = str(format).removeprefix("merged-")
        adapter.merge(output, base=expert, format=kind, type=type.upper())
        merged = importlib.import_module("coterie").Expert.open(output, activations="f32")
        result["type"] = type.upper()
        result["moved"] = moved_log_probabilities(expert, adapter, merged)
    else:
        adapter.save(output, format=str(format))
    if json:
        print_json(result)
        return
    typer.echo(f"{output}: adapter {name} as {format}")
    if merges:
        typer.echo(f"merging moved log-probabilities by {result['moved']:.4f} nats on average")


@app.command(
    "import",
    epilog=manual(
        "coterie adapters import ./my_peft_adapter --base smollm2-135m",
        "coterie adapters import home.gguf --base smollm2-135m --name home",
        environment=_HOME,
    ),
)
def import_adapter(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A PEFT folder or a GGUF adapter.")],
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="MODEL",
            autocompletion=stored_names,
            help="The model that it changes, by its name in the store.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Under this name; the file's if not given."),
    ] = None,
    json: Json = False,
) -> None:
    """Adds an adapter, or a new version of one, and makes it current. It is an expert from then on:
    `coterie run --expert NAME`."""
    record = Store().find(base)
    if record is None:
        raise KeyError(f'there is no model "{base}" in the store; see `coterie models`')
    expert = open_expert(record)
    opened = importlib.import_module("coterie._coterie").Adapter.open(
        str(path),
        base=expert._native,
        base_id=f"sha256:{record.sha256}",
        base_name=record.name,
    )
    chosen = name or str(opened.description["name"]) or path.stem
    version = adapter_store().publish(opened, name=chosen)
    if json:
        print_json({"adapter": chosen, "version": version, "warning": opened.warning})
        return
    if opened.warning:
        remark(opened.warning)
    typer.echo(f"{chosen}@{version} on {record.name}")


@app.command("rollback", epilog=manual("coterie adapters rollback home 2", environment=_HOME))
def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="N", min=1, help="The version to use.")],
    json: Json = False,
) -> None:
    """Makes a version current. Answers that begin after it use it, in every running program."""
    adapter_store().rollback(name, version)
    if json:
        print_json({"adapter": name, "current": version})
    else:
        typer.echo(f"{name}@{version} is current")


@app.command(
    "remove",
    epilog=manual(
        "coterie adapters remove home --version 1",
        "coterie adapters remove home",
        environment=_HOME,
    ),
)
def remove(
    name: Name,
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, metavar="N", help="Only this one, which is not current."),
    ] = None,
    json: Json = False,
) -> None:
    """Deletes an adapter with all its versions, or one version."""
    adapter_store().remove(name, version)
    if json:
        print_json({"adapter": name, "removed": version or "all"})
    else:
        typer.echo(f"removed {name}" + (f"@{version}" if version else ""))
