"""What the machine is and can do at most."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from performance.programs import ROOT, ours


def describe() -> dict[str, Any]:
    return {"cpu": cpu_name(), "commit": commit(), **ours("session_bench", "--limits")}


def commit() -> str:
    """With "-dirty" where more than docs, which benchmarks write, differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    name = git("describe", "--always")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return (name + "-dirty" if changed else name) or "unknown"


def cpu_name() -> str:
    """As the kernel has it; on a virtual machine with the numbers that tell what it stands for."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", "unknown")
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
