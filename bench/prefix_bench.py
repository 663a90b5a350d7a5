"""First-token times of a prompt that begins as an earlier one did.

    python bench/prefix_bench.py [--rounds N] [MODEL...]

A system prompt of 512 tokens and a short question are asked of each model in rounds:

    resident     expert and prefix are in memory
    switched     another expert was asked between, and both stay
    evicted      another expert was asked between, and both were evicted: the expert is loaded again
    from disk    a new assistant, which knows nothing but what is on disk: the expert is loaded too
    sealed       the same with a key
    nothing kept the expert is resident, and the whole prompt is computed

Loads are reported on their own, for they are the same without prefixes. All answers of a model have
to be the same text.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import coterie
from coterie.store import Store, default_home

MODELS = ["smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
BUDGET = "4GB"
PROMPT_TOKENS = 512
QUESTION = "Say in one sentence what you were asked to do."
SENTENCES = (
    "Answer briefly and say where a claim comes from. ",
    "If you are not certain, say so before you answer. ",
    "Write numbers with their units and round them sensibly. ",
    "Keep the names of files and functions as they are written. ",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("| model | prompt | kind | tokens known | first token ms | of it loading ms | n |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models:
        record = Store().find(model)
        if record is None:
            print(f"{model} is missing: coterie pull {model}", file=sys.stderr)
            return 1
        measure(model, system_prompt(Store().path_of(record)), options.rounds).show()
    return 0


def measure(model: str, system: str, rounds: int) -> Times:
    times = Times(model)
    measure_memory(times, model, system, rounds)
    for kind in ("from disk", "sealed"):
        with store_on_disk(is_sealed=kind == "sealed") as file:
            for turn in range(rounds + 1):
                with open_assistant(file) as assistant:
                    reply = ask(assistant, model, system, log=True)
                if turn > 0:
                    times.add(kind, reply)
    return times


def measure_memory(times: Times, model: str, system: str, rounds: int) -> None:
    other = next(name for name in MODELS if name != model and Store().find(name))
    with assistant_with("") as assistant:
        ask(assistant, model, system)
        for _ in range(rounds):
            times.add("resident", ask(assistant, model, system))
            times.add("nothing kept", ask(assistant, model, system, reuse=False))
            assistant.generate("Hello!", expert=other, max_tokens=1, log=False)
            times.add("switched", ask(assistant, model, system))
    with assistant_with('[cache]\nkeep_alive = "0s"\n') as assistant:
        ask(assistant, model, system)
        for _ in range(rounds):
            assistant.generate("Hello!", expert=other, max_tokens=1, log=False)
            while any(expert["resident"] for expert in assistant.stats()["experts"]):
                time.sleep(0.05)
            times.add("evicted", ask(assistant, model, system))


def system_prompt(path: Path) -> str:
    """Instructions of at most PROMPT_TOKENS tokens of this model, as a real one would be."""
    tokenizer = coterie.Expert.open(path).tokenizer
    text = ""
    for n in range(PROMPT_TOKENS):
        longer = text + f"Rule {n + 1}: " + SENTENCES[n % len(SENTENCES)]
        if len(tokenizer.encode(longer)) > PROMPT_TOKENS:
            break
        text = longer
    return text


@contextmanager
def assistant_with(settings: str) -> Iterator[coterie.Assistant]:
    with tempfile.TemporaryDirectory(prefix="coterie-prefixes-") as folder:
        file = Path(folder) / "coterie.toml"
        file.write_text(settings)
        with open_assistant(file) as assistant:
            yield assistant


@contextmanager
def store_on_disk(is_sealed: bool) -> Iterator[Path]:
    """A configuration whose prefixes lie in a folder of their own beside the store's models."""
    with tempfile.TemporaryDirectory(prefix="coterie-prefixes-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        for part in ("models", "blobs"):
            (home / part).symlink_to(default_home() / part)
        settings = f'home = "{home}"\n[cache]\nprefix_disk = "2GB"\n'
        if is_sealed:
            (home / "key").write_text("5c" * 32)
            settings += f'[learning]\nkey_file = "{home}/key"\n'
        file = Path(folder) / "coterie.toml"
        file.write_text(settings)
        yield file


def open_assistant(file: Path) -> coterie.Assistant:
    return coterie.Assistant.open(file, memory_budget=BUDGET)


def ask(assistant: coterie.Assistant, model: str, system: str, **options: Any) -> coterie.Reply:
    return assistant.generate(
        [{"role": "system", "content": system}, {"role": "user", "content": QUESTION}],
        expert=model,
        max_tokens=8,
        temperature=0.0,
        **{"log": False, **options},
    )


class Times:
    """First-token times of one model by kind. Ends the program if an answer differs."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._replies: dict[str, list[coterie.Reply]] = {}
        self._text: str | None = None

    def add(self, kind: str, reply: coterie.Reply) -> None:
        self._replies.setdefault(kind, []).append(reply)
        self._text = self._text or reply.text
        if reply.text != self._text:
            raise SystemExit(f"{self._model}, {kind}: {reply.text!r} instead of {self._text!r}")

    def samples(self, kind: str, what: str) -> list[float]:
        """`what`: "first_token" or "load", in ms."""
        return [getattr(reply.timings, f"{what}_ms") for reply in self._replies[kind]]

    def show(self) -> None:
        for kind, replies in self._replies.items():
            first, load = (
                statistics.median(self.samples(kind, what)) for what in ("first_token", "load")
            )
            usage = replies[-1].usage
            print(
                f"| {self._model} | {usage.prompt_tokens} | {kind} | {usage.cached_tokens} "
                f"| {first:.1f} | {load:.1f} | {len(replies)} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
