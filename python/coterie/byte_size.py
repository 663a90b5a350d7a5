"""Byte counts as people write and read them: MB is 10^6, MiB is 2^20."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", re.ASCII)


def parse_bytes(text: str) -> int:
    """Bytes in "2GiB", "500 MB", "1.5gb" or "1048576"; ValueError for anything else."""
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(
            f'"{text}" is not a size: write a number and a unit, such as 500MB or 2GiB'
        )
    number = match[1]
    n_bytes = round(float(number) * unit) if "." in number else int(number) * unit
    if n_bytes >= 2**63:
        raise ValueError(f'"{text}" is more bytes than a file or memory can have')
    return n_bytes


def format_bytes(n_bytes: float) -> str:
    """ "98.4 MB": decimal units, three significant digits."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(n_bytes) >= scale:
            value = n_bytes / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"
