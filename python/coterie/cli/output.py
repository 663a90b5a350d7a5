"""How the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def results() -> Console:
    """The console of stdout. Made anew each time: tests and pipes replace stdout."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def remarks() -> Console:
    """The console of stderr."""
    return Console(stderr=True, highlight=False)


def complain(sentence: str) -> None:
    """One line on stderr."""
    line = " ".join(sentence.split())
    remarks().print(Text(f"error: {line}"), style="red", soft_wrap=True)


def remark(sentence: str) -> None:
    """One dim line on stderr."""
    remarks().print(Text(sentence), style="dim", soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()  # A program may wait for it while a server or a chat goes on.


def print_json_line(value: Any) -> None:
    """One line, at once: for programs that read answers as they come."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table; columns whose name ends in "#" are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        number = column.endswith("#")
        table.add_column(column.removesuffix("#"), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    results().print(table)


def start_of(text: str, length: int) -> str:
    """Text on one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
