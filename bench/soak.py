"""Hours of mixed traffic under a hard memory limit, and many switches without growth.

    python bench/soak.py --minutes 60                # traffic on every expert of the store
    python bench/soak.py --switches 1000             # two experts in turns, one in memory

The work runs in a process of its own inside a memory control group of the budget plus --beside (the
interpreter, libraries and the router's code are no part of the budget). Where no group can be made,
RLIMIT_DATA stands in for it, which bounds private memory only; the result says which it was. The
kernel kills what exceeds a group; the exit code is 1 if it did, or if memory grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MB = 1_000_000
GROUPS = (  # Where groups are, and the files of limit, use and events.
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    ("/sys/fs/cgroup", "memory.max", "memory.peak"),
)
PROMPTS = (
    "Write a Python function that reverses a string.",
    "Hello! How are you today?",
    "What is 17 times 23? Think step by step.",
    "Name three rivers of Europe.",
    "Summarise: " + "the cat sat on the mat and looked at the rain. " * 40,
    "Turn on the light in the kitchen.",
)
# Two experts that take turns may end a little above where they began: threads, allocator, logs.
GROWTH_BYTES = 16 * MB


def main() -> int:
    options = parse()
    with memory_group(options.budget + options.beside) as (kind, group):
        command = [sys.executable, __file__, *sys.argv[1:], "--inside", str(group or "")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout) if done.returncode == 0 else {}
        result["limit"] = f"{kind} of {options.budget + options.beside} bytes"
        result["killed"] = done.returncode == -signal.SIGKILL
        result["exit_code"] = done.returncode
        if group is not None:
            result["group"] = group_counters(group)
    print(json.dumps(result, indent=1))
    return 0 if done.returncode == 0 and not result.get("grew") else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--switches", type=int, default=0)
    parser.add_argument("--budget", type=int, default=1_400 * MB, help="Bytes.")
    parser.add_argument("--beside", type=int, default=150 * MB, help="Bytes beside the budget.")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--pair", default="smollm2-135m,smollm2-135m", help="For --switches.")
    parser.add_argument("--folder", help="Where copies of the models go; the system's default.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.minutes <= 0 and options.switches <= 0:
        parser.error("give --minutes or --switches")
    if options.inside is not None:
        inside(options)
        sys.exit(0)
    return options


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[tuple[str, Path | None]]:
    for root, limit_file, _ in GROUPS:
        group = Path(root) / f"coterie-soak-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit_file).write_text(str(limit))
        except OSError:  # Another hierarchy is mounted there.
            group.rmdir()
            continue
        try:
            yield f"memory control group ({limit_file})", group
        finally:
            group.rmdir()
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    yield "RLIMIT_DATA", None


def group_counters(group: Path) -> dict[str, Any]:
    counters: dict[str, Any] = {}
    for name in ("memory.failcnt", *(peak for _, _, peak in GROUPS)):
        with contextlib.suppress(OSError, ValueError):
            counters[name] = int((group / name).read_text())
    for name in ("memory.oom_control", "memory.events"):
        with contextlib.suppress(OSError):
            for line in (group / name).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key in ("oom_kill", "oom", "high", "max"):
                    counters[key] = int(value)
    return counters


def inside(options: argparse.Namespace) -> None:
    """The measured process. Joins the group first, so that all it allocates counts."""
    if options.inside:
        (Path(options.inside) / "cgroup.procs").write_text(str(os.getpid()))
    result = traffic(options) if options.minutes > 0 else switches(options)
    json.dump(result, sys.stdout)


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def traffic(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return traffic_on(copied_experts(Path(folder)), options)


def copied_experts(folder: Path) -> Path:
    """A configuration of copies of all models of the store. The pages of a file are charged to the
    group that read them first: those of the store itself may be charged to another."""
    import coterie

    lines = []
    with coterie.Assistant.open() as assistant:
        for fields in assistant.experts():
            copy = folder / f"{fields['name']}.gguf"
            shutil.copyfile(fields["path"], copy)
            lines += ["[[expert]]", f'name = "{fields["name"]}"', f'model = "{copy}"']
    config = folder / "coterie.toml"
    config.write_text("\n".join(lines) + "\n")
    return config


def traffic_on(config: Path, options: argparse.Namespace) -> dict[str, Any]:
    import coterie

    assistant = coterie.Assistant.open(config, memory_budget=options.budget)
    names = [fields["name"] for fields in assistant.experts() if fields["fits"]]
    end = time.monotonic() + 60 * options.minutes
    outcomes: Counter[str] = Counter()
    peaks = {"VmRSS": 0, "RssAnon": 0}
    lock = threading.Lock()

    def client(number: int) -> None:
        chance = random.Random(options.seed * 1000 + number)
        while time.monotonic() < end:
            outcome = one_request(assistant, chance, names)
            with lock:
                outcomes[outcome] += 1
                for field in peaks:
                    peaks[field] = max(peaks[field], status_bytes(field))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = assistant.stats()
    return {
        "minutes": options.minutes,
        "budget_bytes": options.budget,
        "experts": names,
        "outcomes": dict(outcomes),
        "rss_peak_bytes": peaks,
        "budget_peak_bytes": stats["peak_bytes"],
        "counters": stats["counters"],
        "queue": stats["queue"],
        "health": stats["health"],
        **returned(assistant),
    }


def one_request(assistant: Any, chance: random.Random, names: list[str]) -> str:
    """A request as people and programs make them: most wait, some give up or lose patience."""
    options: dict[str, Any] = {
        "max_tokens": chance.choice((1, 4, 16)),
        "expert": chance.choice(names),
        "priority": chance.choice(("interactive", "interactive", "background")),
        "seed": 1,
        "log": False,
    }
    if chance.random() < 0.1:
        options["timeout"] = chance.random()
    try:
        stream = assistant.stream(chance.choice(PROMPTS), **options)
        for _ in stream:
            if chance.random() < 0.02:
                stream.close()
        how: str = stream.reply.timings.how
        return how
    except Exception as error:
        return type(error).__name__


def switches(options: argparse.Namespace) -> dict[str, Any]:
    import coterie

    first, second = options.pair.split(",")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        config = Path(folder) / "coterie.toml"
        config.write_text(pair_configuration(first, second, Path(folder)))
        assistant = coterie.Assistant.open(config)
        largest = max(int(fields["bytes"]) for fields in assistant.experts())
        resident = []
        start = time.monotonic()
        for i in range(options.switches):
            reply = assistant.generate(
                "Hi", expert=f"e{i % 2}", max_tokens=1, temperature=0, log=False
            )
            if i > 1 and reply.timings.how != "load":
                raise RuntimeError(f"request {i} did not switch: {reply.timings.how}")
            if i % 2 == 1:  # The same expert is in memory at every sample.
                resident.append((status_bytes("VmRSS"), status_bytes("RssAnon")))
        early = resident[min(20, len(resident) - 1)]
        growth = [late - soon for late, soon in zip(resident[-1], early, strict=True)]
        return {
            "switches": options.switches,
            "pair": [first, second],
            "largest_expert_bytes": largest,
            "seconds": time.monotonic() - start,
            "resident_bytes_after_40_switches": early[0],
            "resident_bytes_at_the_end": resident[-1][0],
            "growth_bytes": growth[0],
            "private_growth_bytes": growth[1],
            "grew": max(growth) > GROWTH_BYTES,
            "counters": assistant.stats()["counters"],
            **returned(assistant),
        }


def pair_configuration(first: str, second: str, folder: Path) -> str:
    """Two experts of which one fits. One model twice is two files, and so two bases."""
    import coterie

    with coterie.Assistant.open() as assistant:
        paths = {fields["name"]: Path(fields["path"]) for fields in assistant.experts()}
    models = [paths[first], paths[second]]
    if models[0] == models[1]:
        models[1] = folder / "copy.gguf"
        shutil.copyfile(models[0], models[1])
    sizes = [model.stat().st_size for model in models]
    budget = max(sizes) + min(sizes) // 2 + 40 * MB
    lines = [f"memory_budget = {budget}", "[cache]", "pressure = false"]
    for i, model in enumerate(models):
        lines += ["[[expert]]", f'name = "e{i}"', f'model = "{model}"']
    return "\n".join(lines) + "\n"


def returned(assistant: Any) -> dict[str, int]:
    """Resident bytes before and after everything that is idle has left."""
    before = status_bytes("VmRSS")
    router = assistant.stats()["bytes_by_purpose"]["router"]
    assistant.set_memory_budget(router)
    return {
        "resident_bytes_before_evicting_all": before,
        "resident_bytes_after_evicting_all": status_bytes("VmRSS"),
        "charged_bytes_after_evicting_all": assistant.stats()["used_bytes"],
    }


if __name__ == "__main__":
    sys.exit(main())
