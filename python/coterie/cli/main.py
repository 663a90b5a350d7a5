"""The command `coterie`.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage,
130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from coterie.cli import answering, benchmark, chat, models, router, serving
from coterie.cli.group import INTERRUPTED, Group, Interrupted
from coterie.cli.output import complain
from coterie.errors import sentence_of

app = typer.Typer(
    name="coterie",
    cls=Group,
    help="A small company of expert language models on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (models, answering, chat, serving):
    command.register(app)
app.add_typer(router.app, name="router")
app.add_typer(benchmark.app, name="bench")


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code. No exception gets out."""
    try:
        app(list(arguments), standalone_mode=True, prog_name="coterie")
        return 0
    except Interrupted as interruption:
        complain(interruption.sentence)
        return INTERRUPTED
    except SystemExit as end:
        if end.code == INTERRUPTED:  # Ctrl-C before the command began: Typer says nothing of it.
            complain("interrupted")
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # The reader of stdout, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("COTERIE_TRACEBACK"):
            raise
        complain(sentence_of(error))
        return 1
