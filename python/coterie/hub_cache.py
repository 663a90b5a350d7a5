"""Model files that other programs have fetched already: Hugging Face's cache and Ollama's store.

Both layouts are read as they lie on the disk; nothing is fetched and nothing is changed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from coterie.errors import Error
from coterie.manifest import is_safe_member
from coterie.model_files import is_model_folder, is_part

_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_OLLAMA_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+){0,3}(?::[\w.-]+)?", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)


def hub_cache_folder() -> Path:
    """$HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def find_in_hub_cache(repo: str, file: str, revision: str = "main") -> Path:
    """The file of a repository in Hugging Face's cache. Error "not_found" says where it looked."""
    if not is_safe_member(file):
        raise ValueError(f"hf:{repo}/{file} is not of the form hf:OWNER/REPO/FILE")
    path = _snapshot(repo, revision) / file
    if not path.is_file():
        raise Error(
            f"Hugging Face's cache has no {file} of {repo}: {path} is missing; fetch it with "
            f'"hf download {repo} {file}", or use "coterie pull" for the models it lists',
            "not_found",
        )
    # A link to a file named by its hash; the parts of a split file find each other by name.
    return path if is_part(path.name) else path.resolve()


def find_folder_in_hub_cache(repo: str, revision: str = "main") -> Path:
    """The folder of a repository with config.json and safetensors in Hugging Face's cache."""
    path = _snapshot(repo, revision)
    if not is_model_folder(path):
        raise Error(
            f"Hugging Face's cache has no model of {repo} with config.json and safetensors: {path};"
            f' fetch it with "hf download {repo}"; for a GGUF file say hf:{repo}/FILE',
            "not_found",
        )
    return path


def _snapshot(repo: str, revision: str) -> Path:
    if repo.count("/") != 1 or not all(repo.split("/")) or not is_safe_member(repo):
        raise ValueError(f"hf:{repo} is not of the form hf:OWNER/REPO or hf:OWNER/REPO/FILE")
    folder = hub_cache_folder() / f"models--{repo.replace('/', '--')}"
    if not is_safe_member(revision):
        raise ValueError(f"{revision} cannot be a revision")
    commit = revision
    reference = folder / "refs" / revision
    if reference.is_file():
        commit = reference.read_text(encoding="utf-8", errors="replace").strip()
    if not is_safe_member(commit):
        raise Error(f"Hugging Face's cache is damaged: {reference} is no commit", "not_found")
    return folder / "snapshots" / commit


def ollama_folder() -> Path:
    """$OLLAMA_MODELS, else ~/.ollama/models."""
    return Path(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()


def find_in_ollama(name: str) -> Path:
    """The weights of a model in Ollama's store: "llama3.2", "llama3.2:1b", "owner/model:tag"."""
    if not _OLLAMA_NAME.fullmatch(name) or not is_safe_member(name.replace(":", "/")):
        raise ValueError(f'"{name}" is not the name of an Ollama model')
    model, _, tag = name.partition(":")
    parts = model.split("/")
    defaults = ["registry.ollama.ai", "library"]
    parts = defaults[: max(0, 3 - len(parts))] + parts
    manifest = ollama_folder().joinpath("manifests", *parts, tag or "latest")
    digest = _model_digest(manifest, name)
    path = ollama_folder() / "blobs" / f"sha256-{digest}"
    if not path.is_file():
        raise Error(
            f"Ollama's store is incomplete: {path} is missing; run "
            f'"ollama pull {name}"', "not_found"
        )  # fmt: skip
    return path


def _model_digest(manifest: Path, name: str) -> str:
    try:
        layers = json.loads(manifest.read_bytes())["layers"]
        digests = [str(layer["digest"]) for layer in layers if layer["mediaType"] == _OLLAMA_MODEL]
    except FileNotFoundError:
        raise Error(
            f'Ollama has no model "{name}": {manifest} is missing; "ollama list" names what it has',
            "not_found",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Error(f"cannot read Ollama's manifest {manifest}: {error}", "data_loss") from None
    match = _DIGEST.fullmatch(digests[0]) if len(digests) == 1 else None
    if match is None:
        raise Error(
            f"Ollama's manifest {manifest} names {len(digests)} weight files instead of one",
            "unimplemented",
        )
    return match[1]
