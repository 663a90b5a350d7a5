"""Gradients of every adapted matrix are as near to float64 as PEFT's, on the same quantised file.

    COTERIE_PEERS=PYTHON .venv/bin/python -m pytest -q -m peer tests/python/test_training_peers.py

PYTHON: see test_adapter_peers.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from adapter_peer import IDS
from test_adapter_peers import run_peer

coterie = pytest.importorskip("coterie")
pytestmark = [pytest.mark.peer, pytest.mark.model]


@pytest.mark.parametrize("model", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_gradients_are_those_of_peft(model: str, tmp_path: Path) -> None:
    from coterie.store import Store

    store = Store()
    record = store.find(model)
    assert record is not None, f"coterie pull {model}"
    path = tmp_path / f"{model}.gguf"  # transformers wants the ending.
    path.symlink_to(Path(store.path_of(record)).resolve())
    run_peer("gradients", path, tmp_path / "made", tmp_path / "gradients.npz")
    wanted = numpy.load(tmp_path / "gradients.npz")

    expert = coterie.Expert.open(path)
    trainer = coterie.Trainer(expert, max_tokens=64, rank=8, alpha=16.0, precision="f32")
    trainer.load(coterie.Adapter.open(tmp_path / "made", base=expert))
    half = len(IDS) // 2
    trainer.step([(IDS, [False] * half + [True] * (len(IDS) - half))])
    found = trainer.gradients()
    assert len(found) * 4 == len(wanted.files)
    for layer, linear, a, b in found:
        for matrix, ours in (("lora_A", a), ("lora_B", b)):
            name = f"{layer}.{linear}_proj.{matrix}"
            exact = wanted[f"torch.float64.{name}"]
            norm = numpy.linalg.norm(exact)
            error = numpy.linalg.norm(ours - exact) / norm
            of_peft = numpy.linalg.norm(wanted[f"torch.float32.{name}"] - exact) / norm
            # Where float32 itself is further off, in PEFT too, nobody can be nearer.
            assert error <= max(1e-4, 2 * of_peft), f"{name}: {error:.2e}, PEFT {of_peft:.2e}"
