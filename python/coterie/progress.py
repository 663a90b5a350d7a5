"""How long work shows how far it is. Bars go to stderr: stdout carries results only."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichBars


class Progress(Protocol):
    """One piece of work measured in bytes at a time."""

    def start(self, what: str, total_bytes: int, done_bytes: int = 0) -> None: ...
    def set(self, done_bytes: int) -> None: ...
    def finish(self) -> None: ...
    def say(self, sentence: str) -> None: ...


class Silence:
    """Shows nothing."""

    def start(self, what: str, total_bytes: int, done_bytes: int = 0) -> None:
        pass

    def set(self, done_bytes: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass


class Bars:
    """A bar with speed and remaining time on a terminal's stderr; sentences only elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = RichBars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, what: str, total_bytes: int, done_bytes: int = 0) -> None:
        self.finish()
        self._task = self._bars.add_task(what, total=total_bytes, completed=done_bytes)

    def set(self, done_bytes: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done_bytes)

    def finish(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, soft_wrap=True)
