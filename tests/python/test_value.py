"""The tasks of `coterie bench value`, how answers are scored, and the table that comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coterie.value import measurements
from coterie.value.matrix import Answer, AnswerLog, summarise
from coterie.value.sandbox import run_python
from coterie.value.scoring import score
from coterie.value.tasks import DOMAINS, load


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_sixty_tasks_with_names_of_their_own(domain: str) -> None:
    tasks = load([domain])
    assert len(tasks) >= 60
    assert len({task.id for task in tasks}) == len(tasks)


def test_fewer_tasks_are_spread_over_the_whole_set() -> None:
    assert [task.id for task in load(["general"], 2)] == ["question-0", "question-32"]


def test_unknown_domains_and_empty_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="choose from code, math"):
        load(["cooking"])
    with pytest.raises(ValueError, match="at least one"):
        load(["code"], 0)


def test_an_empty_answer_is_never_right() -> None:
    for task in load(n_per_domain=8):
        assert score(task.check, "") == 0.0, task.id


def test_no_answer_is_right_for_every_question_of_a_domain() -> None:
    answers = ["yes", "1 2 3 4 5", "{}", "Hello.\nHello.\nHello.\nHello.", "positive not urgent"]
    for domain in ("math", "general", "textops", "translate", "assistant", "writing"):
        for answer in answers:
            right = sum(score(task.check, answer) for task in load([domain]))
            assert right <= len(load([domain])) / 3, (domain, answer)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"kind": "number", "answer": 1250.0}, "3 * 4 = 12, so $1,250.00.", "1250 and 12"),
        (
            {"kind": "json", "answer": {"action": "on", "level": 40}},
            'Sure: ```json\n{"level": "40", "action": "on"}\n```',
            '{"action": "on"}',
        ),
        ({"kind": "any_of", "answers": ["J'ai faim"]}, "« J’ai faim. »", "j'ai faims"),
        ({"kind": "any_of", "answers": ["8"]}, "It has 8 legs.", "It has 8.5 or 18."),
        (
            {"kind": "label", "answer": "not urgent", "labels": ["urgent", "not urgent"]},
            "Not urgent.",
            "Urgent!",
        ),
        (
            {"kind": "label", "answer": "sports", "labels": ["sports", "politics"]},
            "It is about sports, not politics.",
            "politics or sports",
        ),
        ({"kind": "rules", "rules": [{"sentences": [2, 2]}]}, "One. Two!", "One, two."),
        ({"kind": "rules", "rules": [{"lines": [2, 2]}]}, "a\n\nb\n", "a"),
        ({"kind": "rules", "rules": [{"bullets": [2, 2]}]}, "Tips:\n- a\n- b", "- a"),
        ({"kind": "rules", "rules": [{"upper": True}]}, "BEES!", "Bees"),
        ({"kind": "rules", "rules": [{"each_starts": "Tea"}]}, "Tea is. Tea was.", "Tea. No."),
        ({"kind": "rules", "rules": [{"line_starts": ["A:", "B:"]}]}, "A: x\nB: y", "A: x\nA: y"),
    ],
)
def test_an_answer_is_scored_by_what_it_says(check: dict[str, Any], right: str, wrong: str) -> None:
    assert score(check, right) == 1.0
    assert score(check, wrong) == 0.0


FUNCTION = {
    "kind": "python_function",
    "prefix": "import math\n\n\ndef root(x):\n    '''The square root.'''\n",
    "entry_point": "root",
    "test": "def check(f):\n    assert f(9) == 3\n",
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("```python\ndef root(x):\n    return math.sqrt(x)\n```", 1.0),
        ("    return math.sqrt(x)", 1.0),
        ("```python\ndef root(x):\n    return math.sqrt(x)", 1.0),
        ("```python\ndef root(x):\n    return x\n```", 0.0),
        ("```python\ndef root(x):\n    while True: pass\n```", 0.0),
        ("```python\nimport os; os._exit(0)\n```", 0.0),
    ],
)
def test_a_function_is_right_when_it_passes_its_test(answer: str, expected: float) -> None:
    assert score(FUNCTION, answer) == expected


def test_a_line_is_right_whatever_its_indentation() -> None:
    check = {
        "kind": "python_line",
        "prefix": "def double(x):\n",
        "suffix": "    return y\n",
        "entry_point": "double",
        "test": "def check(f):\n    assert f(2) == 4\n",
    }
    assert score(check, "```\ny = 2 * x\n```") == 1.0
    assert score(check, "y = x") == 0.0


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "open('x', 'w')",
        "import os; os.open('x', os.O_CREAT | os.O_WRONLY)",
        "x = bytearray(1 << 31)",
        "raise SystemExit(0)",
        "while True: print('x' * 1000)",
    ],
)
def test_code_cannot_leave_its_process(code: str) -> None:
    assert not run_python(code)[0]


def test_code_that_does_not_end_is_ended() -> None:
    assert run_python("while True: pass", timeout_s=0.3) == (False, "it did not end in 0.3 s")


def an_answer(**fields: Any) -> Answer:
    return replace(
        Answer(
            expert="small",
            base="sha256:1",
            task="t0",
            domain="code",
            score=1.0,
            seconds=2.0,
            first_token_ms=10.0,
            prompt_tokens=5,
            tokens=7,
            mean_logprob=-0.5,
            least_logprob=-2.0,
            finish_reason="stop",
            text="é",
        ),
        **fields,
    )


def test_a_log_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    AnswerLog(path).add(an_answer())
    again = AnswerLog(path)
    assert again.answers == [an_answer()]
    assert again.has("small", "sha256:1", "t0")
    assert not again.has("small", "sha256:2", "t0")


def test_a_file_that_is_no_log_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1"):
        AnswerLog(path)


def test_a_cell_is_the_mean_of_its_answers() -> None:
    cell = summarise([an_answer(), an_answer(task="t1", score=0.0, seconds=4.0)])["small"]["code"]
    assert (cell.n, cell.quality, cell.seconds) == (2, 0.5, 3.0)
    assert 0.3 < cell.half_width < 0.5


def test_measurements_are_added_to_those_of_other_experts(tmp_path: Path) -> None:
    small = {"name": "small", "base": "sha256:1", "adapter": ""}
    large = {"name": "large", "base": "sha256:2", "adapter": "home"}
    measurements.write(tmp_path, [small], summarise([an_answer()]))
    path = measurements.write(tmp_path, [large], summarise([an_answer(expert="large")]))
    entries = json.loads(path.read_text())["experts"]
    assert [(entry["base"], entry["adapter"]) for entry in entries] == [
        ("sha256:1", ""),
        ("sha256:2", "home"),
    ]
    assert entries[0]["domains"]["code"] == {"quality": 1.0, "answer_seconds": 2.0, "n": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["measurements.json"]
