"""coterie train: an adapter from what was said of an expert's answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.byte_size import format_bytes
from coterie.cli import options
from coterie.cli.manual import manual
from coterie.cli.options import Budget, Config, Json, Threads
from coterie.cli.output import print_json, print_table, remark, start_of
from coterie.progress import TrainingBar

# How many cases --report asks again.
_REPORT_CASES = 6


def register(parent: typer.Typer) -> None:
    parent.command(
        "train",
        epilog=manual(
            "coterie train smollm2-135m",
            "coterie train smollm2-135m --adapter home --epochs 6 --report --plot loss.png",
            environment=("COTERIE_HOME", "COTERIE_INTERACTIONS", "COTERIE_ISA"),
            files=(
                "$COTERIE_HOME/interactions.db",
                "$COTERIE_HOME/adapters",
                "coterie.toml",
            ),
        ),
    )(train)


def train(
    expert: Annotated[str, typer.Argument(metavar="EXPERT", autocompletion=options.stored_names)],
    adapter: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="To publish as; EXPERT-tuned if not given."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How often each example is seen.")
    ] = 4,
    rank: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Of the adapter.")] = 8,
    learning_rate: Annotated[
        float, typer.Option(min=0, metavar="X", help="Highest rate; it warms up, then falls to 0.")
    ] = 1e-3,
    batch: Annotated[
        int, typer.Option(min=1, max=4096, metavar="N", help="Examples per step.")
    ] = 8,
    top_layers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Adapt only the last so many; 0: all.")
    ] = 0,
    dropout: Annotated[
        float, typer.Option(min=0, metavar="P", help="Of what the adapter reads; below 1.")
    ] = 0,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="q, k, v, o, gate, up, down; repeatable; all if none."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Text to rehearse beside the passages that are built in.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cpu, or cuda where libcoterie_train is built.")
    ] = "cpu",
    seed: Annotated[int, typer.Option(min=0, metavar="N")] = 0,
    report: Annotated[
        bool, typer.Option("--report", help="Ask some held-out prompts before and after.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the loss of each step (needs matplotlib)."),
    ] = None,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Trains an adapter on the answers that you accepted, edited or rejected.

    About a fifth of them is held back. The adapter is published only if it is better on those by
    more than noise and general text does not suffer; it then answers as an expert of its own name
    that shares the weights of EXPERT. Ctrl-C pauses: the same command goes on from there.
    """
    assistant = options.open_assistant(config, memory_budget, threads)
    options.check_expert(assistant, expert)
    chosen: dict[str, Any] = {
        "epochs": epochs,
        "rank": rank,
        "learning_rate": learning_rate,
        "batch_examples": batch,
        "top_layers": top_layers,
        "dropout": dropout,
        "targets": target or [],
        "device": device,
        "seed": seed,
    }
    if adapter is not None:
        chosen["adapter"] = adapter
    if replay is not None:
        chosen["replay"] = replay
    try:
        with TrainingBar(assistant.training):
            result = assistant.train(expert, **chosen)
    except KeyboardInterrupt:
        remark("paused; the same command goes on from here")
        raise
    if plot is not None:
        draw_losses(result.losses, plot)
    cases = (
        _ask_again(assistant, expert, result.adapter, config) if report and result.promoted else []
    )
    if json:
        print_json(asdict(result) | {"cases": cases})
        return
    _print(result)
    if cases:
        print_table(
            ("asked", "before", "after", "wanted"),
            [
                tuple(start_of(c[k], 48) for k in ("asked", "before", "after", "wanted"))
                for c in cases
            ],
        )


def _print(result: Any) -> None:
    for id, reason in result.left_out:
        remark(f"left out: {id}: {reason}")
    low, high = result.gain_interval
    rows = [
        ("examples", f"{result.examples}, and {result.held_out} held back"),
        (
            "held back",
            f"{result.held_out_before:.3f} -> {result.held_out_after:.3f} nats a token, "
            f"gain {result.gain:+.3f} ({low:+.3f} to {high:+.3f})",
        ),
        ("general text", f"{result.forgetting:+.3f} nats a token"),
        (
            "took",
            f"{result.seconds:.0f} s at {result.tokens_per_second:.0f} tokens/s, "
            f"{format_bytes(result.memory_bytes)} beside the weights",
        ),
    ]
    print_table(("", ""), rows)
    if result.compared:
        print_table(
            (f"{result.compared_cases} cases held back", "nats a token"),
            [
                (how.replace("_", " + "), f"{nats:.3f}")
                for how, nats in sorted(result.compared.items(), key=lambda row: -row[1])
            ],
        )
    name = f"{result.adapter} " if result.promoted else ""
    typer.echo(f"{name}{result.verdict}")


def _ask_again(
    assistant: Any, expert: str, label: str, config: Path | None
) -> list[dict[str, str]]:
    """Some prompts that were edited or accepted, answered by the base and by the adapter."""
    adapter = label.partition("@")[0]
    log = options.open_log(config)
    cases = []
    for one in log.list(expert=expert, with_feedback=True, newest_first=True, limit=_REPORT_CASES):
        if one.feedback == "rejected":
            continue
        answers = [
            assistant.generate(
                one.messages, expert=expert, adapter=name, temperature=0, max_tokens=96, log=False
            ).text
            for name in ("", adapter)
        ]
        cases.append(
            {
                "asked": one.asked,
                "before": answers[0],
                "after": answers[1],
                "wanted": one.edit if one.edit is not None else one.reply,
            }
        )
    return cases


def draw_losses(losses: list[float], file: Path) -> None:
    """The loss of each step as a picture. ImportError says how to get matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("plots need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1.5)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
