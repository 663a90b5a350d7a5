"""The parts of --help below the options: examples, environment, files, exit codes."""

from __future__ import annotations

from collections.abc import Iterable

ENVIRONMENT = {
    "COTERIE_HOME": "the model store; ~/.cache/coterie if not set",
    "COTERIE_INTERACTIONS": "another place for the interaction log",
    "COTERIE_ISA": "scalar, avx2 or avx512-vnni: no more than that; the best if not set",
    "COTERIE_ROUTER": "another router file than the shipped one",
    "COTERIE_API_KEY": "what --api-key says, kept out of the list of processes",
    "COTERIE_TRACEBACK": "1: a failure shows where in the program it arose",
    "HF_TOKEN": "a Hugging Face token, for models whose terms must be accepted",
    "HF_ENDPOINT": "a mirror in place of https://huggingface.co",
    "HF_HUB_OFFLINE": "1: never asks Hugging Face",
    "HF_HUB_CACHE": "where Hugging Face's cache lies; $HF_HOME/hub if not set",
    "OLLAMA_MODELS": "where Ollama's store lies; ~/.ollama/models if not set",
}

FILES = {
    "$COTERIE_HOME/models/NAME.json": "what the store knows of a model",
    "$COTERIE_HOME/blobs/sha256-HASH": "a model's bytes, read-only",
    "$COTERIE_HOME/adapters/NAME": "versions of an adapter (docs/adapters.md)",
    "$COTERIE_HOME/measurements.json": "what `coterie bench value --write` found, for routing",
    "$COTERIE_HOME/adapters": "versions of adapters, with what they were trained on",
    "$COTERIE_HOME/interactions.db": "what was asked, answered and said of it (docs/feedback.md)",
    "$COTERIE_HOME/prefixes": "what prompts begin with, if prefix_disk is set (docs/prefixes.md)",
    "coterie.toml": "experts, domains, budget and server (--config; docs/experts.md)",
}

EXIT_CODES = {
    "0": "done",
    "1": "failed; one line on stderr says what, where, and what to do",
    "2": "bad usage",
    "130": "ended by Ctrl-C",
}

# Read by every command that opens the experts.
ANSWERING = ("COTERIE_HOME", "COTERIE_ISA", "COTERIE_ROUTER")


def manual(
    *examples: str, environment: Iterable[str] = ANSWERING, files: Iterable[str] = ()
) -> str:
    """The epilog of one command. Examples begin at the command's name, "coterie"."""
    sections = [("Examples", list(examples))]
    for title, names, meanings in (
        ("Environment", environment, ENVIRONMENT),
        ("Files", files, FILES),
        ("Exit codes", EXIT_CODES, EXIT_CODES),
    ):
        rows = [(name, meanings[name]) for name in names]
        width = max((len(name) for name, _ in rows), default=0)
        sections.append((title, [f"{name:<{width}}  {meaning}" for name, meaning in rows]))
    # A line of \b keeps Click from filling the paragraph.
    return "\n\n".join(
        "\n".join(["\b", f"{title}:", *(f"  {line}" for line in lines)])
        for title, lines in sections
        if lines
    )
