"""Writes the tasks that `coterie bench value` asks: python/coterie/value/tasks/*.jsonl.

    bench/value/make_tasks.py [--infilling FILE.jsonl.gz] [--smart-home FILE.jsonl]

Each line is one task: id, domain, prompt (and perhaps system), max_tokens, perhaps stop, and check,
which says how an answer is scored (coterie/value/scoring.py). Code comes from HumanEval by way of
openai/human-eval-infilling (MIT), smart-home commands from acon96/home-llm's lists (MIT); all else
is our own. The output is committed, so that nobody needs the sources to measure an expert.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from own_tasks import (
    CLASSIFICATIONS,
    CLOSED_QUESTIONS,
    PASSAGES,
    RECORDS,
    TRANSLATIONS,
    WORD_PROBLEMS,
    WRITING,
)

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "python/coterie/value/tasks"
Task = dict[str, Any]


def task(
    kind: str,
    number: int | str,
    domain: str,
    prompt: str,
    max_tokens: int,
    check: dict[str, Any],
    *,
    system: str | None = None,
    stop: list[str] | None = None,
) -> Task:
    """One line of a file; `check["kind"]` says how its answer is scored."""
    made: Task = {"id": f"{kind}-{number}", "domain": domain}
    if system is not None:
        made["system"] = system
    made |= {"prompt": prompt, "max_tokens": max_tokens}
    if stop is not None:
        made["stop"] = stop
    return made | {"check": check}


def humaneval(path: Path) -> dict[str, dict[str, Any]]:
    """HumanEval's problems, put together again from the infilling set's first lines."""
    problems: dict[str, dict[str, Any]] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            _, _, number, which = row["task_id"].split("/")
            problem = problems.setdefault(number, {"infills": []})
            if which == "L0":
                problem |= {key: row[key] for key in ("prompt", "entry_point", "test")}
            problem["infills"].append(row)
    return {number: problem for number, problem in problems.items() if "prompt" in problem}


def function_tasks(problems: dict[str, dict[str, Any]], n: int) -> Iterator[Task]:
    """Functions to write from their signature and docstring."""
    numbers = sorted(problems, key=int)
    for number in numbers[:: len(numbers) // n][:n]:
        problem = problems[number]
        check = {"kind": "python_function", "prefix": problem["prompt"]}
        check |= {field: problem[field] for field in ("entry_point", "test")}
        prompt = (
            "Complete this Python function. Answer with the whole function in one code "
            f"block and nothing else.\n\n```python\n{problem['prompt'].rstrip()}\n```"
        )
        yield task("function", number, "code", prompt, 384, check, stop=["\n```\n"])


def infilling_tasks(problems: dict[str, dict[str, Any]], n: int) -> Iterator[Task]:
    """One line to fill in, of problems that function_tasks leaves alone."""
    numbers = sorted(problems, key=int)[1::2]
    for number in numbers[:: len(numbers) // n][:n]:
        infills = problems[number]["infills"]
        row = infills[len(infills) // 2]
        check = {"kind": "python_line", "prefix": row["prompt"]}
        check |= {field: row[field] for field in ("suffix", "entry_point", "test")}
        prompt = (
            "One line of this Python code is missing, where it says MISSING LINE. "
            "Answer with that line only, in a code block.\n\n```python\n"
            f"{row['prompt']}# MISSING LINE\n{row['suffix']}```"
        )
        yield task("infilling", number, "code", prompt, 96, check, stop=["\n```\n"])


HOME = """You control a smart home. Answer with one JSON object and nothing else:
{{"action": ACTION, "device": DEVICE, "parameters": {{}}}}
Actions: {actions}.
Devices: {devices}.
Parameters: {{}} unless the command gives a value; then one of "color", "brightness_pct", \
"temperature", "humidity", "mode", "fan_mode", "duration", "item" with that value."""


def home_tasks(path: Path, n: int) -> Iterator[Task]:
    """Commands to one of eight devices; action, device and parameters have to be right."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    devices = sorted({row["answer"]["device"] for row in rows})
    actions = ", ".join(sorted({row["answer"]["action"] for row in rows}))
    choose = random.Random(7)
    for i, row in enumerate(choose.sample(rows, n)):
        answer = row["answer"]
        others = choose.sample([d for d in devices if d != answer["device"]], 7)
        named = sorted([answer["device"], *others])
        system = HOME.format(actions=actions, devices=", ".join(named))
        check = {"kind": "json", "answer": answer}
        yield task("home", i, "assistant", row["text"], 80, check, system=system)


def math_tasks(n: int) -> Iterator[Task]:
    choose = random.Random(11)
    for i in range(n):
        text, answer = WORD_PROBLEMS[i % len(WORD_PROBLEMS)](choose)
        prompt = f"{text} Think in short steps, then give the answer as a number on the last line."
        yield task("arithmetic", i, "math", prompt, 200, {"kind": "number", "answer": answer})


def textops_tasks() -> Iterator[Task]:
    for i, (text, fields) in enumerate(RECORDS):
        names = ", ".join(f'"{name}"' for name in fields)
        prompt = (
            f"Extract {names} from this text as one JSON object with these keys, copied "
            f"as they are written, and nothing else.\n\n{text}"
        )
        yield task("extraction", i, "textops", prompt, 96, {"kind": "json", "answer": fields})
    for i, (text, labels, label) in enumerate(CLASSIFICATIONS):
        prompt = f"Classify this text. Answer with one of: {', '.join(labels)}.\n\n{text}"
        check = {"kind": "label", "answer": label, "labels": list(labels)}
        yield task("classification", i, "textops", prompt, 24, check)
    for i, (text, question, answers) in enumerate(PASSAGES):
        prompt = f"{text}\n\nQuestion: {question} Answer in a few words from the text."
        yield task("passage", i, "textops", prompt, 40, {"kind": "any_of", "answers": answers})


def general_tasks() -> Iterator[Task]:
    for i, (question, answers) in enumerate(CLOSED_QUESTIONS):
        prompt = f"{question} Answer in a few words."
        yield task("question", i, "general", prompt, 40, {"kind": "any_of", "answers": answers})


def translate_tasks() -> Iterator[Task]:
    for i, (language, text, answers) in enumerate(TRANSLATIONS):
        prompt = f'Translate into {language}: "{text}" Answer with the translation only.'
        check = {"kind": "any_of", "answers": answers}
        yield task("translation", i, "translate", prompt, 40, check)


def writing_tasks() -> Iterator[Task]:
    for i, (prompt, rules) in enumerate(WRITING):
        yield task("writing", i, "writing", prompt, 160, {"kind": "rules", "rules": rules})


def write(name: str, tasks: Iterable[Task]) -> None:
    lines = [json.dumps(one, ensure_ascii=False) for one in tasks]
    TASKS.mkdir(parents=True, exist_ok=True)
    (TASKS / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(lines)} tasks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--infilling", type=Path, required=True)
    parser.add_argument("--smart-home", type=Path, required=True)
    arguments = parser.parse_args()
    problems = humaneval(arguments.infilling)
    write("code", [*function_tasks(problems, 41), *infilling_tasks(problems, 27)])
    write("assistant", home_tasks(arguments.smart_home, 64))
    write("math", math_tasks(64))
    write("textops", textops_tasks())
    write("general", general_tasks())
    write("translate", translate_tasks())
    write("writing", writing_tasks())


if __name__ == "__main__":
    main()
