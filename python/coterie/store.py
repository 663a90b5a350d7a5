"""The model store: files by content, records by name.

    $COTERIE_HOME/blobs/sha256-<hex>     a model file, read-only
    $COTERIE_HOME/blobs/sha256-<hex>.partial, .lock    a download on its way
    $COTERIE_HOME/models/<name>.json     a record; the compiled part finds its experts here
    $COTERIE_HOME/models/<name>.gguf     a link to the model if it is one file, for people
    $COTERIE_HOME/folders/<name>/...     models of several files, as links; no experts

A record appears by an atomic rename after its file is complete, so whoever reads the store sees a
model wholly or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.errors import Error
from coterie.model_files import measure, model_files

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_READ_BYTES = 1 << 20
_MAX_RECORD_BYTES = 1 << 16  # What the compiled part reads.


def default_home() -> Path:
    """$COTERIE_HOME, or ~/.cache/coterie."""
    return Path(os.environ.get("COTERIE_HOME") or "~/.cache/coterie").expanduser()


def check_name(name: str) -> str:
    """The name itself if it can be one of a model; ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" cannot name a model: use lower-case letters, digits, ".", "_" and "-", '
            "64 at most"
        )
    return name


def hash_file(path: Path, progress: Callable[[int], None] = lambda n: None) -> str:
    """SHA-256 in hex; progress gets the number of bytes of each step."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """What the store knows of a model."""

    name: str
    path: str  # Relative to the home, or absolute for a file used where it lies.
    sha256: str
    bytes: int
    license: str = "unknown"
    source: str = "unknown"
    file: str = ""  # Its name where it came from.
    mtime_ns: int | None = None  # When sha256 was computed; only for files used where they lie.

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        if self.mtime_ns is None:
            del fields["mtime_ns"]
        return fields

    @staticmethod
    def from_json(fields: object, name: str) -> ModelRecord:
        """ValueError says which field is wrong."""
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        known = {}
        for field in dataclasses.fields(ModelRecord):
            if field.name not in fields:
                continue
            known[field.name] = fields[field.name]
            number = field.name in ("bytes", "mtime_ns")
            if type(known[field.name]) is not (int if number else str):
                raise ValueError(f"{field.name} is not a {'number' if number else 'string'}")
        missing = {"name", "path", "sha256", "bytes"} - known.keys()
        if missing:
            raise ValueError(f"{min(missing)} is missing")
        if known["name"] != name:
            raise ValueError(f'it names itself "{known["name"]}"')
        if not _SHA256.fullmatch(known["sha256"]) or known["bytes"] < 0:
            raise ValueError("sha256 or bytes cannot be right")
        return ModelRecord(**known)


class Store:
    """The files under one home. Any number of processes may use it at once."""

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = (Path(home).expanduser() if home else default_home()).absolute()
        self.blobs = self.home / "blobs"
        self.models = self.home / "models"
        self.folders = self.home / "folders"

    def blob(self, sha256: str) -> Path:
        return self.blobs / f"sha256-{sha256}"

    def path_of(self, record: ModelRecord) -> Path:
        return self.home / record.path  # An absolute path stays itself.

    def records(self) -> tuple[list[ModelRecord], list[str]]:
        """All readable records by name, and one sentence for each that is not."""
        records, problems = [], []
        for path in sorted(self.models.glob("*.json")) if self.models.is_dir() else []:
            try:
                records.append(self._read(path))
            except Error as error:
                problems.append(str(error))
        return records, problems

    def find(self, name: str) -> ModelRecord | None:
        path = self.models / f"{check_name(name)}.json"
        return self._read(path) if path.exists() else None

    def problem_of(self, record: ModelRecord) -> str | None:
        """Why the record's file cannot be used, as far as a look at its size and time can tell."""
        try:
            n_bytes, mtime_ns = measure(self.path_of(record))
        except (OSError, Error):
            return "file is missing"
        if n_bytes != record.bytes:
            return "file has another size than when it was added"
        if record.mtime_ns is not None and mtime_ns != record.mtime_ns:
            return "file has changed since it was added"
        return None

    def write(self, record: ModelRecord) -> None:
        """Makes the record visible, and the link beside it."""
        check_name(record.name)
        self.models.mkdir(parents=True, exist_ok=True)
        link = self.models / f"{record.name}.gguf"
        if model_files(self.path_of(record)) == [self.path_of(record)]:
            replace_link(link, self.path_of(record), inside=self.home)
        else:  # Parts find each other by name, and a folder is no GGUF file.
            link.unlink(missing_ok=True)
        text = json.dumps(record.to_json(), indent=1) + "\n"
        write_atomically(self.models / f"{record.name}.json", text)

    def remove(self, name: str) -> None:
        """Forgets a record and its link; the blob stays until nothing names it."""
        for ending in (".json", ".gguf"):
            (self.models / f"{check_name(name)}{ending}").unlink(missing_ok=True)

    def _read(self, path: Path) -> ModelRecord:
        try:
            if not path.is_file():  # Reading a pipe would wait for its writer.
                raise ValueError("not a regular file")
            if path.stat().st_size > _MAX_RECORD_BYTES:
                raise ValueError(f"longer than {_MAX_RECORD_BYTES} bytes")
            return ModelRecord.from_json(json.loads(path.read_bytes()), path.stem)
        except (OSError, ValueError, RecursionError) as error:
            raise Error(f"cannot read the model record {path}: {error}", "data_loss") from None


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by a complete and synced one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_link(link: Path, target: Path, inside: Path) -> None:
    """Points a symbolic link at target, relatively if it lies under `inside`, which may move."""
    relative = target.is_relative_to(inside)
    pointer = os.path.relpath(target, link.parent) if relative else str(target)
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    os.symlink(pointer, temporary)
    os.replace(temporary, link)


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
