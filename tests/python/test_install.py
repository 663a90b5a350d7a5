"""cmake --install gives find_package(coterie), and the README's C++ program builds and answers."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from coterie.store import Store

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "COTERIE_ROUTER"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.model
def test_the_programs_of_the_pages_build_against_an_installation_and_answer(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    run("cmake", "--install", BUILD, "--component", "library", "--prefix", prefix)
    program = tmp_path / "program"
    shutil.copytree(ROOT / "tests" / "install", program)
    run("cmake", "-S", program, "-B", program / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", program / "build")
    output = run(program / "build" / "hello")
    assert "\n-- " in output, output
    store = Store()
    record = store.find("smollm2-135m")
    assert record is not None
    output = run(program / "build" / "parts", store.path_of(record), "Write a bash loop.")
    assert re.match(r"code: code \d+ %(.|\n)*\n-- \d+ tokens\n$", output), output


def test_the_readme_shows_the_program_that_is_tested() -> None:
    program = (ROOT / "tests" / "install" / "hello.cc").read_text()
    assert program in (ROOT / "README.md").read_text()


def test_the_embedding_page_shows_the_program_that_is_tested() -> None:
    program = (ROOT / "tests" / "install" / "parts.cc").read_text()
    assert program in (ROOT / "docs" / "embedding.md").read_text()
