"""Registers models that are here already, where they lie: files, files in parts, folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.errors import Error, sentence_of
from coterie.hub_cache import find_folder_in_hub_cache, find_in_hub_cache, find_in_ollama
from coterie.model_files import first_part, is_model_folder, measure, model_files
from coterie.progress import Progress
from coterie.store import ModelRecord, Store, check_name, hash_file

_BLOB = re.compile(r"sha256-([0-9a-f]{64})", re.ASCII)
Inspect = Callable[[str], dict[str, Any]]


def add(
    what: str,
    store: Store,
    progress: Progress,
    name: str | None = None,
    replace: bool = False,
    inspect: Inspect | None = None,
) -> ModelRecord:
    """Registers FILE, DIR, hf:OWNER/REPO, hf:OWNER/REPO/FILE or ollama:NAME under a name.

    DIR is a Hugging Face folder, or one with a single GGUF model. Files are used in place and never
    changed; their hash is computed once. inspect raises for what is no model; without it, only the
    first bytes of files are looked at. Errors: "not_found", "data_loss" for what is no model,
    "already_exists" for a name that another model has.
    """
    path, source, suggested = _locate(what)
    name = check_name(name or suggested)
    facts = _checked(path, inspect)
    before = store.find(name)
    n_bytes, mtime_ns = measure(path)
    if before is not None and not replace:
        same = store.path_of(before) == path and store.problem_of(before) is None
        if same and before.mtime_ns == mtime_ns:
            return before
        raise Error(
            f'there is a model named "{name}" already ({store.path_of(before)}): choose another '
            "with --name, or --replace it",
            "already_exists",
        )
    record = ModelRecord(
        name=name,
        path=str(path),
        sha256=_hash(path, n_bytes, name, progress),
        bytes=n_bytes,
        license=_license(facts),
        source=source,
        file=path.name,
        mtime_ns=mtime_ns,
    )
    store.write(record)
    return record


def _locate(what: str) -> tuple[Path, str, str]:
    """Path, where it comes from, and a name made of it."""
    kind, _, rest = what.partition(":")
    if kind == "hf" and rest:
        owner, _, tail = rest.partition("/")
        repo, _, file = tail.partition("/")
        if not file:
            path = find_folder_in_hub_cache(f"{owner}/{repo}")
            return path, f"hf:{rest}", name_from(repo)
        path = find_in_hub_cache(f"{owner}/{repo}", file)
        return path, f"hf:{rest}", name_from(Path(file).stem)
    if kind == "ollama" and rest:
        return find_in_ollama(rest), what, name_from(rest.removesuffix(":latest"))
    path = Path(what).expanduser().absolute()
    if is_model_folder(path):
        return path, "file", name_from(path.name)
    if path.is_dir():
        path = _only_model_in(path)
    if not path.is_file():
        raise Error(f"there is no file {path}", "not_found")
    return path, "file", name_from(path.stem)


def name_from(text: str) -> str:
    """ "SmolLM2 135M/Q4" -> "smollm2-135m-q4"."""
    name = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
    return name[:64] or "model"


def _only_model_in(folder: Path) -> Path:
    files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    models = sorted({first_part(path) for path in files})
    if len(models) == 1:
        return models[0]
    if not files:
        raise Error(f"{folder} holds neither a .gguf file nor a config.json", "not_found")
    names = ", ".join(path.name for path in files[:5])
    raise Error(f"{folder} holds {len(files)} .gguf files: name one of {names}", "invalid_argument")


def _checked(path: Path, inspect: Inspect | None) -> dict[str, Any]:
    """What the model says of itself. Error "data_loss" if it is none."""
    magic = b""
    if path.is_file():
        with path.open("rb") as file:
            magic = file.read(4)
    if path.is_file() and magic != b"GGUF":
        raise Error(f"{path} is no GGUF model file: it begins with {magic!r}", "data_loss")
    if inspect is None:
        return {}
    try:
        return inspect(str(path))
    except (ValueError, OSError, KeyError) as error:
        raise Error(f"{path} cannot be used: {sentence_of(error)}", "data_loss") from None


def _license(facts: dict[str, Any]) -> str:
    """The licence that the file names: inspect describes the key as: string "apache-2.0"."""
    match = re.fullmatch(r'string "(.{1,200})"', facts.get("keys", {}).get("general.license", ""))
    return match[1] if match else "unknown"


def _hash(path: Path, n_bytes: int, name: str, progress: Progress) -> str:
    """Of a file: from its own name where that is its hash (as in Ollama's store), else computed. Of
    several: the hash of the lines "<hash>  <name>" of all files that make the model what it is.
    """
    if match := _BLOB.fullmatch(path.name):
        return match[1]
    done = 0

    def advance(step: int) -> None:
        nonlocal done
        done += step
        progress.set(min(done, n_bytes))

    progress.start(f"hashing {name}", n_bytes)
    try:
        files = model_files(path)
        if files == [path]:
            return hash_file(path, advance)
        lines = [f"{hash_file(file, advance)}  {file.name}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    finally:
        progress.finish()
