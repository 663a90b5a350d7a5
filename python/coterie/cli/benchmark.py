"""coterie bench: how fast the experts of this machine answer; coterie bench value: how well."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.byte_size import format_bytes
from coterie.cli import options
from coterie.cli.manual import manual
from coterie.cli.options import Budget, Config, Expert, Json, MaxTokens, Threads
from coterie.cli.output import print_json, print_table, remark
from coterie.errors import sentence_of
from coterie.protocol import Assistant

if TYPE_CHECKING:
    from coterie.value.matrix import Answer, Matrix

app = typer.Typer(
    invoke_without_command=True,
    epilog=manual(
        "coterie bench",
        "coterie bench --expert smollm2-135m --threads 1 --json",
        "coterie bench value --domain code --tasks 10",
    ),
)

_PROMPT = "Explain in a few sentences how a bicycle stays upright while it is moving."


@app.callback()
def bench(
    context: typer.Context,
    expert: Expert = None,
    max_tokens: MaxTokens = 64,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Times loading, first token and writing, expert by expert; `value` measures how well.

    Two greedy answers each: the first may load the expert, the second finds it there. Times are
    milliseconds; "first token" includes reading the prompt of about 20 tokens.
    """
    if context.invoked_subcommand is not None:
        return
    assistant = options.open_assistant(config, memory_budget, threads)
    known = _experts(assistant, [] if expert is None else [expert])
    measured = [
        {**_measure(assistant, fields["name"], max_tokens), **_size(fields)} for fields in known
    ]
    if json:
        print_json(measured)
        return
    columns = ("expert", "size#", "load ms#", "first token ms#", "prefill ms#", "tokens/s#", "")
    print_table(columns, [_row(one) for one in measured])


@app.command(
    "value",
    epilog=manual(
        "coterie bench value --write --log answers.jsonl",
        "coterie bench value --domain code --tasks 10 --json",
        files=("$COTERIE_HOME/measurements.json",),
    ),
)
def value(
    expert: Annotated[
        list[str] | None, typer.Option("--expert", help="Only this one; may be repeated.")
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="Only this one; may be repeated.")
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option("--tasks", min=1, help="So many a domain; all, 60 or more, if not."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Keeps the answers (JSON lines); asks only what it lacks."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Make the result the table that routing reads.")
    ] = False,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measures how many tasks of each domain each expert does right, and how long it takes.

    The tasks have exact answers: code is run against tests (in a confined process), numbers, JSON
    and words are compared. The whole set takes an expert of 0.1 B parameters minutes, one of 1.5 B
    most of an hour on two cores; an interrupted run with --log goes on where it stopped.
    """
    from coterie.value import matrix
    from coterie.value import tasks as task_set

    chosen = task_set.load(domain or task_set.DOMAINS, tasks)
    assistant = options.open_assistant(config, memory_budget, threads)
    experts = [e for e in _experts(assistant, expert or []) if _can_answer(e)]
    answers = matrix.run(assistant, experts, chosen, matrix.AnswerLog(log), _show_progress())
    table = matrix.summarise(answers)
    if write:
        _write(experts, table)
    if json:
        print_json(
            {name: {d: vars(cell) for d, cell in cells.items()} for name, cells in table.items()}
        )
    else:
        _print_matrix(table, answers)


def _can_answer(expert: dict[str, Any]) -> bool:
    if not expert["fits"]:
        remark(f"{expert['name']} does not fit the memory budget and is left out")
    return bool(expert["fits"])


def _write(experts: Sequence[dict[str, Any]], table: Matrix) -> None:
    from coterie.store import default_home
    from coterie.value import measurements

    remark(f"wrote {measurements.write(default_home(), experts, table)}")


def _show_progress() -> Any:
    """A line that counts answers, on a terminal."""
    n = 0

    def show(answer: Answer) -> None:
        nonlocal n
        n += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{n} answers, {answer.expert}, {answer.task}\033[K")
            sys.stderr.flush()

    return show


def _print_matrix(table: Matrix, answers: Sequence[Answer]) -> None:
    domains = list(dict.fromkeys(answer.domain for answer in answers))
    rows = []
    for name, cells in table.items():
        shares = [
            f"{100 * cells[d].quality:.0f} ± {100 * cells[d].half_width:.0f}" if d in cells else ""
            for d in domains
        ]
        of_expert = [answer for answer in answers if answer.expert == name]
        seconds = sum(answer.seconds for answer in of_expert) / len(of_expert)
        mean = sum(cell.quality for cell in cells.values()) / len(cells)
        rows.append((name, *shares, f"{100 * mean:.0f}", f"{seconds:.2f}"))
    columns = ("% right", *(f"{d}#" for d in domains), "mean#", "s/answer#")
    print_table(columns, rows)


def _experts(assistant: Assistant, names: Sequence[str]) -> list[dict[str, Any]]:
    """The experts of these names; all if there are none."""
    for name in names:
        options.check_expert(assistant, name)
    known = {str(fields["name"]): fields for fields in assistant.experts()}
    return [known[name] for name in names or known]


def _measure(assistant: Assistant, name: str, max_tokens: int) -> dict[str, Any]:
    """Two answers: the first may load, the second finds everything there."""
    settings: dict[str, Any] = {"expert": name, "max_tokens": max_tokens, "temperature": 0}
    settings |= {"log": False, "reuse": False, "lookup": False}
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
