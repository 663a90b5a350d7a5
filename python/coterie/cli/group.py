"""The command's frame: what every subcommand has in common."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

INTERRUPTED = 130  # As shells say it: 128 + SIGINT.


class Interrupted(SystemExit):
    """Ctrl-C ended a command; the sentence says what became of its work."""

    def __init__(self, sentence: str) -> None:
        super().__init__(INTERRUPTED)
        self.sentence = sentence


class Group(TyperGroup):
    """Commands, any of which Ctrl-C may end."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted(str(stop) or "interrupted") from None
