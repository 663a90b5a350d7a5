"""The tasks that experts are measured by: one JSON object a line in tasks/DOMAIN.jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from coterie.protocol import Message

DOMAINS = ("code", "math", "writing", "general", "textops", "translate", "assistant")


@dataclass(frozen=True)
class Task:
    """One question. check says how an answer is scored (coterie.value.scoring)."""

    id: str
    domain: str
    prompt: str
    max_tokens: int
    check: dict[str, Any]
    system: str = ""
    stop: tuple[str, ...] = ()

    def messages(self) -> list[Message]:
        said: list[Message] = [{"role": "user", "content": self.prompt}]
        return [{"role": "system", "content": self.system}, *said] if self.system else said


def load(domains: Sequence[str] = DOMAINS, n_per_domain: int | None = None) -> list[Task]:
    """The tasks of these domains; n_per_domain takes that many of each, evenly spread.

    Raises ValueError for a domain without tasks and a number below 1.
    """
    if n_per_domain is not None and n_per_domain < 1:
        raise ValueError(f"there has to be at least one task a domain: {n_per_domain}")
    tasks: list[Task] = []
    for domain in domains:
        if domain not in DOMAINS:
            raise ValueError(
                f'there are no tasks for the domain "{domain}": choose from {", ".join(DOMAINS)}'
            )
        file = resources.files("coterie.value").joinpath("tasks", f"{domain}.jsonl")
        of_domain = [_task(line) for line in file.read_text(encoding="utf-8").splitlines()]
        wanted = min(n_per_domain or len(of_domain), len(of_domain))
        tasks += [of_domain[i * len(of_domain) // wanted] for i in range(wanted)]
    return tasks


def _task(line: str) -> Task:
    fields = json.loads(line)
    return Task(**{**fields, "stop": tuple(fields.get("stop", ()))})
