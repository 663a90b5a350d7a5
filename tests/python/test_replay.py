"""What bench/replay.py makes of traces and answers, without servers and models."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from coterie.workload import Base, Request, Workload

BENCH = Path(__file__).parents[2] / "bench"
sys.path[:0] = [str(BENCH), str(BENCH / "workloads")]

import make  # noqa: E402
import replay  # noqa: E402
from performance import page, servers, traces  # noqa: E402
from performance.traces import Answer, Asked, Replayed, Trace  # noqa: E402

COMMITTED = sorted((BENCH / "workloads").glob("*.json"))


def trace_of(*turns: str) -> Trace:
    """A letter is a request to the expert of that name."""
    asked = [Asked(turn, name, "Hi", 1) for turn, names in enumerate(turns) for name in names]
    return Trace("t", "a test", sorted(set("".join(turns))), 1, asked)


def replayed(trace: Trace, first_ms: float = 10.0, **changes: Any) -> Replayed:
    answers = [Answer(each.expert, "Yes", first_ms, 5) for each in trace.requests]
    return Replayed(
        **{"answers": answers, "loads": 1, "bytes_loaded": 7, "seconds": 2.0, **changes}
    )


@pytest.mark.parametrize("name", make.KINDS)
def test_the_committed_traces_are_those_that_the_script_writes(name: str) -> None:
    assert (BENCH / "workloads" / f"{name}.json").read_text() == make.text(make.KINDS[name])


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_no_prompt_of_a_trace_comes_twice_and_one_expert_too_many_is_asked(path: Path) -> None:
    trace = traces.read(path)
    assert trace.fits == len(trace.experts) - 1
    assert len({each.prompt for each in trace.requests}) == len(trace.requests)
    assert [each for turn in trace.turns() for each in turn] == trace.requests


def test_a_burst_is_one_turn() -> None:
    assert {len(turn) for turn in traces.read(BENCH / "workloads/bursts.json").turns()} == {6}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"requests": []}, "no requests"),
        ({"fits": 2}, "fits must be"),
        ({"experts": ["b", "c"]}, 'expert "a" is not of this trace'),
        ({"requests": [{"turn": 1, "expert": "a", "prompt": "Hi", "max_tokens": 1}]}, "turns must"),
        ({"requests": [{"turn": 0, "expert": "a", "prompt": "", "max_tokens": 1}]}, "asks nothing"),
        ({"requests": [{"turn": 0}]}, "expert"),
    ],
)
def test_a_wrong_trace_names_the_file_and_what_is_wrong(
    tmp_path: Path, changes: dict[str, object], what: str
) -> None:
    request = {"turn": 0, "expert": "a", "prompt": "Hi", "max_tokens": 1}
    fields = {"what": "a test", "experts": ["a", "b"], "fits": 1, "requests": [request]}
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(fields))
    assert traces.read(path).requests == [Asked(0, "a", "Hi", 1)]
    path.write_text(json.dumps({**fields, **changes}))
    with pytest.raises(ValueError, match=r"wrong\.json: no request trace: ") as error:
        traces.read(path)
    assert what in str(error.value)


def test_a_percentile_is_one_of_the_values() -> None:
    hundred = [float(i) for i in range(100, 0, -1)]
    assert [traces.percentile(hundred, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert traces.percentile([3.0], 0.99) == 3.0


def test_a_row_is_over_all_rounds() -> None:
    trace = trace_of("a", "b", "a", "b")
    row = traces.line(
        trace, "x", [replayed(trace, 10, loads=2), replayed(trace, 30, loads=4, bytes_loaded=9)]
    )
    assert (row["hit_rate"], row["loads"], row["bytes_loaded"]) == (0.25, 3, 8)
    assert (row["first_token_p50_ms"], row["first_token_p99_ms"]) == (10, 30)


def test_samples_hold_what_was_measured_and_no_text() -> None:
    samples = replayed(trace_of("a", "b"), 10.128, peak_bytes=3).samples()
    assert samples["first_token_ms"] == [10.13, 10.13]
    assert "Yes" not in json.dumps(samples)


def test_what_was_computed_has_no_times() -> None:
    trace = trace_of("a", "b")
    simulated = {"loads": 1, "bytes_loaded": 2_000_000_000}
    rows = [
        traces.line(trace, "x", [replayed(trace, 12.4)]),
        traces.computed_line(trace, "y", simulated),
    ]
    lines = traces.table(rows)
    assert lines[2] == "| x | 50% | 12 ms | 12 ms | 1 | 0.00 GB | 2.0 s |"
    assert lines[3] == "| y | 50% | - | - | 1 | 2.00 GB | - |"
    assert {line.count("|") for line in lines} == {8}


@pytest.mark.parametrize(
    "wrong",
    [
        {"answers": [Answer("b", "Yes", 1, 1)]},
        {"answers": [Answer("a", " ", 1, 1)]},
        {"peak_bytes": 101},
    ],
)
def test_a_replay_that_went_wrong_is_not_timed(wrong: dict[str, Any]) -> None:
    trace = trace_of("a")
    replayed(trace, peak_bytes=100).check(trace, 100)
    with pytest.raises(SystemExit):
        replayed(trace, **wrong).check(trace, 100)


def test_answers_that_depend_on_what_is_in_memory_end_the_comparison() -> None:
    trace = trace_of("a")
    same, other = replayed(trace), replayed(trace, answers=[Answer("a", "No", 1, 5)])
    replay.check_texts(trace, {replay.OURS: [same, same], replay.LRU: [same]})
    with pytest.raises(SystemExit, match="different answers"):
        replay.check_texts(trace, {replay.OURS: [same, same], replay.LRU: [other]})


def test_turns_of_a_simulated_log_do_not_overlap() -> None:
    bases = [Base("a", 100, 1.0), Base("b", 100, 2.0)]
    log = Workload(bases, [Request(t, base, 1, 0.5) for t, base in ((0, 0), (0, 1), (0.1, 0))])
    apart = traces.in_turns(log, trace_of("ab", "a"))
    assert [each.arrival_s for each in apart.requests] == [0, 0, 8]
    with pytest.raises(ValueError, match="3 requests were logged and 1 sent"):
        traces.in_turns(log, trace_of("a"))


def test_the_budget_holds_any_of_the_experts_that_fit_and_never_one_more() -> None:
    sizes = replay.Sizes({"a": 100, "b": 300, "c": 500}, 30)
    trace = Trace("t", "a test", ["a", "b", "c"], 2, [])
    assert sizes.budget(trace) == 30 + 500 + 300 + 50
    assert sizes.budget(trace) < 30 + 100 + 300 + 500


def test_the_first_token_is_the_first_text_of_a_stream() -> None:
    def chunk(**fields: Any) -> str:
        return "data: " + json.dumps({"model": "m", "choices": [], **fields})

    lines = [
        ": a comment",
        chunk(choices=[{"delta": {"role": "assistant", "content": ""}}]),
        chunk(choices=[{"delta": {"content": "He"}}]),
        "",
        chunk(choices=[{"delta": {"content": "llo"}}]),
        chunk(choices=[{"delta": {}}]),
        chunk(usage={"prompt_tokens": 9}),
        "data: [DONE]",
    ]
    ticks = count(1)
    assert servers.read_stream(lines, lambda: next(ticks)) == ("m", "Hello", 1, 9)
    with pytest.raises(SystemExit, match="broke off"):
        servers.read_stream(['data: {"error": {"message": "no"}}'], lambda: 0)


def test_only_what_is_between_the_marks_of_a_page_is_written(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"# Mine\n\n{page.WRITTEN}\nold\n{page.WRITTEN_END}\n\nMine too.\n")
    for _ in range(2):
        page.replace_part(file, ["new"])
        written = f"# Mine\n\n{page.WRITTEN}\nnew\n{page.WRITTEN_END}\n\nMine too.\n"
        assert file.read_text() == written
    file.write_text("# Nothing\n")
    with pytest.raises(ValueError, match=r"page\.md has no"):
        page.replace_part(file, ["new"])
