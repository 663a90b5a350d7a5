"""coterie simulate: which memory budget a stream of requests needs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie import workload
from coterie.byte_size import format_bytes, parse_bytes
from coterie.cli.manual import manual
from coterie.cli.options import Json, size
from coterie.cli.output import print_json, print_table, remark
from coterie.workload import Base, Workload

_STEPS = 6

Log = Annotated[
    Path | None,
    typer.Argument(
        metavar="[LOG.jsonl]", help="A request log: request_log under [cache] of a coterie.toml."
    ),
]
Kind = Annotated[
    str | None,
    typer.Option("--workload", help="Instead of a log: zipf, cyclic, ping-pong or bursts."),
]
Bases = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="NAME=SIZE[@SECONDS]",
        help="A base of the workload, and how long it loads; again for each. The store's models "
        "if not given.",
    ),
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="SIZE",
        help="A memory budget to try; again for each. Six in between what the largest request "
        "needs and what holds everything, if not given.",
    ),
]


def register(app: typer.Typer) -> None:
    app.command(
        "simulate",
        epilog=manual(
            "coterie simulate requests.jsonl",
            "coterie simulate requests.jsonl --budget 600MB --budget 1200MB --json",
            "coterie simulate --workload zipf --base small=98MB@0.02 --base large=1.1GB@0.4",
            environment=("COTERIE_HOME",),
        ),
    )(simulate)


def simulate(
    log: Log = None,
    kind: Kind = None,
    base: Bases = None,
    budget: Budgets = None,
    requests: Annotated[int, typer.Option(min=1, max=10**6, help="Of a workload.")] = 1000,
    gap: Annotated[float, typer.Option(min=0, help="Seconds between two of them.")] = 10.0,
    hold: Annotated[float, typer.Option(min=0, help="Seconds that an answer takes.")] = 2.0,
    kv: Annotated[
        int,
        typer.Option(
            "--kv", parser=size, metavar="SIZE", help="Memory of a conversation, beside the base."
        ),
    ] = 50_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    json: Json = False,
) -> None:
    """Shows hits, waiting and bytes loaded for a range of memory budgets.

    Runs the requests through the program's own cache on a virtual clock, in moments and without
    models. "lru" gives up the least recently used; "belady" knows the future and gives up what is
    needed last, which has the most hits where all bases are of one size. "coterie" gives up what
    costs least waiting to have again, so it may wait less with fewer hits.
    """
    if (log is None) == (kind is None):
        raise typer.BadParameter("give a request log or --workload, one of them")
    if log is not None:
        if base:
            raise typer.BadParameter("--base belongs to --workload; a log has its own")
        stream = workload.read_log(log)
    else:
        assert kind is not None
        stream = _made(
            kind, base, n_requests=requests, gap_s=gap, hold_s=hold, kv_bytes=kv, seed=seed
        )
    budgets = [size(each) for each in budget] if budget else _range(stream)
    rows = [_row(stream, each) for each in budgets]
    if json:
        print_json({"bases": [vars(each) for each in stream.bases], "budgets": rows})
        return
    _print(stream, rows)


def _made(kind: str, given: list[str] | None, **settings: Any) -> Workload:
    bases = [_base(each) for each in given] if given else _stored()
    try:
        return workload.make(kind, bases, **settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _base(text: str) -> Base:
    name, equals, rest = text.partition("=")
    size_text, at, seconds = rest.partition("@")
    try:
        n_bytes = parse_bytes(size_text)
        load_s = float(seconds) if at else None
        if not name or not equals or n_bytes <= 0 or (load_s is not None and not load_s >= 0):
            raise ValueError("expected NAME=SIZE or NAME=SIZE@SECONDS")
    except ValueError as error:
        raise typer.BadParameter(f'"{text}": {error}') from None
    return workload.base_of(name, n_bytes, load_s)


def _stored() -> list[Base]:
    """The models of the store, the smallest first: it is the one asked for most."""
    assistant = importlib.import_module("coterie").Assistant.open()
    experts = sorted(assistant.experts(), key=lambda fields: int(fields["bytes"]))
    return [workload.base_of(str(each["name"]), int(each["bytes"])) for each in experts]


def _range(stream: Workload) -> list[int]:
    low, high = stream.largest_need(), stream.everything()
    steps = 1 if high <= low else _STEPS
    return sorted({low + (high - low) * i // max(1, steps - 1) for i in range(steps)})


def _row(stream: Workload, budget: int) -> dict[str, Any]:
    simulated = {policy: workload.simulate(stream, budget, policy) for policy in workload.POLICIES}
    return {"budget_bytes": budget, **simulated}


def _print(stream: Workload, rows: list[dict[str, Any]]) -> None:
    named = ", ".join(f"{each.name} {format_bytes(each.bytes)}" for each in stream.bases)
    remark(f"{len(stream.requests)} requests on {named}")
    columns = ("budget#", "policy", "hits#", "mean wait#", "p50#", "p99#", "loaded#")
    table = []
    for row in rows:
        for policy in workload.POLICIES:
            its = row[policy]
            table.append(
                (
                    format_bytes(row["budget_bytes"]) if policy == workload.POLICIES[0] else "",
                    policy,
                    f"{100 * its['hit_rate']:.1f} %",
                    *(_seconds(its[key]) for key in ("mean_wait_ms", "wait_p50_ms", "wait_p99_ms")),
                    format_bytes(its["bytes_loaded"]),
                )
            )
    print_table(columns, table)
    refused = [row for row in rows if row["coterie"]["refused"]]
    if refused:
        worst = refused[0]
        remark(
            f"{worst['coterie']['refused']} requests can never be answered within "
            f"{format_bytes(worst['budget_bytes'])}"
        )


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s"
