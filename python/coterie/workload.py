"""Streams of requests for `coterie simulate`: read from a request log, or made up; and the run."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIELDS = ("t", "base", "base_bytes", "kv_bytes", "load_s", "hold_s")

# Where nothing was measured: a disk, or a page cache, of about a gigabyte a second.
_BYTES_PER_SECOND = 1e9

_BURST = 6  # Requests that arrive at once.

POLICIES = ("coterie", "lru", "belady")  # Of simulate().


@dataclass(frozen=True)
class Base:
    """What is loaded and evicted: the weights that one or several experts share."""

    name: str
    bytes: int
    load_s: float


@dataclass(frozen=True)
class Request:
    """arrival_s: since the start; base: an index; kv_bytes: KV and scratch; hold_s: how long the
    answer takes once it has its memory."""

    arrival_s: float
    base: int
    kv_bytes: int
    hold_s: float


@dataclass(frozen=True)
class Workload:
    bases: list[Base]
    requests: list[Request]  # In order of arrival.

    def largest_need(self) -> int:
        """Below this budget some request can never be answered."""
        return max(self.bases[each.base].bytes + each.kv_bytes for each in self.requests)

    def everything(self) -> int:
        """With this budget every base stays loaded, one request at a time."""
        used = {each.base for each in self.requests}
        kv = max(each.kv_bytes for each in self.requests)
        return sum(self.bases[each].bytes for each in used) + kv


def base_of(name: str, n_bytes: int, load_s: float | None = None) -> Base:
    return Base(name, n_bytes, n_bytes / _BYTES_PER_SECOND if load_s is None else load_s)


def read_log(path: Path) -> Workload:
    """The log that `request_log` of a coterie.toml writes. ValueError names file and line.

    A base loads as fast as the mean of its loads in the log, or a gigabyte a second.
    """
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_row(line, f"{path}, line {number}"))
    if not rows:
        raise ValueError(f"{path} has no requests")
    rows.sort(key=lambda row: row["t"])
    names = sorted({row["base"] for row in rows})
    bases = []
    for name in names:
        own = [row for row in rows if row["base"] == name]
        loads = [row["load_s"] for row in own if row["load_s"] > 0]
        mean = sum(loads) / len(loads) if loads else None
        bases.append(base_of(name, max(row["base_bytes"] for row in own), mean))
    start = rows[0]["t"]
    requests = [
        Request(row["t"] - start, names.index(row["base"]), row["kv_bytes"], row["hold_s"])
        for row in rows
    ]
    return Workload(bases, requests)


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        row = {name: fields[name] for name in _FIELDS}
        if not isinstance(row["base"], str) or not row["base"]:
            raise TypeError("base must be a name")
        for name in _FIELDS:
            number = row[name]
            if name == "base":
                continue
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise TypeError(f"{name} must be a number")
            if not 0 <= number < 1e18:
                raise ValueError(f"{name} must not be negative")
        row["base_bytes"], row["kv_bytes"] = int(row["base_bytes"]), int(row["kv_bytes"])
        if row["base_bytes"] == 0:
            raise ValueError("base_bytes must be above 0")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{where}: expected an object with {', '.join(_FIELDS)}: {error}"
        ) from None
    return row


def make(
    kind: str,
    bases: list[Base],
    *,
    n_requests: int,
    gap_s: float,
    hold_s: float,
    kv_bytes: int,
    seed: int,
) -> Workload:
    """zipf: the k-th base is asked for 1/k as often as the first, at random times; cyclic: one
    after the other; ping-pong: the first two in turns; bursts: six at once, drawn as for zipf, then
    a gap as long as theirs together. ValueError for any other."""
    chance = random.Random(seed)
    n = len(bases)
    order: Iterable[int]
    if kind in ("zipf", "bursts"):
        order = chance.choices(range(n), [1 / (k + 1) for k in range(n)], k=n_requests)
    elif kind == "cyclic":
        order = (i % n for i in range(n_requests))
    elif kind == "ping-pong":
        if n < 2:
            raise ValueError("ping-pong needs two bases")
        order = (i % 2 for i in range(n_requests))
    else:
        raise ValueError(f'a workload is zipf, cyclic, ping-pong or bursts, not "{kind}"')
    requests = []
    now = 0.0
    for base in order:
        requests.append(Request(now, base, kv_bytes, hold_s))
        if kind == "bursts":
            now += 0 if len(requests) % _BURST else _BURST * gap_s
        else:
            now += chance.expovariate(1 / gap_s) if kind == "zipf" and gap_s > 0 else gap_s
    return Workload(bases, requests)


def simulate(stream: Workload, budget: int, policy: str) -> dict[str, Any]:
    """Runs the requests through the program's own cache on a virtual clock: hits, loads, waits and
    bytes of a policy, one of POLICIES."""
    native = importlib.import_module("coterie._coterie")
    bases = [(each.name, each.bytes, each.load_s) for each in stream.bases]
    requests = [(r.arrival_s, r.base, r.kv_bytes, r.hold_s) for r in stream.requests]
    return dict(native.simulate(bases, requests, budget, policy))
