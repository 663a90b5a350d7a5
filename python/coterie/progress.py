"""How long work shows how far it is. Bars go to stderr: stdout carries results only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

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

from coterie.byte_size import format_bytes


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


class TrainingBar:
    """Shows how far a training has come, from a thread of its own: the main thread waits for the
    training, and for Ctrl-C.

    now: coterie.Assistant.training, or what says the same. A bar on a terminal only.
    """

    def __init__(self, now: Callable[[], dict[str, Any]], console: Console | None = None) -> None:
        self._now = now
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        console = console or Console(stderr=True, highlight=False)
        self._bar = RichBars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _show(self) -> None:
        with self._bar as bar:
            task = bar.add_task("starting", total=None, state="")
            while not self._ended.wait(0.2):
                now = self._now()
                if not now["steps"]:
                    continue
                state = (
                    f"step {now['step']}/{now['steps']} · loss {now['loss']:.3f} · "
                    f"{now['tokens_per_second']:.0f} tokens/s · "
                    f"{format_bytes(now['memory_bytes'])} · {now['seconds_left']:.0f} s left"
                    if now["phase"] == "training"
                    else ""
                )
                bar.update(
                    task,
                    description=now["phase"],
                    total=now["steps"],
                    completed=now["step"],
                    state=state,
                )
