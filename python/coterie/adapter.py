"""coterie.Adapter: a LoRA adapter, opened for one expert."""

from __future__ import annotations

import os
from typing import Any

from coterie import _coterie
from coterie.expert import Expert


class Adapter:
    """A change of an expert's weights by low-rank matrices (LoRA), applied unmerged while the
    expert answers. Immutable, thread-safe."""

    def __init__(self, core: _coterie.Adapter) -> None:
        self._core = core

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, base: Expert) -> Adapter:
        """Reads a PEFT folder (adapter_config.json and adapter_model.safetensors) or a GGUF adapter
        file, for an expert.

        Raises KeyError for a missing file, OSError for a damaged one, ValueError for one that does
        not fit the base's extents, and coterie.Error for one of another base
        ("failed_precondition") or that uses what is not implemented ("unimplemented"), naming it.
        """
        return cls(_coterie.Adapter.open(os.fspath(path), base=base._native))

    def save(self, path: str | os.PathLike[str], *, format: str = "peft") -> None:
        """Writes a PEFT folder ("peft") or a GGUF file as llama.cpp reads it ("gguf"), in f32."""
        self._core.save(os.fspath(path), format=format)

    def merge(
        self, path: str | os.PathLike[str], *, base: Expert, format: str = "gguf", type: str = "F16"
    ) -> None:
        """Writes a whole model, the adapter added to its base's weights, for programs that know no
        adapters. The adapted matrices become `type`: "F16", "BF16" or "Q8_0"; all else stays.

        format: "gguf", with all keys of the base's GGUF file, or "hf", a copy of the base's Hugging
        Face folder. coterie.Error ("unimplemented") where the base is of the other kind.
        """
        self._core.merge(os.fspath(path), base=base._native, format=format, type=type)

    @property
    def warning(self) -> str:
        """What could not be checked when it was opened: a file of others names no base by hash.
        Empty if all was."""
        return self._core.warning

    @property
    def description(self) -> dict[str, Any]:
        """Name, base, layers, ranks, linear layers, parameters and bytes."""
        return dict(self._core.description)
