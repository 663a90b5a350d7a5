"""Types and docstrings: what editors and checkers see is what the compiled module has."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

coterie = pytest.importorskip("coterie")

ROOT = Path(__file__).resolve().parents[2]

USER_CODE = """
import coterie


def ask(assistant: coterie.Assistant, question: str) -> str:
    reply: coterie.Reply = assistant.generate(question, max_tokens=64, temperature=0.0, stop="\\n")
    options: coterie.Options = {"expert": reply.expert, "seed": 1}
    with assistant.stream([{"role": "user", "content": question}], **options) as stream:
        text = "".join(stream)
    return text + stream.reply.finish_reason


def route(router: coterie.Router, text: str) -> float:
    scores: coterie.DomainScores = router.classify(text)
    router.correct(text, "code")
    return scores.probabilities[scores.domain]


def compute(path: str) -> int:
    expert = coterie.Expert.open(path, activations="f32", threads=2)
    ids: list[int] = expert.tokenizer.encode("hello", parse_special=False)
    return int(expert.logits(ids).argmax())


try:
    print(ask(coterie.Assistant.open(memory_budget="2GiB"), "hi"))
except coterie.Busy as error:
    print(error.code)
"""


# Each line is wrong, and the checker names the word.
MISTAKES = {
    "coterie.Assistant.open().generate('hi', max_token=3)": "max_token",
    "coterie.Assistant.open().generate('hi', max_tokens='3')": "max_tokens",
    "coterie.Router.default().classify(3)": "classify",
    "coterie.Expert.open('a').tokenizer.encode(3)": "encode",
    "coterie.Expert.open('a').logit([1])": "logit",
}


def test_a_strict_checker_passes_user_code_and_finds_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(USER_CODE)
    (tmp_path / "wrong.py").write_text("\n".join(["import coterie", *MISTAKES, ""]))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = subprocess.run(
        [*command, "--cache-dir=cache", "--follow-imports=silent", "right.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    lines = [line.split(":")[1] for line in found if line.startswith("wrong.py")]
    assert len(lines) == len(found) and done.stderr == "", done.stdout
    assert lines == [str(number) for number in range(2, 2 + len(MISTAKES))], done.stdout
    assert all(word in line for word, line in zip(MISTAKES.values(), found, strict=True))


def test_the_stub_is_what_the_compiled_module_says(tmp_path: Path) -> None:
    subprocess.run(
        [Path(sys.executable).with_name("pybind11-stubgen"), "coterie._coterie", "-o", tmp_path],
        check=True,
        capture_output=True,
    )
    made = (tmp_path / "coterie" / "_coterie.pyi").read_text()
    kept = (ROOT / "python" / "coterie" / "_coterie.pyi").read_text()
    assert kept == made, "run `make stub`"


def undocumented(owner: Any, path: str) -> list[str]:
    """Public members without a docstring."""
    missing = []
    for name, member in vars(owner).items():
        if name.startswith("_"):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            member = member.__func__
        documentable = isinstance(member, property) or callable(member)
        if documentable and not inspect.getdoc(member):
            missing.append(f"{path}.{name}")
    return missing


def test_every_public_name_has_a_docstring() -> None:
    from coterie import _coterie

    missing = []
    for module in (coterie, _coterie):
        names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        assert len(names) > 5
        for name in names:
            public = getattr(module, name)
            path = f"{module.__name__}.{name}"
            own = vars(public).get("__doc__") if inspect.isclass(public) else public.__doc__
            if not own or (own.startswith(f"{name}(") and own.endswith(")")):  # A dataclass's.
                missing.append(path)
            if inspect.isclass(public):
                missing += undocumented(public, path)
    assert missing == []


def test_a_missing_docstring_is_noticed() -> None:
    class Bare:
        def method(self) -> None: ...

        @property
        def value(self) -> int:
            return 1

        def said(self) -> None:
            """Says."""

    assert undocumented(Bare, "Bare") == ["Bare.method", "Bare.value"]


def test_an_unknown_option_names_the_nearest() -> None:
    from coterie.assistant import Assistant

    class Core:
        def stream(self, prompt: str, options: dict[str, Any]) -> None:
            raise AssertionError("reached")

    assistant = Assistant(Core())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match='no option "max_token"; did you mean "max_tokens"'):
        assistant.stream("hi", max_token=3)  # type: ignore[call-arg]
