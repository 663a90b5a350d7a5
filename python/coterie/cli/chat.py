"""coterie chat: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import typer

from coterie.byte_size import format_bytes, parse_bytes
from coterie.cli import options
from coterie.cli.answering import summary, tell_log_failures
from coterie.cli.manual import manual
from coterie.cli.options import (
    Budget,
    Config,
    Expert,
    Json,
    Log,
    Lookup,
    MaxTokens,
    Seed,
    Temperature,
    Threads,
)
from coterie.cli.output import complain, print_json_line, remark, remarks
from coterie.cli.stats import print_stats
from coterie.errors import sentence_of
from coterie.protocol import Assistant, Edited, Feedback, Message, reply_fields

_HELP = """\
/expert NAME|auto   who answers: an expert by name, or whom the router chooses
/good, /bad         what you think of the last answer
/edit TEXT          what the last answer should have been
/stats              memory, experts, loads and evictions
/budget SIZE        changes the memory budget, such as /budget 2GiB
/new                forgets the conversation
/help               this
/quit               ends; so does Ctrl-D. Ctrl-C stops an answer"""


def register(app: typer.Typer) -> None:
    app.command(
        "chat",
        epilog=manual(
            "coterie chat",
            "coterie chat --memory-budget 700MB --temperature 0",
            "printf 'Hello\\nAnd in French?\\n' | coterie chat --json",
        ),
    )(chat)


def chat(
    expert: Expert = None,
    max_tokens: MaxTokens = 1024,
    temperature: Temperature = None,
    seed: Seed = None,
    log: Log = True,
    lookup: Lookup = None,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Talks with the experts: one message a line, the conversation is kept.

    /help inside names the commands: who answers, what you think of it, the budget, what is in
    memory. Ctrl-C stops an answer, Ctrl-D ends. With --json each answer is one line of JSON.
    """
    assistant = options.open_assistant(config, memory_budget, threads)
    options.check_expert(assistant, expert)
    settings = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "log": log,
        "lookup": lookup,
    }
    Chat(assistant, expert, settings, json).run()


class Chat:
    """One conversation. Errors of one answer leave it as it was before the question."""

    def __init__(
        self,
        assistant: Assistant,
        expert: str | None,
        settings: dict[str, Any],
        json: bool = False,
    ) -> None:
        self._assistant = assistant
        self._expert = expert
        self._settings = settings
        self._json = json
        self._messages: list[Message] = []
        self._conversation = uuid.uuid4().hex
        self._last_id: str | None = None  # Of the last answer.

    def run(self) -> None:
        interactive = sys.stdin.isatty()
        if interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  Importing it gives input() editing and history.
            names = ", ".join(str(expert["name"]) for expert in self._assistant.experts())
            remark(f"experts: {names}. /help names the commands.")
        while True:
            try:
                line = input("> " if interactive else "").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                remark("\n/quit or Ctrl-D ends")
                continue
            if line == "/quit":
                return
            try:
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self._answer(line)
            except Exception as error:  # One bad answer does not end the conversation.
                complain(sentence_of(error))

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/help":
            remark(_HELP)
        elif word == "/expert" and rest:
            self._choose(rest)
        elif word == "/stats":
            stats = self._assistant.stats()
            print_json_line(stats) if self._json else print_stats(stats)
        elif word == "/budget" and rest:
            n_bytes = parse_bytes(rest)
            self._assistant.set_memory_budget(n_bytes)
            remark(f"the budget is {format_bytes(n_bytes)}")
        elif word in ("/good", "/bad") and not rest:
            self._say("accepted" if word == "/good" else "rejected")
            remark("noted")
        elif word == "/edit" and rest:
            self._edit(rest)
        elif word == "/new":
            self._messages.clear()
            self._last_id = None
            self._conversation = uuid.uuid4().hex
            remark("a new conversation")
        else:
            complain(f"{line} is no command; /help names them")

    def _say(self, given: Feedback) -> None:
        if self._last_id is None:
            raise ValueError("there is no answer yet to say something of")
        self._assistant.feedback(self._last_id, given)

    def _edit(self, text: str) -> None:
        """The conversation goes on from the better text, as if the expert had said it."""
        self._say(Edited(text))
        self._messages[-1] = {"role": "assistant", "content": text}
        remark("noted; the conversation goes on from there")

    def _choose(self, name: str) -> None:
        if name != "auto":
            options.check_expert(self._assistant, name)
        self._expert = None if name == "auto" else name
        remark("the router chooses" if self._expert is None else f"{name} answers")

    def _answer(self, text: str) -> None:
        asked: Message = {"role": "user", "content": text}
        stream = self._assistant.stream(
            [*self._messages, asked],
            expert=self._expert,
            conversation=self._conversation,
            **self._settings,
        )
        pieces: list[str] = []
        reply = None
        try:
            with _waiting(self._assistant) as waited:
                first = next(stream, None)
                waited.set()
            if first is not None:
                for piece in itertools.chain([first], stream):
                    pieces.append(piece)
                    self._show(piece)
            reply = stream.reply
        except KeyboardInterrupt:
            pass  # The answer ends here; the conversation goes on.
        finally:
            stream.close()
            if pieces:
                self._show("\n")
        if self._json and reply:
            print_json_line(reply_fields(reply))
        else:
            remark(summary(reply) if reply else "stopped")
        self._last_id = reply.id if reply and pieces else None
        tell_log_failures(self._assistant)
        if pieces:
            answered: Message = {"role": "assistant", "content": "".join(pieces)}
            self._messages += [asked, answered]

    def _show(self, text: str) -> None:
        if not self._json:
            sys.stdout.write(text)
            sys.stdout.flush()


@contextlib.contextmanager
def _waiting(assistant: Assistant) -> Iterator[threading.Event]:
    """Until the first word, shows on a terminal what memory is doing."""
    done = threading.Event()
    console = remarks()
    if not console.is_terminal:
        yield done
        return

    with console.status("[dim]thinking[/dim]", spinner="dots") as status:

        def watch() -> None:
            while not done.wait(0.1):
                for event in assistant.events():
                    status.update(f"[dim]{_event_line(event)}[/dim]")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield done
        finally:
            done.set()
            watcher.join()


def _event_line(event: dict[str, Any]) -> str:
    size = f" ({format_bytes(event['bytes'])})" if event.get("bytes") else ""
    return f"{event['kind']} {event['expert']}{size}"
