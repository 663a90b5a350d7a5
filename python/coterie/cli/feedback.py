"""coterie feedback and interactions: what you think of an answer, and what is kept of them."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from coterie.byte_size import format_bytes
from coterie.cli import options
from coterie.cli.manual import manual
from coterie.cli.options import Config, Json
from coterie.cli.output import print_json, print_table, remark, start_of
from coterie.protocol import Edited, Feedback
from coterie.store import Store

app = typer.Typer(
    help="Lists, shows, exports and forgets what was asked and answered.", no_args_is_help=True
)

Id = Annotated[
    str, typer.Argument(metavar="ID", help="Of the answer, or `last` for the newest one.")
]
OfExpert = Annotated[str | None, typer.Option("--expert", metavar="NAME", help="Only of this one.")]
WithFeedback = Annotated[
    bool, typer.Option("--with-feedback", help="Only those that you said something of.")
]

_LOG = ("COTERIE_HOME", "COTERIE_INTERACTIONS")
_FILES = ("$COTERIE_HOME/interactions.db", "coterie.toml")
_WORDS: dict[str, Literal["accepted", "rejected", "none"]] = {
    "good": "accepted",
    "bad": "rejected",
    "none": "none",
}


def register(parent: typer.Typer) -> None:
    parent.command(
        "feedback",
        epilog=manual(
            "coterie feedback last good",
            "coterie feedback last bad --domain code",
            "coterie feedback last edit 'The capital of Australia is Canberra.'",
            "coterie feedback last none",
            environment=("COTERIE_HOME", "COTERIE_INTERACTIONS", "COTERIE_ISA", "COTERIE_ROUTER"),
            files=_FILES,
        ),
    )(feedback)
    parent.add_typer(app, name="interactions")


def feedback(
    id: Id,
    verdict: Annotated[
        str, typer.Argument(metavar="good|bad|edit|none", help="What you say; none takes it back.")
    ],
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="With edit: the better answer; - reads stdin."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where the prompt belongs, if the wrong expert answered: teaches the router.",
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Says whether an answer was good, or what it should have been.

    Feedback is kept on this machine, beside the answer, and can be changed at any time: the last
    one counts. It teaches the router, is shown to the expert as an example if `retrieval` is on,
    and is what an adapter is trained from.
    """
    given = _given(verdict, text)
    id = _resolved(id, config)
    assistant = options.open_assistant(config, None, None)
    assistant.feedback(id, given, domain=domain)
    if json:
        print_json({"id": id, "feedback": verdict, "domain": domain})
    else:
        remark(f"{id}: {verdict}" + (f", a matter of {domain}" if domain else ""))


def _given(verdict: str, text: str | None) -> Feedback:
    if verdict != "edit":
        if verdict not in _WORDS:
            raise typer.BadParameter(f'feedback is good, bad, edit or none, not "{verdict}"')
        if text is not None:
            raise typer.BadParameter(f"{verdict} takes no text; did you mean edit?")
        return _WORDS[verdict]
    if text is None:
        raise typer.BadParameter("edit needs the text that the answer should have been")
    better = sys.stdin.read().removesuffix("\n") if text == "-" else text
    return Edited(better)


def _resolved(id: str, config: Path | None) -> str:
    if id != "last":
        return id
    newest = options.open_log(config).list(newest_first=True, limit=1)
    if not newest:
        raise KeyError("nothing has been logged yet: there is no last answer")
    return str(newest[0].id)


@app.command(
    "list",
    epilog=manual(
        "coterie interactions list",
        "coterie interactions list --with-feedback --expert smollm2-135m --json",
        environment=_LOG,
        files=_FILES,
    ),
)
def show_list(
    expert: OfExpert = None,
    with_feedback: WithFeedback = False,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="The newest so many; 0: all.")
    ] = 20,
    config: Config = None,
    json: Json = False,
) -> None:
    """Lists answers, newest first, with what you said of them."""
    log = options.open_log(config)
    found = log.list(
        expert=expert, with_feedback=with_feedback, newest_first=True, limit=limit or None
    )
    if json:
        print_json([one.fields() for one in found])
        return
    rows = [
        (
            one.id,
            one.time.strftime("%Y-%m-%d %H:%M"),
            one.expert,
            one.feedback,
            start_of(one.asked, 60),
        )
        for one in found
    ]
    print_table(("id", "time (UTC)", "expert", "feedback", "asked"), rows)
    encrypted = ", encrypted" if log.encrypted else ""
    remark(f"{log.path}: {format_bytes(log.used_bytes)}{encrypted}")


@app.command(
    "show",
    epilog=manual(
        "coterie interactions show last",
        "coterie interactions show last --json",
        environment=_LOG,
        files=_FILES,
    ),
)
def show(id: Id, config: Config = None, json: Json = False) -> None:
    """Shows one answer with its conversation and your feedback."""
    one = options.open_log(config).get(_resolved(id, config))
    if json:
        print_json(one.fields())
        return
    for message in one.messages:
        typer.echo(f"{message['role']}: {message['content']}")
    typer.echo(f"{one.expert}: {one.reply}")
    if one.edit is not None:
        typer.echo(f"edited: {one.edit}")
    remark(f"{one.id} · {one.time:%Y-%m-%d %H:%M} UTC · {one.reason} · feedback: {one.feedback}")


@app.command(
    "export",
    epilog=manual(
        "coterie interactions export mine.jsonl",
        "coterie interactions export - --with-feedback",
        environment=_LOG,
        files=_FILES,
    ),
)
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - is stdout.")],
    expert: OfExpert = None,
    with_feedback: WithFeedback = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Writes answers as lines of JSON, in plain text, oldest first."""
    found = options.open_log(config).list(expert=expert, with_feedback=with_feedback)
    lines = "".join(json_module.dumps(one.fields(), ensure_ascii=False) + "\n" for one in found)
    if str(file) == "-":
        sys.stdout.write(lines)
        return
    file.touch(mode=0o600)  # It is private; a file that exists keeps its mode.
    file.write_text(lines, encoding="utf-8")
    if json:
        print_json({"path": str(file), "interactions": len(found)})
    else:
        remark(f"{file}: {len(found)} interactions")


@app.command(
    "forget",
    epilog=manual(
        "coterie interactions forget last",
        "coterie interactions forget --all",
        environment=_LOG,
        files=_FILES,
    ),
)
def forget(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="Answers, or `last`.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is kept.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Erases answers and what you said of them, so that no copy of the file's bytes is left.

    The router forgets what it learned from them, and adapters that were trained on them are trained
    again without them, which takes as long as training does.
    """
    if everything == bool(ids):
        raise typer.BadParameter("name answers, or --all")
    log = options.open_log(config)
    gone = [one.id for one in log] if everything else [_resolved(id, config) for id in ids or ()]
    assistant = options.open_assistant(config, None, None) if _has_adapters() else log
    for id in gone:
        assistant.forget(id)
    if json:
        print_json({"forgotten": gone})
    else:
        remark(f"forgotten: {len(gone)}")


def _has_adapters() -> bool:
    return (Store().home / "adapters").is_dir()
