"""A mixed stream of prompts, answered for real by routing and by single experts, in turn.

    bench/value/stream.py [--budget 1250MB] [--tasks 10] [--single qwen2.5-coder-1.5b ...]

All have the same memory budget and answer the same shuffled tasks, greedily; who goes first
rotates. Seconds include routing, loading and waiting. Prints quality, seconds per answer, first
token p50/p95/p99, bytes loaded, and each process's peak memory, with paired 95 % intervals.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import re
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from coterie.byte_size import parse_bytes
from coterie.value.scoring import score
from coterie.value.tasks import Task, load
from paired import difference, percentile, ratio


def peak_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0


def serve(connection: Connection, budget: int, expert: str | None) -> None:
    """A process of its own for each system, so that its peak memory is its own."""
    import coterie

    assistant = coterie.Assistant.open(memory_budget=budget)
    while (task := connection.recv()) is not None:
        start = time.monotonic()
        reply = assistant.generate(
            task.messages(),
            expert=expert,
            max_tokens=task.max_tokens,
            stop=list(task.stop) or None,
            temperature=0.0,
            log=False,
        )
        connection.send(
            {
                "seconds": time.monotonic() - start,
                "first_token_ms": reply.timings.first_token_ms,
                "expert": reply.expert,
                "text": reply.text,
            }
        )
    counters = assistant.stats()["counters"]
    connection.send(
        {"bytes_loaded": counters["bytes_loaded"], "peak_resident": peak_resident_bytes()}
    )


class System:
    def __init__(self, name: str, budget: int, expert: str | None) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(other, budget, expert), daemon=True)
        self._process.start()
        self.answers: list[dict[str, Any]] = []
        self.end: dict[str, Any] = {}

    def ask(self, task: Task) -> None:
        self._pipe.send(task)
        answer = self._pipe.recv()
        self.answers.append({**answer, "task": task.id, "score": score(task.check, answer["text"])})

    def close(self) -> None:
        self._pipe.send(None)
        self.end = self._pipe.recv()
        self._process.join()

    def of(self, field: str, scale: float = 1.0) -> list[float]:
        return [scale * float(answer[field]) for answer in self.answers]


def report(routed: System, singles: list[System]) -> None:
    print("| | % right | s/answer | first token p50 / p95 / p99, ms | loaded | peak memory |")
    print("|---|---|---|---|---|---|")
    for system in (*singles, routed):
        n = len(system.answers)
        first = system.of("first_token_ms")
        tokens = " / ".join(f"{percentile(first, share):.0f}" for share in (0.5, 0.95, 0.99))
        print(
            f"| {system.name} | {sum(system.of('score', 100)) / n:.1f} "
            f"| {sum(system.of('seconds')) / n:.2f} | {tokens} "
            f"| {system.end['bytes_loaded'] / 1e6:.0f} MB "
            f"| {system.end['peak_resident'] / 1e6:.0f} MB |"
        )
    for single in singles:
        gap = difference(routed.of("score", 100), single.of("score", 100))
        speed = ratio(routed.of("seconds"), single.of("seconds"))
        print(
            f"\nrouted against {single.name}: {gap} points, "
            f"{speed.value:.2f} [{speed.low:.2f}, {speed.high:.2f}] times faster (95 % intervals)"
        )
    experts = [answer["expert"] for answer in routed.answers]
    print(
        "routed to: "
        + ", ".join(f"{name} {experts.count(name)}" for name in sorted(set(experts)))
        + f"; switches {sum(a != b for a, b in itertools.pairwise(experts))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=parse_bytes, default=parse_bytes("1250MB"))
    parser.add_argument("--tasks", type=int, default=10, help="of each domain")
    parser.add_argument("--single", nargs="+", default=["qwen2.5-coder-1.5b"])
    parser.add_argument("--log", type=Path, help="writes every answer here, JSON lines")
    arguments = parser.parse_args()
    tasks = load(n_per_domain=arguments.tasks)
    random.Random(5).shuffle(tasks)
    routed = System("routed by coterie", arguments.budget, None)
    singles = [System(f"always {name}", arguments.budget, name) for name in arguments.single]
    systems = [routed, *singles]
    for turn, task in enumerate(tasks):
        first = turn % len(systems)
        for system in systems[first:] + systems[:first]:
            system.ask(task)
    for system in systems:
        system.close()
    print(f"{len(tasks)} tasks, memory budget {arguments.budget / 1e6:.0f} MB\n")
    report(routed, singles)
    if arguments.log:
        lines = [
            json.dumps({"system": system.name, **answer}, ensure_ascii=False)
            for system in systems
            for answer in system.answers
        ]
        arguments.log.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
