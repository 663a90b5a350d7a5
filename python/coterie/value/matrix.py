"""The expert x domain matrix: every expert answers every task, greedily.

Answers are written to a log as they come, one JSON object a line, so that a run which was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.protocol import Assistant
from coterie.value.scoring import score
from coterie.value.tasks import Task


@dataclass(frozen=True)
class Answer:
    """One expert's answer to one task.

    seconds: from the call to the last token, a load before it not counted. mean_logprob and
    least_logprob: of the answer's tokens, the expert's own confidence; 0 for no tokens.
    """

    expert: str
    base: str
    task: str
    domain: str
    score: float
    seconds: float
    first_token_ms: float
    prompt_tokens: int
    tokens: int
    mean_logprob: float
    least_logprob: float
    finish_reason: str
    text: str


@dataclass(frozen=True)
class Cell:
    """One expert in one domain: means over its tasks. half_width: of the 95 % interval."""

    n: int
    quality: float
    half_width: float
    seconds: float
    tokens: float


Matrix = dict[str, dict[str, Cell]]  # Expert to domain to cell.


class AnswerLog:
    """Answers by expert, weights and task, in a file that only grows."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.answers: list[Answer] = []
        if path is not None and path.exists():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    self.answers.append(Answer(**json.loads(line)))
                except (ValueError, TypeError) as error:
                    raise ValueError(
                        f"{path}, line {number}: not an answer of `coterie bench value` ({error}); "
                        "name another log or delete this one"
                    ) from None
        self._known = {(one.expert, one.base, one.task) for one in self.answers}

    def has(self, expert: str, base: str, task: str) -> bool:
        return (expert, base, task) in self._known

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)
        self._known.add((answer.expert, answer.base, answer.task))
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")


def ask(assistant: Assistant, expert: dict[str, Any], task: Task) -> Answer:
    """Has one expert answer one task, greedily, and scores what it wrote."""
    start = time.monotonic()
    reply = assistant.generate(
        task.messages(),
        expert=expert["name"],
        max_tokens=task.max_tokens,
        stop=list(task.stop) or None,
        temperature=0.0,
        logprobs=0,
        log=False,
        reuse=False,
    )
    seconds = time.monotonic() - start - (reply.timings.load_ms + reply.timings.queue_ms) / 1e3
    logprobs = [float(token["logprob"]) for token in reply.logprobs or ()]
    return Answer(
        expert=expert["name"],
        base=expert["base"],
        task=task.id,
        domain=task.domain,
        score=score(task.check, reply.text),
        seconds=round(seconds, 4),
        first_token_ms=round(reply.timings.first_token_ms - reply.timings.load_ms, 2),
        prompt_tokens=reply.usage.prompt_tokens,
        tokens=reply.usage.completion_tokens,
        mean_logprob=round(sum(logprobs) / len(logprobs), 4) if logprobs else 0.0,
        least_logprob=round(min(logprobs), 4) if logprobs else 0.0,
        finish_reason=reply.finish_reason,
        text=reply.text,
    )


def run(
    assistant: Assistant,
    experts: Sequence[dict[str, Any]],
    tasks: Sequence[Task],
    log: AnswerLog,
    on_answer: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """Asks what the log does not have yet; expert by expert, so that each is loaded once."""
    for expert in experts:
        for task in tasks:
            if not log.has(expert["name"], expert["base"], task.id):
                answer = ask(assistant, expert, task)
                log.add(answer)
                on_answer(answer)
    wanted = {(e["name"], e["base"], t.id) for e in experts for t in tasks}
    return [one for one in log.answers if (one.expert, one.base, one.task) in wanted]


def summarise(answers: Iterable[Answer]) -> Matrix:
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[answer.expert, answer.domain].append(answer)
    matrix: Matrix = {}
    for (expert, domain), group in groups.items():
        matrix.setdefault(expert, {})[domain] = _cell(group)
    return matrix


def _cell(group: list[Answer]) -> Cell:
    n = len(group)
    quality = sum(one.score for one in group) / n
    return Cell(
        n=n,
        quality=quality,
        half_width=_wilson_half_width(quality, n),
        seconds=sum(one.seconds for one in group) / n,
        tokens=sum(one.tokens for one in group) / n,
    )


def _wilson_half_width(share: float, n: int, z: float = 1.96) -> float:
    """Half the width of Wilson's score interval for a share of n trials."""
    return z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
