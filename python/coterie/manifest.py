"""The list of models that `coterie pull` knows: models.lock.json, beside this file.

Each model has a Hugging Face reference and the same bytes inside wheels of a Python package index.
Whatever the source, size and SHA-256 decide.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from coterie.errors import Error
from coterie.store import check_name

# Where to take a model from; "auto" is Hugging Face, or wheels if that is out of reach.
Source = Literal["auto", "hf", "wheels"]

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository."""

    repo: str
    file: str
    revision: str = "main"


@dataclasses.dataclass(frozen=True)
class WheelMember:
    """Bytes inside a wheel: one part of a file, or the whole of it."""

    requirement: str  # "name==version"
    wheel: str
    wheel_sha256: str
    member: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """One file and the places that have it. Parts are joined in their order."""

    file: str
    bytes: int
    sha256: str
    hub: HubFile
    parts: tuple[WheelMember, ...]


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """A model: one file, or a folder of several."""

    name: str
    license: str
    files: tuple[ModelFile, ...]
    directory: bool

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def load_manifest(path: Path | None = None) -> dict[str, ModelEntry]:
    """Entries by name. Error names the file and the entry that is wrong."""
    source = path or importlib.resources.files("coterie") / "models.lock.json"
    name = "?"
    try:
        entries = {}
        for fields in json.loads(source.read_text(encoding="utf-8"))["models"]:
            name = fields["name"]
            entries[check_name(name)] = _entry(fields)
        return entries
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Error(
            f"the list of models is not readable: {source}: entry {name}: {error}", "data_loss"
        ) from None


def is_safe_member(name: str) -> bool:
    """Whether a name inside an archive or a folder stays inside it."""
    path = PurePosixPath(name)
    return bool(name) and not (
        path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name
    )


def _entry(fields: dict[str, Any]) -> ModelEntry:
    directory = bool(fields.get("directory", False))
    file = _folder_file if directory else _single_file
    files = fields["files"] if directory else [fields]
    return ModelEntry(
        name=fields["name"],
        license=str(fields["license"]),
        files=tuple(file(fields, item) for item in files),
        directory=directory,
    )


def _single_file(fields: dict[str, Any], item: dict[str, Any]) -> ModelFile:
    parts = tuple(_part(w, w["member"], w["member_bytes"]) for w in fields["wheels"])
    if parts and sum(part.bytes for part in parts) != fields["bytes"]:
        raise ValueError("the parts in wheels do not add up to its bytes")
    return _file(item, _hub(fields["hf"], fields["hf"]["file"]), parts)


def _folder_file(fields: dict[str, Any], item: dict[str, Any]) -> ModelFile:
    parts = tuple(_part(w, item["member"], item["bytes"]) for w in fields["wheels"][:1])
    return _file(item, _hub(fields["hf"], item["file"]), parts)


def _file(item: dict[str, Any], hub: HubFile, parts: tuple[WheelMember, ...]) -> ModelFile:
    if not is_safe_member(item["file"]):
        raise ValueError(f"unsafe file name {item['file']}")
    return ModelFile(item["file"], _count(item["bytes"]), _hash(item["sha256"]), hub, parts)


def _part(wheel: dict[str, Any], member: str, n_bytes: int) -> WheelMember:
    if "/" in wheel["wheel"] or not is_safe_member(wheel["wheel"]) or not is_safe_member(member):
        raise ValueError(f"unsafe member {member} of {wheel['wheel']}")
    return WheelMember(
        requirement=wheel["requirement"],
        wheel=wheel["wheel"],
        wheel_sha256=_hash(wheel["wheel_sha256"]),
        member=member,
        bytes=_count(n_bytes),
    )


def _hub(fields: dict[str, Any], file: str) -> HubFile:
    if not _REPO.fullmatch(fields["repo"]):
        raise ValueError(f"{fields['repo']} is no repository")
    return HubFile(fields["repo"], file, fields.get("revision", "main"))


def _hash(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError(f"{text} is no SHA-256")
    return text


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value} is no number of bytes")
    return value
