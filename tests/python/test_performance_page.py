"""The page that `make bench` writes: bench/performance/page.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from performance import page, switch_plot
from performance.rows import Row
from performance.traces import Asked, Trace

MACHINE: dict[str, Any] = {
    "cpu": "a CPU",
    "commit": "abc",
    "isa": "avx2",
    "threads": 2,
    "read_bytes_per_second": 1e10,
    "core_to_core_seconds": 3e-8,
    "int8_macs_per_second": 1e11,
    "bf16_macs_per_second": 1e11,
    "f32_macs_per_second": 1e11,
}
PREFILL = Row("small", "prefill 512", "tokens/s", [10.0, 12.0], [2.0, 2.0], 5.0, limit=40.0)
MEMORY = Row("small", "resident beyond tensors", "MB", [20.0], [], 60.0, "lower")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(page, "plot", lambda *_: None)  # Slow.
    page.write(tmp_path, MACHINE, [PREFILL, MEMORY], "make bench")
    return tmp_path


def test_samples_of_the_same_commit_add_up(folder: Path) -> None:
    again = Row("small", "prefill 512", "tokens/s", [14.0], [1.0], 5.0, limit=30.0)
    rows = page.together(page.earlier(folder, MACHINE), [again])
    assert [row.what for row in rows] == ["prefill 512", "resident beyond tensors"]
    assert (rows[0].ours, rows[0].theirs, rows[0].limit) == ([10, 12, 14], [2, 2, 1], 40)
    assert rows[1] == MEMORY


@pytest.mark.parametrize("other", [{"commit": "def"}, {"cpu": "another"}])
def test_samples_of_another_commit_or_cpu_do_not(folder: Path, other: dict[str, Any]) -> None:
    assert page.earlier(folder, MACHINE | other) == []


def test_a_first_page_has_nothing_before_it(tmp_path: Path) -> None:
    assert page.earlier(tmp_path, MACHINE) == []


def test_switches_are_requests_to_another_expert_than_the_one_before() -> None:
    requests = [Asked(i, name, "", 1) for i, name in enumerate(["a", "a", "b", "b", "a"])]
    at = switch_plot.switches(Trace("some", "", ["a", "b"], 1, requests))
    assert at == [2, 4]
    replays = [{"first_token_ms": [9.0, 9.0, ms, 9.0, 2 * ms]} for ms in (1.0, 2.0, 6.0)]
    assert switch_plot.first_tokens(replays, at) == [2.0, 4.0]
