"""coterie simulate: from a log or a made-up workload to a table of budgets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from coterie import workload
from coterie.cli.main import run

BASES = ["--base", "a=100MB@1", "--base", "b=100MB@1", "--base", "c=100MB@1"]


def log_line(t: float, base: str, **changes: object) -> str:
    row = {"t": t, "base": base, "base_bytes": 100, "kv_bytes": 10, "load_s": 0.5, "hold_s": 2.0}
    return json.dumps({**row, **changes}) + "\n"


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, dict[str, int]]]:
    assert run(["simulate", *arguments, "--json"]) == 0
    rows: list[dict[str, dict[str, int]]] = json.loads(capsys.readouterr().out)["budgets"]
    return rows


def test_a_log_becomes_bases_with_their_mean_load_and_requests_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        log_line(1003, "b", load_s=0.0)
        + "\n"
        + log_line(1000, "a", load_s=1.0)
        + log_line(1001.5, "a", load_s=0.0)
        + log_line(1009, "a", load_s=3.0, kv_bytes=50)
    )
    stream = workload.read_log(log)
    assert [each.name for each in stream.bases] == ["a", "b"]
    assert stream.bases[0].load_s == 2.0  # Hits do not count.
    assert stream.bases[1].load_s == pytest.approx(100 / 1e9)  # Never measured.
    assert [each.arrival_s for each in stream.requests] == [0, 1.5, 3, 9]
    assert stream.largest_need() == 150
    assert stream.everything() == 250


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("not json", "line 2"),
        ('{"t": 1}', "'base'"),
        (log_line(1, "a", base_bytes="much"), "base_bytes must be a number"),
        (log_line(1, "a", hold_s=-1), "hold_s must not be negative"),
        (log_line(1, "a", kv_bytes=float("nan")), "kv_bytes must not be negative"),
        (log_line(1, "", base_bytes=5), "base must be a name"),
        (log_line(1, "a", base_bytes=0), "above 0"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_a_wrong_line_names_file_and_line(tmp_path: Path, line: str, what: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(log_line(1, "a") + line)
    with pytest.raises(ValueError, match=r"log.jsonl, line 2: expected an object") as error:
        workload.read_log(log)
    assert what in str(error.value)


def test_an_empty_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no requests"):
        workload.read_log(tmp_path / "log.jsonl")


def made(kind: str, n_bases: int = 3, seed: int = 1) -> list[int]:
    bases = [workload.base_of(str(i), 100) for i in range(n_bases)]
    stream = workload.make(kind, bases, n_requests=3000, gap_s=1, hold_s=1, kv_bytes=1, seed=seed)
    arrivals = [each.arrival_s for each in stream.requests]
    assert arrivals == sorted(arrivals)
    return [each.base for each in stream.requests]


def test_workloads_are_what_their_names_say() -> None:
    assert made("cyclic")[:5] == [0, 1, 2, 0, 1]
    assert made("ping-pong")[:4] == [0, 1, 0, 1]
    counts = Counter(made("zipf"))
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.15)
    assert counts[0] / counts[2] == pytest.approx(3, rel=0.15)
    assert made("zipf") == made("zipf") != made("zipf", seed=2)
    assert Counter(made("bursts"))[0] / 3000 == pytest.approx(6 / 11, rel=0.15)


def test_a_burst_is_six_requests_at_once_and_then_none() -> None:
    bases = [workload.base_of("a", 100)]
    stream = workload.make("bursts", bases, n_requests=8, gap_s=2, hold_s=1, kv_bytes=1, seed=1)
    assert [each.arrival_s for each in stream.requests] == [0] * 6 + [12] * 2


def test_one_base_over_capacity_is_the_cliff_of_lru(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--workload", "cyclic", *BASES, "--requests", "90", "--kv", "10MB"]
    tight, roomy = rows_of(capsys, *settings, "--budget", "220MB", "--budget", "320MB")
    assert tight["lru"]["hits"] == 0
    assert tight["belady"]["hits"] > 30
    assert roomy["coterie"]["hits"] == roomy["lru"]["hits"] == 87
    assert roomy["coterie"]["bytes_loaded"] == 300_000_000


def test_the_budgets_range_from_the_largest_request_to_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = rows_of(capsys, "--workload", "cyclic", *BASES, "--requests", "30", "--kv", "10MB")
    budgets = [row["budget_bytes"] for row in rows]
    assert (budgets[0], budgets[-1], len(budgets)) == (110_000_000, 310_000_000, 6)
    assert all(row["coterie"]["refused"] == 0 for row in rows)


def test_a_log_gives_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(log_line(10 * i, "ab"[i % 2]) for i in range(20)))
    assert run(["simulate", str(log), "--budget", "120B", "--budget", "210B"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "budget" in table[0] and len(table) == 1 + 2 * 3
    assert "120 bytes" in table[1] and "coterie" in table[1] and "0.0 %" in table[1]
    assert "210 bytes" in table[4] and "90.0 %" in table[4] and "belady" in table[6]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("log.jsonl", "--workload", "zipf"),
        ("--workload", "random", *BASES),
        ("--workload", "zipf", "--base", "a"),
        ("--workload", "zipf", "--base", "a=lots"),
        ("--workload", "zipf", "--base", "a=1MB@soon"),
        ("--workload", "ping-pong", "--base", "a=1MB"),
        ("--workload", "zipf", *BASES, "--budget", "much"),
    ],
)
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(["simulate", *arguments]) == 2
