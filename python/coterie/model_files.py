"""Which files a model consists of: one GGUF file, one in parts, or a Hugging Face folder.

The compiled part decides alike (experts/model_files.h).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from coterie.errors import Error

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.ASCII)
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# What beside the weights makes a folder's model what it is.
_DESCRIPTIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def is_model_folder(path: Path) -> bool:
    """Whether this is a Hugging Face folder with weights."""
    has_weights = (path / _SINGLE).is_file() or (path / _INDEX).is_file()
    return has_weights and (path / "config.json").is_file()


def is_part(name: str) -> bool:
    """Whether a file's name is that of a part of a split GGUF file."""
    return _PART.fullmatch(name) is not None


def first_part(path: Path) -> Path:
    """The file that opens the model of which `path` may be a part."""
    match = _PART.fullmatch(path.name)
    return path.with_name(f"{match['stem']}-00001-of-{match['count']}.gguf") if match else path


def weight_files(path: Path) -> list[Path]:
    """Every file that holds weights. Error "data_loss" for a folder whose index is wrong."""
    if path.is_dir():
        return [path / _SINGLE] if (path / _SINGLE).is_file() else _shards(path)
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    stem, count = match["stem"], match["count"]
    return [
        path.with_name(f"{stem}-{part:05}-of-{count}.gguf") for part in range(1, int(count) + 1)
    ]


def model_files(path: Path) -> list[Path]:
    """Every file that makes the model what it is: weights, configuration, tokenizer, template."""
    if not path.is_dir():
        return weight_files(path)
    beside = [path / name for name in _DESCRIPTIONS]
    return [file for file in beside if file.is_file()] + weight_files(path)


def measure(path: Path) -> tuple[int, int]:
    """Bytes of the weight files, and when one of the model's files was last changed (ns).

    OSError for a file that is missing.
    """
    n_bytes = sum(file.stat().st_size for file in weight_files(path))
    return n_bytes, max(file.stat().st_mtime_ns for file in model_files(path))


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        if not names or not all(_is_plain(name) for name in names):
            raise ValueError("it names files that are not beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Error(f"cannot read the index of shards {index}: {error}", "data_loss") from None
    return [folder / name for name in sorted(names)]


def _is_plain(name: object) -> bool:
    if not isinstance(name, str) or not name.endswith(".safetensors") or name.startswith("."):
        return False
    return not any(character in name for character in "/\\\0")
