"""The programs that measure, each of which prints one JSON object at its end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr.strip()}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def ours(program: str, *arguments: object) -> dict[str, Any]:
    """A program of build/release/bench."""
    return run_json([str(ROOT / "build/release/bench" / program), *map(str, arguments)])


class Peer:
    """llama.cpp, through a Python that has llama-cpp-python; or nothing, where there is none."""

    def __init__(self, python: str | None) -> None:
        self._python = python

    def __bool__(self) -> bool:
        return self._python is not None

    def measure(self, *arguments: object) -> dict[str, Any]:
        if self._python is None:
            return {}
        script = str(ROOT / "bench/llama_cpp_peer.py")
        return run_json([self._python, script, *map(str, arguments)])
