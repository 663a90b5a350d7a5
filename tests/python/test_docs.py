"""The pages of docs/ are true: their runnable blocks run, their files and links exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Pages that another page may name before they are written.
COMING = {"value.md"}


class Block(NamedTuple):
    """A fenced block: ```language words, such as ```sh runnable or ```toml file=coterie.toml."""

    language: str
    words: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    found = re.finditer(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", page, re.M)
    return [Block(m[1], m[2].strip(), m[3], page.count("\n", 0, m.start()) + 1) for m in found]


def run(block: Block, folder: Path) -> None:
    if block.words.startswith("file="):
        (folder / block.words.removeprefix("file=")).write_text(block.text)
        return
    if block.words != "runnable":
        return
    command = {
        "sh": ["bash", "-euo", "pipefail", "-c", block.text],
        "python": [sys.executable, "-c", block.text],
    }[block.language]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"line {block.line}:\n{block.text}\n{done.stdout}\n{done.stderr}"


def runnable_pages() -> list[str]:
    return [page.name for page in PAGES if "runnable\n" in page.read_text()]


def test_there_are_pages_to_run() -> None:
    assert len(runnable_pages()) >= 5


@pytest.mark.model
@pytest.mark.parametrize("name", runnable_pages())
def test_the_runnable_blocks_of_a_page_run(name: str, tmp_path: Path) -> None:
    pytest.importorskip("coterie")
    for block in blocks_of((ROOT / "docs" / name).read_text()):
        run(block, tmp_path)


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    for language, text in (("sh", "false\ntrue\n"), ("python", "raise SystemExit(3)\n")):
        with pytest.raises(AssertionError, match="line 7"):
            run(Block(language, "runnable", text, 7), tmp_path)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        if Path(target).name not in COMING:
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [p.name for p in PAGES if p.name != "index.md" and f"({p.name})" not in index] == []
