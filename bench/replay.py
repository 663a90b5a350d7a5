"""Replays request traces against servers whose memory holds one expert fewer than are asked.

    make replay                                  coterie: its own policy, LRU, and Belady computed
    make replay LLAMA_SERVER=PROGRAM             beside llama-server in router mode
    make replay LLAMA_SERVER=PROGRAM WRITE=docs  and writes replay.md's tables, replay.json and .png

A trace is a file of bench/workloads/. Programs take turns on it, each started anew, with page
caches warm; every request is streamed over HTTP, and its first token is the first text that
arrives. Hits, loads and bytes are counted by the programs themselves. Belady's choice knows the
future and cannot be run: it is computed by the cache on a virtual clock, as `coterie simulate`
does, from the requests and load times that the first replay logged.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie import workload
from coterie.byte_size import format_bytes
from coterie.store import Store
from performance import machine, page, switch_plot, traces
from performance.servers import Coterie, LlamaServer
from performance.traces import Replayed, Trace

WORKLOADS = Path(__file__).parent / "workloads"
OURS, LRU, THEIRS = "coterie", "coterie, LRU", "llama-server"
BELADY = "Belady, computed"
ROOMY = 4_000_000_000
SHORT = "Say hello."


@dataclass(frozen=True)
class Sizes:
    """Bytes that coterie charges: for each expert, and for what is there before any."""

    experts: dict[str, int]
    beside: int

    def budget(self, trace: Trace) -> int:
        """Holds `fits` of the experts, any of them, and half of one more for what answers need."""
        sizes = sorted(self.experts[name] for name in trace.experts)
        return self.beside + sum(sizes[-trace.fits :]) + sizes[0] // 2


@dataclass(frozen=True)
class Setting:
    paths: dict[str, Path]
    threads: int
    llama_server: Path | None

    @contextmanager
    def coterie(self, budget: int, policy: str = "coterie") -> Iterator[Coterie]:
        with (
            tempfile.TemporaryDirectory(prefix="coterie-replay-") as folder,
            Coterie(self.paths, budget, self.threads, policy, Path(folder)) as server,
        ):
            yield server

    def measure_sizes(self) -> Sizes:
        """Asks everybody once, which also brings the files into the page cache."""
        with self.coterie(ROOMY) as server:
            beside = server.get("/v1/stats")["used_bytes"]
            for name in self.paths:
                server.ask(traces.Asked(0, name, SHORT, 1))
            log = workload.read_log(server.request_log)
        return Sizes({base.name: base.bytes for base in log.bases}, beside)

    def replay(self, program: str, trace: Trace, budget: int) -> tuple[Replayed, workload.Workload]:
        """The log is that of coterie, and empty for llama-server."""
        if program == THEIRS:
            assert self.llama_server is not None
            with (
                tempfile.TemporaryDirectory(prefix="coterie-replay-") as folder,
                LlamaServer(
                    self.llama_server, self.paths, trace.fits, self.threads, Path(folder)
                ) as peer,
            ):
                replayed, log = peer.replay(trace), workload.Workload([], [])
        else:
            with self.coterie(budget, "lru" if program == LRU else "coterie") as server:
                replayed = server.replay(trace)
                log = workload.read_log(server.request_log)
        replayed.check(trace, budget)
        return replayed, log


def compare(setting: Setting, sizes: Sizes, trace: Trace, rounds: int) -> dict[str, Any]:
    """All programs on one trace, in turn."""
    budget = sizes.budget(trace)
    programs = [OURS, LRU, *([THEIRS] if setting.llama_server else [])]
    replays: dict[str, list[Replayed]] = {program: [] for program in programs}
    logs = []
    for number in range(rounds):
        for program in programs if number % 2 == 0 else reversed(programs):
            replayed, log = setting.replay(program, trace, budget)
            replays[program].append(replayed)
            if program == OURS:
                logs.append(log)
    check_texts(trace, replays)
    simulated = {
        policy: workload.simulate(traces.in_turns(logs[0], trace), budget - sizes.beside, policy)
        for policy in workload.POLICIES
    }
    rows = [traces.line(trace, program, replays[program]) for program in programs]
    rows.insert(2, traces.computed_line(trace, BELADY, simulated["belady"]))
    return {
        "trace": trace.name,
        "what": trace.what,
        "experts": trace.experts,
        "fits": trace.fits,
        "requests": len(trace.requests),
        "budget_bytes": budget,
        "rows": rows,
        "simulated": simulated,
        "replays": {name: [each.samples() for each in its] for name, its in replays.items()},
    }


def check_texts(trace: Trace, replays: dict[str, list[Replayed]]) -> None:
    """What is in memory must not change what is answered; and all read prompts of one length."""
    ours = [*replays[OURS], *replays[LRU]]
    for number, asked in enumerate(trace.requests):
        if len({each.answers[number].text for each in ours}) != 1:
            raise SystemExit(f"{trace.name}: {asked} got different answers")
    tokens = [sum(answer.prompt_tokens for answer in its[0].answers) for its in replays.values()]
    if min(tokens) != max(tokens):
        counts = dict(zip(replays, tokens, strict=True))
        print(f"{trace.name}: tokens read differ: {counts}", file=sys.stderr)


def section(result: dict[str, Any]) -> list[str]:
    return [
        f"### {result['trace']}: {result['what']}",
        "",
        f"{result['requests']} requests to {', '.join(result['experts'])}; {result['fits']} of "
        f"{len(result['experts'])} fit in {format_bytes(result['budget_bytes'])}.",
        "",
        *traces.table(result["rows"]),
        "",
    ]


def write(
    folder: Path, about: dict[str, Any], chosen: Sequence[Trace], results: Sequence[dict[str, Any]]
) -> None:
    lines = page.machine_table(about)
    for result in results:
        lines += ["", *section(result)[:-1]]
    page.replace_part(folder / "replay.md", lines)
    content = {"machine": about, "traces": results}
    (folder / "replay.json").write_text(json.dumps(content, indent=1) + "\n")
    switch_plot.plot(folder / "replay.png", chosen[: len(results)], results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("traces", nargs="*", type=Path, help="all of bench/workloads if not given")
    parser.add_argument("--llama-server", type=Path, metavar="PROGRAM", help="llama.cpp's server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each program; 2")
    parser.add_argument("--json", action="store_true", help="all samples, on stdout")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="replay.md, .json and .png there"
    )
    return parser.parse_args()


def main() -> int:
    options = parse()
    chosen = [traces.read(path) for path in options.traces or sorted(WORKLOADS.glob("*.json"))]
    store = Store()
    paths = {}
    for name in sorted({name for trace in chosen for name in trace.experts}):
        record = store.find(name)
        if record is None:
            print(f"{name} is missing: coterie pull {name}", file=sys.stderr)
            return 1
        paths[name] = Path(store.path_of(record)).resolve()
    if options.llama_server is None:
        print("no llama-server beside it: give --llama-server PROGRAM", file=sys.stderr)
    setting = Setting(paths, options.threads, options.llama_server)
    sizes = setting.measure_sizes()
    about = machine.describe()
    results = []
    for trace in chosen:
        result = compare(setting, sizes, trace, options.rounds)
        print(
            "\n".join(section(result)), file=sys.stderr if options.json else sys.stdout, flush=True
        )
        results.append(result)
        if options.write:
            write(options.write, about, chosen, results)
    if options.json:
        print(json.dumps({"machine": about, "traces": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
