"""The page that states what was measured: docs/performance.md, its plot and all samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from performance.rows import Row

PARTS = (
    ("Prefill and decode", ("prefill", "decode 64", "decode at", "eight")),
    ("First tokens and switches", ("first token", "switch", "system prompt")),
    ("Evenness, adapters, memory", ("time between", "decode cost", "resident beyond", "screen")),
)

# Around the part of a page that a command writes.
WRITTEN, WRITTEN_END = "<!-- measured -->", "<!-- end of what is measured -->"


def earlier(folder: Path, machine: dict[str, Any]) -> list[Row]:
    """What is on the page already, if it is of the same commit and CPU."""
    samples = folder / "performance.json"
    if not samples.exists():
        return []
    found = json.loads(samples.read_text())
    if any(found["machine"][key] != machine[key] for key in ("commit", "cpu")):
        return []
    return [Row(**row) for row in found["rows"]]


def together(before: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """The samples of both; of what only one measured, its own."""
    joined = {(row.model, row.what): row for row in before}
    for row in rows:
        key = (row.model, row.what)
        old = joined.get(key)
        joined[key] = row if old is None else joined_samples(old, row)
    return list(joined.values())


def joined_samples(old: Row, new: Row) -> Row:
    limits = [limit for limit in (old.limit, new.limit) if limit is not None]
    return replace(
        new,
        ours=old.ours + new.ours,
        theirs=old.theirs + new.theirs,
        limit=max(limits, default=None),
    )


def write(folder: Path, machine: dict[str, Any], rows: Sequence[Row], command: str) -> Path:
    """Writes performance.md, performance.json and performance.png; returns the page."""
    page = folder / "performance.md"
    page.write_text(text(machine, rows, command))
    samples = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (folder / "performance.json").write_text(json.dumps(samples, indent=1) + "\n")
    plot(folder / "performance.png", rows)
    return page


def text(machine: dict[str, Any], rows: Sequence[Row], command: str) -> str:
    lines = [
        "# Performance",
        "",
        f"Written by `{command}`: run it to have your machine's. Every sample is in",
        "[performance.json](performance.json). llama.cpp is that of llama-cpp-python, built for",
        "this CPU, on the same files with the same threads, in turn (A B A B). A bar is a multiple",
        "of llama.cpp or a most; in decoding it is no more than 92 % of what reading all weights",
        "allows, which llama.cpp does for each token and coterie need not ([screening.md]"
        "(screening.md)).",
        "",
        *machine_table(machine),
    ]
    for title, beginnings in PARTS:
        part = [row for row in rows if row.what.startswith(beginnings)]
        if part:
            lines += ["", f"## {title}", "", *table(part)]
    if any(row.theirs for row in rows):
        lines += ["", "![Speed beside llama.cpp and the limit](performance.png)"]
    return "\n".join(lines) + "\n"


def replace_part(page: Path, lines: Sequence[str]) -> None:
    """Sets what stands between the two marks of a page; what people wrote around them stays."""
    before, begin, rest = page.read_text().partition(WRITTEN)
    _, end, after = rest.partition(WRITTEN_END)
    if not begin or not end:
        raise ValueError(f"{page} has no {WRITTEN} ... {WRITTEN_END}")
    page.write_text("\n".join([before + begin, *lines, end + after]))


def machine_table(machine: dict[str, Any]) -> list[str]:
    gmacs = {name: machine[f"{name}_macs_per_second"] / 1e9 for name in ("int8", "bf16", "f32")}
    return [
        "| machine | |",
        "|---|---|",
        f"| CPU | {machine['cpu']} |",
        f"| instruction set, threads | {machine['isa']}, {machine['threads']} |",
        f"| read bandwidth | {machine['read_bytes_per_second'] / 1e9:.1f} GB/s |",
        f"| from one core to the other | {machine['core_to_core_seconds'] * 1e9:.0f} ns |",
        f"| multiply-adds out of registers | int8 {gmacs['int8']:.0f}, bf16 {gmacs['bf16']:.0f},"
        f" f32 {gmacs['f32']:.0f} GMAC/s |",
        f"| commit | {machine['commit']} |",
    ]


def number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "" and abs(value) < 1:
        return f"{value:.1%}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| model | what | coterie | llama.cpp | times | of the limit | bar | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = f"{row.times:.2f}" if row.times else "-"
        share = f"{row.value / row.limit:.0%} of {row.limited_by}" if row.limit else "-"
        sign = "at most " if row.better == "lower" else ""
        bar = "-" if row.bar is None else sign + number(row.bar, row.unit)
        met = {True: "met", False: "**missed**", None: ""}[row.met]
        lines.append(
            f"| {row.model} | {row.what} | {number(row.value, row.unit)} {row.unit} |"
            f" {number(row.peer, row.unit)} | {times} | {share} | {bar} | {met} |"
        )
    return lines


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Bars of speed as times llama.cpp, with the limit of the machine behind them."""
    beside = [row for row in rows if row.theirs and row.unit == "tokens/s"]
    if not beside:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(beside) + 1.2))
    for y, row in enumerate(reversed(beside)):
        peer = row.peer or 1.0
        if row.limit:
            axes.barh(y, row.limit / peer, color="#dddddd", height=0.8)
        axes.barh(y, row.value / peer, color="#4477aa", height=0.5)
    axes.set_yticks(range(len(beside)))
    axes.set_yticklabels([f"{row.model}: {row.what}" for row in reversed(beside)])
    axes.axvline(1.0, color="#cc3311")
    axes.set_xlabel("times llama.cpp; grey: what the machine allows")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
