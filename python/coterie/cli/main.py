"""The command `coterie`.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage,
130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from coterie.cli import (
    adapters,
    answering,
    benchmark,
    chat,
    feedback,
    models,
    router,
    serving,
    simulate,
    stats,
    train,
)
from coterie.cli.group import INTERRUPTED, Group, Interrupted
from coterie.cli.manual import ENVIRONMENT, FILES, manual
from coterie.cli.output import complain
from coterie.errors import sentence_of

app = typer.Typer(
    name="coterie",
    cls=Group,
    epilog=manual(
        "coterie pull smollm2-135m",
        'coterie run "Write a haiku about rain."',
        "coterie chat",
        "coterie serve",
        "coterie run --help",
        environment=ENVIRONMENT,
        files=FILES,
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (models, answering, chat, feedback, train, serving, stats, simulate):
    command.register(app)
app.add_typer(router.app, name="router")
app.add_typer(adapters.app, name="adapters")
app.add_typer(benchmark.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        import coterie

        typer.echo(f"coterie {coterie.__version__}")
        raise typer.Exit


@app.callback()
def frame(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A small company of expert language models on one machine.

    Each prompt goes to the expert that suits it, which is loaded when it is wanted, inside a
    budget in bytes. Nothing leaves this machine; only `coterie pull` uses the network.

    Results go to stdout, everything else to stderr; --json makes every command print JSON.
    """


def _misuse(error: Exception) -> int | None:
    """Says in one line what is wrong with the command line; None for other errors."""
    # Typer's own copy of Click has the classes, whose names tell what they are.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "Abort" in kinds:
        complain("the input ended")
        return 1
    if "ClickException" not in kinds:
        return None
    if "NoArgsIsHelpError" in kinds:
        error.show()  # type: ignore[attr-defined]
        return 2
    sentence: str = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "coterie"
    complain(f"{sentence.rstrip('.')} (see {path} --help)")
    return 2


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code. No exception gets out."""
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="coterie")
        if code == INTERRUPTED:  # Ctrl-C before the command began: Typer says nothing of it.
            complain("interrupted")
        return code if isinstance(code, int) else 0
    except Interrupted as interruption:
        complain(interruption.sentence)
        return INTERRUPTED
    except SystemExit as end:  # Of shell completion.
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # The reader of stdout, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if (misuse := _misuse(error)) is not None:
            return misuse
        if os.environ.get("COTERIE_TRACEBACK"):
            raise
        complain(sentence_of(error))
        return 1
