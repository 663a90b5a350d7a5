"""$COTERIE_HOME/measurements.json: the table that dispatch reads, as `bench value` measured it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.store import write_atomically
from coterie.value.matrix import Matrix

FILE = "measurements.json"


def write(home: Path, experts: Sequence[dict[str, Any]], matrix: Matrix) -> Path:
    """Adds the matrix to the file, by base and adapter; what others measured stays.

    experts: of Assistant.experts(). The file is replaced as a whole, so a reader sees the old or
    the new one. A file that is not ours is replaced too: the core has refused it already.
    """
    path = home / FILE
    entries = _read(path)
    for expert in experts:
        if expert["name"] not in matrix:
            continue
        key = (expert["base"], expert["adapter"])
        domains = entries.setdefault(key, {})
        for domain, cell in matrix[expert["name"]].items():
            domains[domain] = {
                "quality": round(cell.quality, 4),
                "answer_seconds": round(cell.seconds, 3),
                "n": cell.n,
            }
    content = {
        "version": 1,
        "experts": [
            {"base": base, "adapter": adapter, "domains": domains}
            for (base, adapter), domains in sorted(entries.items())
        ],
    }
    home.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    return path


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            (str(entry["base"]), str(entry.get("adapter", ""))): dict(entry["domains"])
            for entry in content["experts"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
