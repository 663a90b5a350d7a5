"""coterie route and run: one prompt, one decision or one answer."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from coterie.cli import options
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
from coterie.cli.output import print_json, print_table, remark
from coterie.protocol import (
    Assistant,
    Message,
    Reply,
    ReplyStream,
    confidence_of,
    reply_fields,
    route_fields,
)

Text = Annotated[str, typer.Argument(metavar="TEXT", help="The prompt; - reads it from stdin.")]


def register(app: typer.Typer) -> None:
    app.command(
        "route",
        epilog=manual(
            'coterie route "Fix the grammar: she dont like apples."',
            "echo 'SELECT 1' | coterie route - --json",
        ),
    )(route)
    app.command(
        "run",
        epilog=manual(
            'coterie run "Write a bash loop over all *.txt files."',
            'coterie run "2 + 2?" --expert smollm2-135m --temperature 0 --json',
            "coterie run - --system 'Answer in French.' < question.txt",
        ),
    )(run)


def route(
    text: Text,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Says which expert would answer a prompt, and why; loads none.

    Prints the expert, the reason in numbers, and the likeliest domains with their calibrated
    probabilities, which do not depend on what is in memory.
    """
    prompt = _prompt(text)
    decided = options.open_assistant(config, memory_budget, threads).route(prompt)
    if json:
        print_json(route_fields(decided))
        return
    typer.echo(f"{decided.expert}: {decided.reason}")
    ranked = sorted(decided.probabilities.items(), key=lambda item: -item[1])
    rows = [(domain, f"{probability:.3f}") for domain, probability in ranked[:5]]
    print_table(("domain", "probability#"), rows)


def run(
    text: Text,
    expert: Expert = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = None,
    seed: Seed = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message: how to answer.")
    ] = None,
    log: Log = True,
    lookup: Lookup = None,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Answers one prompt.

    The answer goes to stdout as it is written; who answered, why and how fast goes to stderr.
    `coterie feedback last` says what you think of it.
    """
    messages: list[Message] = [{"role": "user", "content": _prompt(text)}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    settings: dict[str, Any] = {
        "log": log,
        "lookup": lookup,
        "expert": expert,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    assistant = options.open_assistant(config, memory_budget, threads)
    options.check_expert(assistant, expert)
    if json:
        print_json(reply_fields(assistant.generate(messages, **settings)))
    else:
        remark(summary(write_stream(assistant.stream(messages, **settings))))
    tell_log_failures(assistant)


def tell_log_failures(assistant: Assistant) -> None:
    """Says that an answer could not be logged; an assistant reports that once."""
    for event in assistant.events():
        if event["kind"] == "log_failed":
            remark(event["text"])


def write_stream(stream: ReplyStream) -> Reply:
    """Writes an answer as it comes, a line end after it, also if Ctrl-C stops it."""
    ended = True
    try:
        for piece in stream:
            ended = piece.endswith("\n")
            sys.stdout.write(piece)
            sys.stdout.flush()
        return stream.reply
    except KeyboardInterrupt:
        ended = False
        raise
    finally:
        stream.close()
        if not ended:
            sys.stdout.write("\n")
            sys.stdout.flush()


def summary(reply: Reply) -> str:
    """One line: who answered, why, and how fast."""
    timings = reply.timings
    parts = [reply.expert, reply.route.reason]
    if confidence := confidence_of(reply.route):
        parts.append(f"confidence {confidence:.2f}")
    loaded = {"hit": "was loaded", "load": f"loaded in {timings.load_ms:.0f} ms"}
    parts.append(loaded.get(timings.how, f"{timings.how} {timings.load_ms:.0f} ms"))
    parts.append(f"first token {timings.first_token_ms:.0f} ms")
    if cached := reply.usage.cached_tokens:
        parts.append(f"{cached} of {reply.usage.prompt_tokens} prompt tokens known")
    tokens = reply.usage.completion_tokens
    repeated = reply.usage.lookup_tokens
    parts.append(
        f"{tokens} tokens{f', {repeated} of them looked up' if repeated else ''}, "
        f"{timings.decode_tokens_per_second:.1f} per second"
    )
    if reply.examples:
        parts.append(f"{len(reply.examples)} examples shown")
    if note := _ENDINGS.get(reply.finish_reason):
        parts.append(note)
    return " · ".join(part for part in parts if part)


_ENDINGS = {
    "length": "cut off at --max-tokens",
    "context": "cut off: the expert's context is full",
    "cancelled": "stopped",
}


def _prompt(text: str) -> str:
    prompt = sys.stdin.read() if text == "-" else text
    if not prompt.strip():
        raise ValueError("the prompt is empty: there is nothing to answer")
    return prompt
