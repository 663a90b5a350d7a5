"""Models made for tests: their bytes, wheels that carry them, and entries that describe them."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import zipfile
from pathlib import Path

from coterie.manifest import HubFile, ModelEntry, ModelFile, WheelMember

CONTENT = b"GGUF" + random.Random(1).randbytes(5000)
HUB = HubFile("owner/repo", "model.gguf", "rev")
HUB_PATH = "/owner/repo/resolve/rev/model.gguf"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(
    folder: Path, name: str, members: dict[str, bytes], repeat: str | None = None
) -> tuple[Path, str]:
    """A wheel that pip accepts; `repeat` is stored twice."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    tags = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    everything = {**members, f"{info}/METADATA": metadata, f"{info}/WHEEL": tags}
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**everything, f"{info}/RECORD": b""}.items():
            archive.writestr(member, data)
        if repeat:
            archive.writestr(repeat, members[repeat])
    return wheel, sha256(wheel.read_bytes())


def wheel_part(folder: Path, name: str, data: bytes, member: str | None = None) -> WheelMember:
    """A wheel with one part of a model, and what the list of models says of it."""
    member = member or f"{name}/part.bin"
    wheel, digest = make_wheel(folder, name, {member: data})
    return WheelMember(f"{name}==1.0", wheel.name, digest, member, len(data))


def entry_of(content: bytes = CONTENT, parts: tuple[WheelMember, ...] = ()) -> ModelEntry:
    file = ModelFile("model.gguf", len(content), sha256(content), HUB, parts)
    return ModelEntry("tiny", "Apache-2.0", (file,), directory=False)


def with_hash(entry: ModelEntry, digest: str) -> ModelEntry:
    return dataclasses.replace(entry, files=(dataclasses.replace(entry.files[0], sha256=digest),))
