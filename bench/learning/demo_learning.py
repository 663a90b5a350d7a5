"""The second part of `make demo`: an expert learns from a hundred corrected answers.

Runs in a model store of its own that borrows the models, so that the user's log and adapters stay
as they are. Every figure is measured in this run; commands asked at the end were never edited.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import coterie
from coterie.progress import TrainingBar
from coterie.store import Store
from rich.console import Console
from rich.table import Table
from rich.text import Text
from smart_home_task import DATA, MAX_TOKENS, messages, read, score, wanted

MODEL = "smollm2-135m"
ADAPTER = "home"
N_EDITS = 100
N_FIRST = 60  # Edits that the first version learns from.
N_ASKED = 40


def borrow(home: Path, model: str = MODEL) -> None:
    """A store with the same models and nothing else."""
    store = Store()
    (home / "models").mkdir(parents=True)
    (home / "blobs").symlink_to(store.blobs)
    for entry in store.models.glob(f"{model}*"):
        if entry.is_symlink():
            (home / "models" / entry.name).symlink_to(entry.resolve())
        else:
            (home / "models" / entry.name).write_bytes(entry.read_bytes())


def edit(assistant: coterie.Assistant, corrected: list[dict[str, Any]]) -> None:
    for row in corrected:
        reply = assistant.generate(
            messages(row["text"]), expert=MODEL, max_tokens=24, temperature=0.0, retrieval=False
        )
        assistant.feedback(reply.id, coterie.Edited(wanted(row)))


def ask(assistant: coterie.Assistant, asked: list[dict[str, Any]], **how: Any) -> list[str]:
    return [
        assistant.generate(
            messages(row["text"]), max_tokens=MAX_TOKENS, temperature=0.0, log=False, **how
        ).text.strip()
        for row in asked
    ]


def train(console: Console, assistant: coterie.Assistant, epochs: int) -> coterie.TrainingReport:
    with TrainingBar(assistant.training, console):
        return assistant.train(MODEL, adapter=ADAPTER, epochs=epochs)


def tell(console: Console, report: coterie.TrainingReport) -> None:
    console.print(
        f"{report.examples} examples, {report.held_out} held back · {report.seconds:.0f} s at "
        f"{report.tokens_per_second:.0f} tokens/s · {report.memory_bytes / 1e6:.0f} MB beside the "
        "weights"
    )
    console.print(Text(f"gate: {report.verdict}", style="green" if report.promoted else "yellow"))
    if report.promoted:
        console.print(f"published as {report.adapter}")


def learn(console: Console) -> None:
    train_rows = read(DATA / "smart_home_train.jsonl")
    asked = read(DATA / "smart_home_dev.jsonl")[:N_ASKED]
    with tempfile.TemporaryDirectory(prefix="coterie-demo-") as folder:
        home = Path(folder) / "store"
        borrow(home)
        with coterie.Assistant.open(memory_budget="600MB", home=home) as assistant:
            console.rule(f"Learning: {MODEL} and a smart home")
            console.print(f"{N_ASKED} commands to {MODEL}, as it is:")
            table: dict[str, list[str]] = {"as it is": ask(assistant, asked, expert=MODEL)}
            console.print(f"\n{N_EDITS} other answers are corrected; first {N_FIRST}:")
            start = time.monotonic()
            edit(assistant, train_rows[:N_FIRST])
            tell(console, train(console, assistant, epochs=3))
            console.print(f"\nthen the other {N_EDITS - N_FIRST}:")
            edit(assistant, train_rows[N_FIRST:N_EDITS])
            table["shown the nearest edits"] = ask(assistant, asked, expert=MODEL, retrieval=True)
            report = train(console, assistant, epochs=6)
            tell(console, report)
            learnt_s = time.monotonic() - start
            expert = ADAPTER if report.promoted else MODEL
            table["adapter"] = ask(assistant, asked, expert=expert, retrieval=False)
            table["adapter, shown edits"] = ask(assistant, asked, expert=expert, retrieval=True)
            show(console, table, asked)
            if report.adapter == f"{ADAPTER}@2":
                roll_back(console, assistant, home, asked)
            console.print(f"[dim]{learnt_s:.0f} s from the first correction to the last verdict[/]")


def show(console: Console, answers: dict[str, list[str]], asked: list[dict[str, Any]]) -> None:
    summary = Table(title=f"{len(asked)} commands that were never corrected")
    for column in ("", "right action", "exactly right"):
        summary.add_column(column, justify="left" if not column else "right")
    for how, texts in answers.items():
        found = score(texts, asked)
        summary.add_row(how, f"{found.action:.0f} %", f"{found.exact:.0f} %")
    console.print(summary)
    for i in range(3):
        console.print(f"\n[bold cyan]> {asked[i]['text']}[/]")
        for how in ("as it is", "adapter, shown edits"):
            line = " ".join(answers[how][i].split())
            console.print(Text(f"  {how}: {line[:110]}{'…' if len(line) > 110 else ''}"))


def roll_back(
    console: Console, assistant: coterie.Assistant, home: Path, asked: list[dict[str, Any]]
) -> None:
    """The first version answers again, and then the second: without a reload of the base."""
    loads = assistant.stats()["counters"]["loads"]
    for version in ("1", "2"):
        command = [sys.executable, "-m", "coterie", "adapters", "rollback", ADAPTER, version]
        subprocess.run(command, check=True, env=os.environ | {"COTERIE_HOME": str(home)})
        (text,) = ask(assistant, asked[:1], expert=ADAPTER, retrieval=False)
        console.print(Text(f"  version {version} answers: {' '.join(text.split())}"))
    again = assistant.stats()["counters"]["loads"] - loads
    console.print(f"[dim]weights loaded again for that: {again} times[/]")
