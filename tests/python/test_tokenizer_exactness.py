"""Ids equal those of Hugging Face tokenizers on 50,000 strings of each family and more.

The strings are made anew here: random Unicode, the assigned code points, white space, code, special
tokens (make_tokenizer_golden.py stress; --full there sweeps over all code points, four times).
The vocabularies are those of real models.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("COTERIE_BUILD", ROOT / "build" / "release"))
STORE = Path(os.environ.get("COTERIE_HOME", Path.home() / ".cache" / "coterie")) / "models"
SOURCES = {
    "gpt2": STORE / "smollm2-135m.gguf",
    "smollm": STORE / "smollm2-135m.gguf",
    "llama3": STORE / "smollm2-135m.gguf",
    "qwen2": STORE / "qwen2.5-coder-0.5b.gguf",
    "sentencepiece": STORE / "gemma-3-270m.gguf",
    "wordpiece": ROOT / "router" / "default_router.gguf",
}


@pytest.mark.model
@pytest.mark.parametrize("family", SOURCES)
def test_ids_equal_those_of_hugging_face(family: str, tmp_path: Path) -> None:
    cases = tmp_path / f"{family}.jsonl"
    script = ROOT / "tests" / "core" / "formats" / "make_tokenizer_golden.py"
    made = subprocess.run(
        [sys.executable, script, "stress", family, cases, "38000", "--gguf", SOURCES[family]],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(made.stdout.split()[1]) >= 50_000
    program = BUILD / "tests" / "core" / "formats" / "core_formats_tokenizer_tests"
    compared = subprocess.run(
        [program, f"--gtest_filter=*TokenizerGolden*/{family}_stress"],
        env={
            **os.environ,
            "COTERIE_TOKENIZER_CASES": str(cases.rename(tmp_path / f"{family}_stress.jsonl")),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stdout
    assert "[  PASSED  ] 1 test." in compared.stdout
