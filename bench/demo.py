"""Eight prompts, two experts, a budget that holds one of them, and an expert that learns: what
`make demo` shows.

Every figure printed is measured in this run. Downloads are shown and counted apart.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import coterie
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent / "learning"))
from demo_learning import learn

PROMPTS = [
    ("small talk", "Hi there! How are you doing today?"),
    ("rewrite", "Fix the grammar: she dont like apples."),
    ("Python", "Write a Python function that returns the n-th Fibonacci number."),
    ("JavaScript", "Write a JavaScript function that removes duplicates from an array."),
    ("SQL", "Write a SQL query that counts the orders of each customer."),
    ("shell", "Give me a bash command that finds all files larger than 100 MB under /var."),
    ("regular expression", "Write a regular expression that matches a date such as 2024-05-31."),
    ("definition", "What is photosynthesis? Explain it in two sentences."),
]
HARDER = [
    ("maths", "A train travels 60 km in 45 minutes. What is its speed in km per hour?"),
    ("maths", "Solve for x: 3x + 7 = 25. Show the steps."),
    (
        "longer code",
        "Write a Python class for a stack with push, pop and peek, and a short test.",
    ),
]

MODELS = ["smollm2-135m", "qwen2.5-coder-0.5b"]
LARGE_MODEL = "qwen2.5-coder-1.5b"
# Holds the largest expert and the router, but never two experts.
BUDGET = "600MB"
BUDGET_ALL = "1300MB"


def pull(models: list[str]) -> float:
    """Fetches what is missing; returns the seconds it took."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "coterie", "pull", *models], check=True)
    return time.monotonic() - start


def answer(console: Console, assistant: coterie.Assistant, topic: str, prompt: str) -> None:
    console.print(f"\n[bold cyan]> {prompt}[/]  [dim]({topic})[/]")
    reply = assistant.generate(prompt, max_tokens=200, temperature=0.0)
    timings = reply.timings
    how = {"hit": "resident", "join": "joined a load", "load": "loaded"}[timings.how]
    console.print(
        f"[dim]{reply.expert} · {reply.route.reason} · {how}"
        f"{f' in {timings.load_ms:.0f} ms' if timings.how == 'load' else ''}"
        f" · first token {timings.first_token_ms:.0f} ms"
        f" · {timings.decode_tokens_per_second:.0f} tokens/s[/]"
    )
    console.print(Markdown(reply.text.strip()))
    for event in assistant.events():
        if event["kind"] == "evicted":
            console.print(f"[dim yellow]{event['text']}[/]")


def summary(console: Console, assistant: coterie.Assistant) -> None:
    stats = assistant.stats()
    counters = stats["counters"]
    table = Table(title="The cache", show_header=False)
    table.add_row("memory budget", f"{stats['budget_bytes'] / 1e6:.0f} MB")
    table.add_row("most in use at once (ledger)", f"{stats['peak_bytes'] / 1e6:.0f} MB")
    peak_resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    table.add_row("peak resident memory (Python included)", f"{peak_resident / 1e6:.0f} MB")
    for name in ("loads", "hits", "evictions"):
        table.add_row(name, str(counters[name]))
    table.add_row("bytes loaded", f"{counters['bytes_loaded'] / 1e6:.0f} MB")
    console.print()
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="add the 1.5 B expert and harder prompts"
    )
    arguments = parser.parse_args()
    console = Console()
    start = time.monotonic()
    models = MODELS + ([LARGE_MODEL] if arguments.all else [])
    download_s = pull(models)

    assistant = coterie.Assistant.open(memory_budget=BUDGET_ALL if arguments.all else BUDGET)
    console.print(
        f"{len(assistant.experts())} experts in the store, memory budget "
        f"{assistant.stats()['budget_bytes'] / 1e6:.0f} MB"
    )
    for topic, prompt in PROMPTS + (HARDER if arguments.all else []):
        answer(console, assistant, topic, prompt)
    summary(console, assistant)
    on_disk = sum(expert["bytes"] for expert in assistant.experts())
    assistant.close()
    learn(console)
    total_s = time.monotonic() - start
    console.print(
        f"\n{total_s / 60:.1f} minutes in all, {download_s / 60:.1f} of them fetching models "
        f"({on_disk / 1e6:.0f} MB on disk)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
