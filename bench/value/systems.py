"""Does routing pay? Single experts, the largest, routing, escalation and oracles, task by task.

    coterie bench value --log ANSWERS.jsonl                      (every expert, every task)
    coterie bench value --tasks 8 --log TIMES.jsonl              (on a quiet machine)
    bench/value/systems.py ANSWERS.jsonl --times TIMES.jsonl [--budget 1250MB]

Answers are greedy, so that a system's answer to a task is the one its expert gave in the log. What
a system knows (the expert table, the threshold of escalation) is learned from the other half of the
tasks, twice over. Seconds are those of TIMES where it has the task; else they follow from the
tokens, at the expert's speed there. Loading is not in them: bench/value/stream.py measures it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import coterie
import numpy as np
from coterie.byte_size import parse_bytes
from coterie.store import default_home
from coterie.value import measurements
from coterie.value.matrix import Answer, AnswerLog, summarise
from coterie.value.tasks import Task, load
from paired import difference, ratio

Answers = dict[str, dict[str, Answer]]  # Task to expert to answer.


@dataclass(frozen=True)
class Outcome:
    """What a system made of one task."""

    task: str
    domain: str
    score: float
    seconds: float
    experts: tuple[str, ...]


def by_task(log: AnswerLog) -> Answers:
    """The answers to those tasks that every expert of the log has answered."""
    answers: Answers = defaultdict(dict)
    for one in log.answers:
        answers[one.task][one.expert] = one
    n_experts = len({one.expert for one in log.answers})
    return {task: given for task, given in answers.items() if len(given) == n_experts}


def quiet_seconds(answers: Answers, times: AnswerLog) -> Answers:
    """Replaces each answer's seconds by those of an undisturbed run."""
    measured = {(one.expert, one.task): one for one in times.answers}
    speeds: dict[str, Any] = {}
    for expert in {one.expert for one in times.answers}:
        rows = [one for one in times.answers if one.expert == expert]
        shape = np.array([[one.prompt_tokens, one.tokens, 1.0] for one in rows])
        seconds = np.array([one.seconds for one in rows])
        speeds[expert] = np.linalg.lstsq(shape, seconds, rcond=None)[0]

    def timed(one: Answer) -> Answer:
        known = measured.get((one.expert, one.task))
        predicted = float(np.dot(speeds[one.expert], [one.prompt_tokens, one.tokens, 1.0]))
        return replace(one, seconds=known.seconds if known else max(0.01, predicted))

    return {
        task: {expert: timed(one) for expert, one in given.items()}
        for task, given in answers.items()
    }


def halves(tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """Every other task of each domain."""
    first, second = [], []
    for domain in dict.fromkeys(task.domain for task in tasks):
        of_domain = [task for task in tasks if task.domain == domain]
        first += of_domain[::2]
        second += of_domain[1::2]
    return first, second


def router_with(
    answers: Answers, tasks: Sequence[Task], budget: int, second_price: float
) -> Callable[[Task], str]:
    """The expert that coterie chooses, with the table that these tasks give."""
    flat = [one for task in tasks for one in answers[task.id].values()]
    home = Path(tempfile.mkdtemp(prefix="coterie-systems-"))
    for name in ("models", "blobs"):
        (home / name).symlink_to(default_home() / name)
    config = home / "coterie.toml"
    config.write_text(f'home = "{home}"\n[router]\nsecond_price = {second_price}\n')
    try:
        known = coterie.Assistant.open(config, memory_budget=budget).experts()
        measurements.write(home, known, summarise(flat))
        assistant = coterie.Assistant.open(config, memory_budget=budget)
    finally:
        shutil.rmtree(home)
    return lambda task: assistant.route(task.prompt).expert


def fixed(answers: Answers, tasks: Sequence[Task], expert: str) -> list[Outcome]:
    return [_outcome(answers, task, (expert,)) for task in tasks]


def _outcome(answers: Answers, task: Task, experts: tuple[str, ...]) -> Outcome:
    """The last expert's answer, after the time of them all."""
    given = answers[task.id]
    return Outcome(
        task.id,
        task.domain,
        given[experts[-1]].score,
        sum(given[name].seconds for name in experts),
        experts,
    )


def cross_fitted(
    tasks: Sequence[Task], learn: Callable[[Sequence[Task]], Callable[[Task], tuple[str, ...]]]
) -> Callable[[Answers], list[Outcome]]:
    """A system that decides for one half of the tasks by what it learned from the other."""
    first, second = halves(tasks)

    def run(answers: Answers) -> list[Outcome]:
        outcomes = {}
        for known, asked in ((first, second), (second, first)):
            decide = learn(known)
            for task in asked:
                outcomes[task.id] = _outcome(answers, task, decide(task))
        return [outcomes[task.id] for task in tasks]

    return run


def escalating(
    answers: Answers,
    known: Sequence[Task],
    choose: Callable[[Task], str],
    larger: str,
    slack: float,
) -> Callable[[Task], tuple[str, ...]]:
    """Asks `larger` as well where the chosen expert was less sure of its answer than a threshold.

    The threshold, by expert: the lowest mean log-probability from which on, in the known tasks, its
    answers are right as often as those of `larger`, but for `slack`.
    """
    thresholds: dict[str, float] = {}
    for expert in {name for given in answers.values() for name in given} - {larger}:
        pairs = sorted(
            (
                (answers[task.id][expert].mean_logprob, answers[task.id], task)
                for task in known
                if choose(task) == expert
            ),
            key=lambda pair: -pair[0],
        )
        thresholds[expert] = 0.0
        lost = 0.0
        for n, (logprob, given, _) in enumerate(pairs, 1):
            lost += given[larger].score - given[expert].score
            if lost <= slack * n:
                thresholds[expert] = logprob

    def decide(task: Task) -> tuple[str, ...]:
        expert = choose(task)
        if expert == larger or answers[task.id][expert].mean_logprob >= thresholds[expert]:
            return (expert,)
        return (expert, larger)

    return decide


def domain_oracle(answers: Answers, tasks: Sequence[Task], experts: Sequence[str]) -> list[Outcome]:
    """The best expert of each task's true domain, over these very tasks."""
    best = {}
    for domain in {task.domain for task in tasks}:
        of_domain = [task.id for task in tasks if task.domain == domain]
        best[domain] = max(experts, key=lambda e: sum(answers[t][e].score for t in of_domain))
    return [_outcome(answers, task, (best[task.domain],)) for task in tasks]


def task_oracle(answers: Answers, tasks: Sequence[Task], experts: Sequence[str]) -> list[Outcome]:
    """For each task the quickest expert that is right; no system can do better."""

    def best(task: Task) -> str:
        given = answers[task.id]
        return min(experts, key=lambda e: (-given[e].score, given[e].seconds))

    return [_outcome(answers, task, (best(task),)) for task in tasks]


def report(systems: dict[str, list[Outcome]], best_single: str) -> None:
    print(
        "| system | % right | against the best single | s/answer | times faster | experts asked |"
    )
    print("|---|---|---|---|---|---|")
    base = systems[best_single]
    for name, outcomes in systems.items():
        quality = 100 * sum(one.score for one in outcomes) / len(outcomes)
        seconds = sum(one.seconds for one in outcomes) / len(outcomes)
        gap = difference([100 * o.score for o in outcomes], [100 * o.score for o in base])
        speed = ratio([o.seconds for o in outcomes], [o.seconds for o in base])
        counts: dict[str, int] = defaultdict(int)
        for one in outcomes:
            for expert in one.experts:
                counts[expert] += 1
        asked = ", ".join(f"{e} {100 * n / len(outcomes):.0f} %" for e, n in sorted(counts.items()))
        print(
            f"| {name} | {quality:.1f} | {gap} | {seconds:.2f} | {speed.value:.2f} "
            f"[{speed.low:.2f}, {speed.high:.2f}] | {asked} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--times", type=Path)
    parser.add_argument("--budget", type=parse_bytes, default=parse_bytes("1250MB"))
    parser.add_argument("--second-price", type=float, nargs="+", default=[0.0, 0.01])
    parser.add_argument("--slack", type=float, default=0.0)
    arguments = parser.parse_args()

    answers = by_task(AnswerLog(arguments.answers))
    if arguments.times:
        answers = quiet_seconds(answers, AnswerLog(arguments.times))
    tasks = [task for task in load() if task.id in answers]
    os.environ.setdefault("COTERIE_HOME", str(default_home()))
    known = coterie.Assistant.open(memory_budget=arguments.budget).experts()
    named = {name for given in answers.values() for name in given}
    experts = [e["name"] for e in known if e["fits"] and e["name"] in named]
    larger = max((e for e in known if e["name"] in experts), key=lambda e: e["bytes"])["name"]
    systems = {expert: fixed(answers, tasks, expert) for expert in experts}
    best_single = max(systems, key=lambda e: sum(one.score for one in systems[e]))

    for price in arguments.second_price:

        def learn_route(half: Sequence[Task], price: float = price) -> Callable[[Task], Any]:
            choose = router_with(answers, half, arguments.budget, price)
            return lambda task: (choose(task),)

        name = f"routed, {price:g} a second"
        systems[name] = cross_fitted(tasks, learn_route)(answers)
    for expert in [name for name in experts if name != larger]:

        def learn_threshold(half: Sequence[Task], first: str = expert) -> Callable[[Task], Any]:
            return escalating(answers, half, lambda task: first, larger, arguments.slack)

        systems[f"{expert}, if unsure {larger}"] = cross_fitted(tasks, learn_threshold)(answers)
    systems["oracle of domains"] = domain_oracle(answers, tasks, experts)
    systems["oracle of tasks"] = task_oracle(answers, tasks, experts)
    print(f"{len(tasks)} tasks, {len(experts)} experts that fit {arguments.budget / 1e6:.0f} MB\n")
    report(systems, best_single)


if __name__ == "__main__":
    main()
